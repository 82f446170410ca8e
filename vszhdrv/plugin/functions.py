"""One Python function per function of core.zhdrv: argument checks, then a few calls downward."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import vapoursynth as vs
from numpy.typing import NDArray

import vszhdrv
from vszhdrv import exr, light, stills
from vszhdrv.errors import Refused
from vszhdrv.files import check_target
from vszhdrv.progress import Meters, duration

from . import frames
from .frames import Pixels, Props
from .learning import Event, Job, prepare
from .log import log, warn

if TYPE_CHECKING:
    from vszhdrv.zhdrv.expansion import Expander

LOG_SECONDS = 5.0
"""The log hears of progress this often, ..."""
GAP_SECONDS = 1.0
"""... and of the end of a stage, unless it has just heard of another."""


def expand(
    clip: vs.VideoNode,
    *,
    when: str = "call",
    strength: float = 1.0,
    peak: float = 0.0,
    white: float = exr.SDR_WHITE_NITS,
    **learning: Any,
) -> vs.VideoNode:
    """Learn from an SDR clip, or find what was learned before, and return its HDR: core.zhdrv.Expand.

    Args:
        clip: any constant format and size from 16x16; at least 2 frames unless `still`.
        when: to learn: "call", before the clip is returned; or "frame", when its first frame is requested.
        strength: 0 to 1, between the linearised source and the full expansion, in stops.
        peak: highest luminance of the result in nits; a smooth shoulder below it leaves everything up to SDR white
            alone. 0: none.
        white: luminance of SDR white (1.0) in nits; 203 by ITU-R BT.2408.
        learning: the arguments of `prepare`.

    Returns:
        RGBS, linear light, 1.0 = SDR white, each frame expanded when it is requested. With `peak`, every frame says its
        light levels: PLSceneMax (R, G and B in nits) and PLSceneAvg (nits), of the BT.2020 signal.

    Raises:
        Refused: an argument or the clip can't be used; the sentence says what is accepted.
        Failed: the source failed.
    """
    light.check_look(strength, peak, white)
    job = _prepared(clip, when, learning)

    def compute(expander: Expander, planes: frames.Planes) -> frames.Computed:
        hdr = light.looked(expander.brighten, planes, strength, peak, white)
        if not peak:
            return hdr
        levels = light.frame_light(np.asarray(hdr), white, job.colour.primaries)
        return hdr, {"PLSceneMax": list(levels.scene_max), "PLSceneAvg": levels.avg_nits}

    return job.expand(compute, follow=follow)


def mask(
    clip: vs.VideoNode,
    *,
    when: str = "call",
    strength: float = 1.0,
    peak: float = 0.0,
    white: float = exr.SDR_WHITE_NITS,
    **learning: Any,
) -> vs.VideoNode:
    """What Expand, with the same arguments, invents: core.zhdrv.Mask.

    Returns:
        GRAYS: by how many stops each pixel's luminance is brighter than the source's; 0 where the source is untouched.

    Raises:
        Refused, Failed: as `expand`.
    """
    light.check_look(strength, peak, white)
    job = _prepared(clip, when, learning)

    def compute(expander: Expander, planes: frames.Planes) -> Pixels:
        before = light.luminance(planes, job.colour.primaries)  # now, for the expansion is written over the source
        hdr = light.looked(expander.brighten, planes, strength, peak, white)
        after = light.luminance(list(hdr), job.colour.primaries)
        stops: Pixels = np.log2(np.maximum(after, light.BLACK) / np.maximum(before, light.BLACK))
        return stops[None]

    return job.expand(compute, planes=1, follow=follow)


def train(clip: vs.VideoNode, *, path: str = "", **learning: Any) -> Path:
    """The training pass by itself: core.zhdrv.Train.

    Args:
        clip: as for `expand`.
        path: a file for the weights, to give to Expand as `weights` anywhere; "": the cache alone has them.
        learning: the arguments of `prepare`.

    Returns:
        Where the weights are.

    Raises:
        Refused: as `expand`; or neither `path` nor a cache is there to keep the weights.
        OSError: the weights can't be written.
    """
    target = Path(path).expanduser()
    if path:
        if target.suffix != ".safetensors":
            raise Refused(f"path must end in .safetensors, not {target.name!r}")
        check_target("path", target)
    job = prepare(clip, **learning)
    if not path and job.store.networks is None:
        raise Refused("path must name a file to write the weights to where the cache is off, not be empty")
    follow(job.learn())
    return job.write_weights(target if path else None)


def still(
    clip: vs.VideoNode,
    path: str,
    *,
    frame: int = 0,
    strength: float = 1.0,
    peak: float = 0.0,
    white: float = exr.SDR_WHITE_NITS,
    **learning: Any,
) -> Path:
    """One frame's expansion as a picture to share: core.zhdrv.Still.

    Args:
        clip: as for `expand`.
        path: a file that ends in .jpg (Ultra HDR), .avif, .jxl, .png or .exr; what is there is replaced.
        frame: its number in the clip, from 0.
        strength, peak, white: as for `expand`.
        learning: the arguments of `prepare`.

    Returns:
        `path`.

    Raises:
        Refused, Failed: as `expand`; or the clip has no such frame, or `path` ends otherwise.
        OSError: the picture can't be written.
    """
    light.check_look(strength, peak, white)
    target = Path(path).expanduser()
    stills.check_path("path", target)
    if not 0 <= frame < clip.num_frames:
        raise Refused(f"frame must be from 0 to {clip.num_frames - 1}, not {frame}")
    job = _prepared(clip, "call", learning)

    def compute(expander: Expander, planes: frames.Planes) -> frames.Computed:
        return light.looked(expander.brighten, planes, strength, peak, white)

    before, after = (pixels_of(node, frame) for node in (job.linear(), job.expand(compute)))
    stills.write(target, stills.Still(before, after, job.colour.primaries, white))
    return target


def pixels_of(clip: vs.VideoNode, n: int) -> NDArray[np.float32]:
    """Frame `n` of an RGBS clip as (height, width, 3)."""
    with clip.get_frame(n) as frame:
        return np.dstack([np.asarray(frame[plane]) for plane in range(3)])


def write_exr(
    clip: vs.VideoNode,
    filename: str,
    *,
    compression: str = "zip",
    half: bool = True,
    first: int = 0,
    overwrite: bool = False,
    white: float = exr.SDR_WHITE_NITS,
) -> vs.VideoNode:
    """Pass frames through and write each one that is requested as an OpenEXR file: core.zhdrv.WriteEXR.

    Args:
        clip: RGBS in linear light, such as Expand returns.
        filename: with %06d or #### where the frame's number goes.
        compression: zip, zips, piz, dwaa, dwab or none; htj2k32 where this OpenEXR has it.
        half: 16-bit float (values over 65504 are clamped and counted in the log), else 32-bit.
        first: number of the clip's first frame, 0 to 1000000000.
        overwrite: write the files that are there already, too; else valid ones are skipped and counted in the log.
        white: luminance of 1.0 in nits, for the header.

    Raises:
        Refused: an argument or the clip's format can't be used.
    """
    frames.check_linear(clip)
    header = exr.Header(compression=compression, half=half, white=white, first=first)
    sequence = exr.Sequence(Path(filename).expanduser(), header, overwrite=overwrite)

    def write(n: int, pixels: Pixels, props: Props) -> None:
        if sequence.header is header:  # the first frame describes it: to ask for one before might train on a clip
            sequence.header = exr.described(header, frames.linear_primaries(props), clip.fps, props)
        done, lost = sequence.written + sequence.skipped, sequence.clamped + sequence.invalid
        sequence.write(n, pixels)
        if not lost and sequence.clamped + sequence.invalid:
            warn(
                f"{sequence.path(n)} has values too large for the file, which are clamped, or no numbers, which are "
                "set to 0: of later frames they are only counted"
            )
        if done < clip.num_frames == sequence.written + sequence.skipped:
            log(
                f"{sequence.path(n).parent}: {sequence.written} frames written, {sequence.skipped} were there already, "
                f"{sequence.clamped} values too large clamped, {sequence.invalid} no numbers set to 0"
            )

    return frames.on_passing(clip, write)


def version() -> dict[str, str]:
    """Versions of the package and of torch, the device that "auto" means here, and where the package lies."""
    from vszhdrv.zhdrv.hardware import choose_device

    return {
        "version": vszhdrv.__version__,
        "torch": installed_version("torch"),
        "device": str(choose_device("auto")),
        "path": str(Path(vszhdrv.__file__).parent),
    }


def _prepared(clip: vs.VideoNode, when: str, learning: dict[str, Any]) -> Job:
    """The clip's job, which has learned already unless that is for the first frame to do."""
    if when not in ("call", "frame"):
        raise Refused(f"when must be call or frame, not {when!r}")
    job = prepare(clip, **learning)
    if when == "call":
        follow(job.learn())
    return job


def follow(events: Generator[Event]) -> None:
    """Let a job learn; tell of it by a bar where standard error is a terminal, else in VapourSynth's log."""
    with closing(events), Meters(log, LOG_SECONDS, GAP_SECONDS) as meters:
        for event in events:
            if event.kind == "estimate":
                meters.close()
                log(f"training takes about {duration(event.seconds_left or 0)}")
            else:
                meters.show(event.kind, event.done, event.total, event.seconds_left)
