"""A clip's colour: what its properties say, and the way into linear light and into the working encoding.

It exists apart from clips.py because it is the only place where colour properties are read and written. The
conversions themselves are `resize`'s (zimg's); this module decides what resize is told. Codes are ITU-T H.273's, as in
VapourSynth.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import vapoursynth as vs

from vszhdrv.errors import Refused

from .errors import in_callback
from .log import warn

MOST = 65504.0  # linear light, 1.0 = SDR white: the largest number of half floats, of which EXR files are
UNSPECIFIED = 2  # of matrix, transfer and primaries; an unspecified range is an absent property

# The names that resize's arguments take, with their codes.
MATRICES = {
    "rgb": 0, "709": 1, "unspec": 2, "fcc": 4, "470bg": 5, "170m": 6, "240m": 7, "ycgco": 8, "2020ncl": 9, "2020cl": 10,
    "chromancl": 12, "chromacl": 13, "ictcp": 14,
}  # fmt: skip
TRANSFERS = {
    "709": 1, "unspec": 2, "470m": 4, "470bg": 5, "601": 6, "240m": 7, "linear": 8, "log100": 9, "log316": 10,
    "xvycc": 11, "srgb": 13, "2020_10": 14, "2020_12": 15, "st2084": 16, "st428": 17, "std-b67": 18,
}  # fmt: skip
PRIMARIES = {
    "709": 1, "unspec": 2, "470m": 4, "470bg": 5, "170m": 6, "240m": 7, "film": 8, "2020": 9, "st428": 10,
    "st431-2": 11, "st432-1": 12, "ebu3213-e": 22,
}  # fmt: skip
RANGES = {"limited": 0, "full": 1}
ARGUMENTS = {"matrix_in": MATRICES, "transfer_in": TRANSFERS, "range_in": RANGES}

CAMERA = "camera"  # transfer_in's one value that resize does not have

_RGB, _709, _601, _ICTCP = 0, 1, 6, 14
_GAMMA22, _LINEAR, _SRGB = 4, 8, 13
_HDR = (16, 18)  # PQ, HLG
_CONSTANT_LUMINANCE = (10, 13)
_CONSTANT_LUMINANCE_TRANSFERS = (
    1,
    6,
    7,
    14,
    15,
)  # zimg's; constant luminance is computed through the transfer function
# A matrix belongs to a standard, and the standard has primaries. All others (709, YCgCo, RGB): BT.709.
_PRIMARIES_OF_MATRIX = {4: 4, 5: 5, 6: 6, 7: 7, 9: 9, 10: 9}
# The camera's curve (OETF) of ITU-R BT.709-6 item 1.2, the same in BT.601-7 and in BT.2020-2 at 10 bits; BT.2020-2
# gives 12-bit systems more digits. By transfer: alpha, beta of V = alpha L^0.45 - (alpha - 1), V = 4.5 L below beta.
_CAMERA_CURVES = {1: (1.099, 0.018), 6: (1.099, 0.018), 14: (1.099, 0.018), 15: (1.0993, 0.0181)}


@dataclass(frozen=True)
class Colour:
    """How a clip's codes mean light, everything decided. ITU codes; `range` 1 is full and 0 limited.

    `camera` says that the transfer function is undone as the camera's (scene light), not as a display shows it.
    """

    matrix: int
    transfer: int
    primaries: int
    range: int
    camera: bool

    def as_json(self) -> dict[str, int | bool]:
        """The colour in a network's key: the names stay, whatever the fields are called."""
        return {
            "matrix": self.matrix,
            "transfer": self.transfer,
            "primaries": self.primaries,
            "range": self.range,
            "camera": self.camera,
        }


