"""The network's first convolution: it sees blocks of pixels as one, and is told which of their values clip.

A block of `fold` x `fold` pixels is one pixel with all their values as channels, as by `F.pixel_unshuffle`. Nothing is
unshuffled here: in channels-last memory the pixels of a block's row lie side by side, so they are channels already.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .working import CLIPPED

Part = tuple[slice, slice]
"""Rows and columns of a picture."""

LARGE_FOLD = 16
"""From this `fold` on, blocks are copied side by side: kernels of three times as many rows take torch's convolution on
processors twice as long as lower ones with the same work (docs/experiments.md)."""


def convolved(x: Tensor, weight: Tensor, bias: Tensor, fold: int) -> Tensor:
    """F.conv2d(F.pixel_unshuffle(x, fold), weight, bias, padding=1) for `(batch, channels, height, width)`."""
    return _convolved(_in_blocks(x, fold), weight, bias, fold)


def convolved_with_clipping(
    x: Tensor, weight: Tensor, bias: Tensor, fold: int, clipping: Sequence[Part] | None = None
) -> Tensor:
    """`convolved` for the values, less 0.5, and beside them -0.5 or 0.5: whether each clips.

    clipping: rows and columns of blocks outside which nothing clips, areas apart from one another, if known.
    """
    blocks = _in_blocks(x, fold)
    seen, told = weight.chunk(2, dim=1)  # one convolution over both inputs, side by side, costs a copy of them
    if clipping is None:
        of_told = _convolved(_clips(blocks).sub_(0.5), told, None, fold)
    else:
        of_told = _of_areas(x, told, clipping, fold)
    return _convolved(blocks - 0.5, seen, bias, fold).add_(of_told)


def _of_areas(x: Tensor, told: Tensor, clipping: Sequence[Part], fold: int) -> Tensor:
    """What the weights `told` make of which values clip, -0.5 and 0.5: all are -0.5, and in some areas 1 more."""
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


def _in_blocks(x: Tensor, fold: int) -> Tensor:
    """Pixels in the order in which `_convolved` takes blocks of `fold` squared.

    In channels-last memory the pixels of a block's row lie side by side: they are channels already, and no pixel moves.
    Large blocks are copied, so that all of a block's are.
    """
    if fold == 1:
        return x
    batch, channels, height, width = x.shape
    rows, columns = height // fold, width // fold
    x = channels_last(x).permute(0, 2, 3, 1)
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
    return F.conv2d(blocks, channels_last(kernel), bias, stride=(step, 1), padding=(step * padding, padding))


def channels_last(x: Tensor) -> Tensor:
    """The same in channels-last memory."""
    return x.contiguous(memory_format=torch.channels_last)
