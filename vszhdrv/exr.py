"""Frames -> OpenEXR files.

Apart from the rest because it knows one thing only: what belongs into an EXR sequence that other programs open
without questions (colour, rate, time code, shape of a pixel), and how a file appears under its name whole or not at
all. Arrays in, files out; neither VapourSynth nor torch, and OpenEXR itself is imported at the first file.
"""

from __future__ import annotations

import errno
import io
import math
import os
import re
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from vszhdrv.errors import Refused
from vszhdrv.files import Damaged, check_utf8, opened, parsing, replacing, sweep, unwritable_told
from vszhdrv.version import __version__

Chromaticities = tuple[float, float, float, float, float, float, float, float]

# ITU-T H.273 (2021), table 2: the code in `_Primaries` -> CIE 1931 x, y of red, green, blue and white.
CHROMATICITIES: Final[dict[int, Chromaticities]] = {
    1: (0.640, 0.330, 0.300, 0.600, 0.150, 0.060, 0.3127, 0.3290),  # BT.709, sRGB
    4: (0.670, 0.330, 0.210, 0.710, 0.140, 0.080, 0.3100, 0.3160),  # BT.470 System M (NTSC 1953)
    5: (0.640, 0.330, 0.290, 0.600, 0.150, 0.060, 0.3127, 0.3290),  # BT.470 System B, G; BT.601 625 lines
    6: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, 0.3127, 0.3290),  # SMPTE ST 170; BT.601 525 lines
    7: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, 0.3127, 0.3290),  # SMPTE ST 240
    8: (0.681, 0.319, 0.243, 0.692, 0.145, 0.049, 0.3100, 0.3160),  # generic film, illuminant C
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, 0.3127, 0.3290),  # BT.2020, BT.2100
    10: (1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1 / 3, 1 / 3),  # SMPTE ST 428-1, CIE XYZ
    11: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.3140, 0.3510),  # SMPTE RP 431-2, DCI-P3
    12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.3127, 0.3290),  # SMPTE EG 432-1, P3-D65
    22: (0.630, 0.340, 0.295, 0.605, 0.155, 0.077, 0.3127, 0.3290),  # EBU Tech. 3213-E
}

# The identifiers of the Color Interop Forum that OpenEXR 3.4 defines for linear RGB; other primaries have none.
COLOR_INTEROP_IDS: Final[dict[int, str]] = {1: "lin_rec709_scene", 9: "lin_rec2020_scene", 12: "lin_p3d65_scene"}

COMPRESSIONS: Final = ("zip", "zips", "piz", "dwaa", "dwab", "none", "htj2k32")
HALF_MAX: Final = 65504.0  # the largest finite number of IEEE 754 binary16
FIRST_MAX: Final = 10**9  # imageCounter has 32 bits: as many frames can follow
SDR_WHITE_NITS: Final = 203.0  # Report ITU-R BT.2408, HDR reference white

ROUNDING: Final = Fraction(1, 1000)  # seconds: Matroska and others round the times of frames to milliseconds

HEADER_BYTES: Final = 2**18  # no header is as long, with a thumbnail even
_NUMBER_FIELD: Final = re.compile(r"%(?:0(?P<width>[1-9]\d?))?d|(?P<hashes>#+)")


def chromaticities(primaries: int) -> Chromaticities:
    """Red, green, blue and white as CIE 1931 x, y for an ITU-T H.273 code; BT.709's for codes that name none."""
    return CHROMATICITIES.get(primaries, CHROMATICITIES[1])


def available_compressions() -> tuple[str, ...]:
    """The names that `Header.compression` takes with the OpenEXR that is installed."""
    import OpenEXR

    return tuple(name for name in COMPRESSIONS if hasattr(OpenEXR, _compression_constant(name)))


def _compression_constant(name: str) -> str:
    return f"{'NO' if name == 'none' else name.upper()}_COMPRESSION"


