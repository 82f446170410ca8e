"""Where trained networks live, and who may train now.

Scripts are evaluated again and again, often by several processes at once; a network must be trained once for all of
them. This module apart knows folders, keys and locks, and nothing of clips or training: what a key stands for is its
caller's affair. Importing it loads neither torch nor VapourSynth: a network that exists is found in milliseconds.

On the disk, in the folder ``networks`` of the cache::

    KEY.safetensors          the network to expand with; there only when training ended well
    KEY.last.safetensors     the weights of the last step
    KEY.state                an unfinished training, to go on from
    KEY.lock                 whose holder may train; the system lets it go when its process ends, however it ends
    KEY.damaged.*            any of these that could not be read, set aside for whoever asks why
    .KEY.*.vszhdrv-part      an unfinished file (KEY.*.tmp in earlier versions)
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vszhdrv import files
from vszhdrv.errors import Refused
from vszhdrv.files import Damaged
from vszhdrv.store import weight_files
from vszhdrv.store.weight_files import WeightFile

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from torch import Tensor

FOLDER_VARIABLE = "VSZHDRV_CACHE"
SIZE_VARIABLE = "VSZHDRV_CACHE_SIZE"
DEFAULT_SIZE = "2G"

POLL_SECONDS = 0.1
"""How often a process that waits looks again; between looks it sleeps without the GIL and can be interrupted."""

_FILE = re.compile(
    rf"(?P<part>\.)?(?P<key>[0-9a-f]{{32}})\.(?(part).+{files.PART}|"
    r"(?:(?:damaged\.)?(?:(?:last\.)?safetensors|state)|lock|.+\.tmp))"
)
"""Our files in ``networks``; anything else there is somebody else's and stays."""

_CANNOT_LOCK = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


def folder(cache: str | None) -> Path | None:
    """The cache folder: the argument, else the environment's VSZHDRV_CACHE, else the system's place for caches.

    The system's place is ``~/.cache/vszhdrv`` on Linux (or ``$XDG_CACHE_HOME/vszhdrv``), ``~/Library/Caches/vszhdrv``
    on macOS, ``%LOCALAPPDATA%\\vszhdrv\\vszhdrv\\Cache`` on Windows. The folder need not exist. An empty string, in
    either place, switches the cache off: None.

    Raises Refused if something that is not a folder has this name, or the name is not UTF-8.
    """
    chosen = cache if cache is not None else os.environ.get(FOLDER_VARIABLE)
    if chosen is None:
        import platformdirs

        return platformdirs.user_cache_path("vszhdrv")
    if chosen == "":
        return None
    path = Path(chosen).expanduser().absolute()
    name = "cache" if cache is not None else FOLDER_VARIABLE
    files.check_utf8(name, path)
    if path.exists() and not path.is_dir():
        raise Refused(f"{name} is {chosen!r}, which is not a folder; give a folder, or an empty string for no cache")
    return path


