"""The settings of a training and an expansion: one frozen dataclass, its presets and its validation."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from numbers import Integral, Real
from typing import Any, Literal, Self

from vszhdrv.errors import Refused

RECIPE = 9
"""Version of all that makes a training what it is, beside the settings: raised with every change after which the same
clip and settings give other weights, so that networks trained before are not taken for those of now."""
FOLD_PIXELS = 512 * 1024
"""Frame size that the fast preset's block of pixels is meant for; at four times as many it is twice as wide."""
WHOLE = ("n_exp_down", "n_exp_up", "epochs", "seed")
"""Settings of the user's that are whole numbers."""
STEP_STOPS = 2.0
"""es: the exposure step of the paper's network, in stops (Banterle et al. 2024)."""


Head = Literal["ratio", "stops"]


@dataclass(frozen=True)
class Architecture:
    """The network's size and form: `network.UNet` is made of it."""

    widths: tuple[int, ...]
    """Channels of the encoder's levels, finest first."""
    head: Head
    """What the three output channels are: the paper's "ratio" of two exposures, or "stops" over white in one go."""
    fold: int = 1
    """Side in pixels of the blocks that the finest level sees as one."""

    @property
    def multiple(self) -> int:
        """Height and width of the network's input are multiples of this many pixels."""
        return int(self.fold * 2 ** (len(self.widths) - 1))

    @property
    def reach(self) -> int:
        """Pixels beyond which nothing around a pixel changes its prediction: the overlap that tiles need."""
        # At level k a pixel is fold * 2^k wide: 3x3 convolutions (two a level, three at the finest) and a pooling each
        # see one further, the bilinear upsampling from level k up to one and a half.
        levels = range(len(self.widths))
        blocks = sum(3 * 2**k for k in levels) + sum(2 * 2**k for k in levels[1:])
        return int(self.fold * blocks)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The names and shapes of the weights of `network.UNet`."""
        widths, block = self.widths, self.fold**2
        joined = (widths[-1], *(2 * width for width in reversed(widths[1:-1])))
        sides = {"encoder": ((6 if self.head == "stops" else 3) * block, *widths), "decoder": widths[::-1]}
        sizes = {f"encoder.{k}": (after, before, 3, 3) for k, (before, after) in enumerate(pairwise(sides["encoder"]))}
        sizes |= {f"decoder.{k}": (after, joined[k], 3, 3) for k, after in enumerate(sides["decoder"][1:])}
        sizes |= {"last": (widths[0], 2 * widths[0], 3, 3), "out": (3 * block, widths[0], 1, 1)}
        found: dict[str, tuple[int, ...]] = {f"pools.{k}.mix": () for k in range(len(widths) - 1)}
        for name, size in sizes.items():
            found |= {f"{name}.weight": size, f"{name}.bias": size[:1]}
        return found

    def as_json(self) -> dict[str, Any]:
        """What the header of a weights file says of it, as JSON can hold it."""
        return {"widths": list(self.widths), "head": self.head, "fold": self.fold}


@dataclass(frozen=True, kw_only=True)
class Config:
    """How to train and how to expand. Make one with `Config.from_preset`.

    A user chooses the first group; the second is what a preset is made of.
    """

    preset: Literal["fast", "paper", "draft"]
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
    head: Head
    fold: int
    """For frames of up to a megapixel; `for_size` makes it larger for others."""
    schedule: Literal["plateau", "one-cycle"]
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: for few steps."""
    max_gradient: float | None
    """Norm to which a step's gradient is cut; None: it is not cut. Crops that have little in common now and then give
    gradients a hundred times the usual: after one, a network at a high rate may predict nothing ever after."""
    steps_per_epoch: int | None
    """None: an epoch visits every drawn frame under each of the seven transforms."""
    batch: int
    """Pictures a step; with head "ratio", crops, each of two pictures where there is a temporal loss."""
    crop: int
    """Side of the training crops in pixels, for frames of up to a megapixel."""
    second_round: float
    """Share of the epochs, at the end, in which the network trains on the consensus of neighbouring frames."""
    max_frames: int
    """Training frames, at most."""
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
            ("n_exp_down", 1 if self.head == "stops" else 0, 6),
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
    def architecture(self) -> Architecture:
        """The network's."""
        return Architecture(self.widths, self.head, self.fold)

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

    def of_few(self, epochs: int) -> Self:
        """The settings for a training of so many epochs: other ones where that is less than all.

        Few steps are better made of more pictures each, and by Muon: docs/experiments.md compares.
        """
        if epochs >= self.epochs or self.steps_per_epoch is None:
            return replace(self, epochs=min(epochs, self.epochs))
        steps, batch = max(1, self.steps_per_epoch // 2), 2 * self.batch
        return replace(self, epochs=epochs, optimizer="muon", batch=batch, steps_per_epoch=steps)

    def for_size(self, width: int, height: int) -> Self:
        """The settings for frames of this size.

        A network that predicts stops sees larger blocks of pixels as one, and larger crops, where frames are larger,
        so that a lamp spans as much of its sight in 2160p as in 540p, and a pixel costs less there.
        """
        if self.head == "ratio":
            return self
        doublings = max(0, round(math.log2(math.sqrt(width * height / FOLD_PIXELS))))
        return replace(self, fold=self.fold * 2**doublings, crop=self.crop * 2**doublings)

    def training_settings(self) -> dict[str, Any]:
        """All settings that the weights depend on, as JSON can hold them.

        They are part of a network's key. So the names stay, whatever the fields are called; and a setting that is new
        is in here only where it differs from its default.
        """
        # The paper's network is trained for one step, however often it is applied afterwards.
        trained_range = {"n_exp_down": self.n_exp_down} if self.head == "stops" else {}
        return {
            "preset": self.preset,
            **trained_range,
            "epochs": self.epochs,
            "lr": self.lr,
            "alpha": self.alpha,
            "seed": self.seed,
            "still": self.still,
            "widths": list(self.widths),
            "head": self.head,
            "fold": self.fold,
            "schedule": self.schedule,
            "max_gradient": self.max_gradient,
            "steps_per_epoch": self.steps_per_epoch,
            "batch": self.batch,
            "crop": self.crop,
            "second_round": self.second_round,
            "max_frames": self.max_frames,
            "few_frames": self.few_frames,
            **({} if self.optimizer == "adamw" else {"optimizer": self.optimizer}),
        }


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
# For looking, in seconds: few steps, and no second round, whose consensus takes as long as many steps.
PRESETS["draft"] = {**PRESETS["fast"], "epochs": 3, "second_round": 0.0}
