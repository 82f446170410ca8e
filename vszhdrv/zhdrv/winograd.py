"""3x3 convolutions on a processor with half of the multiplications, for networks whose weights stay as they are.

Winograd's F(4, 3) (Winograd 1980; Lavin and Gray 2016), down the columns alone: four rows of the result come from six
products of sums of rows of the input and of the weights, in place of twelve. The products are convolutions by kernels
of one row, which torch computes at the rate of any other. With sums across as well they would be fewer by a ninth, and
the additions more than twice as many (docs/experiments.md).
"""

from __future__ import annotations

from copy import deepcopy
from math import prod
from operator import mul

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .lanes import side_by_side
from .rounding import ceil_div, round_up

A, B = 0.75, 1.5
"""Rows are values of polynomials at 0, A, -A, B, -B and infinity. In bfloat16, results miss by 3.2 times as much as
those of a direct convolution; with 1 and 2, which are more usual, by 4.4 times."""
STRIP_VALUES = 2**22
"""The input is taken in strips of about this many values, and in as many as there are threads at least."""
WORTH = 40
"""It pays where the product of input and output channels, which the multiplications grow with, is this many times their
sum, which the additions do."""


def _shares_of_weights() -> list[tuple[float, float, float]]:
    """How much of each row of a 3x3 kernel is in the kernels of the six products."""
    points = (0.0, A, -A, B, -B)
    finite = []
    for point in points:
        distances = prod(point - other for other in points if other != point)
        scale = (abs(point) or 1) / distances  # by which the second row of four is a mere sum: `_write`
        finite.append((scale, scale * point, scale * point**2))
    return [*finite, (0.0, 0.0, 1.0)]


SHARES = _shares_of_weights()
BIASES = (1 - 1 / A**2, (1 / A + 1) / 2, (1 / A - 1) / 2, 0.0, 0.0, 1 - A**2)
"""How much of the bias the products have, so that each row of the result has it once."""


def halved[Network: nn.Module](network: Network) -> Network:
    """A copy in which all convolutions for which it pays have half of the multiplications."""
    copied = deepcopy(network)
    for parent in list(copied.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d) and _pays(child):
                setattr(parent, name, HalvedConvolution(child))
    return copied


def _pays(convolution: nn.Conv2d) -> bool:
    seen, made = convolution.in_channels, convolution.out_channels
    return convolution.kernel_size == (3, 3) and seen * made >= WORTH * (seen + made)


class HalvedConvolution(nn.Module):
    """What a 3x3 convolution with a bias and a padding of 1 computes: `(batch, channels, height, width)`."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        weight, bias = convolution.weight.detach(), convolution.bias
        assert bias is not None
        rows = torch.split(weight, 1, dim=2)
        kernels = (sum(map(mul, shares, rows)) for shares in SHARES)
        self.kernels = nn.ParameterList(kernel.contiguous(memory_format=torch.channels_last) for kernel in kernels)
        self.biases = nn.ParameterList(share * bias.detach() for share in BIASES)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.kernels[0].dtype)
        batch, channels, height, width = x.shape
        end = round_up(height, 4)
        size = batch, len(self.biases[0]), end, width
        y = torch.empty(size, dtype=x.dtype, memory_format=torch.channels_last)
        strips = max(torch.get_num_threads(), ceil_div(batch * channels * end * width, STRIP_VALUES))
        step = 4 * ceil_div(end, 4 * strips)

        def compute(first: int) -> None:
            last = min(first + step, end)
            # with a row above and one below, and whatever lacks of four: beyond the picture, all is 0
            seen = x[:, :, max(first - 1, 0) : last + 1]
            above = int(first == 0)
            below = last - first + 2 - above - seen.shape[2]
            if above or below:
                seen = F.pad(seen, (0, 0, above, below))
            products = (
                F.conv2d(sums, kernel, bias, padding=(0, 1))
                for sums, kernel, bias in zip(_sums(seen), self.kernels, self.biases, strict=True)
            )
            _write(y[:, :, first:last], *products)

        side_by_side(compute, range(0, end, step))
        return y[:, :, :height]


def _sums(seen: Tensor) -> tuple[Tensor, ...]:
    """What the six products are made of: from rows of the picture, with one above and one below, a fourth as many."""
    d0, d1, d2, d3, d4, d5 = (seen[:, :, row : seen.shape[2] - 5 + row : 4] for row in range(6))
    even, odd = torch.sub(d4, d2, alpha=A**2), torch.sub(d3, d1, alpha=A**2)
    at_0 = torch.sub(even, torch.sub(d2, d0, alpha=A**2), alpha=B**2)
    at_b, at_minus_b = torch.add(even, odd, alpha=B), torch.sub(even, odd, alpha=B)
    at_infinity = torch.sub(d5, d3, alpha=A**2).sub_(odd, alpha=B**2)
    even, odd = torch.sub(d4, d2, alpha=B**2), torch.sub(d3, d1, alpha=B**2)
    return at_0, torch.add(even, odd, alpha=A), torch.sub(even, odd, alpha=A), at_b, at_minus_b, at_infinity


def _write(y: Tensor, m0: Tensor, m1: Tensor, m2: Tensor, m3: Tensor, m4: Tensor, m5: Tensor) -> None:
    """The result's rows, of the six products."""
    even_a, odd_a, even_b, odd_b = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    y0, y1, y2, y3 = (y[:, :, row::4] for row in range(4))
    torch.add(m0, even_a, alpha=1 / A, out=y0).add_(even_b, alpha=1 / B)
    torch.add(odd_a, odd_b, out=y1)
    torch.add(even_a, even_b, alpha=B / A, out=y2).mul_(A)
    torch.add(m5, odd_a, alpha=A**2, out=y3).add_(odd_b, alpha=B**2)
