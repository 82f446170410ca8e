"""A trained network's predictions for frames of any size, in tiles that fit into memory."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from .blocks import Part
from .hardware import Precision, additions_pay, is_out_of_memory
from .lanes import wait
from .network import UNet, for_autocast
from .tiling import (
    Picture,
    Prediction,
    Wanted,
    band_height,
    default_tile,
    evaluate,
    evaluate_at_once,
    reaching,
    whole_strides,
)
from .winograd import halved

logger = logging.getLogger(__name__)


class Evaluator:
    """A network made ready for its device. Several threads may use it at the same time.

    Args:
        network: its weights get the device's layout in memory, and no gradients any more.
        tile: height and width of the tiles that frames are computed in; None: whole, if they are not very large.
        tile_pad: pixels that a tile sees around itself; None: as far as the network reaches, so that no seam shows.
    """

    def __init__(
        self,
        network: UNet,
        device: torch.device,
        precision: Precision,
        tile: tuple[int, int] | None = None,
        tile_pad: int | None = None,
    ) -> None:
        self.network = network.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
        fast = halved(self.network) if additions_pay(device, precision) else self.network
        self._fast = for_autocast(fast) if precision == "bf16" else fast
        wait(device)  # the weights are for other streams, too
        self.device = device
        self.precision = precision
        self.tile = tile and whole_strides(tile, network.architecture)
        self.tile_pad = tile_pad
        self._cutting = threading.Lock()

    def predict(self, sdr: Tensor, wanted: Wanted | None = None) -> Tensor:
        """The predictions for a whole frame, `(1, 3, height, width)`; where none is `wanted` they may be 0."""
        out = torch.zeros_like(sdr)
        for part, prediction in self.predictions(lambda part: sdr[..., *part], sdr.shape[-2:], wanted):
            out[..., *part] = prediction
        return out

    def predict_near(self, sdr: Tensor, white: float, distance: int) -> Tensor:
        """The same; wanted are predictions so many pixels around values that reach the working value `white`."""

        def wanted(part: Part) -> list[slice]:
            rows, columns = part
            seen = sdr[0, :, max(0, rows.start - distance) : rows.stop + distance, columns]
            runs = reaching(seen.unbind(), white, band_height(self.network.architecture))
            return [slice(max(0, run.start - distance), min(run.stop + distance, seen.shape[-1])) for run in runs]

        return self.predict(sdr, wanted)

    def predictions(self, picture: Picture, size: Sequence[int], wanted: Wanted | None = None) -> list[Prediction]:
        """The predictions for the parts of a frame of `size` (height, width), all of them or those `wanted`.

        Where the device is out of memory, tiles are made smaller, for this frame and those that follow.
        """
        architecture = self.network.architecture
        while True:
            tile = self.tile or default_tile(size, architecture)
            try:
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                    if self.device.type == "cpu":
                        return list(evaluate(self._fast, picture, size, tile, wanted, self.tile_pad))
                    # a card is kept waiting by many small steps, and by every look at which values clip
                    return list(evaluate_at_once(self._fast, picture, size, tile, self.tile_pad))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                with self._cutting:
                    if self.tile in (None, tile):  # else another thread has made them smaller meanwhile
                        half = [min(pair) // 2 for pair in zip(tile, size, strict=True)]
                        smaller = whole_strides(half, architecture)
                        if smaller == tile:
                            raise
                        logger.warning(
                            f"{self.device} is out of memory: going on in tiles of {smaller[1]}x{smaller[0]}"
                        )
                        self.tile = smaller
