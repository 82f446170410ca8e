"""The store as processes meet it: one trainer, waiters, kills, damaged files, folders that can't be written."""

from __future__ import annotations

import errno
import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import pytest
import torch

from vszhdrv.store import store, weight_files
from vszhdrv.store.store import Store

KEY, OTHER = "a" * 32, "b" * 32
BEST, LAST = {"w": torch.ones(3)}, {"w": torch.zeros(3)}


@dataclass
class Cache:
    """A store in a folder, and what it warned of."""

    folder: Path
    warnings: list[str]

    @property
    def networks(self) -> Path:
        return self.folder / "networks"

    def open(self) -> Store:
        return Store(self.folder, self.warnings.append)

    def train(self, key: str = KEY, values: int = 3) -> Path:
        with self.open().training(key, never) as slot:
            stored = slot.finish({"w": torch.ones(values)}, LAST, {"clip": key})
        assert stored is not None
        return stored.path

    def names(self) -> list[str]:
        """Files that matter, by their names after the key."""
        return sorted(path.name.split(".", 1)[1] for path in self.networks.iterdir() if path.suffix != ".lock")


def never() -> None:
    pytest.fail("somebody else holds the lock")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.delenv("VSZHDRV_CACHE", raising=False)
    monkeypatch.delenv("VSZHDRV_CACHE_SIZE", raising=False)
    return Cache(tmp_path / "cache", [])


# Another process, driven through its standard streams. It says what it gets, and keeps it until it is told to leave.

PROCESS = """
import functools, sys
from pathlib import Path
from vszhdrv.store.store import Store

folder, key, written = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
say = functools.cache(lambda *words: print(*words, flush=True))
with Store(folder, lambda warning: say("warning", warning)).training(key, lambda: say("waiting")) as slot:
    say("found" if slot.found else "training")
    for name in written:
        (folder / "networks" / name).write_bytes(b"unfinished")
    sys.stdin.readline()
say("done")
"""


