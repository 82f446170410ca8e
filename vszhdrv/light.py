"""Light: how bright a clip gets, what encoders want to hear about it, the strength and peak that its user wants.

Apart from the rest because these are measurements of finished pictures: linear arrays in, nits and words out. Neither
VapourSynth nor torch.

Measured is the signal as it is delivered: BT.2020 primaries, after `shoulder` where a peak is asked for, never above
the 10,000 nits that PQ can carry. CTA-861.3-A, annex A ("content light level"): a pixel's light is its largest linear
component, max(R, G, B), in cd/m2; MaxCLL is the brightest pixel of all frames; MaxFALL the largest of the frames'
means. The mean is taken over the active picture, without black bars; ITU-T H.265, D.3.35 says the same for
max_pic_average_light_level ("letterbox": the visually relevant region only).
"""

import functools
import io
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vszhdrv.errors import Refused
from vszhdrv.exr import CHROMATICITIES, SDR_WHITE_NITS, chromaticities
from vszhdrv.files import Damaged, parsing, read_whole, write_whole

PQ_MAX_NITS: Final = 10_000.0  # SMPTE ST 2084
BLACK_NITS: Final = 0.1  # BT.1886 reaches it at 8-bit code 25: above a bar's coding noise, below any picture's shadows
BLACK: Final = 2.0**-20  # linear light below this counts as this where stops are taken: black has none
LIT_SHARE: Final = 0.01  # a row or column belongs to the picture when more than this share of it is above black
MOST_BYTES: Final = 2**27  # no file of light levels is larger: these are of three million frames
LIT: Final = "ZhdrvLit"  # frame property: where the frame is not black (FrameLight.lit)
MASTERING_BLACK_NITS: Final = 0.0001  # the smallest step of ST 2086: nothing here lifts black


# --- colour


def _xyz(xy: tuple[float, float]) -> NDArray[np.float64]:
    return np.array([*xy, 1 - sum(xy)])


def _rgb_to_xyz(primaries: int) -> NDArray[np.float64]:
    """SMPTE RP 177:1993: the primaries' directions, scaled so that R = G = B = 1 is the white point with Y = 1."""
    rx, ry, gx, gy, bx, by, wx, wy = chromaticities(primaries)
    directions = np.stack([_xyz((rx, ry)), _xyz((gx, gy)), _xyz((bx, by))], axis=1)
    return directions * np.linalg.solve(directions, _xyz((wx, wy)) / wy)


@functools.cache
def conversion(primaries: int, target: int) -> NDArray[np.float64]:
    """The 3x3 matrix between linear RGB of two primaries (ITU-T H.273 codes; unknown: BT.709).

    From the chromaticities by SMPTE RP 177, colours kept as they are: white points other than D65 are not adapted, as
    resize does it.
    """
    matrix: NDArray[np.float64] = np.linalg.solve(_rgb_to_xyz(target), _rgb_to_xyz(primaries))
    return matrix


def to_bt2020(primaries: int) -> NDArray[np.float64]:
    """`conversion` to BT.2020. For BT.709 it is the matrix of Recommendation ITU-R BT.2087."""
    return conversion(primaries, 9)


@functools.cache
def luminance_weights(primaries: int) -> NDArray[np.float32]:
    """The weights of linear R, G and B in luminance with these primaries (ITU-T H.273 code; unknown: BT.709).

    The row of Y of SMPTE RP 177's matrix: 0.2126, 0.7152, 0.0722 for BT.709. Shape (3,).
    """
    weights: NDArray[np.float32] = _rgb_to_xyz(primaries)[1].astype(np.float32)
    return weights


def luminance(planes: Sequence[NDArray[np.float32]], primaries: int) -> NDArray[np.float32]:
    """The luminance of linear R, G and B, arrays of one shape each, with these primaries (ITU-T H.273 code)."""
    red, green, blue = luminance_weights(primaries)
    total: NDArray[np.float32] = planes[0] * red
    total += planes[1] * green
    total += planes[2] * blue
    return total


# --- strength and peak


