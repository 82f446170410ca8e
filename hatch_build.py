"""Builds the native library, and puts it where VapourSynth loads plugins from.

It exists because VapourSynth finds plugins in its own folder: library and manifest go to vapoursynth/plugins/zhdrv/ of
site-packages, in a wheel and in an editable install alike.
"""

import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import vapoursynth
from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

PLUGIN_FOLDER = "vapoursynth/plugins/zhdrv"


class BridgeBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds library, manifest and platform tag to a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        self.folder = tempfile.TemporaryDirectory()
        library = compile_bridge(Path(self.root), Path(self.folder.name), self.metadata.version)
        manifest = library.with_name("manifest.vs")
        manifest.write_text(f"[VapourSynth Manifest V1]\n{library.stem}\n")
        included = build_data["force_include_editable" if version == "editable" else "force_include"]
        included |= {str(file): f"{PLUGIN_FOLDER}/{file.name}" for file in (library, manifest)}
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag(library)}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        self.folder.cleanup()


def compile_bridge(root: Path, folder: Path, version: str) -> Path:
    """Compile bridge.c into `folder` with the C compiler that CC names, `cc` by default; return the library's path."""
    if sys.platform == "win32":
        raise SystemExit("vszhdrv does not support Windows yet: its native library finds Python by dlsym")
    library = folder / ("libzhdrv.dylib" if sys.platform == "darwin" else "libzhdrv.so")
    compiler = shlex.split(os.environ.get("CC", "cc"))
    options = ["-std=c11", "-O2", "-Wall", "-Wextra", "-fPIC", "-shared", "-fvisibility=hidden"]
    if sys.platform == "darwin":
        options += ["-undefined", "dynamic_lookup"]
    major, minor = version.split(".")[:2]
    options += [f"-I{vapoursynth.get_include()}", f"-DPLUGIN_VERSION=VS_MAKE_VERSION({major},{minor})"]
    try:
        subprocess.run([*compiler, *options, "-o", library, root / "vszhdrv/plugin/bridge.c"], check=True)
    except FileNotFoundError:
        raise SystemExit(f"building vszhdrv needs a C compiler, and {compiler[0]!r} is not there: set CC") from None
    return library


def platform_tag(library: Path) -> str:
    """The widest platform that `library` runs on: that of its newest glibc symbol, without glibc this machine's own."""
    glibc = [int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", library.read_bytes())]
    return f"manylinux_2_{max(glibc)}_{platform.machine()}" if glibc else next(platform_tags())
