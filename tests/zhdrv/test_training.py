"""The training loop: what it trains on, what it counts, and that it can be stopped, repeated and trusted."""

import copy
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from vszhdrv.store import weight_files
from vszhdrv.zhdrv import camera, choosing, compression, footage, losses, objectives, sampling, training, uneven
from vszhdrv.zhdrv.config import Config
from vszhdrv.zhdrv.consensus import Consensus
from vszhdrv.zhdrv.expansion import Expander
from vszhdrv.zhdrv.footage import TrainingFrames, Traits
from vszhdrv.zhdrv.network import network_of
from vszhdrv.zhdrv.training import Progress, Weights, train

CPU = torch.device("cpu")
PAPER = replace(Config.from_preset("paper", epochs=2, lr=2e-3), widths=(4, 8, 8), crop=32)
FAST = replace(Config.from_preset("fast", epochs=2), widths=(4, 8, 8), crop=16, steps_per_epoch=5)
TWO_ROUNDS = replace(FAST, second_round=0.5)
MUON = replace(TWO_ROUNDS, optimizer="muon")
BOTH = pytest.mark.parametrize("config", [PAPER, FAST, TWO_ROUNDS], ids=["paper", "fast", "two rounds"])


def panning(count: int = 3, height: int = 24, width: int = 20) -> TrainingFrames:
    """A ramp that moves, a part of it clipped; the last frame travels with its predecessor."""
    x = torch.arange(width) / width
    shades = torch.stack([(x.roll(3 * n) * 1.3).clamp(max=1) for n in range(count)])
    tint = torch.tensor([1.0, 0.9, 0.7])
    pixels = shades[:, None, None, :] * tint[:, None, None] * torch.ones(height, 1)
    _, pairs = choosing.with_successors(range(count), count)
    return TrainingFrames((pixels * 255).round().to(torch.uint8), pairs)


def trained(
    config: Config,
    frames: TrainingFrames | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    state: dict[str, Any] | None = None,
) -> Progress:
    (progress,) = deque(train(frames or panning(), config, CPU, precision, state), maxlen=1)
    return progress


