# /// script
# requires-python = ">=3.12"
# dependencies = ["numpy", "opencv-python-headless", "OpenEXR>=3.4.14", "torch", "cvvdp", "vszhdrv"]
#
# [tool.uv.sources]
# vszhdrv = { path = "..", editable = true }
# ///
"""Score HDR clips against the truth that make_scenes.py wrote, and run the method itself on those scenes.

    uv run scripts/evaluate.py SCENES linear              the floor: the SDR clip, linearised
    uv run scripts/evaluate.py SCENES linear mine=DIR     DIR/SCENE/*.exr of any method, linear RGB, 1.0 = SDR white
    uv run scripts/evaluate.py SCENES mine=DIR:highlights only clipped pixels from DIR, the source elsewhere
    uv run scripts/evaluate.py SCENES --run               train on each scene and expand it, beside the floor
    uv run scripts/evaluate.py SCENES --run --preset paper --set epochs=16 --write DIR --json scores.json

Each scene that has an sdr.mp4 is read from there, else from its PNGs; what counts as clipped is decided by the PNGs,
so that the same pixels are judged with and without compression. Columns, over all frames of a scene:

    JOD      ColorVideoVDP on a 4000 cd/m2 HDR display, SDR white = 100 cd/m2; 10 = no visible difference
    PUPSNR   PSNR of PU21-encoded values in dB, mean over frames
    HLRMSE   RMSE of log2 luminance where the SDR frame clips (any channel 255), stops
    MIDRMSE  the same where no channel clips and all are over 16: what a method must not spoil, stops
    FLICK    RMS of the frame-to-frame change of the log2 error where both frames clip, stops
    TFLICK   the same along the camera's motion (true flicker): a frame's error is compared with the last frame's error
             at the same place of the still, read by bilinear interpolation of four pixels that all clip
    DETAIL   correlation of the result's detail with the truth's, over all clipped pixels: log2 luminance minus its
             Gaussian mean (sigma 4 pixels) over the clipped pixels around
    SWING    how strong the result's detail is: its standard deviation over that of the truth's
    GAIN     global gain of the result, from the median ratio of well-exposed pixels; divided out before scoring
    BAD      values that are not finite
    TRAIN    seconds of training, MS milliseconds a frame of expansion; with --run

Of a film (make_scenes.py --film), each of its scenes has a row, too: its frames in their order, without those that are
mixed or lit by a flash. So they compare with the scene's own row where it is given alone.

A second table has the highlights' error by the brightness of the truth, all scenes together: SHARE of the clipped
pixels, BIAS and RMS of the log2 error in stops, and PART of the squared error.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from make_scenes import DECODE, LUMA, Array, CameraPath, Image, read_exr, write_exr
from numpy.typing import NDArray

if TYPE_CHECKING:
    import vapoursynth as vs

SDR_WHITE_NITS = 100.0
DISPLAY_PEAK_NITS = 4000.0
DISPLAY_BLACK_NITS = 0.005

# Mantiuk and Azimi, "PU21: A novel perceptually uniform encoding for adapting existing quality metrics for HDR",
# Picture Coding Symposium 2021, the fit named "banding_glare".
PU21 = (0.353487901, 0.3734658629, 8.277049286e-05, 0.9062562627, 0.09150303166, 0.9099517204, 596.3148142)

DARKEST = 2.0**-9
"""Luminance, 1.0 = SDR white, below which log2 errors do not count: nine stops under white."""

FORMATS = {"JOD": ".2f", "PUPSNR": ".1f", "HLRMSE": ".3f", "MIDRMSE": ".3f", "FLICK": ".3f"} | {
    "TFLICK": ".3f",
    "DETAIL": ".3f",
    "SWING": ".2f",
    "GAIN": ".3f",
    "BAD": ".0f",
    "TRAIN": ".1f",
    "MS": ".1f",
}
BETTER_WHEN = {"JOD": +1, "PUPSNR": +1, "HLRMSE": -1, "FLICK": -1, "TFLICK": -1}
"""What a method must improve over the floor in every scene: +1 higher is better, -1 lower is better."""

BRIGHTNESS = (0, 1, 2, 3, 4)
"""Edges, in stops over SDR white, of the classes of the truth's luminance in the table by brightness."""

