"""The built wheel: the library lies where VapourSynth looks, and the tag says where it runs."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import vszhdrv

ROOT = Path(__file__).parent.parent
PLUGIN = "vapoursynth/plugins/zhdrv/"
MINGW = "x86_64-w64-mingw32-gcc"

pytest.importorskip("hatchling", reason="needs hatchling")
pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs the C compiler cc")


def build(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Build a wheel of this checkout into `folder` with the packages of this environment: no network."""
    return subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def built(folder: Path, **environment: str) -> Path:
    """The wheel that `build` makes without an error or a warning."""
    done = build(folder, **environment)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr  # the compiler's, with -Wall -Wextra
    (file,) = folder.iterdir()
    return file


def plugin_files(wheel: Path) -> dict[str, bytes]:
    """What the wheel puts into the plugin's folder: names and contents."""
    with zipfile.ZipFile(wheel) as archive:
        return {name.removeprefix(PLUGIN): archive.read(name) for name in archive.namelist() if name.startswith(PLUGIN)}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("wheel"))


def test_the_tag_names_this_platform_and_no_python_version(wheel: Path) -> None:
    name, version, tag = wheel.name.removesuffix(".whl").split("-", 2)
    assert (name, version) == ("vszhdrv", vszhdrv.__version__)
    assert re.fullmatch(r"py3-none-(manylinux_2_\d+|musllinux_\d_\d+|linux|macosx_\d+_\d+)_\w+", tag)
    assert tag.endswith(sysconfig.get_platform().split("-")[-1]) or sys.platform == "darwin"


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_the_tag_covers_every_glibc_symbol(wheel: Path) -> None:
    library = plugin_files(wheel)["libzhdrv.so"]
    needed = [int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", library)]
    promised = re.search(r"manylinux_2_(\d+)_", wheel.name)
    assert promised is None or int(promised[1]) == max(17, *needed)
    assert b"libpython" not in library


def test_library_and_manifest_are_in_vapoursynths_folder(wheel: Path) -> None:
    placed = plugin_files(wheel)
    with zipfile.ZipFile(wheel) as archive:
        metadata = Parser().parsestr(archive.read(f"vszhdrv-{vszhdrv.__version__}.dist-info/WHEEL").decode())
    library = "libzhdrv.dylib" if sys.platform == "darwin" else "libzhdrv.so"
    assert placed.keys() == {library, "manifest.vs"}
    assert placed["manifest.vs"].decode().splitlines() == ["[VapourSynth Manifest V1]", "libzhdrv"]
    assert metadata["Root-Is-Purelib"] == "false"


def test_the_package_is_complete_and_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.split("/")[0] for name in names}
    assert tops == {"vszhdrv", "vapoursynth", f"vszhdrv-{vszhdrv.__version__}.dist-info"}
    modules = {str(file.relative_to(ROOT)) for file in (ROOT / "vszhdrv").rglob("*.py")}
    assert modules <= names
    assert "vszhdrv/py.typed" in names
    assert not [name for name in names if name.endswith((".c", ".pyc"))]


@pytest.fixture(scope="module")
def windows_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which(MINGW) is None:
        pytest.skip(f"needs the C compiler {MINGW}")
    return built(tmp_path_factory.mktemp("windows"), CC=MINGW)


def test_a_compiler_for_windows_makes_a_wheel_for_windows(windows_wheel: Path) -> None:
    assert windows_wheel.name == f"vszhdrv-{vszhdrv.__version__}-py3-none-win_amd64.whl"
    placed = plugin_files(windows_wheel)
    assert placed.keys() == {"libzhdrv.dll", "manifest.vs"}
    assert placed["manifest.vs"] == b"[VapourSynth Manifest V1]\nlibzhdrv\n"


def test_the_library_for_windows_needs_windows_alone(windows_wheel: Path) -> None:
    library = plugin_files(windows_wheel)["libzhdrv.dll"]
    linked = set(re.findall(rb"([\w-]+\.dll)\0", library))
    assert linked == {b"libzhdrv.dll", b"KERNEL32.dll", b"msvcrt.dll", b"python3.dll"}  # the last by name, at a call
    assert b"VapourSynthPluginInit2\0" in library


# Wheels of other platforms: scripts/build_wheels.py


def wheels_of(folder: Path, *platforms: str) -> dict[str, Path]:
    """The wheels that scripts/build_wheels.py builds, by their tags' platforms."""
    pytest.importorskip("ziglang", reason="needs ziglang")
    command = [sys.executable, ROOT / "scripts" / "build_wheels.py", folder, *platforms]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    return {path.stem.split("-none-")[1]: path for path in folder.glob("*.whl")}


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return wheels_of(tmp_path_factory.mktemp("others"), "linux-x86_64", "linux-aarch64", "macos-arm64")


