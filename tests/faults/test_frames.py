"""Frames that no camera makes: numbers without end, and properties that are no numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vapoursynth as vs

import vszhdrv
from vszhdrv.plugin import colour
from vszhdrv.store import weight_files
from vszhdrv.zhdrv.config import Config
from vszhdrv.zhdrv.network import new_network

WIDTH, HEIGHT, LENGTH = 96, 64, 8


@pytest.fixture
def weights(tmp_path: Path) -> str:
    import json

    architecture = Config.from_preset("fast").for_size(WIDTH, HEIGHT).architecture
    path = tmp_path / "net.safetensors"
    tensors = {name: tensor.detach() for name, tensor in new_network(architecture, 0).state_dict().items()}
    weight_files.write_weights(path, tensors, {"network": json.dumps(architecture.as_json())})
    return str(path)


def strange(linear: bool) -> vs.VideoNode:
    """RGBS with infinities, huge numbers and NaN in a frame that is otherwise white and grey."""
    clip = vs.core.std.BlankClip(format=vs.RGBS, width=WIDTH, height=HEIGHT, length=LENGTH, color=[1.0, 0.5, 1.0])

    def fill(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        frame = f.copy()
        for plane in range(3):
            np.asarray(frame[plane])[3:8, 5:50:9] = (np.inf, 1e30, np.nan, -np.inf, -1e30)[n % 5]
        return frame

    filled = clip.std.ModifyFrame(clip, fill)
    return filled.std.SetFrameProps(_Transfer=8) if linear else filled


@pytest.mark.parametrize("linear", [False, True])
def test_numbers_without_end_give_finite_frames_and_levels(linear: bool, weights: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"weights": weights, "cache": "", "device": "cpu"}
    clip = strange(linear)
    made: list[Callable[[], vs.VideoNode]] = [
        lambda: vszhdrv.expand(clip, **options),
        lambda: vszhdrv.expand(clip, peak=1000.0, **options),
        lambda: vszhdrv.expand(clip, strength=0.3, **options),
        lambda: vszhdrv.mask(clip, **options),
    ]
    for make in made:
        hdr = make()
        for n in range(5):
            with hdr.get_frame(n) as frame:
                planes = [np.asarray(frame[plane]) for plane in range(frame.format.num_planes)]
                assert all(np.isfinite(plane).all() for plane in planes), (n, make)
                levels = [*np.atleast_1d(frame.props.get("PLSceneMax", 0)), frame.props.get("PLSceneAvg", 0)]
                assert np.isfinite(levels).all() and max(levels) <= 1000.5


def test_numbers_without_end_are_told_once(weights: str) -> None:
    told: list[str] = []
    handle = vs.core.add_log_handler(lambda _kind, text: told.append(text))
    colour._warn_once.cache_clear()
    try:
        hdr = vszhdrv.expand(strange(True), weights=weights, cache="", device="cpu")
        for n in range(4):
            hdr.get_frame(n).close()
    finally:
        vs.core.remove_log_handler(handle)
    assert sum("no numbers or beyond 65504" in text for text in told) == 1


@pytest.mark.parametrize(
    ("props", "name"),
    [({"_Transfer": "x"}, "_Transfer"), ({"_FieldBased": [0, 1]}, "_FieldBased"), ({"_Matrix": 1.5}, "_Matrix")],
)
def test_a_property_of_a_wrong_type_is_one_sentence_with_the_frames_number(
    props: dict[str, Any], name: str, weights: str
) -> None:
    good = vs.core.std.BlankClip(format=vs.RGB24, width=WIDTH, height=HEIGHT, length=LENGTH)
    bad = good[:5] + good[5].std.SetFrameProps(**props) + good[6:]
    for make in (vszhdrv.expand, vszhdrv.mask):
        hdr = make(bad, weights=weights, cache="", device="cpu")
        hdr.get_frame(4).close()
        with pytest.raises(vs.Error) as caught:
            hdr.get_frame(5)
        text = str(caught.value)
        assert "Traceback" not in text and f"frame 5: the clip's frame property {name} must be one whole number" in text
    with pytest.raises(vszhdrv.Refused, match=name):
        vszhdrv.expand(bad[5:], weights=weights, cache="", device="cpu")
