"""The ground floor's file work: whole-file writing, sweeping, and checks of paths that a user names.

A file appears whole or not at all: it is written beside its destination, flushed to the disk, and then renamed.
"""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from vszhdrv.errors import Refused

PART = ".vszhdrv-part"
"""How the names of unfinished pictures and videos end, before or instead of their own ending."""

TEMPORARY = ".tmp"
"""How the names of unfinished files end: ``NAME.RANDOM.tmp`` beside NAME. A killed writer leaves one behind."""

WINDOWS = os.name == "nt"
"""Where an open file can not be replaced, and a folder not be opened."""
PATIENCE_SECONDS = 2.0
"""A file is put in its place this long after the first try at most."""


def check_utf8(name: str, path: Path) -> None:
    """Raises Refused, one sentence, where the argument `name`'s path is not UTF-8, which is how source filters,
    OpenEXR and safetensors give their files' names to the system."""
    if (stored := os.fsencode(path)) != str(path).encode(errors="replace"):
        raise Refused(f"{name} must be a path in UTF-8, as the libraries that open it want, not {stored!r}")


def check_target(name: str, path: Path, source: Path | None = None) -> None:
    """Raises Refused, one sentence, where the argument `name`'s file can't be written, or is the `source`."""
    try:
        # to ask whether it can be written is not enough: Windows knows of its rights only when it is
        with tempfile.TemporaryFile(dir=path.absolute().parent):
            possible = not path.is_dir()
    except OSError:
        possible = False
    if not possible:
        raise Refused(f"{name} must name a file in a folder that exists and can be written, not {str(path)!r}")
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise Refused(f"{name} {path} is the input itself")


def check_output(name: str, path: Path, source: Path, endings: Collection[str], *, overwrite: bool) -> None:
    """`check_target` of what the command line makes of `source`: of a file that ends otherwise than in `endings`
    (".mkv", lower case), or is there already and not to be overwritten, it raises Refused, too."""
    if path.suffix.lower() not in endings:
        raise Refused(f"{name} must end in {' or '.join(endings)}, not {path.name!r}")
    check_target(name, path, source)
    if path.exists() and not (overwrite and path.is_file()):
        raise Refused(f"{name} {path} exists already: --overwrite replaces it")


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Make `path` hold `content`, or leave everything as it was and raise OSError in one sentence."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{TEMPORARY}")
    try:
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            put_in_place(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        kind = PermissionError if isinstance(error, PermissionError) else OSError
        raise kind(f"{path.name} can't be written into the folder {path.parent}: {error.strerror or error}") from error
    if not WINDOWS:  # which opens no folders, and journals its renames
        with suppress(OSError):  # some network file systems can't; the file is in its place all the same
            _sync_folder(path.parent)


def put_in_place(part: Path, path: Path) -> None:
    """Rename `part` to `path`, replacing what is there.

    Windows refuses that while another program has either of them open. Indexers and virus scanners do so for moments,
    just when a file is new, so that it is tried again. Raises OSError as `Path.replace`.
    """
    begun = time.monotonic()
    while True:
        try:
            part.replace(path)
            return
        except PermissionError:
            if not WINDOWS or time.monotonic() - begun > PATIENCE_SECONDS:
                raise
            time.sleep(0.05)


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path, pattern: str, older_than: float) -> int:
    """Remove temporary files that killed writers left in `folder`; returns their number.

    `pattern` is a glob. Only files untouched for `older_than` seconds go: younger ones may belong to a process at work.
    A file that can't be removed stays.
    """
    gone = 0
    for part in folder.glob(pattern):
        with suppress(OSError):  # finished or swept meanwhile; or in a shared folder, and someone else's
            if time.time() - part.stat().st_mtime > older_than:
                part.unlink()
                gone += 1
    return gone
