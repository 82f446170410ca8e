"""Files as people have them, through the real command line and ffmpeg: time, sound, fields, damage and other kinds.

The network alone is left out: the expansion is the linearised source. A white flash and a beep mark one moment.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable, Generator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vapoursynth as vs
from PIL import Image

import vszhdrv
from vszhdrv.command import cli, ffmpeg, matroska, sources
from vszhdrv.errors import Refused
from vszhdrv.light import Look

CASES = Path(__file__).parents[3] / "shared" / "cases"
"""Recorded inputs that lie beside the checkout, where there are some."""
TAGS = ("-colorspace", "bt709", "-color_trc", "bt709", "-color_primaries", "bt709", "-color_range", "tv")


def usable() -> bool:
    try:
        ffmpeg.find_programs()
    except RuntimeError:
        return False
    return True


pytestmark = pytest.mark.skipif(not usable(), reason="needs ffmpeg and ffprobe with 10-bit libx265 and libx264 on PATH")


@dataclass(frozen=True)
class Played:
    """What a player shows of a file, in seconds. beep: None without sound."""

    times: list[float]
    flash: float
    beep: float | None
    end: float


def run_ffmpeg(*arguments: object) -> bytes:
    command = ["ffmpeg", "-nostdin", "-hide_banner", "-v", "error", "-y", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def probe(path: Path, *what: str) -> dict[str, Any]:
    done = subprocess.run(["ffprobe", "-v", "error", "-of", "json", *what, path], capture_output=True, timeout=60)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def played(path: Path) -> Played:
    """Decode a file: when its frames are shown, and when its upper left corner is brightest and its sound begins."""
    size = "crop=iw/8:ih/6:0:0,scale=1:1,format=gray,showinfo"
    command = ["ffmpeg", "-nostats", "-i", path, "-map", "0:v:0", "-vf", size, "-fps_mode", "passthrough"]
    said = subprocess.run([*command, "-f", "null", "-"], capture_output=True, text=True, timeout=60).stderr
    shown = [(float(a), int(b)) for a, b in re.findall(r"pts_time:\s*([-\d.]+).*?mean:\[(\d+)", said)]
    shown.sort()
    packets = probe(path, "-select_streams", "v", "-show_entries", "packet=pts_time,duration_time:stream=duration")
    last = max(packets["packets"], key=lambda packet: float(packet["pts_time"]))
    end = float(last["pts_time"]) + float(last.get("duration_time", 0))
    beep = None
    if probe(path, "-select_streams", "a", "-show_streams")["streams"]:
        steady = ("-map", "0:a:0", "-af", "aresample=48000:async=1:first_pts=0", "-ac", "1", "-f", "s16le", "-")
        sound = np.abs(np.frombuffer(run_ffmpeg("-i", path, *steady), np.int16).astype(float))
        if sound.max(initial=0) > 0:
            beep = int(np.nonzero(sound > 0.3 * sound.max())[0][0]) / 48000
    brightest = max(mean for _, mean in shown)
    middle = sorted(mean for _, mean in shown)[len(shown) // 2]
    flash = next(time for time, mean in shown if mean > (brightest + middle) / 2 or mean == brightest)
    return Played([time for time, _ in shown], flash, beep, end)


@pytest.fixture
def zhdrv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command line, but for training and network."""
    prepare = vszhdrv.prepare

    def untrained(clip: vs.VideoNode, **options: Any) -> Any:
        job = prepare(clip, **options)

        def train(team: object = None) -> Generator[vszhdrv.Event]:
            yield from ()

        def expand_with(look: Look, *, levels: bool = False, lit: bool = False) -> vs.VideoNode:
            return job.linear()

        vars(job).update(train=train, expand_with=expand_with)
        return job

    monkeypatch.setitem(vszhdrv.__dict__, "prepare", untrained)
    monkeypatch.setattr(sources, "_damaged", {})
    return lambda *words: cli.main([str(word) for word in words])


@pytest.fixture
def converted(zhdrv: Callable[..., int], tmp_path: Path) -> Callable[..., Played]:
    """Converts a file and plays the result."""

    def convert(source: Path, *options: object, suffix: str = ".mkv") -> Played:
        out = tmp_path / f"out{suffix}"
        assert zhdrv(source, "--out", out, "--hlg", "--overwrite", *options) == 0
        return played(out)

    return convert


