"""What is learned from: which frames are read, in which order of things, and how they are held."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import vapoursynth as vs

from vszhdrv.plugin import clips, colour, training_frames
from vszhdrv.plugin.preparing import prepare
from vszhdrv.zhdrv import footage

MakeClip = Callable[..., Any]


def gathered(clip: Any, **arguments: Any) -> tuple[footage.TrainingFrames, list[list[int]]]:
    """What is learned from, and the positions of every batch of frames that was read for it."""
    job = prepare(clip, device="cpu", **arguments)
    readings = training_frames.choose(job.request)
    read: list[list[int]] = []
    while True:
        try:
            reading = next(readings)
        except StopIteration as end:
            return end.value, read
        read.append(list(reading.positions))
        for place, (planes, props) in enumerate(clips.read(reading.clip, reading.positions)):
            reading.take(place, planes, props)


def test_fast_reads_all_frames_of_a_short_clip_once(make_clip: MakeClip) -> None:
    _, read = gathered(make_clip(width=16, height=16, length=40))
    assert read == [list(range(40))]


def test_a_range_alone_is_read(make_clip: MakeClip) -> None:
    clip = make_clip(width=16, height=16, length=40)
    ranged, read = gathered(clip, train_range=[10, 14])
    assert read == [list(range(5))]
    assert torch.equal(ranged.pixels, gathered(clip)[0].pixels[10:15])


def test_the_paper_scores_all_and_reads_a_sixth_with_successors(make_clip: MakeClip) -> None:
    clip = make_clip(width=16, height=16, length=42, _SceneChangePrev=0)  # so fast that it would look like cuts
    held, (scored, read) = gathered(clip, preset="paper")
    assert scored == list(range(42))
    drawn = [read[place] for place, _ in held.pairs]
    assert len(drawn) == 7  # 42 / 6
    assert [read[place] for _, place in held.pairs] == [n + 1 if n < 41 else n - 1 for n in drawn]
    assert held.pixels.shape == (len(read), 3, 16, 16)


def test_stills_are_all_read_and_travel_alone(make_clip: MakeClip) -> None:
    held, read = gathered(make_clip(width=16, height=16, length=40), preset="paper", still=True)
    assert read == [list(range(40))]
    assert held.pairs == tuple((n, n) for n in range(40))


def test_a_companion_from_another_shot_is_left_behind(make_clip: MakeClip) -> None:
    clip = make_clip(width=64, height=16, length=12, _SceneChangePrev=0)
    held, _ = gathered(clip, preset="paper")
    assert held.pairs == tuple((n, n + 1 if n < 11 else 10) for n in range(12))
    cut = clip[:5] + clip[5].std.SetFrameProps(_SceneChangePrev=1) + clip[6:]
    held, _ = gathered(cut, preset="paper")
    assert held.pairs == tuple((n, {4: 4, 11: 10}.get(n, n + 1)) for n in range(12))


def test_a_short_shot_is_learned_from(make_clip: MakeClip) -> None:
    clip = make_clip(width=16, height=16, length=300)
    clip = clip[:100] + clip[100].std.SetFrameProps(_SceneChangePrev=1, _SceneChangeNext=1) + clip[101:]
    _, (scored, read) = gathered(clip, alpha=0.0)
    assert (len(scored), len(read)) == (300, 128)
    assert 100 in read


def test_fast_reads_successors_for_its_temporal_loss(make_clip: MakeClip) -> None:
    _, (_, read) = gathered(make_clip(width=16, height=16, length=300))
    assert 128 < len(read) <= 256


def test_overlays_stay_out_of_learning(overlaid: Any) -> None:
    held, _ = gathered(overlaid)
    assert held.traits.overlays is not None
    assert held.pixels.shape == (12, 3, 48, 96)
    assert (held.pixels[:, :, 12:18, 40:46] == 0).all()
    paper, _ = gathered(overlaid, preset="paper")
    assert (paper.traits.overlays, paper.pixels.shape) == (None, (12, 3, 64, 96))


@pytest.mark.parametrize(
    ("format", "dtype", "tolerance"),
    [(vs.RGB24, torch.uint8, 0.5 / 255), (vs.YUV444P10, torch.uint16, 1e-5), (vs.RGBS, torch.uint16, 1e-5)],
)
def test_frames_are_held_in_the_working_encoding_at_the_sources_depth(
    make_clip: MakeClip, format: int, dtype: torch.dtype, tolerance: float
) -> None:
    clip = make_clip(format, length=2)
    held, _ = gathered(clip)
    assert (held.pixels.dtype, held.pixels.shape) == (dtype, (2, 3, 48, 64))
    light, _ = next(clips.read(colour.to_linear(clip, prepare(clip).request.colour), [1]))
    expected = np.clip(light, 0, 1) ** (1 / 2.2)
    assert np.abs(footage.scaled(held.pixels[1]).numpy() - expected).max() <= tolerance + 1e-6


def test_frames_that_would_not_fit_are_held_smaller(make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch) -> None:
    def encoded(clip: Any) -> vs.VideoNode:
        return training_frames.encoded(clip, prepare(clip).request.colour, 6)

    clip = make_clip(width=128, height=96)
    whole = encoded(clip)
    assert (whole.width, whole.height) == (128, 96)
    monkeypatch.setattr(training_frames, "MEMORY_BYTES", 6 * 64 * 48 * 3)
    held = encoded(clip)
    assert (held.width, held.height) == (64, 48)
    deep = encoded(make_clip(vs.RGB48, 128, 96))
    assert deep.width * deep.height * 6 * 3 * 2 <= 6 * 64 * 48 * 3
    assert gathered(clip, alpha=0.0)[0].pixels.shape == (6, 3, 48, 64)
