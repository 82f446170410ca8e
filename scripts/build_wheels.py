# /// script
# requires-python = ">=3.12"
# dependencies = ["hatchling>=1.27", "packaging>=24", "vapoursynth>=78", "ziglang>=0.13"]
# ///
"""The sdist and the wheels of every platform, built on one machine: uv run scripts/build_wheels.py dist

The only native code is a small library that links to nothing of VapourSynth or Python, so that zig's C compiler builds
it for every system. VapourSynth and torch have wheels for each of these platforms.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TARGETS = {
    "linux-x86_64": "x86_64-linux-gnu.2.17",
    "linux-aarch64": "aarch64-linux-gnu.2.17",
    "macos-arm64": "aarch64-macos.11.0",
    "windows-x86_64": "x86_64-windows-gnu",
}
"""What zig calls each platform, with the oldest glibc and macOS that the library is for."""


def build(folder: Path, kind: str, target: str | None = None) -> None:
    """Build a "wheel" for a zig target, or the "sdist", into `folder`.

    Raises CalledProcessError where that fails; hatchling has then said why.
    """
    environment = dict(os.environ)
    if target is not None:
        zig = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-s"]  # -s: without what only debuggers read
        environment["CC"] = shlex.join(zig)
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder.absolute())]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the sdist and wheels on one machine.")
    parser.add_argument("folder", type=Path, help="where they go")
    parser.add_argument("platforms", nargs="*", metavar="PLATFORM", help=f"{', '.join(TARGETS)} (all)")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.platforms if name not in TARGETS]:
        parser.error(f"PLATFORM must be one of {', '.join(TARGETS)}, not {unknown[0]!r}")
    if not arguments.platforms:
        build(arguments.folder, "sdist")
    for name in arguments.platforms or TARGETS:
        build(arguments.folder, "wheel", TARGETS[name])


if __name__ == "__main__":
    main()
