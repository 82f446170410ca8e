"""White that is meant to be white: pages, slides, cartoons and letters, told from light and left as they are.

Graphics have no noise. Beside their white lies another area of exactly one code, or the white is the ground of lines of
text. Light has neither: its border is a gradient, and its surroundings are never even. So both kinds of evidence are
positive: white without them is expanded. Nothing is learned from this, the network's weights do not depend on it.

A frame is judged by its own pixels. The training frames decide beforehand whether a clip has graphics at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .traits import Graphics

WHITE = 0.92
"""Graphics whose brightest channel reaches this (working values) could be expanded: the ramp of compressed clips."""
BLACK = 0.16
"""Even areas up to this are no evidence: a night's sky is black, too."""
PLAIN_SHARE = 4e-3
"""An area of one code is evidence from this share of the frame on."""
PLAIN_BESIDE = 0.03
"""An area of one code is evidence where it makes up this share of the pixels around a white area."""
REACH = 20
"""Pixels up to which the surroundings of a white area reach. Compression spoils the nearest ones."""
OTHER = 0.06
"""It differs by this much (working values) in some channel: two panes of a window are of one white."""
FEWEST = 9
"""Pixels of the smallest white area that has a border to judge; smaller ones belong to their surroundings."""

STRIPS = 8
"""Text is looked for in so many strips side by side, each a part of the frame's width."""
CROSSINGS = 6
"""A line of text crosses the middle between paper and ink so many times in a strip, or more."""
LINE_HEIGHTS = (5, 7)
"""A line of text is at least so many pixels high, and at most this part of the frame's height."""
EVEN_ROW = 0.04
"""Working values differ by up to this in a row of a strip without text."""
LINES = 3
"""Text has so many lines in some strip: fewer are chance. Beside them, a single line counts, too."""
PAPER_SHARE = 0.005
"""An area of one code is paper where at least this share of it lies in lines of text."""
INK = 0.3
"""Working values by which ink differs from paper, at least."""

EDGE = 3
"""Pixels around graphics that stay as they are with them: soft edges, and what compression made of these."""
BETWEEN = 15
"""Side in pixels of the square of which half is graphics around white that is too small to judge: inside of letters."""

FRAMES = 16
"""Frames that are looked at, at most."""
SHOWN = 0.1
"""A clip has graphics where this share of its frames with white has."""
SHOWN_SHARE = 2e-3
"""A frame has white, or graphics, where this share of its pixels is that."""
MOSTLY = 0.5
"""All white of a clip can be graphics where this share of its frames with white has graphics."""
LIGHT = 0.97
"""Working value that hardly any other pixel of such a clip reaches: the ramp of clean clips begins there."""
LIGHT_SHARE = 1e-3
"""Share of the other pixels of a frame that may reach `LIGHT`, at most."""
LIGHT_FRAMES = 0.05
"""Share of the frames in which more may reach it."""

Mask = NDArray[np.bool_]
Codes = NDArray[np.uint8]
WORDS = {
    "areas": "parts of the picture are graphics (even areas or lines of text): their white stays white",
    "all": "the picture is graphics (even areas or lines of text): all of its white stays white",
}
"""What the log says of each."""


def found_in(pixels: NDArray[Any]) -> Graphics:
    """Which white is graphics in `(count, 3, height, width)` frames, working encoding, integers of 8 or 16 bits."""
    places = np.unique(np.linspace(0, len(pixels) - 1, min(len(pixels), FRAMES)).round().astype(int))
    shown, light = [], []
    for place in places:
        codes = eight_bits(pixels[place])
        if (codes.max(axis=0) >= WHITE * 255).mean() < SHOWN_SHARE:
            continue
        kept = areas(codes)
        shown.append(bool(kept.mean() >= SHOWN_SHARE))
        light.append(float(((codes.max(axis=0) >= LIGHT * 255) & ~kept).mean()))
    if not shown or np.mean(shown) < SHOWN:
        return ""
    only = np.mean(shown) >= MOSTLY and np.mean([share > LIGHT_SHARE for share in light]) <= LIGHT_FRAMES
    return "all" if only else "areas"


def eight_bits(frame: NDArray[Any]) -> Codes:
    """A frame's codes of 8 or 16 bits as codes of 8."""
    return frame if frame.dtype == np.uint8 else (frame >> 8).astype(np.uint8)


