"""What is in a clip's frames without being picture: black bars, logos and subtitles whose white is meant to be white.

They are found once, in the training frames, and kept with the network. Training sees the picture without bars, its
logos painted black, and so does the network when a frame is expanded; bars and logos themselves stay as they are.

Everything here is decided by evidence that a film of real lights does not give. What keeps its place while all around
it moves lies on the film, not in it (the idea of Yan, Wang & Kankanhalli 2005, and of the logo finders of recorders). A
camera that stands still gives no such evidence: there, everything keeps its place, and nothing is taken for a logo.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vszhdrv.errors import Refused

from .rounding import ceil_div
from .working import GAMMA, LUMA

BLACK = 0.04
"""Working values up to this are black in a bar: 8-bit video's code 27, above any coding noise."""
LIT_SHARE = 0.01
"""A row or column in which more than this share of the pixels is ever brighter belongs to the picture."""
LARGEST = 2**16
"""Pixels of a frame's largest side."""
MIN_PICTURE = 16
"""Pixels of the picture's smallest side."""

WHITE = 0.95
"""A logo's brightest channel is at least this (working values): white as compression leaves it."""
ALWAYS = 0.95
"""A logo is white in at least this share of the frames."""
THERE = 0.5
"""Its other pixels are white in this share of the frames in which its surroundings are not: soft edges, poor coding.
In a frame that shows it, this share of its pixels is white."""
MIN_FRAMES = 8
"""Fewer frames show nothing about what moves."""
CELLS = 32
"""Cells of which one measures a logo's surroundings, over the height of the picture: its glyphs are one logo."""
SMALLEST_CELL = 8
"""Smallest side of a cell, in pixels: twice as much as a logo's edge takes."""
SHARPEST_BAND = (2, 3)
"""The pixels at this distance from a logo's white must be as seldom white as its surroundings, but for `LEAK`."""
LEAK = 0.1
"""Share by which the pixels close to a logo may be white more often than its surroundings. Those around a real light
that moves by a pixel or two are white nearly as often as it."""
MOST_WHITE = 0.8
"""Surroundings that are white more often than this don't show whether an edge is sharp."""
MOVING = 0.25
"""Three quarters of the surroundings must owe at least this share of their variance to time."""
VARIED = 0.03
"""Surroundings whose standard deviation (working values) is below this show nothing but noise: no evidence."""
EDGE = 3
"""Pixels around a logo's or glyph's white that are left alone with it: soft edges, and colour that bleeds."""

OUTLINE = 8
"""Parts of the height and width in which the place of a logo is known to a film's networks."""

LOWEST = 0.6
"""Subtitles lie below this share of the frame's height."""
GLYPH = 50
"""The parts of a glyph are thinner than this part of the frame's height."""
NEAR = 100
"""Distance from a glyph to which its surroundings reach, as a part of the frame's height."""
DARK = 0.35
"""Working values up to this are dark beside a glyph: its outline, or black."""
DARK_SHARE = 0.7
"""Of a glyph's surroundings that are not white, at least this share is dark."""
LINE_GLYPHS = 6
"""Every row of a line of text crosses parts of glyphs at least so many times."""
LINE_HEIGHTS = (8, 50)
"""A line of text is as high as between these parts of the frame's height."""
LINE_SHARE = 0.15
"""Subtitles have a line of text in the same rows in at least this share of the frames."""
SAME_TEXT = 0.8
"""Intersection over union of two lines' glyphs, from which their text is the same."""
OTHER_TEXT = 0.5
"""Subtitles change: two of their lines that follow one another are less alike than this (as of `SAME_TEXT`)."""
STEADY = 12
"""In frames that lie so few apart, subtitles mostly have the same text: lit windows that move past have not."""

