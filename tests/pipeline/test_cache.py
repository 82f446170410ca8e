"""A network is trained once: real vspipe and Python processes that share a store, are killed, and find it damaged.

tests/test_store.py has the store's own promises; here they are kept by the whole way, from a script to its pixels.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import vapoursynth as vs
from PIL import Image

from vszhdrv import files
from vszhdrv.store import weight_files

WIDTH, HEIGHT, LENGTH = 64, 48, 8
STEPS = 50  # an epoch of the fast preset
FRAME_BYTES = WIDTH * HEIGHT * 3 * 4
LIMIT = 120.0

CLIP = f"""
import os, sys, time
import vapoursynth as vs
from vapoursynth import core

# a ramp that moves; its bright end is clipped
steps = [core.std.BlankClip(width=4, height={HEIGHT}, length=1, format=vs.RGB24, color=[min(255, 14 * k)] * 3)
         for k in range({WIDTH // 4 + LENGTH})]
ramp = core.std.StackHorizontal(steps)
clip = core.std.Splice([ramp.std.CropAbs({WIDTH}, {HEIGHT}, left=4 * n) for n in range({LENGTH})])
"""
# A state after every step and a line for everything: whoever kills the process knows the moment.
TALKATIVE = """
from vszhdrv.plugin import functions, job
job.STATE_SECONDS = functions.LOG_SECONDS = 0
"""
# Stays for ever in the middle of writing the first file whose name has HANG in it.
HANGING = """
def hang(handle):
    if os.environ["HANG"] in os.readlink(f"/proc/self/fd/{handle}"):
        print("hanging", file=sys.stderr, flush=True)
        time.sleep(600)
if "HANG" in os.environ:
    os.fsync = hang
"""
EXPAND = "clip = core.zhdrv.Expand(clip, epochs=1, device='cpu')\n"
SCRIPT = CLIP + TALKATIVE + HANGING + EXPAND + "clip.set_output()\n"


class Vspipe:
    """A vspipe process in a process group of its own. Its frames are in `output` once it has ended."""

    def __init__(self, script: Path, *arguments: str, **environment: str) -> None:
        command: list[str | Path] = [Path(sys.executable).parent / "vspipe", script, *arguments]
        self._output = script.with_name(f"{script.stem}{time.monotonic_ns()}.raw")
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                env={**os.environ, **environment},
            )
        self.said: list[str] = []
        self._watchdog = threading.Timer(LIMIT, self.kill)  # a process that waits for ever fails its test
        self._watchdog.start()

    @property
    def output(self) -> bytes:
        return self._output.read_bytes()

    def wait_for(self, words: str) -> None:
        """Read on until a line of the log has these words."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if words in line:
                return
        pytest.fail(f"{words!r} was never said, but {self.said}")

    def kill(self) -> None:
        """As a power cut, or the system's out-of-memory killer: nobody gets to tidy up."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._end()

    def end(self) -> bytes:
        """Let it finish; its frames."""
        assert self.process.stderr is not None
        self.said += self.process.stderr
        assert self.process.wait() == 0, self.said
        self._end()
        return self.output

    def _end(self) -> None:
        self._watchdog.cancel()

    def count(self, words: str) -> int:
        return sum(words in line for line in self.said)


def trains(vspipe: Vspipe) -> bool:
    return vspipe.count("zhdrv: training ") > 0


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """vspipe knows its Python, and trains in one thread: fastest for pictures this small."""
    with pytest.MonkeyPatch.context() as patch:
        scripts = Path(sys.executable).parent
        patch.setenv("PATH", os.pathsep.join([str(scripts), os.environ["PATH"]]))
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.setenv("OMP_NUM_THREADS", "1")
        subprocess.run([scripts / "vapoursynth", "config"], check=True, capture_output=True)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("script") / "expand.vpy"
    path.write_text(SCRIPT)
    return path


@pytest.fixture(scope="module")
def alone(script: Path, environment: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Vspipe]:
    """One process that trained and ended, and its cache folder."""
    cache = tmp_path_factory.mktemp("alone")
    vspipe = Vspipe(script, "-", VSZHDRV_CACHE=str(cache))
    vspipe.end()
    return cache, vspipe


@pytest.fixture
def trained(alone: tuple[Path, Vspipe], own_cache: Path) -> Path:
    """The weights file in this test's own cache, which has the network already."""
    shutil.copytree(alone[0], own_cache, dirs_exist_ok=True)
    return weights_in(own_cache)


def weights_in(cache: Path) -> Path:
    (path,) = (path for path in cache.rglob("*.safetensors") if path.name.count(".") == 1)
    return path


def names(cache: Path) -> list[str]:
    """Files in the store, by their names after the key."""
    return sorted(path.name.split(".", 1)[1] for path in (cache / "networks").iterdir() if path.suffix != ".lock")


def source() -> vs.VideoNode:
    scope: dict[str, Any] = {}
    exec(CLIP, scope)
    clip: vs.VideoNode = scope["clip"]
    return clip


def expand(clip: vs.VideoNode, **arguments: Any) -> vs.VideoNode:
    expanded: vs.VideoNode = vs.core.zhdrv.Expand(clip, **{"epochs": 1, "device": "cpu", **arguments})
    return expanded


def mask(clip: vs.VideoNode, **arguments: Any) -> vs.VideoNode:
    masked: vs.VideoNode = vs.core.zhdrv.Mask(clip, **arguments)
    return masked


def pixels(clip: vs.VideoNode) -> bytes:
    """What vspipe writes for an RGB clip: planes G, B, R."""
    planes = []
    for frame in clip.frames(close=True):
        planes += [np.asarray(frame[plane]).tobytes() for plane in (1, 2, 0)]
    return b"".join(planes)


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What this process tells VapourSynth's log."""
    lines: list[str] = []
    handle = vs.core.add_log_handler(lambda _, text: lines.append(text))
    yield lines
    vs.core.remove_log_handler(handle)


def test_standard_output_has_the_frames_and_not_a_byte_more(alone: tuple[Path, Vspipe], trained: Path) -> None:
    vspipe = alone[1]
    assert trains(vspipe)
    assert len(vspipe.output) == LENGTH * FRAME_BYTES
    assert vspipe.output == pixels(expand(source(), train=False))


def test_four_processes_train_once_and_agree(script: Path, alone: tuple[Path, Vspipe], own_cache: Path) -> None:
    chunks = [(str(first), str(first + LENGTH // 4 - 1)) for first in range(0, LENGTH, LENGTH // 4)]
    together = [Vspipe(script, "-s", start, "-e", end, "-") for start, end in chunks]
    output = b"".join(vspipe.end() for vspipe in together)
    assert sorted(map(trains, together)) == [False, False, False, True]
    for vspipe in together:
        assert vspipe.count("another process or filter is training") <= (0 if trains(vspipe) else 1)
    assert sum(vspipe.count("another process or filter is training") for vspipe in together) > 0
    assert names(own_cache) == ["last.safetensors", "safetensors"]
    assert output == alone[1].output


def test_killed_again_and_again_the_network_is_the_same(
    script: Path, alone: tuple[Path, Vspipe], own_cache: Path
) -> None:
    reading = Vspipe(script, "-")
    reading.wait_for("zhdrv: reading 3 of")
    reading.kill()
    assert names(own_cache) == []

    early = Vspipe(script, "-")
    early.wait_for("zhdrv: training 5 of")
    early.kill()
    assert early.count("going on") == 0
    assert names(own_cache)[0] == "state"

    saving = Vspipe(script, "-", HANG=".state")
    saving.wait_for("hanging")
    saving.kill()
    assert going_on_from(saving) >= 4
    assert sorted(files.PART in name for name in names(own_cache)) == [False, True]

    late = Vspipe(script, "-", HANG="safetensors")
    late.wait_for("hanging")
    waiter = Vspipe(script, "-")
    waiter.wait_for("another process or filter is training")
    late.kill()
    assert going_on_from(late) == going_on_from(saving)
    # Who waited goes on in the place of who was killed.
    assert waiter.end() == alone[1].output
    assert going_on_from(waiter) == STEPS - 1
    assert names(own_cache) == ["last.safetensors", "safetensors"]
    assert_same_networks(own_cache, alone[0])


def going_on_from(vspipe: Vspipe) -> int:
    (step,) = re.findall(rf"zhdrv: going on from step (\d+) of {STEPS}\n", "".join(vspipe.said))
    return int(step)


def assert_same_networks(one: Path, other: Path) -> None:
    for name in (".safetensors", ".last.safetensors"):
        paths = [weights_in(cache).with_suffix(name) for cache in (one, other)]
        ours, theirs = (weight_files.read(path).tensors() for path in paths)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[tensor], theirs[tensor]) for tensor in ours)


@pytest.mark.slow
def test_killed_at_any_moment(script: Path, alone: tuple[Path, Vspipe], own_cache: Path) -> None:
    seconds, kills = 0.25, 0
    while True:
        vspipe = Vspipe(script, "-")
        try:
            vspipe.process.wait(seconds)
            break
        except subprocess.TimeoutExpired:
            vspipe.kill()
            seconds, kills = seconds * 1.25, kills + 1
    assert kills > 5
    assert vspipe.end() == alone[1].output
    assert names(own_cache) == ["last.safetensors", "safetensors"]
    assert_same_networks(own_cache, alone[0])


def test_killing_who_waits_harms_nobody(script: Path, alone: tuple[Path, Vspipe], own_cache: Path) -> None:
    trainer = Vspipe(script, "-")
    trainer.wait_for("zhdrv: training 1 of")
    os.killpg(trainer.process.pid, signal.SIGSTOP)  # it shall not end before the other has come
    waiter = Vspipe(script, "-")
    waiter.wait_for("another process or filter is training")
    waiter.kill()
    os.killpg(trainer.process.pid, signal.SIGCONT)
    assert trainer.end() == alone[1].output
    assert_same_networks(own_cache, alone[0])


CACHED_CALL = """
import json
before = "torch" in sys.modules
started = time.perf_counter()
clip = core.zhdrv.Expand(clip, {arguments})
seconds = time.perf_counter() - started
after = "torch" in sys.modules
clip.get_frame(0).close()
print(json.dumps([seconds, before, after, "torch" in sys.modules]))
"""


def time_cached_call(script: str) -> float:
    """Seconds from the call to the clip, in a fresh process; torch waits for the first frame."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    seconds, *torch_loaded = json.loads(done.stdout)
    assert torch_loaded == [False, False, True]
    return float(seconds)


def test_a_cached_clip_needs_no_torch_until_its_first_frame(
    trained: Path, record_property: Callable[[str, object], None]
) -> None:
    seconds = time_cached_call(CLIP + CACHED_CALL.format(arguments="epochs=1, device='cpu'"))
    record_property("seconds", seconds)
    assert seconds < 30  # half a second, where nobody else wants the processor: scripts/benchmark.py measures it


@pytest.mark.slow
def test_the_example_clip_comes_at_once_when_it_is_cached(record_property: Callable[[str, object], None]) -> None:
    example = Path(__file__).parents[2] / "examples" / "room.mp4"
    load = f"clip = core.bs.VideoSource({str(example)!r}, cachemode=0)\n"
    expand(vs.core.bs.VideoSource(str(example), cachemode=0))
    seconds = time_cached_call(CLIP + load + CACHED_CALL.format(arguments="epochs=1, device='cpu'"))
    record_property("seconds", seconds)
    assert seconds < 0.5


def test_the_same_pixels_hit_wherever_they_come_from(trained: Path, tmp_path: Path) -> None:
    clip = source()
    from_longer = clip.std.BlankClip(length=3) + clip + clip
    for n, frame in enumerate(clip.frames(close=True)):
        picture = np.stack([np.asarray(frame[plane]) for plane in range(3)], axis=-1)
        Image.fromarray(picture).save(tmp_path / f"{n}.png")
    from_files = vs.core.imgseqs.Read([str(tmp_path / f"{n}.png") for n in range(LENGTH)])
    for same in (from_longer.std.Trim(3, 3 + LENGTH - 1), from_files):
        assert pixels(expand(same, train=False)) == pixels(expand(clip, train=False))


@pytest.mark.parametrize(
    ("change", "arguments"),
    [
        (lambda clip: clip.std.Levels(max_out=254), {}),
        (lambda clip: clip.std.Trim(1), {}),
        (lambda clip: clip.std.CropRel(right=2), {}),
        (lambda clip: clip.std.Reverse(), {}),
        (lambda clip: clip.std.SetFrameProps(_Transfer=1), {}),
        (lambda clip: clip, {"seed": 1}),
        (lambda clip: clip, {"n_exp_down": 3}),
    ],
)
def test_what_makes_another_network_misses(
    trained: Path, change: Callable[[vs.VideoNode], vs.VideoNode], arguments: dict[str, Any]
) -> None:
    with pytest.raises(vs.Error, match="train is off and no network for this clip"):
        expand(change(source()), train=False, **arguments)


def test_what_only_the_expansion_depends_on_hits(trained: Path) -> None:
    assert expand(source(), train=False, strength=0.5, peak=1000, n_exp_up=1).num_frames == LENGTH


def counted(clip: vs.VideoNode, calls: list[int]) -> vs.VideoNode:
    return clip.std.FrameEval(lambda n: calls.append(n) or clip)


def test_when_frame_costs_nothing_before_the_first_frame(script: Path, own_cache: Path) -> None:
    calls: list[int] = []
    expand(counted(source().std.SetFieldBased(0), calls), when="frame")
    assert set(calls) == {0}  # its colour
    lazy = script.with_name("lazy.vpy")
    lazy.write_text(CLIP + "clip = core.zhdrv.Expand(clip, when='frame')\nclip.set_output()\nprint(*sys.modules)\n")
    info = Vspipe(lazy, "--info").end().decode()
    assert f"Frames: {LENGTH}" in info
    assert " vszhdrv.plugin.job " in info
    assert not {"torch", "cv2", "scipy", "safetensors", "OpenEXR", "importlib.metadata", "email"} & set(info.split())
    assert list(own_cache.iterdir()) == []


@pytest.mark.parametrize("threads", [1, 4])
def test_when_frame_learns_the_same_and_once(
    alone: tuple[Path, Vspipe], own_cache: Path, log: list[str], threads: int
) -> None:
    before = vs.core.num_threads
    vs.core.num_threads = threads
    try:
        clips = [function(source(), epochs=1, device="cpu", when="frame") for function in (expand, mask, expand)]
        requests = [clip.get_frame_async(n) for n in range(LENGTH) for clip in clips]
        for request in requests:
            request.result(LIMIT).close()
    finally:
        vs.core.num_threads = before
    assert sum("zhdrv: training takes about" in line for line in log) == 1
    assert_same_networks(own_cache, alone[0])
    assert pixels(clips[0]) == pixels(clips[2]) == alone[1].output


def test_when_frame_chooses_among_many_frames_as_the_call_does(own_cache: Path, tmp_path: Path) -> None:
    flicker = source().std.Expr("x 2 /") + source()
    clip = flicker.std.Loop(10)  # more frames than one learns from
    caches = [str(tmp_path / when) for when in ("call", "frame")]
    call, frame = (expand(clip, when=when, cache=cache) for when, cache in zip(("call", "frame"), caches, strict=True))
    assert pixels(frame[:3]) == pixels(call[:3])
    assert_same_networks(*map(Path, caches))


def test_when_frame_fails_at_the_frame_in_a_sentence(own_cache: Path) -> None:
    clip = expand(source(), when="frame", train=False)
    with pytest.raises(vs.Error) as caught:
        clip.get_frame(3)
    assert str(caught.value).strip().startswith("zhdrv: train is off and no network for this clip")
    expand(source())
    clip.get_frame(3).close()


def test_when_frame_ends_with_its_process_though_another_trains(script: Path, own_cache: Path) -> None:
    """An editor that is closed does not wait for somebody else's training."""
    trainer = Vspipe(script, "--", HANG=".safetensors")
    trainer.wait_for("hanging")
    leaver = (
        CLIP
        + """
import threading
heard = threading.Event()
core.add_log_handler(lambda kind, text: heard.set() if "waiting for its network" in text else None)
clip = core.zhdrv.Expand(clip, epochs=1, device="cpu", when="frame")
request = clip.get_frame_async(0)
print(heard.wait(60))
"""
    )
    left = subprocess.run([sys.executable, "-c", leaver], capture_output=True, text=True, timeout=LIMIT)
    assert (left.returncode, left.stdout) == (0, "True\n")
    trainer.kill()


def test_when_is_one_of_two() -> None:
    with pytest.raises(vs.Error, match="when must be call or frame, not 'never'"):
        expand(source(), when="never")


def truncate(path: Path) -> str:
    path.write_bytes(path.read_bytes()[:-1000])
    return "is not a whole safetensors file"


def age(path: Path) -> str:
    """As another version of us would have written it."""
    path.write_bytes(path.read_bytes().replace(b'"vszhdrv_format":"2"', b'"vszhdrv_format":"0"', 1))
    return "holds weights of format 0"


@pytest.mark.parametrize("damage", [truncate, age])
def test_what_cannot_be_read_is_set_aside_and_trained_again(
    trained: Path, log: list[str], damage: Callable[[Path], str], alone: tuple[Path, Vspipe]
) -> None:
    reason = damage(trained)
    clip = expand(source())
    assert sum(reason in line and "it is set aside" in line for line in log) == 1
    assert sum("zhdrv: training takes about" in line for line in log) == 1
    assert names(trained.parents[1]) == ["damaged.safetensors", "last.safetensors", "safetensors"]
    assert pixels(clip) == alone[1].output


def mounted(folder: Path, options: str) -> bool:
    """Mount a small file system on `folder`, if this system lets us."""
    command = ["mount", "-t", "tmpfs", "-o", options, "vszhdrv-test", str(folder)]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture(params=["ro", "size=128k"], ids=["read-only", "full"])
def useless(request: pytest.FixtureRequest, own_cache: Path) -> Iterator[Path]:
    """A cache folder on a file system that keeps nothing of a network's size."""
    if not mounted(own_cache, request.param):
        pytest.skip("no file system can be mounted here")
    yield own_cache
    subprocess.run(["umount", "-l", str(own_cache)], check=True)


def test_a_network_that_cannot_be_kept_is_used_all_the_same(
    useless: Path, log: list[str], alone: tuple[Path, Vspipe], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("vszhdrv.plugin.job.STATE_SECONDS", 0)
    assert pixels(expand(source())) == alone[1].output
    warnings = [line for line in log if "can't be written" in line]
    assert warnings and all(str(useless / "networks") in line for line in warnings)
    assert len(warnings) <= 2  # one for all of its states, one for the network
    assert [path for path in useless.rglob("*") if path.is_file() and path.stat().st_size] == []


def test_train_says_why_it_has_no_path(useless: Path) -> None:
    with pytest.raises(vs.Error, match=rf"could not be kept in {useless / 'networks'}: name a file with path"):
        vs.core.zhdrv.Train(source(), epochs=1, device="cpu")


def test_trained_here_and_expanded_anywhere(own_cache: Path, tmp_path: Path, alone: tuple[Path, Vspipe]) -> None:
    weights = tmp_path / "clip.safetensors"
    path = vs.core.zhdrv.Train(source(), epochs=1, device="cpu", cache="", path=str(weights))
    assert Path(os.fsdecode(path)) == weights
    assert list(own_cache.iterdir()) == []  # cache="" is off
    expanded = expand(source(), weights=str(weights), cache="", train=False)
    assert pixels(expanded) == alone[1].output
    assert list(own_cache.iterdir()) == []


def test_train_of_a_cached_clip_returns_its_path_or_a_copy(trained: Path, tmp_path: Path, log: list[str]) -> None:
    assert Path(os.fsdecode(vs.core.zhdrv.Train(source(), epochs=1, device="cpu"))) == trained
    copy = tmp_path / "copy.safetensors"
    vs.core.zhdrv.Train(source(), epochs=1, device="cpu", path=str(copy))
    of_copy, of_trained = (weight_files.read_metadata(path) for path in (copy, trained))
    for metadata in (of_copy, of_trained):
        del metadata["file_blake2b"]  # a header has its entries in no order
    assert of_copy == of_trained
    assert not [line for line in log if "zhdrv: training" in line]


def test_the_header_says_what_it_was_learned_from(trained: Path) -> None:
    metadata = weight_files.read_metadata(trained)
    facts = json.loads(metadata["facts"])
    assert len(facts["clip"]) == 64 and facts["length"] == LENGTH
    assert facts["settings"]["preset"] == "fast" and facts["settings"]["epochs"] == 1
    assert {"vszhdrv", "torch", "device", "precision", "threads"} <= metadata.keys()
    assert float(metadata["loss"]) == json.loads(metadata["log"])[-1]["total"]
    assert float(metadata["seconds"]) > 0
