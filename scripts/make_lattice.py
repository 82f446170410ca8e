# /// script
# requires-python = ">=3.12"
# dependencies = ["numpy", "opencv-python-headless", "OpenEXR>=3.4.14"]
# ///
"""Draw a hall with leaded windows, as an HDR picture that make_scenes.py films: bright glass behind thin dark lines.

A wall of brown stone, and before it windows of one shape: leads of 1 to 3 pixels in circles, diamonds and bars, before
panes of textured, tinted light. The panes of each window lie 3 to 6 stops above the wall, every window at its own
level: so one exposure shows the lines of some, and loses those of others. Lens blur and veiling glare are in the
picture, so that they come before the clipping.

    uv run scripts/make_lattice.py lattice.exr --seed 1
    uv run scripts/make_scenes.py --out scenes --meter log --shake 1.5 lattice=lattice.exr
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from make_scenes import LUMA, Image, parse_size, write_exr
from numpy.typing import NDArray

WALL_STOPS = -3.0
"""Light of the wall in the picture's own units, in stops."""
PANE_STOPS = (3.0, 6.0)
"""By how much the panes of the darkest and the brightest window are brighter than the wall."""
LEAD_STOPS = -1.5
"""Light of the leads, compared with the wall's."""
PANE_SPREAD = 0.25
"""Standard deviation of the panes' own levels, in stops."""
TEXTURE = 0.3
"""Standard deviation of the glass's texture, in stops."""
WINDOWS = 9
SUPERSAMPLED = 3
"""Lines are drawn so many times as large, down and across."""
BLUR = 0.6
"""Standard deviation of the lens blur, in pixels."""
GLARE = ((2.5, 0.03), (12.0, 0.015), (60.0, 0.01))
"""Veiling glare: standard deviation in pixels, and the share of the light that is spread so."""

Canvas = NDArray[np.uint8]


def noise(rng: np.random.Generator, height: int, width: int, finest: float, octaves: int = 4) -> Image:
    """Fractal noise, (height, width): mean 0, standard deviation 1, smallest blobs of `finest` pixels."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        cell = finest * 2**octave
        coarse = rng.normal(size=(int(height / cell) + 3, int(width / cell) + 3)).astype(np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * 2 ** (octave / 2)
    return np.asarray((total - total.mean()) / total.std(), np.float32)


def window(height: int, width: int) -> tuple[Canvas, Canvas]:
    """A lancet window in its box: how much of each place is opening, and how much is lead; 0 to 255."""
    k = SUPERSAMPLED
    size = (height * k, width * k)
    opening, lead = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    arch = int(0.9 * width)
    cv2.rectangle(opening, (0, arch * k), (width * k, height * k), 255, -1)
    for centre in (0, width):  # a pointed arch: what two circles share
        one = np.zeros(size, np.uint8)
        cv2.circle(one, (centre * k, arch * k), width * k, 255, -1)
        opening[: arch * k] = one[: arch * k] if centre == 0 else opening[: arch * k] & one[: arch * k]

    def line(a: tuple[float, float], b: tuple[float, float], thickness: float) -> None:
        ends = [(round(x * k), round(y * k)) for x, y in (a, b)]
        cv2.line(lead, *ends, 255, round(thickness * k), cv2.LINE_AA)

    for x in (0.2, 0.8):
        line((x * width, 0), (x * width, height), 1)
    for step, y in enumerate(np.arange(0.4 * width, height, 0.8 * width)):
        middle, radius = (width // 2 * k, round(y * k)), round(0.3 * width * k)
        cv2.circle(lead, middle, radius, 255, round(1.5 * k), cv2.LINE_AA)
        tips = [(0.5 * width, y - 0.4 * width), (0.8 * width, y), (0.5 * width, y + 0.4 * width), (0.2 * width, y)]
        for a, b in zip(tips, tips[1:] + tips[:1], strict=True):
            line(a, b, 1)
        cv2.circle(lead, middle, round(0.08 * width * k), 255, -1 if step % 2 else k, cv2.LINE_AA)
        if step % 3 == 1:
            line((0, y), (width, y), 3)
    lead[cv2.morphologyEx(opening, cv2.MORPH_GRADIENT, np.ones((2 * k + 1,) * 2, np.uint8)) > 0] = 255
    opening, lead = (cv2.resize(each, (width, height), interpolation=cv2.INTER_AREA) for each in (opening, lead))
    return opening, lead


def panes(lead: Canvas, rng: np.random.Generator) -> tuple[Image, Image]:
    """Each pane's own level in stops, (height, width), and its tint, (height, width, 3), of luminance 1."""
    count, labels = cv2.connectedComponents((lead < 128).astype(np.uint8), connectivity=4)
    levels = rng.normal(0, PANE_SPREAD, count).astype(np.float32)
    tints = np.exp2(rng.normal(0, 0.12, (count, 3)) + np.array([-0.15, 0.05, 0.1])).astype(np.float32)
    tints /= (tints @ LUMA)[:, None]
    return levels[labels], tints[labels]


def hall(size: tuple[int, int], seed: int) -> Image:
    """The whole picture for clips of `size` = (width, height): some three times as wide, linear RGB."""
    rng = np.random.default_rng(seed)
    width, height = 3 * size[0], round(1.5 * size[1])
    stone = WALL_STOPS + 0.35 * noise(rng, height, width, 3, 3) + 0.4 * noise(rng, height, width, 60, 2)
    picture = np.exp2(stone)[..., None] * np.array([1.35, 0.95, 0.55], np.float32)
    across = round(0.2 * size[0])
    pitch = width / WINDOWS
    low, high = PANE_STOPS
    levels = WALL_STOPS + rng.permutation(np.linspace(low, high, WINDOWS))
    top, tall = round(0.14 * height), round(0.78 * height)
    for place, level in enumerate(levels):
        left = round((place + 0.5) * pitch - across / 2)
        opening, lead = window(tall, across)
        own, tint = panes(lead, rng)
        sky = np.linspace(0.4, -0.4, tall, dtype=np.float32)[:, None]
        glass = np.exp2(level + sky + own + TEXTURE * noise(rng, tall, across, 2, 4))[..., None] * tint
        metal = np.exp2(WALL_STOPS + LEAD_STOPS)
        covered = lead[..., None] / np.float32(255)
        seen = glass * (1 - covered) + metal * covered
        box = picture[top : top + tall, left : left + across]
        share = opening[..., None] / np.float32(255)
        box[:] = box * (1 - share) + seen * share
    return through_lens(picture.astype(np.float32))


def through_lens(light: Image) -> Image:
    """Lens blur and veiling glare."""
    sharp = cv2.GaussianBlur(light, (0, 0), BLUR)
    spread = [share * cv2.GaussianBlur(light, (0, 0), sigma) for sigma, share in GLARE]
    kept = 1 - sum(share for _, share in GLARE)
    return np.asarray(kept * sharp + sum(spread), np.float32)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the .exr file to write")
    parser.add_argument("--size", type=parse_size, default=(448, 256), metavar="WxH", help="of the clips made of it")
    parser.add_argument("--seed", type=int, default=1)
    options: Any = parser.parse_args()
    write_exr(options.out, hall(options.size, options.seed))


if __name__ == "__main__":
    main()
