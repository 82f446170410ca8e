"""Clips that say nothing of fields: woven ones are found, textures, noise and stills are not."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
import vapoursynth as vs

import vszhdrv
from vszhdrv.errors import Refused
from vszhdrv.plugin import fields
from vszhdrv.plugin.fields import check_fields, positions
from vszhdrv.plugin.job import read_now


def clip_of(pictures: list[np.ndarray], form: int = vs.GRAY8) -> vs.VideoNode:
    """A clip of (H,W) pictures in [0, 1], without _FieldBased."""
    height, width = pictures[0].shape
    base = vs.core.std.BlankClip(format=form, width=width, height=height, length=len(pictures))

    def fill(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        frame = f.copy()
        peak = 1 if f.format.sample_type == vs.FLOAT else (1 << f.format.bits_per_sample) - 1
        for plane in range(f.format.num_planes):
            np.asarray(frame[plane])[:] = pictures[n] * peak
        return frame

    return base.std.ModifyFrame(base, fill).std.RemoveFrameProps("_FieldBased")


def moving(length: int, step: float = 3.0) -> list[np.ndarray]:
    """Discs that move to the right by so many pixels a picture."""
    y, x = np.mgrid[0:96, 0:160].astype(float)
    centres = np.random.default_rng(3).uniform((0, 0), (96, 160), (12, 2))
    found = []
    for n in range(length):
        picture = np.full(x.shape, 0.2)
        for number, (top, left) in enumerate(centres):
            inside = np.hypot(y - top, (x - left - step * n + 20) % 160 - 20) < 10 + number
            picture[inside] = 0.3 + 0.05 * number
        found.append(picture)
    return found


def woven(pictures: list[np.ndarray]) -> list[np.ndarray]:
    """Each two successive pictures as the two fields of one."""
    found = []
    for first, second in zip(pictures[::2], pictures[1::2], strict=True):
        both = first.copy()
        both[1::2] = second[1::2]
        found.append(both)
    return found


@pytest.mark.parametrize("form", [vs.GRAY8, vs.GRAY16, vs.RGB24, vs.RGBS])
def test_woven_fields_are_found(form: int) -> None:
    assert looks_interlaced(clip_of(woven(moving(32)), form))
    assert not looks_interlaced(clip_of(moving(16), form))


def look[T](readings: Generator[fields.Reading, None, T]) -> T:
    """Carry the readings out; their value."""
    events = read_now(readings)
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value


def looks_interlaced(clip: vs.VideoNode) -> bool:
    return look(fields.looks_interlaced(clip))


def test_noise_texture_and_stills_are_not() -> None:
    rng = np.random.default_rng(4)
    assert not looks_interlaced(clip_of([rng.random((96, 160)) for _ in range(12)]))
    texture = rng.random((96, 400))
    assert not looks_interlaced(clip_of([texture[:, 3 * n : 3 * n + 160] for n in range(12)]))
    assert not looks_interlaced(clip_of([texture[:, :160]] * 12))
    assert not looks_interlaced(clip_of([texture[:, :160]]))


def test_a_clip_that_looks_interlaced_is_refused_where_it_says_nothing_of_it() -> None:
    clip = clip_of(woven(moving(32)))
    with pytest.raises(Refused, match=r"edges are combed, while it has no _FieldBased.*std\.SetFieldBased\(0\)"):
        look(check_fields(clip))
    look(check_fields(clip.std.SetFieldBased(0)))


def test_it_is_looked_at_when_a_network_is_trained_and_not_before(own_cache: Path) -> None:
    """With when="frame" the call itself costs no frames; and a network that is found costs none either."""
    asked: list[int] = []
    clip = clip_of(woven(moving(32)))
    counted = clip.std.FrameEval(lambda n: asked.append(n) or clip)
    options = {"preset": "draft", "epochs": 1, "device": "cpu", "transfer_in": "709", "shots": "off"}
    expanded = vszhdrv.expand(counted, when="frame", **options)
    assert set(asked) == {0}
    with pytest.raises(vs.Error, match="edges are combed"):
        expanded.get_frame(0)
    with pytest.raises(Refused, match="edges are combed"):
        vszhdrv.expand(clip, **options)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 500])
def test_few_frames_are_looked_at(length: int) -> None:
    runs = positions(length)
    assert sum(map(len, runs)) <= 12
    assert runs[0][0] == 0 and runs[-1][-1] == length - 1


def test_the_clips_at_hand_are_progressive() -> None:
    """By their pictures alone."""
    repository = Path(__file__).parents[2]
    for path in (repository / "examples" / "room.mp4", repository.parent / "shared" / "clips" / "windows.mp4"):
        if path.exists():
            clip = vs.core.bs.VideoSource(str(path), cachemode=0).std.RemoveFrameProps("_FieldBased")
            assert not looks_interlaced(clip)
