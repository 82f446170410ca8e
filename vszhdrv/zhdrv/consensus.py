"""The consensus of neighbouring frames: predictions for the same places, brought together along motion.

A trained network predicts a little differently in every frame: a lamp comes out brighter in one than in the next, a
window that leaves the picture flashes. The mean of the predictions for one place in several frames is nearer to the
truth than each. Where a neighbour shows the place unclipped, it shows the truth. The fast preset's second round trains
on these means, so no frame needs its neighbours when it is expanded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import batched
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from . import camera, footage, sampling
from .lanes import Lanes
from .rounding import ceil_div

PAIRS = 32
"""Frames that the second round trains on together with their successors, at most."""
DISTANCES = (1, 4, 8)
"""Which neighbours are consulted, either way, counted in training frames: those of a long clip lie apart, but for
successors. docs/experiments.md has what was tried."""
COMPARED = (0.1, 0.9)
"""Working values by which exposures are compared: neither noise nor clipped."""
FEWEST = 100
"""Values by which two frames can be compared, at least; with fewer, a neighbour is not consulted."""
SAMPLED = 4
"""Values are compared in every so many rows and columns."""
MISMATCH = 0.05
"""Difference of working values, at one exposure, by which a neighbour's weight falls to 1/e."""
SURROUNDINGS = 5
"""Side in pixels of the square over which that difference is averaged, an odd number."""
SMALLEST_FLOW = 32
"""Height and width from which OpenCV's optical flow works: in lower, wide pictures it reads outside of them."""
MATCHING = 0.5
"""Mean weight of comparable values, under which a neighbour is none: it lies in another shot, or too far away."""
DARKEST = 1e-3
"""Working values under this count as this: keeps logarithms finite."""
PER_STOP = 16
"""Codes of a stop in which the means are kept: 8 bits hold 15.9 stops."""

Predict = Callable[[Tensor], Tensor]
"""Stops over white, for pictures `(1, 3, height, width)` in the working encoding: where they clip, and `nearby`."""


class _View(NamedTuple):
    """What is kept of a frame while its neighbours need it, `scale` pixels squared as one."""

    values: Tensor
    """`(1, 6, height, width)`: the frame in the working encoding, and the network's prediction, in stops over white."""
    grey: cv2.typing.MatLike
    """Luma, for the optical flow: `(height, width)`, 8 bits."""


