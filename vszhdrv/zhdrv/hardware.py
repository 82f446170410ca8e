"""Which device computes, and in which precision: the one place of the core that asks what the machine has."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["bf16", "fp32"]


def devices() -> list[str]:
    """Names of the devices that torch can compute on here, the fastest kind first, "cpu" last."""
    names = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        names.append("mps")
    return [*names, "cpu"]


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the first of `devices()`, "cuda" the first NVIDIA (or ROCm) card.

    Raises ValueError, naming those that are there, where it is not.
    """
    here = devices()
    wanted = {"auto": here[0], "cuda": "cuda:0"}.get(name, name)
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
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "fp32"