@dataclass(frozen=True)
class Look:
    """How much of the expansion a user wants, and how bright.

    strength: 0 to 1, between the linearised source and the full expansion, in stops. peak: nits that nothing exceeds,
    over white; 0: no limit. white: nits of SDR white (linear 1.0). Raises Refused, one sentence, for other values.
    """

    strength: float = 1.0
    peak: float = 0.0
    white: float = SDR_WHITE_NITS

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise Refused(f"strength must be from 0 to 1, not {self.strength}")
        if not 0 < self.white <= PQ_MAX_NITS:
            raise Refused(f"white must be over 0 and at most {PQ_MAX_NITS:.0f} nits, not {self.white:g}")
        if self.peak and not self.white < self.peak <= PQ_MAX_NITS:
            raise Refused(
                f"peak must be 0 or over white ({self.white:g} nits) and at most {PQ_MAX_NITS:.0f} nits, "
                f"not {self.peak:g}"
            )

    def apply(
        self, expand: Callable[[list[NDArray[np.float32]]], None], planes: list[NDArray[np.float32]]
    ) -> list[NDArray[np.float32]] | NDArray[np.float32]:
        """A frame's expansion with this look, (3, height, width) or its planes: RGB in linear light.

        planes: the source, (height, width) each; `expand` writes its expansion over it. `shoulder` comes last.
        """
        linear = np.stack(planes) if self.strength < 1 else None
        expand(planes)
        if linear is None and not self.peak:
            return planes
        hdr = np.stack(planes)
        if linear is not None:
            ratio = np.maximum(hdr, BLACK) / np.maximum(linear, BLACK)
            hdr = (linear * ratio**self.strength).astype(np.float32)
        return shoulder(hdr, self.peak, self.white)


def shoulder(linear: NDArray[np.float32], peak: float, white: float = SDR_WHITE_NITS) -> NDArray[np.float32]:
    """Roll highlights off so that nothing exceeds `peak` nits, and leave everything up to SDR white as it is.

    linear: (3, ...) RGB, linear light, 1.0 = SDR white = `white` nits. peak: nits; 0 = no limit, `linear` comes back.
    Otherwise returns a new array of the same shape.

    With p = peak / white and m = max(R, G, B), a pixel with m > 1 is scaled, all channels alike so that its hue and
    saturation stay, by y / m where

        y(m) = 1 + (p - 1) * (1 - exp(-(m - 1) / (p - 1)))

    y(1) = 1 and y'(1) = 1: no kink at white. It rises everywhere and reaches p only in the limit; a peak of 1000 nits
    (p = 4.93) makes 812 nits (m = 4) 629, 1624 nits 866 and 3248 nits 983, so that four stops of highlights keep
    their order. An exponential because the common alternatives waste one end: tanh is flat after two stops, m / (1 +
    m) never comes near the peak.

    Which values go together is what `check_look` says.
    """
    if peak == 0:
        return linear
    room = np.float32(peak / white - 1)
    m = np.maximum(linear.max(axis=0), 1)  # up to white y(1) / 1 = 1 exactly: not a bit changes
    return (linear * ((1 - room * np.expm1((1 - m) / room)) / m)).astype(np.float32, copy=False)


# --- one frame


@dataclass(frozen=True, slots=True)
class FrameLight:
    """The light of one frame, BT.2020, nits.

    max_nits: the brightest pixel's max(R, G, B). avg_nits: the mean of max(R, G, B) over the whole frame, bars
    included: which bars are bars is known only after the clip (`ClipLight`). scene_max: each channel's largest value.
    lit: left, top, right and bottom (the last two exclusive) of what is not black; all 0 in a black frame.
    """

    max_nits: float
    avg_nits: float
    scene_max: tuple[float, float, float]
    lit: tuple[int, int, int, int]


def frame_light(linear: NDArray[np.float32], white: float = SDR_WHITE_NITS, primaries: int = 1) -> FrameLight:
    """Measure one frame as it is delivered.

    linear: (3, H, W), linear light, 1.0 = SDR white = `white` nits, with these primaries (ITU-T H.273 code), after
    `shoulder` where there is a peak.
    """
    bt2020 = np.tensordot(to_bt2020(primaries).astype(np.float32), linear, axes=1)
    nits = np.clip(bt2020 * np.float32(white), 0, PQ_MAX_NITS)
    brightest = nits.max(axis=0)
    red, green, blue = (float(channel.max()) for channel in nits)
    return FrameLight(
        max_nits=float(brightest.max()),
        avg_nits=float(brightest.mean(dtype=np.float64)),
        scene_max=(red, green, blue),
        lit=_lit(brightest),
    )


