"""Zero-shot HDR video reconstruction for VapourSynth."""

__version__ = "0.1.0"
