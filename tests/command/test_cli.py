"""The command line: words, exit codes, and the order of things. The learning itself is played by a stand-in."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import OpenEXR
import pytest
import vapoursynth as vs
from PIL import Image

import vszhdrv
from vszhdrv import Failed, Refused, exr, stills
from vszhdrv.command import cli, ffmpeg, pictures, space
from vszhdrv.command.runs import Run
from vszhdrv.light import Look
from vszhdrv.plugin.expanding import with_look
from vszhdrv.store import store
from vszhdrv.zhdrv.config import Config

LOG = [{"epoch": n, "total": 0.5, "reconstruction": 0.4, "temporal": 0.1, "lr": 1e-4, "seconds": n} for n in (1, 2)]


@dataclass(frozen=True)
class Colour:
    matrix: int = 0
    transfer: int = 13
    primaries: int = 1
    range: int = 1


@dataclass
class FakeNetwork:
    path: Path
    metadata: dict[str, str]

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("best", "last"):
            (folder / f"{name}.safetensors").write_text("weights")


class FakeJob:
    """A job that learns in four steps, two epochs, that every pixel is twice as bright."""

    def __init__(self, clip: vs.VideoNode, stored: bool, options: dict[str, Any]) -> None:
        self.clip, self.stored, self.options = clip, stored, options
        names = ("preset", "n_exp_down", "n_exp_up", "epochs", "lr", "alpha", "seed", "still")
        config = Config.from_preset(**{name: options[name] for name in names if name in options})
        weights = options.get("weights")
        self.trained = FakeNetwork(Path(weights), {"log": "[]"}) if weights else None
        self.learned = False
        traces = {name: options.get(name) for name in ("precision", "tile", "tile_pad") if options.get(name)}
        self.request = SimpleNamespace(
            clip=clip,
            config=config,
            colour=Colour(),
            key="0123456789abcdef",
            computing=SimpleNamespace(traces=traces),
        )

    def limit_to(self, frames: range) -> None:
        self.limited = frames

    def film(self) -> list[Any]:
        return []

    def look_up(self) -> FakeNetwork | None:
        if self.stored and self.trained is None:
            self._train()
        return self.trained

    def _train(self) -> None:
        self.trained = FakeNetwork(Path("/store/key.safetensors"), {"log": json.dumps(LOG)})

    def train(self, team: None) -> Iterator[vszhdrv.Event]:
        if self.look_up():
            return
        self.learned = True
        for n in range(1, 4):
            yield SimpleNamespace(kind="reading", done=n, total=3, seconds_left=None, progress=None)
        for n in range(1, 5):
            progress = SimpleNamespace(rows=LOG[: n // 2])
            if n == 2:
                yield SimpleNamespace(kind="estimate", done=n, total=4, seconds_left=72.0, progress=progress)
            yield SimpleNamespace(kind="training", done=n, total=4, seconds_left=4.0 - n, progress=progress)
        self._train()

    def recs(self) -> dict[str, np.ndarray]:
        return {name: np.zeros((8, 8, 3), np.uint8) for name in ("source", "m4", "m2", "p2", "p4", "delta")}

    def linear(self) -> vs.VideoNode:
        return self.clip.resize.Point(format=vs.RGBS)

    def expand_with(self, look: Look, *, levels: bool = False, lit: bool = False) -> vs.VideoNode:
        return self.expand(with_look(look, 1, levels=levels, lit=lit))

    def expand(self, function: Callable[..., Any] | None = None) -> vs.VideoNode:
        linear = self.linear()

        def brighten(planes: list[np.ndarray]) -> None:
            for plane in planes:
                plane *= 2

        expander = SimpleNamespace(brighten=brighten)

        def compute(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
            made = function(expander, [np.array(f[plane]) for plane in range(3)])
            pixels, props = made if isinstance(made, tuple) else (made, {})
            frame = f.copy()
            frame.props.update(props)
            for plane in range(3):
                np.asarray(frame[plane])[:] = pixels[plane]
            return frame

        return linear.std.Expr("x 2 *") if function is None else linear.std.ModifyFrame(linear, compute)


@dataclass
class Bench:
    """A folder with a clip of three frames, and what the command line did with it."""

    folder: Path
    jobs: list[FakeJob]
    stored: bool = False
    reporting: bool = False
    """Whether runs make their reports, which most tests do without."""

    @property
    def source(self) -> str:
        return str(self.folder / "clip")

    @property
    def run(self) -> Path:
        (run,) = (self.folder / "runs").iterdir()
        return run

    @property
    def frames(self) -> list[str]:
        return sorted(path.name for path in self.run.rglob("*.exr"))

    def __call__(self, *arguments: str, command: tuple[str, ...] = ()) -> int:
        return cli.main([*command, self.source, "--runs", str(self.folder / "runs"), *arguments])


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("VSZHDRV_CACHE", str(tmp_path / "cache"))
    bench = Bench(tmp_path, [])

    def prepare(clip: vs.VideoNode, **options: Any) -> FakeJob:
        if "weights" in options and Path(options["weights"]).read_text() != "weights":
            raise Refused("weights can't be used")
        bench.jobs.append(FakeJob(clip, bench.stored, options))
        return bench.jobs[-1]

    report_folder = cli.report_folder

    def reported(*arguments: Any) -> None:
        if bench.reporting:
            report_folder(*arguments)

    monkeypatch.setattr(cli, "report_folder", reported)
    monkeypatch.setitem(vszhdrv.__dict__, "prepare", prepare)
    (tmp_path / "clip").mkdir()
    for n in range(3):
        Image.new("RGB", (40, 24), (60 + 50 * n,) * 3).save(tmp_path / "clip" / f"{n}.png")
    return bench


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines on standard error, all of them ours; nothing may be on standard output."""
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert all(line.startswith("zhdrv: ") for line in lines), err
    return [line.removeprefix("zhdrv: ") for line in lines]


