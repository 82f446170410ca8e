"""core.zhdrv's way from VapourSynth through C into Python and back: values, errors, threads, cores, interrupts."""

import gc
import inspect
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import vapoursynth as vs

from vszhdrv.errors import Failed, Refused
from vszhdrv.plugin import dispatch, functions

VERSION = {"version": "1", "torch": "2", "device": "cpu", "path": "/"}


@pytest.fixture
def clip() -> Any:
    return vs.core.std.BlankClip(width=16, height=16, length=2)


def replace(monkeypatch: pytest.MonkeyPatch, **by: Callable[..., Any]) -> None:
    """Put functions of the test's own in the place of those that core.zhdrv calls."""
    for name, function in by.items():
        monkeypatch.setattr(functions, name, function, raising=False)


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make core.zhdrv.Version() raise `error`."""

    def version() -> dict[str, str]:
        raise error

    replace(monkeypatch, version=version)


def test_the_table_and_the_python_functions_agree() -> None:
    registered = {function.name: function.signature for function in vs.core.zhdrv.functions()}
    del registered["Bridge"]
    assert set(registered) == {"Expand", "Mask", "Train", "Still", "WriteEXR", "Version"}
    for name, signature in registered.items():
        arguments = [argument.split(":")[0] for argument in signature.split(";") if argument]
        # bind raises TypeError for an argument that the function does not take, or wants and would not get
        inspect.signature(getattr(functions, dispatch.snake_case(name))).bind(**dict.fromkeys(arguments))


def test_version_answers_for_the_package_that_is_installed() -> None:
    answer = vs.core.zhdrv.Version()
    assert set(answer) == {"version", "torch", "device", "path"}
    assert Path(answer["path"]) == Path(functions.__file__).parent.parent


def test_arguments_arrive_as_python_values_and_absent_ones_stay_absent(
    clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: dict[str, Any] = {}

    def write_exr(clip: Any, filename: str, half: bool = True, first: int = 7, white: float = 0.0) -> Any:
        got.update(filename=filename, half=half, first=first, white=white)
        return clip

    replace(monkeypatch, write_exr=write_exr)
    out = vs.core.zhdrv.WriteEXR(clip, filename=b"a\xff%06d.exr", half=0, white=203, compression=None)
    assert got == {"filename": "a\udcff%06d.exr", "half": False, "first": 7, "white": 203.0}
    assert type(got["half"]) is bool
    assert isinstance(out, vs.VideoNode)


@pytest.mark.parametrize(("given", "taken"), [(256, [256]), ([256], [256]), ([256, 128], [256, 128])])
def test_an_array_is_a_list_even_of_one_value(
    clip: Any, monkeypatch: pytest.MonkeyPatch, given: Any, taken: list[int]
) -> None:
    got: list[list[int]] = []

    def expand(clip: Any, tile: list[int]) -> Any:
        got.append(tile)
        return clip

    replace(monkeypatch, expand=expand)
    vs.core.zhdrv.Expand(clip, tile=given)
    assert got == [taken]


def test_a_path_comes_back_as_text(clip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    replace(monkeypatch, train=lambda clip: Path("/tmp/w.safetensors"))
    assert vs.core.zhdrv.Train(clip) == "/tmp/w.safetensors"


@pytest.mark.parametrize(
    "error",
    [
        Refused("preset is 'slow'; it must be 'fast' or 'paper'"),
        vs.Error("the source failed"),
        Failed("not enough memory"),
        OSError("no space left in /cache"),
        MemoryError("Unable to allocate 2.0 GiB for an array"),
    ],
)
def test_an_expected_error_is_its_own_sentence(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    fail_with(monkeypatch, error)
    with pytest.raises(vs.Error) as raised:
        vs.core.zhdrv.Version()
    assert str(raised.value) == f"zhdrv.Version: {error}"


def test_an_unexpected_error_says_so_and_logs_its_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fail_with(monkeypatch, KeyError("gone"))
    with pytest.raises(vs.Error) as raised:
        vs.core.zhdrv.Version()
    assert str(raised.value) == "zhdrv.Version: internal error: KeyError: 'gone'"
    assert "Traceback" in caplog.text
    assert "in fail_with" not in str(raised.value)


def test_an_error_may_hold_what_utf8_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, Refused("no file 'ä\udcff'"))
    with pytest.raises(vs.Error) as raised:
        vs.core.zhdrv.Version()
    assert str(raised.value) == r"zhdrv.Version: no file 'ä\udcff'"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Expand: argument clip is required"),
        ({"clip": 3}, "clip was passed an unsupported type"),
        ({"clip": "a.mp4"}, "clip was passed an unsupported type"),
        ({"gamma": 2.2}, "Function does not take argument(s) named gamma"),
    ],
)
def test_vapoursynth_itself_refuses_what_the_table_excludes(clip: Any, arguments: Any, message: str) -> None:
    if "gamma" in arguments:
        arguments = {"clip": clip, **arguments}
    with pytest.raises(vs.Error) as raised:
        vs.core.zhdrv.Expand(**arguments)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_audio_node_is_refused() -> None:
    with pytest.raises(vs.Error, match="clip was passed an unsupported type"):
        vs.core.zhdrv.Expand(vs.core.std.BlankAudio())


def test_bridge_is_of_no_use_to_others() -> None:
    with pytest.raises(vs.Error, match=r"^zhdrv\.Bridge: is for vszhdrv's own use"):
        vs.core.zhdrv.Bridge(print)


def test_a_call_may_call_again(clip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    replace(monkeypatch, version=lambda: VERSION)
    replace(monkeypatch, train=lambda clip: vs.core.zhdrv.Version()["version"])
    assert vs.core.zhdrv.Train(clip) == "1"


def test_calls_from_several_threads_get_their_own_answers(clip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(4, timeout=10)

    def train(clip: Any, path: str) -> str:
        together.wait()  # all four are inside at once
        return path

    replace(monkeypatch, train=train)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: vs.core.zhdrv.Train(clip, path=str(n)), range(16)))
    assert answers == [str(n) for n in range(16)]


def test_a_call_from_within_a_frame_request(clip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    replace(monkeypatch, mask=lambda clip: clip.std.Invert())
    out = clip.std.FrameEval(lambda n: vs.core.zhdrv.Mask(clip))
    assert out.get_frame(1)[0][0, 0] == 255


def answers_alive() -> int:
    """How many of the callables that dispatch.forward makes, one a call, still exist."""
    gc.collect()
    things = gc.get_objects()
    return sum(type(t) is FunctionType and t.__qualname__ == "forward.<locals>.answer" for t in things)


def test_no_callable_outlives_its_call(clip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # one that VapourSynth still held would hold its core, too
    before = answers_alive()  # tracebacks of earlier tests may hold some
    replace(monkeypatch, expand=lambda clip: clip, version=lambda: int("a new error, that holds no frames, each time"))
    for _ in range(10):
        vs.core.zhdrv.Expand(clip)
        with pytest.raises(vs.Error):
            vs.core.zhdrv.Version()
    assert answers_alive() == before


def test_keyboard_interrupt_is_one_for_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        vs.core.zhdrv.Version()


BUSY = """
import time, vapoursynth as vs
from vszhdrv.plugin import functions
def version():
    print("busy", flush=True)
    while True:
        time.sleep(0.01)
