"""One Python function per function of core.zhdrv: argument checks, then a few calls downward."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import vapoursynth as vs
from numpy.typing import NDArray

from vszhdrv import drawing, exr, light, stills
from vszhdrv.errors import Failed, Refused
from vszhdrv.exr import SDR_WHITE_NITS
from vszhdrv.files import check_target
from vszhdrv.light import Look
from vszhdrv.progress import Meters
from vszhdrv.version import __version__

from . import clips
from .clips import Props
from .colour import check_linear, linear_primaries
from .job import Event, Job
from .log import log, tell, warn
from .preparing import prepare
from .workers import Pixels, Planes

if TYPE_CHECKING:
    from PIL.Image import Image

    from vszhdrv.zhdrv.expansion import Expander

Preset = Literal["fast", "draft", "paper"]
When = Literal["call", "frame"]
PrecisionName = Literal["auto", "bf16", "fp32"]
GraphicsName = Literal["auto", "off"]
Compression = Literal["zip", "zips", "piz", "dwaa", "dwab", "none", "htj2k32"]

LOG_SECONDS = 5.0
"""The log hears of progress this often."""
GAP_SECONDS = 1.0
"""The log hears of a stage's end, unless it has heard of another stage within this time."""


def expand(
    clip: vs.VideoNode,
    *,
    preset: Preset = "fast",
    n_exp_down: int | None = None,
    n_exp_up: int | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    alpha: float | None = None,
    seed: int | None = None,
    still: bool = False,
    train_range: list[int] | None = None,
    shots: str | Sequence[str] = "auto",
    device: str = "auto",
    precision: PrecisionName = "auto",
    matrix_in: str = "",
    transfer_in: str = "",
    range_in: str = "",
    cache: str | None = None,
    weights: str = "",
    train: bool = True,
    when: When = "call",
    strength: float = 1.0,
    peak: float = 0.0,
    white: float = SDR_WHITE_NITS,
    tile: list[int] | None = None,
    tile_pad: int | None = None,
    num_streams: int | None = None,
    graphics: GraphicsName = "auto",
) -> vs.VideoNode:
    """Train on an SDR clip, or find its network, and return its HDR: core.zhdrv.Expand.

    Args:
        clip: any constant format and size from 16x16; progressive; at least 2 frames unless `still`.
        preset: "fast": one to two minutes on two CPU cores; "draft": seconds; "paper": hours to days, as published.
        n_exp_down: how far above white highlights may reach, in steps of two stops: 1 to 6, paper from 0.
        n_exp_up: brighter exposures that paper merges, in steps of two stops, 0 to 6; fast does not use it.
        epochs: passes of training, 1 to 100000; fast: of 50 steps each, the last fifth of them its second
            round.
        lr: learning rate, over 0 and at most 1; fast: its peak.
        alpha: weight of the temporal loss, 0 to 1; 0 for stills.
        seed: seed of everything that is drawn at random, 0 to 2147483647.
        still: 1: image mode, for single pictures and slide shows.
        train_range: first and last frame to train on, counted from 0; all frames are expanded.
        shots: "auto": one network a place that the shots show; "off": one for all; or a file or list of cuts (fast).
        device: "auto", "cpu", "cuda:0" (NVIDIA, AMD), "xpu:0" (Intel) or "mps" (Apple).
        precision: "auto", "bf16" or "fp32"; auto: bf16 where the device computes it natively.
        matrix_in: the clip's matrix where its properties do not say, by resize's names (709, 470bg, ...).
        transfer_in: the same for its transfer (709, srgb, linear, ...); "camera" undoes the camera's curve.
        range_in: the same for its range (full, limited).
        cache: folder for trained networks; "": keep nothing.
        weights: file written by Train: use it and do not train.
        train: 0: never train; an error where there is no network yet.
        when: "call": train before the call returns; "frame": when the first frame is requested.
        strength: how much of the expansion, 0 to 1, interpolated in stops; 0 is the linearised source.
        peak: maximum in nits, over white, to which brighter pixels roll off; 0: no limit.
        white: nits of SDR white (1.0); 203 by ITU-R BT.2408.
        tile: width and height of the tiles of large frames, multiples of 64; smaller ones need less memory.
        tile_pad: overlap of tiles in pixels, 0 or more; default: the network's receptive field, which
            leaves no seams.
        num_streams: frames computed at the same time, 1 to 64; default: as many as threads and memory
            allow.
        graphics: "auto": white of pages, slides, cartoons and letters stays as it is; "off": it is expanded.

    Returns:
        RGBS, linear light, 1.0 = SDR white. Each frame is expanded when it is requested. With `peak`, every frame has
        its light levels as properties: PLSceneMax (R, G and B) and PLSceneAvg, in nits, of the BT.2020 signal.

    Raises:
        Refused: an argument or the clip can't be used; the sentence says what is accepted.
        Failed: the source failed, or memory ended.
    """
    options = dict(locals())
    look = _look_of(options)
    job = _prepared(options)
    return job.expand_with(look, levels=look.peak > 0, follow=follow)


