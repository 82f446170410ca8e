"""The scripts in examples/ as their users run them: vspipe, and where they say so ffmpeg, on the clip beside them.

The copies that run here see the clip's first frames, small, and learn for a moment; nothing else is changed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import vapoursynth as vs

EXAMPLES = Path(__file__).parents[2] / "examples"
WIDTH, HEIGHT, LENGTH = 160, 90, 8
LIMIT = 120.0

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with short examples/ and the cache that they share."""
    folder = tmp_path_factory.mktemp("checkout")
    copies = folder / "examples"
    copies.mkdir()
    shutil.copy(EXAMPLES / "room.mp4", copies)
    for script in EXAMPLES.glob("*.vpy"):
        small = rf"\1[:{LENGTH}].resize.Bicubic({WIDTH}, {HEIGHT})"
        short, sources = re.subn(r"(VideoSource\(.+?absolute\(\)\))", small, script.read_text())
        short, calls = re.subn(r"zhdrv\.(Expand|Mask)\((\w+)", r"zhdrv.\1(\2, epochs=1", short)
        assert sources == 1 and calls in (1, 2), script
        (copies / script.name).write_text(short)
    return folder


def environment(folder: Path) -> dict[str, str]:
    own = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "XDG_CONFIG_HOME": str(folder),  # where vspipe writes down which Python it runs
        "VSZHDRV_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",  # the fastest for pictures this small
    }
    return {**os.environ, **own}


def vspipe(folder: Path, script: str, *arguments: str) -> bytes:
    """What vspipe writes on standard output for examples/SCRIPT, called from the folder above."""
    command = ["vspipe", f"examples/{script}", *arguments]
    done = subprocess.run(command, capture_output=True, cwd=folder, env=environment(folder), timeout=LIMIT)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def needs(plugin: str) -> None:
    """Skip the test where VapourSynth has no plugin of this name."""
    if not hasattr(vs.core, {"mvtools": "mv"}.get(plugin, plugin)):
        pytest.skip(f"needs vapoursynth-{plugin}")


def planes(raw: bytes) -> np.ndarray:
    """A raw RGBS frame, as (3, height, width)."""
    return np.frombuffer(raw, np.float32).reshape(3, HEIGHT, WIDTH)


def test_expand_goes_above_white_and_denoise_before_changes_little(folder: Path) -> None:
    needs("bm3d")
    expanded = planes(vspipe(folder, "expand.vpy", "-e", "0", "-"))
    assert expanded.max() > 1.5
    denoised = planes(vspipe(folder, "denoise_before.vpy", "-e", "0", "-"))
    shadows = expanded < 0.5
    assert 0 < np.abs(denoised - expanded)[shadows].mean() < 0.005
    assert (folder / "cache" / "networks").is_dir()


def test_denoise_after_is_16_bit_pq(folder: Path) -> None:
    needs("mvtools")
    stream = vspipe(folder, "denoise_after.vpy", "-c", "y4m", "-e", "1", "-")
    header, _, rest = stream.partition(b"\n")
    assert f"W{WIDTH} H{HEIGHT} ".encode() in header and b"C444p16" in header
    luma = np.frombuffer(rest.removeprefix(b"FRAME\n"), np.uint16, WIDTH * HEIGHT)
    white = 219 * 0.581 + 16  # 203 nits in PQ
    assert luma.max() > white * 256
    assert 0.2 < np.median(luma) / 65536 < 0.5


def test_exr_leaves_the_frames_that_were_asked_for(folder: Path) -> None:
    vspipe(folder, "exr.vpy", "-s", "2", "-e", "3", "--")
    assert sorted(file.name for file in (folder / "examples" / "room_exr").iterdir()) == [
        "room.000002.exr",
        "room.000003.exr",
    ]


