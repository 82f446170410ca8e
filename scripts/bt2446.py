# /// script
# requires-python = ">=3.12"
# dependencies = ["numpy", "opencv-python-headless", "OpenEXR>=3.4.14"]
# ///
"""Expand scenes by the two inverse tone mapping curves of Report ITU-R BT.2446, to compare with.

    uv run scripts/bt2446.py SCENES --out bt2446
    uv run scripts/evaluate.py SCENES a=bt2446/a:highlights c=bt2446/c:highlights

Both see one frame at a time and each pixel by itself: there is nothing to train. They are meant for graded television,
whose white a person has placed; here they get what a camera has clipped. OUT/a/SCENE/*.exr and OUT/c/SCENE/*.exr hold
linear RGB, 1.0 = SDR white.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from evaluate import Scene, open_scenes
from make_scenes import LUMA, Array, Image, write_exr

HDR_NITS, SDR_NITS = 1000.0, 100.0
"""Peaks of both displays, for method A."""
LUMA_2020 = np.array([0.2627, 0.6780, 0.0593], np.float32)
TO_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]], np.float32)
"""BT.709 to BT.2020, both linear (Recommendation ITU-R BT.2087)."""

A1, B1, C1 = 1.8712e-5, -2.7334e-3, 1.3141
A2, B2, C2 = 2.8305e-6, -7.4622e-4, 1.2528
BEND = 70.0
"""Method A's exponents: quadratics of 255 times the encoded luma, one to `BEND` and one beyond."""

K1, K2, K3, K4, CROSSTALK, KNEE = 0.83802, 15.09968, 0.74204, 78.99439, 0.05, 58.5
"""Method C's curve: a line to `KNEE` / `K1` nits of HDR, a logarithm beyond; all in percent of SDR's peak.
Colour is mixed by `CROSSTALK` before, and unmixed after."""


def method_a(linear: Image) -> Image:
    """Method A: luma raised to a power that falls with it. (..., 3) linear RGB; SDR white at 1.0, as far as it keeps.

    The result is in units of SDR's peak: 10 is `HDR_NITS`.
    """
    encoded = np.clip(linear @ TO_2020.T, 0, 1) ** (1 / 2.4)
    luma = encoded @ LUMA_2020
    blue, red = (encoded[..., 2] - luma) / 1.8814, (encoded[..., 0] - luma) / 1.4746
    y = 255 * luma
    exponent = np.where(y <= BEND, A1 * y**2 + B1 * y + C1, A2 * y**2 + B2 * y + C2)
    bright = np.maximum(y, 1e-6) ** exponent
    gain = np.where(luma > 1e-6, 1.075 * bright / np.maximum(y, 1e-6), 1.0)
    blue, red = blue * gain, red * gain
    expanded = np.stack(
        [bright + 1.4746 * red * 255, bright - (0.16455 * blue + 0.57135 * red) * 255, bright + 1.8814 * blue * 255],
        -1,
    )
    light = np.clip(expanded / HDR_NITS, 0, 1) ** 2.4 * (HDR_NITS / SDR_NITS)
    return np.asarray(light @ np.linalg.inv(TO_2020).T, np.float32).clip(0)


def method_c(linear: Image) -> Image:
    """Method C: luminance by the inverse of a line and a logarithm, colour kept. (..., 3) linear RGB.

    The result's unit is that of the source: well-exposed pixels keep their light up to one factor.
    """
    mix = CROSSTALK * np.ones((3, 3), np.float32) + (1 - 3 * CROSSTALK) * np.eye(3, dtype=np.float32)
    mixed = linear @ mix.T
    luminance = np.maximum(mixed @ LUMA, 1e-9)
    percent = 100 * luminance
    bright = np.where(percent < KNEE, percent / K1, _exponential(percent))
    scaled = mixed * (bright / percent)[..., None]
    return np.asarray(scaled @ np.linalg.inv(mix).T, np.float32).clip(0)


def _exponential(percent: Array) -> Array:
    """The inverse of K2 log(Y / turn - K3) + K4, with the turn at `KNEE` / `K1`."""
    return np.asarray(KNEE / K1 * (np.exp((np.minimum(percent, 120) - K4) / K2) + K3))


METHODS: dict[str, Callable[[Image], Image]] = {"a": method_a, "c": method_c}


def expand(scene: Scene, out: Path) -> None:
    """Write a scene by both methods."""
    for name, method in METHODS.items():
        folder = out / name / scene.name
        folder.mkdir(parents=True, exist_ok=True)
        for index, frame in enumerate(scene.given()):
            write_exr(folder / f"{index:04d}.exr", method(frame))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path, metavar="SCENES", help="the folder that make_scenes.py wrote")
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args()
    for scene in open_scenes(options.scenes, None):
        expand(scene, options.out)
        print(scene.name)


if __name__ == "__main__":
    main()
