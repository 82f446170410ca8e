"""One clip's way to its trained network: from the store, or trained now.

Apart from functions.py because the command line walks the same way step by step (train only, pictures while training),
where the plugin walks it in one go. torch is imported only where it computes: a network that the store has costs none.
What is learned from is material.py's subject, what becomes of the network expanding.py's.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import vapoursynth as vs
from numpy.typing import NDArray

import vszhdrv
from vszhdrv.errors import Refused
from vszhdrv.store import weight_files
from vszhdrv.store.store import Slot, Store
from vszhdrv.store.store import folder as store_folder
from vszhdrv.store.store import key as store_key
from vszhdrv.store.weight_files import WeightFile
from vszhdrv.zhdrv.config import RECIPE, Config

from . import expanding, frames, lazy, material
from .expanding import Computing
from .lazy import Reading
from .log import log, warn

if TYPE_CHECKING:
    import torch

    from vszhdrv.zhdrv.expansion import Expander
    from vszhdrv.zhdrv.footage import TrainingFrames
    from vszhdrv.zhdrv.hardware import Precision
    from vszhdrv.zhdrv.parallel import Team
    from vszhdrv.zhdrv.training import Progress, Weights

Follow = Callable[[Generator["Event"]], None]
"""Lets a job learn: iterates over its events to the end."""

STATE_SECONDS = 20
"""A training's state is saved this often: a killed run loses no more."""
MEASURED_STEPS = 5
"""Steps after which the remaining time is told."""


@dataclass(frozen=True)
class Event:
    """How far the learning has come.

    `done` of `total` frames ("scoring" many to choose some, "reading" those, "comparing" them with their neighbours
    between the rounds of training) or steps ("training"); `seconds_left` of all the training, once it can be told.
    "estimate" comes once, after the first measured steps. `progress` is the training's own account after a step.
    """

    kind: Literal["scanning", "scoring", "reading", "estimate", "training", "comparing"]
    done: int
    total: int
    seconds_left: float | None = None
    progress: Progress | None = None


@dataclass(frozen=True)
class Trained:
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
) -> None:
    """Raises Refused where `prepare` would refuse one of these arguments whatever the clip."""
    Computing(device, precision, tile, tile_pad, num_streams)
    frames.check_names(matrix_in=matrix_in or None, transfer_in=transfer_in or None, range_in=range_in or None)


def prepare(
    clip: vs.VideoNode,
    *,
    preset: str = "fast",
    n_exp_down: int | None = None,
    n_exp_up: int | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    alpha: float | None = None,
    seed: int | None = None,
    still: bool = False,
    device: str = "auto",
    precision: str = "auto",
    weights: str = "",
    matrix_in: str = "",
    transfer_in: str = "",
    range_in: str = "",
    cache: str | None = None,
    train: bool = True,
    tile: list[int] | None = None,
    tile_pad: int | None = None,
    num_streams: int | None = None,
    train_range: list[int] | None = None,
) -> Job:
    """Check the arguments and the clip, and settle its colour: what can be wrong is said here, as a Refused.

    The arguments are those of core.zhdrv.Expand; None or "" leaves a choice to the preset, the clip or the system.
    """
    frames.check_clip(clip, still=still)
    config = Config.from_preset(
        preset,
        n_exp_down=n_exp_down,
        n_exp_up=n_exp_up,
        epochs=epochs,
        lr=lr,
        alpha=0.0 if still and alpha is None else alpha,
        seed=seed,
        still=still,
    ).for_size(clip.width, clip.height)
    computing = Computing(device, precision, tile, tile_pad, num_streams)
    taught = _taught(train_range, clip.num_frames, still=still)
    given = _given_weights(Path(weights).expanduser(), config) if weights else None
    colour = frames.resolve_colour(
        clip, matrix_in=matrix_in or None, transfer_in=transfer_in or None, range_in=range_in or None, warn=warn
    )
    cached = Store(store_folder(cache), warn)
    return Job(clip, taught, colour, config, computing, cached, train, given)


