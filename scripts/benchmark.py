# /// script
# requires-python = ">=3.12"
# dependencies = ["numpy", "torch", "vapoursynth-mlrt-ort", "vapoursynth-mlrt-ov", "vszhdrv[export]"]
#
# [tool.uv.sources]
# vszhdrv = { path = "..", editable = true }
# ///
"""How fast the method is, beside what it replaces: the only place that figures about speed come from.

    uv run scripts/benchmark.py                      all of them, on the fastest device
    uv run scripts/benchmark.py expand train         some of them
    uv run scripts/benchmark.py expand --size 1920x1080 --json speed.json

    expand   a frame through VapourSynth: Expand, the same as ONNX in vs-mlrt (processor), `baseline`, a mere copy
    paper    the same with the paper preset's network
    peak     the multiply-adds a second of network and training step, of the largest rate of any one convolution of
             these shapes
    train    a training step of fast (of either round, and a frame's consensus between them), paper and `baseline`, and
             the whole training it makes
    memory   what a process takes above its imports while it expands a frame of --size
    pixels   a frame's time against its size
    length   a frame's time, and the time until the clip is there, against the clip's length
    load     vapoursynth's start with the plugin, and Expand's on a clip whose network is known

`baseline` is the paper's recipe as its authors run it: width 64, float32, batch 1, every step of either direction
evaluated by itself, merged in NumPy's float64 with sRGB decoded value by value. Frames are those of the example clip,
scaled. What is compared runs in turns, and each figure is the median of --rounds such turns: wall time, and, on a
processor that others use too, the more telling time of all processors together.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import vszhdrv.zhdrv  # first: it says how torch's threads wait  # isort: skip
import numpy as np
import torch
import vapoursynth as vs
from torch import Tensor, nn
from torch.nn import functional as F

import vszhdrv
from vszhdrv.command.export import write_onnx
from vszhdrv.plugin import clips
from vszhdrv.plugin.colour import resolve_colour, to_encoded, to_linear
from vszhdrv.plugin.job import Job
from vszhdrv.plugin.preparing import prepare
from vszhdrv.plugin.trained import TrainedNetwork
from vszhdrv.plugin.workers import Streams
from vszhdrv.zhdrv import choosing, consensus, hardware, sampling, training
from vszhdrv.zhdrv.config import Config
from vszhdrv.zhdrv.expansion import Expander
from vszhdrv.zhdrv.footage import TrainingFrames
from vszhdrv.zhdrv.lanes import Lanes, lane
from vszhdrv.zhdrv.network import new_network
from vszhdrv.zhdrv.tiling import whole_strides, working_memory

CLIP = Path(__file__).parents[1] / "examples" / "room.mp4"
TIMES = 10
"""A single convolution runs this often in a turn: the first finds cold caches and sleeping threads."""
HELD = 3
"""Different frames that a benchmark's clip repeats: decoding is not what is measured."""
FEWEST = 6
"""Frames of a turn, at least: of two, as many as there are streams, beginning and end would be all that is measured."""
FILLING_TURNS = 4
"""Turns after which VapourSynth's pool of frames has grown to what these sizes take."""
SIZES = ((416, 240), (960, 540), (1920, 1080), (3840, 2160), (7680, 4320))
CONSULTED = 24
"""Frames of which a consensus is measured: enough that most have all of their neighbours."""
Row = dict[str, Any]
Hardware = tuple[torch.device, hardware.Precision]
"""What computes, and how."""
Shapes = list[tuple[tuple[int, ...], tuple[int, ...]]]
"""Of convolutions: what they see, and their weights."""


# The baseline ---------------------------------------------------------------------------------------------------------

LUMA = torch.tensor((0.213, 0.715, 0.072))[:, None, None]
EPSILON = 0.25 / 255


