"""The command line: arguments in, words and exit codes out.

    zhdrv INPUT [options]           train on a clip, expand it, leave a run folder
    zhdrv INPUT --out FILE          the same into one HDR10 or HLG file that plays
    zhdrv train INPUT               only train; several processes of torchrun do so together
    zhdrv expand INPUT --frames A-B only these frames, so that many processes and machines can share a clip's
    zhdrv levels INPUT              how bright the expansion gets, and what encoders want to hear about it
    zhdrv report RUN_FOLDER|INPUT   one HTML file that shows what the result holds
    zhdrv still INPUT OUT           one frame as a picture to share, such as an Ultra HDR JPEG
    zhdrv shots INPUT               its shots, and the places that they show
    zhdrv export INPUT ONNX         the expansion as a graph that vs-mlrt runs
    zhdrv cache list|show|clear     the trained networks that are kept

Exit codes: 0 done, 1 the work failed, 2 bad arguments, 130 interrupted. Words go to standard error; standard output has
only the listings that were asked for. Nothing heavy is imported before the arguments are known to be good.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import io
import json
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vszhdrv.command import arguments as grammar
from vszhdrv.command.process import expect, meters, one_bar, say, speak_json, tell
from vszhdrv.command.signals import INTERRUPTED, interrupted
from vszhdrv.command.space import size
from vszhdrv.errors import Failed, Refused, failing, message
from vszhdrv.files import Damaged, parsing
from vszhdrv.progress import duration

if TYPE_CHECKING:
    import vapoursynth as vs

    from vszhdrv import Job, exr
    from vszhdrv.command.delivery import Picture
    from vszhdrv.command.report.measuring import Pairs
    from vszhdrv.command.report.page import Report, Subject
    from vszhdrv.command.runs import Run
    from vszhdrv.command.sources import Opened
    from vszhdrv.command.timing import Timing
    from vszhdrv.exr import Header
    from vszhdrv.light import ClipLight, Look
    from vszhdrv.store.store import Entry
    from vszhdrv.zhdrv.parallel import Team

SETTINGS = ("preset", "n_exp_down", "n_exp_up", "epochs", "lr", "alpha", "seed")
"""Options that are settings of vszhdrv.Config by the same name; those not given are the preset's business."""

COLOUR = ("matrix_in", "transfer_in", "range_in")
COMPUTING = ("num_streams", "tile", "tile_pad", "graphics")
PICTURE_SECONDS = 5
"""How often the pictures in recs/ are refreshed while training."""
PICTURE_SHARE = 20
"""Training between two such pictures takes at least this many times as long as drawing them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = [grammar.normal(word) for word in (sys.argv[1:] if argv is None else argv)]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # Windows' code pages lack most letters of paths
    speak_json("--progress=json" in words or ["--progress", "json"] in [list(pair) for pair in pairwise(words)])
    commands = {
        "train": (train, grammar.train_parser),
        "expand": (write_folder, grammar.expand_parser),
        "levels": (levels, grammar.levels_parser),
        "report": (report, grammar.report_parser),
        "still": (still, grammar.still_parser),
        "export": (export, grammar.export_parser),
        "shots": (shots, grammar.shots_parser),
        "cache": (cache, grammar.cache_parser),
        "doctor": (doctor, grammar.doctor_parser),
    }
    name = words[0] if words and words[0] in commands else ""
    if words and not name and (meant := mistyped(words[0], commands)):
        say(f"there is no command and no file {words[0]!r}: did you mean {meant}?")
        return 2
    command, parser = commands.get(name, (expand_all, grammar.main_parser))
    along = command is train and processes() > 1 and os.environ["RANK"] != "0"
    # Only the first of several processes reads the arguments, and says what is wrong with them.
    arguments = argparse.Namespace() if along else parser().parse_args(words[1:] if name else words)
    if processes() > 1 and not shareable(command, arguments):
        if os.environ["RANK"] == "0":
            say(f"{processes()} processes can share a training alone: torchrun ... -m vszhdrv train INPUT")
        return 2
    try:
        with failing():
            if along:
                train_along()
            else:
                with stopped_alike():
                    steadied(command, arguments)
    except (Exception, KeyboardInterrupt) as error:
        return ended_by(error)
    return 0


def mistyped(word: str, commands: Iterable[str]) -> str:
    """The command that a word nearly is, where no file has its name; "" where it is like none."""
    if word.startswith("-") or Path(word).exists():
        return ""
    return next(iter(difflib.get_close_matches(word, list(commands), n=1, cutoff=0.75)), "")


def ended_by(error: Exception | KeyboardInterrupt) -> int:
    """Say why the work has ended; the exit code."""
    if isinstance(error, KeyboardInterrupt) or interrupted():
        say("interrupted; the same command goes on from what is saved")
        return INTERRUPTED
    if isinstance(error, Refused | Failed):
        say(message(error), "error")
        return 2 if isinstance(error, Refused) else 1
    traceback.print_exception(error)
    say(f"internal error, a mistake of zhdrv's: {type(error).__name__}: {error}", "error")
    return 1


@contextmanager
def stopped_alike() -> Iterator[None]:
    """A closed terminal and a polite kill end the work as Ctrl-C does: nothing half-written stays."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]  # nohup's stays ignored
    for number in numbers:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def steadied(command: Callable[[argparse.Namespace], None], arguments: argparse.Namespace) -> None:
    """Run a command; once more where a frame of INPUT failed that one thread may decode, as of damaged files."""
    try:
        command(arguments)
    except Exception as error:
        source = getattr(arguments, "input", None)
        if not isinstance(source, Path):  # several, each of them steadied by itself
            raise
        from vszhdrv.command import sources
        from vszhdrv.store import store

        folder = store.folder(arguments.cache)
        index = folder and folder / "index"
        if not sources.may_be_damage(error, source, index):
            raise
        sources.distrust(source, index, message(error))
        command(arguments)


