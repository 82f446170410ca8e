"""From a trained network to a clip whose frames it expands on request.

Apart from job.py because the work at every frame has nothing to do with how the network was made. torch is
imported at the first frame.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import vapoursynth as vs

from vszhdrv import light
from vszhdrv.errors import Refused
from vszhdrv.light import Look

from . import clips
from .workers import Computed, Planes, Streams

if TYPE_CHECKING:
    import torch

    from vszhdrv.zhdrv.config import Config
    from vszhdrv.zhdrv.expansion import Expander
    from vszhdrv.zhdrv.hardware import Precision
    from vszhdrv.zhdrv.training import Weights

Function = Callable[["Expander", Planes], Computed]
"""Makes something of the planes of a frame's linear light, which are its own to write to: planes, or planes and frame
properties.

It is called by several threads at the same time.
"""

MOST_STREAMS = 64
"""Each is a thread."""


@dataclass(frozen=True)
class Computing:
    """By what, how exactly and in what portions frames are computed: core.zhdrv.Expand's arguments of these names.

    Raises Refused, one sentence, for a value that is not accepted or a device that is not there.
    """

    device_name: str = "auto"
    precision_name: str = "auto"
    tile: list[int] | None = None
    """Width and height."""
    tile_pad: int | None = None
    num_streams: int | None = None
    graphics: str = "auto"
    """off: expand white that was found to be graphics, too."""

    def __post_init__(self) -> None:
        if self.precision_name not in ("auto", "bf16", "fp32"):
            raise Refused(f"precision must be auto, bf16 or fp32, not {self.precision_name!r}")
        if self.graphics not in ("auto", "off"):
            raise Refused(f"graphics must be auto or off, not {self.graphics!r}")
        if self.device_name not in ("auto", "cpu"):
            from vszhdrv.zhdrv.hardware import choose_device

            choose_device(self.device_name)
        if self.tile and (len(self.tile) != 2 or min(self.tile) < 64 or any(side % 64 for side in self.tile)):
            raise Refused(f"tile must be width and height, each a multiple of 64, not {self.tile}")
        if self.tile_pad is not None and self.tile_pad < 0:
            raise Refused(f"tile_pad must be 0 or more pixels, not {self.tile_pad}")
        if self.num_streams is not None and not 1 <= self.num_streams <= MOST_STREAMS:
            raise Refused(f"num_streams must be from 1 to {MOST_STREAMS}, not {self.num_streams}")

    def hardware(self) -> tuple[torch.device, Precision]:
        """The torch device and the precision."""
        from vszhdrv.zhdrv import hardware

        device = hardware.choose_device(self.device_name)
        return device, hardware.choose_precision(self.precision_name, device)

    @property
    def traces(self) -> dict[str, Any]:
        """What of this tells files apart that are made with it, as JSON can hold it.

        Not the device, nor what "auto" comes to on it: machines share the frames of one clip. Not tiles either, unless
        they see less around themselves than they might, which leaves seams.
        """
        seams = {} if self.tile_pad is None else {"tile": self.tile, "tile_pad": self.tile_pad}
        drawn = {} if self.graphics == "auto" else {"graphics": self.graphics}
        return {"precision": self.precision_name, **seams, **drawn}

    @property
    def tile_size(self) -> tuple[int, int] | None:
        """Height and width."""
        return (self.tile[1], self.tile[0]) if self.tile else None

    def streams(self, config: Config, width: int, height: int) -> int:
        """How many frames of this size are computed at the same time."""
        from vszhdrv.zhdrv.hardware import default_streams
        from vszhdrv.zhdrv.tiling import working_memory

        if self.num_streams is not None:
            return self.num_streams
        device, _ = self.hardware()
        return default_streams(
            device, working_memory(config.architecture, (height, width), self.tile_size, self.tile_pad)
        )


def expander(
    weights: Weights, metadata: Mapping[str, str], config: Config, computing: Computing, *, grey: bool
) -> Expander:
    """A trained network, ready for frames. Raises Refused where the weights are of another architecture.

    metadata: the header of the weights file, which says what was found in the clip. grey: whether the clip has one
    plane; others may be found to be black and white.
    """
    from vszhdrv.zhdrv.expansion import Expander
    from vszhdrv.zhdrv.network import network_of
    from vszhdrv.zhdrv.traits import Traits

    traits = Traits.from_header(metadata)
    if computing.graphics == "off":
        traits = replace(traits, graphics="")
    return Expander(
        network_of(weights, config.architecture),
        config,
        *computing.hardware(),
        tile=computing.tile_size,
        tile_pad=computing.tile_pad,
        traits=replace(traits, grey=grey or traits.grey),
    )


def expanded(
    linear: vs.VideoNode,
    load: Callable[[], Expander],
    config: Config,
    computing: Computing,
    function: Function | None = None,
    *,
    planes: int = 3,
    keep: bool = True,
) -> vs.VideoNode:
    """A clip whose frames are expanded on request: RGBS, linear light, 1.0 = SDR white.

    linear: the source as `to_linear` returns it. load: gives the Expander; called once, at the first frame, or, without
    `keep`, at every frame.
    config, computing: what it was made with. function: makes `planes` planes of the Expander and a frame's; None: its
    expansion.
    """
    loading = threading.Lock()
    threads = 1

    def streams() -> Streams:
        from vszhdrv.zhdrv.hardware import torch_threads

        nonlocal threads
        count = computing.streams(config, linear.width, linear.height)
        threads = max(1, torch_threads() // count)
        device, _ = computing.hardware()
        return Streams(count, here=device.type == "cpu" and threads == 1)

    def loaded() -> Expander:
        from vszhdrv.zhdrv.hardware import memory_told

        with memory_told(computing.hardware()[0]):
            return load()

    loaded = cache(loaded) if keep else loaded

    def compute(light: Planes) -> Computed:
        from vszhdrv.zhdrv.hardware import memory_told
        from vszhdrv.zhdrv.lanes import lane

        with loading:
            network = loaded()
        with lane(network.device, threads), memory_told(network.device):
            if function is not None:
                return function(network, light)
            network.brighten(light)
            return light

    return clips.on_request(linear, compute, planes=planes, streams=streams)


def with_look(look: Look, primaries: int, *, levels: bool = False, lit: bool = False) -> Function:
    """The function that gives a frame's expansion the look, for `expanded`.

    levels: with its light levels as properties, PLSceneMax and PLSceneAvg, in nits. lit: with `light.LIT`, too.
    """

    def compute(expander: Expander, planes: Planes) -> Computed:
        hdr = look.apply(expander.brighten, planes)
        if not levels:
            return hdr
        found = light.frame_light(np.asarray(hdr), look.white, primaries)
        props = {"PLSceneMax": list(found.scene_max), "PLSceneAvg": found.avg_nits}
        return hdr, {**props, light.LIT: list(found.lit)} if lit else props

    return compute
