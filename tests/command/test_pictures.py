"""Pictures of the kinds that people have become the clip that their .png would be."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import vapoursynth as vs
from PIL import Image

from vszhdrv.command import pictures, sources
from vszhdrv.errors import Refused
from vszhdrv.plugin.colour import resolve_colour

ADOBE = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
"""Adobe RGB (1998)'s colorants; its gamma is 563/256."""


def opened(source: Path, *, still: bool = True) -> tuple[vs.VideoNode, list[str]]:
    said: list[str] = []
    return sources.open_clip(source, still=still, fps=None, index=None, say=said.append).clip, said


def pixels_of(clip: vs.VideoNode, n: int = 0) -> np.ndarray:
    with clip.get_frame(n) as frame:
        return np.dstack([np.asarray(frame[plane]) for plane in range(3)])


def smooth(width: int = 48, height: int = 32) -> np.ndarray:
    """A picture that lossy codecs keep well: (height, width, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width]
    return np.dstack([40 + 3 * x, 60 + 4 * y, 230 - 3 * x]).clip(0, 255).astype(np.uint8)


def codes(clip: vs.VideoNode) -> tuple[int, int]:
    """What a clip's colour is taken as: its transfer function and primaries."""
    colour = resolve_colour(clip, warn=lambda _: None)
    return colour.transfer, colour.primaries


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.webp", {"quality": 100}),
        ("a.webp", {"lossless": True}),
        ("a.avif", {"quality": 100}),
        ("a.tif", {}),
        ("a.bmp", {}),
        ("a.jpg", {"quality": 100, "subsampling": 0}),
        ("a.jfif", {"quality": 100, "subsampling": 0}),
        ("a.tga", {}),
        ("a.jp2", {}),
    ],
)
@pytest.mark.parametrize("size", [(48, 32), (47, 31)])
def test_pictures_of_every_kind_have_the_colours_of_their_png(
    tmp_path: Path, name: str, options: dict, size: tuple[int, int]
) -> None:
    """Odd sizes with half-sized chroma, too, at which a reader ends the process."""
    picture = smooth(*size)
    form = {"format": "JPEG"} if name.endswith("jfif") else {}
    Image.fromarray(picture).save(tmp_path / name, **options, **form)
    clip, said = opened(tmp_path / name)
    assert (clip.format.id, codes(clip), said) == (vs.RGB24, (13, 1), [])
    assert np.abs(pixels_of(clip).astype(int) - picture).mean() < 3


def test_a_phones_picture_with_a_profile_is_display_p3(tmp_path: Path) -> None:
    """Pixels stay as they are; what they mean is said."""
    profile = pictures.matrix_profile(pictures.COLORANTS[12])
    Image.fromarray(smooth()).save(tmp_path / "a.png", icc_profile=profile)
    clip, said = opened(tmp_path / "a.png")
    assert np.array_equal(pixels_of(clip), smooth())
    assert (codes(clip), said) == ((13, 12), [])


def test_a_profile_of_another_curve_is_converted(tmp_path: Path) -> None:
    """Against the profile's formula."""
    profile = pictures.matrix_profile(ADOBE, (563 / 256,))
    Image.fromarray(smooth()).save(tmp_path / "a.png", icc_profile=profile)
    clip, said = opened(tmp_path / "a.png")
    assert said == ["a.png has the colour profile 'zhdrv': it is converted to Display P3"]
    assert codes(clip) == (13, 12)
    xyz = (smooth() / 255) ** (563 / 256) @ np.array(ADOBE)
    linear = (xyz @ np.linalg.inv(np.array(pictures.COLORANTS[12]))).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(pixels_of(clip) - 255 * encoded).max() < 2.5


def test_deep_pictures_that_would_have_to_be_converted_are_refused(tmp_path: Path) -> None:
    write_deep(tmp_path / "a.png", smooth().astype(np.uint16) * 257, pictures.matrix_profile(ADOBE, (563 / 256,)))
    with pytest.raises(Refused, match=r"a\.png has the colour profile 'zhdrv'.*convert it to sRGB or Display P3 first"):
        opened(tmp_path / "a.png")
    write_deep(tmp_path / "b.png", smooth().astype(np.uint16) * 257, pictures.matrix_profile(pictures.COLORANTS[12]))
    clip, _ = opened(tmp_path / "b.png")
    assert (clip.format.id, codes(clip)) == (vs.RGB48, (13, 12))


