"""Whether a clip that says nothing of fields looks interlaced.

Apart from colour.py because this looks at pictures, not at properties. In a woven interlaced frame, what moves is
combed: each row differs from its two neighbours, which agree with each other. Texture does that too, but as much
between rows of one field, where no combing can be.

It is looked at where a network is going to be trained: a clip whose network is found was looked at before.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import vapoursynth as vs

from vszhdrv.errors import Refused

from .lazy import Reading
from .workers import Pixels

if TYPE_CHECKING:
    from .clips import Props

Picture = npt.NDArray[np.float32]

PLACES, RUN = 4, 3
"""Looked at are so many runs of so many successive frames, evenly spread."""
STEP = 10 / 255
"""A smaller difference, of codes in [0, 1], is noise."""
FEWEST_MOVING = 0.001
"""With a smaller share of moving pixels, pictures tell nothing."""
COMBED_SHARE = 0.03
"""At least this share of what moves is combed in interlaced pictures."""
COMBED_RATIO = 1.5
"""So many times as much is combed between neighbouring rows as between rows of one field."""


def positions(length: int) -> list[list[int]]:
    """The runs of frames that are looked at."""
    run = min(RUN, length)
    starts = sorted({place * (length - run) // (PLACES - 1) for place in range(PLACES)})
    return [list(range(start, start + run)) for start in starts]


def check_fields(clip: vs.VideoNode) -> Generator[Reading, None, None]:
    """Refuse a clip that says nothing of fields and looks interlaced. Wants up to 12 frames, one where it says.

    Raises Refused where moving edges are combed.
    """
    said: list[bool] = []
    yield Reading("looking", _brightness(clip), [0], lambda place, planes, props: said.append("_FieldBased" in props))
    if not any(said) and (yield from looks_interlaced(clip)):
        raise Refused(
            "clip must be progressive, and its moving edges are combed, while it has no _FieldBased: deinterlace it "
            "first, for example with bwdif.Bwdif (telecined film: vivtc), or std.SetFieldBased(0) if it is progressive"
        )


def looks_interlaced(clip: vs.VideoNode) -> Generator[Reading, None, bool]:
    """Whether moving edges are combed in the clip. Wants up to 12 frames; of a still picture it is False.

    A frame that the source cannot make tells nothing here: it fails when somebody asks for it.
    """
    moving = between_rows = within_field = looked = 0
    bright = _brightness(clip)
    peak = 1.0 if clip.format.sample_type == vs.FLOAT else float((1 << clip.format.bits_per_sample) - 1)
    for run in positions(clip.num_frames):
        pictures: dict[int, Picture] = {}

        def keep(place: int, planes: Iterable[Pixels], props: Props, pictures: dict[int, Picture] = pictures) -> None:
            (codes,) = planes
            pictures[place] = codes.astype(np.float32) / np.float32(peak)

        yield Reading("looking", bright, run, keep)
        for n in range(1, len(run)):
            if {n - 1, n} <= pictures.keys():
                before, after = pictures[n - 1], pictures[n]
                moved = np.abs(after - before) > STEP
                moving += int(moved.sum())
                looked += moved.size
                between_rows += _alternating(after, moved, 1)
                within_field += _alternating(after, moved, 2)
    if moving < FEWEST_MOVING * looked:
        return False
    return between_rows > COMBED_SHARE * moving and between_rows > COMBED_RATIO * within_field


def _brightness(clip: vs.VideoNode) -> vs.VideoNode:
    """Luma, grey, or green of a clip, in its own depth."""
    return clip.std.ShufflePlanes(1 if clip.format.color_family == vs.RGB else 0, vs.GRAY)


def _alternating(picture: Picture, moved: npt.NDArray[np.bool_], distance: int) -> int:
    """How many moving pixels differ from those so many rows above and below, which are more alike."""
    above, here, below = picture[: -2 * distance], picture[distance:-distance], picture[2 * distance :]
    up, down = here - above, here - below
    least = np.minimum(np.abs(up), np.abs(down))
    alternating = (up * down > 0) & (least > STEP) & (np.abs(above - below) < least)
    return int((alternating & moved[distance:-distance]).sum())