LEAST_DETAIL = 1e-4
"""Detail of a lower standard deviation, in stops, is none: rounding."""
DETAIL_SIGMA = 4.0
"""Standard deviation in pixels of the Gaussian mean that is no detail."""

FLOOR = "linear"
MEAN = "MEAN"
HIGHLIGHTS = ":highlights"

Scores = dict[str, float]
Jod = Callable[[Image, Image, float], float]
"""(result in cd/m2, truth in cd/m2, frames a second) to just-objectionable-differences."""


# Scenes -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Camera:
    """The path of make_scenes.py's camera. `turn`: the still's width in pixels where its edges meet, else None."""

    path: CameraPath
    turn: int | None

    @classmethod
    def read(cls, about: dict[str, Any]) -> Camera:
        """Of a scene.json."""
        names = ("x", "y", "zoom", "roll")
        path = CameraPath(*(np.array([frame[name] for frame in about["per_frame"]]) for name in names))
        return cls(path, about["turn"])

    def before(self, frame: int, size: tuple[int, int]) -> tuple[Image, Image]:
        """Column and row, in the frame before, of every pixel of a frame of `size` = (width, height)."""
        width, height = size
        ys, xs = np.mgrid[0:height, 0:width].astype(np.float64)
        here, there = (self.path.at(index) for index in (frame, frame - 1))
        x, y = _turned(xs - width / 2, ys - height / 2, here["roll"])
        x, y = here["zoom"] * x + here["x"] - there["x"], here["zoom"] * y + here["y"] - there["y"]
        if self.turn:
            x = (x + self.turn / 2) % self.turn - self.turn / 2
        x, y = _turned(x / there["zoom"], y / there["zoom"], -there["roll"])
        return (x + width / 2).astype(np.float32), (y + height / 2).astype(np.float32)


def _turned(x: Array, y: Array, angle: float) -> tuple[Array, Array]:
    return math.cos(angle) * x - math.sin(angle) * y, math.sin(angle) * x + math.cos(angle) * y


@dataclass(frozen=True)
class Scene:
    """A folder that make_scenes.py wrote. Clips are (frames, height, width, 3)."""

    folder: Path
    frames: int
    width: int
    height: int
    fps: float
    transfer: str
    video: Path | None
    camera: Camera | None = None
    """Where the camera was; None in films, and in folders that older scripts wrote."""
    parts: dict[str, list[int]] = field(default_factory=dict)
    """Of a film: the frames that show each of its scenes, in the scene's order; not those mixed or lit by a flash."""

    @classmethod
    def open(cls, folder: Path) -> Scene:
        """Read scene.json."""
        about = json.loads((folder / "scene.json").read_text())
        video = about.get("video")
        camera = Camera.read(about) if "turn" in about else None
        parts = film_parts(about["shots"], about["flashes"]) if "shots" in about else {}
        about = {name: about[name] for name in ("frames", "width", "height", "fps", "transfer")}
        return cls(folder, video=folder / video if video else None, camera=camera, parts=parts, **about)

    @property
    def name(self) -> str:
        """The still's name."""
        return self.folder.name

    @property
    def pictures(self) -> list[Path]:
        """The SDR frames' PNG files."""
        return [self.folder / "sdr" / f"{index:04d}.png" for index in range(self.frames)]

    def truth(self) -> Image:
        """Linear HDR, 1.0 = SDR white."""
        return np.stack([read_exr(self.folder / "hdr" / f"{index:04d}.exr") for index in range(self.frames)])

    def sdr(self) -> NDArray[np.uint8]:
        """The uncompressed SDR frames' codes."""
        return np.stack([read_png(picture) for picture in self.pictures])

    def given(self) -> Image:
        """What a method is given, linearised: the floor. A video's codes over white stay over 1."""
        decode = DECODE[self.transfer]
        if self.video:
            return decode(np.stack(list(read_clip(to_rgb(open_clip(self))))).clip(0))
        return decode(self.sdr() / np.float32(255))


