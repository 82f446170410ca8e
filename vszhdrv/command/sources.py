"""What a person names on the command line, opened as the clip a script would have.

Apart from the command line because it is the only place that knows source filters: which one opens what, in which order
they are preferred, and where each is told to keep its index files (never beside the user's media).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vszhdrv.errors import Failed, Refused
from vszhdrv.files import check_utf8

if TYPE_CHECKING:
    import vapoursynth as vs

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
DEFAULT_FPS = Fraction(24)
START = "ZhdrvStart"
"""Frame property: when the clip's first frame is shown, in seconds of the file's own time."""
INDEX_SECONDS = 10.0
"""How often it is told how far an index is."""
UNKNOWN_TIME = -(2**63)
"""ffmpeg's AV_NOPTS_VALUE."""


def open_clip(
    source: Path, *, still: bool, fps: Fraction | None, index: Path | None, say: Callable[[str], None]
) -> vs.VideoNode:
    """The clip that `source` holds: a video file, a folder of .png frames, or (`still`) one picture.

    `fps` is the rate of a picture sequence (24 when None); a video file has its own. `index` is the folder for the
    source filter's index files, None for no index. `say` gets a sentence for what a person should know, such as a
    dropped alpha channel.

    Raises Refused when `source` is not there or of the wrong kind, and Failed, with the source filter's own
    words, when it can't be opened.
    """
    from vapoursynth import Error

    if not source.exists():
        raise Refused(f"INPUT {source} does not exist")
    if not (source.is_file() or source.is_dir()):
        raise Refused(f"INPUT must be a file that can be read twice, or a folder, not a pipe or a device: {source}")
    check_utf8("INPUT", source)
    if source.is_dir():
        # macOS leaves ._NAME.png beside NAME.png on the file systems of others
        visible = (p for p in source.iterdir() if p.suffix.lower() == ".png" and not p.name.startswith("."))
        pictures = sorted(visible, key=natural_order)
        if not pictures:
            raise Refused(f"INPUT {source} is a folder without .png frames")
        return read_pictures(pictures, fps or DEFAULT_FPS, say)
    if source.suffix.lower() in PICTURES:
        if not still:
            raise Refused(f"INPUT {source} is a single picture, which needs --data_type image")
        return read_pictures([source], fps or DEFAULT_FPS, say)
    if fps is not None:
        raise Refused(f"--fps {fps} is for picture sequences, and INPUT {source} is a file with a rate of its own")
    try:
        clip = read_video(source, index, say)
    except Error as error:
        raise Failed(f"INPUT {source} has no video that can be opened: {error}") from None
    with clip.get_frame(0) as frame:
        if "_Alpha" in frame.props:
            say(f"{source.name} has an alpha channel, which is dropped")
    return upright(shaped_by_container(clip, source))


def is_video(source: Path) -> bool:
    """Whether it is a video file, which may have audio, a title and chapters; else a folder, a picture or nothing."""
    return source.is_file() and source.suffix.lower() not in PICTURES


def natural_order(path: Path) -> list[tuple[int, str]]:
    """A key that sorts by the numbers in a name: frame2 before frame10, frame02 beside frame2."""
    parts = re.findall(r"\d+|\D+", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts] + [(-1, path.name)]


def read_pictures(pictures: list[Path], fps: Fraction, say: Callable[[str], None]) -> vs.VideoNode:
    """A clip of the pictures in that order, RGB in the depth they have, without their alpha channel."""
    from vapoursynth import RGB, core

    clip = core.imgseqs.Read([str(picture) for picture in pictures], fpsnum=fps.numerator, fpsden=fps.denominator)
    with clip.get_frame(0) as frame:
        props = dict(frame.props)
    kind = props["ImgSeqOriginalColorType"]  # the image crate's names: Rgb8, Rgba16, La8, ...
    name = kind.decode() if isinstance(kind, bytes) else str(kind)
    if "a" in name:
        say(f"{pictures[0].name} has an alpha channel, which is dropped")
    if props["ImgSeqHasICC"] and "_Primaries" not in props:
        say(f"{pictures[0].name} has an ICC profile, which is not read: its colours are taken as sRGB's")
    # of a grey clip nobody would know that it is no video, of which other transfers and primaries are usual
    return clip if clip.format.color_family == RGB else core.std.ShufflePlanes(clip, [0, 0, 0], RGB)


def read_video(source: Path, index: Path | None, say: Callable[[str], None]) -> vs.VideoNode:
    """A clip of the first video track; without an index, and with a word, where the index can't be kept."""
    from vapoursynth import Error

    if index is None:
        return first_track(source, None, say)
    try:
        index.mkdir(parents=True, exist_ok=True)
        return first_track(source, index, say)
    except (OSError, Error) as error:  # the folder is read-only or full, or there is something wrong with the file
        clip = first_track(source, None, say)
        say(f"the index of {source} can't be kept in {index} and is made each time: {error}")
        return clip