class Other:
    """A process that trains, or waits to."""

    def __init__(self, folder: Path, key: str = KEY, *written: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(folder), key, *written],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.watchdog = threading.Timer(30, self.process.kill)  # a lock that is never freed fails the test
        self.watchdog.start()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def is_silent(self) -> bool:
        """Whether it says nothing while it could have looked for the lock several times."""
        assert self.process.stdout is not None
        return not select.select([self.process.stdout], [], [], 5 * store.POLL_SECONDS)[0]

    def leave(self) -> None:
        """Let the process end its training, now or as soon as it has the lock."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.wait()

    def rest(self) -> list[str]:
        return self.process.communicate()[0].split()

    def end(self) -> None:
        self.watchdog.cancel()
        if self.process.poll() is None:
            self.kill()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


@pytest.fixture
def start(cache: Cache) -> Iterator[Callable[..., Other]]:
    others: list[Other] = []

    def start(key: str = KEY, *written: str) -> Other:
        others.append(Other(cache.folder, key, *written))
        return others[-1]

    yield start
    for other in others:
        other.end()


# Folders, sizes, keys


def test_the_folder_is_the_argument_then_the_environment_then_the_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VSZHDRV_CACHE", str(tmp_path / "environment"))
    assert store.folder(str(tmp_path / "argument")) == tmp_path / "argument"
    assert store.folder("") is None
    assert store.folder(None) == tmp_path / "environment"
    monkeypatch.setenv("VSZHDRV_CACHE", "")
    assert store.folder(None) is None
    monkeypatch.delenv("VSZHDRV_CACHE")
    default = store.folder(None)
    assert default is not None and "vszhdrv" in default.parts
    monkeypatch.chdir(tmp_path)
    assert store.folder("here") == tmp_path / "here", "a later chdir changes nothing"


def test_a_file_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(ValueError, match=r"^cache is .*file', which is not a folder"):
        store.folder(str(path))
    monkeypatch.setenv("VSZHDRV_CACHE", str(path))
    with pytest.raises(ValueError, match=r"^VSZHDRV_CACHE is"):
        store.folder(None)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1234", 1234),
        ("500M", 500 << 20),
        ("1.5 gib", 3 << 29),
        ("2KB", 2048),
        ("1T", 1 << 40),
        ("9" * 400, int("9" * 400)),
        ("", 2 << 30),
    ],
)
def test_size_limit(monkeypatch: pytest.MonkeyPatch, text: str, size: int) -> None:
    monkeypatch.setenv("VSZHDRV_CACHE_SIZE", text)
    assert store.size_limit() == size


@pytest.mark.parametrize("text", ["much", "-1", "1X", "1e9", "G"])
def test_a_size_that_is_none_is_refused_before_anything_is_trained(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("VSZHDRV_CACHE_SIZE", text)
    with pytest.raises(ValueError, match=f"VSZHDRV_CACHE_SIZE is '{text}'"):
        cache.open()


def test_a_key_depends_on_every_value_and_no_order() -> None:
    facts: dict[str, object] = {"clip": "ab", "settings": {"steps": 3, "lr": 1e-4}, "size": (640, 480)}
    same = {"size": [640, 480], "settings": {"lr": 1e-4, "steps": 3}, "clip": "ab"}
    assert store.key(facts) == store.key(same)
    others = [{**facts, "clip": "ac"}, {**facts, "settings": {"steps": 4, "lr": 1e-4}}, {**facts, "size": (480, 640)}]
    others += [{"x": 1}, {"x": 1.0}, {"x": True}, {"x": "1"}, {"x": None}, {}]
    keys = {store.key(other) for other in [facts, *others]}
    assert len(keys) == 1 + len(others)
    assert all(len(key) == 32 and set(key) <= set("0123456789abcdef") for key in keys)


def test_a_key_is_the_same_in_every_version() -> None:
    assert store.key({"b": [1, 2.5, "ü"], "a": None}) == "b3bc7df0d5a6a88aed2cf833de4aeae3"
    with pytest.raises(ValueError):
        store.key({"x": math.nan})
    with pytest.raises(TypeError):
        store.key({"x": object()})


# Found again


def test_a_network_is_found_again(cache: Cache) -> None:
    assert cache.open().find(KEY) is None
    path = cache.train()
    found = cache.open().find(KEY)
    assert found is not None and path == found.path == cache.networks / f"{KEY}.safetensors"
    assert cache.open().find(OTHER) is None
    tensors, metadata = found.tensors(), found.metadata
    assert torch.equal(tensors["w"], BEST["w"]) and metadata["clip"] == KEY
    last = cache.open().find_last(KEY)
    assert last is not None and torch.equal(last.tensors()["w"], LAST["w"])
    with cache.open().training(KEY, never) as slot:
        assert slot.found == found
    assert cache.warnings == []
    assert cache.names() == ["last.safetensors", "safetensors"]


def test_finding_loads_neither_torch_nor_vapoursynth_nor_filelock(cache: Cache) -> None:
    cache.train()
    code = (
        "import sys; from pathlib import Path; from vszhdrv.store.store import Store, folder; folder(None); "
        "found = Store(Path(sys.argv[1]), print); print(found.find(sys.argv[2]).path, len(found.entries())); "
        "print([name for name in ('torch', 'vapoursynth', 'filelock') if name in sys.modules])"
    )
    run = [sys.executable, "-c", code, str(cache.folder), KEY]
    found, loaded = subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()
    assert found == f"{cache.networks / KEY}.safetensors 1"
    assert loaded == "[]"


def test_without_a_cache_training_works_and_nothing_is_kept() -> None:
    nothing = Store(None, pytest.fail)
    with nothing.training(KEY, never) as slot:
        assert slot.found is None and slot.state() is None
        slot.save_state({"step": 1})
        assert slot.finish(BEST, LAST, {}) is None
    assert nothing.find(KEY) is None and nothing.find_last(KEY) is None
    assert (nothing.entries(), nothing.clear(), nothing.evict(0)) == ([], [], [])


# State


def test_state_goes_on_and_is_dropped_at_the_end(cache: Cache) -> None:
    with pytest.raises(KeyboardInterrupt), cache.open().training(KEY, never) as slot:
        assert slot.state() is None
        slot.save_state({"step": 1})
        slot.save_state({"step": 2})
        raise KeyboardInterrupt
    assert cache.open().find(KEY) is None
    with cache.open().training(KEY, never) as slot:
        assert slot.found is None and slot.state() == {"step": 2}
        slot.finish(BEST, LAST, {})
        assert slot.state() is None
    assert cache.names() == ["last.safetensors", "safetensors"]


def test_the_network_appears_last_and_the_state_goes_after_it(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at any moment of `finish`, a trainer leaves the whole result or the state to go on from."""
    before: list[list[str]] = []
    write = weight_files.write_weights

    def spy(*arguments: Any) -> None:
        before.append(cache.names())
        write(*arguments)

    monkeypatch.setattr(weight_files, "write_weights", spy)
    with cache.open().training(KEY, never) as slot:
        slot.save_state({"step": 1})
        slot.finish(BEST, LAST, {})
    assert before == [["state"], ["last.safetensors", "state"]]