def film_parts(shots: list[dict[str, Any]], flashes: list[int]) -> dict[str, list[int]]:
    """`Scene.parts` of a film's shots, as make_scenes.py describes them, and of its frames that a flash lights."""
    mixed = {n for shot in shots for n in range(shot["first"], shot["first"] + shot["blended"])} | set(flashes)
    parts: dict[str, list[int]] = {}
    for shot in sorted(shots, key=lambda shot: shot["scene_first"]):
        parts.setdefault(shot["scene"], []).extend(n for n in range(shot["first"], shot["end"]) if n not in mixed)
    return parts


def open_scenes(folder: Path, only: list[str] | None) -> list[Scene]:
    """All scenes in a folder, or those named in `only`; ValueError if there is none."""
    folders = sorted(each.parent for each in folder.glob("*/scene.json"))
    scenes = [Scene.open(each) for each in folders if not only or each.name in only]
    if not scenes:
        raise ValueError(f"SCENES {folder} has no folder {' or '.join(only or ['NAME'])} with a scene.json in it")
    return scenes


def read_png(path: Path) -> NDArray[np.uint8]:
    """An 8-bit RGB picture, (height, width, 3)."""
    return np.asarray(cv2.imread(str(path)), np.uint8)[..., ::-1]


# Metrics ------------------------------------------------------------------------------------------------------------


def pu21(nits: Array) -> Array:
    """Perceptually uniform code of luminance in cd/m2: 0 at 0.005, 256 at 100, 595 at 10,000."""
    p = PU21
    y = np.clip(nits, 0.005, 10000.0) ** p[3]
    return np.maximum(p[6] * (((p[0] + p[1] * y) / (1 + p[2] * y)) ** p[4] - p[5]), 0)


def displayed(linear: Array) -> Array:
    """What the display shows of linear light: cd/m2 within its range."""
    return np.clip(linear * SDR_WHITE_NITS, DISPLAY_BLACK_NITS, DISPLAY_PEAK_NITS)


def rms(values: Array) -> float:
    """Root of the mean square; NaN of nothing."""
    return float(np.sqrt(np.mean(values**2))) if values.size else float("nan")


def pupsnr(result: Array, truth: Array) -> float:
    """PSNR in dB of one frame's PU21 codes, 256 (the code of 100 cd/m2) taken as the signal."""
    return float(20 * np.log10(256 / max(rms(pu21(displayed(result)) - pu21(displayed(truth))), 1e-6)))


def well_exposed_ratio(truth: Array, result: Array, sdr: NDArray[np.uint8]) -> float:
    """Median of truth over result, both luminance, on pixels whose SDR codes all lie in 65 to 223; 1 without any."""
    good = (sdr > 64).all(-1) & (sdr < 224).all(-1)
    return float(np.median(truth[good] / np.maximum(result[good], 1e-6))) if good.any() else 1.0


def detail(stops: Array, clipped: Array) -> Array:
    """Of the clipped pixels of one frame: log2 luminance minus its Gaussian mean over the clipped pixels around."""
    mask = clipped.astype(np.float32)
    total, weight = (cv2.GaussianBlur(x, (0, 0), DETAIL_SIGMA) for x in (stops.astype(np.float32) * mask, mask))
    return np.asarray((stops - total / np.maximum(weight, 1e-6))[clipped])


