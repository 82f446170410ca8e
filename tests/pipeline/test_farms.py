"""The recipes of docs/farms.md and examples/farm/: one machine's processes, and a render farm's tasks."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vszhdrv import exr, stills

ROOT = Path(__file__).parents[2]
FARM = ROOT / "examples" / "farm"
LENGTH = 5
LIMIT = 240.0
needs_openjd = pytest.mark.skipif(find_spec("openjd") is None, reason="needs openjd-cli")
FEW = ["--epochs", "1", "--device", "cpu"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the clip `shot`, and our own programs before all others."""
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "shot").mkdir()
    for n in range(LENGTH):
        ramp = np.clip((np.arange(48) + 3 * n) % 48 / 48 * 1.33 * 255, 0, 255).astype(np.uint8)
        Image.fromarray(ramp[None].repeat(32, axis=0)).convert("RGB").save(tmp_path / "shot" / f"{n}.png")
    return tmp_path


def run(folder: Path, *command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, cwd=folder, env=own)


def assert_whole(runs: Path, expected: list[np.ndarray] | None = None) -> list[np.ndarray]:
    """One run folder with all that belongs there and nothing else; its frames."""
    (only,) = runs.iterdir()
    assert {path.name for path in only.iterdir()} == {
        "ckpt", "frames.csv", "logs.csv", "params.csv", "preview.png", "recs", "report.html", "shot_exr",
    } | ({"preview.jpg"} if stills.available() else set())  # fmt: skip
    files = sorted((only / "shot_exr").iterdir())
    assert [path.name for path in files] == [f"shot.{n:06d}.exr" for n in range(LENGTH)]
    frames = [exr.read(path) for path in files]
    for frame, other in zip(frames, expected or frames, strict=True):
        assert np.array_equal(frame, other)
    return frames


def test_several_processes_of_one_machine(folder: Path) -> None:
    done = run(folder, FARM / "local.sh", "shot", str(LENGTH - 1), *FEW, JOBS="2", CHUNK="2")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("zhdrv: training takes about") == 1
    assert sorted(re.findall(r"expanding \d of (\d)", done.stderr)) == ["1", "2", "2"]
    assert f"zhdrv: {LENGTH} of {LENGTH} frames are there already and stay" in done.stderr
    frames = assert_whole(folder / "runs")

    shutil.rmtree(folder / "runs")
    whole = run(folder, "zhdrv", "shot", *FEW)
    assert whole.returncode == 0, whole.stderr
    assert_whole(folder / "runs", frames)


def template() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml", reason="needs PyYAML, which openjd-cli brings")
    loaded: dict[str, Any] = yaml.safe_load((FARM / "openjd.yaml").read_text())
    return loaded


@needs_openjd
def test_the_openjd_template_is_valid(folder: Path) -> None:
    checked = run(folder, "openjd", "check", FARM / "openjd.yaml")
    assert checked.returncode == 0, checked.stdout


@pytest.mark.slow
@needs_openjd
def test_the_openjd_template_does_the_whole_job(folder: Path) -> None:
    short = template()
    for step in short["steps"]:
        step["script"]["actions"]["onRun"]["args"] += FEW
    (folder / "job.yaml").write_text(json.dumps(short))
    parameters = {"Input": folder / "shot", "Frames": f"0-{LENGTH - 1}", "Runs": folder / "runs", "ChunkSize": 2}
    given = [word for name, value in parameters.items() for word in ("-p", f"{name}={value}")]
    done = run(folder, "openjd", "run", "job.yaml", "--step", "Finish", "--run-dependencies", *given)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("zhdrv: training takes about") == 1
    assert_whole(folder / "runs")


def test_the_steps_of_the_openjd_template_meet_in_one_run_folder() -> None:
    arguments = [step["script"]["actions"]["onRun"]["args"] for step in template()["steps"]]
    ranges = {"--frames", "{{Task.Param.Frame}}", "--already_trained"}
    assert [words[0] for words in arguments] == ["train", "expand", "expand"]
    assert len({tuple(word for word in words[1:] if word not in ranges) for words in arguments}) == 1


@pytest.mark.skipif(shutil.which("parallel") is None, reason="needs GNU parallel")
def test_gnu_parallel_gives_every_slot_a_card(folder: Path) -> None:
    page = (ROOT / "docs" / "farms.md").read_text()
    (line,) = re.findall(r"^    (seq .+ parallel .+)$", page, re.MULTILINE)
    fake = folder / "bin" / "zhdrv"  # says what it is asked for
    fake.parent.mkdir()
    fake.write_text(
        f"#!{sys.executable}\nimport json, sys, time\nprint(json.dumps(sys.argv[1:]), flush=True)\ntime.sleep(0.2)\n"
    )
    fake.chmod(0o755)
    path = os.pathsep.join([str(fake.parent), os.environ["PATH"]])
    done = run(folder, "bash", "-c", line.replace("14399", "799"), PATH=path, HOME=str(folder))
    assert done.returncode == 0, done.stderr
    asked = [json.loads(words) for words in done.stdout.splitlines()]
    assert {tuple(words[:4]) for words in asked} == {("expand", "clip.mp4", "--already_trained", "--frames")}
    assert sorted(words[4] for words in asked) == sorted(f"{first}-{first + 99}" for first in range(0, 800, 100))
    assert {words[6] for words in asked} == {f"cuda:{card}" for card in range(4)}
