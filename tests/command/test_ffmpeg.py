"""Linear light to HDR10's and HLG's signal against the standards' formulas, time, and what ffmpeg may do wrong."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import vapoursynth as vs
from hypothesis import given
from hypothesis import strategies as st

from vszhdrv import files, light
from vszhdrv.command import cli, delivery, ffmpeg, matroska, timing
from vszhdrv.errors import Refused
from vszhdrv.plugin.expanding import with_look

BT2020_LUMA = (0.2627, 0.6780, 0.0593)  # ITU-R BT.2020-2, table 4


def pq(nits: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084, equation 5.1 inverted."""
    y = (np.asarray(nits) / 10_000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)


def hlg(nits: np.ndarray) -> np.ndarray:
    """ITU-R BT.2100-2, table 5, for a display of 1000 nits: R, G, B display light in BT.2020 to the signal."""
    display = np.asarray(nits) / 1000
    scene = display * np.dot(BT2020_LUMA, display) ** (-0.2 / 1.2)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)


def codes_of(rgb: np.ndarray) -> np.ndarray:
    """R'G'B' in BT.2020 to limited-range 10-bit Y'CbCr, BT.2020-2, tables 4 and 5."""
    luma = np.dot(BT2020_LUMA, rgb)
    blue, red = (rgb[2] - luma) / 1.8814, (rgb[0] - luma) / 1.4746
    return np.array([876 * luma + 64, 896 * blue + 512, 896 * red + 512])


def flat(colour: tuple[float, float, float], width: int = 16, height: int = 16, primaries: int = 1) -> vs.VideoNode:
    clip = vs.core.std.BlankClip(format=vs.RGBS, width=width, height=height, length=2, color=list(colour))
    return clip.std.SetFrameProps(_Matrix=0, _Transfer=8, _Primaries=primaries, _Range=1)


