"""What all tests share: a cache folder of their own, real processes to run scripts in, and the --slow switch."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

for name, usual in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    number = getattr(signal, name, None)  # Windows has no SIGHUP
    # ignored by nohup or a shell's &: processes that tests stop inherit it
    if number is not None and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests that take more than ten seconds, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="takes more than ten seconds: run with --slow"))


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where Python is not to write bytecode, the tests' processes keep it for one another: torch compiles slowly."""
    with pytest.MonkeyPatch.context() as patch:
        if sys.dont_write_bytecode:
            patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
            patch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path_factory.mktemp("bytecode")))
        yield


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or fills the user's store of trained networks."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("VSZHDRV_CACHE", str(folder))
    return folder


@pytest.fixture
def run_python() -> Run:
    """Runs Python code in a fresh process of this interpreter."""

    def run(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)

    return run


@pytest.fixture
def run_vspipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs vspipe on a script's text: run_vspipe(text, "--info")."""
    scripts = Path(sys.executable).parent
    monkeypatch.setenv("PATH", os.pathsep.join([str(scripts), os.environ["PATH"]]))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))  # which Python vspipe runs; it writes that down by itself

    def run(script: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        file = tmp_path / "script.vpy"
        file.write_text(script)
        command: list[str | Path] = [scripts / "vspipe", file, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    return run


@pytest.fixture(scope="session")
def lamps() -> np.ndarray:
    """Four frames (4, 3, 96, 160), uint8 codes of linear^(1/2.2): soft lights of many sizes, the strong ones clip."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[0:96, 0:160].astype(np.float32)
    picture = 0.1 + 0.05 * np.sin(x / 5) * np.sin(y / 4)
    for _ in range(40):
        distance = np.hypot(x - rng.uniform(0, 160), y - rng.uniform(0, 96))
        picture = np.maximum(picture, 2 ** rng.uniform(-1, 3) * np.exp2(-((2 * distance / rng.uniform(5, 14)) ** 2)))
    tinted = np.stack([picture * tint for tint in (1.0, 0.9, 0.7)]).clip(0, 1) ** (1 / 2.2)
    return np.stack([np.round(255 * np.roll(tinted, 7 * n, -1)) for n in range(4)]).astype(np.uint8)
