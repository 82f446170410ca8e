# /// script
# requires-python = ">=3.12"
# dependencies = ["numpy", "opencv-python-headless", "OpenEXR>=3.4.14", "torch", "vszhdrv"]
#
# [tool.uv.sources]
# vszhdrv = { path = "..", editable = true }
# ///
"""Fit the estimate of light that no frame shows (`vszhdrv.zhdrv.losses.estimate`) to scenes of make_scenes.py.

    uv run scripts/fit_estimate.py SCENES [SCENES ...]

Scenes of one name are one picture, and all pictures weigh the same. Prints the three numbers, and how far the stops
over white of each picture are from what these numbers and one constant, fitted to all other pictures, say of it.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from evaluate import Scene, open_scenes
from numpy.typing import NDArray

from vszhdrv.zhdrv import footage, losses
from vszhdrv.zhdrv.camera import CLIPPED, encode, round8

FRAMES = 8
"""Evenly spread frames of a scene."""
CROP = 128
"""Side of the squares in which the border is averaged, as in training, pixels."""
EVERY = 20
"""One clipped value of so many is looked at: neighbours say the same."""

Samples = NDArray[np.float64]
"""(values, 4): 1, the border's stops under white, the channels that clip, and the true stops over white."""


def samples(scene: Scene) -> Samples:
    """Clipped values of a scene."""
    white = footage.COMPRESSED_WHITE if scene.video else CLIPPED
    given, truth = scene.given(), scene.truth()
    found = []
    for index in np.linspace(0, scene.frames - 1, min(FRAMES, scene.frames)).round().astype(int):
        frame = encode(torch.from_numpy(given[index])).permute(2, 0, 1)[None]
        frame = frame if scene.video else round8(frame)
        stops = np.log2(truth[index].clip(1)).transpose(2, 0, 1)
        for top in range(0, scene.height, CROP):
            for left in range(0, scene.width, CROP):
                part = (..., slice(top, top + CROP), slice(left, left + CROP))
                sdr = frame[part]
                channels = (sdr >= white).sum(1, keepdim=True).expand_as(sdr)
                columns = torch.ones_like(sdr), losses.border_stops(sdr, white), channels
                clipped = (sdr >= CLIPPED)[0].numpy()
                known = [column[0].numpy()[clipped] for column in columns]
                found.append(np.stack([*known, stops[part][clipped]], axis=1)[::EVERY])
    return np.concatenate(found).astype(np.float64)


def fit(pictures: list[Samples], columns: int) -> NDArray[np.float64]:
    """The least squares by the first so many columns."""
    weighted = np.concatenate([picture / np.sqrt(len(picture)) for picture in pictures])
    return np.linalg.lstsq(weighted[:, :columns], weighted[:, 3], rcond=None)[0]


def error(picture: Samples, numbers: NDArray[np.float64]) -> float:
    """RMS of the estimate within its bounds, stops."""
    estimated = (picture[:, : len(numbers)] @ numbers).clip(0, losses.HIGHEST_ESTIMATE)
    return float(np.sqrt(np.mean((estimated - picture[:, 3]) ** 2)))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path, nargs="+", metavar="SCENES", help="a folder that make_scenes.py wrote")
    options = parser.parse_args()
    found: dict[str, list[Samples]] = defaultdict(list)
    try:
        for folder in options.scenes:
            for scene in open_scenes(folder, None):
                found[scene.name].append(samples(scene))
    except ValueError as wrong:
        sys.exit(f"{parser.prog}: {wrong}")
    pictures = {name: np.concatenate(parts) for name, parts in found.items() if any(map(len, parts))}
    if len(pictures) < 2:
        sys.exit(f"{parser.prog}: SCENES must have two pictures or more in which something clips, not {len(pictures)}")
    stops, per_stop, per_channel = fit(list(pictures.values()), 3)
    print(f"ESTIMATE_STOPS {stops:.2f}, ESTIMATE_PER_STOP {per_stop:.2f}, ESTIMATE_PER_CHANNEL {per_channel:.2f}\n")
    print("| picture | true stops | fitted to the others | one constant | as in losses.py |\n|---|---|---|---|---|")
    now = np.array([losses.ESTIMATE_STOPS, losses.ESTIMATE_PER_STOP, losses.ESTIMATE_PER_CHANNEL])
    errors = []
    for name, picture in pictures.items():
        others = [other for each, other in pictures.items() if each != name]
        errors.append([error(picture, numbers) for numbers in (fit(others, 3), fit(others, 1), now)])
        print(f"| {name} | {picture[:, 3].mean():.2f} | {' | '.join(f'{each:.2f}' for each in errors[-1])} |")
    print(f"| mean | | {' | '.join(f'{each:.2f}' for each in np.mean(errors, axis=0))} |")


if __name__ == "__main__":
    main()