def test_a_whole_run(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.reporting = True
    assert bench() == 0
    files = {str(p.relative_to(bench.run)) for p in bench.run.rglob("*") if p.is_file()}
    assert files == {
        *(f"clip_exr/clip.{n:06d}.exr" for n in range(3)),
        *(f"recs/{name}.png" for name in ("source", "m4", "m2", "p2", "p4", "delta")),
        "ckpt/best.safetensors",
        "ckpt/last.safetensors",
        "logs.csv",
        "params.csv",
        "preview.png",
        *(["preview.jpg"] if stills.available() else []),
        "report.html",
        "frames.csv",
    }
    fast = Config.from_preset("fast")
    assert bench.run.name.startswith(f"clip_lr{fast.lr:.0e}_e{fast.epochs}_d2u2_")
    assert len((bench.run / "logs.csv").read_text().splitlines()) == 1 + len(LOG)
    params = (bench.run / "params.csv").read_text().splitlines()
    some = {"preset,fast", f"epochs,{fast.epochs}", "colour_transfer,13", "white,203.0", "fps,24", "sar,1"}
    assert {*some, "key,0123456789abcdef"} <= set(params)
    code = 60 / 255
    assert exr.read(bench.run / "clip_exr" / "clip.000000.exr") == pytest.approx(2 * code, abs=1e-3)
    lines = told(capsys)
    assert any(line.startswith("training takes about 1 min 12 s, the whole job about 1 min ") for line in lines)
    for stage in ("reading 3 of 3", "training 4 of 4", "expanding 3 of 3"):
        assert any(line.startswith(stage) for line in lines)
    assert lines[-1].startswith(f"done: {bench.run}; ")


def test_second_run_uses_what_is_there(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench()
    files = {p: p.stat().st_mtime_ns for p in bench.run.rglob("*.exr")}
    (bench.run / "clip_exr" / "clip.000001.exr").write_bytes(b"cut off")
    (bench.run / "logs.csv").unlink()
    capsys.readouterr()
    bench.stored = True
    assert bench() == 0
    assert not bench.jobs[-1].learned
    assert "2 of 3 frames are there already and stay" in told(capsys)
    changed = [p.name for p, time in files.items() if p.stat().st_mtime_ns != time]
    assert changed == ["clip.000001.exr"]
    assert len((bench.run / "logs.csv").read_text().splitlines()) == 1 + len(LOG)


def test_a_network_from_the_store_gives_a_whole_folder_too(bench: Bench) -> None:
    bench.stored = True
    assert bench() == 0
    assert len(list((bench.run / "recs").iterdir())) == 6
    assert (bench.run / "ckpt" / "best.safetensors").exists() and (bench.run / "preview.png").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--n_exp_down", "3"],
        ["--float"],
        ["--white", "100"],
        ["--fps", "25"],
        ["--compression", "piz"],
        ["--peak", "1000"],
        ["--strength", "0.5"],
        ["--precision", "fp32"],
        ["--tile", "64x64", "--tile_pad", "8"],
    ],
)
def test_other_outputs_have_another_folder(bench: Bench, options: list[str]) -> None:
    bench()
    bench(*options)
    assert len(list((bench.folder / "runs").iterdir())) == 2


