"""How a failure gets out of a frame callback as one sentence.

VapourSynth's binding turns any exception of a callback into the text of traceback.format_exc(), and that text is what
the user of the clip reads. Raised as FrameError, a failure arrives as "zhdrv: SENTENCE" alone.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vszhdrv.errors import Failed, Refused, failing, message

from .log import warn

_PREFIX = "zhdrv"


class FrameError(Exception):
    """A failure inside a frame callback. Raise it `from None`."""

    # traceback.format_exc() asks the exception itself for its traceback, and names it by module and qualified name.
    __module__ = "builtins"
    __qualname__ = _PREFIX

    @property
    def __traceback__(self) -> None:
        return None

    @__traceback__.setter
    def __traceback__(self, _: object) -> None:
        """Context managers set it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return FrameError, self.args


@contextmanager
def in_callback(where: str = "") -> Iterator[None]:
    """What fails inside is raised as FrameError: `where`, such as "frame 7: ", and one sentence."""
    try:
        with failing():
            yield
    except FrameError:
        raise
    except Exception as error:
        raise FrameError(f"{where}{sentence_for_user(error)}") from None


def sentence_for_user(error: Exception) -> str:
    """What a user reads of `error`; the traceback of an unexpected one goes to VapourSynth's log."""
    if isinstance(error, Refused | Failed | FrameError):
        text = message(error)
    else:
        text = f"internal error: {type(error).__name__}: {error}"
        warn("".join(traceback.format_exception(error)))
    return text.encode("utf-8", "backslashreplace").decode()  # a file name may hold bytes that are not text
