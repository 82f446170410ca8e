"""Pictures as a clip: one, or a folder of them, in colours that the rest of the program knows.

Apart from sources.py because of a video a file says how its codes are meant, and of a picture a colour profile does, or
nobody: then it is sRGB. imageseqs reads the files, Pillow's ImageCms the profiles.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vszhdrv.errors import Refused

if TYPE_CHECKING:
    import vapoursynth as vs
    from PIL.ImageCms import ImageCmsProfile

Say = Callable[[str], None]

PICTURES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".webp", ".avif", ".heic", ".heif", ".hif",
    ".jxl", ".jp2", ".j2k", ".tga", ".ppm", ".pgm", ".pnm", ".qoi",
)  # fmt: skip
NO_SDR = {
    ".exr": "OpenEXR, linear light that is not limited to white",
    ".hdr": "Radiance HDR, linear light that is not limited to white",
    ".dpx": "DPX, a film scan in printing density or camera log",
    ".cin": "Cineon, a film scan in printing density",
}
"""Pictures that are no SDR, and why."""
NOT_READ = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".psd")
"""Pictures that have to be developed or flattened first."""
DEFAULT_FPS = Fraction(24)

SRGB, P3, BT709, UNSPECIFIED = 13, 12, 1, 2
"""Codes of ITU-T H.273: the transfer function, and primaries."""
VIDEO_CURVES = (1, 6, 14, 15)
"""Camera curves of video, which some writers name in a still picture's tags where they mean its usual one, sRGB's."""
COLORANTS = {
    BT709: ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)),
    P3: ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)),
    9: ((0.6734, 0.2790, -0.0019), (0.1656, 0.6754, 0.0299), (0.1251, 0.0456, 0.7968)),
}
"""X, Y, Z of red, green and blue in a profile (white D50, adapted by Bradford), by the primaries' code."""
COLORANT_TOLERANCE = 0.003
MOST_GAPS = 3
"""So many gaps in a sequence's numbers are named."""


def is_picture(source: Path) -> bool:
    """Whether a file is a still picture, by its name."""
    suffix = source.suffix.lower()
    return suffix in PICTURES or suffix in NO_SDR or suffix in NOT_READ


def open_pictures(source: Path, *, still: bool, fps: Fraction | None, say: Say) -> vs.VideoNode:
    """The clip of a folder of pictures, of one picture (`still`), or of an animated one.

    `fps`: frames a second, 24 when None. Raises Refused where there is none of the right kind, and Failed,
    with the reader's own words, where one can't be read.
    """
    if source.is_dir():
        return read_pictures(frames_in(source, say), fps or DEFAULT_FPS, say, sequence=True)
    check_kind(source, source.suffix.lower())
    clip = read_pictures([source], fps or DEFAULT_FPS, say)
    if clip.num_frames > 1:
        say(f"{source.name} is an animation: {clip.num_frames} frames at {clip.fps} a second (--fps)")
    elif not still:
        raise Refused(f"INPUT {source} is a single picture, which needs --data_type image")
    return clip


def check_kind(source: Path, suffix: str) -> None:
    """Raises Refused where pictures of that suffix are no SDR, or can't be read."""
    if suffix in NO_SDR:
        raise Refused(f"INPUT {source} must be SDR, and {suffix} is {NO_SDR[suffix]}: expand SDR pictures")
    if suffix in NOT_READ:
        raise Refused(f"INPUT {source} can't be read: save {suffix} pictures as .png or .tiff first")


def frames_in(folder: Path, say: Say) -> list[Path]:
    """A folder's pictures in the order of the numbers in their names; `say` gets a sentence for gaps in these.

    Raises Refused where there are none, or two of one name.
    """
    # macOS leaves ._NAME.png beside NAME.png on the file systems of others
    visible = [path for path in folder.iterdir() if not path.name.startswith(".") and is_picture(path)]
    found = sorted((path for path in visible if path.suffix.lower() in PICTURES), key=natural_order)
    if not found:
        for path in sorted(visible):
            check_kind(folder, path.suffix.lower())
        raise Refused(f"INPUT {folder} is a folder without pictures, such as .png frames")
    twice = [stem for stem, count in Counter(path.stem for path in found).items() if count > 1]
    if twice:
        names = " and ".join(path.name for path in found if path.stem == twice[0])
        raise Refused(f"INPUT {folder} must have each frame once, and it has {names}")
    kinds = Counter(path.suffix.lower() for path in found)
    if len(kinds) > 1:
        say(f"{folder}: all of its pictures are taken as frames, " + ", ".join(f"{n} {k}" for k, n in kinds.items()))
    if other := len(visible) - len(found):
        say(f"{folder}: {other} pictures of other kinds are left out")
    tell_gaps(folder, found, say)
    return found