def detail_scores(truth: Array, result: Array, clipped: Array) -> tuple[float, float]:
    """DETAIL and SWING of log2 luminance, all (frames, height, width); NaN where there is no detail to compare."""
    pairs = zip(truth, result, clipped, strict=True)
    wanted, found = np.concatenate([[detail(t, mask), detail(r, mask)] for t, r, mask in pairs], axis=1)
    spread = wanted.std() if wanted.size else 0.0
    if spread < LEAST_DETAIL:
        return float("nan"), float("nan")
    if found.std() < LEAST_DETAIL:
        return 0.0, 0.0
    return float(np.corrcoef(wanted, found)[0, 1]), float(found.std() / spread)


def true_changes(stops: Array, clipped: NDArray[np.bool_], camera: Camera) -> Array:
    """Changes of the log2 error `stops` from frame to frame, along the camera's motion; both (frames, height, width).

    The error of the frame before is interpolated between four pixels. A place counts if all four are clipped, and its
    own pixel is, too.
    """
    height, width = stops.shape[1:]
    changes = []
    for index in range(1, len(stops)):
        column, row = camera.before(index, (width, height))
        last, there = (
            cv2.remap(values.astype(np.float32), column, row, cv2.INTER_LINEAR)
            for values in (stops[index - 1], clipped[index - 1])
        )
        changes.append((stops[index] - last)[clipped[index] & (there > 0.999)])
    return np.concatenate(changes) if changes else np.empty(0)


@dataclass(frozen=True)
class Brightness:
    """Highlights' errors by the brightness of the truth: one value for each class between the edges `BRIGHTNESS`, and
    one beyond each end."""

    count: Array
    error: Array
    """Sum of the log2 errors, stops."""
    squares: Array
    """Sum of their squares."""

    @classmethod
    def of(cls, truth_stops: Array, stops: Array) -> Brightness:
        """Of the clipped pixels' true log2 luminance and log2 errors."""
        where = np.digitize(truth_stops, BRIGHTNESS)
        classes = len(BRIGHTNESS) + 1
        count, error, squares = (np.bincount(where, weights, classes) for weights in (None, stops, stops**2))
        return cls(count, error, squares)

    def __add__(self, other: Brightness) -> Brightness:
        return Brightness(self.count + other.count, self.error + other.error, self.squares + other.squares)

    def rows(self, method: str) -> Iterator[str]:
        """Lines of a Markdown table, without the classes in which nothing is."""
        between = [f"{low} to {high}" for low, high in pairwise(BRIGHTNESS)]
        names = [f"under {BRIGHTNESS[0]}", *between, f"over {BRIGHTNESS[-1]}"]
        for name, count, error, squares in zip(names, self.count, self.error, self.squares, strict=True):
            if count:
                share, part = count / self.count.sum(), squares / max(self.squares.sum(), 1e-12)
                bias, root = error / count, np.sqrt(squares / count)
                yield f"| {method} | {name} | {share:.1%} | {bias:+.2f} | {root:.2f} | {part:.1%} |"


def log_luminance(linear: Array) -> Array:
    """Stops over SDR white of (..., 3) linear RGB, at least `DARKEST`'s."""
    return np.asarray(np.log2(np.maximum(linear @ LUMA, DARKEST)))


def in_scale(truth: Image, sdr: NDArray[np.uint8], result: Image) -> tuple[Image, float]:
    """The result without values that are not finite and without its global gain, and that gain's reciprocal."""
    result = np.nan_to_num(result, posinf=DISPLAY_PEAK_NITS).clip(0)
    gain = well_exposed_ratio(truth @ LUMA, result @ LUMA, sdr)
    return result * np.float32(gain), gain


def by_brightness(truth: Image, sdr: NDArray[np.uint8], result: Image) -> Brightness:
    """The highlights' errors by the brightness of the truth; arguments as of `score`."""
    clipped = (sdr == 255).any(-1)
    true, own = (log_luminance(clip)[clipped] for clip in (truth, in_scale(truth, sdr, result)[0]))
    return Brightness.of(true, own - true)


