"""Frames into an ffmpeg child process: HDR10 and HLG files that play.

Apart from the command line because arguments and words are one subject and encoding another. ffmpeg gets raw frames
with timestamps on its standard input (matroska.py), copies the source's audio beside them, and writes under a temporary
name: the target is there whole or not at all.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from vszhdrv import light
from vszhdrv.errors import Failed, Refused
from vszhdrv.exr import CHROMATICITIES, ROUNDING, fraction
from vszhdrv.files import replacing, sweep

from . import matroska
from .delivery import Delivery, Picture, planes
from .runs import requested
from .sources import captured, is_video, start_of

if TYPE_CHECKING:
    import vapoursynth as vs

CONTAINERS = {".mkv": "matroska", ".mp4": "mp4"}
PIPE = ("-f", "matroska", "-i", "pipe:0")
"""ffmpeg's options for the pictures, which come on its standard input."""
LAST_LINES = 3
"""So much of ffmpeg's last words enters an error."""
STALE_SECONDS = 86400.0
"""An unfinished file untouched for this long is nobody's: slow frames keep an encoder waiting for hours."""
UNFINISHED = ("Error writing trailer", "Error closing file")
"""ffmpeg 5.1 says one of these where the disk is full, and calls it a success."""

# The programs


@dataclass(frozen=True)
class Programs:
    """Where ffmpeg and ffprobe are."""

    ffmpeg: str
    ffprobe: str


def find_programs() -> Programs:
    """The system's ffmpeg, checked for what is needed of it.

    Raises Failed where there is none, or an old one, or none that writes 10-bit HEVC.
    """
    ffmpeg, ffprobe = shutil.which("ffmpeg"), shutil.which("ffprobe")
    if ffmpeg is None or ffprobe is None:
        raise Failed("--out needs the programs ffmpeg and ffprobe on PATH: install ffmpeg")
    for topic, word, needed in (
        ("long", "-fps_mode", "5.1 or newer"),
        ("encoder=libx265", "yuv420p10le", "with 10-bit libx265"),
    ):
        about = captured([ffmpeg, "-hide_banner", "-h", topic])
        if word not in about.stdout:
            raise Failed(f"--out needs ffmpeg {needed}: {ffmpeg} is not enough")
    return Programs(ffmpeg, ffprobe)


# Time


@dataclass(frozen=True)
class Timing:
    """How long each frame is shown, in seconds."""

    durations: list[Fraction]

    @classmethod
    def of(cls, durations: list[Fraction], rate: Fraction) -> Self:
        """Durations of a clip of `rate` frames a second (0: unknown), and the rate's own where they are that, rounded.

        Matroska's timestamps, and those of others, are whole milliseconds: 41 and 42 ms by turns mean 24000/1001.
        """
        found = cls(durations)
        if rate and all(abs(start - n / rate) <= ROUNDING for n, start in enumerate(found.starts)):
            return cls([1 / rate] * len(durations))
        return found

    @property
    def starts(self) -> list[Fraction]:
        """When each frame is shown first; frame 0 at 0."""
        return list(accumulate(self.durations[:-1], initial=Fraction(0)))

    @property
    def constant(self) -> Fraction | None:
        """The one duration of all frames; None where they differ."""
        return self.durations[0] if len(set(self.durations)) == 1 else None

    @property
    def rate(self) -> Fraction:
        """Frames a second, on average, as encoders take it."""
        average = len(self.durations) / sum(self.durations, Fraction(0))
        return max(average.limit_denominator(1001), Fraction(1, 1001))

    def unit(self, delay: Fraction) -> Fraction:
        """The longest time that divides `delay` and every duration: in it all timestamps are whole numbers."""
        different = {delay, *self.durations}
        unit = Fraction(math.gcd(*(d.numerator for d in different)), math.lcm(*(d.denominator for d in different)))
        return unit if unit.denominator < 2**31 else Fraction(1, 1_000_000)  # ffmpeg's fractions are of 32 bits


def durations(source: vs.VideoNode, take: Callable[[NDArray[Any]], None] | None = None) -> Generator[Fraction]:
    """Every frame's duration in seconds, in order. `take`, if given, gets every plane, since they are all read here.

    From `_DurationNum` and `_DurationDen`: the clip's rate is no more than an average where the file's varies. A frame
    without them, such as BestSource's last, lasts as long as the one before.
    """
    duration = 1 / Fraction(source.fps) if source.fps else Fraction(1, 24)
    with closing(requested(source, range(source.num_frames))) as frames:
        for _, frame in frames:
            duration = fraction(frame.props, "_Duration") or duration
            if take is not None:
                for plane in range(frame.format.num_planes):
                    take(np.ascontiguousarray(frame[plane]))
            yield duration


