"""A notebook's cell, run by a kernel: its output shows how far the training is, and a frame can be looked at."""

from __future__ import annotations

import re

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs nbclient and ipykernel")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel")
pytest.importorskip("ipykernel", reason="needs nbclient and ipykernel")

CELLS = (
    """
import vapoursynth as vs
core = vs.core
ramp = core.std.BlankClip(format=vs.RGB24, width=64, height=64, length=6).std.SetFieldBased(0)
ramp = core.std.FrameEval(ramp, lambda n: core.std.BlankClip(ramp, color=[120 + 25 * n] * 3).std.SetFieldBased(0))
options = dict(preset="draft", epochs=1, device="cpu", transfer_in="709")
""",
    "hdr = core.zhdrv.Expand(ramp, **options)",
    "import vszhdrv\nvszhdrv.show(ramp, 3, **options)",
)


def text_of(cell: dict) -> str:
    """What a cell has shown as text."""
    said = [output.get("text", "") for output in cell["outputs"] if output["output_type"] == "stream"]
    data = [output.get("data", {}) for output in cell["outputs"]]
    return "".join([*said, *(str(shown.get("text/plain", "")) for shown in data)])


def test_a_notebook_shows_the_training_and_a_frame() -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    _, training, shown = notebook["cells"]
    assert re.search(r"training.*\d+", text_of(training), re.DOTALL), training["outputs"]
    pictures = [output["data"] for output in shown["outputs"] if "image/png" in output.get("data", {})]
    assert len(pictures) == 1 and len(pictures[0]["image/png"]) > 500