def case(name: str) -> Path:
    if not (CASES / name).is_file():
        pytest.skip(f"needs {name} in shared/cases beside the checkout")
    return CASES / name


def flashing(path: Path, *options: object, at: int = 75, length: int = 120, sound: bool = True) -> Path:
    """A video with a flash at frame `at`, and a beep with it."""
    picture = f"color=c=gray:s=96x64:r=30:d={length / 30},geq=lum='if(eq(N\\,{at})\\,235\\,80)':cb=128:cr=128"
    begin = at / 30
    beep = f"aevalsrc='if(between(t\\,{begin}\\,{begin + 0.05})\\,sin(2*PI*1000*t)\\,0)':s=48000:d={length / 30}"
    heard = ("-f", "lavfi", "-i", beep, "-c:a", "aac") if sound else ()
    coded = ("-pix_fmt", "yuv420p", "-c:v", "libx264", "-g", 250, "-bf", 2, *TAGS)
    run_ffmpeg("-f", "lavfi", "-i", picture, *heard, *coded, *options, path)
    return path


# A part of the frames


@pytest.mark.parametrize("kind", [".mkv", ".mp4"])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_the_sound_of_some_frames_begins_with_them(
    tmp_path: Path, converted: Callable[..., Played], kind: str, suffix: str
) -> None:
    """The only key frame lies two seconds before them."""
    found = converted(flashing(tmp_path / f"in{kind}"), "--frames", "60-100", suffix=suffix)
    assert len(found.times) == 41
    assert found.times[0] == pytest.approx(0, abs=0.002)
    assert found.flash == pytest.approx(0.5, abs=0.002)
    assert found.beep == pytest.approx(0.5, abs=0.002)
    length = float(probe(tmp_path / f"out{suffix}", "-show_format")["format"]["duration"])
    assert length == pytest.approx(41 / 30, abs=0.03)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_the_subtitles_of_some_frames_are_theirs(tmp_path: Path, converted: Callable[..., Played], suffix: str) -> None:
    lines = [("01,500", "02,200", "before"), ("02,400", "03,000", "within"), ("03,500", "03,900", "after")]
    text = "".join(f"{n}\n00:00:{a} --> 00:00:{b}\n{what}\n\n" for n, (a, b, what) in enumerate(lines, 1))
    (tmp_path / "in.srt").write_text(text)
    flashing(tmp_path / "bare.mkv")
    run_ffmpeg("-i", tmp_path / "bare.mkv", "-i", tmp_path / "in.srt", "-c", "copy", "-c:s", "srt", tmp_path / "in.mkv")
    found = converted(tmp_path / "in.mkv", "--frames", "60-100", suffix=suffix)
    assert found.beep == pytest.approx(found.flash, abs=0.002)
    kept = run_ffmpeg("-i", tmp_path / f"out{suffix}", "-map", "0:s", "-f", "srt", "-").decode()
    assert "within" in kept and "before" not in kept and "after" not in kept
    begin = re.search(r"00:00:00,(\d+) -->", kept)
    assert begin is not None and int(begin[1]) == pytest.approx(400, abs=25)


def test_text_subtitles_are_kept(tmp_path: Path, converted: Callable[..., Played]) -> None:
    (tmp_path / "in.srt").write_text("1\n00:00:00,500 --> 00:00:01,000\nhello\n\n")
    flashing(tmp_path / "bare.mkv", length=40, at=20)
    run_ffmpeg("-i", tmp_path / "bare.mkv", "-i", tmp_path / "in.srt", "-c", "copy", "-c:s", "srt", tmp_path / "in.mkv")
    for suffix, codec in ((".mkv", "subrip"), (".mp4", "mov_text")):
        converted(tmp_path / "in.mkv", suffix=suffix)
        (stream,) = probe(tmp_path / f"out{suffix}", "-select_streams", "s", "-show_streams")["streams"]
        assert stream["codec_name"] == codec
        kept = run_ffmpeg("-i", tmp_path / f"out{suffix}", "-map", "0:s", "-f", "srt", "-").decode()
        assert re.search(r"00:00:00,5\d\d -->", kept) and "hello" in kept


