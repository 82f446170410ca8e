"""What ffprobe says of a file: its streams, its packets' times, the flags of its frames.

Apart from sources.py because source filters and ffprobe are two witnesses of one file. Where ffprobe is not installed,
nothing is known from here, and nothing is made up.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

Stream = Mapping[str, Any]
TEXT_SUBTITLES = ("subrip", "srt", "ass", "ssa", "mov_text", "webvtt", "text")
"""Subtitles that are text, by ffmpeg's names; others are pictures."""
TAIL_SECONDS = 4
"""The last packets are looked for from so long before the last frame."""


def captured(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """What ffmpeg or ffprobe says, which is UTF-8 whatever the system's own encoding is."""
    return subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")


@dataclass(frozen=True)
class Packet:
    """One packet of a stream, in the file's order: times in seconds of the file's own clock, None where unknown."""

    pts: Fraction | None
    dts: Fraction | None
    duration: Fraction | None
    size: int


@dataclass(frozen=True)
class Flags:
    """What a video frame's own header says of its fields. repeat: half frames shown once more after it."""

    interlaced: bool
    repeat: int


@dataclass(frozen=True)
class Probe:
    """A file as ffprobe sees it."""

    ffprobe: str
    source: Path
    streams: Sequence[Stream]
    container: Stream

    def of_kind(self, kind: str) -> list[Stream]:
        """The streams of a kind: video, audio, subtitle, attachment."""
        # streams of unknown kinds, as broadcasts have them, have no codec_type
        return [stream for stream in self.streams if stream.get("codec_type") == kind]

    @cached_property
    def video(self) -> Stream:
        """The first video stream that is no cover picture; empty where there is none."""
        found = self.of_kind("video")
        moving = [stream for stream in found if not stream.get("disposition", {}).get("attached_pic")]
        return (moving or found or [{}])[0]

    @property
    def begin(self) -> Fraction:
        """When the first stream begins, which is where ffmpeg counts from."""
        return seconds(self.container, "start_time") or Fraction(0)

    def length(self, stream: Stream) -> Fraction | None:
        """How long a stream lasts in seconds, by what the file says of it; None: it does not."""
        if (known := seconds(stream, "duration")) is not None:
            return known
        clock = str(stream.get("tags", {}).get("DURATION", ""))  # Matroska's statistics, 00:00:02.000000000
        parts = clock.split(":")
        if len(parts) != 3 or not all(part.replace(".", "", 1).isdecimal() for part in parts):
            return None
        hours, minutes, rest = (Fraction(part) for part in parts)
        end = 3600 * hours + 60 * minutes + rest  # where it ends, as ffmpeg and others write it
        return end - (seconds(stream, "start_time") or 0)

    def packets(self, stream: Stream, since: Fraction | None = None) -> list[Packet]:
        """A stream's packets; `since`: those from about this time on. Reads the file, decodes nothing."""
        interval = [] if since is None else ["-read_intervals", f"{float(since):.3f}%"]
        entries = ["-show_entries", "packet=pts,dts,duration,size", "-of", "json=compact=1"]
        said = self._ask(*interval, "-select_streams", str(stream["index"]), *entries)
        unit = Fraction(stream.get("time_base", "0/1"))

        def time(packet: Mapping[str, Any], name: str) -> Fraction | None:
            return int(packet[name]) * unit if name in packet else None

        return [
            Packet(time(packet, "pts"), time(packet, "dts"), time(packet, "duration"), int(packet.get("size", 0)))
            for packet in json.loads(said or "{}").get("packets", [])
        ]

    def flags(self) -> Iterator[Flags]:
        """The flags of every frame of the video, in the order they are shown. Decodes all of it."""
        command = [self.ffprobe, "-v", "quiet", "-threads", "0", "-select_streams", str(self.video["index"])]
        command += ["-show_entries", "frame=interlaced_frame,repeat_pict", "-of", "compact=p=0", str(self.source)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8", errors="replace") as program:
            assert program.stdout is not None
            try:
                for line in program.stdout:
                    said = dict(word.split("=", 1) for word in line.strip().split("|") if "=" in word)
                    if "interlaced_frame" in said:
                        yield Flags(said["interlaced_frame"] == "1", int(said.get("repeat_pict", 0)))
            finally:
                program.kill()

    def _ask(self, *words: str) -> str:
        return captured([self.ffprobe, "-v", "quiet", *words, str(self.source)]).stdout


def probe(source: Path) -> Probe | None:
    """What ffprobe says of a file; None where it is not installed or can't read it."""
    if (ffprobe := shutil.which("ffprobe")) is None:
        return None
    path = source.resolve()
    asked = captured([ffprobe, "-v", "error", "-show_streams", "-show_format", "-of", "json", str(path)])
    if asked.returncode:
        return None
    found = json.loads(asked.stdout)
    return Probe(ffprobe, path, found.get("streams", []), found.get("format", {}))


def seconds(values: Mapping[str, Any], name: str) -> Fraction | None:
    """A time in seconds, or None where ffprobe does not know it."""
    text = values.get(name)
    return None if text in (None, "N/A") else Fraction(str(text))


def rate(stream: Stream, name: str) -> Fraction | None:
    """A rate such as 30000/1001, or None."""
    above, _, below = str(stream.get(name, "")).partition("/")
    if not (above.isdecimal() and below.isdecimal()) or not int(above) or not int(below):
        return None
    return Fraction(int(above), int(below))
