"""HDR from an SDR clip by a network that is trained on the clip itself (Zeroshot-HDRV), as a VapourSynth plugin.

The public face: what a script, the plugin's functions and the command line share. Importing it loads neither torch nor
VapourSynth; a name is loaded when it is first used.

    import vapoursynth as vs, vszhdrv
    hdr = vszhdrv.expand(vs.core.bs.VideoSource("clip.mp4"))       # the same as core.zhdrv.Expand(clip)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .errors import Failed, Refused
    from .plugin.film import find_shots
    from .plugin.functions import expand, mask, show, still, train, version, write_exr
    from .plugin.job import Event, Job
    from .plugin.preparing import prepare
    from .plugin.request import check_options
    from .zhdrv.config import Config

__all__ = [
    "Config",
    "Event",
    "Failed",
    "Job",
    "Refused",
    "__version__",
    "check_options",
    "expand",
    "find_shots",
    "mask",
    "prepare",
    "show",
    "still",
    "train",
    "version",
    "write_exr",
]

_MODULES = {
    "Config": ".zhdrv.config",
    "Event": ".plugin.job",
    "Failed": ".errors",
    "Job": ".plugin.job",
    "Refused": ".errors",
    "check_options": ".plugin.request",
    "expand": ".plugin.functions",
    "find_shots": ".plugin.film",
    "mask": ".plugin.functions",
    "prepare": ".plugin.preparing",
    "show": ".plugin.functions",
    "still": ".plugin.functions",
    "train": ".plugin.functions",
    "version": ".plugin.functions",
    "write_exr": ".plugin.functions",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name], __name__), name)