# Time


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize(
    "name, frames, flash, beep, last, end",
    [
        ("softtelecine.mkv", None, None, None, None, None),
        ("nullframes.avi", None, 1.0, 1.003, 1.967, None),
        ("jump.ts", 90, 1.0, 1.024, 2.967, 3.0),
        ("samestamp.mkv", None, None, None, None, 2.0),
        ("irregular720.mkv", 21, None, None, None, None),
        ("held.gif", None, None, None, None, 3.9),
    ],
)
def test_recorded_files_keep_their_time(
    converted: Callable[..., Played],
    suffix: str,
    name: str,
    frames: int | None,
    flash: float | None,
    beep: float | None,
    last: float | None,
    end: float | None,
) -> None:
    if suffix == ".mp4" and name in ("nullframes.avi", "samestamp.mkv"):
        pytest.skip("its sound is PCM, which .mp4 does not hold")
    found = converted(case(name), suffix=suffix)
    if frames is not None:
        assert len(found.times) == frames
    for value, right in ((found.flash, flash), (found.beep, beep), (found.times[-1], last), (found.end, end)):
        if right is not None:
            assert value == pytest.approx(right, abs=0.035)
    if found.beep is not None:
        assert found.beep == pytest.approx(found.flash, abs=0.045)
    if name == "softtelecine.mkv":
        rate = (len(found.times) - 1) / (found.times[-1] - found.times[0])
        assert rate == pytest.approx(24000 / 1001, rel=1e-3)


@pytest.mark.parametrize("name", ["interlaced.mkv", "interlaced_onerepeat.mkv"])
def test_recorded_interlaced_files_are_refused(
    zhdrv: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert zhdrv(case(name), "--out", tmp_path / "out.mkv") == 2
    assert "must be progressive" in capsys.readouterr().err.splitlines()[-1]


def test_a_recorded_damaged_file_is_the_same_in_every_run(tmp_path: Path) -> None:
    """Each time as if it were seen for the first time, with the threads that BestSource likes."""
    source = case("damaged_recorded.ts")
    found = []
    for run in range(3):
        sources._damaged.clear()
        said: list[str] = []
        index = tmp_path / str(run)
        clip = sources.open_clip(source, still=False, fps=None, index=index, say=said.append).clip
        try:
            digest = pixels_of(clip)
        except vs.Error as error:
            assert sources.may_be_damage(error, source, index)
            sources.distrust(source, index, str(error))
            clip = sources.open_clip(source, still=False, fps=None, index=index, say=said.append).clip
            digest = pixels_of(clip)
        assert any("is damaged" in sentence for sentence in said)
        found.append((clip.num_frames, digest))
    assert found[0][0] == 42 and len(set(found)) == 1
    sources._damaged.clear()


def pixels_of(clip: vs.VideoNode) -> str:
    digest = hashlib.sha256()
    for frame in clip.frames(close=True):
        for plane in range(frame.format.num_planes):
            digest.update(np.ascontiguousarray(frame[plane]))
    return digest.hexdigest()


def test_a_made_stream_with_destroyed_packets_has_the_same_pixels_in_every_run(tmp_path: Path) -> None:
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x180:r=30:d=1.5", "-pix_fmt", "yuv420p", "-c:v", "libx264", "-g", 15,
               *TAGS, tmp_path / "whole.ts")  # fmt: skip
    content = bytearray((tmp_path / "whole.ts").read_bytes())
    for packet in range(60, len(content) // 188, 23):
        content[188 * packet + 20 : 188 * packet + 120] = bytes(100)
    source = tmp_path / "damaged.ts"
    source.write_bytes(content)
    found = []
    for run in range(2):
        sources._damaged.clear()
        said: list[str] = []
        clip = sources.open_clip(source, still=False, fps=None, index=tmp_path / str(run), say=said.append).clip
        assert any("is damaged" in sentence for sentence in said)
        found.append((clip.num_frames, pixels_of(clip)))
    assert found[0] == found[1]
    sources._damaged.clear()


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_variable_rate_mp4_keeps_every_frame_and_its_time(
    tmp_path: Path, converted: Callable[..., Played], suffix: str
) -> None:
    steps = "setpts='(N+floor(N/3)+0.5*mod(N\\,2))/30/TB'"
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x64:r=30:d=1", "-vf", steps, "-fps_mode", "vfr",
               "-pix_fmt", "yuv420p",
               "-c:v", "libx264", "-enc_time_base", "1:60", "-video_track_timescale", 600, *TAGS,
               tmp_path / "in.mp4")  # fmt: skip
    before, after = played(tmp_path / "in.mp4"), converted(tmp_path / "in.mp4", suffix=suffix)
    assert len(after.times) == len(before.times) == 30
    assert after.times == pytest.approx(before.times, abs=0.0011)
    assert 1 / 600 < after.end - after.times[-1] < 0.1  # ffmpeg itself has not told how long the last one lasts


