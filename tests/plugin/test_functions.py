"""core.zhdrv's functions on real clips: every format and size, every argument, every error."""

import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
import pytest
import torch
import vapoursynth as vs

import vszhdrv
from vszhdrv import exr
from vszhdrv.errors import Failed
from vszhdrv.plugin import clips
from vszhdrv.plugin.colour import resolve_colour, to_linear
from vszhdrv.store import weight_files
from vszhdrv.zhdrv.expansion import Expander

core = vs.core
pytestmark = pytest.mark.usefixtures("one_thread")

MakeClip = Callable[..., Any]


def expanded(clip: Any, **arguments: Any) -> Any:
    return core.zhdrv.Expand(clip, **{"device": "cpu", "epochs": 1, **arguments})


def pixels(clip: Any, n: int = 0) -> np.ndarray:
    return next(clips.read(clip, [n]))[0]


def linear(clip: Any, n: int = 0, **colour: str) -> np.ndarray:
    """What the clip's frame is in linear light without us having a say in its brightness."""
    return pixels(to_linear(clip, resolve_colour(clip, **colour, warn=lambda _: None)), n)


def props(clip: Any, n: int = 0) -> dict[str, Any]:
    with clip.get_frame(n) as frame:
        return dict(frame.props)


FORMATS = [
    (vs.YUV420P8, 18, 22), (vs.YUV420P10, 34, 48), (vs.YUV420P16, 16, 16), (vs.YUV422P12, 18, 23),
    (vs.YUV444P8, 17, 23), (vs.YUV444PS, 33, 47), (vs.YUV420PH, 16, 18),
    (vs.RGB24, 17, 23), (vs.RGB30, 16, 16), (vs.RGB48, 33, 47), (vs.RGBH, 23, 17), (vs.RGBS, 16, 33),
    (vs.GRAY8, 17, 23), (vs.GRAY16, 16, 16), (vs.GRAYH, 17, 17), (vs.GRAYS, 33, 17),
]  # fmt: skip


@pytest.mark.parametrize(
    ("format", "width", "height"),
    FORMATS,
    ids=[f"{core.get_video_format(format).name} {width}x{height}" for format, width, height in FORMATS],
)
def test_every_format_is_learned_from_and_expanded(make_clip: MakeClip, format: int, width: int, height: int) -> None:
    clip = make_clip(format, width, height, 4, mine=7)
    out = expanded(clip, cache="")
    assert out.format.id == vs.RGBS
    assert (out.width, out.height, out.num_frames, out.fps) == (width, height, 4, clip.fps)
    # any order gives the same bits
    random = {n: pixels(out, n) for n in (3, 0, 2, 0, 1)}
    for n, (frame, _) in enumerate(clips.read(out, range(4))):
        source = linear(clip, n)
        assert np.array_equal(frame, random[n])
        assert np.isfinite(frame).all()
        assert (frame >= source).all()
        assert frame.max() > max(source.max(), 1.0)
        assert np.array_equal(frame[source < 0.9], source[source < 0.9])


def test_the_result_says_what_it_is_and_keeps_what_the_source_said(make_clip: MakeClip, network: Path) -> None:
    clip = make_clip(vs.YUV420P8, mine="kept", _Primaries=9, _ChromaLocation=0, _SARNum=4, _SARDen=3)
    said = props(expanded(clip, weights=str(network)), 3)
    assert {name: said[name] for name in ("_Matrix", "_Transfer", "_Primaries", "_Range")} == {
        "_Matrix": 0, "_Transfer": 8, "_Primaries": 9, "_Range": 1,
    }  # fmt: skip
    assert "_ChromaLocation" not in said
    assert (said["mine"], said["_SARNum"], said["_SARDen"]) == ("kept", 4, 3)
    assert (said["_DurationNum"], said["_DurationDen"]) == (1001, 30000)


