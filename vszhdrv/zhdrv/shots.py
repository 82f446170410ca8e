"""Cuts and shots: which frames of a clip belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt

THUMBNAIL = 16
"""Side of the thumbnails by which shots are told apart, in pixels."""
CUT = 0.1
"""Mean difference of two frames' thumbnails over which they may lie in two shots."""
CUT_RATIO = 2.0
"""A cut's difference is this many times as large as the differences around it, or larger."""


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