# The main job, and its parts


def expand_all(arguments: argparse.Namespace) -> None:
    """Every INPUT, one after the other. A failure does not stop the rest; a summary ends it."""
    inputs: list[Path] = arguments.input
    if len(inputs) > 1 and arguments.out is not None:
        raise Refused(f"--out must be used with one INPUT, not with {len(inputs)}: --out_dir names a folder for all")
    if arguments.out_dir is not None:
        if arguments.out is not None:
            raise Refused("--out_dir must be used without --out, not with it")
        doubled = [name for name, count in Counter(path.stem for path in inputs).items() if count > 1]
        if doubled:
            raise Refused(f"--out_dir must get files of different names, not two of {doubled[0]!r}")
        arguments.out_dir.mkdir(parents=True, exist_ok=True)
    failed = []
    for path in inputs:
        out = arguments.out if arguments.out_dir is None else arguments.out_dir / f"{path.stem}.mkv"
        one = argparse.Namespace(**{**vars(arguments), "input": path, "out": out})
        if len(inputs) == 1:
            steadied(expand_one, one)
            return
        try:
            with failing():
                steadied(expand_one, one)
        except Exception as error:
            if interrupted():
                raise
            ended_by(error)
            failed.append(path.name)
    say(f"done: {len(inputs) - len(failed)} of {len(inputs)} inputs")
    if failed:
        raise Failed(f"{len(failed)} of {len(inputs)} inputs failed: {', '.join(failed)}")


def expand_one(arguments: argparse.Namespace) -> None:
    """INPUT to run folder, or to one file that plays: open, prepare, train, expand. One bar is for all of it."""
    from vszhdrv.command import plan

    if arguments.out is None:
        for name in given(arguments, ("hlg", "crf", "report", "preview", "overwrite")):
            raise Refused(f"--{name} is for a file that plays: name it with --out")
        whole = arguments.frames is None and not arguments.no_report
        with one_bar(plan.of(*([] if arguments.train_only else plan.stages(file=False, measured=False, report=whole)))):
            write_folder(arguments)
    else:
        for name in given(arguments, ("runs", "half", "float", "compression", "no_report")):
            raise Refused(f"--{name} is for a run folder with EXR frames, which --out does not make")
        after = plan.stages(file=True, measured=not arguments.hlg, report=bool(arguments.report))
        with one_bar(plan.of(*after)):
            write_file(arguments)


def processes() -> int:
    """How many processes train together: those that torchrun, or who else sets its variables, has started."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def shareable(command: Callable[[argparse.Namespace], None], arguments: argparse.Namespace) -> bool:
    """Whether several processes may run a command. Those that torchrun starts have the same arguments: each would do
    all of the work, unless a launcher has given each a range of the frames."""
    return command in (train, cache) or (command is write_folder and arguments.frames is not None)


def train(arguments: argparse.Namespace) -> None:
    """zhdrv train INPUT: alone, or as the first of several processes."""
    if processes() == 1:
        write_folder(arguments)
        return
    from vszhdrv.zhdrv import parallel

    with parallel.joined() as team:
        arguments.device = team.device(arguments.device)
        write_folder(arguments, team)


def train_along() -> None:
    """The same as one of the others: they have the frames and settings from the first, and nothing to say."""
    from vszhdrv.zhdrv import parallel, training

    with parallel.joined() as team:
        while (work := team.receive()) is not None:
            for _progress in training.train(*work, team):
                pass


def given(arguments: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """Those of these options that were typed; the others are for the package to choose."""
    return {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}


def settings_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that were typed, for vszhdrv.Config. Raises Refused where they are not accepted."""
    import vszhdrv

    settings = {**given(arguments, SETTINGS), "still": arguments.data_type == "image"}
    vszhdrv.Config.from_preset(**settings)
    return settings