def test_a_user_can_take_the_result_to_hdr10(make_clip: MakeClip, network: Path) -> None:
    out = expanded(make_clip(), weights=str(network))
    hdr10 = out.resize.Bicubic(
        format=vs.YUV420P10, matrix_s="2020ncl", primaries_s="2020", transfer_s="st2084", nominal_luminance=203
    )
    assert {name: props(hdr10)[name] for name in ("_Transfer", "_Primaries")} == {"_Transfer": 16, "_Primaries": 9}


def test_superwhite_is_never_darkened(network: Path) -> None:
    def shade(n: int, f: Any) -> Any:
        f = f.copy()
        np.asarray(f[0])[:] = np.linspace(16, 254, f.width).astype(np.uint8)
        return f

    blank = core.std.BlankClip(format=vs.YUV444P8, width=240, height=32, length=2, color=[16, 128, 128])
    clip = blank.std.ModifyFrame(blank, shade).std.SetFrameProps(_Matrix=1, _Transfer=1, _Primaries=1, _Range=0)
    source, result = linear(clip), pixels(expanded(clip, weights=str(network)))
    assert source.max() > 1.15  # code 250 is 1.17
    assert (result >= source).all()
    assert np.array_equal(result[..., :200], source[..., :200])


@pytest.mark.parametrize(
    ("gain", "fill", "said"),
    [(0.7, None, "nothing in the frames"), (1.4, 0, "nothing in the frames"), (1.4, 255, "all of the frames")],
    ids=["nothing clipped", "black", "white"],
)
def test_a_clip_with_nothing_to_learn_works_and_the_log_says_so(
    make_clip: MakeClip, caplog: pytest.LogCaptureFixture, gain: float, fill: int | None, said: str
) -> None:
    clip = make_clip(gain=gain)
    if fill is not None:
        clip = clip.std.BlankClip(color=[fill] * 3, keep=True)
    result = pixels(expanded(clip))
    source = linear(clip)
    assert said in caplog.text
    assert np.isfinite(result).all() and (result >= source).all()
    if fill != 255:
        assert np.array_equal(result, source)


def test_the_log_says_nothing_of_frames_that_are_not_trained_on(
    make_clip: MakeClip, caplog: pytest.LogCaptureFixture
) -> None:
    clip = make_clip(gain=0.7) + make_clip()
    result = expanded(clip, train_range=[0, 5])
    assert "zhdrv: nothing in the frames to train on clips: there is little to train on" in caplog.messages
    assert pixels(result, 8).max() > linear(clip, 8).max()


@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_one_picture_is_enough_with_still(make_clip: MakeClip, preset: str) -> None:
    clip = make_clip(width=16, height=16, length=1)
    out = expanded(clip, preset=preset, still=True)
    assert out.num_frames == 1
    assert (pixels(out) >= linear(clip)).all()


def test_the_papers_preset_from_end_to_end(make_clip: MakeClip, own_cache: Path) -> None:
    clip = make_clip(vs.YUV420P8, 16, 18, 2)
    out = expanded(clip, preset="paper")
    result = pixels(out, 1)
    assert np.isfinite(result).all() and (result >= linear(clip, 1)).all()
    (stored,) = (path for path in own_cache.rglob("*.safetensors") if ".last." not in path.name)
    found = weight_files.read(stored)
    weights, metadata = found.tensors(), found.metadata
    assert metadata["preset"] == "paper"
    assert sum(tensor.numel() for tensor in weights.values()) == 3_542_342
    # steps of the expansion are no matter of training: found, not trained again
    assert np.array_equal(
        pixels(expanded(clip, preset="paper", n_exp_down=3, n_exp_up=1, train=False), 1) > 0, result > 0
    )


def test_untagged_clips_are_taken_as_the_arguments_say(make_clip: MakeClip, network: Path) -> None:
    clip = make_clip(vs.YUV444P8).std.RemoveFrameProps(["_Matrix", "_Transfer", "_Primaries", "_Range"])
    arguments = dict(matrix_in="170m", transfer_in="470m", range_in="full")
    result = pixels(expanded(clip, weights=str(network), **arguments))
    source = linear(clip, **arguments)
    assert np.array_equal(result[source < 0.9], source[source < 0.9])
    assert not np.array_equal(result, pixels(expanded(clip, weights=str(network))))


