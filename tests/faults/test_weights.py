"""Weights files that were changed in any byte, or made by somebody who means harm: one sentence, or replaced."""

from __future__ import annotations

import base64
import json
import os
import resource
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import vapoursynth as vs

import vszhdrv
from vszhdrv.errors import Refused
from vszhdrv.files import Damaged
from vszhdrv.plugin import fitting
from vszhdrv.store import weight_files
from vszhdrv.zhdrv.config import Config
from vszhdrv.zhdrv.network import UNet, new_network

WIDTH, HEIGHT = 96, 64
CONFIG = Config.from_preset("fast").for_size(WIDTH, HEIGHT)
GENUINE = {"network": json.dumps(CONFIG.architecture.as_json()), "preset": "fast", "clip_point": "1.0"}
FIRST, BIAS = "encoder.0.weight", "out.bias"


def state() -> dict[str, torch.Tensor]:
    return {name: tensor.detach() for name, tensor in new_network(CONFIG.architecture, 0).state_dict().items()}


def packed(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 9)).decode()


def overlays(**changed: Any) -> str:
    whole = {"words": [], "width": WIDTH, "height": HEIGHT, "picture": [0, 0, WIDTH, HEIGHT], "subtitles": [0, 0]}
    return json.dumps({**whole, "logos": packed(bytes(WIDTH * HEIGHT)), **changed})


def bomb() -> str:
    """Half a gigabyte of zeros, packed."""
    packing = zlib.compressobj(1)
    return base64.b64encode(b"".join([*(packing.compress(bytes(2**24)) for _ in range(32)), packing.flush()])).decode()


@pytest.mark.parametrize("preset", ["fast", "paper"])
@pytest.mark.parametrize("size", [(160, 96), (1920, 1080), (3840, 2160)])
def test_the_shapes_of_weights_are_the_networks(preset: str, size: tuple[int, int]) -> None:
    architecture = Config.from_preset(preset).for_size(*size).architecture
    assert architecture.shapes() == {name: tuple(w.shape) for name, w in UNet(architecture).state_dict().items()}


def test_every_changed_bit_of_a_header_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    weight_files.write_weights(path, {"a": torch.ones(2), "b": torch.zeros(3)}, {**GENUINE, "facts": '{"a": 1}'})
    content = path.read_bytes()
    for at in range(8 + int.from_bytes(content[:8], "little")):
        changed = bytearray(content)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        with pytest.raises(Damaged):
            weight_files.read(path)


