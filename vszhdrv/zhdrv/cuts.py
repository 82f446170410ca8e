"""Where one shot of a film ends and the next begins: hard cuts, fades and dissolves, found on small grey frames.

Two frames are alike if the middle of one is found again in the other, wherever it has moved, and however its exposure
has changed (`cv2.matchTemplate`, normalised correlation). So pans, flashes and lights that go out are no cuts.
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
ALIKE = 0.75
"""Correlation from which two frames show the same. In made films, frames of two shots reached 0.67 once and else 0.46;
successive frames of one shot, flashes aside, never fell below 0.84."""
BRIDGED = 0.85
"""... from which they do so in spite of others between them: several pairs are tried, and chance helps."""
DIFFER = 0.7
"""Correlation below which the ends of a dissolve do not show the same, ..."""
STEPS_ALIKE = 0.86
"""... and below which its middle does not show the same as one of them: a moving camera's does."""
FLAT = 1.5
"""Standard deviation, in 8-bit codes, below which the middle of a frame shows nothing: black, white, or the end of a
fade."""
FLASH = 3
"""Frames, at most, that may differ from all around without a cut: a flash, a photograph being taken."""
AROUND = 3
"""Boundaries at either side with which a cut is compared, ..."""
STANDS_OUT = 2.0
"""... and how much less alike its frames must be: where no two frames are alike, there is noise."""
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


def alike(one: Small, other: Small) -> float:
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
    flat = _flat(frames)
    hard, flashes = _hard_cuts(frames, flat)
    return sorted([*hard, *_dissolves(frames, flat, hard, flashes)], key=lambda cut: cut.first)


def _hard_cuts(frames: Small, flat: npt.NDArray[np.bool_]) -> tuple[list[Cut], set[int]]:
    """Cuts from a frame to its successor, or in the middle of frames that show nothing; and the frames of flashes."""
    shown = [int(n) for n in np.flatnonzero(~flat)]
    likeness = np.array([alike(frames[a], frames[b]) for a, b in pairwise(shown)])
    cuts: list[Cut] = []
    flashes: set[int] = set()
    for k in np.flatnonzero(likeness < ALIKE):
        bridge = _bridge(frames, shown, int(k))
        if bridge is not None:
            flashes.update(bridge)
            continue
        around = np.concatenate([likeness[max(k - AROUND, 0) : k], likeness[k + 1 : k + AROUND + 1]])
        usual = float(np.median(1 - around)) if len(around) else 0.0
        frame = (shown[k] + shown[k + 1] + 1) // 2
        if 1 - likeness[k] > STANDS_OUT * usual and (not cuts or frame - cuts[-1].first >= SHORTEST):
            cuts.append(Cut(frame, frame))
    return cuts, flashes


def _bridge(frames: Small, shown: Sequence[int], k: int) -> range | None:
    """The frames between two that are alike, at most `FLASH` apart, across the boundary after `shown[k]`."""
    for distance in range(1, FLASH + 1):
        for back in range(distance + 1):
            first, last = k - back, k + 1 + distance - back
            if first >= 0 and last < len(shown) and alike(frames[shown[first]], frames[shown[last]]) >= BRIDGED:
                return range(shown[first] + 1, shown[last])
    return None


def _dissolves(frames: Small, flat: npt.NDArray[np.bool_], hard: Sequence[Cut], flashes: set[int]) -> list[Cut]:
    """Where one shot turns into the next: frames that are mixtures of two that are not alike."""
    barriers = np.append(flat, False).astype(np.int64)
    for cut in hard:
        barriers[cut.first] = 1
    for n in flashes:
        barriers[n] = barriers[n + 1] = 1
    walls = np.cumsum(barriers)
    found: list[tuple[float, int, int]] = []
    for window in WINDOWS:
        half = window // 2
        still = _likeness_unmoved(frames, window) >= DIFFER
        for middle in range(half, len(frames) - half, 1 if window <= 12 else 2):
            if walls[middle + half] > walls[middle - half] or still[middle - half] or flat[middle - half]:
                continue
            likeness = alike(frames[middle - half], frames[middle + half])
            if likeness < DIFFER and _is_dissolve(frames, middle, half):
                found.append((likeness, middle, half))
    cuts: list[Cut] = []
    for _, middle, half in sorted(found):  # the ends that are least alike show most of the two shots
        cut = _extent(frames, middle, half)
        if all(cut.end + SHORTEST <= other.first or other.end + SHORTEST <= cut.first for other in [*cuts, *hard]):
            cuts.append(cut)
    return cuts


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


def _extent(frames: Small, middle: int, half: int) -> Cut:
    """The frames of a dissolve: where a line through the weights of the second shot leaves 0 and reaches 1."""
    first, last = frames[middle - half], frames[middle + half]
    numbers = np.arange(middle - half + 1, middle + half)
    weights = np.array([_share(frames[n], first, last) for n in numbers])
    mixed = (weights > 0.15) & (weights < 0.85)
    if mixed.sum() < 2:
        return Cut(middle, middle + 1)
    slope, offset = np.polyfit(numbers[mixed], weights[mixed], 1)
    if slope <= 0:
        return Cut(middle, middle + 1)
    start, end = (-offset / slope, (1 - offset) / slope)
    first_mixed = max(middle - half, min(middle, int(np.floor(start)) + 1))
    return Cut(first_mixed, min(middle + half, max(middle + 1, int(np.ceil(end)))))


def _share(frame: Small, first: Small, last: Small) -> float:
    """The weight of the second of two frames in a mixture, 0 to 1."""
    _, before, after = _mixture(frame, first, last)
    before, after = max(before, 0.0), max(after, 0.0)
    return after / max(before + after, LEAST_VARIANCE)