def test_a_damaged_state_is_set_aside(cache: Cache) -> None:
    with cache.open().training(KEY, never) as slot:
        slot.save_state({"step": 1})
        path = cache.networks / f"{KEY}.state"
        path.write_bytes(path.read_bytes()[:-40])
        assert slot.state() is None
        assert len(cache.warnings) == 1 and f"set aside as {KEY}.damaged.state" in cache.warnings[0]
        assert cache.names() == ["damaged.state"]
        assert slot.state() is None and len(cache.warnings) == 1


# Damaged networks


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 4
    path.write_bytes(content)


def age(path: Path) -> None:
    format_number = weight_files.FORMAT
    weight_files.FORMAT = 0
    try:
        weight_files.write_weights(path, BEST, {})
    finally:
        weight_files.FORMAT = format_number


def replace_with_pickle(path: Path) -> None:
    torch.save(BEST, path)


DAMAGES = pytest.mark.parametrize("damage", [cut, flip, age, replace_with_pickle])


@DAMAGES
def test_a_damaged_network_is_set_aside_and_trained_again(cache: Cache, damage: Callable[[Path], None]) -> None:
    path = cache.train()
    damage(path)
    damaged = path.read_bytes()
    assert cache.open().find(KEY) is None
    assert len(cache.warnings) == 1 and f"set aside as {KEY}.damaged.safetensors" in cache.warnings[0]
    assert str(path) in cache.warnings[0]
    assert (cache.networks / f"{KEY}.damaged.safetensors").read_bytes() == damaged and not path.exists()
    with cache.open().training(KEY, never) as slot:
        assert slot.found is None
        stored = slot.finish(BEST, LAST, {})
    assert stored is not None and stored.path == path
    assert cache.open().find(KEY) == stored and len(cache.warnings) == 1


def test_a_damaged_network_is_noticed_by_who_holds_the_lock(cache: Cache) -> None:
    cut(cache.train())
    with cache.open().training(KEY, never) as slot:
        assert slot.found is None
    assert len(cache.warnings) == 1 and "damaged.safetensors" in cache.names()


def test_a_damaged_network_is_left_to_its_trainer(cache: Cache) -> None:
    path = cache.train()
    with cache.open().training(KEY, never):
        cut(path)
        assert cache.open().find(KEY) is None
        assert path.exists() and cache.warnings == [], "it may be replaced at this moment"


def test_last_weights_are_checked_too(cache: Cache) -> None:
    cache.train()
    cut(cache.networks / f"{KEY}.last.safetensors")
    assert cache.open().find_last(KEY) is None
    assert cache.names() == ["damaged.last.safetensors", "safetensors"]
    assert cache.open().find(KEY) is not None


# One trainer at a time


def test_processes_exclude_each_other_and_all_but_one_find_the_network(
    cache: Cache, start: Callable[..., Other]
) -> None:
    with cache.open().training(KEY, never) as slot:
        waiters = [start() for _ in range(3)]
        assert [waiter.line() for waiter in waiters] == ["waiting"] * 3
        for waiter in waiters:
            waiter.leave()
        slot.finish(BEST, LAST, {})
    assert [waiter.rest() for waiter in waiters] == [["found", "done"]] * 3, "said once that they wait"


def test_a_killed_trainer_leaves_no_lock_and_a_killed_waiter_no_trace(
    cache: Cache, start: Callable[..., Other]
) -> None:
    trainer = start(KEY, f".{KEY}.state.12345678.vszhdrv-part")
    assert trainer.line() == "training"
    heir, victim, interrupted = start(), start(), start()
    assert [other.line() for other in (heir, victim, interrupted)] == ["waiting"] * 3
    victim.kill()
    interrupted.kill(signal.SIGINT)  # hangs here if a waiter can't be interrupted
    assert interrupted.process.stderr is not None and "KeyboardInterrupt" in interrupted.process.stderr.read()
    assert trainer.process.poll() is None
    trainer.kill()
    assert heir.line() == "training"
    assert cache.names() == [], "the temporary of the killed trainer is swept"
    with pytest.raises(filelock.Timeout):
        filelock.FileLock(cache.networks / f"{KEY}.lock").acquire(blocking=False)


