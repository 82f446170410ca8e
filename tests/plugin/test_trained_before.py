"""A network that an earlier version trained is found under the same key, and used.

tests/data/trained_before.safetensors is of recipe 9: the fast preset, one epoch, 24 frames. A new RECIPE renews it, and
the keys here, in the same commit.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vapoursynth as vs

from vszhdrv.plugin.preparing import prepare
from vszhdrv.store import weight_files

FILE = Path(__file__).parent.parent / "data" / "trained_before.safetensors"
KEYS = {"fast": "cb5ea23d09c078b22279bdd52a3e5b51", "paper": "8da7a6d7dc6cea1e5e6d978cfebf8b52"}
MEANS, HIGHEST = (1.91293, 1.31549, 0.63244), (3.05204, 2.43451, 1.47497)
"""Of frame 12, expanded by the version that trained the network."""


def panning() -> Any:
    """A ramp in steps that moves past, its bright end clipped; made by std's filters alone."""
    levels = [*range(0, 60, 3), *range(60, 0, -3)]
    colours = [[min(255, 6 * k), min(255, 5 * k), 4 * k] for k in levels]
    std = vs.core.std
    steps = [std.BlankClip(format=vs.RGB24, width=4, height=48, length=1, color=colour) for colour in colours]
    strip = std.StackHorizontal(steps)
    frames = [strip.std.CropAbs(width=64, height=48, left=4 * n, top=0) for n in range(24)]
    return std.Splice(frames).std.SetFrameProps(_Matrix=0, _Transfer=1, _Primaries=1, _Range=0)


@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_a_clip_and_its_settings_have_the_key_that_they_had(preset: str) -> None:
    epochs = {"fast": 1}.get(preset)
    assert prepare(panning(), preset=preset, epochs=epochs, cache="").request.key == KEYS[preset]


def test_the_key_is_of_the_facts_that_the_file_names() -> None:
    metadata = weight_files.read_metadata(FILE)
    job = prepare(panning(), epochs=1, cache="")
    assert (metadata["key"], json.loads(metadata["facts"])) == (
        job.request.key,
        json.loads(json.dumps(job.request.facts)),
    )


def test_a_network_trained_before_is_found_and_used(tmp_path: Path) -> None:
    (tmp_path / "networks").mkdir()
    (tmp_path / "networks" / f"{KEYS['fast']}.safetensors").write_bytes(FILE.read_bytes())
    job = prepare(panning(), epochs=1, device="cpu", precision="fp32", cache=str(tmp_path), train=False)
    assert job.look_up()
    with job.expand().get_frame(12) as frame:
        planes = [np.asarray(plane) for plane in frame]
    assert [plane.mean() for plane in planes] == pytest.approx(MEANS, rel=1e-4)
    assert [plane.max() for plane in planes] == pytest.approx(HIGHEST, rel=1e-4)
