"""Light levels and the shoulder, against values computed by hand."""

import math
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vszhdrv import exr, light
from vszhdrv.light import ClipLight, FrameLight, encoder_arguments, frame_light, shoulder, to_bt2020

WHITE = 203.0


def solid(red, green, blue, height=20, width=30):
    return np.broadcast_to(np.float32([red, green, blue])[:, None, None], (3, height, width)).copy()


def measured(*frames, primaries=9, white=WHITE):
    clip = ClipLight(len(frames), frames[0].shape[2], frames[0].shape[1])
    for n, linear in enumerate(frames):
        clip.add(n, frame_light(linear, white, primaries))
    return clip


# --- colour


def test_709_to_2020_is_bt2087():
    np.testing.assert_allclose(
        to_bt2020(1), [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]], atol=5e-5
    )


@pytest.mark.parametrize("primaries", [1, 5, 6, 7, 12, 22, 9, 2])
def test_white_stays_white(primaries):
    np.testing.assert_allclose(to_bt2020(primaries) @ np.ones(3), 1, atol=1e-12)


@pytest.mark.parametrize("primaries", sorted(exr.CHROMATICITIES))
def test_resize_delivers_the_same_colours(primaries):
    vs = pytest.importorskip("vapoursynth")
    colour = [0.2, 1.5, 0.9]
    source = vs.core.std.BlankClip(format=vs.RGBS, width=16, height=16, length=1, color=colour)
    tagged = source.std.SetFrameProps(_Matrix=0, _Transfer=8, _Primaries=primaries, _Range=1)
    with tagged.resize.Point(primaries=9).get_frame(0) as frame:
        delivered = [np.asarray(frame[plane])[0, 0] for plane in range(3)]
    np.testing.assert_allclose(to_bt2020(primaries) @ colour, delivered, rtol=1e-5, atol=1e-6)


def test_luminance_weights_are_the_standards():
    np.testing.assert_allclose(light.luminance_weights(1), [0.2126, 0.7152, 0.0722], atol=5e-5)  # BT.709-6, item 3.2
    np.testing.assert_allclose(light.luminance_weights(9), [0.2627, 0.6780, 0.0593], atol=5e-5)  # BT.2020-2, table 4
    np.testing.assert_allclose(light.luminance_weights(12), [0.2290, 0.6917, 0.0793], atol=5e-5)  # SMPTE RP 431-2, D65


# --- the shoulder


def test_shoulder_by_hand():
    # room = 1000/203 - 1 = 3.926108; m = 4: 1 + room * (1 - exp(-3 / room)) = 3.097540
    rgb = np.zeros((3, 1, 3), np.float32)
    rgb[:, 0, 0] = [4, 2, 1]
    rgb[:, 0, 1] = [1, 0.5, 0]
    rgb[:, 0, 2] = [0, 0, 1e6]
    out = shoulder(rgb, 1000)
    np.testing.assert_allclose(out[:, 0, 0], 3.097540 * np.array([1, 0.5, 0.25]), rtol=1e-5)
    np.testing.assert_array_equal(out[:, 0, 1], [1, 0.5, 0])
    np.testing.assert_allclose(out[:, 0, 2], [0, 0, 1000 / 203], rtol=1e-6)


def test_shoulder_says_in_nits_what_its_docstring_says():
    for stops, nits in [(2, 629), (3, 866), (4, 983)]:
        assert shoulder(solid(*[2.0**stops] * 3), 1000)[0, 0, 0] * WHITE == pytest.approx(nits, abs=0.6)


@given(st.floats(204, 10000), st.floats(0, 12))
def test_shoulder_rises_smoothly_to_the_peak_and_spares_everything_to_white(peak, stops):
    levels = np.float32([-0.1, 0, 0.3, 0.999, 1, *np.geomspace(1.0001, 2**stops + 1, 200)])
    rgb = np.stack([levels, levels / 2, levels / 4])[:, None]
    out = shoulder(rgb, peak)[0, 0]
    np.testing.assert_array_equal(out[:5], levels[:5])
    assert (np.diff(out) >= -1e-6 * out[1:]).all()
    assert out.max() <= peak / WHITE * (1 + 1e-5)
    assert (out[5:] <= levels[5:] * (1 + 1e-6)).all()


