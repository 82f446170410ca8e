"""What a person names on the command line, opened as the clip a script would have.

Apart from the command line because it is the only place that knows source filters: which one opens what, in which order
they are preferred, and where each is told to keep its index files (never beside the user's media). How a file's time is
known is timing.py's subject, pictures are pictures.py's.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vszhdrv.errors import Failed, Refused
from vszhdrv.exr import ROUNDING
from vszhdrv.files import check_utf8

from . import matroska, pictures, probing, timing
from .probing import Probe
from .timing import Hints, Timing

if TYPE_CHECKING:
    import vapoursynth as vs

Say = Callable[[str], None]

INDEX_SECONDS = 10.0
"""How often it is told how far an index is."""
UNKNOWN_TIME = -(2**63)
"""ffmpeg's AV_NOPTS_VALUE."""
SCRIPT = ".vpy"
FILTERS = ("ffms2", "bs", "lsmas")
"""Source filters by VapourSynth's names for them, the preferred one first."""
PACKAGES = {"ffms2": "vapoursynth-ffms2", "bs": "vapoursynth-bestsource", "lsmas": "vapoursynth-lsmas"}
RECORDINGS = ("mpegts", "mpeg", "hls", "vob")
"""Containers of recordings, by ffmpeg's names. Their clock may be set anew: ffmpeg calls them discontinuous."""
DAMAGE = re.compile(
    r"error while decoding|corrupt|conceal|invalid|damaged|overread|truncat|out of range|Reference \d+ >= |"
    r"decode_slice|error (splitting|submitting|parsing)|ac-tex|slice mismatch|bitstream error",
    re.IGNORECASE,
)
"""Words of a decoder that has met bits that no encoder wrote. Those of a recording that begins between two key frames,
such as "non-existing PPS", are others."""
DECODER_ERRORS = 16
"""ffmpeg's level of messages, AV_LOG_ERROR."""
DECODER_QUIET = -8
ONE_THREAD = re.compile(r"threads ?= ?1|No frame returned")
"""Words of BestSource where its threads have failed."""


@dataclass(frozen=True)
class Opened:
    """INPUT as a clip, and what is known of its time.

    timing: None where only the frames' own properties tell, when they are read. media: the file that sound, subtitles,
    title and chapters are taken from; None: there is none.
    """

    clip: vs.VideoNode
    timing: Timing | None = None
    media: Path | None = None


def open_clip(
    source: Path, *, still: bool, fps: Fraction | None, index: Path | None, say: Say, by: str | None = None
) -> Opened:
    """The clip that `source` holds: a video file, a script, a folder of pictures, or (`still`) one picture.

    `fps` is the rate of a picture sequence (24 when None); a video file has its own. `index` is the folder for the
    source filter's index files, None for no index. `by` is the source filter, one of FILTERS; None: the first of them
    that is installed. `say` gets a sentence for what a person should know, such as a dropped alpha channel.

    Raises Refused when `source` is not there or of the wrong kind, and Failed, with the source filter's own
    words, when it can't be opened.
    """
    from vapoursynth import Error

    if not source.exists():
        raise Refused(f"INPUT {source} does not exist")
    if not (source.is_file() or source.is_dir()):
        raise Refused(f"INPUT must be a file that can be read twice, or a folder, not a pipe or a device: {source}")
    check_utf8("INPUT", source)
    if source.suffix.lower() == SCRIPT:
        return Opened(output_of(source, fps))
    if source.is_dir() or pictures.is_picture(source):
        return Opened(pictures.open_pictures(source, still=still, fps=fps, say=say))
    if fps is not None:
        raise Refused(f"--fps {fps} is for picture sequences, and INPUT {source} is a file with a rate of its own")
    probe = probing.probe(source)
    if probe is not None:
        tell_what_is_lost(probe, say)
    try:
        clip, stamps = read_video(source, index, say, by, probe)
    except Error as error:
        raise Failed(f"INPUT {source} has no video that can be opened: {error}") from None
    with clip.get_frame(0) as frame:
        if "_Alpha" in frame.props:
            say(f"{source.name} has an alpha channel, which is dropped")
    clip = with_fields(clip, source, probe, say)
    found = timing_of(clip, stamps, source, probe, say)
    if found is not None:
        clip = at_rate(clip, found)
    if probe is not None:
        clip = shaped_by_container(clip, probe)
    clip = cropped(clip, source, probe, say)
    return Opened(upright(clip), found, source)


