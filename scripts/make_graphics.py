# /// script
# requires-python = ">=3.12"
# dependencies = ["numpy", "opencv-python-headless", "OpenEXR>=3.4.14", "pillow>=11"]
# ///
"""Draw clips whose white is meant to be white: screens, slides, cartoons, cels and text. Some hold a film.

Each clip NAME becomes a folder as make_scenes.py writes it. Its truth has graphics as they are, white being 1.0, and
films with their light. So evaluate.py can score both: what must stay, and what must still be expanded. Three more clips
are photographs of white things (snow, paper, a wall), where nobody can say what is right.

    uv run scripts/make_graphics.py --out graphics
    uv run scripts/make_graphics.py --out graphics --only page slides --transfer bt1886 --codec h264 --crf 23
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from make_scenes import (
    DECODE,
    ENCODE,
    ENCODERS,
    FPS,
    Array,
    CameraPath,
    Coding,
    Image,
    camera_path,
    encode,
    exposed,
    film,
    parse_size,
    write_exr,
)
from PIL import Image as Pictures
from PIL import ImageDraw, ImageFilter, ImageFont

Picture = Pictures.Image
Box = tuple[int, int, int, int]
"""Left, top, right, bottom."""

TEXT = (
    "the light of a window falls on the floor and the camera moves slowly over it while somebody reads a long page of "
    "text about colour numbers and white paper that must not shine when it is shown on a bright screen in the evening"
)
WORDS = TEXT.split()
BLACK, WHITE, GREY, BLUE, RED = (0, 0, 0), (255, 255, 255), (96, 96, 96), (26, 80, 180), (200, 40, 40)
NOISE = 0.008
"""Standard deviation of a film's noise, before encoding, at white; it grows with the root of the light."""


@dataclass(frozen=True)
class Frame:
    """A drawn frame: graphics; `film`: where the film lies; `over`: how much of the graphics lies over it, 0 to 255."""

    picture: Picture
    film: Box | None = None
    over: Picture | None = None


Draw = Callable[[int, int, int, int], Frame]
"""(frame, frames, width, height) to a frame."""


# Drawing ------------------------------------------------------------------------------------------------------------