def write_deep(path: Path, pixels: np.ndarray, profile: bytes) -> None:
    """A 16-bit RGB .png with a profile, by hand: Pillow writes none."""
    import zlib

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels.astype(">u2"))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        (b"iCCP", b"p\0\0" + zlib.compress(profile)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    packed = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


def test_a_damaged_profile_and_inks_are_refused(tmp_path: Path) -> None:
    Image.fromarray(smooth()).save(tmp_path / "a.png", icc_profile=b"nothing" * 30)
    with pytest.raises(Refused, match=r"a\.png has a damaged colour profile"):
        opened(tmp_path / "a.png")


def test_a_folder_of_grey_colour_and_depth_is_one_clip(tmp_path: Path) -> None:
    picture = smooth()
    Image.fromarray(picture).save(tmp_path / "f1.png")
    Image.fromarray(picture[..., 0]).save(tmp_path / "f2.png")
    Image.fromarray(picture[..., 0].astype(np.uint16) * 257).save(tmp_path / "f3.png")
    Image.fromarray(picture).save(tmp_path / "f4.webp", lossless=True)
    clip, said = opened(tmp_path, still=False)
    assert (clip.format.id, clip.num_frames, clip.fps) == (vs.RGB48, 4, 24)
    grey = np.dstack([picture[..., 0]] * 3)
    for n, wanted in enumerate((picture, grey, grey, picture)):
        assert np.array_equal(pixels_of(clip, n), wanted.astype(np.uint16) * 257), n
    assert said == [f"{tmp_path}: all of its pictures are taken as frames, 3 .png, 1 .webp"]
    assert codes(clip) == (13, 1)


def test_gaps_in_the_numbers_are_told(tmp_path: Path) -> None:
    for n in (1, 2, 4, 8):
        Image.fromarray(smooth()).save(tmp_path / f"f{n:03d}.jpg")
    _, said = opened(tmp_path, still=False)
    assert said == [f"{tmp_path}: 4 numbers are missing in its pictures' names (3, 5 to 7); the clip goes on without"]


def test_a_frame_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    for name in ("f1.png", "f1.jpg", "f2.png"):
        Image.fromarray(smooth()).save(tmp_path / name)
    with pytest.raises(Refused, match=r"must have each frame once, and it has f1\.jpg and f1\.png"):
        opened(tmp_path, still=False)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.exr", "must be SDR, and .exr is OpenEXR"),
        ("a.hdr", "must be SDR, and .hdr is Radiance HDR"),
        ("a.dpx", "must be SDR, and .dpx is DPX, a film scan"),
        ("a.cr3", "save .cr3 pictures as .png or .tiff first"),
    ],
)
def test_pictures_that_are_no_sdr_are_refused(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / name).write_bytes(b"")
    for source in (tmp_path / name, tmp_path):
        with pytest.raises(Refused) as caught:
            opened(source)
        assert words in str(caught.value)


@pytest.mark.parametrize("kind", ["webp", "png"])
def test_an_animation_is_a_clip(tmp_path: Path, kind: str) -> None:
    frames = [Image.fromarray(np.roll(smooth(), 5 * n, 1)) for n in range(6)]
    frames[0].save(tmp_path / f"a.{kind}", save_all=True, append_images=frames[1:], duration=250)
    clip, said = opened(tmp_path / f"a.{kind}", still=False)
    assert clip.fps == 24 and clip.num_frames == pytest.approx(36, abs=1)
    assert said == [f"a.{kind} is an animation: {clip.num_frames} frames at 24 a second (--fps)"]


def test_nothing_tells_that_a_sequence_is_progressive(tmp_path: Path) -> None:
    """So that it is looked at before it counts as progressive."""
    for n in range(3):
        Image.fromarray(smooth()).save(tmp_path / f"f{n}.png")
    clip = sources.open_clip(tmp_path, still=False, fps=Fraction(25), index=None, say=print).clip
    with clip.get_frame(0) as frame:
        assert "_FieldBased" not in frame.props
