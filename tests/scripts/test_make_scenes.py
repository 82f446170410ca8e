"""Scenes rendered from stills whose content is known."""

import json
import shutil
import subprocess
from pathlib import Path

import cv2
import make_scenes
import numpy as np
import pytest
from make_scenes import Still

SIZE = (64, 48)


@pytest.fixture
def still(tmp_path: Path) -> Still:
    """Smooth light over three to four stops, with stripes so bright and thin that they clip wherever the camera is."""
    y, x = np.mgrid[0:96, 0:192].astype(np.float32)
    rgb = np.stack([2 ** (x / 48), 2 ** (y / 32), np.ones_like(x)], -1)
    rgb[:, np.arange(192) % 32 < 2] = 100.0
    path = tmp_path / "still.exr"
    make_scenes.write_exr(path, rgb)
    return Still("stripes", path, wrap=True)


def read_sdr(folder: Path, index: int) -> np.ndarray:
    return cv2.imread(str(folder / "sdr" / f"{index:04d}.png"))[..., ::-1]


def read_hdr(folder: Path, index: int) -> np.ndarray:
    return make_scenes.read_exr(folder / "hdr" / f"{index:04d}.exr")


@pytest.mark.parametrize("transfer", make_scenes.ENCODE)
def test_transfer_and_its_inverse(transfer: str) -> None:
    linear = np.linspace(0, 1, 1001)
    assert make_scenes.DECODE[transfer](make_scenes.ENCODE[transfer](linear)) == pytest.approx(linear, abs=1e-6)


def test_known_codes() -> None:
    assert make_scenes.srgb_encode(np.array([0.2140411])) == pytest.approx(0.5)
    assert make_scenes.bt1886_encode(np.array([0.5**2.4, 7.0])) == pytest.approx([0.5, 1.0])


@pytest.mark.parametrize("transfer", make_scenes.ENCODE)
def test_sdr_is_the_truth_clipped_and_encoded(still: Still, tmp_path: Path, transfer: str) -> None:
    folder = make_scenes.render(still, tmp_path, frames=3, size=SIZE, transfer=transfer)
    about = json.loads((folder / "scene.json").read_text())
    assert (about["frames"], about["width"], about["height"], about["fps"]) == (3, *SIZE, 24)
    assert about["transfer"] == transfer
    for index in range(3):
        hdr, sdr = read_hdr(folder, index), read_sdr(folder, index)
        assert hdr.shape == sdr.shape == (48, 64, 3)
        assert hdr.max() > 1
        assert (sdr[hdr > 1.001] == 255).all()
        expected = np.round(255 * make_scenes.ENCODE[transfer](hdr))
        assert np.abs(expected - sdr).max() <= 1  # the truth on disk is rounded to half float
        assert about["per_frame"][index]["clipped"] == pytest.approx((sdr == 255).any(-1).mean())


def test_same_seed_same_scene_other_seed_another(still: Still, tmp_path: Path) -> None:
    first, again, other = (
        make_scenes.render(still, tmp_path / name, frames=2, size=SIZE, seed=seed)
        for name, seed in [("first", 3), ("again", 3), ("other", 4)]
    )
    assert np.array_equal(read_hdr(first, 1), read_hdr(again, 1))
    assert not np.array_equal(read_hdr(first, 1), read_hdr(other, 1))


def test_path_of_a_known_seed() -> None:
    """Published figures belong to seeds: the draws must never move."""
    path = make_scenes.camera_path(2, (512, 1024), (448, 256), wrap=True, seed=7)
    assert path.zoom == pytest.approx([0.906274, 0.974303], abs=1e-6)
    assert path.x == pytest.approx([794.3021, 1197.5021], abs=1e-3)


def test_a_hand_trembles_around_the_same_path() -> None:
    path = make_scenes.camera_path(40, (512, 1024), (448, 256), wrap=True, seed=7)
    shaken = make_scenes.shaken(path, 2.0, seed=7)
    steps = np.concatenate([shaken.x - path.x, shaken.y - path.y])
    assert np.sqrt((steps**2).mean()) == pytest.approx(2)
    assert np.array_equal(shaken.zoom, path.zoom)


