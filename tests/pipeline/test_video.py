"""Files that play, from real trainings through the real ffmpeg: what ffprobe says of them, and what is in them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vapoursynth as vs
from PIL import Image

import vszhdrv
from vszhdrv import files
from vszhdrv.command import cli, ffmpeg

# x265 3.5 writes past its buffers where a picture is narrower than 64 pixels and rich in detail, turned ones too.
WIDTH, HEIGHT, LENGTH = 128, 96, 12
BT709 = ("-colorspace", "bt709", "-color_trc", "bt709", "-color_primaries", "bt709", "-color_range", "tv")
RAMP = f"nullsrc=s={WIDTH}x{HEIGHT}:r=24000/1001,geq=lum='clip(50+2.5*Y+50*sin((X+3*N)/10)\\,16\\,235)':cb=128:cr=128"
"""Hills that move, their brightest third clipped."""
MINUS_ONE = (-1 << 16 & 0xFFFFFFFF).to_bytes(4, "big")


def usable() -> bool:
    try:
        ffmpeg.find_programs()
    except RuntimeError:
        return False
    return True


pytestmark = pytest.mark.skipif(not usable(), reason="needs ffmpeg and ffprobe with 10-bit libx265 and libx264 on PATH")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Pictures this small train fastest in one thread, all the more where tests share the processor."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def source(media: Path) -> Path:
    """An SDR clip with sound. All sources here have its pictures, so that one network serves all."""
    path = media / "source.mp4"
    length = f"{LENGTH * 1001 / 24000:.6f}"
    run_ffmpeg("-f", "lavfi", "-i", RAMP, "-f", "lavfi", "-i", f"sine=d={length}", "-frames:v", LENGTH,
           "-pix_fmt", "yuv420p", "-c:v", "libx264", "-qp", 0, "-bf", 2, *BT709, "-c:a", "aac", path)  # fmt: skip
    return path


@pytest.fixture(scope="module")
def zhdrv(media: Path) -> Callable[..., int]:
    """Runs the command line in this process: torch is loaded once, and one cache keeps the one network."""

    def run(*arguments: object) -> int:
        options = ("--epochs", "1", "--device", "cpu", "--cache", media / "cache")
        return cli.main([str(word) for word in (*arguments, *options)])

    return run


@pytest.fixture(scope="module")
def hdr10(media: Path, source: Path, zhdrv: Callable[..., int]) -> Path:
    assert zhdrv(source, "--out", media / "hdr10.mkv") == 0
    return media / "hdr10.mkv"


def run_ffmpeg(*arguments: object) -> bytes:
    command = ["ffmpeg", "-nostdin", "-hide_banner", "-v", "error", "-y", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def probe(path: Path, *what: str) -> dict[str, Any]:
    command = [
        "ffprobe",
        "-v",
        "error",
        "-of",
        "json",
        *(what or ("-show_streams", "-show_format", "-count_frames")),
        path,
    ]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    return json.loads(done.stdout)


def streams(path: Path) -> dict[str, dict[str, Any]]:
    return {stream["codec_type"]: stream for stream in probe(path)["streams"]}


def times(path: Path, kind: str = "v") -> list[float]:
    """The packets' timestamps in order."""
    packets = probe(path, "-select_streams", kind, "-show_entries", "packet=pts_time")["packets"]
    return sorted(float(packet["pts_time"]) for packet in packets)


def sound(path: Path) -> bytes:
    """A digest of the audio packets."""
    return run_ffmpeg("-i", path, "-map", "0:a", "-c", "copy", "-f", "md5", "-")


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if files.PART in path.name]


