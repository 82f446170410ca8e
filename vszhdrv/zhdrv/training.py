"""The training loop: a generator that yields its progress after every step, and every frame between the rounds.

Whoever iterates logs, saves the state, draws pictures, shows a bar, or stops. A run that goes on from a saved state
computes what it would have computed: on the CPU, with the same number of threads, bit for bit.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from . import camera, compression, losses, sampling
from .config import STEP_STOPS, Config
from .consensus import Consensus
from .expansion import Expander
from .footage import TrainingFrames
from .hardware import Precision, free_memory, layout_for_learning
from .lanes import Lanes
from .network import EVERY_PIXEL, Lattice, UNet, network_of, new_network, pad

if TYPE_CHECKING:
    from .parallel import Shared, Team

PATIENCE = 5
"""Epochs without improvement that the plateau schedule bears before it halves the rate."""
SECOND_RATE = 1 / 3
"""Peak of the second round's learning rate, of the first one's."""

Weights = dict[str, Tensor]
Losses = tuple[losses.Mean, losses.Mean]
"""Reconstruction and temporal loss."""
Objective = Callable[[list[sampling.Crop]], Losses]
Autocast = Callable[[], torch.autocast]


@dataclass
class Progress:
    """Where a training stands: one object, renewed in place after every step."""

    network: UNet
    optimizer: torch.optim.Optimizer
    schedule: OneCycleLR | ReduceLROnPlateau
    epochs: int
    steps_per_epoch: int
    epoch: int = 0
    """Finished epochs."""
    step: int = 0
    """Finished steps of the whole run."""
    seconds: float = 0.0
    """Spent training, over all sittings."""
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    """Total, reconstruction and temporal loss summed over the steps of the present epoch."""
    rows: list[dict[str, float]] = field(default_factory=list)
    """One row for each finished epoch: epoch, total, reconstruction, temporal, lr, seconds."""
    best: Weights = field(default_factory=dict)
    """The weights to expand with: those after the epoch of the lowest mean loss; under the one-cycle schedule, whose
    rate ends at nearly nothing, those after the last."""
    best_loss: float = float("inf")
    first: Weights = field(default_factory=dict)
    """The weights at the end of the first round, once the second has begun: it learns from their answers."""
    settled: bool = True
    """False while a step changes the network: what an error leaves then is no state to go on from."""
    frames: int = 0
    """Frames that the network is asked about between the rounds."""
    frames_done: int = 0
    """... and has been, in this sitting."""
    comparing: bool = False
    """Whether what was done last is one of these frames, not a step."""
    steps_per_frame: float = 0.0
    """How many steps take about as long as one of these frames."""

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    @property
    def work(self) -> float:
        """What has been done, in steps; ..."""
        return self.step + self.frames_done * self.steps_per_frame

    @property
    def work_left(self) -> float:
        """... and what is to be done yet."""
        return self.steps + self.frames * self.steps_per_frame - self.work

    @property
    def weights(self) -> Weights:
        """A copy of the present weights, contiguous, on the CPU."""
        return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in self.network.state_dict().items()}

    def state(self) -> dict[str, Any]:
        """All that a later sitting needs, as `torch.save` takes it and `resume` takes it back."""
        names = ("epoch", "step", "seconds", "sums", "rows", "best", "best_loss", "first")
        return {
            "weights": self.weights,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            **{name: getattr(self, name) for name in names},
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go back to a saved state, of whatever device and layout of memory."""
        state = dict(state)
        self.network.load_state_dict(state.pop("weights"))
        own = [group["fused"] for group in self.optimizer.param_groups]
        saved = state.pop("optimizer")
        groups = [{**group, "fused": fused} for group, fused in zip(saved["param_groups"], own, strict=True)]
        self.optimizer.load_state_dict({**saved, "param_groups": groups})
        for parameter, moments in self.optimizer.state.items():
            for name in ("exp_avg", "exp_avg_sq"):  # a fused step goes through memory as it lies
                moments[name] = torch.empty_like(parameter).copy_(moments[name])
        self.schedule.load_state_dict(state.pop("schedule"))
        for name, value in state.items():
            setattr(self, name, value)


