"""The threads that compute frames, for all clips of the process.

torch keeps a team of threads for every thread that calls it, and VapourSynth calls from as many as there are cores: so
frames are computed on a few threads of our own.
"""

import atexit
import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from .errors import FrameError

Pixels = npt.NDArray[Any]
Planes = list[Pixels]
Computed = Planes | Pixels | tuple[Planes | Pixels, Mapping[str, Any]]
"""A frame's planes, (height, width) each, or one array of them; and frame properties to set."""
_Task = tuple[Future[Computed], Callable[[Planes], Computed], Planes]


@dataclass(frozen=True)
class Streams:
    """How frames are computed on request."""

    count: int = 1
    """How many at the same time, 1 or more."""
    here: bool = False
    """On VapourSynth's own threads, which pays where one thread computes a frame: none has to be woken for it."""


class Workers:
    """Where frames are computed: on threads of our own, as many as one clip has streams, started when needed, or on
    those of VapourSynth. Either way none is left half-way when the process ends."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._lock = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._here = 0
        """Frames that VapourSynth's threads are computing."""
        self._ending = False
        atexit.register(self._end)

    def run(self, streams: Streams, function: Callable[[Planes], Computed], planes: Planes) -> Computed:
        """function(planes), computed as `streams` says; its exception too comes out here."""
        if streams.here:
            return self._compute(function, planes)
        done: Future[Computed] = Future()
        with self._lock:
            if self._ending:
                raise FrameError("the process is ending")
            while len(self._threads) < streams.count:
                thread = threading.Thread(target=self._serve, name="zhdrv", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # an interpreter that ends starts none, before it tells us
                    raise FrameError("the process is ending") from None
                self._threads.append(thread)
            self._work.put((done, function, planes))
        return done.result()

    def _compute(self, function: Callable[[Planes], Computed], planes: Planes) -> Computed:
        with self._lock:
            if self._ending:
                raise FrameError("the process is ending")
            self._here += 1
        try:
            return function(planes)
        finally:
            with self._lock:
                self._here -= 1
                self._lock.notify_all()

    def _serve(self) -> None:
        while task := self._work.get():
            done, function, planes = task
            try:
                done.set_result(function(planes))
            except BaseException as error:
                done.set_exception(error)
            del task, done, function, planes  # waiting must not keep a network, or a core, alive

    def _end(self) -> None:
        """Finish the frames at hand and fail the others.

        The interpreter stops daemon threads where they are, and would leave VapourSynth's threads waiting for these
        for ever; it waits for other threads before this is called.
        """
        with self._lock:
            self._ending = True
        with suppress(queue.Empty):
            while task := self._work.get_nowait():
                task[0].set_exception(FrameError("the process is ending"))
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()
        with self._lock:
            self._lock.wait_for(lambda: not self._here)


workers = Workers()
"""Those of this process."""
