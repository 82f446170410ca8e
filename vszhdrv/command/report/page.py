"""The report itself: everything measured, in words and numbers, and the template around it."""

from __future__ import annotations

import json
import platform
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import numpy as np

from vszhdrv.light import ClipLight
from vszhdrv.version import __version__

from .measuring import FrameFigures, Pairs, clip_light, measured, to_measure, worth_a_look
from .pictures import HIGH_NITS, LEVELS, LOW_NITS, WIDTHS, Picture

ASSETS = Path(__file__).with_name("assets")
LARGEST = 8_000_000
"""Bytes of a page: with larger ones its pictures are made narrower."""
PACKAGES = ("torch", "numpy", "vapoursynth", "opencv-python-headless", "OpenEXR", "imagecodecs")
FEWEST = 8
"""Frames that are measured of any clip, as far as it has them."""


@dataclass(frozen=True)
class Place:
    """Frames that one network expands. Today a clip is one place."""

    name: str
    frames: range


@dataclass(frozen=True)
class Subject:
    """What a report is about.

    name: the clip's. size: width and height. frames: the numbers of those whose expansions can be had. length: the
    clip's. clip_point: linear light from which a channel of the source counts as clipped. metadata: the header of the
    network's file. params: every setting. written: what the run has left, in words. places: where each network holds.
    """

    name: str
    size: tuple[int, int]
    frames: Sequence[int]
    length: int
    primaries: int
    white: float
    clip_point: float
    metadata: Mapping[str, str]
    params: Mapping[str, object]
    written: str = ""
    places: Sequence[Place] = ()
    first_epochs: int | None = None
    """The epochs of the first of two rounds of training."""
    known: ClipLight | None = None
    """The result's light, where all of its frames were measured for something else."""


