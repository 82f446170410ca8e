"""Messages to the user while things go well, or nearly so.

VapourSynth's log gets all of them. vspipe and script editors show it. Python itself shows warnings alone, so a plain
script or a notebook would stay silent for minutes while a network is trained: there, `tell` uses standard error, too.
"""

import logging
import sys
from contextlib import suppress

import vapoursynth as vs


def log(message: str) -> None:
    """Tell the user how things go, in VapourSynth's log."""
    vs.core.log_message(vs.MESSAGE_TYPE_INFORMATION, f"zhdrv: {message}")


def warn(message: str) -> None:
    """Say something that the user should know, in VapourSynth's log."""
    vs.core.log_message(vs.MESSAGE_TYPE_WARNING, f"zhdrv: {message}")


def tell(message: str) -> None:
    """`log`, and a line on standard error where nobody shows the log's information."""
    log(message)
    if not _log_is_shown() and sys.stderr is not None:
        with suppress(OSError):  # closed, or full: that stops no work
            print(f"zhdrv: {message}", file=sys.stderr, flush=True)


def _log_is_shown() -> bool:
    """Whether somebody shows information from the log: a script host such as vspipe, or Python's logging."""
    root = logging.getLogger()
    hosted = any(isinstance(handler, vs.PythonVSScriptLoggingBridge) for handler in root.handlers)
    return hosted or (bool(root.handlers) and root.isEnabledFor(logging.INFO))
