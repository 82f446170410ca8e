"""When frames are shown, by timestamps of every kind that files are known to have. No file is read here."""

from __future__ import annotations

from fractions import Fraction
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vszhdrv.command import timing
from vszhdrv.command.probing import Flags, Packet
from vszhdrv.command.timing import Hints, Jump, Timing

NTSC, FILM = Fraction(30000, 1001), Fraction(24000, 1001)


def milliseconds(times: list[float | Fraction]) -> list[Fraction]:
    """Times in seconds as Matroska has them."""
    return [Fraction(round(1000 * time), 1000) for time in times]


def found(stamps: list[Fraction], hints: Hints) -> tuple[Timing, list[str]]:
    said: list[str] = []
    return timing.of_timestamps(stamps, hints, "a.mkv", said.append), said


@pytest.mark.parametrize("rate", [FILM, NTSC, Fraction(25), Fraction(60)])
def test_rounded_times_are_of_their_rate(rate: Fraction) -> None:
    times, said = found(milliseconds([3 + n / rate for n in range(200)]), Hints([rate]))
    assert (times.constant, times.start, said) == (1 / rate, 3, [])


@pytest.mark.parametrize("first", [0, 1, 2, 3])
@pytest.mark.parametrize("rate", [NTSC, Fraction(30)])
def test_film_with_repeat_flags_has_the_rate_of_film(first: int, rate: Fraction) -> None:
    """Wherever its cadence begins."""
    cadence = [Fraction(2 + (n + first) % 2) / (2 * rate) for n in range(96)]
    times, _ = found(milliseconds(list(accumulate(cadence, initial=Fraction(0)))), Hints([rate]))
    assert times.constant == 1 / (Fraction(4, 5) * rate)


def test_film_and_video_by_turns_keep_their_own_times() -> None:
    """Half a second of video within film: no rate is right for both, and sound stays in step only by the times."""
    fields = [2, 3] * 12 + [2] * 15 + [2, 3] * 12
    stamps = milliseconds(list(accumulate((Fraction(each) / (2 * NTSC) for each in fields), initial=Fraction(0))))
    times, _ = found(stamps, Hints([NTSC]))
    assert times.constant is None
    assert times.starts == stamps
    assert times.steady([NTSC]) is None


def test_times_that_collide_are_spread() -> None:
    stamps = milliseconds([(n - (n % 4 == 3)) / 30 for n in range(60)])
    times, (said,) = found(stamps, Hints([Fraction(30)]))
    assert times.constant == Fraction(1, 30)
    assert said.startswith("a.mkv: 15 of 60 frames have no time of their own")


def test_several_frames_of_one_time_share_the_way_to_the_next_and_at_the_end_go_on() -> None:
    stamps = [Fraction(each, 10) for each in (0, 1, 1, 1, 4, 5, 5)]
    times, _ = found(stamps, Hints())
    assert times.starts == [Fraction(each, 10) for each in (0, 1, 2, 3, 4, 5, 6)]


@given(st.lists(st.integers(0, 20_000), min_size=2, max_size=30), st.booleans())
def test_whatever_the_timestamps_every_frame_is_shown_and_later_than_the_one_before(
    times_in_ms: list[int], may_jump: bool
) -> None:
    stamps = [Fraction(each, 1000) for each in times_in_ms]
    times, _ = found(stamps, Hints([FILM, Fraction(25), NTSC], may_jump=may_jump))
    assert len(times.durations) == len(stamps)
    assert all(duration > 0 for duration in times.durations)
    assert all(before < after for before, after in pairwise(times.starts))


@pytest.mark.parametrize("jump", [Fraction(1000), Fraction(-1000), Fraction(-2)])
def test_a_clock_that_is_set_anew_is_followed_without_its_jump(jump: Fraction) -> None:
    stamps = [2 + Fraction(n, 30) + (jump if n >= 45 else 0) for n in range(90)]
    times, (said,) = found(stamps, Hints([Fraction(30)], may_jump=True))
    assert times.constant == Fraction(1, 30) and times.total == 3
    assert times.jumps == (Jump(45, -jump),)
    assert said == "a.mkv: its clock jumps at frame 45; the jump is taken out of pictures and sound"


