"""Linear light and stops as pictures for an SDR screen.

Apart because two floors draw the same: run folders, and `vszhdrv.show` in a notebook. Knows neither VapourSynth nor
torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURE_HEIGHT = 360
"""Height of each picture of a sheet in pixels, at most."""
HEAT_STOPS = 4.0
"""A heat map's brightest colour."""


def side_by_side(pictures: Mapping[str, NDArray[np.uint8]]) -> Image:
    """One picture of several (height, width, 3) ones of the same size, each under its name."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = next(iter(pictures.values())).shape[:2]
    scale = min(1.0, PICTURE_HEIGHT / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    gap, caption = 4, 20
    sheet = Image.new("RGB", (len(pictures) * (size[0] + gap) - gap, size[1] + caption), "black")
    draw = ImageDraw.Draw(sheet)
    for column, (name, picture) in enumerate(pictures.items()):
        left = column * (size[0] + gap)
        sheet.paste(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS), (left, caption))
        draw.text((left + 4, 3), name, fill="white", font=ImageFont.load_default(12))
    return sheet


def display(linear: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Linear light in [0, 1] (clipped) as 8-bit sRGB, IEC 61966-2-1."""
    x = np.clip(linear, 0, 1)
    encoded = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    codes: NDArray[np.uint8] = np.rint(255 * encoded).astype(np.uint8)
    return codes


def tone_mapped(hdr: NDArray[np.floating]) -> NDArray[np.floating]:
    """HDR to [0, 1] by Reinhard's extended operator on luminance (Reinhard et al. 2002, eq. 4)."""
    luminance = hdr @ np.array([0.2126, 0.7152, 0.0722], hdr.dtype)
    white = max(1.0, float(np.quantile(luminance, 0.999)))
    scale = (1 + luminance / white**2) / (1 + luminance)
    return hdr * scale[..., None]


def heat(stops: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Stops (height, width) as colours (height, width, 3): black at 0, brightest from `HEAT_STOPS` on."""
    import cv2

    codes = np.rint(255 * np.clip(stops / HEAT_STOPS, 0, 1)).astype(np.uint8)
    colours: NDArray[np.uint8] = np.ascontiguousarray(cv2.applyColorMap(codes, cv2.COLORMAP_INFERNO)[..., ::-1])
    return colours
