"""A trained network as its users have it: from the store, from a file, or just trained; and its way back to files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vszhdrv.errors import Refused
from vszhdrv.store import weight_files
from vszhdrv.store.weight_files import WeightFile

from . import fitting

if TYPE_CHECKING:
    from vszhdrv.zhdrv.config import Config
    from vszhdrv.zhdrv.training import Weights


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network: a file and its content, or the weights themselves where no store keeps them."""

    metadata: Mapping[str, str]
    file: WeightFile | None = None
    """Its content is held: the store may need the file's room before a frame is requested, for another network."""
    last_file: WeightFile | None = None
    best: Weights | None = None
    last: Weights | None = None

    def weights(self) -> Weights:
        """The weights to expand with."""
        return self.best if self.file is None else self.file.tensors()  # type: ignore[return-value]

    def last_weights(self) -> Weights | None:
        """The weights after the last step, where they were kept."""
        return self.last if self.last_file is None else self.last_file.tensors()

    def write(self, path: Path) -> None:
        """Write the weights to expand with to `path`. Raises OSError where they can't be written."""
        weight_files.write_weights(path, self.weights(), self.metadata)

    def save(self, folder: Path) -> None:
        """Write best.safetensors and last.safetensors into `folder`, which is made if it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, weights in (("last", self.last_weights()), ("best", self.weights())):
            if weights is not None:
                weight_files.write_weights(folder / f"{name}.safetensors", weights, self.metadata)


def read_given(path: Path, config: Config) -> TrainedNetwork:
    """The user's own weights file. Raises Refused where it is missing, damaged, or of another architecture."""
    try:
        file = weight_files.read(path)
        fitting.check(file, config)
    except OSError as error:
        raise Refused(f"weights must be a file of a trained network, and {path}: {error.strerror}") from error
    except Refused as error:
        raise Refused(f"weights can't be used: {error}") from error
    return TrainedNetwork(file.metadata, file)
