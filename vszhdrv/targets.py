"""Files that a user names to be written: what can be known of them before the work that fills them."""

from __future__ import annotations

import tempfile
from pathlib import Path


def check_target(name: str, path: Path, source: Path | None = None) -> None:
    """Raises ValueError, one sentence, where the argument `name`'s file can't be written, or is the `source`."""
    try:
        # to ask whether it can be written is not enough: Windows knows of its rights only when it is
        with tempfile.TemporaryFile(dir=path.absolute().parent):
            possible = not path.is_dir()
    except OSError:
        possible = False
    if not possible:
        raise ValueError(f"{name} must name a file in a folder that exists and can be written, not {str(path)!r}")
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise ValueError(f"{name} {path} is the input itself")