def test_hdr10_file(source: Path, hdr10: Path, media: Path, zhdrv: Callable[..., int]) -> None:
    """Twice: the second time from what the cache has of network and light."""
    assert zhdrv(source, "--out", media / "hdr10.mp4") == 0
    for path in (hdr10, media / "hdr10.mp4"):
        found = streams(path)
        picture = found["video"]
        expected = {
            "codec_name": "hevc", "profile": "Main 10", "pix_fmt": "yuv420p10le", "width": WIDTH, "height": HEIGHT,
            "color_primaries": "bt2020", "color_transfer": "smpte2084", "color_space": "bt2020nc", "color_range": "tv",
            "chroma_location": "topleft", "avg_frame_rate": "24000/1001", "sample_aspect_ratio": "1:1",
            "nb_read_frames": str(LENGTH),
        }  # fmt: skip
        assert {name: picture[name] for name in expected} == expected
        metadata = {data["side_data_type"]: data for data in picture["side_data_list"]}
        display, light = metadata["Mastering display metadata"], metadata["Content light level metadata"]
        as_number = {name: eval(value) for name, value in display.items() if "/" in str(value)}  # "34000/50000"
        assert as_number == pytest.approx(
            {"red_x": 0.68, "red_y": 0.32, "green_x": 0.265, "green_y": 0.69, "blue_x": 0.15, "blue_y": 0.06,
             "white_point_x": 0.3127, "white_point_y": 0.329, "min_luminance": 0.0001, "max_luminance": 1000}
        )  # fmt: skip
        assert 203 < light["max_content"] <= 1000 and 0 < light["max_average"] < light["max_content"]
        in_stream = probe(path, "-select_streams", "v", "-read_intervals", "%+#1", "-show_frames")["frames"][0]
        assert {data["side_data_type"]: data for data in in_stream["side_data_list"]}.items() >= {
            "Content light level metadata": light
        }.items()
        assert sound(path) == sound(source)
        assert np.diff(times(path)) == pytest.approx(1001 / 24000, abs=1.1e-3)  # .mkv counts in ms
    assert streams(media / "hdr10.mp4")["video"]["codec_tag_string"] == "hvc1"
    content = (media / "hdr10.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # a browser can begin before it has all
    assert float(streams(media / "hdr10.mp4")["video"]["duration"]) == float(streams(source)["video"]["duration"])
    assert not leftovers(media)


def test_hlg_file(source: Path, media: Path, zhdrv: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert zhdrv(source, "--out", media / "hlg.mp4", "--hlg", "--report") == 0
    assert "measuring 1" not in capsys.readouterr().err
    assert "written to hlg.mp4" in (media / "hlg.html").read_text()
    picture = streams(media / "hlg.mp4")["video"]
    assert (picture["color_primaries"], picture["color_transfer"]) == ("bt2020", "arib-std-b67")
    assert (picture["color_space"], picture["color_range"]) == ("bt2020nc", "tv")
    assert "side_data_list" not in picture and picture["nb_read_frames"] == str(LENGTH)


def test_the_file_holds_the_light_that_expand_gives(
    source: Path, hdr10: Path, media: Path, zhdrv: Callable[..., int]
) -> None:
    """The signal is right to a hundredth; at the usual quality libx265 takes away some of the source's 8-bit steps."""
    assert zhdrv(source, "--out", media / "finest.mkv", "--crf", "4") == 0
    options = {"epochs": 1, "device": "cpu", "cache": str(media / "cache"), "train": False}
    expanded = vszhdrv.expand(vs.core.bs.VideoSource(str(source), cachemode=0), peak=1000, **options)
    for path, highest in ((media / "finest.mkv", 0.01), (hdr10, 0.02)):
        decoded = vs.core.bs.VideoSource(str(path), cachemode=0).resize.Bicubic(
            format=vs.RGBS, transfer=vs.TRANSFER_LINEAR, primaries=vs.PRIMARIES_BT709, nominal_luminance=203
        )
        assert decoded.num_frames == expanded.num_frames == LENGTH
        pairs = [
            np.array([np.asarray(frame[plane]) for frame in both])
            for both in zip(expanded.frames(), decoded.frames(), strict=True)
            for plane in range(3)
        ]
        before, after = np.concatenate(pairs, axis=1)
        middle, bright = (before > 0.05) & (before < 1), before > 1.2
        assert bright.mean() > 0.05  # something was expanded, and it is there
        assert np.abs(after[middle] / before[middle] - 1).mean() < highest
        assert after[middle].mean() == pytest.approx(before[middle].mean(), rel=0.003)
        assert after[bright].mean() == pytest.approx(before[bright].mean(), rel=0.01)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_variable_frame_rate_stays_in_step(source: Path, media: Path, zhdrv: Callable[..., int], suffix: str) -> None:
    uneven = media / f"uneven{suffix}"
    run_ffmpeg("-i", source, "-vf", "setpts='(N+0.4*mod(N,3)+if(gt(N,6),5,0))/25/TB'", "-fps_mode", "passthrough",
           "-enc_time_base", "1:90000", "-c:v", "libx264", "-qp", 0, *BT709, "-c:a", "copy", uneven)  # fmt: skip
    out = media / f"variable{suffix}"
    assert zhdrv(uneven, "--out", out) == 0
    wanted = times(uneven)
    assert len(set(np.diff(wanted).round(3))) > 2
    assert times(out) == pytest.approx(wanted, abs=1.1e-3 if suffix == ".mkv" else 1e-6)
    assert times(out, "a") == pytest.approx(times(uneven, "a"), abs=1.1e-3)
    assert sound(out) == sound(uneven)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_sound_that_begins_before_the_pictures(
    source: Path, media: Path, zhdrv: Callable[..., int], suffix: str
) -> None:
    late, chapters = media / "late.mkv", media / "chapters.txt"
    marks = [f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={start}\nEND={end}\n" for start, end in ((0, 250), (250, 400))]
    chapters.write_text(";FFMETADATA1\n" + "".join(marks))
    run_ffmpeg("-itsoffset", "0.2", "-i", source, "-i", source, "-i", chapters, "-map", "0:v", "-map", "1:a",
           "-map_chapters", 2, "-c", "copy", late)  # fmt: skip
    out = media / f"in_step{suffix}"
    assert zhdrv(late, "--out", out) == 0
    lead = times(late)[0] - times(late, "a")[0]
    assert lead > 0.15
    assert times(out)[0] - times(out, "a")[0] == pytest.approx(lead, abs=2e-3)
    assert sound(out) == sound(late)
    second = float(probe(out, "-show_chapters")["chapters"][1]["start_time"])
    assert second - times(out, "a")[0] == pytest.approx(0.25 - times(late, "a")[0], abs=2e-3)


def test_a_recording_that_begins_within_a_group_of_pictures(
    source: Path, media: Path, zhdrv: Callable[..., int]
) -> None:
    """As broadcasts are recorded: its sound is there from the beginning, its pictures from the next key frame."""
    whole, cut, out = media / "whole.ts", media / "cut.ts", media / "cut.mkv"
    run_ffmpeg("-stream_loop", 2, "-i", source, "-c:v", "libx264", "-g", LENGTH, "-bf", 2, *BT709, "-c:a", "mp2", whole)
    packets = whole.read_bytes()
    cut.write_bytes(packets[len(packets) // 188 // 8 * 188 :])
    assert zhdrv(cut, "--out", out) == 0
    found = probe(cut, "-select_streams", "v", "-show_entries", "packet=pts_time,flags")["packets"]
    keys = [float(packet["pts_time"]) for packet in found if "K" in packet["flags"]]
    assert keys[0] > times(cut)[0] + 0.2
    assert times(out)[0] - times(out, "a")[0] == pytest.approx(keys[0] - times(cut, "a")[0], abs=2e-3)
    assert len(times(out)) == sum(time >= keys[0] for time in times(cut))


def test_the_file_says_the_shape_of_its_pixels(source: Path, media: Path, zhdrv: Callable[..., int]) -> None:
    """Not the stream in it."""
    shaped, out = media / "shaped.mkv", media / "shaped_hdr.mkv"
    run_ffmpeg("-i", source, "-aspect", "2:1", "-c", "copy", shaped)
    assert zhdrv(shaped, "--out", out) == 0
    ratios = [streams(path)["video"]["sample_aspect_ratio"] for path in (shaped, out)]
    assert ratios[0] == ratios[1] != "1:1"


def test_anamorphic_and_rotated(source: Path, media: Path, zhdrv: Callable[..., int]) -> None:
    wide = media / "wide.mp4"
    run_ffmpeg("-i", source, "-an", "-vf", "setsar=4/3", "-c:v", "libx264", "-qp", 0, *BT709, wide)
    assert zhdrv(wide, "--out", media / "wide.mkv") == 0
    picture = streams(media / "wide.mkv")["video"]
    assert (picture["width"], picture["height"], picture["sample_aspect_ratio"]) == (WIDTH, HEIGHT, "4:3")

    turned = media / "turned.mp4"
    # ffmpeg's options for this differ between versions: the track header's matrix, from upright to a quarter clockwise
    head, track, rest = wide.read_bytes().partition(b"tkhd")
    one, last = (1 << 16).to_bytes(4, "big"), (1 << 30).to_bytes(4, "big")
    upright, quarter = (
        one + bytes(12) + one + bytes(12) + last,
        bytes(4) + one + bytes(4) + MINUS_ONE + bytes(16) + last,
    )
    assert upright in rest
    turned.write_bytes(head + track + rest.replace(upright, quarter, 1))
    assert zhdrv(turned, "--out", media / "upright.mp4") == 0
    picture = streams(media / "upright.mp4")["video"]
    assert (picture["width"], picture["height"], picture["sample_aspect_ratio"]) == (HEIGHT, WIDTH, "3:4")
    assert "audio" not in streams(media / "upright.mp4")
    before, after = (
        np.frombuffer(run_ffmpeg("-i", path, "-frames:v", 1, "-f", "rawvideo", "-pix_fmt", "gray", "-"), np.uint8)
        for path in (turned, media / "upright.mp4")
    )
    assert np.corrcoef(before, after)[0, 1] > 0.9


def test_pictures_of_odd_size_at_50_a_second(media: Path, zhdrv: Callable[..., int]) -> None:
    folder = media / "odd"
    folder.mkdir()
    rng = np.random.default_rng(3)
    picture = np.kron(rng.integers(0, 256, (3, 5, 3), np.uint8), np.ones((27, 21, 1), np.uint8))
    for n in range(4):
        Image.fromarray(np.roll(picture, n, axis=0)).save(folder / f"{n}.png")
    assert zhdrv(folder, "--out", media / "odd.mp4", "--fps", "50") == 0
    found = streams(media / "odd.mp4")["video"]
    assert (found["width"], found["height"]) == (106, 82)
    assert (found["avg_frame_rate"], found["nb_read_frames"]) == ("50/1", "4")
    (folder / "0.png").rename(media / "p%03d.png")  # which ffmpeg takes for a sequence
    assert zhdrv(media / "p%03d.png", "--data_type", "image", "--out", media / "still.mkv") == 0
    assert streams(media / "still.mkv")["video"]["nb_read_frames"] == "1"


def test_levels(source: Path, hdr10: Path, zhdrv: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    """What levels says is what the file has."""
    assert zhdrv("levels", source) == 0
    out, err = capsys.readouterr()
    assert "measuring" not in err  # kept since the file was made
    lines = dict(line.split(": ", 1) for line in out.splitlines())
    assert list(lines) == ["MaxCLL", "MaxFALL", "x265", "SVT-AV1", "ffmpeg, libx265", "ffmpeg, libsvtav1"]
    (light,) = (
        data for data in streams(hdr10)["video"]["side_data_list"] if data["side_data_type"].startswith("Content")
    )
    assert lines["MaxCLL"] == f"{light['max_content']} nits" and lines["MaxFALL"] == f"{light['max_average']} nits"
    assert f'--max-cll "{light["max_content"]},{light["max_average"]}"' in lines["x265"]
    assert zhdrv("levels", source, "--peak", "300") == 0
    out, err = capsys.readouterr()
    assert "measuring" in err and int(out.split()[1]) <= 300


def test_levels_are_of_every_frame(media: Path, zhdrv: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    """The network stays the same where a frame changes that its key does not look at; the light does not."""
    folder = media / "frames"
    folder.mkdir()
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for n in range(40):
        Image.fromarray(((2 * x + y + n) % 256).astype(np.uint8)).convert("RGB").save(folder / f"{n}.png")
    assert zhdrv("levels", folder) == 0
    before, _ = capsys.readouterr()
    assert zhdrv("levels", folder) == 0
    same, err = capsys.readouterr()
    assert same == before and "measuring" not in err
    Image.new("RGB", (WIDTH, HEIGHT), "white").save(folder / "8.png")
    assert zhdrv("levels", folder) == 0
    after, err = capsys.readouterr()
    assert "measuring 40 of 40" in err and "training" not in err
    assert int(after.split()[4]) > int(before.split()[4])


def test_exact_rate(source: Path, media: Path, zhdrv: Callable[..., int]) -> None:
    """The stream's own clock, which a film's nanoseconds alone would make 19001/317."""
    fast = media / "fast.mp4"
    run_ffmpeg("-r", "60000/1001", "-i", source, "-an", "-c:v", "libx264", "-qp", 0, *BT709, fast)
    assert zhdrv(fast, "--out", media / "fast.mkv") == 0
    run_ffmpeg("-i", media / "fast.mkv", "-c", "copy", media / "fast.hevc")
    assert streams(media / "fast.hevc")["video"]["r_frame_rate"] == "60000/1001"
    assert times(media / "fast.mkv") == pytest.approx(times(fast), abs=1.1e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_title_chapters_and_every_track_of_sound(
    source: Path, media: Path, zhdrv: Callable[..., int], suffix: str
) -> None:
    """With and without sound; FLAC goes into .mp4, too."""
    about = media / "about.txt"
    chapters = "".join(
        f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={n * 200}\nEND={n * 200 + 200}\ntitle=c{n}\n" for n in (0, 1)
    )
    about.write_text(f";FFMETADATA1\ntitle=A film\n{chapters}")
    told = ("-map_metadata", 1, "-map_chapters", 1, "-c:v", "copy")
    full, mute = media / f"full_source{suffix}.mkv", media / f"mute_source{suffix}.mkv"
    run_ffmpeg("-i", source, "-i", about, "-map", "0:v", "-map", "0:a", "-map", "0:a", *told,
           "-c:a:0", "flac", "-c:a:1", "copy", "-metadata:s:a:1", "language=deu", full)  # fmt: skip
    run_ffmpeg("-i", source, "-i", about, "-map", "0:v", *told, mute)
    for path, tracks in ((full, ["flac", "aac"]), (mute, [])):
        out = media / f"{path.stem}_out{suffix}"
        assert zhdrv(path, "--out", out) == 0
        found = probe(out, "-show_streams", "-show_format", "-show_chapters")
        sounds = [stream for stream in found["streams"] if stream["codec_type"] == "audio"]
        assert [stream["codec_name"] for stream in sounds] == tracks
        assert not sounds or sounds[1]["tags"]["language"] == "deu"
        assert {name.lower(): value for name, value in found["format"]["tags"].items()}["title"] == "A film"
        assert [chapter["tags"]["title"] for chapter in found["chapters"]] == ["c0", "c1"]


def test_sound_that_the_container_can_not_hold(
    source: Path, media: Path, zhdrv: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Told before anything is opened or learned; and what was there stays."""
    pcm = media / "pcm.mkv"
    run_ffmpeg("-i", source, "-c:v", "copy", "-c:a", "pcm_s16le", pcm)
    target = media / "kept.mp4"
    target.write_text("an earlier film")
    assert zhdrv(pcm, "--out", target, "--overwrite", "--seed", 99) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"zhdrv: --out {target} can't hold the audio of {pcm}, ffmpeg says: ")
    assert "pcm_s16le" in line and line.endswith("; .mkv holds more kinds")
    assert target.read_text() == "an earlier film" and not leftovers(media)


def test_sound_that_nobody_knows_is_left_out_with_a_word(
    source: Path, media: Path, zhdrv: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """As phones record spatial audio beside stereo, with a codec that has no name in ffmpeg."""
    phone = media / "phone.mp4"
    run_ffmpeg("-i", source, "-map", "0:v", "-map", "0:a", "-map", "0:a", "-c", "copy", phone)
    before, stereo, spatial = phone.read_bytes().split(b"mp4a")
    phone.write_bytes(before + b"mp4a" + stereo + b"apac" + spatial.replace(b"esds", b"dapa"))
    assert zhdrv(phone, "--out", media / "phone_out.mp4") == 0
    assert f"stream 2 of {phone} is left out: audio of a kind that ffmpeg does not know" in capsys.readouterr().err
    found = probe(media / "phone_out.mp4", "-show_streams")["streams"]
    assert [stream["codec_name"] for stream in found] == ["hevc", "aac"]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGHUP])
def test_a_whole_process_and_ctrl_c(source: Path, media: Path, tmp_path: Path, stop: signal.Signals) -> None:
    """Interrupted, or its terminal closed, while ffmpeg runs: soon over, no file, no process left.

    And ffmpeg is not what decides the words.
    """
    slow = tmp_path / "bin"
    slow.mkdir()
    (slow / "ffprobe").symlink_to(shutil.which("ffprobe") or "")
    (slow / "ffmpeg").write_text(
        f"#!{sys.executable}\n"
        "import pathlib, subprocess, sys, time\n"
        f"if '-h' in sys.argv or sys.argv[-1] == {os.devnull!r}:\n"
        f"    sys.exit(subprocess.call([{shutil.which('ffmpeg')!r}, *sys.argv[1:]]))\n"
        "pathlib.Path(sys.argv[-1]).write_text('half a film')\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(__import__('os').getpid()))\n"
        "time.sleep(60)\n"
    )
    (slow / "ffmpeg").chmod(0o755)
    command = [sys.executable, "-m", "vszhdrv", source, "--out", tmp_path / "o.mkv", "--epochs", "1", "--device", "cpu"]
    environment = {**os.environ, "PATH": f"{slow}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    arguments = [*map(str, command), "--cache", str(media / "cache"), "--hlg"]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=environment) as process:
        for _ in range(600):
            if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
                break
            time.sleep(0.1)
        time.sleep(0.5)
        assert leftovers(tmp_path)
        process.send_signal(stop)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130, said
    assert said.splitlines()[-1].startswith("zhdrv: interrupted") and "Traceback" not in said
    assert not leftovers(tmp_path) and not (tmp_path / "o.mkv").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
