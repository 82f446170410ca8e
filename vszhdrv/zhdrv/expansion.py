"""A frame's HDR from its stack of exposures, or from the predicted stops in one go; whole frames or tiles."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from . import camera
from .blocks import Part
from .config import Config
from .exposures import exposures, merge
from .footage import Traits
from .hardware import Precision, additions_pay, has_streams, is_out_of_memory
from .lanes import side_by_side, wait
from .losses import EPSILON
from .network import UNet, for_autocast
from .tiling import (
    Answer,
    Picture,
    Planes,
    Wanted,
    band_height,
    default_tile,
    evaluate,
    evaluate_at_once,
    reaching,
    whole_strides,
)
from .winograd import halved

CLIP_RAMP = (0.97, 1.0)
"""Working values of a channel between which its predicted stops take effect: below, the source is left alone."""
COMPRESSED_RAMP = (0.92, 0.96)
"""The same in a lossily compressed clip, whose clipped pixels come out darker: docs/experiments.md has the figures."""

NOTHING_FOUND = Traits()
"""The traits of a clip that clips at white, uncompressed, in colour, and is all picture."""

logger = logging.getLogger(__name__)

Pixels = npt.NDArray[Any]


class Expander:
    """A trained network that turns linear SDR frames into HDR frames. Several threads may use it at the same time.

    Args:
        tile: height and width of the tiles that frames are computed in; None: whole, if they are not very large.
        tile_pad: pixels that a tile sees around itself; None: as far as the network reaches, so that no seam shows.
        traits: what was found in the clip. The paper's network knows nothing of clip points.
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
        self.network = network.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
        asked = halved(self.network) if additions_pay(device, precision) else self.network
        self._asked = for_autocast(asked) if precision == "bf16" else asked
        wait(device)  # the weights are for other streams, too
        self.config = config
        self.device = device
        self.precision = precision
        self.tile = tile and whole_strides(tile, network.architecture)
        self.tile_pad = tile_pad
        self.traits = traits
        self.white = traits.clip_point**camera.GAMMA
        """Linear light from which the source clips (stops alone)."""
        self.ramp = COMPRESSED_RAMP if traits.compressed else CLIP_RAMP
        self._cutting = threading.Lock()

    @torch.inference_mode()
    def __call__(self, linear: Tensor) -> Tensor:
        """HDR of `(batch, 3, height, width)` linear light, 1.0 = SDR white, values over 1 (superwhite) allowed.

        The result is never darker than `linear`; the same shape, float32, on the CPU.
        """
        hdr = linear.to(self.device, copy=True)
        for frame in hdr:
            self._brighten(frame)
        return hdr.cpu()

    def expand(self, linear: Pixels) -> Pixels:
        """The same for one frame of the clip as an array, `(3, height, width)`; its overlays stay as they are."""
        hdr = np.array(linear)
        self.expand_in_place(list(hdr))
        return hdr

    def expand_in_place(self, planes: Sequence[Pixels]) -> None:
        """The same, written over the frame's planes: three of `(height, width)`, rows may have gaps between them."""
        if not self.traits.overlays:
            self._picture(planes)
            return
        clips = self.white * self.ramp[1] ** camera.GAMMA
        hdr = self.traits.overlays.around(self._expanded, np.stack(planes), clips)
        for plane, bright in zip(planes, hdr, strict=True):
            plane[:] = bright

    def _expanded(self, linear: Pixels) -> Pixels:
        self._picture(list(linear))
        return linear

    @torch.inference_mode()
    def _picture(self, planes: Sequence[Pixels]) -> None:
        frame = [torch.from_numpy(plane) for plane in planes]
        if self.device.type == "cpu":
            self._brighten(frame)
        elif self.config.head == "ratio" or not all(plane.max() < self.foot for plane in planes):
            self._brighten_there(frame)  # else nothing clips, and the way there and back is spared

    def _brighten_there(self, planes: Planes) -> None:
        """`_brighten` on the device; waits for this thread's stream alone."""
        streams = has_streams(self.device)
        # torch keeps page-locked memory that is let go, and gives it to the next frame of this size
        host = torch.empty((len(planes), *planes[0].shape), pin_memory=streams)
        for row, plane in zip(host, planes, strict=True):
            row.copy_(plane)
        linear = host.to(self.device, non_blocking=streams)
        self._brighten(linear)
        host.copy_(linear, non_blocking=streams)
        wait(self.device)
        for row, plane in zip(host, planes, strict=True):
            plane.copy_(row)

    def _brighten(self, linear: Planes | Tensor) -> None:
        """Turn linear light, on the device, into HDR where it lies: `(3, height, width)`, or its planes."""
        if self.config.head == "ratio":
            sdr = camera.encode(torch.stack(tuple(linear))[None])
            hdr = merge(exposures(self.predict, sdr, self.config.n_exp_down, self.config.n_exp_up, self.traits.grey))
            for plane, bright in zip(linear, hdr[0], strict=True):
                plane.copy_(torch.maximum(bright, plane))
        elif self.device.type == "cpu":
            self._lift(tuple(linear))
        else:
            assert isinstance(linear, Tensor)
            self._lift_at_once(linear)

    def _lift_at_once(self, linear: Tensor) -> None:
        """Make the light brighter by the predicted stops where it clips: all of it, in few and large steps."""
        sdr = self.encoded(linear)
        for part, stops in self._answers(lambda part: sdr[None, :, *part], sdr.shape[-2:]):
            linear[:, *part] = lifted(linear[:, *part], sdr[:, *part], stops[0], self.ramp, self.traits.grey)

    def _lift(self, planes: Planes) -> None:
        """The same, part by part, on the processor.

        Only what reaches the ramp is computed: all else is the source, as it would be after a product by 2^0.
        """
        foot, gap = self.foot, band_height(self.network.architecture)

        def picture(part: Part) -> Tensor:
            return self.encoded(interleaved([plane[part] for plane in planes])[None])

        # Nothing is written before all is answered: tiles see the source around them, and a second try needs it, too.
        answers = self._answers(
            picture, planes[0].shape, lambda part: reaching([plane[part] for plane in planes], foot, gap)
        )

        def write(answer: Answer) -> None:
            part, stops = answer
            source = torch.stack([plane[part] for plane in planes])
            hdr = lifted(source, self.encoded(source), stops[0], self.ramp, self.traits.grey)
            for plane, bright in zip(planes, hdr, strict=True):
                plane[part] = bright

        side_by_side(write, answers)

    @property
    def foot(self) -> float:
        """Linear light under which nothing is on the ramp, however its encoding is rounded."""
        return float((self.ramp[0] - 1e-4) ** camera.GAMMA * self.white)

    def encoded(self, linear: Tensor) -> Tensor:
        """The working encoding, in which the source clips at 1."""
        return camera.encode(linear if self.white == 1 else linear / self.white)

    def predict(self, sdr: Tensor, wanted: Wanted | None = None) -> Tensor:
        """The network's answer for a whole frame, `(1, 3, height, width)`; where none is `wanted` it may be 0."""
        out = torch.zeros_like(sdr)
        for part, answer in self._answers(lambda part: sdr[..., *part], sdr.shape[-2:], wanted):
            out[..., *part] = answer
        return out

    def predict_near(self, sdr: Tensor, white: float, distance: int) -> Tensor:
        """The same; wanted are answers so many pixels around what reaches the working value `white`."""

        def wanted(part: Part) -> list[slice]:
            rows, columns = part
            seen = sdr[0, :, max(0, rows.start - distance) : rows.stop + distance, columns]
            runs = reaching(seen.unbind(), white, band_height(self.network.architecture))
            return [slice(max(0, run.start - distance), min(run.stop + distance, seen.shape[-1])) for run in runs]

        return self.predict(sdr, wanted)

    def _answers(self, picture: Picture, size: Sequence[int], wanted: Wanted | None = None) -> list[Answer]:
        while True:
            tile = self.tile or default_tile(size, self.network.architecture)
            try:
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                    if self.device.type == "cpu":
                        return list(evaluate(self._asked, picture, size, tile, wanted, self.tile_pad))
                    # a card is kept waiting by many small steps, and by every question what clips
                    return list(evaluate_at_once(self._asked, picture, size, tile, self.tile_pad))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                with self._cutting:
                    if self.tile in (None, tile):  # else another thread has made them smaller meanwhile
                        half = [min(pair) // 2 for pair in zip(tile, size, strict=True)]
                        smaller = whole_strides(half, self.network.architecture)
                        if smaller == tile:
                            raise
                        logger.warning(
                            f"{self.device} is out of memory: going on in tiles of {smaller[1]}x{smaller[0]}"
                        )
                        self.tile = smaller


def lifted(linear: Tensor, sdr: Tensor, stops: Tensor, ramp: tuple[float, float], grey: bool = False) -> Tensor:
    """Linear light, made brighter by the predicted stops where its encoding `sdr` clips; never darker.

    (..., 3, height, width) each. grey: all channels by one factor, so that what is grey stays grey to the last bit.
    """
    if grey:
        stops, sdr = stops.mean(-3, keepdim=True), sdr.amax(-3, keepdim=True)
    return torch.maximum(linear * torch.exp2(stops * clipping(sdr, ramp)), linear)


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
    hdr = expander(camera.decode(sdr)[None])[0]
    shown = {name: camera.encode(hdr * 2.0**stops) for name, stops in (("m4", -4), ("m2", -2), ("p2", 2), ("p4", 4))}
    delta = (shown["m2"] / (sdr + EPSILON)).clamp(0.0, 1.0)
    pictures = {"source": sdr, **shown, "delta": delta}
    return {name: (x * 255).round().byte().permute(1, 2, 0).numpy() for name, x in pictures.items()}
