# /// script
# requires-python = ">=3.12"
# dependencies = ["numpy", "opencv-python-headless", "OpenEXR>=3.4.14"]
# ///
"""Render clips with known HDR truth: a camera moves over a real HDR still, its auto exposure clips what is bright.

What one frame clips, another shows unclipped, as in filmed video; here the linear truth is known for every pixel, so
that evaluate.py can score an expansion. Each still NAME becomes

    OUT/NAME/hdr/0000.exr ...   the truth: linear RGB with BT.709 primaries, half float, 1.0 = SDR white
    OUT/NAME/sdr/0000.png ...   the 8-bit clip that a method is given, full range RGB
    OUT/NAME/sdr.mp4            with --codec: the same frames as 4:2:0 video tagged BT.709, given in their place
    OUT/NAME/scene.json         frames, width, height, fps, transfer, video; "turn": the still's width where it wraps;
                                each frame's gain, clipped share and peak, and where the camera was: see CameraPath

    uv run scripts/make_scenes.py --out scenes --fetch stills
    uv run scripts/make_scenes.py --out scenes --transfer bt1886 --codec h264 --crf 23 mine=mine.exr map=map.exr:wrap

With --fetch, and no still named, the three stills courtyard, forest and interior are rendered. The first still uses the
seed as given, the second seed + 1, and so on: never judge a change by one seed.

With --film NAME the scenes are also joined to one clip. Each scene is cut into --returns shots, and the shots of all
scenes are shuffled. A scene's place is its still: two scenes of one still are one place where their views overlap.

    uv run scripts/make_scenes.py --out scenes --fetch stills --film film --returns 3 --transitions cut dissolve:8

    OUT/FILM/hdr, sdr, sdr.mp4  as for a scene
    OUT/FILM/scene.json         as for a scene, without the camera; "shots": see FilmShot; "flashes": frame numbers
    OUT/FILM/shots.csv          the same cuts and places, as Expand's argument shots reads them
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import OpenEXR
from numpy.typing import NDArray

Image = NDArray[np.float32]
Array = NDArray[Any]

FPS = 24
LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
"""Luminance of linear RGB with BT.709 primaries (ITU-R BT.709-6, item 3.2, four digits)."""

HALF_MAX = 65504.0
HEADROOM = 2.0
"""Stops from the mean of log2 light to white for the meter "log", which lets bright windows clip."""
LEAST_LIGHT = 1e-6
"""Light below which it counts as this for the meter."""
CC0_STILLS = ("courtyard", "forest", "interior")
CC0_PACKAGE = "blender-data"
CC0_FOLDER = Path("usr/share/blender/datafiles/studiolights/world")


# Transfer functions -------------------------------------------------------------------------------------------------


def srgb_encode(linear: Array) -> Array:
    """Linear light to sRGB (IEC 61966-2-1), both in [0, 1]; clips what is outside."""
    x = np.clip(linear, 0, 1)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-9) ** (1 / 2.4) - 0.055)


def srgb_decode(encoded: Array) -> Image:
    """sRGB (IEC 61966-2-1) to linear light, both in [0, 1]."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4).astype(np.float32)


def bt1886_encode(linear: Array) -> Array:
    """Linear light as a BT.1886 display shows it (gamma 2.4, no black lift) to the code of a BT.709 video."""
    return np.clip(linear, 0, 1) ** (1 / 2.4)


def bt1886_decode(encoded: Array) -> Image:
    """Code of a BT.709 video in [0, 1] to linear light on a BT.1886 display."""
    return (encoded**2.4).astype(np.float32)


ENCODE = {"srgb": srgb_encode, "bt1886": bt1886_encode}
DECODE = {"srgb": srgb_decode, "bt1886": bt1886_decode}


# Noise and compression ----------------------------------------------------------------------------------------------

SHOT_NOISE, READ_NOISE = 0.022, 0.0012
"""Standard deviations of a sensor's noise, of SDR white: at SDR white (it grows with the square root of light), and in
the dark."""
GRAIN_CODES, GRAIN_BLUR = 3.0, 0.7
"""Standard deviation of the grain, codes of 255, and the sigma of the blur that makes it coarse, in pixels."""

