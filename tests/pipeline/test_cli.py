"""The command line as a person runs it: real processes, real training, real files."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
from PIL import Image

from vszhdrv import exr

WIDTH, HEIGHT, LENGTH = 72, 48, 8
LIMIT = 120.0

pytestmark = pytest.mark.usefixtures("one_thread")

Zhdrv = Callable[..., "subprocess.CompletedProcess[str]"]


def frame(n: int) -> np.ndarray:
    """A ramp that moves, its brightest quarter clipped, as (H,W) codes."""
    x = (np.arange(WIDTH) + 3 * n) % WIDTH / WIDTH
    return np.clip(np.rint(x * 1.33 * 255), 0, 255).astype(np.uint8)[None].repeat(HEIGHT, axis=0)


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures this small train fastest in one thread, all the more where tests share the processor."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "shot"
    folder.mkdir()
    for n in range(LENGTH):
        Image.fromarray(frame(n)).convert("RGB").save(folder / f"{n}.png")
    return folder


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A YUV4MPEG2 file: a real video file that needs no encoder."""
    folder = tmp_path / "media"
    folder.mkdir()
    chroma = bytes([128]) * (WIDTH * HEIGHT // 2)
    limited = [np.rint(16 + frame(n) * (219 / 255)).astype(np.uint8).tobytes() for n in range(LENGTH)]
    stream = b"".join(b"FRAME\n" + luma + chroma for luma in limited)
    (folder / "shot.y4m").write_bytes(b"YUV4MPEG2 W%d H%d F25:1 Ip A1:1 C420\n" % (WIDTH, HEIGHT) + stream)
    return folder / "shot.y4m"


@pytest.fixture
def zhdrv(tmp_path: Path) -> Zhdrv:
    """Runs the command line in a process of its own."""

    def run(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vszhdrv", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, cwd=tmp_path, input=stdin)

    return run


def only_run(folder: Path) -> Path:
    (run,) = (folder / "runs").iterdir()
    return run


def whole_tables(run: Path) -> tuple[list[dict[str, str]], dict[str, str]]:
    with (run / "logs.csv").open() as log, (run / "params.csv").open() as params:
        return list(csv.DictReader(log)), {row["name"]: row["value"] for row in csv.DictReader(params)}


def test_pictures_to_a_whole_run_folder_and_once_more(tmp_path: Path, pictures: Path, zhdrv: Zhdrv) -> None:
    command = (pictures, "--epochs", "1", "--device", "cpu", "--fps", "30000/1001")
    first = zhdrv(*command)
    assert first.returncode == 0, first.stderr
    assert first.stdout == ""
    assert "zhdrv: training takes about" in first.stderr

    run = only_run(tmp_path)
    rows, params = whole_tables(run)
    assert [row["epoch"] for row in rows] == ["1"]
    assert params["epochs"] == "1" and params["preset"] == "fast"
    assert {p.name for p in (run / "ckpt").iterdir()} == {"best.safetensors", "last.safetensors"}
    assert {p.stem for p in (run / "recs").iterdir()} == {"source", "m4", "m2", "p2", "p4", "delta"}
    assert Image.open(run / "preview.png").width > 3 * WIDTH
    files = sorted((run / "shot_exr").iterdir())
    assert [p.name for p in files] == [f"shot.{n:06d}.exr" for n in range(LENGTH)]
    with OpenEXR.File(str(files[0])) as file:
        header = file.header()
        assert {"chromaticities", "framesPerSecond", "whiteLuminance", "timeCode"} <= header.keys()
    source = np.where((x := frame(0) / 255) <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    hdr = exr.read(files[0])
    assert hdr.shape == (HEIGHT, WIDTH, 3)
    assert (hdr >= source[..., None] - 2e-3).all()
    assert not [p for p in tmp_path.rglob("*") if p.name.endswith((".tmp", "-part"))]

    written = {p: p.stat().st_mtime_ns for p in files}
    files[3].write_bytes(files[3].read_bytes()[:200])
    second = zhdrv(*command)
    assert second.returncode == 0, second.stderr
    assert f"zhdrv: {LENGTH - 1} of {LENGTH} frames are there already" in second.stderr
    assert "training" not in second.stderr
    assert [p for p in files if p.stat().st_mtime_ns != written[p]] == [files[3]]
    assert whole_tables(run) == (rows, params)


def test_video_store_and_already_trained(tmp_path: Path, video: Path, zhdrv: Zhdrv) -> None:
    command = (video, "--epochs", "1", "--device", "cpu")
    missing = zhdrv(*command, "--already_trained")
    assert missing.returncode == 1 and missing.stderr.splitlines()[-1].startswith(
        "zhdrv: --already_trained: there is no"
    )
    assert not (tmp_path / "runs").exists()

    trained = zhdrv(*command, "--train_only")
    assert trained.returncode == 0, trained.stderr
    run = only_run(tmp_path)
    assert (run / "ckpt" / "best.safetensors").exists() and not (run / "shot_exr").exists()
    assert list(video.parent.iterdir()) == [video]

    listed = zhdrv("cache", "list")
    assert listed.returncode == 0 and len(listed.stdout.splitlines()) == 1
    key = listed.stdout.split()[0]
    assert whole_tables(run)[1]["key"] == key
    assert f"key: {key}" in zhdrv("cache", "show", key[:6]).stdout
    assert "nothing removed" in zhdrv("cache", "clear").stderr

    from_store = zhdrv(*command, "--already-trained", "--runs", "elsewhere")
    assert from_store.returncode == 0, from_store.stderr
    assert len(list((tmp_path / "elsewhere").rglob("*.exr"))) == LENGTH

    assert zhdrv("cache", "clear", "--yes").returncode == 0
    assert zhdrv("cache", "list").stdout == ""
    from_folder = zhdrv(*command, "--already_trained")
    assert from_folder.returncode == 0, from_folder.stderr
    files = [sorted(folder.rglob("*.exr")) for folder in (tmp_path / "elsewhere", run)]
    for one, other in zip(*files, strict=True):
        assert np.array_equal(exr.read(one), exr.read(other))
    assert len(whole_tables(run)[0]) == 1


def test_one_picture(tmp_path: Path, pictures: Path, zhdrv: Zhdrv) -> None:
    done = zhdrv(pictures / "0.png", "--data_type", "image", "--epochs", "1", "--float", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    (file,) = only_run(tmp_path).rglob("*.exr")
    assert file.name == "0.000000.exr"
    with OpenEXR.File(str(file)) as read:
        assert read.channels()["RGB"].pixels.dtype == np.float32


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["broken.mp4"], 1, "broken.mp4"),
        (["none.mp4"], 2, "INPUT none.mp4 does not exist"),
        (["shot/0.png"], 2, "needs --data_type image"),
        (["shot", "--device", "cuda:99"], 2, "cuda:99"),
        (["shot", "--transfer_in", "nonsense"], 2, "nonsense"),
        (["shot", "--epochs", "-1"], 2, "epochs"),
    ],
)
def test_errors_are_one_sentence(
    tmp_path: Path, pictures: Path, zhdrv: Zhdrv, arguments: list[str], code: int, words: str
) -> None:
    (tmp_path / "broken.mp4").write_text("no video")
    done = zhdrv(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("zhdrv: ") and done.stderr.count("\n") == 1
    assert words in done.stderr
    assert not (tmp_path / "runs").exists()


def test_ctrl_c_during_training_ends_soon_and_the_next_run_goes_on(
    tmp_path: Path, own_cache: Path, pictures: Path
) -> None:
    command = [sys.executable, "-m", "vszhdrv", "shot", "--epochs", "1000", "--device", "cpu", "--train_only"]
    steps = []
    for _ in range(2):
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if "training takes about" in line:
                    break
            time.sleep(1)
            process.send_signal(signal.SIGINT)
            started = time.monotonic()
            said = process.stderr.read()
            code = process.wait(LIMIT)
            seconds = time.monotonic() - started
        assert code == 130, said
        assert said.splitlines()[-1].startswith("zhdrv: interrupted")
        assert "Traceback" not in said
        assert seconds < 30  # a second or two, where nobody else wants the processor; the training takes hours
        (state,) = own_cache.rglob("*.state")
        steps.append(steps_in(state))
    assert 0 < steps[0] < steps[1]
    assert not [p for folder in (tmp_path, own_cache) for p in folder.rglob("*.tmp")]
    for picture in only_run(tmp_path).rglob("*.png"):
        Image.open(picture).load()


def steps_in(state: Path) -> int:
    from vszhdrv.store import weight_files

    return int(weight_files.read_state(state)["step"])


def test_the_installed_command() -> None:
    command = Path(sys.executable).parent / "zhdrv"
    done = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0 and done.stdout.startswith("zhdrv ")
