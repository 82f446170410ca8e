"""A frame's HDR from its stack of exposures, or from the predicted stops in one go; whole frames or tiles."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from . import camera
from .config import STEP_STOPS, Config
from .hardware import Precision, additions_pay, has_streams, is_out_of_memory, side_by_side, wait
from .losses import EPSILON
from .network import CLIPPED, Part, UNet, for_autocast
from .overlays import Overlays
from .winograd import halved

CLIP_RAMP = (0.97, 1.0)
"""Working values of a channel between which its predicted stops take effect: below, the source is left alone."""
COMPRESSED_RAMP = (0.92, 0.96)
"""The same in a lossily compressed clip, whose clipped pixels come out darker: docs/experiments.md has the figures."""
MERGE_FLOOR = 1 / 65535
"""Keeps the logarithm of black finite when exposures are merged (Banterle et al. 2024)."""
TILE_BYTES = 2**28
"""Frames whose finest level in the network takes more (in float32) go through it in tiles, which bounds the memory."""
STRIP_VALUES = 2**21
"""The encoder's finest level is computed in strips of about this many input values, which stay in the cache, ..."""
STRIP_BLOCKS = 16
"""... but of this many rows of blocks or more, since each strip also sees a row above it and one below."""
AREA_ROWS, AREA_GAP = 64, 256
"""What clips is told to the encoder's finest level in areas as high as that, so far apart at least, in pixels: one area
more costs about as much as these pixels."""
FEWEST_PIXELS = 2**18
"""In strips of less than this, to know the areas costs more than is spared."""
BAND_BLOCKS, BAND_ROWS = 32, 128
"""The decoder's finest level is computed in bands as high as so many blocks, an even number, and pixels. What needs no
answer between columns that do is computed all the same where it is no wider than that."""

LEVEL_COPIES = 6
"""What the network takes for a tile is at most so many times its finest level (in float32), ..."""
FRAME_COPIES = 4
"""... and what a frame takes beside that so many times itself: source, result, and twice that where all of it clips."""

logger = logging.getLogger(__name__)

Pixels = npt.NDArray[Any]
Predict = Callable[[Tensor], Tensor]
Picture = Callable[[Part], Tensor]
"""A part of the network's input: (batch, 3, height, width), working encoding."""
Answer = tuple[Part, Tensor]
"""The network's answer for a part: (batch, 3, height, width)."""
Wanted = Callable[[Part], list[slice]]
"""Those columns of a part that need an answer, counted from its first."""
Planes = Sequence[Tensor]
"""A frame's red, green and blue, (height, width) each, wherever they lie."""


