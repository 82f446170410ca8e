"""Scores that can be worked out by hand, on flat clips and a small scene."""

import json
import sys
from pathlib import Path

import cv2
import evaluate
import make_scenes
import numpy as np
import pytest
from evaluate import Camera, Scene, score

SHAPE = (3, 8, 8, 3)
CLIPPED = (slice(None), slice(0, 4))
"""The upper half of every frame is clipped, the lower well exposed."""


def clip_pair() -> tuple[np.ndarray, np.ndarray]:
    """Truth and SDR codes: 4 times SDR white over a mid-grey of code 128."""
    grey = make_scenes.srgb_decode(np.float32(128 / 255))
    truth, sdr = np.full(SHAPE, grey, np.float32), np.full(SHAPE, 128, np.uint8)
    truth[CLIPPED], sdr[CLIPPED] = 4.0, 255
    return truth, sdr


def test_the_truth_has_no_error() -> None:
    truth, sdr = clip_pair()
    scores = score(truth, sdr, truth)
    assert {name: scores[name] for name in ("HLRMSE", "MIDRMSE", "FLICK", "GAIN", "BAD")} == {
        "HLRMSE": 0,
        "MIDRMSE": 0,
        "FLICK": 0,
        "GAIN": 1,
        "BAD": 0,
    }
    assert scores["PUPSNR"] > 150
    assert np.isnan(scores["JOD"])


def test_a_global_gain_is_reported_and_divided_out() -> None:
    truth, sdr = clip_pair()
    scores = score(truth, sdr, truth * np.float32(1.5))
    assert scores["GAIN"] == pytest.approx(1.5)
    assert scores["HLRMSE"] == pytest.approx(0, abs=1e-6)


def test_stop_errors() -> None:
    """Clipped areas one stop dark, mid-tones untouched; then one frame of three half a stop brighter than that."""
    truth, sdr = clip_pair()
    result = truth.copy()
    result[CLIPPED] /= 2
    scores = score(truth, sdr, result)
    assert scores["HLRMSE"] == pytest.approx(1)
    assert scores["MIDRMSE"] == scores["FLICK"] == 0
    result[1, :4] *= 2**0.5
    scores = score(truth, sdr, result)
    assert scores["HLRMSE"] == pytest.approx(np.sqrt((1 + 0.25 + 1) / 3))
    assert scores["FLICK"] == pytest.approx(0.5)


def test_mid_tone_error_leaves_highlights_alone() -> None:
    truth, sdr = clip_pair()
    result = truth.copy()
    result[:, 4] *= 2  # one of the four exposed rows: the median ratio stays 1
    scores = score(truth, sdr, result)
    assert scores["GAIN"] == 1
    assert scores["MIDRMSE"] == pytest.approx(0.5)
    assert scores["HLRMSE"] == 0


def test_one_clipped_channel_makes_a_clipped_pixel_and_shadows_count_nowhere() -> None:
    truth, sdr = clip_pair()
    result = truth.copy()
    sdr[CLIPPED] = (255, 100, 100)
    result[CLIPPED] *= 2
    assert score(truth, sdr, result)["HLRMSE"] == pytest.approx(1)
    sdr[CLIPPED] = (16, 100, 100)
    scores = score(truth, sdr, result)
    assert scores["MIDRMSE"] == 0
    assert np.isnan(scores["HLRMSE"])


def test_errors_far_below_white_do_not_count() -> None:
    truth, sdr = clip_pair()
    sdr[:], truth[:] = 255, 2.0**-9
    assert score(truth, sdr, truth * np.float32(2.0**-5))["HLRMSE"] == 0


def test_detail_is_compared_over_clipped_pixels_whatever_the_level_and_the_strength() -> None:
    """Stripes of one pixel: as they are, half as strong at another level, the other way round, and none at all."""
    truth, sdr = np.ones((2, 32, 32, 3), np.float32), np.full((2, 32, 32, 3), 255, np.uint8)
    sdr[:, :16] = 128
    stripes = np.where(np.arange(32) % 2, 1.0, -1.0)[None, :, None]
    truth[:, 16:] = 8 * 2**stripes
    truth[:, :16] = 0.2
    half, other, flat = truth.copy(), truth.copy(), truth.copy()
    half[:, 16:], other[:, 16:], flat[:, 16:] = 2 * 2 ** (stripes / 2), 8 / 2**stripes, 8.0
    flat[:, :16:2] = 0.1  # what does not clip does not count
    for result, expected in ((truth, (1, 1)), (half, (1, 0.5)), (other, (-1, 1)), (flat, (0, 0))):
        scores = score(truth, sdr, result)
        assert (scores["DETAIL"], scores["SWING"]) == pytest.approx(expected, abs=1e-3)
    assert np.isnan(score(flat, sdr, truth)["DETAIL"])


