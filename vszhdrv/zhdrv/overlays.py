"""What is in a clip's frames without being picture: black bars, and logos whose white is meant to be white.

They are found once, in the frames to learn from, and kept with the network. Learning sees the picture without bars, its
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .camera import GAMMA, LUMA

BLACK = 0.04
"""Working values up to this are black in a bar: 8-bit video's code 27, above any coding noise."""
LIT_SHARE = 0.01
"""A row or column in which more than this share of the pixels is ever brighter belongs to the picture."""
MIN_PICTURE = 16
"""Pixels of the picture's smallest side."""

WHITE = 0.95
"""A logo's brightest channel is at least this (working values): white as compression leaves it."""
ALWAYS = 0.95
"""... in at least this share of the frames."""
MIN_FRAMES = 8
"""Fewer frames show nothing about what moves."""
CELLS = 32
"""Cells of which one measures a logo's surroundings, over the height of the picture: its letters are one logo."""
SMALLEST_CELL = 8
"""Their smallest side, in pixels: twice what a logo's edge takes."""
SHARPEST_BAND = (2, 3)
"""The pixels at this distance from a logo's white must be as seldom white as its surroundings ..."""
LEAK = 0.1
"""... but for this share: around a real light that moves by a pixel or two, they are white nearly as often as it."""
MOST_WHITE = 0.8
"""Surroundings that are white more often than this don't show whether an edge is sharp."""
MOVING = 0.25
"""Three quarters of the surroundings must owe at least this share of their variance to time."""
EDGE = 3
"""Pixels around a logo's white that are left alone with it: its soft edge, and colour that bleeds from it."""

