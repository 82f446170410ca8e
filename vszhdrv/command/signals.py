"""Signals that end the command line: caught before all else is imported, raised where they can be answered."""

import os
import signal
import time
from types import FrameType

INTERRUPTED = 130
"""The exit code of a command that a signal has ended."""
IMPATIENCE_SECONDS = 2.0
"""Signals that follow the first this closely are the same wish."""

_caught: list[int] = []
"""The numbers of the signals that `_on_signal` answers."""
_first: float | None = None
"""When the first of them came."""
_raising = False


def catch() -> None:
    """Note signals from now on, instead of what Python does with them."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup's stays ignored
            signal.signal(number, _on_signal)
            _caught.append(number)


def answer() -> None:
    """From now on, the first signal raises KeyboardInterrupt; now, if it has come already."""
    global _raising
    _raising = True
    if _first is not None:
        raise KeyboardInterrupt


def ignore() -> None:
    """From now on, signals change nothing, to the very end of Python: the work is done and its exit code is known."""
    for number in _caught:
        signal.signal(number, signal.SIG_IGN)


def interrupted() -> bool:
    """Whether a signal has ended the work. Libraries turn the KeyboardInterrupt into errors of their own."""
    return _first is not None


def _on_signal(_number: int, _frame: FrameType | None) -> None:
    """The first signal interrupts the work. While that is cleared away, more are ignored; a late one ends the process,
    which leaves no half file either."""
    global _first
    now = time.monotonic()
    if _first is None:
        _first = now
        if _raising:
            raise KeyboardInterrupt
    elif now - _first > IMPATIENCE_SECONDS:
        os._exit(INTERRUPTED)
