"""What a training is known by: a clip, the frames to train on, the clip's colour, and the settings.

Apart from job.py because a network is the same whoever looks for it, trains it or waits for it: its key follows from
this alone.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import vapoursynth as vs

from vszhdrv.errors import Refused
from vszhdrv.store.store import key as store_key
from vszhdrv.zhdrv.config import RECIPE, Config

from . import clips
from .colour import Colour, check_clip, check_names, resolve_colour
from .expanding import Computing
from .lazy import Reading
from .log import warn

if TYPE_CHECKING:
    from vszhdrv.zhdrv.traits import Traits


@dataclass(frozen=True)
class Request:
    """A network that somebody wants. Make it with `request_of`."""

    clip: vs.VideoNode
    training_range: range
    """The frames to train on: all of the clip, or its `train_range`."""
    colour: Colour
    config: Config
    computing: Computing
    """By what frames are computed. It is not part of the key."""
    stream: Traits | None = None
    """What belongs to the whole film whose place this is, as it was found there; None: to be found in this clip."""

    @cached_property
    def digest(self) -> str:
        """The clip's fingerprint. Reads up to 32 of its frames, and as many of the range to train on."""
        return clips.digest(self.clip, self._digest_positions())

    def read_digest(self) -> Generator[Reading]:
        """The same in a frame callback, where nobody may wait for a frame: afterwards `digest` reads nothing."""
        positions = self._digest_positions()
        fingerprint = clips.Digest(self.clip, positions)
        yield Reading("reading", self.clip, positions, lambda place, planes, _: fingerprint.add(place, planes))
        vars(self)["digest"] = fingerprint.hexdigest()  # where cached_property keeps it

    def _digest_positions(self) -> list[int]:
        within = (self.training_range[position] for position in clips.digest_positions(len(self.training_range)))
        return sorted({*clips.digest_positions(self.clip.num_frames), *within})

    @property
    def facts(self) -> dict[str, Any]:
        """All that the network depends on, as JSON can hold it.

        The names are those of the first version, whatever the code calls these things today: with another name, every
        network would be trained again. A setting that is new is in it only where it differs from its default.

        Threads, device and precision change the weights' bits but not what they are for: keyed by them, a laptop would
        train again what the workstation has trained, and processes pinned to different numbers of cores would expand
        the chunks of one clip by different networks. They are in the weights' header.
        """
        return {
            "clip": self.digest,
            "length": self.clip.num_frames,
            **({} if self.train_range is None else {"train_range": self.train_range}),
            "colour": self.colour.as_json(),
            "settings": self.config.training_settings(),
            **({} if self.stream is None else {"stream": self.stream.outline()}),
            "recipe": RECIPE,
            "format": 1,  # the files' first: later ones tell the same of a network
        }

    @property
    def train_range(self) -> list[int] | None:
        """The first and the last frame to train on, where that is not the whole clip."""
        whole = len(self.training_range) == self.clip.num_frames
        return None if whole else [self.training_range[0], self.training_range[-1]]

    @property
    def key(self) -> str:
        """The network's name in the store."""
        return store_key(self.facts)


def request_of(
    clip: vs.VideoNode,
    config: Config,
    computing: Computing,
    *,
    train_range: list[int] | None,
    matrix_in: str,
    transfer_in: str,
    range_in: str,
) -> Request:
    """Check a clip and settle its colour. "" leaves a choice to the clip.

    Raises Refused where the clip can't be used; `clips.check_clip` and `colour.resolve_colour` say when.
    """
    check_clip(clip, still=config.still)
    training_range = _training_range(train_range, clip.num_frames, still=config.still)
    colour = resolve_colour(
        clip, matrix_in=matrix_in or None, transfer_in=transfer_in or None, range_in=range_in or None, warn=warn
    )
    return Request(clip, training_range, colour, config.for_size(clip.width, clip.height), computing)


def check_options(
    *,
    device: str = "auto",
    precision: str = "auto",
    matrix_in: str = "",
    transfer_in: str = "",
    range_in: str = "",
    tile: list[int] | None = None,
    tile_pad: int | None = None,
    num_streams: int | None = None,
    graphics: str = "auto",
) -> None:
    """Raises Refused where `prepare` would refuse one of these arguments whatever the clip."""
    Computing(device, precision, tile, tile_pad, num_streams, graphics or "auto")
    check_names(matrix_in=matrix_in or None, transfer_in=transfer_in or None, range_in=range_in or None)


def _training_range(train_range: list[int] | None, length: int, *, still: bool) -> range:
    """The frames to train on. Raises Refused where the clip has no such range."""
    if not train_range:
        return range(length)
    fewest = 1 if still else 2
    if len(train_range) != 2 or not 0 <= train_range[0] <= train_range[1] - fewest + 1 < length - fewest + 1:
        raise Refused(
            "train_range must be the first and the last frame to train on, "
            f"{fewest} or more of the clip's 0 to {length - 1}, not {train_range}"
        )
    return range(train_range[0], train_range[1] + 1)