def check_clip(clip: Any, *, still: bool) -> None:
    """Refuse a clip that cannot be trained on or expanded.

    Requests frame 0. fields.py looks at more of them, where it has no _FieldBased.

    Args:
        still: image mode, where a single frame is enough.

    Raises:
        Refused: not a video clip, a variable or unknown format, variable size, too small, too short, or interlaced.
    """
    _check_constant(clip)
    if clip.format.sample_type == vs.INTEGER and clip.format.bits_per_sample > 16:
        raise Refused(f"clip must be 8 to 16 bit integer or 16 to 32 bit float, not {clip.format.name}")
    if clip.width < 16 or clip.height < 16:
        raise Refused(f"clip must be 16x16 or larger, not {clip.width}x{clip.height}")
    if clip.num_frames < 2 and not still:
        raise Refused("clip must have 2 frames or more, not 1: set still (--data_type image) to expand a picture")
    with clip.get_frame(0) as frame:
        field_order = _whole(frame.props, "_FieldBased")
    if field_order:
        raise Refused(_interlaced(field_order))


def _check_constant(clip: Any) -> None:
    if not isinstance(clip, vs.VideoNode):
        raise Refused(f"clip must be a video clip, not {type(clip).__name__}")
    if clip.format is None or clip.format.color_family == vs.UNDEFINED:
        raise Refused("clip must have one format throughout, and this one's varies: give resize a format first")
    if not clip.width or not clip.height:
        raise Refused("clip must have one size throughout, and this one's varies: give resize width and height first")


def _interlaced(field_order: int) -> str:
    """What is wrong with a clip that has a frame whose _FieldBased is not 0."""
    first = {1: "bottom", 2: "top"}.get(field_order, "unknown")
    return (
        f"clip must be progressive, and its _FieldBased is {field_order} ({first} field first): deinterlace it "
        "first, for example with bwdif.Bwdif (telecined film: vivtc), or std.SetFieldBased(0) if the tag is wrong"
    )


def check_names(
    *, matrix_in: str | int | None = None, transfer_in: str | int | None = None, range_in: str | int | None = None
) -> None:
    """Raises Refused where `resolve_colour` would not know one of these, whatever the clip."""
    _code("matrix_in", matrix_in, MATRICES)
    _code("transfer_in", None if transfer_in == CAMERA else transfer_in, TRANSFERS)
    _code("range_in", range_in, RANGES)


def resolve_colour(
    clip: vs.VideoNode,
    *,
    matrix_in: str | int | None = None,
    transfer_in: str | int | None = None,
    range_in: str | int | None = None,
    warn: Callable[[str], None],
) -> Colour:
    """What the clip's codes mean: by frame 0's properties, then by the arguments, then by the field's guesses.

    As in resize, a property wins over an argument. Unspecified RGB is sRGB at full range. Unspecified YUV and GRAY is
    limited, has BT.709's transfer as a BT.1886 display shows it, and BT.601's matrix up to 576 lines (unless it is 1280
    or more wide: a cropped 720p or 1080p picture), else BT.709's; one warning says so. Unspecified primaries follow the
    matrix.

    Args:
        matrix_in, transfer_in, range_in: names as in resize, or ITU codes. transfer_in may also be "camera": undo the
            camera's curve instead of the display's, even where the property says BT.709, 601 or 2020.
        warn: takes one sentence.

    Raises:
        Refused: an unknown name or code; values that contradict the format; a clip that is HDR already.
    """
    codes = {
        "matrix_in": matrix_in,
        "transfer_in": None if transfer_in == CAMERA else transfer_in,
        "range_in": range_in,
    }
    said = _said(clip, {name: _code(name, value, ARGUMENTS[name]) for name, value in codes.items()}, warn)
    _refuse_contradictions(clip, said)
    camera = transfer_in == CAMERA
    if camera and said.transfer not in (None, *_CAMERA_CURVES):
        named = _named(said.transfer, TRANSFERS)
        warn(f"the clip's _Transfer, {named}, has no camera curve and wins over transfer_in=camera")
        camera = False
    return _completed(clip, said, camera, warn)


class _Said(NamedTuple):
    """What properties and arguments say of a clip's colour, as ITU codes; None: nothing."""

    matrix: int | None
    transfer: int | None
    primaries: int | None
    range: int | None


