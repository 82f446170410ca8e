"""The core and the filter on a card: what they compute there is what they compute on the processor.

No card need be here: it is one that far_device.py pretends, in a process of its own, which runs this file
as a script.
"""

import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import vapoursynth as vs

from vszhdrv.zhdrv import choosing, hardware
from vszhdrv.zhdrv.config import PRESETS, Config
from vszhdrv.zhdrv.expansion import Expander, show
from vszhdrv.zhdrv.footage import TrainingFrames, Traits
from vszhdrv.zhdrv.network import new_network
from vszhdrv.zhdrv.training import Progress, Weights, train

PAPER = replace(Config.from_preset("paper", epochs=1), widths=(4, 8, 8), crop=32)
FAST = replace(Config.from_preset("fast", epochs=2), widths=(4, 8, 8), crop=32, steps_per_epoch=3, second_round=0.5)
CONFIGS = (PAPER, FAST, replace(FAST, fold=4))
CPU = torch.device("cpu")


def frames_of(codes: np.ndarray) -> TrainingFrames:
    pixels = torch.from_numpy(codes)
    return TrainingFrames(pixels, choosing.with_successors(range(len(pixels)), len(pixels))[1])


def trains(far: torch.device, codes: np.ndarray) -> None:
    frames = frames_of(codes)
    deep, compressed = (
        replace(frames, pixels=frames.pixels.to(torch.uint16) * 257),
        replace(frames, traits=Traits(compressed=True)),
    )
    for config, training_frames in (*((config, frames) for config in CONFIGS), (FAST, deep), (FAST, compressed)):
        there, here = (last(train(training_frames, config, device, "fp32")) for device in (far, CPU))
        same(there.best, here.best)


def trains_in_little_memory(far: torch.device, codes: np.ndarray) -> None:
    import far_device

    here = last(train(frames_of(codes), FAST, CPU, "fp32"))
    far_device.MEMORY, before = codes.nbytes, far_device.MEMORY  # the frames stay where they are, crops are sent
    same(last(train(frames_of(codes), FAST, far, "fp32")).best, here.best)
    far_device.MEMORY = before


def goes_on(far: torch.device, codes: np.ndarray) -> None:
    frames = frames_of(codes)
    for config, steps in ((FAST, 2), (FAST, 4), (PAPER, 3)):  # in either round
        whole = last(train(frames, config, CPU, "fp32"))
        for begun, ended in ((far, far), (far, CPU), (CPU, far)):
            state = next(
                progress.state() for progress in train(frames, config, begun, "fp32") if progress.step == steps
            )
            same(last(train(frames, config, ended, "fp32", state)).best, whole.best)


def same(weights: Weights, expected: Weights) -> None:
    for name, weight in weights.items():
        assert weight.device == CPU
        torch.testing.assert_close(weight, expected[name], atol=1e-5, rtol=0)


def last(steps: Iterator[Progress]) -> Progress:
    (progress,) = deque(steps, maxlen=1)
    return progress


def brightened(expander: Expander, linear: np.ndarray) -> np.ndarray:
    hdr = linear.copy()
    expander.brighten(list(hdr))
    return hdr


def expands(far: torch.device, codes: np.ndarray) -> None:
    linear = (codes[0] / 255.0).astype(np.float32) ** 2.2
    for config in CONFIGS:
        for tile in (None, (64, 64)):
            there, here = (
                Expander(new_network(config.architecture, seed=0), config, device, "fp32", tile)
                for device in (far, CPU)
            )
            expected = brightened(here, linear)
            assert expected.max() > 1
            np.testing.assert_allclose(brightened(there, linear), expected, atol=1e-5)
    pictures, expected_pictures = (show(each, torch.from_numpy(codes[0] / np.float32(255))) for each in (there, here))
    for name, picture in pictures.items():
        assert abs(picture.astype(int) - expected_pictures[name]).max() <= 1, name


def filters(far: torch.device, codes: np.ndarray) -> None:
    import far_device

    def draw(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        f = f.copy()
        for plane, values in enumerate(codes[n]):
            np.asarray(f[plane])[:] = values
        return f

    blank = vs.core.std.BlankClip(format=vs.RGB24, width=codes.shape[3], height=codes.shape[2], length=len(codes))
    clip = blank.std.ModifyFrame(blank, draw).std.SetFrameProps(_Matrix=0, _Transfer=13, _Primaries=1)
    PRESETS["fast"] |= {"steps_per_epoch": 5}
    far_device.counts.clear()
    far_device.pinned.clear()
    vs.core.zhdrv.Train(clip, epochs=1)
    assert far_device.counts["aten.convolution_backward.default"]
    there = vs.core.zhdrv.Expand(clip, epochs=1, num_streams=2)
    frames = [np.stack([np.asarray(plane) for plane in frame]) for frame in there.frames(close=True)]
    assert len(far_device.pinned) == len(codes)
    far_device.counts.clear()
    # The same network, from the cache; some processors would choose bf16.
    here = vs.core.zhdrv.Expand(clip, epochs=1, device="cpu", precision="fp32")
    for frame, expected in zip(frames, here.frames(close=True), strict=True):
        np.testing.assert_allclose(frame, np.stack([np.asarray(plane) for plane in expected]), atol=1e-5)
    assert not far_device.counts and max(frame.max() for frame in frames) > 1
    assert far_device.emptied == [True]  # after the training
    vs.core.zhdrv.Expand(clip.std.Levels(max_out=200), weights=vs.core.zhdrv.Train(clip, epochs=1)).get_frame(0)
    assert not far_device.counts["aten.convolution.default"]  # nothing clips: nothing is sent


def is_found(far: torch.device, codes: np.ndarray) -> None:
    assert hardware.devices() == [str(far), "cpu"]
    assert hardware.choose_device("auto") == hardware.choose_device("far") == far
    assert hardware.default_streams(far, 2**20) == hardware.CARD_STREAMS
    for mixed in (lambda: torch.ones(2, device=far) + torch.ones(2), lambda: torch.ones(2).to(far, torch.float64)):
        with pytest.raises((RuntimeError, TypeError)):  # or the others would pass whatever the code does
            mixed()


def test_what_a_card_computes_is_what_the_processor_computes(lamps: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "lamps.npy", lamps)
    command = [sys.executable, __file__, str(tmp_path / "lamps.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    import far_device

    torch.set_num_threads(1)
    far_device.install()
    for check in (is_found, trains, trains_in_little_memory, goes_on, expands, filters):
        check(far_device.FAR, np.load(sys.argv[1]))