def size_limit() -> int:
    """How many bytes the store may keep: VSZHDRV_CACHE_SIZE, else 2 GiB.

    The variable is a number of bytes, or one with K, M, G or T for powers of 1024: ``500M``, ``1.5G``.
    Raises Refused for anything else.
    """
    text = os.environ.get(SIZE_VARIABLE) or DEFAULT_SIZE
    match = re.fullmatch(r"(\d{1,999}(?:\.\d{1,999})?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise Refused(f"{SIZE_VARIABLE} is {text!r}; give bytes, or a number with K, M, G or T, such as 500M or 2G")
    number, unit = match.groups()
    return int(Fraction(number) * 1024 ** " KMGT".index(unit.upper() or " "))


def key(facts: Mapping[str, object]) -> str:
    """A name of 32 hexadecimal digits for everything that a network depends on.

    `facts` is anything JSON can say (TypeError otherwise; ValueError for a NaN). The order of entries does not matter;
    1, 1.0, True and "1" are four values, a tuple and a list are one.
    """
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Entry:
    """What the store keeps under one key.

    `path` is where the weights are if the network is `trained`; else there is an unfinished training, or something
    that was set aside. `size` is in bytes, of all files of the key; `used` is when the network was last found or
    written, in seconds since 1970. `metadata` is the weights' header, empty unless `trained`.
    """

    key: str
    path: Path
    trained: bool
    size: int
    used: float
    metadata: dict[str, str]


class Store:
    """The networks in one cache folder, or, if that is None, a store that keeps nothing.

    `warn` is called with a sentence, from the calling thread, whenever something is amiss that need not stop anybody.
    Objects of this class hold no resources; any number of them, in any threads and processes, may share a folder.

    The store keeps at most `size_limit` bytes (2 GiB unless VSZHDRV_CACHE_SIZE says otherwise; read here, Refused):
    when a network is added, those that were unused for longest go.

    check: raises Refused for a file that is whole but no network as its key promises; it is then as good as damaged.
    """

    def __init__(
        self,
        cache: Path | None,
        warn: Callable[[str], None],
        check: Callable[[WeightFile], None] = lambda _: None,
    ) -> None:
        self._check = check
        self.networks = None if cache is None else cache / "networks"
        self._warn = warn
        self._warned: set[str] = set()
        self._limit = size_limit()

    def find(self, key: str) -> WeightFile | None:
        """The weights of a network, read whole and marked as used now. Loads no torch.

        A file that is damaged, or of another version, is set aside with a warning, and not found; one that may not be
        read is not found either, with a warning.
        """
        return None if self.networks is None else self._find(_weights(self.networks, key))

    def find_last(self, key: str) -> WeightFile | None:
        """`find` for the weights of the last step instead of the best."""
        return None if self.networks is None else self._find(_last_weights(self.networks, key))

    @contextmanager
    def training(self, key: str, waiting: Callable[[], None]) -> Iterator[Slot]:
        """Hold the right to train `key`: one thread of one process at a time has it.

        If somebody else has it, waits until they are done, and calls `waiting` now and then: it may raise to give up.
        A waiter can be interrupted, too. Look at the slot's `found` first, and leave the context as soon as the network
        is stored: whoever waits, waits for that.

        If the folder can't be written, warns and hands out a slot that keeps nothing.
        Raises OSError if its file system has no locks: two trainers there would undo each other's work.
        """
        networks = self.networks
        lock = None if networks is None else self._acquire(networks, key, waiting)
        if networks is None or lock is None:
            yield Slot(self.find(key), None, key, self)
            return
        try:
            found = self._intact_or_set_aside(_weights(networks, key))
            self._sweep(networks, key)
            yield Slot(found, networks, key, self)
        finally:
            lock.release()

    def entries(self) -> list[Entry]:
        """Everything the store keeps, the most recently used first. Loads no torch, and reads headers only."""
        if self.networks is None:
            return []
        entries = []
        for key, paths in _files(self.networks).items():
            with suppress(OSError):  # cleared by somebody else just now
                stats = [path.stat() for path in paths if path.suffix != ".lock" and not _unfinished(path)]
                if stats:
                    path = _weights(self.networks, key)
                    metadata = _metadata(path)
                    size, used = sum(stat.st_size for stat in stats), max(stat.st_mtime for stat in stats)
                    entries.append(Entry(key, path, metadata is not None, size, used, metadata or {}))
        return sorted(entries, key=lambda entry: entry.used, reverse=True)

    def clear(self, keys: Iterable[str] | None = None) -> list[str]:
        """Remove these keys, or all, with what is left of their trainings. Returns the keys that were removed.

        What is being trained now stays, with a warning. Raises Refused for a key that the store does not have,
        OSError, naming the folder, if the system refuses.
        """
        if self.networks is None:
            return []
        known = [entry.key for entry in self.entries()]
        chosen = list(_files(self.networks)) if keys is None else list(keys)
        for key in chosen:
            if keys is not None and key not in known:
                raise Refused(f"key is {key!r}, which is not in {self.networks}")
        removed = []
        for key in chosen:
            if self._remove(self.networks, key):
                removed.append(key)
            else:
                self._warn(f"{key} is being trained now: it stays in {self.networks}")
        return [key for key in removed if key in known]  # a lone lock file is tidied away, but nothing to speak of

    def evict(self, limit: int) -> list[str]:
        """Remove what was unused for longest until the store keeps at most `limit` bytes. Returns the keys removed.

        What somebody holds for training stays. Raises OSError, naming the folder, if the system refuses.
        """
        if self.networks is None:
            return []
        entries = self.entries()
        excess = sum(entry.size for entry in entries) - limit
        removed = []
        for entry in reversed(entries):
            if excess <= 0:
                break
            if self._remove(self.networks, entry.key):
                excess -= entry.size
                removed.append(entry.key)
        return removed

    def _acquire(self, networks: Path, key: str, waiting: Callable[[], None]) -> BaseFileLock | None:
        """The lock of `key`, held, or None after a warning if the folder can't be written."""
        from filelock import Timeout

        lock = _lock(networks, key)
        while True:
            try:
                networks.mkdir(parents=True, exist_ok=True)
                lock.acquire(blocking=False)
                return lock
            except Timeout:
                pass
            except OSError as error:
                if error.errno in _CANNOT_LOCK:
                    raise OSError(
                        f"the folder {networks} is on a file system without locks ({error.strerror}): choose another "
                        f"with the argument cache or {FOLDER_VARIABLE}, or an empty string for no cache"
                    ) from error
                self._warn(f"the folder {networks} can't be written ({error.strerror}): what is trained is not kept")
                return None
            waiting()
            time.sleep(POLL_SECONDS)

    def _find(self, path: Path) -> WeightFile | None:
        try:
            return self._intact(path)
        except Refused as error:
            try:
                # Whoever holds the lock may be replacing this very file.
                with _if_free(path.parent, _key(path)) as free:
                    return self._intact_or_set_aside(path) if free else None
            except OSError:  # a read-only folder
                self._warn_once(f"{error}; it is not used")
        except OSError as error:
            self._warn_once(f"{path} can't be read ({error.strerror}); it is not used")
        return None

    def _intact_or_set_aside(self, path: Path) -> WeightFile | None:
        """With the lock held: `path` if it can be used."""
        try:
            return self._intact(path)
        except Refused as error:
            self._set_aside(path, error)
        except OSError as error:
            self._warn_once(f"{path} can't be read ({error.strerror}); it is not used")
        return None

    def _intact(self, path: Path) -> WeightFile | None:
        """The network in this file, if there is one, marked as used now. Raises as `weight_files.read`."""
        try:
            found = weight_files.read(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        self._check(found)
        now = time.time_ns()  # finer than the clock that the system would stamp files with
        with suppress(OSError):  # a read-only folder
            os.utime(path, ns=(now, now))
        return found

    def _set_aside(self, path: Path, error: Refused) -> None:
        """With the lock held: take a damaged file out of the way; an earlier one of the same name is replaced."""
        key, kind = path.name.split(".", 1)
        aside = path.with_name(f"{key}.damaged.{kind}")
        try:
            files.put_in_place(path, aside)
        except OSError:  # another user's, in a folder that lets each user move their own
            self._warn_once(f"{error}; it is not used")
        else:
            self._warn(f"{error}; it is set aside as {aside.name}")

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._warn(text)

    def _sweep(self, networks: Path, own: str) -> None:
        """With the lock of `own` held: remove what killed trainers left, of any key that nobody holds."""
        for key, paths in _files(networks).items():
            left = [path for path in paths if _unfinished(path)]
            if _weights(networks, key) in paths and _state(networks, key) in paths:
                left.append(_state(networks, key))  # killed between its last two deeds
            with suppress(OSError):  # swept by somebody else, or another user's
                if key == own:
                    _unlink(left)
                elif left:
                    with _if_free(networks, key) as free:
                        if free:
                            _unlink(left)

    def _remove(self, networks: Path, key: str) -> bool:
        """Remove all files of `key`; False if somebody holds its lock."""
        try:
            with _if_free(networks, key) as free:
                if free:
                    lock = networks / f"{key}.lock"
                    _unlink(file for file in _files(networks).get(key, []) if file != lock)
                    with suppress(PermissionError):  # Windows keeps what is open
                        lock.unlink(missing_ok=True)  # a waiter notices that the file it opened has no name any more
                return free
        except OSError as error:
            raise OSError(f"{key} can't be removed from the folder {networks}: {error.strerror or error}") from error


@dataclass
class Slot:
    """The right to train one network, as `Store.training` hands it out.

    `found` is the network if it is there already, because somebody else finished it meanwhile: nothing is left
    to train. Where the store can't be written, or is off, a slot keeps nothing: `state` and `finish` return None.
    """

    found: WeightFile | None
    _networks: Path | None
    _key: str
    _store: Store
    _told: bool = False

    def state(self) -> dict[str, Any] | None:
        """What was last given to `save_state`, by this or an earlier process, if the training was not finished."""
        if self._networks is None:
            return None
        path = _state(self._networks, self._key)
        try:
            return weight_files.read_state(path)
        except FileNotFoundError:
            pass
        except Damaged as error:
            self._store._set_aside(path, error)
        except OSError as error:
            self._store._warn_once(f"{path} can't be read ({error.strerror}); training begins anew")
        return None

    def refuse_state(self, error: Refused) -> None:
        """Set aside a state that is whole, but of no training like this one, with a warning."""
        if self._networks is not None:
            self._store._set_aside(_state(self._networks, self._key), error)

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Keep `state`, in place of the one before. If that fails: one warning, and training can go on."""
        if self._networks is None:
            return
        try:
            weight_files.write_state(_state(self._networks, self._key), state)
        except OSError as error:
            if not self._told:
                self._store._warn(f"{error}; training goes on, but could not be resumed if it were stopped")
            self._told = True

    def finish(
        self, best: Mapping[str, Tensor], last: Mapping[str, Tensor], metadata: Mapping[str, str]
    ) -> WeightFile | None:
        """Store the trained network, drop the training's state, and keep the store under its size limit.

        `best` are the weights to expand with, `last` those of the last step. Returns the best as they are stored; or
        None, after a warning that names the folder, if they can't be: use them for this run. The state stays in that
        case, so that another run has little left to do.
        """
        if self._networks is None:
            return None
        main, other = _weights(self._networks, self._key), _last_weights(self._networks, self._key)
        try:
            weight_files.write_weights(other, last, metadata)
            stored = weight_files.write_weights(main, best, metadata)  # comes last: where it is, everything is
        except OSError as error:
            with suppress(OSError):
                other.unlink(missing_ok=True)
            self._store._warn(f"{error}; the trained network is used for this run only")
            return None
        with suppress(OSError):  # a folder of this name; another user's
            _state(self._networks, self._key).unlink(missing_ok=True)
        try:
            self._store.evict(self._store._limit)
        except OSError as error:
            self._store._warn(str(error))
        return stored


def _weights(networks: Path, key: str) -> Path:
    return networks / f"{key}.safetensors"


def _last_weights(networks: Path, key: str) -> Path:
    return networks / f"{key}.last.safetensors"


def _state(networks: Path, key: str) -> Path:
    return networks / f"{key}.state"


def _key(path: Path) -> str:
    return path.name.split(".", 1)[0]


def _files(networks: Path) -> dict[str, list[Path]]:
    """Our files in the folder, by key."""
    found: dict[str, list[Path]] = {}
    with suppress(OSError):  # nothing was ever stored, or the folder may not be read
        for path in networks.iterdir():
            if (match := _FILE.fullmatch(path.name)) and _regular(path):
                found.setdefault(match["key"], []).append(path)
    return found


def _regular(path: Path) -> bool:
    """Whether it is a file: folders and named pipes, whatever their names, are not ours."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:  # a link to itself, or to a file that may not be seen
        return False


def _unfinished(path: Path) -> bool:
    return path.suffix in (".tmp", files.PART)


def _metadata(path: Path) -> dict[str, str] | None:
    try:
        return weight_files.read_metadata(path)
    except (OSError, Damaged):
        return None


def _unlink(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _lock(networks: Path, key: str) -> BaseFileLock:
    """The lock of `key`, free as soon as its holder's process is gone.

    filelock's soft locks are refused: they are files that a killed process leaves behind. Each call gives a lock of its
    own, so that two threads of a process exclude each other too.
    """
    from filelock import FileLock

    return FileLock(networks / f"{key}.lock", thread_local=False, fallback_to_soft=False)


@contextmanager
def _if_free(networks: Path, key: str) -> Iterator[bool]:
    """Hold the lock of `key` if nobody has it; says whether. Waits for nobody."""
    from filelock import Timeout

    lock = _lock(networks, key)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