@dataclass(frozen=True)
class Beside:
    """What a source file has beside its pictures.

    audio: numbers of the streams of audio that ffmpeg knows. unknown: those of others, such as the spatial audio that
    phones record beside a stream of stereo, which ffmpeg copies into no file. delay: the seconds by which the first
    picture is later than the first stream begins, which is where ffmpeg counts from.
    """

    audio: list[int]
    unknown: list[int]
    delay: Fraction


def beside(programs: Programs, source: Path, first: float | None = None) -> Beside:
    """first: when the clip's first frame is shown, in the file's seconds, where its source filter tells.

    Raises Failed where ffprobe can't read `source`.
    """
    command = [programs.ffprobe, "-v", "error", "-of", "json", "-show_entries"]
    entries = "stream=index,codec_type,codec_name,start_time:format=start_time"
    probed = captured([*command, entries, str(source.resolve())])
    if probed.returncode:
        raise Failed(f"ffprobe can't read {source}: {probed.stderr.strip()}")
    found = json.loads(probed.stdout)
    # streams of unknown kinds, as broadcasts have them, have no codec_type
    starts = {stream.get("codec_type"): stream.get("start_time") for stream in reversed(found["streams"])}
    begin = Fraction(found["format"].get("start_time") or 0)
    start = Fraction(starts.get("video") or begin) if first is None else Fraction(f"{first:.6f}")
    sounds = [stream for stream in found["streams"] if stream.get("codec_type") == "audio"]
    unknown = [stream["index"] for stream in sounds if stream.get("codec_name", "unknown") == "unknown"]
    audio = [stream["index"] for stream in sounds if stream["index"] not in unknown]
    return Beside(audio, unknown, max(start - begin, Fraction(0)))


def check_audio(programs: Programs, source: Path, target: Path, say: Callable[[str], None]) -> None:
    """Raises Refused, one sentence, where `target`'s container can't hold the audio of `source`, if it has any.

    By a copy of its beginning to nowhere: ffmpeg itself would say so only when all frames are learned and measured.
    `say` gets a sentence for each stream that nobody could copy.
    """
    if not is_video(source):
        return
    found = beside(programs, source)
    for stream in found.unknown:
        say(f"stream {stream} of {source} is left out: audio of a kind that ffmpeg does not know")
    if not found.audio:
        return
    read = [programs.ffmpeg, "-nostdin", "-hide_banner", "-v", "error", "-i", str(source.resolve())]
    copied = [*mapped(found.audio), "-frames:a", "1", *container(target), "-y", os.devnull]
    tried = captured([*read, *copied])
    if tried.returncode:
        why = re.sub(r"^\[.*?\] ", "", (tried.stderr.strip().splitlines() or ["it says nothing"])[0])
        other = "" if target.suffix.lower() == ".mkv" else "; .mkv holds more kinds"
        raise Refused(f"--out {target} can't hold the audio of {source}, ffmpeg says: {why}{other}")


def mapped(streams: list[int]) -> list[str]:
    """ffmpeg's options for taking these streams of its first input."""
    return [word for stream in streams for word in ("-map", f"0:{stream}")]


# The file


@dataclass(frozen=True)
class Content:
    """What a file says about its frames: when they are shown, for HDR10 their light, and the source's primaries
    (ITU-T H.273), which tell a mastering display that had all of its colours.

    aspect: a pixel's width by its height. start: when the first frame is shown, as `start_of` has it.
    """

    timing: Timing
    levels: light.ClipLight | None
    primaries: int
    aspect: Fraction = Fraction(1)
    start: float | None = None

    @classmethod
    def of(
        cls, source: vs.VideoNode, durations: list[Fraction], levels: light.ClipLight | None, primaries: int
    ) -> Self:
        """From what the source's first frame says of all of them; to ask the expansion for it could take long."""
        with source.get_frame(0) as frame:
            aspect, start = fraction(frame.props, "_SAR") or Fraction(1), start_of(frame.props)
        return cls(Timing.of(durations, Fraction(source.fps)), levels, primaries, aspect, start)