def media_of(source: Path) -> Path | None:
    """The file itself where it may have sound, subtitles, a title and chapters; None for folders, pictures, scripts."""
    other = not source.is_file() or pictures.is_picture(source) or source.suffix.lower() == SCRIPT
    return None if other else source


def output_of(script: Path, fps: Fraction | None) -> vs.VideoNode:
    """The clip that a script sets as its output 0; it runs as in vspipe, in its own folder's sight.

    Raises Refused where it sets none, and Failed, with the script's own words, where it fails.
    """
    import runpy
    import sys

    import vapoursynth as vs

    if fps is not None:
        raise Refused(f"--fps {fps} is for picture sequences, and INPUT {script} is a script, whose clip has its own")
    path = str(script.resolve().parent)
    sys.path.insert(0, path)
    try:
        runpy.run_path(str(script), {}, "__vapoursynth__")
    except Exception as error:
        said = f"{type(error).__name__}: {error}".strip().splitlines()
        raise Failed(f"INPUT {script} fails: {said[0]}") from error
    finally:
        sys.path.remove(path)
    output = vs.get_outputs().get(0)
    if not isinstance(output, vs.VideoOutputTuple):
        raise Refused(f"INPUT {script} must set a video clip as its output 0, by clip.set_output()")
    return output.clip


def tell_what_is_lost(probe: Probe, say: Say) -> None:
    """A sentence for what a file's video has and VapourSynth's clip will not."""
    name, video = probe.source.name, probe.video
    if str(video.get("tags", {}).get("alpha_mode", video.get("tags", {}).get("ALPHA_MODE", "0"))) == "1":
        say(f"{name} has an alpha channel, which is dropped")
    width, height = int(video.get("width", 0)), int(video.get("height", 0))
    if subsampled_oddly(video):
        say(
            f"{name} is {width}x{height}, and there is no clip of half-sized chroma and odd size: "
            f"it is taken as {width - width % 2}x{height - height % 2} without its last column or row"
        )
    if int(video.get("closed_captions", 0)):
        say(f"{name} has closed captions in its pictures' data, which are dropped")


def subsampled_oddly(video: probing.Stream) -> bool:
    """Whether a stream has planes of half the size, and a size that has no half."""
    layout = str(video.get("pix_fmt", ""))
    width, height = int(video.get("width", 0)), int(video.get("height", 0))
    halved = any(name in layout for name in ("420", "410", "nv12", "p010"))
    wide = halved or any(name in layout for name in ("422", "411"))
    return bool((wide and width % 2) or ((halved or "440" in layout) and height % 2))


def read_video(
    source: Path, index: Path | None, say: Say, by: str | None = None, probe: Probe | None = None
) -> tuple[vs.VideoNode, list[Fraction] | None]:
    """A clip of the first video track, and its frames' timestamps; without an index, and with a word, where the index
    can't be kept."""
    from vapoursynth import Error

    if index is None:
        return first_track(source, None, say, by, probe)
    try:
        index.mkdir(parents=True, exist_ok=True)
        return first_track(source, index, say, by, probe)
    except (OSError, Error) as error:  # the folder is read-only or full, or there is something wrong with the file
        found = first_track(source, None, say, by, probe)
        say(f"the index of {source} can't be kept in {index} and is made each time: {error}")
        return found


