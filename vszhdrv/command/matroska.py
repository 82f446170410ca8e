"""Raw 10-bit frames with their timestamps, as a Matroska stream for another program's standard input.

Apart from ffmpeg.py because it knows one thing only: a file format. A raw pipe has no timestamps and YUV4MPEG2 only a
constant rate; this carries variable rates, the shape of a pixel, colour and mastering metadata to whoever reads, and
ffmpeg hands all of them on. `crop` reads the one thing of other files that ffprobe 5.1 does not tell. Neither
VapourSynth nor ffmpeg.

Sources: RFC 9559 (Matroska), RFC 8794 (EBML). Integers in colour elements are ITU-T H.273's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from vszhdrv.exr import Chromaticities

NANOSECONDS = 10**9
EBML, SEGMENT, TRACKS, ENTRY, VIDEO, CLUSTER = 0x1A45DFA3, 0x18538067, 0x1654AE6B, 0xAE, 0xE0, 0x1F43B675
BEGINNING = 2**20
"""So many bytes of a file are looked through for its tracks, which come before the pictures."""
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
    start = _element(EBML, _text(0x4282, "matroska") + _number(0x4287, 4) + _number(0x4285, 2))
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
    tracks = _element(TRACKS, _element(ENTRY, entry + _element(VIDEO, video)))
    return start + _identifier(SEGMENT) + b"\x01" + b"\xff" * 7 + about + tracks  # a segment of unknown size


def frame_header(start: Fraction, duration: Fraction, size: int) -> bytes:
    """What comes before the `size` bytes of a frame that is shown from `start` for `duration` seconds."""
    begins, ends = round(start * NANOSECONDS), round((start + duration) * NANOSECONDS)
    time = _number(0xE7, begins)
    length = _number(0x9B, ends - begins)
    block = _identifier(0xA1) + _size(4 + size) + b"\x81\0\0\0"  # track 1, at the cluster's time, no flags
    group = length + block
    return (
        _identifier(CLUSTER)
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


# Reading


@dataclass(frozen=True)
class Crop:
    """Columns and rows at the edges of a video that players are to leave out."""

    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0


def crop(path: Path) -> Crop:
    """The crop that a Matroska file says of its first video track: none for other files, or where it says none."""
    with path.open("rb") as file:
        content = memoryview(file.read(BEGINNING))
    found = dict(_elements(content)).get(SEGMENT) if content[:4] == _identifier(EBML) else None
    tracks = dict(_elements(found)).get(TRACKS) if found is not None else None
    for identifier, entry in _elements(tracks) if tracks is not None else ():
        video = dict(_elements(entry)).get(VIDEO) if identifier == ENTRY else None
        if video is not None:
            about = {name: int.from_bytes(value, "big") for name, value in _elements(video)}
            edges = (0x54CC, 0x54DD, 0x54BB, 0x54AA)
            return Crop(*(about.get(edge, 0) for edge in edges))
    return Crop()


def _elements(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The elements that follow each other in `content`, as far as it goes; none from the first cluster on."""
    place = 0
    while place < len(content) and content[place]:
        length = 9 - content[place].bit_length()
        identifier = int.from_bytes(content[place : place + length], "big")
        place += length
        if identifier == CLUSTER or place >= len(content) or not content[place]:
            return
        length = 9 - content[place].bit_length()
        size = int.from_bytes(content[place : place + length], "big") & (1 << 7 * length) - 1
        place += length
        end = len(content) if size == (1 << 7 * length) - 1 else place + size
        yield identifier, content[place:end]
        place = end
