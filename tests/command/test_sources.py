"""Inputs of the command line become the clips that a script would have."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import time
import zlib
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import vapoursynth as vs
from PIL import Image

from vszhdrv.command import matroska, pictures, sources, timing
from vszhdrv.command.probing import Probe
from vszhdrv.errors import Failed
from vszhdrv.plugin.colour import resolve_colour


def write_png(path: Path, pixels: np.ndarray) -> None:
    """A PNG of an (H,W,3 or 4) array of 8 or 16 bits, by hand: Pillow writes no 16-bit RGB."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, {3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels.astype(pixels.dtype.newbyteorder(">")))
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


def noise(height: int, width: int, channels: int = 3, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (height, width, channels), dtype)


def pixels_of(clip: vs.VideoNode, n: int) -> np.ndarray:
    with clip.get_frame(n) as frame:
        return np.dstack([np.asarray(frame[plane]) for plane in range(3)])


def opened(source: Path, **options: object) -> tuple[sources.Opened, list[str]]:
    said: list[str] = []
    settings: dict = {"still": False, "fps": None, "index": None, "say": said.append} | options
    return sources.open_clip(source, **settings), said


def open_clip(source: Path, **options: object) -> tuple[vs.VideoNode, list[str]]:
    found, said = opened(source, **options)
    return found.clip, said


def test_names_sort_by_their_numbers() -> None:
    names = ["f10.png", "f9.png", "g1.png", "f2b3.png", "f2b20.png", "f010.png"]
    ordered = sorted((Path(name) for name in names), key=pictures.natural_order)
    assert [p.name for p in ordered] == ["f2b3.png", "f2b20.png", "f9.png", "f010.png", "f10.png", "g1.png"]


def test_folder_of_pictures_in_natural_order_with_its_rate(tmp_path: Path) -> None:
    frames = {n: noise(18, 33, seed=n) for n in (9, 10, 11)}
    for n, frame in frames.items():
        write_png(tmp_path / f"f{n}.PNG", frame)
    (tmp_path / "notes.txt").write_text("not a frame")
    clip, said = open_clip(tmp_path, fps=Fraction(24000, 1001))
    assert (clip.format.id, clip.num_frames, clip.fps) == (vs.RGB24, 3, Fraction(24000, 1001))
    for position, n in enumerate(frames):
        assert np.array_equal(pixels_of(clip, position), frames[n])
    assert not said
    assert open_clip(tmp_path)[0].fps == 24


def test_sixteen_bits_stay_sixteen_bits(tmp_path: Path) -> None:
    frame = noise(18, 20, dtype=np.uint16)
    write_png(tmp_path / "a.png", frame)
    clip, _ = open_clip(tmp_path / "a.png", still=True)
    assert clip.format.id == vs.RGB48
    assert np.array_equal(pixels_of(clip, 0), frame)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_is_dropped_with_a_word(tmp_path: Path, dtype: type) -> None:
    frame = noise(18, 20, channels=4, dtype=dtype)
    write_png(tmp_path / "a.png", frame)
    clip, said = open_clip(tmp_path / "a.png", still=True)
    assert np.array_equal(pixels_of(clip, 0), frame[..., :3])
    assert said == ["a.png has an alpha channel, which is dropped"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_grey_picture_has_the_colour_of_any_picture(tmp_path: Path, dtype: type) -> None:
    grey = noise(18, 20, channels=1, dtype=dtype)[..., 0]
    Image.fromarray(grey).save(tmp_path / "a.png")
    clip, said = open_clip(tmp_path / "a.png", still=True)
    assert clip.format.id == (vs.RGB24 if dtype is np.uint8 else vs.RGB48)
    assert np.array_equal(pixels_of(clip, 0), np.dstack([grey] * 3))
    warned: list[str] = []
    colour = resolve_colour(clip, warn=warned.append)
    assert (colour.transfer, colour.primaries, colour.range) == (13, 1, 1)
    assert resolve_colour(clip, transfer_in="709", warn=warned.append).transfer == 1
    assert said == warned == []


def test_mixed_sizes_are_one_sentence_that_names_the_frame(tmp_path: Path) -> None:
    write_png(tmp_path / "1.png", noise(18, 20))
    write_png(tmp_path / "2.png", noise(20, 20))
    with pytest.raises(vs.Error, match=r"2\.png.*20x20.*20x18"):
        open_clip(tmp_path)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda path: None, {}, "does not exist"),
        (lambda path: path.mkdir(), {}, "folder without pictures"),
        (lambda path: Image.new("RGB", (20, 20)).save(path, "png"), {}, "needs --data_type image"),
    ],
)
def test_wrong_inputs(tmp_path: Path, make, options: dict, message: str) -> None:
    source = tmp_path / "a.png"
    make(source)
    with pytest.raises(ValueError, match=message) as caught:
        open_clip(source, **options)
    assert str(source) in str(caught.value)