def _lit(brightest: NDArray[np.float32]) -> tuple[int, int, int, int]:
    lit = brightest > BLACK_NITS
    rows = np.flatnonzero(lit.mean(axis=1) > LIT_SHARE)
    columns = np.flatnonzero(lit.mean(axis=0) > LIT_SHARE)
    if not (rows.size and columns.size):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


# --- one clip


class ClipLight:
    """The light of a clip, collected frame by frame in any order, and kept in a small file for the next pass.

    frames, width, height: the clip's. One writer at a time.
    """

    def __init__(self, frames: int, width: int, height: int) -> None:
        self.width = width
        self.height = height
        self._nits = np.full((frames, 5), np.nan, np.float32)  # max, mean, red, green, blue; NaN = not measured yet
        self._lit = np.zeros((frames, 4), np.int32)

    def add(self, frame: int, light: FrameLight) -> None:
        """Enter frame `frame`'s light; a second time replaces the first."""
        self._nits[frame] = light.max_nits, light.avg_nits, *light.scene_max
        self._lit[frame] = light.lit

    def __getitem__(self, frame: int) -> FrameLight | None:
        """Frame `frame`'s light, or None where it was not measured yet."""
        peak, mean, *channels = self._nits[frame].tolist()
        if math.isnan(peak):
            return None
        left, top, right, bottom = self._lit[frame].tolist()
        red, green, blue = channels
        return FrameLight(peak, mean, (red, green, blue), (left, top, right, bottom))

    @property
    def missing(self) -> list[int]:
        """The frames that are not measured yet."""
        found: list[int] = np.flatnonzero(np.isnan(self._nits[:, 0])).tolist()
        return found

    @property
    def brightest(self) -> int:
        """The frame with the highest mean light of those that are measured; 0 where none is."""
        means = np.nan_to_num(self._nits[:, 1], nan=-1.0)
        return int(means.argmax())

    @property
    def picture(self) -> tuple[int, int, int, int]:
        """Left, top, width and height of the active picture, without bars.

        Bars are what stays black in every frame measured, at two opposite edges and as deep at one as at the other
        (the thinner decides). So a dark scene, a subtitle in one bar or a clip that changes its shape half-way never
        cuts into the picture: where in doubt the mean is taken over more, and MaxFALL comes out lower, not too high.
        A clip that is black throughout is all picture.
        """
        lit = self._lit[self._lit[:, 2] > 0]
        if not len(lit):
            return 0, 0, self.width, self.height
        left, top = lit[:, :2].min(axis=0).tolist()
        right, bottom = lit[:, 2:].max(axis=0).tolist()
        beside, above = min(left, self.width - right), min(top, self.height - bottom)
        return beside, above, self.width - 2 * beside, self.height - 2 * above

    @property
    def max_cll(self) -> float:
        """Maximum content light level over the frames measured, nits; 0 before the first."""
        return float(np.nanmax(self._nits[:, 0], initial=0))

    @property
    def max_fall(self) -> float:
        """Maximum frame-average light level over the frames measured, within `picture`, nits; 0 before the first."""
        _, _, width, height = self.picture
        # Bars are black: the sum over the frame is the sum over the picture.
        return float(np.nanmax(self._nits[:, 1], initial=0)) * self.width * self.height / (width * height)

    def save(self, path: Path, key: str) -> None:
        """Write the figures so far to `path`, whole or not at all. key: whatever decides them (clip, weights, peak,
        white); `load` wants the same."""
        content = io.BytesIO()
        size = np.array([self.width, self.height])
        np.savez_compressed(content, key=np.array(key), size=size, nits=self._nits, lit=self._lit)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content.getvalue())

    @classmethod
    def load(cls, path: Path, key: str) -> "ClipLight | None":
        """What `save` wrote under this key, or None: no such file, another key, or not readable. It is a cache, and
        measuring again mends it."""
        try:
            content = io.BytesIO(read_whole(path, MOST_BYTES))
            with parsing(str(path)), np.load(content, allow_pickle=False) as stored:
                if sum(member.file_size for member in stored.zip.infolist()) > MOST_BYTES or str(stored["key"]) != key:
                    return None
                width, height = stored["size"].tolist()
                light = cls(len(stored["nits"]), width, height)
                light._nits[:] = stored["nits"]
                light._lit[:] = stored["lit"]
                return light
        except (OSError, MemoryError, Damaged):
            return None


# --- encoders


