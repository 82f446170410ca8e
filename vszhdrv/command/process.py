"""The command line's process: how it starts and ends, and standard streams that fail.

Apart from cli.py because this must be there before the rest is imported: a signal may come in the first second.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from vszhdrv.progress import Meters, Objects, Whole

from . import signals

_json = False
_job: Meters | Objects | None = None
"""What tells how far the whole job is, while there is one."""
_whole: Whole | None = None
"""The job's time, while there is one."""

LINE_SECONDS = 10.0
"""How often progress is told where standard error is not a terminal."""


def run(load: Callable[[], Callable[[], int]]) -> int:
    """Run the command line that `load` imports, on sys.argv, and return its exit code.

    A signal that `signals.catch` has noted is answered here; after the work signals are ignored.
    """
    _open_streams()
    try:
        try:
            signals.answer()
            code = load()()
        except SystemExit as end:  # argparse's
            code = end.code if isinstance(end.code, int) else 1
        signals.ignore()
    except KeyboardInterrupt:
        say("interrupted")
        code = signals.INTERRUPTED
        signals.ignore()
    return code if _written(sys.stdout) else code or 1


def speak_json(wanted: bool) -> None:
    """From now on, `say` writes objects for programs (--progress json), or lines for people."""
    global _json
    _json = wanted


def say(text: str, event: str = "message") -> None:
    """A sentence on standard error."""
    if _json:
        emit({"event": event, "text": text})
    elif isinstance(_job, Meters):
        with _job.aside():
            _print_to_stderr(f"zhdrv: {printable(text)}")
    else:
        _print_to_stderr(f"zhdrv: {printable(text)}")


def emit(content: Mapping[str, object]) -> None:
    """One object on a line of standard error."""
    _print_to_stderr(json.dumps(content))


@contextmanager
def meters() -> Iterator[Meters | Objects]:
    """What tells how far the work is: the job's, within `one_bar`."""
    if _job is not None:
        yield _job
        return
    with _meters(None) as made:
        yield made


@contextmanager
def one_bar(whole: Whole) -> Iterator[None]:
    """Meanwhile one bar, and one time left, are of the whole job."""
    global _job, _whole
    with _meters(whole) as made:
        _job, _whole = made, whole
        try:
            yield
        finally:
            _job = _whole = None


def expect(seconds: Mapping[str, float]) -> None:
    """Enter how long the stages of the whole job take, as Whole.expect; nothing outside of `one_bar`."""
    if _whole is not None:
        _whole.expect(seconds)


def _meters(whole: Whole | None) -> Meters | Objects:
    return Objects(emit, whole) if _json else Meters(say, LINE_SECONDS, whole=whole)


def _print_to_stderr(line: str) -> None:
    """A log that can't be written does not stop the work."""
    if sys.stderr is not None:  # as in a Windows program without a console
        try:
            print(line, file=sys.stderr, flush=True)
        except OSError:
            _silence(sys.stderr)


def tell(text: str) -> None:
    """A line on standard output. A reader that has gone away has read enough.

    Raises OSError, in one sentence, where it can't be written.
    """
    try:
        print(printable(text), flush=True)
    except BrokenPipeError:
        _silence(sys.stdout)
    except OSError as error:
        _silence(sys.stdout)
        raise OSError(f"standard output can't be written: {error.strerror}") from error


def printable(text: str) -> str:
    """The text without what a terminal would obey: names of files and headers of networks are others' words."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _open_streams() -> None:
    """Where a standard stream is closed, its number goes to nowhere: the next file would have it, and be printed to."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _written(stream: TextIO | None) -> bool:
    """Write what a stream still holds, which Python would do at the very end, and call a failure 120."""
    try:
        if stream is not None:
            stream.flush()
    except OSError as error:
        _silence(stream)
        if not isinstance(error, BrokenPipeError):
            say(f"standard output can't be written: {error.strerror}")
            return False
    return True


def _silence(stream: TextIO | None) -> None:
    """From now on, what is written to the stream goes to nowhere."""
    if stream is not None:
        handle = os.open(os.devnull, os.O_WRONLY)
        os.dup2(handle, stream.fileno())
        os.close(handle)