def test_strength_goes_from_the_linearised_source_to_the_whole_expansion(make_clip: MakeClip, network: Path) -> None:
    clip = make_clip(vs.YUV444P10)
    none, half, whole = (
        pixels(expanded(clip, weights=str(network), strength=strength)) for strength in (0.0, 0.5, 1.0)
    )
    source = linear(clip)
    assert np.array_equal(none, source)
    assert np.array_equal(whole, pixels(expanded(clip, weights=str(network))))
    bright = source > 0.01
    assert np.allclose(half[bright], np.sqrt(source[bright] * whole[bright]), rtol=1e-5)  # half the stops
    assert (whole > source).any()


def test_a_peak_bounds_the_light_and_is_told(make_clip: MakeClip, network: Path) -> None:
    clip = make_clip()
    free = pixels(expanded(clip, weights=str(network)))
    peak = 100 * (1 + free.max()) / 2  # in nits, half-way to the brightest there is
    out = expanded(clip, weights=str(network), white=100.0, peak=peak)
    bounded, said = pixels(out), props(out)
    assert free.max() * 100 > peak >= bounded.max() * 100 * 0.999
    assert np.allclose(bounded[:, free.max(0) <= 1], free[:, free.max(0) <= 1], rtol=1e-6)
    assert 100 < max(said["PLSceneMax"]) <= peak * 1.001
    assert len(said["PLSceneMax"]) == 3 and 0 < said["PLSceneAvg"] < peak
    assert "PLSceneMax" not in props(expanded(clip, weights=str(network)))


@pytest.mark.parametrize(
    ("primaries", "luminance"), [(1, (0.212639, 0.715169, 0.072192)), (9, (0.262700, 0.677998, 0.059302))]
)
def test_a_mask_is_what_was_invented_in_stops(
    make_clip: MakeClip, network: Path, primaries: int, luminance: tuple[float, float, float]
) -> None:
    clip = make_clip(_Primaries=primaries)
    mask = core.zhdrv.Mask(clip, weights=str(network), device="cpu")
    assert (mask.format.id, mask.width, mask.height, mask.num_frames) == (vs.GRAYS, 64, 48, 6)
    weights = np.array(luminance)[:, None, None]
    source, result = ((weights * x).sum(0) for x in (linear(clip, 2), pixels(expanded(clip, weights=str(network)), 2)))
    stops = pixels(mask, 2)[0]
    bright = source > 1e-4
    assert np.allclose(stops[bright], np.log2(result[bright] / source[bright]), atol=1e-5)
    assert stops.min() == 0 and stops.max() > 0.1
    assert not {"_Matrix", "_Transfer"} & props(mask).keys()
    assert not pixels(core.zhdrv.Mask(clip, weights=str(network), device="cpu", strength=0.0), 2).any()


