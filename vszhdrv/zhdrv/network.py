"""The U-Net and nothing else: what it answers is given a meaning by losses.py and expansion.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Head = Literal["ratio", "stops"]
Part = tuple[slice, slice]
"""Rows and columns of a picture."""

CLIPPED = 254.5 / 255
"""Working values from which a channel counts as clipped: those that an 8-bit recording rounds to its highest code."""

LEAK = 0.1
"""Slope of the stops at their lower end. Without it, answers that a bad stretch of training has brought to nearly 0 on
every pixel have no gradient left, and stay there: docs/experiments.md has such a clip."""

LARGE_FOLD = 16
"""From this `fold` on, blocks are copied side by side: kernels of three times as many rows take torch's convolution on
processors twice as long as lower ones with the same work (docs/experiments.md)."""


class Lattice(NamedTuple):
    """Every `step`th row and column of a picture, from `row` and `column` (under `step`) on."""

    step: int = 1
    row: int = 0
    column: int = 0

    def of(self, x: Tensor) -> Tensor:
        """These pixels of `(..., height, width)`."""
        return x[..., self.row :: self.step, self.column :: self.step]

    def size(self, height: int, width: int) -> tuple[int, int]:
        """How many rows and columns they are."""
        return len(range(self.row, height, self.step)), len(range(self.column, width, self.step))


EVERY_PIXEL = Lattice()


class MixedPool(nn.Module):
    """Halves height and width by a learned mix of maximum and mean: a * max + (1 - a) * mean (Lee et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        mix = self.mix.to(x.dtype)
        return torch.lerp(F.avg_pool2d(x, 2), F.max_pool2d(x, 2), mix)


class UNet(nn.Module):
    """A U-Net with one 3x3 convolution a level on either side.

    Input and output are `(batch, 3, height, width)`, the input display-encoded in [0, 1]; height and width must be
    multiples of `multiple`: callers pad.

    Args:
        widths: channels of the encoder's levels, finest first.
        head: what the three output channels are: "ratio", values in (0, 1) by a sigmoid, or "stops" over white by a
            leaky softplus (what is under 0 counts as 0), from a network that is also told which channels clip.
        fold: the finest level sees blocks of this many pixels squared as one, all their values side by side.
    """

    def __init__(self, widths: Sequence[int], head: Head, fold: int = 1) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.head = head
        self.fold = fold
        self.multiple: int = fold * 2 ** (len(widths) - 1)
        inputs = (6 if head == "stops" else 3) * fold**2
        self.encoder = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1) for before, after in zip((inputs, *widths), widths, strict=False)
        )
        self.pools = nn.ModuleList(MixedPool() for _ in widths[1:])
        # Deepest first: from the concatenation at a level (at the bottom: its own channels) to the next finer's width.
        joined = [widths[-1], *(2 * width for width in reversed(widths[1:-1]))]
        self.decoder = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1) for before, after in zip(joined, reversed(widths[:-1]), strict=True)
        )
        self.last = nn.Conv2d(2 * widths[0], widths[0], 3, padding=1)
        self.out = nn.Conv2d(widths[0], 3 * fold**2, 1)

    @property
    def reach(self) -> int:
        """Pixels beyond which nothing around a pixel changes its answer: the overlap that tiles need."""
        # At level k a pixel is fold * 2^k wide: 3x3 convolutions (two a level, three at the finest) and a pooling each
        # see one further, the bilinear upsampling from level k up to one and a half.
        levels = range(len(self.widths))
        blocks: int = sum(3 * 2**k for k in levels) + sum(2 * 2**k for k in levels[1:])
        return self.fold * blocks

    def forward(self, x: Tensor, lattice: Lattice = EVERY_PIXEL) -> Tensor:
        """The answer at the lattice's pixels, whose step divides `fold`."""
        fine = self.fine(x)
        return self.finish(self.coarse(fine), fine, lattice)

    def fine(self, x: Tensor, clipping: Sequence[Part] | None = None) -> Tensor:
        """The finest level of the encoder: (batch, widths[0], height / fold, width / fold). Sees one block around.

        clipping: rows and columns of blocks outside which nothing clips, areas apart from one another, if known.
        """
        first = cast(nn.Conv2d, self.encoder[0])
        blocks = _in_blocks(x, self.fold)
        if self.head == "ratio":
            y = _convolved(blocks, first.weight, first.bias, self.fold)
        else:  # one convolution over both inputs, side by side, costs a copy of them
            seen, told = first.weight.chunk(2, dim=1)
            if clipping is None:
                of_told = _convolved(_clips(blocks).sub_(0.5), told, None, self.fold)
            else:
                of_told = self._of_areas(x, told, clipping)
            y = _convolved(blocks - 0.5, seen, first.bias, self.fold).add_(of_told)
        return F.relu(y, inplace=True)

    def _of_areas(self, x: Tensor, told: Tensor, clipping: Sequence[Part]) -> Tensor:
        """What the weights `told` make of which values clip, -0.5 and 0.5: all are -0.5, and in some areas 1 more."""
        fold = self.fold
        size = len(x), x.shape[-2] // fold, x.shape[-1] // fold, 1
        everywhere = x.new_full(size, -0.5).permute(0, 3, 1, 2)  # a single channel, in channels-last memory
        y = F.conv2d(everywhere, told.sum(1, keepdim=True), padding=1)
        for rows, columns in clipping:
            area = x[..., rows.start * fold : rows.stop * fold, columns.start * fold : columns.stop * fold]
            more = _convolved(_in_blocks(_clips(area), fold), told, None, fold, padding=2)
            # it has a block more on every side, even beyond the picture
            above, before = int(rows.start == 0), int(columns.start == 0)
            around = y[..., rows.start - 1 + above : rows.stop + 1, columns.start - 1 + before : columns.stop + 1]
            around.add_(more[..., above : above + around.shape[-2], before : before + around.shape[-1]])
        return y

    def coarse(self, fine: Tensor) -> Tensor:
        """All other levels, up to the last upsampling: half as high and wide as `fine`, as many channels."""
        skips = [fine]
        for pool, convolution in zip(self.pools, self.encoder[1:], strict=True):
            skips.append(F.relu(convolution(pool(skips[-1])), inplace=True))
        x = skips.pop()
        for level, convolution in enumerate(self.decoder):
            if level:
                x = _joined(x, skips.pop())
            x = F.relu(convolution(x), inplace=True)
        return x

    def finish(self, coarse: Tensor, fine: Tensor, lattice: Lattice = EVERY_PIXEL) -> Tensor:
        """The answer, from the finest levels of both sides. Sees one pixel of `coarse` around."""
        x = F.relu(self.last(_joined(coarse, fine)), inplace=True)
        weight, bias = self.out.weight, cast(Tensor, self.out.bias)
        side = self.fold
        if lattice != EVERY_PIXEL:  # of a block's pixels these alone are computed
            weight = lattice.of(weight.view(3, side, side, -1).movedim(-1, 0)).flatten(1).t()[..., None, None]
            bias = lattice.of(bias.view(3, side, side)).flatten()
            side //= lattice.step
        with torch.autocast(x.device.type, enabled=False):
            x = F.conv2d(x.float(), weight, bias)  # in bf16, skies would have steps of a hundredth
        height, width = x.shape[-2:]
        # F.pixel_shuffle, in half the time on channels-last memory
        x = x.view(-1, 3, side, side, height, width).permute(0, 1, 4, 2, 5, 3)
        x = x.reshape(-1, 3, side * height, side * width)
        return torch.sigmoid(x) if self.head == "ratio" else F.softplus(x) + LEAK * x.clamp(max=0)


