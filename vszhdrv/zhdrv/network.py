"""The U-Net and nothing else: losses.py and expansion.py give its predictions a meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vszhdrv.errors import Refused

from . import blocks
from .blocks import Part
from .config import Architecture

LEAK = 0.1
"""Slope of the stops at their lower end. Without it, predictions that a bad stretch of training has brought to nearly 0
on every pixel have no gradient left, and stay there: docs/experiments.md has such a clip."""


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

    With the head "ratio" the output is in (0, 1) by a sigmoid. With "stops" it is stops over white by a leaky softplus
    (values under 0 count as 0), and the network is also told which channels clip.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.multiple = architecture.multiple
        self.head, self.fold = architecture.head, architecture.fold
        widths, fold = architecture.widths, architecture.fold
        inputs = (6 if self.head == "stops" else 3) * fold**2
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

    def forward(self, x: Tensor, lattice: Lattice = EVERY_PIXEL) -> Tensor:
        """The prediction at the lattice's pixels, whose step divides `fold`."""
        finest = self.encode_finest(x)
        return self.decode_finest(self.inner(finest), finest, lattice)

    def encode_finest(self, x: Tensor, clipping: Sequence[Part] | None = None) -> Tensor:
        """The encoder's finest level: (batch, widths[0], height / fold, width / fold). Sees one block around.

        clipping: rows and columns of blocks outside which nothing clips, areas apart from one another, if known.
        """
        first = cast(nn.Conv2d, self.encoder[0])
        bias = cast(Tensor, first.bias)
        if self.head == "ratio":
            y = blocks.convolved(x, first.weight, bias, self.fold)
        else:
            y = blocks.convolved_with_clipping(x, first.weight, bias, self.fold, clipping)
        return F.relu(y, inplace=True)

    def inner(self, finest: Tensor) -> Tensor:
        """All other levels, up to the last upsampling: half as high and wide as `finest`, as many channels."""
        skips = [finest]
        for pool, convolution in zip(self.pools, self.encoder[1:], strict=True):
            skips.append(F.relu(convolution(pool(skips[-1])), inplace=True))
        x = skips.pop()
        for level, convolution in enumerate(self.decoder):
            if level:
                x = _joined(x, skips.pop())
            x = F.relu(convolution(x), inplace=True)
        return x

    def decode_finest(self, inner: Tensor, finest: Tensor, lattice: Lattice = EVERY_PIXEL) -> Tensor:
        """The decoder's finest level and the prediction. Sees one pixel of `inner` around."""
        x = F.relu(self.last(_joined(inner, finest)), inplace=True)
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


def _joined(inner: Tensor, outer: Tensor) -> Tensor:
    """`inner`, made twice as high and wide, and `outer`, channel by channel."""
    # Cards interpolate in float32 within autocast, which is twice the memory. Gradients, which add up, need that.
    exact = inner.device.type == "cpu" or torch.is_grad_enabled()
    with nullcontext() if exact else torch.autocast(inner.device.type, enabled=False):
        large = F.interpolate(inner, scale_factor=2, mode="bilinear", align_corners=False)
    if large.requires_grad and large.is_contiguous(memory_format=torch.channels_last):
        # The gradient is a slice of that of both, on which the way back through the interpolation takes thrice as long.
        large.register_hook(blocks.channels_last)  # type: ignore[no-untyped-call]
    return torch.cat((large, outer), dim=1)


def new_network(architecture: Architecture, seed: int) -> UNet:
    """A network with freshly drawn weights; the process's own random state is left as found."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the graphics cards, too
        return UNet(architecture)


def network_of(weights: Mapping[str, Tensor], architecture: Architecture) -> UNet:
    """A network with the given weights.

    Raises Refused where the weights belong to another architecture.
    """
    network = new_network(architecture, seed=0)  # only so as not to draw from the process's random state
    try:
        network.load_state_dict(dict(weights))
    except RuntimeError as error:
        wanted = f"a {architecture.head} U-Net {list(architecture.widths)}"
        raise Refused(f"the weights are of another architecture than {wanted}") from error
    return network


def for_autocast(network: UNet) -> UNet:
    """A copy with bfloat16 weights, where autocast would make them so at every call: it predicts the same."""
    copied = deepcopy(network)
    for part in (copied.encoder, copied.pools, copied.decoder, copied.last):
        part.to(torch.bfloat16)
    return copied


def pad(x: Tensor, multiple: int) -> Tensor:
    """Repeat the right and bottom edge of `(batch, channel, height, width)` up to the next multiple."""
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x