@pytest.mark.parametrize("function", ["Expand", "Mask"])
def test_frames_are_expanded_where_they_lie(
    make_clip: MakeClip, network: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    given: list[list[np.ndarray]] = []
    lying: list[int] = []
    planes_of, expand = clips.planes_of, Expander.brighten

    def of_frame(frame: vs.VideoFrame) -> list[np.ndarray]:
        given.append(planes_of(frame))
        return given[-1]

    def looked_at(self: Expander, planes: Any) -> None:
        lying.append(sum(planes is each for each in given))
        expand(self, planes)

    monkeypatch.setattr(clips, "planes_of", of_frame)
    monkeypatch.setattr(Expander, "brighten", looked_at)
    getattr(core.zhdrv, function)(make_clip(), weights=str(network), device="cpu").get_frame(0).close()
    assert lying == [1]


@pytest.mark.parametrize("half", [True, False])
def test_frames_pass_through_writeexr_into_files(
    make_clip: MakeClip, network: Path, tmp_path: Path, half: bool
) -> None:
    out = expanded(make_clip(width=33, height=47), weights=str(network))
    written = core.zhdrv.WriteEXR(out, filename=str(tmp_path / "shot.%06d.exr"), half=half, first=100)
    for n in (2, 0):
        frame = pixels(written, n)
        assert np.array_equal(frame, pixels(out, n))
        file = exr.read(tmp_path / f"shot.{100 + n:06d}.exr")
        assert np.array_equal(file.transpose(2, 0, 1), frame.astype(np.float16 if half else np.float32))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shot.000100.exr", "shot.000102.exr"]


def test_still_is_expands_frame(make_clip: MakeClip, network: Path, tmp_path: Path) -> None:
    clip = make_clip()
    for function in (core.zhdrv.Still, vszhdrv.still):
        path = tmp_path / f"{function.__name__ if function is vszhdrv.still else 'Still'}.exr"
        arguments = {"frame": 2, "weights": str(network), "strength": 0.5, "white": 100.0}
        assert str(function(clip, str(path), **arguments)) == str(path)
        with expanded(clip, weights=str(network), strength=0.5).get_frame(2) as frame:
            expected = np.dstack([np.asarray(frame[plane]) for plane in range(3)])
        assert np.array_equal(exr.read(path), expected.astype(np.float16).astype(np.float32))
    assert "frame must be from 0 to" in failure(core.zhdrv.Still, clip, path=str(path), frame=99)
    assert "path must end in .jpg" in failure(core.zhdrv.Still, clip, path=str(tmp_path / "still.gif"))


def test_writeexr_describes_its_files_by_the_frames_it_gets(make_clip: MakeClip, tmp_path: Path) -> None:
    requests: list[int] = []
    linear = make_clip(vs.RGBS, width=33, height=47).std.SetFrameProps(_Transfer=8, _Primaries=9, _SARNum=4, _SARDen=3)
    counted = linear.std.FrameEval(lambda n: requests.append(n) or linear)
    written = core.zhdrv.WriteEXR(counted, filename=str(tmp_path / "shot.%d.exr"))
    assert requests == []  # before Expand(when="frame"), a request would train
    written.get_frame(2).close()
    assert requests == [2]
    with OpenEXR.File(str(tmp_path / "shot.2.exr")) as file:
        header = dict(file.header())
    assert header["colorInteropID"] == "lin_rec2020_scene"
    assert header["pixelAspectRatio"] == pytest.approx(4 / 3)
    assert header["framesPerSecond"] == make_clip().fps


def test_writeexr_warns_once_of_what_no_file_holds(make_clip: MakeClip, tmp_path: Path) -> None:
    linear = make_clip(vs.RGBS).std.SetFrameProps(_Transfer=8)
    bright = linear[:2] + linear[2:].std.Expr("x 1000000 +")
    written = core.zhdrv.WriteEXR(bright, filename=str(tmp_path / "%d.exr"))
    said: list[str] = []
    handle = core.add_log_handler(lambda kind, text: said.append(text) if "too large for" in text else None)
    try:
        for n in (1, 3, 2):
            written.get_frame(n).close()
    finally:
        core.remove_log_handler(handle)
    assert said[0].startswith(f"zhdrv: {tmp_path / '3.exr'} has values too large") and len(said) == 1


@pytest.mark.parametrize("overwrite", [False, True])
def test_writeexr_says_once_that_all_frames_are_there(make_clip: MakeClip, tmp_path: Path, overwrite: bool) -> None:
    linear = make_clip(vs.RGBS).std.SetFrameProps(_Transfer=8)
    written = core.zhdrv.WriteEXR(linear, filename=str(tmp_path / "%d.exr"), overwrite=overwrite)
    written.std.SetVideoCache(mode=0)  # a frame requested again arrives again
    said: list[str] = []
    handle = core.add_log_handler(lambda kind, text: said.append(text) if "frames written" in text else None)
    try:
        for n in (*range(written.num_frames - 1), *range(written.num_frames - 1)):
            written.get_frame(n).close()
        assert said == []
        for n in (written.num_frames - 1, 0):
            written.get_frame(n).close()
    finally:
        core.remove_log_handler(handle)
    (line,) = said
    assert f"{written.num_frames} frames written, 0 were there already" in line


def test_version_tells_what_is_here() -> None:
    version = core.zhdrv.Version()
    assert version["version"] == vszhdrv.__version__
    assert version["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert version["path"] == str(Path(vszhdrv.__file__).parent)
    assert version["device"]


def test_a_network_is_learned_once_and_given_anywhere(
    make_clip: MakeClip, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, path = make_clip(), tmp_path / "own.safetensors"
    in_cache = core.zhdrv.Train(clip, epochs=1, device="cpu")
    assert Path(in_cache).parent == own_cache / "networks"
    monkeypatch.setattr("vszhdrv.zhdrv.training.train", None)  # from here on nobody can train
    assert core.zhdrv.Train(clip, epochs=1, device="cpu", path=str(path)) == str(path)
    found = pixels(expanded(clip, train=False))
    shutil.rmtree(own_cache)
    assert np.array_equal(pixels(expanded(clip, weights=str(path))), found)
    assert np.array_equal(pixels(expanded(clip, weights=str(path), cache="", train=False)), found)
    assert np.array_equal(pixels(vszhdrv.expand(clip, weights=str(path), device="cpu")), found)


def test_the_same_seed_gives_the_same_bits_and_torch_is_left_as_found(make_clip: MakeClip) -> None:
    def state() -> list[Any]:
        return [torch.get_num_threads(), torch.is_grad_enabled(), torch.get_rng_state().tolist()]

    clip, before = make_clip(width=16, height=16), state()
    first, again, other = (pixels(expanded(clip, cache="", seed=seed)) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert state() == before


def test_tiles_change_nothing_that_can_be_seen(make_clip: MakeClip, network: Path) -> None:
    clip = make_clip(width=200, height=140)
    whole = pixels(expanded(clip, weights=str(network), precision="fp32"))
    tiles = pixels(expanded(clip, weights=str(network), precision="fp32", tile=[128, 64]))
    assert np.allclose(tiles, whole, rtol=1e-4)


@pytest.mark.parametrize("function", ["Expand", "Mask"])
def test_streams_give_the_same_bits_in_any_order(make_clip: MakeClip, network: Path, function: str) -> None:
    one, three = (
        getattr(core.zhdrv, function)(make_clip(), device="cpu", weights=str(network), num_streams=count)
        for count in (1, 3)
    )
    expected = [pixels(one, n) for n in range(6)]
    requests = {n: three.get_frame_async(n) for n in (4, 0, 5, 2, 1, 3)}
    for n, request in requests.items():
        with request.result() as frame:
            assert np.array_equal(np.stack(clips.planes_of(frame)), expected[n])


# Errors. Each is one sentence for the user, and leaves nothing behind.


@pytest.fixture
def nothing_written(own_cache: Path, tmp_path: Path) -> Any:
    before = set(tmp_path.rglob("*"))
    yield
    assert list(own_cache.rglob("*")) == []
    assert set(tmp_path.rglob("*")) <= before


def failure(function: Any, *positional: Any, **arguments: Any) -> str:
    with pytest.raises(vs.Error) as raised:
        function(*positional, **arguments)
    text = str(raised.value)
    assert "\n" not in text
    assert "Traceback" not in text
    return text


RANGE = "train_range must be the first and the last frame to train on, 2 or more of the clip's 0 to 5, not {}"
BAD_NUMBERS = [
    ("n_exp_down", -1, "n_exp_down must be from 1 to 6, not -1"),
    ("n_exp_down", 0, "n_exp_down must be from 1 to 6, not 0"),
    ("n_exp_down", 10**12, "n_exp_down must be from 1 to 6, not 1000000000000"),
    ("n_exp_up", 7, "n_exp_up must be from 0 to 6, not 7"),
    ("epochs", 0, "epochs must be from 1 to 100000, not 0"),
    ("epochs", -3, "epochs must be from 1 to 100000, not -3"),
    ("lr", -1e-4, "lr must be over 0 and at most 1, not -0.0001"),
    ("lr", float("nan"), "lr must be over 0 and at most 1, not nan"),
    ("alpha", 1.5, "alpha must be from 0 to 1, not 1.5"),
    ("seed", -1, "seed must be from 0 to 2147483647, not -1"),
    ("strength", 1.5, "strength must be from 0 to 1, not 1.5"),
    ("strength", float("nan"), "strength must be from 0 to 1, not nan"),
    ("white", 0.0, "white must be over 0 and at most 10000 nits, not 0"),
    ("white", -203.0, "white must be over 0 and at most 10000 nits, not -203"),
    ("peak", 100.0, "peak must be 0 or over white (203 nits) and at most 10000 nits, not 100"),
    ("peak", 1e9, "peak must be 0 or over white (203 nits) and at most 10000 nits, not 1e+09"),
    ("peak", float("nan"), "peak must be 0 or over white (203 nits) and at most 10000 nits, not nan"),
    ("tile", [64], "tile must be width and height, each a multiple of 64, not [64]"),
    ("tile", [100, 64], "tile must be width and height, each a multiple of 64, not [100, 64]"),
    ("tile", [0, 0], "tile must be width and height, each a multiple of 64, not [0, 0]"),
    ("tile_pad", -1, "tile_pad must be 0 or more pixels, not -1"),
    ("graphics", "on", "graphics must be auto or off, not 'on'"),
    ("num_streams", 0, "num_streams must be from 1 to 64, not 0"),
    ("num_streams", 65, "num_streams must be from 1 to 64, not 65"),
    ("train_range", [3], RANGE.format("[3]")),
    ("train_range", [0, 1, 2], RANGE.format("[0, 1, 2]")),
    ("train_range", [-1, 3], RANGE.format("[-1, 3]")),
    ("train_range", [2, 2], RANGE.format("[2, 2]")),
    ("train_range", [4, 2], RANGE.format("[4, 2]")),
    ("train_range", [0, 6], RANGE.format("[0, 6]")),
    ("tile", [-64, 64], "tile must be width and height, each a multiple of 64, not [-64, 64]"),
]


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize(("argument", "value", "sentence"), BAD_NUMBERS)
def test_numbers_that_make_no_sense(make_clip: MakeClip, argument: str, value: Any, sentence: str) -> None:
    assert failure(core.zhdrv.Expand, make_clip(), **{argument: value}) == f"zhdrv.Expand: {sentence}"


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (dict(preset="slow"), r"preset must be one of paper, fast, draft, not 'slow'"),
        (dict(preset=""), r"preset must be one of paper, fast, draft, not ''"),
        (dict(device="cuda:99"), r"device must be auto or one of those here \(.*cpu\), not 'cuda:99'"),
        (dict(device="gpu"), r"device must be auto or one of those here \(.*cpu\), not 'gpu'"),
        (dict(precision="fp16"), r"precision must be auto, bf16 or fp32, not 'fp16'"),
        (dict(matrix_in="bt709"), r"matrix_in must be one of .*709 \(1\).*, not 'bt709'"),
        (dict(transfer_in="gamma"), r"transfer_in must be one of .*camera, not 'gamma'"),
        (dict(range_in="tv"), r"range_in must be one of limited \(0\), full \(1\), not 'tv'"),
        (dict(train=False), r"train is off and no network for this clip and these settings is in the cache.*"),
        (dict(cache="/dev/null"), r"cache is '/dev/null', which is not a folder; .*"),
    ],
)
def test_words_that_are_not_known(make_clip: MakeClip, arguments: dict[str, Any], pattern: str) -> None:
    assert re.fullmatch(f"zhdrv.Expand: {pattern}", failure(core.zhdrv.Expand, make_clip(), **arguments))


def variable(what: str) -> Any:
    blank = core.std.BlankClip(format=vs.RGB24, width=32, height=32, length=2)
    other = blank.resize.Point(format=vs.RGB48) if what == "format" else blank.resize.Point(width=64)
    return core.std.Splice([blank, other], mismatch=True)


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize(
    ("clip", "sentence"),
    [
        (lambda make: variable("format"), "clip must have one format throughout, and this one's varies: "),
        (lambda make: variable("size"), "clip must have one size throughout, and this one's varies: "),
        (lambda make: make(length=1), "clip must have 2 frames or more, not 1: set still (--data_type image)"),
        (lambda make: make(width=15, height=48), "clip must be 16x16 or larger, not 15x48"),
        (lambda make: make(width=48, height=2), "clip must be 16x16 or larger, not 48x2"),
        (lambda make: make(_FieldBased=2), "clip must be progressive, and its _FieldBased is 2 (top field first): "),
        (lambda make: make(_FieldBased=1), "clip must be progressive, and its _FieldBased is 1 (bottom field first): "),
        (lambda make: core.std.BlankClip(format=vs.GRAY32), "clip must be 8 to 16 bit integer or 16 to 32 bit float"),
        (lambda make: make().std.SetFrameProps(_Transfer=16), "the clip is HDR already, its transfer is st2084 (16)"),
    ],
    ids=["format", "size", "length", "narrow", "low", "top field", "bottom field", "32 bit", "PQ"],
)
def test_clips_that_cannot_be_learned_from(make_clip: MakeClip, clip: Any, sentence: str) -> None:
    for function in (core.zhdrv.Expand, core.zhdrv.Mask, core.zhdrv.Train):
        text = failure(function, clip(make_clip))
        assert text.startswith(f"zhdrv.{function.name}: {sentence}")


@pytest.mark.usefixtures("nothing_written")
def test_no_clip_and_no_video() -> None:
    assert "argument clip is required" in failure(core.zhdrv.Expand)
    assert "clip was passed an unsupported type" in failure(core.zhdrv.Expand, core.std.BlankAudio())
    with pytest.raises(ValueError, match=r"^clip must be a video clip, not AudioNode$"):
        vszhdrv.expand(core.std.BlankAudio())


def test_weights_that_cannot_be_used(make_clip: MakeClip, network: Path, own_cache: Path, tmp_path: Path) -> None:
    content, clip = network.read_bytes(), make_clip()
    files = {name: tmp_path / name for name in ("cut", "empty", "flipped", "pickle.pt", "torch.pt", "theirs")}
    files["cut"].write_bytes(content[:-100])
    files["empty"].write_bytes(b"")
    files["flipped"].write_bytes(content[:-50] + bytes([content[-50] ^ 1]) + content[-49:])
    files["pickle.pt"].write_bytes(pickle.dumps({"weights": [1.0]}))
    torch.save({"weight": torch.zeros(3)}, files["torch.pt"])
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(3)}, files["theirs"])

    def said(path: Path, **arguments: Any) -> str:
        text = failure(core.zhdrv.Expand, clip, weights=str(path), **arguments)
        assert text.startswith("zhdrv.Expand: weights ")
        assert str(path) in text
        return text

    assert "must be a file of a trained network, and" in said(tmp_path / "missing.safetensors")
    assert "must be a file of a trained network, and" in said(tmp_path)
    assert "not a whole safetensors file" in said(files["cut"])
    assert "not a whole safetensors file" in said(files["empty"])
    assert "does not match its checksum" in said(files["flipped"])
    assert "is a pickle" in said(files["pickle.pt"])
    assert "is a pickle" in said(files["torch.pt"])
    assert "somebody else's tensors" in said(files["theirs"])
    assert "as preset 'paper' has for this frame size" in said(network, preset="paper")
    assert list(own_cache.rglob("*")) == []