def test_other_keys_do_not_wait(cache: Cache, start: Callable[..., Other]) -> None:
    trainer = start(OTHER)
    assert trainer.line() == "training"
    cache.train(KEY)
    assert trainer.process.poll() is None


def test_threads_exclude_each_other(cache: Cache) -> None:
    inside, most, trained = 0, 0, 0
    waited: set[int] = set()
    barrier, count = threading.Barrier(4), threading.Lock()

    def wait() -> None:
        waited.add(threading.get_ident())

    def work() -> None:
        nonlocal inside, most, trained
        barrier.wait()
        with cache.open().training(KEY, wait) as slot:
            with count:
                inside += 1
                most = max(most, inside)
            if slot.found is None:
                time.sleep(0.05)
                slot.finish(BEST, LAST, {})
                trained += 1
            with count:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, trained) == (1, 1) and len(waited) <= 3


def test_waiting_may_give_up_and_frees_the_gil(cache: Cache) -> None:
    with cache.open().training(KEY, never):
        result: list[str] = []

        def give_up() -> None:
            raise BrokenPipeError("nobody listens")

        def work() -> None:
            with pytest.raises(BrokenPipeError, match="nobody listens"), cache.open().training(KEY, give_up):
                pytest.fail("the lock is held")
            result.append("gave up")

        thread = threading.Thread(target=work)
        thread.start()
        thread.join(5)
        assert result == ["gave up"] and cache.warnings == []
    assert cache.train() == cache.networks / f"{KEY}.safetensors"  # the lock was freed, and nobody waits for it


