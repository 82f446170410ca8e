"""Frames into arrays in any order, fingerprints, and frames computed on request, with what can go wrong on the way."""

import gc
import re
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import vapoursynth as vs
from hypothesis import given, settings
from hypothesis import strategies as st

from vszhdrv.errors import Failed, Refused
from vszhdrv.plugin.clips import digest, digest_positions, on_request, read
from vszhdrv.plugin.workers import Streams

core = vs.core

HEADER = "import vapoursynth as vs\nfrom vszhdrv.plugin import clips, workers\n"


def filled(clip: vs.VideoNode, value: Callable[[int], Any], calls: list[int] | None = None) -> vs.VideoNode:
    """The clip with every plane of frame n set to value(n); `calls` takes the frames as they are requested."""

    def fill(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        if calls is not None:
            calls.append(n)
        copy = f.copy()
        for plane in range(copy.format.num_planes):
            np.asarray(copy[plane])[:] = value(n)
        return copy

    return clip.std.ModifyFrame(clip, fill)


def numbered(
    format: int = vs.RGB24, length: int = 40, width: int = 17, height: int = 19, **options: Any
) -> vs.VideoNode:
    """Frame n holds n. An odd width, so that rows are padded."""
    blank = core.std.BlankClip(format=format, width=width, height=height, length=length)
    return filled(blank, lambda n: n, **options)


def noise(length: int = 12, width: int = 33, height: int = 21) -> vs.VideoNode:
    """Linear RGBS whose frame n is random, the same at each request."""
    blank = core.std.BlankClip(format=vs.RGBS, width=width, height=height, length=length)
    blank = blank.std.SetFrameProps(_Matrix=0, _Transfer=8, _Primaries=9, _Range=1, mine="kept")
    return filled(blank, lambda n: np.random.default_rng(n).random((height, width), np.float32))


def pixels(clip: vs.VideoNode, n: int) -> np.ndarray:
    return next(read(clip, [n]))[0]


@pytest.mark.parametrize(
    ("format", "dtype", "planes"),
    [
        (vs.RGB24, np.uint8, 3),
        (vs.RGB48, np.uint16, 3),
        (vs.RGBH, np.float16, 3),
        (vs.RGBS, np.float32, 3),
        (vs.GRAY8, np.uint8, 1),
    ],
)
def test_read_gives_contiguous_copies_of_each_format(format: int, dtype: type, planes: int) -> None:
    arrays = [array for array, _ in read(numbered(format), [3, 1])]
    for array, n in zip(arrays, [3, 1], strict=True):
        assert (array.shape, array.dtype) == ((planes, 19, 17), dtype)
        assert array.flags.c_contiguous
        assert array.flags.owndata
        assert (array == n).all()


def test_read_gives_the_properties_of_each_frame() -> None:
    clip = core.std.Splice([noise(2).std.SetFrameProps(mine=n) for n in range(3)])
    assert [props["mine"] for _, props in read(clip, [5, 0, 2])] == [2, 0, 1]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 39), max_size=60))
def test_read_keeps_any_order(positions: list[int]) -> None:
    assert [int(array[0, 0, 0]) for array, _ in read(numbered(), positions)] == positions


def test_read_requests_no_more_than_it_has_threads_for() -> None:
    calls: list[int] = []
    clip = numbered(length=200, calls=calls)
    reader = read(clip, range(200))
    for taken in range(1, 20):
        next(reader)
        assert len(set(calls)) < taken + core.num_threads
    reader.close()
    left_off = len(calls)
    assert len(set(calls)) < 20 + core.num_threads
    clip.get_frame(150).close()
    assert calls[left_off:] == [150]  # nothing was under way any more


def test_read_inside_a_frame_callback_does_not_block_the_thread_it_waits_for(run_python: Callable[..., Any]) -> None:
    ended = run_python(
        HEADER
        + "import faulthandler\n"
        + "faulthandler.dump_traceback_later(30, exit=True)\n"
        + "vs.core.num_threads = 1\n"
        + "clip = vs.core.std.BlankClip(format=vs.RGB24, length=9)\n"
        + "slow = clip.std.ModifyFrame(clip, lambda n, f: f)\n"
        + "expanded = clip.std.FrameEval(lambda n: clip[len(list(clips.read(slow, range(9)))) - 9 + n])\n"
        + "expanded.get_frame(3).close()\n"
    )
    assert ended.returncode == 0, ended.stderr


