"""Builds the native library, and puts it where VapourSynth loads plugins from.

It exists because VapourSynth finds plugins in its own folder: library and manifest go to vapoursynth/plugins/zhdrv/ of
site-packages, in a wheel and in an editable install alike.
"""

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

try:
    import vapoursynth
except ImportError as error:  # on a Windows where nothing has installed it yet
    raise SystemExit(
        f"building vszhdrv needs VapourSynth, which does not start ({error}): on Windows it needs Microsoft's Visual "
        "C++ Redistributable, https://aka.ms/vc14/vc_redist.x64.exe"
    ) from error

PLUGIN_FOLDER = "vapoursynth/plugins/zhdrv"
LIBRARIES = {"windows": "libzhdrv.dll", "mingw": "libzhdrv.dll", "darwin": "libzhdrv.dylib", "macos": "libzhdrv.dylib"}
"""By what compilers call the system; libzhdrv.so on all others."""
ZIG = [sys.executable, "-m", "ziglang", "cc"]


class BridgeBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds library, manifest and platform tag to a wheel."""

    def dependencies(self) -> list[str]:
        """What pip and uv install before they build."""
        return ["ziglang"] if c_compiler() == ZIG else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        self.folder = tempfile.TemporaryDirectory()
        library, machine = compile_bridge(Path(self.root), Path(self.folder.name), self.metadata.version)
        manifest = library.with_name("manifest.vs")
        manifest.write_text(f"[VapourSynth Manifest V1]\n{library.stem}\n", newline="\n")
        included = build_data["force_include_editable" if version == "editable" else "force_include"]
        included |= {str(file): f"{PLUGIN_FOLDER}/{file.name}" for file in (library, manifest)}
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag(library, machine)}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        self.folder.cleanup()


def c_compiler() -> list[str]:
    """The command that CC names; else cc, where there is one; else zig's, which PyPI has for every platform."""
    if cc := os.environ.get("CC"):
        return [cc] if shutil.which(cc) else shlex.split(cc)  # a path alone may have backslashes and spaces
    return ["cc"] if has_cc() else ZIG


def has_cc() -> bool:
    """Whether there is a C compiler. A Mac's /usr/bin/cc without Apple's command line tools only asks for them."""
    cc = shutil.which("cc")
    if sys.platform == "darwin" and cc == "/usr/bin/cc":
        return subprocess.run(["xcode-select", "-p"], capture_output=True).returncode == 0
    return cc is not None


def compile_bridge(root: Path, folder: Path, version: str) -> tuple[Path, str]:
    """Compile bridge.c into `folder`; return the library's path and the machine that it is for, as compilers call it:
    x86_64-linux-gnu, arm64-apple-darwin, x86_64-unknown-windows-gnu."""
    compiler = c_compiler()
    machine = machine_of(compiler)
    library = folder / next((name for system, name in LIBRARIES.items() if system in machine), "libzhdrv.so")
    if os.name == "nt" and library.suffix != ".dll":  # as Cygwin's and MSYS's
        raise SystemExit(f"building vszhdrv needs a C compiler for Windows, and {compiler[0]!r} is for {machine}")
    options = ["-std=c11", "-O2", "-Wall", "-Wextra", "-shared", "-fvisibility=hidden"]
    if library.suffix != ".dll":
        options.append("-fPIC")
    elif "mingw" in machine:
        options.append("-static")  # Windows has neither libgcc nor libwinpthread
    major, minor = version.split(".")[:2]
    options += [f"-I{vapoursynth.get_include()}", f"-DPLUGIN_VERSION=VS_MAKE_VERSION({major},{minor})"]
    run([*compiler, *options, "-o", str(library), str(root / "vszhdrv/plugin/bridge.c")])
    return library, machine


def machine_of(compiler: list[str]) -> str:
    """The machine that a compiler builds for: the one that `-target` names, as zig's takes it, else its own."""
    if "-target" in compiler[:-1]:
        return compiler[compiler.index("-target") + 1]
    return run([*compiler, "-dumpmachine"]).strip()


def run(command: list[str]) -> str:
    """What a command of the compiler prints; what it has to complain about goes where it does."""
    try:
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    except FileNotFoundError:
        problem = "is not there"
    except subprocess.CalledProcessError:
        problem = "failed"
    raise SystemExit(f"building vszhdrv needs a C compiler, and {command[0]!r} {problem}: CC names another one")


def platform_tag(library: Path, machine: str) -> str:
    """The widest platform that `library` runs on: that of its newest glibc symbol, or the macOS that was asked for;
    without either this machine's own."""
    processor = machine.split("-")[0]
    if library.suffix == ".dll":
        return {"x86_64": "win_amd64", "aarch64": "win_arm64"}[processor]
    if version := re.search(r"-macos\.(\d+)\.(\d+)", machine):  # zig's; Apple's compiler names no version
        return f"macosx_{version[1]}_{version[2]}_{'arm64' if processor == 'aarch64' else processor}"
    glibc = [int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", library.read_bytes())]
    if not glibc:
        return next(platform_tags())
    newest = max(17, *glibc)  # installers look for no older tag on every processor
    return f"manylinux_2_{newest}_{processor if processor in ('x86_64', 'aarch64') else platform.machine()}"
