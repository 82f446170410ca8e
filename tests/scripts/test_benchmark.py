"""The benchmark runs, on tiny sizes, and its baseline is the paper's recipe."""

import argparse
import json
from pathlib import Path

import benchmark
import numpy as np
import pytest
import torch

from vszhdrv.zhdrv import camera, exposures
from vszhdrv.zhdrv.config import Architecture, Config
from vszhdrv.zhdrv.network import new_network


def test_the_baseline_has_the_papers_network() -> None:
    paper = Config.from_preset("paper")
    ours = new_network(paper.architecture, 0)
    count = sum(parameter.numel() for parameter in benchmark.Baseline().parameters())
    assert count == sum(parameter.numel() for parameter in ours.parameters())


def test_the_baselines_merge_is_the_papers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "srgb", lambda value: value**camera.GAMMA)
    generator = torch.Generator().manual_seed(0)
    stack = {k: torch.rand(1, 3, 6, 8, generator=generator) for k in (-1, 0, 1)}
    plain = benchmark.merge({k: x[0].permute(1, 2, 0).numpy() for k, x in stack.items()})
    ours = exposures.merge(stack)[0].permute(1, 2, 0).numpy()
    assert np.allclose(plain, ours, rtol=1e-3, atol=1e-5)


def test_figures_as_a_table_and_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "speed.json"
    arguments = ["train", "peak", "--size", "64x64", "--device", "cpu", "--rounds", "1", "--json", str(path)]
    benchmark.main(arguments)
    results = json.loads(path.read_text())["results"]
    parts = ["fast, first round", "fast, consensus of a frame", "fast, second round"]
    assert [row["case"] for row in results["train"]] == [*parts, "paper", "baseline"]
    assert all(row["ms"] > 0 and row["cpu ms"] > 0 for row in results["train"])
    fast, paper, baseline = results["train"][:3], *results["train"][3:]
    assert fast[0]["steps"] < paper["steps"] == baseline["steps"]
    assert {row["whole training, s"] for row in fast} == {sum(row["all of them, s"] for row in fast)}
    whole = [row for row in results["peak"] if "channels" not in row["case"]]
    parts = ["the network", "a training step"]
    assert [row["case"] for row in whole] == [f"{preset}: {part}" for preset in ("fast", "paper") for part in parts]
    # twice as much where half of the multiplications are spared
    assert all(row["of the best"] < (3 if row["case"] == "paper: the network" else 1.5) for row in whole)
    assert [row["of the best"] for row in results["peak"]].count(1) == len(whole)  # the best convolution of each
    assert "| case | ms | cpu ms |" in capsys.readouterr().out


def test_the_networks_multiply_adds_are_counted() -> None:
    """By hand: 16 blocks of 2x2 pixels, widths 4 and 8."""
    network = new_network(Architecture((4, 8), "stops", 2), 0)
    adds, _ = benchmark.multiply_adds(lambda: network(torch.rand(1, 3, 8, 8)))
    fine = 16 * 9 * 4 * 24
    coarse = 4 * 9 * 8 * 4 + 4 * 9 * 4 * 8
    assert adds == fine + coarse + 16 * 9 * 4 * 8 + 16 * 4 * 12


def test_sizes() -> None:
    assert benchmark.size("448x256") == (448, 256)
    with pytest.raises(argparse.ArgumentTypeError, match="must be WIDTHxHEIGHT, 16x16 or more, not '4x4'"):
        benchmark.size("4x4")
