"""3x3 convolutions on a processor with half of the multiplications, for networks whose weights stay as they are.

Winograd's F(4, 3) (Winograd 1980; Lavin and Gray 2016), down the columns alone: four rows of the result come from six
products of sums of rows of the input and of the weights, in place of twelve. The products are convolutions by kernels
of one row, which torch computes at the rate of any other. With sums across as well they would be fewer by a ninth, and
the additions more than twice as many (docs/experiments.md).
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

A, B = 0.75, 1.5
"""Rows are values of polynomials at 0, A, -A, B, -B and infinity. In bfloat16, results miss by 3.2 times as much as
those of a direct convolution; with 1 and 2, which are more usual, by 4.4 times."""
STRIP_VALUES = 2**22
"""The input is taken in strips of about this many values."""
WORTH = 40
"""It pays where the product of input and output channels, which the multiplications grow with, is this many times their
sum, which the additions do."""


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
        points = torch.tensor((0, A, -A, B, -B), dtype=torch.float64)
        differences = points[:, None] - points + torch.eye(len(points))  # to each other; the product leaves out itself
        size = points.abs().where(points != 0, 1)  # makes the second row of a result a mere sum
        finite = size[:, None] * points[:, None] ** torch.arange(3) / differences.prod(1, keepdim=True)
        of_weights = torch.cat((finite, torch.tensor([[0, 0, 1.0]], dtype=torch.float64)))
        of_products = torch.zeros(4, 6, dtype=torch.float64)
        of_products[:, :5] = points ** torch.arange(4)[:, None] / size
        of_products[3, 5] = 1
        kernels = torch.einsum("pr,oirc->poic", of_weights, weight.double())[..., None, :]
        self.kernels = nn.ParameterList(
            kernel.to(weight.dtype).contiguous(memory_format=torch.channels_last) for kernel in kernels
        )
        # Biases of the products whose share in each row of the result adds up to 1.
        shares = torch.linalg.pinv(of_products).sum(1)
        self.biases = nn.ParameterList(bias.detach() * share.to(bias.dtype) for share in shares)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.kernels[0].dtype)
        _, channels, height, width = x.shape
        pixels = x.permute(0, 2, 3, 1)
        fours = -(-height // 4)
        y = x.new_empty((len(x), fours, 4, width, len(self.biases[0])))
        step = max(1, STRIP_VALUES // (4 * len(x) * width * channels))
        for first in range(0, fours, step):
            last = min(first + step, fours)
            # a row above and one below, and whatever lacks of four: beyond the picture, all is 0
            top, bottom = 4 * first - 1, 4 * last + 1
            seen = pixels[:, max(top, 0) : bottom]
            if len(seen[0]) < bottom - top:
                above = max(-top, 0)
                seen = F.pad(seen, (0, 0, 0, 0, above, bottom - top - above - len(seen[0])))
            self._write(y[:, first:last], seen)
        return y.flatten(1, 2)[:, :height].permute(0, 3, 1, 2)

    def _write(self, y: Tensor, seen: Tensor) -> None:
        """The result, (batch, fours, 4, width, channels), from its rows and those around, (batch, 4 fours + 2, ...)."""
        end = 4 * y.shape[1]
        d0, d1, d2, d3, d4, d5 = (seen[:, row : row + end - 3 : 4] for row in range(6))
        even, odd = torch.sub(d4, d2, alpha=A**2), torch.sub(d3, d1, alpha=A**2)
        at_0 = torch.sub(even, torch.sub(d2, d0, alpha=A**2), alpha=B**2)
        at_b, at_minus_b = torch.add(even, odd, alpha=B), torch.sub(even, odd, alpha=B)
        at_infinity = torch.sub(d5, d3, alpha=A**2).sub_(odd, alpha=B**2)
        even, odd = torch.sub(d4, d2, alpha=B**2), torch.sub(d3, d1, alpha=B**2)
        at_a, at_minus_a = torch.add(even, odd, alpha=A), torch.sub(even, odd, alpha=A)
        m0, m1, m2, m3, m4, m5 = (
            _across(rows, kernel, bias)
            for rows, kernel, bias in zip(
                (at_0, at_a, at_minus_a, at_b, at_minus_b, at_infinity), self.kernels, self.biases, strict=True
            )
        )
        even_a, odd_a, even_b, odd_b = m1 + m2, m1 - m2, m3 + m4, m3 - m4
        r0, r1, r2, r3 = y.unbind(2)
        torch.add(m0, even_a, alpha=1 / A, out=r0).add_(even_b, alpha=1 / B)
        torch.add(odd_a, odd_b, out=r1)
        torch.add(even_a, even_b, alpha=B / A, out=r2).mul_(A)
        torch.add(m5, odd_a, alpha=A**2, out=r3).add_(odd_b, alpha=B**2)


def _across(rows: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """The rows, (batch, fours, width, channels), convolved by a kernel of one row."""
    return F.conv2d(rows.permute(0, 3, 1, 2), kernel, bias, padding=(0, 1)).permute(0, 2, 3, 1)