def test_preview_shows_both_and_a_ladder(folder: Path) -> None:
    beside = vspipe(folder, "preview_sdr.vpy", "-c", "y4m", "-e", "0", "-")
    ladder = vspipe(folder, "preview_sdr.vpy", "-o", "1", "-c", "y4m", "-e", "0", "-")
    assert f"W{2 * WIDTH} H{HEIGHT} ".encode() in beside
    assert f"W{5 * WIDTH} H{HEIGHT} ".encode() in ladder
    codes = np.frombuffer(ladder.partition(b"FRAME\n")[2], np.uint8).reshape(3, HEIGHT, 5, WIDTH)
    codes = codes[:, HEIGHT // 2 :]  # the lower half has no captions
    assert (np.diff(codes[0].mean(axis=(0, 2))) > 5).all()
    luma, blue, red = (codes - np.float32([16, 128, 128])[:, None, None, None]) / np.float32([219, 224, 224])[
        :, None, None, None
    ]
    shown = np.stack([luma + 1.5748 * red, luma + 1.8556 * blue])  # R' and B' of BT.709
    assert shown.min() > -0.02 and shown.max() < 1.02, "clipped in YUV, where light changes its colour"


def test_the_split_view_has_the_source_on_the_left(folder: Path) -> None:
    """Two stops darker than the source's white is a quarter of it; the expansion is brighter where that clips."""
    split = vspipe(folder, "preview_sdr.vpy", "-o", "2", "-c", "y4m", "-e", "0", "-")
    assert f"W{WIDTH} H{HEIGHT} ".encode() in split
    luma = np.frombuffer(split.partition(b"FRAME\n")[2], np.uint8)[: WIDTH * HEIGHT].reshape(HEIGHT, WIDTH)
    white = 16 + 219 * 0.25 ** (1 / 2.4)
    below = luma[HEIGHT // 2 :]  # without captions
    assert below[:, : WIDTH // 2].max() <= white + 2 < below[:, WIDTH // 2 :].max()


def test_the_hdr_preview_is_pq_above_the_sources_white(folder: Path) -> None:
    white = 64 + 876 * 0.581  # 203 nits in PQ, 10 bits
    brightest = []
    for output in ("0", "1"):
        stream = vspipe(folder, "preview_hdr.vpy", "-o", output, "-c", "y4m", "-e", "0", "-")
        header, _, rest = stream.partition(b"\n")
        assert b"C444p10" in header
        brightest.append(np.frombuffer(rest.removeprefix(b"FRAME\n"), np.uint16, WIDTH * HEIGHT).max())
    assert brightest[0] > brightest[1] > white - 20


def test_the_mask_is_laid_over_the_grey_picture(folder: Path) -> None:
    overlay = vspipe(folder, "mask.vpy", "-c", "y4m", "-e", "0", "-")
    stops = np.frombuffer(vspipe(folder, "mask.vpy", "-o", "1", "-e", "0", "-"), np.float32).reshape(HEIGHT, WIDTH)
    _, blue, red = np.frombuffer(overlay.partition(b"FRAME\n")[2], np.uint8).reshape(3, HEIGHT, WIDTH).astype(int) - 128
    colourful = (np.abs(blue) + np.abs(red) > 12)[HEIGHT // 4 :]  # below the caption
    assert (colourful == (stops > 0.1)[HEIGHT // 4 :]).mean() > 0.97
    assert colourful.any() and not colourful.all()


def test_chunks_as_av1an_asks_for_them_are_the_whole(folder: Path) -> None:
    """Information first, then chunks, several at a time: one process trains, and the chunks make up the clip."""
    own = {**environment(folder), "VSZHDRV_CACHE": str(folder / "av1an")}
    script = folder / "examples" / "hdr10.vpy"

    def begin(*arguments: str) -> subprocess.Popen[bytes]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(["vspipe", script, "-c", "y4m", *arguments], cwd=folder, env=own, **pipes)

    asked = [("-i",), ("-", "-s", "0", "-e", "3"), ("-", "-s", "4", "-e", str(LENGTH - 1))]
    ended = [(process, *process.communicate(timeout=LIMIT)) for process in [begin(*arguments) for arguments in asked]]
    assert [process.returncode for process, *_ in ended] == [0, 0, 0], [said for *_, said in ended]
    assert b"".join(said for *_, said in ended).count(b"training takes about") == 1
    (_, information, _), *chunks = ended
    assert f"Frames: {LENGTH}\n".encode() in information
    _, whole = vspipe(folder, "hdr10.vpy", "-c", "y4m", "-").split(b"\n", 1)
    assert b"".join(stream.split(b"\n", 1)[1] for _, stream, _ in chunks) == whole


@needs_ffmpeg
@pytest.mark.parametrize(("script", "transfer"), [("hdr10", "smpte2084"), ("hlg", "arib-std-b67")])
def test_the_command_in_the_script_makes_a_tagged_file(folder: Path, script: str, transfer: str) -> None:
    text = (folder / "examples" / f"{script}.vpy").read_text()
    lines = re.findall(r"^    (.+)$", text.split('"""')[1], re.MULTILINE)
    command = "set -o pipefail\n" + "\n".join(lines).replace("vspipe ", "vspipe -e 1 ", 1)
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=folder, env=environment(folder), timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr

    probe = ["ffprobe", "-v", "error", "-of", "json", "-show_streams", "-show_frames", f"room_{script}.mp4"]
    found = json.loads(subprocess.run(probe, capture_output=True, check=True, cwd=folder).stdout)
    (stream,), frames = found["streams"], found["frames"]
    assert len(frames) == 2
    wanted = {
        "codec_name": "hevc",
        "codec_tag_string": "hvc1",
        "pix_fmt": "yuv420p10le",
        "color_range": "tv",
        "color_primaries": "bt2020",
        "color_transfer": transfer,
        "color_space": "bt2020nc",
        "chroma_location": "topleft",
    }
    assert {name: stream[name] for name in wanted} == wanted
    side = {data["side_data_type"]: data for data in frames[0].get("side_data_list", [])}
    if script == "hdr10":
        assert side["Content light level metadata"]["max_content"] == 1000
        assert side["Mastering display metadata"]["max_luminance"] == "10000000/10000"
    else:
        assert not any("light level" in kind for kind in side)
