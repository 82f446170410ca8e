"""A frame of linear light made HDR by a trained network: on the processor, or on a card."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from . import camera, graphics, uneven
from .blocks import Part
from .config import Config
from .evaluation import Evaluator
from .exposures import exposures, merge
from .hardware import Precision, has_streams
from .lanes import side_by_side, wait
from .losses import EPSILON
from .network import UNet
from .tiling import Planes, Prediction, band_height, reaching
from .traits import NOTHING_FOUND, Traits

CLIP_RAMP = (0.97, 1.0)
"""Working values of a channel between which its predicted stops take effect: below, the source is left alone."""
COMPRESSED_RAMP = (0.92, 0.96)
"""`CLIP_RAMP` of a lossily compressed clip, whose clipped pixels come out darker: docs/experiments.md has figures."""
MOST_STOPS = 32.0
"""No pixel is raised by more: where all that comes in is finite, so is all that goes out."""
"""The traits of a clip that clips at white, uncompressed, in colour, and is all picture."""

Pixels = npt.NDArray[Any]


class Expander:
    """A trained network that turns linear SDR frames into HDR frames. Several threads may use it at the same time.

    Args:
        tile, tile_pad: as `Evaluator` takes them.
        traits: what was found in the clip. Of a black and white one, channels get the mean of their predictions; the
            paper's network knows nothing of clip points and compression.
    """

    def __init__(
        self,
        network: UNet,
        config: Config,
        device: torch.device,
        precision: Precision,
        tile: tuple[int, int] | None = None,
        tile_pad: int | None = None,
        traits: Traits = NOTHING_FOUND,
    ) -> None:
        self.evaluator = Evaluator(network, device, precision, tile, tile_pad)
        self.config = config
        self.traits = traits
        self.white = traits.clip_point**camera.GAMMA
        """Linear light from which the source clips (stops alone)."""
        self.ramp = COMPRESSED_RAMP if traits.compressed else CLIP_RAMP

    @property
    def network(self) -> UNet:
        """Its network."""
        return self.evaluator.network

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.evaluator.device

    def brighten(self, planes: Sequence[Pixels]) -> None:
        """Make a frame of linear light HDR where it lies. It gets nowhere darker; overlays and graphics stay.

        planes: red, green and blue, `(height, width)` float32 each, 1.0 = SDR white, values over 1 (superwhite)
        allowed; rows may have gaps between them.
        """
        if self.traits.graphics == "all":
            return
        kept = graphics.areas(self._codes(planes)) if self.traits.graphics else None
        source = None if kept is None else [plane[kept] for plane in planes]
        self._brighten_picture(planes)
        if source is not None:
            for plane, light in zip(planes, source, strict=True):
                plane[kept] = light

    def _codes(self, planes: Sequence[Pixels]) -> npt.NDArray[np.uint8]:
        """The frame's working encoding in codes of 8 bits, `(3, height, width)`."""
        linear = torch.from_numpy(np.stack(planes)).clamp(min=0)
        return (self.encoded(linear) * 255).round().clamp(0, 255).byte().numpy()

    def _brighten_picture(self, planes: Sequence[Pixels]) -> None:
        """The same but for graphics."""
        if not self.traits.overlays:
            self._brighten(planes)
            return
        clips = self.white * self.ramp[1] ** camera.GAMMA
        hdr = self.traits.overlays.around(self._brightened, np.stack(planes), clips)
        for plane, bright in zip(planes, hdr, strict=True):
            plane[:] = bright

    def _brightened(self, linear: Pixels) -> Pixels:
        self._brighten(list(linear))
        return linear

    @torch.inference_mode()
    def _brighten(self, planes: Sequence[Pixels]) -> None:
        frame = [torch.from_numpy(plane) for plane in planes]
        if self.device.type == "cpu":
            self._here(frame)
        elif self.config.head == "ratio" or not all(plane.max() < self.foot for plane in planes):
            self._there(frame)  # else nothing clips, and the way there and back is spared

    def _here(self, planes: Planes) -> None:
        """The processor's way."""
        if self.config.head == "ratio":
            for plane, bright in zip(planes, self._merged(torch.stack(tuple(planes))), strict=True):
                plane.copy_(bright)
        else:
            self._lift(planes)

    def _there(self, planes: Planes) -> None:
        """A card's way: there, brighter, and back. Waits for this thread's stream alone."""
        streams = has_streams(self.device)
        # torch keeps page-locked memory that is let go, and gives it to the next frame of this size
        host = torch.empty((len(planes), *planes[0].shape), pin_memory=streams)
        for row, plane in zip(host, planes, strict=True):
            row.copy_(plane)
        linear = host.to(self.device, non_blocking=streams)
        hdr = self._merged(linear) if self.config.head == "ratio" else self._lifted_at_once(linear)
        host.copy_(hdr, non_blocking=streams)
        wait(self.device)
        for row, plane in zip(host, planes, strict=True):
            plane.copy_(row)

    def _merged(self, linear: Tensor) -> Tensor:
        """The paper's HDR of `(3, height, width)`: all exposures, merged."""
        config, predict = self.config, self.evaluator.predict
        stack = exposures(predict, camera.encode(linear[None]), config.n_exp_down, config.n_exp_up, self.traits.grey)
        return torch.maximum(merge(stack)[0], linear)

    def _lifted_at_once(self, linear: Tensor) -> Tensor:
        """The light, made brighter by the predicted stops where it clips: all of it, in few and large steps."""
        linear = uneven.levelled_light(linear, self.white) if self.traits.levelled else linear
        sdr = self.encoded(linear)
        for part, stops in self.evaluator.predictions(lambda part: sdr[None, :, *part], sdr.shape[-2:]):
            linear[:, *part] = lifted(linear[:, *part], sdr[:, *part], stops[0], self.ramp, self.traits.grey)
        return linear

    def _lift(self, planes: Planes) -> None:
        """Make the light brighter by the predicted stops where it clips, part by part.

        Only parts that reach the ramp are computed: all else is the source, as it would be after a product by 2^0.
        """
        if self.traits.levelled:
            side_by_side(partial(uneven.level_light, white=self.white), planes)
        foot, gap = self.foot, band_height(self.network.architecture)

        def picture(part: Part) -> Tensor:
            return self.encoded(interleaved([plane[part] for plane in planes])[None])

        def wanted(part: Part) -> list[slice]:
            return reaching([plane[part] for plane in planes], foot, gap)

        def write(prediction: Prediction) -> None:
            part, stops = prediction
            source = torch.stack([plane[part] for plane in planes])
            hdr = lifted(source, self.encoded(source), stops[0], self.ramp, self.traits.grey)
            for plane, bright in zip(planes, hdr, strict=True):
                plane[part] = bright

        # Nothing is written before all is predicted: tiles see the source around them, and a second try needs it, too.
        side_by_side(write, self.evaluator.predictions(picture, planes[0].shape, wanted))

    @property
    def foot(self) -> float:
        """Linear light under which nothing is on the ramp, however its encoding is rounded."""
        return float((self.ramp[0] - 1e-4) ** camera.GAMMA * self.white)

    def encoded(self, linear: Tensor) -> Tensor:
        """The working encoding, in which the source clips at 1."""
        return camera.encode(linear if self.white == 1 else linear / self.white)