def write(
    clip: vs.VideoNode, held: dict[int, Picture], wanted: Delivery, content: Content, source: Path, target: Path
) -> Generator[int]:
    """Encode a clip that `signal` returned to `target`, with what the file `source` has of audio, title and chapters.

    Yields how many frames are written.

    held: frames of it that are there already, taken out as they are used.

    Raises Failed where ffmpeg is missing or fails, with its last lines. The target is there whole or not at all.
    """
    programs = find_programs()
    sweep(target.parent, f"{target.suffix}.", older_than=STALE_SECONDS)
    mastering = None if content.levels is None else mastering_of(content.levels, content.primaries, wanted.look.peak)
    times = content.timing
    transfer = 18 if wanted.hlg else 16
    track = matroska.Track(clip.width, clip.height, content.aspect, transfer, times.constant, mastering)
    # from frames of 16683333 ns alone, ffmpeg takes 60000/1001 frames a second for 19001/317
    constant = [] if times.constant is None else ["-r", str(1 / times.constant)]
    command = [programs.ffmpeg, "-hide_banner", "-nostats", "-v", "error", "-y"]
    delay = Fraction(0)
    if is_video(source):  # first, because title and chapters are taken from the first input
        found = beside(programs, source, content.start)
        delay = found.delay
        command += ["-i", str(source.resolve()), *constant, *PIPE]
        command += ["-map", "1:v", *mapped(found.audio)]
    else:
        command += [*constant, *PIPE, "-map", "0:v"]
    unit = times.unit(delay)
    if delay:  # by a filter: -itsoffset does nothing beside -r
        later = delay // unit
        command += ["-vf", f"settb={unit.numerator}/{unit.denominator},setpts=PTS+{later}"]
    command += ["-fps_mode", "passthrough", *encoder(content, wanted), "-preset", "medium", "-crf", f"{wanted.crf:g}"]
    command += ["-enc_time_base", f"{unit.numerator}:{unit.denominator}", *container(target)]
    if target.suffix.lower() == ".mp4":
        command += ["-movflags", "+faststart"]  # players on the web begin before they have all of it
    with replacing(target) as part:
        yield from feed([*command, str(part.absolute())], clip, held, track, times)


def container(target: Path) -> list[str]:
    """ffmpeg's options for the file around the streams, and for audio that goes into it as it is."""
    options = ["-c:a", "copy", "-f", CONTAINERS[target.suffix.lower()]]
    if target.suffix.lower() == ".mp4":
        # Apple's players open no hev1; older ffmpegs call FLAC and TrueHD in .mp4 experimental
        options += ["-tag:v", "hvc1", "-strict", "experimental"]
    return options


def encoder(content: Content, wanted: Delivery) -> list[str]:
    """ffmpeg's options for the video: codec, colour, metadata."""
    if content.levels is not None:
        options = light.encoder_arguments(content.levels, content.primaries, wanted.look.peak).ffmpeg_x265
    else:
        transfer = "arib-std-b67" if wanted.hlg else "smpte2084"
        tags = {"-color_primaries": "bt2020", "-color_trc": transfer, "-colorspace": "bt2020nc", "-color_range": "tv"}
        colour = f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc:range=limited:chromaloc=2"
        words = [word for tag in tags.items() for word in tag]
        options = ["-c:v", "libx265", *words, "-x265-params", f"{colour}:repeat-headers=1"]
    # without a rate, from which HEVC's level follows, ffmpeg takes large frames for a thousand million a second
    rate = content.timing.rate
    return [*options[:-1], f"{options[-1]}:fps={rate.numerator}/{rate.denominator}:log-level=error"]


def mastering_of(levels: light.ClipLight, primaries: int, peak: float) -> matroska.Mastering:
    """The metadata that `light.encoder_arguments` gives the encoder, for the container."""
    cll, fall = (max(1, round(nits)) for nits in (levels.max_cll, levels.max_fall))
    display = CHROMATICITIES[light.mastering_primaries(primaries)]
    return matroska.Mastering(display, peak or cll, light.MASTERING_BLACK_NITS, cll, fall)


def feed(
    command: list[str], clip: vs.VideoNode, held: dict[int, Picture], track: matroska.Track, times: Timing
) -> Generator[int]:
    """Run a program that reads the clip as a Matroska stream; yields how many frames it has been given.

    Raises Failed with the program's last lines where it fails. Whoever stops in between ends the program.
    """
    others = [n for n in range(clip.num_frames) if n not in held]
    with (
        tempfile.TemporaryFile() as words,
        # In a group of its own: Ctrl-C is ours to answer, and the terminal would send it to the child as well.
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=words,
            process_group=0,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same for Windows
        ) as program,
    ):
        assert program.stdin is not None
        whole = False
        try:
            with closing(requested(clip, others)) as frames:
                program.stdin.write(matroska.header(track))
                for n, (start, duration) in enumerate(zip(times.starts, times.durations, strict=True)):
                    picture = held.pop(n, None) or planes(next(frames)[1])
                    size = sum(plane.nbytes for plane in picture)
                    program.stdin.write(matroska.frame_header(start, duration, size))
                    for plane in picture:
                        program.stdin.write(plane.data)
                    yield n + 1
            program.stdin.close()
            whole = True
        except BaseException as error:
            # where it has ended, which Windows calls an invalid argument now and then, it says why
            if not isinstance(error, OSError) or error.errno not in (errno.EPIPE, errno.EINVAL):
                program.kill()
                raise
        finally:
            with suppress(OSError):
                program.stdin.close()
        failed = program.wait() or not whole
        words.seek(0)
        said = words.read().decode(errors="replace")
        if failed or any(word in said for word in UNFINISHED):
            raise Failed(f"ffmpeg failed: {last_lines(said)}")


def last_lines(said: str) -> str:
    """The end of what a program said, in one line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return "; ".join(lines[-LAST_LINES:]) or "it says nothing"
