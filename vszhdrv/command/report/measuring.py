"""What is measured of each frame for the report, and which frames are worth a look."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vszhdrv import light

Planes = NDArray[np.float32]
"""(3, height, width), linear light, 1.0 = SDR white."""

GAINED_STOPS = 0.1
"""A pixel counts as gained from this many stops on."""
THIRDS = (("upper left", "top", "upper right"), ("left", "middle", "right"), ("lower left", "bottom", "lower right"))


class Pairs(Protocol):
    """Frames of a clip in linear light beside their expansions.

    most_pixels: so many are read at most to measure a clip; of longer clips, evenly spaced frames are.
    """

    most_pixels: int

    def read(self, numbers: Sequence[int]) -> Iterator[tuple[int, Planes, Planes]]:
        """Each frame's number, source and expansion."""


@dataclass(frozen=True)
class FrameFigures:
    """Figures of one frame. Shares are of its pixels, 0 to 1; light is in nits of BT.2020 (light.FrameLight).

    clipped: the share with a channel at the clip point. gained: the share brightened by GAINED_STOPS or more;
    gained_stops: by how many stops on average, most_stops: at most, and `where` in the picture most was gained.
    """

    number: int
    clipped: float
    gained: float
    gained_stops: float
    most_stops: float
    where: str
    source: light.FrameLight
    result: light.FrameLight

    @property
    def gain(self) -> float:
        """The mean of all pixels' gains in stops: by this, frames are compared."""
        return self.gained * self.gained_stops


def measured(number: int, sdr: Planes, hdr: Planes, clip_point: float, primaries: int, white: float) -> FrameFigures:
    """The figures of a frame. clip_point: linear light from which a channel counts as clipped."""
    stops = gained_stops(sdr, hdr, primaries)
    gained = stops >= GAINED_STOPS
    return FrameFigures(
        number,
        clipped=float((sdr.max(axis=0) >= clip_point).mean()),
        gained=float(gained.mean()),
        gained_stops=float(stops[gained].mean()) if gained.any() else 0.0,
        most_stops=max(0.0, float(stops.max())),
        where=where(np.where(gained, stops, 0)),
        source=light.frame_light(sdr, white, primaries),
        result=light.frame_light(hdr, white, primaries),
    )


def gained_stops(sdr: Planes, hdr: Planes, primaries: int) -> NDArray[np.float32]:
    """By how many stops each pixel's luminance exceeds the source's, (height, width): what core.zhdrv.Mask returns."""
    before, after = (light.luminance(list(planes), primaries) for planes in (sdr, hdr))
    stops: NDArray[np.float32] = np.log2(np.maximum(after, light.BLACK) / np.maximum(before, light.BLACK))
    return stops


def where(stops: NDArray[np.float32]) -> str:
    """In which ninth of the picture, in words, most stops were gained."""
    rows = [np.array_split(row, 3, axis=1) for row in np.array_split(stops, 3, axis=0)]
    sums = [[float(ninth.sum()) for ninth in row] for row in rows]
    row, column = divmod(int(np.argmax(sums)), 3)
    return THIRDS[row][column]


def to_measure(numbers: Sequence[int], count: int) -> list[int]:
    """The frames to measure: all of these, or so many evenly spaced ones."""
    if len(numbers) <= count:
        return list(numbers)
    return [numbers[round(place)] for place in np.linspace(0, len(numbers) - 1, count)]


def worth_a_look(figures: Sequence[FrameFigures]) -> dict[int, str]:
    """The numbers of a few frames and what each is: those where most clips, where most was gained, and the median."""
    by_clipped = sorted(figures, key=lambda frame: frame.clipped)
    chosen: dict[int, str] = {}
    for name, frame in (
        ("most clipped", by_clipped[-1]),
        ("median", by_clipped[len(by_clipped) // 2]),
        ("largest gain", max(figures, key=lambda frame: frame.gain)),
    ):
        chosen[frame.number] = f"{chosen[frame.number]}, {name}" if frame.number in chosen else name
    return chosen


def clip_light(figures: Iterable[FrameFigures], which: str, frames: int, size: tuple[int, int]) -> light.ClipLight:
    """The light of a clip of so many frames of this width and height: its "source" or its "result"."""
    total = light.ClipLight(frames, *size)
    for frame in figures:
        total.add(frame.number, getattr(frame, which))
    return total


def row_of(frame: FrameFigures) -> dict[str, Any]:
    """A row of frames.csv."""
    return {
        "frame": frame.number,
        "clipped_percent": f"{100 * frame.clipped:.3f}",
        "gained_percent": f"{100 * frame.gained:.3f}",
        "gained_stops": f"{frame.gained_stops:.3f}",
        "most_stops": f"{frame.most_stops:.3f}",
        "source_max_nits": f"{frame.source.max_nits:.2f}",
        "source_mean_nits": f"{frame.source.avg_nits:.3f}",
        "result_max_nits": f"{frame.result.max_nits:.2f}",
        "result_mean_nits": f"{frame.result.avg_nits:.3f}",
    }


FRAME_COLUMNS = (
    "frame", "clipped_percent", "gained_percent", "gained_stops", "most_stops",
    "source_max_nits", "source_mean_nits", "result_max_nits", "result_mean_nits",
)  # fmt: skip
