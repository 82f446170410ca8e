"""One picture of a film: a row a place, a picture a shot."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vszhdrv.files import write_whole
from vszhdrv.shots import Shot, places_in

if TYPE_CHECKING:
    import vapoursynth as vs
    from PIL.Image import Image

HEIGHT = 90
"""Height of a shot's picture, in pixels."""
COLUMNS = 12
"""Pictures in a row; a place of more shots has several rows."""
MOST_SHOTS = 600
"""Shots with a picture, at most: each place has at least one of them."""
CAPTION, GAP = 14, 3
"""Heights in pixels."""


def write(path: Path, clip: vs.VideoNode, shots: Sequence[Shot]) -> None:
    """Write the sheet. Under each picture is the number of the shot's first frame and how many frames it has."""
    content = io.BytesIO()
    sheet(clip, shots).save(content, "png" if path.suffix.lower() == ".png" else "jpeg", quality=90)
    write_whole(path, content.getvalue())


def sheet(clip: vs.VideoNode, shots: Sequence[Shot]) -> Image:
    """The contact sheet of a clip's shots: the middle frame of each."""
    from PIL import Image, ImageDraw, ImageFont

    shown = pictures(clip)
    width, height = shown.width, shown.height
    places = places_in(shots)
    share = max(1, MOST_SHOTS // max(1, len(places)))
    rows = [
        (number, place[start : start + COLUMNS])
        for number, place in enumerate(_thinned(place, share) for place in places)
        for start in range(0, len(place), COLUMNS)
    ]
    font = ImageFont.load_default(11)
    label = 58
    columns = max(len(row) for _, row in rows)
    page = Image.new("RGB", (label + columns * (width + GAP), len(rows) * (height + CAPTION + GAP)), (24, 24, 24))
    draw = ImageDraw.Draw(page)
    for line, (number, row) in enumerate(rows):
        top = line * (height + CAPTION + GAP)
        draw.text((4, top + 4), f"place {number}", fill="white", font=font)
        for column, shot in enumerate(row):
            left = label + column * (width + GAP)
            with shown.get_frame((shot.first + shot.end) // 2) as frame:
                picture = np.dstack([np.asarray(frame[plane]) for plane in range(3)])
            page.paste(Image.fromarray(picture), (left, top))
            words = f"{shot.first} ({shot.end - shot.first})"
            draw.text((left + 2, top + height + 1), words, fill=(200, 200, 200), font=font)
    return page


def _thinned(place: Sequence[Shot], most: int) -> list[Shot]:
    """At most so many shots of a place, evenly spread."""
    step = max(1, -(-len(place) // most))
    return list(place[::step])


def pictures(clip: vs.VideoNode) -> vs.VideoNode:
    """The clip as small 8-bit RGB, for eyes only: where it does not name its matrix, that of HD is taken."""
    import vapoursynth as vs

    height = min(HEIGHT, clip.height)
    width = max(1, round(clip.width * height / clip.height))
    if clip.format.color_family == vs.YUV:
        with clip.get_frame(0) as frame:
            known = frame.props.get("_Matrix", vs.MATRIX_UNSPECIFIED) != vs.MATRIX_UNSPECIFIED
        return clip.resize.Bilinear(width, height, format=vs.RGB24, **({} if known else {"matrix_in_s": "709"}))
    return clip.resize.Bilinear(width, height, format=vs.RGB24)