def test_the_logarithmic_meter_lets_a_bright_window_clip() -> None:
    """A tenth of the picture five stops brighter than the rest: its own mean of stops and the headroom are white."""
    picture = np.full((10, 10, 3), 0.1, np.float32)
    picture[0] *= 32
    level = make_scenes.logarithmic_level(picture)
    assert np.log2(level / 0.1) == pytest.approx(0.5 + make_scenes.HEADROOM, abs=1e-3)
    assert level < picture.max()


def test_exposure_follows_the_meter_slowly() -> None:
    """A grey that doubles: metered at 4 times its mean, then a fifteenth of the way to twice that."""
    shots = iter([np.full((8, 8, 3), 0.1, np.float32), np.full((8, 8, 3), 0.2, np.float32)])
    (dark, dark_gain), (light, light_gain) = make_scenes.exposed(shots, cap=64)
    assert dark == pytest.approx(0.25)
    assert dark_gain == pytest.approx(1 / 0.4)
    level = 0.4 + (0.8 - 0.4) / 15
    assert light == pytest.approx(0.2 / level)
    assert light_gain == pytest.approx(1 / level)


def test_cap_bounds_the_truth(still: Still, tmp_path: Path) -> None:
    folder = make_scenes.render(still, tmp_path, frames=2, size=SIZE, cap=1.5)
    assert read_hdr(folder, 0).max() == 1.5


def test_a_shorter_clip_leaves_no_frames_of_a_longer_one(still: Still, tmp_path: Path) -> None:
    make_scenes.render(still, tmp_path, frames=3, size=SIZE)
    folder = make_scenes.render(still, tmp_path, frames=2, size=SIZE)
    assert len(list((folder / "hdr").iterdir())) == len(list((folder / "sdr").iterdir())) == 2


@pytest.mark.skipif(not shutil.which("ffprobe"), reason="needs ffmpeg")
@pytest.mark.parametrize("codec", make_scenes.ENCODERS)
@pytest.mark.parametrize(("depth", "pixels"), [(8, "yuv420p"), (10, "yuv420p10le")])
def test_video_is_tagged_and_close_to_the_pictures(
    still: Still, tmp_path: Path, codec: str, depth: int, pixels: str
) -> None:
    from vapoursynth import RGB24, core

    coding = make_scenes.Coding(codec, 12, depth)
    folder = make_scenes.render(still, tmp_path, frames=4, size=(128, 96), transfer="bt1886", coding=coding)
    entries = "stream=codec_name,pix_fmt,color_range,color_space,color_transfer,color_primaries,r_frame_rate"
    command = ["ffprobe", "-v", "error", "-show_entries", entries, "-of", "json", str(folder / "sdr.mp4")]
    (stream,) = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["streams"]
    tags = {name: stream[name] for name in ("color_space", "color_transfer", "color_primaries")}
    assert set(tags.values()) == {"bt709"}
    assert (stream["codec_name"], stream["pix_fmt"]) == (codec, pixels)
    assert (stream["color_range"], stream["r_frame_rate"]) == ("tv", "24/1")
    clip = core.bs.VideoSource(str(folder / "sdr.mp4"), cachemode=0).resize.Bicubic(format=RGB24)
    assert clip.num_frames == 4
    for index, frame in enumerate(clip.frames()):
        decoded = np.stack([np.asarray(frame[plane]) for plane in range(3)], -1).astype(int)
        green = decoded[..., 1] - read_sdr(folder, index)[..., 1]  # colour edges do not survive 4:2:0, luma does
        assert np.median(np.abs(green)) <= 2


def test_sensor_noise_is_that_of_a_channel_and_clips(still: Still, tmp_path: Path) -> None:
    noisy, clean = (
        make_scenes.render(still, tmp_path / str(noise), frames=1, size=SIZE, noise=noise) for noise in ("sensor", None)
    )
    assert np.array_equal(read_hdr(noisy, 0), read_hdr(clean, 0))
    bright = read_hdr(clean, 0) > 1.3  # six deviations over white
    assert (read_sdr(noisy, 0)[bright] == 255).all()
    decoded = make_scenes.srgb_decode(read_sdr(noisy, 0) / 255)
    middle = (read_hdr(clean, 0) > 0.2) & (read_hdr(clean, 0) < 0.8)
    noise = (decoded - read_hdr(clean, 0)) / np.sqrt(read_hdr(clean, 0))
    assert noise[middle].std() == pytest.approx(make_scenes.SHOT_NOISE, rel=0.1)
    both = middle[..., 0] & middle[..., 1]
    assert abs(np.corrcoef(noise[both][:, 0], noise[both][:, 1])[0, 1]) < 0.15


