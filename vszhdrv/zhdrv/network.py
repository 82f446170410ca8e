"""The U-Net and nothing else: what it answers is given a meaning by losses.py and expansion.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Head = Literal["ratio", "stops"]

CLIPPED = 254.5 / 255
"""Working values from which a channel counts as clipped: those that an 8-bit recording rounds to its highest code."""

LEAK = 0.1
"""Slope of the stops at their lower end. Without it, answers that a bad stretch of training has brought to nearly 0 on
every pixel have no gradient left, and stay there: docs/experiments.md has such a clip."""

LARGE_FOLD = 16
"""From this `fold` on, blocks are copied side by side: kernels of three times as many rows take torch's convolution on
processors twice as long as lower ones with the same work (docs/experiments.md)."""


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

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        return self.finish(self.coarse(fine), fine)

    def fine(self, x: Tensor) -> Tensor:
        """The finest level of the encoder: (batch, widths[0], height / fold, width / fold). Sees one block around."""
        first = cast(nn.Conv2d, self.encoder[0])
        weight, bias = first.weight, first.bias
        if self.head == "ratio":
            x = _folded(x, weight, bias, self.fold)
        else:  # one convolution over both inputs, side by side, costs a copy of them
            clips = torch.ge(x, CLIPPED, out=torch.empty_like(x))
            seen, told = weight.chunk(2, dim=1)
            x = _folded(x - 0.5, seen, bias, self.fold).add_(_folded(clips.sub_(0.5), told, None, self.fold))
        return F.relu(x, inplace=True)

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

    def finish(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """The answer, from the finest levels of both sides. Sees one pixel of `coarse` around."""
        x = F.relu(self.last(_joined(coarse, fine)), inplace=True)
        with torch.autocast(x.device.type, enabled=False):
            x = self.out(x.float())  # in bf16, skies would have steps of a hundredth
        height, width = x.shape[-2:]
        # F.pixel_shuffle, in half the time on channels-last memory
        x = x.view(-1, 3, self.fold, self.fold, height, width).permute(0, 1, 4, 2, 5, 3)
        x = x.reshape(-1, 3, self.fold * height, self.fold * width)
        return torch.sigmoid(x) if self.head == "ratio" else F.softplus(x) + LEAK * x.clamp(max=0)


def _folded(x: Tensor, weight: Tensor, bias: Tensor | None, fold: int) -> Tensor:
    """F.conv2d(F.pixel_unshuffle(x, fold), weight, bias, padding=1), in less time.

    A 3x3 convolution of blocks is one of 3 fold x 3 fold pixels in steps of a block. In channels-last memory the pixels
    of a block's row lie side by side: they are channels already, and no pixel moves. Large blocks are copied.
    """
    if fold == 1:
        return F.conv2d(x, weight, bias, padding=1)
    batch, channels, height, width = x.shape
    rows, columns = height // fold, width // fold
    x = _channels_last(x).permute(0, 2, 3, 1)
    kernel = weight.reshape(-1, channels, fold, fold, 3, 3)  # out, channel, down, across, rows, columns
    if fold >= LARGE_FOLD:
        x = x.reshape(batch, rows, fold, columns, fold * channels).transpose(2, 3).reshape(batch, rows, columns, -1)
        kernel = kernel.permute(0, 2, 3, 1, 4, 5).flatten(1, 3)
        step = 1
    else:
        x = x.reshape(batch, height, columns, fold * channels)
        kernel = kernel.permute(0, 3, 1, 4, 2, 5).reshape(-1, fold * channels, 3 * fold, 3)
        step = fold
    return F.conv2d(x.permute(0, 3, 1, 2), _channels_last(kernel), bias, stride=(step, 1), padding=(step, 1))


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


def pad(x: Tensor, multiple: int) -> Tensor:
    """Repeat the right and bottom edge of `(batch, channel, height, width)` up to the next multiple."""
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x
