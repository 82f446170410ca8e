"""The stages of a job, and how long those after the training are going to take.

Apart from cli.py because these are measured figures. A step of the training is the unit: whatever computer it is, the
stages after it are about so many times as long.
"""

from __future__ import annotations

from collections.abc import Sequence

from vszhdrv.progress import Whole

BEFORE = ("scanning", "scoring", "reading", "training")
STEPS = {
    "expanding": (0.3, 1.2),
    "reading the clip": (0.0, 0.1),
    "measuring": (0.3, 1.0),
    "encoding": (0.0, 2.0),
}
"""Steps of `fast` that a frame takes: so many for each, and so many for each of its megapixels. Of a clip of
640x360, with one thread, expanding took 0.8 of a step a frame, measuring 0.6 and encoding 0.3."""


def of(*after: str) -> Whole:
    """The time of a job that trains, and then has these stages."""
    return Whole((*BEFORE, *after))


def expected(frames: int, width: int, height: int, step_seconds: float) -> dict[str, float]:
    """How many seconds each stage takes after the training, one step of which took `step_seconds`."""
    megapixels = width * height / 1e6
    return {kind: frames * step_seconds * (each + more * megapixels) for kind, (each, more) in STEPS.items()}


def stages(*, file: bool, measured: bool, report: bool) -> Sequence[str]:
    """The stages after the training: of one file that plays, whose light is `measured` or not, or of EXR frames."""
    made = (*(["reading the clip", "measuring"] if measured else []), "encoding") if file else ("expanding",)
    return (*made, *(["measuring for the report"] if report else []))