def source_filter(source: Path, by: str | None, probe: Probe | None = None) -> str:
    """The source filter to open `source` with, by VapourSynth's name for it. Raises Refused where there is none.

    FFMS2 is the last choice for recordings: of one that begins between two key frames it loses the first pictures.
    """
    from vapoursynth import core

    filters = sorted(FILTERS, key=lambda name: name == "ffms2") if is_recording(probe) else FILTERS
    for name in filters if by is None else (by,):
        if hasattr(core, name):
            return name
    package = PACKAGES[by or "bs"]
    if installed(package):
        name = package.removeprefix("vapoursynth-")
        raise Failed(f"INPUT {source} can't be opened: {name} is installed, but could not be loaded into memory")
    raise Refused(
        f"INPUT {source} can't be opened without a source filter: install {package}"
        if by is None
        else f"--source {by} needs the source filter of that name: install {package}"
    )


def is_recording(probe: Probe | None) -> bool:
    """Whether the container is one of those that broadcasts and DVDs are recorded in, as ffprobe sees it."""
    formats = "" if probe is None else str(probe.container.get("format_name", ""))
    return any(name in RECORDINGS for name in formats.split(","))


def first_track(
    source: Path, index: Path | None, say: Say, by: str | None = None, probe: Probe | None = None
) -> tuple[vs.VideoNode, list[Fraction] | None]:
    """The clip by FFMS2 if it is installed, else BestSource, else L-SMASH Works; and its frames' timestamps in seconds,
    None where the filter exports none."""
    from vapoursynth import core

    path, name = str(source), source_filter(source, by, probe)
    damage = damage_of(source, index)
    threads = {} if damage is None else {"threads": 1}
    if damage is not None:
        tell_damage(source, damage, say)
    if name == "bs":
        return by_bestsource(source, index, say, one_thread=damage is not None)
    if name == "ffms2":
        kept: dict[str, Any] = {"cachefile": f"{index / index_name(source)}.ffindex"} if index else {"cache": 0}
        return core.ffms2.Source(path, **kept, **threads), None
    if probe is not None and subsampled_oddly(probe.video):  # it ends the process
        raise Refused(f"INPUT {source} has an odd size, which L-SMASH Works can't open: use --source bs")
    kept = {"cachedir": str(index)} if index else {"cache": 0}
    return core.lsmas.LWLibavSource(path, **kept, **threads), None


def by_bestsource(
    source: Path, index: Path | None, say: Say, *, one_thread: bool
) -> tuple[vs.VideoNode, list[Fraction] | None]:
    """The clip by BestSource, and its frames' timestamps in seconds, None where one of them has none.

    Of a damaged stream its threads make other pixels in each run, and now and then none: that is decoded by one thread.
    """
    import vapoursynth as vs
    from vapoursynth import core

    name = index_name(source) + (".1" if one_thread else "")
    # Mode 3 writes an index, of just this name, only where reading it again saves noticeable time.
    kept = {"cachemode": 3, "cachepath": str(index / name)} if index else {"cachemode": 0}
    # Turning the pictures itself, as it does since version 22, it forgets to turn the shape of their pixels.
    wanted = {"apply_rotation": 0, "exporttimestamps": 1, **({"threads": 1} if one_thread else {})}
    known = {name: value for name, value in wanted.items() if name in core.bs.VideoSource.signature}
    # It declares no such results, of which VapourSynth warns on standard error, whoever listens to its log.
    with index_told(source, say), decoders_heard() as heard:
        found = core.bs.VideoSource(str(source), **kept, **known)
    complaints = [line for line in heard if DAMAGE.search(line)]
    if complaints and not one_thread:
        distrust(source, index, complaints[0])
        tell_damage(source, complaints[0], say)
        return by_bestsource(source, index, say, one_thread=True)
    if isinstance(found, vs.VideoNode):
        return found, None
    times = found["timestamps"]  # of one frame: a number
    times = [times] if isinstance(times, int) else times
    unit = Fraction(found["timebasenum"], found["timebaseden"])
    return found["clip"], None if UNKNOWN_TIME in times else [time * unit for time in times]


# Damaged files

_damaged: dict[str, str] = {}
"""Files of this process that are decoded by one thread, by the names of their indexes, with the decoder's words."""


def damage_of(source: Path, index: Path | None) -> str | None:
    """What a decoder has said of a file that was found to be damaged before; None: it was not."""
    name = index_name(source)
    if name in _damaged or index is None:
        return _damaged.get(name)
    with suppress(OSError):
        return (index / f"{name}.damaged").read_text("utf-8")
    return None