def train(
    frames: TrainingFrames,
    config: Config,
    device: torch.device,
    precision: Precision,
    state: dict[str, Any] | None = None,
    team: Team | None = None,
) -> Iterator[Progress]:
    """Learn from `frames`; yields after every step, and after each of `Progress.frames` between the rounds.

    The last Progress has `epoch == epochs`.
    With a `team`, its other processes take the same steps at the same time.
    """
    network = new_network(config.architecture, config.seed).to(device)
    layout = layout_for_learning(device, precision) if config.head == "ratio" else torch.channels_last
    network.to(memory_format=layout)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, fused=device.type != "mps")
    steps_per_epoch = sum(1 for _ in sampling.visits(frames, config, 0))
    schedule: OneCycleLR | ReduceLROnPlateau = (
        OneCycleLR(optimizer, config.lr, total_steps=config.first_epochs * steps_per_epoch)
        if config.schedule == "one-cycle"
        else ReduceLROnPlateau(optimizer, factor=0.5, patience=PATIENCE)
    )
    progress = Progress(network, optimizer, schedule, config.epochs, steps_per_epoch)
    if state is not None:
        if state["first"]:
            progress.schedule = _second_schedule(progress, config)
        progress.resume(state)
    # Without its cache, which threads would share: within a step, every weight is used once.
    autocast = partial(torch.autocast, device.type, torch.bfloat16, precision == "bf16", cache_enabled=False)
    network.train()
    asked = network if team is None else team.shared(network)
    if frames.pixels.nbytes <= free_memory(device) // 2:
        frames = replace(frames, pixels=frames.pixels.to(device))

    consensus = coming = None
    if config.first_epochs < config.epochs:
        coming = Consensus(frames, device, config.stride)
        progress.frames = len(coming.places)
        progress.steps_per_frame = frames.pixels[0, 0].numel() / (config.pictures * config.crop**2)
    # The processes of a team ask the network together, in one lane each. The fast preset's network is small: threads
    # that share one of its operations wait for one another longer than they compute.
    with Lanes(device, config.crops if team is None else 1, 1 if config.head == "stops" else None) as lanes:
        while progress.epoch < config.epochs:
            if coming is not None and progress.epoch >= config.first_epochs:
                for _ in _begin_second_round(progress, coming, config, device, precision, lanes):
                    yield progress
                consensus, frames, coming = coming, coming.frames, None
            objective = partial(_objective, asked, frames, config, device, layout, consensus, autocast)
            for number, crops in enumerate(sampling.visits(frames, config, progress.epoch)):
                if number < progress.step - progress.epoch * steps_per_epoch:
                    continue  # done in an earlier sitting
                started = time.perf_counter()
                with lanes.between():
                    step_losses = _set_gradients(network, objective, crops, config.alpha, lanes)
                    if team is not None:
                        team.add_up(network)
                    _take_step(progress, config, step_losses, started)
                yield progress


def _set_gradients(
    network: UNet, objective: Objective, crops: list[sampling.Crop], alpha: float, lanes: Lanes
) -> Tensor:
    """Give the weights the gradients of a step's loss; returns the total, reconstruction and temporal loss.

    Every lane has its part of the crops, there and back. The parts are the same in every run, and so is the order in
    which what they give is added.
    """
    parameters = list(network.parameters())
    means = lanes.map(objective, [crops[first :: lanes.count] for first in range(lanes.count)])
    weights = [torch.stack([mean.weight for mean in one]).sum().clamp(min=1) for one in zip(*means, strict=True)]

    def back(part: Losses) -> tuple[tuple[Tensor, ...], Tensor]:
        with torch.enable_grad():
            reconstruction, temporal = (mean.sum / weight for mean, weight in zip(part, weights, strict=True))
            total = (1 - alpha) * reconstruction + alpha * temporal
            gradients = torch.autograd.grad(total, parameters)
        return gradients, torch.stack((total, reconstruction, temporal)).detach()

    gradients, shares = zip(*lanes.map(back, means), strict=True)
    for parameter, *own in zip(parameters, *gradients, strict=True):
        gradient = reduce(torch.add, own)
        like = gradient.stride() == parameter.stride()  # a fused step goes through memory as it lies
        parameter.grad = gradient if like else torch.empty_like(parameter).copy_(gradient)
    return torch.stack(shares).sum(0)


