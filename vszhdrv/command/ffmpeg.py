"""Frames into an ffmpeg child process: HDR10 and HLG files that play.

Apart from the command line because arguments and words are one subject and encoding another. ffmpeg gets raw frames
with timestamps on its standard input (matroska.py), copies the source's audio beside them, and writes under a temporary
name: the target is there whole or not at all.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from vszhdrv import light
from vszhdrv.errors import Failed, Refused
from vszhdrv.exr import CHROMATICITIES, fraction
from vszhdrv.files import replacing, sweep

from . import matroska, probing, timing
from .delivery import Delivery, Picture, planes
from .probing import TEXT_SUBTITLES, captured
from .runs import requested
from .timing import Timing

if TYPE_CHECKING:
    import vapoursynth as vs

CONTAINERS = {".mkv": "matroska", ".mp4": "mp4"}
PIPE = ("-f", "matroska", "-i", "pipe:0")
"""ffmpeg's options for the pictures, which come on its standard input."""
FINEST_UNIT = 10_000
"""An .mp4 of a variable rate counts at least so many units a second."""
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


def timing_of_frames(
    source: vs.VideoNode, take: Callable[[NDArray[Any]], None] | None = None
) -> Generator[int, None, Timing]:
    """The timing that the frames' own properties tell, of a clip whose file says no more; yields how many are read.

    By `_AbsoluteTime`, where every frame has one that is later than the one before; else by `_DurationNum` and
    `_DurationDen`, and a frame without them lasts as long as the one before. `take`, if given, gets every plane, since
    they are all read here.
    """
    duration = 1 / Fraction(source.fps) if source.fps else Fraction(1, 24)
    durations: list[Fraction] = []
    stamps: list[Fraction] = []
    with closing(requested(source, range(source.num_frames))) as frames:
        for _, frame in frames:
            duration = fraction(frame.props, "_Duration") or duration
            durations.append(duration)
            if "_AbsoluteTime" in frame.props:
                stamps.append(Fraction(float(frame.props["_AbsoluteTime"])).limit_denominator(10**6))
            if take is not None:
                for plane in range(frame.format.num_planes):
                    take(np.ascontiguousarray(frame[plane]))
            yield len(durations)
    start = stamps[0] if stamps else None
    if len(stamps) == len(durations) and all(before < after for before, after in pairwise(stamps)):
        durations = [*(after - before for before, after in pairwise(stamps)), duration]
    return replace(Timing.of(durations, Fraction(source.fps)), start=start)


@dataclass(frozen=True)
class Beside:
    """What a source file has beside its pictures, and what of it goes into the target.

    audio: numbers of the streams of audio that ffmpeg knows. text: subtitles that are text, by number, with their
    codec's name. fonts: whether it has attachments, which subtitles may need. left_out: a sentence for each stream that
    nobody can copy, such as the spatial audio that phones record beside a stream of stereo. delay: the seconds by which
    the first picture is later than the first stream begins, which is where ffmpeg counts from. moves: for each stream
    of audio in a file whose clock jumps, from which packet on its times are to be moved by how many seconds.
    """

    audio: list[int]
    text: dict[int, str]
    fonts: bool
    left_out: list[str]
    delay: Fraction
    moves: list[list[tuple[int, Fraction]]] = field(default_factory=list)


def beside(source: Path, shown: Timing | None = None) -> Beside:
    """shown: when the pictures are shown, by the file's own clock, as far as that is known.

    Raises Failed where ffprobe can't read `source`.
    """
    probe = probing.probe(source)
    if probe is None:
        raise Failed(f"ffprobe can't read {source}")
    audio: list[int] = []
    text: dict[int, str] = {}
    left_out = []
    for stream in probe.streams:
        kind, codec, number = stream.get("codec_type"), stream.get("codec_name", "unknown"), int(stream["index"])
        if kind == "audio" and codec != "unknown":
            audio.append(number)
        elif kind == "audio":
            left_out.append(f"stream {number} of {source} is left out: audio of a kind that ffmpeg does not know")
        elif kind == "subtitle" and codec in TEXT_SUBTITLES:
            text[number] = codec
        elif kind == "subtitle":
            left_out.append(f"stream {number} of {source} is left out: subtitles that are no text ({codec})")
    start = probing.seconds(probe.video, "start_time") or probe.begin
    moves: list[list[tuple[int, Fraction]]] = []
    if shown is not None and shown.start is not None:
        start = shown.start
        moves = [moves_of(probe, number, shown) for number in audio] if shown.jumps else []
    fonts = bool(probe.of_kind("attachment"))
    return Beside(audio, text, fonts, left_out, max(start - probe.begin, Fraction(0)), moves)