def _in_blocks(x: Tensor, fold: int) -> Tensor:
    """Pixels in the order in which `_convolved` takes blocks of `fold` squared.

    In channels-last memory the pixels of a block's row lie side by side: they are channels already, and no pixel moves.
    Large blocks are copied, so that all of a block's are.
    """
    if fold == 1:
        return x
    batch, channels, height, width = x.shape
    rows, columns = height // fold, width // fold
    x = _channels_last(x).permute(0, 2, 3, 1)
    if fold >= LARGE_FOLD:
        x = x.reshape(batch, rows, fold, columns, fold * channels).transpose(2, 3).reshape(batch, rows, columns, -1)
    else:
        x = x.reshape(batch, height, columns, fold * channels)
    return x.permute(0, 3, 1, 2)


def _clips(x: Tensor) -> Tensor:
    """1 where a value clips, else 0."""
    return torch.ge(x, CLIPPED, out=torch.empty_like(x))


def _convolved(blocks: Tensor, weight: Tensor, bias: Tensor | None, fold: int, padding: int = 1) -> Tensor:
    """F.conv2d(F.pixel_unshuffle(x, fold), weight, bias, padding=padding) for `_in_blocks(x, fold)`, in less time.

    A 3x3 convolution of blocks is one of 3 fold x 3 of their rows, in steps of a block.
    """
    if fold == 1:
        return F.conv2d(blocks, weight, bias, padding=padding)
    channels = weight.shape[1] // fold**2
    kernel = weight.reshape(-1, channels, fold, fold, 3, 3)  # out, channel, down, across, rows, columns
    if fold >= LARGE_FOLD:
        kernel, step = kernel.permute(0, 2, 3, 1, 4, 5).flatten(1, 3), 1
    else:
        kernel, step = kernel.permute(0, 3, 1, 4, 2, 5).flatten(1, 2).flatten(2, 3), fold
    return F.conv2d(blocks, _channels_last(kernel), bias, stride=(step, 1), padding=(step * padding, padding))


def _joined(coarse: Tensor, fine: Tensor) -> Tensor:
    """`coarse`, made twice as high and wide, and `fine`, channel by channel."""
    # Cards interpolate in float32 within autocast, which is twice the memory. Gradients, which add up, need that.
    exact = coarse.device.type == "cpu" or torch.is_grad_enabled()
    with nullcontext() if exact else torch.autocast(coarse.device.type, enabled=False):
        large = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
    if large.requires_grad and large.is_contiguous(memory_format=torch.channels_last):
        # The gradient is a slice of that of both, on which the way back through the interpolation takes thrice as long.
        large.register_hook(_channels_last)  # type: ignore[no-untyped-call]
    return torch.cat((large, fine), dim=1)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def new_network(widths: Sequence[int], head: Head, fold: int, seed: int) -> UNet:
    """A network with freshly drawn weights; the process's own random state is left as found."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the graphics cards, too
        return UNet(widths, head, fold)


def network_of(weights: Mapping[str, Tensor], widths: Sequence[int], head: Head, fold: int) -> UNet:
    """A network with the given weights.

    Raises ValueError where the weights belong to another architecture.
    """
    network = new_network(widths, head, fold, seed=0)  # only so as not to draw from the process's random state
    try:
        network.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise ValueError(f"the weights are of another architecture than a {head} U-Net {list(widths)}") from error
    return network


def for_autocast(network: UNet) -> UNet:
    """A copy whose weights are bfloat16 where autocast would make them so at every call; its answers are the same."""
    copied = deepcopy(network)
    for part in (copied.encoder, copied.pools, copied.decoder, copied.last):
        part.to(torch.bfloat16)
    return copied


def pad(x: Tensor, multiple: int) -> Tensor:
    """Repeat the right and bottom edge of `(batch, channel, height, width)` up to the next multiple."""
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x
