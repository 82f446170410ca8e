"""The command line: arguments in, words and exit codes out.

    zhdrv INPUT [options]           learn from a clip, expand it, leave a run folder
    zhdrv cache list|show|clear     the trained networks that are kept

Exit codes: 0 done, 1 the work failed, 2 bad arguments, 130 interrupted. Words go to standard error; standard output has
only the listings that were asked for. Nothing heavy is imported before the arguments are known to be good.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from vszhdrv.progress import Meters, duration

if TYPE_CHECKING:
    import vapoursynth as vs

    from vszhdrv import Job
    from vszhdrv.runs import Run
    from vszhdrv.store import Entry

SETTINGS = ("preset", "n_exp_down", "n_exp_up", "epochs", "lr", "alpha", "seed")
"""Options that are settings of vszhdrv.Config by the same name; those not given are the preset's business."""

COLOUR = ("matrix_in", "transfer_in", "range_in")
LINE_SECONDS = 10.0
"""How often progress is told where standard error is not a terminal."""
PICTURE_SECONDS = 5
"""The pictures in recs/ are refreshed this often while training, ..."""
PICTURE_SHARE = 20
"""... or less often where drawing them takes long: this many times as long is spent training in between."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = [normal(word) for word in (sys.argv[1:] if argv is None else argv)]
    command, parser = (cache, cache_parser()) if words[:1] == ["cache"] else (expand, expand_parser())
    arguments = parser.parse_args(words[1:] if command is cache else words)
    try:
        command(arguments)
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from what is saved")
        return 130
    except ValueError as error:
        say(sentence(error))
        return 2
    except failures() as error:
        say(sentence(error))
        return 1
    return 0


def failures() -> tuple[type[Exception], ...]:
    """What a person can do something about. Anything else is a mistake of ours and keeps its traceback."""
    from vapoursynth import Error

    return (Error, OSError, RuntimeError)


def sentence(error: Exception) -> str:
    """An error in one line, without our name or the traceback that VapourSynth puts around an error of Python code."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return (lines[-1] if "Traceback" in lines[0] else lines[0]).removeprefix("zhdrv: ")


def say(text: str) -> None:
    print(f"zhdrv: {text}", file=sys.stderr, flush=True)


# Arguments


class Parser(argparse.ArgumentParser):
    """argparse with errors in one sentence."""

    def error(self, message: str) -> NoReturn:
        say(f"{message} (zhdrv --help lists the options)")
        sys.exit(2)


def normal(word: str) -> str:
    """An option's name with underscores, whichever of - and _ it was typed with; anything else as it is."""
    name, equals, value = word.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value if re.match(r"--\w", name) else word


