"""The fit behind the estimate of what no frame shows."""

import sys
from pathlib import Path

import fit_estimate
import make_scenes
import numpy as np
import pytest
from make_scenes import Still


def scene(folder: Path, name: str, lamp: float) -> Path:
    """A wall with lamps of one strength; returns the folder of scenes."""
    y, x = np.mgrid[0:96, 0:192].astype(np.float32)
    light = 0.2 + lamp * np.exp2(-(((x % 32 - 16) / 4) ** 2) - ((y % 32 - 16) / 4) ** 2)
    make_scenes.write_exr(folder / f"{name}.exr", np.stack([light, 0.9 * light, 0.8 * light], -1))
    make_scenes.render(Still(name, folder / f"{name}.exr", wrap=True), folder / "scenes", frames=3, size=(96, 64))
    return folder / "scenes"


def test_planted_numbers_are_found() -> None:
    rng = np.random.default_rng(0)
    pictures = []
    for count in (50, 500):
        known = np.stack([np.ones(count), rng.uniform(0, 3, count), rng.integers(1, 4, count)], 1)
        pictures.append(np.c_[known, known @ (-0.5, 1.5, 0.25)])
    assert fit_estimate.fit(pictures, 3) == pytest.approx([-0.5, 1.5, 0.25])
    assert fit_estimate.fit(pictures, 1) == pytest.approx(np.mean([picture[:, 3].mean() for picture in pictures]))


def test_each_picture_is_judged_by_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scene(tmp_path, "dim", 6.0)
    monkeypatch.setattr(sys, "argv", ["fit_estimate.py", str(scene(tmp_path, "strong", 40.0))])
    capsys.readouterr()
    fit_estimate.main()
    head, _, *table = capsys.readouterr().out.splitlines()
    assert head.startswith("ESTIMATE_STOPS ")
    rows = {cells[1].strip(): cells[2:-1] for cells in (line.split("|") for line in table[2:])}
    assert list(rows) == ["dim", "strong", "mean"]
    assert float(rows["strong"][0]) > float(rows["dim"][0]) > 0


def test_one_picture_is_too_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["fit_estimate.py", str(scene(tmp_path, "strong", 40.0))])
    with pytest.raises(SystemExit, match="SCENES must have two pictures or more in which something clips, not 1"):
        fit_estimate.main()