def canvas(width: int, height: int, colour: tuple[int, int, int] = WHITE) -> tuple[Picture, ImageDraw.ImageDraw]:
    """An empty picture and what draws on it."""
    picture = Pictures.new("RGB", (width, height), colour)
    return picture, ImageDraw.Draw(picture)


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own: the same letters on every machine."""
    return ImageFont.load_default(size)


def line(seed: int, words: int) -> str:
    """So many words, another line for every seed."""
    return " ".join(np.random.default_rng(seed).choice(WORDS, words))


def text(
    drawing: ImageDraw.ImageDraw, box: Box, size: int, colour: tuple[int, int, int], seed: int, lines: int
) -> None:
    """Lines of text within a box."""
    left, top, right, _ = box
    for number in range(lines):
        words = fitting(1000 * seed + number, size, right - left)
        drawing.text((left, top + number * size * 1.4), words, colour, font(size))


@cache
def fitting(seed: int, size: int, width: int) -> str:
    """The words of a line that fit into so many pixels."""
    words = line(seed, 40).split()
    while font(size).getlength(" ".join(words)) > width:
        words.pop()
    return " ".join(words)


def smooth(
    size: tuple[int, int], colour: tuple[int, int, int], paint: Callable[[ImageDraw.ImageDraw], None]
) -> Picture:
    """A picture that was painted three times as large, so that its edges are soft by a pixel."""
    picture, drawing = canvas(3 * size[0], 3 * size[1], colour)
    paint(drawing)
    return picture.resize(size, Pictures.Resampling.BOX)


def shifted(picture: Picture, across: float, down: float, scale: float = 1.0) -> Picture:
    """The same, moved by parts of a pixel and enlarged: bilinear interpolation, the edge repeated."""
    matrix = np.array([[scale, 0, across], [0, scale, down]], np.float32)
    flags = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_REPLICATE}
    return Pictures.fromarray(cv2.warpAffine(np.asarray(picture), matrix, picture.size, **flags))


# Clips --------------------------------------------------------------------------------------------------------------


def page(index: int, frames: int, width: int, height: int) -> Frame:
    """A text processor: a page at rest, on which words appear."""
    picture, drawing = canvas(width, height, (238, 238, 242))
    sheet = width // 8, height // 9, width - width // 8, height
    drawing.rectangle((0, 0, width, height // 14), (52, 66, 98))
    drawing.rectangle(sheet, WHITE)
    drawing.text((sheet[0] + 24, sheet[1] + 14), "A page of text", BLACK, font(24))
    text(drawing, (sheet[0] + 24, sheet[1] + 54, sheet[2] - 24, height), 12, (20, 20, 20), 1, 9)
    typed = line(5, 9)[: 4 + index * 40 // frames]
    drawing.text((sheet[0] + 24, sheet[1] + 54 + 9 * 16.8), typed, (20, 20, 20), font(12))
    return Frame(picture)


def scroll(index: int, frames: int, width: int, height: int) -> Frame:
    """A long page that is scrolled by whole pixels, its letters with coloured edges as on a flat screen."""
    long, _ = canvas(3 * width, 2 * height)
    wide, scribe = canvas(width, 2 * height)
    for part in range(4):
        top = part * height // 2
        scribe.text((30, top + 12), line(50 + part, 3), BLUE, font(20))
        text(scribe, (30, top + 44, width - 30, top + height // 2), 13, BLACK, 60 + part, 6)
    long.paste(wide.resize(long.size, Pictures.Resampling.BILINEAR))
    pixels = np.asarray(long)
    third = np.stack([pixels[:, offset::3, offset] for offset in range(3)], -1)
    top = index * 7 % height
    return Frame(Pictures.fromarray(np.ascontiguousarray(third[top : top + height])))


def zoomed(index: int, frames: int, width: int, height: int) -> Frame:
    """A screen that was recorded in another size and enlarged: no edge is sharp."""
    small = scroll(index, frames, width, height).picture
    return Frame(shifted(small, -0.3 * width * 0.37, -0.2 * height * 0.37, 1.37))


def film_in_page(index: int, frames: int, width: int, height: int) -> Frame:
    """A white page with a film in it, as a video site has it."""
    picture, drawing = canvas(width, height)
    drawing.rectangle((0, 0, width, 30), (248, 248, 248))
    drawing.text((16, 7), "clips", RED, font(16))
    box = 24, 44, 24 + 2 * width // 3, 44 + 3 * height // 5
    text(drawing, (box[2] + 16, 50, width - 8, height), 11, BLACK, 2, 16)
    drawing.text((24, box[3] + 8), line(9, 4), BLACK, font(18))
    text(drawing, (24, box[3] + 36, box[2], height), 11, GREY, 3, 3)
    return Frame(picture, box)


def slides(index: int, frames: int, width: int, height: int) -> Frame:
    """Three slides, each fading into the next."""

    def slide(number: int) -> Picture:
        picture, drawing = canvas(width, height)
        drawing.rectangle((0, 0, width, height // 6), [(20, 90, 120), (120, 40, 90), (40, 40, 40)][number])
        drawing.text((24, height // 24), line(70 + number, 3).title(), WHITE, font(30))
        for item in range(4):
            y = height // 6 + 30 + item * 52
            drawing.ellipse((34, y + 8, 44, y + 18), RED)
            drawing.text((60, y), line(80 + 10 * number + item, 5), BLACK, font(22))
        return picture

    place = 2.999 * index / frames
    number, part = int(place), place % 1
    fade = max(0.0, part - 0.6) / 0.4 if number < 2 else 0.0
    return Frame(Pictures.blend(slide(number), slide(min(number + 1, 2)), fade))


def credits(index: int, frames: int, width: int, height: int) -> Frame:
    """White names on black, which roll by parts of a pixel."""
    picture, drawing = canvas(width, 2 * height, BLACK)
    for number in range(2 * height // 40):
        name = line(200 + number, 2).title()
        drawing.text(((width - drawing.textlength(name, font(20))) / 2, number * 40), name, WHITE, font(20))
    rolled = shifted(picture, 0, -1.6 * index)
    return Frame(rolled.crop((0, 0, width, height)))


def subtitles(index: int, frames: int, width: int, height: int) -> Frame:
    """White letters without an outline over a film."""
    picture, drawing = canvas(width, height)
    over = Pictures.new("L", (width, height), 0)
    words = line(300 + index * 3 // frames, 6)
    place = (width - drawing.textlength(words, font(22))) / 2, 0.86 * height
    if index * 12 // frames % 4 != 3:
        ImageDraw.Draw(over).text(place, words, 255, font(22))
    return Frame(picture, (0, 0, width, height), over)


def cartoon(index: int, frames: int, width: int, height: int) -> Frame:
    """Flat colours with black outlines: a figure that walks past clouds and a white house."""

    def paint(drawing: ImageDraw.ImageDraw) -> None:
        w, h = 3 * width, 3 * height
        drawing.rectangle((0, int(0.7 * h), w, h), (90, 170, 70), BLACK, 9)
        for x, y in ((0.15, 0.15), (0.6, 0.1), (0.85, 0.22)):
            for dx, r in ((-0.05, 0.05), (0, 0.07), (0.05, 0.05)):
                centre = w * (x + dx), h * y
                drawing.ellipse(
                    (centre[0] - r * w, centre[1] - r * h, centre[0] + r * w, centre[1] + r * h), WHITE, BLACK, 6
                )
        drawing.rectangle((int(0.55 * w), int(0.4 * h), int(0.8 * w), int(0.75 * h)), WHITE, BLACK, 9)
        drawing.rectangle((int(0.62 * w), int(0.5 * h), int(0.7 * w), int(0.75 * h)), (150, 90, 40), BLACK, 9)
        x, y = w * (0.1 + 0.3 * index / frames), h * (0.5 - 0.02 * abs(math.sin(index)))
        drawing.ellipse((x, y, x + 0.12 * w, y + 0.35 * h), (240, 200, 40), BLACK, 9)
        for eye in (0.03, 0.07):
            drawing.ellipse((x + eye * w, y + 0.05 * h, x + (eye + 0.035) * w, y + 0.13 * h), WHITE, BLACK, 6)
            drawing.ellipse((x + (eye + 0.015) * w, y + 0.08 * h, x + (eye + 0.025) * w, y + 0.1 * h), BLACK)

    return Frame(smooth((width, height), (110, 190, 240), paint))


def cel(index: int, frames: int, width: int, height: int) -> Frame:
    """A drawn figure in a white shirt before a painted evening, over which the camera moves by parts of a pixel."""
    down = np.linspace(0, 1, height)[:, None, None] * np.ones((1, width, 1))
    sky = np.concatenate([130 + 115 * down, 150 + 70 * down, 220 - 40 * down], -1)
    grain = cv2.GaussianBlur(np.random.default_rng(4).normal(size=(height, width, 1)).astype(np.float32), (0, 0), 9)
    sky = np.clip(sky + 60 * grain[..., None], 0, 250)
    picture = Pictures.fromarray(sky.astype(np.uint8))
    mask, colours = Pictures.new("L", (3 * width, 3 * height), 0), canvas(3 * width, 3 * height)[0]
    for drawing, hues in (
        (ImageDraw.Draw(mask), (255,) * 6),
        (ImageDraw.Draw(colours), (WHITE, (222, 226, 240), (250, 220, 200), (70, 40, 60), WHITE, (40, 90, 160))),
    ):
        w, h = 3 * width, 3 * height
        shirt, shade, skin, hair, eye, iris = hues
        body = [(0.35, 1.0), (0.38, 0.62), (0.5, 0.55), (0.62, 0.62), (0.65, 1.0)]
        drawing.polygon([(x * w, y * h) for x, y in body], shirt, None)
        drawing.polygon([(x * w, y * h) for x, y in [(0.56, 1.0), (0.57, 0.6), (0.62, 0.62), (0.65, 1.0)]], shade)
        drawing.ellipse((0.41 * w, 0.2 * h, 0.59 * w, 0.62 * h), skin)
        drawing.pieslice((0.39 * w, 0.14 * h, 0.61 * w, 0.6 * h), 180, 360, hair)
        for x in (0.44, 0.52):
            drawing.ellipse((x * w, 0.38 * h, (x + 0.04) * w, 0.47 * h), eye)
            drawing.ellipse(((x + 0.01) * w, 0.39 * h, (x + 0.03) * w, 0.46 * h), iris)
    picture.paste(
        colours.resize((width, height), Pictures.Resampling.BOX),
        mask=mask.resize((width, height), Pictures.Resampling.BOX),
    )
    return Frame(shifted(picture, -0.7 * index, 0.35 * index - 8, 1.05))


def chart(index: int, frames: int, width: int, height: int) -> Frame:
    """A chart whose bars grow, on white."""
    picture, drawing = canvas(width, height)
    drawing.text((width / 4, 12), "Values by year", BLACK, font(24))
    for y in range(60, height - 30, 40):
        drawing.line((50, y, width - 20, y), (220, 220, 220))
    share = min(1.0, 1.2 * index / frames)
    for bar, value in enumerate((0.4, 0.7, 0.55, 0.9, 0.65, 0.8)):
        left, top = 70 + bar * (width - 100) // 6, height - 40 - int(share * value * (height - 110))
        colour = [(66, 133, 244), (234, 67, 53), (251, 188, 5)][bar % 3]
        drawing.rectangle((left, top, left + 50, height - 40), colour)
        drawing.text((left + 8, height - 34), str(2019 + bar), GREY, font(14))
    return Frame(picture)


def terminal(index: int, frames: int, width: int, height: int) -> Frame:
    """White and coloured letters on a dark screen, a line more every few frames."""
    picture, drawing = canvas(width, height, (24, 24, 28))
    for number in range(min(20, 4 + index // 2)):
        colour = [WHITE, WHITE, (80, 220, 120), WHITE, (240, 220, 80)][number % 5]
        drawing.text((10, 8 + number * 17), "$ " + line(400 + number, 8), colour, font(14))
    return Frame(picture)


def whiteboard(index: int, frames: int, width: int, height: int) -> Frame:
    """A hand draws on white: soft strokes that grow, and a drawn hand."""

    def paint(drawing: ImageDraw.ImageDraw) -> None:
        w, h = 3 * width, 3 * height
        points = [
            (w * (0.1 + 0.8 * k / 200), h * (0.5 + 0.3 * math.sin(k / 9) * math.cos(k / 31)))
            for k in range(10 + 190 * index // frames)
        ]
        drawing.line(points, (30, 30, 60), 9, joint="curve")
        x, y = points[-1]
        drawing.polygon([(x, y), (x + 60, y + 20), (x + 300, y + 400), (x + 120, y + 400)], (224, 172, 140))

    return Frame(smooth((width, height), WHITE, paint))


def pixels(index: int, frames: int, width: int, height: int) -> Frame:
    """A game of large pixels with white snow, clouds and letters."""
    small, drawing = canvas(width // 4, height // 4, (60, 90, 200))
    w, h = small.size
    rng = np.random.default_rng(8)
    for x, y in zip(rng.integers(0, 2 * w, 10), rng.integers(4, h // 2, 10), strict=True):
        left = int(x - index) % (2 * w) - 20
        drawing.rectangle((left, y, left + 14, y + 4), WHITE)
        drawing.rectangle((left + 3, y - 2, left + 9, y + 6), WHITE)
    for x in range(0, w, 8):
        drawing.rectangle((x, h - 14, x + 7, h), (110, 70, 40), BLACK)
        drawing.rectangle((x, h - 14, x + 7, h - 12), WHITE)
    drawing.rectangle((20 + index // 2, h - 24, 27 + index // 2, h - 15), (220, 50, 40), BLACK)
    drawing.text((4, 2), f"SCORE {index * 10}", WHITE, font(10))
    return Frame(small.resize((width, height), Pictures.Resampling.NEAREST))


def motion(index: int, frames: int, width: int, height: int) -> Frame:
    """Large white and yellow shapes that glide and grow over strong colours."""

    def paint(drawing: ImageDraw.ImageDraw) -> None:
        w, h, t = 3 * width, 3 * height, index / frames
        ease = 3 * t**2 - 2 * t**3
        drawing.rectangle((0, 0, w * 0.5 * (1 + ease), h), (0, 160, 150))
        radius = h * (0.1 + 0.3 * ease)
        drawing.ellipse((w * 0.6 - radius, h * 0.5 - radius, w * 0.6 + radius, h * 0.5 + radius), WHITE)
        drawing.rectangle((w * (0.7 - 0.6 * ease), h * 0.2, w * (0.95 - 0.6 * ease), h * 0.35), (255, 225, 0))
        drawing.rectangle((w * (0.05 + 0.3 * ease), h * 0.7, w * (0.45 + 0.3 * ease), h * 0.85), WHITE)

    return Frame(smooth((width, height), (230, 60, 90), paint))


def card(index: int, frames: int, width: int, height: int) -> Frame:
    """A white card with a soft shadow over a bright slope of colour: its border is a gradient on the outside."""
    slope = np.linspace(0, 1, width)[None, :, None] + np.linspace(0, 1, height)[:, None, None]
    colours = np.concatenate([250 - 40 * slope, 200 + 25 * slope, 160 + 45 * slope], -1).astype(np.uint8)
    picture = Pictures.fromarray(colours)
    box = width // 5, height // 5, 4 * width // 5, 4 * height // 5
    shadow = Pictures.new("L", (width, height), 0)
    ImageDraw.Draw(shadow).rounded_rectangle((box[0], box[1] + 6, box[2], box[3] + 6), 16, 110)
    picture.paste(BLACK, mask=shadow.filter(ImageFilter.GaussianBlur(9)))
    large = Pictures.new("L", (3 * width, 3 * height), 0)
    ImageDraw.Draw(large).rounded_rectangle([3 * side for side in box], 48, 255)
    picture.paste(WHITE, mask=large.resize((width, height), Pictures.Resampling.BOX))
    drawing = ImageDraw.Draw(picture)
    drawing.text((box[0] + 24, box[1] + 20), "Subscribe now", (40, 40, 40), font(30))
    text(drawing, (box[0] + 24, box[1] + 70, box[2] - 20, box[3]), 15, GREY, 4, min(5, 1 + index // 4))
    return Frame(picture)


def beside(index: int, frames: int, width: int, height: int) -> Frame:
    """A slide at the left, a filmed speaker's room at the right, which touches it."""
    picture, drawing = canvas(width, height)
    edge = int(0.55 * width)
    drawing.text((20, 24), line(90, 3).title(), (20, 60, 110), font(24))
    for item in range(5):
        drawing.text((28, 80 + 46 * item), "- " + line(91 + item, 4), BLACK, font(18))
    return Frame(picture, (edge, 0, width, height))