def test_a_sources_error_is_its_own() -> None:
    good = core.std.BlankClip(format=vs.YUV444P8, width=64, height=64, length=5).std.SetFrameProps(_Matrix=1)
    clip = core.std.Splice([good, good.std.RemoveFrameProps("_Matrix")]).resize.Point(format=vs.RGB24)
    reader = read(clip, range(10))
    for _ in range(5):
        next(reader)
    with pytest.raises(Failed, match=r"^Resize error.*no path between colorspaces"):
        next(reader)
    with pytest.raises(Failed, match="no path between colorspaces"):
        digest(clip, [0, 7])


def test_an_error_of_our_own_callbacks_is_a_sentence() -> None:
    def full(planes: list[np.ndarray]) -> list[np.ndarray]:
        raise OSError("the disk is full")

    with pytest.raises(Failed) as caught:
        list(read(on_request(noise(), full), [4]))
    assert str(caught.value) == "frame 4: the disk is full"


YUV = core.std.BlankClip(format=vs.YUV420P8, width=34, height=18, length=40)


def test_digest_is_of_the_pixels() -> None:
    clip = filled(YUV, lambda n: n)
    positions = [0, 7, 39]
    expected = digest(clip, positions)
    assert len(expected) == 64
    assert digest(filled(YUV, lambda n: n), positions) == expected
    assert digest(clip.std.SetFrameProps(_Matrix=9, source="another"), positions) == expected
    assert digest(core.std.Splice([clip, clip]).std.Trim(40, 79), positions) == expected
    assert digest(clip.std.AddBorders(2).std.Crop(2), positions) == expected  # rows of another stride
    unread = filled(YUV, lambda n: 0 if n == 8 else n)
    assert digest(unread, positions) == expected


@pytest.mark.parametrize(
    "other",
    [
        lambda clip: clip.std.Expr(["", "", "x 1 +"]),
        lambda clip: filled(YUV, lambda n: 8 if n == 7 else n),
        lambda clip: clip.std.Trim(0, 39).std.Crop(right=2),
        lambda clip: core.std.Splice([clip, clip]),
        lambda clip: clip.resize.Point(format=vs.YUV420P10),
    ],
    ids=["chroma", "one frame", "size", "length", "format"],
)
def test_digest_tells_clips_apart(other: Callable[[vs.VideoNode], vs.VideoNode]) -> None:
    clip = filled(YUV, lambda n: n)
    assert digest(other(clip), [0, 7, 39]) != digest(clip, [0, 7, 39])


def test_digest_tells_formats_of_the_same_bytes_apart() -> None:
    """The same number of zero bytes."""
    wide = core.std.BlankClip(format=vs.GRAY8, width=64, height=32, length=3)
    assert len({digest(clip, [0]) for clip in (
        wide,
        core.std.BlankClip(format=vs.GRAY8, width=32, height=64, length=3),
        core.std.BlankClip(format=vs.GRAY16, width=32, height=32, length=3),
        core.std.BlankClip(format=vs.GRAYH, width=32, height=32, length=3),
    )}) == 4  # fmt: skip


@given(st.integers(1, 500_000))
def test_digest_positions_spread_over_the_clip(length: int) -> None:
    positions = digest_positions(length)
    assert positions == sorted(set(positions))
    assert len(positions) == min(length, 32)
    assert (positions[0], positions[-1]) == (0, length - 1)
    assert max(np.diff([*positions, length])) <= length / 3 + 1


def test_identity_on_request_is_the_clip() -> None:
    clip = noise()
    computed = on_request(clip, lambda planes: planes)
    assert (computed.format.id, computed.num_frames, computed.fps) == (vs.RGBS, clip.num_frames, clip.fps)
    for n in range(clip.num_frames):
        assert np.array_equal(pixels(computed, n), pixels(clip, n))


def test_random_access_gives_the_same_bits() -> None:
    def function(planes: list[np.ndarray]) -> np.ndarray:
        return np.sqrt(planes) * np.mean(planes)

    sequential = [array.tobytes() for array, _ in read(on_request(noise(), function), range(12))]
    order = np.random.default_rng(1).permutation(12)
    for n, (array, _) in zip(order, read(on_request(noise(), function), order.tolist()), strict=True):
        assert array.tobytes() == sequential[n]


