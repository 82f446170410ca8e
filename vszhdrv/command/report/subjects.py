"""What a report is made of: a run folder's files, or a clip whose expansion is computed."""

from __future__ import annotations

import csv
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vszhdrv import exr, shots
from vszhdrv.command.runs import requested
from vszhdrv.errors import Refused
from vszhdrv.light import ClipLight

from .measuring import Planes
from .page import Network, Subject

if TYPE_CHECKING:
    import vapoursynth as vs

    from vszhdrv import Job


class Files:
    """Frames of a source in linear light, beside the EXR files of its expansion."""

    most_pixels = 2**30
    """500 frames of 1080p."""

    def __init__(self, linear: vs.VideoNode, sequence: exr.Sequence) -> None:
        self.linear, self.sequence = linear, sequence

    def read(self, numbers: Sequence[int]) -> Iterator[tuple[int, Planes, Planes]]:
        for n, frame in requested(self.linear, numbers):
            yield n, planes_of(frame), np.ascontiguousarray(exr.read(self.sequence.path(n)).transpose(2, 0, 1))


class Computed:
    """Frames of a source in linear light, beside its expansion, which is computed for it."""

    most_pixels = 2**26
    """30 frames of 1080p."""

    def __init__(self, linear: vs.VideoNode, hdr: vs.VideoNode) -> None:
        self.linear, self.hdr = linear, hdr

    def read(self, numbers: Sequence[int]) -> Generator[tuple[int, Planes, Planes]]:
        with closing(requested(self.linear, numbers)) as before, closing(requested(self.hdr, numbers)) as after:
            for (n, source), (_, result) in zip(before, after, strict=True):
                yield n, planes_of(source), planes_of(result)


def planes_of(frame: vs.VideoFrame) -> Planes:
    """The planes of an RGBS frame: (3, height, width)."""
    return np.stack([np.asarray(frame[plane]) for plane in range(3)])


def subject_of(
    job: Job,
    name: str,
    params: Mapping[str, object],
    white: float,
    *,
    frames: Sequence[int] | None = None,
    written: str = "",
    known: ClipLight | None = None,
    cache: str | None = None,
) -> Subject:
    """The subject of a report on a clip that is trained on. frames: those that can be had; None: all.

    cache: the folder in which shots are kept, for a clip whose network does not name them.
    """
    import vszhdrv

    assert job.trained is not None
    clip, metadata = job.request.clip, job.trained.metadata
    if "film" in metadata:
        film = json.loads(metadata["film"])
        found = shots.of_json(film["shots"])
        numbers = [frames_of(own, found) for own in shots.places_in(found)]
        networks = [Network(header, own) for header, own in zip(film["places"], numbers, strict=True)]
    else:
        alone = job.request.config.still or clip.num_frames < 2
        whole = [shots.Shot(0, clip.num_frames, 0)]
        found = whole if alone else vszhdrv.find_shots(clip, cache=cache)
        networks = [Network(metadata, range(clip.num_frames))]
    return Subject(
        name,
        (clip.width, clip.height),
        range(clip.num_frames) if frames is None else frames,
        clip.num_frames,
        job.request.colour.primaries,
        white,
        found,
        networks,
        params,
        written,
        second_round=0.0 if job.request.config.still else job.request.config.second_round,
        known=known,
    )


def frames_of(own: Sequence[shots.Shot], every: Sequence[shots.Shot]) -> list[int]:
    """The frames that a place's network is trained on: those of its shots that mix no other in."""
    mixed = {n for shot in every for n in shot.dissolve}
    numbers = [n for shot in own for n in range(shot.first, shot.end)]
    return [n for n in numbers if n not in mixed] or numbers


def read_params(folder: Path) -> dict[str, str]:
    """params.csv of a run folder. Raises Refused where it is none of this version's."""
    with (folder / "params.csv").open(newline="", errors="surrogateescape") as file:
        params = {row["name"]: row["value"] for row in csv.DictReader(file)}
    if missing := {"input", "preset", "white", "colour_matrix"} - params.keys():
        raise Refused(f"INPUT {folder} must be a run folder, and its params.csv lacks {', '.join(sorted(missing))}")
    return params


def options_of(params: Mapping[str, str]) -> dict[str, Any]:
    """The options of vszhdrv.prepare that a run was made with."""
    kinds = {"n_exp_down": int, "n_exp_up": int, "epochs": int, "lr": float, "alpha": float, "seed": int}
    camera = params.get("colour_camera") == "True"
    return {
        "preset": params["preset"],
        **{name: kind(params[name]) for name, kind in kinds.items()},
        "still": params["still"] == "True",
        "matrix_in": params["colour_matrix"],
        "transfer_in": "camera" if camera else params["colour_transfer"],
        "range_in": params["colour_range"],
        "precision": params.get("precision", "auto"),
    }
