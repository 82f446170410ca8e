"""Which crops are drawn: the paper's rules by hand, and the same draw for the same seed."""

import math
from collections import Counter
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vszhdrv.zhdrv import camera, sampling
from vszhdrv.zhdrv.config import Config
from vszhdrv.zhdrv.footage import TrainingFrames, Traits, shows_clipped

CPU = torch.device("cpu")
PAPER = Config.from_preset("paper")
FAST = Config.from_preset("fast")


def frames(count: int, height: int, width: int) -> TrainingFrames:
    """TrainingFrames of no memory, each its own successor."""
    pixels = torch.zeros(1, 1, 1, 1, dtype=torch.uint8).expand(count, 3, height, width)
    return TrainingFrames(pixels, tuple((place, place) for place in range(count)))


def crops(frames: TrainingFrames, config: Config, epoch: int = 0) -> list[sampling.Crop]:
    return list(chain.from_iterable(sampling.visits(frames, config, epoch)))


def test_the_eight_transforms_of_which_the_paper_uses_seven() -> None:
    x = torch.tensor([[1, 2], [3, 4]])[None, None]
    expected = [
        [[1, 2], [3, 4]], [[2, 4], [1, 3]], [[4, 3], [2, 1]], [[3, 1], [4, 2]],
        [[2, 1], [4, 3]], [[3, 4], [1, 2]], [[1, 3], [2, 4]], [[4, 2], [3, 1]],
    ]  # fmt: skip
    assert [sampling.turned(x, transform)[0, 0].tolist() for transform in range(8)] == expected


def test_an_epoch_of_the_paper_visits_every_frame_under_each_of_seven_transforms() -> None:
    steps = list(sampling.visits(frames(5, 48, 64), PAPER, 0))
    assert {len(step) for step in steps} == {1}
    assert Counter((crop.pair, crop.transform) for (crop,) in steps) == dict.fromkeys(
        ((pair, transform) for pair in range(5) for transform in range(7)), 1
    )
    assert [crop.pair for (crop,) in steps] != sorted(crop.pair for (crop,) in steps)


@pytest.mark.parametrize(("height", "width", "visits"), [(100, 100, 1), (512, 1024, 2), (1080, 1920, 8)])
def test_larger_frames_are_visited_more_often(height: int, width: int, visits: int) -> None:
    assert len(crops(frames(2, height, width), PAPER)) == 2 * 7 * visits  # area / 512^2


@pytest.mark.parametrize("config", [PAPER, FAST], ids=["paper", "fast"])
def test_the_same_seed_and_epoch_draw_the_same(config: Config) -> None:
    held = frames(3, 400, 500)
    first = crops(held, config, 4)
    assert first == crops(held, config, 4)
    assert first != crops(held, config, 5)
    assert first != crops(held, replace(config, seed=1), 4)


@pytest.mark.parametrize("config", [PAPER, FAST], ids=["paper", "fast"])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (33, 47), (400, 500), (1080, 1920)])
def test_crops_lie_within_the_frame_and_everywhere_in_it(config: Config, height: int, width: int) -> None:
    drawn = crops(frames(4, height, width), config)
    for crop in drawn:
        assert 0 <= crop.top <= height - crop.height
        assert 0 <= crop.left <= width - crop.width
        assert 0 <= crop.jitter_stops <= 0.25
        assert crop.shift_stops == 0 or sampling.MIN_SHIFT_STOPS <= crop.shift_stops <= config.max_shift
    if width > drawn[0].width:
        assert len({crop.left for crop in drawn}) > min(len(drawn), width - drawn[0].width) // 3


def test_a_quarter_of_the_crops_is_not_made_brighter() -> None:
    shifts = [crop.shift_stops for crop in crops(frames(4, 400, 500), FAST)]
    assert shifts.count(0.0) / len(shifts) == pytest.approx(sampling.UNSHIFTED, abs=0.15)
    x = torch.rand(1, 3, 10, 10)
    assert sampling.bounded_shifts(x, [0.0]) == [0]


def test_the_papers_crops_are_320_or_what_fits_or_a_share_of_a_large_frame() -> None:
    assert {(crop.height, crop.width) for crop in crops(frames(3, 400, 500), PAPER)} == {(320, 320)}
    assert {(crop.height, crop.width) for crop in crops(frames(3, 30, 500), PAPER)} == {(30, 320)}
    for crop in crops(frames(8, 1500, 1600), PAPER):
        assert crop.height == crop.width
        assert 0.2 - 1e-3 <= crop.height * crop.width / (1500 * 1600) <= 0.6 + 1e-3


