"""The constants of the working encoding, x = linear^(1/2.2). camera.py, which computes in it, loads torch."""

GAMMA = 2.2
"""Exponent of the working encoding (the camera response assumed by the method)."""

CLIPPED = 254.5 / 255
"""Working values from which a channel counts as clipped: those that an 8-bit recording rounds to its highest code."""

LUMA = (0.213, 0.715, 0.072)
"""Weights of R, G and B in the method's luminance (ITU-R BT.709-6, rounded as in the paper's code)."""
