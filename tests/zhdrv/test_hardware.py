"""Which device and precision are chosen, on machines that these tests need not have."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from vszhdrv.zhdrv import hardware


def pretend(monkeypatch: pytest.MonkeyPatch, kind: str | None, count: int = 1) -> None:
    """That torch has so many cards of this kind here."""
    card = None if kind is None else torch.device(kind)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: card)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_arch_list", list)


@pytest.mark.parametrize("kind", ["cuda", "xpu"])
def test_cards_come_first_and_the_processor_last(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    pretend(monkeypatch, kind, 2)
    assert hardware.devices() == [f"{kind}:0", f"{kind}:1", "cpu"]
    for name, device in (("auto", f"{kind}:0"), (kind, f"{kind}:0"), (f"{kind}:1", f"{kind}:1"), ("cpu", "cpu")):
        assert hardware.choose_device(name) == torch.device(device)
    with pytest.raises(ValueError) as raised:
        hardware.choose_device(f"{kind}:2")
    sentence = f"device must be auto or one of those here ({kind}:0, {kind}:1, cpu), not '{kind}:2'"
    assert str(raised.value) == sentence


def test_apples_device_has_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "mps")
    assert hardware.devices() == ["mps", "cpu"]
    for name in ("auto", "mps"):
        assert hardware.choose_device(name) == torch.device("mps")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "xpu", "mps", "gpu", "", "CPU:1"])
def test_without_a_card_only_the_processor_is_offered(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pretend(monkeypatch, None)
    assert hardware.choose_device("auto") == torch.device("cpu")
    with pytest.raises(ValueError) as raised:
        hardware.choose_device(name)
    assert str(raised.value) == f"device must be auto or one of those here (cpu), not {name!r}"


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [({}, "fp32"), ({"avx2": True}, "fp32"), ({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16")],
)
def test_auto_asks_the_processor_for_bfloat16(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert hardware.choose_precision("auto", torch.device("cpu")) == precision


@pytest.mark.parametrize("kind", ["cuda", "xpu"])
def test_auto_asks_the_card_for_native_bfloat16(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    asked = [0]

    @contextmanager
    def device_index(index: int) -> Iterator[None]:
        asked.append(index)
        yield
        asked.pop()

    def only_the_second(including_emulation: bool) -> bool:
        return including_emulation or asked[-1] == 1

    monkeypatch.setattr(torch.accelerator, "device_index", device_index)
    monkeypatch.setattr(torch.get_device_module(kind), "is_bf16_supported", only_the_second)
    found = [hardware.choose_precision("auto", torch.device(kind, index)) for index in (0, 1)]
    assert found == ["fp32", "bf16"]
    assert hardware.choose_precision("auto", torch.device("mps")) == "fp32"


@pytest.mark.parametrize(("name", "precision"), [("gfx90a:sramecc+", "bf16"), ("gfx1100", "bf16"), ("gfx1030", "fp32")])
def test_amds_cards_are_known_by_name(monkeypatch: pytest.MonkeyPatch, name: str, precision: str) -> None:
    monkeypatch.setattr(torch.version, "hip", "7.0")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(gcnArchName=name))
    assert hardware.choose_precision("auto", torch.device("cuda:0")) == precision


def test_cards_that_torch_was_not_built_for_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "cuda", 3)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90a", "sm_120", "compute_120"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: ((6, 1), (7, 5), (12, 0))[index])
    assert hardware.devices() == ["cuda:1", "cuda:2", "cpu"]
    assert hardware.choose_device("auto") == hardware.choose_device("cuda") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="not 'cuda:0'"):
        hardware.choose_device("cuda:0")


@pytest.mark.parametrize(
    ("capability", "built_for", "there"),
    [
        ((8, 9), ["sm_80", "sm_86", "sm_90"], True),
        ((8, 0), ["sm_75", "sm_86", "sm_90"], False),
        ((12, 0), ["sm_80", "sm_90"], False),
        ((12, 0), ["sm_80", "sm_90", "compute_90"], True),
        ((10, 3), ["sm_100", "sm_120"], True),
    ],
)
def test_kernels_serve_later_cards_of_their_generation(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], built_for: list[str], there: bool
) -> None:
    pretend(monkeypatch, "cuda")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built_for)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
    assert hardware.devices() == ["cuda:0", "cpu"][not there :]


@pytest.mark.parametrize(
    ("built_for", "there"), [(["gfx1030", "gfx1100"], [1]), (["gfx942", "gfx10-3-generic"], [0, 1])]
)
def test_amds_built_in_cards_are_left_out_without_kernels(
    monkeypatch: pytest.MonkeyPatch, built_for: list[str], there: list[int]
) -> None:
    pretend(monkeypatch, "cuda", 2)
    monkeypatch.setattr(torch.version, "hip", "7.0")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built_for)
    properties = [SimpleNamespace(gcnArchName=name) for name in ("gfx1036", "gfx1100:xnack-")]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties[index])
    assert hardware.devices() == [*(f"cuda:{index}" for index in there), "cpu"]


@pytest.mark.parametrize(
    ("device", "precision", "capability", "last"),
    [
        ("cpu", "bf16", "AVX512", True),
        ("cpu", "fp32", "AVX512", True),
        ("cpu", "fp32", "AVX2", False),
        ("cpu", "fp32", "DEFAULT", False),
        ("cuda:0", "fp32", "AVX2", True),
    ],
)
def test_wide_networks_learn_in_the_faster_layout(
    device: str, precision: hardware.Precision, capability: str, last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    layout = hardware.layout_for_training(torch.device(device), precision)
    assert layout == (torch.channels_last if last else torch.contiguous_format)


@pytest.mark.parametrize(
    ("device", "precision", "amx", "pay"),
    [
        ("cpu", "fp32", True, True),
        ("cpu", "bf16", False, True),
        ("cpu", "bf16", True, False),
        ("cuda:0", "fp32", False, False),
    ],
)
def test_multiplications_are_spared_where_they_cost_most(
    device: str, precision: hardware.Precision, amx: bool, pay: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": amx})
    assert hardware.additions_pay(torch.device(device), precision) is pay


def test_a_precision_that_is_asked_for_is_taken() -> None:
    cpu = torch.device("cpu")
    assert (hardware.choose_precision("fp32", cpu), hardware.choose_precision("bf16", cpu)) == ("fp32", "bf16")
    with pytest.raises(ValueError, match=r"^precision must be auto, bf16 or fp32, not 'fp16'$"):
        hardware.choose_precision("fp16", cpu)


@pytest.mark.parametrize(
    ("threads", "fit", "streams"), [(1, 9, 1), (2, 9, 2), (2, 1, 1), (2, 0, 1), (8, 5, 4), (16, 5, 4), (6, 4, 3)]
)
def test_a_processors_streams_fit_its_threads_and_the_memory(
    monkeypatch: pytest.MonkeyPatch, threads: int, fit: int, streams: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    each = hardware.STREAMS_BYTES // fit if fit else 10 * hardware.STREAMS_BYTES
    assert hardware.default_streams(torch.device("cpu"), each) == streams


def test_a_cards_streams_fit_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "get_memory_info", lambda device: (10_000, 20_000))
    card = torch.device("cuda:1")
    assert [hardware.default_streams(card, each) for each in (10, 2_000, 4_000, 90_000)] == [4, 2, 1, 1]
    assert hardware.default_streams(torch.device("mps"), 10) == 1
    assert [hardware.free_memory(torch.device(name)) for name in ("cuda:1", "mps", "cpu")] == [10_000, 0, 0]


def test_a_card_that_does_not_tell_what_is_free_has_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(device: torch.device) -> tuple[int, int]:
        raise RuntimeError("The device doesn't support querying the available free memory.")

    monkeypatch.setattr(torch.accelerator, "get_memory_info", refuse)
    assert hardware.free_memory(torch.device("xpu:0")) == 0
    assert hardware.default_streams(torch.device("xpu:0"), 10) == 1


@pytest.mark.parametrize(("given", "policy"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_do_not_wait_in_busy_loops_unless_told_to(given: str | None, policy: str) -> None:
    code = "import os, vszhdrv.zhdrv.training; print(os.environ['OMP_WAIT_POLICY'])"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == f"{policy}\n"
