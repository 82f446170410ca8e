"""The stack of exposures, and its merging."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from vszhdrv.zhdrv import camera
from vszhdrv.zhdrv.exposures import exposures, merge

STEP = camera.gain(-2)  # 0.5325
E = 0.25 / 255


def counted(network: Callable[[Tensor], Tensor]) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
    """A network, and the pictures that it sees."""
    seen: list[Tensor] = []

    def predict(x: Tensor) -> Tensor:
        seen.append(x)
        return network(x)

    return predict, seen


def ramp(low: float, high: float, height: int = 8, width: int = 64) -> Tensor:
    """Grey radiance in equal steps of stops, (1, 3, height, width)."""
    return torch.logspace(low, high, width, base=2).expand(1, 3, height, width).contiguous()


@pytest.mark.parametrize(("down", "up", "calls"), [(2, 2, 3), (3, 2, 4), (1, 1, 1), (2, 0, 2), (0, 2, 2), (0, 0, 0)])
def test_the_first_step_down_and_the_first_up_share_a_prediction(down: int, up: int, calls: int) -> None:
    predict, seen = counted(lambda x: torch.full_like(x, 0.6))
    stack = exposures(predict, torch.rand(1, 3, 8, 8), down, up)
    assert len(seen) == calls
    assert sorted(stack) == list(range(-down, up + 1))


def test_the_stack_by_hand() -> None:
    sdr = torch.tensor([0.1, 0.5, 1.0]).expand(1, 3, 1, 3)
    predict, seen = counted(lambda x: torch.full_like(x, 0.6 if x.max() == 1 else 0.8))
    stack = exposures(predict, sdr, 2, 2)
    assert torch.allclose(stack[-1], sdr * 0.6)
    assert torch.allclose(stack[-2], sdr * 0.6 * 0.8)
    assert torch.allclose(stack[1], (sdr / (0.6 + E)).clamp(max=1))
    assert torch.allclose(stack[2], (sdr / (0.6 + E) ** 2).clamp(max=1))  # the brighter picture clips: 0.6 again
    assert [id(x) for x in seen] == [id(stack[0]), id(stack[-1]), id(stack[1])]


def test_no_step_down_is_larger_than_two_stops() -> None:
    predict, _ = counted(lambda x: torch.full_like(x, 0.1))
    stack = exposures(predict, torch.ones(1, 3, 2, 2), 2, 0)
    assert torch.allclose(stack[-1], torch.tensor(STEP))
    assert torch.allclose(stack[-2], torch.tensor(STEP**2))


@pytest.mark.parametrize(("down", "up"), [(2, 2), (3, 0), (0, 2), (1, 1)])
def test_a_true_stack_gives_the_radiance_back(down: int, up: int) -> None:
    radiance = ramp(-4, 2 * down - 0.1)
    stack = {k: camera.encode(radiance * 4.0**k) for k in range(-down, up + 1)}
    assert torch.allclose(merge(stack), radiance, rtol=5e-3)


def test_colour_comes_through_the_merge() -> None:
    radiance = torch.tensor([3.5, 1.5, 0.3])[None, :, None, None].expand(1, 3, 4, 4)
    stack = {k: camera.encode(radiance * 4.0**k) for k in (-2, -1)}
    assert torch.allclose(merge(stack), radiance, rtol=5e-3)


def test_the_darkest_exposure_speaks_for_white_and_the_brightest_for_black() -> None:
    radiance = torch.tensor([0.0, 0.5, 16.0, 100.0]).expand(1, 3, 2, 4)
    stack = {k: camera.encode(radiance * 4.0**k) for k in range(-2, 3)}
    merged = merge(stack)[0, 0, 0]
    assert torch.allclose(merged[1:], torch.tensor([0.5, 16.0, 16.0]), rtol=5e-3)  # more than 16 nobody can know
    assert 0 <= merged[0] < 1e-5


def test_the_weights_by_hand() -> None:
    # darkest 0.95: over 0.9, its weight is itself; brightest 0.05: under 0.1, one minus itself
    stack = {0: torch.full((1, 3, 1, 1), 0.95), 1: torch.full((1, 3, 1, 1), 0.05)}
    logs = [np.log(v**2.2 + 1 / 65535) - k * np.log(4) for k, v in ((0, 0.95), (1, 0.05))]
    assert merge(stack).flatten()[0] == pytest.approx(np.exp((0.95 * logs[0] + 0.95 * logs[1]) / 1.9), rel=1e-5)
    # neither: the hat
    stack = {0: torch.full((1, 3, 1, 1), 0.85), 1: torch.full((1, 3, 1, 1), 0.3)}
    logs = [np.log(v**2.2 + 1 / 65535) - k * np.log(4) for k, v in ((0, 0.85), (1, 0.3))]
    hats = 1 - 0.7**12, 1 - 0.4**12
    expected = np.exp((hats[0] * logs[0] + hats[1] * logs[1]) / sum(hats))
    assert merge(stack).flatten()[0] == pytest.approx(expected, rel=1e-5)


def test_a_batch_is_merged_picture_by_picture() -> None:
    pictures = torch.cat((ramp(-12, -5), ramp(-2, 6)))  # one dark, one bright: other weights for their ends
    stack = {k: camera.encode(pictures * 4.0**k) for k in range(-2, 3)}
    alone = [merge({k: x[n : n + 1] for k, x in stack.items()}) for n in range(2)]
    assert torch.allclose(merge(stack), torch.cat(alone))


def test_a_stack_of_one_is_that_picture() -> None:
    sdr = torch.linspace(0, 1, 64).expand(1, 3, 8, 64)
    assert torch.allclose(merge({0: sdr}), camera.decode(sdr), atol=1e-4)
