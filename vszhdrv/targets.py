"""Files that a user names: what can be known of them before the work that reads or fills them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection
from pathlib import Path


def check_utf8(name: str, path: Path) -> None:
    """Raises ValueError, one sentence, where the argument `name`'s path is not UTF-8, which is how source filters,
    OpenEXR and safetensors give their files' names to the system."""
    if (stored := os.fsencode(path)) != str(path).encode(errors="replace"):
        raise ValueError(f"{name} must be a path in UTF-8, as the libraries that open it want, not {stored!r}")


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


def check_output(name: str, path: Path, source: Path, endings: Collection[str], *, overwrite: bool) -> None:
    """`check_target` of what the command line makes of `source`: of a file that ends otherwise than in `endings`
    (".mkv", lower case), or is there already and not to be overwritten, it raises ValueError, too."""
    if path.suffix.lower() not in endings:
        raise ValueError(f"{name} must end in {' or '.join(endings)}, not {path.name!r}")
    check_target(name, path, source)
    if path.exists() and not (overwrite and path.is_file()):
        raise ValueError(f"{name} {path} exists already: --overwrite replaces it")