functions.version = version
vs.core.zhdrv.Version()
"""


def test_ctrl_c_ends_a_call() -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"busy\n"
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=20)
    assert child.returncode == -signal.SIGINT
    assert errors.decode().rstrip().endswith("KeyboardInterrupt")
    assert "vapoursynth.Error" not in errors.decode()


TWO_CORES = """
import threading, vapoursynth as vs

class Policy(vs.EnvironmentPolicy):
    current = None
    def on_policy_registered(self, api): self.api = api
    def on_policy_cleared(self): pass
    def get_current_environment(self): return self.current
    def set_environment(self, environment):
        previous, self.current = self.current, environment
        return previous

policy = Policy()
vs.register_policy(policy)
from vszhdrv.plugin import functions
functions.train = lambda clip: f"{clip.width}"
clips = {}
environments = [policy.api.create_environment() for _ in range(2)]
for width, environment in zip((16, 32), environments):
    with policy.api.wrap_environment(environment).use():
        clips[width] = vs.core.std.BlankClip(width=width, length=1)
        print(vs.core.zhdrv.Train(clips[width]))
        function = vs.core.zhdrv.Train
with policy.api.wrap_environment(environments[0]).use():
    try:
        function(clips[32])
    except vs.Error as error:
        print(error)
try:
    function(clips[32])
except vs.Error as error:
    print(error)
for environment in environments:
    policy.api.destroy_environment(environment)
"""


def test_each_environment_is_served_in_its_own_core(run_python: Any) -> None:
    done = run_python(TWO_CORES)
    assert done.returncode == 0, done.stderr
    own, other, foreign, none = done.stdout.splitlines()
    assert (own, other) == ("16", "32")
    assert foreign == "zhdrv.Train: this call belongs to another core than the one that Python uses in this thread"
    assert "No environment is currently activated" in none


LEAVE = """
import vapoursynth as vs
from vszhdrv.plugin import functions
functions.expand = lambda clip: clip.std.ModifyFrame(clip, lambda n, f: f)
clip = vs.core.std.BlankClip(length=2)
for _ in range(50):
    last = vs.core.zhdrv.Expand(clip)
    last.get_frame(0).close()
"""


def test_the_process_ends_cleanly_after_many_calls(run_python: Any) -> None:
    done = run_python(LEAVE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_python_without_the_package_is_named(run_python: Any) -> None:
    done = run_python(
        "import sys; sys.modules['vszhdrv'] = None\nimport vapoursynth as vs\n"
        "try: vs.core.zhdrv.Version()\nexcept vs.Error as error: print(error)"
    )
    assert done.stdout.startswith("zhdrv.Version: this program's Python cannot import vszhdrv: ")
    assert done.stderr == ""


HOST = r"""
#include <dlfcn.h>
#include <stdio.h>
#include <VapourSynth4.h>
int main(int argc, char **argv) {
    void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL;
    if (!library) return 2;
    const VSAPI *(*get)(int) = (const VSAPI *(*)(int))dlsym(library, "getVapourSynthAPI");
    const VSAPI *vs = get(VAPOURSYNTH_API_VERSION);
    VSCore *core = vs->createCore(0);
    VSPlugin *plugin = vs->getPluginByNamespace("zhdrv", core);
    if (!plugin) return 3;
    VSMap *arguments = vs->createMap();
    VSMap *result = vs->invoke(plugin, "Version", arguments);
    puts(vs->mapGetError(result));
    vs->freeMap(arguments);
    vs->freeMap(result);
    vs->freeCore(core);
    return 0;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs the C compiler cc")
def test_a_program_without_python_gets_a_sentence(tmp_path: Path) -> None:
    source, program = tmp_path / "host.c", tmp_path / "host"
    source.write_text(HOST)
    subprocess.run(["cc", source, "-o", program, f"-I{vs.get_include()}", "-ldl"], check=True)
    library = next(Path(vs.__file__).parent.glob("libvapoursynth.*"))
    done = subprocess.run([program, library], capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    assert done.returncode == 0
    assert done.stdout == (
        "zhdrv.Version: needs a program that runs Python (python, vspipe, a script editor), and this one does not\n"
    )
