"""Where one shot of a film ends and the next begins: hard cuts, fades and dissolves, found on small grey frames.

Two frames are alike if the middle of one is found again in the other, wherever it has moved, and however its exposure
has changed (`cv2.matchTemplate`, normalised correlation). So pans, flashes and lights that go out are no cuts. Light
and detail are compared, and both count: two places under one bright sky differ in their detail alone.
docs/experiments.md compares this with PySceneDetect's detectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Small = npt.NDArray[np.uint8]
"""A grey frame of `SIZE`, or (frames, height, width) of them."""

SIZE = (48, 27)
"""Width and height of the frames that are compared, in pixels."""
MARGIN = 0.2
"""Share of the width and height, at every side, by which the picture may move from one frame to the next."""
BLUR = 3.0
"""Standard deviation in pixels of the blur that takes detail away."""
CONTRAST_BLUR = 4.5
"""Standard deviation in pixels of the blur that measures how strong detail is around a pixel. Detail is divided by
it."""
NOISE = 4.0
"""8-bit codes that are added to the divisor of detail: weaker detail is noise."""
ALIKE = 0.75
"""Likeness from which two frames show the same. In made films, frames of two shots reached 0.69; successive frames of
one shot, flashes and grain aside, fell to 0.77 at the lowest."""
BRIDGED = 0.85
"""Likeness from which two frames show the same although others lie between them: several pairs are tried, and chance
helps."""
STILL = 0.7
"""Correlation, as they lie, from which two frames are no ends of a dissolve."""
DIFFER = 0.58
"""Likeness below which the ends of a dissolve do not show the same. Those of zooms reached 0.60."""
STEPS_ALIKE = 0.86
"""Correlation below which the middle of a dissolve does not show the same as one of its ends: a moving camera's
does."""
FLAT = 1.5
"""Standard deviation, in 8-bit codes, below which the middle of a frame shows nothing: black, white, or the end of a
fade."""
FLASH = 3
"""Frames, at most, that may differ from all around without a cut: a flash, a photograph being taken."""
AROUND = 3
"""Boundaries at either side with which a cut is compared."""
STANDS_OUT = 3.0
"""How many times less alike than there the frames of a cut must be: where no two frames are alike, there is noise. In
made films the cuts reached 4.6 at the lowest; heavy grain 2.9 at the highest."""
SHORTEST = 3
"""Frames of a shot, at least."""
WINDOWS = (8, 12, 16, 24, 36, 48)
"""Frames over which dissolves are looked for."""
EXPLAINED = 0.93
"""Share of the variance of a dissolve's middle frame that a mixture of the frames at its ends explains. Pans and zooms
reached 0.88."""
MIXED = (0.25, 0.8)
"""Weight of either end in the middle of a dissolve."""
LEAST_VARIANCE = 1e-6
BLOCK = 1024
"""Frames that are compared at a time."""


@dataclass(frozen=True)
class Cut:
    """From one shot to the next. Frames `first` to `end` - 1 show both, mixed; `first` is `end` where none does."""

    first: int
    end: int

    @property
    def frame(self) -> int:
        """The frame with which the next shot begins, or most of it."""
        return (self.first + self.end + 1) // 2


@dataclass(frozen=True)
class Pictures:
    """A film's small frames, and their detail; both (frames, height, width)."""

    light: Small
    detail: npt.NDArray[np.float32]

    @classmethod
    def of(cls, frames: Small) -> Pictures:
        """Of small grey frames."""
        return cls(frames, np.stack([_detail(frame) for frame in frames]))

    def likeness(self, one: int, other: int) -> float:
        """How alike two frames are, at most 1: the mean of light's and of detail's correlation. Neither may be flat."""
        light, detail = (alike(each[one], each[other]) for each in (self.light, self.detail))
        return (light + detail) / 2


def _detail(frame: Small) -> npt.NDArray[np.float32]:
    """A frame without its slow changes of light, its detail everywhere about as strong."""
    light = frame.astype(np.float32)
    light -= cv2.GaussianBlur(light, (0, 0), BLUR)
    return np.asarray(light / (np.sqrt(cv2.GaussianBlur(light**2, (0, 0), CONTRAST_BLUR)) + NOISE), np.float32)


