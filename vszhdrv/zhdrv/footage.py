"""The training frames, and what is known of them: where they clip, what compression has done, what is no picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .traits import NOTHING_FOUND
from .traits import Traits as Traits

FEWEST_CLIPPED = 20
"""Clipped pixels that are enough to train on in the second round."""
CLIP_CODES = (240, 255)
"""8-bit codes of the working encoding among which a clip's clip point is looked for: cameras that clip early do so at
about 250 of 255, and compression leaves clipped pixels a few codes lower."""
PILE = 4.0
"""Codes that occur this many times as often as those below are piled up: they are the values of clipped pixels."""
PILE_PIXELS = 50
"""Pixels of a pile, at least: in a dark clip a single glint is the brightest there is."""
SKIRT = 0.1
"""A neighbour of the most frequent code belongs to the pile where it occurs at least this share as often."""
ABOVE = 0.02
"""At most this share of a pile's pixels may be brighter than it: what clips is the brightest there is."""


@dataclass(frozen=True)
class TrainingFrames:
    """The frames to train on, in memory.

    `pixels` is `(count, 3, height, width)`, the working encoding as integers of the source's depth (uint8 or uint16) or
    float: the picture without its overlays, clipping at 1 (`rescaled`). `pairs` names, for every drawn frame, its own
    and its successor's place in `pixels`. `numbers` are the frames' numbers in the clip.
    """

    pixels: Tensor
    pairs: tuple[tuple[int, int], ...]
    traits: Traits = NOTHING_FOUND
    numbers: tuple[int, ...] = ()


def scaled(pixels: Tensor) -> Tensor:
    """Integer codes to float32 in [0, 1]."""
    full = {torch.uint8: 255.0, torch.uint16: 65535.0}.get(pixels.dtype, 1.0)
    return pixels.to(torch.float32) / full


def clip_point(pixels: npt.NDArray[Any]) -> float:
    """The working value from which `(count, 3, height, width)` frames, integers of 8 or 16 bits, count as clipped.

    1 where they clip at white, or nowhere; less where their histogram piles up below white and nearly ends there.
    """
    shift = 8 * (pixels.dtype.itemsize - 1)
    counts = np.zeros(256, np.int64)
    for frame in pixels:
        counts += np.bincount((frame.max(axis=0) >> shift).ravel(), minlength=256)
    low, high = CLIP_CODES
    usual = np.median(counts[low - 32 : low])
    code = peak = low + int(counts[low:].argmax())
    while code > low and counts[code - 1] > max(PILE * usual, SKIRT * counts[peak]):
        code -= 1
    pile = counts[code : peak + 1].sum()
    is_pile = counts[peak] > PILE * usual and pile >= PILE_PIXELS and counts[peak + 2 :].sum() <= ABOVE * pile
    return code / high if is_pile else 1.0


def rescaled(pixels: npt.NDArray[Any], white: float) -> npt.NDArray[Any]:
    """The same frames with the working value `white`, and what is over it, at 1. Changes `pixels` themselves."""
    if white < 1:
        full = np.iinfo(pixels.dtype).max
        codes = np.minimum(np.round(np.arange(full + 1) / white), full).astype(pixels.dtype)
        for frame in pixels:
            frame[:] = codes[frame]
    return pixels


def is_grey(pixels: Tensor) -> bool:
    """Whether all of `(count, 3, height, width)` frames are black and white."""
    return all(torch.equal(red, green) and torch.equal(red, blue) for red, green, blue in pixels)


def _clipped_share(pixels: Tensor) -> float:
    return float((scaled(pixels).amax(0) >= 1).float().mean())


def shows_clipped(frames: TrainingFrames, pixels: Tensor) -> bool:
    """Whether there is something to train on in the second round in a part of a frame, `(3, height, width)`."""
    return int((scaled(pixels).amax(0) >= frames.traits.white).sum()) >= FEWEST_CLIPPED


def clips(frames: TrainingFrames) -> bool:
    """Whether any pixel of the frames clips."""
    return any(_clipped_share(pixels) > 0 for pixels in frames.pixels)


def all_clips(frames: TrainingFrames) -> bool:
    """Whether every pixel of the frames clips."""
    return all(_clipped_share(pixels) == 1 for pixels in frames.pixels)


def most_exposed(frames: TrainingFrames) -> Tensor:
    """The frame of which most clips, as `(3, height, width)` float32 in [0, 1]."""
    return scaled(max(frames.pixels, key=_clipped_share))