def first_track(source: Path, index: Path | None, say: Callable[[str], None]) -> vs.VideoNode:
    """The clip by FFMS2 if it is installed, else BestSource, else L-SMASH Works."""
    import vapoursynth as vs
    from vapoursynth import core

    path = str(source)
    if hasattr(core, "ffms2"):
        return core.ffms2.Source(
            path, **({"cachefile": f"{index / index_name(source)}.ffindex"} if index else {"cache": 0})
        )
    if hasattr(core, "bs"):
        # Mode 3 writes an index, of just this name, only where reading it again saves noticeable time.
        kept = {"cachemode": 3, "cachepath": str(index / index_name(source))} if index else {"cachemode": 0}
        # Turning the pictures itself, as it does since version 22, it forgets to turn the shape of their pixels.
        wanted = {"apply_rotation": 0, "exporttimestamps": 1}
        known = {name: value for name, value in wanted.items() if name in core.bs.VideoSource.signature}
        # It declares no such results, of which VapourSynth warns on standard error, whoever listens to its log.
        with index_told(source, say), without_lines("VideoSource: no return value(s) named"):
            found = core.bs.VideoSource(path, **kept, **known)
        if isinstance(found, vs.VideoNode):
            return found
        timestamps = found["timestamps"]  # of one frame: a number
        timestamps = [timestamps] if isinstance(timestamps, int) else timestamps
        return timed(found["clip"], timestamps, Fraction(found["timebasenum"], found["timebaseden"]))
    if hasattr(core, "lsmas"):
        return core.lsmas.LWLibavSource(path, **({"cachedir": str(index)} if index else {"cache": 0}))
    if installed("vapoursynth-bestsource"):
        raise Failed(f"INPUT {source} can't be opened: bestsource is installed, but could not be loaded into memory")
    raise Refused(f"INPUT {source} can't be opened without a source filter: install vapoursynth-bestsource")


def installed(package: str) -> bool:
    """Whether a package is there, be it that its library could not be loaded."""
    try:
        return bool(metadata.version(package))
    except metadata.PackageNotFoundError:
        return False


@contextmanager
def index_told(source: Path, say: Callable[[str], None]) -> Iterator[None]:
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
def without_lines(beginning: str) -> Iterator[None]:
    """Of what is said on standard error meanwhile, by native code too, lines that begin so are left out."""
    try:
        kept = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    reading, writing = os.pipe()

    def pass_on() -> None:
        with os.fdopen(reading, "rb") as lines:
            for line in lines:
                if not line.startswith(beginning.encode()):
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


def timed(clip: vs.VideoNode, timestamps: Sequence[int], unit: Fraction) -> vs.VideoNode:
    """The clip with what BestSource's timestamps of its frames, in units of `unit` seconds, tell of it.

    `START`, and that the rate varies: then it has none, where BestSource names an average or a guess. It varies where a
    frame is shown half a frame or more beside its time at that rate, so that frames' numbers no longer tell the time.
    """
    if UNKNOWN_TIME in timestamps:  # as in streams without a container, and in .avi
        return clip
    clip = clip.std.SetFrameProps(**{START: float(timestamps[0] * unit)})
    rate = float(unit * clip.fps)
    if not rate or all(abs((time - timestamps[0]) * rate - n) < 0.5 for n, time in enumerate(timestamps)):
        return clip
    # what is joined of clips of two rates has none
    slower = clip[0].std.AssumeFPS(fpsnum=clip.fps.numerator, fpsden=2 * clip.fps.denominator)
    return (clip + slower)[:-1]


def start_of(props: Mapping[str, Any]) -> float | None:
    """When a clip's first frame is shown, by its properties, in seconds of the file's own time; None: nobody tells.

    That is not when the file's first picture is: a recording may begin within a group of pictures, which cannot be
    decoded, and BestSource leaves them out up to the next key frame.
    """
    start: float | None = props.get(START, props.get("_AbsoluteTime"))  # FFMS2's and L-SMASH Works' property
    return start


def captured(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """What ffmpeg or ffprobe says, which is UTF-8 whatever the system's own encoding is."""
    return subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")


def shaped_by_container(clip: vs.VideoNode, source: Path) -> vs.VideoNode:
    """The clip with the sample aspect ratio that its file says, where ffprobe is installed to read it.

    It wins over the video stream's own, which is all that BestSource tells.
    """
    if (ffprobe := shutil.which("ffprobe")) is None:
        return clip
    command = [ffprobe, "-v", "error", "-select_streams", "v:0", "-show_entries", "stream=sample_aspect_ratio"]
    probed = captured([*command, "-of", "csv=p=0", str(source.resolve())])
    ratio = re.match(r"([1-9]\d*):([1-9]\d*)", probed.stdout)
    return clip.std.SetFrameProps(_SARNum=int(ratio[1]), _SARDen=int(ratio[2])) if ratio else clip


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
