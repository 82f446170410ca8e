"""Tiles, strips, bands and areas: the predictions are those of the whole frame."""

from typing import Any

import pytest
import torch
from torch import Tensor

from vszhdrv.zhdrv import camera, tiling
from vszhdrv.zhdrv.camera import CLIPPED
from vszhdrv.zhdrv.config import Architecture
from vszhdrv.zhdrv.network import UNet, new_network
from vszhdrv.zhdrv.objectives import predicted
from vszhdrv.zhdrv.tiling import clipping_areas, default_tile, evaluate, evaluate_at_once, reaching

RATIO = Architecture((4, 8, 8), "ratio")
STOPS = Architecture((4, 8, 8), "stops", 2)


def predicted_in_tiles(network: UNet, x: Tensor, tile: tuple[int, int], evaluated: Any = evaluate) -> Tensor:
    """The network's prediction for a whole frame, by way of `evaluate` or `evaluate_at_once`."""
    out = torch.full_like(x, torch.nan)

    for part, prediction in evaluated(network, lambda part: x[..., *part], x.shape[-2:], tile):
        assert out[..., *part].isnan().all()  # nothing is computed twice
        out[..., *part] = prediction
    return out


@pytest.mark.parametrize("architecture", [RATIO, STOPS])
@pytest.mark.parametrize("tile", [(64, 64), (64, 1000), (128, 192)])
@pytest.mark.parametrize(("height", "width"), [(200, 260), (131, 277)])
def test_tiles_predict_as_the_whole_frame_does(
    architecture: Architecture, tile: tuple[int, int], height: int, width: int
) -> None:
    network = new_network(architecture, 2)
    x = torch.rand(1, 3, height, width).sqrt()
    with torch.inference_mode():
        whole = predicted(network, x)
        assert torch.allclose(predicted_in_tiles(network, x, tile), whole, atol=1e-4)
    assert whole.std() > 1e-3  # not a prediction that is the same everywhere


@pytest.mark.parametrize("architecture", [RATIO, STOPS])
def test_strips_and_bands_predict_as_the_whole_frame_does(
    architecture: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = new_network(architecture, 2)
    x = torch.rand(1, 3, 130, 90).sqrt()
    monkeypatch.setattr(tiling, "STRIP_VALUES", 1)
    monkeypatch.setattr(tiling, "BAND_BLOCKS", 2)
    monkeypatch.setattr(tiling, "BAND_ROWS", 1)
    with torch.inference_mode():
        assert torch.allclose(predicted_in_tiles(network, x, (192, 192)), predicted(network, x), atol=1e-5)


@pytest.mark.parametrize("architecture", [RATIO, STOPS])
@pytest.mark.parametrize("tile", [(64, 128), (192, 320)])
def test_tiles_at_once_predict_as_strips_and_bands_do(architecture: Architecture, tile: tuple[int, int]) -> None:
    network = new_network(architecture, 2)
    x = torch.rand(1, 3, 131, 277).sqrt()
    with torch.inference_mode():
        at_once = predicted_in_tiles(network, x, tile, evaluate_at_once)
        assert torch.allclose(at_once, predicted_in_tiles(network, x, tile), atol=1e-5)


def highlights(height: int, width: int, places: list[tuple[int, int]]) -> Tensor:
    """A dim frame with small lights, `(3, height, width)` linear."""
    linear = torch.rand(3, height, width, generator=torch.Generator().manual_seed(2)) * 0.8
    for top, left in places:
        linear[:, top : top + 5, left : left + 7] = 1.2
    return linear


@pytest.mark.parametrize("places", [[(0, 0)], [(250, 1014)], [(40, 10), (70, 800), (100, 100), (101, 600)], []])
@pytest.mark.parametrize("fold", [2, 4])
def test_the_encoder_is_told_in_areas_what_clips_in_large_frames(places: list[tuple[int, int]], fold: int) -> None:
    sdr = camera.encode(highlights(256, 1024, places)[None]).contiguous(memory_format=torch.channels_last)
    areas = clipping_areas(sdr, fold)
    assert areas is not None
    outside = torch.ones(256 // fold, 1024 // fold)
    for area in areas:
        assert (outside[area] == 1).all()  # they lie apart
        outside[area] = 0
    clips = (sdr[0].amax(0) >= CLIPPED).unfold(0, fold, fold).unfold(1, fold, fold).flatten(2).any(2)
    assert not (clips & (outside == 1)).any()
    assert outside.mean() > 0.8


def test_the_encoder_is_told_of_all_where_areas_would_cost_as_much() -> None:
    everywhere = highlights(256, 1024, [(top, left) for top in range(0, 250, 60) for left in range(0, 1000, 200)])
    for linear in (everywhere, everywhere[:, :64, :64]):
        assert clipping_areas(camera.encode(linear[None]), 2) is None


def test_runs_of_columns() -> None:
    linear = torch.zeros(3, 4, 40)
    assert reaching(linear, 0.9, 5) == []
    linear[0, 0, 3] = linear[1, 2, 9] = linear[2, 3, 20] = linear[0, 3, 39] = 1
    assert reaching(linear, 0.9, 5) == [slice(3, 10), slice(20, 21), slice(39, 40)]
    assert reaching(linear, 0.9, 100) == [slice(3, 40)]


@pytest.mark.parametrize("architecture", [RATIO, STOPS, Architecture((4, 8, 8, 8, 8), "stops", 8)])
def test_only_large_frames_are_cut_and_into_equal_tiles(architecture: Architecture) -> None:
    for height, width in ((16, 16), (540, 941), (1080, 1920)):
        tile = default_tile((height, width), architecture)
        assert tile[0] >= height and tile[1] >= width
    for height, width in ((8000, 12000), (12000, 8000), (16, 10**7)):
        rows, columns = default_tile((height, width), architecture)
        assert rows % architecture.multiple == columns % architecture.multiple == 0
        across, down = -(-width // columns), -(-height // rows)
        assert across * columns - width < across * architecture.multiple + columns
        assert down * rows - height < down * architecture.multiple + rows
        assert default_tile((height, width), architecture) == (rows, columns)