NOISES = ("sensor", "grain")
ENCODERS = {
    "h264": ("-c:v", "libx264", "-preset", "slow"),
    "hevc": ("-c:v", "libx265", "-preset", "medium", "-x265-params", "log-level=error", "-tag:v", "hvc1"),
    "av1": ("-c:v", "libsvtav1", "-preset", "6"),
}
"""ffmpeg's arguments for each codec, without the quality."""
QUIET = {"SVT_LOG": "1"}
"""Environment in which SVT-AV1 prints errors alone."""


@dataclass(frozen=True)
class Coding:
    """How the clip is compressed. `crf`: the encoder's constant rate factor; `depth`: 8 or 10 bits."""

    codec: str
    crf: int
    depth: int = 8


def with_sensor_noise(linear: Image, rng: np.random.Generator) -> Image:
    """Light as a sensor counts it, before it clips: each channel has noise of its own."""
    deviation = np.sqrt(SHOT_NOISE**2 * linear + READ_NOISE**2)
    return np.maximum(linear + deviation * rng.standard_normal(linear.shape, np.float32), 0)


def with_grain(encoded: Array, rng: np.random.Generator) -> Array:
    """A finished frame, [0, 1], with film grain: the same in all channels, on white, too."""
    grain = cv2.GaussianBlur(rng.standard_normal(encoded.shape[:2], np.float32), (0, 0), GRAIN_BLUR)
    return np.clip(encoded + (GRAIN_CODES / 255 / grain.std() * grain)[..., None], 0, 1)


# Files --------------------------------------------------------------------------------------------------------------


def read_exr(path: Path) -> Image:
    """Read linear RGB, shape (height, width, 3); NaN becomes 0, the rest is clipped to [0, half's maximum]."""
    channels = OpenEXR.File(str(path)).parts[0].channels
    pixels = channels["RGB"].pixels if "RGB" in channels else channels["RGBA"].pixels[..., :3]
    return np.nan_to_num(np.asarray(pixels, np.float32), posinf=HALF_MAX).clip(0, HALF_MAX)


def write_exr(path: Path, rgb: Array) -> None:
    """Write RGB of shape (height, width, 3) as a half float file."""
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"RGB": np.ascontiguousarray(rgb, np.float16)}).write(str(path))


def write_png(path: Path, rgb: Array) -> None:
    """Write RGB of shape (height, width, 3), 8 or 16 bits."""
    cv2.imwrite(str(path), rgb[..., ::-1])  # OpenCV wants BGR


def fetched(folder: Path) -> bool:
    """Whether the stills of `fetch_stills` are in `folder` already."""
    return all((folder / f"{name}.exr").exists() for name in CC0_STILLS)


