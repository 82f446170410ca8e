"""The command line as a process among others: signals at any moment, streams that fail, words that never end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and /dev are POSIX's")

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")


def start(*words: str | Path, **streams: object) -> subprocess.Popen[str]:
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.Popen([sys.executable, "-m", "vszhdrv", *words], text=True, **given)  # type: ignore[call-overload, no-any-return]


def end(process: subprocess.Popen[str], seconds: float = 120) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        pytest.fail(f"hangs after {seconds} s")
    return process.returncode, out or "", err or ""


def cached(folder: Path) -> Path:
    """A cache with one network."""
    import torch

    from vszhdrv.store.store import Store

    with Store(folder, pytest.fail).training("a" * 32, lambda: None) as slot:
        assert slot.finish({"w": torch.ones(1)}, {"w": torch.ones(1)}, {"preset": "fast"}) is not None
    return folder


# Signals

BUSY = """
import sys, time
import vszhdrv.command.cli as cli
from vszhdrv.command import process, signals
signals.catch()
def busy(argv=None):
    try:
        print("at work", flush=True)
        time.sleep(30)
    finally:
        print("clearing", flush=True)
        end = time.monotonic() + 1
        while time.monotonic() < end:
            pass
def main(argv=None):
    try:
        busy()
    except BaseException as error:
        return cli.ended_by(error)
sys.exit(process.run(lambda: main))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_comes_again_while_things_are_cleared_away_is_the_same_wish(number: signal.Signals) -> None:
    command = [sys.executable, "-c", BUSY]
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    process.send_signal(number)
    assert process.stdout.readline() == "clearing\n"
    for _ in range(5):
        process.send_signal(number)
        time.sleep(0.05)
    code, _, err = end(process)
    assert code == 130 and err == "zhdrv: interrupted; the same command goes on from what is saved\n"


AT = """
import os, signal, sys
from vszhdrv.command import signals
number, moment = signal.Signals[sys.argv.pop(1)], sys.argv.pop(1)
def now(name):
    if name == moment:
        os.kill(os.getpid(), number)
catch, ignore, real = signals.catch, signals.ignore, signal.signal
def handler_set(one, handler):
    previous = real(one, handler)
    now("handler set" if handler is not signal.SIG_IGN else "handler taken away")
    return previous
signal.signal = handler_set
def ignored():
    now("work done")
    ignore()
signals.ignore = ignored
signals.catch()
now("imports")
from vszhdrv.command import process
def load():
    now("loading")
    return lambda: now("work") or 0
code = process.run(load)
now("ended")
sys.exit(code)
"""


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    "moment", ["handler set", "imports", "loading", "work", "work done", "handler taken away", "ended", ""]
)
def test_a_signal_at_any_moment_is_an_interruption_or_too_late(number: str, moment: str) -> None:
    done = subprocess.run([sys.executable, "-c", AT, number, moment], capture_output=True, text=True, timeout=60)
    if number == "SIGTERM" and moment == "handler set":  # it comes while SIGINT alone is caught
        assert done.returncode in (130, -signal.SIGTERM)
    elif moment == "handler taken away":  # SIGINT is ignored by then, SIGTERM not yet
        assert done.returncode == (0 if number == "SIGINT" else 130)
    else:
        assert done.returncode == (0 if moment in ("ended", "") else 130)
    assert "Traceback" not in done.stderr
    assert done.stderr == ("zhdrv: interrupted\n" if done.returncode == 130 else "")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_program_is_loaded_is_an_interruption(tmp_path: Path, number: signal.Signals) -> None:
    """From the first line of ours: before it, Python itself starts, and answers as Python does."""
    (tmp_path / "a.png").touch()
    for wait in (0.0, 0.2, 0.5, 1.0, 2.0):
        process = start(tmp_path, "--cache=", stderr=subprocess.PIPE)
        ready = f"/proc/{process.pid}/status"
        while not caught(ready, number) and process.poll() is None:
            time.sleep(0.005)
        time.sleep(wait)
        process.send_signal(number)
        code, _, err = end(process)
        assert code == 130 or "INPUT" in err or "a.png" in err, (wait, code, err)  # it may have been faster
        assert "Traceback" not in err


def caught(status: str, number: int) -> bool:
    """Whether a process has a handler of its own for a signal. SIGTERM has none in Python."""
    try:
        line = next(line for line in Path(status).read_text().splitlines() if line.startswith("SigCgt"))
    except (OSError, StopIteration):
        return False
    return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


# Standard streams


@needs_full
def test_a_full_standard_output_is_one_sentence(tmp_path: Path) -> None:
    with FULL.open("w") as full:
        code, _, err = end(start("cache", "list", "--cache", cached(tmp_path), stdout=full))
    assert (code, err) == (1, "zhdrv: standard output can't be written: No space left on device\n")


def test_a_reader_that_goes_away_has_read_enough(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    code, _, err = end(start("cache", "list", "--cache", cached(tmp_path), stdout=writing))
    os.close(writing)
    assert code == 0 and err.count("\n") == 1 and err.startswith("zhdrv: 1 network, ")


@needs_full
def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    with FULL.open("w") as full:
        code, out, _ = end(start("cache", "list", "--cache", cached(tmp_path), stderr=full))
    assert code == 0 and out.startswith("a" * 32)


@pytest.mark.parametrize("number", [1, 2])
def test_a_closed_stream_is_no_place_for_the_next_file(tmp_path: Path, number: int) -> None:
    cached(tmp_path)
    command = [sys.executable, "-m", "vszhdrv", "cache", "list", "--cache", str(tmp_path)]
    process = subprocess.Popen(
        ["sh", "-c", f'exec "$@" {number}>&-', "sh", *command],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    code, out, err = end(process)
    assert code == 0 and "Traceback" not in err
    assert (out == "") == (number == 1)


# Words


@pytest.mark.parametrize(
    "words",
    [
        ["--fps", "1e999999999"],
        ["--fps", "1/1e9"],
        ["--fps", "9" * 5000],
        ["--fps", "1/0"],
        ["--tile", "9" * 5000 + "x64"],
        ["--train_range", "0-" + "9" * 5000],
        ["--epochs", "9" * 5000],
        ["--crf", "1e999999999"],
        ["--peak", "9" * 5000],
    ],
)
def test_no_number_that_is_typed_keeps_the_program_busy(words: list[str]) -> None:
    begun = time.monotonic()
    code, _, err = end(start("nowhere.mp4", *words), 90)
    assert code == 2 and err.count("\n") == 1 and err.startswith("zhdrv: ") and "Traceback" not in err
    assert time.monotonic() - begun < 90
