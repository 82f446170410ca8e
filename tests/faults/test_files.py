"""Files that are damaged, hostile, or can't be read or written: replaced or refused in one sentence, never believed."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vszhdrv import exr, files, light
from vszhdrv.files import Damaged
from vszhdrv.store import weight_files
from vszhdrv.store.store import Store

KEY = "a" * 32
WEIGHTS = {"w": torch.ones(3)}

posix = pytest.mark.skipif(sys.platform == "win32", reason="named pipes and rights are POSIX's")


def mutations(content: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """Changed bits and bytes, cuts, numbers of eight bytes that no parser likes, and parts moved."""
    rng = random.Random(seed)
    numbers = (0, 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1)
    for n in range(count):
        changed = bytearray(content)
        at = rng.randrange(len(changed)) if n % 2 else rng.randrange(min(len(changed), 900))
        if n % 5 == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif n % 5 == 1:
            changed[at : at + 8] = struct.pack("<Q", rng.choice(numbers))
        elif n % 5 == 2:
            changed[at : at + 4] = b"\xff\xff\xff" + bytes([rng.randrange(256)])
        elif n % 5 == 3:
            del changed[at:]
        else:
            changed[at:at] = bytes(rng.randrange(1, 9))
        yield bytes(changed)


# EXR files


def frame() -> np.ndarray:
    return np.random.default_rng(0).random((3, 20, 33), np.float32)


def test_no_damage_of_an_exr_raises_and_every_damaged_one_can_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.0001.exr"
    exr.write(path, frame(), exr.Header())
    whole = path.read_bytes()
    refused = 0
    for content in mutations(whole, 1500):
        path.write_bytes(content)
        refused += not exr.is_valid(path, 33, 20)
    assert refused > 500
    path.write_bytes(whole[:200] + b"\xff" * 300 + whole[500:])
    assert exr.write(path, frame(), exr.Header()).written and path.read_bytes() == whole


@posix
def test_a_named_pipe_among_the_frames_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.0001.exr"
    os.mkfifo(path)
    with pytest.raises(OSError, match=r"is not a regular file"):
        exr.write(path, frame(), exr.Header())


# Networks and states in the store


def trained(cache: Path) -> Path:
    with Store(cache, pytest.fail).training(KEY, pytest.fail) as slot:
        stored = slot.finish(WEIGHTS, WEIGHTS, {"clip": "x"})
    assert stored is not None
    return stored.path


def test_no_damage_of_a_network_is_believed(tmp_path: Path) -> None:
    path = trained(tmp_path)
    for content in mutations(path.read_bytes(), 500):
        path.write_bytes(content)
        with pytest.raises(Damaged):
            weight_files.read(path)


def test_no_damage_of_a_state_blocks_its_clip(tmp_path: Path) -> None:
    path = tmp_path / "networks" / f"{KEY}.state"
    weight_files_state = {"step": 3, "weights": {"a": torch.ones(8)}, "rows": [{"x": 1.0}]}
    path.parent.mkdir()
    weight_files.write_state(path, weight_files_state)
    whole = path.read_bytes()
    warnings: list[str] = []
    store = Store(tmp_path, warnings.append)
    with store.training(KEY, pytest.fail) as slot:
        for content in mutations(whole, 300):
            path.write_bytes(content)
            slot.state()
    assert len(warnings) > 150 and all("set aside as" in text for text in warnings)


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
@posix
def test_what_is_no_file_is_left_alone_with_a_sentence(tmp_path: Path, kind: str) -> None:
    make: dict[str, Callable[[Path], object]] = {
        "folder": Path.mkdir, "pipe": os.mkfifo, "link": lambda path: path.symlink_to(path.name)
    }  # fmt: skip
    networks = tmp_path / "networks"
    networks.mkdir()
    for name in (f"{KEY}.state", f"{KEY}.safetensors"):
        make[kind](networks / name)
    warnings: list[str] = []
    store = Store(tmp_path, warnings.append)
    assert store.find(KEY) is None and len(warnings) == 1 and "it is not used" in warnings[0]
    with store.training(KEY, pytest.fail) as slot:
        assert slot.found is None and slot.state() is None
        slot.save_state({"step": 1})
        slot.finish(WEIGHTS, WEIGHTS, {})
    assert any("training begins anew" in text for text in warnings)
    assert store.entries() == [] or kind != "folder"
    assert all(text.count("\n") == 0 for text in warnings)


READ_AS_NOBODY = """
import os, sys
from pathlib import Path
from vszhdrv.store.store import Store
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
store = Store(Path(sys.argv[1]), print)
print(store.find(sys.argv[2]))
"""


@posix
def test_another_users_files_are_told_and_not_taken_for_missing(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:-1]):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    path = trained(tmp_path)
    weight_files.write_state(path.with_suffix(".state"), {"step": 1})
    for file in (path, path.with_suffix(".state")):
        file.chmod(0)
    command = [sys.executable, "-c", READ_AS_NOBODY, str(tmp_path), KEY]
    said = subprocess.run(command, capture_output=True, text=True, timeout=240).stdout
    assert said == f"{path} can't be read (Permission denied); it is not used\nNone\n"


EVICTED = """
import sys
from pathlib import Path
from vszhdrv.store.store import Store
cache, key = Path(sys.argv[1]), sys.argv[2]
found = Store(cache, print).find(key)
print("found", flush=True)
sys.stdin.readline()
print(found.path.exists(), float(found.tensors()["w"].sum()))
"""


def test_a_network_that_another_process_evicts_stays_with_whoever_has_found_it(tmp_path: Path) -> None:
    trained(tmp_path)
    command = [sys.executable, "-c", EVICTED, str(tmp_path), KEY]
    finder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert finder.stdout is not None and finder.stdout.readline() == "found\n"
    assert Store(tmp_path, pytest.fail).evict(0) == [KEY]
    assert finder.communicate("\n", timeout=240)[0] == "False 3.0\n"


# The listings


@posix
def test_the_listing_believes_no_header_and_no_name(tmp_path: Path) -> None:
    networks = tmp_path / "networks"
    hostile = {"facts": "[]", "preset": "\x1b[31mred\u202e", "log": "{", "overlays": "[" * 100_000, "k\x1b": "v\r\n"}
    weight_files.write_weights(networks_made(networks) / f"{KEY}.safetensors", WEIGHTS, hostile)
    trained_other = networks / f"{'b' * 32}.safetensors"
    weight_files.write_weights(trained_other, WEIGHTS, {"facts": '{"settings": {"preset": "fast"}}'})
    (networks / f"{'c' * 32}.safetensors").mkdir()
    os.mkfifo(networks / f"{'d' * 32}.safetensors")
    (networks / "\x1b[2J.safetensors").touch()
    (networks / f"{'e' * 32}.safetensors").write_bytes(b"\xff" * 100)
    for words in (["list"], ["show", "aaa"]):
        command = [sys.executable, "-m", "vszhdrv", "cache", *words, "--cache", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
        assert not any(ord(c) < 32 and c != "\n" for c in done.stdout + done.stderr) and "\u202e" not in done.stdout
        if words == ["list"]:
            lines = {line[0]: line for line in done.stdout.splitlines()}
            assert set(lines) == set("abe")
            assert "settings that can't be read" in lines["a"] and "preset fast" in lines["b"]


def networks_made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


# Light levels


def test_no_damage_of_light_levels_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "l.npz"
    levels = light.ClipLight(5, 160, 96)
    levels.add(0, light.FrameLight(1.0, 0.5, (1.0, 1.0, 1.0), (0, 0, 160, 96)))
    levels.save(path, "key")
    whole = path.read_bytes()
    for content in mutations(whole, 300):
        path.write_bytes(content)
        light.ClipLight.load(path, "key")
    path.write_bytes(whole)
    assert light.ClipLight.load(path, "key") is not None and light.ClipLight.load(path, "other") is None


# Whole runs: a folder of pictures, few steps


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "shot"
    folder.mkdir()
    for n in range(4):
        ramp = np.clip((np.arange(64) + 3 * n) % 64 * 6, 0, 255).astype(np.uint8)
        Image.fromarray(np.broadcast_to(ramp[None, :, None], (48, 64, 3)).copy()).save(folder / f"{n}.png")
    return folder


def zhdrv(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vszhdrv", *map(str, words)]
    own = {"HOME": cwd / "home", "TMPDIR": cwd / "tmp", "VSZHDRV_CACHE": cwd / "cache"}
    for name in ("HOME", "TMPDIR"):
        own[name].mkdir(exist_ok=True)
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **{name: str(folder) for name, folder in own.items()}}
    return subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=cwd, env=variables)


@posix
@pytest.mark.slow
def test_a_run_folder_mends_itself(pictures: Path, tmp_path: Path) -> None:
    words = (pictures, "--epochs", "1")
    assert (first := zhdrv(*words, cwd=tmp_path)).returncode == 0, first.stderr
    (run,) = (tmp_path / "runs").iterdir()
    frames = sorted(run.glob("*_exr/*.exr"))
    whole = [path.read_bytes() for path in frames]
    last = run / "ckpt" / "last.safetensors"
    # what a damaged disk, a kill, and a refused right have left
    frames[1].write_bytes(whole[1][:200] + b"\xff" * 300 + whole[1][500:])
    last.unlink()
    (network,) = (path for path in (tmp_path / "cache" / "networks").glob("*.safetensors") if ".last" not in path.name)
    left = [run / f".params.csv.0123abcd{files.PART}", run / "ckpt" / f".best.safetensors.0123abcd{files.PART}"]
    left += [frames[0].parent / f".{frames[0].name}.0123abcd{files.PART}"]
    for part in left:
        part.write_bytes(b"unfinished")
        os.utime(part, (time.time() - 3600,) * 2)
    again = zhdrv(*words, cwd=tmp_path)
    assert again.returncode == 0 and "3 of 4 frames are there already" in again.stderr, again.stderr
    assert [path.read_bytes() for path in frames] == whole
    kept = weight_files.read(network.with_suffix(".last.safetensors")).tensors()
    assert all(torch.equal(kept[name], tensor) for name, tensor in weight_files.read(last).tensors().items())
    assert not any(part.exists() for part in left)
    # one bit of the network's header
    content = bytearray(network.read_bytes())
    content[content.index(b"encoder.0")] ^= 1
    network.write_bytes(content)
    third = zhdrv("train", *words, cwd=tmp_path)
    assert third.returncode == 0 and "set aside as" in third.stderr, third.stderr
    assert weight_files.read(network).metadata["clip_point"]


@posix
@pytest.mark.slow
def test_light_levels_that_cannot_be_kept_are_told(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "light").touch()  # a file where the folder should be
    done = zhdrv("levels", pictures, "--epochs", "1", cwd=tmp_path)
    assert done.returncode == 0 and "MaxCLL" in done.stdout
    assert done.stderr.count("the light levels are not kept: ") == 1


@posix
def test_a_named_pipe_as_input_is_one_sentence(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "clip.mp4")
    done = zhdrv(tmp_path / "clip.mp4", cwd=tmp_path)
    assert done.returncode == 2 and "INPUT must be a file that can be read twice" in done.stderr
    assert done.stderr.count("\n") == 1
