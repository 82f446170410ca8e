"""What is installed, what is missing, and whether a small training and expansion work: `zhdrv doctor`.

Apart from cli.py because it looks at everything else from outside. It changes nothing: its test keeps no network.
"""

from __future__ import annotations

import platform
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vszhdrv.errors import Failed, Refused, failing, message
from vszhdrv.version import __version__

from .probing import captured

if TYPE_CHECKING:
    import vapoursynth as vs

PACKAGES = ("vapoursynth", "torch", "numpy", "opencv-python-headless", "OpenEXR", "safetensors")
SOURCES = {"bs": "vapoursynth-bestsource", "ffms2": "vapoursynth-ffms2", "lsmas": "vapoursynth-lsmas"}
"""Source filters by their namespace, with the package that has each; the first found opens videos."""
ENCODERS = {"libx265": "HDR10 and HLG by --out", "libsvtav1": "AV1 by hand"}
TEST_SIZE = 64, 48


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `mend` says what to do where it is not `well`; it is empty where nothing need be
    done."""

    name: str
    text: str
    well: bool = True
    mend: str = ""

    def __str__(self) -> str:
        mend = f": {self.mend}" if self.mend else ""
        return f"{'ok' if self.well else '--'}  {self.name}: {self.text}{mend}"


def findings(cache: Path | None) -> Iterator[Finding]:
    """All of them, in the order in which a person reads them. `cache`: the folder for networks; None: off."""
    yield Finding("vszhdrv", f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    yield from _packages()
    yield from _plugins()
    yield _device()
    yield _cache(cache)
    yield from _ffmpeg()
    yield _self_test()


def _packages() -> Iterator[Finding]:
    for name in PACKAGES:
        try:
            yield Finding(name, version(name))
        except PackageNotFoundError:
            yield Finding(name, "missing", False, f"uv pip install {name}")


def _plugins() -> Iterator[Finding]:
    from vapoursynth import core

    yield (
        Finding("plugin", "core.zhdrv is loaded")
        if hasattr(core, "zhdrv")
        else Finding("plugin", "core.zhdrv is missing", False, "install vszhdrv in the environment of this VapourSynth")
    )
    found = [name for name in SOURCES if hasattr(core, name)]
    for name, package in SOURCES.items():
        if name in found:
            yield Finding(f"source filter {name}", "loaded")
        else:
            yield Finding(
                f"source filter {name}", "not there", bool(found), "" if found else f"uv pip install {package}"
            )
    has_pictures = hasattr(core, "imgseqs")
    yield Finding(
        "picture reader imgseqs",
        "loaded" if has_pictures else "not there",
        has_pictures,
        "" if has_pictures else "uv pip install vapoursynth-imageseqs",
    )


def _device() -> Finding:
    from vszhdrv.zhdrv import hardware

    device = hardware.choose_device("auto")
    precision = hardware.choose_precision("auto", device)
    threads = f", {hardware.torch_threads()} threads" if device.type == "cpu" else ""
    return Finding("device", f"{device}, {precision}{threads}")


def _cache(cache: Path | None) -> Finding:
    if cache is None:
        return Finding("cache", "switched off: every training is done anew", False, "set VSZHDRV_CACHE to a folder")
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    return Finding("cache", f"{cache}, {free / 1e9:.1f} GB free")


def _ffmpeg() -> Iterator[Finding]:
    program = shutil.which("ffmpeg")
    if program is None or shutil.which("ffprobe") is None:
        yield Finding("ffmpeg", "missing", False, "install ffmpeg, which --out needs")
        return
    said = captured([program, "-hide_banner", "-version"]).stdout
    found = re.search(r"ffmpeg version (\S+)", said)
    yield Finding("ffmpeg", found[1] if found else "unknown version")
    encoders = captured([program, "-hide_banner", "-encoders"]).stdout
    for name, use in ENCODERS.items():
        is_there = name in encoders
        yield Finding(f"encoder {name}", use if is_there else f"not there ({use})", is_there or name != "libx265")


def _self_test() -> Finding:
    """Train on a made clip for an epoch, and expand a frame of it."""
    import vapoursynth as vs

    import vszhdrv

    width, height = TEST_SIZE
    levels = [
        vs.core.std.BlankClip(format=vs.RGB24, width=4, height=height, color=[min(255, 6 * n)] * 3) for n in range(64)
    ]
    strip = vs.core.std.StackHorizontal([level[0] for level in levels])
    frames = [strip.std.CropAbs(width=width, height=height, left=8 * n, top=0) for n in range(20)]
    clip = vs.core.std.Splice(frames).std.SetFrameProps(_Matrix=0, _Transfer=13, _Primaries=1, _Range=1)
    began = time.monotonic()
    try:
        with failing():
            job = vszhdrv.prepare(clip, epochs=1, cache="")
            for _ in job.train():
                pass
            pairs = [(_planes(job.linear(), n), _planes(job.expand(), n)) for n in (0, 19)]
    except (Failed, Refused) as error:
        return Finding("self test", f"failed, {message(error)}", False)
    well = all(np.isfinite(after).all() and (after >= before).all() for before, after in pairs)
    text = "trained and expanded" if well else "the result is wrong"
    return Finding("self test", f"{text}, {time.monotonic() - began:.1f} s", well, "" if well else "please report it")


def _planes(clip: vs.VideoNode, n: int) -> NDArray[np.float32]:
    with clip.get_frame(n) as frame:
        return np.stack([np.asarray(frame[plane]) for plane in range(3)])
