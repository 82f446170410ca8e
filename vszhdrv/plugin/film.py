"""The shots and places of a clip: found by reading all of it once, and kept by its digest.

Apart from job.py because a film is scanned whatever is trained on it. It reads nothing itself: `scan` yields what it
wants read, so that it can be done at once or in a frame callback (lazy.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import vapoursynth as vs

from vszhdrv import files
from vszhdrv.errors import Refused
from vszhdrv.shots import ACCEPTED, CutList, Shot, cut_list, of_json, read_cuts, to_json
from vszhdrv.store.store import folder as store_folder
from vszhdrv.store.store import key as store_key
from vszhdrv.zhdrv.config import RECIPE

from . import clips
from .lazy import Reading

if TYPE_CHECKING:
    from vszhdrv.zhdrv.traits import Traits

    from .clips import Props
    from .request import Request
    from .workers import Pixels

SCAN = 2
"""Version of all that decides where shots and places are: raised with every change, so that films are scanned anew."""
SURVEY = 1
"""The same for the traits of films."""
MARKS = ("_SceneChangePrev", "_SceneChangeNext")
"""Properties by which filters say that a cut is just before a frame, or just after it."""
MOST_BYTES = 64 * 2**20
"""The shots of no film take more, as JSON."""
BLOCK = 128
"""Frames that are read at a time."""


def given_cuts(shots: Sequence[str], length: int) -> CutList | None:
    """What the argument `shots` names: a file's cuts, or a list of frame numbers; None for "auto".

    Raises Refused where it names no cuts of a clip of `length` frames.
    """
    if list(shots) == ["auto"]:
        return None
    if all(word.lstrip("-").isdecimal() for word in shots):
        return cut_list(map(int, shots), length)
    if len(shots) != 1:
        raise Refused(f"shots must be auto, off, a list of frame numbers, or {ACCEPTED}, not {list(shots)}")
    return read_cuts(Path(shots[0]).expanduser(), length)


def scan(clip: vs.VideoNode, cuts: CutList | None = None) -> Generator[Reading, None, list[Shot]]:
    """Find the shots of a clip and their places; with `cuts`, those are the shots, and only places are looked for."""
    if cuts is not None and (cuts.places is not None or len(cuts.firsts) == 1):
        return cuts.shots(clip.num_frames, cuts.places or (0,))
    from vszhdrv.zhdrv.cuts import Cut
    from vszhdrv.zhdrv.scanning import Scanner

    scanner = Scanner(None if cuts is None else [Cut(first, first) for first in cuts.firsts[1:]])
    small = _small(clip)
    for start in range(0, clip.num_frames, BLOCK):
        numbers = range(start, min(start + BLOCK, clip.num_frames))
        pictures = np.empty((len(numbers), small.height, small.width), np.uint8)
        properties: list[Props] = [{}] * len(numbers)

        def take(
            index: int,
            planes: Iterable[Pixels],
            props: Props,
            pictures: Pixels = pictures,
            properties: list[Props] = properties,
        ) -> None:
            (pictures[index],) = planes
            properties[index] = {
                name: props[name] for name in ("_SceneChangePrev", "_SceneChangeNext") if name in props
            }

        yield Reading("scanning", small, numbers, take)
        scanner.add(pictures, properties)
    found, places = scanner.finish()
    firsts = (0, *(cut.frame for cut in found))
    dissolves = (range(0), *(range(cut.first, cut.end) for cut in found))
    return CutList(firsts, dissolves=dissolves).shots(clip.num_frames, places)


def _small(clip: vs.VideoNode) -> vs.VideoNode:
    """The clip's brightness in 8 bits, as large as shots and places need it."""
    from vszhdrv.zhdrv.places import WIDTH

    if clip.format.color_family == vs.RGB:
        grey = clip.resize.Bilinear(format=vs.GRAY16, matrix_s="709")
    elif clip.format.color_family == vs.GRAY:
        grey = clip
    else:
        grey = clip.std.ShufflePlanes(0, vs.GRAY)
    scale = WIDTH / max(clip.width, clip.height)
    width, height = (max(32, round(side * scale)) for side in (clip.width, clip.height))
    return grey.resize.Bilinear(width, height, format=vs.GRAY8)