@dataclass(frozen=True)
class Header:
    """What every file of a sequence says about itself, and how its pixels are stored.

    compression: one of `available_compressions()`. "zip" (the default), "zips", "piz", "none" and "htj2k32" lose
        nothing; "dwaa" and "dwab" do. "htj2k32" needs readers of OpenEXR 3.4 or newer.
    half: 16-bit floats, largest value 65504; False stores 32-bit floats.
    white: luminance of R = G = B = 1.0 in nits.
    primaries: ITU-T H.273 code as in VapourSynth's `_Primaries`; unknown codes are taken as BT.709.
    fps: frames per second; None where there is no constant rate, and then neither a rate nor a time code is written.
        Nor are they for a rate whose numerator takes over 31 bits once the denominator is a million at most.
    sar: width of a pixel over its height.
    first: number in the name of frame 0's file, from 0 to 1000000000.

    Raises Refused, one sentence, for a value that no file could hold.
    """

    compression: str = "zip"
    half: bool = True
    white: float = SDR_WHITE_NITS
    primaries: int = 1
    fps: Fraction | None = None
    sar: Fraction = Fraction(1)
    first: int = 0

    def __post_init__(self) -> None:
        if self.compression not in available_compressions():
            raise Refused(f"compression is {self.compression!r}; use one of {', '.join(available_compressions())}")
        if not (math.isfinite(self.white) and self.white > 0):
            raise Refused(f"white is {self.white} nits; use a number above 0")
        if self.fps is not None and self.fps <= 0:
            raise Refused(f"fps is {self.fps}; use a rate above 0, or None for a variable one")
        if self.sar <= 0:
            raise Refused(f"sar is {self.sar}; use a ratio above 0")
        if not 0 <= self.first <= FIRST_MAX:
            raise Refused(f"first is {self.first}; use 0 to {FIRST_MAX}")


def fraction(props: Mapping[str, Any], name: str) -> Fraction | None:
    """What a frame's properties NAMENum and NAMEDen say, such as _SAR and _Duration (seconds); None: nothing usable."""
    above, below = (props.get(f"{name}{part}") for part in ("Num", "Den"))
    if isinstance(above, int) and isinstance(below, int) and above > 0 and below > 0:
        return Fraction(above, below)
    return None


def described(header: Header, primaries: int, fps: Fraction, props: Mapping[str, Any]) -> Header:
    """The header with what a clip says about itself: its primaries, its rate and its sample aspect ratio.

    primaries: by ITU-T H.273's numbers. fps: frames per second, 0 for a variable rate. props: a frame's properties; if
    that frame lasts longer or shorter than the rate says, this is the average of a variable one, and not written.
    """
    duration = fraction(props, "_Duration")
    constant = fps and (duration is None or abs(duration - 1 / Fraction(fps)) <= ROUNDING)
    rate = Fraction(fps) if constant else None
    return replace(header, primaries=primaries, fps=rate, sar=fraction(props, "_SAR") or Fraction(1))


@dataclass(frozen=True)
class Outcome:
    """What became of one frame.

    written: False where a valid file of the same size was there already and stayed.
    clamped: values beyond the largest the file can hold (infinities too), stored as that largest.
    invalid: values that were not numbers (NaN), stored as 0.
    """

    written: bool
    clamped: int = 0
    invalid: int = 0


def parse_filename(pattern: str | Path) -> Callable[[int], Path]:
    """A file name with one number field -> the function from a number to its path.

    The field is `%d`, `%06d` (any width up to 99, zero-padded) or a run of `#`, one for each digit, in the last part
    of the path; longer numbers take the digits they need. Raises Refused where there is no field or more than one,
    where the name does not end in `.exr`, and where the path is not UTF-8.
    """
    path = Path(pattern)
    check_utf8("filename", path)
    fields = list(_NUMBER_FIELD.finditer(path.name))
    if len(fields) != 1:
        raise Refused(
            f"filename is '{pattern}' with {len(fields) or 'no'} number field{'s'[: len(fields)]}; "
            "its last part needs exactly one, such as %06d or ######"
        )
    if path.suffix.lower() != ".exr":
        raise Refused(f"filename is '{pattern}'; it must end in .exr")
    (field,) = fields
    digits = len(field["hashes"] or "") or int(field["width"] or 1)
    before, after = path.name[: field.start()], path.name[field.end() :]
    return lambda number: path.with_name(f"{before}{number:0{digits}d}{after}")


