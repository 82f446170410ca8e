"""The floors of docs/architecture.md: no import runs upwards, none runs in a circle, and the picture is the disk."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vszhdrv"
GROUND = {"errors", "files", "version", "options"}
"""Modules that import nothing of the package, or one another."""
FORBIDDEN = {
    "zhdrv": {"command", "plugin", "store", "exr", "light", "progress", "stills", "files", ""},
    "store": {"command", "plugin", "zhdrv", "exr", "light", "progress", "stills", ""},
    "plugin": {"command", ""},
    "command": {"plugin"},
    "exr": {"command", "plugin", "store", "zhdrv", "light", "progress", "stills", ""},
    "drawing": {"command", "plugin", "store", "zhdrv", "exr", "light", "progress", "stills", ""},
    "light": {"command", "plugin", "store", "zhdrv", "progress", "stills", ""},
    "stills": {"command", "plugin", "store", "zhdrv", "progress", ""},
    "progress": {"command", "plugin", "store", "zhdrv", "exr", "light", "stills", ""},
    **{name: {"command", "plugin", "store", "zhdrv", "exr", "light", "progress", "stills", ""} for name in GROUND},
}
"""Rooms by what they must not import. "" is the public face, which is for scripts and for the command line."""


def module_of(path: Path) -> str:
    """The dotted name of a file, without the package's: "plugin.job", "files"; "" for the public face."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_of(path): path for path in PACKAGE.rglob("*.py")}


def room(module: str) -> str:
    return module.split(".")[0]


def imports(module: str) -> Iterator[str]:
    """The modules of the package that a module imports, inside of functions and for its types, too."""
    package = (
        ["vszhdrv", *module.split(".")]
        if MODULES[module].name == "__init__.py"
        else ["vszhdrv", *module.split(".")][:-1]
    )
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            names = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*(part for part in above if part), *([node.module] if node.module else [])])
            names = [(base, alias.name) for alias in node.names]
        else:
            continue
        for base, name in names:
            if base.split(".")[0] == "vszhdrv":
                inner = base.removeprefix("vszhdrv").removeprefix(".")
                below = f"{inner}.{name}".strip(".")
                yield below if below in MODULES else inner


@pytest.mark.parametrize("module", MODULES)
def test_no_import_runs_upwards(module: str) -> None:
    wrong = {other for other in imports(module) if room(other) in FORBIDDEN.get(room(module), set())}
    assert not wrong, f"{module} must not import {wrong}"


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) == "zhdrv"])
def test_the_method_knows_no_vapoursynth(module: str) -> None:
    assert not re.search(r"^\s*(import|from) vapoursynth", MODULES[module].read_text(), re.MULTILINE)


def test_no_imports_run_in_a_circle() -> None:
    packages = {module for module, path in MODULES.items() if path.name == "__init__.py"}  # the face loads lazily
    graph = {module: {other for other in imports(module) if other not in packages} for module in MODULES}
    try:
        list(TopologicalSorter({module: graph[module] for module in MODULES if module not in packages}).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_picture_is_the_disk() -> None:
    listing = (ROOT / "docs" / "architecture.md").read_text().split("## Layout")[1].split("\n## ")[0]
    drawn, folders = set(), [""]
    for line in listing.split("    vszhdrv/\n")[1].split("    scripts/")[0].splitlines():
        match = re.match(r"^(?P<indent> +)(?P<name>\w+)(?P<kind>/|\.py\b)", line)
        if match is None:
            continue
        depth = (len(match["indent"]) - 6) // 2
        folders[depth + 1 :] = []
        if match["kind"] == "/":
            folders.append(f"{folders[depth]}{match['name']}/")
        else:
            drawn.add(f"{folders[depth]}{match['name']}.py")
    packages = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("__init__.py")} - {"__init__.py"}
    assert drawn == {str(path.relative_to(PACKAGE)) for path in MODULES.values()} - packages
