"""The shots and places of a film from its frames, seen once, in order, as small grey pictures.

Memory does not grow with the film, but for the corners of a few pictures a shot: frames are compared in stretches, and
pictures of finished shots are let go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from . import cuts, places
from .cuts import Cut

STRETCH = 1024
"""Frames that are searched for cuts at a time."""
OVERLAP = 64
"""Frames that two such searches share: a dissolve is looked for within a window of frames."""
HELD = 64
"""Pictures that are held of a shot that has not ended, beyond the stretch at hand."""
CLEAR = 2
"""Frames next to a cut whose pictures do not stand for a shot: they may still show some of the other one."""
FEWEST_FRAMES = 12
"""A place of fewer frames is given to the place with the most similar pictures: there is too little to train on."""


@dataclass
class Scanner:
    """Takes a film's frames, and says where its shots are. `given`: the cuts, where they are known already."""

    given: Sequence[Cut] | None = None
    seen: int = 0
    """Frames so far."""
    found: list[Cut] = field(default_factory=list)
    _views: list[list[places.View]] = field(default_factory=list)
    _pictures: dict[int, places.Picture] = field(default_factory=dict)
    _small: list[cuts.Small] = field(default_factory=list)
    """Small frames from number `_first` on."""
    _properties: list[Mapping[str, Any]] = field(default_factory=list)
    _first: int = 0
    _searched: int = 0
    """Frames before this one are searched for cuts."""

    def add(self, pictures: npt.NDArray[np.uint8], properties: Sequence[Mapping[str, Any]]) -> None:
        """The next frames: (count, height, width), about `places.WIDTH` wide, and their properties."""
        for picture, props in zip(pictures, properties, strict=True):
            self._pictures[self.seen] = picture
            self._small.append(np.asarray(cv2.resize(picture, cuts.SIZE, interpolation=cv2.INTER_AREA), np.uint8))
            self._properties.append(props)
            self.seen += 1
        if self.seen - self._searched >= STRETCH + OVERLAP:
            self._search(self.seen - OVERLAP)

    def finish(self) -> tuple[list[Cut], list[int]]:
        """The cuts, and the number of each shot's place."""
        self._search(self.seen)
        start = self.found[-1].end if self.found else 0
        self._close(start, self.seen)
        edges = pairwise([0, *(cut.frame for cut in self.found), self.seen])
        lengths = [end - first for first, end in edges]
        return self.found, with_few_given_away(places.places_of(self._views), lengths, self._views)

    def _search(self, until: int) -> None:
        """Find the cuts up to this frame, and close the shots before them."""
        for cut in self._cuts_in(self._searched, until):
            start = self.found[-1].end if self.found else 0
            self.found.append(cut)
            self._close(start, cut.first)
        self._searched = until
        drop = max(0, until - OVERLAP - self._first)
        del self._small[:drop], self._properties[:drop]
        self._first += drop
        old = [n for n in self._pictures if n < until]
        for n in sorted(set(old) - set(places.chosen(0, until, old, HELD))):
            del self._pictures[n]

    def _cuts_in(self, start: int, until: int) -> list[Cut]:
        if self.given is not None:
            inside = [cut for cut in self.given if start <= cut.frame < until]
        elif (marked := cuts.marked_cuts(self._properties)) is not None:
            inside = [Cut(cut.first + self._first, cut.end + self._first) for cut in marked]
        elif len(self._small) < 2:
            inside = []
        else:
            found = cuts.find_cuts(np.stack(self._small))
            inside = [Cut(cut.first + self._first, cut.end + self._first) for cut in found]
        last = self.found[-1].frame if self.found else 0
        return [cut for cut in inside if start <= cut.frame < until and cut.frame > last]

    def _close(self, first: int, end: int) -> None:
        """A shot whose unmixed frames are `first` to `end` - 1: keep its corners, let its pictures go."""
        held = sorted(n for n in self._pictures if n < end)
        shown = places.chosen(first + CLEAR, end - CLEAR, held) or places.chosen(first, end, held) or held[-1:]
        self._views.append([places.View.of(self._pictures[n]) for n in shown])
        for n in held:
            del self._pictures[n]


def with_few_given_away(
    numbers: Sequence[int], lengths: Sequence[int], views: Sequence[Sequence[places.View]]
) -> list[int]:
    """The places' numbers, those of fewer than `FEWEST_FRAMES` frames replaced by the most similar larger place's.

    Where nothing is similar, the shot that lies nearest decides. With no larger place, all are one.
    """
    frames: dict[int, int] = {}
    for number, length in zip(numbers, lengths, strict=True):
        frames[number] = frames.get(number, 0) + length
    large = [shot for shot, number in enumerate(numbers) if frames[number] >= FEWEST_FRAMES]
    if not large:
        return [0] * len(numbers)
    if len(large) == len(numbers):
        return list(numbers)
    likeness = places.similarity(views)
    result = list(numbers)
    for shot, number in enumerate(numbers):
        if frames[number] < FEWEST_FRAMES:
            nearest = max(large, key=lambda other: (round(float(likeness[shot, other]), 3), -abs(shot - other)))
            result[shot] = numbers[nearest]
    renumbered: dict[int, int] = {}
    return [renumbered.setdefault(number, len(renumbered)) for number in result]