def failing(clip: Any, at: int) -> Any:
    def fail(n: int, f: Any) -> Any:
        if n == at:
            raise OSError("the tape is torn")
        return f

    return clip.std.ModifyFrame(clip, fail)


@pytest.mark.parametrize("at", [0, 3, 19], ids=["at the first frame", "while it is fingerprinted", "while it is read"])
def test_a_source_that_fails_says_so_itself(make_clip: MakeClip, own_cache: Path, at: int) -> None:
    clip = failing(make_clip(width=16, height=16, length=40), at)
    with pytest.raises(vs.Error) as raised:
        expanded(clip)
    assert str(raised.value).startswith("zhdrv.Expand: ")
    assert "the tape is torn" in str(raised.value)
    assert [path.name for path in own_cache.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_a_source_that_fails_later_fails_that_frame_alone(make_clip: MakeClip, network: Path) -> None:
    out = expanded(failing(make_clip(), 3), weights=str(network))
    with pytest.raises(Failed, match="the tape is torn"):
        pixels(out, 3)
    assert pixels(out, 2).max() > 1


@pytest.mark.usefixtures("nothing_written")
def test_train_needs_a_place_for_the_weights(
    make_clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "none" / "own.safetensors"
    assert failure(core.zhdrv.Train, make_clip(), path=str(missing)) == (
        f"zhdrv.Train: path must name a file in a folder that exists and can be written, not {str(missing)!r}"
    )
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    assert failure(core.zhdrv.Train, make_clip(), path=str(folder)) == (
        f"zhdrv.Train: path must name a file in a folder that exists and can be written, not {str(folder)!r}"
    )
    folder.rmdir()
    assert failure(core.zhdrv.Train, make_clip(), path=str(tmp_path / "film.mkv")) == (
        "zhdrv.Train: path must end in .safetensors, not 'film.mkv'"
    )

    def refuse(dir: Path) -> None:
        raise PermissionError(f"Access is denied: {dir}")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    own = str(tmp_path / "own.safetensors")
    assert failure(core.zhdrv.Train, make_clip(), path=own) == (
        f"zhdrv.Train: path must name a file in a folder that exists and can be written, not {own!r}"
    )
    assert failure(core.zhdrv.Train, make_clip(), cache="").startswith("zhdrv.Train: path must name a file")


@pytest.mark.usefixtures("nothing_written")
def test_writeexr_refuses_what_is_not_linear_light(make_clip: MakeClip, network: Path, tmp_path: Path) -> None:
    name = str(tmp_path / "%d.exr")
    assert failure(core.zhdrv.WriteEXR, make_clip(), name) == (
        "zhdrv.WriteEXR: clip must be RGBS in linear light, not RGB24"
    )
    varying = core.std.Splice([core.std.BlankClip(format=vs.RGBS, width=width) for width in (32, 64)], mismatch=True)
    assert "one size throughout" in failure(core.zhdrv.WriteEXR, varying, name)
    with pytest.raises(vs.Error) as caught:
        core.zhdrv.WriteEXR(make_clip(vs.RGBS), name).get_frame(1)
    said = str(caught.value).strip()
    assert said == "zhdrv: frame 1: clip must be in linear light, and its transfer is 709 (1)"
    out = expanded(make_clip(), weights=str(network))
    assert failure(core.zhdrv.WriteEXR, out, str(tmp_path / "one.exr")).startswith("zhdrv.WriteEXR: filename ")
    assert failure(core.zhdrv.WriteEXR, out, name, compression="jpeg").startswith(
        "zhdrv.WriteEXR: compression is 'jpeg'"
    )


def test_show_draws_source_expansion_and_mask_side_by_side(make_clip: MakeClip) -> None:
    clip = make_clip(vs.RGB24, 64, 48)
    picture = vszhdrv.show(clip, 1, device="cpu", epochs=1)
    assert picture.size == (3 * 64 + 2 * 4, 48 + 20)
    assert picture._repr_png_()[:8] == b"\x89PNG\r\n\x1a\n"  # by which notebooks display it
    source, darker, mask = (np.asarray(picture)[20:, left : left + 64].astype(int) for left in (0, 68, 136))
    assert np.abs(source - pixels(clip, 1).transpose(1, 2, 0)).mean() < 12  # BT.709's curve is not the screen's
    assert darker.mean() < source.mean() / 1.5
    untouched = mask.sum(axis=2) < 10
    assert 0 < untouched.mean() < 1
    assert source[~untouched].mean() > source[untouched].mean()


@pytest.mark.parametrize("frame", [-1, 1000])
def test_show_refuses_a_frame_that_is_not_there(make_clip: MakeClip, frame: int) -> None:
    with pytest.raises(vszhdrv.Refused, match=rf"frame must be from 0 to \d+, not {frame}$"):
        vszhdrv.show(make_clip(vs.RGB24, 64, 48), frame)