def distrust(source: Path, index: Path | None, why: str) -> None:
    """Have a file decoded by one thread from now on; also by later runs, where there is a folder for indexes."""
    _damaged[index_name(source)] = why
    if index is not None:
        with suppress(OSError):
            index.mkdir(parents=True, exist_ok=True)
            (index / f"{index_name(source)}.damaged").write_text(why, "utf-8")


def tell_damage(source: Path, why: str, say: Say) -> None:
    """The sentence that a file is damaged."""
    say(f"{source.name} is damaged ({why}): one thread decodes it, so that every run sees the same pictures")


def may_be_damage(error: Exception, source: Path, index: Path | None) -> bool:
    """Whether a frame failed that one thread may decode: worth another try, once."""
    return source.is_file() and bool(ONE_THREAD.search(str(error))) and damage_of(source, index) is None


def installed(package: str) -> bool:
    """Whether a package is there, be it that its library could not be loaded."""
    try:
        return bool(metadata.version(package))
    except metadata.PackageNotFoundError:
        return False


@contextmanager
def decoders_heard() -> Iterator[list[str]]:
    """What BestSource's decoders say meanwhile of errors, line by line; it does not reach standard error."""
    from vapoursynth import core

    heard: list[str] = []
    level = getattr(core.bs, "SetFFmpegLogLevel", None)

    def take(line: str) -> bool:
        if found := re.match(r"\[[^]@]+ @ 0x[0-9a-f]+\] (.*)", line):
            heard.append(found[1].strip())
        return bool(found) or line.startswith("VideoSource: no return value(s) named")

    with lines_taken(take):
        if level is not None:
            level(DECODER_ERRORS)
        try:
            yield heard
        finally:
            if level is not None:
                level(DECODER_QUIET)


@contextmanager
def index_told(source: Path, say: Say) -> Iterator[None]:
    """How far the index is that BestSource makes meanwhile, now and then: of a film that takes minutes."""
    from vapoursynth import core

    told = time.monotonic()

    def handler(_kind: int, text: str) -> None:
        nonlocal told
        found = re.search(r"index progress (\d+)(%|MB)", text)
        if found and time.monotonic() >= told + INDEX_SECONDS:
            told = time.monotonic()
            say(f"{source} is read for its index: {found[1]} {found[2]}")

    handle = core.add_log_handler(handler)
    try:
        yield
    finally:
        core.remove_log_handler(handle)


@contextmanager
def lines_taken(take: Callable[[str], bool]) -> Iterator[None]:
    """Of what is said on standard error meanwhile, by native code too, lines that `take` returns True for go no
    further."""
    try:
        kept = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    reading, writing = os.pipe()

    def pass_on() -> None:
        with os.fdopen(reading, "rb") as lines:
            for line in lines:
                if not take(line.decode(errors="replace")):
                    with suppress(OSError):  # a log that can't be written
                        os.write(kept, line)

    passing = threading.Thread(target=pass_on)
    passing.start()
    os.dup2(writing, 2)
    os.close(writing)
    try:
        yield
    finally:
        os.dup2(kept, 2)  # the pipe has no other end now
        passing.join()
        os.close(kept)


# Time and fields


def with_fields(clip: vs.VideoNode, source: Path, probe: Probe | None, say: Say) -> vs.VideoNode:
    """The clip, known to be progressive where its source filter does not say so and ffprobe can.

    BestSource says nothing of the fields of a stream with a single repeat flag. Raises Refused where one of the
    frames is marked as interlaced.
    """
    with clip.get_frame(0) as frame:
        if "_FieldBased" in frame.props or probe is None:
            return clip
    flags: list[probing.Flags] = []
    told = time.monotonic()
    for flag in probe.flags():
        flags.append(flag)
        if time.monotonic() >= told + INDEX_SECONDS:
            told = time.monotonic()
            say(f"{source} is read for the flags of its fields: {len(flags)} of {clip.num_frames}")
    if not flags:
        return clip  # the training looks at the pictures themselves
    interlaced = [n for n, flag in enumerate(flags) if flag.interlaced]
    if interlaced:
        raise Refused(
            f"INPUT {source} must be progressive, and {len(interlaced)} of its {len(flags)} frames are marked as "
            f"interlaced, the first is {interlaced[0]}: deinterlace it in a script, for example with bwdif.Bwdif "
            "(telecined film: vivtc), or std.SetFieldBased(0) if the marks are wrong"
        )
    return clip.std.SetFieldBased(0)


