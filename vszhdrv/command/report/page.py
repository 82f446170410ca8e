"""The report itself: everything measured, in words and numbers, and the template around it."""

from __future__ import annotations

import json
import platform
from bisect import bisect_right
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version as installed_version
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vszhdrv.light import ClipLight
from vszhdrv.shots import Shot, places_in, words
from vszhdrv.version import __version__

from .measuring import FrameFigures, Pairs, clip_light, measured, to_measure, worth_a_look
from .pictures import HIGH_NITS, LEVELS, LOW_NITS, WIDTHS, Picture

ASSETS = Path(__file__).with_name("assets")
LARGEST = 8_000_000
"""Bytes of a page: with larger ones its pictures are made narrower."""
PACKAGES = ("torch", "numpy", "vapoursynth", "opencv-python-headless", "OpenEXR", "imagecodecs")
MOST_ROWS = 12
"""Places with pictures of their own."""
FEWEST = 8
"""Frames that are measured of any clip, as far as it has them."""


@dataclass(frozen=True)
class Network:
    """A trained network. metadata: the header of its file. numbers: the clip's frames that it is for."""

    metadata: Mapping[str, str]
    numbers: Sequence[int]

    @property
    def clip_point(self) -> float:
        """Linear light from which a channel of the source counts as clipped."""
        from vszhdrv.zhdrv.traits import Traits

        traits = Traits.from_header(self.metadata)
        return float((traits.white * traits.clip_point) ** 2.2)

    @property
    def log(self) -> list[dict[str, Any]]:
        """A row for each epoch of its training."""
        rows: list[dict[str, Any]] = json.loads(self.metadata.get("log", "[]"))
        return rows

    @property
    def trained_on(self) -> list[int]:
        """The clip's numbers of the frames that it was trained on; none where its file does not say them."""
        return [self.numbers[n] for n in json.loads(self.metadata.get("training_frames", "[]"))]


@dataclass(frozen=True)
class Subject:
    """What a report is about.

    name: the clip's. size: width and height. frames: the numbers of those whose expansions can be had. length: the
    clip's. shots: all of its shots. networks: one for each place, or one for all. params: every setting. written: what
    the run has left, in words. second_round: the share of a training's epochs that is its second round. known: the
    result's light, where all of its frames were measured for something else.
    """

    name: str
    size: tuple[int, int]
    frames: Sequence[int]
    length: int
    primaries: int
    white: float
    shots: Sequence[Shot]
    networks: Sequence[Network]
    params: Mapping[str, object]
    written: str = ""
    second_round: float = 0.0
    known: ClipLight | None = None

    def clip_point(self, number: int) -> float:
        """That of the network of this frame."""
        shot = bisect_right(self.shots, number, key=lambda shot: shot.first) - 1
        return self.networks[self.shots[shot].place if len(self.networks) > 1 else 0].clip_point

    @property
    def places(self) -> list[tuple[str, set[int]]]:
        """Each place's name and frames."""
        found = places_in(self.shots)
        numbers = [sorted(n for shot in own for n in range(shot.first, shot.end)) for own in found]
        return [(f"Place {k}: frames {ranges(own)}", set(own)) for k, own in enumerate(numbers, 1)]


