"""Files that a user names to be written: what can be known of them before the work that fills them."""

from __future__ import annotations

import os
from pathlib import Path


def check_target(name: str, path: Path, source: Path | None = None) -> None:
    """Raises ValueError, one sentence, where the argument `name`'s file can't be written, or is the `source`."""
    folder = path.absolute().parent
    if not (folder.is_dir() and os.access(folder, os.W_OK)) or path.is_dir():
        raise ValueError(f"{name} must name a file in a folder that exists and can be written, not {str(path)!r}")
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise ValueError(f"{name} {path} is the input itself")
