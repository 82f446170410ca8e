"""Which shots of a film show the same place: shot and counter-shot, a set that comes back.

Two shots show one place if a picture of one is found again in the other, moved, turned or nearer: enough corners of it
(SIFT), over enough of the picture, agree on one similarity transform. Exposure and the order of shots play no part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
"""A grey picture, (height, width)."""

WIDTH = 256
"""Width in pixels of the pictures that are compared; taller ones than wide have it as their height."""
PICTURES = 4
"""Pictures of a shot, at most."""
CORNERS = 400
"""Corners of a picture, at most."""
CONTRAST = 0.004
"""OpenCV's threshold for corners: a tenth of the usual one, for pictures are small and may be dark."""
DISTINCT = 0.85
"""Lowe's ratio test: a corner counts if its nearest neighbour is so much nearer than the second."""
PIXELS = 3.0
"""A corner agrees with a transform that misses it by so many pixels."""
AGREEING = 8
"""Corners of two frames that must agree for them to show one place."""
AGREEING_SHARE = 0.3
"""Share of the corners found again that must agree."""
COVERED = 0.04
"""Share of the picture's area that the agreeing corners must span: a logo is no place."""
SCALES = (0.4, 2.5)
"""How much larger one picture may show what the other shows."""
NEAREST = 16
"""Shots with which each is compared, at most, beside those before it: the ones with the most similar corners."""
BEFORE = 6
"""Shots just before it with which each is compared."""
WORDS = 32
"""Kinds of corners by which similar shots are found, where there are too many to compare all."""


@dataclass(frozen=True)
class View:
    """The corners of one picture: places (count, 2) in pixels, descriptors (count, 128), and the picture's area."""

    points: npt.NDArray[np.float32]
    descriptors: npt.NDArray[np.float32]
    area: int

    @classmethod
    def of(cls, picture: Picture) -> View:
        """Of a grey picture about `WIDTH` wide."""
        finder = cv2.SIFT.create(nfeatures=CORNERS, contrastThreshold=CONTRAST)
        corners, descriptors = finder.detectAndCompute(picture, None)
        if not len(corners) or descriptors is None:
            return cls(np.empty((0, 2), np.float32), np.empty((0, 128), np.float32), picture.size)
        total = np.maximum(descriptors.sum(axis=1, keepdims=True), 1)
        roots = np.sqrt(descriptors / total).astype(np.float32)  # Arandjelovic and Zisserman, CVPR 2012
        return cls(np.array([corner.pt for corner in corners], np.float32), roots, picture.size)


def same_place(one: View, other: View) -> bool:
    """Whether two pictures show parts of one place."""
    if min(len(one.points), len(other.points)) < AGREEING:
        return False
    found, partners = _found_again(one.descriptors, other.descriptors)
    if len(found) < AGREEING:
        return False
    here, there = one.points[found], other.points[partners]
    cv2.setRNGSeed(0)
    transform, agreeing = cv2.estimateAffinePartial2D(here, there, ransacReprojThreshold=PIXELS, maxIters=2000)
    if transform is None:
        return False
    agree = agreeing.ravel().astype(bool)
    low, high = SCALES
    if agree.sum() < max(AGREEING, AGREEING_SHARE * len(found)) or not low <= np.hypot(*transform[:, 0]) <= high:
        return False
    spanned = min(cv2.contourArea(cv2.convexHull(points[agree])) for points in (here, there))
    return bool(spanned >= COVERED * min(one.area, other.area))


