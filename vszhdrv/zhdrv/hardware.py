"""Which device computes, in which precision, and how much of it at the same time: the one place of the core that asks
what the machine has."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from typing import Literal

import torch
from threadpoolctl import ThreadpoolController

Precision = Literal["bf16", "fp32"]

STREAMS_BYTES = 3 * 2**28
"""What all streams on a processor may take together, where their number is not given."""
CARD_STREAMS = 4
"""No more streams on a card: one each copies in, computes and copies out, and one gets ready."""
_BF16_KINDS = ("cuda", "xpu")
"""Kinds of accelerators that can be asked whether they multiply bfloat16 natively."""

KEPT_BYTES = 2**28
"""Memory that is let go at the end of a heap is kept by the process, up to this much, ..."""
KEPT_BLOCK_BYTES = 2**25
"""... but for blocks over this, the most that glibc takes."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h

_this_thread = threading.local()


def devices() -> list[str]:
    """Names of the devices that torch can compute on here, "cpu" last.

    Before it come the cards of the kind that this build of torch is for: "cuda:0", ... (NVIDIA's, and AMD's by ROCm),
    "xpu:0", ... (Intel's), or "mps" (Apple's).
    """
    kind = torch.accelerator.current_accelerator(check_available=True)
    if kind is None:
        return ["cpu"]
    if not has_streams(kind):
        return [kind.type, "cpu"]
    return [*(f"{kind.type}:{index}" for index in range(torch.accelerator.device_count())), "cpu"]


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the first of `devices()`, and a kind ("cuda", "xpu") its first card.

    Raises ValueError, naming those that are there, where it is not.
    """
    here = devices()
    wanted = here[0] if name in ("auto", here[0].removesuffix(":0")) else name
    if wanted not in here:
        raise ValueError(f"device must be auto or one of those here ({', '.join(here)}), not {name!r}")
    return torch.device(wanted)


def choose_precision(name: str, device: torch.device) -> Precision:
    """ "bf16" where the device multiplies bfloat16 natively and "auto" leaves the choice, else "fp32".

    Emulated bfloat16 is slower than float32, so that "auto" asks the processor (AVX512-BF16, AMX) or the card.
    """
    if name == "bf16":
        return "bf16"
    if name == "fp32":
        return "fp32"
    if name != "auto":
        raise ValueError(f"precision must be auto, bf16 or fp32, not {name!r}")
    if device.type == "cpu":
        has = torch.cpu.get_capabilities()
        return "bf16" if has.get("avx512_bf16") or has.get("amx_bf16") else "fp32"
    if device.type in _BF16_KINDS:
        return "bf16" if torch.get_device_module(device).is_bf16_supported(including_emulation=False) else "fp32"
    return "fp32"


def has_streams(device: torch.device) -> bool:
    """Whether the device works through streams side by side, into which memory is copied best that is page-locked."""
    return device.type not in ("cpu", "mps")


def torch_threads() -> int:
    """How many threads torch computes with on a processor, as the process has it now.

    A thread asks for that when it first computes, and is not told of later changes: a new one knows.
    """
    with ThreadPoolExecutor(1) as new:
        return new.submit(torch.get_num_threads).result()


def default_streams(device: torch.device, bytes_each: int) -> int:
    """How many frames are computed at the same time if each takes so much memory. Asks the card for what is free."""
    if device.type == "cpu":
        threads = torch_threads()
        fit = max(1, STREAMS_BYTES // bytes_each)
        return threads // -(-threads // fit)  # so many that their shares leave few threads over
    # a tile at once takes up to 1.7 times as much
    return max(1, min(CARD_STREAMS, free_memory(device) // (2 * bytes_each)))


def free_memory(device: torch.device) -> int:
    """What a card has free of memory of its own, in bytes; 0 where it has none, or does not tell."""
    if has_streams(device):
        with suppress(RuntimeError):  # drivers of some built-in cards don't tell
            free, _ = torch.accelerator.get_memory_info(device)
            return int(free)
    return 0


@contextmanager
def memory_told(device: torch.device) -> Iterator[None]:
    """Where a card's memory ends inside, a RuntimeError of one sentence is raised; torch's own has a paragraph."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RuntimeError(
            f"{device} is out of memory: close what else uses it, have less computed at the same time (num_streams, "
            "tile), or set device to cpu"
        ) from error


@contextmanager
def lane(device: torch.device, threads: int) -> Iterator[None]:
    """What is computed inside leaves room for others: on a processor it takes so many threads, on a card a stream.

    The number is this thread's alone, and what it was before afterwards; that of other threads, and torch's own for the
    process, stay as they are.
    """
    if has_streams(device):
        streams = _this_thread.__dict__.setdefault("streams", {})
        if device not in streams:
            streams[device] = torch.Stream(device)
        with streams[device]:
            yield
    elif device.type == "cpu":
        torch.get_num_threads()  # torch sets a new thread's number when it is first asked, and would undo ours
        keep_memory()
        with _openmp().limit(limits=threads):
            yield
    else:
        yield


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