def _taught(train_range: list[int] | None, length: int, *, still: bool) -> range:
    """The frames to learn from. Raises Refused where the clip has no such range."""
    if not train_range:
        return range(length)
    fewest = 1 if still else 2
    if len(train_range) != 2 or not 0 <= train_range[0] <= train_range[1] - fewest + 1 < length - fewest + 1:
        raise Refused(
            "train_range must be the first and the last frame to learn from, "
            f"{fewest} or more of the clip's 0 to {length - 1}, not {train_range}"
        )
    return range(train_range[0], train_range[1] + 1)


def _given_weights(path: Path, config: Config) -> Trained:
    """The user's own weights file. Raises Refused where it is missing, damaged, or of another architecture."""
    try:
        file = weight_files.read(path)
    except OSError as error:
        raise Refused(f"weights must be a file of a trained network, and {path}: {error.strerror}") from error
    except Refused as error:
        raise Refused(f"weights can't be used: {error}") from error
    metadata = file.metadata
    if json.loads(metadata.get("network", "null")) != config.architecture.as_json():
        raise Refused(
            f"weights {path} hold another architecture than preset {config.preset!r} has for this frame size: they "
            f"were trained with preset {metadata.get('preset')!r} and are {metadata.get('network')}"
        )
    return Trained(metadata, file)


def _read(readings: Generator[Reading, None, TrainingFrames]) -> Generator[Event, None, TrainingFrames]:
    """Carry out the readings here and now; the value is theirs."""
    while True:
        try:
            reading = next(readings)
        except StopIteration as end:
            gathered: TrainingFrames = end.value
            return gathered
        for place, (planes, props) in enumerate(frames.read(reading.clip, reading.positions)):
            reading.take(place, planes, props)
            yield Event(reading.kind, place + 1, len(reading.positions))