Mask = NDArray[np.bool_]
Pixels = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Overlays:
    """The overlays of a clip, as they lie in frames of the size that was measured; frames of other sizes are scaled.

    `picture`: left, top, right and bottom (the last two exclusive) of what bars leave. `logos`: (height, width), the
    number of a logo where its white is; elsewhere 0. `subtitles`: first and last row (exclusive) in which white glyphs
    are text; both 0 where there are none.
    """

    picture: tuple[int, int, int, int]
    logos: NDArray[np.uint8]
    subtitles: tuple[int, int] = (0, 0)

    @classmethod
    def find(cls, pixels: Pixels, numbers: Sequence[int]) -> Self:
        """The overlays of `(count, 3, height, width)` frames, working encoding, integers of 8 or 16 bits.

        `numbers`: the frames' in the clip, ascending.
        """
        full = np.iinfo(pixels.dtype).max
        height, width = pixels.shape[-2:]
        brightest = np.zeros((height, width), pixels.dtype)
        white = np.zeros((height, width), np.uint16)
        lines: list[_Line] = []
        for number, frame in zip(numbers, pixels, strict=True):
            peak = np.maximum(np.maximum(frame[0], frame[1]), frame[2])
            np.maximum(brightest, peak, out=brightest)
            white += peak >= WHITE * full
            lines += _lines(peak, full, number)
        picture = left, top, right, bottom = _picture(brightest > BLACK * full)
        logos = np.zeros((height, width), np.uint8)
        inside = np.s_[..., top:bottom, left:right]
        logos[inside] = _logos(pixels[inside], white[inside] / np.float32(len(pixels)))
        return cls(picture, logos, _subtitles(lines, len(pixels), height))

    def in_stream(self, stream: Overlays | None) -> Overlays:
        """The same picture, with the logos and subtitles that all of a film has, in place of its own.

        `stream`: what was found in frames of the whole film, of any size; None: nothing.
        """
        if stream is None:
            return replace(self, logos=np.zeros_like(self.logos), subtitles=(0, 0))
        there = stream._of_size(*self.logos.shape)
        return replace(self, logos=there.logos, subtitles=there.subtitles)

    def outline(self) -> list[list[int]]:
        """Where logos and subtitles lie, as coarsely as two edits of a film agree on: in parts of `OUTLINE`."""
        height, width = self.logos.shape
        found = (np.nonzero(self.logos == number) for number in range(1, int(self.logos.max()) + 1))
        centres = [
            [int(rows.mean() * OUTLINE / height), int(columns.mean() * OUTLINE / width)] for rows, columns in found
        ]
        return [*sorted(centres), *([[OUTLINE]] if any(self.subtitles) else [])]

    @classmethod
    def parse(cls, text: str) -> Self:
        """What `str` has written. Raises Refused for anything else, before it is unpacked to any size."""
        try:
            said = json.loads(text)
            height, width = said["height"], said["width"]
            left, top, right, bottom = picture = tuple(said["picture"])
            first, last = subtitles = tuple(said["subtitles"])
            if not all(type(number) is int for number in (height, width, *picture, *subtitles)):
                raise ValueError("its places are no whole numbers")
            if not (0 < height <= LARGEST and 0 < width <= LARGEST):
                raise ValueError(f"frames can't be {width}x{height}")
            if not (0 <= left < right <= width and 0 <= top < bottom <= height and 0 <= first <= last <= height):
                raise ValueError(f"its places are not in frames of {width}x{height}")
            unpacked = zlib.decompressobj().decompress(base64.b64decode(said["logos"]), height * width + 1)
            logos = np.frombuffer(unpacked, np.uint8).reshape(height, width)
        except Exception as error:  # what damaged and hostile text makes json, base64, zlib and NumPy raise
            raise Refused(f"overlays can't be read: {error}") from error
        return cls(picture, logos, subtitles)

    def __str__(self) -> str:
        height, width = self.logos.shape
        logos = base64.b64encode(zlib.compress(self.logos.tobytes())).decode()
        places = {"picture": self.picture, "logos": logos, "subtitles": self.subtitles}
        return json.dumps({"words": list(self.words()), "width": width, "height": height, **places})

    def __bool__(self) -> bool:
        """Whether there are any."""
        height, width = self.logos.shape
        return self.picture != (0, 0, width, height) or bool(self.logos.any()) or any(self.subtitles)

    def words(self) -> Iterator[str]:
        """A sentence about each kind that was found."""
        height, width = self.logos.shape
        left, top, right, bottom = self.picture
        if (right - left, bottom - top) != (width, height):
            yield f"black bars: the picture is {right - left}x{bottom - top} of {width}x{height}"
        for number in range(1, int(self.logos.max()) + 1):
            rows, columns = np.nonzero(self.logos == number)
            yield f"the white at {columns.min()},{rows.min()} to {columns.max()},{rows.max()} is a logo and stays white"
        if any(self.subtitles):
            top, bottom = self.subtitles
            yield f"white letters in the rows {top} to {bottom - 1} are subtitles and stay white"

    def without(self, pixels: Pixels) -> Pixels:
        """The picture alone of `(count, 3, height, width)` frames such as `find` takes; the rest is painted black.

        A view: `pixels` themselves are painted.
        """
        full = np.iinfo(pixels.dtype).max
        if self.logos.any() or any(self.subtitles):
            for frame in pixels:
                frame[:, self._kept(frame.max(axis=0), full)] = 0
        left, top, right, bottom = self.picture
        return pixels[..., top:bottom, left:right]

    def around(self, expand: Callable[[Pixels], Pixels], linear: Pixels, clips: float = 1.0) -> Pixels:
        """`expand` of what is picture in a frame of linear light, `(3, height, width)`; the rest as it is.

        Where something in a bar reaches `clips`, the clip has changed its shape, and the whole frame is picture.
        """
        if not self:
            return expand(linear)
        here = self._of_size(*linear.shape[1:])
        peak = linear.max(axis=0)
        left, top, right, bottom = here.picture
        outside = peak.copy()
        outside[top:bottom, left:right] = 0
        if (outside >= clips).any():
            left, top, right, bottom = 0, 0, linear.shape[2], linear.shape[1]
        kept = here._kept(peak, 1, GAMMA)[top:bottom, left:right]
        hdr = linear.copy()
        part = hdr[:, top:bottom, left:right]
        part[:] = np.where(kept, part, expand(np.where(kept, np.float32(0), part)))
        return hdr

    def _of_size(self, height: int, width: int) -> Overlays:
        """The same in frames of another size."""
        if (height, width) == self.logos.shape:
            return self
        if (height, width) not in self._scaled:
            measured_height, measured_width = self.logos.shape
            down, across = height / measured_height, width / measured_width
            left, top, right, bottom = self.picture
            picture = int(left * across), int(top * down), math.ceil(right * across), math.ceil(bottom * down)
            rows = np.arange(height) * measured_height // height
            columns = np.arange(width) * measured_width // width
            first, last = self.subtitles
            subtitles = int(first * down), math.ceil(last * down)
            self._scaled[height, width] = Overlays(picture, self.logos[rows][:, columns], subtitles)
        return self._scaled[height, width]

    @cached_property
    def _scaled(self) -> dict[tuple[int, int], Overlays]:
        return {}

    @cached_property
    def _with_edges(self) -> NDArray[np.uint8]:
        return _spread(self.logos, EDGE)

    def _kept(self, peak: Pixels, full: float, gamma: float = 1) -> Mask:
        """The pixels of a frame's logos and subtitles, with their edges, given its brightest channel.

        `full` is white's value there, `gamma` turns working values into those. A logo that is not there (yet, or in
        this clip) is not kept: lights that show in its place are lights.
        """
        numbers = self.logos[self.logos > 0]
        total = np.bincount(numbers, minlength=256)
        there = np.bincount(numbers[peak[self.logos > 0] >= WHITE**gamma * full], minlength=256)
        kept: Mask = ((there >= THERE * total) & (total > 0))[self._with_edges]
        top, bottom = self.subtitles
        if bottom:
            margin = 2 * len(peak) // GLYPH  # what decides about a pixel of the outermost rows
            above = max(top - margin, 0)
            glyphs = _glyphs(peak[above : bottom + margin], full, len(peak), gamma)[top - above :][: bottom - top]
            kept[top:bottom] |= _spread(glyphs, EDGE)
        return kept


