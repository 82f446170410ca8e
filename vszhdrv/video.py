"""Frames into an ffmpeg child process: HDR10 and HLG files that play, and the measuring that HDR10 needs first.

Apart from the command line because arguments and words are one subject and encoding another. ffmpeg gets raw frames
with timestamps on its standard input (matroska.py), copies the source's audio beside them, and writes under a temporary
name: the target is there whole or not at all.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import secrets
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

from vszhdrv import __version__, light, matroska
from vszhdrv.exr import CHROMATICITIES, ROUNDING, fraction, sweep
from vszhdrv.runs import requested
from vszhdrv.sources import captured, is_video, start_of
from vszhdrv.zhdrv import checkpoint

if TYPE_CHECKING:
    import vapoursynth as vs

    from vszhdrv import Job

CONTAINERS = {".mkv": "matroska", ".mp4": "mp4"}
PIPE = ("-f", "matroska", "-i", "pipe:0")
"""ffmpeg's options for the pictures, which come on its standard input."""
PEAK_NITS = 1000.0
"""Highlights of a file are rolled off below this, unless the user says otherwise: what most HDR displays reach."""
HLG_PEAK_NITS = 1000.0
"""The display for which HLG's signal is made: nominal peak of ITU-R BT.2100, where its system gamma is 1.2."""
HELD_BYTES = 2**30
"""Frames expanded while measuring are held for the encoder up to this much; the others are expanded again."""
CRF = 12.0
"""libx265's quality unless the user says otherwise. Its usual 18 to 22 are for SDR; HDR displays show more of what they
lose, and a file that was learned for minutes is a master rather than a copy."""
LAST_LINES = 3
"""So much of ffmpeg's last words enters an error."""
PART = ".vszhdrv-part"
"""What unfinished files have in their names, ..."""
STALE_SECONDS = 86400.0
"""... and how long one must have been untouched to be nobody's: slow frames keep an encoder waiting for hours."""
UNFINISHED = ("Error writing trailer", "Error closing file")
"""ffmpeg 5.1 says one of these where the disk is full, and calls it a success."""

LIT = "ZhdrvLit"
"""Frame property: where the frame is not black (FrameLight.lit), as computed beside PLSceneMax and PLSceneAvg."""

Picture = list[NDArray[np.uint16]]


@dataclass(frozen=True)
class Look:
    """How linear light becomes a signal.

    peak: nits that nothing exceeds; 0 = no limit. white: nits of SDR white. hlg: HLG, else PQ (HDR10). crf: libx265's
    quality, from 0 (best) to 51. strength: 0 to 1, between the linearised source and the full expansion, in stops.
    Raises ValueError, one sentence, where these don't go together.
    """

    peak: float
    white: float
    hlg: bool = False
    crf: float = CRF
    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.hlg and not self.white < self.peak <= HLG_PEAK_NITS:
            raise ValueError(
                f"peak must be over white ({self.white:g} nits) and at most {HLG_PEAK_NITS:g} nits for HLG, "
                f"not {self.peak:g}"
            )
        light.check_look(self.strength, self.peak, self.white)
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf must be from 0 to 51, not {self.crf:g}")


# The programs


@dataclass(frozen=True)
class Programs:
    """Where ffmpeg and ffprobe are."""

    ffmpeg: str
    ffprobe: str


def find_programs() -> Programs:
    """The system's ffmpeg, checked for what is needed of it.

    Raises RuntimeError where there is none, or an old one, or none that writes 10-bit HEVC.
    """
    ffmpeg, ffprobe = shutil.which("ffmpeg"), shutil.which("ffprobe")
    if ffmpeg is None or ffprobe is None:
        raise RuntimeError("--out needs the programs ffmpeg and ffprobe on PATH: install ffmpeg")
    for topic, word, needed in (
        ("long", "-fps_mode", "5.1 or newer"),
        ("encoder=libx265", "yuv420p10le", "with 10-bit libx265"),
    ):
        about = captured([ffmpeg, "-hide_banner", "-h", topic])
        if word not in about.stdout:
            raise RuntimeError(f"--out needs ffmpeg {needed}: {ffmpeg} is not enough")
    return Programs(ffmpeg, ffprobe)


# Linear light to signal


