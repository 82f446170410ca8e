"""The simulated camera: exposure shifts in the working encoding, and the rounding of an 8-bit recording.

Frames are brought into one working encoding, x = linear^(1/2.2) (colour.py does that), because there "s stops brighter"
is exactly a product by 2^(s / 2.2). Source: Banterle et al. 2024, doi:10.1145/3648570, section 3.
"""

from __future__ import annotations

import math

import cv2
import torch
from torch import Tensor

from .working import CLIPPED as CLIPPED
from .working import GAMMA as GAMMA
from .working import LUMA as LUMA


def gain(stops: float) -> float:
    """Factor in the working encoding that brightens by `stops` (negative: darkens)."""
    return float(2.0 ** (stops / GAMMA))


def round8(sdr: Tensor) -> Tensor:
    """Round display-encoded values in [0, 1] to the 256 codes of an 8-bit recording."""
    return (sdr * 255).round() / 255


def shift(sdr: Tensor, stops: float) -> Tensor:
    """What the camera would have recorded `stops` brighter: clipped to [0, 1] and rounded to 8 bits. Any shape."""
    return round8((sdr * gain(stops)).clamp(0, 1))


def encode(linear: Tensor) -> Tensor:
    """Linear light (1.0 = SDR white) to the working encoding, clipped to [0, 1]. Any shape."""
    x = linear.clamp(0.0, 1.0)
    if x.device.type == "cpu" and torch.is_inference_mode_enabled():  # else somebody wants its gradient, or its graph
        in_a_row = x.as_strided((x.numel(),), (1,)).numpy()  # as they lie in memory
        cv2.log(in_a_row, in_a_row)  # a sixth of the time of torch's
    else:
        x.log_()
    return x.mul_(1 / (GAMMA * math.log(2))).exp2_()  # a third of the time of pow


def decode(sdr: Tensor) -> Tensor:
    """Working encoding to linear light, 1.0 = SDR white. Any shape."""
    return sdr.pow(GAMMA)