def picture(pixels: np.ndarray) -> vs.VideoNode:
    """A clip of this (3,H,W) picture in linear light."""
    base = flat((0, 0, 0), pixels.shape[2], pixels.shape[1])

    def fill(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        frame = f.copy()
        for plane in range(3):
            np.asarray(frame[plane])[:] = pixels[plane]
        return frame

    return base.std.ModifyFrame(base, fill)


@pytest.mark.parametrize("white", [100.0, 203.0])
@pytest.mark.parametrize("primaries", [1, 9, 12])
@pytest.mark.parametrize("colour", [(1, 1, 1), (0.18, 0.18, 0.18), (4.9, 4.9, 4.9), (1, 0.2, 0.05), (0.05, 0.1, 3)])
@pytest.mark.parametrize("curve", [pq, hlg])
def test_signal(curve: Callable[..., np.ndarray], colour: tuple, primaries: int, white: float) -> None:
    look = delivery.Delivery(light.Look(peak=0 if curve is pq else 1000, white=white), hlg=curve is hlg)
    signal = delivery.signal(flat(colour, primaries=primaries), look)
    expected = codes_of(curve(np.clip(light.to_bt2020(primaries) @ colour, 0, None) * white))
    with signal.get_frame(0) as frame:
        assert (frame.format.id, frame.props["_Matrix"], frame.props["_Primaries"]) == (vs.YUV420P10, 9, 9)
        assert (frame.props["_Transfer"], frame.props["_Range"]) == (18 if curve is hlg else 16, 0)
        found = [np.asarray(frame[plane]).mean() for plane in range(3)]
    assert found == pytest.approx(expected, abs=0.7)


@pytest.mark.parametrize("colour", [(32, 8, 8), (60, 60, 60), (60, 1, 1)])
def test_what_exceeds_pq_is_clipped_as_rgb(colour: tuple) -> None:
    signal = delivery.signal(flat(colour), delivery.Delivery(light.Look(peak=0, white=1000)))
    expected = codes_of(pq(np.clip(light.to_bt2020(1) @ colour * 1000, 0, 10_000)))
    with signal.get_frame(0) as frame:
        assert [np.asarray(frame[plane]).mean() for plane in range(3)] == pytest.approx(expected, abs=0.7)


def test_reference_white() -> None:
    """Report ITU-R BT.2408: 203 nits are 58 % of PQ and 75 % of HLG."""
    assert pq(np.array(203)) == pytest.approx(0.58, abs=0.002)
    assert hlg(np.full(3, 203)) == pytest.approx(0.75, abs=0.001)


@pytest.mark.parametrize("hlg_too", [False, True])
def test_odd_sizes_repeat_their_edge(hlg_too: bool) -> None:
    pixels = np.random.default_rng(1).random((3, 17, 19), np.float32)
    look = delivery.Delivery(light.Look(peak=1000, white=203), hlg_too)
    odd = delivery.signal(picture(pixels), look)
    padded = delivery.signal(picture(np.pad(pixels, ((0, 0), (0, 1), (0, 1)), mode="edge")), look)
    with odd.get_frame(0) as one:
        first = delivery.planes(one)
    with padded.get_frame(0) as other:
        second = delivery.planes(other)
    assert all(np.array_equal(*pair) for pair in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: light.Look(1, 100), "peak must be 0 or over white (203 nits) and at most 10000 nits, not 100"),
        (lambda: light.Look(1, 20_000), "at most 10000 nits, not 20000"),
        (
            lambda: delivery.Delivery(light.Look(1, 2000), True),
            "peak must be over white (203 nits) and at most 1000 nits for HLG, not 2000",
        ),
        (lambda: delivery.Delivery(light.Look(), True), "for HLG, not 0"),
        (lambda: delivery.Delivery(light.Look(), crf=52), "crf must be from 0 to 51, not 52"),
    ],
)
def test_looks_that_make_no_sense(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(Refused) as caught:
        make()
    assert words in str(caught.value)


# Light


def lit(clip: vs.VideoNode, nits: list[float]) -> vs.VideoNode:
    """The clip with each frame's light as `graded` would have it."""

    def write(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        frame = f.copy()
        frame.props.update({"PLSceneMax": [nits[n], 2.0, 3.0], "PLSceneAvg": nits[n] / 2, light.LIT: [0, 0, 16, 16]})
        return frame

    return clip.std.ModifyFrame(clip, write)


def test_measure_only_what_is_missing_and_hold_no_more_than_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = delivery.signal(
        lit(flat((1, 1, 1)) * 2, [300.0, 500.0, 400.0, 200.0]), delivery.Delivery(light.Look(peak=1000, white=203))
    )
    levels = light.ClipLight(4, 16, 16)
    levels.add(1, light.FrameLight(700, 80, (700, 1, 1), (0, 0, 16, 16)))
    monkeypatch.setattr(delivery, "HELD_BYTES", 2 * (16 * 16 * 3 // 2) * 2)
    held: dict = {}
    assert list(delivery.measure(clip, levels, held)) == [(1, 3), (2, 3), (3, 3)]
    assert not levels.missing
    assert (levels.max_cll, levels.max_fall) == (700, 200)
    assert sorted(held) == [0, 2]
    assert [plane.shape for plane in held[0]] == [(16, 16), (8, 8), (8, 8)]


def test_light_is_measured_below_the_peak_where_frames_are_made() -> None:
    """The expansion is played by a stand-in that makes everything eight times as bright."""

    def brighten(planes: list) -> None:
        for plane in planes:
            plane *= 8

    expander = SimpleNamespace(brighten=brighten)
    pixels = np.full((3, 4, 6), 0.5, np.float32)

    def made(look: light.Look, *, levels: bool = False) -> Any:
        return with_look(look, 1, levels=levels, lit=True)(expander, list(pixels.copy()))  # type: ignore[arg-type]

    frame, props = made(light.Look(1, 1000), levels=True)
    assert frame == pytest.approx(light.shoulder(8 * pixels, 1000))
    assert np.array_equal(frame, made(light.Look(1, 1000)))
    assert props["PLSceneMax"] == pytest.approx([frame.max() * 203] * 3, rel=1e-5)
    assert props[light.LIT] == [0, 0, 6, 4]
    assert made(light.Look(0.5)) == pytest.approx(pixels * 8**0.5)


def test_light_is_kept_under_all_that_decides_it() -> None:
    def job(n_exp_down: int = 2, loss: str = "1", traces: str = "") -> SimpleNamespace:
        trained = SimpleNamespace(metadata={"key": "a", "loss": loss})
        config = SimpleNamespace(n_exp_down=n_exp_down, n_exp_up=2)
        request = SimpleNamespace(config=config, computing=SimpleNamespace(traces=traces))
        return SimpleNamespace(trained=trained, request=request)

    looks = [light.Look(1, 1000), light.Look(1, 900), light.Look(1, 1000, 100), light.Look(0.5, 1000)]
    others = (job(3), job(loss="2"), job(traces="tile_pad"))
    keys = [delivery.light_key(job(), look, "a") for look in looks]  # type: ignore[arg-type]
    keys += [delivery.light_key(other, looks[0], "a") for other in others]  # type: ignore[arg-type]
    keys.append(delivery.light_key(job(), looks[0], "b"))  # type: ignore[arg-type]
    assert len(set(keys)) == len(keys)


# Time


def timing_of(clip: vs.VideoNode, take: Callable[[np.ndarray], None] | None = None) -> timing.Timing:
    reading = ffmpeg.timing_of_frames(clip, take)
    try:
        while True:
            next(reading)
    except StopIteration as end:
        return end.value


def test_without_timestamps_durations_come_from_the_frames() -> None:
    wanted = [Fraction(1, 25), Fraction(3, 50), Fraction(1, 30)]

    def write(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        frame = f.copy()
        if n < 3:
            frame.props.update({"_DurationNum": wanted[n].numerator, "_DurationDen": wanted[n].denominator})
        else:  # as BestSource leaves its last frame
            del frame.props["_DurationNum"], frame.props["_DurationDen"]
        return frame

    clip = flat((0, 0, 0)) * 2
    planes: list[np.ndarray] = []
    found = timing_of(clip.std.ModifyFrame(clip, write), planes.append)
    assert found.durations == [*wanted, wanted[-1]] and found.start is None
    assert [plane.shape for plane in planes] == [(16, 16)] * 4 * 3
    assert found.starts == [0, Fraction(1, 25), Fraction(1, 10), Fraction(2, 15)]
    assert (found.constant, found.unit(Fraction(0))) == (None, Fraction(1, 150))
    still = timing.Timing([Fraction(1001, 24000)] * 3)
    assert (still.constant, still.unit(Fraction(0))) == (Fraction(1001, 24000), Fraction(1001, 24000))
    assert still.unit(Fraction(421, 1000)) == Fraction(1, 24000)


def test_frames_own_times_win_over_their_durations() -> None:
    """As FFMS2 and L-SMASH Works write them."""
    times = [5.0, 5.04, 5.14, 5.2]

    def write(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        frame = f.copy()
        frame.props.update({"_AbsoluteTime": times[n], "_DurationNum": 1, "_DurationDen": 25})
        return frame

    clip = flat((0, 0, 0)) * 2
    found = timing_of(clip.std.ModifyFrame(clip, write))
    assert found.start == 5
    assert found.durations == [Fraction(1, 25), Fraction(1, 10), Fraction(3, 50), Fraction(1, 25)]


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60), Fraction(25)])
def test_times_in_whole_milliseconds_are_of_the_constant_rate(rate: Fraction) -> None:
    starts = [Fraction(round(1000 * n / rate), 1000) for n in range(101)]
    rounded = [after - before for before, after in pairwise(starts)]
    constant = timing.Timing.of(rounded, rate)
    assert (constant.constant, constant.rate) == (1 / rate, rate)
    late = [*rounded[:50], rounded[50] + Fraction(1, 100), *rounded[51:]]
    varying = timing.Timing.of(late, rate)
    assert (varying.durations, varying.constant) == (late, None)
    assert varying.rate == pytest.approx(rate, rel=0.01) and varying.rate.denominator <= 1001
    assert timing.Timing.of(late, Fraction(0)).durations == late


@given(
    st.lists(st.fractions(Fraction(1, 1000), 2, max_denominator=90_000), min_size=1, max_size=9),
    st.fractions(0, 9, max_denominator=90_000),
)
def test_every_timestamp_is_a_whole_number_of_units(durations: list[Fraction], delay: Fraction) -> None:
    times = timing.Timing(durations)
    unit = times.unit(delay)
    if unit != Fraction(1, 1_000_000):
        assert all(((delay + start) / unit).denominator == 1 for start in times.starts)
    assert unit.denominator < 2**31 and unit.numerator < 2**31


# The stream


def elements(content: bytes) -> list[tuple[int, bytes]]:
    """EBML by RFC 8794, read by other means than it was written: identifiers and contents, one level."""
    found = []
    while content:
        width = 9 - content[0].bit_length()
        identifier, content = int.from_bytes(content[:width], "big"), content[width:]
        width = 9 - content[0].bit_length()
        size = int.from_bytes(content[:width], "big") & ((1 << 7 * width) - 1)
        if size == (1 << 7 * width) - 1:
            size = len(content) - width  # unknown: to the end
        found.append((identifier, content[width : width + size]))
        content = content[width + size :]
    return found


def test_the_stream_says_it_all() -> None:
    mastering = matroska.Mastering((0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.3127, 0.329), 1000.0, 0.0001, 812, 93)
    track = matroska.Track(720, 576, Fraction(16, 15), 16, Fraction(1, 25), mastering)
    data = b"x" * 100
    stream = matroska.header(track) + matroska.frame_header(Fraction(2, 25), Fraction(1, 25), 100) + data
    (_, start), (segment, body) = elements(stream)
    assert segment == 0x18538067 and dict(elements(start))[0x4282] == b"matroska"
    parts = dict(elements(body))
    entry = dict(elements(dict(elements(parts[0x1654AE6B]))[0xAE]))
    shown = dict(elements(entry[0xE0]))
    as_number = {identifier: int.from_bytes(content, "big") for identifier, content in shown.items()}
    assert (as_number[0xB0], as_number[0xBA]) == (720, 576)
    assert Fraction(as_number[0x54B0], as_number[0x54BA]) == Fraction(16, 15) * Fraction(720, 576)
    assert int.from_bytes(entry[0x23E383], "big") == 40_000_000
    colour = dict(elements(shown[0x55B0]))
    assert [int.from_bytes(colour[i], "big") for i in (0x55B1, 0x55BA, 0x55BB, 0x55BC, 0x55BD)] == [9, 16, 9, 812, 93]
    cluster = dict(elements(parts[0x1F43B675]))
    assert int.from_bytes(cluster[0xE7], "big") == 80_000_000
    group = dict(elements(cluster[0xA0]))
    assert int.from_bytes(group[0x9B], "big") == 40_000_000 and group[0xA1] == b"\x81\0\0\0" + data


# ffmpeg


CONTENT = ffmpeg.Content(timing.Timing([Fraction(1, 24)] * 2), None, 1)


def program(folder: Path, name: str, code: str) -> None:
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport sys\n{code}\n")
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts stand-ins for ffmpeg, with this code, and ffprobe in place of what the system has."""

    def install(code: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir()
        program(folder, "ffmpeg", f"if '-h' in sys.argv: print('-fps_mode yuv420p10le'); sys.exit()\n{code}")
        program(folder, "ffprobe", "print('{}')")
        monkeypatch.setenv("PATH", str(folder))
        return folder

    return install


def encode(target: Path) -> list[int]:
    look = delivery.Delivery(light.Look(peak=1000, white=203), hlg=True)
    clip = delivery.signal(flat((1, 1, 1)), look)
    return list(ffmpeg.write(clip, {}, look, CONTENT, None, target))


def test_the_target_appears_when_it_is_whole(tmp_path: Path, programs: Callable[[str], Path]) -> None:
    programs("data = sys.stdin.buffer.read(); open(sys.argv[-1], 'wb').write(data)")
    target = tmp_path / "o.mkv"
    target.write_text("before")
    assert encode(target) == [1, 2]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["o.mkv"]
    _, (_, body) = elements(target.read_bytes())
    blocks = [dict(elements(dict(elements(content))[0xA0])) for name, content in elements(body) if name == 0x1F43B675]
    assert [len(block[0xA1]) for block in blocks] == [4 + 16 * 16 * 3 // 2 * 2] * 2


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
@pytest.mark.parametrize("durations", [[24, 24, 24, 24], [20, 30, 40, 50]])
def test_large_frames_have_the_level_of_their_rate(tmp_path: Path, durations: list[int]) -> None:
    """Left to guess, ffmpeg tells the encoder of 1000 million frames a second."""
    look = delivery.Delivery(light.Look(peak=1000, white=203), hlg=True)
    grey = vs.core.std.BlankClip(format=vs.RGBS, width=1280, height=720, length=4)
    grey = grey.std.SetFrameProps(_Matrix=0, _Transfer=8, _Primaries=1)
    content = ffmpeg.Content(timing.Timing([Fraction(1, each) for each in durations]), None, 1)
    for _ in ffmpeg.write(delivery.signal(grey, look), {}, look, content, None, tmp_path / "o.mkv"):
        pass
    command = ["ffprobe", "-v", "error", "-of", "csv=p=0", "-show_entries", "stream=level", tmp_path / "o.mkv"]
    assert int(subprocess.run(command, capture_output=True, check=True).stdout) <= 93  # 3.1: 720p at up to 33 a second


def test_what_killed_encoders_left_is_removed_when_it_is_old(tmp_path: Path, programs: Callable[[str], Path]) -> None:
    programs("data = sys.stdin.buffer.read(); open(sys.argv[-1], 'wb').write(data)")
    old, new = (tmp_path / f".{name}.mkv.0123abcd{files.PART}" for name in ("old", "new"))
    for part in (old, new):
        part.touch()
    os.utime(old, (0, 0))
    assert encode(tmp_path / "o.mkv") == [1, 2]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [new.name, "o.mkv"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("sys.stdin.buffer.read(); sys.exit('a\\nb\\nc\\n\\nNo space left')", "ffmpeg failed: b; c; No space left"),
        ("sys.exit('Unknown encoder')", "ffmpeg failed: Unknown encoder"),
        ("import os; os.close(0); sys.exit(0)", "ffmpeg failed: it says nothing"),
        ("sys.stdin.buffer.read(); import os; os.kill(os.getpid(), 9)", "ffmpeg failed: it says nothing"),
        # as 5.1 ends on a full disk
        (
            "sys.stdin.buffer.read(); print('Error writing trailer of o: No space left', file=sys.stderr)",
            "ffmpeg failed: Error writing trailer of o: No space left",
        ),
    ],
)
def test_ffmpeg_fails(tmp_path: Path, programs: Callable[[str], Path], code: str, words: str) -> None:
    programs(f"open(sys.argv[-1], 'w').write('half')\n{code}")
    target = tmp_path / "o.mp4"
    target.write_text("before")
    with pytest.raises(RuntimeError) as caught:
        look = delivery.Delivery(light.Look(peak=1000, white=203), hlg=True)
        clip = delivery.signal(flat((1, 1, 1), 512, 512), look)  # more than a pipe holds
        list(ffmpeg.write(clip, {}, look, CONTENT, None, target))
    assert str(caught.value) == words
    assert target.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["o.mp4"]


def test_ffmpeg_that_has_ended_says_why_on_windows_too(
    tmp_path: Path, programs: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    programs("sys.exit('Unknown encoder')")

    def refuse(_: matroska.Track) -> bytes:
        raise OSError(errno.EINVAL, "Invalid argument")  # as writing to a program that has ended, there

    monkeypatch.setattr(ffmpeg.matroska, "header", refuse)
    with pytest.raises(RuntimeError, match=r"^ffmpeg failed: Unknown encoder$"):
        encode(tmp_path / "o.mkv")


def test_a_source_that_fails_ends_ffmpeg(tmp_path: Path, programs: Callable[[str], Path]) -> None:
    programs("open(sys.argv[-1], 'w').write('half'); sys.stdin.buffer.read(); import time; time.sleep(60)")
    look = delivery.Delivery(light.Look(peak=1000, white=203), hlg=True)

    def fail(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        raise OSError("frame is torn")

    base = delivery.signal(flat((1, 1, 1)), look)
    with pytest.raises(vs.Error, match="frame is torn"):
        list(ffmpeg.write(base.std.ModifyFrame(base, fail), {}, look, CONTENT, None, tmp_path / "o.mkv"))
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "--out needs the programs ffmpeg and ffprobe on PATH: install ffmpeg"),
        ("-vsync yuv420p10le", "--out needs ffmpeg 5.1 or newer"),
        ("-fps_mode yuv420p", "--out needs ffmpeg with 10-bit libx265"),
    ],
)
def test_ffmpeg_is_missing_or_lacks_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str | None, words: str
) -> None:
    """Told before the input is opened: this one could not be."""
    monkeypatch.setenv("PATH", str(tmp_path))
    if answer is not None:
        program(tmp_path, "ffmpeg", f"print({answer!r})")
        program(tmp_path, "ffprobe", "")
    (tmp_path / "in.mp4").write_text("no video")
    assert cli.main([str(tmp_path / "in.mp4"), "--out", str(tmp_path / "o.mkv")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"zhdrv: {words}")


# Arguments


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "o.avi"], "--out must end in .mkv or .mp4, not 'o.avi'"),
        (
            ["--out", "nowhere/o.mkv"],
            "--out must name a file in a folder that exists and can be written, not 'nowhere/o.mkv'",
        ),
        (["--out", "there.mkv"], "there.mkv exists already: --overwrite replaces it"),
        (["--out", "folder.mkv", "--overwrite"], "in a folder that exists and can be written, not 'folder.mkv'"),
        (["--out", "in.mkv", "--overwrite"], "is the input itself"),
        (["--out", "o.mkv", "--train_only"], "leave one of them out"),
        (["--out", "o.mkv", "--peak", "150"], "over white (203 nits)"),
        (["--out", "o.mkv", "--hlg", "--peak", "4000"], "at most 1000 nits for HLG"),
        (["--out", "o.mkv", "--epochs", "0"], "epochs must be from 1"),
        (["--hlg"], "--hlg is for a file that plays: name it with --out"),
        (["--overwrite"], "--overwrite is for a file that plays"),
        (["--crf", "0"], "--crf is for a file that plays"),
        (["--out", "o.mkv", "--float"], "--float is for a run folder with EXR frames, which --out does not make"),
        (["--out", "o.mkv", "--runs", "r"], "--runs is for a run folder"),
        (["--out", "o.mkv", "--compression", "piz"], "--compression is for a run folder"),
        (["--peak", "100"], "peak must be 0 or over white"),
        # told before the file is opened, which takes minutes for a long one, and would fail here
        (["--tile", "500x500"], "tile must be width and height, each a multiple of 64"),
        (["--tile_pad", "-1"], "tile_pad must be 0 or more pixels"),
        (["--num_streams", "65"], "num_streams must be from 1 to 64"),
        (["--device", "abacus"], "device must be auto or one of those here"),
        (["--matrix_in", "bt709"], "matrix_in must be one of rgb (0), 709 (1)"),
        (["--transfer_in", "linear2"], "transfer_in must be one of 709 (1)"),
        (["--range_in", "tv"], "range_in must be one of limited (0), full (1)"),
    ],
)
def test_bad_arguments(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("in.mkv", "there.mkv"):
        Path(name).write_text("no video")
    Path("folder.mkv").mkdir()
    assert cli.main(["in.mkv", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("zhdrv: ") and words in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.mkv", "in.mkv", "there.mkv"]


def test_levels_checks_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["levels", "none.mp4", "--peak", "100"]) == 2
    assert "peak must be 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["levels", "none.mp4", "--out", "o.mkv"])


def test_loads_no_torch() -> None:
    code = (
        "import sys, vszhdrv.command.ffmpeg; sys.exit(bool({'torch', 'vapoursynth', 'OpenEXR'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