def opened(arguments: argparse.Namespace) -> tuple[Opened, dict[str, Any]]:
    """INPUT as a clip with its time, and the options for vszhdrv.prepare.

    What is wrong with the arguments is to be told before: opening may take long.
    """
    import vszhdrv
    from vszhdrv.command import sources
    from vszhdrv.store import store

    folder = store.folder(arguments.cache)
    checked = {"device": arguments.device, "precision": arguments.precision, **given(arguments, (*COLOUR, *COMPUTING))}
    vszhdrv.check_options(**checked)
    options = {**settings_of(arguments), **given(arguments, ("train_range", "shots")), **checked}
    found = sources.open_clip(
        arguments.input,
        still=options["still"],
        fps=arguments.fps,
        index=folder and folder / "index",
        say=say,
        by=arguments.source,
    )
    return found, {**options, "cache": arguments.cache}


def prepared(arguments: argparse.Namespace, clip: vs.VideoNode, options: Mapping[str, Any]) -> Job:
    """The job of INPUT's clip, which knows the clip's name."""
    import vszhdrv

    job = vszhdrv.prepare(clip, **options)
    job.source = arguments.input.resolve().name
    return job


def write_folder(arguments: argparse.Namespace, team: Team | None = None) -> None:
    """INPUT to run folder, with the frames that are asked for; a `team` trains the network."""
    import vszhdrv
    from vszhdrv import exr, files, light
    from vszhdrv.command import runs, space

    settings_of(arguments)
    folder = arguments.runs or grammar.RUNS
    files.check_utf8("--runs", folder)
    header = exr.Header(half=not arguments.float, white=arguments.white, **given(arguments, ("compression",)))
    look = light.Look(arguments.strength, arguments.peak or 0.0, arguments.white)

    source, options = opened(arguments)
    clip = source.clip
    frames = frames_of(clip, arguments.frames)
    job = prepared(arguments, clip, options)
    job.limit_to(frames)
    if team is not None:
        team.check(job.request.config)
    name = arguments.input.resolve().name if arguments.input.is_dir() else arguments.input.stem
    with clip.get_frame(0) as frame:
        header = exr.described(header, job.request.colour.primaries, clip.fps, frame.props)
    what = {
        "compression": header.compression,
        "half": header.half,
        "white": header.white,
        "fps": str(header.fps or "variable"),
        "sar": str(header.sar),
        "peak": look.peak,
        "strength": look.strength,
        **job.request.computing.traces,
        "version": vszhdrv.__version__,
    }
    config = job.request.config
    identity = {"key": job.request.key, "n_exp_down": config.n_exp_down, "n_exp_up": config.n_exp_up, **what}
    run = runs.run_folder(folder, name, config, identity)
    run.sweep()
    about = f"{arguments.input}: {clip.width}x{clip.height}, {clip.num_frames} frames; run folder {run.folder}"
    if arguments.train_only:
        say(about)
    else:
        needed = len(frames) * space.of_exr(clip.width, clip.height, header)
        say(f"{about}; {len(frames)} EXR files of about {size(needed)}")
        space.check(run.folder, max(0, needed - space.taken(run.frames, "*.exr")[1]), "its EXR files")

    if arguments.already_trained:
        if run.trained is not None:
            try:
                job = vszhdrv.prepare(clip, **options, weights=str(run.trained))
                job.limit_to(frames)
            except Refused as error:
                say(f"{error}; looking for others in the cache")
                if (found := job.look_up()) is not None:
                    found.save(run.checkpoints)
        if not job.look_up():
            raise Failed(
                "--already_trained: there is no network for this clip and these settings, "
                f"neither in {run.checkpoints} nor in the cache"
            )
    params = {**params_of(arguments, job), "key": identity["key"], **what}
    run.write_params(params)
    get_network(job, run, team, len(frames))
    if not arguments.train_only:
        write_frames(job, clip, frames, run, look, header)
        if len(frames) == clip.num_frames and not arguments.no_report:
            report_folder(job, run, params, exr.Sequence(run.frame_pattern, header), arguments.cache)
    say(f"done: {run.folder}{'' if arguments.train_only else '; ' + left_in(run)}")