@pytest.mark.parametrize(
    ("name", "values"), [("AssumeFPS", {"fpsnum": 25}), ("SetFrameProps", {"_SARNum": 4, "_SARDen": 3})]
)
def test_a_clip_of_another_rate_or_shape_has_another_folder(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str, values: dict[str, int]
) -> None:
    bench()
    read = pictures.read_pictures
    monkeypatch.setattr(
        pictures, "read_pictures", lambda *given, **options: getattr(read(*given, **options).std, name)(**values)
    )
    assert bench() == 0
    assert len(list((bench.folder / "runs").iterdir())) == 2


def test_a_strength_reaches_the_files(bench: Bench) -> None:
    assert bench("--strength", "0.5") == 0
    code = 60 / 255
    assert exr.read(bench.run / "clip_exr" / "clip.000000.exr") == pytest.approx(2**0.5 * code, abs=1e-3)
    assert "strength,0.5" in (bench.run / "params.csv").read_text().splitlines()


@pytest.mark.parametrize("words", [["--out", "o.mkv"], ["--out", "o.mkv", "--hlg"], ["levels"]])
def test_a_strength_reaches_files_that_play_and_their_levels(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    looks: list[Look] = []

    def expand_with(job: FakeJob, look: Look, **_: bool) -> vs.VideoNode:
        looks.append(look)
        raise Failed("enough")

    monkeypatch.setattr(FakeJob, "expand_with", expand_with)
    monkeypatch.setattr(ffmpeg, "find_programs", lambda: None)
    monkeypatch.chdir(bench.folder)
    command, options = (words, []) if words == ["levels"] else ([], words)
    assert cli.main([*command, bench.source, *options, "--strength", "0.25"]) == 1
    assert [look.strength for look in looks] == [0.25]


def test_train_only(bench: Bench) -> None:
    assert bench("--train_only") == 0
    assert (bench.run / "ckpt" / "best.safetensors").exists()
    assert not (bench.run / "clip_exr").exists() and not (bench.run / "preview.png").exists()


def test_train_is_train_only(bench: Bench) -> None:
    assert bench(command=("train",)) == 0
    run = bench.run
    assert {path.name for path in run.iterdir()} == {"ckpt", "logs.csv", "params.csv", "recs"}
    assert bench("--train_only") == 0
    assert bench.run == run


def test_expand_without_frames_is_the_whole_clip(bench: Bench) -> None:
    assert bench(command=("expand",)) == 0
    run = bench.run
    files = {path: path.read_bytes() for path in run.rglob("*") if path.suffix in (".exr", ".png")}
    assert bench() == 0
    assert bench.run == run and len(files) == 10
    assert files == {path: path.read_bytes() for path in run.rglob("*") if path.suffix in (".exr", ".png")}


def test_expand_writes_frames_of_the_whole_clips_numbers(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--frames", "1-2", command=("expand",)) == 0
    assert bench.jobs[-1].limited == range(1, 3)
    assert bench.frames == ["clip.000001.exr", "clip.000002.exr"]
    assert bench.jobs[0].learned and not bench.jobs[0].clip.num_frames < 3
    assert not (bench.run / "preview.png").exists()  # of the whole clip
    code = 160 / 255
    assert exr.read(bench.run / "clip_exr" / "clip.000002.exr") == pytest.approx(2 * code, abs=2e-3)
    with OpenEXR.File(str(bench.run / "clip_exr" / "clip.000002.exr")) as file:
        assert file.header()["imageCounter"] == 2
    times = {path: path.stat().st_mtime_ns for path in bench.run.rglob("*.exr")}
    capsys.readouterr()

    bench.stored = True
    assert bench("--frames", "0-1", command=("expand",)) == 0
    assert "1 of 2 frames are there already and stay" in told(capsys)
    assert bench.frames == [f"clip.{n:06d}.exr" for n in range(3)]
    assert times == {path: path.stat().st_mtime_ns for path in times}
    assert bench() == 0
    preview = bench.run / "preview.png"
    assert preview.exists()

    preview.write_bytes(b"of the frame that gained most")
    (bench.run / "clip_exr" / "clip.000000.exr").unlink()  # one that did not
    assert bench() == 0
    assert preview.read_bytes() == b"of the frame that gained most"


def test_a_program_without_a_console_says_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert bench() == 0
    monkeypatch.undo()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("other.mp4", "ONNX must end in .onnx, not 'other.mp4'"),
        ("clip.onnx", "ONNX clip.onnx is the input itself"),
        ("folder.onnx", "ONNX must name a file in a folder that exists and can be written, not 'folder.onnx'"),
        ("there.onnx", "ONNX there.onnx exists already: --overwrite replaces it"),
        ("none/o.onnx", "ONNX must name a file in a folder that exists and can be written, not 'none/o.onnx'"),
    ],
)
def test_export_looks_first_where_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], target: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("clip.mp4", "other.mp4", "there.onnx"):
        Path(name).write_text("of worth")
    Path("clip.onnx").hardlink_to("clip.mp4")
    Path("folder.onnx").mkdir()
    assert cli.main(["export", "clip.mp4", target]) == 2
    assert told(capsys) == [words]
    assert all(path.read_text() == "of worth" for path in Path().iterdir() if path.is_file())