def natural_order(path: Path) -> list[tuple[int, str]]:
    """A key that sorts by the numbers in a name: frame2 before frame10, frame02 beside frame2."""
    parts = re.findall(r"\d+|\D+", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts] + [(-1, path.name)]


def tell_gaps(folder: Path, found: Sequence[Path], say: Say) -> None:
    """A sentence where numbers are left out in the names of successive pictures."""

    def split(path: Path) -> tuple[str, int | None]:
        number = re.search(r"(\d+)\D*$", path.stem)
        return (path.stem[: number.start(1)], int(number[1])) if number else (path.stem, None)

    gaps: list[tuple[int, int]] = []
    for (name, before), (next_name, after) in pairwise(split(path) for path in found):
        if name == next_name and before is not None and after is not None and after > before + 1:
            gaps.append((before + 1, after - 1))
    if gaps:
        named = ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in gaps[:MOST_GAPS])
        more = ", ..." if len(gaps) > MOST_GAPS else ""
        missing = sum(last - first + 1 for first, last in gaps)
        say(f"{folder}: {missing} numbers are missing in its pictures' names ({named}{more}); the clip goes on without")


# Reading


def read_pictures(pictures: Sequence[Path], fps: Fraction, say: Say, *, sequence: bool = False) -> vs.VideoNode:
    """A clip of the pictures in that order, in the depth they have, without their alpha channel.

    Pictures of several kinds become RGB in the largest of their depths. `sequence`: nothing tells that they are
    progressive.
    """
    from vapoursynth import Error

    try:
        clip = read_alike(pictures, fps)
    except Error as error:
        if not sequence or "expected frame 0" not in str(error):
            raise
        clip = read_mixed(pictures, fps, error)
    with clip.get_frame(0) as frame:
        props = dict(frame.props)
    kind = props.get("ImgSeqOriginalColorType", b"")  # the image crate's names: Rgb8, Rgba16, La8, ...
    name = kind.decode() if isinstance(kind, bytes) else str(kind)
    if "a" in name:
        say(f"{pictures[0].name} has an alpha channel, which is dropped")
    clip = in_known_colours(as_rgb(clip), profile_of(props), pictures[0].name, say)
    clip = clip.std.RemoveFrameProps("ICCProfile")
    return clip.std.RemoveFrameProps("_FieldBased") if sequence else clip


def as_rgb(clip: vs.VideoNode) -> vs.VideoNode:
    """The clip as RGB: of grey and YUV nobody would know that it is no video, whose colours are others."""
    from vapoursynth import GRAY, RGB, RGB24, RGB48, core

    if clip.format.color_family == GRAY:
        return core.std.ShufflePlanes(clip, [0, 0, 0], RGB)
    if clip.format.color_family == RGB:
        return clip
    return clip.resize.Bicubic(format=RGB48 if clip.format.bits_per_sample > 8 else RGB24)


def read_alike(pictures: Sequence[Path], fps: Fraction) -> vs.VideoNode:
    """A clip of pictures of one format and size, as imageseqs has it; where it can't, for half-sized chroma of an odd
    size, as Pillow has it."""
    from vapoursynth import Error, core

    files = [str(picture) for picture in pictures]
    try:
        return core.imgseqs.Read(files, fpsnum=fps.numerator, fpsden=fps.denominator, icc_profile=True)
    except Error as error:
        if "VSVideoInfo" not in str(error):
            raise
    return by_pillow(pictures, fps)