@dataclass
class Job:
    """What is to be learned from one clip, and what has been learned. Made by `prepare`."""

    clip: vs.VideoNode
    taught: range
    """The frames to learn from: all of the clip, or its `train_range`."""
    colour: frames.Colour
    config: Config
    computing: Computing
    store: Store
    may_train: bool
    trained: Trained | None
    """The network, once there is one."""
    _training: tuple[TrainingFrames, Progress] | None = field(default=None, repr=False)
    """The frames and the network of a training that goes on at this moment."""

    @cached_property
    def digest(self) -> str:
        """The clip's fingerprint. Reads up to 32 of its frames, and as many of the range to learn from."""
        return frames.digest(self.clip, self._digest_positions())

    def _digest_positions(self) -> list[int]:
        within = (self.taught[position] for position in frames.digest_positions(len(self.taught)))
        return sorted({*frames.digest_positions(self.clip.num_frames), *within})

    @property
    def facts(self) -> dict[str, Any]:
        """All that the network depends on.

        Threads, device and precision change the weights' bits but not what they are for: keyed by them, a laptop would
        train again what the workstation has learned, and processes pinned to different numbers of cores would expand
        the chunks of one clip by different networks. They are in the weights' header.
        """
        return {
            "clip": self.digest,
            "length": self.clip.num_frames,
            **({} if self.train_range is None else {"train_range": self.train_range}),
            "colour": self.colour.as_json(),
            "settings": self.config.training_settings(),
            "recipe": RECIPE,
            "format": 1,  # the files' first: later ones tell the same of a network
        }

    @property
    def train_range(self) -> list[int] | None:
        """The first and the last frame to learn from, where that is not the whole clip."""
        whole = len(self.taught) == self.clip.num_frames
        return None if whole else [self.taught[0], self.taught[-1]]

    @property
    def key(self) -> str:
        """The network's name in the store."""
        return store_key(self.facts)

    def look_up(self) -> bool:
        """Whether a network is there: the given one, or the store's."""
        if self.trained is None and (found := self.store.find(self.key)) is not None:
            self._take(found)
        return self.trained is not None

    def _take(self, found: WeightFile) -> None:
        self.trained = Trained(found.metadata, found, self.store.find_last(self.key))

    def learn(self, team: Team | None = None) -> Generator[Event]:
        """Get the network: at once if there is one, else by training now. Iterate to the end.

        With a `team`, whose process 0 this is, all of its processes train. Whoever stops in between, by closing the
        iterator or by an exception, finds the training's state in the store the next time. Raises Refused where
        there is no network and `train` is off.
        """
        if not self._look_up_or_refuse():
            yield from self._train_in_turn(team=team)

    def _learn_by_requests(self, follow: Follow) -> Generator[Reading]:
        """The same for lazy.after: it reads before its turn to train comes, to keep nobody waiting meanwhile.

        Several clips of one process may learn the same: with the lock held from one callback to the next, one of them
        could wait for it in the very thread that the other needs to go on.
        """
        if self.trained is None:
            positions = self._digest_positions()
            fingerprint = frames.Digest(self.clip, positions)
            yield Reading("reading", self.clip, positions, lambda place, planes, _: fingerprint.add(place, planes))
            self.digest = fingerprint.hexdigest()
        if not self._look_up_or_refuse():
            log("reading frames to learn from")
            gathered = yield from self._gather()
            follow(lazy.until_exit(self._train_in_turn(gathered)))

    def _look_up_or_refuse(self) -> bool:
        if not self.look_up() and not self.may_train:
            raise Refused(
                "train is off and no network for this clip and these settings is in the cache: train it first"
            )
        return self.trained is not None

    def _train_in_turn(self, gathered: TrainingFrames | None = None, team: Team | None = None) -> Generator[Event]:
        """Train, unless somebody else does: then wait for their network. Gathers what to learn from if it was not."""
        say_waiting = cache(partial(log, "another process or filter is training on this clip; waiting for its network"))

        def waiting() -> None:
            say_waiting()
            lazy.refuse_at_exit()

        with self.store.training(self.key, waiting) as slot:
            if slot.found is not None:
                self._take(slot.found)
                return
            if gathered is None:
                gathered = yield from _read(self._gather())

            from vszhdrv.zhdrv import hardware

            device, precision = self.computing.hardware()
            try:
                with hardware.memory_told(device):
                    yield from self._train(gathered, device, precision, slot, team)
            finally:
                hardware.give_back_memory(device)

    def _gather(self) -> Generator[Reading, None, TrainingFrames]:
        return material.gather(self.clip, self.taught, self.colour, self.config)

    def _train(
        self, gathered: TrainingFrames, device: torch.device, precision: Precision, slot: Slot, team: Team | None
    ) -> Generator[Event]:
        from vszhdrv.zhdrv import training

        saved = time.monotonic()
        progress = None
        first_work, first_seconds = 0.0, 0.0
        left: float | None = None
        try:
            state = slot.state()
            if team is not None:
                team.send(gathered, self.config, device, precision, state)
            for progress in training.train(gathered, self.config, device, precision, state, team):
                self._training = gathered, progress
                if not first_work:  # the first step pays for memory and kernels: it is not measured
                    first_work, first_seconds = progress.work, progress.seconds
                    if state is not None:
                        log(f"going on from step {state['step']} of {progress.steps}")
                taken = progress.work - first_work
                if taken >= MEASURED_STEPS:  # training's own time: whoever iterates may draw pictures in between
                    told = left is not None
                    left = (progress.seconds - first_seconds) / taken * progress.work_left
                    if not told:
                        yield Event("estimate", progress.step, progress.steps, left, progress)
                if time.monotonic() - saved >= STATE_SECONDS and progress.step < progress.steps:
                    slot.save_state(progress.state())
                    saved = time.monotonic()
                if progress.consulting:
                    yield Event("comparing", progress.frames_done, progress.frames, left)
                else:
                    yield Event("training", progress.step, progress.steps, left, progress)
        except BaseException:  # Ctrl-C and a closed iterator too: the next run goes on from here
            if progress is not None and progress.settled and progress.step < progress.steps:
                slot.save_state(progress.state())
            raise
        finally:
            self._training = None
        assert progress is not None
        best, last = progress.best, progress.weights
        processes = 1 if team is None else team.size
        metadata = self._metadata(progress, str(device), precision, processes, gathered)
        stored = slot.finish(best, last, metadata)
        if stored is not None:
            self._take(stored)
        else:
            self.trained = Trained(metadata, best=best, last=last)

    def _metadata(
        self, progress: Progress, device: str, precision: str, processes: int, gathered: TrainingFrames
    ) -> dict[str, str]:
        """The header of the weights file: what a person, `_given_weights` or `expanding` wants to know of them."""
        import torch

        config = self.config
        return {
            "preset": config.preset,
            "network": json.dumps(config.architecture.as_json()),
            "key": self.key,
            "facts": json.dumps(self.facts),
            "loss": repr(progress.rows[-1]["total"]),
            "seconds": f"{progress.seconds:.1f}",
            "log": json.dumps(progress.rows),
            "training_frames": json.dumps(gathered.numbers),
            "vszhdrv": vszhdrv.__version__,
            "torch": torch.__version__,
            "device": device,
            "precision": precision,
            "threads": str(torch.get_num_threads()),
            "processes": str(processes),
            **gathered.traits.to_header(),
        }

    def expander(self) -> Expander:
        """The trained network, ready for frames. Raises Refused where the weights are of another architecture."""
        assert self.trained is not None
        grey = self.clip.format.color_family == vs.GRAY
        return expanding.expander(self.trained.weights(), self.trained.metadata, self.config, self.computing, grey=grey)

    def linear(self) -> vs.VideoNode:
        """The clip itself in linear light, as its expansion is: RGBS, 1.0 = SDR white, its own primaries."""
        return frames.to_linear(self.clip, self.colour)

    def expand(
        self, function: expanding.Function | None = None, *, planes: int = 3, follow: Follow | None = None
    ) -> vs.VideoNode:
        """The clip whose frames the trained network expands on request, or of what `function` makes of them.

        As `expanding.expanded`. With `follow`, what was not learned yet is learned when the first frame is requested:
        it gets the events of `learn`, and iterates to the end.
        """
        linear = self.linear()
        if follow is not None and self.trained is None:
            linear = lazy.after(linear, lambda: self._learn_by_requests(follow))
        return expanding.expanded(linear, self.expander, self.config, self.computing, function, planes=planes)

    def write_weights(self, path: Path | None) -> Path:
        """Write the weights to expand with to `path`; None: just say where the store has them.

        Raises OSError where they can't be written, or the store could not keep them.
        """
        assert self.trained is not None
        if path is not None:
            weight_files.write_weights(path, self.trained.weights(), self.trained.metadata)
            return path
        if self.trained.file is None:
            raise OSError(f"the network could not be kept in {self.store.networks}: name a file with path")
        return self.trained.file.path

    def save_weights(self, folder: Path) -> None:
        """Write best.safetensors and last.safetensors into `folder`."""
        assert self.trained is not None
        folder.mkdir(parents=True, exist_ok=True)
        for name, weights in (("last", self.trained.last_weights()), ("best", self.trained.weights())):
            if weights is not None:
                weight_files.write_weights(folder / f"{name}.safetensors", weights, self.trained.metadata)

    def recs(self) -> dict[str, NDArray[np.uint8]]:
        """What has been learned so far, on the most over-exposed training frame: (H,W,3) display-encoded pictures.

        "source", the expansion shown at -4, -2, +2 and +4 stops ("m4", "m2", "p2", "p4"), and "delta", the ratio of the
        picture at -2 stops to the source. Call it between two events of `learn`.
        """
        from vszhdrv.zhdrv import footage
        from vszhdrv.zhdrv.expansion import Expander, show

        assert self._training is not None
        gathered, progress = self._training
        device, precision = self.computing.hardware()
        network = copy.deepcopy(progress.network)  # an Expander changes the layout of weights that the optimizer knows
        traits = replace(gathered.traits, clip_point=1.0, overlays=None)  # these pixels clip at 1, without overlays
        expander = Expander(network, self.config, device, precision, traits=traits)
        return show(expander, footage.most_exposed(gathered))