def test_the_lock_is_freed_even_by_another_thread(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """As happens to a generator that trains, when somebody drops it."""
    kept: list[filelock.BaseFileLock] = []  # else a lock that was not released would be, with its object
    make = store._lock

    def make_and_keep(networks: Path, key: str) -> filelock.BaseFileLock:
        kept.append(make(networks, key))
        return kept[-1]

    monkeypatch.setattr(store, "_lock", make_and_keep)
    context: AbstractContextManager[store.Slot] = cache.open().training(KEY, never)
    context.__enter__()
    assert kept[0].is_locked
    thread = threading.Thread(target=context.__exit__, args=(None, None, None))
    thread.start()
    thread.join(5)
    assert not thread.is_alive() and not kept[0].is_locked
    assert cache.train() == cache.networks / f"{KEY}.safetensors"  # `never` fails where the lock is still held


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
@pytest.mark.skipif(sys.platform == "win32", reason="Windows locks on every file system")
def test_a_file_system_without_locks_is_refused(cache: Cache, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    import fcntl

    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="file system without locks") as caught, cache.open().training(KEY, never):
        pytest.fail("a soft lock was taken")
    assert str(cache.networks) in str(caught.value) and "VSZHDRV_CACHE" in str(caught.value)
    monkeypatch.undo()
    cache.train()


# Leftovers


def test_temporaries_are_swept_unless_their_writer_lives(cache: Cache, start: Callable[..., Other]) -> None:
    living = start(OTHER, f".{OTHER}.state.00000001.vszhdrv-part")
    assert living.line() == "training"
    dead, done, mine = "c" * 32, "d" * 32, KEY
    cache.train(done)
    for name in (f"{dead}.safetensors.2.tmp", f".{mine}.last.safetensors.3.vszhdrv-part", f"{done}.state"):
        (cache.networks / name).write_bytes(b"left")
    (cache.networks / f"{dead}.state").write_bytes(b"an unfinished training")
    (cache.networks / "notes.txt").write_bytes(b"somebody's")
    with cache.open().training(mine, never):
        pass
    left = sorted(path.name for path in cache.networks.iterdir() if path.suffix != ".lock")
    assert left == sorted(
        [
            f".{OTHER}.state.00000001.vszhdrv-part",
            f"{dead}.state",
            f"{done}.last.safetensors",
            f"{done}.safetensors",
            "notes.txt",
        ]
    )
    assert living.process.poll() is None


# Entries, clearing, the size limit


def use_at(path: Path, seconds: float) -> None:
    for file in path.parent.glob(path.name.split(".")[0] + ".*"):
        os.utime(file, (seconds, seconds))


def test_entries(cache: Cache) -> None:
    assert cache.open().entries() == []
    path = cache.train(KEY)
    use_at(path, 1000)
    with cache.open().training(OTHER, never) as slot:
        slot.save_state({"step": 1})
    unfinished, trained = cache.open().entries()
    assert (trained.key, trained.path, trained.trained, trained.used) == (KEY, path, True, 1000)
    assert trained.metadata["clip"] == KEY
    assert trained.size == path.stat().st_size + (cache.networks / f"{KEY}.last.safetensors").stat().st_size
    assert (unfinished.key, unfinished.trained, unfinished.metadata) == (OTHER, False, {})
    assert unfinished.size == (cache.networks / f"{OTHER}.state").stat().st_size
    assert unfinished.used == pytest.approx(time.time(), abs=60)


def test_entries_show_what_is_damaged_as_untrained(cache: Cache) -> None:
    cut(cache.train())
    assert [entry.trained for entry in cache.open().entries()] == [False]


def test_clear(cache: Cache, start: Callable[..., Other]) -> None:
    third, busy = "c" * 32, "d" * 32
    trainer = start(busy, f"{busy}.state")
    assert trainer.line() == "training"
    for key in (KEY, OTHER, third):
        cache.train(key)
    (cache.networks / "notes.txt").touch()
    assert cache.open().clear([OTHER]) == [OTHER]
    assert {entry.key for entry in cache.open().entries()} == {KEY, third, busy}
    with pytest.raises(ValueError, match=r"key is 'nonsense', which is not in .*networks"):
        cache.open().clear(["nonsense"])
    assert sorted(cache.open().clear()) == [KEY, third]
    assert cache.warnings == [f"{busy} is being trained now: it stays in {cache.networks}"]
    assert sorted(path.name for path in cache.networks.iterdir()) == [f"{busy}.lock", f"{busy}.state", "notes.txt"]


def test_a_removed_lock_file_does_not_part_those_who_wait_from_those_who_come(
    cache: Cache, start: Callable[..., Other]
) -> None:
    with store._if_free(cache.networks, KEY) as free:
        assert free
        early = start()
        assert early.line() == "waiting"
        (cache.networks / f"{KEY}.lock").unlink()  # as `clear` does, with the lock held
    late = start()
    first, second = (early, late) if (said := late.line()) == "waiting" else (late, early)
    if first is early:
        assert early.line() == "training"
    else:  # it was faster, and the other, who has said so, waits on
        assert said == "training"
        assert early.is_silent()
    first.leave()
    assert second.line() == "training"


def test_the_least_recently_used_go_first(cache: Cache) -> None:
    keys = ["a" * 32, "b" * 32, "c" * 32, "d" * 32]
    for seconds, key in enumerate(keys, start=1000):
        use_at(cache.train(key), seconds)
    assert cache.open().find(keys[0]) is not None, "used: now the youngest"
    size = cache.open().entries()[0].size
    assert cache.open().evict(4 * size) == []
    assert cache.open().evict(4 * size - 1) == [keys[1]]
    with cache.open().training(keys[2], never):
        assert cache.open().evict(2 * size) == [keys[3]], "never one that somebody holds"
    assert {entry.key for entry in cache.open().entries()} == {keys[0], keys[2]}
    assert cache.open().evict(0) == [keys[0], keys[2]], "taking it for training was a use"
    assert list(cache.networks.iterdir()) == [], "nor any lock file"


def test_a_new_network_makes_room(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds, key in enumerate(("a" * 32, "b" * 32), start=1000):
        use_at(cache.train(key, values=1000), seconds)
    size = cache.open().entries()[0].size
    monkeypatch.setenv("VSZHDRV_CACHE_SIZE", str(2 * size))
    cache.train("c" * 32, values=1000)
    assert {entry.key[0] for entry in cache.open().entries()} == {"b", "c"}
    monkeypatch.setenv("VSZHDRV_CACHE_SIZE", "10")
    path = cache.train("d" * 32, values=1000)
    assert path.exists() and [entry.key[0] for entry in cache.open().entries()] == ["d"], "the new one itself stays"


# Folders that can't be written


def mounted(folder: Path, options: str) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "vszhdrv-test", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture
def small(cache: Cache) -> Iterator[Cache]:
    """A cache on a file system of 256 kB of its own."""
    if not mounted(cache.folder, "size=256k"):
        pytest.skip("no file system can be mounted here")
    yield cache
    subprocess.run(["umount", "-l", str(cache.folder)], check=True)


def remount(cache: Cache, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(cache.folder)], check=True, capture_output=True)


def fill(cache: Cache) -> Path:
    path = cache.folder / "filler"
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(b"\0" * 4096)
    return path


def check_read_only(cache: Cache) -> None:
    """What a folder that holds KEY and can't be written must do."""
    before = cache.names()
    assert cache.open().find(KEY) is not None and cache.warnings == []
    with cache.open().training(OTHER, never) as slot:
        assert slot.found is None and slot.state() is None
        slot.save_state({"step": 1})
        assert slot.finish(BEST, LAST, {}) is None
    assert len(cache.warnings) == 1
    assert str(cache.networks) in cache.warnings[0] and "not kept" in cache.warnings[0]
    with cache.open().training(KEY, never) as slot:
        assert slot.found is not None
    assert cache.names() == before


def test_a_read_only_file_system(small: Cache) -> None:
    small.train(KEY)
    cut(small.train("c" * 32))
    remount(small, "ro")
    check_read_only(small)
    small.warnings.clear()
    assert small.open().find("c" * 32) is None
    assert len(small.warnings) == 1 and "it is not used" in small.warnings[0]
    with pytest.raises(OSError, match=f"can't be removed from the folder {small.networks}: Read-only file system"):
        small.open().clear([KEY])
    assert [entry.trained for entry in small.open().entries()].count(True) == 1


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_without_permission(cache: Cache, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """As above where nothing can be mounted: the system's refusals are played."""
    cache.train(KEY)
    (cache.networks / f"{KEY}.lock").unlink()
    real = os.open

    def refuse(path: str | Path, flags: int, *rest: int, **named: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and Path(path).is_relative_to(cache.folder):
            raise OSError(number, os.strerror(number), str(path))
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", refuse)
    check_read_only(cache)


def test_a_cache_folder_that_cannot_be_made(cache: Cache) -> None:
    cache.folder.write_bytes(b"a file")  # made after the folder was chosen
    assert cache.open().find(KEY) is None and cache.open().entries() == []
    with cache.open().training(KEY, never) as slot:
        assert slot.finish(BEST, LAST, {}) is None
    assert len(cache.warnings) == 1 and str(cache.networks) in cache.warnings[0]


def check_full(cache: Cache, fill: Callable[[], object], free: Callable[[], object]) -> None:
    """A disk that fills up during a training, and is freed after it."""
    with cache.open().training(KEY, never) as slot:
        slot.save_state({"step": 1})
        fill()
        slot.save_state({"step": 2, "noise": torch.rand(5000)})
        assert len(cache.warnings) == 1
        assert "No space left" in cache.warnings[0] and str(cache.networks) in cache.warnings[0]
        slot.save_state({"step": 3, "noise": torch.rand(5000)})
        assert len(cache.warnings) == 1, "one warning is enough"
        assert slot.finish({"w": torch.rand(5000)}, {"w": torch.rand(5000)}, {}) is None
        assert len(cache.warnings) == 2 and "used for this run only" in cache.warnings[1]
        assert str(cache.networks) in cache.warnings[1]
    assert cache.names() == ["state"], "no half file, and the last whole state"
    free()
    with cache.open().training(KEY, never) as slot:
        assert slot.state() == {"step": 1}
        assert slot.finish({"w": torch.rand(5000)}, {"w": torch.rand(5000)}, {}) is not None
    assert cache.names() == ["last.safetensors", "safetensors"]


def test_a_full_file_system(small: Cache) -> None:
    check_full(small, lambda: fill(small), lambda: (small.folder / "filler").unlink())


def test_a_file_system_that_says_it_is_full(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above where nothing can be mounted."""

    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    check_full(cache, lambda: monkeypatch.setattr(os, "fsync", refuse), monkeypatch.undo)


def test_room_for_one_file_of_two_leaves_none(small: Cache) -> None:
    with small.open().training(KEY, never) as slot:
        assert slot.finish({"w": torch.rand(50_000)}, LAST, {}) is not None  # 200 kB and little
    small.open().clear()
    with small.open().training(KEY, never) as slot:
        assert slot.finish({"w": torch.rand(50_000)}, {"w": torch.rand(50_000)}, {}) is None
    assert small.names() == []