@dataclass
class Report:
    """A report that is being made: `measure`, then `page`."""

    subject: Subject
    pairs: Pairs
    figures: list[FrameFigures] = field(default_factory=list)

    def measure(self) -> Generator[tuple[int, int]]:
        """Look at the frames; yields how many of how many."""
        subject = self.subject
        width, height = subject.size
        numbers = to_measure(subject.frames, max(FEWEST, self.pairs.most_pixels // (width * height)))
        for number, sdr, hdr in self.pairs.read(numbers):
            clip_point = subject.clip_point(number)
            self.figures.append(measured(number, sdr, hdr, clip_point, subject.primaries, subject.white))
            yield len(self.figures), len(numbers)

    def page(self) -> str:
        """The whole page. `measure` has come to its end before."""
        rows = [(name, self._pictures(worth_a_look(within))) for name, within in self._shown()]
        for width in WIDTHS:
            page = self._rendered([(name, [p.content(width) for p in pictures]) for name, pictures in rows])
            if len(page) < LARGEST:
                break
        return page

    def _shown(self) -> list[tuple[str, list[FrameFigures]]]:
        """The places with a row of pictures, and their measured frames: of many places those that gained most."""
        rows = [
            (name, [frame for frame in self.figures if frame.number in numbers])
            for name, numbers in self.subject.places
        ]
        rows = [row for row in rows if row[1]]
        gains = sorted((max(frame.gain for frame in within) for _, within in rows), reverse=True)
        least = gains[min(len(gains), MOST_ROWS) - 1]
        return [row for row in rows if max(frame.gain for frame in row[1]) >= least][:MOST_ROWS]

    def _pictures(self, chosen: Mapping[int, str]) -> list[Picture]:
        by_number = {frame.number: frame for frame in self.figures}
        return [
            Picture(n, chosen[n], described(by_number[n]), sdr, hdr, self.subject.primaries, self.subject.white)
            for n, sdr, hdr in self.pairs.read(list(chosen))
        ]

    def _rendered(self, rows: list[tuple[str, list[dict[str, Any]]]]) -> str:
        import jinja2

        subject = self.subject
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(ASSETS), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        environment.filters["nits"] = lambda value: f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
        source, result = (
            clip_light(self.figures, which, subject.length, subject.size) for which in ("source", "result")
        )
        log = [{"place": k, **row} for k, network in enumerate(subject.networks, 1) for row in network.log]
        trained = sorted({n for network in subject.networks for n in network.trained_on})
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
            places=len(subject.places),
            networks=len(subject.networks),
            second_round=bool(self._second_rounds()),
            about=self.about(),
            version=__version__,
            asset=asset,
            data=self._data(rows, log, trained),
        )

    def _data(
        self, rows: list[tuple[str, list[dict[str, Any]]]], log: list[dict[str, Any]], trained: list[int]
    ) -> dict[str, Any]:
        """What the script draws."""
        shots = self.subject.shots
        changes = list(pairwise(shots))
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
            "cuts": [other.first for one, other in changes if one.place == other.place],
            "places": [other.first for one, other in changes if one.place != other.place],
            "trained": trained,
            "losses": {
                "epoch": list(range(1, len(log) + 1)),
                **{name: [row.get(name) for row in log] for name in ("total", "reconstruction", "temporal")},
            },
            "second_rounds": self._second_rounds(),
            "networks": self._network_ends()[:-1],
        }

    def _network_ends(self) -> list[int]:
        """Epochs at which the trainings end, one after the other."""
        return list(accumulate(len(network.log) for network in self.subject.networks))

    def _second_rounds(self) -> list[int]:
        """Epochs after which second rounds begin."""
        ends, share = self._network_ends(), self.subject.second_round
        seconds = [int(len(network.log) * share) for network in self.subject.networks]
        return [end - second for end, second in zip(ends, seconds, strict=True) if second]

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
        seconds = sum(float(network.metadata.get("seconds", 0)) for network in self.subject.networks)
        parts = [
            f"{percent(clipped)} of the clip clips.",
            gained,
            f"{words(self.subject.shots)}"
            + (f", trained in {seconds:.0f} s" if seconds else "")
            + (f"; {self.subject.written}" if self.subject.written else "")
            + ".",
        ]
        return " ".join(parts)

    def about(self) -> dict[str, dict[str, str]]:
        """Parameters, versions and digests: all that a bug report needs."""
        shown = {key: str(value) for key, value in self.subject.params.items()}
        if "input" in shown:
            shown["input"] = Path(shown["input"]).name  # folders are nobody's business
        networks = {}
        for k, network in enumerate(self.subject.networks, 1):
            kept = ("log", "training_frames", "facts", "film")
            about = {key: value for key, value in network.metadata.items() if key not in kept}
            facts = json.loads(network.metadata.get("facts", "{}"))
            about |= {"clip digest": facts["clip"]} if "clip" in facts else {}
            networks["Network" if len(self.subject.networks) == 1 else f"Network of place {k}"] = about
        versions = {"vszhdrv": __version__, "python": platform.python_version(), "system": platform.platform()}
        versions |= {name: found for name in PACKAGES if (found := installed(name))}
        return {"Settings": shown, **networks, "Versions here": versions}


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