def test_fast_visits_all_frames_equally_often_in_steps_of_one_size() -> None:
    steps = list(sampling.visits(frames(8, 300, 400), FAST, 0))
    assert len(steps) == FAST.steps_per_epoch
    assert {len(step) for step in steps} == {FAST.crops} == {FAST.batch // 2}
    visits = Counter(crop.pair for crop in chain.from_iterable(steps))
    assert max(visits.values()) - min(visits.values()) <= 1


def test_the_second_round_sees_frames_as_they_are_where_they_clip() -> None:
    pixels = torch.zeros(4, 3, 300, 400, dtype=torch.uint8)
    pixels[:3, 1, 20:26, 30:36] = 255  # one lamp, and a frame without
    held = replace(TrainingFrames(pixels, tuple((place, place) for place in range(4))), traits=Traits(compressed=True))
    first, second = (crops(held, FAST, epoch) for epoch in (FAST.first_epochs - 1, FAST.first_epochs))
    assert len(first) == len(second)
    assert any(crop.shift_stops > 0 for crop in first) and all(crop.coding for crop in first)
    assert {(crop.shift_stops, crop.transform, crop.coding) for crop in second} == {(0, 0, None)}

    def showing(crops: list[sampling.Crop]) -> float:
        return sum(shows_clipped(held, pixels[crop.pair][:, *crop.area]) for crop in crops) / len(crops)

    assert showing(second) > 2 * showing(first) > 0
    assert second == crops(held, FAST, FAST.first_epochs)
    assert second != crops(held, FAST, FAST.first_epochs + 1)


def crop_of(**values: Any) -> sampling.Crop:
    return sampling.Crop(**{"pair": 0, "transform": 0, "jitter_stops": 0.0, "shift_stops": 1.0, **values})


def test_a_cut_is_the_frames_own_pixels_turned() -> None:
    pixels = torch.arange(2 * 3 * 6 * 8, dtype=torch.uint8).reshape(2, 3, 6, 8)
    crop = crop_of(transform=1, top=1, left=2, height=4, width=5)
    cut = sampling.cut(TrainingFrames(pixels, ((0, 1),)), 1, crop, 320, CPU)
    expected = pixels[1][:, 1:5, 2:7].float() / 255
    assert torch.equal(cut[0], expected.rot90(1, (-2, -1)))


def test_a_cut_larger_than_the_crops_side_is_scaled_down() -> None:
    x = torch.linspace(0, 1, 600)[None, None, None].expand(1, 3, 500, 600)
    crop = crop_of(top=0, left=0, height=500, width=600)
    cut = sampling.cut(TrainingFrames(x, ((0, 0),)), 0, crop, 60, CPU)
    assert cut.shape == (1, 3, 50, 60)
    assert cut.mean() == pytest.approx(0.5, abs=1e-3)
    assert (cut.diff(dim=-1) > 0).all()


@given(st.integers(0, 1000), st.floats(0.5, 8), st.floats(0.2, 4))
def test_a_simulated_overexposure_clips_a_bounded_share(seed: int, stops: float, power: float) -> None:
    x = torch.from_numpy(np.random.default_rng(seed).random((1, 3, 20, 20), np.float32)) ** power
    (bounded,) = sampling.bounded_shifts(x, [stops])
    assert sampling.MIN_SHIFT_STOPS <= bounded <= stops or bounded == stops
    over = (x * camera.gain(bounded - 1e-3) >= 1).any(1).float().mean()
    assert bounded == sampling.MIN_SHIFT_STOPS or over <= sampling.MOST_CLIPPED + 1e-6


def test_the_bound_by_hand() -> None:
    x = torch.full((1, 3, 10, 10), 0.25)
    x[..., :5] = 0.5  # half of the pixels: more than may clip
    assert sampling.bounded_shifts(x, [6.0]) == pytest.approx([camera.GAMMA])  # 0.5 becomes 1: one stop of code values
    assert sampling.bounded_shifts(x, [1.0]) == [1.0]
    assert sampling.bounded_shifts(torch.ones(1, 3, 10, 10), [3.0]) == [sampling.MIN_SHIFT_STOPS]
    (dark,) = sampling.bounded_shifts(torch.zeros(1, 3, 10, 10), [3.0])
    assert math.isfinite(dark)
    both = torch.cat((x, torch.ones_like(x)))
    assert sampling.bounded_shifts(both, [1.0, 6.0]) == [1.0, sampling.MIN_SHIFT_STOPS]  # each crop's own
