"""The U-Net and nothing else: what it answers is given a meaning by losses.py and expansion.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Head = Literal["ratio", "stops"]


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

    `widths` are the channels of the encoder's levels, finest first. `head` says what the three output channels are:
    "ratio", values in (0, 1) by a sigmoid, or "stops", values of 0 and more by a softplus.
    Input and output are `(batch, 3, height, width)`; height and width must be multiples of `multiple`: callers pad.
    """

    def __init__(self, widths: Sequence[int], head: Head) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.head = head
        self.multiple = 2 ** (len(widths) - 1)
        self.encoder = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1) for before, after in zip((3, *widths), widths, strict=False)
        )
        self.pools = nn.ModuleList(MixedPool() for _ in widths[1:])
        # Deepest first: from the concatenation at a level (at the bottom: its own channels) to the next finer level's width.
        inputs = [widths[-1], *(2 * w for w in reversed(widths[1:-1]))]
        self.decoder = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1)
            for before, after in zip(inputs, reversed(widths[:-1]), strict=True)
        )
        self.last = nn.Conv2d(2 * widths[0], widths[0], 3, padding=1)
        self.out = nn.Conv2d(widths[0], 3, 1)

    @property
    def reach(self) -> int:
        """Pixels beyond which nothing around a pixel changes its answer: the overlap that tiles need."""
        # At level k a pixel is 2^k wide: 3x3 convolutions (two a level) and a pooling each see one pixel further,
        # the bilinear upsampling from level k + 1 up to 1.5 of that level's.
        levels = range(len(self.widths))
        return sum(3 * 2**k for k in levels) + sum(2 * 2**k for k in levels[1:])

    def forward(self, x: Tensor) -> Tensor:
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
        x = self.out(F.relu(self.last(x), inplace=True)).float()
        return torch.sigmoid(x) if self.head == "ratio" else F.softplus(x)


def new_network(widths: Sequence[int], head: Head, seed: int) -> UNet:
    """A network with freshly drawn weights; the process's own random state is left as found."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet(widths, head)


def network_of(weights: Mapping[str, Tensor], widths: Sequence[int], head: Head) -> UNet:
    """A network with the given weights.

    Raises ValueError where the weights belong to another architecture.
    """
    network = UNet(widths, head)
    try:
        network.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise ValueError(f"holds weights of another architecture than a {head} U-Net of widths {list(widths)}") from error
    return network


def pad(x: Tensor, multiple: int) -> Tensor:
    """Repeat the right and bottom edge of `(batch, channel, height, width)` up to the next multiple."""
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x