def test_export_overwrites_what_it_may(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_onnx(expander: None, path: Path, *, width: int, height: int) -> None:
        path.write_text(f"{width}x{height}")

    monkeypatch.setattr(FakeJob, "expander", lambda self: None, raising=False)
    monkeypatch.setattr("vszhdrv.command.export.write_onnx", write_onnx)
    monkeypatch.setattr("vszhdrv.command.export.check", lambda: None)
    (bench.folder / "o.ONNX").write_text("of worth")
    assert cli.main(["export", bench.source, str(bench.folder / "o.ONNX"), "--overwrite"]) == 0
    assert (bench.folder / "o.ONNX").read_text() == "40x24"


@pytest.mark.parametrize(("asked", "written"), [("2", [2]), ("1-500", [1, 2]), ("0-0", [0])])
def test_frames_as_they_may_be_asked_for(bench: Bench, asked: str, written: list[int]) -> None:
    assert bench("--frames", asked, command=("expand",)) == 0
    assert bench.frames == [f"clip.{n:06d}.exr" for n in written]


def test_frames_beyond_the_clip(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--frames", "3-5", command=("expand",)) == 2
    assert told(capsys) == ["--frames 3-5 must begin within the clip's frames, 0 to 2"]
    assert not bench.jobs and not (bench.folder / "runs").exists()


def test_expand_of_what_is_not_trained_may_refuse(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--already_trained", "--frames", "0-1", command=("expand",)) == 1
    assert "--already_trained: there is no network for this clip and these settings" in told(capsys)[-1]
    assert bench(command=("train",)) == 0
    assert bench("--already_trained", "--frames", "0-1", command=("expand",)) == 0


def test_what_another_process_may_be_reading_is_not_written_again(bench: Bench) -> None:
    bench(command=("train",))
    best = bench.run / "ckpt" / "best.safetensors"
    best.write_text("the same, for another process")
    bench.stored = True
    assert bench("--frames", "0", command=("expand",)) == 0
    assert best.read_text() == "the same, for another process"


def test_already_trained_in_the_run_folder(bench: Bench) -> None:
    bench("--train_only")
    assert bench("--already_trained") == 0
    assert bench.jobs[-1].options["weights"] == str(bench.run / "ckpt" / "best.safetensors")
    assert not bench.jobs[-1].learned and len(list(bench.run.rglob("*.exr"))) == 3


def test_already_trained_in_the_store(bench: Bench) -> None:
    bench.stored = True
    assert bench("--already-trained") == 0
    assert len(list(bench.run.rglob("*.exr"))) == 3


@pytest.mark.parametrize(("stored", "code"), [(True, 0), (False, 1)])
def test_already_trained_and_damaged_since(
    bench: Bench, capsys: pytest.CaptureFixture[str], stored: bool, code: int
) -> None:
    bench("--train_only")
    weights = bench.run / "ckpt" / "best.safetensors"
    weights.write_text("damaged")
    capsys.readouterr()
    bench.stored = stored
    assert bench("--already_trained") == code
    assert "weights can't be used; looking for others in the cache" in told(capsys)
    assert weights.read_text() == ("weights" if stored else "damaged")


def test_already_trained_nowhere(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--already_trained") == 1
    assert "--already_trained: there is no network for this clip and these settings" in told(capsys)[-1]
    assert not (bench.folder / "runs").exists()


def test_options_reach_the_package(bench: Bench) -> None:
    arguments = "--n-exp-down 3 --n_exp-up=1 --epochs 2 --lr 1e-3 --alpha 0.5 --seed 7 --preset paper --device cpu"
    arguments += " --train-range 0-1 --shots off --num-streams 2 --precision fp32 --tile 128x64 --tile-pad 0"
    assert bench(*arguments.split(), "--transfer_in", "linear", "--range-in=full", "--cache=", "--fps", "23.976") == 0
    (job,) = bench.jobs
    assert job.options == {
        "n_exp_down": 3,
        "n_exp_up": 1,
        "epochs": 2,
        "lr": 1e-3,
        "alpha": 0.5,
        "seed": 7,
        "preset": "paper",
        "device": "cpu",
        "transfer_in": "linear",
        "range_in": "full",
        "cache": "",
        "still": False,
        "train_range": [0, 1],
        "shots": "off",
        "num_streams": 2,
        "precision": "fp32",
        "tile": [128, 64],
        "tile_pad": 0,
    }
    assert job.clip.fps == Fraction("23.976")


def test_one_picture(bench: Bench) -> None:
    bench.reporting = True
    picture = str(bench.folder / "clip" / "1.png")
    assert cli.main([picture, "--data-type", "image", "--runs", str(bench.folder / "runs")]) == 0
    assert bench.jobs[0].options["still"] is True
    assert (bench.run / "1_exr" / "1.000000.exr").exists()
    assert "1 shot in 1 place" in (bench.run / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required: INPUT"),
        (["train", "a", "b"], "unrecognized arguments: b"),
        (["a", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["a", "--epochs", "many"], "--epochs: must be a whole number, not 'many'"),
        (["a", "--lr", "fast"], "--lr: must be a number, not 'fast'"),
        (["a", "--fps", "0"], "--fps: must be frames per second"),
        (
            ["a", "--train_range", "5-"],
            "--train_range: must be the first and the last frame's number, such as 0-99, not '5-'",
        ),
        (["a", "--train_range=-1-5"], "--train_range: must be the first and the last frame"),
        (["a", "--fps", "1/0"], "--fps: must be frames per second"),
        (["a", "--white", "nan"], "--white: must be over 0"),
        (["a", "--strength", "all"], "--strength: must be a number, not 'all'"),
        (["a", "--tile", "64"], "--tile: must be width and height, such as 512x512, not '64'"),
        (["a", "--data_type", "film"], "invalid choice: 'film'"),
        (["a", "--half", "--float"], "not allowed with"),
        (["a", "--train_only", "--already_trained"], "not allowed with"),
        (["train"], "required: INPUT"),
        (["train", "a", "--out", "b.mkv"], "unrecognized arguments: --out"),
        (["expand", "a", "--train_only"], "unrecognized arguments: --train_only"),
        (["expand", "a", "--frames", "5-3"], "must be the first and the last frame's number, such as 0-99, not '5-3'"),
        (["expand", "a", "--frames", "all"], "--frames: must be the first"),
        (["a", "--source", "dgdecode"], "--source: invalid choice: 'dgdecode'"),
        (["export", "a", "b.onnx", "--tile", "64x64"], "unrecognized arguments: --tile 64x64"),
        (["cache"], "list|show|clear"),
        (["cache", "show"], "required: KEY"),
    ],
)
def test_bad_arguments(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    (line,) = told(capsys)
    assert words in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "best"], "preset must be one of"),
        (["--epochs", "0"], "epochs must be from 1"),
        (["--strength", "1.5"], "strength must be from 0 to 1, not 1.5"),
        (["--compression", "lzma"], "compression is 'lzma'; use one of"),
        (["--cache", __file__], "which is not a folder"),
    ],
)
def test_values_that_are_not_accepted(
    bench: Bench, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(*arguments) == 2
    (line,) = told(capsys)
    assert words in line
    assert not bench.jobs and not (bench.folder / "runs").exists()


@pytest.mark.parametrize(
    ("option", "start"), [("--runs", "--runs must be a path in UTF-8"), ("--cache", "cache must be a path in UTF-8")]
)
def test_folders_whose_names_are_not_text(
    bench: Bench, capsys: pytest.CaptureFixture[str], option: str, start: str
) -> None:
    assert bench(option, "r\udcff") == 2
    (line,) = told(capsys)
    assert line.startswith(start) and line.endswith(r"r\xff'")
    assert not bench.jobs and len(list(bench.folder.iterdir())) == 1


def test_missing_input(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([str(bench.folder / "none.mp4")]) == 2
    assert told(capsys) == [f"INPUT {bench.folder / 'none.mp4'} does not exist"]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (vs.Error("BestSource: frame 7 is broken"), 1, "BestSource: frame 7 is broken"),
        (
            vs.Error("\nTraceback (most recent call last):\n  File x\nValueError: the reason\n"),
            1,
            "ValueError: the reason",
        ),
        (vs.Error("\nzhdrv: frame 7 is torn\n"), 1, "frame 7 is torn"),
        (OSError(28, "No space left on device", "/runs"), 1, "No space left on device: /runs"),
        (OSError("a cannot be written into the folder /b"), 1, "a cannot be written into the folder /b"),
        (Failed("out of memory\nand much advice"), 1, "out of memory"),
        (Refused("interlaced"), 2, "interlaced"),
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on from what is saved"),
    ],
)
def test_failures_are_one_sentence(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    words: str,
) -> None:
    closed = []

    def learn(self: FakeJob, team: None) -> Iterator[Any]:
        try:
            yield SimpleNamespace(kind="reading", done=1, total=3, seconds_left=None, progress=None)
            raise error
        finally:
            closed.append(True)

    monkeypatch.setattr(FakeJob, "train", learn)
    assert bench() == code
    assert told(capsys)[-1] == words
    assert closed == [True]
    assert not list(bench.run.rglob("*.tmp"))


def test_a_picture_that_a_viewer_holds_ends_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def held(self: Run, pictures: Any) -> None:
        raise PermissionError("m4.png can't be written into the folder recs: Access is denied")

    monkeypatch.setattr(Run, "write_pictures", held)
    monkeypatch.setattr(cli, "PICTURE_SECONDS", 0)
    monkeypatch.setattr(cli, "PICTURE_SHARE", 0)
    assert bench("--train_only") == 0
    assert told(capsys).count("m4.png can't be written into the folder recs: Access is denied") == 1


def test_our_own_mistakes_keep_their_traceback(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FakeJob, "train", lambda self, team: np.zeros(3).reshape(2))  # a ValueError of NumPy's
    assert bench() == 1
    lines = capsys.readouterr().err.splitlines()
    assert "Traceback (most recent call last):" in lines
    assert lines[-1].startswith("zhdrv: internal error, a mistake of zhdrv's: ValueError: cannot reshape array")


def test_the_interrupted_training_is_closed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between two steps: the generator is closed at once, for it saves the state then."""
    closed = []
    learn = FakeJob.train

    def watched(self: FakeJob, team: None) -> Iterator[Any]:
        try:
            yield from learn(self, team)
        except GeneratorExit:
            closed.append(True)
            raise

    def interrupt(self: FakeJob) -> dict[str, np.ndarray]:
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeJob, "train", watched)
    monkeypatch.setattr(FakeJob, "recs", interrupt)
    assert bench() == 130
    assert closed == [True]


def test_the_package_speaks_through_the_log(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def learn(self: FakeJob, team: None) -> Iterator[Any]:
        vs.core.log_message(vs.MESSAGE_TYPE_INFORMATION, "zhdrv: another process trains; waiting")
        vs.core.log_message(vs.MESSAGE_TYPE_INFORMATION, "somebody else's words")
        yield from FakeJob._trained(self, team)

    monkeypatch.setattr(FakeJob, "_trained", FakeJob.train, raising=False)
    monkeypatch.setattr(FakeJob, "train", learn)
    assert bench() == 0
    lines = told(capsys)
    assert "another process trains; waiting" in lines and not [line for line in lines if "somebody" in line]


@pytest.mark.parametrize(("count", "words"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (14_250_000, "14.2 MB")])
def test_sizes(count: int, words: str) -> None:
    assert cli.size(count) == words


@pytest.mark.parametrize("command", [(), ("expand",), ("levels",), ("export",)])
@pytest.mark.parametrize("rank", ["0", "1"])
def test_several_processes_share_a_training_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: tuple[str], rank: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    assert cli.main([*command, bench.source, *(["a.onnx"] if command == ("export",) else [])]) == 2
    said = ["2 processes can share a training alone: torchrun ... -m vszhdrv train INPUT"]
    assert told(capsys) == (said if rank == "0" else [])
    assert not bench.jobs


def test_a_launchers_processes_may_each_expand_some_frames(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert bench("--frames", "2", command=("expand",)) == 0
    assert bench.frames == ["clip.000002.exr"]


# The networks that are kept


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Two networks in a store; the call tells which are still there."""
    import torch

    monkeypatch.setenv("VSZHDRV_CACHE", str(tmp_path))
    kept = store.Store(tmp_path, warn=print)
    for key in ("ab" * 16, "cd" * 16):
        with kept.training(key, lambda: None) as slot:
            weights = {"a": torch.zeros(3)}
            facts = json.dumps({"settings": {"preset": "fast", "epochs": 16}})
            header = {"preset": "fast", "facts": facts, "seconds": "40.0", "log": json.dumps(LOG)}
            if key[0] == "a":  # the other is of an earlier version
                about = {"name": "holiday.mp4", "width": 640, "height": 360, "frames": 60}
                header |= {"clip": json.dumps(about), "date": "2026-12-01 10:00 UTC"}
            slot.finish(weights, weights, header)
    return lambda: sorted(entry.key for entry in kept.entries())


def test_cache_list(networks: Callable[[], list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cache", "list"]) == 0
    out, err = capsys.readouterr()
    assert sorted(line.split()[0] for line in out.splitlines()) == networks()
    assert all("preset fast epochs 16" in line for line in out.splitlines())
    assert err.startswith("zhdrv: 2 networks, ")
    assert out.count("holiday.mp4, 640x360, 60 frames, 2026-12-01 10:00 UTC: preset fast") == 1


def test_cache_list_where_the_clock_was_set_back(
    networks: Callable[[], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tomorrow = time.time() + 86_400
    for file in (tmp_path / "networks").iterdir():
        os.utime(file, (tomorrow, tomorrow))
    assert cli.main(["cache", "list"]) == 0
    assert [line.split("  ")[-2].strip() for line in capsys.readouterr().out.splitlines()] == ["0 s ago"] * 2


@pytest.mark.parametrize("action", [["list"], ["show", "ab"], ["clear", "--yes"]])
@pytest.mark.parametrize("first", [True, False])
def test_no_cache_to_list_or_clear(action: list[str], first: bool, capsys: pytest.CaptureFixture[str]) -> None:
    none = ["--cache", ""]
    assert cli.main(["cache", *none, *action] if first else ["cache", *action, *none]) == 2
    assert told(capsys) == ["the cache is switched off: --cache or VSZHDRV_CACHE must name its folder"]


def test_cache_show(networks: Callable[[], list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cache", "show", "abab"]) == 0
    out, _ = capsys.readouterr()
    assert f"key: {'ab' * 16}" in out and "seconds: 40.0" in out


def test_cache_show_of_no_network(networks: Callable[[], list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cache", "show", "ff"]) == 2
    assert told(capsys)[0].startswith("KEY 'ff' is none of the keys in")


@pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("n\n", 2), ("", 2)])
def test_cache_clear_asks(
    networks: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    left: int,
) -> None:
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    assert cli.main(["cache", "clear"]) == 0
    assert len(networks()) == left
    assert "remove 2 networks" in capsys.readouterr().err


def test_cache_clear_with_yes(networks: Callable[[], list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cache", "clear", "--yes"]) == 0
    assert networks() == []
    assert told(capsys)[0].startswith("2 removed")


def test_arguments_are_checked_before_anything_heavy_is_imported() -> None:
    code = (
        "import sys; from vszhdrv.command import cli\n"
        "try: cli.main(['none.mp4', '--epochs', 'x'])\n"
        "except SystemExit: pass\n"
        "sys.exit(', '.join({'torch', 'vapoursynth', 'numpy', 'OpenEXR'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[1:] == [""], done.stderr


# --- the report


def test_a_run_folders_report_is_made_later_from_its_files(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.reporting = True
    assert bench("--no-report") == 0
    report = bench.run / "report.html"
    assert not report.exists() and not (bench.run / "frames.csv").exists()
    assert cli.main(["report", str(bench.run)]) == 0
    assert bench.jobs[-1].options["weights"] == str(bench.run / "ckpt" / "best.safetensors")
    page = report.read_text()
    assert "3 EXR files" in page and "lr3e-03" not in page
    rows = list(csv.DictReader((bench.run / "frames.csv").open()))
    for n, row in enumerate(rows):
        pixels = exr.read(bench.run / "clip_exr" / f"clip.{n:06d}.exr")
        assert float(row["result_max_nits"]) == pytest.approx(203 * pixels.max(), rel=1e-3)
        assert float(row["most_stops"]) == pytest.approx(1, abs=0.01)  # the stand-in doubles
        assert f"{float(row['result_max_nits'])!r}" in page
    (bench.run / "clip_exr" / "clip.000001.exr").unlink()
    assert cli.main(["report", str(bench.run), "--out", str(bench.folder / "own.html")]) == 0
    assert "2 EXR files" in (bench.folder / "own.html").read_text()


def test_the_report_of_an_input_expands_some_frames(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bench.folder)
    assert cli.main(["report", bench.source]) == 0
    assert "Highlights gained 1.0 stops on average" in (bench.folder / "clip.html").read_text()
    assert not (bench.folder / "runs").exists()
    assert cli.main(["report", bench.source]) == 2
    assert "--out clip.html exists already: --overwrite replaces it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("ckpt", "must hold ckpt/best.safetensors"),
        ("clip_exr", "must hold one folder of EXR frames for a report, not 0"),
    ],
)
def test_a_run_folder_without_its_parts_is_refused(
    bench: Bench, capsys: pytest.CaptureFixture[str], gone: str, said: str
) -> None:
    bench()
    shutil.rmtree(bench.run / gone)
    capsys.readouterr()
    assert cli.main(["report", str(bench.run)]) == 2
    assert said in told(capsys)[-1]


# --- stills


def test_still_writes_the_frame_that_is_asked_for(bench: Bench) -> None:
    """The stand-in makes every pixel twice as bright."""
    out = bench.folder / "still.exr"
    assert cli.main(["still", bench.source, "--frame", "1", str(out), "--cache="]) == 0
    (job,) = bench.jobs
    with job.linear().get_frame(1) as frame:
        expected = 2 * np.dstack([np.asarray(frame[plane]) for plane in range(3)])
    assert np.array_equal(exr.read(out), expected.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["still.gif"], "OUT must end in .jpg or"),
        (["--frame", "3", "still.exr"], "--frame must be from 0 to 2, not 3"),
        (["--frame", "3", "--peak", "100", "still.exr"], "peak must be 0 or over white"),
        (["there.exr"], "there.exr exists already: --overwrite replaces it"),
    ],
)
def test_still_refuses_in_one_sentence(
    bench: Bench, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    (bench.folder / "there.exr").write_text("")
    *options, name = arguments
    assert cli.main(["still", bench.source, *options, str(bench.folder / name), "--cache="]) == 2
    assert said in capsys.readouterr().err
    assert not any(job.learned for job in bench.jobs)


def test_several_inputs_go_one_after_the_other_and_a_failure_stops_none(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(bench.folder / "clip", bench.folder / "other")
    inputs = [bench.source, str(bench.folder / "missing"), str(bench.folder / "other")]
    assert cli.main([*inputs, "--runs", str(bench.folder / "runs")]) == 1
    lines = told(capsys)
    assert f"INPUT {bench.folder / 'missing'} does not exist" in lines
    assert lines[-2:] == ["done: 2 of 3 inputs", "1 of 3 inputs failed: missing"]
    assert len(list((bench.folder / "runs").iterdir())) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--out", "a.mkv"], "--out must be used with one INPUT, not with 2: --out_dir names a folder for all"),
        (["--out_dir", "hdr"], "--out_dir must get files of different names, not two of 'clip'"),
    ],
)
def test_several_inputs_need_names_of_their_own(
    bench: Bench, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert cli.main([bench.source, bench.source, *options]) == 2
    assert told(capsys) == [words]


def test_progress_is_objects_for_programs(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--progress", "json") == 0
    objects = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {found["event"] for found in objects} == {"message", "progress"}
    steps = [found for found in objects if found.get("stage") == "training"]
    assert (steps[-1]["done"], steps[-1]["total"]) == (4, 4)
    assert steps[-1]["job_seconds_left"] > steps[-1]["seconds_left"] == 0  # expanding comes
    assert objects[-1]["text"].startswith("done: ")
    assert bench("--progress=json", "--peak", "7") == 2
    assert json.loads(capsys.readouterr().err.splitlines()[-1])["event"] == "error"
    assert bench() == 0
    assert told(capsys)  # lines for people again


def test_a_folder_without_room_is_told_before_training(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = SimpleNamespace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    assert bench() == 1
    last = told(capsys)[-1]
    assert last.startswith("the folder ") and "has 1.0 kB free, and its EXR files need about 10.4 kB" in last
    assert not bench.jobs[0].learned
    assert bench("--train_only") == 0  # writes no frames


def test_a_folder_that_holds_the_frames_needs_no_room(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bench() == 0
    for path in bench.run.rglob("*.exr"):
        path.write_bytes(path.read_bytes() + bytes(4000))  # not valid, but as large as is to be
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    assert bench() == 0


def test_the_last_line_names_the_files_and_what_to_look_at(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench() == 0
    last = told(capsys)[-1]
    assert last.startswith("done: ") and "clip_exr has 3 EXR files, " in last and "to look at: preview.png" in last


def test_a_preview_is_for_a_file_that_plays(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--preview", "p.png") == 2
    assert told(capsys) == ["--preview is for a file that plays: name it with --out"]


def test_estimated_sizes() -> None:
    header = exr.Header(half=True)
    assert space.of_exr(100, 10, header) == round(6 * 100 * 10 * 0.6)
    assert space.of_exr(100, 10, exr.Header(half=False, compression="none")) == 12 * 100 * 10
    assert space.of_video(640, 360, 60, 12) == pytest.approx(320011, rel=0.4)  # as examples/room.mp4 came out
    assert space.of_video(640, 360, 60, 18) == pytest.approx(space.of_video(640, 360, 60, 12) / 2, rel=0.01)


def test_a_node_of_a_farm_trains_the_places_of_its_frames(bench: Bench) -> None:
    assert bench("--frames", "1-2", command=("train",)) == 0
    assert bench.jobs[-1].limited == range(1, 3)
    assert not bench.frames