def read_mixed(pictures: Sequence[Path], fps: Fraction, error: Exception) -> vs.VideoNode:
    """A clip of pictures of several formats and one size: RGB, in the largest of their depths."""
    import vapoursynth as vs
    from vapoursynth import core

    def shape(picture: Path) -> tuple[int, int, int]:
        clip = read_alike([picture], fps)
        return clip.format.id, clip.width, clip.height

    shapes = [shape(picture) for picture in pictures]
    if len({(width, height) for _, width, height in shapes}) > 1:
        raise error
    deep = any(core.get_video_format(form).bits_per_sample > 8 for form, _, _ in shapes)
    form = vs.RGB48 if deep else vs.RGB24
    parts = []
    for _, group in groupby(zip(pictures, shapes, strict=True), lambda pair: pair[1]):
        part = as_rgb(read_alike([picture for picture, _ in group], fps))
        parts.append(part.resize.Bicubic(format=form) if part.format.id != form else part)
    return core.std.Splice(parts)


def by_pillow(pictures: Sequence[Path], fps: Fraction) -> vs.VideoNode:
    """An RGB24 clip of the pictures by Pillow, of animated ones the first frame."""
    import numpy as np
    import vapoursynth as vs
    from PIL import Image, ImageOps, UnidentifiedImageError

    def load(n: int) -> tuple[Any, bytes]:
        try:
            with Image.open(pictures[n]) as opened:
                picture = ImageOps.exif_transpose(opened)
                return np.asarray(picture.convert("RGB")), opened.info.get("icc_profile") or b""
        except UnidentifiedImageError:
            raise Refused(
                f"INPUT {pictures[n]} has an odd size, in which pictures of this kind can't be read: save it as .png"
            ) from None

    first, _ = load(0)
    blank = vs.core.std.BlankClip(
        format=vs.RGB24, width=first.shape[1], height=first.shape[0], length=len(pictures),
        fpsnum=fps.numerator, fpsden=fps.denominator,
    )  # fmt: skip

    def fill(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        frame = f.copy()
        pixels, profile = load(n)
        for plane in range(3):
            np.copyto(np.asarray(frame[plane]), pixels[..., plane])
        if profile:
            frame.props["ICCProfile"] = profile
        return frame

    return blank.std.ModifyFrame(blank, fill).std.SetFrameProps(_Matrix=0, _Range=1)


# Colour


def profile_of(props: Mapping[str, Any]) -> bytes:
    """A frame's ICC profile; empty where it has none."""
    found = props.get("ICCProfile", b"")
    return found if isinstance(found, bytes) else bytes(found)


def in_known_colours(clip: vs.VideoNode, profile: bytes, name: str, say: Say) -> vs.VideoNode:
    """The clip with transfer function and primaries that say what its codes are: by its profile, its tags, or sRGB.

    A profile of sRGB's curve and known primaries becomes tags; by any other the pictures are converted to Display P3.
    Raises Refused where 16-bit pictures would have to be converted.
    """
    checked = clip.std.ModifyFrame(clip, same_profile(profile)) if clip.num_frames > 1 else clip
    if not profile:
        with clip.get_frame(0) as frame:
            transfer, primaries = (int(frame.props.get(key, UNSPECIFIED)) for key in ("_Transfer", "_Primaries"))
        tag = transfer in VIDEO_CURVES and primaries in (BT709, UNSPECIFIED)
        return checked.std.SetFrameProps(_Transfer=UNSPECIFIED) if tag else checked
    source = opened_profile(profile, name)
    primaries_of_it = known_primaries(source)
    if primaries_of_it is not None:
        return checked.std.SetFrameProps(_Transfer=SRGB, _Primaries=primaries_of_it)
    about = description(source)
    if clip.format.bits_per_sample > 8:
        raise Refused(
            f"INPUT {name} has the colour profile {about!r}, by which pictures of more than 8 bits are not converted: "
            "convert it to sRGB or Display P3 first"
        )
    say(f"{name} has the colour profile {about!r}: it is converted to Display P3")
    return converted(checked, source)


def same_profile(profile: bytes) -> Callable[..., vs.VideoFrame]:
    """For ModifyFrame: passes frames of this profile, and fails at others."""

    def check(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        if profile_of(f.props) != profile:
            raise Refused(f"frame {n}: its colour profile is another than the first frame's: convert one of them")
        return f

    return check


def opened_profile(profile: bytes, name: str) -> ImageCmsProfile:
    """The profile. Raises Refused where it is damaged, or for printing inks."""
    import io

    from PIL import ImageCms

    try:
        found = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    except OSError:
        raise Refused(f"INPUT {name} has a damaged colour profile: save it without, or in sRGB") from None
    space = found.profile.xcolor_space.strip()
    if space not in ("RGB", "GRAY"):
        raise Refused(f"INPUT {name} has colours of the kind {space}: convert it to RGB first")
    return found


def description(profile: ImageCmsProfile) -> str:
    """The profile's name, as far as it has one."""
    return str(profile.profile.profile_description or "without a name").strip()


def known_primaries(profile: ImageCmsProfile) -> int | None:
    """The primaries' code of a profile that has sRGB's curve; None where it has another, or other primaries."""
    import numpy as np
    from PIL import Image, ImageCms

    grey = profile.profile.xcolor_space.strip() == "GRAY"
    ramp = np.arange(256, dtype=np.uint8)[None]
    picture = Image.fromarray(ramp if grey else np.dstack([ramp] * 3))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    shown = ImageCms.profileToProfile(picture, profile, srgb, outputMode="RGB")
    if np.abs(np.asarray(shown).astype(int) - ramp[..., None]).max() > 1:
        return None
    if grey:
        return BT709
    core = profile.profile
    found = [core.red_colorant, core.green_colorant, core.blue_colorant]
    if any(colorant is None for colorant in found):
        return None
    xyz = np.array([colorant[0] for colorant in found if colorant is not None])
    close = (code for code, each in COLORANTS.items() if np.abs(xyz - np.array(each)).max() < COLORANT_TOLERANCE)
    return next(close, None)


def converted(clip: vs.VideoNode, profile: ImageCmsProfile) -> vs.VideoNode:
    """RGB24 pictures with that profile in Display P3."""
    import io

    import numpy as np
    from PIL import Image, ImageCms

    target = ImageCms.ImageCmsProfile(io.BytesIO(matrix_profile(COLORANTS[P3])))
    transform = ImageCms.buildTransform(profile, target, "RGB", "RGB")
    grey = profile.profile.xcolor_space.strip() == "GRAY"
    if grey:
        transform = ImageCms.buildTransform(profile, target, "L", "RGB")

    def convert(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        frame = f.copy()
        pixels = np.asarray(f[0]) if grey else np.dstack([np.asarray(f[plane]) for plane in range(3)])
        shown = np.asarray(ImageCms.applyTransform(Image.fromarray(np.ascontiguousarray(pixels)), transform))
        for plane in range(3):
            np.copyto(np.asarray(frame[plane]), shown[..., plane])
        return frame

    tags = {"_Matrix": 0, "_Transfer": SRGB, "_Primaries": P3, "_Range": 1}
    return clip.std.ModifyFrame(clip, convert).std.SetFrameProps(**tags)


def matrix_profile(colorants: Sequence[tuple[float, float, float]], curve: Sequence[float] | None = None) -> bytes:
    """An ICC profile (ICC.1:2010) of a display with these colorants (X, Y, Z, white D50) and sRGB's curve.

    curve: the parameters of another one, of the parametric type 3; or a gamma alone, of type 0.
    """

    def fixed(*values: float) -> bytes:
        return struct.pack(f">{len(values)}i", *(round(65536 * value) for value in values))

    curve = curve or (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    parametric = b"para" + bytes(4) + struct.pack(">HH", 3 if len(curve) > 1 else 0, 0) + fixed(*curve)
    name = "zhdrv".encode("utf-16-be")
    text = b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(name), 28) + name
    tags = {
        b"desc": text,
        b"cprt": text,
        b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642, 1.0, 0.8249),
        **{
            colour + b"XYZ": b"XYZ " + bytes(4) + fixed(*colorant)
            for colour, colorant in zip((b"r", b"g", b"b"), colorants, strict=True)
        },
        **{colour + b"TRC": parametric for colour in (b"r", b"g", b"b")},
    }
    table, data = struct.pack(">I", len(tags)), b""
    offset = 128 + 4 + 12 * len(tags)
    for signature, content in tags.items():
        table += signature + struct.pack(">II", offset + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    head = struct.pack(">I4sI4s4s4s", offset + len(data), bytes(4), 0x04200000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + fixed(0.9642, 1.0, 0.8249)
    return head.ljust(128, b"\0") + table + data
