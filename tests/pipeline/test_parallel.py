"""`torchrun -m vszhdrv train`: one network, one store, one voice, whatever happens to one of the processes."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vszhdrv.store import weight_files

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m"]
TRAIN = ["vszhdrv", "train", "shot", "--device", "cpu"]
LIMIT = 240.0


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the clip `shot`; one thread for each process, which is what torchrun gives them, too."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "shot").mkdir()
    for n in range(4):
        ramp = np.clip((np.arange(48) + 3 * n) % 48 / 48 * 1.33 * 255, 0, 255).astype(np.uint8)
        Image.fromarray(ramp[None].repeat(32, axis=0)).convert("RGB").save(tmp_path / "shot" / f"{n}.png")
    return tmp_path


def run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, cwd=folder, env=own)


def ours(said: str) -> list[str]:
    """What we say; torchrun has a report of its own about processes that fail."""
    return [line for line in said.splitlines() if line.startswith("zhdrv: ")]


def stored(cache: Path) -> list[str]:
    return sorted(path.name.split(".", 1)[1] for path in (cache / "networks").iterdir() if path.suffix != ".lock")


def losses(run: Path) -> list[float]:
    with (run / "logs.csv").open() as file:
        return [float(row["total"]) for row in csv.DictReader(file)]


def test_two_processes_leave_what_one_leaves(folder: Path) -> None:
    options = ["--epochs", "1"]
    alone = run(folder, sys.executable, "-m", *TRAIN, *options, "--runs", "alone", VSZHDRV_CACHE=str(folder / "one"))
    assert alone.returncode == 0, alone.stderr
    command = [*TORCHRUN, *TRAIN, *options, "--runs", "together"]
    together = run(folder, *command, VSZHDRV_CACHE=str(folder / "two"))
    assert together.returncode == 0, together.stderr
    assert together.stdout == ""

    told = [
        [line for line in ours(done.stderr) if "folder" not in line and "takes" not in line and "done" not in line]
        for done in (alone, together)
    ]
    assert told[0] == told[1]
    (one,), (two,) = (list((folder / name).iterdir()) for name in ("alone", "together"))
    assert one.name == two.name  # the same key
    assert losses(two) == pytest.approx(losses(one), rel=1e-3)
    assert stored(folder / "two") == ["last.safetensors", "safetensors"]
    found = weight_files.read(two / "ckpt" / "best.safetensors")
    weights, metadata = found.tensors(), found.metadata
    expected = weight_files.read(one / "ckpt" / "best.safetensors").tensors()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0.02, atol=5e-3)
    assert metadata["processes"] == "2"

    again = run(folder, *command, VSZHDRV_CACHE=str(folder / "two"))
    assert again.returncode == 0, again.stderr
    assert len(ours(again.stderr)) == 2 and "training" not in again.stderr


class Torchrun:
    """A training of two processes that would take long, once it is under way."""

    def __init__(self, folder: Path) -> None:
        command = [*TORCHRUN, *TRAIN, "--epochs", "1000"]
        self.process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
        self.said = ""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line
            if "training takes about" in line:
                return
        pytest.fail(self.said)

    def worker(self, rank: int) -> int:
        """The process number of one of the two."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        (found,) = (
            int(child) for child in children if f"\0RANK={rank}\0" in "\0" + Path(f"/proc/{child}/environ").read_text()
        )
        return found

    def end(self) -> int:
        _, rest = self.process.communicate(timeout=LIMIT)
        self.said += rest
        return self.process.returncode


def step(cache: Path) -> int:
    (state,) = cache.rglob("*.state")
    return int(weight_files.read_state(state)["step"])


def test_two_processes_train_the_places_of_a_film_in_turn(folder: Path, own_cache: Path) -> None:
    table = folder / "cuts.csv"
    table.write_text("first,place\n0,a\n2,b\n")
    done = run(folder, *TORCHRUN, *TRAIN, "--epochs", "1", "--runs", "runs", "--shots", str(table))
    assert done.returncode == 0, done.stderr
    assert stored(own_cache) == ["last.safetensors", "last.safetensors", "safetensors", "safetensors"]
    (left,) = (folder / "runs").iterdir()
    assert {path.name for path in (left / "ckpt").iterdir()} == {"best.safetensors", "place_000", "place_001"}


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes in /proc")
@pytest.mark.slow
def test_one_that_dies_ends_all_with_one_sentence_and_the_next_goes_on(folder: Path, own_cache: Path) -> None:
    for killed in (1, 0):
        torchrun = Torchrun(folder)
        before = ours(torchrun.said)
        os.kill(torchrun.worker(killed), signal.SIGKILL)
        assert torchrun.end() != 0
        after = [line for line in ours(torchrun.said)[len(before) :] if not line.startswith("zhdrv: training ")]
        assert len(after) == 1, torchrun.said
        (sentence,) = after
        assert sentence.startswith("zhdrv: another process of this training has ended")
        assert "Traceback" not in torchrun.said.split("zhdrv: another")[0]
        if killed == 1:
            reached = step(own_cache)
            assert reached > 0

    torchrun = Torchrun(folder)
    (begun,) = re.findall(r"zhdrv: going on from step (\d+) of", torchrun.said)
    assert int(begun) >= reached
    torchrun.process.send_signal(signal.SIGINT)
    assert torchrun.end() != 0
    assert ours(torchrun.said)[-1] == "zhdrv: interrupted; the same command goes on from what is saved"
    assert step(own_cache) > int(begun)
    assert stored(own_cache) == ["state"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--preset", "paper", "--alpha", "0"],
            "--nproc-per-node must be at most 1 (over all nodes) with preset paper",
        ),
        (["--device", "cuda:0"], "device must be auto, cuda or cpu where 2 processes train, not 'cuda:0'"),
        (["--epochs", "many"], "--epochs: must be a whole number, not 'many'"),
    ],
)
def test_errors_are_told_once(folder: Path, arguments: list[str], words: str) -> None:
    done = run(folder, *TORCHRUN, *TRAIN, *arguments)
    assert done.returncode != 0
    assert [words in line for line in ours(done.stderr)] == [True], done.stderr
    assert not (folder / "runs").exists()
