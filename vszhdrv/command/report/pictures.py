"""A frame as the report's script wants it: 16-bit pixels of source and expansion, waveform and histogram.

Pixels travel as half floats, which EXR files hold too. The expansion is stored as the difference of its bits from the
source's, so that what was not changed takes no room; both are differences from the pixel to the left, deflated. The
script takes that apart with the browser's own DecompressionStream.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vszhdrv import exr, light, stills

from .measuring import GAINED_STOPS, Planes, gained_stops

WIDTHS = (960, 800, 640, 480, 320, 160)
"""Widths of the page's pictures in pixels: the first with which the page is small enough."""
LOW_NITS, HIGH_NITS = 0.1, light.PQ_MAX_NITS
"""Ends of the scales of histogram and waveform."""
LEVELS, COLUMNS = 120, 200
"""Steps of light, evenly spaced in stops, and columns of the waveform."""


@dataclass(frozen=True)
class Picture:
    """A frame for the page: its number, what it is among the clip's frames, and its pixels."""

    number: int
    role: str
    alt: str
    sdr: Planes
    hdr: Planes
    primaries: int
    white: float

    def content(self, width: int) -> dict[str, Any]:
        """What the script gets, at most `width` pixels wide."""
        source, result = (nits_of(planes, self.primaries, self.white) for planes in (self.sdr, self.hdr))
        sdr, hdr = (self._shown(planes, width) for planes in (self.sdr, self.hdr))
        before, after = sdr.view(np.uint16), hdr.view(np.uint16)
        return {
            "frame": self.number,
            "role": self.role,
            "alt": self.alt,
            "focus": focus(gained_stops(self.sdr, self.hdr, self.primaries)),
            "width": sdr.shape[2],
            "height": sdr.shape[1],
            "sdr": packed(before),
            "hdr": packed(after - before),
            "source": {"histogram": histogram(source), "waveform": waveform(source)},
            "result": {"histogram": histogram(result), "waveform": waveform(result)},
            "ultra": self._ultra_hdr(width),
        }

    def _shown(self, planes: Planes, width: int) -> NDArray[np.float16]:
        """In BT.709's primaries, which pages are taken to have, as half floats, 0 or more."""
        if self.primaries in stills.WIDE:
            matrix = light.conversion(self.primaries, 1).astype(np.float32)
            planes = np.tensordot(matrix, planes, axes=1)
        return np.ascontiguousarray(smaller(planes, width).clip(0, exr.HALF_MAX), np.float16)

    def _ultra_hdr(self, width: int) -> str | None:
        """The frame as an Ultra HDR JPEG, in base64, where imagecodecs is installed."""
        if not stills.available():
            return None
        sdr, hdr = (np.ascontiguousarray(smaller(p, width).transpose(1, 2, 0)) for p in (self.sdr, self.hdr))
        return base64.b64encode(stills.encoded(stills.Still(sdr, hdr, self.primaries, self.white), ".jpg")).decode()


def smaller(planes: Planes, width: int) -> Planes:
    """Scaled down to at most this width by the mean of linear light, in which highlights keep their energy."""
    import cv2

    _, rows, columns = planes.shape
    if columns <= width:
        return planes
    size = width, max(1, round(rows * width / columns))
    return np.stack([cv2.resize(np.ascontiguousarray(plane), size, interpolation=cv2.INTER_AREA) for plane in planes])


def packed(values: NDArray[np.uint16]) -> str:
    """(3, height, width) as base64 of a zlib stream: differences from the left, all low bytes before all high ones."""
    differences = np.diff(values, axis=2, prepend=np.uint16(0)).astype("<u2")
    halves = differences.reshape(-1).view(np.uint8).reshape(-1, 2).T
    return base64.b64encode(zlib.compress(np.ascontiguousarray(halves).tobytes(), 9)).decode()


def focus(stops: NDArray[np.float32]) -> int:
    """How far to the right the middle of what was gained lies, in percent: where the divider shows most at first."""
    columns = np.where(stops >= GAINED_STOPS, stops, 0).sum(axis=0, dtype=np.float64)
    if not columns.any():
        return 50
    middle = int(np.searchsorted(np.cumsum(columns), columns.sum() / 2))
    return min(80, max(20, round(100 * middle / len(columns))))


def nits_of(planes: Planes, primaries: int, white: float) -> NDArray[np.float32]:
    """The light of each pixel, (height, width): its largest component in BT.2020, as light.frame_light has it."""
    bt2020 = np.tensordot(light.to_bt2020(primaries).astype(np.float32), planes, axes=1)
    nits: NDArray[np.float32] = np.clip(bt2020.max(axis=0) * np.float32(white), 0, light.PQ_MAX_NITS)
    return nits


def levels_of(nits: NDArray[np.float32]) -> NDArray[np.int64]:
    """Which of the LEVELS each pixel's light belongs to; darker and brighter ones count to the ends."""
    span = np.log2(HIGH_NITS / LOW_NITS)
    places = np.log2(np.maximum(nits, LOW_NITS) / LOW_NITS) / span * LEVELS
    levels: NDArray[np.int64] = places.astype(np.int64).clip(0, LEVELS - 1)
    return levels


def histogram(nits: NDArray[np.float32]) -> list[float]:
    """The share of the pixels at each level, in percent."""
    counts = np.bincount(levels_of(nits).ravel(), minlength=LEVELS)
    return [round(100 * float(count) / nits.size, 4) for count in counts]


def waveform(nits: NDArray[np.float32]) -> str:
    """How many pixels of each column have each level: base64 of bytes, LEVELS rows of COLUMNS, brightest row first."""
    levels = levels_of(nits)
    columns = np.arange(nits.shape[1]) * COLUMNS // nits.shape[1]
    counts = np.zeros((LEVELS, COLUMNS))
    np.add.at(counts, (levels, np.broadcast_to(columns, levels.shape)), 1)
    if nits.shape[1] < COLUMNS:  # a narrow picture fills every so many columns
        counts = counts[:, columns[np.arange(COLUMNS) * nits.shape[1] // COLUMNS]]
    strength = np.sqrt(counts / max(1.0, counts.max()))
    return base64.b64encode(np.rint(255 * strength[::-1]).astype(np.uint8).tobytes()).decode()