def test_grain_lies_on_white_too_and_has_no_colour(still: Still, tmp_path: Path) -> None:
    noisy, clean = (
        make_scenes.render(still, tmp_path / str(noise), frames=1, size=SIZE, noise=noise) for noise in ("grain", None)
    )
    grain = read_sdr(noisy, 0).astype(int) - read_sdr(clean, 0)
    middle = ((read_sdr(clean, 0) > 20) & (read_sdr(clean, 0) < 235)).all(-1)
    assert np.ptp(grain[middle], axis=-1).max() <= 1  # rounding
    assert grain[middle].std() == pytest.approx(make_scenes.GRAIN_CODES, rel=0.15)
    white = (read_sdr(clean, 0) == 255).all(-1)
    assert 0.3 < (read_sdr(noisy, 0)[white] < 255).mean() < 0.7


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--transfer", "bt1886", "--codec", "h264"], "--codec needs the program ffmpeg on PATH"),
        (["--fetch", "stills"], "--fetch needs the program apt-get on PATH"),
    ],
)
def test_a_missing_program_is_told_before_anything_is_done(
    still: Still,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.argv", ["make_scenes.py", f"stripes={still.path}", "--out", "scenes", *options])
    with pytest.raises(SystemExit) as caught:
        make_scenes.main()
    assert caught.value.code == 1
    assert capsys.readouterr() == ("", f"make_scenes: {said}\n")
    assert [path.name for path in tmp_path.iterdir()] == [still.path.name]


@pytest.mark.parametrize("text", ["name", "=path.exr", "name="])
def test_bad_still(text: str) -> None:
    with pytest.raises(make_scenes.argparse.ArgumentTypeError, match="NAME=PATH"):
        Still.parse(text)


def test_wrap_suffix() -> None:
    assert Still.parse("a=b/c.exr:wrap") == Still("a", Path("b/c.exr"), True)
    assert Still.parse("a=b/c.exr") == Still("a", Path("b/c.exr"), False)


def test_a_film_has_every_scene_in_parts_and_says_where(still: Still, tmp_path: Path) -> None:
    stills = [still, Still("again", still.path, wrap=True)]
    for seed, each in enumerate(stills):
        make_scenes.render(each, tmp_path, frames=12, size=SIZE, seed=seed)
    kinds = [("dissolve", 2), make_scenes.CUT]
    folder = make_scenes.make_film(stills, tmp_path, "film", returns=2, transitions=kinds, flashes=1)
    about = json.loads((folder / "scene.json").read_text())
    assert about["frames"] == 4 * 6 - 2 * 2
    shots = about["shots"]
    assert sorted((shot["scene"], shot["scene_first"]) for shot in shots) == [
        (name, first) for name in ("again", "stripes") for first in (0, 6)
    ]
    plain = next(shot for shot in shots if not shot["blended"])
    original = tmp_path / plain["scene"]
    untouched = plain["first"] if plain["first"] not in about["flashes"] else plain["first"] + 1
    index = plain["scene_first"] + untouched - plain["first"]
    assert (read_sdr(folder, untouched) == read_sdr(original, index)).all()
    assert len((folder / "shots.csv").read_text().splitlines()) == 1 + len(shots)


def test_views_of_one_still_are_one_place_where_they_overlap() -> None:
    def about(x: float) -> dict[str, object]:
        return {"turn": 1000, "width": 100, "height": 100, "per_frame": [{"x": x, "y": 0.0, "zoom": 1.0}]}

    assert make_scenes.views_overlap(about(990), about(30))
    assert not make_scenes.views_overlap(about(500), about(30))


@pytest.mark.parametrize("text", ["wipe:3", "fade", "dissolve:1"])
def test_other_transitions_are_refused(text: str) -> None:
    with pytest.raises(make_scenes.argparse.ArgumentTypeError, match="must be cut, dissolve:FRAMES or fade:FRAMES"):
        make_scenes.parse_transition(text)
