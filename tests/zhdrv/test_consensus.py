"""The consensus of neighbouring frames: what is averaged, along which motion, at which exposure, what is left out."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from vszhdrv.zhdrv import camera, choosing, consensus, footage, sampling
from vszhdrv.zhdrv.consensus import Consensus
from vszhdrv.zhdrv.footage import TrainingFrames, Traits
from vszhdrv.zhdrv.lanes import Lanes

CPU = torch.device("cpu")
SIZE = 96, 128
STOPS = 3.0
"""Of the lamp over white."""


def world(seed: int = 0) -> Tensor:
    """Linear light of a wall with soft spots, wider than a frame, and a lamp in its middle: `(3, height, width)`."""
    height, width = SIZE[0], 2 * SIZE[1]
    generator = torch.Generator().manual_seed(seed)
    spots = torch.rand(1, 1, height // 8, width // 8, generator=generator)
    wall = 0.03 + 0.5 * torch.nn.functional.interpolate(spots, (height, width), mode="bicubic").clamp(0, 1)[0, 0]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    lamp = (y - height / 2) ** 2 + (x - width / 2) ** 2 < 14**2
    return torch.where(lamp, torch.tensor(2.0**STOPS), wall).expand(3, -1, -1)


def filmed(count: int = 17, exposures: Callable[[int], float] = lambda _: 0.0) -> TrainingFrames:
    """A pan over the world; `exposures`: stops of each frame."""
    views = [world()[..., 40 + n : 40 + n + SIZE[1]] * 2.0 ** exposures(n) for n in range(count)]
    return held(torch.stack(views))


def held(linear: Tensor) -> TrainingFrames:
    _, pairs = choosing.with_successors(range(len(linear)), len(linear))
    return TrainingFrames((camera.encode(linear) * 255).round().byte(), pairs)


def saying(frames: TrainingFrames, stops: Sequence[float]) -> consensus.Predict:
    """A network that says these stops of all pixels of the frames."""
    known = [footage.scaled(pixels)[None] for pixels in frames.pixels]
    return lambda x: torch.full_like(x, next(n for y, n in zip(known, stops, strict=True) if torch.equal(x, y)))


def consulted(frames: TrainingFrames, predict: consensus.Predict, scale: int = 1, threads: int = 1) -> Consensus:
    """The consensus of the frames."""
    agreed = Consensus(frames, CPU, scale)
    with Lanes(CPU, threads) as lanes:
        assert lanes.count == threads
        for _ in agreed.consult(predict, lanes):
            pass
    return agreed


def means(agreed: Consensus, frames: TrainingFrames, place: int) -> Tensor:
    """What is agreed on where a frame clips."""
    height, width = frames.pixels.shape[-2:]
    whole = sampling.Crop(0, 0, 0, 0, height, width, jitter_stops=0, shift_stops=0)
    return agreed.cut(place, whole)[0][footage.scaled(frames.pixels[place]) >= frames.traits.white]


def test_predictions_for_the_same_place_are_averaged_along_motion() -> None:
    frames = filmed()
    predictions = [STOPS + (1 if n % 4 == 0 else 0) for n in range(17)]
    agreed = consulted(frames, saying(frames, predictions))
    near = [predictions[8 + k] for d in consensus.DISTANCES for k in (-d, d)]
    expected = (predictions[8] + sum(near)) / (1 + len(near))
    assert predictions[8] != pytest.approx(expected, abs=0.2)
    found = means(agreed, frames, 8)
    assert len(found) > 1000
    assert found.median() == pytest.approx(expected, abs=0.1)
    assert ((found - expected).abs() < 0.1).float().mean() > 0.8  # not at the lamp's edge


def test_threads_that_share_the_neighbours_agree_on_the_same(set_threads: Callable[[int], None]) -> None:
    frames = filmed()
    predictions = saying(frames, [STOPS + n / 10 for n in range(17)])
    alone = [means(consulted(frames, predictions), frames, n) for n in range(17)]
    set_threads(2)
    shared = consulted(frames, predictions, threads=2)
    assert all(torch.equal(means(shared, frames, n), alone[n]) for n in range(17))


def test_neighbours_speak_at_the_frames_own_exposure() -> None:
    frames = filmed(exposures=lambda n: -0.1 * n)
    agreed = consulted(frames, saying(frames, [STOPS - 0.1 * n for n in range(17)]))
    for place in (0, 8, 16):
        assert means(agreed, frames, place).median() == pytest.approx(STOPS - 0.1 * place, abs=0.1)


def test_what_a_neighbour_shows_unclipped_is_heard() -> None:
    dark = 8 + consensus.DISTANCES[0]
    frames = filmed(exposures=lambda n: -STOPS - 1 if n == dark else 0.0)
    agreed = consulted(frames, lambda x: torch.full_like(x, 1.0))  # the network knows nothing
    alone = consulted(filmed(), lambda x: torch.full_like(x, 1.0))
    assert means(alone, filmed(), 8).median() == pytest.approx(1, abs=0.05)
    gain = (STOPS - 1) / (1 + 2 * len(consensus.DISTANCES))
    assert means(agreed, frames, 8).median() == pytest.approx(1 + gain, abs=0.1)


def test_another_shot_is_not_consulted() -> None:
    other = world(seed=1)[..., : SIZE[1]] * 0.5
    other[:, 20:76, 30:98] = 4.0  # white where the lamp is, too: inside of it the pictures match
    views = torch.stack([world()[..., 64 : 64 + SIZE[1]]] * 6 + [other] * 7)
    frames = held(views)
    agreed = consulted(frames, saying(frames, [STOPS] * 6 + [1.0] * 7))
    assert means(agreed, frames, 5).median() == pytest.approx(STOPS, abs=0.05)
    assert means(agreed, frames, 6).median() == pytest.approx(1.0, abs=0.05)


def test_where_nothing_can_be_compared_the_frame_speaks_alone() -> None:
    white = torch.full((3, 3, 32, 32), 5.0)
    for place, row in enumerate(white):
        row[:, :place] = 0.0  # to tell them apart
    frames = held(white)
    agreed = consulted(frames, saying(frames, [1.0, 3.0, 2.0]))
    assert [float(means(agreed, frames, place).mean()) for place in range(3)] == [1.0, 3.0, 2.0]


def test_a_prediction_under_white_counts_as_white() -> None:
    frames = filmed()
    agreed = consulted(frames, saying(frames, [STOPS if n == 8 else -5 for n in range(17)]))
    assert means(agreed, frames, 8).median() == pytest.approx(STOPS / 7, abs=0.1)
    assert means(agreed, frames, 7).median() == pytest.approx(STOPS / 6, abs=0.1)  # has no eighth frame before itself


def test_predictions_beyond_what_eight_bits_hold_are_cut() -> None:
    frames = filmed(3)
    agreed = consulted(frames, lambda x: torch.full_like(x, 99))
    assert means(agreed, frames, 1).max() == 255 / consensus.PER_STOP


def test_what_has_left_the_picture_is_not_consulted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Flow:
        def calc(self, here: npt.NDArray[np.uint8], *_: object) -> npt.NDArray[np.float32]:
            return np.full((*here.shape, 2), (60, 0), np.float32)

    monkeypatch.setattr(cv2.DISOpticalFlow, "create", lambda _: Flow())
    flat = held(torch.full((3, 3, *SIZE), 0.5))
    flat.pixels[..., -1] = 255  # repeated beyond the edge, it would match
    flat.pixels[0, ..., 100:] = 255
    flat.pixels[1, ..., 0] = 0  # to tell it from the third
    agreed = consulted(flat, saying(flat, [STOPS, 0.0, STOPS]))
    assert (means(agreed, flat, 0) == STOPS).all()


@pytest.mark.parametrize("transform", range(8))
def test_means_are_cut_and_turned_like_the_frames(transform: int) -> None:
    frames = filmed(3)
    agreed = consulted(frames, lambda x: x + 1)
    crop = sampling.Crop(0, transform, 10, 20, 64, 64, jitter_stops=0, shift_stops=0)
    whole = sampling.Crop(0, 0, 0, 0, *SIZE, jitter_stops=0, shift_stops=0)
    expected = sampling.turned(agreed.cut(1, whole)[..., *crop.area], transform)
    assert torch.equal(agreed.cut(1, crop), expected)
    clips = sampling.cut(frames, 1, crop, 64, CPU) == 1
    assert int(clips.sum()) > 100
    assert (agreed.cut(1, crop)[clips] > 1.5).float().mean() > 0.8  # not at the lamp's edge


@pytest.mark.parametrize("size", [(96, 128), (95, 127)])
def test_blocks_of_pixels_are_seen_as_one(size: tuple[int, int]) -> None:
    height, width = size
    frames = filmed()
    frames = TrainingFrames(frames.pixels[..., :height, :width], frames.pairs)
    agreed = consulted(frames, lambda x: torch.where(x == 1, STOPS, 0.0), 2)
    whole = sampling.Crop(0, 0, 0, 0, height, width, jitter_stops=0, shift_stops=0)
    mean = agreed.cut(8, whole)
    assert mean.shape == (1, 3, height, width)
    assert torch.equal(mean[..., 0:-1:2, 0:-1:2], mean[..., 1::2, 1::2])
    # of blocks that clip in part, what clips counts
    assert (means(agreed, frames, 8) > STOPS - 0.1).float().mean() > 0.85
    assert means(agreed, frames, 8).min() > STOPS - 1.5


def test_trained_on_is_what_clips_evenly_spread_where_that_is_much() -> None:
    dark = torch.zeros(2, 3, 32, 32)
    frames = held(torch.cat([dark, torch.full((3, 3, 32, 32), 4.0), dark]))
    assert Consensus(frames, CPU).frames.pairs == ((2, 3), (3, 4), (4, 5))
    frames = held(dark)
    assert Consensus(frames, CPU).frames.pairs == frames.pairs  # nothing does: nothing is lost either
    many = held(torch.full((2 * consensus.PAIRS, 3, 16, 16), 4.0))
    pairs = Consensus(many, CPU).frames.pairs
    assert len(pairs) == consensus.PAIRS
    assert (pairs[0], pairs[-1]) == (many.pairs[0], many.pairs[-1])
    assert {after - before for (before, _), (after, _) in pairwise(pairs)} == {2, 3}


def test_deeper_frames_and_compressed_ones_are_seen_as_they_are() -> None:
    frames = filmed()
    deep = TrainingFrames((frames.pixels.to(torch.int32) * 257).to(torch.uint16), frames.pairs)
    found = means(consulted(deep, lambda x: torch.full_like(x, STOPS)), deep, 6)
    assert found.median() == pytest.approx(STOPS, abs=0.05)
    uneven = TrainingFrames(frames.pixels.clamp(max=245), frames.pairs, Traits(compressed=True))
    found = means(consulted(uneven, lambda x: torch.full_like(x, STOPS)), uneven, 6)
    assert len(found) > 1000 and found.median() == pytest.approx(STOPS, abs=0.05)


@pytest.mark.parametrize(("height", "width"), [(17, 301), (16, 64), (301, 17), (16, 640), (12, 300)])
def test_low_pictures_have_flow_too(height: int, width: int) -> None:
    """OpenCV's own crashes on some of these sizes."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width + 20), indexing="ij")
    wall = 0.2 + 0.1 * torch.sin(x / 5) * torch.cos(y / 3)
    wall = torch.where((x - width / 2) ** 2 + (y - height / 2) ** 2 < 9, 8.0, wall)
    frames = held(torch.stack([wall[:, n : n + width].expand(3, -1, -1) for n in range(6)]))
    agreed = consulted(frames, saying(frames, [3, 3, 3, 3, 3, 3]))
    assert 2 < means(agreed, frames, 2).mean() < 3.1