@dataclass(frozen=True)
class EncoderArguments:
    """HDR10 signalling, ready for a child process's argument list; `lines` has it ready for a shell.

    x265, svt_av1: for the encoders' own programs. ffmpeg_x265, ffmpeg_svt_av1: output options of ffmpeg.
    All of them say BT.2020, PQ, limited range, chroma sited top left (as BT.2100 has it), the mastering display and
    MaxCLL, MaxFALL.
    """

    x265: list[str]
    svt_av1: list[str]
    ffmpeg_x265: list[str]
    ffmpeg_svt_av1: list[str]

    def lines(self) -> dict[str, str]:
        """One line for each encoder, by its name; quoted so that POSIX shells, cmd.exe and PowerShell read the same."""
        named: Iterable[tuple[str, list[str]]] = (
            ("x265", self.x265),
            ("SVT-AV1", self.svt_av1),
            ("ffmpeg, libx265", self.ffmpeg_x265),
            ("ffmpeg, libsvtav1", self.ffmpeg_svt_av1),
        )
        plain = re.compile(r"[\w:=./-]+")  # PowerShell splits at commas
        return {
            name: " ".join(word if plain.fullmatch(word) else f'"{word}"' for word in arguments)
            for name, arguments in named
        }


def mastering_primaries(primaries: int) -> int:
    """The ITU-T H.273 code of the mastering display's primaries: P3-D65 (12) for sources whose colours lie within
    it, as most HDR displays and masters have it, BT.2020 (9) for wider ones."""
    return 9 if primaries in (4, 8, 9, 10) else 12


def encoder_arguments(light: ClipLight, primaries: int = 1, peak: float = 0.0) -> EncoderArguments:
    """What to tell encoders about a clip.

    light: the measured clip. primaries: the source's, ITU-T H.273. peak: the peak it was rolled off to, nits, which
    the mastering display then had; 0 = none, and MaxCLL stands for it.

    MaxCLL and MaxFALL are rounded to whole nits, at least 1: 0 means "unknown" (CTA-861.3).
    Sources: x265's cli.rst (chromaticities in 0.00002, luminance in 0.0001 nits), SVT-AV1's Parameters.md (both as
    plain numbers), SMPTE ST 2086 (the order green, blue, red is the encoders').
    """
    cll, fall = (max(1, round(nits)) for nits in (light.max_cll, light.max_fall))
    levels = f"{cll},{fall}"
    luminance = (peak or float(cll), MASTERING_BLACK_NITS)
    rx, ry, gx, gy, bx, by, wx, wy = CHROMATICITIES[mastering_primaries(primaries)]
    points = {"G": (gx, gy), "B": (bx, by), "R": (rx, ry), "WP": (wx, wy)}

    def display(chromaticity: Any, nits: Any) -> str:
        colours = "".join(f"{name}({chromaticity(x)},{chromaticity(y)})" for name, (x, y) in points.items())
        return colours + "L({},{})".format(*map(nits, luminance))

    in_steps = display(lambda value: round(value * 50000), lambda value: round(value * 10000))
    in_units = display(lambda value: f"{value:.4f}", lambda value: f"{value:.4f}")

    x265 = {
        "colorprim": "bt2020",
        "transfer": "smpte2084",
        "colormatrix": "bt2020nc",
        "range": "limited",
        "chromaloc": "2",
        "master-display": in_steps,
        "max-cll": levels,
    }
    flags = ("hdr10", "hdr10-opt", "repeat-headers")
    svt_av1 = {
        "color-primaries": "9",
        "transfer-characteristics": "16",
        "matrix-coefficients": "9",
        "color-range": "0",
        "chroma-sample-position": "topleft",
        "mastering-display": in_units,
        "content-light": levels,
    }
    tags = ["-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc", "-color_range", "tv"]
    return EncoderArguments(
        x265=[*(f"--{flag}" for flag in flags), *_options(x265)],
        svt_av1=_options(svt_av1),
        ffmpeg_x265=["-c:v", "libx265", *tags, "-x265-params", _joined({**dict.fromkeys(flags, "1"), **x265})],
        ffmpeg_svt_av1=["-c:v", "libsvtav1", *tags, "-svtav1-params", _joined(svt_av1)],
    )


def _options(values: dict[str, str]) -> list[str]:
    return [word for name, value in values.items() for word in (f"--{name}", value)]


def _joined(values: dict[str, str]) -> str:
    return ":".join(f"{name}={value}" for name, value in values.items())
