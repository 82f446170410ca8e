"""Exposure shifts and the rounding of an 8-bit recording, against numbers worked out by hand."""

import pytest
import torch

from vszhdrv.zhdrv import camera


def test_two_stops_are_a_product_by_1_878() -> None:
    assert camera.gain(2) == pytest.approx(1.8779, abs=1e-4)  # 2^(2/2.2)
    assert camera.gain(0) == 1
    assert camera.gain(2) * camera.gain(-2) == pytest.approx(1)


def test_the_product_is_exactly_a_shift_of_linear_light() -> None:
    linear = torch.linspace(0.001, 0.2, 100)
    brighter = camera.decode(camera.encode(linear) * camera.gain(1.3))
    assert torch.allclose(brighter, linear * 2**1.3, rtol=1e-5)


def test_a_shift_clips_and_rounds_to_8_bits() -> None:
    # 0.25 * 1.8779 * 255 = 119.71; 0.5 * 1.8779 * 255 = 239.43; 0.6 * 1.8779 > 1
    x = torch.tensor([0.0, 0.25, 0.5, 0.6, 1.0])
    assert torch.equal(camera.shift(x, 2) * 255, torch.tensor([0.0, 120.0, 239.0, 255.0, 255.0]))
    # 0.25 / 1.8779 * 255 = 33.95; 0.6 / 1.8779 * 255 = 81.47; 1 / 1.8779 * 255 = 135.79
    assert torch.equal((camera.shift(x, -2) * 255).round(), torch.tensor([0.0, 34.0, 68.0, 81.0, 136.0]))


def test_round8_gives_only_codes_and_keeps_codes() -> None:
    codes = torch.arange(256) / 255
    assert torch.equal(camera.round8(codes), codes)
    assert torch.equal(camera.round8(torch.tensor([100.4, 100.6]) / 255) * 255, torch.tensor([100.0, 101.0]))


def test_encode_clips_and_decode_undoes_it() -> None:
    linear = torch.tensor([-0.5, 0.0, 0.18, 1.0, 1.17])
    assert camera.encode(linear)[2] == pytest.approx(0.18 ** (1 / 2.2))
    assert torch.allclose(camera.decode(camera.encode(linear)), torch.tensor([0.0, 0.0, 0.18, 1.0, 1.0]))


def test_encode_is_the_same_where_nobody_wants_a_gradient() -> None:
    picture = torch.rand(2, 3, 40, 30) * 1.3 - 0.1
    picture[..., :3, 0] = torch.tensor([0.0, 1.0, torch.nan])
    kinds = {
        "as torch has it": picture,
        "channels last": picture.contiguous(memory_format=torch.channels_last),
        "a part": picture[..., 5:30, 3:20],
        "repeated": picture[:1, :1].expand(2, 3, -1, -1),
    }
    for name, each in kinds.items():
        with torch.inference_mode():
            quick = camera.encode(each)
        exact = each.double().clamp(0, 1) ** (1 / 2.2)
        assert torch.allclose(quick.double(), exact, rtol=0, atol=2e-7, equal_nan=True), name
        assert torch.allclose(camera.encode(each).double(), exact, rtol=0, atol=2e-7, equal_nan=True), name