def number(kind: type[int] | type[float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            return kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"must be a {'whole number' if kind is int else 'number'}, not {text!r}"
            ) from None

    return parse


def frame_rate(text: str) -> Fraction:
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 1000 or rate.denominator > 1_000_000:
        raise argparse.ArgumentTypeError(f"must be frames per second, such as 25, 23.976 or 24000/1001, not {text!r}")
    return rate


def nits(text: str) -> float:
    value = number(float)(text)
    if not (math.isfinite(value) and 0 < value <= 10_000):
        raise argparse.ArgumentTypeError(f"must be over 0 and at most 10000 cd/m2, not {text}")
    return value


def expand_parser() -> Parser:
    from vszhdrv import __version__

    parser = Parser(
        prog="zhdrv",
        description="Learn from an SDR clip what its clipped pixels look like, and write it as HDR frames.",
        epilog="zhdrv cache list|show KEY|clear shows and clears the trained networks that are kept. "
        "Options may be typed with - or _.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "input",
        metavar="INPUT",
        type=Path,
        help="a video file, a folder of .png frames, or one picture (--data_type image)",
    )
    add("--version", action="version", version=f"zhdrv {__version__}")
    add("--preset", help="fast (default) or paper")
    add("--n_exp_down", type=number(int), metavar="N", help="steps of two stops below the source (2)")
    add("--n_exp_up", type=number(int), metavar="N", help="steps of two stops above the source (2)")
    add("--epochs", type=number(int), metavar="N", help="rounds of training (the preset's)")
    add("--lr", type=number(float), metavar="RATE", help="learning rate (the preset's)")
    add("--alpha", type=number(float), metavar="A", help="weight of the temporal loss, 0 to 1 (the preset's)")
    add("--seed", type=number(int), metavar="N", help="seed of all that is drawn at random (0)")
    add("--device", metavar="DEVICE", default="auto", help="auto (default), cpu, cuda:0, ...")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--train_only", action="store_true", help="learn and stop: no frames are written")
    what.add_argument("--already_trained", action="store_true", help="use the network of an earlier run, never train")
    add("--data_type", choices=("video", "image"), default="video", help="image: learn from single pictures")
    add("--fps", type=frame_rate, metavar="RATE", help="frames per second of a picture sequence (24)")
    add(
        "--matrix_in",
        metavar="NAME",
        help="the source's matrix where it does not say, by resize's names (709, 470bg, ...)",
    )
    add("--transfer_in", metavar="NAME", help="the same for its transfer (709, srgb, linear, ...)")
    add("--range_in", metavar="NAME", help="the same for its range (full, limited)")
    depth = parser.add_mutually_exclusive_group()
    depth.add_argument("--half", action="store_true", help="EXR files in 16-bit float (default)")
    depth.add_argument("--float", action="store_true", help="EXR files in 32-bit float")
    add(
        "--compression",
        metavar="NAME",
        default="zip",
        help="of the EXR files: none, zip (default), zips, piz, dwaa, dwab",
    )
    add("--white", type=nits, metavar="NITS", default=203.0, help="luminance of SDR white in cd/m2, for EXR (203)")
    add("--runs", type=Path, metavar="DIR", default=Path("runs"), help="where the run folder goes (runs)")
    add("--cache", metavar="DIR", help="where trained networks are kept; '' for nowhere")
    return parser


def given(arguments: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """Those of these options that were typed; the others are for the package to choose."""
    return {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}


# The main job


def expand(arguments: argparse.Namespace) -> None:
    """INPUT to run folder: open, prepare, learn, expand."""
    import vszhdrv
    from vszhdrv import exr, runs, sources, store

    cache_folder = store.folder(arguments.cache)
    still = arguments.data_type == "image"
    settings = given(arguments, SETTINGS)
    vszhdrv.Config.from_preset(**settings, still=still)
    output = {"compression": arguments.compression, "half": not arguments.float, "white": arguments.white}
    exr.Header(**output)  # as above: what is wrong with the arguments is told before the input is opened

    clip = sources.open_clip(
        arguments.input, still=still, fps=arguments.fps, index=cache_folder and cache_folder / "index", say=say
    )
    options = {**settings, **given(arguments, COLOUR), "still": still, "device": arguments.device}
    job = vszhdrv.prepare(clip, **options, cache=arguments.cache)
    name = arguments.input.resolve().name if arguments.input.is_dir() else arguments.input.stem
    identity = {"key": job.key, "n_exp_down": job.config.n_exp_down, "n_exp_up": job.config.n_exp_up, **output}
    run = runs.run_folder(arguments.runs, name, job.config, identity)
    say(f"{arguments.input}: {clip.width}x{clip.height}, {clip.num_frames} frames; run folder {run.folder}")

    if arguments.already_trained:
        if run.trained is not None:
            job = vszhdrv.prepare(clip, **options, cache=arguments.cache, weights=str(run.trained))
        elif not job.look_up():
            raise RuntimeError(
                "--already_trained: there is no network for this clip and these settings, "
                f"neither in {run.checkpoints} nor in the cache"
            )
    run.write_params(
        {
            "input": arguments.input.resolve(),
            **asdict(job.config),
            **{f"colour_{name}": value for name, value in asdict(job.colour).items()},
            "device": arguments.device,
            "key": identity["key"],
            **output,
            "version": vszhdrv.__version__,
        }
    )
    learn(job, run)
    if not arguments.train_only:
        write_frames(job, clip, run, output)
    say(f"done: {run.folder}")


def learn(job: Job, run: Run) -> None:
    """Train, or find the trained network; the run folder follows while it happens and is complete afterwards."""
    epochs = 0
    next_pictures = time.monotonic()
    with log_told(), closing(job.learn()) as events, Meters(say, LINE_SECONDS) as meters:
        for event in events:
            if event.kind == "estimate":
                meters.close()
                say(f"training takes about {duration(event.seconds_left or 0)}")
            else:
                meters.show(event.kind, event.done, event.total, event.seconds_left)
            if event.progress is None:
                continue
            if len(event.progress.rows) > epochs:
                epochs = len(event.progress.rows)
                run.write_log(event.progress.rows)
            started = time.monotonic()
            if started >= next_pictures or event.done == event.total:
                run.write_pictures(job.recs())
                finished = time.monotonic()
                next_pictures = finished + max(PICTURE_SECONDS, PICTURE_SHARE * (finished - started))
    assert job.trained is not None
    run.write_log(json.loads(job.trained.metadata["log"]))
    if job.trained.path != run.trained or run.trained is None:
        job.save_weights(run.checkpoints)


@contextmanager
def log_told() -> Iterator[None]:
    """What the package tells VapourSynth's log, on standard error; warnings go there anyway."""
    import vapoursynth as vs

    def handler(kind: int, text: str) -> None:
        if kind == vs.MESSAGE_TYPE_INFORMATION and text.startswith("zhdrv: "):
            say(text.removeprefix("zhdrv: "))

    handle = vs.core.add_log_handler(handler)
    try:
        yield
    finally:
        vs.core.remove_log_handler(handle)


def write_frames(job: Job, clip: vs.VideoNode, run: Run, output: dict[str, Any]) -> None:
    """The EXR files that are not there yet, and the preview of the frame that gained most."""
    from vszhdrv import exr, runs

    hdr = job.expand()
    sequence = exr.Sequence(run.frame_pattern, exr.header_of(clip, job.colour.primaries, **output))
    missing = runs.missing_frames(hdr, sequence)
    if len(missing) < hdr.num_frames:
        say(f"{hdr.num_frames - len(missing)} of {hdr.num_frames} frames are there already and stay")
    gains: dict[int, float] = {}
    with closing(runs.write_frames(hdr, missing, sequence)) as written, Meters(say, LINE_SECONDS) as meters:
        for n, gain in written:
            gains[n] = gain
            meters.show("expanding", len(gains), len(missing))
    if sequence.clamped or sequence.invalid:
        say(f"{sequence.clamped} values were too large for the files and {sequence.invalid} were not numbers")
    if gains or not run.preview.exists():
        best = max(gains, key=gains.__getitem__, default=hdr.num_frames // 2)
        pictures = runs.compare(clip, hdr, job.colour, best)
        runs.write_preview(run.preview, *pictures)
        if not run.pictures.exists():
            run.write_pictures(runs.exposures(*pictures))


# The networks that are kept


def cache_parser() -> Parser:
    parser = Parser(
        prog="zhdrv cache", description="Show and clear the trained networks that are kept.", allow_abbrev=False
    )
    parser.add_argument("--cache", metavar="DIR", help="the folder, if it is not the usual one")
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|show|clear")
    actions.add_parser("list", help="every network: key, size, when it was last used, settings")
    actions.add_parser("show", help="all that is known about one network").add_argument("key", metavar="KEY")
    actions.add_parser("clear", help="remove all networks").add_argument(
        "--yes", action="store_true", help="without asking"
    )
    return parser


def cache(arguments: argparse.Namespace) -> None:
    """zhdrv cache list|show KEY|clear."""
    from vszhdrv import store

    folder = store.folder(arguments.cache)
    networks = store.Store(folder, warn=say)
    entries = networks.entries()
    total = f"{len(entries)} {'network' if len(entries) == 1 else 'networks'}, {size(sum(e.size for e in entries))}"
    if arguments.action == "list":
        for entry in entries:
            about = settings_in_words(entry.metadata) if entry.trained else "unfinished"
            print(f"{entry.key}  {size(entry.size):>8}  {duration(time.time() - entry.used):>11} ago  {about}")
        say(f"{total} in {folder}")
    elif arguments.action == "show":
        show(entries, arguments.key, folder)
    elif entries and (arguments.yes or confirmed(f"remove {total}, from {folder}?")):
        say(f"{len(networks.clear())} removed from {folder}")
    else:
        say(f"nothing removed from {folder}")


def show(entries: Sequence[Entry], key: str, folder: Path | None) -> None:
    """Everything about the one network whose key begins with `key`, on standard output."""
    found = [entry for entry in entries if key and entry.key.startswith(key)]
    if len(found) != 1:
        raise ValueError(f"KEY {key!r} is {'the beginning of several' if found else 'none'} of the keys in {folder}")
    (entry,) = found
    print(f"key: {entry.key}")
    print(f"file: {entry.path if entry.trained else 'none, training is unfinished'}")
    print(f"size: {size(entry.size)}")
    print(f"last used: {duration(time.time() - entry.used)} ago")
    for name, value in sorted(entry.metadata.items()):
        print(f"{name}: {value if name != 'log' else f'{len(json.loads(value))} epochs'}")


def settings_in_words(metadata: Mapping[str, str]) -> str:
    """The settings that a person chooses, from the header of a weights file."""
    settings = json.loads(metadata.get("facts", "{}")).get("settings", {})
    return " ".join(f"{name} {settings[name]}" for name in SETTINGS if name in settings)


def confirmed(question: str) -> bool:
    """Ask on standard error; only a typed yes is one."""
    print(f"zhdrv: {question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def size(count: int) -> str:
    """Bytes in words: 900 B, 1.2 MB, in powers of 1000."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
