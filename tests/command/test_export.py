"""The expansion as ONNX: what vs-mlrt computes from it is what Expand computes."""

import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import vapoursynth as vs

from vszhdrv.command import export
from vszhdrv.errors import Refused
from vszhdrv.plugin.colour import Colour
from vszhdrv.shots import Shot
from vszhdrv.zhdrv.config import Config
from vszhdrv.zhdrv.expansion import Expander
from vszhdrv.zhdrv.footage import Traits
from vszhdrv.zhdrv.network import new_network

WIDTH, HEIGHT = 50, 38
"""No multiple of the networks' strides."""


def small(preset: str, *, grey: bool = False, levelled: bool = False, seed: int = 3) -> Expander:
    config = replace(Config.from_preset(preset), widths=(4, 8, 8))
    network = new_network(config.architecture, seed)
    return Expander(network, config, torch.device("cpu"), "fp32", traits=Traits(grey=grey, levelled=levelled))


@pytest.mark.parametrize(
    ("preset", "grey", "levelled"),
    [
        *((preset, grey, False) for preset in ("fast", "paper") for grey in (False, True)),
        ("fast", False, True),
    ],
)
def test_vs_mlrt_computes_what_expand_does(preset: str, grey: bool, levelled: bool, tmp_path: Path) -> None:
    # OpenVINO computes in bf16 where the processor does that natively, unless it is told not to
    exact: dict[str, dict[str, Any]] = {"ov": {"config": lambda: {"INFERENCE_PRECISION_HINT": "f32"}}, "ort": {}}
    backends = [(getattr(vs.core, name), options) for name, options in exact.items() if hasattr(vs.core, name)]
    if not backends:
        pytest.skip("needs vapoursynth-mlrt-ov or vapoursynth-mlrt-ort")
    pytest.importorskip("onnxscript", reason="needs onnxscript")
    expander = small(preset, grey=grey, levelled=levelled)
    export.write_onnx(expander, tmp_path / "network.onnx", width=WIDTH, height=HEIGHT)
    linear = np.random.default_rng(0).random((3, HEIGHT, WIDTH), np.float32) * np.float32(1.2)
    if grey:
        linear[1:] = linear[0]
    blank = vs.core.std.BlankClip(format=vs.RGBS, width=WIDTH, height=HEIGHT, length=1)

    def fill(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        copy = f.copy()
        for plane in range(3):
            np.asarray(copy[plane])[:] = linear[plane]
        return copy

    clip = blank.std.ModifyFrame(blank, fill)
    expected = linear.copy()
    expander.brighten(list(expected))
    for backend, options in backends:
        with backend.Model(clip, str(tmp_path / "network.onnx"), **options).get_frame(0) as frame:
            hdr = np.stack([np.asarray(frame[plane]) for plane in range(3)])
        assert np.allclose(hdr, expected, rtol=1e-3, atol=1e-4)
        if grey:
            assert np.allclose(hdr[1:], hdr[0], rtol=1e-6)
    assert (expected > linear).any()


def test_a_films_script_takes_the_graph_of_each_frames_place(tmp_path: Path) -> None:
    if not hasattr(vs.core, "ort"):
        pytest.skip("needs vapoursynth-mlrt-ort")
    pytest.importorskip("onnxscript", reason="needs onnxscript")
    ramp = np.linspace(0, 1.2, WIDTH, dtype=np.float32) * np.ones((3, HEIGHT, 1), np.float32)

    def fill(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        copy = f.copy()
        for plane in range(3):
            np.asarray(copy[plane])[:] = ramp[plane]
        return copy

    blank = vs.core.std.BlankClip(format=vs.RGBS, width=WIDTH, height=HEIGHT, length=30)
    clip = blank.std.ModifyFrame(blank, fill)
    shots = [Shot(0, 10, 0), Shot(10, 20, 1, range(9, 12)), Shot(20, 30, 0)]
    request = SimpleNamespace(clip=clip, colour=Colour(0, 13, 1, 1, False))
    job: Any = SimpleNamespace(
        request=request, film=lambda: shots, expander_of=lambda place: small("fast", seed=3 + place)
    )
    script = export.write_all(job, tmp_path / "film.onnx", tmp_path / "film.mp4", overwrite=False)
    assert script == tmp_path / "film.vpy"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"film.vpy", "film.place_000.onnx", "film.place_001.onnx"}
    with pytest.raises(Refused, match="--overwrite replaces it"):
        export.write_all(job, tmp_path / "film.onnx", tmp_path / "film.mp4", overwrite=False)
    hdr = runpy.run_path(str(script))["expanded"](clip, vs.core.ort.Model)
    one, other = ramp.copy(), ramp.copy()
    small("fast", seed=3).brighten(list(one))
    small("fast", seed=4).brighten(list(other))
    assert np.abs(one - other).max() > 0.01
    for n, expected in ((3, one), (10, (one + other) / 2), (15, other), (25, one)):
        with hdr.get_frame(n) as frame:
            found = np.stack([np.asarray(frame[plane]) for plane in range(3)])
        assert np.allclose(found, expected, rtol=1e-3, atol=1e-4), n


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(RuntimeError, match=r"^ONNX needs the package onnxscript: uv pip install onnxscript$"):
        export.write_onnx(small("fast"), tmp_path / "network.onnx", width=WIDTH, height=HEIGHT)
    assert not list(tmp_path.iterdir())