def lifted(linear: Tensor, sdr: Tensor, stops: Tensor, ramp: tuple[float, float], grey: bool = False) -> Tensor:
    """Linear light, made brighter by the predicted stops where its encoding `sdr` clips; never darker.

    (..., 3, height, width) each. grey: all channels by one factor, so that what is grey stays grey to the last bit.
    """
    if grey:
        stops, sdr = stops.mean(-3, keepdim=True), sdr.amax(-3, keepdim=True)
    raised = (stops * clipping(sdr, ramp)).clamp_(max=MOST_STOPS)
    return torch.maximum(linear * torch.exp2(raised), linear)


def interleaved(planes: Planes) -> Tensor:
    """The planes as `(3, height, width)` in channels-last memory."""
    pixels = planes[0].new_empty((*planes[0].shape, len(planes)))
    for channel, plane in enumerate(planes):  # a fifth of the time of torch.stack(planes, dim=-1)
        pixels[..., channel] = plane
    return pixels.permute(2, 0, 1)


def clipping(sdr: Tensor, ramp: tuple[float, float]) -> Tensor:
    """How far each channel counts as clipped, 0 to 1: a ramp over its working value."""
    low, high = ramp
    return ((sdr - low) / (high - low)).clamp(0.0, 1.0)


def show(expander: Expander, sdr: Tensor) -> dict[str, npt.NDArray[np.uint8]]:
    """Pictures of a frame's expansion, `(height, width, 3)`, display-encoded 8-bit, by name.

    `sdr` is `(3, height, width)` in the working encoding: "source"; "m4", "m2", "p2", "p4": the expansion at -4, -2, +2
    and +4 stops; "delta": the ratio of the picture at -2 stops to the source.
    """
    sdr = sdr.cpu()
    light = camera.decode(sdr)
    expander.brighten(list(light.numpy()))
    shown = {name: camera.encode(light * 2.0**stops) for name, stops in (("m4", -4), ("m2", -2), ("p2", 2), ("p4", 4))}
    delta = (shown["m2"] / (sdr + EPSILON)).clamp(0.0, 1.0)
    pictures = {"source": sdr, **shown, "delta": delta}
    return {name: (x * 255).round().byte().permute(1, 2, 0).numpy() for name, x in pictures.items()}
