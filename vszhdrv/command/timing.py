"""When every frame of a file is shown, and for how long: from its timestamps.

Apart from sources.py because opening a file and knowing its time are two subjects. Durations are differences of
timestamps, never the other way round. Where timestamps are missing, collide or jump, the rule is written here, and
`say` gets a sentence. No VapourSynth, no program: numbers in, numbers out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate, pairwise
from statistics import median_low
from typing import Self

from vszhdrv.exr import ROUNDING

from .probing import Flags, Packet

Say = Callable[[str], None]

JUMP_SECONDS = 10
"""A clock that is ahead by more, in a stream of the kind that may jump, was set anew; ffmpeg has the same limit."""
OVERTAKEN = 4
"""A frame that is no later than the ones before it is a slip of the writer, where one of so many next ones is later."""
HELD = Fraction(3, 2)
"""A last frame of a constant rate that lasts so many times as long as the others is held on purpose."""
FILM_IN_VIDEO = Fraction(4, 5)
"""24 pictures a second in 30: each second one's field is shown once more."""
USUAL_RATES = tuple(map(Fraction, ("24000/1001", "24", "25", "30000/1001", "30", "50", "60000/1001", "60")))
LENGTHS_DIFFER = Fraction(3, 10), Fraction(1, 100)
"""Lengths that differ by more than so many seconds and more than this share are worth a sentence."""


@dataclass(frozen=True)
class Jump:
    """Where a file's clock was set anew: frame number, and the seconds that all times from there are to be moved by."""

    frame: int
    shift: Fraction


@dataclass(frozen=True)
class Timing:
    """How long each frame is shown, in seconds.

    start: when the first one is, in seconds of the file's own clock; None: nobody tells. jumps: where that clock was
    set anew, which `durations` know nothing of any more.
    """

    durations: list[Fraction]
    start: Fraction | None = None
    jumps: tuple[Jump, ...] = ()

    @classmethod
    def of(cls, durations: list[Fraction], rate: Fraction) -> Self:
        """Durations of a clip of `rate` frames a second (0: unknown), and the rate's own where they are that, rounded.

        Matroska's timestamps, and those of others, are whole milliseconds: 41 and 42 ms by turns mean 24000/1001.
        """
        found = cls(durations)
        if rate and fits(found.starts, rate, ROUNDING):
            return cls([1 / rate] * len(durations))
        return found

    @property
    def starts(self) -> list[Fraction]:
        """When each frame is shown first; frame 0 at 0."""
        return list(accumulate(self.durations[:-1], initial=Fraction(0)))

    @property
    def total(self) -> Fraction:
        """How long all of it lasts."""
        return sum(self.durations, Fraction(0))

    @property
    def constant(self) -> Fraction | None:
        """The one duration of all frames; None where they differ."""
        return self.durations[0] if len(set(self.durations)) == 1 else None

    def steady(self, rates: Sequence[Fraction]) -> Fraction | None:
        """The rate by which numbers of frames tell the time, in frames a second: the only one, or one of these.

        A frame may be half a frame beside its time at that rate. How long the last one is held makes no difference.
        """
        if len(set(self.durations[:-1])) <= 1:
            return 1 / self.durations[0]
        return next((rate for rate in rates if fits(self.starts, rate, 1 / rate / 2)), None)

    @property
    def rate(self) -> Fraction:
        """Frames a second, on average, as encoders take it."""
        average = len(self.durations) / self.total
        return max(average.limit_denominator(1001), Fraction(1, 1001))

    def unit(self, delay: Fraction) -> Fraction:
        """The longest time that divides `delay` and every duration: in it all timestamps are whole numbers."""
        different = {delay, *self.durations}
        unit = Fraction(math.gcd(*(d.numerator for d in different)), math.lcm(*(d.denominator for d in different)))
        return unit if unit.denominator < 2**31 else Fraction(1, 1_000_000)  # ffmpeg's fractions are of 32 bits

    def held_by_two(self) -> Self:
        """The same where a held last frame is shown twice, for files that say nothing of a frame's duration."""
        if len(self.durations) < 2 or self.durations[-1] <= HELD * max(self.durations[:-1]):
            return self
        usual = median_low(self.durations[:-1])
        return replace(self, durations=[*self.durations[:-1], self.durations[-1] - usual, usual])

    def part(self, frames: range) -> Self:
        """The timing of some successive frames."""
        start = None if self.start is None else self.start + sum(self.durations[: frames.start], Fraction(0))
        return type(self)(self.durations[frames.start : frames.stop], start, ())