def test_the_function_gets_planes_of_its_own() -> None:
    def spoil(planes: list[np.ndarray]) -> list[np.ndarray]:
        assert [(plane.shape, plane.dtype) for plane in planes] == [((21, 33), np.float32)] * 3
        for plane in planes:
            plane += 1
        return planes

    clip = noise()
    before = pixels(clip, 2)
    assert np.array_equal(pixels(on_request(clip, spoil), 2), before + 1)
    assert np.array_equal(pixels(clip, 2), before)


def test_one_thread_computes_for_all_clips_of_one_stream(run_python: Callable[..., Any]) -> None:
    """In a process of its own: other tests have started more."""
    ended = run_python(
        HEADER
        + "import threading\n"
        + "inside, seen = threading.Lock(), set()\n"
        + "def function(planes):\n"
        + "    assert inside.acquire(blocking=False)\n"
        + "    seen.add((threading.get_ident(), threading.current_thread().name))\n"
        + "    inside.release()\n"
        + "    return planes\n"
        + "clip = vs.core.std.BlankClip(format=vs.RGBS, length=12)\n"
        + "both = [clips.on_request(clip, function), clips.on_request(clip, function)]\n"
        + "for request in [each.get_frame_async(n) for n in range(12) for each in both]: request.result().close()\n"
        + "((thread, name),) = seen\n"
        + "print(name, thread != threading.get_ident())\n"
    )
    assert ended.stdout == "zhdrv True\n", ended.stderr


@pytest.mark.parametrize("length", [1, 2, 7])
@pytest.mark.parametrize("planes", [1, 3])
def test_streams_change_nothing_but_the_speed(length: int, planes: int) -> None:
    clip = core.std.Splice([noise(1).std.SetFrameProps(mine=n, _DurationNum=n + 1) for n in range(length)])
    clip = clip.std.AssumeFPS(fpsnum=30000, fpsden=1001)

    def function(own: list[np.ndarray]) -> list[np.ndarray]:
        for plane in own:
            plane *= 2
        return own[:planes]

    one, *others = (
        on_request(clip, function, planes=planes, streams=lambda streams=streams: streams)
        for streams in (Streams(), Streams(3), Streams(1, here=True), Streams(3, here=True))
    )
    for other in others:
        assert (other.format.id, other.num_frames, other.fps) == (one.format.id, length, clip.fps)
        for n in (*range(length), *reversed(range(length))):
            with one.get_frame(n) as expected, other.get_frame(n) as frame:
                assert dict(frame.props) == dict(expected.props)
                assert frame.props["mine"] == n
                assert all(np.array_equal(frame[plane], expected[plane]) for plane in range(planes))


@pytest.mark.parametrize("here", [False, True])
def test_frames_are_computed_where_the_streams_say(here: bool) -> None:
    names = set()

    def function(planes: list[np.ndarray]) -> list[np.ndarray]:
        names.add(threading.current_thread().name)
        return planes

    clip = on_request(noise(), function, streams=lambda: Streams(2, here=here))
    for request in [clip.get_frame_async(n) for n in range(8)]:
        request.result().close()
    assert ("zhdrv" in names) == (not here)


@pytest.mark.parametrize("here", [False, True])
@pytest.mark.parametrize("step", [1, 2])
def test_as_many_frames_are_computed_at_once_as_there_are_streams(step: int, here: bool) -> None:
    """Also of a clip of which every second frame is taken."""
    both = threading.Barrier(2, timeout=30)
    asked: list[int] = []

    def function(planes: list[np.ndarray]) -> list[np.ndarray]:
        both.wait()  # each waits for another
        return planes

    def streams() -> Streams:
        asked.append(1)
        return Streams(2, here=here)

    clip = on_request(noise(), function, streams=streams)
    assert asked == []  # nothing is chosen before the first frame
    requests = [clip.get_frame_async(n) for n in range(0, 12, step)]
    for request in requests:
        request.result().close()
    assert asked == [1]


def test_an_error_names_its_frame_whichever_stream_it_is_of() -> None:
    def fail(planes: list[np.ndarray]) -> list[np.ndarray]:
        raise Refused("no light")

    clip = on_request(noise(), fail, streams=lambda: Streams(3))
    for n in (7, 0, 5, 11):
        with pytest.raises(Failed) as caught:
            next(read(clip, [n]))
        assert str(caught.value) == f"frame {n}: no light"


