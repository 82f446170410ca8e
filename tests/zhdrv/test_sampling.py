"""Which frames and crops are drawn: the paper's rules by hand, and the same draw for the same seed."""

import math
from collections import Counter
from dataclasses import replace
from itertools import chain, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vszhdrv.zhdrv import camera, sampling
from vszhdrv.zhdrv.config import Config
from vszhdrv.zhdrv.sampling import Frames

CPU = torch.device("cpu")
PAPER = Config.from_preset("paper")
FAST = Config.from_preset("fast")


def frames(count: int, height: int, width: int) -> Frames:
    """Frames of no memory, each its own successor."""
    pixels = torch.zeros(1, 1, 1, 1, dtype=torch.uint8).expand(count, 3, height, width)
    return Frames(pixels, tuple((place, place) for place in range(count)))


def crops(frames: Frames, config: Config, epoch: int = 0) -> list[sampling.Crop]:
    return list(chain.from_iterable(sampling.visits(frames, config, epoch)))


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [(torch.uint8, 51, 0.2), (torch.uint16, 65535, 1.0), (torch.uint16, 13107, 0.2), (torch.float32, 0.2, 0.2)],
)
def test_codes_become_numbers_up_to_1(dtype: torch.dtype, value: float, expected: float) -> None:
    codes = torch.full((3, 4, 5), value, dtype=dtype)
    frame = sampling.scaled(codes)
    assert (frame.shape, frame.dtype) == ((3, 4, 5), torch.float32)
    assert torch.allclose(frame, torch.tensor(expected))


def test_a_film_costs_what_a_clip_costs() -> None:
    assert sampling.candidates(1) == [0]
    assert sampling.candidates(5) == [0, 1, 2, 3, 4]
    film = sampling.candidates(200_000)
    assert (len(film), film[0], film[-1]) == (512, 0, 199_999)
    assert {b - a for a, b in pairwise(film)} <= {391, 392}


def test_well_exposed_pixels_have_all_channels_strictly_inside() -> None:
    good, dark, bright, edge, other_edge = (
        (0.5, 0.06, 0.94),
        (0.5, 0.04, 0.5),
        (0.96, 0.5, 0.5),
        (0.05,) * 3,
        (0.95,) * 3,
    )
    pixels = np.array([good, dark, bright, edge, other_edge, good, good, good], np.float32)
    assert sampling.well_exposedness(pixels.T.reshape(3, 2, 4)) == 0.5


@pytest.mark.parametrize(
    ("length", "count"), [(1, 1), (2, 2), (30, 30), (31, 5), (59, 9), (180, 30), (200, 33), (768, 128), (100_000, 128)]
)
def test_the_papers_number_of_frames(length: int, count: int) -> None:
    assert sampling.frames_to_draw(length, PAPER) == count


def test_fast_takes_at_least_30_frames_and_stills_are_all_used() -> None:
    assert [sampling.frames_to_draw(length, FAST) for length in (2, 31, 100_000)] == [2, 31, 128]
    assert sampling.frames_to_draw(100, replace(PAPER, still=True)) == 100


def test_frames_are_drawn_by_inverting_the_sum_of_the_sorted_scores() -> None:
    # sums 0, 0, 1, 2 of the sorted scores, read at 0.5 and 1.5: the two frames that score
    assert sampling.choose_frames([0, 10, 20, 30], [0.0, 1.0, 1.0, 0.0], 2, 0, [0] * 4) == [10, 20]
    # sorted 20: 1, 10: 2, 0: 3, 30: 4; sums 1, 3, 6, 10, read at 2.5 and 7.5
    assert sampling.choose_frames([0, 10, 20, 30], [3.0, 2.0, 1.0, 4.0], 2, 0, [0] * 4) == [10, 30]


def test_a_frame_drawn_twice_gives_its_place_to_the_next() -> None:
    # sums 0, 0, 0.1, 10.1, read at 2.5 and 7.6: frame 30 twice, and next to it among the sorted scores is frame 0
    assert sampling.choose_frames([0, 10, 20, 30], [0.1, 0.0, 0.0, 10.0], 2, 0, [0] * 4) == [0, 30]


