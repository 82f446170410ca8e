"""An accelerator for machines without one, "far:0": its tensors lie in the processor's memory, and are kept apart.

Where a real card would fail, an operation fails here: where it mixes tensors of the card and of the processor, or has
float64 on the card, which Apple's do not know. What the numbers are is up to the processor, and so the same as there.

Renames torch's device for other vendors for the rest of the process, and makes it the one that "auto" chooses.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

FAR = torch.device("privateuseone", 0)
NEAR = torch.device("cpu")
MEMORY = 2**33
"""What is free of the card's."""

counts: Counter[str] = Counter()
"""How often each operation was asked for."""
pinned: list[torch.Size] = []
"""Shapes of the tensors that were wanted in page-locked memory."""
emptied: list[bool] = []
"""An entry for each time that unused memory was given back."""

_aten = torch.ops.aten
_CROSSING = {_aten._to_copy.default, _aten.copy_.default}

_tensor, _empty = torch.tensor, torch.empty


class _Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def is_bf16_supported(self, including_emulation: bool = True) -> bool:
        return including_emulation


class Far(torch.Tensor):
    """A tensor on the card."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Far:
        if inner.dtype == torch.float64:
            raise TypeError("float64 on a card: some know none")
        about = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        far = torch.Tensor._make_wrapper_subclass(cls, inner.shape, **about, device=FAR)  # type: ignore[attr-defined]
        far.inner = inner
        return far  # type: ignore[no-any-return]

    def __init__(self, inner: torch.Tensor) -> None:
        pass

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(operation, *args, **(kwargs or {}))

    # What torch does for its own devices alone:

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def new_tensor(self, data: Any, dtype: torch.dtype | None = None) -> torch.Tensor:  # type: ignore[override]
        return _tensor(data, dtype=dtype or self.dtype).to(FAR)


def _computed(operation: Any, *args: Any, **kwargs: Any) -> Any:
    counts[str(operation)] += 1
    values, structure = pytree.tree_flatten((args, kwargs))
    far = {id(value.inner): value for value in values if isinstance(value, Far)}
    near = [value for value in values if isinstance(value, torch.Tensor) and not isinstance(value, Far)]
    if far and any(value.dim() for value in near) and operation not in _CROSSING:
        raise RuntimeError(f"{operation} has tensors on {FAR} and on {NEAR}")
    inner = [
        value.inner if isinstance(value, Far) else NEAR if isinstance(value, torch.device) else value
        for value in values
    ]
    inner_args, inner_kwargs = pytree.tree_unflatten(inner, structure)
    result = operation(*inner_args, **inner_kwargs)
    goes_near = torch.device(kwargs.get("device") or FAR) == NEAR or (
        operation == _aten.copy_.default and not isinstance(args[0], Far)
    )

    def placed(value: Any) -> Any:
        if goes_near or not isinstance(value, torch.Tensor):
            return value
        return far[id(value)] if id(value) in far else Far(value)

    return pytree.tree_map(placed, result)


def _new_tensor(data: Any, *, device: Any = None, **about: Any) -> torch.Tensor:
    made = _tensor(data, **about)
    return made if device is None else made.to(device)


def _new_empty(*size: Any, pin_memory: bool = False, **about: Any) -> torch.Tensor:
    made = _empty(*size, **about)
    if pin_memory:
        pinned.append(made.shape)
    return made


def install() -> None:
    """Have torch know the device."""
    global _library
    _setup_privateuseone_for_python_backend("far", _Backend())
    _library = torch.library.Library("_", "IMPL")
    _library.fallback(_computed, "PrivateUse1")
    torch.__future__.set_swap_module_params_on_conversion(True)
    torch.tensor, torch.empty = _new_tensor, _new_empty  # type: ignore[assignment]
    torch.accelerator.empty_cache = lambda: emptied.append(True)
    torch.accelerator.get_memory_info = lambda device=None, /: (MEMORY, 2**33)
    # A view is a tensor of its own here, and in inference mode may not be one of weights made outside.
    torch.inference_mode.__enter__ = torch.no_grad.__enter__  # type: ignore[method-assign, assignment]
    torch.inference_mode.__exit__ = torch.no_grad.__exit__  # type: ignore[method-assign, assignment]
