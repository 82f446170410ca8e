"""A run folder: what one run of the command line leaves for a person to look at.

    RUNS/NAME_lr3e-03_e40_d2u2_0123abcd/
        ckpt/best.safetensors, last.safetensors   the trained network
        NAME_exr/NAME.000000.exr ...              the HDR frames
        recs/source.png, m4.png, ..., delta.png   what the network does so far, refreshed while training
        logs.csv                                  a row an epoch
        params.csv                                every setting
        preview.png, preview.jpg                  the frame that gained most: beside its source, and as Ultra HDR
        report.html, frames.csv                   all of it to look at, and the figures of each frame

Apart from the command line because words and exit codes are one subject and files another. Every file appears whole or
not at all, and the folder's name stands for everything its content depends on: a run that was stopped goes on in it, a
run with other settings has another.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections import deque
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vszhdrv.drawing import display, side_by_side, tone_mapped
from vszhdrv.exr import Sequence, is_valid
from vszhdrv.files import sweep, write_whole

if TYPE_CHECKING:
    import vapoursynth as vs
    from PIL.Image import Image

    from vszhdrv.zhdrv.config import Config

LOG_COLUMNS = ("epoch", "total", "reconstruction", "temporal", "lr", "seconds")
NAME_BYTES = 150
"""So much of a clip's name is used, in UTF-8: file systems take 255 bytes, and what stands around it has its share."""
AHEAD, AHEAD_BYTES = 4, 2**30
"""Frames asked for at a time: as many as VapourSynth has threads, as long as they take no more memory than that, but
some in any case."""


class Colour(Protocol):
    """A clip's colour as resolved by `vszhdrv.prepare`: ITU-T H.273's numbers, range 1 = full."""

    @property
    def matrix(self) -> int: ...
    @property
    def transfer(self) -> int: ...
    @property
    def primaries(self) -> int: ...
    @property
    def range(self) -> int: ...


@dataclass(frozen=True)
class Run:
    """The folder of one run and the places in it. Making the object touches no file."""

    folder: Path
    name: str

    @property
    def checkpoints(self) -> Path:
        return self.folder / "ckpt"

    @property
    def frames(self) -> Path:
        return self.folder / f"{self.name}_exr"

    @property
    def pictures(self) -> Path:
        return self.folder / "recs"

    @property
    def preview(self) -> Path:
        return self.folder / "preview.png"

    @property
    def preview_hdr(self) -> Path:
        return self.folder / "preview.jpg"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def trained(self) -> Path | None:
        """The best weights of an earlier run, if there are any."""
        best = self.checkpoints / "best.safetensors"
        return best if best.is_file() else None

    @property
    def complete(self) -> bool:
        """Whether an earlier run has left both of its weights files."""
        return self.trained is not None and (self.checkpoints / "last.safetensors").is_file()

    def sweep(self) -> None:
        """Remove what killed runs have left unfinished in this folder; of frames, their sequence does it."""
        for folder in (self.folder, self.checkpoints, self.pictures):
            sweep(folder)

    @property
    def frame_pattern(self) -> Path:
        """The EXR files' names, with `%06d` for the frame's number from 0."""
        return self.frames / f"{self.name}.%06d.exr"

    def write_params(self, params: Mapping[str, object]) -> None:
        """params.csv: a row of name and value for every setting."""
        rows = [{"name": name, "value": value} for name, value in params.items()]
        write_csv(self.folder / "params.csv", ("name", "value"), rows)

    def write_log(self, rows: Iterable[Mapping[str, object]]) -> None:
        """logs.csv: a row for every finished epoch, with the columns of `LOG_COLUMNS`; of a film, the place first."""
        rows = list(rows)
        of_film = any("place" in row for row in rows)
        write_csv(self.folder / "logs.csv", ("place", *LOG_COLUMNS) if of_film else LOG_COLUMNS, rows)

    def write_pictures(self, pictures: Mapping[str, NDArray[np.uint8]]) -> None:
        """recs/NAME.png for every (H,W,3) picture by its name."""
        from PIL import Image

        for name, picture in pictures.items():
            write_png(self.pictures / f"{name}.png", Image.fromarray(np.ascontiguousarray(picture)))


def run_folder(runs: Path, name: str, config: Config, identity: Mapping[str, object]) -> Run:
    """The run folder for a clip called `name`, the settings `config` and all else that makes a difference.

    `identity` is anything JSON can hold; a digest of it ends the folder's name.
    """
    name = re.sub(r'[\0-\x1f%#<>:"/\\|?*]', "_", name)  # % and # are frame numbers; Windows refuses the rest
    name = name.encode(errors="ignore")[:NAME_BYTES].decode(errors="ignore")
    digest = hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=4).hexdigest()
    settings = f"lr{config.lr:.0e}_e{config.epochs}_d{config.n_exp_down}u{config.n_exp_up}"
    return Run(runs / f"{name}_{settings}_{digest}", name)


