"""Where a shot ends: by a property that says so, and by how much frames differ."""

import numpy as np

from vszhdrv.zhdrv import shots
from vszhdrv.zhdrv.shots import Glance, cut_between


def glance(level: float, **props: int) -> Glance:
    return Glance.of(np.full((3, 20, 33), level, np.float32), props)


def shots_of(glances: list[Glance], step: int = 1) -> list[int]:
    return shots.shots_of(range(0, step * len(glances), step), glances)


def test_a_thumbnail_is_the_mean_of_blocks() -> None:
    sdr = np.zeros((3, 32, 49), np.float32)
    sdr[1, :2, 3:6] = 1
    thumbnail = Glance.of(sdr, {}).thumbnail
    assert thumbnail.shape == (3, 16, 16)
    assert (thumbnail[1, 0, 1], thumbnail.sum()) == (1, 1)


def test_a_cut_is_where_a_property_says_so_or_frames_differ() -> None:
    assert cut_between(glance(0.2), glance(0.31))
    assert not cut_between(glance(0.2), glance(0.29))
    assert cut_between(glance(0.2, _SceneChangeNext=1), glance(0.2))
    assert cut_between(glance(0.2), glance(0.2, _SceneChangePrev=1))
    assert not cut_between(glance(0.2, _SceneChangeNext=0), glance(0.9, _SceneChangePrev=0))


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
