"""A frame's HDR from its stack of exposures, or from the predicted stops in one go; whole frames or tiles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from . import camera
from .config import STEP_STOPS, Config
from .hardware import Precision
from .losses import EPSILON
from .network import UNet
from .overlays import Overlays
from .training import answer

CLIP_RAMP = (0.97, 1.0)
"""Working values of a channel between which its predicted stops take effect: below, the source is left alone."""
MERGE_FLOOR = 1 / 65535
"""Keeps the logarithm of black finite when exposures are merged (Banterle et al. 2024)."""
TILE_BLOCKS = 2**21
"""Larger frames go through the network in tiles of about this many of its finest blocks, which bounds the memory."""

Predict = Callable[[Tensor], Tensor]


class Expander:
    """A trained network that turns linear SDR frames into HDR frames."""

    def __init__(
        self,
        network: UNet,
        config: Config,
        device: torch.device,
        precision: Precision,
        tile: tuple[int, int] | None = None,
        overlays: Overlays | None = None,
    ) -> None:
        self.network = network.to(device).to(memory_format=torch.channels_last).eval()
        self.config = config
        self.device = device
        self.precision = precision
        self.tile = tile and whole_strides(*tile, network)
        self.overlays = overlays

    @torch.inference_mode()
    def __call__(self, linear: Tensor) -> Tensor:
        """HDR of `(batch, 3, height, width)` linear light, 1.0 = SDR white, values over 1 (superwhite) allowed.

        The result is never darker than `linear`; the same shape, float32, on the CPU.
        """
        source = linear.to(self.device)
        sdr = camera.encode(source)
        if self.config.head == "stops":
            hdr = source * torch.exp2(self.predict(sdr) * clipping(sdr))
        else:
            stack = exposures(self.predict, sdr, self.config.n_exp_down, self.config.n_exp_up)
            hdr = merge(stack)
        return torch.maximum(hdr, source).cpu()

    def expand(self, linear: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The same for one frame of the clip as an array, `(3, height, width)`; its overlays stay as they are."""

        def picture(linear: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            hdr: npt.NDArray[np.float32] = self(torch.from_numpy(linear)[None])[0].numpy()
            return hdr

        return picture(linear) if self.overlays is None else self.overlays.around(picture, linear)

    def predict(self, sdr: Tensor) -> Tensor:
        """The network's answer for whole frames, tile by tile where they are large."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return tiled(self.network, sdr, self.tile or default_tile(sdr.shape[-2], sdr.shape[-1], self.network))


def clipping(sdr: Tensor) -> Tensor:
    """How far each channel counts as clipped, 0 to 1: a ramp over its working value."""
    low, high = CLIP_RAMP
    return ((sdr - low) / (high - low)).clamp(0, 1)


def exposures(predict: Predict, sdr: Tensor, n_exp_down: int, n_exp_up: int) -> dict[int, Tensor]:
    """The stack of exposures: step k (of two stops; negative: darker) to display-encoded RGB in [0, 1].

    The first step down and the first step up use the same ratio: it is computed once.
    """
    stack = {0: sdr}
    if not n_exp_down and not n_exp_up:
        return stack
    first = predict(sdr)
    x = sdr
    for k in range(1, n_exp_down + 1):
        delta = first if k == 1 else predict(x)
        stack[-k] = x = (x * delta.clamp(min=camera.gain(-STEP_STOPS))).clamp(0, 1)
    x = sdr
    for k in range(1, n_exp_up + 1):
        delta = first if k == 1 else predict(x)
        stack[k] = x = (x / (delta + EPSILON)).clamp(0, 1)
    return stack


def merge(stack: dict[int, Tensor]) -> Tensor:
    """Linear HDR of a stack of exposures: their logarithms' mean, weighted by a hat over the luminance.

    Values are `(batch, 3, height, width)`, working encoding; the result's 1.0 is the white of exposure 0.
    """
    if len(stack) == 1:  # where a single picture is black or white, it would have no weight
        return camera.decode(stack[0])
    luma = next(iter(stack.values())).new_tensor(camera.LUMA)[:, None, None]
    weighted, weights = torch.zeros(()), torch.zeros(())
    for k, x in stack.items():
        luminance = (x * luma).sum(1, keepdim=True)
        weight = 1 - (2 * luminance - 1) ** 12
        if k == min(stack):
            weight = torch.where(_any(luminance > 0.9), luminance, weight)
        if k == max(stack):
            weight = torch.where(_any(luminance < 0.1), 1 - luminance, weight)
        exposure = STEP_STOPS * k
        weighted = weighted + weight * (torch.log2(camera.decode(x) + MERGE_FLOOR) - exposure)
        weights = weights + weight
    return torch.exp2(weighted / weights)


def _any(mask: Tensor) -> Tensor:
    """Whether any pixel of each picture is set: (batch, 1, 1, 1)."""
    return mask.flatten(1).any(1)[:, None, None, None]


def default_tile(height: int, width: int, network: UNet) -> tuple[int, int]:
    """Tile height and width in pixels: the fewest equal tiles of at most TILE_BLOCKS, from the frame's size and the
    network alone, so that every process computes the same bits."""
    most = TILE_BLOCKS * network.fold**2
    rows = columns = 1
    while -(-height // rows) * -(-width // columns) > most:
        if height / rows > width / columns:
            rows += 1
        else:
            columns += 1
    return whole_strides(-(-height // rows), -(-width // columns), network)


def whole_strides(height: int, width: int, network: UNet) -> tuple[int, int]:
    """The smallest tile of this size or more that is whole strides of the network: all tiles must begin on one."""
    multiple = network.multiple
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def tiled(network: UNet, x: Tensor, tile: tuple[int, int]) -> Tensor:
    """The network's answer for `(batch, 3, height, width)`, computed in tiles of `tile` (height, width) pixels.

    Tiles start on multiples of the network's stride and see as far around them as the network reaches, so that no seam
    shows: each pixel's answer is that of the whole frame.
    """
    height, width = x.shape[-2:]
    if tile[0] >= height and tile[1] >= width:
        return answer(network, x)
    margin = -(-network.reach // network.multiple) * network.multiple
    out = torch.empty_like(x)
    for top in range(0, height, tile[0]):
        for left in range(0, width, tile[1]):
            bottom, right = min(top + tile[0], height), min(left + tile[1], width)
            above, before = max(top - margin, 0), max(left - margin, 0)
            part = answer(network, x[..., above : bottom + margin, before : right + margin])
            out[..., top:bottom, left:right] = part[..., top - above : bottom - above, left - before : right - before]
    return out


def show(expander: Expander, sdr: Tensor) -> dict[str, npt.NDArray[np.uint8]]:
    """Pictures of a frame's expansion, `(height, width, 3)`, display-encoded 8-bit, by name.

    `sdr` is `(3, height, width)` in the working encoding: "source"; "m4", "m2", "p2", "p4": the expansion at -4, -2, +2
    and +4 stops; "delta": the ratio of the picture at -2 stops to the source.
    """
    hdr = expander(camera.decode(sdr)[None])[0]
    shown = {name: camera.encode(hdr * 2.0**stops) for name, stops in (("m4", -4), ("m2", -2), ("p2", 2), ("p4", 4))}
    delta = (shown["m2"] / (sdr + EPSILON)).clamp(0, 1)
    pictures = {"source": sdr, **shown, "delta": delta}
    return {name: (x * 255).round().byte().permute(1, 2, 0).numpy() for name, x in pictures.items()}