def test_shoulder_has_no_kink_at_white():
    step = 1e-3
    below, white, above = shoulder(solid(1 - step, 0, 0), 1000), 1.0, shoulder(solid(1 + step, 0, 0), 1000)
    slope_below, slope_above = (white - below[0, 0, 0]) / step, (above[0, 0, 0] - white) / step
    assert slope_below == pytest.approx(1, abs=1e-3)
    assert slope_above == pytest.approx(1, abs=1e-3)


def test_shoulder_keeps_hue_and_its_input():
    rng = np.random.default_rng(0)
    rgb = (rng.random((3, 20, 30), dtype=np.float32) * 12).astype(np.float32)
    before = rgb.copy()
    out = shoulder(rgb, 1000)
    np.testing.assert_array_equal(rgb, before)
    np.testing.assert_allclose(out / out.max(axis=0), rgb / rgb.max(axis=0), rtol=1e-5)
    assert out.dtype == np.float32
    assert out.shape == rgb.shape


def test_no_peak_changes_nothing():
    rgb = solid(50, 2, 3)
    np.testing.assert_array_equal(shoulder(rgb, 0), rgb)


@pytest.mark.parametrize("peak", [-1, 100, 203, 10001, math.nan])
def test_bad_peaks(peak):
    with pytest.raises(ValueError, match=r"^peak must be 0 or over white \(203 nits\) and at most 10000 nits, not"):
        light.Look(1, peak, 203)


# --- one frame


def test_frame_light_by_hand_in_2020():
    rgb = solid(0.5, 0.25, 0.125)
    rgb[:, 0, 0] = [1, 4, 2]
    got = frame_light(rgb, WHITE, 9)
    assert got.max_nits == pytest.approx(812)  # 4 * 203
    assert got.avg_nits == pytest.approx((599 * 101.5 + 812) / 600)
    assert got.scene_max == pytest.approx((203, 812, 406))
    assert got.lit == (0, 0, 30, 20)


def test_frame_light_is_measured_in_2020():
    # BT.709 red is 0.6274 red, 0.0691 green, 0.0164 blue in BT.2020
    got = frame_light(solid(1, 0, 0), 100, 1)
    assert got.max_nits == pytest.approx(62.74, abs=0.01)
    assert got.avg_nits == pytest.approx(62.74, abs=0.01)
    assert got.scene_max == pytest.approx((62.74, 6.91, 1.64), abs=0.01)


def test_frame_light_stays_within_pq():
    got = frame_light(solid(100, -3, 0), WHITE, 9)
    assert got.max_nits == 10000
    assert got.scene_max == pytest.approx((10000, 0, 0), abs=1e-6)


def test_a_mean_over_many_pixels_is_exact():
    rgb = solid(1.1, 0, 0, 1500, 2000)
    assert frame_light(rgb, WHITE, 9).avg_nits == pytest.approx(1.1 * 203, rel=1e-6)


# --- one clip


def test_clip_takes_the_brightest_pixel_and_the_brightest_mean():
    flash = solid(0.1, 0.1, 0.1)
    flash[:, 3, 4] = 8
    clip = measured(flash, solid(0.5, 0.5, 0.5), solid(0.2, 0.6, 0.2))
    assert clip.max_cll == pytest.approx(8 * 203)
    assert clip.max_fall == pytest.approx(0.6 * 203)
    assert clip.missing == []


def test_letterbox_bars_stay_out_of_the_mean():
    frames = [solid(level, level, level, 40, 60) for level in (0.5, 1.0)]
    for linear in frames:
        linear[:, :5] = linear[:, 35:] = 1 / 65535  # what a logarithmic merge makes of black
    clip = measured(*frames)
    assert clip.picture == (0, 5, 60, 30)
    assert clip.max_fall == pytest.approx(203, rel=1e-4)
    assert clip[1].avg_nits == pytest.approx(203 * 30 / 40, rel=1e-4)


def test_pillars_and_window_boxes():
    boxed = np.zeros((3, 40, 60), np.float32)
    boxed[:, 4:36, 10:50] = 1
    clip = measured(boxed)
    assert clip.picture == (10, 4, 40, 32)
    assert clip.max_fall == pytest.approx(203)


def test_noise_and_a_speck_do_not_make_bars_bright():
    rng = np.random.default_rng(0)
    rgb = solid(1, 1, 1, 100, 300)
    rgb[:, :20] = rgb[:, 80:] = 0
    rgb[:, :20] += rng.random((3, 20, 300), dtype=np.float32) * 0.09 / 203
    rgb[:, 3, 7] = 0.5
    assert measured(rgb).picture == (0, 20, 300, 60)