def test_values_that_are_not_finite_are_counted() -> None:
    truth, sdr = clip_pair()
    result = truth.copy()
    result[0, 0, 0] = (np.nan, np.inf, -np.inf)
    scores = score(truth, sdr, result)
    assert scores["BAD"] == 3
    assert np.isfinite(scores["HLRMSE"])


def test_pupsnr() -> None:
    """PU21 gives 100 cd/m2 the code 256; a frame that is black where the truth is SDR white is off by just that."""
    assert evaluate.pu21(np.array([0.005, 100.0])) == pytest.approx([0, 256], abs=0.5)
    white = np.ones((4, 4, 3), np.float32)
    assert evaluate.pupsnr(white * 0, white) == pytest.approx(0, abs=0.02)
    assert evaluate.pupsnr(white * 50, white * 60) > 150  # both over the display's peak


def test_a_result_of_another_shape() -> None:
    truth, sdr = clip_pair()
    with pytest.raises(ValueError, match=r"\(2, 8, 8, 3\)"):
        score(truth, sdr, truth[:2])


def moving_error() -> tuple[np.ndarray, Camera]:
    """Log2 errors of a still whose error map is a slope, as a camera sees it that pans, turns and zooms."""
    path = make_scenes.camera_path(4, (60, 90), (32, 24), wrap=True, seed=1)
    x, y = np.meshgrid(np.arange(90, dtype=np.float32), np.arange(60, dtype=np.float32))
    slope = np.repeat((np.abs(x - 45) / 10 + y / 20)[..., None], 3, -1)
    return np.stack(list(make_scenes.film(slope, path, (32, 24), wrap=True)))[..., 0], Camera(path, 90)


def test_a_still_error_that_moves_past_is_no_true_flicker() -> None:
    stops, camera = moving_error()
    clipped = np.ones(stops.shape, bool)
    assert evaluate.rms(np.diff(stops, axis=0)) > 0.5
    assert evaluate.rms(evaluate.true_changes(stops, clipped, camera)) < 0.02  # interpolation at the slope's two bends
    stops[2] += 0.5
    changes = evaluate.true_changes(stops, clipped, camera)
    assert evaluate.rms(changes) == pytest.approx(0.5 * np.sqrt(2 / 3), rel=0.05)  # pairs of frames share unlike areas


def test_true_flicker_leaves_out_what_does_not_clip_in_both_frames() -> None:
    stops, camera = moving_error()
    clipped = np.zeros(stops.shape, bool)
    clipped[:, 6:18, 8:24] = True
    stops[~clipped] = 100
    changes = evaluate.true_changes(stops, clipped, camera)
    assert 0 < len(changes) < clipped[1:].sum()
    assert evaluate.rms(changes) < 0.02


def test_brightness_classes_of_two_clips_add_up() -> None:
    first = evaluate.Brightness.of(np.array([-0.5, 1.5, 5.0]), np.array([0.5, -1.0, -3.0]))
    second = evaluate.Brightness.of(np.array([1.25]), np.array([-3.0]))
    assert list((first + second).rows("m")) == [
        "| m | under 0 | 25.0% | +0.50 | 0.50 | 1.3% |",
        "| m | 1 to 2 | 50.0% | -2.00 | 2.24 | 51.9% |",
        "| m | over 4 | 25.0% | -3.00 | 3.00 | 46.8% |",
    ]


