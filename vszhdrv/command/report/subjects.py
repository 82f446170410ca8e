"""What a report is made of: a run folder's files, or a clip whose expansion is computed."""

from __future__ import annotations

import csv
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vszhdrv import exr
from vszhdrv.command.runs import requested
from vszhdrv.errors import Refused
from vszhdrv.light import ClipLight

from .measuring import Planes
from .page import Subject

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
) -> Subject:
    """The subject of a report on a clip that is trained on. frames: those that can be had; None: all."""
    from vszhdrv.zhdrv.traits import Traits

    assert job.trained is not None
    metadata = job.trained.metadata
    traits = Traits.from_header(metadata)
    return Subject(
        name,
        (job.request.clip.width, job.request.clip.height),
        range(job.request.clip.num_frames) if frames is None else frames,
        job.request.clip.num_frames,
        job.request.colour.primaries,
        white,
        (traits.white * traits.clip_point) ** 2.2,
        metadata,
        params,
        written,
        first_epochs=job.request.config.first_epochs,
        known=known,
    )


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
