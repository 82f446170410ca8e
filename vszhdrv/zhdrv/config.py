"""The settings of a training and an expansion: one frozen dataclass, its presets and its validation."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import Any, Literal, Self

from vszhdrv.errors import Refused

RECIPE = 8
"""Version of all that makes a training what it is, beside the settings: raised with every change after which the same
clip and settings give other weights, so that networks trained before are not taken for those of now."""
FOLD_PIXELS = 512 * 1024
"""Frame size that the fast preset's block of pixels is meant for; at four times as many it is twice as wide."""
WHOLE = ("n_exp_down", "n_exp_up", "epochs", "seed")
"""Settings of the user's that are whole numbers."""
STEP_STOPS = 2.0
"""es: the exposure step of the paper's network, in stops (Banterle et al. 2024)."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """How to learn and how to expand. Make one with `Config.from_preset`.

    A user chooses the first group; the second is what a preset is made of.
    """

    preset: Literal["fast", "paper"]
    n_exp_down: int = 2
    """Steps of two stops downwards, 0 to 6: paper: times the network is applied; fast: the range it trains for."""
    n_exp_up: int = 2
    """Steps of two stops upwards that are merged, 0 to 6 (paper only: fast leaves what is exposed alone)."""
    epochs: int
    """Passes of training, over both rounds, 1 to 100000."""
    lr: float
    """Learning rate (its peak where the schedule is "one-cycle"), over 0, at most 1."""
    alpha: float
    """Weight of the temporal loss, 0 to 1."""
    seed: int = 0
    """Seed of everything drawn at random, 0 to 2^31 - 1."""
    still: bool = False
    """Image mode: no successors, no temporal loss, every frame is used."""

    widths: tuple[int, ...]
    """Channels of the network's levels."""
    head: Literal["ratio", "stops"]
    """What the network predicts: the paper's ratio of two exposures, or the stops over white in one go."""
    fold: int
    """Side in pixels of the blocks that the network's finest level sees as one, for frames of up to a megapixel."""
    schedule: Literal["plateau", "one-cycle"]
    max_gradient: float | None
    """Norm to which a step's gradient is cut; None: it is not cut. Crops that have little in common now and then give
    gradients a hundred times the usual, after one of which a network at a high rate may never answer again."""
    steps_per_epoch: int | None
    """None: an epoch visits every drawn frame under each of the seven transforms."""
    batch: int
    """Pictures a step; with head "ratio", crops, each of two pictures where there is a temporal loss."""
    crop: int
    """Side of the training crops in pixels, for frames of up to a megapixel."""
    second_round: float
    """Share of the epochs, at the end, in which the network learns what its answers to neighbouring frames agree on."""
    max_frames: int
    """Frames to learn from, at most."""
    few_frames: int | None
    """Where more than this many frames would be drawn, at most a sixth of the clip's frames is (None: no such rule)."""

    @classmethod
    def from_preset(cls, preset: str = "fast", **overrides: Any) -> Self:
        """The preset's settings, with those changed that are given and not None.

        Raises Refused with a sentence that names the argument, its value and what is accepted.
        """
        if preset not in PRESETS:
            raise Refused(f"preset must be one of {', '.join(PRESETS)}, not {preset!r}")
        names = {field.name for field in fields(cls)}
        given = {name: value for name, value in overrides.items() if value is not None}
        for name in given.keys() - names:
            raise Refused(f"there is no setting {name!r}; the settings are {', '.join(sorted(names))}")
        # 1, 1.0 and True are one setting, and must be one key of the store's
        if "still" in given:
            given["still"] = bool(given["still"])
        for name, kind in (("lr", float), ("alpha", float), *((name, int) for name in WHOLE)):
            if name in given:
                if not isinstance(given[name], Integral if kind is int else Real):
                    raise Refused(f"{name} must be a {'whole ' * (kind is int)}number, not {given[name]!r}")
                given[name] = kind(given[name])
        config = cls(**{"preset": preset, **PRESETS[preset], **given})
        config._validate()
        return config

    def _validate(self) -> None:
        for name, low, high in (
            ("n_exp_down", 1 if self.preset == "fast" else 0, 6),
            ("n_exp_up", 0, 6),
            ("epochs", 1, 100_000),
            ("seed", 0, 2**31 - 1),
            ("alpha", 0, 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise Refused(f"{name} must be from {low} to {high}, not {value}")
        if not (math.isfinite(self.lr) and 0 < self.lr <= 1):
            raise Refused(f"lr must be over 0 and at most 1, not {self.lr}")

    @property
    def first_epochs(self) -> int:
        """The epochs before the second round; all of them in image mode, where no frame has neighbours."""
        return self.epochs - (0 if self.still else int(self.epochs * self.second_round))

    @property
    def max_shift(self) -> float:
        """Stops of the largest simulated overexposure: one more than the steps downwards span."""
        return STEP_STOPS * self.n_exp_down + 1

    @property
    def crops(self) -> int:
        """Crops a step: of the fast preset's pictures, two belong to a crop where there is a temporal loss."""
        return max(1, self.batch // 2) if self.head == "stops" and self.alpha > 0 else self.batch

    @property
    def pictures(self) -> int:
        """Pictures of a step, all in all."""
        return self.crops * (2 if self.alpha > 0 else 1)

    @property
    def stride(self) -> int:
        """How far apart, down and across, the pixels lie that the fast preset's losses see: 1, twice as far with each
        doubling of `fold`, so that a step has as many of them whatever the frames' size."""
        return max(1, self.fold // int(PRESETS[self.preset]["fold"]))

    def for_size(self, width: int, height: int) -> Self:
        """The settings for frames of this size.

        A network that answers in stops sees larger blocks of pixels as one, and larger crops, where frames are larger,
        so that a lamp spans as much of its sight in 2160p as in 540p, and a pixel costs less there.
        """
        if self.head == "ratio":
            return self
        doublings = max(0, round(math.log2(math.sqrt(width * height / FOLD_PIXELS))))
        return replace(self, fold=self.fold * 2**doublings, crop=self.crop * 2**doublings)

    def training_settings(self) -> dict[str, Any]:
        """All settings that the weights depend on, as JSON can hold them."""
        # The paper's network is trained for one step, however often it is applied afterwards.
        expansion_only = {"n_exp_up"} if self.head == "stops" else {"n_exp_up", "n_exp_down"}
        settings = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in expansion_only}
        return {**settings, "widths": list(self.widths)}


PRESETS: dict[str, dict[str, Any]] = {
    # Banterle et al. 2024 and the published behaviour of its implementation.
    "paper": {
        "epochs": 128,
        "lr": 1e-4,
        "alpha": 0.95,
        "widths": (64, 128, 256, 512),
        "head": "ratio",
        "fold": 1,
        "schedule": "plateau",
        "max_gradient": None,
        "steps_per_epoch": None,
        "batch": 1,
        "crop": 320,
        "second_round": 0.0,
        "max_frames": 128,
        "few_frames": 30,
    },
    # Sized so that a person waits one to two minutes on two cores: docs/experiments.md has what is behind the values.
    "fast": {
        "epochs": 40,
        "lr": 3e-3,
        "alpha": 0.5,
        "widths": (16, 32, 48, 64, 64),
        "head": "stops",
        "fold": 2,
        "schedule": "one-cycle",
        "max_gradient": 0.1,
        "steps_per_epoch": 50,
        "batch": 4,
        "crop": 128,
        "second_round": 0.2,
        "max_frames": 128,
        "few_frames": None,
    },
}