def test_a_dark_scene_does_not_cut_into_the_picture():
    spot = np.zeros((3, 40, 60), np.float32)
    spot[:, 15:25, 20:40] = 1
    clip = measured(spot, solid(0.05, 0.05, 0.05, 40, 60))
    assert clip.picture == (0, 0, 60, 40)
    assert clip.max_fall == pytest.approx(203 * 200 / 2400)


def test_a_dark_side_is_not_a_bar():
    sky = solid(1, 1, 1, 40, 60)
    sky[:, 20:] = 0
    assert measured(sky).picture == (0, 0, 60, 40)


def test_a_subtitle_in_one_bar_widens_the_picture_only():
    rgb = solid(1, 1, 1, 40, 60)
    rgb[:, :5] = rgb[:, 35:] = 0
    rgb[:, 36:38, 20:40] = 1
    assert measured(rgb).picture == (0, 2, 60, 36)


def test_a_black_clip_is_all_picture():
    clip = measured(solid(0, 0, 0), solid(0, 0, 0))
    assert clip.picture == (0, 0, 30, 20)
    assert (clip.max_cll, clip.max_fall) == (0, 0)


@pytest.mark.filterwarnings("error")
def test_frames_come_in_any_order_and_some_may_be_missing():
    clip = ClipLight(4, 30, 20)
    assert clip.missing == [0, 1, 2, 3]
    assert clip[2] is None
    assert (clip.max_cll, clip.max_fall) == (0, 0)
    one = frame_light(solid(2, 1, 0), WHITE, 9)
    clip.add(2, one)
    assert clip.missing == [0, 1, 3]
    assert clip[2] == one
    assert clip.max_cll == 406


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 18), st.integers(0, 12), st.floats(0.01, 40))
def test_the_mean_within_bars_is_the_mean_without_them(above, beside, level):
    rng = np.random.default_rng(above * 100 + beside)
    rgb = np.zeros((3, 40, 30), np.float32)
    inside = rng.random((3, 40 - 2 * above, 30 - 2 * beside), dtype=np.float32) * np.float32(level) + np.float32(0.01)
    rgb[:, above : 40 - above, beside : 30 - beside] = inside
    clip = measured(rgb)
    assert clip.picture == (beside, above, 30 - 2 * beside, 40 - 2 * above)
    assert clip.max_fall == pytest.approx(frame_light(inside, WHITE, 9).avg_nits, rel=1e-5)


# --- the cache


def test_cache_comes_back(tmp_path):
    clip = ClipLight(3, 30, 20)
    clip.add(0, FrameLight(500.5, 20.25, (500.5, 1.0, 2.0), (0, 2, 30, 18)))
    clip.add(2, FrameLight(0, 0, (0, 0, 0), (0, 0, 0, 0)))
    path = tmp_path / "levels" / "clip.npz"
    clip.save(path, "key 1")
    back = ClipLight.load(path, "key 1")
    assert back is not None
    assert [back[n] for n in range(3)] == [clip[n] for n in range(3)]
    assert (back.width, back.height, back.missing) == (30, 20, [1])
    assert (back.picture, back.max_cll, back.max_fall) == (clip.picture, clip.max_cll, clip.max_fall)
    assert [p.name for p in path.parent.iterdir()] == ["clip.npz"]