def left_in(run: Run) -> str:
    """What a run folder holds for a person to look at: its EXR files, preview and report."""
    from vszhdrv.command import space

    found = [f"{run.frames.name} has {space.counted(run.frames, '*.exr', 'EXR file')}"]
    there = [path.name for path in (run.preview, run.preview_hdr, run.report) if path.exists()]
    return "; ".join([*found, *([f"to look at: {', '.join(there)}"] if there else [])])


def params_of(arguments: argparse.Namespace, job: Job) -> dict[str, object]:
    """What was asked for and what it came to, by name."""
    return {
        "input": arguments.input.resolve(),
        **asdict(job.request.config),
        **{f"colour_{name}": value for name, value in asdict(job.request.colour).items()},
        "train_range": arguments.train_range and "{}-{}".format(*arguments.train_range),
        "device": arguments.device,
    }


def frames_of(clip: vs.VideoNode, asked: range | None) -> range:
    """The frames to write: all, or those asked for as far as the clip has them."""
    if asked is None:
        return range(clip.num_frames)
    if asked.start >= clip.num_frames:
        raise Refused(
            f"--frames {asked.start}-{asked.stop - 1} must begin within the clip's frames, 0 to {clip.num_frames - 1}"
        )
    return asked[: clip.num_frames - asked.start]


def get_network(job: Job, run: Run | None = None, team: Team | None = None, frames: int = 0) -> None:
    """Train, or find the trained network; a run folder follows while it happens and is complete afterwards.

    frames: so many are going to be expanded, whose time is told with the training's.
    """
    from vszhdrv.command import plan

    clip = job.request.clip
    epochs = 0
    next_pictures = time.monotonic()
    complaints: set[str] = set()

    def note(write: Callable[[Any], None], what: Any) -> None:
        """A log or picture that another program has open, as Windows' ones keep it, ends no training."""
        try:
            write(what)
        except PermissionError as error:
            if (text := message(error)) not in complaints:
                complaints.add(text)
                say(text)

    with log_told(), closing(job.train(team)) as events, meters() as meter:
        for event in events:
            if event.kind in ("estimate", "training") and event.seconds_left and event.done < event.total:
                step_seconds = event.seconds_left / (event.total - event.done)
                expect(plan.expected(frames, clip.width, clip.height, step_seconds))
            meter.follow(event)
            if run is None or event.progress is None:
                continue
            if len(event.progress.rows) > epochs:
                epochs = len(event.progress.rows)
                note(run.write_log, event.progress.rows)
            started = time.monotonic()
            if started >= next_pictures or event.done == event.total:
                note(run.write_pictures, job.recs())
                finished = time.monotonic()
                next_pictures = finished + max(PICTURE_SECONDS, PICTURE_SHARE * (finished - started))
    if run is None:
        return
    assert job.trained is not None
    note(run.write_log, json.loads(job.trained.metadata["log"]))
    if epochs or not run.complete:  # else another process may be reading what is there
        job.trained.save(run.checkpoints)


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