def find_shots(
    clip: vs.VideoNode,
    shots: str | Sequence[str] = "auto",
    *,
    cache: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Shot]:
    """The shots of a clip and their places, from the cache or by reading all of the clip.

    Args:
        clip: any constant format and size from 16x16.
        shots: "auto", a file of cuts, or frame numbers with which shots begin.
        cache: the folder in which the result is kept; "": nowhere; None: the usual one.
        progress: called with the frames that were read, and all there are.

    Raises:
        Refused: `shots` or `cache` can't be used.
        vs.Error: the source failed.
    """
    cuts = given_cuts([shots] if isinstance(shots, str) else shots, clip.num_frames)
    folder = store_folder(cache)
    key = scan_key(clips.digest(clip, clips.digest_positions(clip.num_frames)), clip.num_frames, cuts)
    found = kept_shots(folder, key, clip.num_frames)
    if found is None:
        readings = scan(clip, cuts)
        while found is None:
            try:
                reading = next(readings)
            except StopIteration as end:
                found = end.value
                break
            for index, (planes, props) in enumerate(clips.read(reading.clip, reading.positions)):
                reading.take(index, planes, props)
            if progress is not None:
                progress(reading.positions[-1] + 1, clip.num_frames)
        keep_shots(folder, key, found)
    return found


def scan_key(digest: str, length: int, cuts: CutList | None) -> str:
    """The name under which the shots of a clip are kept. `digest`: of up to 32 of its frames."""
    given = None if cuts is None else [list(cuts.firsts), cuts.places and list(cuts.places)]
    return store_key({"clip": digest, "length": length, "scan": SCAN, "cuts": given})


def kept_shots(folder: Path | None, key: str, length: int) -> list[Shot] | None:
    """The shots of a clip that was scanned before; None where it was not, or its file is damaged."""
    if folder is None:
        return None
    path = folder / "shots" / f"{key}.json"
    with suppress(OSError, files.Damaged), files.parsing(str(path)):
        about = json.loads(files.read_whole(path, MOST_BYTES))
        shots = of_json(about["shots"])
        if about["key"] == key and shots[-1].end == length:
            return shots
    return None


def traits_key(request: Request, key: str) -> str:
    """The name under which the traits of a film are kept. `key`: that of its shots."""
    config = request.config
    about = {"colour": request.colour.as_json(), "crop": config.crop, "seed": config.seed, "recipe": RECIPE}
    return store_key({"shots": key, "survey": SURVEY, **about})


def kept_traits(folder: Path | None, key: str) -> Traits | None:
    """The traits of a film that was surveyed before; None where it was not, or its file is damaged."""
    from vszhdrv.zhdrv.traits import Traits

    if folder is not None:
        path = folder / "shots" / f"{key}.json"
        with suppress(OSError, files.Damaged, Refused), files.parsing(str(path)):
            about = json.loads(files.read_whole(path, MOST_BYTES))
            if about["key"] == key:
                return Traits.from_header(about["traits"])
    return None


def keep_traits(folder: Path | None, key: str, traits: Traits) -> None:
    """Keep the traits of a film as `keep_shots` keeps its shots."""
    _keep(folder, key, {"traits": traits.to_header()})


def keep_shots(folder: Path | None, key: str, shots: Sequence[Shot]) -> None:
    """Keep the shots of a clip in the cache's folder; where that can't be written, they are found again next time."""
    _keep(folder, key, {"shots": to_json(shots)})


def _keep(folder: Path | None, key: str, about: Mapping[str, Any]) -> None:
    if folder is not None:
        with suppress(OSError):
            (folder / "shots").mkdir(parents=True, exist_ok=True)
            files.write_whole(folder / "shots" / f"{key}.json", json.dumps({"key": key, **about}).encode())