@dataclass(frozen=True)
class Hints:
    """What is known of a file's time beside its timestamps.

    rates: frames a second that it says or its source filter, likeliest first. last: how long the last frame is shown,
    None: unknown. may_jump: its clock may be set anew, as a transport stream's.
    """

    rates: Sequence[Fraction] = ()
    last: Fraction | None = None
    may_jump: bool = False


def of_timestamps(stamps: Sequence[Fraction], hints: Hints, name: str, say: Say) -> Timing:
    """The timing by the timestamps of all frames in the order of display, in seconds.

    Timestamps that are not later than those before are spread over the time to the next later one. A clock that jumps
    is followed without its jump. A constant rate is taken where all timestamps are those of one of `hints.rates`,
    rounded.
    """
    if len(stamps) == 1:
        duration = hints.last or (1 / hints.rates[0] if hints.rates else Fraction(1, 24))
        return Timing([duration], stamps[0])
    continuous, jumps = without_jumps(stamps, may_jump=hints.may_jump)
    if jumps:
        places = ", ".join(str(jump.frame) for jump in jumps[:5]) + (", ..." if len(jumps) > 5 else "")
        say(f"{name}: its clock jumps at frame {places}; the jump is taken out of pictures and sound")
    increasing, collided = spread(continuous, usual_step(continuous, hints))
    if collided:
        say(
            f"{name}: {collided} of {len(stamps)} frames have no time of their own, not later than the frame before; "
            "they are spread over the time to the next"
        )
    starts = [start - increasing[0] for start in increasing]
    usual = median_low([after - before for before, after in pairwise(starts)])
    last = usual if hints.last is None or hints.last <= 0 else hints.last
    rate = constant_rate(starts, hints.rates)
    if rate is not None:
        durations = [1 / rate] * len(starts)
        if last > HELD / rate:
            durations[-1] = last
        return Timing(durations, stamps[0], jumps)
    durations = [after - before for before, after in pairwise(starts)]
    return Timing([*durations, last], stamps[0], jumps)


def fits(starts: Sequence[Fraction], rate: Fraction, tolerance: Fraction) -> bool:
    """Whether times are those of a constant rate, each within the tolerance."""
    return all(abs(start - n / rate) <= tolerance for n, start in enumerate(starts))


def constant_rate(starts: Sequence[Fraction], rates: Sequence[Fraction]) -> Fraction | None:
    """The rate of all these times: one of `rates`, a usual one, or film in one of them; None where it varies."""
    own = next((rate for rate in rates if fits(starts, rate, ROUNDING)), None)
    if own is not None:
        return own
    usual = [rate for rate in USUAL_RATES if fits(starts, rate, ROUNDING)]
    if usual:
        return min(usual, key=lambda rate: max(abs(start - n / rate) for n, start in enumerate(starts)))
    return film(starts, [*rates, *USUAL_RATES])


def film(starts: Sequence[Fraction], rates: Sequence[Fraction]) -> Fraction | None:
    """The rate of film whose frames are shown for two and three half frames of video by turns; None: it is none.

    rates: those that the video may have. Soft telecine, by repeat flags: each frame is whole, 24 of them a second.
    """
    steps = [after - before for before, after in pairwise(starts)]
    for video in rates:
        field = 1 / (2 * video)
        cadence = all(min(abs(step - 2 * field), abs(step - 3 * field)) <= ROUNDING for step in steps)
        if cadence and len(steps) > 1 and fits(starts, FILM_IN_VIDEO * video, field + ROUNDING):
            return FILM_IN_VIDEO * video
    return None