def graded(job: Job, look: Look, *, measured: bool) -> vs.VideoNode:
    """The clip's expansion of this strength, below the peak: RGBS, linear light, 1.0 = SDR white.

    `measured`: every frame carries its light levels as properties, for `measure`. They are computed where the frame is,
    because only there it is at hand.
    """
    if look.strength == 1 and not (look.peak or measured):
        return job.expand()

    def compute(expander: Any, planes: list[NDArray[Any]]) -> Any:
        hdr = light.looked(expander.expand_in_place, planes, look.strength, look.peak, look.white)
        if not measured:
            return hdr
        levels = light.frame_light(np.asarray(hdr), look.white, job.colour.primaries)
        return hdr, {"PLSceneMax": list(levels.scene_max), "PLSceneAvg": levels.avg_nits, LIT: list(levels.lit)}

    return job.expand(compute)


def signal(hdr: vs.VideoNode, look: Look) -> vs.VideoNode:
    """Linear RGBS (1.0 = SDR white, any primaries) as the 10-bit signal: YUV420P10, BT.2020, PQ or HLG, limited range.

    4:2:0 has no odd sizes: there the last column or row is repeated once. Chroma is sited top left, as BT.2020 has it.
    """
    import vapoursynth as vs

    if hdr.width % 2 or hdr.height % 2:
        width, height = (size + size % 2 for size in (hdr.width, hdr.height))
        hdr = hdr.resize.Point(width=width, height=height, src_width=width, src_height=height)
    if look.hlg:
        hdr = hlg(hdr, look.white)
    elif not look.peak:  # clipped in YUV, colours change their hue, and far above PQ's end resize returns black
        wide = hdr.resize.Bicubic(primaries=vs.PRIMARIES_BT2020)
        hdr = wide.std.Expr(f"x {light.PQ_MAX_NITS / look.white} min")
    return hdr.resize.Bicubic(
        format=vs.YUV420P10,
        matrix=vs.MATRIX_BT2020_NCL,
        primaries=vs.PRIMARIES_BT2020,
        transfer=vs.TRANSFER_ARIB_B67 if look.hlg else vs.TRANSFER_ST2084,
        range=vs.RANGE_LIMITED,
        chromaloc=vs.CHROMA_TOP_LEFT,
        nominal_luminance=look.white,
        dither_type="error_diffusion",
    )


def hlg(hdr: vs.VideoNode, white: float) -> vs.VideoNode:
    """Linear display light (RGBS, 1.0 = `white` nits) as HLG's R'G'B' in BT.2020 for the nominal display of 1000 nits.

    ITU-R BT.2100-2, table 5: the OOTF's inverse, E = F Y^((1 - g) / g) with g = 1.2 and F, Y relative to the peak, then
    the OETF. By hand because resize takes the gamma of each channel by itself, where the recommendation and displays
    take that of the luminance: pure blue would come out by a tenth too dark.
    """
    import vapoursynth as vs

    wide = hdr.resize.Bicubic(primaries=vs.PRIMARIES_BT2020)
    planes = wide.std.SplitPlanes()
    scale = white / HLG_PEAK_NITS
    luminance = f"x 0.2627 * y 0.6780 * + z 0.0593 * + {scale} * {2.0**-24} max"
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    encoded = []
    for name in "xyz":
        scene = f"{name} 0 max {scale} * {luminance} {(1 - 1.2) / 1.2} pow *"
        curve = f"{scene} dup {1 / 12} > swap dup 12 * {b} - {2.0**-24} max log {a} * {c} + swap 3 * sqrt ?"
        encoded.append(vs.core.std.Expr(planes, curve))
    joined = vs.core.std.ShufflePlanes(encoded, planes=[0, 0, 0], colorfamily=vs.RGB)
    return joined.std.CopyFrameProps(wide).std.SetFrameProps(_Transfer=vs.TRANSFER_ARIB_B67)


# Light levels


def light_key(job: Job, look: Look, pixels: str) -> str:
    """A name for a clip's light levels: of the network and of all else that decides them.

    pixels: a digest of every frame. The network is known by a few of them, but any may be the brightest.
    """
    assert job.trained is not None
    facts = {
        "pixels": pixels,
        "network": dict(job.trained.metadata),
        "n_exp": [job.config.n_exp_down, job.config.n_exp_up],
        "computing": job.computing.traces,
        "strength": look.strength,
        "peak": look.peak,
        "white": look.white,
        "version": __version__,
    }
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()


