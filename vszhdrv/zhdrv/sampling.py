"""Which frames and which crops to learn from.

Everything is drawn from generators seeded by (seed, epoch) or (seed, step): a stopped run that goes on draws what it
would have drawn, with no random state to save.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from .camera import GAMMA
from .config import Config
from .network import CLIPPED
from .overlays import Overlays

CANDIDATES = 512
"""Frames that are scored, at most, so that a film costs what a clip costs."""
WELL_EXPOSED = (0.05, 0.95)
THUMBNAIL = 16
"""Side of the thumbnails by which shots are told apart, in pixels."""
CUT = 0.1
"""Mean difference of two frames' thumbnails over which they may lie in two shots."""
CUT_RATIO = 2.0
"""... and how much larger it must be than the differences around."""
CLIP_CODES = (240, 255)
"""8-bit codes of the working encoding among which a clip's clip point is looked for: cameras that clip early do so at
about 250 of 255, and compression leaves what clips a few codes lower."""
PILE = 4.0
"""Codes that occur this many times as often as those below are piled up: the values of what clips, ..."""
PILE_PIXELS = 50
"""... if so many pixels have them: in a dark clip a single glint is the brightest there is."""
SKIRT = 0.1
"""A neighbour of the most frequent code belongs to the pile where it occurs at least this share as often."""
ABOVE = 0.02
"""At most this share of a pile's pixels may be brighter than it: what clips is the brightest there is."""
MEGAPIXEL = 1_000_000
CROP_AREA = (0.2, 0.6)
"""Share of a frame of over one megapixel that a crop covers."""
CROPS_AREA = 512 * 512
"""A frame is visited once for each such area in it."""
JITTER_STOPS = 0.25
MIN_SHIFT_STOPS = 0.5
"""The smallest simulated overexposure of the fast preset."""
UNSHIFTED = 0.25
"""Share of the fast preset's crops that are not made brighter: they are what will be asked for. Nobody knows what clips
there; the guess of it (`losses.excess`) keeps what the other crops teach from being carried too far."""
COMPRESSED_WHITE = 0.95
"""Working values from which a channel of a compressed clip counts as clipped: compression leaves what clips darker."""
AIMS, FEWEST_CLIPPED = 8, 20
"""Where a crop of the second round shows fewer clipped pixels than so many, another is drawn, so many times at most."""
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
class Frames:
    """The frames to learn from, in memory.

    `pixels` is `(count, 3, height, width)`, the working encoding as integers of the source's depth (uint8 or uint16) or
    float; `pairs` names, for every drawn frame, its own and its successor's place in `pixels`. `overlays` are what was
    found in the frames that is not picture, and is no longer in `pixels`; None: nothing. `clip_point` is the working
    value at which the source clips; it is 1 in `pixels` (`rescaled`). `compressed`: with losses (`compression.shows`).
    """

    pixels: Tensor
    pairs: tuple[tuple[int, int], ...]
    overlays: Overlays | None = None
    clip_point: float = 1.0
    compressed: bool = False

    @property
    def white(self) -> float:
        """The working value from which a channel of `pixels` counts as clipped."""
        return COMPRESSED_WHITE if self.compressed else CLIPPED

    @cached_property
    def grey(self) -> bool:
        """Whether all frames are black and white."""
        return all(torch.equal(red, green) and torch.equal(red, blue) for red, green, blue in self.pixels)


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


def candidates(length: int) -> list[int]:
    """Evenly spread frame numbers to score, at most 512 of them."""
    count = min(length, CANDIDATES)
    return [round(k * (length - 1) / max(count - 1, 1)) for k in range(count)]


def well_exposedness(sdr: npt.NDArray[np.float32]) -> float:
    """Share of the pixels of `(3, height, width)`, values in [0, 1], whose channels all lie in (0.05, 0.95)."""
    low, high = WELL_EXPOSED
    return float(((sdr > low) & (sdr < high)).all(axis=0).mean())