def moves_of(probe: probing.Probe, number: int, shown: Timing) -> list[tuple[int, Fraction]]:
    """From which packet on a stream of audio is to be moved, and by how many seconds, to follow the pictures.

    Its packets jump where the clock does, and are moved as the pictures are: both keep step across the jump.
    """
    (stream,) = (stream for stream in probe.streams if stream["index"] == number)
    stamps = [packet.pts for packet in probe.packets(stream)]
    if any(stamp is None for stamp in stamps) or len(stamps) < 2:
        return []
    _, found = timing.without_jumps([stamp for stamp in stamps if stamp is not None], may_jump=True)
    if len(found) == len(shown.jumps):
        return [(own.frame, jump.shift) for own, jump in zip(found, shown.jumps, strict=True)]
    return [(own.frame, own.shift) for own in found]


def check_streams(programs: Programs, source: Path, target: Path, say: Callable[[str], None]) -> None:
    """Raises Refused, one sentence, where `target`'s container can't hold the audio of `source`, if it has any.

    By a copy of its beginning to nowhere: ffmpeg itself would say so only after training and measuring.
    `say` gets a sentence for each stream that nobody could copy.
    """
    found = beside(source)
    for sentence in found.left_out:
        say(sentence)
    if not found.audio:
        return
    read = [programs.ffmpeg, "-nostdin", "-hide_banner", "-v", "error", "-i", str(source.resolve())]
    copied = [*mapped(found.audio), "-frames:a", "1", *container(target), "-y", os.devnull]
    tried = captured([*read, *copied])
    if tried.returncode:
        why = re.sub(r"^\[.*?\] ", "", (tried.stderr.strip().splitlines() or ["it says nothing"])[0])
        other = "" if target.suffix.lower() == ".mkv" else "; .mkv holds more kinds"
        raise Refused(f"--out {target} can't hold the audio of {source}, ffmpeg says: {why}{other}")


def mapped(streams: Sequence[int]) -> list[str]:
    """ffmpeg's options for taking these streams of its first input."""
    return [word for stream in streams for word in ("-map", f"0:{stream}")]


def subtitles(found: Beside, target: Path) -> list[str]:
    """ffmpeg's options for the subtitles that are text: as they are in .mkv, mov_text in .mp4."""
    options = mapped(list(found.text))
    mkv = target.suffix.lower() == ".mkv"
    for place, codec in enumerate(found.text.values()):
        kept = "copy" if codec in ("subrip", "ass", "ssa", "webvtt") else "srt"
        options += [f"-c:s:{place}", kept if mkv else "mov_text"]
    if mkv and found.fonts and found.text:
        options += ["-map", "0:t", "-c:t", "copy"]
    return options


def within(found: Beside, length: Fraction) -> list[str]:
    """ffmpeg's options that leave out subtitles which begin before a part of the pictures, or after its `length`."""
    outside = f"lt(pts\\,0)+gt(pts*tb\\,{float(length):.6f})"
    return ["-bsf:s", f"noise=drop={outside}"] if found.text else []


def moved(found: Beside) -> list[str]:
    """ffmpeg's options for streams of audio that follow their file's clock across its jumps."""
    options = []
    for place, moves in enumerate(found.moves):
        if moves:
            shift = "+".join(f"gte(N\\,{packet})*({float(seconds):.6f})" for packet, seconds in moves)
            options += [f"-bsf:a:{place}", f"setts=pts=PTS+round(({shift})/TB):dts=DTS+round(({shift})/TB)"]
    return options


# The file


@dataclass(frozen=True)
class Content:
    """What a file says about its frames: when they are shown, for HDR10 their light, and the source's primaries
    (ITU-T H.273), which tell a mastering display that had all of its colours.

    aspect: a pixel's width by its height. cut: whether they are a part of the source's.
    """

    timing: Timing
    levels: light.ClipLight | None
    primaries: int
    aspect: Fraction = Fraction(1)
    cut: bool = False

    @classmethod
    def of(
        cls, source: vs.VideoNode, times: Timing, levels: light.ClipLight | None, primaries: int, *, cut: bool = False
    ) -> Self:
        """From what the source's first frame says of all of them; to ask the expansion for it could take long."""
        with source.get_frame(0) as frame:
            aspect = fraction(frame.props, "_SAR") or Fraction(1)
        return cls(times, levels, primaries, aspect, cut)