def score(
    truth: Image,
    sdr: NDArray[np.uint8],
    result: Image,
    fps: float = 24,
    jod: Jod | None = None,
    camera: Camera | None = None,
) -> Scores:
    """The columns of the module's docstring for one clip; JOD is NaN without `jod`, TFLICK without `camera`.

    All clips are (frames, height, width, 3); `truth` and `result` linear, 1.0 = SDR white; `sdr` codes. ValueError if
    `result` has another shape than `truth`.
    """
    if result.shape != truth.shape:
        raise ValueError(f"the result has shape {result.shape}, the truth {truth.shape}")
    bad = int((~np.isfinite(result)).sum())
    result, gain = in_scale(truth, sdr, result)

    clipped = (sdr == 255).any(-1)
    middle = (sdr > 16).all(-1) & ~clipped
    own, true = (log_luminance(clip) for clip in (result, truth))
    stops = own - true
    correlation, swing = detail_scores(true, own, clipped)
    change = (stops[1:] - stops[:-1])[clipped[1:] & clipped[:-1]]
    return {
        "JOD": jod(displayed(result), displayed(truth), fps) if jod else float("nan"),
        "PUPSNR": float(np.mean([pupsnr(*pair) for pair in zip(result, truth, strict=True)])),
        "HLRMSE": rms(stops[clipped]),
        "MIDRMSE": rms(stops[middle]),
        "FLICK": rms(change),
        "TFLICK": rms(true_changes(stops, clipped, camera)) if camera else float("nan"),
        "DETAIL": correlation,
        "SWING": swing,
        "GAIN": 1 / gain,
        "BAD": bad,
    }


def color_video_vdp() -> Jod:
    """ColorVideoVDP, on the GPU if there is one; loads torch."""
    import pycvvdp
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    metric = pycvvdp.cvvdp(display_name="standard_hdr_linear", device=device, quiet=True)

    def jod(result: Image, truth: Image, fps: float) -> float:
        clips = torch.from_numpy(result), torch.from_numpy(truth)
        value, _ = metric.predict(*clips, dim_order="FHWC", frames_per_second=fps)
        return float(value)

    return jod


# Methods ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """A method's answer to a scene: linear clip, training in seconds, expansion in milliseconds a frame."""

    clip: Image
    training: float = float("nan")
    per_frame: float = float("nan")


Method = Callable[[Scene], Result]


def floor(scene: Scene) -> Result:
    """The SDR clip, linearised: what a method must beat."""
    return Result(scene.given())


def from_files(folder: Path, *, highlights: bool = False) -> Method:
    """A method whose results lie in `folder`/SCENE/*.exr.

    highlights: taken are its clipped pixels alone, in the scale that its well-exposed pixels have; the rest is the
    source. So a method that changes mid-tones on purpose is judged by its highlights.
    """

    def method(scene: Scene) -> Result:
        files = sorted((folder / scene.name).glob("*.exr"))
        if len(files) != scene.frames:
            raise ValueError(f"{folder / scene.name} has {len(files)} .exr files for {scene.frames} frames")
        clip = np.stack([read_exr(file) for file in files])
        if highlights:
            given, sdr = scene.given(), scene.sdr()
            clip = np.where((sdr == 255).any(-1, keepdims=True), in_scale(given, sdr, clip)[0], given)
        return Result(clip)

    return method


