"""A run folder: names, whole files, and which frames are written."""

from __future__ import annotations

import csv
import os
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import vapoursynth as vs
from PIL import Image

from vszhdrv import exr
from vszhdrv.command import runs
from vszhdrv.command.runs import Run
from vszhdrv.zhdrv.config import Config

BT709 = SimpleNamespace(matrix=1, transfer=1, primaries=1, range=0)


def linear(length: int, *levels: float) -> vs.VideoNode:
    """A linear RGBS clip of 40x24, its frames grey at these levels in turn."""
    blank = vs.core.std.BlankClip(format=vs.RGBS, width=40, height=24, length=1)
    frames = [blank.std.BlankClip(color=[levels[n % len(levels)]] * 3) for n in range(length)]
    return vs.core.std.Splice(frames)


def sequence(folder: Path) -> exr.Sequence:
    return exr.Sequence(folder / "clip.%06d.exr", exr.Header())


def test_name_says_the_settings_and_stands_for_all_of_them(tmp_path: Path) -> None:
    paper = Config.from_preset("paper")
    run = runs.run_folder(tmp_path, "windows", paper, {"key": "a"})
    assert run.folder.parent == tmp_path
    assert run.folder.name.startswith("windows_lr1e-04_e128_d2u2_")
    assert run == runs.run_folder(tmp_path, "windows", paper, {"key": "a"})
    assert run.folder != runs.run_folder(tmp_path, "windows", paper, {"key": "b"}).folder
    assert run.frame_pattern == run.folder / "windows_exr" / "windows.%06d.exr"


@pytest.mark.parametrize("name", ["100%", "#1", "a/b", "50% of ##"])
def test_any_clip_name_gives_a_sequence(tmp_path: Path, name: str) -> None:
    run = runs.run_folder(tmp_path, name, Config.from_preset("fast"), {})
    assert run.folder.parent == tmp_path
    assert exr.Sequence(run.frame_pattern, exr.Header()).path(7).name.endswith(".000007.exr")


