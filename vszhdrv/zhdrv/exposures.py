"""The paper's way to HDR: a stack of exposures, predicted step by step, and their merging (Banterle et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import camera
from .config import STEP_STOPS
from .losses import EPSILON

MERGE_FLOOR = 1 / 65535
"""Keeps the logarithm of black finite when exposures are merged (Banterle et al. 2024)."""
Predict = Callable[[Tensor], Tensor]


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