def expansion(arguments: dict[str, Any], write: Path | None) -> Method:
    """The method of this project: vszhdrv.expand with these arguments, on an empty cache; loads torch.

    `write`: also write the results to `write`/SCENE/*.exr.
    """
    os.environ["VSZHDRV_CACHE"] = ""  # a network trained earlier would make the training time a lie
    import vszhdrv
    import vszhdrv.zhdrv.training  # torch is loaded here, so that the first scene's training does not pay for it

    def method(scene: Scene) -> Result:
        start = perf_counter()
        clip = vszhdrv.expand(open_clip(scene), **arguments)
        trained = perf_counter()
        frames = np.stack(list(read_clip(clip)))
        ended = perf_counter()
        if write:
            (write / scene.name).mkdir(parents=True, exist_ok=True)
            for index, frame in enumerate(frames):
                write_exr(write / scene.name / f"{index:04d}.exr", frame)
        return Result(frames, trained - start, (ended - trained) / len(frames) * 1000)

    return method


def open_clip(scene: Scene) -> vs.VideoNode:
    """What the scene gives a method, as a clip with its colour properties."""
    import vapoursynth as vs

    if scene.video:
        return vs.core.bs.VideoSource(str(scene.video), cachemode=0)
    clip = vs.core.imgseqs.Read([str(picture) for picture in scene.pictures], fpsnum=round(scene.fps), fpsden=1)
    transfer = {"srgb": vs.TRANSFER_IEC_61966_2_1, "bt1886": vs.TRANSFER_BT709}[scene.transfer]
    return clip.std.SetFrameProps(_Matrix=vs.MATRIX_RGB, _Transfer=transfer, _Primaries=vs.PRIMARIES_BT709)


def to_rgb(clip: vs.VideoNode) -> vs.VideoNode:
    """Encoded full-range RGB in float, by the clip's own colour properties."""
    import vapoursynth as vs

    return clip.resize.Bicubic(format=vs.RGBS)


def read_clip(clip: vs.VideoNode) -> Iterator[Image]:
    """The frames of a planar RGB clip, each (height, width, 3)."""
    for frame in clip.frames(close=True):
        yield np.stack([np.asarray(frame[plane]) for plane in range(3)], axis=-1)


# Reports ------------------------------------------------------------------------------------------------------------


def row(scene: str, method: str, scores: Scores) -> str:
    """A line of the Markdown table."""
    cells = ["" if np.isnan(scores[name]) else format(scores[name], form) for name, form in FORMATS.items()]
    return f"| {scene} | {method} | {' | '.join(cells)} |"


def header() -> str:
    """The head of the Markdown table."""
    return f"| scene | method | {' | '.join(FORMATS)} |\n|---|---|{'---|' * len(FORMATS)}"