class Consensus:
    """The means, for the frames of the second round: there once `consult` has ended.

    Args:
        frames: all training frames.
        device: where the network computes.
        scale: so many pixels squared are seen as one: 1 for frames of up to a megapixel.
    """

    def __init__(self, frames: footage.TrainingFrames, device: torch.device, scale: int = 1) -> None:
        self.frames = replace(frames, pairs=_consulted(frames))
        """The frames of the second round: all training frames, but no other pairs."""
        self.places = sorted({place for pair in self.frames.pairs for place in pair})
        """The frames of these pairs."""
        self.scale = scale
        self._device = device
        height, width = frames.pixels.shape[-2:]
        size = [1, 1, ceil_div(height, scale), ceil_div(width, scale)]
        self._grid = F.affine_grid(torch.eye(2, 3, device=device)[None], size, align_corners=True)
        self._codes: dict[int, Tensor] = {}

    @torch.inference_mode()
    def consult(self, predict: Predict, lanes: Lanes) -> Iterator[None]:
        """Bring the trained network's predictions together; yields after each of `places`."""
        pixels = self.frames.pixels
        views: dict[int, _View] = {}

        def view(place: int) -> _View:
            return self._view(footage.scaled(pixels[place].to(self._device))[None], predict)

        def near(place: int) -> list[int]:
            return [place + step for k in DISTANCES for step in (-k, k) if 0 <= place + step < len(pixels)]

        for places in batched(self.places, lanes.count):
            views = {k: kept for k, kept in views.items() if k >= places[0] - max(DISTANCES)}
            new = sorted({k for place in places for k in (place, *near(place))} - views.keys())
            views |= zip(new, lanes.map(view, new), strict=True)
            for place in places:
                mean = self._mean(views[place], [views[k] for k in near(place)], lanes)
                self._codes[place] = (mean[0] * PER_STOP).round().clamp(0, 255).byte()
                yield

    @property
    def nearby(self) -> int:
        """How many pixels around clipped ones predictions count: bilinear samples see one step further."""
        return 2 * self.scale

    def cut(self, place: int, crop: sampling.Crop) -> Tensor:
        """The means over a crop of a frame, as `sampling.cut` has its pixels: stops, `(1, 3, height, width)`."""
        rows = torch.arange(crop.top, crop.top + crop.height, device=self._device) // self.scale
        columns = torch.arange(crop.left, crop.left + crop.width, device=self._device) // self.scale
        codes = self._codes[place][:, rows[:, None], columns]
        return sampling.turned(codes[None].float() / PER_STOP, crop.transform)

    @torch.inference_mode()
    def _view(self, x: Tensor, predict: Predict) -> _View:
        stops = predict(x).float()
        if self.scale > 1:
            clips = (x >= self.frames.traits.white).to(x.dtype)
            share, of_clipped = self._pooled(clips), self._pooled(clips * stops)
            # where one pixel clips the block does: a camera of that resolution would have clipped there, too
            x = torch.where(share > 0, 1.0, self._pooled(x))
            stops = of_clipped / share.clamp(min=1e-9)
        luma = (x * x.new_tensor(camera.LUMA)[:, None, None]).sum(1)[0]
        return _View(torch.cat((x, stops), dim=1), (luma * 255).round().byte().cpu().numpy())

    def _pooled(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.scale, ceil_mode=True)

    def _mean(self, here: _View, near: list[_View], lanes: Lanes) -> Tensor:
        """The frame's prediction and its neighbours' light, along motion and at its exposure; never under white."""
        own_stops = here.values[:, 3:]
        total, weights = own_stops.clamp(min=0), torch.ones_like(own_stops[:, :1])
        for found in lanes.map(partial(self._compared, here), near):
            if found is not None:
                weight, light = found
                total += weight * light
                weights += weight
        return total / weights

    @torch.inference_mode()
    def _compared(self, here: _View, view: _View) -> tuple[Tensor, Tensor] | None:
        """A neighbour's weight and its light, in stops over white, at each place; None where it shows another thing."""
        own_sdr = here.values[:, :3]
        moved, inside = self._moved(view, here)
        sdr, stops = moved.chunk(2, dim=1)
        ours, theirs = (each[..., ::SAMPLED, ::SAMPLED] for each in (own_sdr, sdr))
        comparable = _comparable(ours) & _comparable(theirs) & (inside[..., ::SAMPLED, ::SAMPLED] > 0)
        if int(comparable.sum()) < FEWEST:
            return None
        gain = camera.GAMMA * float(torch.log2(ours[comparable] / theirs[comparable]).median())
        difference = ((sdr * camera.gain(gain)).clamp_(max=1) - own_sdr).abs_().amax(1, keepdim=True)
        difference = F.avg_pool2d(difference, SURROUNDINGS, 1, SURROUNDINGS // 2, count_include_pad=False)
        weight = torch.exp(-((difference / MISMATCH) ** 2)) * inside
        if float(weight[..., ::SAMPLED, ::SAMPLED].expand_as(ours)[comparable].mean()) < MATCHING:
            return None
        light = torch.where(sdr >= self.frames.traits.white, stops, camera.GAMMA * torch.log2(sdr.clamp(min=DARKEST)))
        return weight, (light + gain).clamp_(min=0)

    def _moved(self, view: _View, here: _View) -> tuple[Tensor, Tensor]:
        """A neighbour's values at the places where its pixels are here, and 1 where these lie inside of its picture."""
        height, width = here.grey.shape
        bottom, right = max(0, SMALLEST_FLOW - height), max(0, SMALLEST_FLOW - width)
        large = [cv2.copyMakeBorder(each.grey, 0, bottom, 0, right, cv2.BORDER_REPLICATE) for each in (here, view)]
        flow_of = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)  # each serves one thread at a time
        calculated = flow_of.calc(*large, None)  # type: ignore[call-overload]  # None: nothing to start at
        flow = torch.from_numpy(calculated[:height, :width]).to(self._device)
        grid = self._grid + flow * (2 / flow.new_tensor([width - 1, height - 1]))
        moved = F.grid_sample(view.values, grid.clamp(-1, 1), align_corners=True)
        return moved, (grid.abs().amax(-1)[:, None] <= 1).float()


def _consulted(frames: footage.TrainingFrames) -> tuple[tuple[int, int], ...]:
    """The pairs to train on: those in which enough clips (or else all), evenly spread where they are many."""
    pairs = [pair for pair in frames.pairs if footage.shows_clipped(frames, frames.pixels[pair[0]])] or frames.pairs
    chosen = np.linspace(0, len(pairs) - 1, min(len(pairs), PAIRS)).round().astype(int)
    return tuple(pairs[k] for k in chosen)


def _comparable(sdr: Tensor) -> Tensor:
    low, high = COMPARED
    return (sdr > low) & (sdr < high)
