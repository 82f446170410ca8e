"""Which of a clip's frames to train on: well exposed ones of every shot, each with its successor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from .config import Config
from .shots import Glance, cut_between

CANDIDATES = 512
"""Frames that are scored, at most, so that a film costs what a clip costs."""
WELL_EXPOSED = (0.05, 0.95)
"""Values between which a pixel is well exposed."""


def candidates(length: int) -> list[int]:
    """Evenly spread frame numbers to score, at most 512 of them."""
    count = min(length, CANDIDATES)
    return [round(k * (length - 1) / max(count - 1, 1)) for k in range(count)]


def well_exposedness(sdr: npt.NDArray[np.float32]) -> float:
    """Share of the pixels of `(3, height, width)`, values in [0, 1], whose channels all lie in (0.05, 0.95)."""
    low, high = WELL_EXPOSED
    return float(((sdr > low) & (sdr < high)).all(axis=0).mean())


def frames_to_draw(length: int, config: Config) -> int:
    """How many frames to train on, for a clip of `length` frames."""
    count = min(config.max_frames, length)
    if config.few_frames is not None and count > config.few_frames and not config.still:
        count = min(count, max(1, length // 6))
    return count


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
