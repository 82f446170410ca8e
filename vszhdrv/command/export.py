"""A clip's expansion as an ONNX graph, for vs-mlrt (core.ov.Model, core.ort.Model) and whatever else runs ONNX.

Apart from the core because nothing there needs ONNX: the packages onnx and onnxscript are the extra "export".
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vszhdrv.errors import Failed
from vszhdrv.files import write_whole
from vszhdrv.zhdrv.expansion import lifted
from vszhdrv.zhdrv.exposures import exposures, merge
from vszhdrv.zhdrv.objectives import predicted

if TYPE_CHECKING:
    from vszhdrv.zhdrv.expansion import Expander


class _Graph(nn.Module):
    """What Expander does to a whole frame: `(1, 3, height, width)` linear light to the same."""

    def __init__(self, expander: Expander) -> None:
        super().__init__()
        self.expander = expander
        self.network, self.config = expander.network.cpu(), expander.config

    def forward(self, linear: Tensor) -> Tensor:
        sdr, grey = self.expander.encoded(linear), self.expander.traits.grey
        if self.config.head == "stops":
            return lifted(linear, sdr, predicted(self.network, sdr), self.expander.ramp, grey)
        steps = self.config.n_exp_down, self.config.n_exp_up
        stack = exposures(lambda x: predicted(self.network, x), sdr, *steps, grey)
        return torch.maximum(merge(stack), linear)


def check() -> None:
    """Raises Failed, in one sentence, where the packages that write ONNX are missing."""
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise Failed(f"ONNX needs the package {' and '.join(missing)}: uv pip install {' '.join(missing)}")


def write_onnx(expander: Expander, path: Path, *, width: int, height: int) -> None:
    """Write what the expander does to a frame of this size, whole or not at all.

    The graph has one input, `input`, and one output, `output`: (1, 3, height, width) float32 linear RGB, 1.0 = SDR
    white, as core.zhdrv.Expand's own frames. It computes every pixel, whether it clips or not, and knows nothing of
    overlays that Expand leaves as they are.

    Raises Failed where packages are missing, OSError where the file can't be written.
    """
    check()
    heard = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in heard]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")  # about torchvision, which nothing here needs
        for logger in heard:
            logger.setLevel(logging.ERROR)
        try:
            program = torch.onnx.export(
                _Graph(expander).eval(),
                (torch.rand(1, 3, height, width),),
                input_names=["input"],
                output_names=["output"],
                dynamo=True,
                verbose=False,
            )
        finally:
            for logger, level in zip(heard, levels, strict=True):
                logger.setLevel(level)
    assert program is not None
    write_whole(path, program.model_proto.SerializeToString())
