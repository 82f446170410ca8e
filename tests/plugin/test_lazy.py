"""Jobs that wait for the first request: what they read, that they run once, and that no request waits for ever."""

import gc
import re
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
import vapoursynth as vs

from vszhdrv.errors import Failed, Refused
from vszhdrv.plugin.errors import FrameError
from vszhdrv.plugin.lazy import Reading, after

core = vs.core

LIMIT = 20.0
"""Seconds after which a request counts as one that waits for ever."""

Planes = Iterable[np.ndarray]


@pytest.fixture(params=[1, 4])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = core.num_threads
    core.num_threads = request.param
    yield request.param
    core.num_threads = before


def numbered(length: int = 40, calls: list[int] | None = None) -> vs.VideoNode:
    """YUV 4:2:0 whose frame n holds n; `calls` takes the frames as they are made."""

    def fill(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        if calls is not None:
            calls.append(n)
        copy = f.copy()
        for plane in range(3):
            np.asarray(copy[plane])[:] = n
        return copy

    blank = core.std.BlankClip(format=vs.YUV420P8, width=18, height=10, length=length)
    return blank.std.ModifyFrame(blank, fill)


def requested(*clips: vs.VideoNode) -> list[Any]:
    """All frames of the clips, requested at once: the value that each holds."""
    requests: list[Future[vs.VideoFrame]] = [clip.get_frame_async(n) for clip in clips for n in range(clip.num_frames)]
    values = []
    for request in requests:
        with request.result(LIMIT) as frame:
            values.append(int(np.asarray(frame[0])[0, 0]))
    return values


class Job:
    """Reads some frames, then others that depend on those, and remembers all."""

    def __init__(self, clip: vs.VideoNode, positions: list[int]) -> None:
        self.clip = clip
        self.positions = positions
        self.begun = self.ended = 0
        self.read: dict[int, list[tuple[int, tuple[int, ...]]]] = {}

    def take(self, place: int, planes: Planes, props: Any) -> None:
        self.read.setdefault(place, []).extend((int(plane[-1, -1]), plane.shape) for plane in planes)

    def __call__(self) -> Generator[Reading]:
        self.begun += 1
        yield Reading("scoring", self.clip, self.positions, self.take)
        first, self.read = self.read, {}
        yield Reading("reading", self.clip, [first[place][0][0] + 1 for place in sorted(first)], self.take)
        self.ended += 1


def test_a_job_gets_its_frames_and_runs_once(threads: int) -> None:
    source = numbered()
    job = Job(source, [30, 3, 3, 17, 0, 29, 1])
    clip = after(source, job)
    assert requested(clip) == list(range(40))
    assert (job.begun, job.ended) == (1, 1)
    planes = ((10, 18), (5, 9), (5, 9))
    assert job.read == {place: [(n + 1, shape) for shape in planes] for place, n in enumerate([30, 3, 3, 17, 0, 29, 1])}
    assert requested(clip) == list(range(40))
    assert (job.begun, job.ended) == (1, 1)


def test_nothing_is_read_before_the_first_request_nor_made_before_the_job_is_done() -> None:
    calls: list[int] = []
    source = numbered(calls=calls)
    clip = after(source, Job(source, [5, 6]))
    assert calls == []
    clip.get_frame(20).close()
    assert set(calls[:-1]) == {5, 6, 7}
    assert calls[-1] == 20


def test_a_job_that_reads_nothing(threads: int) -> None:
    def job() -> Generator[Reading]:
        yield from ()

    assert requested(after(numbered(), job)) == list(range(40))


def test_few_frames_wait_to_be_taken(threads: int) -> None:
    lock = threading.Lock()
    waiting, most = 0, 0
    blank = core.std.BlankClip(format=vs.GRAY8, width=16, height=16, length=200)

    def count(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        nonlocal waiting, most
        with lock:
            waiting += 1
            most = max(most, waiting)
        return f

    def take(place: int, planes: Planes, props: Any) -> None:
        nonlocal waiting
        time.sleep(0.002)
        with lock:
            waiting -= 1

    source = blank.std.ModifyFrame(blank, count)

    def job() -> Generator[Reading]:
        yield Reading("reading", source, range(200), take)

    requested(after(blank, job))
    assert waiting == 0
    assert most <= threads


def test_jobs_that_wait_for_one_another(threads: int) -> None:
    """A clip made lazily is what another one learns from."""
    source = numbered()
    one = after(source, first := Job(source, [1, 2]))
    other = after(one, second := Job(one, [3, 4]))
    assert requested(other, one, other) == [*range(40)] * 3
    assert (first.begun, second.begun) == (1, 1)


def test_clips_that_take_turns(threads: int) -> None:
    """As with trainings: many want the same lock, but nobody holds it while frames are read."""
    lock = threading.Lock()
    source = numbered(length=4)

    def job() -> Generator[Reading]:
        yield Reading("reading", source, range(4), lambda place, planes, props: None)
        with lock:
            threading.Event().wait(0.01)

    assert requested(*(after(source, job) for _ in range(8))) == [*range(4)] * 8


@pytest.mark.parametrize("error", [Refused("train is off"), OSError("train is off"), Failed("train is off")])
def test_a_failure_is_the_frames_sentence_and_the_next_request_begins_anew(threads: int, error: Exception) -> None:
    source = numbered()
    failures = [error, error]

    def job() -> Generator[Reading]:
        yield Reading("reading", source, [1], lambda place, planes, props: None)
        if failures:
            raise failures.pop()

    clip = after(source, job)
    for _ in range(2):
        with pytest.raises(vs.Error) as caught:
            clip.get_frame(0)
        assert str(caught.value).strip() == "zhdrv: train is off"
    assert requested(clip) == list(range(40))


def test_a_bug_is_an_internal_error() -> None:
    def job() -> Generator[Reading]:
        raise KeyError("a bug")
        yield

    with pytest.raises(vs.Error, match=r"^\s*zhdrv: internal error: KeyError: 'a bug'"):
        after(numbered(), job).get_frame(0)


def test_a_sources_failure_is_its_own_and_closes_the_job(threads: int) -> None:
    closed = []
    broken = [True]

    def fail(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        if n == 7 and broken:
            raise FrameError("the disk is gone")
        return f

    good = numbered()
    source = good.std.ModifyFrame(good, fail)

    def job() -> Generator[Reading]:
        try:
            yield Reading("reading", source, range(20), lambda place, planes, props: None)
        except GeneratorExit:
            closed.append(True)
            raise

    clip = after(good, job)
    with pytest.raises(vs.Error) as caught:
        clip.get_frame(0)
    assert str(caught.value).strip() == "zhdrv: the disk is gone"
    gc.collect()
    assert closed == [True]
    broken.clear()
    assert requested(clip) == list(range(40))


def test_nothing_keeps_the_job_once_the_clip_is_gone() -> None:
    source = numbered()
    job = Job(source, [1, 2])
    gone = weakref.ref(job)
    clip = after(source, job)
    clip.get_frame(0).close()
    del job, clip
    gc.collect()
    assert gone() is None


def test_a_process_ends_while_a_job_computes(run_python: Callable[..., Any]) -> None:
    ended = run_python("""
import threading, time
import vapoursynth as vs
from vszhdrv.plugin.lazy import after, until_exit

started = threading.Event()

def events():
    try:
        for n in range(10_000):
            yield n
            started.set()
            time.sleep(0.01)
    finally:
        print("saved", flush=True)

def job():
    yield from ()
    for event in until_exit(events()):
        pass

clip = vs.core.std.BlankClip(length=9)
slow = after(clip, job)
requests = [slow.get_frame_async(n) for n in range(9)]
started.wait()
print("the end", flush=True)
""")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "the end\nsaved\n", "")


def test_vspipe_prints_the_sentence(run_vspipe: Callable[..., Any]) -> None:
    ended = run_vspipe(
        """
import vapoursynth as vs
from vszhdrv.errors import Refused
from vszhdrv.plugin.lazy import after

def job():
    raise Refused("no light")
    yield

after(vs.core.std.BlankClip(length=3), job).set_output()
""",
        ".",
    )
    assert ended.returncode == 1
    assert re.search(r"^zhdrv: no light$", ended.stderr, re.MULTILINE)
    assert "Traceback" not in ended.stderr