def same(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@BOTH
def test_progress_counts_steps_and_epochs(config: Config) -> None:
    steps_per_epoch = config.steps_per_epoch or 3 * 7  # three frames under seven transforms
    seen = [
        (progress.step, progress.epoch, len(progress.rows), progress.steps)
        for progress in train(panning(), config, CPU, "fp32")
        if not progress.consulting
    ]
    steps = 2 * steps_per_epoch
    assert seen == [(n, n // steps_per_epoch, n // steps_per_epoch, steps) for n in range(1, steps + 1)]


@BOTH
def test_a_row_an_epoch(config: Config) -> None:
    progress = trained(config)
    assert [row["epoch"] for row in progress.rows] == [1, 2]
    for row in progress.rows:
        assert row.keys() == {"epoch", "total", "reconstruction", "temporal", "lr", "seconds"}
        expected = (1 - config.alpha) * row["reconstruction"] + config.alpha * row["temporal"]
        assert row["total"] == pytest.approx(expected, rel=1e-5)
        assert row["reconstruction"] > 0 and row["lr"] > 0
        assert (row["temporal"] > 0) == (config.alpha > 0)
    assert 0 < progress.rows[0]["seconds"] < progress.rows[1]["seconds"] == pytest.approx(progress.seconds)


def test_the_papers_losses_are_those_of_a_frame_and_its_successor() -> None:
    frames, config = panning(), replace(PAPER, lr=0.0, epochs=1, seed=3)
    row = {"reconstruction": 0.0, "temporal": 0.0}
    progress = trained(config, frames)
    visits = [crop for (crop,) in sampling.visits(frames, config, 0)]
    with torch.no_grad():
        for crop in visits:
            x = [sampling.cut(frames, place, crop, config.crop, CPU) for place in frames.pairs[crop.pair]]
            (o, after), (f, f_after) = ([camera.shift(y, crop.jitter_stops + stops) for y in x] for stops in (0, 2))
            delta, delta_after = (objectives.predicted(progress.network, y) for y in (f, f_after))
            row["reconstruction"] += losses.reconstruction(delta, o, f).item() / len(visits)
            row["temporal"] += losses.temporal(delta * f, delta_after * f_after, o, after).item() / len(visits)
    for name, value in row.items():
        assert progress.rows[0][name] == pytest.approx(value, rel=1e-3)


def test_without_alpha_the_paper_looks_at_no_successor() -> None:
    frames = panning()
    alone = TrainingFrames(frames.pixels, tuple((place, 10**6) for place, _ in frames.pairs))
    for progress in train(alone, replace(PAPER, alpha=0.0, epochs=1), CPU, "fp32"):
        assert progress.sums[2] == 0
    assert progress.rows[0]["total"] == progress.rows[0]["reconstruction"]


@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_a_single_still_is_enough(preset: str) -> None:
    config = replace({"fast": FAST, "paper": PAPER}[preset], alpha=0.0, still=True, epochs=1)
    progress = trained(config, panning(1))
    assert progress.epoch == 1
    assert all(tensor.isfinite().all() for tensor in progress.best.values())


@pytest.mark.parametrize("value", [0, 128, 255])
@BOTH
def test_black_grey_and_white_frames_leave_finite_weights(config: Config, value: int) -> None:
    frames = TrainingFrames(torch.full((2, 3, 20, 20), value, dtype=torch.uint8), ((0, 1), (1, 0)))
    progress = trained(config, frames)
    assert all(tensor.isfinite().all() for tensor in progress.weights.values())


@pytest.mark.parametrize("levelled", [False, True])
def test_a_compressed_clip_is_trained_on_compressed_pictures(monkeypatch: pytest.MonkeyPatch, levelled: bool) -> None:
    traits = Traits(compressed=True, levelled=levelled)
    frames, config = replace(panning(), traits=traits), replace(FAST, epochs=1)
    seen = []
    predicted = objectives.predicted
    monkeypatch.setattr(objectives, "predicted", lambda network, x, *at: predicted(network, seen.append(x) or x, *at))
    progress = trained(config, frames)
    drawn = [crop for crops in sampling.visits(frames, config, 0) for crop in crops]
    assert len(seen) == progress.steps
    first, _ = drawn[:2]
    assert first.coding is not None
    x = torch.cat([sampling.cut(frames, place, first, config.crop, CPU) for place in frames.pairs[first.pair]])
    (shift,) = sampling.bounded_shifts(x[:1], [first.shift_stops])
    coded = compression.coded(camera.shift(x, shift), *first.coding)
    assert torch.equal(seen[0][:: config.crops], uneven.levelled(coded) if levelled else coded)
    assert not same(progress.weights, trained(config, panning()).weights)


def test_of_larger_frames_the_losses_see_as_many_pixels_each_in_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, config = panning(height=80, width=90), replace(FAST, epochs=1).for_size(3840, 2160)
    seen = []
    truth = losses.truth
    monkeypatch.setattr(losses, "truth", lambda x, *told: seen.append(x) or truth(x, *told))
    trained(config, frames)
    assert config.crop == 4 * FAST.crop
    assert {x.shape for x in seen} == {(config.pictures, 3, FAST.crop, FAST.crop)}
    steps = list(sampling.visits(frames, config, 0))
    for x, crops in zip(seen, steps, strict=True):
        assert {crop.phase for crop in crops} == {crops[0].phase}
        row, column = crops[0].phase
        whole = sampling.cut(frames, frames.pairs[crops[0].pair][0], crops[0], config.crop, CPU)
        assert torch.equal(x[:1], whole[..., row::4, column::4])
    many = sampling.visits(frames, replace(config, steps_per_epoch=200), 0)
    assert len({crops[0].phase for crops in many}) == 16


@pytest.mark.parametrize(
    ("config", "better"), [(replace(PAPER, epochs=6), 0.9), (replace(FAST, steps_per_epoch=30, epochs=3), 0.9)]
)
def test_the_loss_falls(config: Config, better: float) -> None:
    rows = trained(config).rows
    assert rows[-1]["total"] < better * rows[0]["total"]


@BOTH
def test_the_pooling_mixes_are_trained_and_come_back_bit_for_bit(config: Config, tmp_path: Path) -> None:
    progress = trained(config)
    mixes = {name: tensor for name, tensor in progress.best.items() if "mix" in name}
    assert len(mixes) == 2
    assert all(tensor != 0.5 for tensor in mixes.values())
    assert len({tensor.item() for tensor in mixes.values()}) == 2

    weight_files.write_weights(tmp_path / "net.safetensors", progress.best, {})
    read = weight_files.read(tmp_path / "net.safetensors").tensors()
    assert same(read, progress.best)
    linear = np.random.default_rng(0).random((3, 17, 23), np.float32) * 1.2
    pictures = []
    for weights in (progress.best, read):
        pictures.append(linear.copy())
        Expander(network_of(weights, config.architecture), config, CPU, "fp32").brighten(list(pictures[-1]))
    assert np.array_equal(*pictures)


@BOTH
def test_the_seed_decides(config: Config) -> None:
    first = trained(config).weights
    assert same(first, trained(config).weights)
    assert not same(first, trained(replace(config, seed=1)).weights)


@pytest.mark.parametrize("still", [False, True], ids=["pairs", "still"])
def test_threads_that_share_a_step_make_the_step_of_one(still: bool, set_threads: Callable[[int], None]) -> None:
    config = replace(FAST, still=still, alpha=0.0 if still else FAST.alpha, batch=5 if still else 4)
    seen: list[tuple[list[torch.Tensor], list[float]]] = []
    for count in (1, 2, 3):  # three: more than there are pairs
        set_threads(count)
        progress = next(train(panning(), config, CPU, "fp32"))
        gradients = [parameter.grad for parameter in progress.network.parameters() if parameter.grad is not None]
        seen.append((gradients, list(progress.sums)))
        assert same(trained(config).weights, trained(config).weights)
    (whole, sums), *others = seen
    assert sums[0] > 0 and sum(float(gradient.abs().sum()) for gradient in whole) > 0
    for parts, its_sums in others:
        assert its_sums == pytest.approx(sums, rel=1e-5)
        for a, b in zip(parts, whole, strict=True):
            assert torch.allclose(a, b, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("config", [PAPER, FAST, TWO_ROUNDS, MUON], ids=["paper", "fast", "two rounds", "muon"])
@pytest.mark.parametrize("stop", [1, 3, 5, 7])
def test_a_stopped_training_goes_on_bit_for_bit(config: Config, stop: int, tmp_path: Path) -> None:
    path = tmp_path / "training.state"
    whole = trained(config)
    for progress in train(panning(), config, CPU, "fp32"):
        if progress.step == stop:
            weight_files.write_state(path, progress.state())
            break
    going_on = train(panning(), config, CPU, "fp32", weight_files.read_state(path))
    steps = [progress.step for progress in going_on if not progress.consulting]
    resumed = trained(config, state=weight_files.read_state(path))
    assert steps == list(range(stop + 1, whole.steps + 1))
    assert same(resumed.weights, whole.weights) and same(resumed.best, whole.best)
    assert [{**row, "seconds": 0} for row in resumed.rows] == [{**row, "seconds": 0} for row in whole.rows]


def test_muon_trains_in_other_steps_and_the_loss_falls() -> None:
    rows = trained(replace(MUON, epochs=4)).rows
    assert rows[1]["total"] < rows[0]["total"]
    assert not same(trained(MUON).weights, trained(TWO_ROUNDS).weights)


def test_a_state_taken_does_not_change_while_training_goes_on() -> None:
    states: list[dict[str, Any]] = []
    for progress in train(panning(), FAST, CPU, "fp32"):
        if progress.step == 2:
            states.append({"weights": progress.weights, "sums": list(progress.sums)})
            states.append(progress.state())
    assert same(states[0]["weights"], states[1]["weights"])
    assert states[0]["sums"] == states[1]["sums"]


def test_the_paper_keeps_the_weights_of_its_best_epoch() -> None:
    config = replace(PAPER, lr=0.3, epochs=6)  # so high that the loss does not fall for ever
    after: dict[float, Weights] = {}
    for progress in train(panning(), config, CPU, "fp32"):
        if progress.rows and progress.step == progress.epoch * progress.steps_per_epoch:
            after[progress.rows[-1]["total"]] = progress.weights
    assert len(after) == 6
    assert progress.best_loss == min(after)
    assert same(progress.best, after[min(after)])


def test_fast_keeps_the_last_weights_and_its_rate_ends_at_nearly_nothing() -> None:
    progress = trained(FAST)
    assert same(progress.best, progress.weights)
    rates = []
    for step in train(panning(), FAST, CPU, "fp32"):
        rates.append(step.optimizer.param_groups[0]["lr"])
    assert max(rates) == pytest.approx(FAST.lr, rel=0.2)
    assert rates[-1] < FAST.lr / 1000


def test_the_second_round_has_a_lower_rate_and_ends_at_nearly_nothing_too() -> None:
    config = replace(TWO_ROUNDS, steps_per_epoch=40)
    progresses = (progress for progress in train(panning(), config, CPU, "fp32") if not progress.consulting)
    rates = [progress.optimizer.param_groups[0]["lr"] for progress in progresses]
    assert max(rates[:40]) == pytest.approx(config.lr, rel=0.02)
    assert max(rates[40:]) == pytest.approx(config.lr * training.SECOND_RATE, rel=0.02)
    assert rates[39] < config.lr / 1000 and rates[79] < config.lr / 1000


def test_the_second_round_trains_on_the_consensus_about_frames_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, config = panning(), replace(TWO_ROUNDS, steps_per_epoch=60, lr=1e-2)
    whole = footage.scaled(frames.pixels)
    first = trained(config, frames).first

    class Told(Consensus):
        """A consensus of six stops, wherever it is cut."""

        def cut(self, place: int, crop: sampling.Crop) -> torch.Tensor:
            assert (crop.shift_stops, crop.coding) == (0, None)
            return torch.full_like(super().cut(place, crop), 6)

    monkeypatch.setattr(training, "Consensus", Told)
    progress = trained(config, frames)
    assert same(progress.first, first)
    before = network_of(first, config.architecture)
    with torch.no_grad():
        stops = [objectives.predicted(network, whole)[whole == 1].mean() for network in (before, progress.network)]
    assert stops[1] > stops[0] + 1


def test_between_the_rounds_every_frame_counts() -> None:
    config, told, state = replace(TWO_ROUNDS, steps_per_epoch=2), [], {}
    for progress in train(panning(), config, CPU, "fp32"):
        told.append((progress.step, progress.frames_done, progress.frames))
        if told[-1] == (3, 3, 3):
            state = copy.deepcopy(progress.state())
    assert told == [(1, 0, 3), (2, 0, 3), (2, 1, 3), (2, 2, 3), (2, 3, 3), (3, 3, 3), (4, 3, 3)]
    going_on = train(panning(), config, CPU, "fp32", state)
    assert [(progress.step, progress.frames_done) for progress in going_on] == [(3, 1), (3, 2), (3, 3), (4, 3)]


def test_a_frame_between_the_rounds_counts_as_steps_of_as_many_pixels() -> None:
    config = replace(TWO_ROUNDS, steps_per_epoch=2)
    frame = 24 * 20 / (config.pictures * config.crop**2)
    done, left = [], []
    for progress in train(panning(), config, CPU, "fp32"):
        done.append(progress.work)
        left.append(progress.work_left)
    assert done == pytest.approx([1, 2, 2 + frame, 2 + 2 * frame, 2 + 3 * frame, 3 + 3 * frame, 4 + 3 * frame])
    assert np.add(done, left) == pytest.approx([4 + 3 * frame] * 7)
    *_, progress = train(panning(), replace(config, second_round=0.0), CPU, "fp32")
    assert (progress.work, progress.work_left) == (4, 0)


def test_stills_have_no_second_round() -> None:
    progress = trained(replace(TWO_ROUNDS, alpha=0.0, still=True))
    assert progress.epoch == 2 and not progress.first


def test_the_papers_rate_is_halved_where_the_loss_does_not_fall() -> None:
    config = replace(PAPER, lr=1e-12, epochs=25)  # a rate that changes nothing: only the drawn jitter moves the loss
    rows = trained(config, panning(1)).rows
    best, bad, lr = float("inf"), 0, 1e-12
    for row in rows:
        assert row["lr"] == pytest.approx(lr)
        better = row["total"] < best * (1 - 1e-4)
        best, bad = (row["total"], 0) if better else (best, bad + 1)
        if bad > training.PATIENCE:
            lr, bad = lr / 2, 0
    assert lr < 1e-12


FLAGS = (
    torch.get_num_threads,
    torch.get_num_interop_threads,
    torch.is_grad_enabled,
    torch.is_inference_mode_enabled,
    torch.get_default_dtype,
    torch.are_deterministic_algorithms_enabled,
    torch.is_anomaly_enabled,
    torch.get_float32_matmul_precision,
    lambda: torch.is_autocast_enabled("cpu"),
    lambda: torch.get_autocast_dtype("cpu"),
    lambda: torch.backends.mkldnn.enabled,
    lambda: torch.backends.cudnn.benchmark,
    lambda: torch.backends.cudnn.deterministic,
    lambda: torch.backends.cuda.matmul.allow_tf32,
    lambda: torch.get_rng_state().tolist(),
)


@BOTH
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_torch_is_left_as_found_between_steps_and_afterwards(config: Config, precision: Any) -> None:
    before = [flag() for flag in FLAGS]
    steps = train(panning(), config, CPU, precision)
    for _ in range(6):
        next(steps)
        assert [flag() for flag in FLAGS] == before
    steps.close()
    assert [flag() for flag in FLAGS] == before


def test_a_caller_without_gradients_can_train() -> None:
    with torch.no_grad():
        weights = trained(FAST).weights
    assert same(weights, trained(FAST).weights)


@BOTH
def test_bfloat16_trains_and_keeps_float32_weights(config: Config) -> None:
    progress = trained(config, precision="bf16")
    assert {tensor.dtype for tensor in progress.weights.values()} == {torch.float32}
    assert all(tensor.isfinite().all() for tensor in progress.weights.values())
    assert not same(progress.weights, trained(config).weights)


def test_deeper_frames_are_trained_on_at_their_depth() -> None:
    shallow = panning()
    deep = TrainingFrames((shallow.pixels.to(torch.int32) * 257).to(torch.uint16), shallow.pairs)
    eight, sixteen = (trained(FAST, frames).weights for frames in (shallow, deep))
    assert all(torch.allclose(eight[name], sixteen[name], atol=1e-4) for name in eight)


def test_a_gradient_is_cut_to_the_norm_that_the_settings_allow() -> None:
    def norms(config: Config) -> list[float]:
        return [
            torch.nn.utils.get_total_norm([p.grad for p in progress.network.parameters() if p.grad is not None]).item()
            for progress in train(panning(), config, CPU, "fp32")
        ]

    free = norms(replace(FAST, max_gradient=None))
    bound = sorted(free)[len(free) // 2]
    cut = norms(replace(FAST, max_gradient=bound))
    assert max(free) > bound * 1.01
    assert max(cut) <= bound * 1.0001
    assert FAST.max_gradient is not None and PAPER.max_gradient is None