class Expander:
    """A trained network that turns linear SDR frames into HDR frames. Several threads may use it at the same time.

    Args:
        tile: height and width of the tiles that frames are computed in; None: whole, if they are not very large.
        tile_pad: pixels that a tile sees around itself; None: as far as the network reaches, so that no seam shows.
        clip_point: the working value from which the source clips (stops alone).
        compressed: whether the clip was compressed with losses.
        grey: whether the clip is black and white: then channels get the mean of what is predicted for them.
    """

    def __init__(
        self,
        network: UNet,
        config: Config,
        device: torch.device,
        precision: Precision,
        tile: tuple[int, int] | None = None,
        overlays: Overlays | None = None,
        clip_point: float = 1.0,
        compressed: bool = False,
        tile_pad: int | None = None,
        grey: bool = False,
    ) -> None:
        self.network = network.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
        asked = halved(self.network) if additions_pay(device, precision) else self.network
        self._asked = for_autocast(asked) if precision == "bf16" else asked
        wait(device)  # the weights are for other streams, too
        self.config = config
        self.device = device
        self.precision = precision
        self.tile = tile and whole_strides(*tile, network)
        self.tile_pad = tile_pad
        self.overlays = overlays
        self.white = clip_point**camera.GAMMA
        """Linear light from which the source clips (stops alone)."""
        self.ramp = COMPRESSED_RAMP if compressed else CLIP_RAMP
        self.grey = grey
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
        if not self.overlays:
            self._picture(planes)
            return
        clips = self.white * self.ramp[1] ** camera.GAMMA
        hdr = self.overlays.around(self._expanded, np.stack(planes), clips)
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
            hdr = merge(exposures(self.predict, sdr, self.config.n_exp_down, self.config.n_exp_up, self.grey))
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
            linear[:, *part] = lifted(linear[:, *part], sdr[:, *part], stops[0], self.ramp, self.grey)

    def _lift(self, planes: Planes) -> None:
        """The same, part by part, on the processor.

        Only what reaches the ramp is computed: all else is the source, as it would be after a product by 2^0.
        """
        foot, gap = self.foot, band_height(self.network)

        def picture(part: Part) -> Tensor:
            return self.encoded(interleaved([plane[part] for plane in planes])[None])

        # Nothing is written before all is answered: tiles see the source around them, and a second try needs it, too.
        answers = self._answers(
            picture, planes[0].shape, lambda part: reaching([plane[part] for plane in planes], foot, gap)
        )

        def write(answer: Answer) -> None:
            part, stops = answer
            source = torch.stack([plane[part] for plane in planes])
            hdr = lifted(source, self.encoded(source), stops[0], self.ramp, self.grey)
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
            runs = reaching(seen.unbind(), white, band_height(self.network))
            return [slice(max(0, run.start - distance), min(run.stop + distance, seen.shape[-1])) for run in runs]

        return self.predict(sdr, wanted)

    def _answers(self, picture: Picture, size: Sequence[int], wanted: Wanted | None = None) -> list[Answer]:
        while True:
            tile = self.tile or default_tile(size[0], size[1], self.network)
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
                        smaller = whole_strides(min(tile[0], size[0]) // 2, min(tile[1], size[1]) // 2, self.network)
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


def exposures(predict: Predict, sdr: Tensor, n_exp_down: int, n_exp_up: int, grey: bool = False) -> dict[int, Tensor]:
    """The stack of exposures: step k (of two stops; negative: darker) to display-encoded RGB in [0, 1].

    The first step down and the first step up use the same ratio: it is computed once. grey: one ratio for all channels.
    """

    def ratio(x: Tensor) -> Tensor:
        return predict(x).mean(-3, keepdim=True) if grey else predict(x)

    stack = {0: sdr}
    if not n_exp_down and not n_exp_up:
        return stack
    first = ratio(sdr)
    x = sdr
    for k in range(1, n_exp_down + 1):
        delta = first if k == 1 else ratio(x)
        stack[-k] = x = (x * delta.clamp(min=camera.gain(-STEP_STOPS))).clamp(0.0, 1.0)
    x = sdr
    for k in range(1, n_exp_up + 1):
        delta = first if k == 1 else ratio(x)
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


def reaching(planes: Planes, foot: float, gap: int) -> list[slice]:
    """The columns of a part's planes that reach `foot` anywhere, in runs that are over `gap` apart."""
    # by NumPy in one thread: waking others for so little costs more than they save
    highest = np.max([plane.numpy().max(axis=0) for plane in planes], axis=0)
    columns = np.flatnonzero(highest >= foot)
    runs = np.split(columns, np.flatnonzero(np.diff(columns) > gap + 1) + 1)
    return [slice(int(run[0]), int(run[-1]) + 1) for run in runs if len(run)]


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


def band_height(network: UNet) -> int:
    """Height of the bands in which the decoder's finest level is computed, in pixels."""
    return max(BAND_BLOCKS * network.fold, BAND_ROWS)


def working_memory(config: Config, size: Sequence[int], tile: Sequence[int] | None, tile_pad: int | None) -> int:
    """About what a frame of `size` (height, width) takes while it is computed, in bytes; see docs/performance.md."""
    with torch.device("meta"):
        network = UNet(config.widths, config.head, config.fold)
    height, width = whole_strides(tile[0], tile[1], network) if tile else default_tile(size[0], size[1], network)
    margin = 2 * (network.reach if tile_pad is None else tile_pad)
    seen = min(height + margin, size[0]) * min(width + margin, size[1])
    values = LEVEL_COPIES * network.widths[0] / network.fold**2
    return round(4 * (values * seen + FRAME_COPIES * 3 * size[0] * size[1]))


def whole_strides(height: int, width: int, network: UNet) -> tuple[int, int]:
    """The smallest tile of this size or more that is whole strides of the network: all tiles must begin on one."""
    multiple = network.multiple
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def evaluate(
    network: UNet,
    picture: Picture,
    size: Sequence[int],
    tile: Sequence[int],
    wanted: Wanted | None = None,
    tile_pad: int | None = None,
) -> Iterator[Answer]:
    """The network's answers for a frame of `size` (height, width), all of them or those `wanted`.

    The frame is computed in tiles of `tile` (height, width) pixels. They start on multiples of the network's stride and
    see `tile_pad` pixels (rounded up to such multiples) around them. By default that is as far as the network reaches:
    each pixel's answer is that of the whole frame, and no seam shows. Within a tile, what happens at full resolution
    happens strip by strip.
    """
    for here in _tiles(network, size, tile):
        parts = _parts(network, here, size, wanted)
        if not parts:
            continue
        rows, columns = area = _seen_by(network, here, parts, size, tile_pad)
        fine = _fine(network, picture, area, size)
        coarse = network.coarse(fine)
        finish = partial(_finish, network, coarse, fine, (rows.start, columns.start))
        yield from zip(parts, side_by_side(finish, parts), strict=True)


def evaluate_at_once(
    network: UNet, picture: Picture, size: Sequence[int], tile: Sequence[int], tile_pad: int | None = None
) -> Iterator[Answer]:
    """All answers that `evaluate` gives, each tile's by one call of the network."""
    for here in _tiles(network, size, tile):
        part = _inside(here, size)
        rows, columns = area = _seen_by(network, here, [part], size, tile_pad)
        answer = network(_padded(picture, area, size))
        above, before = part[0].start - rows.start, part[1].start - columns.start
        height, width = (side.stop - side.start for side in part)
        yield part, answer[..., above : above + height, before : before + width]


def _tiles(network: UNet, size: Sequence[int], tile: Sequence[int]) -> Iterator[Part]:
    """The tiles of a frame that is repeated beyond its right and bottom edge to whole strides."""
    height, width = whole_strides(size[0], size[1], network)
    for top in range(0, height, tile[0]):
        for left in range(0, width, tile[1]):
            yield slice(top, min(top + tile[0], height)), slice(left, min(left + tile[1], width))


def _inside(area: Part, size: Sequence[int]) -> Part:
    """What of an area lies in the frame; of one that lies below it altogether, the frame's last row."""
    rows, columns = (slice(min(side.start, end - 1), min(side.stop, end)) for side, end in zip(area, size, strict=True))
    return rows, columns


def _parts(network: UNet, tile: Part, size: Sequence[int], wanted: Wanted | None) -> list[Part]:
    """The parts of a tile that need an answer."""
    rows, columns = _inside(tile, size)
    step = band_height(network)
    bands = [(slice(top, min(top + step, rows.stop)), columns) for top in range(rows.start, rows.stop, step)]
    if wanted is None:
        return bands
    return [
        (band, slice(columns.start + run.start, columns.start + run.stop))
        for (band, _), runs in zip(bands, side_by_side(wanted, bands), strict=True)
        for run in runs
    ]


def _seen_by(network: UNet, tile: Part, parts: Sequence[Part], size: Sequence[int], tile_pad: int | None) -> Part:
    """What is computed for these parts of a tile: as far around them as the network reaches, in whole strides, but at
    most `tile_pad` beyond the tile, and nothing beyond the frame."""
    multiple = network.multiple
    reach, pad = whole_strides(network.reach, network.reach if tile_pad is None else tile_pad, network)

    def along(sides: Sequence[slice], whole: slice, end: int) -> slice:
        start, stop = min(side.start for side in sides), max(side.stop for side in sides)
        first, last = start // multiple * multiple - reach, -(-stop // multiple) * multiple + reach
        return slice(max(first, whole.start - pad, 0), min(last, whole.stop + pad, end))

    height, width = whole_strides(size[0], size[1], network)
    rows, columns = zip(*parts, strict=True)
    return along(rows, tile[0], height), along(columns, tile[1], width)


def _padded(picture: Picture, area: Part, size: Sequence[int]) -> Tensor:
    """The picture over an area that may extend beyond the frame's right and bottom edge: these are repeated."""
    rows, columns = area
    seen = picture(_inside(area, size))
    bottom, right = rows.stop - rows.start - seen.shape[-2], columns.stop - columns.start - seen.shape[-1]
    return F.pad(seen, (0, right, 0, bottom), mode="replicate") if bottom or right else seen


def _fine(network: UNet, picture: Picture, area: Part, size: Sequence[int]) -> Tensor:
    """The encoder's finest level over an area of whole strides."""
    rows, columns = area
    step = max(STRIP_BLOCKS, STRIP_VALUES // (6 * network.fold * (columns.stop - columns.start))) * network.fold

    def of(strip: slice) -> Tensor:
        above, below = max(strip.start - network.fold, rows.start), min(strip.stop + network.fold, rows.stop)
        seen = _padded(picture, (slice(above, below), columns), size)
        first = (strip.start - above) // network.fold
        fine = network.fine(seen, clipping_areas(seen, network.fold))
        return fine[:, :, first : first + (strip.stop - strip.start) // network.fold]

    strips = side_by_side(of, [slice(top, min(top + step, rows.stop)) for top in range(rows.start, rows.stop, step)])
    return strips[0] if len(strips) == 1 else torch.cat(strips, dim=2)


def clipping_areas(sdr: Tensor, fold: int) -> list[Part] | None:
    """Areas in blocks outside which nothing of a strip clips, for `UNet.fine`; None where it does not pay to know."""
    _, channels, height, width = sdr.shape
    if height * width < FEWEST_PIXELS:
        return None
    block, step = channels * fold, max(1, AREA_ROWS // fold)
    rows = sdr[0].permute(1, 2, 0).reshape(height, width * channels)
    bands = [slice(top, min(top + step, height // fold)) for top in range(0, height // fold, step)]
    areas = [
        (band, slice(run.start // block, -(-run.stop // block)))
        for band in bands
        for run in reaching([rows[band.start * fold : band.stop * fold]], CLIPPED, AREA_GAP * channels)
    ]
    blocks = sum((band.stop - band.start) * (columns.stop - columns.start) for band, columns in areas)
    cost = fold**2 * blocks + AREA_ROWS * AREA_GAP * len(areas)
    return areas if 2 * cost < height * width else None


def _finish(network: UNet, coarse: Tensor, fine: Tensor, origin: tuple[int, int], part: Part) -> Tensor:
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