def usual_step(stamps: Sequence[Fraction], hints: Hints) -> Fraction:
    """The time between two frames: the middle one of those that are later than the one before."""
    steps = [after - before for before, after in pairwise(stamps) if after > before]
    if steps:
        return median_low(steps)
    return 1 / hints.rates[0] if hints.rates else Fraction(1, 24)


def without_jumps(stamps: Sequence[Fraction], *, may_jump: bool) -> tuple[list[Fraction], tuple[Jump, ...]]:
    """The timestamps of a clock that was never set anew, and where it was.

    It was where it goes back for good, and, if it `may_jump`, where it is ahead by more than JUMP_SECONDS.
    """
    step = usual_step(stamps, Hints())
    continuous = [stamps[0]]
    jumps: list[Jump] = []
    shift = Fraction(0)
    for n in range(1, len(stamps)):
        time, highest = stamps[n] + shift, max(continuous[-OVERTAKEN:])
        ahead = may_jump and time - highest > JUMP_SECONDS
        next_ones = stamps[n + 1 : n + 1 + OVERTAKEN]
        back = time < highest - step and len(next_ones) == OVERTAKEN and all(t + shift <= highest for t in next_ones)
        if ahead or back:
            moved = highest + step - time
            shift += moved
            jumps.append(Jump(n, moved))
            time += moved
        continuous.append(time)
    return continuous, tuple(jumps)


def spread(stamps: Sequence[Fraction], step: Fraction) -> tuple[list[Fraction], int]:
    """Timestamps each later than the one before, and how many had to be changed for it."""
    found = list(stamps)
    changed = 0
    n = 1
    while n < len(found):
        if found[n] > found[n - 1]:
            n += 1
            continue
        later = next((k for k in range(n, len(found)) if found[k] > found[n - 1]), None)
        if later is None:  # to the end
            for k in range(n, len(found)):
                found[k] = found[k - 1] + step
            return found, changed + len(found) - n
        before, each = found[n - 1], (found[later] - found[n - 1]) / (later - n + 1)
        for k in range(n, later):
            found[k] = before + (k - n + 1) * each
        changed += later - n
        n = later
    return found, changed


def of_packets(packets: Sequence[Packet], frames: int, reordered: int, step: Fraction) -> list[Fraction] | None:
    """The timestamps of all frames by those of their packets, in order of display; None where they don't tell.

    By the packets' times of display, or, where a file has none (.avi), of decoding: an encoder that holds back
    `reordered` frames gives each packet the time of the frame so many before in order of display. Empty packets stand
    for frames that were never captured. step: seconds between two frames.
    """
    kept = [packet for packet in packets if packet.size]
    if len(kept) != frames or not kept:
        return None
    shown = [packet.pts for packet in kept if packet.pts is not None]
    if len(shown) == frames:
        return sorted(shown)
    decoded = [packet.dts for packet in kept if packet.dts is not None]
    if len(decoded) != frames or reordered >= frames:
        return None
    lead = decoded[reordered] - decoded[0]
    stamps = [time - lead for time in decoded[reordered:]]
    return stamps + [stamps[-1] + (n + 1) * step for n in range(reordered)]


def of_flags(flags: Sequence[Flags], rate: Fraction) -> list[Fraction]:
    """The timestamps of frames that have none, by their repeat flags: each lasts two half frames and the repeated."""
    return list(accumulate(((2 + each.repeat) / (2 * rate) for each in flags[:-1]), initial=Fraction(0)))


def compare_lengths(timing: Timing, lengths: dict[str, Fraction], name: str, say: Say) -> None:
    """A sentence for each other length, by its name, that is not about that of the pictures."""
    for what, length in lengths.items():
        seconds, share = LENGTHS_DIFFER
        if abs(length - timing.total) > max(seconds, share * length):
            say(f"{name}: its pictures last {float(timing.total):.3f} s, {what} {float(length):.3f} s")
