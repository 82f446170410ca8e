"""What is told of a long job: bars on terminals, lines elsewhere, seconds in words."""

import io
import re
import sys
import time
from types import ModuleType, SimpleNamespace

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
    clock = iter(n / 8 for n in range(1000))
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


# A whole job


def test_the_time_left_of_a_job_is_of_all_its_stages() -> None:
    whole = progress.Whole(["reading", "training", "expanding", "encoding"])
    assert whole.left("reading", 0.5, 3.0) is None  # nobody knows how long the training takes
    assert whole.left("training", 0.1, 50.0) == 50
    whole.expect({"expanding": 10.0, "encoding": 20.0, "anything else": 1000.0})
    assert whole.left("training", 0.1, 50.0) == 80
    assert whole.left("comparing", 0.1, 40.0) == 70
    assert whole.left("reading", 0.5, 1.0) == 70  # of a film's second place: a part of the training
    assert whole.left("training", 1.0, 0.0) == 30
    assert whole.left("expanding", 0.0, None) == 30
    assert whole.left("expanding", 0.5, 8.0) == 28  # by its own speed
    assert whole.left("encoding", 1.0, 0.0) == 0


def test_a_stage_that_has_begun_just_now_does_not_upset_the_time_left() -> None:
    whole = progress.Whole(["training", "expanding"])
    whole.expect({"expanding": 100.0})
    first = whole.left("expanding", 0.01, 2000.0)  # the first frame loads the network
    assert first is not None and 100 < first < 250


def test_without_an_estimate_a_stage_tells_of_itself() -> None:
    """As where the network is found in the cache."""
    whole = progress.Whole(["reading", "training", "expanding", "measuring for the report"])
    assert whole.left("expanding", 0.5, 7.0) == 7


def test_one_bar_for_a_whole_job_never_goes_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    lines: list[str] = []
    with Meters(lines.append, 10.0, whole=progress.Whole(["reading", "training", "expanding"])) as meters:
        for n in range(1, 4):
            now += 1
            meters.show("reading", n, 3)
        for n in range(1, 11):
            now += 1
            meters.show("training", n, 10, 10.0 - n)
        for n in range(1, 6):
            now += 1
            meters.show("expanding", n, 5)
    shown = capsys.readouterr().err
    shares = [int(share) for share in re.findall(r"(\d+)%\|", shown)]
    assert shares == sorted(shares) and shares[-1] == 100
    assert shown.count("\n") == 1  # one bar
    assert "training 10 of 10" in shown and "expanding 3 of 5" in shown and "2 s left" in shown


def test_a_message_goes_above_the_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from vszhdrv.command import process

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with process.one_bar(progress.Whole(["reading"])), process.meters() as meters:
        meters.show("reading", 1, 3)
        process.say("a sentence")
    lines = [line.split("\r")[-1] for line in capsys.readouterr().err.split("\n")]
    assert "zhdrv: a sentence" in lines


def test_a_process_that_has_imported_a_notebooks_kernel_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    shell = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not progress._shows_bars()
    shell.kernel = object()
    assert progress._shows_bars()
