"""Muon: an optimizer that trains a small network in fewer steps than AdamW does.

A weight matrix is moved by its momentum with all singular values made about 1. So rare directions are trained as fast
as frequent ones (Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024). torch's own takes no
convolutions, and computes in bfloat16. Here, a convolution's weight is a matrix with a row for each output channel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor

STEP = 0.8
"""RMS of a matrix's step, as a share of the learning rate: with it, Muon takes the rates that suit AdamW.
docs/experiments.md compares others."""
DECAY = 0.01
"""Weight decay: AdamW's usual one."""
MOMENTUM_OVER_BETA = 0.05
"""The momentum of matrices is by so much larger than the first beta, which the one-cycle schedule moves."""
MOST_MOMENTUM = 0.95
FEWEST = 4
"""A matrix has so many rows and columns, at least; AdamW trains the others, and all vectors."""
EPSILON = 1e-8
POLYNOMIALS = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
)
"""a, b and c of x -> a x + b x^3 + c x^5 for each step of the Newton-Schulz iteration (modded-nanogpt's). Together they
take singular values from 0.02 to 1 to between 0.7 and 1.2."""


class Muon(torch.optim.Optimizer):
    """Muon for matrices, AdamW for other weights, at one learning rate. Its state has AdamW's names.

    Args:
        params: the weights.
        lr: learning rate, over 0.
        betas: those of AdamW; the momentum of matrices follows the first.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        super().__init__(list(params), {"lr": lr, "betas": betas, "fused": None})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Change the weights by their gradients. There is no closure."""
        assert closure is None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, **{name: group[name] for name in ("lr", "betas")})
        return None

    def _move(self, weight: Tensor, gradient: Tensor, lr: float, betas: tuple[float, float]) -> None:
        state: dict[str, Any] = self.state[weight]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        state["step"] += 1
        mean = state["exp_avg"]
        weight.mul_(1 - lr * DECAY)
        if is_matrix(weight):
            momentum = min(MOST_MOMENTUM, betas[0] + MOMENTUM_OVER_BETA)
            mean.lerp_(gradient, 1 - momentum)
            step = orthogonal(gradient.lerp(mean, momentum).reshape(len(weight), -1))
            weight.sub_(step.reshape(weight.shape), alpha=lr * STEP * max(step.shape) ** 0.5)
            return
        squares, count = state["exp_avg_sq"], float(state["step"])
        mean.lerp_(gradient, 1 - betas[0])
        squares.lerp_(gradient.square(), 1 - betas[1])
        spread = (squares / (1 - betas[1] ** count)).sqrt_().add_(EPSILON)
        weight.addcdiv_(mean, spread, value=-lr / (1 - betas[0] ** count))


def is_matrix(weight: Tensor) -> bool:
    """Whether Muon trains a weight: a convolution's of several channels."""
    return weight.ndim == 4 and min(len(weight), weight[0].numel()) >= FEWEST


def orthogonal(matrix: Tensor) -> Tensor:
    """A matrix `(rows, columns)` with its singular vectors, and all singular values about 1 (0.7 to 1.2)."""
    wide = len(matrix) <= matrix.shape[1]
    x: Tensor = (matrix if wide else matrix.T) / matrix.norm().clamp(min=EPSILON)
    for a, b, c in POLYNOMIALS:
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x if wide else x.T
