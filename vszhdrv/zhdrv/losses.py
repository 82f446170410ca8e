"""The training objective and nothing else.

Both objectives see a picture `f` that was made brighter by a known shift, and the frame it was made from. Shapes are
`(batch, 3, height, width)`; values are display-encoded in the working encoding, [0, 1].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from . import camera
from .working import CLIPPED

EPSILON = 0.25 / 255
"""A quarter of an 8-bit code: keeps ratios finite in black (Banterle et al. 2024)."""

COSINE_WEIGHT = 5.0
KNEE_STOPS = 0.25
"""Errors beyond this count linearly, not squared: a lamp whose light cannot be known must not outweigh what can."""

ESTIMATE_WEIGHT = 0.5
"""Weight of the estimate, where no frame shows the true value, beside what is known. Without it, predictions above the
bound are nowhere wrong, and trainings that differ in their seed alone end with quite different lights."""
ESTIMATE_STOPS, ESTIMATE_PER_STOP, ESTIMATE_PER_CHANNEL = -0.6, 1.2, 0.45
"""The numbers of `estimate`: the least squares of the light above white in clips of 29 HDR pictures (CC0 and sample
images), by scripts/fit_estimate.py. Fitted to 28 of them it misses the other's stops by 0.90 RMS, one constant by 1.20;
in H.264 clips of 16, these numbers by 0.91, one constant by 1.18."""
BORDER_CELL = 8
"""The border of clipped pixels is averaged over cells of this many pixels squared."""
BORDER_CELLS = 5
"""Side in cells of the square whose border counts for the cell in its middle, an odd number."""
HIGHEST_ESTIMATE = 5.6
"""Stops over SDR white (203 nits) of 10,000 nits, where PQ ends."""


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


def border_stops(sdr: Tensor, white: float = CLIPPED) -> Tensor:
    """By how many stops the border of clipped pixels lies under white, around each place; `sdr`'s shape.

    The border is the pixels that touch clipped ones, in each channel; of their linear light counts the mean. Black
    pixels are none: they may be glyphs that were painted over. Far from any border that of the whole picture counts;
    without one it is white.

    Args:
        sdr: `(batch, 3, height, width)`, display-encoded in the working encoding.
        white: from which values channels count as clipped.
    """
    height, width = sdr.shape[-2:]
    clips, black = sdr >= white, sdr.amax(1, keepdim=True) == 0
    touching = torch.zeros_like(clips)
    touching[..., 1:, :] |= clips[..., :-1, :]
    touching[..., :-1, :] |= clips[..., 1:, :]
    touching[..., 1:] |= clips[..., :-1]
    touching[..., :-1] |= clips[..., 1:]
    border = (touching & ~clips & ~black).to(sdr.dtype)
    shares, values = (F.avg_pool2d(x, BORDER_CELL, ceil_mode=True) for x in (border, border * sdr))
    light = camera.decode(values / shares.clamp(min=1e-9)) * shares
    light, shares = (
        F.avg_pool2d(x, BORDER_CELLS, 1, BORDER_CELLS // 2) + 1e-3 * x.mean((2, 3), keepdim=True) + 1e-6
        for x in (light, shares)
    )
    stops = F.interpolate(-torch.log2(light / shares), scale_factor=float(BORDER_CELL))
    return stops[..., :height, :width]


def estimate(sdr: Tensor, white: float = CLIPPED) -> Tensor:
    """How many stops over white the source `sdr` probably is where it clips, 0 to 5.6; arguments as of `border_stops`.

    From outside, one sees how steeply light rises towards the clip point: beside a lamp the last pixel that does not
    clip is dark, in a bright sky it is nearly white. And where more channels clip, there is more light.
    """
    clipping = (sdr >= white).sum(1, keepdim=True)
    stops = ESTIMATE_STOPS + ESTIMATE_PER_STOP * border_stops(sdr, white) + ESTIMATE_PER_CHANNEL * clipping
    return stops.clamp_(0, HIGHEST_ESTIMATE)


class Truth(NamedTuple):
    """What is known of the light where bright pictures clip, each field in their shape."""

    stops: Tensor
    """Over white, at least so many."""
    seen: Tensor
    """1 where the bright picture clips and the source does not: there it is just so many. Elsewhere 0."""
    unseen: Tensor
    """1 where both clip, elsewhere 0."""


def truth(sdr: Tensor, f: Tensor, shift_stops: Tensor, white: float = CLIPPED) -> Truth:
    """Of the pictures `f`, which clip at `white`: `sdr`, made brighter by `shift_stops`, `(batch, 1, 1, 1)`."""
    clips, known = f >= white, sdr < CLIPPED
    stops = camera.GAMMA * torch.log2(sdr.clamp(min=EPSILON)) + shift_stops
    seen, unseen = (mask.to(stops.dtype) for mask in (clips & known, clips & ~known))
    return Truth(stops, seen, unseen)


class Mean(NamedTuple):
    """A mean that is not divided yet, so that those of the parts of a batch make that of the whole."""

    sum: Tensor
    weight: Tensor


def censored(stops: Tensor, truth: Truth, estimated: Tensor) -> Mean:
    """Error of the predicted stops over white, where the bright picture clips.

    Where the source does not clip the true value is known: its own stops plus the shift. Where the source clips too,
    all that is known is "at least the shift" (censored regression, Tobin 1958): less is an error; more is held to
    the source's `estimate`, with the weight `ESTIMATE_WEIGHT`.
    """
    over = stops - truth.stops
    seen = _huber(over) * truth.seen
    unseen = (_huber(over.clamp(max=0)) + ESTIMATE_WEIGHT * _huber(over - estimated)) * truth.unseen
    return Mean((seen + unseen).sum(), (truth.seen + truth.unseen).sum())


def known(stops: Tensor, truth: Truth) -> Mean:
    """`censored`, where the truth is known wherever it counts."""
    return _mean_huber(stops - truth.stops, truth.seen)


def steady(stops: Tensor, truth: Truth) -> Mean:
    """How much the error of the predicted stops changes from frames to their successors, the batch's second half.

    The fast preset's form of `temporal`: the change must be the original's, where both pictures clip and both truths
    are known.
    """
    before, after = (stops - truth.stops).chunk(2)
    both = torch.mul(*truth.seen.chunk(2))
    return _mean_huber(after - before, both)


def _mean_huber(error: Tensor, counted: Tensor) -> Mean:
    return Mean((_huber(error) * counted).sum(), counted.sum())


def _huber(error: Tensor) -> Tensor:
    return F.huber_loss(error, torch.zeros_like(error), delta=KNEE_STOPS, reduction="none")
