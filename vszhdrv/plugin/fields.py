"""Whether a clip that says nothing of fields looks interlaced.

Apart from colour.py because this looks at pictures, not at properties. In a woven interlaced frame, what moves is
combed: each row differs from its two neighbours, which agree with each other. Texture does that too, but as much
between rows of one field, where no combing can be.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import vapoursynth as vs

Picture = npt.NDArray[np.float32]

PLACES, RUN = 4, 3
"""Looked at are so many runs of so many successive frames, evenly spread."""
STEP = 10 / 255
"""A smaller difference, of codes in [0, 1], is noise."""
FEWEST_MOVING = 0.001
"""With a smaller share of moving pixels, pictures tell nothing."""
COMBED_SHARE = 0.03
"""At least this share of what moves is combed in interlaced pictures, ..."""
COMBED_RATIO = 1.5
"""... and so many times as much of it between neighbouring rows as between rows of one field."""


def positions(length: int) -> list[list[int]]:
    """The runs of frames that are looked at."""
    run = min(RUN, length)
    starts = sorted({place * (length - run) // (PLACES - 1) for place in range(PLACES)})
    return [list(range(start, start + run)) for start in starts]


def looks_interlaced(clip: vs.VideoNode) -> bool:
    """Whether moving edges are combed in the clip. Requests up to 12 frames; of a still picture it is False.

    A frame that the source cannot make tells nothing here: it fails when somebody asks for it.
    """
    moving = between_rows = within_field = looked = 0
    for run in positions(clip.num_frames):
        pictures: list[Picture] = []
        with suppress(vs.Error):
            pictures.extend(_brightness(clip, n) for n in run)
        for before, after in pairwise(pictures):
            moved = np.abs(after - before) > STEP
            moving += int(moved.sum())
            looked += moved.size
            between_rows += _alternating(after, moved, 1)
            within_field += _alternating(after, moved, 2)
    if moving < FEWEST_MOVING * looked:
        return False
    return between_rows > COMBED_SHARE * moving and between_rows > COMBED_RATIO * within_field


def _brightness(clip: vs.VideoNode, n: int) -> Picture:
    """Luma, grey, or green of a frame: float32 (height, width), full codes in [0, 1]."""
    with clip.get_frame(n) as frame:
        codes = np.asarray(frame[1 if clip.format.color_family == vs.RGB else 0])
        peak = 1.0 if clip.format.sample_type == vs.FLOAT else float((1 << clip.format.bits_per_sample) - 1)
        scaled: Picture = codes.astype(np.float32) / np.float32(peak)
        return scaled


def _alternating(picture: Picture, moved: npt.NDArray[np.bool_], distance: int) -> int:
    """How many moving pixels differ from those so many rows above and below, which are more alike."""
    above, here, below = picture[: -2 * distance], picture[distance:-distance], picture[2 * distance :]
    up, down = here - above, here - below
    least = np.minimum(np.abs(up), np.abs(down))
    alternating = (up * down > 0) & (least > STEP) & (np.abs(above - below) < least)
    return int((alternating & moved[distance:-distance]).sum())