Mask = NDArray[np.bool_]
Pixels = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Overlays:
    """The overlays of a clip, as they lie in frames of the size that was measured; frames of other sizes are scaled.

    `picture`: left, top, right and bottom (the last two exclusive) of what bars leave. `logos`: (height, width), the
    number of a logo where its white is, without the soft edge; elsewhere 0.
    """

    picture: tuple[int, int, int, int]
    logos: NDArray[np.uint8]

    @classmethod
    def find(cls, pixels: Pixels) -> Self:
        """The overlays of `(count, 3, height, width)` frames, working encoding, integers of 8 or 16 bits."""
        full = np.iinfo(pixels.dtype).max
        height, width = pixels.shape[-2:]
        brightest = np.zeros((height, width), pixels.dtype)
        white = np.zeros((height, width), np.uint16)
        for frame in pixels:
            peak = np.maximum(np.maximum(frame[0], frame[1]), frame[2])
            np.maximum(brightest, peak, out=brightest)
            white += peak >= WHITE * full
        picture = left, top, right, bottom = _picture(brightest > BLACK * full)
        logos = np.zeros((height, width), np.uint8)
        inside = np.s_[..., top:bottom, left:right]
        logos[inside] = _logos(pixels[inside], white[inside] / np.float32(len(pixels)))
        return cls(picture, logos)

    @classmethod
    def parse(cls, text: str) -> Self:
        """What `str` has written."""
        said = json.loads(text)
        logos = np.frombuffer(zlib.decompress(base64.b64decode(said["logos"])), np.uint8)
        return cls(tuple(said["picture"]), logos.reshape(said["height"], said["width"]))

    def __str__(self) -> str:
        height, width = self.logos.shape
        logos = base64.b64encode(zlib.compress(self.logos.tobytes())).decode()
        said = {"words": list(self.words()), "width": width, "height": height, "picture": self.picture, "logos": logos}
        return json.dumps(said)

    def __bool__(self) -> bool:
        """Whether there are any."""
        height, width = self.logos.shape
        return self.picture != (0, 0, width, height) or bool(self.logos.any())

    def words(self) -> Iterator[str]:
        """A sentence about each kind that was found."""
        height, width = self.logos.shape
        left, top, right, bottom = self.picture
        if (right - left, bottom - top) != (width, height):
            yield f"black bars: the picture is {right - left}x{bottom - top} of {width}x{height}"
        for number in range(1, int(self.logos.max()) + 1):
            rows, columns = np.nonzero(self.logos == number)
            yield f"the white at {columns.min()},{rows.min()} to {columns.max()},{rows.max()} is a logo and stays white"

    def without(self, pixels: Pixels) -> Pixels:
        """The picture alone of `(count, 3, height, width)` frames such as `find` takes; logos are painted black.

        A view: `pixels` themselves are painted.
        """
        full = np.iinfo(pixels.dtype).max
        if self.logos.any():
            for frame in pixels:
                frame[:, self._shown(frame.max(axis=0) >= WHITE * full)] = 0
        left, top, right, bottom = self.picture
        return pixels[..., top:bottom, left:right]

    def around(self, expand: Callable[[Pixels], Pixels], linear: Pixels) -> Pixels:
        """`expand` of what is picture in a frame of linear light, `(3, height, width)`; the rest as it is.

        Where something in a bar clips, the clip has changed its shape, and the whole frame is picture.
        """
        if not self:
            return expand(linear)
        here = self._of_size(*linear.shape[1:])
        peak = linear.max(axis=0)
        left, top, right, bottom = here.picture
        outside = peak.copy()
        outside[top:bottom, left:right] = 0
        if (outside >= 1).any():
            left, top, right, bottom = 0, 0, linear.shape[2], linear.shape[1]
        logo = here._shown(peak >= WHITE**GAMMA)[top:bottom, left:right]
        hdr = linear.copy()
        part = hdr[:, top:bottom, left:right]
        part[:] = np.where(logo, part, expand(np.where(logo, np.float32(0), part)))
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
            self._scaled[height, width] = Overlays(picture, self.logos[rows][:, columns])
        return self._scaled[height, width]

    @cached_property
    def _scaled(self) -> dict[tuple[int, int], Overlays]:
        return {}

    @cached_property
    def _with_edges(self) -> NDArray[np.uint8]:
        return _grown(self.logos, EDGE)

    def _shown(self, white: Mask) -> Mask:
        """The pixels of those logos that a frame shows, with their edges, given which of its pixels are white.

        A logo that is not there (yet, or in this clip) is not kept: lights that show in its place are lights.
        """
        numbers = self.logos[self.logos > 0]
        total = np.bincount(numbers, minlength=256)
        there = np.bincount(numbers[white[self.logos > 0]], minlength=256)
        return ((there >= ALWAYS * total) & (total > 0))[self._with_edges]


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
    cells = np.zeros((-(-height // side), -(-width // side)), bool)
    rows, columns = np.nonzero(always)
    cells[rows // side, columns // side] = True
    for group in _connected(cells):
        near = _grown(group, 1)
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
        logo = always[box] & inside
        if logos.max() < 255 and _on_the_film(pixels[(..., *box)], white[box], logo, around):
            logos[box][logo] = logos.max() + 1
    return logos


def _on_the_film(pixels: Pixels, white: NDArray[np.floating[Any]], logo: Mask, around: Mask) -> bool:
    """Whether what is always white at `logo` has a sharp edge, and all around it moves: frames and masks of one box."""
    inner, outer = SHARPEST_BAND
    band = _grown(logo, outer) & ~_grown(logo, inner - 1)
    ring = around & ~_grown(logo, outer + 1)
    if not band.any() or not ring.any():
        return False
    often = float(white[ring].mean())
    if often > MOST_WHITE or float(white[band].mean()) - often > LEAK * (1 - often):
        return False
    luma = np.array(LUMA, np.float32) / np.iinfo(pixels.dtype).max
    values = np.stack([np.tensordot(luma, frame[:, ring].astype(np.float32), 1) for frame in pixels])
    values -= values.mean(axis=1, keepdims=True)  # exposure moves all of it: that is no movement
    by_time = values.var(axis=0)
    return bool(np.quantile(by_time, 0.25) >= MOVING * (values**2).mean() > 0)


def _connected(cells: Mask) -> Iterator[Mask]:
    """The groups of cells that touch, corners too."""
    numbers = np.where(cells, np.arange(1, cells.size + 1).reshape(cells.shape), 0)
    while True:
        grown = np.where(cells, _grown(numbers, 1), 0)
        if np.array_equal(grown, numbers):
            break
        numbers = grown
    for number in np.unique(numbers[cells]):
        yield numbers == number


def _grown[T: np.generic](mask: NDArray[T], by: int) -> NDArray[T]:
    """The maximum over the square of `by` pixels to every side."""
    for axis in (0, 1):
        padded = np.pad(mask, [(by, by) if axis == each else (0, 0) for each in (0, 1)])
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * by + 1, axis)
        mask = windows.max(axis=-1)
    return mask
