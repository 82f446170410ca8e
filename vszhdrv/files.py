"""The ground floor's file work: files that appear whole, files that may be damaged, and checks of paths.

A file appears whole or not at all: it is written beside its destination, flushed to the disk, and then renamed.
A file that is read may be anything: a pipe, a folder, another user's, too large, or damaged in any byte.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from vszhdrv.errors import Refused

PART = ".vszhdrv-part"
"""How the names of unfinished files end: ``.NAME.RANDOM.vszhdrv-part`` beside NAME. A killed writer leaves one."""

STALE_SECONDS = 600.0
"""An unfinished file untouched for this long is nobody's: no picture and no network takes ten minutes to write."""

NAME_BYTES = 200
"""So much of a file's name is used in its unfinished file's: file systems take 255 bytes."""

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


class Damaged(Refused):
    """A file whose bytes are not what we write. The text names the file."""


@contextmanager
def parsing(what: str) -> Iterator[None]:
    """Raise Damaged, "`what`: why", whatever goes wrong in the block.

    The block parses bytes that were read already. Parsers of damaged bytes raise nearly anything: a list of their
    exceptions is never complete.
    """
    try:
        yield
    except MemoryError:  # says nothing about the bytes
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]  # torch adds paragraphs of advice
        raise Damaged(f"{what}: {reason}") from error


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A regular file, open for reading. Raises OSError, naming it, for anything else, and where reading fails."""
    try:
        # a named pipe would be waited for
        with open(path, "rb", opener=_open_at_once) as file:  # Path.open takes no opener
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(errno.EINVAL, "is not a regular file", str(path))
            yield file
    except OSError as error:  # a read's error names no file
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def _open_at_once(name: str, flags: int) -> int:
    """os.open that does not wait for the other end of a named pipe."""
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


def read_whole(path: Path, most: int) -> bytes:
    """The content of a regular file. Raises OSError as `opened` does, Damaged for more than `most` bytes."""
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise Damaged(f"{path} has {size} bytes, and no such file has more than {most}")
        return file.read()


def write_whole(path: Path, content: bytes) -> None:
    """Make `path` hold `content`, or leave everything as it was and raise OSError in one sentence.

    What killed writers of the same file left is swept. Not for io.BytesIO.getbuffer(): where an exception holds that,
    Python 3.12's garbage collector can crash.
    """
    with unwritable_told(path):
        with replacing(path) as part, part.open("xb") as file:
            file.write(content)
        sweep(path.parent, _start(path))


@contextmanager
def unwritable_told(path: Path) -> Iterator[None]:
    """Raise the block's OSError as one sentence that names `path` and its folder."""
    try:
        yield
    except OSError as error:
        kind = PermissionError if isinstance(error, PermissionError) else OSError
        raise kind(f"{path.name} can't be written into the folder {path.parent}: {error.strerror or error}") from error


@contextmanager
def replacing(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """Where to write a file beside `path`: it becomes `path` when the block ends well, else it goes.

    flush: make the file and its name last through a power cut. Without that, `path` may then be damaged.
    """
    part = path.with_name(f"{_start(path)}{secrets.token_hex(4)}{PART}")
    try:
        yield part
        if flush:
            _sync(part, os.O_RDWR)
        put_in_place(part, path)
    finally:
        with suppress(OSError):  # the failure that led here says more
            part.unlink(missing_ok=True)
    if flush and not WINDOWS:  # which opens no folders, and journals its renames
        with suppress(OSError):  # some network file systems can't; the file is in its place all the same
            _sync(path.parent, os.O_RDONLY)


def _start(path: Path) -> str:
    """How the names of unfinished files begin that are to become `path`."""
    name = path.name.encode(errors="surrogateescape")[:NAME_BYTES].decode(errors="ignore")
    return f".{name}."


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


def _sync(path: Path, mode: int) -> None:
    """Make a file's bytes, or the names in a folder, last through a power cut."""
    handle = os.open(path, mode)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path, of: str = "", older_than: float = STALE_SECONDS) -> int:
    """Remove unfinished files that killed writers left in `folder`; returns their number.

    of: a part of their names, such as ".exr.". Only files untouched for `older_than` seconds go: younger ones may
    belong to a process at work. A file that can't be removed stays.
    """
    gone = 0
    with suppress(OSError):  # no such folder, or one that may not be read
        for path in list(folder.iterdir()):
            if path.name.startswith(".") and path.name.endswith(PART) and of in path.name:
                with suppress(OSError):  # finished or swept meanwhile; or in a shared folder, and someone else's
                    if time.time() - path.stat().st_mtime > older_than:
                        path.unlink()
                        gone += 1
    return gone
