"""The training objective and nothing else.

Both objectives see a picture `f` that was made brighter by a known shift, and the frame it was made from. Shapes are
`(batch, 3, height, width)`; values are display-encoded in the working encoding, [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .camera import GAMMA
from .network import CLIPPED

EPSILON = 0.25 / 255
"""A quarter of an 8-bit code: keeps ratios finite in black (Banterle et al. 2024)."""

COSINE_WEIGHT = 5.0
KNEE_STOPS = 0.25
"""Errors beyond this count linearly, not squared: a lamp that nobody can know must not outweigh what can be learned."""

EXCESS_STOPS = 0.7
"""How far what clips lies above the clip point on average, as far as anybody can tell: in 16 of 17 scenes of 11 HDR
pictures, 0.3 to 2.2 stops, and not to be told from how often a clip's other values occur. A little under the middle,
since a light that flashes up is worse than one that is dim."""
EXCESS_WEIGHT = 0.1
"""Weight of that guess beside what is known. Without it, answers above the bound are nowhere wrong, and trainings that
differ in their seed alone end with quite different lights."""


def l1_cosine(a: Tensor, b: Tensor) -> Tensor:
    """L1C of the paper: mean absolute difference plus 5 times (1 - mean cosine similarity of the RGB vectors)."""
    return (a - b).abs().mean() + COSINE_WEIGHT * (1 - F.cosine_similarity(a, b, dim=1).mean())


def reconstruction(delta: Tensor, o: Tensor, f: Tensor) -> Tensor:
    """How far the ratio `delta` is from turning the bright picture `f` into its darker original `o`, and back."""
    return (
        4 * F.mse_loss(delta, o / (f + EPSILON))
        + l1_cosine(delta * f, o)
        + 0.5 * l1_cosine((o / (delta + EPSILON)).clamp(0, 1), f)
    )


def temporal(predicted: Tensor, predicted_next: Tensor, o: Tensor, o_next: Tensor) -> Tensor:
    """The change from a frame to its successor must be the original's change."""
    return F.mse_loss(predicted_next - predicted, o_next - o)


def censored(stops: Tensor, sdr: Tensor, f: Tensor, shift_stops: Tensor, white: float = CLIPPED) -> Tensor:
    """Error of the predicted stops over white, where the bright picture `f` clips: where it is `white` or more.

    Where the source `sdr` does not clip the true value is known: its own stops plus the shift. Where the source clips
    too, all that is known is "at least the shift" (censored regression, Tobin 1958): less is an error; what is more
    is held, weakly, to EXCESS_STOPS above. `shift_stops` is `(batch, 1, 1, 1)`.
    """
    clips, known = f >= white, sdr < CLIPPED
    error = _huber(torch.where(known, stops - _true_stops(sdr, shift_stops), (stops - shift_stops).clamp(max=0)))
    guess = _huber(stops - (shift_stops + EXCESS_STOPS)) * (EXCESS_WEIGHT * ~known)
    return ((error + guess) * clips).sum() / clips.sum().clamp(min=1)


def steady(stops: Tensor, sdr: Tensor, f: Tensor, shift_stops: Tensor, white: float = CLIPPED) -> Tensor:
    """How much the error of the predicted stops changes from frames to their successors, the batch's second half.

    The fast preset's form of `temporal`: the change must be the original's, where both pictures clip and both truths
    are known.
    """
    known = (f >= white) & (sdr < CLIPPED)
    before, after = (stops - _true_stops(sdr, shift_stops)).chunk(2)
    both = torch.logical_and(*known.chunk(2))
    return (_huber(after - before) * both).sum() / both.sum().clamp(min=1)


def _true_stops(sdr: Tensor, shift_stops: Tensor) -> Tensor:
    return GAMMA * torch.log2(sdr.clamp(min=EPSILON)) + shift_stops


def _huber(error: Tensor) -> Tensor:
    return F.huber_loss(error, torch.zeros_like(error), delta=KNEE_STOPS, reduction="none")