def test_without_scores_frames_are_drawn_regularly_with_jitter() -> None:
    positions = list(range(0, 800, 2))
    draws = [sampling.choose_frames(positions, [0.0] * 400, 100, seed, [0] * 400) for seed in range(5)]
    for drawn in draws:
        assert [number // 8 for number in drawn] == list(range(100))
    assert len(set(map(tuple, draws))) == 5
    assert len({number % 8 for number in draws[0]}) == 4


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(1, 60), st.integers(0, 2**31 - 1))
def test_any_scores_give_the_count_asked_for(scores: list[float], count: int, seed: int) -> None:
    positions = [3 * place for place in range(len(scores))]
    drawn = sampling.choose_frames(positions, scores, count, seed, [0] * len(positions))
    assert len(drawn) == min(count, len(scores))
    assert drawn == sorted(set(drawn))
    assert set(drawn) <= set(positions)
    assert drawn == sampling.choose_frames(positions, scores, count, seed, [0] * len(positions))


def test_frames_travel_with_their_successors_and_the_last_with_its_predecessor() -> None:
    numbers, pairs = sampling.with_successors([0, 3, 4], length=5)
    assert numbers == [0, 1, 3, 4]
    assert pairs == ((0, 1), (2, 3), (3, 2))
    assert sampling.with_successors([0], length=1) == ([0], ((0, 0),))


def glance(level: float, **props: int) -> sampling.Glance:
    return sampling.Glance.of(np.full((3, 20, 33), level, np.float32), props)


def shots_of(glances: list[sampling.Glance], step: int = 1) -> list[int]:
    return sampling.shots_of(range(0, step * len(glances), step), glances)


def test_a_thumbnail_is_the_mean_of_blocks() -> None:
    sdr = np.zeros((3, 32, 49), np.float32)
    sdr[1, :2, 3:6] = 1
    thumbnail = sampling.Glance.of(sdr, {}).thumbnail
    assert thumbnail.shape == (3, 16, 16)
    assert (thumbnail[1, 0, 1], thumbnail.sum()) == (1, 1)


def test_a_cut_is_where_a_property_says_so_or_frames_differ() -> None:
    assert sampling.cut_between(glance(0.2), glance(0.31))
    assert not sampling.cut_between(glance(0.2), glance(0.29))
    assert sampling.cut_between(glance(0.2, _SceneChangeNext=1), glance(0.2))
    assert sampling.cut_between(glance(0.2), glance(0.2, _SceneChangePrev=1))
    assert not sampling.cut_between(glance(0.2, _SceneChangeNext=0), glance(0.9, _SceneChangePrev=0))


def test_a_shot_begins_where_a_frame_stands_out_from_its_neighbours() -> None:
    still = [glance(0.2)] * 5 + [glance(0.5)] * 3 + [glance(0.1)] * 4
    assert shots_of(still) == [0] * 5 + [1] * 3 + [2] * 4
    assert shots_of([glance(0.12 * n) for n in range(8)]) == [0] * 8  # all differ alike: no cut stands out
    assert shots_of([glance(0.2)]) == [0]
    assert shots_of([glance(0.2), glance(0.5)]) == [0, 1]


def test_properties_tell_neighbours_apart_and_are_not_all_there_is_between_frames_that_lie_apart() -> None:
    none, cut = {"_SceneChangePrev": 0}, {"_SceneChangePrev": 1}
    told = [glance(0.2, **none)] * 3 + [glance(0.9, **none)] * 3 + [glance(0.9, **cut)] + [glance(0.9, **none)] * 3
    assert shots_of(told) == [0] * 6 + [1] * 4
    assert shots_of(told, step=7) == [0] * 3 + [1] * 3 + [2] * 4


def test_a_short_shot_is_not_left_out() -> None:
    positions, scores = list(range(0, 200, 2)), [0.9] * 48 + [0.1, 0.2, 0.1, 0.0] + [0.9] * 48
    shots = [0] * 48 + [1] * 4 + [2] * 48
    drawn = sampling.choose_frames(positions, scores, 8, 0, shots)
    assert len(drawn) == len(set(drawn)) == 8
    assert [frame for frame in drawn if 96 <= frame < 104] == [98]  # its best
    assert drawn == sorted(drawn)


def test_where_shots_are_more_than_frames_the_longest_come_first() -> None:
    shots = [0] * 9 + [1] + [2] * 5 + [3] * 2
    drawn = sampling.choose_frames(range(17), [1.0] * 9 + [0.0] * 8, 2, 0, shots)
    assert sorted(shots[frame] for frame in drawn) == [0, 2]


