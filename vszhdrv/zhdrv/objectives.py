"""The training objectives: each turns a step's crops into losses, by what the network predicts for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import camera, compression, losses, sampling, uneven
from .config import STEP_STOPS, Config
from .consensus import Consensus
from .footage import TrainingFrames
from .network import EVERY_PIXEL, Lattice, UNet, pad
from .sampling import Crop

if TYPE_CHECKING:
    from .parallel import Shared

Losses = tuple[losses.Mean, losses.Mean]
"""Reconstruction and temporal loss."""


@dataclass(frozen=True)
class Ratio:
    """The paper preset's: the ratio that takes a crop two stops down."""

    network: UNet | Shared
    frames: TrainingFrames
    config: Config
    device: torch.device
    layout: torch.memory_format

    def __call__(self, crops: list[Crop]) -> Losses:
        """The losses of a step's only crop."""
        (crop,) = crops
        frames, moving = self.frames, self.config.alpha > 0
        places = frames.pairs[crop.pair] if moving else frames.pairs[crop.pair][:1]
        x = torch.cat([sampling.cut(frames, place, crop, self.config.crop, self.device) for place in places])
        o, f = camera.shift(x, crop.jitter_stops), camera.shift(x, crop.jitter_stops + STEP_STOPS)
        delta = predicted(self.network, f, layout=self.layout)
        reconstruction = losses.reconstruction(delta[:1], o[:1], f[:1])
        darker = delta * f
        temporal = losses.temporal(darker[:1], darker[1:], o[:1], o[1:]) if moving else 0 * reconstruction
        one = torch.ones_like(reconstruction)
        return losses.Mean(reconstruction, one), losses.Mean(temporal, one)


@dataclass(frozen=True)
class Stops:
    """The fast preset's: every crop is made brighter by its own shift, and the network tells by how much it clips."""

    network: UNet | Shared
    frames: TrainingFrames
    config: Config
    device: torch.device

    def __call__(self, crops: list[Crop]) -> Losses:
        """The losses of a step's crops."""
        frames = self.frames
        x = _cut(frames, crops, self.config, self.device)
        shifts = sampling.bounded_shifts(x[: len(crops)], [crop.shift_stops for crop in crops])
        shifts *= len(x) // len(crops)
        shift_stops = torch.tensor(shifts, device=self.device)[:, None, None, None]  # now: a card has nothing to do yet
        f = torch.cat([camera.shift(one, stops) for one, stops in zip(torch.split(x, 1), shifts, strict=True)])
        seen = _compressed(f, crops) if frames.traits.compressed else f
        if frames.traits.levelled:
            seen = uneven.levelled(seen)
            f = torch.maximum(f, seen)  # so that a prediction is wanted wherever it will be used
        stops, x, f = _at_phase(self.network, seen, crops, self.config, x, f)
        truth = losses.truth(x, f, shift_stops, frames.traits.white)
        estimate = losses.estimate(x, frames.traits.white)
        return losses.censored(stops, truth, estimate), _steady(stops, truth, self.config)


@dataclass(frozen=True)
class Agreed:
    """The fast preset's second round: crops as they are, and the consensus for the truth of clipped pixels."""

    network: UNet | Shared
    consensus: Consensus
    config: Config
    device: torch.device

    @property
    def frames(self) -> TrainingFrames:
        """The frames of the second round."""
        return self.consensus.frames

    def __call__(self, crops: list[Crop]) -> Losses:
        """The losses of a step's crops."""
        x = _cut(self.frames, crops, self.config, self.device)
        agreed = torch.cat(
            [self.consensus.cut(place, crop) for place, crop in _places(self.frames, crops, self.config)]
        )
        stops, x, agreed = _at_phase(self.network, x, crops, self.config, x, agreed)
        seen = (x >= self.frames.traits.white).to(stops.dtype)
        truth = losses.Truth(agreed, seen, torch.zeros_like(seen))
        return losses.known(stops, truth), _steady(stops, truth, self.config)


Objective = Ratio | Stops | Agreed


def predicted(
    network: UNet | Shared,
    x: Tensor,
    lattice: Lattice = EVERY_PIXEL,
    *,
    layout: torch.memory_format = torch.channels_last,
) -> Tensor:
    """The network's predictions at the lattice's pixels, for pictures `(batch, 3, height, width)` of any size.

    Their right and bottom edges are repeated up to the network's multiple.
    """
    height, width = lattice.size(*x.shape[-2:])
    x = pad(x, network.multiple).contiguous(memory_format=layout)
    out: Tensor = network(x, lattice)
    return out[..., :height, :width]


def _places(frames: TrainingFrames, crops: list[Crop], config: Config) -> list[tuple[int, Crop]]:
    """The frames of a step's batch and their crops; where there is a temporal loss, successors in the second half."""
    turns = 2 if config.alpha > 0 else 1
    return [(frames.pairs[crop.pair][turn], crop) for turn in range(turns) for crop in crops]


def _cut(frames: TrainingFrames, crops: list[Crop], config: Config, device: torch.device) -> Tensor:
    """The pixels of `_places`: `(batch, 3, height, width)`."""
    places = _places(frames, crops, config)
    return torch.cat([sampling.cut(frames, place, crop, config.crop, device) for place, crop in places])


def _compressed(f: Tensor, crops: list[Crop]) -> Tensor:
    """The batch after each crop's simulated codec."""
    seen = torch.empty_like(f)
    for k, crop in enumerate(crops):
        assert crop.coding is not None
        seen[k :: len(crops)] = compression.coded(f[k :: len(crops)], *crop.coding)
    return seen


def _at_phase(
    network: UNet | Shared, seen: Tensor, crops: list[Crop], config: Config, *pictures: Tensor
) -> tuple[Tensor, ...]:
    """The network's predictions for what it has `seen`, and the pictures, at the pixels that the losses see."""
    lattice = Lattice(config.stride, *crops[0].phase)
    return predicted(network, seen, lattice), *(lattice.of(picture).contiguous() for picture in pictures)


def _steady(stops: Tensor, truth: losses.Truth, config: Config) -> losses.Mean:
    return losses.steady(stops, truth) if config.alpha > 0 else losses.Mean(*stops.new_zeros(2))