def mask(
    clip: vs.VideoNode,
    *,
    preset: Preset = "fast",
    n_exp_down: int | None = None,
    n_exp_up: int | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    alpha: float | None = None,
    seed: int | None = None,
    still: bool = False,
    train_range: list[int] | None = None,
    shots: str | Sequence[str] = "auto",
    device: str = "auto",
    precision: PrecisionName = "auto",
    matrix_in: str = "",
    transfer_in: str = "",
    range_in: str = "",
    cache: str | None = None,
    weights: str = "",
    train: bool = True,
    when: When = "call",
    strength: float = 1.0,
    peak: float = 0.0,
    white: float = SDR_WHITE_NITS,
    tile: list[int] | None = None,
    tile_pad: int | None = None,
    num_streams: int | None = None,
    graphics: GraphicsName = "auto",
) -> vs.VideoNode:
    """How much Expand, with the same arguments, brightens: core.zhdrv.Mask.

    Args:
        clip: as for `expand`; so are all other arguments.

    Returns:
        GRAYS: by how many stops each pixel's luminance is brighter than the source's; 0 where the source is untouched.

    Raises:
        Refused, Failed: as `expand`.
    """
    options = dict(locals())
    look = _look_of(options)
    job = _prepared(options)
    primaries = job.request.colour.primaries

    def compute(expander: Expander, planes: Planes) -> Pixels:
        before = light.luminance(planes, primaries)  # now, for the expansion is written over the source
        after = light.luminance(list(look.apply(expander.brighten, planes)), primaries)
        stops: Pixels = np.log2(np.maximum(after, light.BLACK) / np.maximum(before, light.BLACK))
        return stops[None]

    return job.expand(compute, planes=1, follow=follow)


def train(
    clip: vs.VideoNode,
    *,
    path: str = "",
    preset: Preset = "fast",
    n_exp_down: int | None = None,
    n_exp_up: int | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    alpha: float | None = None,
    seed: int | None = None,
    still: bool = False,
    train_range: list[int] | None = None,
    shots: str | Sequence[str] = "auto",
    device: str = "auto",
    precision: PrecisionName = "auto",
    matrix_in: str = "",
    transfer_in: str = "",
    range_in: str = "",
    cache: str | None = None,
) -> Path:
    """The training pass by itself: core.zhdrv.Train.

    Args:
        clip: as for `expand`; so are all other arguments.
        path: a file for the weights, to give to Expand as `weights` anywhere; "": the cache alone has them.

    Returns:
        Where the weights are.

    Raises:
        Refused: as `expand`; or neither `path` nor a cache is there to keep the weights.
        Failed: as `expand`; or the cache could not keep the weights.
        OSError: the weights can't be written to `path`.
    """
    options = dict(locals())
    target = Path(options.pop("path")).expanduser()
    if path:
        if target.suffix != ".safetensors":
            raise Refused(f"path must end in .safetensors, not {target.name!r}")
        check_target("path", target)
    job = prepare(**options)
    if not path and job.store.networks is None:
        raise Refused("path must name a file to write the weights to where the cache is off, not be empty")
    follow(job.train())
    assert job.trained is not None
    if path:
        job.trained.write(target)
        return target
    if job.trained.file is None and "film" in job.trained.metadata and job.store.networks is not None:
        target = job.store.networks / f"{job.trained.metadata['key']}.safetensors"
        job.trained.write(target)
        return target
    if job.trained.file is None:
        raise Failed(f"the network could not be kept in {job.store.networks}: name a file with path")
    return job.trained.file.path


def still(
    clip: vs.VideoNode,
    path: str,
    *,
    frame: int = 0,
    preset: Preset = "fast",
    n_exp_down: int | None = None,
    n_exp_up: int | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    alpha: float | None = None,
    seed: int | None = None,
    still: bool = False,
    train_range: list[int] | None = None,
    shots: str | Sequence[str] = "auto",
    device: str = "auto",
    precision: PrecisionName = "auto",
    matrix_in: str = "",
    transfer_in: str = "",
    range_in: str = "",
    cache: str | None = None,
    weights: str = "",
    train: bool = True,
    strength: float = 1.0,
    peak: float = 0.0,
    white: float = SDR_WHITE_NITS,
    tile: list[int] | None = None,
    tile_pad: int | None = None,
    graphics: GraphicsName = "auto",
) -> Path:
    """One frame's expansion as a picture to share: core.zhdrv.Still.

    Args:
        clip: as for `expand`; so are all other arguments.
        path: a file that ends in .jpg (Ultra HDR), .avif, .jxl, .png or .exr; what is there is replaced.
        frame: its number in the clip, from 0.

    Returns:
        `path`.

    Raises:
        Refused, Failed: as `expand`; or the clip has no such frame, or `path` ends otherwise.
        OSError: the picture can't be written.
    """
    options = dict(locals())
    look = _look_of(options)
    target, number = Path(options.pop("path")).expanduser(), options.pop("frame")
    stills.check_path("path", target)
    _check_frame(clip, number)
    job = _prepared({**options, "when": "call"}, range(number, number + 1))
    before, after = (pixels_of(node, number) for node in (job.linear(), job.expand_with(look)))
    stills.write(target, stills.Still(before, after, job.request.colour.primaries, white))
    return target