def areas(codes: Codes) -> Mask:
    """The pixels of a frame that are graphics and could be expanded, (height, width), with soft edges around them.

    codes: (3, height, width), working encoding.
    """
    white = codes.max(axis=0) >= WHITE * 255
    if not white.any():
        return white
    picture = np.ascontiguousarray(codes.transpose(1, 2, 0))
    numbers, colours, sizes = even_areas(picture)
    text = _text(picture)
    graphic = _beside_plain(numbers, colours, sizes)
    paper = np.bincount(numbers[text & (numbers > 0)], minlength=len(sizes))
    graphic |= (paper > 0) & (colours.max(axis=1) >= WHITE * 255) & (paper >= PAPER_SHARE * sizes)
    kept = (_spread(graphic[numbers]) | text) & white
    around = cv2.boxFilter(kept.astype(np.float32), -1, (BETWEEN, BETWEEN), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(kept | (white & (around >= 0.5)))


def _spread(mask: Mask) -> Mask:
    """The mask, and `EDGE` pixels around."""
    square = np.ones((2 * EDGE + 1, 2 * EDGE + 1), np.uint8)
    return np.asarray(cv2.dilate(mask.astype(np.uint8), square) > 0)


def even_areas(picture: Codes) -> tuple[NDArray[np.int32], Codes, NDArray[np.int32]]:
    """Connected pixels whose eight neighbours have exactly their colour.

    Returns the number of each pixel's area, 0 for none, (height, width); each area's colour, (areas, 3); and its size.
    """
    square = np.ones((3, 3), np.uint8)
    even = (cv2.dilate(picture, square) == cv2.erode(picture, square)).all(axis=-1)
    count, numbers, stats, _ = cv2.connectedComponentsWithStats(even.astype(np.uint8), connectivity=4)
    colours = np.zeros((count, 3), np.uint8)
    colours[numbers[even]] = picture[even]
    sizes = stats[:, cv2.CC_STAT_AREA].copy()
    sizes[0] = 0
    return numbers, colours, sizes


def _beside_plain(numbers: NDArray[np.int32], colours: Codes, sizes: NDArray[np.int32]) -> Mask:
    """Which even areas are white and lie beside an area of another code, one truth value for each."""
    peaks = colours.max(axis=1)
    white = (peaks >= WHITE * 255) & (sizes >= FEWEST)
    plain = (peaks > BLACK * 255) & (sizes >= max(FEWEST, PLAIN_SHARE * numbers.size))
    found = np.zeros(len(sizes), bool)
    for judged in (white & (peaks >= LIGHT * 255), white & (peaks < LIGHT * 255)):  # a pale sky is evidence for clouds
        if judged.any() and plain.any():
            found |= judged & _mostly_beside(numbers, colours, judged, plain)
    return found


def _mostly_beside(numbers: NDArray[np.int32], colours: Codes, judged: Mask, plain: Mask) -> Mask:
    """Around which of the judged areas there is enough of plain areas of another colour."""
    nearest, distance = _nearest(numbers, judged)
    band = (distance > 0) & (distance <= REACH)
    mine, other = nearest[band], numbers[band]
    differs = np.abs(colours[mine].astype(np.int16) - colours[other]).max(axis=1) >= OTHER * 255
    around = np.bincount(mine, minlength=len(judged))
    beside = np.bincount(mine[plain[other] & differs], minlength=len(judged))
    return np.asarray((beside >= PLAIN_BESIDE * np.maximum(around, 1)) & (beside >= FEWEST))


def _nearest(numbers: NDArray[np.int32], chosen: Mask) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """For each pixel the number of the nearest of the chosen areas, and its distance in pixels."""
    inside = chosen[numbers]
    distance, labels = cv2.distanceTransformWithLabels(
        (~inside).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_CCOMP
    )
    of_label = np.zeros(int(labels.max()) + 1, np.int32)
    of_label[labels[inside]] = numbers[inside]
    return of_label[labels], np.asarray(distance, np.float32)


def _text(picture: Codes) -> Mask:
    """The places of lines of text: letters, and the paper around them; (height, width)."""
    height, width, _ = picture.shape
    text = np.zeros((height, width), bool)
    edges = np.linspace(0, width, STRIPS + 1).round().astype(int)
    strips = [(left, right, list(_lines(picture[:, left:right]))) for left, right in pairwise(edges)]
    if max(len(lines) for _, _, lines in strips) >= LINES:
        for left, right, lines in strips:
            for top, bottom in lines:
                text[top:bottom, left:right] = True
    return text


def _lines(picture: Codes) -> Iterator[tuple[int, int]]:
    """First and last row (exclusive) of each line of text in a strip, with a row of paper at either side."""
    height = len(picture)
    low, high = picture.min(axis=1).astype(np.int16), picture.max(axis=1).astype(np.int16)
    paper = (high - low).max(axis=1) <= EVEN_ROW * 255
    rows = np.flatnonzero(paper)
    gaps = np.flatnonzero(np.diff(rows) > 1)
    for above, below in zip(rows[gaps], rows[gaps + 1], strict=True):
        lines = below - above - 1
        if not LINE_HEIGHTS[0] <= lines <= height // LINE_HEIGHTS[1]:
            continue
        ground = high[above].astype(np.int16)
        if np.abs(ground - high[below]).max() > EVEN_ROW * 255:
            continue
        inside = picture[above + 1 : below].astype(np.int16)
        ink = np.abs(inside - ground).max(axis=-1) >= INK * 255 / 2
        crossings = np.abs(np.diff(ink.astype(np.int8), axis=1)).sum(axis=1)
        deepest = np.abs(inside - ground).max()
        if crossings.max() >= CROSSINGS and deepest >= INK * 255:
            yield above, below + 1
