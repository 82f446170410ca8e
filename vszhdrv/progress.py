"""How far a long job has come, for the command line and for the plugin: bars, lines, and seconds in words.

Everything goes to standard error or to whom the caller names: standard output belongs to the pipe.
"""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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


TRAINING = ("training", "comparing")
"""Stages whose seconds left are those of all the training."""
SETTLED = 0.2
"""After this share of a stage its own speed alone tells how long the rest takes; before, the estimate has a part."""
BAR_SECONDS = 0.1
"""A bar of a whole job is drawn this often."""


class Whole:
    """The time of a whole job of several stages: what has passed, and what is left.

    stages: their kinds, in order. How long one takes is unknown until it is entered by `expect`, or it begins.
    """

    def __init__(self, stages: Sequence[str]) -> None:
        self._expected: dict[str, float | None] = dict.fromkeys(stages)
        self._begun = time.monotonic()
        self._training_left: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the job has begun."""
        return time.monotonic() - self._begun

    def expect(self, seconds: Mapping[str, float]) -> None:
        """Enter how long stages are going to take."""
        self._expected |= {kind: value for kind, value in seconds.items() if kind in self._expected}

    def left(self, kind: str, share: float, seconds_left: float | None) -> float | None:
        """Seconds until the job is done, None where nobody can tell yet.

        kind: the stage that `share` (0 to 1) is done of, and that has `seconds_left` by its own speed.
        """
        stages = list(self._expected)
        if kind in TRAINING:
            self._training_left = seconds_left
            kind = "training"
        elif "training" in stages and (kind not in stages or stages.index(kind) < stages.index("training")):
            # of a film's second place it is a part of the training; before the first, nobody knows
            kind, seconds_left = "training", self._training_left
        elif (expected := self._expected.get(kind)) is not None:
            by_speed = min(1.0, share / SETTLED) if seconds_left is not None else 0.0
            seconds_left = by_speed * (seconds_left or 0.0) + (1 - by_speed) * expected * (1 - share)
        if seconds_left is None:
            return None
        later = stages[stages.index(kind) + 1 :] if kind in stages else []
        return seconds_left + sum(self._expected[stage] or 0.0 for stage in later)


def takes_about(event: Event, whole: Whole | None = None) -> str:
    """The estimate of a training's time, and of the whole job's, in words."""
    text = f"training takes about {duration(event.seconds_left or 0)}"
    if whole is None or (left := whole.left("training", 0.0, event.seconds_left)) is None:
        return text
    return f"{text}, the whole job about {duration(whole.elapsed + left)}"


class Meters:
    """How far things are: a bar with the time left in a terminal or a notebook, elsewhere a line now and then.

    `tell` takes the lines, one in `line_seconds` and one at the end of a stage, if the last is `gap_seconds` ago.
    whole: one bar is for the whole job, and the time left is the job's.
    """

    def __init__(
        self,
        tell: Callable[[str], None],
        line_seconds: float,
        gap_seconds: float = 0.0,
        whole: Whole | None = None,
    ) -> None:
        self._tell = tell
        self._line_seconds = line_seconds
        self._gap_seconds = gap_seconds
        self._whole = whole
        self._kind = ""
        self._told = -math.inf
        self._bar: Any = None

    def __enter__(self) -> Meters:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def show(self, kind: str, done: int, total: int, seconds_left: float | None = None) -> None:
        """`done` of `total` frames or steps of the stage `kind`; without `whole`, a new stage has a bar of its own."""
        now = time.monotonic()
        if kind != self._kind:
            if self._whole is None:
                self.close()
            self._kind, self._started = kind, now
            if self._bar is None and _shows_bars():
                self._bar = _bar_of_job() if self._whole is not None else _bar(desc=kind, total=total, initial=done)
                self._drawn = -math.inf
        if seconds_left is None and done:
            seconds_left = (now - self._started) / done * (total - done)
        if self._whole is not None:
            seconds_left = self._whole.left(kind, done / max(total, 1), seconds_left)
        if self._bar is not None:
            with suppress(OSError):  # the terminal is gone
                if self._whole is None:
                    self._bar.update(done - self._bar.n)
                elif done == total or now >= self._drawn + BAR_SECONDS:
                    self._drawn = now
                    self._draw(f"{kind} {done} of {total}", self._whole.elapsed, seconds_left)
        elif now >= (
            self._told + self._gap_seconds if done == total else max(self._started, self._told) + self._line_seconds
        ):
            self._told = now
            shows = seconds_left and (done < total or self._whole is not None)
            self._tell(f"{kind} {done} of {total}{f', {duration(seconds_left or 0)} left' if shows else ''}")

    def _draw(self, stage: str, elapsed: float, left: float | None) -> None:
        """The bar of the whole job. It never goes back."""
        share = 0.0 if left is None else elapsed / max(elapsed + left, 1e-9)
        self._bar.n = max(self._bar.n, share)
        self._bar.set_description_str(stage, refresh=False)
        self._bar.set_postfix_str("" if left is None else f"{duration(left)} left", refresh=False)
        self._bar.refresh()

    def follow(self, event: Event) -> None:
        """Show an event of a training; the estimate of its time is a line."""
        if event.kind == "estimate":
            if self._whole is None:
                self.close()
            self._tell(takes_about(event, self._whole))
        else:
            self.show(event.kind, event.done, event.total, event.seconds_left)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Something else is written meanwhile: the bar is taken away, and drawn again below."""
        bar = self._bar
        with suppress(OSError):
            if bar is not None:
                bar.clear()
        yield
        with suppress(OSError):
            if bar is not None:
                bar.refresh()

    def close(self) -> None:
        if self._bar is not None:
            with suppress(OSError):
                self._bar.close()
        self._kind, self._bar = "", None