def _found_again(
    one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Which of some descriptors are found among others, and which these are (Lowe's ratio test). All have length 1."""
    cosines = one @ other.T
    rows, nearest = np.arange(len(one)), cosines.argmax(axis=1)
    best = cosines[rows, nearest]
    cosines[rows, nearest] = -1
    found = np.flatnonzero(1 - best < DISTINCT**2 * (1 - cosines.max(axis=1)))  # 2 - 2 cosines: distances squared
    return found, nearest[found]


def places_of(shots: Sequence[Sequence[View]]) -> list[int]:
    """The number of each shot's place, from 0, in order of appearance. A shot is given as views of it.

    A shot whose pictures differ may be two, with a cut that nobody saw. So its parts find their places apart, and the
    shot goes where most of its pictures belong: it never joins two places.
    """
    parts = [(shot, part) for shot, views in enumerate(shots) for part in _parts(views)]
    of_shot: list[list[int]] = [[] for _ in shots]
    for number, (shot, _) in enumerate(parts):
        of_shot[shot].append(number)
    parents = list(range(len(parts)))

    def root(part: int) -> int:
        while parents[part] != part:
            part = parents[part]
        return part

    for pair in _worth_comparing(shots):
        for one, other in product(*(of_shot[shot] for shot in pair)):
            first, second = sorted((root(one), root(other)))
            if first != second and any(same_place(*views) for views in product(parts[one][1], parts[other][1])):
                parents[second] = first
    roots = [root(part) for part in range(len(parts))]
    shown = Counter(roots)
    views_of = [Counter(roots[part] for part in own for _ in parts[part][1]) for own in of_shot]
    numbers: dict[int, int] = {}
    most = (max((count, shown[place], -place) for place, count in views.items()) for views in views_of)
    return [numbers.setdefault(place, len(numbers)) for _, _, place in most]


def _parts(views: Sequence[View]) -> list[Sequence[View]]:
    """The views of one shot, cut where one does not show what the one before shows."""
    edges = [0, *(k for k in range(1, len(views)) if not same_place(views[k - 1], views[k])), len(views)]
    return [views[first:end] for first, end in pairwise(edges)]


def _worth_comparing(shots: Sequence[Sequence[View]]) -> list[tuple[int, int]]:
    """Pairs of shots that may show one place: all of a few shots; of many, neighbours and those of similar corners."""
    if len(shots) <= NEAREST + BEFORE:
        return [(one, other) for other in range(len(shots)) for one in range(other - 1, -1, -1)]
    likeness = similarity(shots)
    pairs: set[tuple[int, int]] = set()
    for shot in range(len(shots)):
        pairs.update((other, shot) for other in range(max(0, shot - BEFORE), shot))
        likeness[shot, shot] = -1
        for other in np.argsort(-likeness[shot], kind="stable")[:NEAREST].tolist():
            pairs.add((min(other, shot), max(other, shot)))
    return sorted(pairs, key=lambda pair: (-likeness[pair], pair))


def similarity(shots: Sequence[Sequence[View]]) -> npt.NDArray[np.float32]:
    """How similar the corners of any two shots are, at most 1; (shots, shots)."""
    signs = _signs(shots)
    return np.asarray(signs @ signs.T, np.float32)


def _signs(shots: Sequence[Sequence[View]]) -> npt.NDArray[np.float32]:
    """A vector of length 1 for each shot: the residuals of its corners to the nearest of `WORDS` typical ones (VLAD;
    Jegou et al., CVPR 2010)."""
    descriptors = [np.concatenate([view.descriptors for view in views]) for views in shots]
    everything = np.concatenate(descriptors)
    if len(everything) < WORDS:
        return np.ones((len(shots), 1), np.float32)
    sample = everything[:: max(1, len(everything) // 20_000)]
    cv2.setRNGSeed(0)
    criteria = (cv2.TERM_CRITERIA_MAX_ITER, 10, 0.0)
    _, _, words = cv2.kmeans(sample, WORDS, None, criteria, 1, cv2.KMEANS_PP_CENTERS)  # type: ignore[call-overload]
    signs = np.zeros((len(shots), WORDS, everything.shape[1]), np.float32)
    for sign, own in zip(signs, descriptors, strict=True):
        if len(own):
            nearest = ((own @ words.T) - (words**2).sum(axis=1) / 2).argmax(axis=1)
            np.add.at(sign, nearest, own - words[nearest])
            sign /= np.maximum(np.linalg.norm(sign, axis=1, keepdims=True), 1e-6)
    flat = signs.reshape(len(shots), -1)
    norms = np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return np.asarray(flat / norms, np.float32)


def chosen(first: int, end: int, held: Sequence[int], most: int = PICTURES) -> list[int]:
    """Which of the frames that are held shall stand for frames `first` to `end` - 1: evenly spread ones."""
    inside = [n for n in held if first <= n < end]
    count = min(most, len(inside))
    return [inside[round(k * (len(inside) - 1) / max(count - 1, 1))] for k in range(count)]