def test_tables(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", "clip")
    rows = [
        {"epoch": n, "total": 0.5, "reconstruction": 0.4, "temporal": 0.1, "lr": 1e-4, "seconds": n} for n in (1, 2)
    ]
    run.write_log(rows)
    run.write_params({"input": "a, b.mp4", "epochs": 2})
    with (run.folder / "logs.csv").open() as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == ["epoch", "total", "reconstruction", "temporal", "lr", "seconds"]
    assert [row["epoch"] for row in read] == ["1", "2"]
    with (run.folder / "params.csv").open() as file:
        assert {row["name"]: row["value"] for row in csv.DictReader(file)} == {"input": "a, b.mp4", "epochs": "2"}
    assert sorted(p.name for p in run.folder.iterdir()) == ["logs.csv", "params.csv"]


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv"
    runs.write_csv(path, ("a",), [{"a": "old"}])

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        runs.write_csv(path, ("a",), [{"a": "new"}])
    assert path.read_bytes() == b"a\nold\n"
    assert list(tmp_path.iterdir()) == [path]


def test_trained_only_with_the_best_weights(tmp_path: Path) -> None:
    run = Run(tmp_path, "clip")
    assert run.trained is None
    run.checkpoints.mkdir()
    (run.checkpoints / "last.safetensors").touch()
    assert run.trained is None
    (run.checkpoints / "best.safetensors").touch()
    assert run.trained == run.checkpoints / "best.safetensors"


def test_frames_are_written_in_order_with_their_gain(tmp_path: Path) -> None:
    clip = linear(9, 0.5, 1.0, 4.0)
    frames = sequence(tmp_path)
    assert list(runs.write_frames(clip, range(9), frames)) == [(n, [0.0, 0.0, 2.0][n % 3]) for n in range(9)]
    assert [exr.read(frames.path(n)).max() for n in range(9)] == [0.5, 1.0, 4.0] * 3


def test_only_frames_without_a_valid_file_are_computed(tmp_path: Path) -> None:
    asked: list[int] = []

    def note(n: int) -> vs.VideoNode:
        asked.append(n)
        return clip

    clip = linear(6, 0.5)
    watched = clip.std.FrameEval(note)
    frames = sequence(tmp_path)
    for n in (0, 1, 4):
        list(runs.write_frames(clip, [n], frames))
    frames.path(4).write_bytes(frames.path(4).read_bytes()[:-9])
    missing = runs.missing_frames(watched, range(6), frames)
    assert missing == [2, 3, 4, 5]
    list(runs.write_frames(watched, missing, frames))
    assert sorted(asked) == missing
    assert runs.missing_frames(watched, range(6), frames) == []


@pytest.mark.parametrize(
    ("threads", "width", "height", "ahead"),
    [(2, 1920, 1080, 4), (16, 1920, 1080, 16), (16, 3840, 2160, 10), (64, 7680, 4320, 4)],
)
def test_as_many_frames_are_asked_for_as_there_are_threads_and_memory(
    monkeypatch: pytest.MonkeyPatch, threads: int, width: int, height: int, ahead: int
) -> None:
    """As vspipe does; with fewer, other threads would have nothing to do."""
    asked: list[int] = []

    def ask(n: int) -> Future[Any]:
        asked.append(n)
        done: Future[Any] = Future()
        done.set_result(ExitStack())
        return done

    monkeypatch.setattr(vs, "core", SimpleNamespace(num_threads=threads))
    form = SimpleNamespace(num_planes=3, bytes_per_sample=4)
    clip: Any = SimpleNamespace(width=width, height=height, format=form, get_frame_async=ask)
    next(runs.requested(clip, range(1000)))
    assert asked == list(range(ahead))


def test_stopping_early_leaves_whole_files_only(tmp_path: Path) -> None:
    clip, frames = linear(9, 0.5), sequence(tmp_path)
    writing = runs.write_frames(clip, range(9), frames)
    next(writing)
    writing.close()
    assert runs.missing_frames(clip, range(9), frames) == list(range(1, 9))
    assert [p.name for p in tmp_path.iterdir()] == ["clip.000000.exr"]


def test_an_error_of_the_clip_passes_on(tmp_path: Path) -> None:
    clip = linear(9, 0.5)

    def fail(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        if n == 5:
            raise ValueError("frame 5 is broken")
        return f

    failing = clip.std.ModifyFrame(clip, fail)
    with pytest.raises(vs.Error, match="frame 5 is broken"):
        list(runs.write_frames(failing, range(9), sequence(tmp_path)))
    assert len(list(tmp_path.iterdir())) == 5


def test_compare_shows_the_source_as_it_is() -> None:
    """Code 126 of BT.709 is (126 - 16) / 219; as light by BT.1886, then as sRGB."""
    source = vs.core.std.BlankClip(format=vs.YUV420P8, width=40, height=24, color=[126, 128, 128])
    shown, hdr = runs.compare(source, linear(1, 3.0), BT709, 0)
    light = ((126 - 16) / 219) ** 2.4
    expected = 255 * (1.055 * light ** (1 / 2.4) - 0.055)
    assert shown.shape == (24, 40, 3) and shown.dtype == np.uint8
    assert np.abs(shown - expected).max() <= 1
    assert hdr.shape == (24, 40, 3) and np.allclose(hdr, 3.0)


def test_compare_takes_rgb_and_grey() -> None:
    for format in (vs.RGB24, vs.RGB48, vs.GRAY8):
        source = vs.core.std.BlankClip(format=format, width=40, height=24).std.SetFrameProps(_Matrix=0)
        shown, _ = runs.compare(source, linear(1, 0.0), SimpleNamespace(matrix=0, transfer=13, primaries=1, range=1), 0)
        assert shown.shape == (24, 40, 3) and not shown.any()


def test_preview_shows_what_lies_above_white(tmp_path: Path) -> None:
    hdr = np.ones((24, 40, 3), np.float32)
    hdr[:, 20:] = 4.0
    runs.write_preview(tmp_path / "preview.png", np.full((24, 40, 3), 255, np.uint8), hdr)
    picture = np.asarray(Image.open(tmp_path / "preview.png"))[20:]
    source, darker, mapped = picture[:, :40], picture[:, 44:84], picture[:, 88:]
    assert source.shape == mapped.shape
    assert source.min() == 255
    assert darker[12, 35].min() == 255 and darker[12, 5].max() == 137  # a quarter of white in sRGB
    assert mapped[12, 35].min() > mapped[12, 5].max() + 20


def test_exposures_bring_out_what_is_above_white() -> None:
    hdr = np.full((8, 8, 3), 0.25, np.float32)
    hdr[4:] = 4.0
    pictures = runs.exposures(np.zeros((8, 8, 3), np.uint8), hdr)
    assert set(pictures) == {"source", "m4", "m2", "p2", "p4", "delta"}
    assert pictures["m2"][7, 7, 0] == 255 and pictures["m4"][7, 7, 0] == 137
    assert pictures["p2"][0, 0, 0] == 255
    # Where nothing clipped the ratio of two stops is 2^(-2/2.2); where it did, that of 1.0 to 1.0.
    assert pictures["delta"][0, 0, 0] == round(255 * 2 ** (-2 / 2.2)) and pictures["delta"][7, 7, 0] == 255