def test_a_gif_that_holds_its_last_frame_is_as_long(tmp_path: Path, converted: Callable[..., Played]) -> None:
    pictures = [Image.effect_noise((96, 64), 20 * n).convert("P") for n in range(1, 6)]
    delays = [100, 100, 200, 100, 2500]
    pictures[0].save(tmp_path / "in.gif", save_all=True, append_images=pictures[1:], duration=delays, loop=0)
    found = converted(tmp_path / "in.gif")
    assert found.end == pytest.approx(3.0, abs=0.011)


def test_repeat_flags_make_neither_interlaced_nor_longer(tmp_path: Path, converted: Callable[..., Played]) -> None:
    """MPEG-2 film whose frames are shown for two and three half frames by turns."""
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x64:r=24000/1001:d=2", "-pix_fmt", "yuv420p", "-c:v", "mpeg2video",
               "-qscale:v", 2, "-bf", 0, "-f", "mpeg2video", tmp_path / "film.m2v")  # fmt: skip
    (tmp_path / "flags.m2v").write_bytes(with_pulldown((tmp_path / "film.m2v").read_bytes()))
    found = converted(tmp_path / "flags.m2v")
    assert len(found.times) == 48
    assert (found.times[-1] - found.times[0]) / 47 == pytest.approx(1001 / 24000, rel=1e-3)


def with_pulldown(stream: bytes) -> bytes:
    """An MPEG-2 stream of 23.976 frames a second as one of 29.97 with repeat flags: "soft telecine"."""
    content = bytearray(stream)
    number = place = 0
    while (place := content.find(b"\0\0\1", place)) >= 0:
        if content[place + 3] == 0xB3:  # sequence: the rate is the lower half of the eighth byte, 4 = 30000/1001
            content[place + 7] = content[place + 7] & 0xF0 | 4
        elif content[place + 3] == 0xB5 and content[place + 4] >> 4 == 1:  # its extension: not progressive_sequence
            content[place + 5] &= ~0x08 & 0xFF
        elif content[place + 3] == 0xB5 and content[place + 4] >> 4 == 8:  # of a picture: top first, repeat first
            top_first, repeat = ((1, 1), (0, 0), (0, 1), (1, 0))[number % 4]
            content[place + 7] = content[place + 7] & ~0x82 & 0xFF | top_first << 7 | repeat << 1
            content[place + 8] |= 0x80  # progressive_frame
            number += 1
        place += 4
    return bytes(content)


def test_a_preview_beside_a_file_is_named_at_the_end(
    zhdrv: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, preview = flashing(tmp_path / "in.mp4", at=10, length=20), tmp_path / "preview.png"
    assert zhdrv(source, "--out", tmp_path / "out.mkv", "--hlg", "--preview", preview, "--frames", "5-15") == 0
    with Image.open(preview) as picture:
        assert picture.width > 3 * 90
        assert picture.crop((0, 20, 90, 60)).convert("L").getextrema()[1] > 200  # frame 10, the flash, is the middle
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"zhdrv: done: {tmp_path / 'out.mkv'}, ") and last.endswith(f"to look at: {preview}")


# Kinds of files


def test_odd_size_and_alpha_of_vp9_are_said(tmp_path: Path) -> None:
    run_ffmpeg("-f", "lavfi", "-i", "testsrc=s=161x121:d=0.4", "-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p",
               tmp_path / "odd.webm")  # fmt: skip
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=160x120:d=0.4,format=yuva420p", "-c:v", "libvpx-vp9",
               tmp_path / "alpha.webm")  # fmt: skip
    clip, said = opened(tmp_path / "odd.webm")
    assert (clip.width, clip.height) == (160, 120)
    assert any("161x121" in sentence and "160x120" in sentence for sentence in said)
    _, said = opened(tmp_path / "alpha.webm")
    assert any("alpha" in sentence for sentence in said)


def opened(source: Path, **options: Any) -> tuple[vs.VideoNode, list[str]]:
    said: list[str] = []
    settings = {"still": False, "fps": None, "index": None, "say": said.append} | options
    return sources.open_clip(source, **settings).clip, said


