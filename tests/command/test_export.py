"""The expansion as ONNX: what vs-mlrt computes from it is what Expand computes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import vapoursynth as vs

from vszhdrv.command import export
from vszhdrv.zhdrv.config import Config
from vszhdrv.zhdrv.expansion import Expander
from vszhdrv.zhdrv.footage import Traits
from vszhdrv.zhdrv.network import new_network

WIDTH, HEIGHT = 50, 38
"""No multiple of the networks' strides."""


def small(preset: str, *, grey: bool = False) -> Expander:
    config = replace(Config.from_preset(preset), widths=(4, 8, 8))
    network = new_network(config.architecture, 3)
    return Expander(network, config, torch.device("cpu"), "fp32", traits=Traits(grey=grey))


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_vs_mlrt_computes_what_expand_does(preset: str, grey: bool, tmp_path: Path) -> None:
    # OpenVINO computes in bf16 where the processor does that natively, unless it is told not to
    exact: dict[str, dict[str, Any]] = {"ov": {"config": lambda: {"INFERENCE_PRECISION_HINT": "f32"}}, "ort": {}}
    backends = [(getattr(vs.core, name), options) for name, options in exact.items() if hasattr(vs.core, name)]
    if not backends:
        pytest.skip("needs vapoursynth-mlrt-ov or vapoursynth-mlrt-ort")
    pytest.importorskip("onnxscript", reason="needs onnxscript")
    expander = small(preset, grey=grey)
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


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(RuntimeError, match=r"^ONNX needs the package onnxscript: uv pip install onnxscript$"):
        export.write_onnx(small("fast"), tmp_path / "network.onnx", width=WIDTH, height=HEIGHT)
    assert not list(tmp_path.iterdir())
