"""Several processes that train one network: their weights are those that one process trains.

tests/pipeline/test_parallel.py has the command line's way there.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vszhdrv.store import weight_files
from vszhdrv.zhdrv import choosing
from vszhdrv.zhdrv.config import Architecture, Config
from vszhdrv.zhdrv.footage import TrainingFrames
from vszhdrv.zhdrv.network import Lattice, new_network
from vszhdrv.zhdrv.parallel import Shared, Team, Work
from vszhdrv.zhdrv.training import Progress, train

CPU = torch.device("cpu")
PAPER = replace(Config.from_preset("paper", epochs=1), widths=(4, 8, 8), crop=32)
FAST = replace(Config.from_preset("fast", epochs=2), widths=(4, 8, 8), crop=16, steps_per_epoch=5)

# Process 0 reads what is to be done; every process writes what it has in the end. All are forks of one that has loaded
# torch (with the part that it loads at an optimiser's first step), which takes the longest here.
SCRIPT = """
import os, pickle, sys
from collections import deque
from pathlib import Path
import torch, torch._dynamo
from vszhdrv.zhdrv import parallel, training

folder, count, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
rank = next((rank for rank in range(1, size) if os.fork() == 0), 0)
os.environ["RANK"] = str(rank)
os.environ["WORLD_SIZE"] = str(size)
ends = []
with parallel.joined() as team:
    works = torch.load(folder / "works", weights_only=False) if team.rank == 0 else []
    for number in range(count):
        if team.rank == 0:
            team.send(*works[number])
        work = works[number] if team.rank == 0 else team.receive()
        (progress,) = deque(training.train(*work, team), maxlen=1)
        ends.append((progress.weights, progress.best, [{**row, "seconds": 0} for row in progress.rows]))
(folder / str(team.rank)).write_bytes(pickle.dumps(ends))
if rank == 0 and any(os.wait()[1] for _ in range(1, size)):
    sys.exit("a process failed")
"""


def panning(dtype: torch.dtype = torch.uint8, height: int = 24, width: int = 20) -> TrainingFrames:
    """A ramp that moves through three frames, a part of it clipped; the last travels with its predecessor."""
    x = torch.arange(width) / width
    shades = torch.stack([(x.roll(3 * n) * 1.3).clamp(max=1) for n in range(3)])
    pixels = shades[:, None, None, :] * torch.tensor([1.0, 0.9, 0.7])[:, None, None] * torch.ones(height, 1)
    _, pairs = choosing.with_successors(range(3), 3)
    return TrainingFrames((pixels * (255 if dtype == torch.uint8 else 65535)).round().to(dtype), pairs)


def alone(work: Work) -> Progress:
    (progress,) = deque(train(*work), maxlen=1)
    return progress


def together(folder: Path, size: int, works: list[Work]) -> list[list[Any]]:
    """What each of `size` processes has at the end of each work."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    torch.save(works, folder / "works")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, script, folder, str(len(works)), str(size)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **meet})
    assert done.returncode == 0, done.stderr
    return [pickle.loads((folder / str(rank)).read_bytes()) for rank in range(size)]


