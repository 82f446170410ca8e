"""Where in a frame the network is evaluated, and in which order.

- A *tile* goes through the network in one go: a whole frame, or parts of a large one, which bounds the memory.
- A *strip* is some rows of a tile at the encoder's finest level: so few that its values stay in the cache.
- An *area* is some blocks of a strip in which something clips: the encoder is told of them alone.
- A *band* is some rows of a tile at the decoder's finest level, of which only the columns that matter are computed.
- A *part* is any of these as rows and columns of the frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .blocks import Part
from .config import Architecture
from .lanes import side_by_side
from .network import UNet
from .rounding import ceil_div, round_up
from .working import CLIPPED

TILE_BYTES = 2**28
"""Frames whose finest level in the network takes more (in float32) go through it in tiles, which bounds the memory."""
STRIP_VALUES = 2**21
"""A strip has about this many input values, which stay in the cache."""
STRIP_BLOCKS = 16
"""A strip has this many rows of blocks or more, since it also sees a row above it and one below."""
AREA_ROWS, AREA_GAP = 64, 256
"""Height of areas, and the least distance between two of them, in pixels: one area more costs about as much as these
pixels."""
FEWEST_PIXELS = 2**18
"""In strips of less than this, to know the areas costs more than is spared."""
BAND_BLOCKS, BAND_ROWS = 32, 128
"""A band is as high as so many blocks, an even number, and pixels. Columns between two that need a prediction are
computed, too, where they are no wider than that."""
LEVEL_COPIES = 6
"""The network takes at most so many times the memory of a tile's finest level (in float32)."""
FRAME_COPIES = 4
"""Beside the network, a frame takes at most so many times its own memory: source, result, and twice that where all of
it clips."""

Picture = Callable[[Part], Tensor]
"""A part of the network's input: (batch, 3, height, width), working encoding."""
Prediction = tuple[Part, Tensor]
"""The network's prediction for a part: (batch, 3, height, width)."""
Planes = Sequence[Tensor]
"""A frame's red, green and blue, (height, width) each, wherever they lie."""
Wanted = Callable[[Part], list[slice]]
"""Those columns of a part that need a prediction, counted from its first."""


def reaching(planes: Planes, foot: float, gap: int) -> list[slice]:
    """The columns of a part's planes that reach `foot` anywhere, in runs that are over `gap` apart."""
    # by NumPy in one thread: waking others for so little costs more than they save
    highest = np.max([plane.numpy().max(axis=0) for plane in planes], axis=0)
    columns = np.flatnonzero(highest >= foot)
    runs = np.split(columns, np.flatnonzero(np.diff(columns) > gap + 1) + 1)
    return [slice(int(run[0]), int(run[-1]) + 1) for run in runs if len(run)]


def default_tile(size: Sequence[int], architecture: Architecture) -> tuple[int, int]:
    """Tile height and width in pixels: the fewest equal tiles of at most TILE_BYTES.

    They depend on the frame's size and the network alone, so that every process computes the same bits.
    """
    height, width = size
    most = TILE_BYTES // (4 * architecture.widths[0]) * architecture.fold**2
    rows = columns = 1
    while ceil_div(height, rows) * ceil_div(width, columns) > most:
        if height / rows > width / columns:
            rows += 1
        else:
            columns += 1
    return whole_strides((ceil_div(height, rows), ceil_div(width, columns)), architecture)


def band_height(architecture: Architecture) -> int:
    """Height of the bands in which the decoder's finest level is computed, in pixels."""
    return max(BAND_BLOCKS * architecture.fold, BAND_ROWS)


def working_memory(
    architecture: Architecture, size: Sequence[int], tile: Sequence[int] | None, tile_pad: int | None
) -> int:
    """About what a frame of `size` (height, width) takes while it is computed, in bytes; see docs/performance.md."""
    height, width = whole_strides(tile, architecture) if tile else default_tile(size, architecture)
    margin = 2 * (architecture.reach if tile_pad is None else tile_pad)
    seen = min(height + margin, size[0]) * min(width + margin, size[1])
    values = LEVEL_COPIES * architecture.widths[0] / architecture.fold**2
    return round(4 * (values * seen + FRAME_COPIES * 3 * size[0] * size[1]))


def whole_strides(size: Sequence[int], architecture: Architecture) -> tuple[int, int]:
    """The smallest tile of this size or more that is whole strides of the network: all tiles must begin on one."""
    height, width = size
    return round_up(height, architecture.multiple), round_up(width, architecture.multiple)


def evaluate(
    network: UNet,
    picture: Picture,
    size: Sequence[int],
    tile: Sequence[int],
    wanted: Wanted | None = None,
    tile_pad: int | None = None,
) -> Iterator[Prediction]:
    """The network's predictions for a frame of `size` (height, width), all of them or those `wanted`.

    The frame is computed in tiles of `tile` (height, width) pixels. They start on multiples of the network's stride and
    see `tile_pad` pixels (rounded up to such multiples) around them. By default that is as far as the network reaches:
    each pixel's prediction is that of the whole frame, and no seam shows. Within a tile, the finest
    levels are computed strip by strip and band by band.
    """
    for here in _tiles(network, size, tile):
        parts = _parts(network, here, size, wanted)
        if not parts:
            continue
        rows, columns = area = _seen_by(network, here, parts, size, tile_pad)
        finest = _encoded_finest(network, picture, area, size)
        inner = network.inner(finest)
        decode = partial(_decoded_finest, network, inner, finest, (rows.start, columns.start))
        yield from zip(parts, side_by_side(decode, parts), strict=True)