def _said(clip: vs.VideoNode, arguments: Mapping[str, int | None], warn: Callable[[str], None]) -> _Said:
    """By frame 0's properties, and by the arguments' codes where these say nothing."""
    with clip.get_frame(0) as frame:
        props = dict(frame.props)
    if clip.format.color_family == vs.GRAY and props.get("_Matrix") == _RGB:
        del props["_Matrix"]  # harmless: grey has no colour difference to decode, readers of pictures tag it so
    return _Said(
        matrix=_settle("matrix", props, arguments["matrix_in"], MATRICES, warn),
        transfer=_settle("transfer", props, arguments["transfer_in"], TRANSFERS, warn),
        primaries=_settle("primaries", props, None, PRIMARIES, warn),
        range=_settle("range", props, arguments["range_in"], RANGES, warn),
    )


def _refuse_contradictions(clip: vs.VideoNode, said: _Said) -> None:
    """Raises Refused where the clip's format can't have the colour that is said, or the clip is HDR already."""
    is_rgb, name = clip.format.color_family == vs.RGB, clip.format.name
    if said.matrix is not None and is_rgb != (said.matrix == _RGB):
        other = "YUV" if is_rgb else "RGB"
        matrix = _named(said.matrix, MATRICES)
        raise Refused(f"the clip's format is {name} but its matrix is {matrix}, which is for {other}")
    if said.transfer in _HDR:
        raise Refused(f"the clip is HDR already, its transfer is {_named(said.transfer, TRANSFERS)}: expand SDR clips")
    if said.matrix == _ICTCP:
        raise Refused(f"the clip is HDR already, its matrix is {_named(said.matrix, MATRICES)}: expand SDR clips")
    if said.transfer == _LINEAR and clip.format.bits_per_sample == 8:
        raise Refused(f"the clip's transfer is linear (8) but its format is {name}: 8 bits cannot hold linear light")


def _completed(clip: vs.VideoNode, said: _Said, camera: bool, warn: Callable[[str], None]) -> Colour:
    """What is said, completed by the field's habits; one warning tells of the guesses."""
    is_rgb = clip.format.color_family == vs.RGB
    matrix, transfer, guesses = said.matrix, said.transfer, {}
    if matrix is None:
        is_small = clip.height <= 576 and clip.width < 1280
        matrix = _RGB if is_rgb else _601 if is_small else _709
        if not is_rgb:
            guesses["matrix"] = f"{_named(matrix, MATRICES)} by its size, {clip.width}x{clip.height}"
    if transfer is None:
        transfer = _SRGB if is_rgb and not camera else _709
        if not (is_rgb or camera):
            guesses["transfer"] = _named(transfer, TRANSFERS)
    if guesses:
        taken = " and ".join(f"{kind} {value}" for kind, value in guesses.items())
        options = " and ".join(f"{kind}_in" for kind in guesses)
        warn(f"the clip does not say its {' and '.join(guesses)}: taken as {taken}; {options} can say otherwise")
    if matrix in _CONSTANT_LUMINANCE and transfer not in _CONSTANT_LUMINANCE_TRANSFERS:
        raise Refused(
            f"the clip's matrix is {_named(matrix, MATRICES)}, which is not defined for its transfer, "
            f"{_named(transfer, TRANSFERS)}"
        )
    primaries = _PRIMARIES_OF_MATRIX.get(matrix, 1) if said.primaries is None else said.primaries
    usual_range = 0 if not is_rgb and clip.format.sample_type == vs.INTEGER else 1
    return Colour(matrix, transfer, primaries, usual_range if said.range is None else said.range, camera)


def check_linear(clip: Any) -> None:
    """Refuse what can't hold linear light as `to_linear` returns it. Requests no frame.

    Raises:
        Refused: not a video clip, a variable size, or another format than RGBS.
    """
    _check_constant(clip)
    if clip.format.id != vs.RGBS:
        raise Refused(f"clip must be RGBS in linear light, not {clip.format.name}")