def timecode(frame: int, fps: Fraction) -> tuple[int, int, int, int, bool]:
    """Hours, minutes, seconds, frames and the second-of-its-pair flag of frame `frame`, counted from 00:00:00:00.

    Labels count at the rate rounded to whole frames and skip none: 23.976 and 29.97 are non-drop, and drift from the
    clock by 3.6 s an hour. A time code has room for 30 frames a second; above that SMPTE ST 12-1:2014, 12.1 labels
    frames in pairs and marks the second of each pair by the field flag. Above 60 the groups grow in the same way,
    the flag marks all but the first of a group and imageCounter tells them apart. Labels wrap after 24 hours.
    """
    rate = max(1, math.floor(fps + Fraction(1, 2)))
    group = math.ceil(rate / 30)
    seconds, within = divmod(frame, rate)
    return seconds // 3600 % 24, seconds // 60 % 60, seconds % 60, within // group, within % group > 0


def write(
    path: Path, rgb: NDArray[np.floating[Any]], header: Header, frame: int = 0, *, overwrite: bool = False
) -> Outcome:
    """Write one frame: whole under `path`, or not at all.

    path: the final name; its folder is made if missing. A valid file of the same size (`is_valid`) stays unless
        `overwrite`; a broken one is replaced.
    rgb: (3, H, W) or (H, W, 3), linear light, 1.0 = SDR white; any strides.
    frame: the frame's position in the clip from 0, from which imageCounter and timeCode follow.

    The pixels go to a temporary file beside `path`, which is then renamed; an exception removes it, and what a killed
    process leaves behind is swept by `sweep`. Files are not flushed to the disk one by one: after a power cut a file
    may be broken, and the next run finds and replaces it.

    Values beyond what the file can hold are clamped and counted, NaN becomes 0 and is counted: no file ever holds
    an infinity or a NaN. Raises Refused for an array of another shape, OSError where the file can't be written.
    """
    planes = _planes(rgb)
    height, width = planes.shape[1:]
    if not overwrite and is_valid(path, width, height):
        return Outcome(written=False)

    limit = HALF_MAX if header.half else float(np.finfo(np.float32).max)
    clamped = int(np.count_nonzero(np.abs(planes) > limit))
    invalid = int(np.count_nonzero(np.isnan(planes)))
    finite = np.nan_to_num(planes.clip(-limit, limit), nan=0.0) if clamped or invalid else planes
    # The writer stores garbage from strided arrays, without an error: one contiguous plane a channel.
    stored = [np.ascontiguousarray(plane, dtype=np.float16 if header.half else np.float32) for plane in finite]

    path.parent.mkdir(parents=True, exist_ok=True)
    with unwritable_told(path), replacing(path, flush=False) as part:
        _write_file(part, dict(zip("RGB", stored, strict=True)), _attributes(header, frame))
        if not is_valid(part, width, height):  # OpenEXR hears of a full disk, but not while it closes a file
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return Outcome(written=True, clamped=clamped, invalid=invalid)