def alike(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """How well the middle of either frame is found in the other: a correlation, at most 1. Neither may be flat."""
    return max(_correlation(other, _middle(one)), _correlation(one, _middle(other)))


def _middle(frame: npt.NDArray[Any]) -> npt.NDArray[Any]:
    down, across = (int(side * MARGIN) for side in frame.shape)
    return frame[down : frame.shape[0] - down, across : frame.shape[1] - across]


def _correlation(frame: npt.NDArray[Any], part: npt.NDArray[Any]) -> float:
    return float(cv2.matchTemplate(frame, part, cv2.TM_CCOEFF_NORMED).max())


def _flat(frames: Small) -> npt.NDArray[np.bool_]:
    """Which frames show nothing."""
    return np.array([_middle(frame).std() < FLAT for frame in frames], bool)


def marked_cuts(properties: Sequence[Mapping[str, Any]]) -> list[Cut] | None:
    """The cuts that frame properties name (`_SceneChangePrev`, `_SceneChangeNext`); None where no frame has them."""
    names = ("_SceneChangePrev", "_SceneChangeNext")
    if not any(name in frame for frame in properties for name in names):
        return None
    pairs = enumerate(pairwise(properties), 1)
    return [Cut(n, n) for n, (before, after) in pairs if before.get(names[1]) or after.get(names[0])]


def find_cuts(frames: Small) -> list[Cut]:
    """All cuts of a film whose frames are (frames, height, width), in order."""
    flat, pictures = _flat(frames), Pictures.of(frames)
    hard, flashes = _hard_cuts(pictures, flat)
    sure = [cut for cut in hard if _changes_light(pictures, flat, cut)]
    dissolves = _dissolves(pictures, flat, sure, flashes)
    # the last step of a dissolve may look like a cut to a place of the same light
    kept = [cut for cut in hard if cut in sure or all(_apart(cut, dissolve) for dissolve in dissolves)]
    return sorted([*kept, *dissolves], key=lambda cut: cut.first)


def _changes_light(pictures: Pictures, flat: npt.NDArray[np.bool_], cut: Cut) -> bool:
    """Whether light alone tells the frames at a hard cut apart."""
    before, after = cut.first - 1, cut.first
    return bool(flat[before] or flat[after]) or alike(pictures.light[before], pictures.light[after]) < ALIKE


def _hard_cuts(pictures: Pictures, flat: npt.NDArray[np.bool_]) -> tuple[list[Cut], set[int]]:
    """Cuts from a frame to its successor, or in the middle of frames that show nothing; and the frames of flashes."""
    shown = [int(n) for n in np.flatnonzero(~flat)]
    likeness = np.array([pictures.likeness(a, b) for a, b in pairwise(shown)])
    cuts: list[Cut] = []
    flashes: set[int] = set()
    for k in np.flatnonzero(likeness < ALIKE):
        bridge = _bridge(pictures, shown, int(k))
        if bridge is not None:
            flashes.update(bridge)
            continue
        around = np.concatenate([likeness[max(k - AROUND, 0) : k], likeness[k + 1 : k + AROUND + 1]])
        usual = float(np.median(1 - around)) if len(around) else 0.0
        frame = (shown[k] + shown[k + 1] + 1) // 2
        if 1 - likeness[k] > STANDS_OUT * usual and (not cuts or frame - cuts[-1].first >= SHORTEST):
            cuts.append(Cut(frame, frame))
    return cuts, flashes


def _bridge(pictures: Pictures, shown: Sequence[int], k: int) -> range | None:
    """The frames between two that are alike, at most `FLASH` apart, across the boundary after `shown[k]`."""
    for distance in range(1, FLASH + 1):
        for back in range(distance + 1):
            first, last = k - back, k + 1 + distance - back
            if first >= 0 and last < len(shown) and pictures.likeness(shown[first], shown[last]) >= BRIDGED:
                return range(shown[first] + 1, shown[last])
    return None


def _dissolves(pictures: Pictures, flat: npt.NDArray[np.bool_], hard: Sequence[Cut], flashes: set[int]) -> list[Cut]:
    """Where one shot turns into the next: frames that are mixtures of two that are not alike."""
    frames = pictures.light
    barriers = np.append(flat, False).astype(np.int64)
    for known in hard:
        barriers[known.first] = 1
    for n in flashes:
        barriers[n] = barriers[n + 1] = 1
    walls = np.cumsum(barriers)
    found: list[tuple[float, int, int]] = []
    for window in WINDOWS:
        half = window // 2
        still = _likeness_unmoved(frames, window) >= STILL
        for middle in range(half, len(frames) - half, 1 if window <= 12 else 2):
            if walls[middle + half] > walls[middle - half] or still[middle - half] or flat[middle - half]:
                continue
            likeness = pictures.likeness(middle - half, middle + half)
            if likeness < DIFFER and _is_dissolve(frames, middle, half):
                found.append((likeness, middle, half))
    taken = list(hard)
    for _, middle, half in sorted(found):  # the ends that are least alike show most of the two shots
        cut = _extent(frames, middle, half)
        if cut is not None and all(_apart(cut, other) for other in taken):
            taken.append(cut)
    return taken[len(hard) :]


def _apart(one: Cut, other: Cut) -> bool:
    return one.end + SHORTEST <= other.first or other.end + SHORTEST <= one.first


def _likeness_unmoved(frames: Small, distance: int) -> npt.NDArray[np.float32]:
    """The correlation of every frame with the one so many frames after it, as they lie: most are done with by that."""
    count = max(len(frames) - distance, 0)
    result = np.empty(count, np.float32)
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        one, other = (
            frames[first : first + stop - start].reshape(stop - start, -1).astype(np.float32)
            for first in (start, start + distance)
        )
        one -= one.mean(axis=1, keepdims=True)
        other -= other.mean(axis=1, keepdims=True)
        norms = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
        result[start:stop] = (one * other).sum(axis=1) / np.maximum(norms, LEAST_VARIANCE)
    return result


def _is_dissolve(frames: Small, middle: int, half: int) -> bool:
    """Whether the frames from `middle` - `half` to `middle` + `half` turn from the first into the last."""
    first, last = frames[middle - half], frames[middle + half]
    if min(alike(first, frames[middle]), alike(frames[middle], last)) >= STEPS_ALIKE:
        return False
    low, high = MIXED
    explained, before, after = _mixture(frames[middle], first, last)
    if explained < EXPLAINED or not (low <= before <= high and low <= after <= high):
        return False
    quarter = max(1, half // 2)
    early, late = (_mixture(frames[middle + step], first, last) for step in (-quarter, quarter))
    return early[1] > before > late[1] and early[2] < after < late[2]


def _mixture(frame: Small, first: Small, last: Small) -> tuple[float, float, float]:
    """How far the middle of a frame is a mixture of two others, moved as fits best: the share of its variance that is
    explained, and the weight of either."""
    wanted = _middle(frame).astype(np.float32)
    before, after = (_moved(other.astype(np.float32), wanted) for other in (first, last))
    weights = _fitted(wanted, before, after)
    for _ in range(2):  # what is left of the frame without one shot shows where the other one is
        if weights[0] > 0.05:
            before = _moved(first.astype(np.float32), wanted - weights[1] * after)
        if weights[1] > 0.05:
            after = _moved(last.astype(np.float32), wanted - weights[0] * before)
        weights = _fitted(wanted, before, after)
    left = wanted - weights[0] * before - weights[1] * after
    return 1 - float(left.var() / max(wanted.var(), LEAST_VARIANCE)), float(weights[0]), float(weights[1])


def _fitted(wanted: npt.NDArray[np.float32], *parts: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Least-squares weights of the parts in a picture, means aside."""
    columns = np.stack([(part - part.mean()).ravel() for part in parts], axis=1)
    weights: npt.NDArray[np.float32] = np.linalg.lstsq(columns, (wanted - wanted.mean()).ravel())[0]
    return weights


def _moved(frame: npt.NDArray[np.float32], wanted: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The part of a frame that is most like a smaller picture."""
    likeness = cv2.matchTemplate(frame, wanted, cv2.TM_CCOEFF_NORMED)
    top, left = np.unravel_index(int(likeness.argmax()), likeness.shape)
    return frame[top : top + wanted.shape[0], left : left + wanted.shape[1]]


def _extent(frames: Small, middle: int, half: int) -> Cut | None:
    """The frames of a dissolve: where a line through the weights of the second shot leaves 0 and reaches 1.

    None where no two frames are mixed, or the second shot does not grow.
    """
    first, last = frames[middle - half], frames[middle + half]
    numbers = np.arange(middle - half + 1, middle + half)
    weights = np.array([_share(frames[n], first, last) for n in numbers])
    mixed = (weights > 0.15) & (weights < 0.85)
    if mixed.sum() < 2:
        return None
    slope, offset = np.polyfit(numbers[mixed], weights[mixed], 1)
    if slope <= 0:
        return None
    start, end = (-offset / slope, (1 - offset) / slope)
    first_mixed = max(middle - half, min(middle, int(np.floor(start)) + 1))
    return Cut(first_mixed, min(middle + half, max(middle + 1, int(np.ceil(end)))))


def _share(frame: Small, first: Small, last: Small) -> float:
    """The weight of the second of two frames in a mixture, 0 to 1."""
    _, before, after = _mixture(frame, first, last)
    before, after = max(before, 0.0), max(after, 0.0)
    return after / max(before + after, LEAST_VARIANCE)
