"""Uneven white is white again, and nothing else is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from vszhdrv.zhdrv import camera, compression, footage, uneven
from vszhdrv.zhdrv.camera import CLIPPED
from vszhdrv.zhdrv.config import Config
from vszhdrv.zhdrv.expansion import Expander
from vszhdrv.zhdrv.footage import Traits
from vszhdrv.zhdrv.network import new_network


def window(line: float, width: int) -> Tensor:
    """White with a vertical line of this value and width in a dark wall, `(1, 1, 24, 32)`."""
    x = torch.full((1, 1, 24, 32), 0.3)
    x[..., 4:20, 4:28] = 1.0
    x[..., 4:20, 15 : 15 + width] = line
    return x


@pytest.mark.parametrize("width", [1, 2])
def test_narrow_gaps_of_nearly_white_pixels_are_filled(width: int) -> None:
    filled = uneven.levelled(window(0.9, width))
    assert (filled[..., 4:20, 4:28] == 1).all()
    assert torch.equal(filled == 1, window(1, width) == 1)


@pytest.mark.parametrize(("line", "width"), [(0.8, 1), (0.8, 2), (0.9, 3)])
def test_dark_lines_and_wide_gaps_stay(line: float, width: int) -> None:
    assert torch.equal(uneven.levelled(window(line, width)), window(line, width))


def test_a_channel_is_levelled_by_itself() -> None:
    x = torch.cat([window(0.9, 1), window(0.5, 1), torch.full((1, 1, 24, 32), 0.9)], dim=1)
    filled = uneven.levelled(x)
    assert not torch.equal(filled[:, 0], x[:, 0])
    assert torch.equal(filled[:, 1:], x[:, 1:])


def test_a_simulated_codec_leaves_white_uneven_and_levelling_finds_it_again(lamps: np.ndarray) -> None:
    pictures = footage.scaled(torch.from_numpy(lamps))
    coded = torch.cat([compression.coded(one, 10 / 255, 3, 5) for one in pictures.split(1)])
    clipped = pictures >= CLIPPED

    def overlap(mask: Tensor) -> float:
        return float((mask & clipped).sum() / (mask | clipped).sum())

    assert overlap(uneven.levelled(coded) >= CLIPPED) > overlap(coded >= CLIPPED) + 0.1


@pytest.mark.parametrize("white", [1.0, 0.9])
def test_light_is_levelled_as_its_encoding_is_and_keeps_superwhite(white: float) -> None:
    sdr = torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(0)) * 0.3 + 0.75
    linear = camera.decode(sdr) * white
    clips = uneven.levelled(sdr) != sdr
    clips |= sdr >= 1
    levelled = uneven.levelled_light(linear, white)
    assert torch.equal(levelled[~clips], linear[~clips])
    assert (levelled[clips] >= white - 1e-6).all()
    assert levelled.max() == linear.max()
    one_by_one = linear.clone()
    for plane in one_by_one:
        uneven.level_light(plane, white)
    assert torch.equal(one_by_one, levelled)


@pytest.mark.parametrize("depth", [8, 16])
def test_codes_are_levelled_as_their_values_are(depth: int) -> None:
    full = 2**depth - 1
    sdr = torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(0))
    sdr = (torch.nn.functional.avg_pool2d(sdr, 3, 1, 1) * 2).clamp(0, 1)
    codes = (sdr.numpy() * full).round().astype(np.uint8 if depth == 8 else np.uint16)
    expected = uneven.levelled(torch.from_numpy(codes / full))
    assert int((expected != torch.from_numpy(codes / full)).sum()) > 0
    uneven.level_codes(codes)
    assert np.array_equal(codes, (expected.numpy() * full).round())


def sky_with(value: float, side: int, around: float) -> Tensor:
    """A square of one value in a field of another, `(1, 1, 32, 32)`."""
    x = torch.full((1, 1, 32, 32), around)
    x[..., 16 : 16 + side, 16 : 16 + side] = value
    return x


@pytest.mark.parametrize(("around", "clips"), [(0.3, True), (0.9, False)])
def test_nearly_white_clips_before_the_dark_as_lamps_do_and_not_in_a_bright_sky(around: float, clips: bool) -> None:
    x = sky_with(0.97, 3, around)
    assert bool((uneven.levelled(x)[x == 0.97] == 1).all()) == clips
    assert torch.equal(uneven.levelled(x)[x != 0.97], x[x != 0.97])


@pytest.mark.parametrize(("distance", "clips"), [(1, True), (2, True), (3, False)])
def test_nearly_white_clips_beside_white(distance: int, clips: bool) -> None:
    x = torch.full((1, 1, 32, 32), 0.96)
    x[..., :16] = 1
    assert bool((uneven.levelled(x)[..., 15 + distance] == 1).all()) == clips


def test_an_expander_lifts_the_gaps_of_a_levelled_clip_alone() -> None:
    config = replace(Config.from_preset("fast"), widths=(4, 8, 8))
    network = new_network(config.architecture, 3)
    linear = camera.decode(window(0.9, 1)[0].expand(3, -1, -1)).numpy()
    frames = {}
    for levelled in (False, True):
        traits = Traits(compressed=True, levelled=levelled)
        frames[levelled] = linear.copy()
        Expander(network, config, torch.device("cpu"), "fp32", traits=traits).brighten(list(frames[levelled]))
    gap = (slice(None), slice(5, 19), 15)
    assert np.array_equal(frames[False][gap], linear[gap])
    assert (frames[True][gap] >= 1).all()
    assert np.array_equal(frames[True][:, 0], linear[:, 0])


def test_the_header_says_whether_a_clip_was_levelled_and_others_stay_as_they_were() -> None:
    found = Traits(compressed=True, levelled=True)
    assert Traits.from_header(found.to_header()) == found
    before = Traits(compressed=True)
    assert "levelled" not in before.to_header()
    assert Traits.from_header(before.to_header()) == before