def _planes(rgb: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    if rgb.ndim == 3 and rgb.shape[0] == 3:
        return rgb
    if rgb.ndim == 3 and rgb.shape[2] == 3:
        return rgb.transpose(2, 0, 1)
    raise Refused(f"rgb has the shape {rgb.shape}; use (3, height, width) or (height, width, 3)")


def _attributes(header: Header, frame: int) -> dict[str, Any]:
    import OpenEXR

    attributes: dict[str, Any] = {
        "type": OpenEXR.scanlineimage,
        "compression": getattr(OpenEXR, _compression_constant(header.compression)),
        "pixelAspectRatio": float(header.sar),
        "chromaticities": chromaticities(header.primaries),
        "whiteLuminance": float(header.white),
        "imageCounter": header.first + frame,
        "software": f"vszhdrv {__version__}",
        "comments": f"linear light, 1.0 = SDR white = {header.white:g} cd/m2",
    }
    # Unknown primaries are stored as BT.709's; their name then is BT.709's too.
    known = header.primaries if header.primaries in CHROMATICITIES else 1
    if known in COLOR_INTEROP_IDS:
        attributes["colorInteropID"] = COLOR_INTEROP_IDS[known]
    rate = header.fps and header.fps.limit_denominator(1_000_000)  # two numbers of 32 bits
    if rate and rate.numerator < 2**31:
        hours, minutes, seconds, frames, second_of_pair = timecode(frame, rate)
        flags = (0, 0, int(second_of_pair), 0, 0, 0)  # drop frame, colour frame, field, three for the user data
        attributes["framesPerSecond"] = rate
        attributes["timeCode"] = OpenEXR.TimeCode(hours, minutes, seconds, frames, *flags, *[0] * 8)
    return attributes


def _write_file(path: Path, channels: dict[str, NDArray[Any]], attributes: dict[str, Any]) -> None:
    import OpenEXR

    try:
        OpenEXR.File(attributes, channels).write(str(path))
    except RuntimeError as error:
        raise OSError(str(error)) from error


def is_valid(path: Path, width: int, height: int) -> bool:
    """Whether `path` holds a whole single-part scanline EXR of this size: every block is listed, and the last one
    ends where the file ends. Reads the header and the table of blocks, no pixels: well under a millisecond.

    Done by hand because OpenEXR's reader prints on standard output when a file is cut off, and that may be a pipe
    full of video; it also calls a file complete whose last block is not. Raises OSError where the file can't be read.
    Layout: https://openexr.com/en/latest/OpenEXRFileLayout.html
    """
    if not path.exists():
        return False
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        start = io.BytesIO(file.read(HEADER_BYTES + 8 * height))
        try:
            with parsing(str(path)):
                first, last = _first_and_last_block(start, width, height)
        except Damaged:
            return False
        if not first <= last <= size - 8:
            return False
        file.seek(last)
        _, length = _unpack(file, "<ii")  # its first line, its packed length
        return last + 8 + length == size


def _first_and_last_block(file: BinaryIO, width: int, height: int) -> tuple[int, int]:
    """Where the first and the last block begin, by the table. Raises anything where the header is no header of ours."""
    magic, version = _unpack(file, "<II")
    long_names = 0x400  # the one flag that a single-part scanline file may carry
    if magic != 20000630 or version & ~long_names != 2:
        raise ValueError("another kind of file")
    attributes: dict[bytes, bytes] = {}
    while name := _name(file):
        _name(file)  # the type
        attributes[name] = file.read(*_unpack(file, "<i"))
    left, top, right, bottom = struct.unpack("<4i", attributes[b"dataWindow"])
    if (right - left + 1, bottom - top + 1) != (width, height):
        raise ValueError("another size")
    table = file.tell()
    (first,) = _unpack(file, "<Q")  # the blocks start where the table ends, which gives its length
    blocks = (first - table) // 8
    if not 1 <= blocks <= height:
        raise ValueError("no table of blocks")
    offsets = (first, *_unpack(file, f"<{blocks - 1}Q"))
    if min(offsets) != first:
        raise ValueError("a block before the first")
    return first, max(offsets)


def _unpack(file: BinaryIO, layout: str) -> tuple[int, ...]:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def _name(file: BinaryIO) -> bytes:
    name = b""
    while (byte := file.read(1)) != b"\0":
        if not byte or len(name) > 255:
            raise struct.error("a name without an end")
        name += byte
    return name


def read(path: str | Path) -> NDArray[np.float32]:
    """The RGB pixels of an EXR file as (H, W, 3) float32. Raises OSError where they can't all be read."""
    import OpenEXR

    try:
        with OpenEXR.File(str(path)) as file:
            return np.asarray(file.channels()["RGB"].pixels, dtype=np.float32)
    except (RuntimeError, ValueError, KeyError) as error:  # no such file, cut off, without R, G and B
        raise OSError(f"{path} could not be read as an RGB picture: {error}") from error


class Sequence:
    """A numbered sequence that is being written, by any number of threads, and its counts so far.

    written, skipped: files. clamped, invalid: values, as `Outcome` has them. A frame that comes again counts once.
    Raises Refused for a bad pattern. Old temporaries in its folder are swept when it starts.
    """

    def __init__(self, pattern: str | Path, header: Header, *, overwrite: bool = False) -> None:
        self.header = header
        self.overwrite = overwrite
        self.written = self.skipped = self.clamped = self.invalid = 0
        self._path_of = parse_filename(pattern)
        self._counted: set[int] = set()
        self._lock = threading.Lock()
        sweep(self.path(0).parent, ".exr.")

    def path(self, frame: int) -> Path:
        """Where frame `frame` of the clip, counted from 0, goes."""
        return self._path_of(self.header.first + frame)

    def write(self, frame: int, rgb: NDArray[np.floating[Any]]) -> Outcome:
        """Write frame `frame` as the function `write` does, and count."""
        outcome = write(self.path(frame), rgb, self.header, frame, overwrite=self.overwrite)
        with self._lock:
            if frame not in self._counted:
                self._counted.add(frame)
                self.written += outcome.written
                self.skipped += not outcome.written
                self.clamped += outcome.clamped
                self.invalid += outcome.invalid
        return outcome
