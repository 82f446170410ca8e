"""Which failures speak for themselves, and how their one sentence gets out of a frame callback.

VapourSynth's binding turns any exception of a callback into the text of traceback.format_exc(), and that text is what
the user of the clip reads. Raised as FrameError, an expected failure arrives as "zhdrv: SENTENCE" alone.
"""

from typing import Any

import vapoursynth as vs

EXPECTED = (ValueError, vs.Error, RuntimeError, OSError, MemoryError)
"""Failures whose text is for the user. Whatever else is raised is our mistake, and says so."""

_PREFIX = "zhdrv"


class FrameError(Exception):
    """An expected failure inside a frame callback. Raise it `from None`."""

    # traceback.format_exc() asks the exception itself for its traceback, and names it by module and qualified name.
    __module__ = "builtins"
    __qualname__ = _PREFIX

    @property
    def __traceback__(self) -> None:  # type: ignore[override]
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return FrameError, self.args


def sentence(error: Exception) -> str:
    """What an expected error says, without what the way out of a callback has wrapped around it."""
    return str(error).strip().removeprefix(f"{_PREFIX}: ") or type(error).__name__
