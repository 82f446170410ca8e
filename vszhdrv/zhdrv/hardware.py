"""Which device computes, in which precision, and how much of it at the same time.

No other module of the core asks what the machine has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Literal

import torch

from vszhdrv.errors import Failed, Refused

from .rounding import ceil_div

Precision = Literal["bf16", "fp32"]

STREAMS_BYTES = 2**30
"""What all streams on a processor may take together, where their number is not given."""
CARD_STREAMS = 4
"""No more streams on a card: one each copies in, computes and copies out, and one gets ready."""
BF16_AMD = ("gfx908", "gfx90a", "gfx94", "gfx95", "gfx11", "gfx12")
"""AMD's architectures that multiply bfloat16 natively: CDNA, RDNA 3 and later. Asked by torch, all say that they do."""


_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "unable to find an engine")
"""What is said by MPS, by the processor's allocator on Linux and macOS, and on Windows, and by cuDNN."""


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
    cards = range(torch.accelerator.device_count())
    return [*(f"{kind.type}:{index}" for index in cards if _has_kernels(kind, index)), "cpu"]


def _has_kernels(kind: torch.device, index: int) -> bool:
    """Whether this build of torch computes on the card: it has kernels for some, and lists all of them."""
    names = torch.cuda.get_arch_list() if kind.type == "cuda" else []
    if not names:
        return True
    if torch.version.hip is not None:  # AMD's: kernels for one architecture, or for all of a family
        own = torch.cuda.get_device_properties(index).gcnArchName.split(":")[0]
        return own in names or any(name.endswith("-generic") for name in names)
    # NVIDIA's: kernels (sm) for this and later cards of one generation, or what the driver compiles for all later ones
    major, minor = torch.cuda.get_device_capability(index)
    built = [(name.split("_")[0], int(found[1])) for name in names if (found := re.search(r"_(\d+)", name))]
    return any(number <= 10 * major + minor and (form == "compute" or number // 10 == major) for form, number in built)


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the first of `devices()`, and a kind ("cuda", "xpu") its first card.

    Raises Refused, naming those that are there, where it is not.
    """
    here = devices()
    wanted = here[0] if name in ("auto", here[0].split(":")[0]) else name
    if wanted not in here:
        raise Refused(f"device must be auto or one of those here ({', '.join(here)}), not {name!r}")
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
        raise Refused(f"precision must be auto, bf16 or fp32, not {name!r}")
    if device.type == "cpu":
        has = torch.cpu.get_capabilities()
        return "bf16" if has.get("avx512_bf16") or has.get("amx_bf16") else "fp32"
    if not has_streams(device):
        return "fp32"
    if torch.version.hip is not None:
        architecture = torch.cuda.get_device_properties(device).gcnArchName
        return "bf16" if architecture.startswith(BF16_AMD) else "fp32"
    with torch.accelerator.device_index(device.index):  # the card that is asked
        return "bf16" if torch.get_device_module(device).is_bf16_supported(including_emulation=False) else "fp32"


def additions_pay(device: torch.device, precision: Precision) -> bool:
    """Whether multiplications are worth sparing by more additions: not on cards, nor on processors with units for
    products of bfloat16 matrices (AMX; none was at hand), to which a multiplication costs next to nothing."""
    return device.type == "cpu" and not (precision == "bf16" and torch.cpu.get_capabilities().get("amx_bf16"))


def layout_for_training(device: torch.device, precision: Precision) -> torch.memory_format:
    """The memory layout in which a network of many channels trains fastest: docs/experiments.md has the figures."""
    slow = device.type == "cpu" and precision == "fp32" and torch.backends.cpu.get_cpu_capability() != "AVX512"
    return torch.contiguous_format if slow else torch.channels_last


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
        return threads // ceil_div(threads, fit)  # so many that their shares leave few threads over
    # a tile at once takes up to 1.7 times as much
    return max(1, min(CARD_STREAMS, free_memory(device) // (2 * bytes_each)))


def free_memory(device: torch.device) -> int:
    """What a card has free of memory of its own, in bytes; 0 where it has none, or does not tell."""
    if has_streams(device):
        with suppress(RuntimeError):  # drivers of some built-in cards don't tell
            free, _ = torch.accelerator.get_memory_info(device)
            return int(free)
    return 0


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch has found no memory: only some devices have an exception for it."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)


@contextmanager
def memory_told(device: torch.device) -> Iterator[None]:
    """Raises Failed, one sentence, where memory ends inside; torch's own error has a paragraph."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        other = "" if device.type == "cpu" else ", or set device to cpu"
        raise Failed(
            f"{device} is out of memory: close what else uses it, or have less computed at the same time "
            f"(num_streams, tile){other}"
        ) from error


def give_back_memory(device: torch.device) -> None:
    """Let others have what torch keeps of a card's memory for its own next tensors."""
    if has_streams(device):
        torch.accelerator.empty_cache()