def test_a_long_pause_of_a_file_whose_clock_can_not_jump_stays() -> None:
    """As of a recording of a screen on which nothing happens."""
    stamps = [Fraction(n, 30) + (60 if n >= 45 else 0) for n in range(90)]
    times, said = found(stamps, Hints([Fraction(30)]))
    assert times.total == 63 and not said


def test_a_held_last_frame_is_held() -> None:
    stamps = [Fraction(n, 10) for n in range(10)]
    times, _ = found(stamps, Hints([Fraction(10)], last=Fraction(3)))
    assert times.total == Fraction(39, 10) and times.constant is None and times.steady([Fraction(10)]) == 10
    twice = times.held_by_two()
    assert twice.durations[-2:] == [Fraction(29, 10), Fraction(1, 10)] and twice.total == times.total
    assert times.part(range(2, 4)) == Timing([Fraction(1, 10)] * 2, Fraction(2, 10))


@pytest.mark.parametrize("last", [None, Fraction(0), Fraction(33, 1000), Fraction(40, 1000)])
def test_a_last_frame_whose_duration_is_not_known_or_not_special_is_as_the_others(last: Fraction | None) -> None:
    times, _ = found(milliseconds([n / NTSC for n in range(30)]), Hints([NTSC], last=last))
    assert times.constant == 1 / NTSC and times.held_by_two() is times


def packets(decoded: list[int], sizes: list[int] | None = None) -> list[Packet]:
    """Packets as .avi has them: with the number of their place alone."""
    every = sizes or [9] * len(decoded)
    return [Packet(None, Fraction(time, 30), Fraction(1, 30), size) for time, size in zip(decoded, every, strict=True)]


def test_frames_that_were_never_captured_leave_their_time_empty() -> None:
    places = [n for n in range(60) if not 20 <= n < 30]
    assert timing.of_packets(packets(places), 50, 0, Fraction(1, 30)) == [Fraction(n, 30) for n in places]
    sizes = [0 if 20 <= n < 30 else 9 for n in range(60)]
    assert timing.of_packets(packets(list(range(60)), sizes), 50, 0, Fraction(1, 30)) == [
        Fraction(n, 30) for n in places
    ]


def test_an_encoder_that_holds_frames_back_gives_each_packet_an_earlier_frames_time() -> None:
    shown = [n for n in range(60) if not 20 <= n < 30]
    decoded = [0, 1, *(time + 2 for time in shown[:-2])]
    assert timing.of_packets(packets(decoded), 50, 2, Fraction(1, 30)) == [Fraction(n, 30) for n in shown]


def test_packets_that_are_not_one_a_frame_tell_nothing() -> None:
    assert timing.of_packets(packets(list(range(9))), 10, 0, Fraction(1, 30)) is None
    assert timing.of_packets([], 0, 0, Fraction(1, 30)) is None
    nothing = [Packet(None, None, None, 9)] * 3
    assert timing.of_packets(nothing, 3, 0, Fraction(1, 30)) is None


def test_times_of_display_win_and_are_sorted() -> None:
    mixed = [Packet(Fraction(pts), Fraction(dts), None, 9) for dts, pts in enumerate((0, 3, 1, 2))]
    assert timing.of_packets(mixed, 4, 1, Fraction(1)) == [0, 1, 2, 3]


def test_without_timestamps_repeat_flags_tell_the_time() -> None:
    stamps = timing.of_flags([Flags(False, n % 2) for n in range(49)], NTSC)
    times, _ = found(stamps, Hints([NTSC]))
    assert times.constant == 1 / FILM


def test_lengths_that_disagree_are_told() -> None:
    said: list[str] = []
    ten = Timing([Fraction(1)] * 10)
    timing.compare_lengths(ten, {"by its header": Fraction("10.2"), "its sound": Fraction(12)}, "a.mkv", said.append)
    assert said == ["a.mkv: its pictures last 10.000 s, its sound 12.000 s"]