class Pool(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.rand(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.a * F.max_pool2d(x, 2) + (1 - self.a) * F.avg_pool2d(x, 2)


class Baseline(nn.Module):
    """The paper's U-Net and its expansion, as plainly as they are described."""

    def __init__(self) -> None:
        super().__init__()
        widths = (64, 128, 256, 512)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip((3, *widths), widths, strict=False))
        self.pools = nn.ModuleList(Pool() for _ in widths[1:])
        self.up = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in ((512, 256), (512, 128), (256, 64)))
        self.head = nn.Sequential(nn.Conv2d(128, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 3, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        levels = [F.relu(self.down[0](x))]
        for pool, convolution in zip(self.pools, self.down[1:], strict=True):
            levels.append(F.relu(convolution(pool(levels[-1]))))
        x = levels.pop()
        for convolution in self.up:
            x = F.interpolate(F.relu(convolution(x)), scale_factor=2, mode="bilinear")
            x = torch.cat((x, levels.pop()), 1)
        return self.head(x)

    @torch.no_grad()
    def expand(self, sdr: Tensor) -> np.ndarray:
        """(1, 3, height, width) display-encoded to (height, width, 3) linear."""
        height, width = sdr.shape[-2:]
        x = F.pad(sdr, (0, -width % 8, 0, -height % 8))
        stack = {0: x}
        for k in (-1, -2):
            stack[k] = (stack[k + 1] * self(stack[k + 1]).clamp(min=2 ** (-2 / 2.2))).clamp(0, 1)
        for k in (1, 2):
            stack[k] = (stack[k - 1] / (self(stack[k - 1]) + EPSILON)).clamp(0, 1)
        return merge({k: v[0, :, :height, :width].detach().permute(1, 2, 0).cpu().numpy() for k, v in stack.items()})


def srgb(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def merge(stack: dict[int, np.ndarray]) -> np.ndarray:
    top = bottom = 0.0
    for k, x in stack.items():
        x = x.astype(np.float64)
        luminance = x @ np.array((0.213, 0.715, 0.072))
        weight = 1 - (2 * luminance - 1) ** 12
        if k == min(stack) and (luminance > 0.9).any():
            weight = luminance
        if k == max(stack) and (luminance < 0.1).any():
            weight = 1 - luminance
        linear = np.vectorize(srgb)(x)
        top = top + weight[..., None] * (np.log(linear + 1 / 65535) - np.log(4.0**k))
        bottom = bottom + weight[..., None]
    return np.exp(top / bottom)


def l1_cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().mean() + 5 * (1 - F.cosine_similarity(a, b, dim=1).mean())


def shift(x: Tensor, stops: float) -> Tensor:
    return ((x * 2 ** (stops / 2.2)).clamp(0, 1) * 255).round() / 255


def baseline_step(network: Baseline, optimizer: torch.optim.Optimizer, pair: Tensor) -> None:
    """One step on a frame and its successor, (2, 3, height, width) display-encoded."""
    jitter = float(np.random.default_rng().uniform(0, 0.25))
    (o, o2), (f, f2) = shift(pair, jitter).split(1), shift(pair, jitter + 2).split(1)
    delta, delta2 = network(f), network(f2)
    loss = 4 * F.mse_loss(delta, o / (f + EPSILON)) + l1_cosine(delta * f, o)
    loss = loss + 0.5 * l1_cosine((o / (delta + EPSILON)).clamp(0, 1), f)
    loss = 0.05 * loss + 0.95 * F.mse_loss(o2 - o, delta2 * f2 - delta * f)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    loss.item()


# Measuring ------------------------------------------------------------------------------------------------------------


def measured(cases: dict[str, Callable[[], int]], rounds: int) -> list[Row]:
    """Milliseconds of each case for one of what it does: it returns how many that were. Cases run in turns."""
    wall: dict[str, list[float]] = {name: [] for name in cases}
    processors: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, run in cases.items():
            run()  # not timed: the last case's threads wait for more work, and this one's memory may be cold
            started, used = time.perf_counter(), time.process_time()
            count = run()
            wall[name].append(1e3 * (time.perf_counter() - started) / count)
            processors[name].append(1e3 * (time.process_time() - used) / count)
    return [
        {"case": name, "ms": statistics.median(wall[name]), "cpu ms": statistics.median(processors[name])}
        for name in cases
    ]


def synchronized(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def repeated(width: int, height: int, length: int) -> vs.VideoNode:
    """The example clip's frames at this size, 8-bit 4:2:0, without the cost of reading them."""
    clip = vs.core.bs.VideoSource(str(CLIP), cachemode=0).resize.Bicubic(width, height)
    step = clip.num_frames // HELD
    held = [clip.get_frame(n * step) for n in range(HELD)]
    blank = clip.std.BlankClip(length=length, keep=True)
    return blank.std.ModifyFrame(blank, lambda n, f: held[n % HELD])


def network_of(preset: str, width: int, height: int, on: Hardware) -> Expander:
    config = Config.from_preset(preset).for_size(width, height)
    network = new_network(config.architecture, 0)
    return Expander(network, config, *on)


def job_of(clip: vs.VideoNode, expander: Expander) -> Job:
    """What core.zhdrv.Expand has of this clip once its network is trained: its `expand()` is what that returns."""
    on = {"device": str(expander.device), "precision": expander.evaluator.precision}
    job = prepare(clip, preset=expander.config.preset, cache="", **on)
    job.trained = TrainedNetwork({}, best=expander.network.state_dict())
    return job


def through(clip: vs.VideoNode, seconds: float, most: int = sys.maxsize) -> Callable[[], int]:
    """Requests the next frames for so long, at least `FEWEST` and at most `most`, as many at once as VapourSynth has
    threads, and none beyond them; and whole rounds of so many, lest threads wait for the last.

    clip.frames() would go on reading ahead in the turns of the other cases.
    """
    ahead = itertools.count()

    def run() -> int:
        waiting: deque[Future[vs.VideoFrame]] = deque()
        count, ends = 0, time.perf_counter() + seconds
        threads = vs.core.num_threads
        while count < most and (count < FEWEST or count % threads or time.perf_counter() < ends):
            if len(waiting) == threads:
                waiting.popleft().result().close()
            waiting.append(clip.get_frame_async(next(ahead)))
            count += 1
        for request in waiting:
            request.result().close()
        return count

    return run


# The benchmarks -------------------------------------------------------------------------------------------------------


def expand(options: argparse.Namespace, preset: str = "fast") -> list[Row]:
    width, height = options.size
    device, _ = options.on
    clip = repeated(width, height, 10_000_000)
    expander = network_of(preset, width, height, options.on)
    job = job_of(clip, expander)
    count = job.request.computing.streams(expander.config, width, height)
    as_expand = Streams(count, here=device.type == "cpu")
    linear = to_linear(clip, resolve_colour(clip, warn=lambda _: None))
    cases = {
        "Expand": through(job.expand(), options.seconds),
        "copy": through(clips.on_request(linear, lambda planes: planes, streams=lambda: as_expand), options.seconds),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        if device.type == "cpu":
            write_onnx(expander, path, width=width, height=height)
            for name in ("ov", "ort"):
                for streams in (1, 2):
                    model = getattr(vs.core, name).Model(linear, str(path), num_streams=streams)
                    cases[f"vs-mlrt {name}, {streams} streams"] = through(model, options.seconds)
        slow: dict[str, Callable[[], int]] = {}
        if width * height <= 1920 * 1080:
            network = Baseline().to(device)
            with to_encoded(clip, resolve_colour(clip, warn=lambda _: None)).get_frame(0) as frame:
                sdr = torch.from_numpy(np.stack(clips.planes_of(frame)))[None].to(device) / 255

            def run() -> int:
                network.expand(sdr)
                return 1

            slow["baseline"] = run
        rows = [*measured(cases, options.rounds), *measured(slow, 1 if width * height > 640 * 360 else options.rounds)]
    ours = rows[0]
    return [
        {
            **row,
            "frames/s": 1e3 / row["ms"],
            "of Expand": row["ms"] / ours["ms"],
            "of Expand, cpu": row["cpu ms"] / ours["cpu ms"],
        }
        for row in rows
    ]


def paper(options: argparse.Namespace) -> list[Row]:
    return expand(options, "paper")


def multiply_adds(run: Callable[[], Any]) -> tuple[float, Shapes]:
    """Multiply-adds of the convolutions that `run` runs, and their shapes."""
    total, shapes = 0.0, []
    original = F.conv2d

    def counted(x: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        nonlocal total
        out = original(x, weight, bias, *args, **kwargs)
        total += out.numel() * weight[0].numel()
        shapes.append((tuple(x.shape), tuple(weight.shape)))
        return out

    F.conv2d = counted  # nn.Conv2d calls it, too
    try:
        run()
    finally:
        F.conv2d = original
    return total, shapes


def peak(options: argparse.Namespace) -> list[Row]:
    """Of the network alone, every pixel computed by the threads of one stream, and of a training step, by all threads:
    forwards, and twice as much backwards. Each beside the same convolutions on as many threads."""
    rows = []
    for preset in ("fast", "paper"):
        expander = network_of(preset, *options.size, options.on)
        step, step_adds = training_step(preset, options.size, options.on)
        whole, adds, shapes = network_alone(expander, options.size)
        threads = hardware.torch_threads()
        config, (width, height) = expander.config, options.size
        streams = hardware.default_streams(
            expander.device, working_memory(config.architecture, (height, width), None, None)
        )
        rows += [
            *beside_its_convolutions(
                f"{preset}: the network", whole, adds, shapes, max(1, threads // streams), options
            ),
            *beside_its_convolutions(f"{preset}: a training step", step, step_adds, shapes, threads, options),
        ]
    return rows


def beside_its_convolutions(
    name: str, run: Callable[[], int], adds: float, shapes: Shapes, threads: int, options: argparse.Namespace
) -> list[Row]:
    """The rate of `run`, whose every turn takes so many multiply-adds, and of the largest of its convolutions."""
    device, precision = options.on
    cases = {name: run}
    works = {name: adds}
    for seen, kernel in shapes:
        case = f"{kernel[1]} to {kernel[0]} channels, {kernel[2]}x{kernel[3]}, {seen[3]}x{seen[2]}"
        cases[case] = convolution(seen, kernel, device, precision)
        works[case] = float(np.prod(kernel)) * seen[2] * seen[3]
    with lane(device, threads):
        found = measured(cases, options.rounds)
    rates = [works[row["case"]] / row["ms"] / 1e6 for row in found]
    best = max(rates[1:])
    return [
        {"threads": threads, **row, "Gmac/s": rate, "of the best": rate / best}
        for row, rate in zip(found, rates, strict=True)
    ]


def network_alone(expander: Expander, size: tuple[int, int]) -> tuple[Callable[[], int], float, Shapes]:
    """The network on a picture of this size, as Expand has it computed; the multiply-adds of its convolutions, however
    they are computed, and the shapes of the square ones."""
    device, network = expander.device, expander.network
    width, height = size
    x = torch.rand(1, 3, *whole_strides((height, width), network.architecture))
    x = x.to(device).contiguous(memory_format=torch.channels_last)

    def run() -> int:
        with torch.inference_mode():
            for _ in range(TIMES):
                expander.evaluator.predict(x)
            synchronized(device)
        return TIMES

    with torch.inference_mode():
        adds, shapes = multiply_adds(lambda: network(x))
    return run, adds, sorted({(seen, kernel) for seen, kernel in shapes if kernel[2] == kernel[3]})


def convolution(
    seen: tuple[int, ...], kernel: tuple[int, ...], device: torch.device, precision: hardware.Precision
) -> Callable[[], int]:
    """One convolution by itself."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    picture, weight = (
        torch.rand(shape, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
        for shape in (seen, kernel)
    )

    def run() -> int:
        with torch.inference_mode():
            for _ in range(TIMES):
                F.conv2d(picture, weight, padding=weight.shape[-1] // 2)
            synchronized(device)
        return TIMES

    return run


def training_frames(size: tuple[int, int], count: int = HELD) -> TrainingFrames:
    clip = repeated(*size, count)
    encoded = to_encoded(clip, resolve_colour(clip, warn=lambda _: None))
    pixels = torch.from_numpy(np.stack([np.stack(clips.planes_of(frame)) for frame in encoded.frames()]))
    return TrainingFrames(pixels, tuple((n, (n + 1) % count) for n in range(count)))


def steps_of_a_turn(preset: str, device: torch.device) -> int:
    if device.type != "cpu":
        return 20  # of some milliseconds each
    return 5 if preset == "fast" else 1


def training_step(
    preset: str, size: tuple[int, int], on: Hardware, *, second_round: bool = False
) -> tuple[Callable[[], int], float]:
    """A training's next steps, of its first or its second round, and one's multiply-adds."""
    config = replace(Config.from_preset(preset).for_size(*size), epochs=100_000)
    if second_round:
        config = replace(config, steps_per_epoch=1, second_round=1 - 1e-5)
    running = training.train(training_frames(size), config, *on)
    while second_round and next(running).step < 2:
        pass  # its first step, and what comes between the rounds

    count = steps_of_a_turn(preset, on[0])

    def some() -> int:
        for _ in range(count):
            next(running)
        synchronized(on[0])
        return count

    forwards, _ = multiply_adds(lambda: next(running))
    return some, 3 * forwards


def consensus_of(size: tuple[int, int], on: Hardware) -> Callable[[], int]:
    """What comes between the rounds of fast, for `CONSULTED` frames."""
    expander, held = network_of("fast", *size, on), training_frames(size, CONSULTED)
    device, _ = on

    def run() -> int:
        agreed = consensus.Consensus(held, device, expander.config.stride)
        predict = partial(expander.evaluator.predict_near, white=held.traits.white, distance=agreed.nearby)
        with Lanes(device, expander.config.crops, 1) as lanes:
            for _ in agreed.consult(predict, lanes):
                pass
        synchronized(device)
        return CONSULTED

    return run


def train(options: argparse.Namespace) -> list[Row]:
    width, height = options.size
    device, _ = options.on
    cases: dict[str, Callable[[], int]] = {
        "fast, first round": training_step("fast", options.size, options.on)[0],
        "fast, consensus of a frame": consensus_of(options.size, options.on),
        "fast, second round": training_step("fast", options.size, options.on, second_round=True)[0],
        "paper": training_step("paper", options.size, options.on)[0],
    }
    fast, whole = Config.from_preset("fast"), Config.from_preset("paper")
    steps_per_epoch = fast.steps_per_epoch or 0
    steps = {
        "fast, first round": fast.first_epochs * steps_per_epoch,
        "fast, consensus of a frame": min(options.frames, 2 * consensus.PAIRS),
        "fast, second round": (fast.epochs - fast.first_epochs) * steps_per_epoch,
    }
    drawn = choosing.frames_to_draw(options.frames, whole)
    repeats = max(1, round(height * width / sampling.CROPS_AREA))
    steps["paper"] = steps["baseline"] = whole.epochs * drawn * sampling.TRANSFORMS * repeats
    pixels = training_frames(options.size).pixels
    network = Baseline().to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    pair = (pixels[:2, :, : min(height, 320) // 8 * 8, : min(width, 320) // 8 * 8].float() / 255).to(device)

    def run() -> int:
        count = steps_of_a_turn("paper", device)
        for _ in range(count):
            baseline_step(network, optimizer, pair)
        synchronized(device)
        return count

    cases["baseline"] = run
    rows = measured(cases, options.rounds)
    for row in rows:
        row["steps"] = steps[row["case"]]
        row["all of them, s"] = row["ms"] / 1e3 * row["steps"]
    preset = {"fast": sum(row["all of them, s"] for row in rows if row["case"].startswith("fast"))}
    preset |= {row["case"]: row["all of them, s"] for row in rows}
    return [
        {**row, "whole training, s": seconds, "times faster than baseline": preset["baseline"] / seconds}
        for row in rows
        for seconds in [preset[row["case"].partition(",")[0]]]
    ]


def memory(options: argparse.Namespace) -> list[Row]:
    rows = []
    device, precision = options.on
    for width, height in (options.size, *((7680, 4320),) * (options.size == (3840, 2160))):
        code = f"import benchmark; benchmark.take_memory({width}, {height}, {str(device)!r}, {precision!r})"
        out = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, check=True)
        process, *card = map(float, out.stdout.split()[-1].split(b","))
        of_card = {"of the card's": card[0]} if card else {}
        rows.append({"case": f"{width}x{height}", "MiB over the imports": process, **of_card})
    return rows


def take_memory(width: int, height: int, device: str, precision: hardware.Precision) -> None:
    """In a process of its own: the peaks, in MiB, of its memory over what it had after its imports, and of a card's."""
    import resource  # Windows has none

    expander = network_of("fast", width, height, (torch.device(device), precision))
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clip = job_of(repeated(width, height, 8), expander).expand()
    for _ in clip.frames(close=True):
        pass
    peaks = [(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / unit]
    if hardware.has_streams(expander.device):
        peaks.append(torch.accelerator.max_memory_allocated(expander.device) / 2**20)
    print(*peaks, sep=",")


def pixels(options: argparse.Namespace) -> list[Row]:
    """Sizes in turns, after some that fill VapourSynth's pool of frames: until then, memory new from the system is a
    good part of what a large frame costs."""
    cases = {}
    for width, height in SIZES:
        clip = repeated(width, height, 100_000)
        job = job_of(clip, network_of("fast", width, height, options.on))
        cases[f"{width}x{height}"] = through(job.expand(), options.seconds)
    for _ in range(FILLING_TURNS):
        for run in cases.values():
            run()
    rows = measured(cases, options.rounds)
    for row, (width, height) in zip(rows, SIZES, strict=True):
        megapixels = width * height / 1e6
        row["ms a megapixel"], row["cpu ms a megapixel"] = row["ms"] / megapixels, row["cpu ms"] / megapixels
    return rows


def length(options: argparse.Namespace) -> list[Row]:
    rows = []
    expander = network_of("fast", *options.size, options.on)
    for frames_of_clip in (50, 500, 5_000, 50_000):
        clip = repeated(*options.size, frames_of_clip)
        started = time.perf_counter()
        expanded = job_of(clip, expander).expand()
        there = 1e3 * (time.perf_counter() - started)
        count = frames_of_clip // (2 * options.rounds + 2) if frames_of_clip < 500 else 40
        (row,) = measured({f"{frames_of_clip} frames": through(expanded, options.seconds, count)}, options.rounds)
        rows.append({**row, "ms until the clip is there": there})
    return rows


def load(options: argparse.Namespace) -> list[Row]:
    """Processes of their own: the plugin's share in the start, and a call that finds its network."""
    (library,) = {plugin.plugin_path for plugin in vs.core.plugins() if plugin.namespace == "zhdrv"}
    with tempfile.TemporaryDirectory() as folder:
        script = (
            "import sys, time, vapoursynth as vs\n"
            f"clip = vs.core.bs.VideoSource({str(CLIP)!r}, cachemode=0)\n"
            "t = time.perf_counter()\n"
            f"vs.core.zhdrv.Expand(clip, epochs=1, device='cpu', cache={folder!r})\n"
            "print(time.perf_counter() - t, 'torch' in sys.modules)\n"
        )

        # as at a user's second start: Python keeps what it has compiled
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(Path(folder) / "python")}

        def run(code: str) -> list[str]:
            command = [sys.executable, "-c", code]
            out = subprocess.run(command, capture_output=True, check=True, text=True, env=environment)
            return out.stdout.split()

        loads, calls = [], []
        run(script)
        for _ in range(options.rounds):
            copied = Path(folder) / Path(library).name
            copied.write_bytes(Path(library).read_bytes())
            with_it = (
                "import ctypes, time; t = time.perf_counter(); "
                f"ctypes.CDLL({str(copied)!r}); print(time.perf_counter() - t)"
            )
            loads.append(1e3 * float(run(with_it)[0]))
            seconds, torch_there = run(script)
            calls.append(1e3 * float(seconds))
            assert torch_there == "False"
    return [
        {"case": "loading the library", "ms": statistics.median(loads)},
        {"case": "Expand, network known, torch not imported", "ms": statistics.median(calls)},
    ]


BENCHMARKS = {function.__name__: function for function in (expand, paper, peak, train, memory, pixels, length, load)}


# Words ----------------------------------------------------------------------------------------------------------------


def machine(on: Hardware) -> str:
    device, precision = on
    of_card = getattr(torch.get_device_module(device), "get_device_name", None)
    name = of_card(device) if of_card else platform.processor() or platform.machine()
    capability = torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else ""
    threads = f"{torch.get_num_threads()} threads, " if device.type == "cpu" else ""
    return f"{name} {capability}, {threads}{precision}, torch {torch.__version__}, vszhdrv {vszhdrv.__version__}"


def table(rows: list[Row]) -> str:
    names = list(rows[0])

    def cell(value: Any) -> str:
        return (
            f"{value:.3g}"
            if isinstance(value, float) and value < 100
            else f"{value:.0f}"
            if isinstance(value, float)
            else str(value)
        )

    lines = [names, ["---"] * len(names), *([cell(row[name]) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and min(int(width), int(height)) >= 16):
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT, 16x16 or more, not {text!r}")
    return int(width), int(height)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmarks", nargs="*", choices=[[], *BENCHMARKS], metavar="BENCHMARK")
    parser.add_argument("--size", type=size, default=(448, 256), help="of the frames (448x256)")
    parser.add_argument("--device", type=hardware.choose_device, default="auto")
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32"], default="auto")
    parser.add_argument("--rounds", type=int, default=5, help="turns to take the median of (5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="about how long a turn takes (1)")
    parser.add_argument("--frames", type=int, default=48, help="length of the clip whose training is extrapolated (48)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args(argv)
    options.on = options.device, hardware.choose_precision(options.precision, options.device)
    print(machine(options.on), f"\n{options.size[0]}x{options.size[1]}\n")
    results = {}
    for name in options.benchmarks or BENCHMARKS:
        results[name] = BENCHMARKS[name](options)
        print(f"{name}\n\n{table(results[name])}\n", flush=True)
    if options.json:
        about = {"machine": machine(options.on), "size": options.size}
        options.json.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