def mean(scores: list[Scores]) -> Scores:
    """Each column's mean over scenes, those left out that have none."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice")
        return {name: float(np.nanmean([each[name] for each in scores])) for name in FORMATS}


def worst_against_floor(method: dict[str, Scores], bottom: dict[str, Scores]) -> str:
    """A Markdown table: for each column that must improve, the scene where the method gains least over the floor."""
    lines = ["| column | scene | linear | method | gain |", "|---|---|---|---|---|"]
    for name, sign in BETTER_WHEN.items():
        gains = {scene: sign * (method[scene][name] - bottom[scene][name]) for scene in method}
        gains = {scene: gain for scene, gain in gains.items() if not np.isnan(gain)}
        if not gains:
            continue
        scene = min(gains, key=lambda each: gains[each])
        cells = [format(each, FORMATS[name]) for each in (bottom[scene][name], method[scene][name], gains[scene])]
        lines.append(f"| {name} | {scene} | {' | '.join(cells)} |")
    return "\n".join(lines)


def evaluate(scenes: list[Scene], methods: dict[str, Method], jod: Jod | None) -> dict[str, dict[str, Scores]]:
    """Score each method on each scene, printing the table as it grows; returns method to scene (and MEAN) to scores."""
    table: dict[str, dict[str, Scores]] = {name: {} for name in methods}
    brightness: dict[str, Brightness] = {}
    print(header(), flush=True)
    for scene in scenes:
        truth, sdr = scene.truth(), scene.sdr()
        for name, method in methods.items():
            result = method(scene)
            scores = score(truth, sdr, result.clip, scene.fps, jod, scene.camera)
            found = by_brightness(truth, sdr, result.clip)
            brightness[name] = brightness[name] + found if name in brightness else found
            table[name][scene.name] = scores | {"TRAIN": result.training, "MS": result.per_frame}
            print(row(scene.name, name, table[name][scene.name]), flush=True)
            for part, frames in scene.parts.items():
                of_part = score(truth[frames], sdr[frames], result.clip[frames], scene.fps)
                table[name][f"{scene.name}: {part}"] = of_part | {"TRAIN": float("nan"), "MS": float("nan")}
                print(row(f"{scene.name}: {part}", name, table[name][f"{scene.name}: {part}"]), flush=True)
    for name, rows in table.items():
        rows[MEAN] = mean(list(rows.values()))
        print(row(MEAN, name, rows[MEAN]))
    for name, rows in table.items():
        if FLOOR in table and name != FLOOR:
            per_scene = {scene: scores for scene, scores in rows.items() if scene != MEAN}
            print(f"\nLeast gain of {name} over {FLOOR}:\n\n{worst_against_floor(per_scene, table[FLOOR])}")
    print("\nHighlights by brightness of the truth, stops over SDR white:\n")
    print("| method | truth | SHARE | BIAS | RMS | PART |\n|---|---|---|---|---|---|")
    for name, found in brightness.items():
        print("\n".join(found.rows(name)))
    return table


def parse_argument(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE, the value a Python literal or else a word."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, not {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def parse_methods(options: argparse.Namespace) -> dict[str, Method]:
    """The methods that the command line names, by name."""
    methods: dict[str, Method] = {}
    for text in ([FLOOR] if options.run else []) + options.methods:
        name, equals, folder = text.partition("=")
        if not equals and name != FLOOR:
            raise ValueError(f"METHOD {text!r} must be {FLOOR}, NAME=DIR or NAME=DIR{HIGHLIGHTS}")
        highlights = folder.endswith(HIGHLIGHTS)
        methods[name] = from_files(Path(folder.removesuffix(HIGHLIGHTS)), highlights=highlights) if equals else floor
    arguments = {name: getattr(options, name) for name in ("preset", "seed", "device")}
    arguments = {name: value for name, value in arguments.items() if value is not None} | dict(options.set)
    if options.run:
        label = " ".join(["run", *(f"{name}={value}" for name, value in arguments.items())])
        methods[label] = expansion(arguments, options.write)
    elif arguments or options.write:
        raise ValueError("--preset, --seed, --device, --set and --write belong to --run")
    if not methods:
        raise ValueError(f"name a METHOD ({FLOOR} or NAME=DIR), or --run")
    return methods


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path, metavar="SCENES", help="the folder that make_scenes.py wrote")
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=f"{FLOOR}, NAME=DIR or NAME=DIR{HIGHLIGHTS}")
    parser.add_argument("--only", nargs="+", metavar="SCENE", help="these scenes alone")
    parser.add_argument("--no-jod", action="store_true", help="leave out JOD, which takes 20 s a scene")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the scores there too")
    run = parser.add_argument_group("running the method")
    run.add_argument("--run", action="store_true", help="train on each scene and expand it")
    run.add_argument("--preset")
    run.add_argument("--seed", type=int)
    run.add_argument("--device")
    run.add_argument("--set", action="append", default=[], type=parse_argument, metavar="NAME=VALUE", help="any other")
    run.add_argument("--write", type=Path, metavar="DIR", help="keep the results as DIR/SCENE/*.exr")
    options = parser.parse_intermixed_args()
    try:
        scenes, methods = open_scenes(options.scenes, options.only), parse_methods(options)
        table = evaluate(scenes, methods, None if options.no_jod else color_video_vdp())
    except ValueError as error:
        sys.exit(f"{parser.prog}: {error}")
    if options.json:
        options.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