def _bar(**how: Any) -> Any:
    """tqdm's bar for a terminal or a notebook."""
    from tqdm.auto import tqdm

    # Some terminals say that they have no columns and lines, and tqdm would believe them. In the last
    # column Windows begins a new line.
    screen = shutil.get_terminal_size()
    return tqdm(**how, ncols=screen.columns - 1, nrows=screen.lines)


def _bar_of_job() -> Any:
    """A bar from 0 to 1, beside it the stage and the time left."""
    return _bar(total=1.0, bar_format="{desc}: {percentage:3.0f}%|{bar}|{postfix}")


class Objects:
    """The same for programs: `emit` takes an object for each step of the way, at most one a second and the last."""

    SECONDS = 1.0

    def __init__(self, emit: Callable[[dict[str, object]], None], whole: Whole | None = None) -> None:
        self._emit = emit
        self._whole = whole
        self._kind = ""
        self._told = -math.inf

    def __enter__(self) -> Objects:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def show(self, kind: str, done: int, total: int, seconds_left: float | None = None) -> None:
        """`done` of `total` frames or steps of the stage `kind`."""
        now = time.monotonic()
        if kind != self._kind:
            self._started = now
        if kind != self._kind or done == total or now >= self._told + self.SECONDS:
            self._kind, self._told = kind, now
            content = {"event": "progress", "stage": kind, "done": done, "total": total}
            self._emit(
                {**content, "seconds_left": _rounded(seconds_left), **self._of_job(kind, done, total, seconds_left)}
            )

    def _of_job(self, kind: str, done: int, total: int, seconds_left: float | None) -> dict[str, object]:
        """What is left of the whole job, if the caller knows one."""
        if self._whole is None:
            return {}
        if seconds_left is None and done:
            seconds_left = (time.monotonic() - self._started) / done * (total - done)
        return {"job_seconds_left": _rounded(self._whole.left(kind, done / max(total, 1), seconds_left))}

    def follow(self, event: Event) -> None:
        """Show an event of a training; the estimate of its time is a message."""
        if event.kind == "estimate":
            self.close()
            self._emit({"event": "message", "text": takes_about(event, self._whole)})
        else:
            self.show(event.kind, event.done, event.total, event.seconds_left)

    def close(self) -> None:
        """A stage has ended."""
        self._kind = ""


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def _shows_bars() -> bool:
    """Whether standard error is a terminal, or the output of a notebook's cell."""
    return sys.stderr is not None and (sys.stderr.isatty() or _in_notebook())


def _in_notebook() -> bool:
    """Whether this process is a notebook's kernel, not one that has imported its package alone."""
    interactive = sys.modules.get("IPython")
    shell = interactive.get_ipython() if interactive is not None else None
    return getattr(shell, "kernel", None) is not None


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
