"""The failures that a user reads as one sentence.

    Refused(ValueError)     an argument, a clip or a file can't be used as it is: exit code 2
    Failed(RuntimeError)    the work failed, although all that was asked for was right: exit code 1

Only these two are shown as a sentence. Every other exception is a mistake of ours: it is called an internal error and
keeps its traceback, also where it is a ValueError or a RuntimeError.

`failing` turns the system's failures into Failed. It stands where work leaves the package: around a call of the
plugin, a frame that is computed, and a command.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Refused(ValueError):
    """An argument, a clip or a file that can't be used. The text names it, its value and what is accepted."""


class Failed(RuntimeError):
    """Work that failed: a full disk, a missing program, a source that can't be decoded. The text is one sentence."""


@contextmanager
def failing() -> Iterator[None]:
    """Raise Failed, with the `message`, where the block raises OSError, MemoryError or vapoursynth.Error."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, _system_failures()):
            raise
        raise Failed(message(error)) from error


def _system_failures() -> tuple[type[Exception], ...]:
    vapoursynth = sys.modules.get("vapoursynth")  # nobody can raise its error who has not loaded it
    return (OSError, MemoryError) if vapoursynth is None else (OSError, MemoryError, vapoursynth.Error)


def message(error: BaseException) -> str:
    """What an error says, in one line: without our name before it, and without the traceback that VapourSynth puts
    around an error of Python code. An error of the system names its file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return (lines[-1] if "Traceback" in lines[0] else lines[0]).removeprefix("zhdrv: ")
