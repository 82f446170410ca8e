"""One frame -> a picture to share, in the formats that carry HDR.

Apart from exr.py because these are for people and browsers, where EXR is for programs that go on working. Arrays in,
files out; neither VapourSynth nor torch. imagecodecs, which has the encoders, is imported at the first picture.

    .jpg   Ultra HDR: the SDR source as an ordinary JPEG, and beside it a gain map (ISO 21496-1), which is nearly what
           core.zhdrv.Mask shows. Programs that know nothing of it show the source.
    .avif  10 bits, PQ, BT.2020
    .jxl   16 bits, PQ, BT.2020
    .png   16 bits, PQ, BT.2020, said in its cICP chunk; lossless
    .exr   16-bit float, linear light, the source's own primaries
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vszhdrv import exr, light
from vszhdrv.errors import Refused
from vszhdrv.files import check_target, write_whole

JPEG_QUALITY: Final = 95
"""Of the base image and of the gain map, from 0 to 100."""
AVIF_QUALITY: Final = 98
"""From 0 to 100, which is lossless and ten times as large."""
JXL_DISTANCE: Final = 0.1
"""libjxl's Butteraugli distance: 1 is the least that a person sees at an ordinary brightness; HDR shows more of it."""
BT2020, P3_D65, BT709 = 9, 12, 1
"""ITU-T H.273's numbers of primaries."""
PQ: Final = 16
"""The same of SMPTE ST 2084's transfer characteristics."""
WIDE: Final = frozenset({4, 8, 9, 10, 11, 12})
"""Primaries beyond BT.709's: a JPEG of such a source is in Display P3, every other in sRGB's."""


@dataclass(frozen=True)
class Still:
    """A frame and its expansion, (height, width, 3) each, linear light, 1.0 = SDR white.

    primaries: of both, ITU-T H.273. white: nits of 1.0.
    """

    sdr: NDArray[np.float32]
    hdr: NDArray[np.float32]
    primaries: int = BT709
    white: float = exr.SDR_WHITE_NITS


def available() -> bool:
    """Whether imagecodecs is installed, without which EXR is the only format."""
    return find_spec("imagecodecs") is not None


def check_path(name: str, path: Path) -> None:
    """Raises Refused, one sentence, where the argument `name` can't be written as a still."""
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise Refused(f"{name} must end in {' or '.join(ENDINGS)}, not {path.name!r}")
    check_target(name, path)
    if ending != ".exr" and not available():
        raise Refused(f"{name} {path.name} needs imagecodecs, which writes {ending}: uv pip install imagecodecs")


def write(path: Path, still: Still) -> None:
    """Write the still in the format that `path` ends in, whole or not at all; a file that is there is replaced.

    Raises Refused for an ending that no still has, OSError where the file can't be written.
    """
    ending = path.suffix.lower()
    if ending == ".exr":
        header = exr.Header(white=still.white, primaries=still.primaries)
        exr.write(path, still.hdr, header, overwrite=True)
    else:
        write_whole(path, encoded(still, ending))


def encoded(still: Still, ending: str) -> bytes:
    """The content of a still's file with this ending (".jpg", ".avif", ".jxl", ".png")."""
    return bytes(ENCODERS[ending](still))


def pq(nits: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """The PQ signal, 0 to 1, of light in nits, which is cut off at 0 and 10,000: SMPTE ST 2084's inverse EOTF."""
    y = np.clip(nits / light.PQ_MAX_NITS, 0, 1) ** (2610 / 16384)
    signal: NDArray[np.floating[Any]] = ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)
    return signal


def srgb(linear: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Linear light, cut off at 0 and 1, as 8-bit sRGB: IEC 61966-2-1."""
    x = np.clip(linear, 0, 1)
    codes: NDArray[np.uint8] = np.rint(
        255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    ).astype(np.uint8)
    return codes


def from_srgb(codes: NDArray[np.uint8]) -> NDArray[np.floating[Any]]:
    """8-bit sRGB as linear light in [0, 1]: IEC 61966-2-1."""
    x = codes / 255
    linear: NDArray[np.floating[Any]] = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return linear


def _signal(still: Still, bits: int) -> NDArray[np.uint16]:
    """The expansion as full-range codes of PQ in BT.2020: (height, width, 3)."""
    nits = still.hdr @ light.conversion(still.primaries, BT2020).T.astype(np.float32) * np.float32(still.white)
    codes: NDArray[np.uint16] = np.rint(pq(nits) * (2**bits - 1)).astype(np.uint16)
    return codes


def _png(still: Still) -> Any:
    import imagecodecs

    return imagecodecs.png_encode(_signal(still, 16), primaries=BT2020, transfer=PQ, matrix=0)


def _avif(still: Still) -> Any:
    import imagecodecs

    return imagecodecs.avif_encode(
        _signal(still, 10),
        AVIF_QUALITY,
        bitspersample=10,
        pixelformat="yuv444",
        speed=6,
        primaries=BT2020,
        transfer=PQ,
        matrix=imagecodecs.AVIF.MATRIX_COEFFICIENTS.BT2020_NCL,
    )


def _jxl(still: Still) -> Any:
    import imagecodecs

    return imagecodecs.jpegxl_encode(
        _signal(still, 16),
        distance=JXL_DISTANCE,
        bitspersample=16,
        photometric="rgb",
        primaries=BT2020,
        transfer=PQ,
    )


def _ultra_hdr(still: Still) -> Any:
    """The source, and a gain map for each channel, as large as the picture: ISO 21496-1.

    Displays whose headroom is the picture's own brightest value show all of it. (With the 10,000 nits that libultrahdr
    says of its own maps, a display of eight times white shows half of the stops.)
    """
    import imagecodecs

    target = P3_D65 if still.primaries in WIDE else BT709
    matrix = light.conversion(still.primaries, target).T.astype(np.float32)
    hdr = np.maximum(still.hdr @ matrix, 0)
    base = srgb(still.sdr @ matrix)
    stops = np.log2((hdr + GAIN_OFFSET) / (from_srgb(base) + GAIN_OFFSET))
    boost, headroom = (max(float(most), LEAST_HEADROOM) for most in (2 ** stops.max(), hdr.max()))
    gains = np.rint(255 * np.clip(stops / np.log2(boost), 0, 1)).astype(np.uint8)
    return imagecodecs.ultrahdr_encode_jpeg(
        _jpeg(base),
        _jpeg(gains),
        gamut=imagecodecs.ULTRAHDR.CG.DISPLAY_P3 if target == P3_D65 else imagecodecs.ULTRAHDR.CG.BT_709,
        gamma=1.0,
        min_content_boost=1.0,
        max_content_boost=boost,
        offset_sdr=GAIN_OFFSET,
        offset_hdr=GAIN_OFFSET,
        hdr_capacity_min=1.0,
        hdr_capacity_max=headroom,
    )


def _jpeg(codes: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(codes).save(content, "jpeg", quality=JPEG_QUALITY, subsampling=0)
    return content.getvalue()


GAIN_OFFSET: Final = 1 / 64
"""Added to both sides of a gain's ratio, as ISO 21496-1 suggests: black has no stops."""
LEAST_HEADROOM: Final = 1.25
"""Of an Ultra HDR picture, as a ratio to white: a picture without highlights needs some, for gains to have a range."""
ENCODERS: Final[dict[str, Callable[[Still], Any]]] = {
    ".jpg": _ultra_hdr,
    ".jpeg": _ultra_hdr,
    ".avif": _avif,
    ".jxl": _jxl,
    ".png": _png,
}
ENDINGS: Final = (*ENCODERS, ".exr")
"""In lower case."""