def _take_step(progress: Progress, config: Config, step_losses: Tensor, started: float) -> None:
    """Change the weights by their gradients, and account for the step that was `started` then."""
    if config.max_gradient is not None:
        torch.nn.utils.clip_grad_norm_(progress.network.parameters(), config.max_gradient)
    lr = progress.optimizer.param_groups[0]["lr"]
    ends = (config.first_epochs * progress.steps_per_epoch, progress.steps)  # of the rounds
    with _uninterrupted():
        progress.settled = False
        progress.optimizer.step()
        if isinstance(progress.schedule, OneCycleLR) and progress.step + 1 not in ends:
            progress.schedule.step()
        values = step_losses.tolist()  # a card is asked once
        progress.sums = [a + b for a, b in zip(progress.sums, values, strict=True)]
        progress.step += 1
        progress.seconds += time.perf_counter() - started
        if progress.step == (progress.epoch + 1) * progress.steps_per_epoch:
            _finish_epoch(progress, lr)
        progress.settled = True


def _begin_second_round(
    progress: Progress,
    consensus: Consensus,
    config: Config,
    device: torch.device,
    precision: Precision,
    lanes: Lanes,
) -> Iterator[None]:
    """Bring together what the network that the first round made answers to neighbours; yields after every frame.

    Counts as training. Begun in an earlier sitting, it goes on from the same.
    """
    if not progress.first:
        progress.schedule = _second_schedule(progress, config)
        progress.first = progress.weights
    learned = Expander(network_of(progress.first, config.architecture), config, device, precision)
    learned_answer = partial(learned.predict_near, white=consensus.frames.traits.white, distance=consensus.nearby)
    progress.comparing = True
    started = time.perf_counter()
    for _ in consensus.ask(learned_answer, lanes):
        progress.seconds += time.perf_counter() - started
        progress.frames_done += 1
        yield
        started = time.perf_counter()
    progress.comparing = False


def _second_schedule(progress: Progress, config: Config) -> OneCycleLR:
    steps = (config.epochs - config.first_epochs) * progress.steps_per_epoch
    return OneCycleLR(progress.optimizer, SECOND_RATE * config.lr, total_steps=steps)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C, and whatever else Python has a signal handler for, waits for the end: the handler is called then."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python calls handlers in the main thread alone
        return
    all_handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    handlers = {number: handler for number, handler in all_handlers.items() if callable(handler)}
    came: list[int] = []
    try:
        for number in handlers:
            signal.signal(number, lambda number, _: came.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)


def _objective(
    network: UNet | Shared,
    frames: TrainingFrames,
    config: Config,
    device: torch.device,
    layout: torch.memory_format,
    consensus: Consensus | None,
    autocast: Autocast,
    crops: list[sampling.Crop],
) -> Losses:
    """Reconstruction and temporal loss of crops of one step."""
    with torch.enable_grad(), autocast():
        if consensus is not None:
            return _consensus_objective(network, frames, crops, config, device, consensus)
        if config.head == "stops":
            return _stops_objective(network, frames, crops, config, device)
        return _ratio_objective(network, frames, crops, config, device, layout)


def _ratio_objective(
    network: UNet | Shared,
    frames: TrainingFrames,
    crops: list[sampling.Crop],
    config: Config,
    device: torch.device,
    layout: torch.memory_format,
) -> Losses:
    """The paper preset's: the ratio that takes a crop two stops down."""
    (crop,) = crops
    places = frames.pairs[crop.pair] if config.alpha > 0 else frames.pairs[crop.pair][:1]
    x = torch.cat([sampling.cut(frames, place, crop, config.crop, device) for place in places])
    o, f = camera.shift(x, crop.jitter_stops), camera.shift(x, crop.jitter_stops + STEP_STOPS)
    delta = answer(network, f, layout=layout)
    reconstruction = losses.reconstruction(delta[:1], o[:1], f[:1])
    darker = delta * f
    temporal = losses.temporal(darker[:1], darker[1:], o[:1], o[1:]) if config.alpha > 0 else 0 * reconstruction
    one = torch.ones_like(reconstruction)
    return losses.Mean(reconstruction, one), losses.Mean(temporal, one)