# Scenes -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """The clip pair as make_scenes.py would have written it."""
    truth, sdr = clip_pair()
    folder = tmp_path / "scenes" / "flat"
    for name in ("hdr", "sdr"):
        (folder / name).mkdir(parents=True)
    for index in range(len(truth)):
        make_scenes.write_exr(folder / "hdr" / f"{index:04d}.exr", truth[index])
        cv2.imwrite(str(folder / "sdr" / f"{index:04d}.png"), sdr[index])
    about = {"frames": 3, "width": 8, "height": 8, "fps": 24, "transfer": "srgb", "video": None}
    (folder / "scene.json").write_text(json.dumps(about))
    return Scene.open(folder)


def test_the_floor_misses_what_clipped_and_nothing_else(scene: Scene) -> None:
    scores = score(scene.truth(), scene.sdr(), evaluate.floor(scene).clip)
    assert scores["HLRMSE"] == pytest.approx(2, abs=1e-3)  # 1 where the truth is 4; the truth on disk is half float
    assert scores["MIDRMSE"] == pytest.approx(0, abs=1e-3)
    assert scores["GAIN"] == pytest.approx(1, abs=1e-3)


def test_a_scene_is_given_as_the_clip_it_is(scene: Scene) -> None:
    clip = evaluate.open_clip(scene)
    assert (clip.num_frames, clip.width, clip.height, clip.fps) == (3, 8, 8, 24)
    props = clip.get_frame(0).props
    assert (props["_Matrix"], props["_Transfer"], props["_Primaries"]) == (0, 13, 1)
    decoded = np.stack(list(evaluate.read_clip(clip)))
    assert np.array_equal(decoded, scene.sdr())


