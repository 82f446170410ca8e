"""What lossy compression does to white: told from a clip's frames, and imitated while training on them.

What clips is flat: one code, all over. Compression leaves it uneven, ringing along its edges and bleeding colour over
them, and a network that has seen flat white alone takes such a place for one that does not clip. The simulated camera
clips, but does not compress: so what it records is coded and decoded again, where the clip itself shows that it was.
"""

from __future__ import annotations

from functools import cache
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft
from torch import Tensor
from torch.nn import functional as F

from . import camera, footage, sampling
from .config import Config
from .working import CLIPPED

BLOCK = 8
"""Side of the transform's blocks, in pixels."""
ROUNDING = 1 / 3
"""Share of a step that is added before a coefficient is cut to whole steps: encoders round down to save bits."""
BT709 = ((0.2126, 0.7152, 0.0722), (-0.1146, -0.3854, 0.5), (0.5, -0.4542, -0.0458))
"""Y, Cb and Cr of R, G and B (ITU-R BT.709-6)."""

FRAMES = 16
"""Frames that are looked at, at most."""
STEPS = 32
"""Steps of the training whose crops are looked at."""
NEIGHBOURS = 7
"""A pixel with this many of its eight neighbours clipped lies inside of what clips."""
MORE, FEWEST = 4.0, 50
"""How many times as many such pixels, of all inside, a compressed clip has as its simulated exposures, and how many at
least: fewer are chance. docs/experiments.md has the figures."""
MORE_CODED, FEWEST_CODED = 1.5, 10
"""The same where the decoder has said that frames were predicted from others: that is done to compress."""


def shows(frames: footage.TrainingFrames, config: Config, *, coded: bool = False) -> bool:
    """Whether compression has left white uneven: holes in clipped areas that the simulated camera does not make.

    Args:
        coded: whether the clip's decoder has said so much that fewer holes are enough.
    """
    count = len(frames.pixels)
    places = np.unique(np.linspace(0, count - 1, min(count, FRAMES)).round().astype(int))
    found, made = np.zeros(2, int), np.zeros(2, int)
    for place in places:
        found += _holes(footage.scaled(frames.pixels[place])[None])
    for crops in islice(sampling.visits(frames, config, 0), STEPS):
        for crop in crops:
            if crop.shift_stops == 0:
                continue  # its holes are the source's own
            x = sampling.cut(frames, frames.pairs[crop.pair][0], crop, config.crop, torch.device("cpu"))
            made += _holes(camera.shift(x, *sampling.bounded_shifts(x, [crop.shift_stops])))
    share, usual = (holes / max(inside, 1) for holes, inside in (found, made))
    more, fewest = (MORE_CODED, FEWEST_CODED) if coded else (MORE, FEWEST)
    return bool(share > more * usual and found[0] >= fewest)


def _holes(sdr: Tensor) -> NDArray[np.int_]:
    """Of `(batch, 3, height, width)`: pixels inside of what clips that do not clip themselves, and all inside."""
    clips = (sdr.amax(1, keepdim=True) >= CLIPPED).float()
    alone = clips[..., 1:-1, 1:-1]
    inside = 9 * F.avg_pool2d(clips, 3, stride=1) - alone > NEIGHBOURS - 0.5
    return np.array([int((inside & (alone == 0)).sum()), int(inside.sum())])


def coded(sdr: Tensor, step: float, top: int, left: int) -> Tensor:
    """What a decoder makes of display-encoded pictures that were coded as 4:2:0, rounded to 8 bits.

    In float32 within autocast, too: bfloat16 would round more than the codec does.

    Args:
        sdr: `(batch, 3, height, width)`, [0, 1].
        step: the quantiser's, working values, over 0.
        top, left: by how many rows and columns the grid of blocks is shifted, 0 to 15.
    """
    height, width = sdr.shape[-2:]
    whole = 2 * BLOCK  # of luma, under one block of chroma
    x = F.pad(sdr, (left, -(left + width) % whole, top, -(top + height) % whole), mode="replicate")
    matrix, inverse, _ = _constants(sdr.device)
    with torch.autocast(sdr.device.type, enabled=False):
        ycc = torch.einsum("ij,bjhw->bihw", matrix, x)
        luma, chroma = ycc[:, :1], F.avg_pool2d(ycc[:, 1:], 2)
        chroma = F.interpolate(_quantised(chroma, step), scale_factor=2, mode="bilinear", align_corners=False)
        decoded = torch.cat((_quantised(luma, step), chroma), dim=1)
        rgb = torch.einsum("ij,bjhw->bihw", inverse, decoded)
    return camera.round8(rgb[..., top : top + height, left : left + width].clamp(0, 1))


@cache
def _constants(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """BT709, its inverse, and the cosine transform of the 64 pixels of a block: every copy to a card would hold a
    step up."""
    matrix = torch.tensor(BT709)
    cosines = fft.dct(np.eye(BLOCK), norm="ortho", axis=0)
    of_block = torch.tensor(np.kron(cosines, cosines), dtype=torch.float32)
    return matrix.to(device), torch.linalg.inv(matrix).to(device), of_block.to(device)


def _quantised(x: Tensor, step: float) -> Tensor:
    """The planes after their blocks' cosine transform, whole steps of its coefficients, and the way back."""
    batch, planes, height, width = x.shape
    _, _, of_block = _constants(x.device)
    blocks = x.reshape(batch, planes, height // BLOCK, BLOCK, width // BLOCK, BLOCK).transpose(3, 4)
    # one large product has four times the multiply-adds of one for rows and one for columns, and a fifth of their time
    steps = blocks.reshape(-1, BLOCK * BLOCK) @ of_block.T / step
    coefficients = steps.add_(steps.sign(), alpha=ROUNDING).trunc_().mul_(step)
    return (coefficients @ of_block).view(blocks.shape).transpose(3, 4).reshape(x.shape)