def evaluate_at_once(
    network: UNet, picture: Picture, size: Sequence[int], tile: Sequence[int], tile_pad: int | None = None
) -> Iterator[Prediction]:
    """All predictions that `evaluate` gives, each tile's by one call of the network."""
    for here in _tiles(network, size, tile):
        part = _inside(here, size)
        rows, columns = area = _seen_by(network, here, [part], size, tile_pad)
        prediction = network(_padded(picture, area, size))
        above, before = part[0].start - rows.start, part[1].start - columns.start
        height, width = (side.stop - side.start for side in part)
        yield part, prediction[..., above : above + height, before : before + width]


def _tiles(network: UNet, size: Sequence[int], tile: Sequence[int]) -> Iterator[Part]:
    """The tiles of a frame that is repeated beyond its right and bottom edge to whole strides."""
    height, width = whole_strides(size, network.architecture)
    for top in range(0, height, tile[0]):
        for left in range(0, width, tile[1]):
            yield slice(top, min(top + tile[0], height)), slice(left, min(left + tile[1], width))


def _inside(area: Part, size: Sequence[int]) -> Part:
    """What of an area lies in the frame; of one that lies below it altogether, the frame's last row."""
    rows, columns = (slice(min(side.start, end - 1), min(side.stop, end)) for side, end in zip(area, size, strict=True))
    return rows, columns


def _parts(network: UNet, tile: Part, size: Sequence[int], wanted: Wanted | None) -> list[Part]:
    """The parts of a tile that need a prediction."""
    rows, columns = _inside(tile, size)
    step = band_height(network.architecture)
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
    architecture, multiple = network.architecture, network.multiple
    reach = architecture.reach
    reach, pad = whole_strides((reach, reach if tile_pad is None else tile_pad), architecture)

    def along(sides: Sequence[slice], whole: slice, end: int) -> slice:
        start, stop = min(side.start for side in sides), max(side.stop for side in sides)
        first, last = start // multiple * multiple - reach, round_up(stop, multiple) + reach
        return slice(max(first, whole.start - pad, 0), min(last, whole.stop + pad, end))

    height, width = whole_strides(size, network.architecture)
    rows, columns = zip(*parts, strict=True)
    return along(rows, tile[0], height), along(columns, tile[1], width)


def _padded(picture: Picture, area: Part, size: Sequence[int]) -> Tensor:
    """The picture over an area that may extend beyond the frame's right and bottom edge: these are repeated."""
    rows, columns = area
    seen = picture(_inside(area, size))
    bottom, right = rows.stop - rows.start - seen.shape[-2], columns.stop - columns.start - seen.shape[-1]
    return F.pad(seen, (0, right, 0, bottom), mode="replicate") if bottom or right else seen


def _encoded_finest(network: UNet, picture: Picture, area: Part, size: Sequence[int]) -> Tensor:
    """The encoder's finest level over an area of whole strides."""
    rows, columns = area
    step = max(STRIP_BLOCKS, STRIP_VALUES // (6 * network.fold * (columns.stop - columns.start))) * network.fold

    def of(strip: slice) -> Tensor:
        above, below = max(strip.start - network.fold, rows.start), min(strip.stop + network.fold, rows.stop)
        seen = _padded(picture, (slice(above, below), columns), size)
        first = (strip.start - above) // network.fold
        finest = network.encode_finest(seen, clipping_areas(seen, network.fold))
        return finest[:, :, first : first + (strip.stop - strip.start) // network.fold]

    strips = side_by_side(of, [slice(top, min(top + step, rows.stop)) for top in range(rows.start, rows.stop, step)])
    return strips[0] if len(strips) == 1 else torch.cat(strips, dim=2)


def clipping_areas(sdr: Tensor, fold: int) -> list[Part] | None:
    """Areas in blocks outside which nothing of a strip clips; None where it does not pay to know."""
    _, channels, height, width = sdr.shape
    if height * width < FEWEST_PIXELS:
        return None
    block, step = channels * fold, max(1, AREA_ROWS // fold)
    rows = sdr[0].permute(1, 2, 0).reshape(height, width * channels)
    bands = [slice(top, min(top + step, height // fold)) for top in range(0, height // fold, step)]
    areas = [
        (band, slice(run.start // block, ceil_div(run.stop, block)))
        for band in bands
        for run in reaching([rows[band.start * fold : band.stop * fold]], CLIPPED, AREA_GAP * channels)
    ]
    blocks = sum((band.stop - band.start) * (columns.stop - columns.start) for band, columns in areas)
    cost = fold**2 * blocks + AREA_ROWS * AREA_GAP * len(areas)
    return areas if 2 * cost < height * width else None


def _decoded_finest(network: UNet, inner: Tensor, finest: Tensor, origin: tuple[int, int], part: Part) -> Tensor:
    """The prediction for a part of the frame, from levels that begin at `origin`."""
    block = 2 * network.fold  # of a pixel of `inner`, which sees one more around
    cuts = []
    for pixels, start, length in zip(part, origin, inner.shape[-2:], strict=True):
        first = max((pixels.start - start) // block - 1, 0)
        cuts.append((first, min(ceil_div(pixels.stop - start, block) + 1, length), start + first * block))
    (top, bottom, above), (left, right, before) = cuts
    around = finest[..., 2 * top : 2 * bottom, 2 * left : 2 * right]
    prediction = network.decode_finest(inner[..., top:bottom, left:right], around)
    rows, columns = part
    return prediction[..., rows.start - above : rows.stop - above, columns.start - before : columns.stop - before]
