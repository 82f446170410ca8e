"""From linear light to the signal of a file that plays, and to its light levels.

Apart from ffmpeg.py because signals and child processes are two subjects: this module makes clips and figures, and
starts no program.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vszhdrv import light
from vszhdrv.errors import Refused
from vszhdrv.light import Look
from vszhdrv.version import __version__

from .runs import requested

if TYPE_CHECKING:
    import vapoursynth as vs

    from vszhdrv import Job

PEAK_NITS = 1000.0
"""Highlights of a file are rolled off below this, unless the user says otherwise: what most HDR displays reach."""
HLG_PEAK_NITS = 1000.0
"""The display for which HLG's signal is made: nominal peak of ITU-R BT.2100, where its system gamma is 1.2."""
HELD_BYTES = 2**30
"""Frames expanded while measuring are held for the encoder up to this much; the others are expanded again."""
CRF = 12.0
"""libx265's quality unless the user says otherwise. Its usual 18 to 22 are for SDR; HDR displays show more of what they
lose, and a file whose network was trained for minutes is a master rather than a copy."""

Picture = list[NDArray[np.uint16]]


@dataclass(frozen=True)
class Delivery:
    """How linear light becomes a signal.

    hlg: HLG, else PQ (HDR10). crf: libx265's quality, from 0 (best) to 51.
    Raises Refused, one sentence, where these don't go together.
    """

    look: Look
    hlg: bool = False
    crf: float = CRF

    def __post_init__(self) -> None:
        if self.hlg and not self.look.white < self.look.peak <= HLG_PEAK_NITS:
            raise Refused(
                f"peak must be over white ({self.look.white:g} nits) and at most {HLG_PEAK_NITS:g} nits for HLG, "
                f"not {self.look.peak:g}"
            )
        if not 0 <= self.crf <= 51:
            raise Refused(f"crf must be from 0 to 51, not {self.crf:g}")


# Linear light to signal


def signal(hdr: vs.VideoNode, wanted: Delivery) -> vs.VideoNode:
    """Linear RGBS (1.0 = SDR white, any primaries) as the 10-bit signal: YUV420P10, BT.2020, PQ or HLG, limited range.

    4:2:0 has no odd sizes: there the last column or row is repeated once. Chroma is sited top left, as BT.2020 has it.
    """
    import vapoursynth as vs

    if hdr.width % 2 or hdr.height % 2:
        width, height = (size + size % 2 for size in (hdr.width, hdr.height))
        hdr = hdr.resize.Point(width=width, height=height, src_width=width, src_height=height)
    if wanted.hlg:
        hdr = hlg(hdr, wanted.look.white)
    elif not wanted.look.peak:  # clipped in YUV, colours change their hue, and far above PQ's end resize returns black
        wide = hdr.resize.Bicubic(primaries=vs.PRIMARIES_BT2020)
        hdr = wide.std.Expr(f"x {light.PQ_MAX_NITS / wanted.look.white} min")
    return hdr.resize.Bicubic(
        format=vs.YUV420P10,
        matrix=vs.MATRIX_BT2020_NCL,
        primaries=vs.PRIMARIES_BT2020,
        transfer=vs.TRANSFER_ARIB_B67 if wanted.hlg else vs.TRANSFER_ST2084,
        range=vs.RANGE_LIMITED,
        chromaloc=vs.CHROMA_TOP_LEFT,
        nominal_luminance=wanted.look.white,
        dither_type="error_diffusion",
    )


def hlg(hdr: vs.VideoNode, white: float) -> vs.VideoNode:
    """Linear display light (RGBS, 1.0 = `white` nits) as HLG's R'G'B' in BT.2020 for the nominal display of 1000 nits.

    ITU-R BT.2100-2, table 5: the OOTF's inverse, E = F Y^((1 - g) / g) with g = 1.2 and F, Y relative to the peak, then
    the OETF. By hand because resize takes the gamma of each channel by itself, where the recommendation and displays
    take that of the luminance: pure blue would come out by a tenth too dark.
    """
    import vapoursynth as vs

    wide = hdr.resize.Bicubic(primaries=vs.PRIMARIES_BT2020)
    planes = wide.std.SplitPlanes()
    scale = white / HLG_PEAK_NITS
    luminance = f"x 0.2627 * y 0.6780 * + z 0.0593 * + {scale} * {2.0**-24} max"
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    encoded = []
    for name in "xyz":
        scene = f"{name} 0 max {scale} * {luminance} {(1 - 1.2) / 1.2} pow *"
        curve = f"{scene} dup {1 / 12} > swap dup 12 * {b} - {2.0**-24} max log {a} * {c} + swap 3 * sqrt ?"
        encoded.append(vs.core.std.Expr(planes, curve))
    joined = vs.core.std.ShufflePlanes(encoded, planes=[0, 0, 0], colorfamily=vs.RGB)
    return joined.std.CopyFrameProps(wide).std.SetFrameProps(_Transfer=vs.TRANSFER_ARIB_B67)


# Light levels


def light_key(job: Job, look: Look, pixels: str) -> str:
    """A name for a clip's light levels: of the network and of all else that decides them.

    pixels: a digest of every frame. The network is known by a few of them, but any may be the brightest.
    """
    assert job.trained is not None
    facts = {
        "pixels": pixels,
        "network": dict(job.trained.metadata),
        "n_exp": [job.request.config.n_exp_down, job.request.config.n_exp_up],
        "computing": job.request.computing.traces,
        "strength": look.strength,
        "peak": look.peak,
        "white": look.white,
        "version": __version__,
    }
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()


def measure(
    clip: vs.VideoNode, levels: light.ClipLight, held: dict[int, Picture] | None = None
) -> Generator[tuple[int, int]]:
    """Enter the light of the frames that `levels` misses; yields how many of how many.

    clip: what `Job.expand_with` returned with its levels, or the `signal` made of it. held: takes the frames' planes by
    their number until HELD_BYTES are full, so that an encoder need not ask for them again.
    """
    missing = levels.missing
    size = 0
    with closing(requested(clip, missing)) as frames:
        for done, (n, frame) in enumerate(frames, 1):
            red, green, blue = (float(nits) for nits in frame.props["PLSceneMax"])
            left, top, right, bottom = (int(edge) for edge in frame.props[light.LIT])
            average = float(frame.props["PLSceneAvg"])
            levels.add(
                n, light.FrameLight(max(red, green, blue), average, (red, green, blue), (left, top, right, bottom))
            )
            if held is not None and size < HELD_BYTES:
                held[n] = planes(frame)
                size += sum(plane.nbytes for plane in held[n])
            yield done, len(missing)


def planes(frame: vs.VideoFrame) -> Picture:
    """Copies of a frame's planes, without the padding of their rows."""
    return [np.array(np.asarray(frame[plane]), order="C") for plane in range(frame.format.num_planes)]
