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
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from vszhdrv.errors import Refused

from .config import Config
from .consensus import Consensus
from .evaluation import Evaluator
from .footage import TrainingFrames
from .hardware import Precision, free_memory, layout_for_training
from .lanes import Lanes
from .muon import Muon
from .network import UNet, network_of, new_network
from .objectives import Agreed, Losses, Objective, Ratio, Stops
from .sampling import Crop, visits

if TYPE_CHECKING:
    from .parallel import Team

PATIENCE = 5
"""Epochs without improvement that the plateau schedule bears before it halves the rate."""
_KEPT = ("epoch", "step", "seconds", "sums", "rows", "best", "best_loss", "first")
"""What a state keeps of a Progress as it is."""
SECOND_RATE = 1 / 3
"""Peak of the second round's learning rate, as a share of the first one's."""

Weights = dict[str, Tensor]


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
    """The weights at the end of the first round, once the second has begun: their predictions make the consensus."""
    settled: bool = True
    """False while a step changes the network: what an error leaves then is no state to go on from."""
    frames: int = 0
    """Frames that are consulted between the rounds."""
    frames_done: int = 0
    """Frames that have been consulted in this sitting."""
    consulting: bool = False
    """Whether what was done last is one of these frames, not a step."""
    steps_per_frame: float = 0.0
    """How many steps take about as long as one of these frames."""

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    @property
    def work(self) -> float:
        """The work done, in steps."""
        return self.step + self.frames_done * self.steps_per_frame

    @property
    def work_left(self) -> float:
        """The work to be done yet, in steps."""
        return self.steps + self.frames * self.steps_per_frame - self.work

    @property
    def weights(self) -> Weights:
        """A copy of the present weights, contiguous, on the CPU."""
        return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in self.network.state_dict().items()}

    def state(self) -> dict[str, Any]:
        """All that a later sitting needs, as `torch.save` takes it and `resume` takes it back."""
        return {
            "weights": self.weights,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            **{name: getattr(self, name) for name in _KEPT},
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
        for name in _KEPT:
            setattr(self, name, state[name])
        if not 0 <= self.epoch * self.steps_per_epoch <= self.step <= self.steps:
            raise ValueError(f"epoch {self.epoch} and step {self.step} are of no training")


def train(
    frames: TrainingFrames,
    config: Config,
    device: torch.device,
    precision: Precision,
    state: dict[str, Any] | None = None,
    team: Team | None = None,
) -> Iterator[Progress]:
    """Train on `frames`; yields after every step, and after each of `Progress.frames` between the rounds.

    The last Progress has `epoch == epochs`. Raises Refused at the first step where `state` is of no such training.
    With a `team`, its other processes take the same steps at the same time.
    """
    progress, layout = _begun(frames, config, device, precision, state)
    network = progress.network
    shared = network if team is None else team.shared(network)
    if frames.pixels.nbytes <= free_memory(device) // 2:
        frames = replace(frames, pixels=frames.pixels.to(device))
    consensus = None
    if config.first_epochs < config.epochs:
        consensus = Consensus(frames, device, config.stride)
        progress.frames = len(consensus.places)
        progress.steps_per_frame = frames.pixels[0, 0].numel() / (config.pictures * config.crop**2)
    # The processes of a team evaluate the network together, in one lane each. The fast preset's network is small:
    # threads that share one of its operations wait for one another longer than they compute.
    with Lanes(device, config.crops if team is None else 1, 1 if config.head == "stops" else None) as lanes:
        run = _Run(progress, config, device, precision, lanes, team)
        first: Objective
        if config.head == "ratio":
            first = Ratio(shared, frames, config, device, layout)
        else:
            first = Stops(shared, frames, config, device)
        yield from run.round(first, until=config.first_epochs)
        if consensus is not None:
            yield from run.consult(consensus)
            yield from run.round(Agreed(shared, consensus, config, device), until=config.epochs)


def _begun(
    frames: TrainingFrames, config: Config, device: torch.device, precision: Precision, state: dict[str, Any] | None
) -> tuple[Progress, torch.memory_format]:
    """A training before its first step, or where a state was saved; and the network's layout in memory."""
    network = new_network(config.architecture, config.seed).to(device)
    layout = layout_for_training(device, precision) if config.head == "ratio" else torch.channels_last
    network.to(memory_format=layout)
    optimizer: torch.optim.Optimizer
    if config.optimizer == "muon":
        optimizer = Muon(network.parameters(), lr=config.lr)
    else:
        optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, fused=device.type != "mps")
    steps_per_epoch = sum(1 for _ in visits(frames, config, 0))
    schedule: OneCycleLR | ReduceLROnPlateau = (
        OneCycleLR(optimizer, config.lr, total_steps=config.first_epochs * steps_per_epoch)
        if config.schedule == "one-cycle"
        else ReduceLROnPlateau(optimizer, factor=0.5, patience=PATIENCE)
    )
    progress = Progress(network, optimizer, schedule, config.epochs, steps_per_epoch)
    if state is not None:
        try:
            if state["first"]:
                progress.schedule = _second_schedule(progress, config)
            progress.resume(state)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever torch says of what it does not expect
            raise Refused(f"the state is not of such a training: {type(error).__name__}") from error
    network.train()
    return progress, layout