def timing_of(
    clip: vs.VideoNode, stamps: Sequence[Fraction] | None, source: Path, probe: Probe | None, say: Say
) -> Timing | None:
    """When the clip's frames are shown: by the source filter's timestamps, else by those of the file's packets, else by
    its frames' repeat flags. None: nobody tells but the frames themselves."""
    rates = [rate for rate in (Fraction(clip.fps), *probed_rates(probe)) if rate]
    if stamps is None and probe is not None and probe.video:
        reordered = int(probe.video.get("has_b_frames", 0))
        step = 1 / rates[0] if rates else Fraction(1, 24)
        packets = probe.packets(probe.video)
        stamps = timing.of_packets(packets, clip.num_frames, reordered, step)
        if stamps is None and rates and all(packet.pts is None and packet.dts is None for packet in packets):
            flags = list(probe.flags()) if "_FieldBased" not in first_props(clip) else []
            stamps = timing.of_flags(flags, rates[0]) if len(flags) == clip.num_frames else None
    if stamps is None:
        if rates and "_AbsoluteTime" not in first_props(clip):
            say(f"{source.name} has no timestamp for each of its frames: they are taken as {rates[0]} a second")
        return None
    last = last_duration(probe, stamps) if probe is not None else None
    hints = Hints(rates, last=last, may_jump=is_recording(probe))
    found = timing.of_timestamps(stamps, hints, source.name, say)
    if probe is not None and not found.jumps:
        timing.compare_lengths(found, lengths(probe), source.name, say)
    return found


def first_props(clip: vs.VideoNode) -> Mapping[str, Any]:
    """The properties of a clip's first frame."""
    with clip.get_frame(0) as frame:
        return dict(frame.props)


def probed_rates(probe: Probe | None) -> list[Fraction]:
    """Frames a second as ffprobe has them: of the stream's header, and the average."""
    if probe is None:
        return []
    found = (probing.rate(probe.video, name) for name in ("r_frame_rate", "avg_frame_rate"))
    return [rate for rate in found if rate]


def last_duration(probe: Probe, stamps: Sequence[Fraction]) -> Fraction | None:
    """How long the last frame is shown by its packet, else by the end of its stream; None: unknown."""
    last = max(stamps)
    packets = probe.packets(probe.video, last - probing.TAIL_SECONDS)
    if not any(packet.pts is not None and packet.pts >= last - ROUNDING for packet in packets):
        packets = probe.packets(probe.video)
    shown = [packet for packet in packets if packet.pts is not None and packet.size]
    end = max(shown, key=lambda packet: packet.pts or 0, default=None)
    length, start = probe.length(probe.video), probing.seconds(probe.video, "start_time")
    by_stream = length + start - last if length is not None and start is not None else None
    if end is None or end.pts is None or abs(end.pts - last) > ROUNDING or not end.duration:
        return by_stream if by_stream is not None and by_stream > 0 else None
    return end.duration


def lengths(probe: Probe) -> dict[str, Fraction]:
    """What a file says of the lengths of its pictures and its sound, in seconds, by what it is the length of."""
    found = {"by its header": probe.length(probe.video)}
    if sounds := probe.of_kind("audio"):
        found["its sound"] = probe.length(sounds[0])
    if not any(found.values()):
        found = {"all of the file": probing.seconds(probe.container, "duration")}
    return {what: length for what, length in found.items() if length is not None}