def missing_frames(clip: vs.VideoNode, frames: Iterable[int], sequence: Sequence) -> list[int]:
    """Those of these frames of which the sequence holds no valid file yet."""
    return [n for n in frames if not is_valid(sequence.path(n), clip.width, clip.height)]


def write_frames(clip: vs.VideoNode, frames: Iterable[int], sequence: Sequence) -> Generator[tuple[int, float]]:
    """Write these frames of a linear RGBS clip; yields each one's number and its gain once its file is there."""
    with closing(requested(clip, frames)) as arriving:
        for n, frame in arriving:
            rgb = np.stack([np.asarray(frame[plane]) for plane in range(3)])
            sequence.write(n, rgb)
            yield n, gain(rgb)


def requested(clip: vs.VideoNode, frames: Iterable[int]) -> Generator[tuple[int, vs.VideoFrame]]:
    """These frames in that order, the next few of them computed meanwhile; each closed when the next is asked for."""
    import vapoursynth as vs

    waiting: deque[tuple[int, Future[vs.VideoFrame]]] = deque()
    rest = iter(frames)
    size = clip.width * clip.height * clip.format.num_planes * clip.format.bytes_per_sample
    ahead = max(AHEAD, min(vs.core.num_threads, AHEAD_BYTES // size))
    try:
        while True:
            waiting.extend((n, clip.get_frame_async(n)) for n in islice(rest, ahead - len(waiting)))
            if not waiting:
                return
            n, future = waiting.popleft()
            with future.result() as frame:
                yield n, frame
    finally:
        for _, future in waiting:  # nobody may end the process while VapourSynth's threads work for it
            if future.exception() is None:
                future.result().close()


def gain(hdr: NDArray[np.float32]) -> float:
    """How much a frame ((3,H,W), linear, 1.0 = SDR white) gained over SDR: its pixels' mean stops above white."""
    brightest = hdr[:, ::4, ::4].max(axis=0)  # a sixteenth of the pixels: the figure only ranks frames
    return float(np.log2(np.maximum(brightest, 1.0)).mean())


def compare(source: vs.VideoNode, hdr: vs.VideoNode, colour: Colour, n: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Frame `n` for people's eyes: the source as (H,W,3) uint8 sRGB, its expansion as float32 linear BT.709.

    `source` has the colour `colour`; `hdr` is its expansion (RGBS, linear, 1.0 = SDR white).
    """
    import vapoursynth as vs

    tags = {"transfer_in": colour.transfer, "primaries_in": colour.primaries, "range_in": colour.range}
    if source.format.color_family == vs.YUV:
        tags["matrix_in"] = colour.matrix
    elif source.format.color_family == vs.GRAY:
        source = source.std.RemoveFrameProps("_Matrix")  # RGB's is harmless for grey, but resize refuses it
    srgb = {"transfer": vs.TRANSFER_IEC_61966_2_1, "primaries": vs.PRIMARIES_BT709}
    shown = source[n].resize.Bicubic(format=vs.RGB24, **tags, **srgb)
    light = {"transfer_in": vs.TRANSFER_LINEAR, "transfer": vs.TRANSFER_LINEAR}
    return planes(shown), planes(
        hdr[n].resize.Bicubic(primaries_in=colour.primaries, primaries=vs.PRIMARIES_BT709, **light)
    )


def write_preview(path: Path, source: NDArray[np.uint8], hdr: NDArray[np.float32]) -> None:
    """One picture of three: the source, its expansion two stops darker and tone-mapped, from what `compare` gives."""
    pictures = {"source": source, "-2 stops": display(hdr / 4), "tone-mapped": display(tone_mapped(hdr))}
    write_png(path, side_by_side(pictures))


def exposures(source: NDArray[np.uint8], hdr: NDArray[np.float32]) -> dict[str, NDArray[np.uint8]]:
    """The pictures of recs/ for a network that was not trained in this run, from what `compare` gives."""
    darker = np.clip(hdr / 4, 0, 1) ** (1 / 2.2)
    delta = darker / np.maximum(np.clip(hdr, 0, 1) ** (1 / 2.2), 1 / 255)
    stops = {"m4": -4, "m2": -2, "p2": 2, "p4": 4}
    return {
        "source": source,
        **{name: display(hdr * 2.0**count) for name, count in stops.items()},
        "delta": np.rint(255 * np.clip(delta, 0, 1)).astype(np.uint8),
    }


def planes(clip: vs.VideoNode) -> NDArray[Any]:
    """The first frame of an RGB clip as an (H,W,3) array."""
    with clip.get_frame(0) as frame:
        return np.dstack([np.asarray(frame[plane]) for plane in range(3)])


def write_csv(path: Path, columns: tuple[str, ...], rows: Iterable[Mapping[str, object]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    _write_whole(path, text.getvalue().encode(errors="surrogateescape"))  # paths need not be text


def write_png(path: Path, picture: Image) -> None:
    content = io.BytesIO()
    picture.save(content, "png")
    _write_whole(path, content.getvalue())


def _write_whole(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)
