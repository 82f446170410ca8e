"""What is told of a long job: bars on terminals, lines elsewhere, seconds in words."""

import re
import sys
import time

import pytest

from vszhdrv import progress
from vszhdrv.progress import Meters, duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (45, "45 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7800, "2 h 10 min"), (400_000, "4 days")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Meters(lines.append, 10.0) as meters:
        meters.show("reading", 1, 2)
        meters.show("reading", 2, 2)
        meters.show("training", 5, 10)
    out, err = capsys.readouterr()
    assert out == "" and not lines and "reading: 100%" in err and "training:  50%" in err


def test_a_bar_that_begins_in_the_middle_does_not_take_what_was_done_before_for_speed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Meters(lambda _: None, 10.0) as meters:
        meters.show("training", 1601, 2000)
        time.sleep(0.5)
        meters.show("training", 1602, 2000)
    left = re.findall(r"1602/2000 \[00:0\d<(\d\d):", capsys.readouterr().err)
    assert left and int(left[-1]) >= 3  # half a second each


def test_lines_elsewhere_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with Meters(lines.append, 10.0) as meters:
        for n in range(1, 8):
            meters.show("training", n, 7, 7.0 - n)
    assert lines[-1] == "training 7 of 7"
    assert 2 <= len(lines) <= 4 and all(line.endswith("s left") for line in lines[:-1])


def test_stages_that_are_over_at_once_are_told_of_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[tuple[float, str]] = []
    clock = iter(n / 10 for n in range(1000))
    now = 0.0

    def monotonic() -> float:
        nonlocal now
        now = next(clock)
        return now

    monkeypatch.setattr(progress.time, "monotonic", monotonic)
    with Meters(lambda line: lines.append((now, line)), 5.0, gap_seconds=1.0) as meters:
        for kind in ("scoring", "reading", "training"):
            for n in range(1, 6):
                meters.show(kind, n, 5)
    assert [line for _, line in lines] == ["scoring 5 of 5", "training 5 of 5"]
    assert lines[1][0] - lines[0][0] >= 1
