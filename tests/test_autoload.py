"""An installed vszhdrv is there in VapourSynth without an import, and costs those nothing who don't call it."""

from typing import Any

LOOK = """
import sys
before = set(sys.modules)
import vapoursynth as vs
names = {plugin.namespace for plugin in vs.core.plugins()}
vs.core.zhdrv
loaded = {name.split(".")[0] for name in set(sys.modules) - before}
print("zhdrv" in names, sorted(loaded & {"torch", "vszhdrv", "numpy", "OpenEXR", "safetensors"}), file=sys.stderr)
"""

CALL = """
import sys
import vapoursynth as vs
from vszhdrv.plugin import functions
functions.train = lambda clip: f"{clip.width}"
print(vs.core.zhdrv.Train(vs.core.std.BlankClip(width=32)), file=sys.stderr)
"""


def test_python_has_the_namespace_and_loads_nothing_for_it(run_python: Any) -> None:
    done = run_python(LOOK)
    assert (done.returncode, done.stderr) == (0, "True []\n")


def test_vspipe_has_the_namespace_and_loads_nothing_for_it(run_vspipe: Any) -> None:
    done = run_vspipe(LOOK + "vs.core.std.BlankClip(length=1).set_output()\n", "--info")
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("True []\n")
    assert "Frames: 1" in done.stdout


def test_a_call_works_under_vspipe(run_vspipe: Any) -> None:
    done = run_vspipe(CALL + "vs.core.std.BlankClip(length=1).set_output()\n", "--info")
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("32\n")


def test_an_error_under_vspipe_is_the_sentence(run_vspipe: Any) -> None:
    script = """
import vapoursynth as vs
from vszhdrv.errors import Refused
from vszhdrv.plugin import functions
def version():
    raise Refused("no such thing")
functions.version = version
vs.core.zhdrv.Version()
"""
    done = run_vspipe(script, "--info")
    assert done.returncode != 0
    assert "vapoursynth.Error: zhdrv.Version: no such thing" in done.stderr
    assert "in answer" not in done.stderr  # where the error arose inside the package


def test_every_signature_is_readable(run_python: Any) -> None:
    done = run_python(
        "import vapoursynth as vs\nfor f in vs.core.zhdrv.functions(): print(f.name, f.signature, f.return_signature)"
    )
    registered = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert registered["Expand"][0].startswith("clip:vnode;")
    assert registered["Expand"][1] == "clip:vnode;"
    assert done.stderr == ""  # VapourSynth reports a malformed signature there
