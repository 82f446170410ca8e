"""Which frames are drawn: the paper's rules by hand, every shot, and no pair across a cut."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vszhdrv.zhdrv import choosing
from vszhdrv.zhdrv.config import Config
from vszhdrv.zhdrv.shots import Glance

FAST, PAPER = (Config.from_preset(preset) for preset in ("fast", "paper"))


def test_a_film_costs_what_a_clip_costs() -> None:
    assert choosing.candidates(1) == [0]
    assert choosing.candidates(5) == [0, 1, 2, 3, 4]
    film = choosing.candidates(200_000)
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
    assert choosing.well_exposedness(pixels.T.reshape(3, 2, 4)) == 0.5


@pytest.mark.parametrize(
    ("length", "count"), [(1, 1), (2, 2), (30, 30), (31, 5), (59, 9), (180, 30), (200, 33), (768, 128), (100_000, 128)]
)
def test_the_papers_number_of_frames(length: int, count: int) -> None:
    assert choosing.frames_to_draw(length, PAPER) == count


def test_fast_takes_at_least_30_frames_and_stills_are_all_used() -> None:
    assert [choosing.frames_to_draw(length, FAST) for length in (2, 31, 100_000)] == [2, 31, 128]
    assert choosing.frames_to_draw(100, replace(PAPER, still=True)) == 100


def test_frames_are_drawn_by_inverting_the_sum_of_the_sorted_scores() -> None:
    # sums 0, 0, 1, 2 of the sorted scores, read at 0.5 and 1.5: the two frames that score
    assert choosing.choose_frames([0, 10, 20, 30], [0.0, 1.0, 1.0, 0.0], 2, 0, [0] * 4) == [10, 20]
    # sorted 20: 1, 10: 2, 0: 3, 30: 4; sums 1, 3, 6, 10, read at 2.5 and 7.5
    assert choosing.choose_frames([0, 10, 20, 30], [3.0, 2.0, 1.0, 4.0], 2, 0, [0] * 4) == [10, 30]


def test_a_frame_drawn_twice_gives_its_place_to_the_next() -> None:
    # sums 0, 0, 0.1, 10.1, read at 2.5 and 7.6: frame 30 twice, and next to it among the sorted scores is frame 0
    assert choosing.choose_frames([0, 10, 20, 30], [0.1, 0.0, 0.0, 10.0], 2, 0, [0] * 4) == [0, 30]


def test_without_scores_frames_are_drawn_regularly_with_jitter() -> None:
    positions = list(range(0, 800, 2))
    draws = [choosing.choose_frames(positions, [0.0] * 400, 100, seed, [0] * 400) for seed in range(5)]
    for drawn in draws:
        assert [number // 8 for number in drawn] == list(range(100))
    assert len(set(map(tuple, draws))) == 5
    assert len({number % 8 for number in draws[0]}) == 4


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(1, 60), st.integers(0, 2**31 - 1))
def test_any_scores_give_the_count_asked_for(scores: list[float], count: int, seed: int) -> None:
    positions = [3 * place for place in range(len(scores))]
    drawn = choosing.choose_frames(positions, scores, count, seed, [0] * len(positions))
    assert len(drawn) == min(count, len(scores))
    assert drawn == sorted(set(drawn))
    assert set(drawn) <= set(positions)
    assert drawn == choosing.choose_frames(positions, scores, count, seed, [0] * len(positions))


def test_frames_travel_with_their_successors_and_the_last_with_its_predecessor() -> None:
    numbers, pairs = choosing.with_successors([0, 3, 4], length=5)
    assert numbers == [0, 1, 3, 4]
    assert pairs == ((0, 1), (2, 3), (3, 2))
    assert choosing.with_successors([0], length=1) == ([0], ((0, 0),))


def test_a_short_shot_is_not_left_out() -> None:
    positions, scores = list(range(0, 200, 2)), [0.9] * 48 + [0.1, 0.2, 0.1, 0.0] + [0.9] * 48
    shots = [0] * 48 + [1] * 4 + [2] * 48
    drawn = choosing.choose_frames(positions, scores, 8, 0, shots)
    assert len(drawn) == len(set(drawn)) == 8
    assert [frame for frame in drawn if 96 <= frame < 104] == [98]  # its best
    assert drawn == sorted(drawn)


def test_where_shots_are_more_than_frames_the_longest_come_first() -> None:
    shots = [0] * 9 + [1] + [2] * 5 + [3] * 2
    drawn = choosing.choose_frames(range(17), [1.0] * 9 + [0.0] * 8, 2, 0, shots)
    assert sorted(shots[frame] for frame in drawn) == [0, 2]


def glance(level: float) -> Glance:
    return Glance.of(np.full((3, 20, 33), level, np.float32), {})


def test_a_pair_does_not_cross_a_cut() -> None:
    glances = {0: glance(0.2), 1: glance(0.2), 2: glance(0.8), 3: glance(0.8), 4: glance(0.1)}
    pairs = ((0, 1), (1, 2), (2, 3), (4, 3), (4, 4))
    assert choosing.within_shots(pairs, glances) == ((0, 1), (1, 1), (2, 3), (4, 4), (4, 4))
