"""Every format, matrix, transfer and range against formulas written out here, every refusal against its sentence."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import vapoursynth as vs
from hypothesis import given, settings
from hypothesis import strategies as st

from vszhdrv.plugin import colour as module
from vszhdrv.plugin.colour import Colour, check_clip, resolve_colour, to_encoded, to_linear

core = vs.core

RGB = (vs.RGB24, vs.RGB30, vs.RGB48, vs.RGBH, vs.RGBS)
GREY = (vs.GRAY8, vs.GRAY10, vs.GRAY16, vs.GRAYH, vs.GRAYS)
YUV = (
    *(vs.YUV420P8, vs.YUV422P8, vs.YUV444P8, vs.YUV411P8, vs.YUV410P8, vs.YUV440P8),
    *(vs.YUV420P10, vs.YUV422P10, vs.YUV444P12, vs.YUV420P14, vs.YUV444P16),
    *(vs.YUV420PH, vs.YUV444PS),
)
# luma weights of red and blue: FCC, BT.601, BT.709, SMPTE 240M, BT.2020
LUMA = {
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    1: (0.2126, 0.0722),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}


def bt1886(v: np.ndarray) -> np.ndarray:
    return np.maximum(v, 0) ** 2.4


def srgb(v: np.ndarray) -> np.ndarray:
    v = np.maximum(v, 0)
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


CURVES: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: bt1886,
    4: lambda v: np.maximum(v, 0) ** 2.2,
    5: lambda v: np.maximum(v, 0) ** 2.8,
    6: bt1886,
    8: lambda v: v,
    13: srgb,
    14: bt1886,
    15: bt1886,
}


def camera(v: np.ndarray) -> np.ndarray:
    v = np.maximum(v, 0)
    return np.where(v < 0.081, v / 4.5, ((v + 0.099) / 1.099) ** (1 / 0.45))


def blank(
    format: int = vs.YUV420P8, width: int = 64, height: int = 48, length: int = 3, **options: Any
) -> vs.VideoNode:
    """A clip that says nothing of its colour."""
    clip = core.std.BlankClip(format=format, width=width, height=height, length=length, **options)
    return clip.std.RemoveFrameProps(["_Matrix", "_Transfer", "_Primaries", "_Range"])


def tagged(clip: vs.VideoNode, matrix: int = 1, transfer: int = 1, primaries: int = 1, full: int = 0) -> vs.VideoNode:
    return clip.std.SetFrameProps(_Matrix=matrix, _Transfer=transfer, _Primaries=primaries, _Range=full)


def ramp(bits: int) -> tuple[vs.VideoNode, np.ndarray]:
    """An RGB clip of one frame that holds every code, and those codes."""
    codes = np.arange(max(1 << bits, 256 * 16)).reshape(-1, 256) % (1 << bits)
    form = core.query_video_format(vs.RGB, vs.INTEGER, bits, 0, 0)
    clip = core.std.BlankClip(format=form.id, width=256, height=codes.shape[0], length=1)

    def fill(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        filled = f.copy()
        for plane in range(3):
            np.asarray(filled[plane])[:] = codes
        return filled

    return clip.std.ModifyFrame(clip, fill), codes


def planes(clip: vs.VideoNode, n: int = 0) -> np.ndarray:
    with clip.get_frame(n) as frame:
        return np.stack([np.array(frame[plane]) for plane in range(frame.format.num_planes)])


def props(clip: vs.VideoNode, n: int = 0) -> dict[str, Any]:
    with clip.get_frame(n) as frame:
        return dict(frame.props)


def resolved(clip: vs.VideoNode, **arguments: Any) -> tuple[Colour, list[str]]:
    said: list[str] = []
    return resolve_colour(clip, **arguments, warn=said.append), said


def decoded(clip: vs.VideoNode, matrix: int, full: int) -> np.ndarray:
    """Encoded RGB, shape (3,), of a clip of one colour, from its codes."""
    form = clip.format
    with clip.get_frame(0) as frame:
        codes = [float(np.asarray(frame[plane])[0, 0]) for plane in range(form.num_planes)]
    if form.sample_type == vs.INTEGER:
        peak, step = (1 << form.bits_per_sample) - 1, 1 << (form.bits_per_sample - 8)
        scale, black = (peak, 0) if full else (219 * step, 16 * step)
        chroma = peak if full else 224 * step
        offsets = [black, 128 * step, 128 * step] if form.color_family == vs.YUV else [black] * 3
        scales = [scale, chroma, chroma] if form.color_family == vs.YUV else [scale] * 3
        codes = [(code - offset) / by for code, offset, by in zip(codes, offsets, scales, strict=False)]
    if form.color_family == vs.GRAY:
        return np.array(codes * 3)
    if form.color_family == vs.RGB:
        return np.array(codes)
    y, u, v = codes
    kr, kb = LUMA[matrix]
    red, blue = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    return np.array([red, (y - kr * red - kb * blue) / (1 - kr - kb), blue])


@st.composite
def clips(draw: st.DrawFn) -> tuple[vs.VideoNode, int, int, int]:
    """A clip of one colour, with its matrix, transfer and range."""
    form = core.get_video_format(draw(st.sampled_from([*RGB, *GREY, *YUV])))
    deep, floating = form.bits_per_sample > 8, form.sample_type == vs.FLOAT
    matrix = 0 if form.color_family == vs.RGB else draw(st.sampled_from(sorted(LUMA)))
    transfer = draw(st.sampled_from(sorted(code for code in CURVES if deep or code != 8)))
    full = draw(st.sampled_from([0, 1]))
    width = draw(st.integers(16, 70)) >> form.subsampling_w << form.subsampling_w
    height = draw(st.integers(16, 70)) >> form.subsampling_h << form.subsampling_h
    peak = (1 << form.bits_per_sample) - 1
    light = st.floats(0, 1.125, width=16, allow_subnormal=False) if floating else st.integers(0, peak)
    tint = (
        st.floats(-0.25, 0.25, width=16, allow_subnormal=False)
        if floating
        else st.integers(peak * 3 // 8, peak * 5 // 8)
    )
    colour = [draw(tint if plane and form.color_family == vs.YUV else light) for plane in range(form.num_planes)]
    clip = blank(form.id, max(width, 16), max(height, 16), 1, color=colour)
    return tagged(clip, matrix, transfer, 1, full), matrix, transfer, full


@settings(max_examples=200, deadline=None)
@given(clips())
def test_linear_light_is_what_the_formulas_say(case: tuple[vs.VideoNode, int, int, int]) -> None:
    clip, matrix, transfer, full = case
    colour, said = resolved(clip)
    assert (colour, said) == (Colour(matrix, transfer, 1, full, False), [])
    linear = to_linear(clip, colour)
    assert (linear.format.id, linear.width, linear.height) == (vs.RGBS, clip.width, clip.height)
    expected = CURVES[transfer](decoded(clip, matrix, full))
    # zimg's float32 sums, its tables up to 12 bits, its constants of sRGB (1.0550107)
    tolerance = 1e-4 if clip.format.bits_per_sample <= 12 else 2e-5
    got = planes(linear)
    assert np.abs(got - expected[:, None, None]).max() <= tolerance * max(1, np.abs(expected).max())


@settings(max_examples=100, deadline=None)
@given(clips())
def test_the_working_encoding_is_gamma_2_2_at_the_sources_depth(case: tuple[vs.VideoNode, int, int, int]) -> None:
    clip, matrix, transfer, full = case
    colour, _ = resolved(clip)
    encoded = to_encoded(clip, colour)
    deep = clip.format.bits_per_sample > 8
    assert encoded.format.id == (vs.RGB48 if deep else vs.RGB24)
    expected = np.clip(CURVES[transfer](decoded(clip, matrix, full)), 0, 1) ** (1 / 2.2)
    error = np.abs(planes(encoded) / (65535 if deep else 255) - expected[:, None, None]).max()
    assert error <= (4 / 65535 if deep else 0.65 / 255)


@settings(max_examples=60, deadline=None)
@given(clips())
def test_unspecified_is_the_fields_guess(case: tuple[vs.VideoNode, int, int, int]) -> None:
    clip = case[0].std.RemoveFrameProps(["_Matrix", "_Transfer", "_Primaries", "_Range"])
    colour, said = resolved(clip)
    if clip.format.color_family == vs.RGB:
        assert (colour, said) == (Colour(0, 13, 1, 1, False), [])
    else:
        assert colour == Colour(6, 1, 6, int(clip.format.sample_type == vs.FLOAT), False)
        assert len(said) == 1
        assert "matrix_in and transfer_in" in said[0]
    assert props(to_linear(clip, colour))["_Primaries"] == colour.primaries  # and resize agrees to convert it


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("transfer", [1, 4, 13])
def test_every_code_survives_the_way_there_and_back(bits: int, transfer: int) -> None:
    clip, codes = ramp(bits)
    clip = tagged(clip, 0, transfer, 1, 1)
    linear = to_linear(clip, resolved(clip)[0])
    back = linear.resize.Point(format=clip.format.id, transfer=transfer, approximate_gamma=False)
    assert np.array_equal(planes(back), np.stack([codes] * 3))


def test_ten_bits_stay_apart_in_the_working_encoding() -> None:
    clip, codes = ramp(10)
    encoded = to_encoded(clip, Colour(0, 1, 1, 1, False))
    assert len(np.unique(planes(encoded)[0])) == len(np.unique(codes)) == 1024


@pytest.mark.parametrize("bits", [8, 16])
def test_the_working_encoding_of_every_code(bits: int) -> None:
    clip, codes = ramp(bits)
    expected = bt1886(codes / codes.max()) ** (1 / 2.2) * codes.max()
    error = np.abs(planes(to_encoded(clip, Colour(0, 1, 1, 1, False)))[0] - expected)
    assert error.max() < 0.52  # rounding, and a little


def test_superwhite_stays_above_white_and_is_clipped_for_the_network() -> None:
    clip = tagged(blank(color=[250, 128, 128]))
    colour, _ = resolved(clip)
    assert planes(to_linear(clip, colour)) == pytest.approx(((250 - 16) / 219) ** 2.4, rel=1e-4)
    assert (planes(to_encoded(clip, colour)) == 255).all()


def test_what_is_no_number_becomes_black() -> None:
    def spoil(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        f = f.copy()
        np.asarray(f[1])[3, 4] = np.nan
        return f

    grey = vs.core.std.BlankClip(format=vs.RGBS, width=16, height=16, length=1, color=[0.5] * 3)
    spoiled = grey.std.ModifyFrame(grey, spoil)
    with to_linear(spoiled, Colour(0, 8, 1, 1, False)).get_frame(0) as frame:
        planes = np.stack([np.asarray(frame[plane]) for plane in range(3)])
    expected = np.full((3, 16, 16), 0.5, np.float32)
    expected[1, 3, 4] = 0
    assert np.array_equal(planes, expected)


@pytest.mark.parametrize("tag", [1, 6, 14, 2, None])
def test_camera_undoes_the_cameras_curve(tag: int | None) -> None:
    clip, codes = ramp(16)
    clip = clip.std.SetFrameProps(_Transfer=tag) if tag else clip.std.RemoveFrameProps("_Transfer")
    colour, said = resolved(clip, transfer_in="camera")
    assert colour.camera
    assert said == []
    linear = to_linear(clip, colour)
    assert planes(linear)[0] == pytest.approx(camera(codes / 65535), abs=2e-6)
    assert props(linear)["_Transfer"] == 8
    encoded = planes(to_encoded(clip, colour))[1]
    assert np.abs(encoded - camera(codes / 65535) ** (1 / 2.2) * 65535).max() < 2


def test_twelve_bit_2020_cameras_have_their_own_constants() -> None:
    clip = tagged(blank(vs.RGBS, color=[0.5, 0.05, 1.05]), 0, 15, 9, 1)
    got = planes(to_linear(clip, resolved(clip, transfer_in="camera")[0]))[:, 0, 0]
    expected = [((0.5 + 0.0993) / 1.0993) ** (1 / 0.45), 0.05 / 4.5, ((1.05 + 0.0993) / 1.0993) ** (1 / 0.45)]
    assert got == pytest.approx(expected, rel=1e-5)


def test_downscaling_keeps_a_highlights_energy() -> None:
    """In encoded values a white pixel among black ones would lose most of its light."""
    white, black = (core.std.BlankClip(format=vs.RGB24, width=1, height=64, color=[c] * 3, length=1) for c in (255, 0))
    stripes = tagged(core.std.StackHorizontal([white, black, black, black] * 16), 0, 1, 1, 1)
    small = to_encoded(stripes, resolved(stripes)[0], width=16, height=16)
    assert (small.width, small.height, small.format.id) == (16, 16, vs.RGB24)
    assert ((planes(small) / 255) ** 2.2).mean() == pytest.approx(0.25, abs=0.01)


def test_properties_out() -> None:
    clip = tagged(blank(), 9, 14, 9, 0).std.SetFrameProps(_ChromaLocation=2, _SARNum=4, _SARDen=3, mine="kept")
    before = props(clip)
    after = props(to_linear(clip, resolved(clip)[0]), 1)
    assert (after["_Matrix"], after["_Transfer"], after["_Primaries"], after["_Range"]) == (0, 8, 9, 1)
    assert "_ChromaLocation" not in after
    untouched = set(before) - {"_Matrix", "_Transfer", "_Primaries", "_Range", "_ChromaLocation"}
    assert {key: after[key] for key in untouched} == {key: before[key] for key in untouched}
    assert untouched >= {"_DurationNum", "_DurationDen", "_SARNum", "_SARDen", "mine"}


def test_a_stray_chroma_location_on_rgb_goes_too() -> None:
    clip = tagged(blank(vs.RGBS), 0, 8, 1, 1).std.SetFrameProps(_ChromaLocation=1)
    assert "_ChromaLocation" not in props(to_linear(clip, resolved(clip)[0]))


def test_the_old_range_property_is_understood() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        clip = blank().std.SetFrameProps(_Matrix=1, _Transfer=1, _ColorRange=0)
    assert resolved(clip)[0].range == 1
    assert "_ColorRange" not in props(to_linear(clip, resolved(clip)[0]))


@pytest.mark.parametrize(
    ("names", "kind"), [(module.MATRICES, "matrix"), (module.TRANSFERS, "transfer"), (module.PRIMARIES, "primaries")]
)
def test_names_are_resizes(names: dict[str, int], kind: str) -> None:
    for name, code in names.items():
        if name in ("unspec", "rgb"):
            continue
        source = tagged(blank(vs.RGBS), 0, 16 if name == "ictcp" else 14, 9, 1)
        converted = source.resize.Bicubic(format=vs.YUV444PS if kind == "matrix" else vs.RGBS, **{f"{kind}_s": name})
        assert props(converted)[f"_{kind.capitalize()}"] == code, name


@pytest.mark.parametrize(
    ("width", "height", "matrix"),
    [(720, 480, 6), (720, 576, 6), (64, 48, 6), (1280, 720, 1), (1024, 578, 1), (1280, 544, 1), (1920, 1080, 1)],
)
def test_matrix_by_size(width: int, height: int, matrix: int) -> None:
    colour, said = resolved(blank(vs.YUV420P8, width, height, 1))
    assert (colour.matrix, colour.primaries) == (matrix, matrix)
    assert said == [
        "the clip does not say its matrix and transfer: taken as matrix "
        f"{'170m (6)' if matrix == 6 else '709 (1)'} by its size, {width}x{height} and transfer 709 (1); "
        "matrix_in and transfer_in can say otherwise"
    ]


def test_only_what_is_missing_is_guessed() -> None:
    colour, said = resolved(blank().std.SetFrameProps(_Matrix=9))
    assert colour == Colour(9, 1, 9, 0, False)
    assert said == ["the clip does not say its transfer: taken as transfer 709 (1); transfer_in can say otherwise"]


@pytest.mark.parametrize("transfer", ["srgb", "SRGB", "13", 13])
def test_arguments_fill_in_what_is_unspecified(transfer: str | int) -> None:
    unspecified = blank().std.SetFrameProps(_Matrix=2, _Transfer=2, _Primaries=2)
    colour, said = resolved(unspecified, matrix_in="709", transfer_in=transfer, range_in="full")
    assert (colour, said) == (Colour(1, 13, 1, 1, False), [])


def test_unspec_is_no_argument() -> None:
    assert resolved(tagged(blank()), matrix_in="unspec", transfer_in=2) == (Colour(1, 1, 1, 0, False), [])


def test_a_property_wins_over_an_argument_with_a_warning() -> None:
    colour, said = resolved(tagged(blank()), matrix_in="170m", transfer_in="709", range_in=1)
    assert colour == Colour(1, 1, 1, 0, False)
    assert said == [
        "the clip's _Matrix, 709 (1), wins over matrix_in=170m (6), as in resize",
        "the clip's _Range, limited (0), wins over range_in=full (1), as in resize",
    ]


def test_camera_does_not_undo_another_curve() -> None:
    colour, said = resolved(tagged(blank(), transfer=13), transfer_in="camera")
    assert colour == Colour(1, 13, 1, 0, False)
    assert said == ["the clip's _Transfer, srgb (13), has no camera curve and wins over transfer_in=camera"]


def test_grey_tagged_as_rgb_is_grey() -> None:
    """As readers of pictures tag it; resize would refuse."""
    clip = tagged(blank(vs.GRAY8, color=[128]), 0, 13, 1, 1)
    colour, _ = resolved(clip)
    assert planes(to_linear(clip, colour)) == pytest.approx(float(srgb(np.array(128 / 255))), abs=1e-5)


@pytest.mark.parametrize(
    ("clip", "arguments", "sentence"),
    [
        (lambda: tagged(blank(vs.RGB24), 1), {}, "format is RGB24 but its matrix is 709 (1)"),
        (lambda: blank(vs.RGB24), {"matrix_in": "709"}, "format is RGB24 but its matrix is 709 (1)"),
        (lambda: tagged(blank(vs.YUV420P8), 0), {}, "format is YUV420P8 but its matrix is rgb (0)"),
        (lambda: tagged(blank(vs.YUV420P8), transfer=8), {}, "transfer is linear (8) but its format is YUV420P8"),
        (lambda: blank(vs.RGB24), {"transfer_in": "linear"}, "transfer is linear (8) but its format is RGB24"),
        (lambda: tagged(blank(vs.YUV420P10), 9, 16, 9), {}, "HDR already, its transfer is st2084 (16)"),
        (lambda: tagged(blank(vs.YUV420P10), 9, 18, 9), {}, "HDR already, its transfer is std-b67 (18)"),
        (lambda: blank(vs.YUV420P10), {"transfer_in": "st2084"}, "HDR already, its transfer is st2084 (16)"),
        (lambda: tagged(blank(vs.YUV420P10), 14, 14, 9), {}, "HDR already, its matrix is ictcp (14)"),
        (lambda: tagged(blank(), 10, 13, 9), {}, "2020cl (10), which is not defined for its transfer, srgb (13)"),
        (lambda: tagged(blank(), 3), {}, "the clip's _Matrix is 3, which is not known; known are rgb (0), 709 (1)"),
        (lambda: tagged(blank(), transfer=12), {}, "the clip's _Transfer is 12, which is not known"),
        (lambda: blank(), {"matrix_in": "bt709"}, "matrix_in must be one of rgb (0), 709 (1), "),
        (lambda: blank(), {"transfer_in": "gamma"}, "std-b67 (18), camera, not 'gamma'"),
        (lambda: blank(), {"transfer_in": 3}, "transfer_in must be one of"),
        (lambda: blank(), {"range_in": "tv"}, "range_in must be one of limited (0), full (1), not 'tv'"),
        (lambda: blank(), {"range_in": 2}, "range_in must be one of limited (0), full (1), not 2"),
    ],
)
def test_refused_colours(clip: Callable[[], vs.VideoNode], arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        resolved(clip(), **arguments)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("clip", "sentence"),
    [
        (lambda: None, "clip must be a video clip, not NoneType"),
        (lambda: core.std.BlankAudio(length=10), "clip must be a video clip, not AudioNode"),
        (lambda: core.std.Splice([blank(vs.RGB24), blank(vs.RGBS)], mismatch=True), "one format throughout"),
        (lambda: core.std.Splice([blank(width=64), blank(width=32)], mismatch=True), "one size throughout"),
        (lambda: blank(core.query_video_format(vs.GRAY, vs.INTEGER, 32, 0, 0).id), "8 to 16 bit integer"),
        (lambda: blank(vs.RGB24, 15, 16), "16x16 or larger, not 15x16"),
        (lambda: blank(vs.RGB24, 16, 15), "16x16 or larger, not 16x15"),
        (lambda: blank(length=1), "2 frames or more, not 1"),
        (lambda: blank().std.SetFieldBased(1), "_FieldBased is 1 (bottom field first)"),
        (lambda: blank().std.SetFieldBased(2), "_FieldBased is 2 (top field first): deinterlace it first"),
    ],
)
def test_refused_clips(clip: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        check_clip(clip(), still=False)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("format", [*RGB, *GREY, *YUV])
def test_accepted_clips(format: int) -> None:
    check_clip(blank(format, 16, 16, 2), still=False)
    check_clip(blank(format, 16, 16, 1), still=True)


@pytest.mark.parametrize(("key", "value", "change"), [
    ("_Matrix", 9, "matrix changes from 709 (1) to 2020ncl (9)"),
    ("_Transfer", 16, "transfer changes from 709 (1) to st2084 (16)"),
    ("_Primaries", 9, "primaries changes from 709 (1) to 2020 (9)"),
    ("_Range", 1, "range changes from limited (0) to full (1)"),
])  # fmt: skip
def test_a_colour_that_changes_is_refused_where_it_does(key: str, value: int, change: str) -> None:
    clip = tagged(blank(length=4))
    clip = core.std.Splice([clip, clip.std.SetFrameProps(**{key: value})])
    linear = to_linear(clip, resolved(clip)[0])
    linear.get_frame(3).close()
    with pytest.raises(vs.Error) as caught:
        linear.get_frame(4)
    assert str(caught.value).strip() == f"zhdrv: frame 4: the clip's {change}: split the clip there"


def test_a_frame_that_turns_interlaced_is_refused() -> None:
    clip = tagged(blank(length=4))
    clip = core.std.Splice([clip, clip.std.SetFieldBased(2), clip.std.SetFieldBased(0)])
    linear = to_linear(clip, resolved(clip)[0])
    for n in (3, 8):
        linear.get_frame(n).close()
    with pytest.raises(vs.Error) as caught:
        linear.get_frame(4)
    assert (
        str(caught.value)
        .strip()
        .startswith(
            "zhdrv: frame 4: clip must be progressive, and its _FieldBased is 2 (top field first): deinterlace it first"
        )
    )


def test_frames_that_stop_saying_their_colour_are_taken_like_the_first() -> None:
    clip = core.std.Splice([tagged(blank(color=[90, 120, 130])), blank(color=[90, 120, 130])])
    linear = to_linear(clip, resolved(clip)[0])
    assert np.array_equal(planes(linear, 0), planes(linear, 5))