def test_one_machine_builds_the_wheels_of_others(others: dict[str, Path]) -> None:
    assert others.keys() == {"manylinux_2_17_x86_64", "manylinux_2_17_aarch64", "macosx_11_0_arm64"}
    for platform, wheel in others.items():
        (name,) = plugin_files(wheel).keys() - {"manifest.vs"}
        assert name == ("libzhdrv.dylib" if platform.startswith("macosx") else "libzhdrv.so")
        assert plugin_files(wheel)["manifest.vs"] == b"[VapourSynth Manifest V1]\nlibzhdrv\n"
        with zipfile.ZipFile(wheel) as archive:
            modules = {str(file.relative_to(ROOT)) for file in (ROOT / "vszhdrv").rglob("*.py")}
            assert modules <= set(archive.namelist())
            about = Parser().parsestr(archive.read(f"vszhdrv-{vszhdrv.__version__}.dist-info/WHEEL").decode())
        assert about["Tag"] == f"py3-none-{platform}"


def test_the_libraries_are_for_their_processors_and_need_no_python(others: dict[str, Path]) -> None:
    starts = {"x86_64": b"\x7fELF\2\1", "aarch64": b"\x7fELF\2\1", "arm64": b"\xcf\xfa\xed\xfe"}
    machines = {"x86_64": (18, 62), "aarch64": (18, 183), "arm64": (4, 12)}  # e_machine; a Mach-O's cputype
    for platform, wheel in others.items():
        processor = next(name for name in starts if platform.endswith(name))
        (library,) = (content for name, content in plugin_files(wheel).items() if name != "manifest.vs")
        place, number = machines[processor]
        assert library.startswith(starts[processor])
        assert int.from_bytes(library[place : place + 2], "little") == number
        assert b"VapourSynthPluginInit2\0" in library and b"libpython" not in library
        assert max([0, *(int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", library))]) <= 17
        if processor == "arm64":
            assert b"\xfa\xde\x0c\xc0" in library  # signed, which Apple's processors ask for


@pytest.mark.skipif(sysconfig.get_platform() != "linux-x86_64", reason="the library is for Linux on x86-64")
def test_the_library_for_this_system_loads(others: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "libzhdrv.so").write_bytes(plugin_files(others["manylinux_2_17_x86_64"])["libzhdrv.so"])
    code = "import ctypes, sys; ctypes.CDLL(sys.argv[1]).VapourSynthPluginInit2"
    subprocess.run([sys.executable, "-c", code, tmp_path / "libzhdrv.so"], check=True)


@pytest.mark.slow
def test_zig_makes_the_wheel_for_windows(tmp_path: Path) -> None:
    found = wheels_of(tmp_path, "windows-x86_64")
    assert found.keys() == {"win_amd64"}
    library = plugin_files(found["win_amd64"])["libzhdrv.dll"]
    assert library.startswith(b"MZ") and b"VapourSynthPluginInit2\0" in library


def test_the_workflow_names_what_is_there() -> None:
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "wheels.yml").read_text())
    jobs = workflow["jobs"]
    assert jobs["test"]["needs"] == "build" and jobs["publish"]["needs"] == "test"
    lines = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    named = {word for line in lines for word in re.findall(r"[\w./]+\.(?:py|toml|mp4)", line)}
    assert named and all((ROOT / name).is_file() for name in named)


@pytest.mark.parametrize("there", [True, False])
def test_zig_is_asked_for_where_no_compiler_is_there(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "cc").touch(mode=0o755)
    needs = "import hatchling.build as build; print(build.get_requires_for_build_wheel())"
    environment = {name: value for name, value in os.environ.items() if name != "CC"} | {"PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", needs], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n" if there else "['ziglang']\n", "")


@pytest.mark.parametrize("tools", [True, False])
def test_a_mac_without_apples_tools_has_no_compiler(monkeypatch: pytest.MonkeyPatch, tools: bool) -> None:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None and spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    asked = subprocess.CompletedProcess(["xcode-select", "-p"], 0 if tools else 2)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: asked if command == asked.args else None)
    assert hook.c_compiler() == (["cc"] if tools else hook.ZIG)


def test_a_missing_compiler_is_named(tmp_path: Path) -> None:
    done = build(tmp_path, CC="no-such-compiler")
    assert done.returncode != 0
    assert "building vszhdrv needs a C compiler, and 'no-such-compiler' is not there" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="false is Unix's")
def test_a_compiler_that_fails_is_named(tmp_path: Path) -> None:
    done = build(tmp_path, CC="false")
    assert done.returncode != 0
    assert "building vszhdrv needs a C compiler, and 'false' failed" in done.stderr
