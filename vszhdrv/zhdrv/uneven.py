"""White that compression has left uneven: which channels clip there, and the picture with these at white again.

The training frames, the pictures of the simulated codec and the frames to expand are levelled alike, so the network is
told of the same areas in all of them. In the training frames that also says where the light is unknown: of the pixels
from `SURE` on that do not reach white, most clip in the scene (52 to 94 % of them in 16 clips at CRF 23).
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from . import camera

SURE = 0.95
"""Working values from which a channel clips, ..."""
POSSIBLE = 0.88
"""... and those from which it does in gaps of up to two pixels between such. Darker ones are lines before a light."""


def levelled(sdr: Tensor) -> Tensor:
    """`(..., height, width)` in the working encoding, [0, 1], with the channels that clip at 1."""
    return torch.where(_clips(sdr, SURE, POSSIBLE), 1.0, sdr)


def levelled_light(linear: Tensor, white: float) -> Tensor:
    """The same for linear light, `(..., height, width)`: channels that clip are at `white`, or over it as they were.

    Args:
        white: the linear light at which the source clips, over 0.
    """
    return torch.where(_clips(linear, *_thresholds(white)), linear.clamp(min=white), linear)


def level_codes(frames: npt.NDArray[np.integer]) -> None:
    """The same for frames in integers of full range, `(count, 3, height, width)`, where they lie."""
    full = np.iinfo(frames.dtype).max
    for frame in frames:
        for plane in frame:
            plane[_closed(plane, SURE * full) & (plane >= POSSIBLE * full)] = full


def level_light(plane: Tensor, white: float) -> None:
    """The same for one channel on the processor, `(height, width)`, where it lies: in a tenth of the time."""
    sure, possible = _thresholds(white)
    light = plane.numpy()
    if light.max() >= sure:
        np.maximum(light, np.float32(white), out=light, where=_closed(light, sure) & (light >= possible))


def _thresholds(white: float) -> tuple[float, float]:
    sure, possible = (white * value**camera.GAMMA for value in (SURE, POSSIBLE))
    return sure, possible


def _closed(plane: npt.NDArray[Any], sure: float) -> npt.NDArray[np.bool_]:
    """A closing of the places that reach `sure`, three pixels squared."""
    mask = (plane >= sure).view(np.uint8)
    return cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)).view(bool)


def _clips(x: Tensor, sure: float, possible: float) -> Tensor:
    """The same closing, where `possible` is reached."""
    return ~_grown(~_grown(x >= sure)) & (x >= possible)


def _grown(mask: Tensor) -> Tensor:
    """The mask and the eight neighbours of all its pixels."""
    for pad, axis in (((1, 1), -1), ((0, 0, 1, 1), -2)):
        around, size = F.pad(mask, pad), mask.shape[axis]
        before, here, after = (around.narrow(axis, start, size) for start in range(3))
        mask = before | here | after
    return mask
