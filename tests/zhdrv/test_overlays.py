"""Bars and logos: found where the frames give evidence, nowhere else, and left as they are."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vszhdrv.zhdrv.overlays import Overlays

HEIGHT, WIDTH = 96, 160
LOGO = np.s_[20:28, 120:136]

Frames = NDArray[Any]


def world() -> NDArray[np.float64]:
    """A picture larger than a frame: random blocks, some of them white."""
    blocks = np.random.default_rng(0).random((3, 40, 60)) ** 2 * 1.3
    return np.kron(blocks, np.ones((1, 6, 6)))


def film(count: int = 24, step: float = 5, dtype: type = np.uint8) -> Frames:
    """A camera that pans by `step` pixels a frame."""
    places = (np.arange(count) * step).astype(int)
    pan = np.stack([world()[:, 30 : 30 + HEIGHT, place : place + WIDTH] for place in places])
    return (pan.clip(0, 1) * np.iinfo(dtype).max).astype(dtype)


def with_logo(frames: Frames) -> Frames:
    frames[:, :, *LOGO] = np.iinfo(frames.dtype).max
    return frames


def with_bars(frames: Frames, rows: int = 0, columns: int = 0, level: int = 5) -> Frames:
    frames[:, :, :rows] = frames[:, :, HEIGHT - rows :] = level
    frames[..., :columns] = frames[..., WIDTH - columns :] = level
    return frames


def find(frames: Frames) -> Overlays:
    return Overlays.find(frames, range(len(frames)))


def with_text(frames: Frames, numbers: Any, seed: int = 0, step: int = 0) -> Frames:
    """Strokes of two pixels on black in the lower third of some frames, moving by `step` pixels a frame."""
    columns = 8 * np.random.default_rng(seed).permutation(16)[:10] + 8
    for number in numbers:
        frames[number, :, 74:92] = 0
        for column in columns:
            place = 4 + (column + step * number) % 150
            frames[number, :, 79:87, place : place + 2] = np.iinfo(frames.dtype).max
    return frames


def white_box(overlays: Overlays) -> Any:
    found = np.zeros((HEIGHT, WIDTH), bool)
    found[LOGO] = True
    return np.array_equal(overlays.logos > 0, found)


def linear(frame: Frames) -> NDArray[np.float32]:
    return ((frame / np.iinfo(frame.dtype).max) ** 2.2).astype(np.float32)


def doubled(linear: NDArray[np.float32]) -> NDArray[np.float32]:
    """An expansion that leaves nothing alone."""
    return linear * 2 + 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_logo_is_what_keeps_its_place_while_all_around_moves(dtype: type) -> None:
    overlays = find(with_logo(film(dtype=dtype)))
    assert white_box(overlays)
    assert overlays.logos.max() == 1
    assert list(overlays.words()) == ["the white at 120,20 to 135,27 is a logo and stays white"]


def test_letters_that_lie_close_are_one_logo_and_far_ones_are_two() -> None:
    frames = film()
    frames[..., 20:26, 20:23] = frames[..., 20:26, 25:28] = frames[..., 70:76, 130:133] = 255
    overlays = find(frames)
    assert sorted({overlays.logos[20, 20], overlays.logos[20, 25], overlays.logos[70, 130]}) == [1, 2]
    assert overlays.logos[20, 20] == overlays.logos[20, 25]


def test_moving_lights_are_no_logo() -> None:
    assert not find(film())


@pytest.mark.parametrize("exposure", [False, True])
def test_a_still_camera_proves_nothing(exposure: bool) -> None:
    frames = with_logo(film(step=0))
    if exposure:
        gains = 1 - 0.3 * np.sin(np.arange(len(frames)))[:, None, None, None] ** 2
        frames = (frames * gains).astype(np.uint8)
    frames[:, :, *LOGO] = 255
    noise = np.random.default_rng(1).integers(0, 3, frames.shape, np.uint8)
    assert not find(np.minimum(frames, 252) + noise)


def test_noise_on_a_wall_is_no_movement() -> None:
    frames = np.random.default_rng(1).integers(60, 69, (24, 3, HEIGHT, WIDTH))
    assert not find(with_logo(frames.astype(np.uint8)))


def test_something_that_passes_in_front_of_a_still_light_makes_no_logo_of_it() -> None:
    frames = film(step=0)
    with_logo(frames)
    frames[..., 28:, :] = film()[..., 28:, :]  # below, all moves; above and beside, nothing does
    assert not find(frames)


def test_a_light_in_an_unsteady_hand_is_no_logo() -> None:
    frames = film(step=0)
    places = np.random.default_rng(2).integers(-3, 4, (len(frames), 2))
    picture = frames[0].copy()
    picture[:, 30:60, 60:100] = 255
    shaken = np.stack([np.roll(picture, tuple(place), (-2, -1)) for place in places])
    assert not find(shaken)


def test_few_frames_prove_nothing() -> None:
    assert not find(with_logo(film(7)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_subtitles_are_lines_that_stand_still_and_change(dtype: type) -> None:
    plain = film(dtype=dtype)
    frames = with_text(with_text(plain.copy(), range(8)), range(12, 20), seed=4)
    overlays = find(frames)
    top, bottom = overlays.subtitles
    assert top <= 79 - 8
    assert bottom >= 87
    assert list(overlays.words()) == [f"white letters in the rows {top} to {bottom - 1} are subtitles and stay white"]
    hdr = overlays.around(doubled, linear(frames[14]))
    text = frames[14, 0, 79:87] == np.iinfo(dtype).max
    assert (hdr[:, 79:87][:, text] == 1).all()
    assert np.array_equal(hdr[:, :top], doubled(linear(frames[14])[:, :top]))
    seen = overlays.without(frames)
    assert (seen[14, :, 79:87][:, text] == 0).all()
    assert np.array_equal(seen[:, :, :top], plain[:, :, :top])


def test_a_sign_that_never_changes_is_no_subtitle() -> None:
    assert find(with_text(film(step=0), range(24))).subtitles == (0, 0)


def test_lit_windows_that_pass_are_no_subtitle() -> None:
    assert find(with_text(film(), range(24), step=5)).subtitles == (0, 0)


def test_one_line_in_a_while_is_no_subtitle() -> None:
    frames = with_text(with_text(film(), range(2)), [12], seed=4)
    assert find(frames).subtitles == (0, 0)
    assert find(with_text(frames, [20], seed=4)).subtitles != (0, 0)


def test_frames_far_apart_need_not_show_the_same_text() -> None:
    frames = film()
    for number in range(0, 24, 2):
        with_text(frames, [number], seed=number)
    assert find(frames).subtitles == (0, 0)
    assert Overlays.find(frames, range(0, 24 * 50, 50)).subtitles != (0, 0)


@pytest.mark.parametrize(("rows", "columns"), [(12, 0), (0, 20), (12, 20)])
def test_bars_are_black_at_opposite_edges_in_all_frames(rows: int, columns: int) -> None:
    overlays = find(with_bars(film(), rows, columns))
    assert overlays.picture == (columns, rows, WIDTH - columns, HEIGHT - rows)
    picture = f"{WIDTH - 2 * columns}x{HEIGHT - 2 * rows}"
    assert list(overlays.words()) == [f"black bars: the picture is {picture} of 160x96"]


def test_what_is_no_bar() -> None:
    whole = 0, 0, WIDTH, HEIGHT
    grey = with_bars(film(), 12, level=15)
    one_edge = film()
    one_edge[..., :12, :] = 0
    once = with_bars(film(), 12)
    once[5] = film()[5]
    for frames in (film(), grey, one_edge, once, np.zeros_like(film())):
        assert find(frames).picture == whole


def test_a_thinner_bar_decides() -> None:
    frames = with_bars(film(), 6)
    frames[:, :, :12] = 0
    assert find(frames).picture == (0, 6, WIDTH, HEIGHT - 6)


def test_learning_sees_the_picture_alone() -> None:
    frames = with_logo(with_bars(film(), 12))
    plain = frames.copy()
    overlays = find(frames)
    seen = overlays.without(frames)
    assert seen.shape == (24, 3, HEIGHT - 24, WIDTH)
    assert (seen[:, :, 8 - 3 : 16 + 3, 120 - 3 : 136 + 3] == 0).all()  # the edge too
    seen[:, :, 8 - 3 : 16 + 3, 120 - 3 : 136 + 3] = plain[:, :, 20 - 3 : 28 + 3, 120 - 3 : 136 + 3]
    assert np.array_equal(seen, plain[:, :, 12:-12])


def test_bars_and_logos_stay_as_they_are() -> None:
    frames = with_logo(with_bars(film(), 12))
    overlays = find(frames)
    frame = linear(frames[3])
    hdr = overlays.around(doubled, frame)
    expected = doubled(frame)
    expected[:, :12], expected[:, -12:] = frame[:, :12], frame[:, -12:]
    edge = np.s_[:, 17:31, 117:139]
    expected[edge] = frame[edge]
    assert np.array_equal(hdr, expected)
    assert hdr.dtype == np.float32


def test_a_frame_that_fills_the_bars_is_expanded_whole() -> None:
    overlays = find(with_bars(film(), 12))
    frame = linear(film()[3])
    assert (frame[:, :12] == 1).any()
    assert np.array_equal(overlays.around(doubled, frame), doubled(frame))


def test_bars_are_picture_where_they_reach_the_clip_point() -> None:
    overlays = find(with_bars(film(), 12))
    frame = linear(film()[3]) * np.float32(0.9)
    kept = overlays.around(doubled, frame)
    assert np.array_equal(kept[:, :12], frame[:, :12])
    assert np.array_equal(overlays.around(doubled, frame, 0.9), doubled(frame))


def test_a_logo_that_is_not_there_is_not_kept() -> None:
    overlays = find(with_logo(film()))
    frame = linear(film()[3])
    assert np.array_equal(overlays.around(doubled, frame), doubled(frame))


def test_frames_of_another_size_have_the_overlays_in_their_place() -> None:
    frames = with_logo(with_bars(film(), 12))
    overlays = find(frames)
    large = np.kron(linear(frames[3]), np.ones((1, 2, 2), np.float32))
    hdr = overlays.around(doubled, large)
    assert np.array_equal(hdr[:, :24], large[:, :24])
    assert np.array_equal(hdr[:, 40:56, 240:272], large[:, 40:56, 240:272])
    assert np.array_equal(hdr[:, 24:34], doubled(large[:, 24:34]))


def test_overlays_are_written_and_read() -> None:
    overlays = replace(find(with_logo(with_bars(film(), 12))), subtitles=(60, 90))
    again = Overlays.parse(str(overlays))
    assert again.subtitles == (60, 90)
    assert again.picture == overlays.picture
    assert np.array_equal(again.logos, overlays.logos)
    assert len(str(overlays)) < 1000
