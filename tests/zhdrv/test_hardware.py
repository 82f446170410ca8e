"""Which device and precision are chosen, on machines that these tests need not have."""

import pytest
import torch

from vszhdrv.zhdrv import hardware


@pytest.fixture
def two_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("two_cards")
def test_cards_come_first_and_the_processor_last() -> None:
    assert hardware.devices() == ["cuda:0", "cuda:1", "cpu"]
    for name, device in (("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")):
        assert hardware.choose_device(name) == torch.device(device)
    with pytest.raises(ValueError) as raised:
        hardware.choose_device("cuda:2")
    assert str(raised.value) == "device must be auto or one of those here (cuda:0, cuda:1, cpu), not 'cuda:2'"


@pytest.mark.usefixtures("no_card")
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "gpu", "", "CPU:1"])
def test_without_a_card_only_the_processor_is_offered(name: str) -> None:
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


@pytest.mark.parametrize("native", [True, False])
def test_auto_asks_the_card_for_native_bfloat16(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    assert hardware.choose_precision("auto", torch.device("cuda:0")) == ("bf16" if native else "fp32")


def test_a_precision_that_is_asked_for_is_taken() -> None:
    cpu = torch.device("cpu")
    assert (hardware.choose_precision("fp32", cpu), hardware.choose_precision("bf16", cpu)) == ("fp32", "bf16")
    with pytest.raises(ValueError, match=r"^precision must be auto, bf16 or fp32, not 'fp16'$"):
        hardware.choose_precision("fp16", cpu)
