"""Files of weights and state: whole or refused, and never half-written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from vszhdrv import files
from vszhdrv.files import Damaged
from vszhdrv.store import weight_files

METADATA = {"clip": "0123abcd", "settings": '{"steps": 3}', "loss": "0.25", "näme": "ω"}


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {
        "plain": torch.randn(5, 3, 3, 3),
        "channels_last": torch.randn(4, 8, 3, 3).to(memory_format=torch.channels_last),
        "transposed": torch.randn(6, 2).T,
        "half": torch.randn(7).to(torch.bfloat16),
        "scalar": torch.tensor(0.5, requires_grad=True),
        "empty": torch.zeros(0, 3),
    }


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    weight_files.write_weights(path, tensors(), METADATA)
    return path


def refuse(monkeypatch: pytest.MonkeyPatch, function: str, number: int) -> None:
    """Let a function of os fail as the system would."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, function, fail)


def test_weights_come_back_bit_for_bit(weights: Path) -> None:
    found = weight_files.read(weights)
    read, metadata = found.tensors(), found.metadata
    for name, tensor in tensors().items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor.detach()), name
    assert read.keys() == tensors().keys()
    assert METADATA.items() <= metadata.items()
    assert metadata == weight_files.read_metadata(weights)


def test_any_safetensors_reader_reads_them(weights: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    weight_files.write_weights(other, tensors(), METADATA)
    assert safetensors.torch.load_file(other).keys() == tensors().keys()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["net.safetensors", "other.safetensors"]


def test_the_header_is_read_without_torch(weights: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from vszhdrv.store import weight_files; "
        "print(weight_files.read(Path(sys.argv[1])).metadata['loss'], 'torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code, str(weights)], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["0.25", "False"]


@pytest.mark.parametrize("keep", [0, 4, 8, 60, -100, -1])
def test_weights_cut_short_are_refused(weights: Path, keep: int) -> None:
    weights.write_bytes(weights.read_bytes()[:keep])
    for read in (weight_files.read_metadata, weight_files.read):
        with pytest.raises(ValueError, match=r"net\.safetensors is not a whole safetensors file"):
            read(weights)


def test_weights_with_something_behind_are_refused(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes() + b"\0")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        weight_files.read_metadata(weights)


def test_one_changed_bit_of_the_weights_is_seen(weights: Path) -> None:
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    with pytest.raises(Damaged, match=r"net\.safetensors is damaged: .*checksum"):
        weight_files.read(weights)


def test_weights_of_another_version_are_refused_but_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(weight_files, "FORMAT", weight_files.FORMAT + 1)
        weight_files.write_weights(path, tensors(), METADATA)
    assert weight_files.read_metadata(path)["loss"] == "0.25"
    with pytest.raises(Damaged, match=r"holds weights of format 3, this version .* reads formats 1 to 2"):
        weight_files.read(path)


def test_a_pickle_is_refused_in_a_sentence_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    for zipped in (True, False):
        torch.save(tensors(), path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(ValueError, match=r"model\.pth is a pickle .*only safetensors weights"):
            weight_files.read(path)


def test_weights_of_another_program_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"a": torch.ones(3)}, path, {"format": "pt"})
    with pytest.raises(ValueError, match="somebody else's tensors"):
        weight_files.read_metadata(path)


def test_a_missing_file_is_the_systems_error(tmp_path: Path) -> None:
    for read in (weight_files.read_metadata, weight_files.read, weight_files.read_state):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none")


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failed_write_leaves_everything_as_it_was(
    weights: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    before = weights.read_bytes()
    refuse(monkeypatch, function, errno.ENOSPC)
    with pytest.raises(OSError, match="No space left on device") as caught:
        weight_files.write_weights(weights, {"a": torch.ones(3)}, {})
    assert str(weights.parent) in str(caught.value)
    assert weights.read_bytes() == before
    assert list(weights.parent.iterdir()) == [weights], "the temporary is gone"


@pytest.mark.parametrize(("windows", "tries"), [(True, 3), (False, 1)])
def test_a_file_that_windows_holds_for_a_moment_is_replaced_after_it(
    weights: Path, monkeypatch: pytest.MonkeyPatch, windows: bool, tries: int
) -> None:
    tried = []
    replace = os.replace

    def held(*paths: str) -> None:
        tried.append(paths)
        if len(tried) < 3:
            raise PermissionError(errno.EACCES, "Access is denied")
        replace(*paths)

    monkeypatch.setattr(os, "replace", held)
    monkeypatch.setattr(files, "WINDOWS", windows)
    before = weights.read_bytes()
    if windows:
        files.write_whole(weights, b"new")
    else:
        with pytest.raises(PermissionError, match=r"can't be written into the folder .*: Access is denied"):
            files.write_whole(weights, b"new")
    assert len(tried) == tries and weights.read_bytes() == (b"new" if windows else before)


def test_windows_patience_ends(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "replace", errno.EACCES)
    monkeypatch.setattr(files, "WINDOWS", True)
    monkeypatch.setattr(files, "PATIENCE_SECONDS", 0.1)
    with pytest.raises(PermissionError, match="Permission denied"):
        files.write_whole(weights, b"new")
    assert list(weights.parent.iterdir()) == [weights]


def test_an_interrupted_write_leaves_everything_as_it_was(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = weights.read_bytes()

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        weight_files.write_state(weights, {})
    assert weights.read_bytes() == before
    assert list(weights.parent.iterdir()) == [weights]


def test_the_file_is_flushed_before_it_is_renamed_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(handle: int) -> None:
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")  # noqa: PTH112
        fsync(handle)

    def spy_replace(source: Any, target: Any) -> None:
        done.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    weight_files.write_weights(tmp_path / "net.safetensors", {"a": torch.ones(3)}, {})
    assert done == ["file", "rename", "folder"]


def state() -> dict[str, Any]:
    """As a training's: AdamW's own state_dict looks like this one (making one costs seconds of imports)."""
    weight = torch.randn(40, 40)
    moments = {"step": torch.tensor(7.0), "exp_avg": weight / 3, "exp_avg_sq": weight.square()}
    return {
        "step": 7,
        "rows": [{"epoch": 0, "total": 0.5}],
        "model": {"weight": weight},
        "optimizer": {"state": {0: moments}, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999), "params": [0]}]},
        "random": torch.get_rng_state(),
        "best": None,
    }


