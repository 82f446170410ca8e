"""The training frames: where they clip, and at which value."""

import numpy as np
import pytest
import torch

from vszhdrv.zhdrv import footage
from vszhdrv.zhdrv.footage import TrainingFrames, Traits
from vszhdrv.zhdrv.overlays import Overlays


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [(torch.uint8, 51, 0.2), (torch.uint16, 65535, 1.0), (torch.uint16, 13107, 0.2), (torch.float32, 0.2, 0.2)],
)
def test_codes_become_numbers_up_to_1(dtype: torch.dtype, value: float, expected: float) -> None:
    codes = torch.full((3, 4, 5), value, dtype=dtype)
    frame = footage.scaled(codes)
    assert (frame.shape, frame.dtype) == ((3, 4, 5), torch.float32)
    assert torch.allclose(frame, torch.tensor(expected))


def test_frames_know_whether_and_where_they_clip() -> None:
    pixels = torch.full((3, 3, 4, 4), 254, dtype=torch.uint8)
    held = TrainingFrames(pixels, ((0, 0), (1, 1), (2, 2)))
    assert not footage.clips(held)
    pixels[1, 2, 0, :2] = 255
    pixels[2, 0, 0, 0] = 255
    assert footage.clips(held)
    assert torch.equal(footage.most_exposed(held), pixels[1] / 255)
    assert not footage.all_clips(held)
    pixels[:, 1] = 255
    assert footage.all_clips(held)


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
    white = footage.clip_point(pixels)
    assert white == pytest.approx(code / 255)
    clipped = pixels == np.iinfo(dtype).max * code // 255
    assert ((footage.rescaled(pixels, white) == np.iinfo(dtype).max) == clipped).all()


def test_a_pile_that_compression_has_spread_begins_lower() -> None:
    pixels = piled_up(250)
    pixels[:, :, :4][pixels[:, :, :4] == 250] = 249
    assert footage.clip_point(pixels) == pytest.approx(249 / 255)


def test_what_is_brighter_shows_that_a_pile_is_no_clipping() -> None:
    assert footage.clip_point(piled_up(245, brighter=10)) < 1  # a few wild pixels
    assert footage.clip_point(piled_up(245, brighter=64)) == 1


def test_frames_that_clip_nowhere_keep_their_white() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size=(2, 3, 64, 64)).astype(np.uint8)
    assert footage.clip_point(pixels) == 1
    assert footage.clip_point(pixels // 2) == 1
    glints = pixels // 2
    glints[0, :, 0, :40] = 243
    assert footage.clip_point(glints) == 1
    glints[0, :, 0, :60] = 243
    assert footage.clip_point(glints) == pytest.approx(243 / 255)
    assert footage.rescaled(pixels.copy(), 1.0).tolist() == pixels.tolist()


def test_traits_come_back_from_a_header() -> None:
    logos = np.zeros((32, 40), np.uint8)
    found = Traits(Overlays((0, 4, 40, 28), logos), clip_point=0.1 + 0.7, compressed=True, grey=True)
    header = found.to_header()
    assert list(header) == ["clip_point", "compressed", "grey", "overlays"]
    assert (header["clip_point"], header["compressed"], header["grey"]) == ("0.7999999999999999", "True", "True")
    back = Traits.from_header(header)
    assert back.overlays is not None and back.overlays.picture == (0, 4, 40, 28)
    assert back.to_header() == header
    assert Traits.from_header({}) == Traits() == Traits.from_header(Traits().to_header())
