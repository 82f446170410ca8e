"""Compression's traces are told from a clean clip's, and the simulated codec does what codecs do."""

import numpy as np
import pytest
import torch
from scipy import fft
from torch import Tensor

from vszhdrv.zhdrv import compression, footage, sampling
from vszhdrv.zhdrv.config import Config
from vszhdrv.zhdrv.footage import TrainingFrames, Traits

FAST = Config.from_preset("fast")


@pytest.fixture(name="pictures")
def _pictures(lamps: np.ndarray) -> Tensor:
    return footage.scaled(torch.from_numpy(lamps))


def kept(pictures: Tensor, *, compressed: bool = False) -> TrainingFrames:
    count = len(pictures)
    pixels = (pictures * 255).round().to(torch.uint8)
    pairs = tuple((n, min(n + 1, count - 1)) for n in range(count))
    return TrainingFrames(pixels, pairs, Traits(compressed=compressed))


def coded(pictures: Tensor, step: float) -> Tensor:
    return torch.cat([compression.coded(one, step / 255, 0, 0) for one in pictures.split(1)])


def test_a_clean_clip_is_not_taken_for_a_compressed_one(pictures: Tensor) -> None:
    assert not compression.shows(kept(pictures), FAST)


@pytest.mark.parametrize("step", [4, 8, 16])
def test_a_compressed_clip_shows_it(pictures: Tensor, step: float) -> None:
    assert compression.shows(kept(coded(pictures, step)), FAST)


@pytest.mark.parametrize(
    ("holes", "usual", "said", "shown"),
    [(5, 2, False, False), (5, 2, True, True), (15, 2, False, True), (5, 4, True, False), (2, 0, True, False)],
)
def test_fewer_holes_are_enough_where_the_decoder_has_said_that_frames_were_coded(
    pictures: Tensor, monkeypatch: pytest.MonkeyPatch, holes: int, usual: int, said: bool, shown: bool
) -> None:
    whole = pictures.shape[-2:]
    monkeypatch.setattr(
        compression, "_holes", lambda sdr: np.array([holes if sdr.shape[-2:] == whole else usual, 1000])
    )
    assert len(pictures) == 4  # so many times as many holes are found
    assert compression.shows(kept(pictures), FAST, coded=said) == shown


def test_where_nothing_clips_nothing_shows(pictures: Tensor) -> None:
    assert not compression.shows(kept(pictures * 0.5), FAST)


def test_where_all_clips_nothing_shows() -> None:
    assert not compression.shows(kept(torch.ones(2, 3, 32, 32)), FAST)


def test_a_finer_step_is_nearer_to_the_picture(pictures: Tensor) -> None:
    picture = pictures[:1]
    grey = picture.mean(1, keepdim=True).expand(-1, 3, -1, -1)  # coding colour at half the size loses more
    errors = [(compression.coded(grey, step / 255, 0, 0) - grey).square().mean().sqrt() * 255 for step in (1, 4, 16)]
    assert 0 < errors[0] < 0.6  # 8-bit codes, hardly more than rounding
    assert errors[0] < errors[1] < errors[2] < 16


def test_each_block_has_whole_steps_of_its_cosine_transform() -> None:
    rng, step = np.random.default_rng(0), 0.07
    luma = rng.uniform(0.2, 0.8, (16, 32))
    expected = np.empty_like(luma)
    for top in (0, 8):
        for left in range(0, 32, 8):
            block = slice(top, top + 8), slice(left, left + 8)
            coefficients = fft.dctn(luma[block], norm="ortho")
            kept = np.sign(coefficients) * np.floor(np.abs(coefficients) / step + compression.ROUNDING) * step
            expected[block] = fft.idctn(kept, norm="ortho")
    picture = torch.tensor(luma, dtype=torch.float32).expand(1, 3, -1, -1)
    back = compression.coded(picture, step, 0, 0)[0].numpy()
    assert np.abs(back - np.clip(expected, 0, 1)).max() < 0.51 / 255
    assert np.abs(back - luma).max() > 5 / 255  # something was lost


def test_an_even_picture_comes_back_but_for_a_step() -> None:
    even = torch.tensor([0.8, 0.5, 0.2])[None, :, None, None].expand(1, 3, 20, 28)
    back = compression.coded(even, 2 / 255, 3, 5)
    assert back.shape == even.shape
    assert (back - even).abs().max() < 2 / 255
    assert (back - back[..., :1, :1]).abs().max() < 1e-6


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 33), (128, 128)])
@pytest.mark.parametrize("offset", [(0, 0), (15, 15), (3, 8)])
def test_any_size_and_grid(height: int, width: int, offset: tuple[int, int]) -> None:
    picture = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    back = compression.coded(picture, 1 / 255, *offset)
    assert back.shape == picture.shape
    luma = torch.tensor(compression.BT709[0])[:, None, None]
    difference = ((back - picture) * luma).sum(1)
    assert difference.square().mean().sqrt() < 0.1  # noise's colour is lost, clipping moves some of its luma


def test_autocast_leaves_its_precision_alone(pictures: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        within = coded(pictures, 4)
    assert torch.equal(within, coded(pictures, 4))


def test_the_grid_moves_with_its_offset() -> None:
    edge = torch.zeros(1, 3, 32, 32)
    edge[..., 11:] = 1
    rings = [(compression.coded(edge, 16 / 255, 0, left) != edge).any(1).any(1)[0].nonzero() for left in (0, 4)]
    assert rings[0].min() != rings[1].min()


def test_each_crop_of_a_compressed_clip_draws_its_codec_and_no_other_does(pictures: Tensor) -> None:
    clean, compressed = kept(pictures), kept(pictures, compressed=True)
    draws = [[crop for crops in sampling.visits(frames, FAST, 0) for crop in crops] for frames in (clean, compressed)]
    assert {crop.coding for crop in draws[0]} == {None}
    codings = [crop.coding for crop in draws[1] if crop.coding is not None]
    steps = [step for step, _, _ in codings]
    assert len(codings) == len(draws[1])
    assert 0 < min(steps) < 0.1 * sampling.COARSEST_STEP
    assert 0.9 * sampling.COARSEST_STEP < max(steps) <= sampling.COARSEST_STEP
    assert {down for _, down, _ in codings} == {right for _, _, right in codings} == set(range(sampling.OFFSETS))
