"""The U-Net and nothing else: what it answers is given a meaning by losses.py and expansion.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Head = Literal["ratio", "stops"]

CLIPPED = 254.5 / 255
"""Working values from which a channel counts as clipped: those that an 8-bit recording rounds to its highest code."""


class MixedPool(nn.Module):
    """Halves height and width by a learned mix of maximum and mean: a * max + (1 - a) * mean (Lee et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        mix = self.mix.to(x.dtype)
        return mix * F.max_pool2d(x, 2) + (1 - mix) * F.avg_pool2d(x, 2)


class UNet(nn.Module):
    """A U-Net with one 3x3 convolution a level on either side.

    Input and output are `(batch, 3, height, width)`, the input display-encoded in [0, 1]; height and width must be
    multiples of `multiple`: callers pad.

    Args:
        widths: channels of the encoder's levels, finest first.
        head: what the three output channels are: "ratio", values in (0, 1) by a sigmoid, or "stops", values of 0 and
            more by a softplus, from a network that is also told which channels clip.
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
        if self.head == "stops":
            x = torch.cat((x, (x >= CLIPPED).to(x.dtype)), dim=1) - 0.5
        x = F.pixel_unshuffle(x, self.fold).contiguous(memory_format=torch.channels_last)
        skips: list[Tensor] = []
        for level, convolution in enumerate(self.encoder):
            if level:
                skips.append(x)
                x = self.pools[level - 1](x)
            x = F.relu(convolution(x), inplace=True)
        for convolution in self.decoder:
            x = F.relu(convolution(x), inplace=True)
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = torch.cat((x, skips.pop()), dim=1)
        x = F.pixel_shuffle(self.out(F.relu(self.last(x), inplace=True)), self.fold).float()
        return torch.sigmoid(x) if self.head == "ratio" else F.softplus(x)


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
