"""Pictures to share: each is read by another program than wrote it, says what it is, and holds the expansion."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vszhdrv import Refused, exr, stills
from vszhdrv.light import conversion

pytest.importorskip("imagecodecs", reason="needs imagecodecs")

HEIGHT, WIDTH = 96, 160
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")


@pytest.fixture(scope="module")
def still() -> stills.Still:
    """A gradient with a lamp of 6 times white and its clipped source, as 8 bits hold it."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    scene = np.stack([x / WIDTH, y / HEIGHT, 0.5 + 0.3 * np.sin(x / 9)], -1) ** 2.2
    lamp = np.exp(-((x - 100) ** 2 + (y - 50) ** 2) / 900)
    hdr = np.maximum(scene, lamp[..., None] * np.float32([6, 4.8, 3]))
    sdr = linear(stills.srgb(hdr) / 255)
    return stills.Still(sdr, np.where(sdr == 1, hdr, sdr).astype(np.float32))


def linear(srgb: Any) -> np.ndarray:
    """IEC 61966-2-1 to linear light."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)


def from_pq(signal: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084's EOTF: nits."""
    x = signal ** (1 / 78.84375)
    return 10_000 * (np.maximum(x - 0.8359375, 0) / (18.8515625 - 18.6875 * x)) ** (1 / 0.1593017578125)


def stops_off(found: np.ndarray, expected: np.ndarray, *, bright: bool) -> np.ndarray:
    """By how many stops pixels differ: those above white, or the others that are no deep shadows."""
    chosen = (expected > 1).any(-1) if bright else (expected.max(-1) <= 1) & (expected.min(-1) > 0.05)
    return np.abs(np.log2(np.maximum(found, 1e-3) / np.maximum(expected, 1e-3)))[chosen]


