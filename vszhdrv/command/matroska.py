"""Raw 10-bit frames with their timestamps, as a Matroska stream for another program's standard input.

Apart from ffmpeg.py because it knows one thing only: a file format. A raw pipe has no timestamps and YUV4MPEG2 only a
constant rate; this carries variable rates, the shape of a pixel, colour and mastering metadata to whoever reads, and
ffmpeg hands all of them on. Bytes out; neither VapourSynth nor ffmpeg.

Sources: RFC 9559 (Matroska), RFC 8794 (EBML). Integers in colour elements are ITU-T H.273's.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction

from vszhdrv.exr import Chromaticities

NANOSECONDS = 10**9
FOURCC = b"Y3\x0b\x0a"  # planar 4:2:0, 10 bits in little-endian 16, as ffmpeg names it


@dataclass(frozen=True)
class Mastering:
    """SMPTE ST 2086 and CTA-861.3 metadata: the mastering display's colours (CIE 1931 x, y) and the nits."""

    chromaticities: Chromaticities
    display_max: float
    display_min: float
    max_cll: int
    max_fall: int


@dataclass(frozen=True)
class Track:
    """The one video track of the stream: 4:2:0, 10 bits, limited range, BT.2020, chroma sited top left.

    width, height: pixels, both even. sar: width of a pixel over its height. transfer: 16 PQ, 18 HLG. duration: of
    every frame in seconds; None where it varies.
    """

    width: int
    height: int
    sar: Fraction
    transfer: int
    duration: Fraction | None
    mastering: Mastering | None


def header(track: Track) -> bytes:
    """The beginning of the stream; then comes `frame_header` and the planes' bytes, frame by frame."""
    start = _element(0x1A45DFA3, _text(0x4282, "matroska") + _number(0x4287, 4) + _number(0x4285, 2))
    about = _element(0x1549A966, _number(0x2AD7B1, 1) + _text(0x4D80, "vszhdrv") + _text(0x5741, "vszhdrv"))
    video = (
        _number(0x9A, 2)  # progressive
        + _number(0xB0, track.width)
        + _number(0xBA, track.height)
        + _number(0x54B0, track.width * track.sar.numerator)
        + _number(0x54BA, track.height * track.sar.denominator)
        + _number(0x54B2, 3)  # the two before are a ratio
        + _element(0x2EB524, FOURCC)
        + _element(0x55B0, _colour(track))
    )
    entry = (
        _number(0xD7, 1)
        + _number(0x73C5, 1)
        + _number(0x83, 1)
        + _text(0x86, "V_UNCOMPRESSED")
        + _text(0x22B59C, "und")
    )
    if track.duration is not None:
        entry += _number(0x23E383, round(track.duration * NANOSECONDS))
    tracks = _element(0x1654AE6B, _element(0xAE, entry + _element(0xE0, video)))
    return start + _identifier(0x18538067) + b"\x01" + b"\xff" * 7 + about + tracks  # a segment of unknown size


def frame_header(start: Fraction, duration: Fraction, size: int) -> bytes:
    """What comes before the `size` bytes of a frame that is shown from `start` for `duration` seconds."""
    begins, ends = round(start * NANOSECONDS), round((start + duration) * NANOSECONDS)
    time = _number(0xE7, begins)
    length = _number(0x9B, ends - begins)
    block = _identifier(0xA1) + _size(4 + size) + b"\x81\0\0\0"  # track 1, at the cluster's time, no flags
    group = length + block
    return (
        _identifier(0x1F43B675)
        + _size(len(time) + 9 + len(group) + size)
        + time
        + (_identifier(0xA0) + _size(len(group) + size) + group)
    )


def _colour(track: Track) -> bytes:
    colour = b"".join(
        _number(identifier, value)
        for identifier, value in (
            (0x55B1, 9),  # matrix
            (0x55B2, 10),  # bits
            (0x55B7, 1),  # chroma sited left,
            (0x55B8, 1),  # and at the top
            (0x55B9, 1),  # limited range
            (0x55BA, track.transfer),
            (0x55BB, 9),  # primaries
        )
    )
    if track.mastering is None:
        return colour
    mastering = track.mastering
    values = (*mastering.chromaticities, mastering.display_max, mastering.display_min)
    display = b"".join(_element(0x55D1 + place, struct.pack(">d", value)) for place, value in enumerate(values))
    return colour + _number(0x55BC, mastering.max_cll) + _number(0x55BD, mastering.max_fall) + _element(0x55D0, display)


def _element(identifier: int, content: bytes) -> bytes:
    return _identifier(identifier) + _size(len(content)) + content


def _number(identifier: int, value: int) -> bytes:
    return _element(identifier, value.to_bytes(8, "big"))


def _text(identifier: int, text: str) -> bytes:
    return _element(identifier, text.encode())


def _identifier(identifier: int) -> bytes:
    return identifier.to_bytes((identifier.bit_length() + 7) // 8, "big")


def _size(count: int) -> bytes:
    """A length in eight bytes, the widest of EBML's forms."""
    return (1 << 56 | count).to_bytes(8, "big")