def test_command_line(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A method whose files are the truth, against the floor: the table, the worst scene and the JSON."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "flat").symlink_to(scene.folder / "hdr")
    command = ["evaluate.py", str(scene.folder.parent), "linear", f"mine={tmp_path / 'mine'}", "--no-jod"]
    monkeypatch.setattr(sys, "argv", [*command, "--json", str(tmp_path / "scores.json")])
    evaluate.main()
    lines = capsys.readouterr().out.splitlines()
    error = np.diff(evaluate.pu21(np.array([100.0, 400.0])))[0] / 2**0.5  # in half of the pixels
    psnr = f"{20 * np.log10(256 / error):.1f}"
    assert f"| flat | linear |  | {psnr} | 2.000 | 0.000 | 0.000 |  |  |  | 1.000 | 0 |  |  |" in lines
    assert "| linear | 2 to 3 | 100.0% | -2.00 | 2.00 | 100.0% |" in lines
    assert "| HLRMSE | flat | 2.000 | 0.000 | 2.000 |" in lines
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["mine"]["MEAN"]["HLRMSE"] == scores["mine"]["flat"]["HLRMSE"] == 0


def test_highlights_alone_are_taken_in_the_scale_of_what_is_well_exposed(scene: Scene, tmp_path: Path) -> None:
    """A method that is twice as bright everywhere, and spoils the darker pixels of one row."""
    truth = scene.truth() * np.float32(2)
    truth[:, 5] *= 7
    for index, frame in enumerate(truth):
        (tmp_path / "mine" / "flat").mkdir(parents=True, exist_ok=True)
        make_scenes.write_exr(tmp_path / "mine" / "flat" / f"{index:04d}.exr", frame)
    clip = evaluate.from_files(tmp_path / "mine", highlights=True)(scene).clip
    assert clip[CLIPPED] == pytest.approx(4, rel=2e-3)
    assert np.array_equal(clip[:, 4:], scene.given()[:, 4:])
    assert list(evaluate.parse_methods(options(methods=[f"mine={tmp_path / 'mine'}:highlights"]))) == ["mine"]


def options(**changed: object) -> evaluate.argparse.Namespace:
    names = ("preset", "seed", "device", "write")
    return evaluate.argparse.Namespace(**{"run": False, "set": [], **dict.fromkeys(names), **changed})


def test_a_scene_knows_the_path_of_its_camera(tmp_path: Path) -> None:
    make_scenes.write_exr(tmp_path / "still.exr", np.ones((40, 80, 3), np.float32))
    still = make_scenes.Still("grey", tmp_path / "still.exr", wrap=True)
    scene = Scene.open(make_scenes.render(still, tmp_path, frames=3, size=(32, 24), seed=5))
    path = make_scenes.camera_path(3, (40, 80), (32, 24), wrap=True, seed=5)
    assert scene.camera is not None
    assert scene.camera.turn == 80
    assert scene.camera.path.at(2) == path.at(2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name a METHOD"),
        (["mine"], "METHOD 'mine' must be linear, NAME=DIR or NAME=DIR:highlights"),
        (["mine=nowhere"], "has 0 .exr files for 3 frames"),
        (["linear", "--seed", "3"], "belong to --run"),
        (["linear", "--only", "other"], "has no folder other"),
    ],
)
def test_bad_command_line(scene: Scene, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate.py", str(scene.folder.parent), "--no-jod", *arguments])
    with pytest.raises(SystemExit, match=words.replace("(", r"\(")):
        evaluate.main()


def test_run_times_and_scores_what_expand_returns(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an expand that doubles linear light: what reaches it, and what comes of its clip."""
    import vapoursynth as vs

    import vszhdrv

    given = {}

    def expand(clip: vs.VideoNode, **arguments: object) -> vs.VideoNode:
        given.update(arguments)
        return clip.resize.Bicubic(format=vs.RGBS, transfer_s="linear").std.Expr("x 2 *")

    monkeypatch.setattr(vszhdrv, "expand", expand, raising=False)
    monkeypatch.setenv("VSZHDRV_CACHE", "elsewhere")
    result = evaluate.expansion({"seed": 3}, tmp_path / "kept")(scene)
    assert given == {"seed": 3}
    assert evaluate.os.environ["VSZHDRV_CACHE"] == ""
    assert result.clip == pytest.approx(2 * scene.given(), rel=1e-3)
    assert result.training >= 0 < result.per_frame
    kept = evaluate.from_files(tmp_path / "kept")(scene)
    assert kept.clip == pytest.approx(result.clip, rel=1e-3)


def test_worst_scene_has_the_sign_of_the_column() -> None:
    bottom = {
        name: {"JOD": 5.0, "PUPSNR": 20.0, "HLRMSE": 1.0, "FLICK": np.nan, "TFLICK": np.nan} for name in ("a", "b")
    }
    method = {
        "a": {"JOD": 7.0, "PUPSNR": 19.0, "HLRMSE": 0.5, "FLICK": np.nan, "TFLICK": np.nan},
        "b": {"JOD": 6.0, "PUPSNR": 25.0, "HLRMSE": 1.25, "FLICK": np.nan, "TFLICK": np.nan},
    }
    lines = evaluate.worst_against_floor(method, bottom).splitlines()[2:]
    assert lines == [
        "| JOD | b | 5.00 | 6.00 | 1.00 |",
        "| PUPSNR | a | 20.0 | 19.0 | -1.0 |",
        "| HLRMSE | b | 1.000 | 1.250 | -0.250 |",
    ]


def test_arguments_are_literals_or_words() -> None:
    assert evaluate.parse_argument("epochs=3") == ("epochs", 3)
    assert evaluate.parse_argument("preset=paper") == ("preset", "paper")
    assert evaluate.parse_argument("alpha=0.5") == ("alpha", 0.5)


def test_jod() -> None:
    """ColorVideoVDP itself, once: 10 for the truth, less for the floor."""
    pytest.importorskip("pycvvdp", reason="ColorVideoVDP is not installed (cvvdp)")
    truth, sdr = clip_pair()
    truth, sdr = (np.ascontiguousarray(np.tile(each[:2], (1, 8, 8, 1))) for each in (truth, sdr))
    jod = evaluate.color_video_vdp()
    assert score(truth, sdr, truth, jod=jod)["JOD"] == pytest.approx(10)
    assert score(truth, sdr, np.minimum(truth, 1), jod=jod)["JOD"] < 9


def test_a_films_scenes_are_told_apart_in_their_own_order() -> None:
    def shot(first: int, end: int, scene: str, scene_first: int, blended: int = 0) -> dict[str, object]:
        return {"first": first, "end": end, "scene": scene, "scene_first": scene_first, "blended": blended}

    shots = [shot(0, 4, "a", 2), shot(4, 8, "b", 0), shot(7, 10, "a", 0, 1)]
    assert evaluate.film_parts(shots, [5]) == {"b": [4, 6], "a": [8, 9, 0, 1, 2, 3]}
