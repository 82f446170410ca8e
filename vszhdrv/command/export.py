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
import vapoursynth as vs
from torch import Tensor, nn

from vszhdrv.errors import Failed
from vszhdrv.files import check_output, write_whole
from vszhdrv.shots import to_json
from vszhdrv.zhdrv import uneven
from vszhdrv.zhdrv.expansion import lifted
from vszhdrv.zhdrv.exposures import exposures, merge
from vszhdrv.zhdrv.objectives import predicted

if TYPE_CHECKING:
    from vszhdrv import Job
    from vszhdrv.zhdrv.expansion import Expander


class _Graph(nn.Module):
    """What Expander does to a whole frame: `(1, 3, height, width)` linear light to the same."""

    def __init__(self, expander: Expander) -> None:
        super().__init__()
        self.expander = expander
        self.network, self.config = expander.network.cpu(), expander.config

    def forward(self, linear: Tensor) -> Tensor:
        traits = self.expander.traits
        if traits.levelled:
            linear = uneven.levelled_light(linear, self.expander.white)
        sdr, grey = self.expander.encoded(linear), traits.grey
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


SCRIPT = '''"""The expansion of a film by vs-mlrt: a graph a place, by frame number. `zhdrv export` wrote it.

The film has {length} frames of {width}x{height}. The output is linear light, RGBS, 1.0 = SDR white. To use it in a
script of your own: runpy.run_path(...)["expanded"](linear).
"""

from bisect import bisect_right
from functools import cache
from pathlib import Path

import vapoursynth as vs

core = vs.core
SHOTS = {shots}
"""Of each shot: first frame, end frame, place, and the first and the end frame of the dissolve that begins it."""
GRAPHS = {graphs}


def expanded(linear, backend=None):
    """`linear`: the film as RGBS in linear light. `backend`: core.ov.Model (the default), core.ort.Model, ..."""
    model = core.ov.Model if backend is None else backend

    @cache
    def place(number):
        return model(linear, str(Path(__file__).with_name(GRAPHS[number])))

    def frame(n):
        index = bisect_right([shot[0] for shot in SHOTS], n) - 1
        for later in (index, index + 1):
            if 0 < later < len(SHOTS):
                (_, _, before, _, _), (_, _, after, start, stop) = SHOTS[later - 1 : later + 1]
                if start <= n < stop and before != after:
                    share = (n - start + 1) / (stop - start + 1)
                    return place(before).std.Merge(place(after), weight=[share])
        return place(SHOTS[index][2])

    return linear.std.FrameEval(frame)


if __name__ == "__vapoursynth__":
    clip = core.bs.VideoSource({source!r})
    linear = clip.resize.Bicubic(format=vs.RGBS, {colour}, transfer_s="linear")
    expanded(linear).set_output()
'''


def write_all(job: Job, path: Path, source: Path, *, overwrite: bool) -> Path | None:
    """Write the graph of a clip to `path`; of a film, a graph a place beside it and a script that joins them.

    Returns the script, which has the ending .vpy; None where one graph serves all frames.
    Raises Failed where packages are missing, Refused where a film's file is there already and `overwrite` is off,
    OSError where a file can't be written.
    """
    clip, shots = job.request.clip, job.film()
    size = {"width": clip.width, "height": clip.height}
    if not shots:
        write_onnx(job.expander(), path, **size)
        return None
    script = path.with_suffix(".vpy")
    graphs = [f"{path.stem}.place_{place:03d}.onnx" for place in range(1 + max(shot.place for shot in shots))]
    for target in (script, *map(path.with_name, graphs)):
        check_output("ONNX", target, source, [".onnx", ".vpy"], overwrite=overwrite)
    for place, name in enumerate(graphs):
        write_onnx(job.expander_of(place), path.with_name(name), **size)
    colour = job.request.colour
    codes = {"transfer_in": colour.transfer, "range_in": colour.range}
    codes |= {} if clip.format.color_family == vs.RGB else {"matrix_in": colour.matrix}
    text = SCRIPT.format(
        length=clip.num_frames,
        shots=to_json(shots),
        graphs=graphs,
        source=str(source.absolute()),
        colour=", ".join(f"{name}={code}" for name, code in codes.items()),
        **size,
    )
    write_whole(script, text.encode())
    return script


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