@dataclass(frozen=True)
class _Run:
    """A training that goes on: its rounds, and the consultation between them."""

    progress: Progress
    config: Config
    device: torch.device
    precision: Precision
    lanes: Lanes
    team: Team | None

    def round(self, objective: Objective, until: int) -> Iterator[Progress]:
        """Train by the objective up to this epoch; yields after every step."""
        progress = self.progress

        def losses_of(crops: list[Crop]) -> Losses:
            with torch.enable_grad(), self._autocast():
                return objective(crops)

        while progress.epoch < until:
            done = progress.step - progress.epoch * progress.steps_per_epoch  # in an earlier sitting
            for crops in islice(visits(objective.frames, self.config, progress.epoch), done, None):
                started = time.perf_counter()
                with self.lanes.between():
                    step_losses = _set_gradients(progress.network, losses_of, crops, self.config.alpha, self.lanes)
                    if self.team is not None:
                        self.team.add_up(progress.network)
                    _take_step(progress, self.config, step_losses, started)
                yield progress

    def consult(self, consensus: Consensus) -> Iterator[Progress]:
        """Bring together the first round's predictions for neighbouring frames; yields after every frame.

        Counts as training. Begun in an earlier sitting, it goes on from the same weights.
        """
        progress, config = self.progress, self.config
        if not progress.first:
            progress.schedule = _second_schedule(progress, config)
            progress.first = progress.weights
        network = network_of(progress.first, config.architecture)
        evaluator = Evaluator(network, self.device, self.precision)
        predict = partial(evaluator.predict_near, white=consensus.frames.traits.white, distance=consensus.nearby)
        progress.consulting = True
        started = time.perf_counter()
        for _ in consensus.consult(predict, self.lanes):
            progress.seconds += time.perf_counter() - started
            progress.frames_done += 1
            yield progress
            started = time.perf_counter()
        progress.consulting = False

    def _autocast(self) -> torch.autocast:
        # without its cache, which threads would share: within a step, every weight is used once
        on = self.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, on, cache_enabled=False)


def _set_gradients(
    network: UNet, losses_of: Callable[[list[Crop]], Losses], crops: list[Crop], alpha: float, lanes: Lanes
) -> Tensor:
    """Give the weights the gradients of a step's loss; returns the total, reconstruction and temporal loss.

    Every lane has its part of the crops, there and back. The parts are the same in every run, and so is the order in
    which what they give is added.
    """
    parameters = list(network.parameters())
    means = lanes.map(losses_of, [crops[first :: lanes.count] for first in range(lanes.count)])
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
