"""What is known of a clip beside its network. Loads no torch: a weights file is checked before it is needed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from vszhdrv.errors import Refused

from .overlays import Overlays
from .working import CLIPPED

COMPRESSED_WHITE = 0.95
"""Working values from which a channel of a compressed clip counts as clipped: compression leaves what clips darker."""

Graphics = Literal["", "areas", "all"]
"""Which white of a clip is graphics: none, areas that are found in each frame, or all."""
GRAPHICS: dict[str, Graphics] = {"": "", "areas": "areas", "all": "all"}


@dataclass(frozen=True)
class Traits:
    """What was found in the training frames. The header of a weights file keeps it, as every expansion needs it."""

    overlays: Overlays | None = None
    """What is not picture in them; None: nothing."""
    clip_point: float = 1.0
    """The working value at which the source clips."""
    compressed: bool = False
    """Whether the clip was compressed with losses (`compression.shows`)."""
    levelled: bool = False
    """Whether the network was trained on, and is to be given, pictures whose white is even again (`uneven`)."""
    grey: bool = False
    """Whether all frames are black and white."""
    graphics: Graphics = ""
    """Which white is graphics and stays as it is (`graphics.found_in`)."""

    @property
    def white(self) -> float:
        """The working value from which a channel counts as clipped, where the clip point is at 1."""
        return COMPRESSED_WHITE if self.compressed else CLIPPED

    def outline(self) -> list[Any]:
        """What of this the networks of a film are known by, as JSON can hold it: coarse, so that edits agree on it."""
        return [round(self.clip_point, 2), self.compressed, *([] if self.overlays is None else self.overlays.outline())]

    def to_header(self) -> dict[str, str]:
        """The entries of a weights file's header."""
        return {
            "clip_point": repr(self.clip_point),
            "compressed": str(self.compressed),
            "grey": str(self.grey),
            **({"levelled": "True"} if self.levelled else {}),
            **({} if self.overlays is None else {"overlays": str(self.overlays)}),
            **({"graphics": self.graphics} if self.graphics else {}),
        }

    @classmethod
    def from_header(cls, header: Mapping[str, str]) -> Self:
        """What `to_header` has written; entries that are missing say that nothing was found.

        Raises Refused, naming the entry, for anything that `to_header` does not write.
        """
        overlays = header.get("overlays")
        return cls(
            Overlays.parse(overlays) if overlays else None,
            _clip_point(header.get("clip_point", "1")),
            compressed=_yes(header, "compressed"),
            levelled=_yes(header, "levelled"),
            grey=_yes(header, "grey"),
            graphics=_graphics(header.get("graphics", "")),
        )


NOTHING_FOUND = Traits()


def _clip_point(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.5 <= value <= 1:
        raise Refused(f"clip_point must be a number from 0.5 to 1, not {text[:40]!r}")
    return value


def _graphics(text: str) -> Graphics:
    if text not in GRAPHICS:
        raise Refused(f"graphics must be areas or all, not {text[:40]!r}")
    return GRAPHICS[text]


def _yes(header: Mapping[str, str], name: str) -> bool:
    text = header.get(name, "False")
    if text not in ("True", "False"):
        raise Refused(f"{name} must be True or False, not {text[:40]!r}")
    return text == "True"
