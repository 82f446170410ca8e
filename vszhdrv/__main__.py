"""What `zhdrv` and `python -m vszhdrv` start: the command line."""

import sys
from collections.abc import Callable

from vszhdrv.command import signals


def main() -> int:
    """Run the command line on sys.argv and return its exit code."""
    signals.catch()  # before the rest is imported
    from vszhdrv.command.process import run

    return run(_command_line)


def _command_line() -> Callable[[], int]:
    from vszhdrv.command.cli import main

    return main


if __name__ == "__main__":
    sys.exit(main())
