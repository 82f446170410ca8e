"""How far a long job has come, for the command line and for the plugin: bars, lines, and seconds in words.

Everything goes to standard error or to whom the caller names: standard output belongs to the pipe.
"""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol


class Event(Protocol):
    """How far a training has come: `vszhdrv.Event`, as far as it is shown here."""

    @property
    def kind(self) -> str: ...
    @property
    def done(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def seconds_left(self) -> float | None: ...


def takes_about(event: Event) -> str:
    """The estimate of a training's time, in words."""
    return f"training takes about {duration(event.seconds_left or 0)}"


class Meters:
    """How far things are: a bar with the time left in a terminal or a notebook, elsewhere a line now and then.

    `tell` takes the lines, one in `line_seconds` and one at the end of a stage, if the last is `gap_seconds` ago.
    """

    def __init__(self, tell: Callable[[str], None], line_seconds: float, gap_seconds: float = 0.0) -> None:
        self._tell = tell
        self._line_seconds = line_seconds
        self._gap_seconds = gap_seconds
        self._kind = ""
        self._told = -math.inf
        self._bar: Any = None

    def __enter__(self) -> Meters:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def show(self, kind: str, done: int, total: int, seconds_left: float | None = None) -> None:
        """`done` of `total` frames or steps of the stage `kind`; a new stage closes the bar of the last."""
        if kind != self._kind:
            self.close()
            self._kind, self._started = kind, time.monotonic()
            if _shows_bars():
                from tqdm.auto import tqdm

                # Some terminals say that they have no columns and lines, and tqdm would believe them. In the last
                # column Windows begins a new line.
                screen = shutil.get_terminal_size()
                self._bar = tqdm(desc=kind, total=total, initial=done, ncols=screen.columns - 1, nrows=screen.lines)
        now = time.monotonic()
        if seconds_left is None and done:
            seconds_left = (now - self._started) / done * (total - done)
        if self._bar is not None:
            with suppress(OSError):  # the terminal is gone
                self._bar.update(done - self._bar.n)
        elif now >= (
            self._told + self._gap_seconds if done == total else max(self._started, self._told) + self._line_seconds
        ):
            self._told = now
            left = f", {duration(seconds_left)} left" if seconds_left and done < total else ""
            self._tell(f"{kind} {done} of {total}{left}")

    def follow(self, event: Event) -> None:
        """Show an event of a training; the estimate of its time is a line."""
        if event.kind == "estimate":
            self.close()
            self._tell(takes_about(event))
        else:
            self.show(event.kind, event.done, event.total, event.seconds_left)

    def close(self) -> None:
        if self._bar is not None:
            with suppress(OSError):
                self._bar.close()
        self._kind, self._bar = "", None


class Objects:
    """The same for programs: `emit` takes an object for each step of the way, at most one a second and the last."""

    SECONDS = 1.0

    def __init__(self, emit: Callable[[dict[str, object]], None]) -> None:
        self._emit = emit
        self._kind = ""
        self._told = -math.inf

    def __enter__(self) -> Objects:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def show(self, kind: str, done: int, total: int, seconds_left: float | None = None) -> None:
        """`done` of `total` frames or steps of the stage `kind`."""
        now = time.monotonic()
        if kind != self._kind or done == total or now >= self._told + self.SECONDS:
            self._kind, self._told = kind, now
            left = None if seconds_left is None else round(seconds_left, 1)
            self._emit({"event": "progress", "stage": kind, "done": done, "total": total, "seconds_left": left})

    def follow(self, event: Event) -> None:
        """Show an event of a training; the estimate of its time is a message."""
        if event.kind == "estimate":
            self.close()
            self._emit({"event": "message", "text": takes_about(event)})
        else:
            self.show(event.kind, event.done, event.total, event.seconds_left)

    def close(self) -> None:
        """A stage has ended."""
        self._kind = ""


def _shows_bars() -> bool:
    """Whether standard error is a terminal, or the output of a notebook's cell."""
    return sys.stderr is not None and (sys.stderr.isatty() or "ipykernel" in sys.modules)


def duration(seconds: float) -> str:
    """Seconds in words: 45 s, 3 min 20 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 2 * 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} days"