def write(
    clip: vs.VideoNode,
    held: dict[int, Picture],
    wanted: Delivery,
    content: Content,
    source: Path | None,
    target: Path,
) -> Generator[int]:
    """Encode a clip that `signal` returned to `target`, with what the file `source` has of audio, subtitles that are
    text, title and chapters; None: nothing.

    Yields how many frames are written.

    held: frames of it that are there already, taken out as they are used.

    Raises Failed where ffmpeg is missing or fails, with its last lines. The target is there whole or not at all.
    """
    programs = find_programs()
    sweep(target.parent, f"{target.suffix}.", older_than=STALE_SECONDS)
    mastering = None if content.levels is None else mastering_of(content.levels, content.primaries, wanted.look.peak)
    times = content.timing.held_by_two()
    transfer = 18 if wanted.hlg else 16
    track = matroska.Track(clip.width, clip.height, content.aspect, transfer, times.constant, mastering)
    # from frames of 16683333 ns alone, ffmpeg takes 60000/1001 frames a second for 19001/317
    constant = [] if times.constant is None else ["-r", str(1 / times.constant)]
    command = [programs.ffmpeg, "-hide_banner", "-nostats", "-v", "error", "-y"]
    delay = Fraction(0)
    if source is not None:  # first, because title and chapters are taken from the first input
        found = beside(source, times)
        if content.cut:
            command += ["-ss", f"{float(found.delay):.6f}", "-t", f"{float(times.total):.6f}"]
        else:
            delay = found.delay
        if found.moves:
            command += ["-copyts", "-start_at_zero"]
        command += ["-i", str(source.resolve()), *constant, *PIPE]
        command += ["-map", "1:v", *mapped(found.audio), *moved(found), *subtitles(found, target)]
        if content.cut:  # else packets come along from the key frame before, and the sound begins early
            command += ["-copypriorss", "0", *within(found, times.total)]
    else:
        command += [*constant, *PIPE, "-map", "0:v"]
    unit = unit_of_time(times, delay, target)
    if delay:  # by a filter: -itsoffset does nothing beside -r
        later = delay // unit
        command += ["-vf", f"settb={unit.numerator}/{unit.denominator},setpts=PTS+{later}"]
    command += ["-fps_mode", "passthrough", *encoder(content, wanted), "-preset", "medium", "-crf", f"{wanted.crf:g}"]
    command += [
        "-enc_time_base",
        f"{unit.numerator}:{unit.denominator}",
        *last_packet(times, delay),
        *container(target),
    ]
    if target.suffix.lower() == ".mp4":
        if times.constant is None:
            command += ["-video_track_timescale", str(unit.denominator)]
        command += ["-movflags", "+faststart"]  # players on the web begin before they have all of it
    with replacing(target) as part:
        yield from feed([*command, str(part.absolute())], clip, held, track, times)


def unit_of_time(times: Timing, delay: Fraction, target: Path) -> Fraction:
    """The unit that the encoder counts time in. Where the rate varies it is the file's, which `last_packet` needs."""
    unit = times.unit(delay)
    if times.constant is not None:
        return unit
    if target.suffix.lower() == ".mkv":
        return Fraction(1, 1000)
    scale = unit.denominator
    while scale < FINEST_UNIT:
        scale *= 2
    return Fraction(1, scale)


def last_packet(times: Timing, delay: Fraction) -> list[str]:
    """ffmpeg's options that say how long the last packet lasts, where the rate does not.

    Without, ffmpeg 5.1 gives the last sample of an .mp4 no duration, and decoders drop it.
    """
    if times.constant is not None or len(times.durations) < 2:
        return []
    since = delay + times.total - times.durations[-1] - times.durations[-2] / 2
    last, usual = times.durations[-1], min(times.durations)
    last_ones = f"if(gte(PTS*TB\\,{float(since):.6f})\\,{float(last):.6f}/TB\\,max(DURATION\\,{float(usual):.6f}/TB))"
    return ["-bsf:v", f"setts=pts=PTS:dts=DTS:duration={last_ones}"]


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
                    if n < clip.num_frames:  # else the last one is shown once more
                        picture = held.pop(n) if n in held else planes(next(frames)[1])
                    size = sum(plane.nbytes for plane in picture)
                    program.stdin.write(matroska.frame_header(start, duration, size))
                    for plane in picture:
                        program.stdin.write(plane.data)
                    yield min(n + 1, clip.num_frames)
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
