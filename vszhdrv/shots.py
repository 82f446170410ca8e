"""Shots and places of a film, and the files that name them.

A shot lies between two cuts. A place is shown by one or more shots: a set that comes back, one side of a dialogue. One
network serves a place. This module stands on the ground floor: it reads no picture, and loads neither torch nor
VapourSynth.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from vszhdrv.errors import Refused
from vszhdrv.files import Damaged, parsing, read_whole, write_whole

COLUMNS = ("first", "last", "frames", "place", "dissolve")
"""Columns of our own table. `last` and `frames` are for people; they are not read."""
ACCEPTED = "a table of zhdrv shots, Av1an's scenes.json, PySceneDetect's CSV, an x264 qpfile, or a frame number a line"
MOST_BYTES = 64 * 2**20
"""A larger file is none of these."""
_KEYFRAMES = ("I", "K", "i")
"""Types of frames in a qpfile that begin a shot."""


@dataclass(frozen=True)
class Shot:
    """Frames `first` to `end` - 1 of a film, which show the place `place`, a number from 0.

    `dissolve`: frames that mix the shot before with this one; empty at a hard cut. They lie around `first`.
    """

    first: int
    end: int
    place: int
    dissolve: range = range(0)


@dataclass(frozen=True)
class CutList:
    """Where shots begin, as a file or a list says: ascending frame numbers, the first of them 0.

    `places`: the place of each shot; None where nobody named them. `dissolves`: the mixed frames at each shot's begin.
    """

    firsts: tuple[int, ...]
    places: tuple[int, ...] | None = None
    dissolves: tuple[range, ...] = ()

    def shots(self, length: int, places: Sequence[int] | None = None) -> list[Shot]:
        """The shots of a film of `length` frames. `places`: each shot's, where the list does not name them."""
        names = self.places if places is None else places
        assert names is not None
        dissolves = self.dissolves or (range(0),) * len(self.firsts)
        edges = pairwise([*self.firsts, length])
        about = zip(edges, names, dissolves, strict=True)
        return [Shot(first, end, place, dissolve) for (first, end), place, dissolve in about]


def cut_list(numbers: Iterable[int], length: int) -> CutList:
    """A list of the frames with which shots begin; 0 may be left out. Raises Refused for a frame that is not there."""
    firsts = sorted({0, *numbers})
    if firsts[0] < 0 or firsts[-1] >= length:
        wrong = firsts[0] if firsts[0] < 0 else firsts[-1]
        raise Refused(f"shots must name frames of the clip, 0 to {length - 1}, not {wrong}")
    return CutList(tuple(firsts))


def read_cuts(path: Path, length: int) -> CutList:
    """The cuts that a file names, for a film of `length` frames.

    Raises Refused where there is no such file, it is none of those that are accepted, or it names other frames.
    """
    try:
        content = read_whole(path, MOST_BYTES)
    except (OSError, Damaged) as error:
        raise Refused(f"shots must be auto, off or {ACCEPTED}: {path} can't be read") from error
    try:
        with parsing(str(path)):
            text = content.decode("utf-8-sig")
            rows = list(_own_rows(text))
            numbers = [] if rows else list(_numbers(text))
            rows = [{**row, "first": int(row["first"])} for row in rows]
    except Damaged as error:
        raise Refused(f"shots {path} must be {ACCEPTED}, not something else") from error
    return _of_rows(rows, length) if rows else cut_list(numbers, length)


def _numbers(text: str) -> Iterator[int]:
    """The first frame of every shot, by other programs' files. Raises ValueError for anything else."""
    if text.lstrip().startswith("{"):
        yield from (scene["start_frame"] for scene in json.loads(text)["scenes"])
        return
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for index, line in enumerate(lines[:2]):
        if "Start Frame" in line:
            table = csv.DictReader(io.StringIO("\n".join(lines[index:])))
            yield from (int(row["Start Frame"]) - 1 for row in table)  # counted from 1
            return
    for line in lines:
        match = re.fullmatch(r"(\d+)(?:\s+([A-Za-z]))?(?:\s+-?\d+)?", line.strip())
        if match is None:
            raise ValueError(line)
        if match[2] is None or match[2] in _KEYFRAMES:
            yield int(match[1])


def _own_rows(text: str) -> Iterator[dict[str, Any]]:
    """The rows of our own table; none where the text is no such table."""
    table = csv.DictReader(io.StringIO(text))
    if {"first", "place"} <= set(table.fieldnames or ()):
        yield from table


def _of_rows(rows: Sequence[Mapping[str, Any]], length: int) -> CutList:
    firsts = [row["first"] for row in rows]
    if firsts != sorted(set(firsts)) or firsts[0] != 0:
        raise Refused("shots must be a table whose first frames ascend from 0, each once")
    cut_list(firsts, length)
    names: dict[str, int] = {}
    places = tuple(names.setdefault((row["place"] or "").strip(), len(names)) for row in rows)
    dissolves = []
    for row in rows:
        span = row.get("dissolve") or ""
        match = re.fullmatch(r"(\d+)-(\d+)", span.strip())
        if span.strip() and match is None:
            raise Refused(f"shots must have dissolves such as 32-39, not {span!r}")
        dissolves.append(range(int(match[1]), int(match[2]) + 1) if match else range(0))
    return CutList(tuple(firsts), places, tuple(dissolves))


def write_table(path: Path, shots: Sequence[Shot]) -> None:
    """Write the table that `read_cuts` takes back, whole or not at all."""
    write_whole(path, table(shots).encode())


def table(shots: Sequence[Shot]) -> str:
    """The table of `COLUMNS` as CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for shot in shots:
        mixed = f"{shot.dissolve[0]}-{shot.dissolve[-1]}" if shot.dissolve else ""
        writer.writerow((shot.first, shot.end - 1, shot.end - shot.first, shot.place, mixed))
    return text.getvalue()


def to_json(shots: Sequence[Shot]) -> list[list[int]]:
    """The shots as JSON can hold them."""
    return [[shot.first, shot.end, shot.place, shot.dissolve.start, shot.dissolve.stop] for shot in shots]


def of_json(rows: Any) -> list[Shot]:
    """What `to_json` gave. Raises ValueError or TypeError for anything else."""
    return [Shot(first, end, place, range(start, stop)) for first, end, place, start, stop in rows]


def places_in(shots: Sequence[Shot]) -> list[list[Shot]]:
    """The shots of each place, by its number."""
    found: dict[int, list[Shot]] = {}
    for shot in shots:
        found.setdefault(shot.place, []).append(shot)
    return [found[place] for place in sorted(found)]


def words(shots: Sequence[Shot]) -> str:
    """How many there are: "12 shots in 5 places"."""
    places = len({shot.place for shot in shots})
    return f"{len(shots)} shot{'s' * (len(shots) != 1)} in {places} place{'s' * (places != 1)}"