def linear_primaries(props: Mapping[str, Any]) -> int:
    """The primaries' code of a frame of linear light, by its properties; BT.709 where these don't say.

    Raises:
        Refused: they say that it is not linear.
    """
    transfer, primaries = _whole(props, "_Transfer"), _whole(props, "_Primaries")
    if transfer not in (None, _LINEAR, UNSPECIFIED):
        raise Refused(f"clip must be in linear light, and its transfer is {_named(transfer, TRANSFERS)}")
    return _709 if primaries in (None, UNSPECIFIED) else primaries


def to_linear(clip: vs.VideoNode, colour: Colour) -> vs.VideoNode:
    """The clip in linear light: RGBS, 1.0 = SDR white, the clip's own primaries, same length and size.

    Superwhite stays above 1. What is no number (NaN) becomes 0, and what is beyond MOST becomes MOST: this is told
    once. Values below black are zimg's: 0, but for a linear or xvYCC source, which keeps them. A display's curve is
    zimg's (BT.709, 601, 2020: BT.1886 of a perfect black, which is gamma 2.4). Every frame is checked against `colour`
    and carries _Matrix 0, _Transfer 8, _Primaries, _Range 1 and no _ChromaLocation; its other properties are untouched.

    Chroma is resampled by resize.Bicubic at its defaults: what the same script without us would do, so the way back
    through resize.Bicubic compares like with like.
    """
    rgb = _tagged(clip, colour)
    if colour.camera:
        rgb = rgb.resize.Bicubic(format=vs.RGBS).std.Expr(_camera_expression(*_CAMERA_CURVES[colour.transfer]))
    else:
        # zimg's tables are eight times as fast as its exact curves, and wrong by up to 1.2 of 65536 codes of gamma 2.2
        tables = clip.format.bits_per_sample <= 12
        rgb = rgb.resize.Bicubic(format=vs.RGBS, transfer=_LINEAR, approximate_gamma=tables)
    if clip.format.sample_type == vs.FLOAT:
        # what is no number, or an infinity, would spread as far as the network reaches
        rgb = rgb.std.Expr(f"x 0 max {MOST} min x 0 min -{MOST} max +")
    rgb = rgb.std.SetFrameProps(_Matrix=_RGB, _Transfer=_LINEAR, _Primaries=colour.primaries, _Range=1)
    return rgb.std.RemoveFrameProps("_ChromaLocation")


def to_encoded(
    clip: vs.VideoNode, colour: Colour, *, width: int | None = None, height: int | None = None
) -> vs.VideoNode:
    """The clip in the working encoding, x = linear^(1/2.2), clipped to [0, 1], full range.

    RGB24 for 8-bit clips and RGB48 for deeper ones. With `width` and `height` scaled down in linear light, where a
    highlight keeps its energy, by a bilinear kernel, which has no lobes to cut black rings around it.
    """
    linear = to_linear(clip, colour)
    if width and height:
        linear = linear.resize.Bilinear(width=width, height=height)
    form, peak = (vs.RGB48, 65535) if clip.format.bits_per_sample > 8 else (vs.RGB24, 255)
    # not resize's transfer "470m", which is the same curve: exact, that costs ten times as much
    return linear.std.Expr(f"x 0 max {1 / 2.2} pow {peak} *", format=form).std.SetFrameProps(_Transfer=_GAMMA22)


def as_data(clip: vs.VideoNode) -> vs.VideoNode:
    """The same clip without the properties that would have its values taken for light; for masks and the like."""
    return clip.std.RemoveFrameProps(["_Matrix", "_Transfer", "_Primaries", "_ChromaLocation"])