def fetch_stills(folder: Path) -> None:
    """Put the CC0 environment maps of Debian's package blender-data (Greg Zaal, HDRI Haven) into `folder`, once.

    Needs apt-get and dpkg-deb, but neither root nor Blender: the package is unpacked, not installed.
    """
    if fetched(folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        subprocess.run(["apt-get", "download", "-q", CC0_PACKAGE], cwd=temporary, check=True)
        (package,) = temporary.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", str(package), str(temporary)], check=True)
        for still in (temporary / CC0_FOLDER).iterdir():  # the licence text travels along
            shutil.copy(still, folder)


def encode(sdr: Path, video: Path, coding: Coding) -> None:
    """Encode sdr/%04d.png as 4:2:0 video with limited range, all three colour tags BT.709."""
    # The filter converts, the tags only describe. Without accurate_rnd a tenth of the chroma is off by a code.
    pixels = "yuv420p" if coding.depth == 8 else "yuv420p10le"
    convert = f"scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd,format={pixels}"
    tags = ["-color_primaries", "bt709", "-color_trc", "bt709", "-colorspace", "bt709", "-color_range", "tv"]
    codec = [*ENCODERS[coding.codec], "-crf", str(coding.crf), "-movflags", "+faststart"]
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-framerate", str(FPS), "-i", str(sdr / "%04d.png")]
    subprocess.run([*command, "-vf", convert, *codec, *tags, str(video)], check=True, env=os.environ | QUIET)


# The camera ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CameraPath:
    """Where the camera is at each of n frames: arrays of shape (n,).

    `x`, `y`: centre in pixels of the still; `zoom`: pixels of the still per output pixel; `roll`: radians.
    """

    x: Array
    y: Array
    zoom: Array
    roll: Array

    def at(self, frame: int) -> dict[str, float]:
        """The four values of one frame, by name."""
        return {name: float(values[frame]) for name, values in vars(self).items()}


def camera_path(frames: int, still: tuple[int, int], size: tuple[int, int], wrap: bool, seed: int) -> CameraPath:
    """Draw a slow pan with zoom and roll over a still of (height, width) for frames of `size` = (width, height).

    The order of the draws is what a seed means: another order would make other clips.
    """
    height, width = still
    out_width, out_height = size
    rng = np.random.default_rng(seed)
    time = np.linspace(0, 1, frames)
    ease = 3 * time**2 - 2 * time**3

    def between(ends: Array | tuple[float, float]) -> Array:
        return ends[0] + (ends[1] - ends[0]) * ease

    zoom = between(rng.uniform(0.75, 1.0, 2))
    margin_x, margin_y = out_width / 2 * zoom.max() * 1.08, out_height / 2 * zoom.max() * 1.12
    if wrap:
        start = rng.uniform(0, width)
        x = between((start, start + rng.choice([-1, 1]) * out_width * 0.9))
    else:
        left, right = margin_x, max(margin_x, width - margin_x)
        x = between((left, right) if rng.random() < 0.5 else (right, left))
    ends_y = np.sort(rng.uniform(margin_y, max(margin_y + 1e-3, height - margin_y), 2))
    y = between(ends_y[:: rng.choice([-1, 1])])
    roll = between(rng.uniform(-0.03, 0.03, 2)) + 0.003 * np.sin(time * 9)
    return CameraPath(x, y, zoom, roll)


def shaken(path: CameraPath, shake: float, seed: int) -> CameraPath:
    """The path as a hand holds the camera: a tremor of so many pixels (RMS) of the still, smooth over two frames."""
    rng = np.random.default_rng((seed, 1))
    tremor = cv2.GaussianBlur(rng.normal(size=(len(path.x), 2)), (1, 0), sigmaX=1e-3, sigmaY=1.5)
    x, y = (shake * tremor / np.sqrt((tremor**2).mean())).T
    return CameraPath(path.x + x, path.y + y, path.zoom, path.roll)


def enlarge(still: Image, size: tuple[int, int]) -> Image:
    """Scale a still up where it would not hold a frame of `size` = (width, height) and room to move."""
    factor = max(size[0] / still.shape[1], size[1] / still.shape[0]) * 1.15
    if factor <= 1:
        return still
    return cv2.resize(still, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)


def film(still: Image, path: CameraPath, size: tuple[int, int], wrap: bool) -> Iterator[Image]:
    """Yield each frame, shape (height, width, 3), in the still's own units. `wrap`: left and right edge meet."""
    still_width = still.shape[1]
    width, height = size
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    xs -= width / 2
    ys -= height / 2
    border = cv2.BORDER_WRAP if wrap else cv2.BORDER_REFLECT_101
    for x, y, zoom, roll in zip(path.x, path.y, path.zoom, path.roll, strict=True):
        cos, sin = math.cos(roll) * zoom, math.sin(roll) * zoom
        map_x = (x + cos * xs - sin * ys).astype(np.float32)
        map_y = (y + sin * xs + cos * ys).astype(np.float32)
        if wrap:
            map_x = np.mod(map_x, still_width).astype(np.float32)
        yield cv2.remap(still, map_x, map_y, cv2.INTER_LINEAR, borderMode=border).astype(np.float32, copy=False)


def metered_level(rgb: Image) -> Any:
    """The level that auto exposure makes SDR white: in the middle square, 4 times the mean or the 90th percentile."""
    luminance = rgb @ LUMA
    side = min(luminance.shape)
    start = (luminance.shape[1] - side) // 2
    square = luminance[:, start : start + side]
    return max(square.mean() * 4, np.percentile(square, 90))


def logarithmic_level(rgb: Image) -> Any:
    """The level that a camera makes SDR white that weighs all of the picture: some stops over the mean of log2."""
    return 2 ** (np.log2(np.maximum(rgb @ LUMA, LEAST_LIGHT)).mean() + HEADROOM)


METERS = {"centre": metered_level, "log": logarithmic_level}


def exposed(
    shots: Iterator[Image], cap: float, share: float = 1 / 15, meter: str = "centre"
) -> Iterator[tuple[Image, float]]:
    """Expose each shot so that SDR white is 1.0, the level following the meter by a share of the way per frame.

    Yields (linear frame, at most `cap`; gain applied to the still). Metering and its lag follow the protocol of
    Zeroshot-HDRV's authors (Banterle et al., ACM TOG 43(2), 24, 2024).
    """
    level = 0.0
    for shot in shots:
        metered = METERS[meter](shot)
        level = metered * share + level * (1 - share) if level else metered
        yield np.minimum(shot / level, cap), 1 / float(level)


# Scenes -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Still:
    """An HDR picture to film. `wrap`: it is an environment map, left and right edge meet."""

    name: str
    path: Path
    wrap: bool

    @classmethod
    def parse(cls, text: str) -> Still:
        """Read NAME=PATH.exr or NAME=PATH.exr:wrap."""
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise argparse.ArgumentTypeError(f"must be NAME=PATH.exr or NAME=PATH.exr:wrap, not {text!r}")
        return cls(name, Path(path.removesuffix(":wrap")), path.endswith(":wrap"))


def render(
    still: Still,
    out: Path,
    *,
    frames: int = 48,
    size: tuple[int, int] = (448, 256),
    seed: int = 7,
    transfer: str = "srgb",
    cap: float = 64.0,
    noise: str | None = None,
    coding: Coding | None = None,
    meter: str = "centre",
    shake: float = 0.0,
) -> Path:
    """Film one still into `out`/NAME and return that folder; the module's docstring lists its files.

    `cap`: brightest truth, times SDR white. `noise`: "sensor" or "grain", in the SDR frames alone. `coding`: also
    encode the SDR frames. `meter`: one of METERS; `shake`: pixels of the still by which the hand trembles.
    """
    folder = out / still.name
    hdr, sdr = folder / "hdr", folder / "sdr"
    for each in (hdr, sdr):
        shutil.rmtree(each, ignore_errors=True)  # an earlier and longer clip would leave frames behind
        each.mkdir(parents=True)
    per_frame = []
    picture = enlarge(read_exr(still.path), size)
    path = camera_path(frames, (picture.shape[0], picture.shape[1]), size, still.wrap, seed)
    if shake:
        path = shaken(path, shake, seed)
    shots = film(picture, path, size, still.wrap)
    rng = np.random.default_rng((seed, 1))
    with tempfile.TemporaryDirectory() as name:
        deep = Path(name)
        for index, (linear, gain) in enumerate(exposed(shots, cap, meter=meter)):
            encoded = ENCODE[transfer](with_sensor_noise(linear, rng) if noise == "sensor" else linear)
            encoded = with_grain(encoded, rng) if noise == "grain" else encoded
            codes = np.round(255 * encoded).astype(np.uint8)
            write_exr(hdr / f"{index:04d}.exr", linear)
            write_png(sdr / f"{index:04d}.png", codes)
            if coding and coding.depth > 8:
                write_png(deep / f"{index:04d}.png", np.round(65535 * encoded).astype(np.uint16))
            clipped = float((codes.max(-1) == 255).mean())
            per_frame.append({"exposure": gain, "clipped": clipped, "peak": float(linear.max())} | path.at(index))
        if coding:
            encode(deep if coding.depth > 8 else sdr, folder / "sdr.mp4", coding)
    scene = {"frames": frames, "width": size[0], "height": size[1], "fps": FPS, "transfer": transfer}
    scene |= {"video": "sdr.mp4" if coding else None, "turn": picture.shape[1] if still.wrap else None}
    scene["per_frame"] = per_frame
    (folder / "scene.json").write_text(json.dumps(scene, indent=1))
    clipped_mean, peak = np.mean([f["clipped"] for f in per_frame]), max(f["peak"] for f in per_frame)
    print(f"{still.name}: {frames} frames {size[0]}x{size[1]}, clipped {clipped_mean:.1%}, peak {peak:.1f}")
    return folder


# Films --------------------------------------------------------------------------------------------------------------

CUT = ("cut", 0)
FLASH_GAIN = 6.0
"""How much brighter a flash makes its frame."""


@dataclass(frozen=True)
class FilmShot:
    """One shot of a film.

    Its frames are `first` to `end` - 1 of the film; they show frames `scene_first` and following of a scene. The first
    `blended` of them are a transition from the shot before, of the kind `transition`: cut (none), dissolve or fade (the
    first half of them to black, the second half from black). `place` numbers the places from 0.
    """

    first: int
    end: int
    scene: str
    scene_first: int
    place: int
    transition: str = "cut"
    blended: int = 0


def parse_transition(text: str) -> tuple[str, int]:
    """Read cut, dissolve:FRAMES or fade:FRAMES."""
    kind, _, frames = text.partition(":")
    if text == "cut":
        return CUT
    if kind not in ("dissolve", "fade") or not frames.isdecimal() or int(frames) < 2:
        raise argparse.ArgumentTypeError(f"must be cut, dissolve:FRAMES or fade:FRAMES, not {text!r}")
    return kind, int(frames)


def places_of(stills: list[Still], scenes: list[dict[str, Any]]) -> list[int]:
    """The number of each scene's place: scenes of one still share it where their cameras see the same part of it."""
    numbers: list[int] = []
    for index, still in enumerate(stills):
        same = (
            numbers[earlier]
            for earlier in range(index)
            if stills[earlier].path == still.path and views_overlap(scenes[earlier], scenes[index])
        )
        numbers.append(next(same, max(numbers, default=-1) + 1))
    return numbers


def views_overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether any two frames of two scenes of one still share a third of their width and height."""
    for a in one["per_frame"][::4]:
        for b in other["per_frame"][::4]:
            across, down = abs(a["x"] - b["x"]), abs(a["y"] - b["y"])
            if one["turn"]:
                across = min(across % one["turn"], -across % one["turn"])
            zoom = min(a["zoom"], b["zoom"])
            if across < one["width"] * zoom * 2 / 3 and down < one["height"] * zoom * 2 / 3:
                return True
    return False


def film_shots(
    names: list[str], lengths: list[int], places: list[int], returns: int, transitions: list[tuple[str, int]], seed: int
) -> list[FilmShot]:
    """The shots of a film in which every scene comes `returns` times, a part of it each time, in a shuffled order.

    The transitions are taken in turn, from one shot to the next. A transition that is longer than half of either shot
    becomes a cut.
    """
    rng = np.random.default_rng((seed, 2))
    parts: list[tuple[int, int, int]] = []
    for turn in range(returns):
        order = [int(index) for index in rng.permutation(len(names))]
        if parts and len(order) > 1 and places[order[0]] == places[parts[-1][0]]:
            order.append(order.pop(0))  # a place that follows itself would be no cut
        for index in order:
            first, end = (lengths[index] * k // returns for k in (turn, turn + 1))
            parts.append((index, first, end))
    shots: list[FilmShot] = []
    position = 0
    for k, (index, first, end) in enumerate(parts):
        kind, blended = transitions[(k - 1) % len(transitions)] if k else CUT
        if blended > (end - first) // 2 or (k and blended > (parts[k - 1][2] - parts[k - 1][1]) // 2):
            kind, blended = CUT
        start = position - blended  # a transition shows both shots at once
        shots.append(FilmShot(start, start + end - first, names[index], first, places[index], kind, blended))
        position = start + end - first
    return shots


def blended_frame(kind: str, share: float, before: Array, after: Array) -> Array:
    """A frame of a transition, `share` of the way from one shot to the next; arrays of encoded or linear values."""
    if kind == "dissolve":
        return (1 - share) * before + share * after
    return before * (1 - 2 * share) if share < 0.5 else after * (2 * share - 1)


def make_film(
    stills: list[Still],
    out: Path,
    name: str,
    *,
    returns: int = 1,
    transitions: list[tuple[str, int]] | None = None,
    flashes: int = 0,
    seed: int = 7,
    coding: Coding | None = None,
) -> Path:
    """Join the rendered scenes of `stills` to one film in `out`/`name`; the module's docstring lists what is in it."""
    scenes = [json.loads((out / still.name / "scene.json").read_text()) for still in stills]
    names, lengths = [still.name for still in stills], [scene["frames"] for scene in scenes]
    shots = film_shots(names, lengths, places_of(stills, scenes), returns, transitions or [CUT], seed)
    folder = out / name
    for each in ("hdr", "sdr"):
        shutil.rmtree(folder / each, ignore_errors=True)
        (folder / each).mkdir(parents=True)

    def files(shot: FilmShot, n: int) -> tuple[Path, Path]:
        frame = f"{shot.scene_first + n - shot.first:04d}"
        return out / shot.scene / "hdr" / f"{frame}.exr", out / shot.scene / "sdr" / f"{frame}.png"

    lit = flash_frames(shots, flashes, seed)
    for before, shot in pairwise([shots[0], *shots]):
        for n in range(shot.first, shot.end):
            exr, png = folder / "hdr" / f"{n:04d}.exr", folder / "sdr" / f"{n:04d}.png"
            truth, codes = files(shot, n)
            if n - shot.first < shot.blended:
                share = (n - shot.first + 1) / (shot.blended + 1)
                earlier, earlier_codes = files(before, n)
                write_exr(exr, blended_frame(shot.transition, share, read_exr(earlier), read_exr(truth)))
                pair = (cv2.imread(str(each)).astype(np.float32) for each in (earlier_codes, codes))
                cv2.imwrite(str(png), np.round(blended_frame(shot.transition, share, *pair)).astype(np.uint8))
            elif n in lit:
                linear = read_exr(truth) * FLASH_GAIN
                write_exr(exr, linear)
                codes_of = np.round(255 * ENCODE[scenes[0]["transfer"]](linear)).astype(np.uint8)
                cv2.imwrite(str(png), codes_of[..., ::-1])
            else:
                shutil.copyfile(truth, exr)
                shutil.copyfile(codes, png)
    if coding:
        encode(folder / "sdr", folder / "sdr.mp4", coding)
    about = {key: scenes[0][key] for key in ("width", "height", "fps", "transfer")}
    about |= {"frames": shots[-1].end, "video": "sdr.mp4" if coding else None}
    about |= {"shots": [asdict(shot) for shot in shots], "flashes": lit}
    (folder / "scene.json").write_text(json.dumps(about, indent=1))
    with (folder / "shots.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("first", "place"))
        table.writerows((shot.first + (shot.blended + 1) // 2, shot.place) for shot in shots)
    print(f"{name}: {shots[-1].end} frames, {len(shots)} shots in {len({shot.place for shot in shots})} places")
    return folder


def flash_frames(shots: list[FilmShot], flashes: int, seed: int) -> list[int]:
    """Frames for so many flashes, at most one in a shot and away from its ends; fewer where shots are short."""
    rng = np.random.default_rng((seed, 3))
    inside = [(shot.first + shot.blended + 3, shot.end - 3) for shot in shots]
    roomy = [span for span in inside if span[1] > span[0]]
    chosen = rng.permutation(len(roomy))[:flashes]
    return sorted(int(rng.integers(*roomy[index])) for index in chosen)


def parse_size(text: str) -> tuple[int, int]:
    """Read WIDTHxHEIGHT."""
    try:
        width, height = map(int, text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT, not {text!r}") from None
    return width, height


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stills", nargs="*", type=Still.parse, help="NAME=PATH.exr; NAME=PATH.exr:wrap: a full turn")
    parser.add_argument("--out", required=True, type=Path, help="folder of the scenes")
    parser.add_argument("--fetch", metavar="DIR", type=Path, help="get the CC0 stills of Debian's blender-data there")
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--size", type=parse_size, default=(448, 256), metavar="WxH")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--transfer", choices=sorted(ENCODE), default="srgb", help="bt1886: as BT.709 video is encoded")
    parser.add_argument("--cap", type=float, default=64.0, help="brightest truth, times SDR white")
    parser.add_argument("--noise", choices=NOISES, help="sensor: shot noise before clipping; grain: on the whole frame")
    parser.add_argument("--codec", choices=sorted(ENCODERS), help="encode the SDR frames too; needs --transfer bt1886")
    parser.add_argument("--crf", type=int, default=23, help="the encoder's constant rate factor (with --codec)")
    parser.add_argument("--depth", type=int, choices=(8, 10), default=8, help="bits of the video (with --codec)")
    parser.add_argument("--meter", choices=sorted(METERS), default="centre", help="log: bright windows clip")
    parser.add_argument("--shake", type=float, default=0.0, metavar="PIXELS", help="how far the hand trembles, RMS")
    film = parser.add_argument_group("one film of all scenes")
    film.add_argument("--film", metavar="NAME", help="also join the scenes to OUT/NAME")
    film.add_argument("--returns", type=int, default=1, metavar="N", help="shots that each scene is cut into (1)")
    film.add_argument(
        "--transitions",
        nargs="+",
        type=parse_transition,
        default=[CUT],
        metavar="KIND",
        help="cut, dissolve:FRAMES, fade:FRAMES; from shot to shot, in turn (cut)",
    )
    film.add_argument("--flashes", type=int, default=0, metavar="N", help="frames lit by a flash (0)")
    options = parser.parse_intermixed_args()
    coding = Coding(options.codec, options.crf, options.depth) if options.codec else None
    if coding and options.transfer != "bt1886":
        parser.error("--codec writes a file tagged BT.709: it needs --transfer bt1886")
    if options.depth != 8 and not coding:
        parser.error("--depth 10 is that of a video: it needs --codec")
    needed = [("--codec", "ffmpeg")] if coding else []
    if not 1 <= options.returns <= options.frames // 2:
        parser.error(f"--returns must be from 1 to half of the scenes' frames, not {options.returns}")
    if options.fetch and not fetched(options.fetch):
        needed += [("--fetch", "apt-get"), ("--fetch", "dpkg-deb")]
    for option, program in needed:
        if shutil.which(program) is None:
            parser.exit(1, f"make_scenes: {option} needs the program {program} on PATH\n")
    if options.fetch:
        fetch_stills(options.fetch)
    stills = options.stills
    if not stills and options.fetch:
        stills = [Still(name, options.fetch / f"{name}.exr", True) for name in CC0_STILLS]
    if not stills:
        parser.error("name a still, or --fetch some")
    for index, still in enumerate(stills):
        render(
            still,
            options.out,
            frames=options.frames,
            size=options.size,
            seed=options.seed + index,
            transfer=options.transfer,
            cap=options.cap,
            noise=options.noise,
            coding=coding,
            meter=options.meter,
            shake=options.shake,
        )
    if options.film:
        make_film(
            stills,
            options.out,
            options.film,
            returns=options.returns,
            transitions=options.transitions,
            flashes=options.flashes,
            seed=options.seed,
            coding=coding,
        )


if __name__ == "__main__":
    main()