def test_state_comes_back(tmp_path: Path) -> None:
    path, written = tmp_path / "net.state", state()
    weight_files.write_state(path, written)
    read = weight_files.read_state(path)
    assert read.keys() == written.keys()
    assert (read["step"], read["rows"], read["best"]) == (7, written["rows"], None)
    assert torch.equal(read["random"], written["random"])
    assert torch.equal(read["optimizer"]["state"][0]["exp_avg"], written["optimizer"]["state"][0]["exp_avg"])
    assert read["optimizer"]["param_groups"] == written["optimizer"]["param_groups"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("keep", [0, 3, 700, -30, -1])
def test_state_cut_short_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "net.state"
    weight_files.write_state(path, state())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"net\.state is not a whole training state"):
        weight_files.read_state(path)


def test_one_changed_bit_of_the_state_is_seen(tmp_path: Path) -> None:
    path, written = tmp_path / "net.state", state()
    weight_files.write_state(path, written)
    content = bytearray(path.read_bytes())
    content[content.index(written["model"]["weight"].numpy().tobytes()) + 17] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        weight_files.read_state(path)


class Harmful:
    """What a foreign pickle may be: a call at reading time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_state_cannot_run_code(tmp_path: Path) -> None:
    path = tmp_path / "net.state"
    torch.save({"format": weight_files.STATE_FORMAT, "state": Harmful(tmp_path / "harm")}, path)
    with pytest.raises(ValueError, match="not a whole training state"):
        weight_files.read_state(path)
    assert not (tmp_path / "harm").exists()


def test_other_state_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.state"
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="not a whole training state"):
        weight_files.read_state(path)
    with monkeypatch.context() as patch:
        patch.setattr(weight_files, "STATE_FORMAT", 9)
        weight_files.write_state(path, {})
    with pytest.raises(ValueError, match="training state of format 9"):
        weight_files.read_state(path)
