"""Whether a weights file is a network for these settings: asked before it is used, and without torch.

A file's checksum says that it is as it was written, not by whom. A user's own file may say anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vszhdrv.errors import Refused
from vszhdrv.files import parsing
from vszhdrv.shots import of_json
from vszhdrv.store.weight_files import WeightFile
from vszhdrv.zhdrv.config import Config
from vszhdrv.zhdrv.traits import Traits

LARGEST_VALUE = 1e30
"""No value inside a network may come to more, whatever the picture: then every prediction is finite."""


def check(file: WeightFile, config: Config) -> None:
    """Raises Refused, one sentence that names the file, where these settings can't use it."""
    try:
        with parsing("network"):
            found = json.loads(file.metadata.get("network", "null"))
        wanted = config.architecture.as_json()
        if found != wanted:
            raise Refused(
                f"network must be {json.dumps(wanted)}, as preset {config.preset!r} has for this frame size, "
                f"not {file.metadata.get('network', 'missing')[:200]}"
            )
        with parsing("tensors"):
            weights = file.arrays()
        for header, network in _networks(file.metadata, weights):
            Traits.from_header(header)
            _check_weights(network, config.architecture.shapes())
    except Refused as error:
        raise Refused(f"{file.path} is no network for these settings: {error}") from error


def _networks(
    metadata: Mapping[str, str], weights: Mapping[str, NDArray[Any]]
) -> list[tuple[Mapping[str, str], Mapping[str, NDArray[Any]]]]:
    """Header and weights of every network in a file: one, or those of a film's places."""
    if "film" not in metadata:
        return [(metadata, weights)]
    with parsing("film"):
        about = json.loads(metadata["film"])
        shots = of_json(about["shots"])
        headers = [{str(name): str(value) for name, value in header.items()} for header in about["places"]]
        edges = [0, *(shot.end for shot in shots)]
        if any(shot.first != edge or shot.end <= shot.first for shot, edge in zip(shots, edges, strict=False)):
            raise ValueError("its shots do not follow one another")
        if {shot.place for shot in shots} != set(range(len(headers))):
            raise ValueError("its shots show other places than it has networks for")
    parts: list[dict[str, NDArray[Any]]] = [{} for _ in headers]
    for name, values in weights.items():
        number, _, own = name.partition("/")
        if not (number.isdecimal() and int(number) < len(parts)):
            raise Refused(f"tensors must be of its {len(parts)} places, not {name[:200]!r}")
        parts[int(number)][own] = values
    return list(zip(headers, parts, strict=True))


def _check_weights(weights: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]]) -> None:
    if weights.keys() != shapes.keys():
        raise Refused(f"tensors must have the names of its network's, not {sorted(weights.keys() ^ shapes.keys())[:3]}")
    largest = 1.0
    for name, values in weights.items():
        if values.shape != shapes[name] or values.dtype != np.float32:
            raise Refused(f"{name} must be float32 {shapes[name]}, not {values.dtype} {values.shape}")
        if not np.isfinite(values).all():
            raise Refused(f"{name} must be finite numbers")
        sizes = np.abs(values.astype(np.float64))
        largest *= max(1.0, float(sizes.reshape(len(sizes), -1).sum(1).max())) if values.ndim else 1 + 2 * float(sizes)
    if not largest <= LARGEST_VALUE:
        raise Refused(f"the weights are too large: predictions could come to {largest:.0e}")