def write_frames(job: Job, clip: vs.VideoNode, frames: range, run: Run, look: Look, header: Header) -> None:
    """The EXR files that are not there yet, and, with the whole clip's, the preview of the frame that gained most."""
    from vszhdrv import exr, stills
    from vszhdrv.command import runs

    hdr = job.expand_with(look)
    sequence = exr.Sequence(run.frame_pattern, header)
    missing = runs.missing_frames(hdr, frames, sequence)
    if len(missing) < len(frames):
        say(f"{len(frames) - len(missing)} of {len(frames)} frames are there already and stay")
    gains: dict[int, float] = {}
    with closing(runs.write_frames(hdr, missing, sequence)) as written, meters() as meter:
        for n, gain in written:
            gains[n] = gain
            meter.show("expanding", len(gains), len(missing))
    if sequence.clamped or sequence.invalid:
        say(f"{sequence.clamped} values were too large for the files and {sequence.invalid} were not numbers")
    if len(frames) == hdr.num_frames and (len(gains) == hdr.num_frames or not run.preview.exists()):
        best = max(gains, key=gains.__getitem__, default=hdr.num_frames // 2)
        pictures = runs.compare(clip, hdr, job.request.colour, best)
        runs.write_preview(run.preview, *pictures)
        if stills.available():
            sdr, bright = (runs.planes(node[best]) for node in (job.linear(), hdr))
            stills.write(run.preview_hdr, stills.Still(sdr, bright, job.request.colour.primaries, look.white))
        if not run.pictures.exists():
            run.write_pictures(runs.exposures(*pictures))


# Files that play, and their light levels


def write_file(arguments: argparse.Namespace) -> None:
    """INPUT to one HDR10 or HLG file. The network is kept in the store alone."""
    from vszhdrv import files
    from vszhdrv.command import delivery, ffmpeg, runs, sources, space
    from vszhdrv.command.report import subjects
    from vszhdrv.light import Look
    from vszhdrv.store import store

    if arguments.train_only:
        raise Refused("--out writes what --train_only does not make: leave one of them out")
    settings_of(arguments)
    peak = delivery.PEAK_NITS if arguments.peak is None else arguments.peak
    crf = delivery.CRF if arguments.crf is None else arguments.crf
    look = Look(arguments.strength, peak, arguments.white)
    wanted = delivery.Delivery(look, bool(arguments.hlg), crf)
    overwrite = bool(arguments.overwrite)
    files.check_output("--out", arguments.out, arguments.input, ffmpeg.CONTAINERS, overwrite=overwrite)
    page = arguments.out.with_suffix(".html") if arguments.report else None
    if page is not None:
        files.check_output("--report", page, arguments.input, [".html"], overwrite=overwrite)
    if arguments.preview is not None:
        files.check_output("--preview", arguments.preview, arguments.input, [".png"], overwrite=overwrite)
    programs = ffmpeg.find_programs()
    if (media := sources.media_of(arguments.input)) is not None:
        ffmpeg.check_streams(programs, media, arguments.out, say)
    elif arguments.input.suffix.lower() == sources.SCRIPT:
        say(f"{arguments.out} gets no sound: {arguments.input.name} is a script, which has none")

    source, options = opened(arguments)
    clip = source.clip
    frames = frames_of(clip, arguments.frames)
    job = prepared(arguments, clip, options)
    if page is None:
        job.limit_to(frames)
    about = f"{len(frames)} of {clip.num_frames}" if len(frames) < clip.num_frames else f"{clip.num_frames}"
    needed = space.of_video(clip.width, clip.height, len(frames), crf)
    say(f"{arguments.input}: {clip.width}x{clip.height}, {about} frames; to {arguments.out}, about {size(needed)}")
    space.check(arguments.out.parent, needed, f"the pictures of {arguments.out.name}")
    if arguments.already_trained and not job.look_up():
        raise Failed("--already_trained: there is no network for this clip and these settings in the cache")
    get_network(job, frames=len(frames))

    folder = store.folder(arguments.cache)
    part, times, pixels = read_part(source, frames, digest=folder is not None and not wanted.hlg)
    hdr = job.expand_with(look, levels=not wanted.hlg, lit=True)[frames.start : frames.stop]
    signal = delivery.signal(hdr, wanted)
    held: dict[int, Picture] = {}
    light = None if wanted.hlg else measured(job, look, signal, pixels, folder, held)
    if light is not None:
        say(f"MaxCLL {light.max_cll:.0f}, MaxFALL {light.max_fall:.0f} nits")
    whole = len(frames) == clip.num_frames
    content = ffmpeg.Content.of(part, times, light, job.request.colour.primaries, cut=not whole)
    written = ffmpeg.write(signal, held, wanted, content, source.media, arguments.out)
    with closing(written) as counted, meters() as meter:
        for done in counted:
            meter.show("encoding", done, signal.num_frames)
    if page is not None:
        params = {
            **params_of(arguments, job),
            "key": job.request.key,
            **asdict(look),
            "hlg": wanted.hlg,
            "crf": wanted.crf,
        }
        left = f"written to {arguments.out.name}"
        subject = subjects.subject_of(
            job,
            arguments.input.name,
            params,
            look.white,
            written=left,
            known=light if whole else None,
            cache=arguments.cache,
        )
        hdr = job.expand_with(look)
        write_report(subject, subjects.Computed(job.linear(), hdr), page)
    if arguments.preview is not None:
        best = frames.start + (len(frames) // 2 if light is None else light.brightest)
        runs.write_preview(arguments.preview, *runs.compare(clip, job.expand_with(look), job.request.colour, best))
    made = [str(path) for path in (arguments.preview, page) if path is not None]
    looked = f"; to look at: {', '.join(made)}" if made else ""
    say(f"done: {arguments.out}, {size(arguments.out.stat().st_size)}{looked}")


def levels(arguments: argparse.Namespace) -> None:
    """zhdrv levels INPUT."""
    from vszhdrv import light
    from vszhdrv.command import delivery
    from vszhdrv.store import store

    settings_of(arguments)
    peak = delivery.PEAK_NITS if arguments.peak is None else arguments.peak
    look = light.Look(arguments.strength, peak, arguments.white)
    source, options = opened(arguments)
    frames = frames_of(source.clip, arguments.frames)
    job = prepared(arguments, source.clip, options)
    job.limit_to(frames)
    get_network(job)
    folder = store.folder(arguments.cache)
    pixels = read_part(source, frames, digest=True)[2] if folder else ""
    hdr = job.expand_with(look, levels=True, lit=True)[frames.start : frames.stop]
    found = measured(job, look, hdr, pixels, folder)
    tell(f"MaxCLL: {found.max_cll:.0f} nits")
    tell(f"MaxFALL: {found.max_fall:.0f} nits")
    for name, line in light.encoder_arguments(found, job.request.colour.primaries, look.peak).lines().items():
        tell(f"{name}: {line}")


def read_part(source: Opened, frames: range, *, digest: bool) -> tuple[vs.VideoNode, Timing, str]:
    """Some successive frames of a clip, their timing, and, where it is asked for, a digest of them for `measured`."""
    from vszhdrv.command import ffmpeg

    part = source.clip[frames.start : frames.stop]
    pixels = hashlib.sha256()
    take = pixels.update if digest else None
    if take is None and source.timing is not None:
        return part, source.timing.part(frames), ""
    with meters() as meter:
        reading = ffmpeg.timing_of_frames(part, take)
        while True:
            try:
                meter.show("reading the clip", next(reading), part.num_frames)
            except StopIteration as end:
                times: Timing = end.value
                break
    if source.timing is not None:
        times = source.timing.part(frames)
    return part, times, pixels.hexdigest() if digest else ""


def measured(
    job: Job,
    look: Look,
    clip: vs.VideoNode,
    pixels: str,
    cache_folder: Path | None,
    held: dict[int, Picture] | None = None,
) -> ClipLight:
    """The clip's light levels: those kept in the cache, the rest from `clip`'s frames, as delivery.measure takes them.

    pixels: a digest of the source's frames, by which the cache knows them; empty without a cache.
    """
    from vszhdrv import light
    from vszhdrv.command import delivery

    size = clip.num_frames, job.request.clip.width, job.request.clip.height
    key = delivery.light_key(job, look, pixels)
    path = cache_folder and cache_folder / "light" / f"{key}.npz"
    found = (path and light.ClipLight.load(path, key)) or light.ClipLight(*size)
    try:
        with closing(delivery.measure(clip, found, held)) as frames, meters() as meter:
            for done, total in frames:
                meter.show("measuring", done, total)
    finally:  # also what an interrupted run has measured
        if path:
            try:
                found.save(path, key)
            except OSError as error:
                say(f"the light levels are not kept: {error}")
    return found


# The page to look at


def report(arguments: argparse.Namespace) -> None:
    """zhdrv report RUN_FOLDER|INPUT."""
    from vszhdrv import files, light
    from vszhdrv.command.report import subjects

    if (arguments.input / "params.csv").is_file():
        report_again(arguments)
        return
    settings_of(arguments)
    look = light.Look(arguments.strength, arguments.peak or 0.0, arguments.white)
    target = arguments.out or Path(f"{arguments.input.resolve().stem}.html")
    files.check_output("--out", target, arguments.input, [".html"], overwrite=arguments.overwrite)
    source, options = opened(arguments)
    job = prepared(arguments, source.clip, options)
    get_network(job)
    params = {**params_of(arguments, job), "key": job.request.key, "strength": look.strength, "peak": look.peak}
    subject = subjects.subject_of(job, arguments.input.name, params, look.white, cache=arguments.cache)
    hdr = job.expand_with(look)
    write_report(subject, subjects.Computed(job.linear(), hdr), target)
    say(f"done: {target}")


def report_again(arguments: argparse.Namespace) -> None:
    """The report of a run folder that is there, from its settings and frames."""
    import vszhdrv
    from vszhdrv import exr
    from vszhdrv.command import pictures, runs, sources
    from vszhdrv.command.report import subjects
    from vszhdrv.store import store

    folder = arguments.input
    params = subjects.read_params(folder)
    names = [path.name.removesuffix("_exr") for path in folder.glob("*_exr") if path.is_dir()]
    if len(names) != 1:
        raise Refused(f"INPUT {folder} must hold one folder of EXR frames for a report, not {len(names)}")
    run = runs.Run(folder, names[0])
    if run.trained is None:
        raise Refused(f"INPUT {folder} must hold ckpt/best.safetensors for a report")
    source, options, rate = Path(params["input"]), subjects.options_of(params), None
    if (source.is_dir() or pictures.is_picture(source)) and params.get("fps") not in (None, "variable"):
        rate = Fraction(params["fps"])
    index = store.folder(arguments.cache)
    found = sources.open_clip(source, still=options["still"], fps=rate, index=index and index / "index", say=say)
    job = vszhdrv.prepare(found.clip, **options, weights=str(run.trained), device=arguments.device)
    header = exr.Header(white=float(params["white"]), primaries=job.request.colour.primaries)
    report_folder(job, run, params, exr.Sequence(run.frame_pattern, header), arguments.cache, arguments.out)


def report_folder(
    job: Job,
    run: Run,
    params: Mapping[str, object],
    sequence: exr.Sequence,
    cache: str | None,
    target: Path | None = None,
) -> None:
    """report.html, or `target`, and frames.csv of a run folder, from the EXR files that are there."""
    from vszhdrv.command import runs
    from vszhdrv.command.report import measuring, subjects

    missing = set(runs.missing_frames(job.request.clip, range(job.request.clip.num_frames), sequence))
    there = [n for n in range(job.request.clip.num_frames) if n not in missing]
    if not there:
        raise Refused(f"INPUT {run.folder} must hold EXR frames of {params['input']} for a report")
    subject = subjects.subject_of(
        job, run.name, params, sequence.header.white, frames=there, written=f"{len(there)} EXR files", cache=cache
    )
    made = write_report(subject, subjects.Files(job.linear(), sequence), target or run.report)
    runs.write_csv(run.folder / "frames.csv", measuring.FRAME_COLUMNS, map(measuring.row_of, made.figures))
    say(f"to look at: {target or run.report}")


def write_report(subject: Subject, pairs: Pairs, path: Path) -> Report:
    """Measure and write a page."""
    from vszhdrv import files
    from vszhdrv.command.report import page

    made = page.Report(subject, pairs)
    with closing(made.measure()) as frames, meters() as meter:
        for done, total in frames:
            meter.show("measuring for the report", done, total)
    files.write_whole(path, made.page().encode())
    return made


def still(arguments: argparse.Namespace) -> None:
    """zhdrv still INPUT OUT."""
    from vszhdrv import files, light, stills
    from vszhdrv.command import runs

    settings_of(arguments)
    look = light.Look(arguments.strength, arguments.peak or 0.0, arguments.white)
    stills.check_path("OUT", arguments.out)
    files.check_output("OUT", arguments.out, arguments.input, stills.ENDINGS, overwrite=arguments.overwrite)
    source, options = opened(arguments)
    clip = source.clip
    n = arguments.frame
    if n >= clip.num_frames:
        raise Refused(f"--frame must be from 0 to {clip.num_frames - 1}, not {n}")
    job = prepared(arguments, clip, options)
    job.limit_to(range(n, n + 1))
    get_network(job)
    sdr, hdr = (runs.planes(node[n]) for node in (job.linear(), job.expand_with(look)))
    stills.write(arguments.out, stills.Still(sdr, hdr, job.request.colour.primaries, look.white))
    say(f"done: {arguments.out}")


def export(arguments: argparse.Namespace) -> None:
    """zhdrv export INPUT ONNX."""
    from vszhdrv import files

    settings_of(arguments)
    files.check_output("ONNX", arguments.onnx, arguments.input, [".onnx"], overwrite=arguments.overwrite)
    from vszhdrv.command import export as onnx  # which loads torch

    onnx.check()
    source, options = opened(arguments)
    clip = source.clip
    job = prepared(arguments, clip, options)
    get_network(job)
    script = onnx.write_all(job, arguments.onnx, arguments.input, overwrite=arguments.overwrite)
    say(f"done: {arguments.onnx if script is None else script}")


def shots(arguments: argparse.Namespace) -> None:
    """zhdrv shots INPUT."""
    import vszhdrv
    from vszhdrv import files
    from vszhdrv import shots as films
    from vszhdrv.command import contact_sheet, sources
    from vszhdrv.store import store

    folder = store.folder(arguments.cache)
    for name, path, endings in (("--csv", arguments.csv, [".csv"]), ("--sheet", arguments.sheet, [".png", ".jpg"])):
        if path is not None:
            files.check_output(name, path, arguments.input, endings, overwrite=arguments.overwrite)
    index = folder and folder / "index"
    clip = sources.open_clip(arguments.input, still=False, fps=arguments.fps, index=index, say=say).clip
    with meters() as meter:
        found = vszhdrv.find_shots(
            clip,
            arguments.shots,
            cache=arguments.cache,
            progress=lambda done, total: meter.show("reading the clip", done, total),
        )
    if arguments.csv:
        films.write_table(arguments.csv, found)
    if arguments.sheet:
        contact_sheet.write(arguments.sheet, clip, found)
    if not (arguments.csv or arguments.sheet):
        for line in films.table(found).splitlines():
            tell(line)
    say(films.words(found))


# The networks that are kept


def cache(arguments: argparse.Namespace) -> None:
    """zhdrv cache list|show KEY|clear [KEY ...]."""
    from vszhdrv.store import store

    folder = store.folder(arguments.cache)
    if folder is None:
        raise Refused(f"the cache is switched off: --cache or {store.FOLDER_VARIABLE} must name its folder")
    networks = store.Store(folder, warn=say)
    entries = networks.entries()
    total = f"{len(entries)} {'network' if len(entries) == 1 else 'networks'}, {size(sum(e.size for e in entries))}"
    if arguments.action == "list":
        for entry in entries:
            about = (
                f"{clip_in_words(entry.metadata)}{settings_in_words(entry.metadata)}" if entry.trained else "unfinished"
            )
            tell(f"{entry.key}  {size(entry.size):>8}  {age(entry):>11} ago  {about}")
        say(f"{total} in {folder}")
    elif arguments.action == "show":
        show(entries, arguments.key, folder)
    elif arguments.keys:
        chosen = [only(entries, key, folder).key for key in arguments.keys]
        say(f"{len(networks.clear(chosen))} removed from {folder}")
    elif entries and (arguments.yes or confirmed(f"remove {total}, from {folder}?")):
        say(f"{len(networks.clear())} removed from {folder}")
    else:
        say(f"nothing removed from {folder}")


def only(entries: Sequence[Entry], key: str, folder: Path) -> Entry:
    """The one network whose key begins with `key`. Raises Refused where there is none, or several."""
    found = [entry for entry in entries if key and entry.key.startswith(key)]
    if len(found) != 1:
        raise Refused(f"KEY {key!r} is {'the beginning of several' if found else 'none'} of the keys in {folder}")
    return found[0]


def show(entries: Sequence[Entry], key: str, folder: Path) -> None:
    """Everything about the one network whose key begins with `key`, on standard output."""
    entry = only(entries, key, folder)
    tell(f"key: {entry.key}")
    tell(f"file: {entry.path if entry.trained else 'none, training is unfinished'}")
    tell(f"size: {size(entry.size)}")
    tell(f"last used: {age(entry)} ago")
    shown: dict[str, Callable[[str], str]] = {
        "film": film_in_words,
        "log": lambda text: f"{len(json.loads(text))} epochs",
        "overlays": lambda text: "; ".join(json.loads(text)["words"]),
    }
    for name, value in sorted(entry.metadata.items()):
        text = value
        with suppress(Damaged), parsing(name):
            text = shown[name](value) if name in shown else value
        tell(f"{name}: {text}")


def age(entry: Entry) -> str:
    """How long ago a network was last used."""
    return duration(max(0.0, time.time() - entry.used))  # clocks are set back, too


def clip_in_words(metadata: Mapping[str, str]) -> str:
    """The clip that a network was trained on, and when; "" where the file does not say."""
    try:
        with parsing("clip"):
            about = json.loads(metadata["clip"]) if "clip" in metadata else {}
            if not about:
                return ""
            name, shape = about["name"] or "a script's clip", f"{int(about['width'])}x{int(about['height'])}"
            return f"{name}, {shape}, {int(about['frames'])} frames, {metadata.get('date', 'no date')}: "
    except Damaged:
        return ""


def settings_in_words(metadata: Mapping[str, str]) -> str:
    """The settings that a person chooses, from the header of a weights file; of a film's, its shots and places."""
    if "film" in metadata:
        return film_in_words(metadata["film"])
    try:
        with parsing("facts"):
            settings = json.loads(metadata.get("facts", "{}")).get("settings", {})
            return " ".join(f"{name} {settings[name]}" for name in SETTINGS if name in settings)
    except Damaged:
        return "settings that can't be read"


def film_in_words(about: str) -> str:
    """What the header of a film's weights file says of its shots."""
    from vszhdrv import shots as films

    return f"film: {films.words(films.of_json(json.loads(about)['shots']))}"


def confirmed(question: str) -> bool:
    """Ask on standard error; only a typed yes is one."""
    say(f"{question} [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


# What is installed


def doctor(arguments: argparse.Namespace) -> None:
    """zhdrv doctor."""
    from vszhdrv.command import doctor as examination
    from vszhdrv.store import store

    unwell = 0
    for finding in examination.findings(store.folder(arguments.cache)):
        tell(str(finding))
        unwell += not finding.well
    if unwell:
        raise Failed(f"{unwell} of these are not well: the lines that begin with -- say what to do")