@pytest.mark.parametrize("by", sources.FILTERS)
def test_every_source_filter_opens_the_same_frames(tmp_path: Path, by: str) -> None:
    if not hasattr(vs.core, by):
        pytest.skip(f"needs the source filter {by}")
    source = flashing(tmp_path / "in.mp4", at=3, length=20)
    clip, _ = opened(source, by=by)
    assert (clip.num_frames, clip.fps) == (20, 30)
    assert pixels_of(clip) == pixels_of(opened(source, by="bs")[0])


def test_a_source_filter_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = flashing(tmp_path / "in.mp4", at=3, length=20)
    monkeypatch.setattr(vs, "core", object())
    with pytest.raises(Refused, match=r"--source ffms2 needs .* vapoursynth-ffms2"):
        sources.source_filter(source, "ffms2")


def test_a_script_is_an_input(zhdrv: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "in.vpy"
    script.write_text(
        "import vapoursynth as vs\n"
        "clip = vs.core.std.BlankClip(width=64, height=64, length=4, format=vs.RGB24, fpsnum=25, fpsden=1)\n"
        "clip.std.SetFieldBased(0).set_output()\n"
    )
    assert zhdrv(script, "--out", tmp_path / "out.mp4", "--hlg") == 0
    assert "gets no sound: in.vpy is a script" in capsys.readouterr().err
    found = played(tmp_path / "out.mp4")
    assert found.times == pytest.approx([0, 0.04, 0.08, 0.12]) and found.beep is None


@pytest.mark.parametrize("kind", ["heic", "avif"])
def test_pictures_of_phones(tmp_path: Path, kind: str) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif")
    pixels = np.full((64, 96, 3), (200, 90, 30), np.uint8)
    pillow_heif.register_heif_opener()
    if kind == "avif":
        pytest.importorskip("PIL.AvifImagePlugin", reason="needs Pillow with AVIF")
    Image.fromarray(pixels).save(tmp_path / f"in.{kind}", quality=100)
    clip, _ = opened(tmp_path / f"in.{kind}", still=True)
    with clip.get_frame(0) as frame:
        assert frame.props["_Transfer"] == vs.TRANSFER_IEC_61966_2_1
        found = [int(np.median(np.asarray(frame[plane]))) for plane in range(3)]
    depth = 1 << (clip.format.bits_per_sample - 8)
    assert [value / depth for value in found] == pytest.approx([200, 90, 30], abs=4)


def test_a_crop_of_matroska_is_done_and_said(tmp_path: Path) -> None:
    """Our own stream, whose unit of display makes room for a crop."""
    stream = matroska.header(matroska.Track(64, 48, Fraction(1), 16, Fraction(1, 25), None))
    edges = {0x54CC: 4, 0x54DD: 3, 0x54BB: 8, 0x54AA: 2}  # left, right, top, bottom
    crop = b"".join(edge.to_bytes(2, "big") + bytes([0x81, count]) for edge, count in edges.items()) + b"\xec\x80"
    unit = b"\x54\xb2\x01" + (8).to_bytes(7, "big") + (3).to_bytes(8, "big")
    assert unit in stream and len(unit) == len(crop)
    luma = np.full((48, 64), 100, np.uint16)
    luma[8:46, 4:62] = 800
    planes = luma.tobytes() + np.full(48 * 64 // 2, 512, np.uint16).tobytes()
    frames = b"".join(matroska.frame_header(Fraction(n, 25), Fraction(1, 25), len(planes)) + planes for n in range(5))
    (tmp_path / "in.mkv").write_bytes(stream.replace(unit, crop) + frames)
    clip, said = opened(tmp_path / "in.mkv")
    assert (clip.width, clip.height) == (58, 38)
    with clip.get_frame(2) as frame:
        assert np.asarray(frame[0]).min() == np.asarray(frame[0]).max() == 800
    assert "in.mkv is cropped from 64x48 to 58x38, as the file says" in said


def test_a_file_without_a_crop_has_none(tmp_path: Path) -> None:
    assert matroska.crop(flashing(tmp_path / "in.mkv", at=3, length=5)) == matroska.Crop()
    assert matroska.crop(flashing(tmp_path / "in.mp4", at=3, length=5)) == matroska.Crop()
    for content in (b"", b"\x1aE\xdf\xa3", bytes(range(256)), (tmp_path / "in.mkv").read_bytes()[:100]):
        (tmp_path / "cut.mkv").write_bytes(content)
        assert matroska.crop(tmp_path / "cut.mkv") == matroska.Crop()