def test_cache_of_another_key_or_broken_is_no_cache(tmp_path):
    path = tmp_path / "clip.npz"
    assert ClipLight.load(path, "a") is None
    measured(solid(1, 1, 1)).save(path, "a")
    assert ClipLight.load(path, "b") is None
    whole = path.read_bytes()
    for broken in (b"", whole[:50], whole[: len(whole) // 2], whole[:-1], b"{}", whole[:60] + b"?" * (len(whole) - 60)):
        path.write_bytes(broken)
        assert ClipLight.load(path, "a") is None, broken[:10]
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        ClipLight.load(path, "a")  # some bits are of dates, and the like: what counts is that nothing is raised
    np.savez(path, key=np.array("a"))
    assert ClipLight.load(path, "a") is None


def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "clip.npz"
    measured(solid(1, 1, 1)).save(path, "a")

    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(light.np, "savez_compressed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measured(solid(2, 2, 2)).save(path, "a")
    monkeypatch.undo()
    back = ClipLight.load(path, "a")
    assert back is not None
    assert back.max_cll == 203
    assert [p.name for p in tmp_path.iterdir()] == ["clip.npz"]


# --- encoders


def clip_of(cll, fall):
    clip = ClipLight(1, 30, 20)
    clip.add(0, FrameLight(cll, fall, (cll, 0, 0), (0, 0, 30, 20)))
    return clip


def test_encoder_arguments_by_hand():
    got = encoder_arguments(clip_of(987.6, 120.4), primaries=1, peak=1000)
    display = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
    assert got.x265[got.x265.index("--master-display") + 1] == display
    assert got.x265[got.x265.index("--max-cll") + 1] == "988,120"
    assert "--hdr10" in got.x265
    assert got.svt_av1[got.svt_av1.index("--mastering-display") + 1] == (
        "G(0.2650,0.6900)B(0.1500,0.0600)R(0.6800,0.3200)WP(0.3127,0.3290)L(1000.0000,0.0001)"
    )
    assert got.svt_av1[got.svt_av1.index("--content-light") + 1] == "988,120"
    assert got.ffmpeg_x265[-1] == (
        "hdr10=1:hdr10-opt=1:repeat-headers=1:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:range=limited:"
        f"chromaloc=2:master-display={display}:max-cll=988,120"
    )
    # in double quotes, which cmd.exe knows as well: parentheses stop a shell, PowerShell takes commas apart
    assert f'--master-display "{display}" --max-cll "988,120"' in got.lines()["x265"]
    assert [shlex.split(line) for line in got.lines().values()] == [
        got.x265,
        got.svt_av1,
        got.ffmpeg_x265,
        got.ffmpeg_svt_av1,
    ]


def test_a_wide_source_has_a_wide_mastering_display():
    got = encoder_arguments(clip_of(1000, 400), primaries=9, peak=4000)
    assert "G(8500,39850)B(6550,2300)R(35400,14600)WP(15635,16450)L(40000000,1)" in got.x265


def test_without_a_peak_the_display_is_as_bright_as_the_clip():
    got = encoder_arguments(clip_of(2345.6, 10), primaries=1)
    assert got.x265[got.x265.index("--master-display") + 1].endswith("L(23460000,1)")


def test_a_black_clip_says_one_nit_because_zero_means_unknown():
    assert "1,1" in encoder_arguments(clip_of(0, 0)).x265


def ffmpeg_with(encoder):
    ffmpeg = shutil.which("ffmpeg")
    if not (ffmpeg and shutil.which("ffprobe")):
        pytest.skip("ffmpeg or ffprobe is not installed")
    encoders = subprocess.run([ffmpeg, "-v", "error", "-encoders"], capture_output=True, text=True, check=True).stdout
    if encoder not in encoders:
        pytest.skip(f"this ffmpeg has no {encoder}")
    return ffmpeg


@pytest.mark.parametrize("encoder", ["libx265", "libsvtav1"])
def test_encoders_take_them_and_players_see_them(tmp_path, encoder):
    ffmpeg = ffmpeg_with(encoder)
    got = encoder_arguments(clip_of(987.6, 120.4), primaries=1, peak=1000)
    options = got.ffmpeg_x265 if encoder == "libx265" else got.ffmpeg_svt_av1
    source = ["-f", "lavfi", "-i", "testsrc=size=128x128:rate=24:duration=0.1", "-pix_fmt", "yuv420p10le"]
    file = tmp_path / "a.mkv"
    subprocess.run([ffmpeg, "-v", "error", *source, *options, file], check=True, capture_output=True)
    probe = ["ffprobe", "-v", "error", "-show_frames", "-show_streams", "-read_intervals", "%+#1", file]
    seen = subprocess.run(probe, capture_output=True, text=True, check=True).stdout.split("\n")
    for line in (
        "max_content=988",
        "max_average=120",
        "color_transfer=smpte2084",
        "color_primaries=bt2020",
        "chroma_location=topleft",
    ):
        assert line in seen
    peak = next(line for line in seen if line.startswith("max_luminance=")).removeprefix("max_luminance=").split("/")
    assert int(peak[0]) / int(peak[1]) == pytest.approx(1000)
    red = next(line for line in seen if line.startswith("red_x=")).removeprefix("red_x=").split("/")
    assert int(red[0]) / int(red[1]) == pytest.approx(0.68, abs=1e-4)


def test_import_is_light():
    check = "import sys, vszhdrv.light; print({'torch', 'vapoursynth', 'OpenEXR'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