def show(
    clip: vs.VideoNode,
    frame: int = 0,
    *,
    preset: Preset = "fast",
    n_exp_down: int | None = None,
    n_exp_up: int | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    alpha: float | None = None,
    seed: int | None = None,
    still: bool = False,
    train_range: list[int] | None = None,
    shots: str | Sequence[str] = "auto",
    device: str = "auto",
    precision: PrecisionName = "auto",
    matrix_in: str = "",
    transfer_in: str = "",
    range_in: str = "",
    cache: str | None = None,
    weights: str = "",
    train: bool = True,
    strength: float = 1.0,
    peak: float = 0.0,
    white: float = SDR_WHITE_NITS,
    tile: list[int] | None = None,
    tile_pad: int | None = None,
    graphics: GraphicsName = "auto",
) -> Image:
    """One frame for an SDR screen, as a picture that a notebook displays.

    Three pictures side by side: the source, its expansion two stops darker, and the mask (black: untouched; the
    brightest colour: 4 stops or more).

    Args:
        clip: as for `expand`; so are all other arguments.
        frame: its number in the clip, from 0.

    Returns:
        A PIL image. Its method `save` writes it to a file.

    Raises:
        Refused, Failed: as `expand`; or the clip has no such frame.
    """
    options = dict(locals())
    look = _look_of(options)
    number = options.pop("frame")
    _check_frame(clip, number)
    job = _prepared({**options, "when": "call"}, range(number, number + 1))
    before, after = (pixels_of(to_bt709(node), number) for node in (job.linear(), job.expand_with(look)))
    low, high = (light.luminance(list(np.moveaxis(pixels, 2, 0)), vs.PRIMARIES_BT709) for pixels in (before, after))
    stops = np.log2(np.maximum(high, light.BLACK) / np.maximum(low, light.BLACK))
    return drawing.side_by_side(
        {
            "source": drawing.display(before),
            "-2 stops": drawing.display(after / 4),
            f"mask, 0 to {drawing.HEAT_STOPS:g} stops": drawing.heat(stops),
        }
    )


def _check_frame(clip: vs.VideoNode, number: int) -> None:
    if not 0 <= number < clip.num_frames:
        raise Refused(f"frame must be from 0 to {clip.num_frames - 1}, not {number}")


def to_bt709(clip: vs.VideoNode) -> vs.VideoNode:
    """A clip in linear light, such as `expand` returns, with the primaries that an SDR screen has."""
    return clip.resize.Bicubic(primaries=vs.PRIMARIES_BT709, transfer=vs.TRANSFER_LINEAR)


def pixels_of(clip: vs.VideoNode, n: int) -> NDArray[np.float32]:
    """Frame `n` of an RGBS clip as (height, width, 3)."""
    with clip.get_frame(n) as frame:
        return np.dstack([np.asarray(frame[plane]) for plane in range(3)])


def write_exr(
    clip: vs.VideoNode,
    filename: str,
    *,
    compression: Compression = "zip",
    half: bool = True,
    first: int = 0,
    overwrite: bool = False,
    white: float = SDR_WHITE_NITS,
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
    check_linear(clip)
    header = exr.Header(compression=compression, half=half, white=white, first=first)
    sequence = exr.Sequence(Path(filename).expanduser(), header, overwrite=overwrite)

    def write(n: int, pixels: Pixels, props: Props) -> None:
        if sequence.header is header:  # the first frame describes it: to ask for one before might train on a clip
            sequence.header = exr.described(header, linear_primaries(props), clip.fps, props)
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

    return clips.on_passing(clip, write)


def version() -> dict[str, str]:
    """Versions of the package and of torch, the device that "auto" means here, and where the package lies."""
    from importlib.metadata import version as installed_version

    from vszhdrv.zhdrv.hardware import choose_device

    return {
        "version": __version__,
        "torch": installed_version("torch"),
        "device": str(choose_device("auto")),
        "path": str(Path(__file__).parents[1]),
    }


def _look_of(options: dict[str, Any]) -> Look:
    """The look that a function's arguments ask for; they are taken out of `options`."""
    return Look(options.pop("strength"), options.pop("peak"), options.pop("white"))


def _prepared(options: dict[str, Any], frames: range | None = None) -> Job:
    """The job for a function's arguments: with its network, unless the first frame is to see to that.

    frames: those that will be expanded; None: all.
    """
    when = options.pop("when")
    if when not in ("call", "frame"):
        raise Refused(f"when must be call or frame, not {when!r}")
    job = prepare(**options)
    if frames is not None:
        job.limit_to(frames)
    if when == "call":
        follow(job.train())
    return job


def follow(events: Generator[Event]) -> None:
    """Let a job train; tell of it by a bar in a terminal or notebook, else by lines (`log.tell`)."""
    with closing(events), Meters(tell, LOG_SECONDS, GAP_SECONDS) as meters:
        for event in events:
            meters.follow(event)