def measure(
    clip: vs.VideoNode, levels: light.ClipLight, held: dict[int, Picture] | None = None
) -> Generator[tuple[int, int]]:
    """Enter the light of the frames that `levels` misses; yields how many of how many.

    clip: what `graded` returned as measured, or the `signal` made of it. held: takes the frames' planes by their number
    until HELD_BYTES are full, so that an encoder need not ask for them again.
    """
    missing = levels.missing
    size = 0
    with closing(requested(clip, missing)) as frames:
        for done, (n, frame) in enumerate(frames, 1):
            red, green, blue = (float(nits) for nits in frame.props["PLSceneMax"])
            left, top, right, bottom = (int(edge) for edge in frame.props[LIT])
            average = float(frame.props["PLSceneAvg"])
            levels.add(
                n, light.FrameLight(max(red, green, blue), average, (red, green, blue), (left, top, right, bottom))
            )
            if held is not None and size < HELD_BYTES:
                held[n] = planes(frame)
                size += sum(plane.nbytes for plane in held[n])
            yield done, len(missing)


def planes(frame: vs.VideoFrame) -> Picture:
    """Copies of a frame's planes, without the padding of their rows."""
    return [np.array(np.asarray(frame[plane]), order="C") for plane in range(frame.format.num_planes)]


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

    Raises RuntimeError where ffprobe can't read `source`.
    """
    command = [programs.ffprobe, "-v", "error", "-of", "json", "-show_entries"]
    entries = "stream=index,codec_type,codec_name,start_time:format=start_time"
    probed = captured([*command, entries, str(source.resolve())])
    if probed.returncode:
        raise RuntimeError(f"ffprobe can't read {source}: {probed.stderr.strip()}")
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
    """Raises ValueError, one sentence, where `target`'s container can't hold the audio of `source`, if it has any.

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
        raise ValueError(f"--out {target} can't hold the audio of {source}, ffmpeg says: {why}{other}")


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
    clip: vs.VideoNode, held: dict[int, Picture], look: Look, content: Content, source: Path, target: Path
) -> Generator[int]:
    """Encode a clip that `signal` returned to `target`, with what the file `source` has of audio, title and chapters.

    Yields how many frames are written.

    held: frames of it that are there already, taken out as they are used.

    Raises RuntimeError where ffmpeg is missing or fails, with its last lines. The target is there whole or not at all.
    """
    programs = find_programs()
    sweep(target.parent, f".*{PART}{target.suffix}", older_than=STALE_SECONDS)
    part = target.with_name(f".{secrets.token_hex(8)}{PART}{target.suffix}")
    mastering = None if content.levels is None else mastering_of(content.levels, content.primaries, look.peak)
    times = content.timing
    transfer = 18 if look.hlg else 16
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
    command += ["-fps_mode", "passthrough", *encoder(content, look), "-preset", "medium", "-crf", f"{look.crf:g}"]
    command += ["-enc_time_base", f"{unit.numerator}:{unit.denominator}", *container(target)]
    if target.suffix.lower() == ".mp4":
        command += ["-movflags", "+faststart"]  # players on the web begin before they have all of it
    try:
        yield from feed([*command, str(part.absolute())], clip, held, track, times)
        checkpoint.put_in_place(part, target)
    finally:
        with suppress(OSError):  # what ffmpeg says of the folder says more
            part.unlink(missing_ok=True)


def container(target: Path) -> list[str]:
    """ffmpeg's options for the file around the streams, and for audio that goes into it as it is."""
    options = ["-c:a", "copy", "-f", CONTAINERS[target.suffix.lower()]]
    if target.suffix.lower() == ".mp4":
        # Apple's players open no hev1; older ffmpegs call FLAC and TrueHD in .mp4 experimental
        options += ["-tag:v", "hvc1", "-strict", "experimental"]
    return options


def encoder(content: Content, look: Look) -> list[str]:
    """ffmpeg's options for the video: codec, colour, metadata."""
    if content.levels is not None:
        options = light.encoder_arguments(content.levels, content.primaries, look.peak).ffmpeg_x265
    else:
        transfer = "arib-std-b67" if look.hlg else "smpte2084"
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

    Raises RuntimeError with the program's last lines where it fails. Whoever stops in between ends the program.
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
            raise RuntimeError(f"ffmpeg failed: {last_lines(said)}")


def last_lines(said: str) -> str:
    """The end of what a program said, in one line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return "; ".join(lines[-LAST_LINES:]) or "it says nothing"