@dataclass
class Report:
    """A report that is being made: `measure`, then `page`."""

    subject: Subject
    pairs: Pairs
    figures: list[FrameFigures] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    """The first frames of shots, but for the first shot's."""

    def measure(self) -> Generator[tuple[int, int]]:
        """Look at the frames; yields how many of how many."""
        from vszhdrv.zhdrv.shots import Glance, shots_of

        subject = self.subject
        width, height = subject.size
        numbers = to_measure(subject.frames, max(FEWEST, self.pairs.most_pixels // (width * height)))
        glances = []
        for number, sdr, hdr in self.pairs.read(numbers):
            self.figures.append(measured(number, sdr, hdr, subject.clip_point, subject.primaries, subject.white))
            glances.append(Glance.of(sdr.clip(0, 1) ** np.float32(1 / 2.2), {}))
            yield len(self.figures), len(numbers)
        shots = shots_of(numbers, glances)
        self.cuts = [number for k, number in enumerate(numbers) if k and shots[k] != shots[k - 1]]

    @property
    def places(self) -> Sequence[Place]:
        whole = range(self.subject.length)
        return self.subject.places or [Place(f"Frames 0 to {self.subject.length - 1}", whole)]

    def page(self) -> str:
        """The whole page. `measure` has come to its end before."""
        rows = []
        for place in self.places:
            within = [frame for frame in self.figures if frame.number in place.frames]
            if within:
                rows.append((place, self._pictures(worth_a_look(within))))
        for width in WIDTHS:
            page = self._rendered([(place, [p.content(width) for p in pictures]) for place, pictures in rows])
            if len(page) < LARGEST:
                break
        return page

    def _pictures(self, chosen: Mapping[int, str]) -> list[Picture]:
        by_number = {frame.number: frame for frame in self.figures}
        return [
            Picture(n, chosen[n], described(by_number[n]), sdr, hdr, self.subject.primaries, self.subject.white)
            for n, sdr, hdr in self.pairs.read(list(chosen))
        ]

    def _rendered(self, rows: list[tuple[Place, list[dict[str, Any]]]]) -> str:
        import jinja2

        subject = self.subject
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(ASSETS), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        environment.filters["nits"] = lambda value: f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
        source, result = (
            clip_light(self.figures, which, subject.length, subject.size) for which in ("source", "result")
        )
        log = json.loads(subject.metadata.get("log", "[]"))
        trained = json.loads(subject.metadata.get("training_frames", "[]"))
        return environment.get_template("page.html.j2").render(
            name=subject.name,
            verdict=self.verdict(),
            size=subject.size,
            length=subject.length,
            measured=len(self.figures),
            white=subject.white,
            source=source,
            result=subject.known or result,
            figures=self.figures,
            rows=rows,
            trained=ranges(trained),
            trained_count=len(trained),
            log=log,
            first_epochs=subject.first_epochs,
            about=self.about(),
            version=__version__,
            asset=asset,
            data=self._data(rows, log, trained),
        )

    def _data(
        self, rows: list[tuple[Place, list[dict[str, Any]]]], log: list[dict[str, Any]], trained: list[int]
    ) -> dict[str, Any]:
        """What the script draws."""
        first = self.subject.first_epochs
        return {
            "white": self.subject.white,
            "pictures": [picture for _, pictures in rows for picture in pictures],
            "levels": {"count": LEVELS, "low": LOW_NITS, "high": HIGH_NITS},
            "heat": heat_colours(),
            "most": max((frame.most_stops for frame in self.figures), default=0.0),
            "light": {
                "frames": [frame.number for frame in self.figures],
                "source_max": [round(frame.source.max_nits, 2) for frame in self.figures],
                "source_mean": [round(frame.source.avg_nits, 3) for frame in self.figures],
                "result_max": [round(frame.result.max_nits, 2) for frame in self.figures],
                "result_mean": [round(frame.result.avg_nits, 3) for frame in self.figures],
                "clipped": [round(100 * frame.clipped, 3) for frame in self.figures],
                "gained": [round(frame.gained_stops, 3) for frame in self.figures],
                "most": [round(frame.most_stops, 3) for frame in self.figures],
            },
            "cuts": self.cuts,
            "places": [place.frames.start for place, _ in rows[1:]],
            "trained": trained,
            "losses": {
                name: [row.get(name) for row in log] for name in ("epoch", "total", "reconstruction", "temporal")
            },
            "first_epochs": first if first is not None and first < len(log) else None,
        }

    def verdict(self) -> str:
        """The result in one line."""
        figures = self.figures
        clipped = sum(frame.clipped for frame in figures) / len(figures)
        share = sum(frame.gained for frame in figures)
        stops = sum(frame.gain for frame in figures) / share if share else 0.0
        best = max(figures, key=lambda frame: frame.most_stops)
        fullest = max(figures, key=lambda frame: frame.gain)
        gained = (
            f"Highlights gained {stops:.1f} stops on average and {best.most_stops:.1f} at most (frame {best.number}); "
            f"most of it at the {fullest.where} of frame {fullest.number}."
            if share
            else "Nothing was made brighter."
        )
        shots, places = len(self.cuts) + 1, len(self.places)
        seconds = self.subject.metadata.get("seconds")
        parts = [
            f"{percent(clipped)} of the clip clips.",
            gained,
            f"{counted(shots, 'shot')}, {counted(places, 'place')}"
            + (f", trained in {float(seconds):.0f} s" if seconds else "")
            + (f"; {self.subject.written}" if self.subject.written else "")
            + ".",
        ]
        return " ".join(parts)

    def about(self) -> dict[str, dict[str, str]]:
        """Parameters, versions and digests: all that a bug report needs."""
        shown = {key: str(value) for key, value in self.subject.params.items()}
        if "input" in shown:
            shown["input"] = Path(shown["input"]).name  # folders are nobody's business
        kept = ("log", "training_frames", "facts")
        network = {key: value for key, value in self.subject.metadata.items() if key not in kept}
        facts = json.loads(self.subject.metadata.get("facts", "{}"))
        if "clip" in facts:
            network["clip digest"] = facts["clip"]
        versions = {"vszhdrv": __version__, "python": platform.python_version(), "system": platform.platform()}
        versions |= {name: found for name in PACKAGES if (found := installed(name))}
        return {"Settings": shown, "Network": network, "Versions here": versions}


def described(frame: FrameFigures) -> str:
    """A frame in words, for those who do not see it."""
    return (
        f"Frame {frame.number}: {percent(frame.clipped)} of it clips; {percent(frame.gained)} gained "
        f"{frame.gained_stops:.1f} stops on average and {frame.most_stops:.1f} at most, "
        f"most of it at the {frame.where}. Its brightest pixel has {frame.source.max_nits:.0f} nits in the source, "
        f"{frame.result.max_nits:.0f} in the result."
    )


def percent(share: float) -> str:
    value = 100 * share
    return "0 %" if value == 0 else f"{value:.1f} %" if value >= 0.1 else "Under 0.1 %"


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def ranges(numbers: Sequence[int]) -> str:
    """Sorted numbers as people write them: 0 to 4, 7, 9 to 12."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in runs)


def installed(package: str) -> str | None:
    try:
        return installed_version(package)
    except ImportError:
        return None


@cache
def heat_colours() -> list[list[int]]:
    """256 colours from nothing to most, red, green and blue: OpenCV's viridis, which dims evenly for all eyes."""
    import cv2

    ramp = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)
    colours: list[list[int]] = ramp[:, 0, ::-1].tolist()
    return colours


@cache
def asset(name: str) -> str:
    """A file of assets/ as text."""
    return (ASSETS / name).read_text(encoding="utf-8")