def test_a_pair_does_not_cross_a_cut() -> None:
    glances = {0: glance(0.2), 1: glance(0.2), 2: glance(0.8), 3: glance(0.8), 4: glance(0.1)}
    pairs = ((0, 1), (1, 2), (2, 3), (4, 3), (4, 4))
    assert sampling.within_shots(pairs, glances) == ((0, 1), (1, 1), (2, 3), (4, 4), (4, 4))


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
    held = replace(Frames(pixels, tuple((place, place) for place in range(4))), compressed=True)
    first, second = (crops(held, FAST, epoch) for epoch in (FAST.first_epochs - 1, FAST.first_epochs))
    assert len(first) == len(second)
    assert any(crop.shift_stops > 0 for crop in first) and all(crop.coding for crop in first)
    assert {(crop.shift_stops, crop.transform, crop.coding) for crop in second} == {(0, 0, None)}

    def showing(crops: list[sampling.Crop]) -> float:
        return sum(sampling.shows_clipped(held, pixels[crop.pair][:, *crop.area]) for crop in crops) / len(crops)

    assert showing(second) > 2 * showing(first) > 0
    assert second == crops(held, FAST, FAST.first_epochs)
    assert second != crops(held, FAST, FAST.first_epochs + 1)


def crop_of(**values: Any) -> sampling.Crop:
    return sampling.Crop(**{"pair": 0, "transform": 0, "jitter_stops": 0.0, "shift_stops": 1.0, **values})


def test_a_cut_is_the_frames_own_pixels_turned() -> None:
    pixels = torch.arange(2 * 3 * 6 * 8, dtype=torch.uint8).reshape(2, 3, 6, 8)
    crop = crop_of(transform=1, top=1, left=2, height=4, width=5)
    cut = sampling.cut(Frames(pixels, ((0, 1),)), 1, crop, 320, CPU)
    expected = pixels[1][:, 1:5, 2:7].float() / 255
    assert torch.equal(cut[0], expected.rot90(1, (-2, -1)))


def test_a_cut_larger_than_the_crops_side_is_scaled_down() -> None:
    x = torch.linspace(0, 1, 600)[None, None, None].expand(1, 3, 500, 600)
    crop = crop_of(top=0, left=0, height=500, width=600)
    cut = sampling.cut(Frames(x, ((0, 0),)), 0, crop, 60, CPU)
    assert cut.shape == (1, 3, 50, 60)
    assert cut.mean() == pytest.approx(0.5, abs=1e-3)
    assert (cut.diff(dim=-1) > 0).all()


def test_frames_know_whether_and_where_they_clip() -> None:
    pixels = torch.full((3, 3, 4, 4), 254, dtype=torch.uint8)
    held = Frames(pixels, ((0, 0), (1, 1), (2, 2)))
    assert not sampling.clips(held)
    pixels[1, 2, 0, :2] = 255
    pixels[2, 0, 0, 0] = 255
    assert sampling.clips(held)
    assert torch.equal(sampling.most_exposed(held), pixels[1] / 255)
    assert not sampling.all_clips(held)
    pixels[:, 1] = 255
    assert sampling.all_clips(held)


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


def piled_up(code: int, dtype: type = np.uint8, brighter: int = 0) -> np.ndarray:
    """Frames whose codes are evenly spread up to `code`, where a fifth more lies; `brighter` pixels are white."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, code + 1, size=(2, 3, 64, 64))
    values[:, :, :13] = code
    values[0, :, 0, :brighter] = 255
    return (values * (257 if dtype is np.uint16 else 1)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("code", [255, 250, 243])
def test_the_clip_point_is_where_the_histogram_piles_up(code: int, dtype: type) -> None:
    pixels = piled_up(code, dtype)
    white = sampling.clip_point(pixels)
    assert white == pytest.approx(code / 255)
    clipped = pixels == np.iinfo(dtype).max * code // 255
    assert ((sampling.rescaled(pixels, white) == np.iinfo(dtype).max) == clipped).all()


def test_a_pile_that_compression_has_spread_begins_lower() -> None:
    pixels = piled_up(250)
    pixels[:, :, :4][pixels[:, :, :4] == 250] = 249
    assert sampling.clip_point(pixels) == pytest.approx(249 / 255)


def test_what_is_brighter_shows_that_a_pile_is_no_clipping() -> None:
    assert sampling.clip_point(piled_up(245, brighter=10)) < 1  # a few wild pixels
    assert sampling.clip_point(piled_up(245, brighter=64)) == 1


def test_frames_that_clip_nowhere_keep_their_white() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size=(2, 3, 64, 64)).astype(np.uint8)
    assert sampling.clip_point(pixels) == 1
    assert sampling.clip_point(pixels // 2) == 1
    glints = pixels // 2
    glints[0, :, 0, :40] = 243
    assert sampling.clip_point(glints) == 1
    glints[0, :, 0, :60] = 243
    assert sampling.clip_point(glints) == pytest.approx(243 / 255)
    assert sampling.rescaled(pixels.copy(), 1.0).tolist() == pixels.tolist()