def _picture(lit: Mask) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the picture, given the pixels that are ever brighter than black.

    Bars are as deep at one edge as at the opposite one: the thinner decides, so that a dark scene never loses more than
    a bar would take.
    """
    height, width = lit.shape
    rows = np.flatnonzero(lit.mean(axis=1) > LIT_SHARE)
    columns = np.flatnonzero(lit.mean(axis=0) > LIT_SHARE)
    if not len(rows) or not len(columns):
        return 0, 0, width, height
    above = min(int(rows[0]), height - 1 - int(rows[-1]))
    beside = min(int(columns[0]), width - 1 - int(columns[-1]))
    if min(height - 2 * above, width - 2 * beside) < MIN_PICTURE:
        return 0, 0, width, height
    return beside, above, width - beside, height - above


def _logos(pixels: Pixels, white: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """The logos by number, given how often each pixel is white, 0 to 1."""
    always = white >= ALWAYS
    logos = np.zeros(always.shape, np.uint8)
    if len(pixels) < MIN_FRAMES or not always.any():
        return logos
    height, width = always.shape
    side = max(SMALLEST_CELL, round(height / CELLS))
    cells = np.zeros((ceil_div(height, side), ceil_div(width, side)), bool)
    rows, columns = np.nonzero(always)
    cells[rows // side, columns // side] = True
    for group in _connected(cells):
        near = _spread(group, 1)
        down, across = np.nonzero(near.any(axis=1))[0], np.nonzero(near.any(axis=0))[0]
        box = (
            slice(down[0] * side, min((down[-1] + 1) * side, height)),
            slice(across[0] * side, min((across[-1] + 1) * side, width)),
        )
        inside, around = (
            np.kron(part[down[0] : down[-1] + 1, across[0] : across[-1] + 1], np.ones((side, side), bool))[
                : box[0].stop - box[0].start, : box[1].stop - box[1].start
            ]
            for part in (group, near)
        )
        often = _on_the_film(pixels[(..., *box)], white[box], always[box] & inside, around)
        if logos.max() < 255 and often is not None:
            logos[box][inside & (white[box] >= often + THERE * (1 - often))] = logos.max() + 1
    return logos


def _on_the_film(pixels: Pixels, white: NDArray[np.floating[Any]], logo: Mask, around: Mask) -> float | None:
    """How often the surroundings of a logo are white, 0 to 1; None where there is no logo.

    It is one if what is always white at `logo` has a sharp edge, and all around it moves: frames and masks of one box.
    """
    inner, outer = SHARPEST_BAND
    band = _spread(logo, outer) & ~_spread(logo, inner - 1)
    ring = around & ~_spread(logo, outer + 1)
    if not band.any() or not ring.any():
        return None
    often = float(white[ring].mean())
    if often > MOST_WHITE or float(white[band].mean()) - often > LEAK * (1 - often):
        return None
    luma = np.array(LUMA, np.float32) / np.iinfo(pixels.dtype).max
    values = np.stack([np.tensordot(luma, frame[:, ring].astype(np.float32), 1) for frame in pixels])
    values -= values.mean(axis=1, keepdims=True)  # exposure moves all of it: that is no movement
    by_time = values.var(axis=0)
    variance = float((values**2).mean())
    return often if variance >= VARIED**2 and np.quantile(by_time, 0.25) >= MOVING * variance else None


@dataclass(frozen=True)
class _Line:
    """What looks like a line of text in one frame: its rows, the last exclusive, and its glyphs there."""

    number: int
    top: int
    bottom: int
    glyphs: Mask

    def in_rows_of(self, other: _Line) -> bool:
        return abs(self.top - other.top) <= 1 and abs(self.bottom - other.bottom) <= 1

    def likeness(self, other: _Line) -> float:
        """Intersection over union of the glyphs."""
        rows = min(len(self.glyphs), len(other.glyphs))
        a, b = self.glyphs[:rows], other.glyphs[:rows]
        return float((a & b).sum() / (a | b).sum())


def _glyphs(peak: Pixels, full: float, height: int, gamma: float = 1) -> Mask:
    """The pixels of thin white glyphs that have dark around them, given the brightest channel of some whole rows.

    `full` is white's value, `gamma` turns working values into it; `height` is the frame's.
    """
    white = peak >= WHITE**gamma * full
    radius = max(2, round(height / GLYPH / 2))
    thick = _spread(~_spread(~white, radius), radius)
    beside = ~_spread(white, 1)
    near = max(3, round(height / NEAR))
    dark = _sums(beside & (peak <= DARK**gamma * full), near)
    glyphs: Mask = white & ~thick & (dark > 0) & (dark >= DARK_SHARE * _sums(beside, near))
    return glyphs


def _lines(peak: Pixels, full: float, number: int) -> Iterator[_Line]:
    """What looks like lines of text in the lower part of a frame, given its brightest channel."""
    height = len(peak)
    first = int(LOWEST * height)
    glyphs = _glyphs(peak[first:], full, height)
    begins = glyphs.copy()
    begins[:, 1:] &= ~glyphs[:, :-1]
    rows = np.flatnonzero(np.diff(np.r_[False, begins.sum(axis=1) >= LINE_GLYPHS, False]))
    for top, bottom in zip(rows[::2].tolist(), rows[1::2].tolist(), strict=True):
        if height / LINE_HEIGHTS[1] <= bottom - top <= height / LINE_HEIGHTS[0]:
            yield _Line(number, first + top, first + bottom, glyphs[top:bottom].copy())


def _subtitles(lines: Sequence[_Line], frames: int, height: int) -> tuple[int, int]:
    """The rows in which subtitles come and go, given all lines of `frames` frames; (0, 0): there are none."""
    groups = ([line for line in lines if line.in_rows_of(one)] for one in lines)
    group = max(groups, key=len, default=[])
    if len(group) < max(3, LINE_SHARE * frames):
        return 0, 0
    likeness = [(after.number - before.number, before.likeness(after)) for before, after in pairwise(group)]
    soon = [alike >= SAME_TEXT for apart, alike in likeness if apart <= STEADY]
    if min(alike for _, alike in likeness) >= OTHER_TEXT or (soon and np.mean(soon) < 0.5):
        return 0, 0
    top, bottom = group[0].top, group[0].bottom
    line = bottom - top  # of small glyphs' height, about: three lines of text, with what hangs below the last
    return max(top - 4 * line, 0), min(bottom + line, height)


def _connected(cells: Mask) -> Iterator[Mask]:
    """The groups of cells that touch, corners too."""
    from scipy import ndimage  # takes as long to import as all else of a known network's call

    numbers, count = ndimage.label(cells, np.ones((3, 3)))
    for number in range(1, count + 1):
        yield numbers == number


def _sums(mask: Mask, by: int) -> NDArray[np.int32]:
    """How many pixels are set in the square of `by` pixels to every side."""
    from scipy import ndimage

    ones = np.ones(2 * by + 1, np.int32)
    rows = ndimage.convolve1d(mask.astype(np.int32), ones, axis=0, mode="constant")
    sums: NDArray[np.int32] = ndimage.convolve1d(rows, ones, axis=1, mode="constant")
    return sums


def _spread[T: np.generic](values: NDArray[T], by: int) -> NDArray[T]:
    """The highest value in the square of `by` pixels to every side: of a mask, what is near a pixel that is set."""
    from scipy import ndimage

    spread: NDArray[T] = ndimage.maximum_filter(values, size=2 * by + 1, mode="constant")
    return spread