def _stops_objective(
    network: UNet | Shared,
    frames: TrainingFrames,
    crops: list[sampling.Crop],
    config: Config,
    device: torch.device,
) -> Losses:
    """The fast preset's: every crop is made brighter by its own shift, and the network tells by how much it clips."""
    x = torch.cat(
        [sampling.cut(frames, place, crop, config.crop, device) for place, crop in _places(frames, crops, config)]
    )
    shifts = sampling.bounded_shifts(x[: len(crops)], [crop.shift_stops for crop in crops])
    shifts *= len(x) // len(crops)
    shift_stops = torch.tensor(shifts, device=device)[:, None, None, None]  # now, while a card has nothing to do
    f = torch.cat([camera.shift(one, stops) for one, stops in zip(torch.split(x, 1), shifts, strict=True)])
    seen = f
    if frames.traits.compressed:
        seen = torch.empty_like(f)
        for k, crop in enumerate(crops):
            assert crop.coding is not None
            seen[k :: len(crops)] = compression.coded(f[k :: len(crops)], *crop.coding)
    stops, x, f = _looked_at(network, seen, crops, config, x, f)
    truth = losses.truth(x, f, shift_stops, frames.traits.white)
    return losses.censored(stops, truth, losses.excess(x, frames.traits.white)), _steady(stops, truth, config)


def _consensus_objective(
    network: UNet | Shared,
    frames: TrainingFrames,
    crops: list[sampling.Crop],
    config: Config,
    device: torch.device,
    consensus: Consensus,
) -> Losses:
    """The fast preset's second round: crops as they are, and of what clips the consensus for the truth."""
    visits = _places(frames, crops, config)
    x = torch.cat([sampling.cut(frames, place, crop, config.crop, device) for place, crop in visits])
    agreed = torch.cat([consensus.cut(place, crop) for place, crop in visits])
    stops, x, agreed = _looked_at(network, x, crops, config, x, agreed)
    seen = (x >= frames.traits.white).to(stops.dtype)
    truth = losses.Truth(agreed, seen, torch.zeros_like(seen))
    return losses.known(stops, truth), _steady(stops, truth, config)


def _steady(stops: Tensor, truth: losses.Truth, config: Config) -> losses.Mean:
    return losses.steady(stops, truth) if config.alpha > 0 else losses.Mean(*stops.new_zeros(2))


def _places(frames: TrainingFrames, crops: list[sampling.Crop], config: Config) -> list[tuple[int, sampling.Crop]]:
    """The frames of a step's batch and their crops; where there is a temporal loss, successors in the second half."""
    turns = 2 if config.alpha > 0 else 1
    return [(frames.pairs[crop.pair][turn], crop) for turn in range(turns) for crop in crops]


def _looked_at(
    network: UNet | Shared, seen: Tensor, crops: list[sampling.Crop], config: Config, *pictures: Tensor
) -> tuple[Tensor, ...]:
    """The network's answer to what it has `seen`, and the pictures, at those pixels that the fast preset's losses
    see."""
    lattice = Lattice(config.stride, *crops[0].phase)
    return answer(network, seen, lattice), *(lattice.of(picture).contiguous() for picture in pictures)


def answer(
    network: UNet | Shared,
    x: Tensor,
    lattice: Lattice = EVERY_PIXEL,
    *,
    layout: torch.memory_format = torch.channels_last,
) -> Tensor:
    """The network's answer at the lattice's pixels, for pictures of any size: their edges are repeated up to its
    multiple."""
    height, width = lattice.size(*x.shape[-2:])
    x = pad(x, network.multiple).contiguous(memory_format=layout)
    out: Tensor = network(x, lattice)
    return out[..., :height, :width]


def _finish_epoch(progress: Progress, lr: float) -> None:
    """Log the epoch, keep its weights if they are the best, let the rate fall where the loss no longer does."""
    names = ("total", "reconstruction", "temporal")
    means = {name: value / progress.steps_per_epoch for name, value in zip(names, progress.sums, strict=True)}
    progress.epoch += 1
    progress.sums = [0.0, 0.0, 0.0]
    progress.rows.append({"epoch": progress.epoch, **means, "lr": lr, "seconds": progress.seconds})
    if isinstance(progress.schedule, OneCycleLR) or means["total"] < progress.best_loss:
        progress.best_loss, progress.best = means["total"], progress.weights
    if isinstance(progress.schedule, ReduceLROnPlateau):
        progress.schedule.step(means["total"])
