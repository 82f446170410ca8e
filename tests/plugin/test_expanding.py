"""A trained network at work on requested frames: who computes, and in what portions."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import vapoursynth as vs

from vszhdrv.plugin import clips
from vszhdrv.plugin.expanding import Computing
from vszhdrv.zhdrv.expansion import Expander

pytestmark = pytest.mark.usefixtures("one_thread")

MakeClip = Callable[..., Any]


def pixels(clip: Any, n: int = 0) -> np.ndarray:
    return next(clips.read(clip, [n]))[0]


def test_a_stream_has_its_share_of_the_threads(
    make_clip: MakeClip, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    loaded: list[Expander] = []
    create, expand = Expander.__init__, Expander.brighten

    def counted(self: Expander, *arguments: Any, **options: Any) -> None:
        loaded.append(self)
        create(self, *arguments, **options)

    def looked_at(self: Expander, planes: Any) -> None:
        seen.append((threading.get_ident(), torch.get_num_threads()))
        expand(self, planes)

    monkeypatch.setattr(Expander, "__init__", counted)
    monkeypatch.setattr(Expander, "brighten", looked_at)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        for count, share in ((2, 2), (1, 4), (3, 1), (6, 1)):
            seen.clear()
            loaded.clear()
            clip = vs.core.zhdrv.Expand(make_clip(), device="cpu", weights=str(network), num_streams=count)
            for request in [clip.get_frame_async(n) for n in range(6)]:
                request.result().close()
            assert {threads for _, threads in seen} == {share}
            assert threading.get_ident() not in {thread for thread, _ in seen}
            assert len(loaded) == 1
            assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_what_tells_files_apart() -> None:
    usual = Computing().traces
    assert Computing("cpu", num_streams=3).traces == Computing(tile=[64, 64]).traces == usual
    others = [Computing(precision_name="fp32"), Computing(tile_pad=0), Computing(tile=[64, 64], tile_pad=0)]
    others.append(Computing(graphics="off"))
    assert len({str(traces) for traces in (usual, *(each.traces for each in others))}) == 5


def test_tile_pad_reaches_the_expander(make_clip: MakeClip, network: Path) -> None:
    def expanded(**arguments: Any) -> np.ndarray:
        options = dict(device="cpu", weights=str(network), precision="fp32", tile=[64, 64])
        return pixels(vs.core.zhdrv.Expand(make_clip(width=260, height=200), **options, **arguments))

    seamless, seams = expanded(), expanded(tile_pad=0)
    assert np.allclose(seamless, expanded(tile_pad=1000), rtol=1e-4)
    assert not np.allclose(seamless, seams, rtol=1e-4)
