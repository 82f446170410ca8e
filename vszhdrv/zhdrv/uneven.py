"""White that compression has left uneven: which channels clip there, and the picture with these at white again.

The training frames, the pictures of the simulated codec and the frames to expand are levelled alike, so the network is
told of the same areas in all of them. In the training frames that also says where the light is unknown. Of the pixels
from `LIKELY` on that do not reach white, two pixels from white or nearer, 55 to 96 % clip in the scene (15 clips at CRF
23). So do 16 to 99 % of the others that are beside the dark, over half of them in 10 of the 15. Elsewhere it is 5 to
86 %, under a half in 10: so bright skies stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from . import camera

CERTAIN = 253.5 / 255
"""Working values from which a channel clips."""
LIKELY = 0.95
"""Working values from which a channel clips beside such, and beside the dark."""
DARK = 2 / 3
"""Working values under which it is dark."""
POSSIBLE = 0.88
"""Working values from which a channel clips in gaps of up to two pixels between others. Darker gaps are lines before a
light."""
BESIDE_WHITE, BESIDE_DARK = 5, 9
"""Sides in pixels of the squares around a channel whose values are beside it, odd numbers."""


class _Thresholds(NamedTuple):
    """The four values above, in a picture's own units."""

    certain: float
    likely: float
    dark: float
    possible: float

    @classmethod
    def of(cls, own: Callable[[float], float]) -> Self:
        """`own`: working values to the picture's."""
        return cls(own(CERTAIN), own(LIKELY), own(DARK), own(POSSIBLE))


def levelled(sdr: Tensor) -> Tensor:
    """`(..., height, width)` in the working encoding, [0, 1], with the channels that clip at 1; no gradients.

    On the processor by OpenCV: every step of a training does this, and pooling takes some seventy times as long there.
    """
    thresholds = _Thresholds.of(lambda value: value)
    if sdr.device.type != "cpu":
        return torch.where(_clips(sdr, thresholds), 1.0, sdr)
    out = sdr.detach().clone(memory_format=torch.contiguous_format)
    _level(out.view(-1, *out.shape[-2:]).numpy(), thresholds, 1.0)
    return out


def levelled_light(linear: Tensor, white: float) -> Tensor:
    """The same for linear light, `(..., height, width)`: channels that clip are at `white`, or over it as they were.

    Args:
        white: the linear light at which the source clips, over 0.
    """
    return torch.where(_clips(linear, _in_light(white)), linear.clamp(min=white), linear)


def level_codes(frames: npt.NDArray[np.integer]) -> None:
    """The same for frames in integers of full range, `(count, 3, height, width)`, where they lie."""
    full = np.iinfo(frames.dtype).max
    thresholds = _Thresholds.of(lambda value: value * full)
    for frame in frames:
        _level(frame, thresholds, full)


def level_light(plane: Tensor, white: float) -> None:
    """The same for one channel on the processor, `(height, width)`, where it lies: in a fraction of the time."""
    thresholds = _in_light(white)
    light = plane.numpy()
    if light.max() >= thresholds.likely:
        np.maximum(light, np.float32(white), out=light, where=_plane_clips(light, thresholds))


def _level(planes: npt.NDArray[Any], thresholds: _Thresholds, white: float) -> None:
    """Put what clips at `white` in planes `(count, height, width)`, where they lie."""
    for plane in planes:
        plane[_plane_clips(plane, thresholds)] = white


def _in_light(white: float) -> _Thresholds:
    return _Thresholds.of(lambda value: white * value**camera.GAMMA)


def _plane_clips(plane: npt.NDArray[Any], thresholds: _Thresholds) -> npt.NDArray[np.bool_]:
    """Which values of a plane `(height, width)` clip, by OpenCV."""
    beside_white = cv2.dilate((plane >= thresholds.certain).view(np.uint8), _square(BESIDE_WHITE)).view(bool)
    beside_dark = cv2.dilate((plane < thresholds.dark).view(np.uint8), _square(BESIDE_DARK)).view(bool)
    clips = (plane >= thresholds.likely) & (beside_white | beside_dark)
    closed = cv2.morphologyEx(clips.view(np.uint8), cv2.MORPH_CLOSE, _square(3)).view(bool)
    return closed & (plane >= thresholds.possible)


def _square(side: int) -> npt.NDArray[np.uint8]:
    return np.ones((side, side), np.uint8)


def _clips(x: Tensor, thresholds: _Thresholds) -> Tensor:
    """Which values of `(..., height, width)` clip, on any device."""
    beside_white, beside_dark = _grown(x >= thresholds.certain, BESIDE_WHITE), _grown(x < thresholds.dark, BESIDE_DARK)
    clips = (x >= thresholds.likely) & (beside_white | beside_dark)
    return ~_grown(~_grown(clips, 3), 3) & (x >= thresholds.possible)


def _grown(mask: Tensor, side: int) -> Tensor:
    """The mask, and squares of this side in pixels, an odd number, around all that is in it."""
    planes = mask.reshape(-1, 1, *mask.shape[-2:]).float()
    return (F.max_pool2d(planes, side, stride=1, padding=side // 2) > 0).view(mask.shape)
