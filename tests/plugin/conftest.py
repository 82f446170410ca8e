"""Clips to learn from and a network that has learned, shared by the tests of the plugin's functions."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import vapoursynth as vs

MakeClip = Callable[..., Any]


def moving(
    format: int = vs.RGB24, width: int = 64, height: int = 48, length: int = 6, gain: float = 1.4, **props: Any
) -> Any:
    """A ramp that moves, coloured by a gradient downwards; its bright end clips if `gain` is over 1."""

    def shade(n: int, f: Any) -> Any:
        f = f.copy()
        x = (np.arange(f.width) + 3 * n) % f.width / f.width * gain
        tint = np.linspace(1.0, 0.6, f.height)[:, None]
        for plane, weight in enumerate((1.0, 0.95, 0.9)):
            np.asarray(f[plane])[:] = np.clip(x * tint**plane * weight, 0, 1)
        return f

    blank = vs.core.std.BlankClip(format=vs.RGBS, width=width, height=height, length=length, fpsnum=30000, fpsden=1001)
    shaded = blank.std.ModifyFrame(blank, shade).std.SetFrameProps(_Matrix=0, _Transfer=1, _Primaries=1)
    family = vs.core.get_video_format(format).color_family
    return shaded.resize.Bicubic(format=format, matrix=0 if family == vs.RGB else 1).std.SetFrameProps(**props)


@pytest.fixture
def make_clip() -> MakeClip:
    return moving


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """Pictures this small compute fastest in one thread, all the more where tests share the processor."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A weights file that core.zhdrv.Train wrote, with the fast preset, for small frames."""
    path = tmp_path_factory.mktemp("network") / "fast.safetensors"
    assert vs.core.zhdrv.Train(moving(), epochs=1, device="cpu", cache="", path=str(path)) == str(path)
    return path


@pytest.fixture
def overlaid() -> Any:
    """A texture that moves between black bars, with a white square that keeps its place in the picture."""
    texture = np.random.default_rng(0).random((8, 16)).repeat(8, 0).repeat(6, 1)

    def draw(n: int, f: Any) -> Any:
        f = f.copy()
        for plane in range(3):
            pixels = np.asarray(f[plane])
            pixels[:] = (np.roll(texture, 5 * n, 1) * 300).clip(0, 255)
            pixels[:8] = pixels[-8:] = 0
            pixels[20:26, 40:46] = 255
        return f

    blank = vs.core.std.BlankClip(format=vs.RGB24, width=96, height=64, length=12)
    return blank.std.ModifyFrame(blank, draw).std.SetFrameProps(_Matrix=0, _Transfer=13, _Primaries=1)


def scene(seed: int) -> np.ndarray:
    """A picture with corners, two hundred pixels wide and more."""
    rng = np.random.default_rng(seed)
    picture = np.full((96, 400), 90, np.uint8)
    for _ in range(80):
        x, y = int(rng.integers(400)), int(rng.integers(96))
        cv2.rectangle(picture, (x, y), (x + int(rng.integers(8, 40)), y + 20), int(rng.integers(20, 250)), -1)
    return cv2.GaussianBlur(picture, (0, 0), 1.0)


def film_of(*seeds: int, frames: int = 16) -> Any:
    """A clip of shots, each a camera that moves over a picture; equal seeds show one place."""
    pictures = {seed: scene(seed) for seed in seeds}

    def draw(n: int, f: Any) -> Any:
        f = f.copy()
        picture = pictures[seeds[n // frames]]
        for plane in range(3):
            np.asarray(f[plane])[:] = picture[:, n % frames * 2 :][:, :160]
        return f

    blank = vs.core.std.BlankClip(format=vs.RGB24, width=160, height=96, length=frames * len(seeds))
    return blank.std.ModifyFrame(blank, draw).std.SetFrameProps(_Matrix=0, _Transfer=13, _Primaries=1)


@pytest.fixture
def make_film() -> MakeClip:
    return film_of
