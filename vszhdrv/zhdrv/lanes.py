"""Threads that share work: each lane takes its number of the processor's threads, or a card's stream of its own."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from typing import Any, Self

import torch
from threadpoolctl import ThreadpoolController

from .hardware import has_streams, torch_threads

KEPT_BYTES = 2**28
"""Memory that is let go at the end of a heap is kept by the process, up to this much."""
KEPT_BLOCK_BYTES = 2**25
"""Larger blocks of memory go back to the system when they are let go: the most that glibc takes."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_this_thread = threading.local()
_one_queue = threading.Lock()


@contextmanager
def lane(device: torch.device, threads: int) -> Iterator[None]:
    """What is computed inside leaves room for others: it takes so many threads of the processor, and a card's stream.

    The number is this thread's alone, and what it was before afterwards; that of other threads, and torch's own for the
    process, stay as they are.
    """
    torch.get_num_threads()  # torch sets a new thread's number when it is first asked, and would undo ours
    keep_memory()
    with _openmp().limit(limits=threads), _queue(device):
        yield


class Lanes:
    """Parts of a work, computed at the same time, each by an even share of the processor's threads; a card has one
    lane. A context: its threads end with it.

    Args:
        most: how many lanes, at most.
        threads: how many threads a lane has, at most; None: all of its share.
    """

    def __init__(self, device: torch.device, most: int, threads: int | None = None) -> None:
        here = torch_threads()
        self.count = min(most, here) if device.type == "cpu" else 1
        share = here // self.count
        self._device, self._threads = device, share if threads is None else min(threads, share)
        self._pool = ThreadPoolExecutor(self.count) if device.type == "cpu" and self._threads < here else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def map[A, B](self, function: Callable[[A], B], parts: Iterable[A]) -> list[B]:
        """What `function` gives for each of the parts, in their order."""
        if self._pool is None:
            return [function(part) for part in parts]

        def in_lane(part: A) -> B:
            with lane(self._device, self._threads):
                return function(part)

        return list(self._pool.map(in_lane, parts))

    def between(self) -> AbstractContextManager[None]:
        """What this thread computes inside, before and after the lanes' parts, takes the threads of one lane alone: for
        few values, waking others takes longer than all of the work."""
        return lane(self._device, self._threads) if self._device.type == "cpu" else nullcontext()


def side_by_side[A, B](function: Callable[[A], B], parts: Sequence[A]) -> list[B]:
    """What `function` gives for each of the parts, in their order, computed on the processor at the same time.

    This thread's lane is shared out among them: threads with a part each wait for one another once, those that share
    each operation hundreds of times. `function` is called with this thread's inference mode and autocast. Where a part
    calls this in turn, its own parts follow one another: all helpers might be waiting for helpers.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(parts) <= 1 or "helps" in _this_thread.__dict__:
        return [function(part) for part in parts]
    cpu, share, inference = torch.device("cpu"), max(1, threads // len(parts)), torch.is_inference_mode_enabled()
    dtype, enabled = torch.get_autocast_dtype(cpu.type), torch.is_autocast_enabled(cpu.type)

    def in_lane(part: A) -> B:
        with lane(cpu, share), torch.inference_mode(inference), torch.autocast(cpu.type, dtype, enabled):
            return function(part)

    return list(_helpers().map(in_lane, parts))


@cache
def _helpers() -> ThreadPoolExecutor:
    """Threads for `side_by_side`, which all lanes of the process share."""
    return ThreadPoolExecutor(
        torch_threads(), thread_name_prefix="zhdrv", initializer=lambda: setattr(_this_thread, "helps", True)
    )


def _queue(device: torch.device) -> AbstractContextManager[Any]:
    """What a thread's work for a device waits in line in."""
    if device.type == "cpu":
        return nullcontext()
    if not has_streams(device):
        return _one_queue  # Apple's has one, which torch does not let several threads fill
    streams = _this_thread.__dict__.setdefault("streams", {})
    if device not in streams:
        # else leaving the stream would go back to the first card, and take memory of it
        torch.accelerator.set_device_index(device)
        streams[device] = torch.Stream(device)
    stream: torch.Stream = streams[device]
    return stream


def wait(device: torch.device) -> None:
    """Return when this thread's stream has done its work, where there is one; the processor is for others meanwhile."""
    if device.type == "cuda":  # whose streams are waited for in a busy loop
        done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        done.record(torch.cuda.current_stream(device))
        done.synchronize()
    elif has_streams(device):
        torch.accelerator.current_stream(device).synchronize()


@cache
def keep_memory() -> None:
    """Have the C library keep what one frame lets go for the next one. Where it isn't glibc, nothing happens.

    Else it gives the end of a heap back to the system from 128 KiB on, and gets it again page by page, zeroed, a moment
    later: a quarter to a third of the time that a small frame takes.
    """
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, KEPT_BLOCK_BYTES)


@cache
def _openmp() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="openmp")