def test_video_has_its_own_rate(tmp_path: Path) -> None:
    source = tmp_path / "a.mp4"
    source.write_text("no video")
    with pytest.raises(ValueError, match="--fps 25 is for picture sequences"):
        open_clip(source, fps=Fraction(25))


def test_undecodable_file_gets_the_filters_own_words(tmp_path: Path) -> None:
    source = tmp_path / "a.mp4"
    source.write_text("no video")
    with pytest.raises(RuntimeError, match=r"^INPUT .*a\.mp4 has no video that can be opened: .*Source"):
        open_clip(source, index=tmp_path / "index")


def test_real_video_opens_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    source = folder / "a.y4m"
    frame = b"FRAME\n" + bytes([126]) * (32 * 16 * 3 // 2)
    source.write_bytes(b"YUV4MPEG2 W32 H16 F25:1 Ip A1:1 C420\n" + frame * 3)
    clip, _ = open_clip(source, index=tmp_path / "index")
    assert (clip.width, clip.height, clip.num_frames, clip.fps) == (32, 16, 3, 25)
    assert np.asarray(clip.get_frame(2)[0]).min() == 126
    assert list(folder.iterdir()) == [source]


def test_a_video_of_one_frame_opens(tmp_path: Path) -> None:
    """Of which BestSource returns no list of times."""
    source = tmp_path / "a.y4m"
    source.write_bytes(b"YUV4MPEG2 W32 H16 F25:1 Ip A1:1 C420\nFRAME\n" + bytes([126]) * (32 * 16 * 3 // 2))
    clip, _ = open_clip(source, still=True)
    assert (clip.num_frames, clip.fps) == (1, 25)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_alpha_of_a_video_is_dropped_with_a_word(tmp_path: Path) -> None:
    source = tmp_path / "a.mov"
    make = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "color=red@0.5:s=64x32:d=0.2,format=rgba"]
    subprocess.run([*make, "-c:v", "prores_ks", "-pix_fmt", "yuva444p10le", source], check=True)
    assert open_clip(source)[1] == ["a.mov has an alpha channel, which is dropped"]


def matroska_of(path: Path, starts: list[Fraction]) -> Path:
    """A video of black frames that are shown at these times, the last for as long as the one before."""
    stream = matroska.header(matroska.Track(32, 16, Fraction(1), 16, None, None))
    for start, end in pairwise([*starts, 2 * starts[-1] - starts[-2]]):
        stream += matroska.frame_header(start, end - start, 32 * 16 * 3) + bytes(32 * 16 * 3)
    path.write_bytes(stream)
    return path


def test_a_video_says_when_it_begins(tmp_path: Path) -> None:
    source = matroska_of(tmp_path / "a.mkv", [Fraction(6, 5) + Fraction(n, 25) for n in range(9)])
    found, said = opened(source)
    assert found.timing is not None and found.timing.start == Fraction(6, 5) and not said


@pytest.mark.parametrize(
    ("rate", "milliseconds", "found"),
    [
        (Fraction(24000, 1001), [0, 42, 83, 125, 167], Fraction(24000, 1001)),
        (Fraction(25), [3480, 3520, 3560, 3600, 3640], Fraction(25)),
        (Fraction(30), [0, 33, 67, 133, 167], 0),  # a camera left a frame out
        (Fraction(30), [0, 33, 67, 88, 133], Fraction(30)),
        (Fraction(0), [0, 33, 67, 100, 133], Fraction(30)),
    ],
)
def test_only_a_constant_rate_is_the_clips(rate: Fraction, milliseconds: list[int], found: Fraction) -> None:
    clip = vs.core.std.BlankClip(length=5, fpsnum=rate.numerator, fpsden=rate.denominator if rate else 0)
    stamps = [Fraction(time, 1000) for time in milliseconds]
    known = timing.of_timestamps(stamps, timing.Hints([rate] if rate else []), "a", print)
    timed = sources.at_rate(clip, known)
    assert (timed.num_frames, timed.fps) == (5, found)


def test_a_video_of_variable_rate_has_none(tmp_path: Path) -> None:
    """By BestSource alone it has 30 frames a second."""
    source = matroska_of(tmp_path / "a.mkv", [Fraction(n, 30) for n in range(60) if n not in (20, 40)])
    clip, _ = open_clip(source)
    assert (clip.num_frames, clip.fps) == (58, 0)


class Recorder:
    """Stands for a source filter: remembers how it was called."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict]] = []
        self.clip = vs.core.std.BlankClip()
        self.signature = "source:data;cachemode:int:opt;"

    def __call__(self, path: str, **arguments: object) -> vs.VideoNode:
        self.calls.append((path, arguments))
        return self.clip


@pytest.mark.parametrize(
    ("loaded", "used", "with_index", "without"),
    [
        (["ffms2", "bs", "lsmas"], "ffms2", "cachefile", {"cache": 0}),
        (["bs", "lsmas"], "bs", "cachepath", {"cachemode": 0}),
        (["lsmas"], "lsmas", "cachedir", {"cache": 0}),
    ],
)
def test_source_filters_by_preference_and_their_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded: list[str], used: str, with_index: str, without: dict
) -> None:
    filters = {name: Recorder() for name in loaded}
    core = SimpleNamespace(
        **{name: SimpleNamespace(Source=f, VideoSource=f, LWLibavSource=f) for name, f in filters.items()},
        add_log_handler=lambda handler: None,
        remove_log_handler=lambda handle: None,
    )
    monkeypatch.setattr(vs, "core", core)
    source, index = tmp_path / "a.mov", tmp_path / "cache" / "index"
    source.write_bytes(b"")
    open_clip(source, index=index)
    open_clip(source, index=None)
    (path, kept), (_, off) = filters[used].calls
    assert path == str(source)
    assert Path(kept[with_index]).is_relative_to(index) and index.is_dir()
    assert off == without
    assert all(not f.calls for name, f in filters.items() if name != used)
    assert list(tmp_path.glob("a.*")) == [source]


@pytest.mark.parametrize(
    ("container", "loaded", "used"),
    [
        ("mpegts", ["ffms2", "bs", "lsmas"], "bs"),
        ("mpegts", ["ffms2"], "ffms2"),
        ("mov,mp4,m4a,3gp,3g2,mj2", ["ffms2", "bs", "lsmas"], "ffms2"),
    ],
)
def test_of_recordings_ffms2_is_the_last_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, container: str, loaded: list[str], used: str
) -> None:
    monkeypatch.setattr(vs, "core", SimpleNamespace(**dict.fromkeys(loaded)))
    probe = Probe("ffprobe", tmp_path / "a.ts", [], {"format_name": container})
    assert sources.source_filter(tmp_path / "a.ts", None, probe) == used
    assert sources.source_filter(tmp_path / "a.ts", "ffms2", probe) == "ffms2"


@pytest.mark.parametrize("trouble", ["folder", "filter"])
def test_where_no_index_can_be_kept_the_video_opens_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """A read-only cache folder, and one that is full: each source filter makes an error of it."""
    source, index = tmp_path / "a.mov", tmp_path / "cache" / "index"
    source.write_bytes(b"")
    calls = []

    def full(path: str, **arguments: object) -> vs.VideoNode:
        calls.append(arguments)
        if "cachedir" in arguments:
            raise vs.Error("lsmas: no space left")
        return clip

    clip = vs.core.std.BlankClip().std.SetFrameProps(_AbsoluteTime=0.0)
    monkeypatch.setattr(vs, "core", SimpleNamespace(lsmas=SimpleNamespace(LWLibavSource=full)))
    if trouble == "folder":
        index.parent.write_text("a file where a folder should be made")
    opened, said = open_clip(source, index=index)
    assert opened is clip and calls[-1] == {"cache": 0}
    assert said == [
        f"the index of {source} can't be kept in {index} and is made each time: "
        + ("lsmas: no space left" if trouble == "filter" else f"[Errno 20] Not a directory: '{index}'")
    ]


@pytest.mark.parametrize(("rotation", "turns"), [(0, 0), (90, -1), (180, 2), (270, 1)])
def test_a_camera_held_upright(rotation: int, turns: int) -> None:
    """`Rotation` is what a viewer must turn the picture by, clockwise; numpy turns the other way."""
    halves = [vs.core.std.BlankClip(format=vs.GRAY8, width=6, height=4, length=1, color=code) for code in (20, 200)]
    stack = vs.core.std.StackVertical(
        [vs.core.std.StackHorizontal(halves), vs.core.std.StackHorizontal(halves[:1] * 2)]
    )
    clip = stack.std.SetFrameProps(Rotation=rotation, FlipVertical=0, _SARNum=4, _SARDen=3)
    with sources.upright(clip).get_frame(0) as turned, clip.get_frame(0) as lying:
        assert np.array_equal(turned[0], np.rot90(np.asarray(lying[0]), turns))
        assert turned.props["Rotation"] == 0
        assert turned.props["_SARNum"] / turned.props["_SARDen"] == (3 / 4 if turns % 2 else 4 / 3)
    upside_down, mirrored = np.s_[::-1], np.s_[:, ::-1]
    for props, flip in (({"FlipVertical": 1}, upside_down), ({"Flip": -1}, upside_down), ({"Flip": 1}, mirrored)):
        with sources.upright(clip.std.SetFrameProps(**props)).get_frame(0) as turned, clip.get_frame(0) as lying:
            assert np.array_equal(turned[0], np.rot90(np.asarray(lying[0])[flip], turns))
            assert not any(turned.props[name] for name in ("Rotation", *props))


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_turned_picture_has_its_colours_in_place(rotation: int) -> None:
    ramp = [
        vs.core.std.BlankClip(format=vs.RGB24, width=2, height=32, length=1, color=[8 * k, 0, 0]) for k in range(32)
    ]
    lying = vs.core.std.StackHorizontal(ramp).resize.Bicubic(format=vs.YUV420P8, matrix_s="709", chromaloc_s="left")
    wanted = lying.resize.Bicubic(format=vs.YUV444P8).std.SetFrameProps(Rotation=rotation)
    turned = sources.upright(lying.std.SetFrameProps(Rotation=rotation)).resize.Bicubic(format=vs.YUV444P8)
    with turned.get_frame(0) as ours, sources.upright(wanted).get_frame(0) as theirs:
        for plane in range(3):
            assert np.array_equal(ours[plane], theirs[plane])


def test_hidden_pictures_are_not_of_the_sequence(tmp_path: Path) -> None:
    for name in ("a1.png", "a2.png"):
        Image.new("RGB", (16, 16)).save(tmp_path / name)
    (tmp_path / "._a1.png").write_bytes(b"not a picture")
    assert open_clip(tmp_path)[0].num_frames == 2


def test_no_source_filter_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vs, "core", SimpleNamespace())
    source = tmp_path / "a.mov"
    source.write_bytes(b"")
    monkeypatch.setattr(sources, "installed", lambda _: False)
    with pytest.raises(ValueError, match="vapoursynth-bestsource"):
        open_clip(source)
    monkeypatch.setattr(sources, "installed", lambda _: True)  # as where there is little memory
    with pytest.raises(Failed, match="bestsource is installed, but could not be loaded"):
        open_clip(source)


def test_two_versions_of_a_file_have_two_indexes(tmp_path: Path) -> None:
    """Also of the same size, as re-rendered uncompressed videos are: by the index of the first, no frame is found."""
    source, index = tmp_path / "a.y4m", tmp_path / "index"
    for code in (50, 200):
        frame = b"FRAME\n" + bytes([code]) * (32 * 16 * 3 // 2)
        source.write_bytes(b"YUV4MPEG2 W32 H16 F25:1 Ip A1:1 C420\n" + frame * 400)
        for _ in range(2):
            clip, said = open_clip(source, index=index)
            with clip.get_frame(399) as last:
                assert np.asarray(last[0]).min() == code
            assert not said
    assert len([path for path in index.iterdir() if path.is_file()]) == 2


def test_opening_a_video_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    open_clip(Path(__file__).parents[2] / "examples" / "room.mp4", still=False, fps=None, index=None)
    assert capfd.readouterr() == ("", "")


def test_how_far_an_index_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "INDEX_SECONDS", 0.05)
    said: list[str] = []
    with sources.index_told(Path("film.mkv"), said.append):
        for share in (0, 40, 41):
            vs.core.log_message(vs.MESSAGE_TYPE_INFORMATION, f"VideoSource track #0 index progress {share}%")
            if not share:
                time.sleep(0.1)  # at once, nothing is worth telling
    vs.core.log_message(vs.MESSAGE_TYPE_INFORMATION, "VideoSource track #0 index progress 99%")
    assert said == ["film.mkv is read for its index: 40 %"]


def test_all_other_lines_are_said_after_all(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="mine"), sources.lines_taken(lambda line: line.startswith("VideoSource: ")):
        os.write(2, b"first\nVideoSource: no such thing\nsecond")
        raise ValueError("mine")
    assert capfd.readouterr().err == "first\nsecond"
