"""The picture of a hall with leaded windows."""

import sys
from pathlib import Path

import make_lattice
import make_scenes
import numpy as np
import pytest

SIZE = (96, 64)


def test_same_seed_same_hall_other_seed_another() -> None:
    first, again, other = (make_lattice.hall(SIZE, seed) for seed in (1, 1, 2))
    assert first.shape == (96, 288, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_windows_lie_at_levels_of_their_own_above_the_wall() -> None:
    """The medians of what is clearly brighter than the wall, window by window."""
    stops = np.log2(make_lattice.hall((448, 256), 1) @ make_scenes.LUMA)
    windows = np.array_split(stops[100:300], make_lattice.WINDOWS, axis=1)
    levels = sorted(np.median(each[each > make_lattice.WALL_STOPS + 2]) - make_lattice.WALL_STOPS for each in windows)
    assert np.diff(levels).min() > 0.1
    assert levels[0] == pytest.approx(3, abs=0.5)
    assert levels[-1] == pytest.approx(6, abs=0.5)


def test_leads_are_thin_and_dark_and_cross_the_panes() -> None:
    opening, lead = make_lattice.window(200, 90)
    assert opening[100:, 5:85].min() == 255
    assert opening[0, 0] == 0
    row = lead[150] > 128
    assert 2 <= np.diff(row.astype(int)).clip(0).sum() <= 8
    assert 0.05 < (lead[100:] > 128).mean() < 0.3


def test_glare_and_blur_keep_the_light() -> None:
    light = np.zeros((401, 401, 3), np.float32)
    light[200, 200] = 100
    spread = make_lattice.through_lens(light)
    assert spread.sum() == pytest.approx(300, rel=0.02)
    assert spread[200, 200, 0] < 50
    assert spread[200, 203, 0] > 0


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "lattice.exr"
    monkeypatch.setattr(sys, "argv", ["make_lattice.py", str(out), "--size", "96x64", "--seed", "3"])
    make_lattice.main()
    assert make_scenes.read_exr(out) == pytest.approx(make_lattice.hall(SIZE, 3), rel=2e-3, abs=1e-3)
