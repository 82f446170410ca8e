"""core.zhdrv.Expand under vspipe and under python: real processes, real training, real frames."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

WIDTH, HEIGHT, LENGTH = 64, 48, 6
LIMIT = 120.0

CLIP = f"""
import sys
import vapoursynth as vs
from vapoursynth import core

# a ramp that moves; its bright end is clipped
steps = [core.std.BlankClip(width=4, height={HEIGHT}, length=1, format=vs.RGB24, color=[min(255, 16 * k)] * 3)
         for k in range({WIDTH // 4 + LENGTH})]
ramp = core.std.StackHorizontal(steps)
clip = core.std.Splice([ramp.std.CropAbs({WIDTH}, {HEIGHT}, left=4 * n) for n in range({LENGTH})])
clip = clip.std.AssumeFPS(fpsnum=30000, fpsden=1001)
clip = clip.resize.Bicubic(format=vs.YUV444P8, matrix_s="709", transfer_in_s="709", primaries_in_s="709")
def told(*words):
    print(*words, file=sys.stderr)
"""
EXPAND = CLIP + "hdr = core.zhdrv.Expand(clip, epochs=1, device='cpu', seed=2, graphics='off')\n"
FRAMES = """
def frames(clip, order):
    got = {n: clip.get_frame(n) for n in order}
    return b"".join(bytes(got[n][p]) for n in range(clip.num_frames) for p in (1, 2, 0))
"""

Process = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts, a cache of networks, and what vspipe writes down about Python."""
    return tmp_path_factory.mktemp("expand")


@pytest.fixture(scope="module")
def run(home: Path) -> Process:
    """Runs a script's text: run("vspipe", text, "--info") or run("python", text)."""
    scripts = Path(sys.executable).parent

    def run(program: str, script: str, *arguments: str, cache: str = "cache") -> subprocess.CompletedProcess[bytes]:
        file = home / "script.vpy"
        file.write_text(script)
        environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(scripts), os.environ["PATH"]]),
            "XDG_CONFIG_HOME": str(home),
            "VSZHDRV_CACHE": str(home / cache),
            "OMP_NUM_THREADS": "1",  # pictures this small train fastest in one thread
        }
        command = [sys.executable if program == "python" else str(scripts / program), str(file), *arguments]
        return subprocess.run(command, capture_output=True, timeout=LIMIT, env=environment)

    return run


@pytest.fixture(scope="module")
def trained(run: Process) -> subprocess.CompletedProcess[bytes]:
    """The whole clip through vspipe, trained on the way: its frames, as vspipe writes them, and what it said."""
    return run("vspipe", EXPAND + "hdr.set_output()\n", "-")


def test_vspipe_trains_and_pipes_every_frame(trained: subprocess.CompletedProcess[bytes], home: Path) -> None:
    assert trained.returncode == 0, trained.stderr.decode()
    hdr = np.frombuffer(trained.stdout, np.float32).reshape(LENGTH, 3, HEIGHT, WIDTH)  # G, B, R
    assert np.isfinite(hdr).all()
    assert hdr.max() > 1.2
    # the columns of code 16 * k, linearised as BT.1886 shows them (gamma 2.4), are untouched below white
    codes = np.minimum(255, 16 * (np.arange(LENGTH)[:, None] + np.arange(WIDTH) // 4))
    source = (codes / 255) ** 2.4
    exposed = codes < 240
    columns = hdr[:, 0].mean(axis=1)
    assert np.abs(columns - source)[exposed].max() < 0.02
    assert (hdr[:, 0].min(axis=1)[~exposed] > 0.8).all()
    names = {path.name.split(".", 1)[1] for path in (home / "cache" / "networks").iterdir()}
    assert {"safetensors", "last.safetensors"} <= names <= {"safetensors", "last.safetensors", "lock"}


def test_a_second_evaluation_finds_the_network_without_torch(
    trained: subprocess.CompletedProcess[bytes], run: Process
) -> None:
    script = EXPAND + "told('torch' in sys.modules)\nhdr.set_output()\n"
    info = run("vspipe", script, "--info")
    assert info.returncode == 0, info.stderr.decode()
    for line in (b"Width: 64", b"Height: 48", b"Frames: 6", b"FPS: 30000/1001", b"Format Name: RGBS"):
        assert line in info.stdout
    assert info.stderr.split() == [b"False"]


def test_python_finds_and_trains_the_same_bits_in_any_order(
    trained: subprocess.CompletedProcess[bytes], run: Process
) -> None:
    write = "sys.stdout.buffer.write(frames(hdr, [4, 0, 5, 2, 2, 1, 3]))\n"
    again = EXPAND.replace("seed=2", "seed=2, train=False") + FRAMES + write
    anew = "hdr = core.zhdrv.Expand(clip, epochs=1, device='cpu', seed=2, graphics='off', cache='')\n"
    done = run("python", again + anew + write)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == trained.stdout * 2


REFUSALS = {
    "preset='slow'": "preset must be one of paper, fast, draft, not 'slow'",
    "epochs=0": "epochs must be from 1 to 100000, not 0",
    "strength=2.0": "strength must be from 0 to 1, not 2.0",
    "weights='/nowhere/net.safetensors'": "weights must be a file of a trained network, and "
    "/nowhere/net.safetensors: No such file or directory",
}


def test_each_refusal_is_a_sentence_under_vspipe_too(run: Process, home: Path) -> None:
    script = CLIP
    for arguments in REFUSALS:
        script += f"try: core.zhdrv.Expand(clip, {arguments})\nexcept vs.Error as error: told(error)\n"
    script += "core.zhdrv.Expand(clip[0])\n"
    done = run("vspipe", script, "--info", cache="refused")
    lines = done.stderr.decode().strip().splitlines()
    assert done.returncode != 0
    assert lines[: len(REFUSALS)] == [f"zhdrv.Expand: {sentence}" for sentence in REFUSALS.values()]
    said = "zhdrv.Expand: clip must have 2 frames or more, not 1: set still (--data_type image) to expand a picture"
    assert all(line.endswith(said) for line in lines[len(REFUSALS) :] if "zhdrv.Expand: " in line)
    assert lines[-1].endswith(said)
    assert not any("functions.py" in line or "job.py" in line for line in lines)
    assert not (home / "refused").exists()


def test_a_source_that_fails_while_it_is_learned_from_fails_the_script_in_its_own_words(
    run: Process, home: Path
) -> None:
    torn = """
def tear(n, f):
    if n == 18:
        raise OSError("the tape is torn")
    return f
clip = (clip * 7).std.ModifyFrame(clip * 7, tear)
core.zhdrv.Expand(clip, epochs=1, device="cpu").set_output()
"""
    done = run("vspipe", CLIP + torn, "-p", ".", cache="torn")
    assert done.returncode != 0
    assert b"the tape is torn" in done.stderr
    assert not [path for path in (home / "torn").rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_plain_script_whose_output_is_redirected_is_told_how_training_goes(run: Process) -> None:
    done = run("python", CLIP + "core.zhdrv.Expand(clip, epochs=1)\n", cache="told")
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 0, lines
    assert any(line.startswith("zhdrv: training 50 of 50") for line in lines)


def test_vspipe_is_told_once(run: Process) -> None:
    done = run("vspipe", CLIP + "core.zhdrv.Expand(clip, epochs=1).set_output()\n", "--info", cache="told once")
    lines = done.stderr.decode().splitlines()
    assert len([line for line in lines if "training 50 of 50" in line]) == 1