def test_weights_of_format_1_are_still_read(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    weights = {"a": torch.ones(2)}
    data = np.ones(2, np.float32).tobytes()
    from safetensors.torch import save

    old = {"vszhdrv_format": "1", "data_blake2b": weight_files._digest(data), "clip": "x"}
    path.write_bytes(save(weights, metadata=old))
    found = weight_files.read(path)
    assert torch.equal(found.tensors()["a"], weights["a"]) and found.metadata["clip"] == "x"
    again = weight_files.write_weights(path, found.tensors(), found.metadata)
    assert again == weight_files.read(path) and "data_blake2b" not in again.metadata
    path.write_bytes(save({"a": torch.zeros(2)}, metadata=old))
    with pytest.raises(Damaged, match="checksum"):
        weight_files.read(path)


HOSTILE: dict[str, tuple[dict[str, str], str]] = {
    "no JSON": ({"network": "{"}, "network"),
    "a JSON bomb": ({"network": "[" * 200_000}, "network"),
    "another network": ({"network": '{"widths": [1]}'}, "network must be"),
    "no overlays": ({"overlays": "nonsense"}, "overlays"),
    "overlays that are a bomb": ({"overlays": "[" * 200_000}, "overlays"),
    "empty overlays": ({"overlays": "{}"}, "overlays"),
    "a list of overlays": ({"overlays": "[1]"}, "overlays"),
    "no picture": ({"overlays": overlays(picture=None)}, "overlays"),
    "a picture outside": ({"overlays": overlays(picture=[500, 500, 900, 900])}, "overlays"),
    "a picture reversed": ({"overlays": overlays(picture=[90, 60, 10, 5])}, "overlays"),
    "a negative picture": ({"overlays": overlays(picture=[-50, -50, 10, 5])}, "overlays"),
    "a picture of floats": ({"overlays": overlays(picture=[0.5, 0.5, 50.5, 40.5])}, "overlays"),
    "logos that are no zlib": ({"overlays": overlays(logos="AAAA")}, "overlays"),
    "short logos": ({"overlays": overlays(logos=packed(b"123"))}, "overlays"),
    "width 0": ({"overlays": overlays(width=0, height=0, logos=packed(b""))}, "overlays"),
    "far subtitles": ({"overlays": overlays(subtitles=[10**9, 10**12])}, "overlays"),
    "a clip point of text": ({"clip_point": "x"}, "clip_point must be"),
    "a clip point of 0": ({"clip_point": "0"}, "clip_point must be"),
    "a clip point that is no number": ({"clip_point": "nan"}, "clip_point must be"),
    "an infinite clip point": ({"clip_point": "inf"}, "clip_point must be"),
    "compressed a little": ({"compressed": "a little"}, "compressed must be"),
}


@pytest.mark.parametrize("label", HOSTILE)
def test_a_hostile_header_is_one_sentence_that_names_the_file_and_the_entry(label: str, tmp_path: Path) -> None:
    changed, words = HOSTILE[label]
    path = tmp_path / "net.safetensors"
    weight_files.write_weights(path, state(), {**GENUINE, **changed})
    with pytest.raises(Refused, match=words) as caught:
        fitting.check(weight_files.read(path), CONFIG)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "change",
    [
        lambda: {FIRST: torch.full_like(state()[FIRST], float("nan"))},
        lambda: {BIAS: torch.full_like(state()[BIAS], float("inf"))},
        lambda: {BIAS: torch.full_like(state()[BIAS], -1e31)},
        lambda: {name: 1e6 * tensor for name, tensor in state().items()},
        lambda: {FIRST: state()[FIRST][..., :1].contiguous()},
        lambda: {FIRST: state()[FIRST].double()},
        lambda: {FIRST: state()[FIRST].to(torch.bfloat16)},
        lambda: {"more": torch.ones(2)},
    ],
)
def test_hostile_weights_are_one_sentence(change: Callable[[], dict[str, torch.Tensor]], tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    weight_files.write_weights(path, {**state(), **change()}, GENUINE)
    with pytest.raises(Refused, match="is no network for these settings"):
        fitting.check(weight_files.read(path), CONFIG)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    weight_files.write_weights(path, state(), {**GENUINE, "overlays": overlays(logos=bomb())})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Refused, match="overlays"):
        fitting.check(weight_files.read(path), CONFIG)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


@pytest.mark.parametrize("stops", [0.5, 200.0, 1e10, -1e10])
def test_whatever_weights_are_accepted_frames_are_finite(stops: float, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    weight_files.write_weights(path, {**state(), BIAS: torch.full_like(state()[BIAS], stops)}, GENUINE)
    grey = vs.core.std.BlankClip(format=vs.RGB24, width=WIDTH, height=HEIGHT, length=2, color=[255, 255, 100])
    for more in ({}, {"peak": 1000.0}, {"strength": 0.3}):
        hdr = vszhdrv.expand(grey, weights=str(path), cache="", device="cpu", **more)
        with hdr.get_frame(0) as frame:
            assert all(np.isfinite(np.asarray(frame[plane])).all() for plane in range(3))
            assert np.isfinite(frame.props.get("PLSceneMax", 0)).all() and np.isfinite(frame.props.get("PLSceneAvg", 0))


NO_FILES: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "an endless device": lambda path: path.symlink_to("/dev/zero"),
    "a named pipe": os.mkfifo,
    "an empty file": Path.touch,
    "a header of 2^63 bytes": lambda path: path.write_bytes((2**63 - 1).to_bytes(8, "little") + b"{}"),
    "a large file": lambda path: (path.touch(), os.truncate(path, 2**40)),
}


@pytest.mark.parametrize("label", NO_FILES)
def test_what_is_no_weights_file_is_one_sentence_at_the_call(label: str, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    NO_FILES[label](path)
    clip = vs.core.std.BlankClip(format=vs.RGB24, width=WIDTH, height=HEIGHT, length=2)
    with pytest.raises(Refused) as caught:
        vszhdrv.expand(clip, weights=str(path), cache="")
    assert str(path) in str(caught.value)