def _tagged(clip: vs.VideoNode, colour: Colour) -> vs.VideoNode:
    """The clip with every frame checked to be progressive and of this colour, and saying all of it."""
    grey = clip.format.color_family == vs.GRAY

    def unchanged(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        with in_callback(f"frame {n}: "):
            if field_order := _whole(f.props, "_FieldBased"):  # resize would scale its fields apart
                raise Refused(_interlaced(field_order))
            for key, (kind, expected, names) in _expectations(colour).items():
                found = _whole(f.props, key)
                unspecified = found is None or (key != "_Range" and found == UNSPECIFIED)
                if not (unspecified or found == expected or (grey and key == "_Matrix")):
                    raise Refused(
                        f"the clip's {kind} changes from {_named(expected, names)} to {_named(found, names)}: "
                        "split the clip there"
                    )
            if f.format.sample_type == vs.FLOAT and any(_beyond(f[plane]) for plane in range(f.format.num_planes)):
                _warn_once(
                    f"the clip has values that are no numbers or beyond {MOST:.0f}: these are taken as 0 and {MOST:.0f}"
                )
        return f

    checked = clip.std.ModifyFrame(clip, unchanged)
    return checked.std.SetFrameProps(
        _Matrix=colour.matrix, _Transfer=colour.transfer, _Primaries=colour.primaries, _Range=colour.range
    )


def _beyond(plane: Any) -> bool:
    values = np.asarray(plane)
    return not bool(values.min() >= -MOST and values.max() <= MOST)  # of what is no number, neither is true


_warn_once = functools.cache(warn)


def _expectations(colour: Colour) -> dict[str, tuple[str, int, Mapping[str, int]]]:
    return {
        "_Matrix": ("matrix", colour.matrix, MATRICES),
        "_Transfer": ("transfer", colour.transfer, TRANSFERS),
        "_Primaries": ("primaries", colour.primaries, PRIMARIES),
        "_Range": ("range", colour.range, RANGES),
    }


def _camera_expression(alpha: float, beta: float) -> str:
    """std.Expr's text for L = V / 4.5 under 4.5 beta, else ((V + alpha - 1) / alpha)^(1 / 0.45); below black 0."""
    return f"x {4.5 * beta} < x 0 max 4.5 / x {alpha - 1} + {alpha} / {1 / 0.45} pow ?"


def _whole(props: Mapping[str, Any], key: str) -> int | None:
    """The frame property `key`, a whole number; None where it is missing. Raises Refused where it is something else."""
    value = props.get(key)
    if value is not None and not isinstance(value, int):
        raise Refused(f"the clip's frame property {key} must be one whole number, not {value!r}")
    return value


def _settle(
    kind: str, props: Mapping[str, Any], argument: int | None, names: Mapping[str, int], warn: Callable[[str], None]
) -> int | None:
    """The property where it says something, else the argument, else None."""
    key = f"_{kind.capitalize()}"
    found = _whole(props, key)
    if found is None or (names is not RANGES and found == UNSPECIFIED):
        return argument
    if found not in names.values():
        raise Refused(f"the clip's {key} is {found}, which is not known; known are {_listed(names)}")
    if argument not in (None, found):
        warn(f"the clip's {key}, {_named(found, names)}, wins over {kind}_in={_named(argument, names)}, as in resize")
    return found


def _code(argument: str, value: str | int | None, names: Mapping[str, int]) -> int | None:
    """The ITU code of an argument: a name, a code, or a code's digits. "unspec" is as good as nothing."""
    if value is None:
        return None
    code = names.get(value.lower()) if isinstance(value, str) else value
    if code is None and str(value).isdecimal():
        code = int(value)
    if code not in names.values():
        accepted = _listed(names) + (f", {CAMERA}" if names is TRANSFERS else "")
        raise Refused(f"{argument} must be one of {accepted}, not {value!r}")
    return None if names is not RANGES and code == UNSPECIFIED else code


def _named(code: int | None, names: Mapping[str, int]) -> str:
    return next((f"{name} ({code})" for name, known in names.items() if known == code), f"unknown ({code})")


def _listed(names: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({code})" for name, code in names.items())