def test_they_learn_what_one_learns(tmp_path: Path) -> None:
    deep = panning(torch.uint16)
    deep = replace(deep, pixels=deep.pixels[..., 2:-2, :])  # as of a picture without its bars: not contiguous
    state: dict[str, Any] = {}
    for progress in train(panning(), PAPER, CPU, "fp32"):
        if progress.step == 7:
            weight_files.write_state(tmp_path / "state", progress.state())
            state = weight_files.read_state(tmp_path / "state")
            break
    works = [
        Work(panning(), PAPER, CPU, "fp32", None),
        Work(panning(), PAPER, CPU, "fp32", state),  # what one has begun
        Work(deep, FAST, CPU, "fp32", None),
        Work(panning(), replace(FAST, second_round=0.5), CPU, "fp32", None),
    ]
    first, second = together(tmp_path, 2, works)
    for work, ours, theirs in zip(works, first, second, strict=True):
        weights, best, rows = ours
        expected = alone(work)
        assert all(torch.equal(weights[name], theirs[0][name]) for name in weights)
        assert rows == theirs[2]
        for name in weights:
            torch.testing.assert_close(weights[name], expected.weights[name], rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(best[name], expected.best[name], rtol=1e-3, atol=1e-4)
        for row, wanted in zip(rows, expected.rows, strict=True):
            assert row == pytest.approx({**wanted, "seconds": 0}, rel=1e-3)


def test_shares_need_not_be_equal(tmp_path: Path) -> None:
    work = Work(panning(), FAST, CPU, "fp32", None)
    ends = together(tmp_path, 3, [work])
    expected = alone(work).weights
    for ((weights, *_),) in ends:
        for name in weights:
            assert torch.equal(weights[name], ends[0][0][0][name])
            torch.testing.assert_close(weights[name], expected[name], rtol=1e-3, atol=1e-4)


def test_the_gradients_of_all_shares_add_up_to_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without processes: each share in turn, with what all_reduce would have brought from the others."""
    network, lattice = new_network(Architecture((4, 8), "stops", 4), seed=0), Lattice(2, 1, 0)
    x = torch.rand(5, 3, 16, 24).sqrt()
    truth = torch.rand(5, 3, 8, 12)
    parameters = list(network.parameters())

    def loss(predictions: torch.Tensor) -> torch.Tensor:
        return ((predictions - truth) ** 2).mean().sqrt() + (predictions[1:] - predictions[:-1]).abs().mean()

    whole = network(x, lattice).detach()
    expected = torch.autograd.grad(loss(network(x, lattice)), parameters)
    monkeypatch.setattr(Team, "all_reduce", lambda self, tensor: tensor.copy_(whole))
    found = [torch.zeros_like(parameter) for parameter in parameters]
    for rank in range(3):
        predictions = Shared(network, Team(rank, 3, None))(x, lattice)
        torch.testing.assert_close(predictions.detach(), whole)
        for total, own in zip(found, torch.autograd.grad(loss(predictions), parameters), strict=True):
            total += own
    assert any(gradient.abs().max() > 1e-4 for gradient in expected)
    torch.testing.assert_close(tuple(found), expected)


def test_cards_are_taken_where_they_compute_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL opens a card for every process that it is told of, also where they compute on the processor."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr("vszhdrv.zhdrv.parallel.dist.new_group", lambda **options: asked.append(options) or "cards")
    monkeypatch.setattr("vszhdrv.zhdrv.parallel.dist.broadcast_object_list", lambda *_, **__: None)
    monkeypatch.setattr("vszhdrv.zhdrv.parallel.dist.broadcast", lambda *_, **__: None)
    reduced: list[Any] = []
    monkeypatch.setattr("vszhdrv.zhdrv.parallel.dist.all_reduce", lambda tensor, group: reduced.append(group))
    team = Team(0, 2, None)
    for device in ("cpu", "cuda", "cuda"):
        team.send(panning(), FAST, torch.device(device), "fp32", None)
        team.all_reduce(torch.ones(1))
    assert [options["backend"] for options in asked] == ["nccl"]
    assert reduced == [None, "cards", "cards"]


@pytest.mark.parametrize(
    ("config", "most"),
    [
        (Config.from_preset("fast"), 4),
        (Config.from_preset("paper"), 2),
        (Config.from_preset("paper", alpha=0.0, still=True), 1),
    ],
)
def test_no_more_processes_than_a_step_has_pictures(config: Config, most: int) -> None:
    Team(0, most, None).check(config)
    with pytest.raises(ValueError, match=rf"must be at most {most} .* preset {config.preset}, .*, not {most + 1}"):
        Team(0, most + 1, None).check(config)


@pytest.mark.parametrize("name", ["cuda:0", "mps", "tpu"])
def test_a_device_each(name: str) -> None:
    assert Team(1, 2, None).device("cpu") == "cpu"
    with pytest.raises(ValueError, match=f"device must be auto, cuda or cpu where 2 processes train, not '{name}'"):
        Team(1, 2, None).device(name)


def test_a_card_each(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert Team(5, 8, None).device("auto") == "cuda:1" and chosen == [1]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="at most the number of cards here"):
        Team(5, 8, None).device("cuda")