def frames_to_draw(length: int, config: Config) -> int:
    """How many frames to learn from, for a clip of `length` frames."""
    count = min(config.max_frames, length)
    if config.few_frames is not None and count > config.few_frames and not config.still:
        count = min(count, max(1, length // 6))
    return count


@dataclass(frozen=True)
class Glance:
    """What is remembered of a frame to tell its shot from the next: a thumbnail `(3, 16, 16)`, [0, 1], and what its
    properties say of a cut just before and just after it (None: nothing)."""

    thumbnail: npt.NDArray[np.float32]
    begins: bool | None
    ends: bool | None

    @classmethod
    def of(cls, sdr: npt.NDArray[np.float32], props: Mapping[str, Any]) -> Self:
        """Of a frame `(3, height, width)` in [0, 1] and its properties."""
        _, height, width = sdr.shape
        down, across = height // THUMBNAIL, width // THUMBNAIL
        blocks = sdr[:, : down * THUMBNAIL, : across * THUMBNAIL].reshape(3, THUMBNAIL, down, THUMBNAIL, across)
        said = (props.get(name) for name in ("_SceneChangePrev", "_SceneChangeNext"))
        return cls(blocks.mean(axis=(2, 4)), *(None if value is None else bool(value) for value in said))


def cut_between(before: Glance, after: Glance) -> bool:
    """Whether a frame and its successor lie in two shots: what a property says, else by how much they differ."""
    if before.ends is not None or after.begins is not None:
        return bool(before.ends or after.begins)
    return _difference(before, after) > CUT


def shots_of(positions: Sequence[int], glances: Sequence[Glance]) -> list[int]:
    """The number of the shot in which each of the frames at `positions` lies.

    Properties decide between neighbours that have them. Elsewhere a cut is where a frame differs from the last by more
    than CUT, and by far more than frames do around there: frames that lie apart differ anyway.
    """
    pairs = list(pairwise(glances))
    differences = np.array([_difference(*pair) for pair in pairs])
    numbers = [0]
    for k, (before, after) in enumerate(pairs):
        neighbours = positions[k + 1] - positions[k] == 1 and (before.ends, after.begins) != (None, None)
        around = np.delete(differences[max(k - 2, 0) : k + 3], min(k, 2))
        stands_out = differences[k] > CUT and differences[k] > CUT_RATIO * (np.median(around) if len(around) else 0)
        cut = before.ends or after.begins or (stands_out and not neighbours)
        numbers.append(numbers[-1] + bool(cut))
    return numbers


def _difference(before: Glance, after: Glance) -> float:
    return float(np.abs(after.thumbnail - before.thumbnail).mean())


def choose_frames(
    positions: Sequence[int], scores: Sequence[float], count: int, seed: int, shots: Sequence[int]
) -> list[int]:
    """Draw `count` of the scored frame numbers, uniformly by well-exposedness.

    The scores are sorted, summed up, and the sum's inverse is read at `count` evenly spaced points, so that a frame is
    drawn in proportion to its score. Where no frame scores: regular sampling with jitter. Drawn numbers come back
    ascending, each once: a frame drawn twice gives its place to the nearest that is not drawn yet.

    `shots` are the numbers of the frames' shots. A shot of which none was drawn gets its best frame, for the worst of
    the shot of which most were; where there are more shots than frames to draw, the longest come first.
    """
    if count >= len(positions):
        return list(positions)
    if sum(scores) > 0:
        order = np.argsort(scores, kind="stable")
        cumulative = np.cumsum(np.asarray(scores)[order])
        points = (np.arange(count) + 0.5) / count * cumulative[-1]
        ranks = np.searchsorted(cumulative, points)
    else:
        order = np.arange(len(positions))
        jitter = np.random.default_rng((seed, 0)).random(count)
        ranks = ((np.arange(count) + jitter) / count * len(positions)).astype(int)
    free = set(range(len(positions)))
    drawn = []
    for rank in ranks:
        nearest = min(free, key=lambda place: (abs(place - int(rank)), place))
        free.remove(nearest)
        drawn.append(int(order[nearest]))
    lengths = Counter(shots)
    of_shot = Counter(shots[place] for place in drawn)
    for shot, _ in lengths.most_common():
        fullest, most = of_shot.most_common(1)[0]
        if of_shot[shot] or most == 1:
            continue
        drawn.remove(min((place for place in drawn if shots[place] == fullest), key=scores.__getitem__))
        drawn.append(max((place for place, its in enumerate(shots) if its == shot), key=scores.__getitem__))
        of_shot[fullest] -= 1
        of_shot[shot] = 1
    return sorted(positions[place] for place in drawn)


def with_successors(drawn: Sequence[int], length: int) -> tuple[list[int], tuple[tuple[int, int], ...]]:
    """The frame numbers to read, and for each drawn frame the places of itself and its successor among them.

    The last frame of a clip has no successor: it travels with its predecessor.
    """
    companions = {frame: frame + 1 if frame + 1 < length else max(frame - 1, 0) for frame in drawn}
    numbers = sorted({*drawn, *companions.values()})
    place = {number: index for index, number in enumerate(numbers)}
    return numbers, tuple((place[frame], place[companions[frame]]) for frame in drawn)


def within_shots(pairs: Sequence[tuple[int, int]], glances: Mapping[int, Glance]) -> tuple[tuple[int, int], ...]:
    """The pairs of places, a frame whose companion lies in another shot travelling by itself instead: nothing moves."""

    def companion(frame: int, other: int) -> int:
        return (
            frame if other != frame and cut_between(glances[min(frame, other)], glances[max(frame, other)]) else other
        )

    return tuple((frame, companion(frame, other)) for frame, other in pairs)


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


def visits(frames: Frames, config: Config, epoch: int) -> Iterator[list[Crop]]:
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
        elif frames.compressed:
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


def _aimed(crop: Crop, frames: Frames, config: Config, rng: np.random.Generator) -> Crop:
    """A crop of the second round: a place where something clips, as it will be asked for."""
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


def cut(frames: Frames, place: int, crop: Crop, side: int, device: torch.device) -> Tensor:
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


def _clipped_share(pixels: Tensor) -> float:
    return float((scaled(pixels).amax(0) >= 1).float().mean())


def shows_clipped(frames: Frames, pixels: Tensor) -> bool:
    """Whether there is something to learn in the second round in a part of a frame, `(3, height, width)`."""
    return int((scaled(pixels).amax(0) >= frames.white).sum()) >= FEWEST_CLIPPED


def clips(frames: Frames) -> bool:
    """Whether any pixel of the frames clips."""
    return any(_clipped_share(pixels) > 0 for pixels in frames.pixels)


def all_clips(frames: Frames) -> bool:
    """Whether every pixel of the frames clips."""
    return all(_clipped_share(pixels) == 1 for pixels in frames.pixels)


def most_exposed(frames: Frames) -> Tensor:
    """The frame of which most clips, as `(3, height, width)` float32 in [0, 1]."""
    return scaled(max(frames.pixels, key=_clipped_share))


def bounded_shifts(x: Tensor, stops: Sequence[float]) -> list[float]:
    """The shifts of the crops `(batch, 3, height, width)`, made smaller where more than `MOST_CLIPPED` would clip."""
    highest = x.amax(1).flatten(1)
    thresholds = highest.kthvalue(math.ceil((1 - MOST_CLIPPED) * highest.shape[1])).values.tolist()
    bounds = [max(MIN_SHIFT_STOPS, -GAMMA * math.log2(max(threshold, 1e-3))) for threshold in thresholds]
    return [min(shift, bound) for shift, bound in zip(stops, bounds, strict=True)]
