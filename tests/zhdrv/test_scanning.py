"""Cuts and places of small films whose cuts and places are known."""

import cv2
import numpy as np
import pytest

from vszhdrv.zhdrv import cuts
from vszhdrv.zhdrv.cuts import Cut
from vszhdrv.zhdrv.scanning import FEWEST_FRAMES, Scanner

SIZE = (256, 144)


def still(seed: int) -> np.ndarray:
    """A large picture with corners: boxes of all sizes and greys."""
    rng = np.random.default_rng(seed)
    picture = np.full((300, 900), 90, np.uint8)
    for _ in range(220):
        x, y = int(rng.integers(900)), int(rng.integers(300))
        w, h = (int(side) for side in rng.integers(8, 70, 2))
        cv2.rectangle(picture, (x, y), (x + w, y + h), int(rng.integers(20, 250)), -1)
    return cv2.GaussianBlur(picture, (0, 0), 1.0)


def panned(seed: int, frames: int, start: int = 0, step: int = 3) -> np.ndarray:
    """A camera that moves over a still."""
    width, height = SIZE
    picture = still(seed)
    return np.stack([picture[60 : 60 + height, x : x + width] for x in range(start, start + step * frames, step)])


def small(film: np.ndarray) -> np.ndarray:
    return np.stack([cv2.resize(frame, cuts.SIZE, interpolation=cv2.INTER_AREA) for frame in film])


def scanned(film: np.ndarray, block: int = 50, **given: object) -> tuple[list[Cut], list[int]]:
    scanner = Scanner(**given)  # type: ignore[arg-type]
    for start in range(0, len(film), block):
        part = film[start : start + block]
        scanner.add(part, [{}] * len(part))
    return scanner.finish()


def test_hard_cuts_are_found_to_the_frame() -> None:
    film = np.concatenate([panned(seed, 20 + seed) for seed in range(4)])
    assert [cut.frame for cut in cuts.find_cuts(small(film))] == [20, 41, 63]


def test_a_flash_a_fast_pan_and_a_light_that_goes_out_are_no_cuts() -> None:
    film = panned(1, 40, step=14).copy()
    film[7] = np.minimum(film[7] * 3.0 + 60, 255).astype(np.uint8)
    film[25:] = (film[25:] * 0.4).astype(np.uint8)
    assert cuts.find_cuts(small(film)) == []


def test_noise_is_no_shot_after_shot() -> None:
    film = np.random.default_rng(0).integers(0, 256, (40, 144, 256)).astype(np.uint8)
    assert cuts.find_cuts(small(film)) == []


def test_a_fade_is_one_cut_in_its_dark_middle() -> None:
    one, other = panned(1, 30, step=1), panned(2, 30, step=1)
    film = np.concatenate([one, other]).astype(np.float32)
    film[22:38] *= np.abs(np.linspace(-1, 1, 16))[:, None, None]
    (cut,) = cuts.find_cuts(small(film.astype(np.uint8)))
    assert abs(cut.frame - 30) <= 3


@pytest.mark.parametrize("length", [8, 14])
def test_a_dissolve_is_found_with_the_frames_that_it_mixes(length: int) -> None:
    one, other = panned(1, 44, step=1).astype(np.float32), panned(2, 44, step=1).astype(np.float32)
    shares = np.arange(1, length + 1)[:, None, None] / (length + 1)
    mixed = (1 - shares) * one[30 : 30 + length] + shares * other[:length]
    film = np.concatenate([one[:30], mixed, other[length:]]).astype(np.uint8)
    (cut,) = cuts.find_cuts(small(film))
    assert abs(cut.first - 30) <= 3
    assert abs(cut.end - 30 - length) <= 3


def test_properties_say_where_cuts_are() -> None:
    assert cuts.marked_cuts([{}, {}]) is None
    assert cuts.marked_cuts([{"_SceneChangeNext": 1}, {}, {"_SceneChangePrev": 1}, {}]) == [Cut(1, 1), Cut(2, 2)]


def test_shots_of_one_place_are_put_together_and_others_kept_apart() -> None:
    shots = [panned(1, 20), panned(2, 20), panned(1, 20, start=40), panned(3, 20), panned(2, 20, start=50)]
    found, places = scanned(np.concatenate(shots))
    assert [cut.frame for cut in found] == [20, 40, 60, 80]
    assert places == [0, 1, 0, 2, 1]


def test_the_stretches_in_which_a_film_is_read_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    film = np.concatenate([panned(seed % 3, 30) for seed in range(6)])
    whole = scanned(film, block=len(film))
    monkeypatch.setattr("vszhdrv.zhdrv.scanning.STRETCH", 16)
    assert scanned(film, block=10) == whole


def test_a_logo_in_every_shot_joins_no_places() -> None:
    film = np.concatenate([panned(seed, 20) for seed in range(3)]).copy()
    film[:, 8:30, 220:250] = cv2.resize(still(9)[:88, :120], (30, 22))
    assert scanned(film)[1] == [0, 1, 2]


def test_a_place_of_few_frames_goes_to_another() -> None:
    few = FEWEST_FRAMES - 2
    _, places = scanned(np.concatenate([panned(1, 30), panned(2, few), panned(3, 30)]))
    assert len(set(places)) == 2


def test_given_cuts_are_not_looked_for() -> None:
    film = np.concatenate([panned(1, 20), panned(2, 20)])
    found, places = scanned(film, given=[Cut(10, 10)])
    assert (found, len(places)) == ([Cut(10, 10)], 2)


def test_a_cut_between_places_of_the_same_light_is_found_by_their_detail() -> None:
    sky = np.linspace(250, 30, SIZE[1], dtype=np.float32)[:, None]
    film = np.concatenate([(0.85 * sky + 0.15 * panned(seed, 20)).astype(np.uint8) for seed in range(2)])
    one, other = small(film[19:21])
    assert cuts.alike(one, other) > cuts.ALIKE
    assert [cut.frame for cut in cuts.find_cuts(small(film))] == [20]


def test_a_shot_with_a_cut_that_nobody_saw_joins_no_places() -> None:
    one, other = panned(1, 24), panned(2, 24)
    film = np.concatenate([one, other, panned(3, 24), np.concatenate([one[:12], other[:12]])])
    given = [Cut(n, n) for n in (24, 48, 72)]
    places = scanned(film, given=given)[1]
    assert len(set(places[:3])) == 3
    assert places[3] in places[:2]
