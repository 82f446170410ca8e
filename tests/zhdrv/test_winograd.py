"""Convolutions with half of the multiplications: torch's own results, in any size and strip; where they are used."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vszhdrv.zhdrv import evaluation, winograd
from vszhdrv.zhdrv.config import Config
from vszhdrv.zhdrv.expansion import Expander
from vszhdrv.zhdrv.hardware import Precision
from vszhdrv.zhdrv.network import UNet, new_network
from vszhdrv.zhdrv.winograd import HalvedConvolution, halved

FAST, PAPER = (Config.from_preset(preset) for preset in ("fast", "paper"))


def convolution(seen: int, made: int, dtype: torch.dtype = torch.float64) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(seen, made, 3, padding=1).to(dtype).requires_grad_(False)


def built(config: Config) -> UNet:
    return new_network(config.architecture, 0)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (3, 1), (4, 4), (5, 9), (8, 2), (31, 6), (64, 48)])
@pytest.mark.parametrize("values", [1, 300, winograd.STRIP_VALUES])
def test_the_results_are_torchs_in_any_size_and_strip(
    height: int, width: int, values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "STRIP_VALUES", values)
    direct = convolution(5, 7)
    x = torch.randn(2, 5, height, width, dtype=torch.float64)
    found = HalvedConvolution(direct)(x)
    assert found.shape == (2, 7, height, width)
    assert torch.allclose(found, direct(x), rtol=0, atol=1e-13)


def test_a_result_in_channels_last_memory_from_either_layout() -> None:
    direct = convolution(5, 7)
    x = torch.randn(1, 5, 13, 8, dtype=torch.float64)
    for seen in (x, x.contiguous(memory_format=torch.channels_last)):
        found = HalvedConvolution(direct)(seen)
        assert torch.allclose(found, direct(x), rtol=0, atol=1e-13)
        assert F.relu(found).is_contiguous(memory_format=torch.channels_last)


def test_threads_have_strips_of_their_own(set_threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []
    monkeypatch.setattr(winograd, "side_by_side", lambda compute, firsts: found.append(len([*map(compute, firsts)])))
    direct = convolution(5, 7)
    for threads, height, strips in ((1, 30, 1), (3, 30, 3), (3, 8, 2), (3, 1, 1)):
        set_threads(threads)
        x = torch.randn(1, 5, height, 8, dtype=torch.float64)
        assert torch.allclose(HalvedConvolution(direct)(x), direct(x), rtol=0, atol=1e-13)
        assert found.pop() == strips


def multiplications(run: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> int:
    """Those of the convolutions that `run` has torch compute."""
    counted: list[int] = []
    original = F.conv2d

    def conv2d(x: Tensor, weight: Tensor, *args: object, **kwargs: object) -> Tensor:
        out: Tensor = original(x, weight, *args, **kwargs)  # type: ignore[arg-type]
        counted.append(out.numel() * weight[0].numel())
        return out

    with monkeypatch.context() as patch:
        patch.setattr(F, "conv2d", conv2d)
        run()
    return sum(counted)


def test_half_of_the_multiplications(monkeypatch: pytest.MonkeyPatch) -> None:
    direct = convolution(5, 7)
    x = torch.randn(1, 5, 16, 8, dtype=torch.float64)
    once = HalvedConvolution(direct)
    assert 2 * multiplications(lambda: once(x), monkeypatch) == multiplications(lambda: direct(x), monkeypatch)


def test_in_bfloat16_the_error_is_not_much_larger() -> None:
    exact = convolution(128, 64, torch.float32)
    x = torch.randn(1, 128, 64, 64).relu().bfloat16()
    truth = exact(x.float())
    rounded = convolution(128, 64, torch.bfloat16)
    error = (rounded(x).float() - truth).std()
    assert (HalvedConvolution(exact).bfloat16()(x).float() - truth).std() < 4 * error


def test_the_papers_wide_convolutions_are_halved_in_a_copy() -> None:
    network = built(PAPER)
    copied = halved(network)
    direct = [name for name, part in copied.named_modules() if isinstance(part, nn.Conv2d)]
    assert direct == ["encoder.0", "out"]  # 3 to 64 channels, and 1x1
    assert not any(isinstance(part, HalvedConvolution) for part in network.modules())
    x = torch.rand(1, 3, 64, 48)
    with torch.inference_mode():
        assert torch.allclose(copied(x), network(x), atol=1e-6)


def test_of_fast_none_is() -> None:
    assert not any(isinstance(part, HalvedConvolution) for part in halved(built(FAST)).modules())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_expansion_with_half_of_the_multiplications(precision: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    frame = np.random.default_rng(0).random((3, 70, 90), np.float32) ** 2

    def expanded(chosen: Precision) -> np.ndarray:
        hdr = frame.copy()
        Expander(built(PAPER), PAPER, device, chosen).brighten(list(hdr))
        return hdr

    halves = multiplications(lambda: expanded(precision), monkeypatch)
    found = expanded(precision)
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "additions_pay", lambda *_: False)
        whole = multiplications(lambda: expanded(precision), monkeypatch)
        direct = expanded("fp32")
    # but for a processor that multiplies matrices of bfloat16
    assert halves < 0.6 * whole or not evaluation.additions_pay(device, precision)
    stops = np.abs(np.log2(np.maximum(found, 1e-4) / np.maximum(direct, 1e-4)))
    assert stops.mean() < (1e-5 if precision == "fp32" else 1e-2)
