"""`zhdrv doctor`: each thing that is missing is told, with what to install."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from vszhdrv.command import cli, doctor


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the training."""
    monkeypatch.setattr(doctor, "_self_test", lambda: doctor.Finding("self test", "trained and expanded"))


def test_the_self_test_trains_and_expands() -> None:
    finding = doctor._self_test()
    assert finding.well and finding.text.startswith("trained and expanded")


@pytest.mark.usefixtures("quick")
def test_what_is_there_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["doctor", "--cache", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("ok  torch: ") for line in lines)
    assert any(line.startswith(f"ok  cache: {tmp_path}, ") for line in lines)
    assert "ok  plugin: core.zhdrv is loaded" in lines
    assert code == any(line.startswith("--") for line in lines)


@pytest.mark.usefixtures("quick")
def test_a_missing_ffmpeg_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert cli.main(["doctor"]) == 1
    out, err = capsys.readouterr()
    assert "--  ffmpeg: missing: install ffmpeg, which --out needs" in out.splitlines()
    assert "not well" in err


@pytest.mark.usefixtures("quick")
def test_a_cache_that_is_off_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--cache="]) == 1
    assert "--  cache: switched off" in capsys.readouterr().out


@pytest.mark.parametrize(("word", "meant"), [("trian", "train"), ("exprot", "export"), ("cahce", "cache")])
def test_a_mistyped_command_is_told(word: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([word, "clip.mp4"]) == 2
    assert f"no command and no file {word!r}: did you mean {meant}?" in capsys.readouterr().err


def test_a_file_may_have_a_commands_name_nearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trian").mkdir()
    assert cli.mistyped("trian", ["train"]) == ""