def decoded(path: Path) -> np.ndarray:
    """What ffmpeg makes of a file of PQ in BT.2020: linear light of BT.709, 1.0 = white."""
    command = ["ffmpeg", "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb48le", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    signal = np.frombuffer(raw, np.uint16).reshape(HEIGHT, WIDTH, 3) / 65535
    return from_pq(signal) / 203 @ conversion(9, 1).T


@needs_ffmpeg
@pytest.mark.parametrize(
    ("ending", "mean", "form"),
    [(".png", 0.001, "rgb48be"), (".jxl", 0.03, "rgb48le"), (".avif", 0.03, "yuv444p10le")],
)
def test_ffmpeg_reads_the_expansion_back(
    tmp_path: Path, still: stills.Still, ending: str, mean: float, form: str
) -> None:
    path = tmp_path / f"still{ending}"
    stills.write(path, still)
    probe = ["ffprobe", "-v", "error", "-of", "json", "-show_streams", path]
    (stream,) = json.loads(subprocess.run(probe, capture_output=True, check=True).stdout)["streams"]
    if not stream.get("pix_fmt"):
        pytest.skip(f"this ffmpeg reads no {ending}")
    assert stream["pix_fmt"] == form and stream["color_range"] == "pc"
    if ending != ".png":  # of which older ffmpegs do not read the tags: the next test does
        assert (stream["color_transfer"], stream["color_primaries"]) == ("smpte2084", "bt2020")
    found = decoded(path)
    for bright in (True, False):
        assert stops_off(found, still.hdr, bright=bright).mean() < mean
    assert found.max() == pytest.approx(6, rel=0.02)


def test_a_png_says_pq_in_bt2020_before_its_pixels(still: stills.Still) -> None:
    content = stills.encoded(still, ".png")
    chunks, at = [], 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    names = [name for name, _ in chunks]
    assert dict(chunks)[b"cICP"] == bytes([9, 16, 0, 1])  # BT.2020, PQ, RGB, full range
    assert names.index(b"cICP") < names.index(b"IDAT")
    assert dict(chunks)[b"IHDR"][8:10] == bytes([16, 2])  # bits, RGB


def gain_mapped(path: Path, metadata: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """An Ultra HDR JPEG read without its library: the base image in linear light, and that with all of its gains.

    ISO 21496-1: (base + offset) * 2^(gain's logarithm) - offset, in linear light.
    """
    with Image.open(path) as picture:
        base = linear(np.asarray(picture.convert("RGB")) / 255)
        picture.seek(1)
        gains = np.asarray(picture.convert("RGB")) / 255
    low, high = (np.log2(metadata[f"{end}_content_boost"]) for end in ("min", "max"))
    stops = low + (high - low) * gains ** (1 / np.array(metadata["gamma"]))
    return base, (base + metadata["offset_sdr"]) * 2**stops - metadata["offset_hdr"]


def all_of_it(content: bytes) -> np.ndarray:
    """The same as libultrahdr shows it where the display has room for everything."""
    import imagecodecs

    return imagecodecs.ultrahdr_decode(content, dtype="float16", boost=100.0)[..., :3].astype(np.float32)


def test_an_ultra_hdr_jpeg_is_the_source_with_a_map_of_gains(tmp_path: Path, still: stills.Still) -> None:
    import imagecodecs

    path = tmp_path / "still.jpg"
    stills.write(path, still)
    content = path.read_bytes()
    assert b"urn:iso:std:iso:ts:21496:-1" in content
    metadata = imagecodecs.ultrahdr_decode_jpeg(content)[2]
    base, hdr = gain_mapped(path, metadata)
    assert base.shape == still.sdr.shape
    assert np.abs(base ** (1 / 2.2) - still.sdr ** (1 / 2.2)).mean() < 0.004  # a code of 255
    assert stops_off(hdr, still.hdr, bright=True).mean() < 0.02
    assert stops_off(hdr, still.hdr, bright=False).mean() < 0.04
    assert hdr.max() == pytest.approx(6, rel=0.01)
    # a display with this headroom shows all of it: with more, highlights would be dimmed on most
    assert metadata["hdr_capacity_max"] == pytest.approx(6, rel=0.01)
    assert min(metadata["min_content_boost"]) == 1


def test_an_ultra_hdr_jpeg_without_highlights_is_the_source(still: stills.Still) -> None:
    found = all_of_it(stills.encoded(stills.Still(still.sdr, still.sdr), ".jpg"))
    assert stops_off(found, still.sdr, bright=False).mean() < 0.05


def test_wide_sources_keep_their_colours_in_display_p3(tmp_path: Path, still: stills.Still) -> None:
    """A green that BT.709 can not have."""
    green = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    green[:, :, 1] = 0.5
    wide = green @ conversion(12, 9).T.astype(np.float32)
    stills.write(tmp_path / "still.jpg", stills.Still(wide, 4 * wide, primaries=9))
    found = all_of_it((tmp_path / "still.jpg").read_bytes())
    assert np.abs(found.mean((0, 1)) - [0, 2, 0]).max() < 0.03
    with Image.open(tmp_path / "still.jpg") as picture:
        assert b"P3" in picture.info["icc_profile"].replace(b"\0", b"")


def test_an_exr_holds_the_expansion_and_says_its_primaries(tmp_path: Path, still: stills.Still) -> None:
    import OpenEXR

    path = tmp_path / "still.exr"
    path.write_bytes(b"what was there")
    stills.write(path, stills.Still(still.sdr, still.hdr, primaries=9, white=100))
    assert np.array_equal(exr.read(path), still.hdr.astype(np.float16).astype(np.float32))
    with OpenEXR.File(str(path)) as file:
        assert file.header()["whiteLuminance"] == 100
        assert file.header()["colorInteropID"] == "lin_rec2020_scene"


@pytest.mark.parametrize("name", ["still.gif", "still", "still.jpg.txt"])
def test_other_endings_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused, match=r"OUT must end in \.jpg or .* or \.exr, not 'still"):
        stills.check_path("OUT", tmp_path / name)


def test_without_imagecodecs_the_message_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stills, "find_spec", lambda name: None)
    with pytest.raises(Refused, match=r"needs imagecodecs, which writes \.jpg: uv pip install imagecodecs$"):
        stills.check_path("OUT", tmp_path / "still.jpg")
    stills.check_path("OUT", tmp_path / "still.exr")


def test_pq_is_the_standards() -> None:
    """SMPTE ST 2084 and Report ITU-R BT.2408: 203 nits are 58 %, 1000 are 75 %, the ends are the ends."""
    assert stills.pq(np.array([-1.0, 203, 1000, 10_000, 20_000])) == pytest.approx([0, 0.581, 0.752, 1, 1], abs=1e-3)
