"""One Python function per function of core.zhdrv: argument checks, then a few calls downward."""

from importlib.metadata import version as installed_version
from pathlib import Path

import vszhdrv


def version() -> dict[str, str]:
    """Versions of the package and of torch, the device that "auto" means here, and where the package lies."""
    import torch

    return {
        "version": vszhdrv.__version__,
        "torch": installed_version("torch"),
        "device": "cuda:0" if torch.cuda.is_available() else "cpu",
        "path": str(Path(vszhdrv.__file__).parent),
    }