GRAPHICS: dict[str, Draw] = {
    each.__name__: each
    for each in (
        *(page, scroll, zoomed, film_in_page, slides, credits, subtitles, cartoon),
        *(cel, chart, terminal, whiteboard, pixels, motion, card, beside),
    )
}


# Films --------------------------------------------------------------------------------------------------------------


def room(seed: int = 5) -> Image:
    """A wall of stone in linear light with lamps, and a window before a bright sky: what a film in a page shows."""
    rng = np.random.default_rng(seed)
    height, width = 540, 1400
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    texture = sum(
        cv2.resize(rng.normal(size=(height // c + 2, width // c + 2)).astype(np.float32), (width, height)) / 3
        for c in (3, 9, 40)
    )
    still = (0.12 * 2**texture)[..., None] * np.array([1.0, 0.9, 0.8], np.float32)
    for _ in range(60):
        radius, peak = rng.uniform(4, 16), 2 ** rng.uniform(0, 5)
        distance = np.hypot(x - rng.uniform(0, width), y - rng.uniform(0, height))
        colour = np.array([1.0, rng.uniform(0.6, 1), rng.uniform(0.3, 0.9)], np.float32)
        still = np.maximum(still, (peak * np.exp2(-((2 * distance / radius) ** 2)))[..., None] * colour)
    for left in (250, 700, 1150):
        sky = 2 ** (2.5 - y / 300 + texture / 2)[..., None] * np.array([0.8, 0.95, 1.1], np.float32)
        pane = (abs(x - left) < 90) & (abs(y - 200) < 130) & (abs(x - left) > 4) & (abs(y - 200) > 3)
        still = np.where(pane[..., None], sky, still)
    return sum((cv2.GaussianBlur(still, (0, 0), s) * k for s, k in ((0.8, 0.95), (6, 0.04), (40, 0.01))), 0 * still)


def filmed(frames: int, size: tuple[int, int], seed: int) -> Iterator[Image]:
    """A pan over `room` with auto exposure and noise: linear light, 1.0 = SDR white."""
    still = room()
    path: CameraPath = camera_path(frames, (still.shape[0], still.shape[1]), size, wrap=False, seed=seed)
    rng = np.random.default_rng(seed)
    for linear, _ in exposed(film(still, path, size, wrap=False), cap=64):
        noise = NOISE * np.sqrt(np.maximum(linear, 0.02)) * rng.normal(size=linear.shape)
        yield np.maximum(linear + noise, 0).astype(np.float32)


# Photographs of white -----------------------------------------------------------------------------------------------


def photographs(name: str, frames: int, size: tuple[int, int]) -> Iterator[Image]:
    """Snow in the sun, a sheet of paper on a table, a white wall beside a lamp: linear light, filmed."""
    rng = np.random.default_rng(len(name))
    height, width = 540, 1200
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    rough = sum(
        cv2.resize(rng.normal(size=(height // c + 2, width // c + 2)).astype(np.float32), (width, height)) / 4
        for c in (2, 8, 50)
    )
    if name == "snow":
        light = np.where(y < 150, 0.5, 1.3 * 2 ** (0.5 * rough))[..., None] * np.array([0.97, 1, 1.05])
    elif name == "paper":
        sheet = (abs(x - 600) < 330) & (abs(y - 270) < 190)
        light = np.where(sheet, 1.15 - x / 6000 + 0.02 * rough, 0.2 * 2**rough)[..., None] * np.array([1, 0.99, 0.95])
    else:
        lamp = 1.6 / (1 + ((x - 300) ** 2 + (y - 200) ** 2) / 250**2)
        light = (0.3 + lamp + 0.02 * rough)[..., None] * np.array([1, 0.97, 0.92])
    still = cv2.GaussianBlur(light.astype(np.float32), (0, 0), 0.8)
    path = camera_path(frames, (height, width), size, wrap=False, seed=3)
    for linear in film(still, path, size, wrap=False):
        noise = NOISE * np.sqrt(np.maximum(linear, 0.02)) * rng.normal(size=linear.shape)
        yield np.maximum(linear + noise, 0).astype(np.float32)


PHOTOGRAPHS = ("snow", "paper", "wall")


# Files --------------------------------------------------------------------------------------------------------------


def composed(drawn: Frame, light: Image | None, transfer: str) -> tuple[Image, Array]:
    """A frame's truth in linear light, and its 8-bit codes; `light`: the film's."""
    codes = np.asarray(drawn.picture)
    truth = DECODE[transfer](codes / np.float32(255))
    if light is None or drawn.film is None:
        return truth, codes
    left, top, right, bottom = drawn.film
    truth[top:bottom, left:right] = light
    if drawn.over is not None:
        over = np.asarray(drawn.over)[..., None] / np.float32(255)
        below = ENCODE[transfer](truth)
        blended = DECODE[transfer](below + over * (codes / np.float32(255) - below))
        truth = np.where(over > 0, blended, truth)
    return truth, np.round(255 * ENCODE[transfer](truth)).astype(np.uint8)


def frames_of(name: str, frames: int, size: tuple[int, int], transfer: str) -> Iterator[tuple[Image, Array]]:
    """Each frame's truth and codes, (height, width, 3)."""
    if name in PHOTOGRAPHS:
        for linear in photographs(name, frames, size):
            yield linear, np.round(255 * ENCODE[transfer](linear)).astype(np.uint8)
        return
    draw = GRAPHICS[name]
    box = draw(0, frames, *size).film
    films = filmed(frames, (box[2] - box[0], box[3] - box[1]), len(name)) if box else None
    for index in range(frames):
        light = next(films) if films else None
        yield composed(draw(index, frames, *size), light, transfer)


def render(
    name: str,
    out: Path,
    *,
    frames: int = 36,
    size: tuple[int, int] = (640, 360),
    transfer: str = "srgb",
    coding: Coding | None = None,
) -> Path:
    """Draw one clip into `out`/NAME, as make_scenes.render writes a scene, and return that folder."""
    folder = out / name
    for each in (folder / "hdr", folder / "sdr"):
        shutil.rmtree(each, ignore_errors=True)
        each.mkdir(parents=True)
    for index, (linear, codes) in enumerate(frames_of(name, frames, size, transfer)):
        write_exr(folder / "hdr" / f"{index:04d}.exr", linear)
        cv2.imwrite(str(folder / "sdr" / f"{index:04d}.png"), codes[..., ::-1])
    if coding:
        encode(folder / "sdr", folder / "sdr.mp4", coding)
    scene = {"frames": frames, "width": size[0], "height": size[1], "fps": FPS, "transfer": transfer}
    scene |= {"video": "sdr.mp4" if coding else None, "graphics": name in GRAPHICS}
    (folder / "scene.json").write_text(json.dumps(scene, indent=1))
    return folder


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, help="folder of the clips")
    parser.add_argument("--only", nargs="+", choices=[*GRAPHICS, *PHOTOGRAPHS], metavar="CLIP", help="these alone")
    parser.add_argument("--frames", type=int, default=36)
    parser.add_argument("--size", type=parse_size, default=(640, 360), metavar="WxH")
    parser.add_argument("--transfer", choices=sorted(ENCODE), default="srgb", help="bt1886: as BT.709 video is encoded")
    parser.add_argument("--codec", choices=sorted(ENCODERS), help="encode the frames too; needs --transfer bt1886")
    parser.add_argument("--crf", type=int, default=23, help="the encoder's constant rate factor (with --codec)")
    options = parser.parse_args()
    if options.codec and options.transfer != "bt1886":
        parser.error("--codec writes a file tagged BT.709: it needs --transfer bt1886")
    if options.codec and shutil.which("ffmpeg") is None:
        parser.exit(1, "make_graphics: --codec needs the program ffmpeg on PATH\n")
    for name in options.only or [*GRAPHICS, *PHOTOGRAPHS]:
        folder = render(
            name,
            options.out,
            frames=options.frames,
            size=options.size,
            transfer=options.transfer,
            coding=Coding(options.codec, options.crf) if options.codec else None,
        )
        print(f"{name}: {options.frames} frames in {folder}")


if __name__ == "__main__":
    main()
