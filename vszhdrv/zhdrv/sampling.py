"""Which crops of the training frames each step sees.

Everything is drawn from generators seeded by (seed, epoch) or (seed, step): a stopped run that goes on draws what it
would have drawn, with no random state to save.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .config import Config
from .footage import TrainingFrames, scaled, shows_clipped
from .working import GAMMA

MEGAPIXEL = 1_000_000
"""Pixels of a frame over which its crops are a share of it."""
CROP_AREA = (0.2, 0.6)
"""Share of a frame of over one megapixel that a crop covers."""
CROPS_AREA = 512 * 512
"""A frame is visited once for each such area in it."""
JITTER_STOPS = 0.25
"""The paper's crops are made brighter by up to this much first."""
MIN_SHIFT_STOPS = 0.5
"""The smallest simulated overexposure of the fast preset."""
UNSHIFTED = 0.25
"""Share of the fast preset's crops that are not made brighter: such pictures will be expanded. Nothing shows the
truth there; `losses.estimate` keeps the other crops' lessons from being carried too far."""
AIMS = 8
"""Where a crop of the second round shows few clipped pixels, another is drawn: so many times at most."""
MOST_CLIPPED = 0.3
"""Share of a crop that a simulated overexposure clips, at most: real frames are not white all over."""
COARSEST_STEP = 16 / 255
"""Largest step of the simulated compression's quantiser, working values: that of H.264's QP 28 (0.625 * 2^(QP/6) of 255
codes, by ITU-T H.264's table of level scales)."""
OFFSETS = 16
"""Rows and columns by which the grid of its blocks may be shifted."""
TRANSFORMS = 7
"""Rotations by 0, 90, 180 and 270 degrees, two flips and one transposition."""


@dataclass(frozen=True)
class Crop:
    """A part of a frame, turned, how much brighter it is made, and how compressed: drawn numbers only, no pixels."""

    pair: int
    transform: int
    top: int
    left: int
    height: int
    width: int
    jitter_stops: float
    shift_stops: float
    coding: tuple[float, int, int] | None = None
    """Quantiser step, and the offsets of the grid of blocks; None: not compressed."""
    phase: tuple[int, int] = (0, 0)
    """Row and column of the first pixel that the fast preset's losses see, the same for all crops of a step."""

    @property
    def area(self) -> tuple[slice, slice]:
        """Its rows and columns in the frame."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def visits(frames: TrainingFrames, config: Config, epoch: int) -> Iterator[list[Crop]]:
    """The crops of each step of one epoch, in the order of training."""
    height, width = frames.pixels.shape[-2:]
    rng = np.random.default_rng((config.seed, 1, epoch))
    if config.steps_per_epoch is None:
        repeats = max(1, round(height * width / CROPS_AREA))
        plan = [(pair, transform) for pair in range(len(frames.pairs)) for transform in range(TRANSFORMS)] * repeats
    else:
        pairs = np.resize(np.arange(len(frames.pairs)), config.steps_per_epoch * config.crops)
        plan = list(zip(pairs.tolist(), rng.integers(8, size=len(pairs)).tolist(), strict=True))
    order = rng.permutation(len(plan))
    for step, first in enumerate(range(0, len(plan), config.crops)):
        draw = np.random.default_rng((config.seed, 2, epoch, step))
        crops = [_draw(plan[index], height, width, config, draw) for index in order[first : first + config.crops]]
        if epoch >= config.first_epochs:
            crops = [_aimed(crop, frames, config, draw) for crop in crops]
        elif frames.traits.compressed:
            crops = [replace(crop, coding=_draw_coding(draw)) for crop in crops]
        row, column = draw.integers(config.stride, size=2).tolist()
        yield [replace(crop, phase=(row, column)) for crop in crops]


def _draw(visit: tuple[int, int], height: int, width: int, config: Config, rng: np.random.Generator) -> Crop:
    if config.head == "stops":
        crop_height = crop_width = min(height, width, config.crop)  # square: what is stacked is turned differently
    elif height * width > MEGAPIXEL:
        side = math.sqrt(rng.uniform(*CROP_AREA) * height * width)
        crop_height, crop_width = min(height, round(side)), min(width, round(side))
    else:
        crop_height, crop_width = min(height, config.crop), min(width, config.crop)
    pair, transform = visit
    return Crop(
        pair=pair,
        transform=transform,
        top=int(rng.integers(height - crop_height + 1)),
        left=int(rng.integers(width - crop_width + 1)),
        height=crop_height,
        width=crop_width,
        jitter_stops=float(rng.uniform(0, JITTER_STOPS)),
        shift_stops=float(rng.uniform(MIN_SHIFT_STOPS, config.max_shift) * (rng.random() >= UNSHIFTED)),
    )


def _aimed(crop: Crop, frames: TrainingFrames, config: Config, rng: np.random.Generator) -> Crop:
    """A crop of the second round: a place where something clips, as it will be expanded."""
    height, width = frames.pixels.shape[-2:]
    for _ in range(AIMS):
        if shows_clipped(frames, frames.pixels[frames.pairs[crop.pair][0]][:, *crop.area]):
            break
        crop = _draw((int(rng.integers(len(frames.pairs))), crop.transform), height, width, config, rng)
    return replace(crop, shift_stops=0.0, transform=0)


def _draw_coding(rng: np.random.Generator) -> tuple[float, int, int]:
    step = COARSEST_STEP * (1 - rng.random())  # over 0
    down, right = rng.integers(OFFSETS, size=2).tolist()
    return float(step), down, right


def cut(frames: TrainingFrames, place: int, crop: Crop, side: int, device: torch.device) -> Tensor:
    """A frame's crop as `(1, 3, h, w)` float32 in [0, 1], turned, and at most `side` pixels high and wide."""
    codes = frames.pixels[place][None, :, *crop.area].to(device)
    if max(crop.height, crop.width) <= side:
        return scaled(turned(codes, crop.transform).contiguous())  # codes are a quarter of the memory to turn
    scale = side / max(crop.height, crop.width)
    size = (max(16, round(crop.height * scale)), max(16, round(crop.width * scale)))
    x = F.interpolate(scaled(codes), size=size, mode="bilinear", antialias=True, align_corners=False)
    return turned(x, crop.transform)


def turned(x: Tensor, transform: int) -> Tensor:
    """One of the eight dihedral transforms of the last two axes: 0 to 3 quarter turns, 4 and 5 the flips, 6 and 7 the
    transpositions. The paper uses the first seven."""
    if transform < 4:
        return x.rot90(transform, (-2, -1))
    if transform < 6:
        return x.flip(-1 if transform == 4 else -2)
    return x.transpose(-2, -1) if transform == 6 else x.rot90(2, (-2, -1)).transpose(-2, -1)


def bounded_shifts(x: Tensor, stops: Sequence[float]) -> list[float]:
    """The shifts of the crops `(batch, 3, height, width)`, made smaller where more than `MOST_CLIPPED` would clip."""
    highest = x.amax(1).flatten(1)
    thresholds = highest.kthvalue(math.ceil((1 - MOST_CLIPPED) * highest.shape[1])).values.tolist()
    bounds = [max(MIN_SHIFT_STOPS, -GAMMA * math.log2(max(threshold, 1e-3))) for threshold in thresholds]
    return [min(shift, bound) for shift, bound in zip(stops, bounds, strict=True)]