def test_properties_flow_and_can_be_set() -> None:
    def function(planes: list[np.ndarray]) -> tuple[list[np.ndarray], dict[str, Any]]:
        brightest = np.max(planes, axis=(1, 2)).tolist()
        return planes, {"PLSceneMax": brightest, "PLSceneAvg": 5.5, "_Primaries": 1}

    clip = noise()
    with clip.get_frame(3) as frame:
        expected = dict(frame.props)
    with on_request(clip, function).get_frame(3) as frame:
        got = dict(frame.props)
    assert got.pop("PLSceneMax") == pytest.approx(pixels(clip, 3).max(axis=(1, 2)))
    assert got.pop("PLSceneAvg") == 5.5
    assert got == expected | {"_Primaries": 1}


def test_a_mask_is_grey_and_not_light() -> None:
    clip = noise()
    mask = on_request(clip, lambda planes: [np.max(planes, axis=0)], planes=1)
    assert (mask.format.id, mask.width, mask.height, mask.num_frames) == (vs.GRAYS, 33, 21, 12)
    assert np.array_equal(pixels(mask, 5), pixels(clip, 5).max(axis=0, keepdims=True))
    with mask.get_frame(5) as frame:
        assert frame.props["mine"] == "kept"
        assert not {"_Matrix", "_Transfer", "_Primaries"} & set(frame.props)
    mask.resize.Point(format=vs.GRAY16).get_frame(0).close()  # resize refuses grey that says it is RGB


def test_a_bug_is_an_internal_error_and_its_traceback_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def bug(planes: list[np.ndarray]) -> list[np.ndarray]:
        return np.stack(planes).reshape(7)  # a ValueError of NumPy's

    with pytest.raises(vs.Error, match=r"^\s*zhdrv: frame 0: internal error: ValueError: cannot reshape array"):
        on_request(noise(), bug).get_frame(0)
    assert "Traceback" in caplog.text and "in bug" in caplog.text


def test_the_clip_recovers_from_an_error() -> None:
    def once(planes: list[np.ndarray]) -> list[np.ndarray]:
        if not failures:
            failures.append(1)
            raise ValueError("not yet")
        return planes

    failures: list[int] = []
    clip = on_request(noise(), once)
    with pytest.raises(vs.Error):
        clip.get_frame(0)
    assert np.array_equal(pixels(clip, 0), pixels(noise(), 0))


def test_nothing_keeps_the_function_once_the_clip_is_gone() -> None:
    class Network:
        def __call__(self, planes: list[np.ndarray]) -> list[np.ndarray]:
            return planes

    network = Network()
    gone = weakref.ref(network)
    clip = on_request(noise(), network, streams=lambda: Streams(2))
    for n in range(3):
        pixels(clip, n)
    del network, clip
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("taken", [0, 1])
@pytest.mark.parametrize("here", [False, True])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_process_ends_while_frames_are_being_computed(
    run_python: Callable[..., Any], taken: int, count: int, here: bool
) -> None:
    ended = run_python(
        HEADER
        + "import time\n"
        + "clip = vs.core.std.BlankClip(format=vs.RGBS, length=99)\n"
        + "def compute(planes):\n    time.sleep(0.1)\n    return planes\n"
        + f"slow = clips.on_request(clip, compute, streams=lambda: workers.Streams({count}, {here}))\n"
        + "requests = [slow.get_frame_async(n) for n in range(9)]\n"
        + f"for n in range({taken}): requests[n].result()\n"
        + "print('the end')\n"
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "the end\n", "")


def test_vspipe_prints_the_sentence(run_vspipe: Callable[..., Any]) -> None:
    script = HEADER + (
        "from vszhdrv.errors import Refused\n"
        "def fail(array):\n    raise Refused('no light')\n"
        "clip = vs.core.std.BlankClip(format=vs.RGBS, length=3)\n"
        "clips.on_request(clip, fail).set_output()\n"
    )
    ended = run_vspipe(script, ".")
    assert ended.returncode == 1
    assert re.search(r"^zhdrv: frame [012]: no light$", ended.stderr, re.MULTILINE)
    assert "Traceback" not in ended.stderr


def test_importing_leaves_torch_alone(run_python: Callable[..., Any]) -> None:
    ended = run_python(HEADER + "import sys\nprint('torch' in sys.modules)\n")
    assert ended.stdout == "False\n", ended.stderr