def at_rate(clip: vs.VideoNode, found: Timing) -> vs.VideoNode:
    """The clip with the rate of its timing; with none where that varies, where source filters name an average."""
    own = Fraction(clip.fps)
    rate = found.steady([own] if own else [])
    if rate is None and own:
        # what is joined of clips of two rates has none
        slower = clip[0].std.AssumeFPS(fpsnum=own.numerator, fpsden=2 * own.denominator)
        return (clip + slower)[:-1]
    if rate is None or rate == own:
        return clip
    return clip.std.AssumeFPS(fpsnum=rate.numerator, fpsden=rate.denominator)


def shaped_by_container(clip: vs.VideoNode, probe: Probe) -> vs.VideoNode:
    """The clip with the sample aspect ratio that its file says.

    It wins over the video stream's own, which is all that BestSource tells.
    """
    ratio = re.match(r"([1-9]\d*):([1-9]\d*)", str(probe.video.get("sample_aspect_ratio", "")))
    return clip.std.SetFrameProps(_SARNum=int(ratio[1]), _SARDen=int(ratio[2])) if ratio else clip


def cropped(clip: vs.VideoNode, source: Path, probe: Probe | None, say: Say) -> vs.VideoNode:
    """The clip without the edges that its Matroska file has players leave out, and a sentence about it.

    A source filter that leaves them out itself gives a smaller clip than the file's coded size.
    """
    crop = matroska.crop(source)
    coded = (int(probe.video.get("width", 0)), int(probe.video.get("height", 0))) if probe else (0, 0)
    if crop == matroska.Crop() or (any(coded) and coded != (clip.width, clip.height)):
        return clip
    wide, high = (1 << bits for bits in (clip.format.subsampling_w, clip.format.subsampling_h))
    left, right = crop.left - crop.left % wide, crop.right - crop.right % wide
    top, bottom = crop.top - crop.top % high, crop.bottom - crop.bottom % high
    if left + right >= clip.width or top + bottom >= clip.height:
        say(f"{source.name} says a crop that leaves nothing of its pictures: it is left out")
        return clip
    found = clip.std.Crop(left=left, right=right, top=top, bottom=bottom)
    say(f"{source.name} is cropped from {clip.width}x{clip.height} to {found.width}x{found.height}, as the file says")
    return found


def upright(clip: vs.VideoNode) -> vs.VideoNode:
    """The clip as a viewer sees it: mirrored by its first frame's `FlipVertical` (BestSource's) or `Flip` (FFMS2's: 1
    left and right, -1 top and bottom), then turned by quarters by its `Rotation` (degrees, clockwise).

    By these properties they leave to others what the file says about the camera's position.
    """
    with clip.get_frame(0) as frame:
        rotation, flip = frame.props.get("Rotation", 0), frame.props.get("Flip", 0)
        upside_down = frame.props.get("FlipVertical", 0) or flip < 0
        width, height = frame.props.get("_SARNum", 1), frame.props.get("_SARDen", 1)
    mirrored = upside_down or flip
    if (mirrored or rotation) and clip.format and (clip.format.subsampling_w or clip.format.subsampling_h):
        # chroma is sited at the left, or top left: turned, at places that have no name
        clip = clip.resize.Bicubic(format=clip.format.replace(subsampling_w=0, subsampling_h=0).id)
    if mirrored:
        clip = clip.std.FlipVertical() if upside_down else clip.std.FlipHorizontal()
    if rotation == 180:
        clip = clip.std.Turn180()
    elif rotation in (90, 270):
        clip = clip.std.Transpose().std.SetFrameProps(_SARNum=height, _SARDen=width)
        clip = clip.std.FlipHorizontal() if rotation == 90 else clip.std.FlipVertical()
    return clip.std.SetFrameProps(Rotation=0, Flip=0, FlipVertical=0) if mirrored or rotation else clip


def index_name(source: Path) -> str:
    """A name for an index that no other file, and no changed version of this one, shares.

    BestSource knows a changed file by its size alone, which uncompressed video, DNxHD and DV often keep.
    """
    about = source.stat()
    identity = f"{source.resolve()}\n{about.st_size}\n{about.st_mtime_ns}"
    return f"{source.name[:50]}.{hashlib.blake2b(os.fsencode(identity), digest_size=6).hexdigest()}"
