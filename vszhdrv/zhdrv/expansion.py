"""A frame's HDR from its stack of exposures, or from the predicted stops in one go; whole frames or tiles."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from . import camera
from .config import STEP_STOPS, Config
from .hardware import Precision
from .losses import EPSILON
from .network import UNet
from .overlays import Overlays

CLIP_RAMP = (0.97, 1.0)
"""Working values of a channel between which its predicted stops take effect: below, the source is left alone."""
MERGE_FLOOR = 1 / 65535
"""Keeps the logarithm of black finite when exposures are merged (Banterle et al. 2024)."""
TILE_BYTES = 2**28
"""Frames whose finest level in the network takes more (in float32) go through it in tiles, which bounds the memory."""
STRIP_VALUES = 2**21
"""The encoder's finest level is computed in strips of about this many input values: they stay in the cache."""
BAND_BLOCKS = 32
"""The decoder's finest level is computed in bands of this many rows of blocks, an even number."""
GAP_BLOCKS = 32
"""Columns of blocks that need no answer are computed all the same where no more lie between others."""

logger = logging.getLogger(__name__)

Predict = Callable[[Tensor], Tensor]
Part = tuple[slice, slice]
"""Rows and columns of a frame."""
Picture = Callable[[Part], Tensor]
"""A part of the network's input: (batch, 3, height, width), working encoding."""
Take = Callable[[Part, Tensor], None]
"""Gets the network's answer for a part, (batch, 3, height, width)."""
Wanted = Callable[[Part], list[slice]]
"""Those columns of a part that need an answer, counted from its first."""


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
        clip_point: float = 1.0,
        ramp: tuple[float, float] = CLIP_RAMP,
    ) -> None:
        self.network = network.to(device).to(memory_format=torch.channels_last).eval()
        self.config = config
        self.device = device
        self.precision = precision
        self.tile = tile and whole_strides(*tile, network)
        self.overlays = overlays
        self.white = clip_point**camera.GAMMA
        """Linear light from which the source clips (stops alone)."""
        self.ramp = ramp

    @torch.inference_mode()
    def __call__(self, linear: Tensor) -> Tensor:
        """HDR of `(batch, 3, height, width)` linear light, 1.0 = SDR white, values over 1 (superwhite) allowed.

        The result is never darker than `linear`; the same shape, float32, on the CPU.
        """
        return torch.stack([self._expanded(frame) for frame in linear.to(self.device)]).cpu()

    @torch.inference_mode()
    def expand(self, linear: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The same for one frame of the clip as an array, `(3, height, width)`; its overlays stay as they are."""
        return self._picture(linear) if self.overlays is None else self.overlays.around(self._picture, linear)

    def _picture(self, linear: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        hdr: npt.NDArray[np.float32] = self._expanded(torch.from_numpy(linear).to(self.device)).cpu().numpy()
        return hdr

    def _expanded(self, linear: Tensor) -> Tensor:
        if self.config.head == "stops":
            return self._lifted(linear)
        sdr = camera.encode(linear[None])
        hdr = merge(exposures(self.predict, sdr, self.config.n_exp_down, self.config.n_exp_up))
        return torch.maximum(hdr[0], linear)

    def _lifted(self, linear: Tensor) -> Tensor:
        """`(3, height, width)`, made brighter by the predicted stops where it clips.

        Only what reaches the ramp is computed: all else is the source, as it would be after a product by 2^0.
        """
        hdr = linear.clone()
        foot, gap = self.foot, GAP_BLOCKS * self.network.fold

        def picture(part: Part) -> Tensor:
            return self.encoded(linear[None, :, *part].contiguous(memory_format=torch.channels_last))

        def lift(part: Part, stops: Tensor) -> None:
            source = linear[:, *part]
            hdr[:, *part] = lifted(source, self.encoded(source), stops[0], self.ramp)

        self._evaluate(picture, linear.shape[-2:], lift, lambda part: reaching(linear[:, *part], foot, gap))
        return hdr

    @property
    def foot(self) -> float:
        """Linear light under which nothing is on the ramp, however its encoding is rounded."""
        return float((self.ramp[0] - 1e-4) ** camera.GAMMA * self.white)

    def encoded(self, linear: Tensor) -> Tensor:
        """The working encoding, in which the source clips at 1."""
        return camera.encode(linear if self.white == 1 else linear / self.white)

    def predict(self, sdr: Tensor) -> Tensor:
        """The network's answer for a whole frame, `(1, 3, height, width)`."""
        out = torch.empty_like(sdr)

        def put(part: Part, answer: Tensor) -> None:
            out[..., *part] = answer

        self._evaluate(lambda part: sdr[..., *part], sdr.shape[-2:], put)
        return out

    def _evaluate(self, picture: Picture, size: Sequence[int], take: Take, wanted: Wanted | None = None) -> None:
        tile = self.tile or default_tile(size[0], size[1], self.network)
        while True:
            try:
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                    return evaluate(self.network, picture, size, tile, take, wanted)
            except torch.OutOfMemoryError:
                smaller = whole_strides(min(tile[0], size[0]) // 2, min(tile[1], size[1]) // 2, self.network)
                if smaller == tile:
                    raise
                logger.warning(f"{self.device} is out of memory: going on in tiles of {smaller[1]}x{smaller[0]}")
                tile = self.tile = smaller


def lifted(linear: Tensor, sdr: Tensor, stops: Tensor, ramp: tuple[float, float]) -> Tensor:
    """Linear light, made brighter by the predicted stops where its encoding `sdr` clips; never darker. Any shape."""
    return torch.maximum(linear * torch.exp2(stops * clipping(sdr, ramp)), linear)


def clipping(sdr: Tensor, ramp: tuple[float, float]) -> Tensor:
    """How far each channel counts as clipped, 0 to 1: a ramp over its working value."""
    low, high = ramp
    return ((sdr - low) / (high - low)).clamp(0.0, 1.0)


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
        stack[-k] = x = (x * delta.clamp(min=camera.gain(-STEP_STOPS))).clamp(0.0, 1.0)
    x = sdr
    for k in range(1, n_exp_up + 1):
        delta = first if k == 1 else predict(x)
        stack[k] = x = (x / (delta + EPSILON)).clamp(0.0, 1.0)
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


def reaching(linear: Tensor, foot: float, gap: int) -> list[slice]:
    """The columns of `(3, height, width)` linear light that reach `foot`, in runs that are over `gap` apart."""
    columns = (linear.amax(1).amax(0) >= foot).nonzero().flatten().tolist()
    runs: list[slice] = []
    for column in columns:
        if runs and column - runs[-1].stop <= gap:
            runs[-1] = slice(runs[-1].start, column + 1)
        else:
            runs.append(slice(column, column + 1))
    return runs


def default_tile(height: int, width: int, network: UNet) -> tuple[int, int]:
    """Tile height and width in pixels: the fewest equal tiles of at most TILE_BYTES, from the frame's size and the
    network alone, so that every process computes the same bits."""
    most = TILE_BYTES // (4 * network.widths[0]) * network.fold**2
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


def evaluate(
    network: UNet, picture: Picture, size: Sequence[int], tile: Sequence[int], take: Take, wanted: Wanted | None = None
) -> None:
    """Let `take` have the network's answers for a frame of `size` (height, width), all of them or those `wanted`.

    The frame is computed in tiles of `tile` (height, width) pixels. They start on multiples of the network's stride and
    see as far around them as the network reaches, so that no seam shows: each pixel's answer is that of the whole
    frame. Within a tile, what happens at full resolution happens strip by strip.
    """
    height, width = (-(-side // network.multiple) * network.multiple for side in size)
    margin = -(-network.reach // network.multiple) * network.multiple
    for top in range(0, height, tile[0]):
        for left in range(0, width, tile[1]):
            here = slice(top, min(top + tile[0], height)), slice(left, min(left + tile[1], width))
            parts = _parts(network, here, size, wanted)
            if not parts:
                continue
            rows = _around([rows for rows, _ in parts], margin, network.multiple, height)
            columns = _around([columns for _, columns in parts], margin, network.multiple, width)
            fine = _fine(network, picture, (rows, columns), size)
            coarse = network.coarse(fine)
            for part in parts:
                take(part, _finish(network, coarse, fine, part, (rows.start, columns.start)))


def _parts(network: UNet, tile: Part, size: Sequence[int], wanted: Wanted | None) -> list[Part]:
    """The parts of a tile that need an answer."""
    rows, columns = (slice(side.start, min(side.stop, end)) for side, end in zip(tile, size, strict=True))
    step = BAND_BLOCKS * network.fold
    bands = [slice(top, min(top + step, rows.stop)) for top in range(rows.start, rows.stop, step)]
    if wanted is None:
        return [(band, columns) for band in bands]
    return [
        (band, slice(columns.start + run.start, columns.start + run.stop))
        for band in bands
        for run in wanted((band, columns))
    ]


def _around(slices: Sequence[slice], margin: int, multiple: int, end: int) -> slice:
    """From the first of the slices to the last, and `margin` more, in whole multiples, but not beyond 0 and `end`."""
    start, stop = min(one.start for one in slices), max(one.stop for one in slices)
    return slice(max(start // multiple * multiple - margin, 0), min(-(-stop // multiple) * multiple + margin, end))


def _fine(network: UNet, picture: Picture, area: Part, size: Sequence[int]) -> Tensor:
    """The encoder's finest level over an area of whole strides, which may extend beyond the frame's right and bottom
    edge: these are repeated."""
    rows, columns = area
    step = max(8, STRIP_VALUES // (6 * network.fold * (columns.stop - columns.start))) * network.fold
    strips = []
    for strip in (slice(top, min(top + step, rows.stop)) for top in range(rows.start, rows.stop, step)):
        above, below = max(strip.start - network.fold, rows.start), min(strip.stop + network.fold, rows.stop)
        # a strip that lies below the frame altogether is its last row
        inside = slice(min(above, size[0] - 1), min(below, size[0]))
        seen = picture((inside, slice(columns.start, min(columns.stop, size[1]))))
        bottom, right = below - above - seen.shape[-2], columns.stop - columns.start - seen.shape[-1]
        if bottom or right:
            seen = F.pad(seen, (0, right, 0, bottom), mode="replicate")
        first = (strip.start - above) // network.fold
        strips.append(network.fine(seen)[:, :, first : first + (strip.stop - strip.start) // network.fold])
    return torch.cat(strips, dim=2)


def _finish(network: UNet, coarse: Tensor, fine: Tensor, part: Part, origin: tuple[int, int]) -> Tensor:
    """The answer for a part of the frame, from levels that begin at `origin`."""
    block = 2 * network.fold  # of a pixel of `coarse`, which sees one more around
    cuts = []
    for pixels, start, length in zip(part, origin, coarse.shape[-2:], strict=True):
        first = max((pixels.start - start) // block - 1, 0)
        cuts.append((first, min(-(-(pixels.stop - start) // block) + 1, length), start + first * block))
    (top, bottom, above), (left, right, before) = cuts
    answer = network.finish(coarse[..., top:bottom, left:right], fine[..., 2 * top : 2 * bottom, 2 * left : 2 * right])
    rows, columns = part
    return answer[..., rows.start - above : rows.stop - above, columns.start - before : columns.stop - before]


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
