"""One clip's way to its trained network: from the store, or trained now.

Apart from functions.py because the command line walks the same way step by step (train only, pictures while training),
where the plugin walks it in one go. torch is imported only where it computes: a network that the store has costs none.
request.py says what a network is known by, network.py what one is; training_frames.py chooses what is trained on, and
expanding.py has what becomes of the network.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache, partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import vapoursynth as vs
from numpy.typing import NDArray

from vszhdrv.errors import Failed, Refused
from vszhdrv.store.store import Slot, Store
from vszhdrv.store.weight_files import WeightFile
from vszhdrv.version import __version__

from . import clips, expanding, lazy, training_frames
from .colour import to_linear
from .fields import check_fields
from .lazy import Reading
from .log import log
from .request import Request
from .trained import TrainedNetwork

if TYPE_CHECKING:
    import torch

    from vszhdrv.light import Look
    from vszhdrv.shots import Shot
    from vszhdrv.zhdrv.expansion import Expander
    from vszhdrv.zhdrv.footage import TrainingFrames
    from vszhdrv.zhdrv.hardware import Precision
    from vszhdrv.zhdrv.parallel import Team
    from vszhdrv.zhdrv.training import Progress

Follow = Callable[[Generator["Event"]], None]
"""Lets a job train: iterates over its events to the end."""

STATE_SECONDS = 20
"""A training's state is saved this often: a killed run loses no more."""
MEASURED_STEPS = 5
"""Steps after which the remaining time is told."""


@dataclass(frozen=True)
class Event:
    """How far the training has come.

    `done` of `total` frames ("scanning" all for their shots, "scoring" many to choose some, "reading" those,
    "comparing" them with their neighbours between the rounds of training) or steps ("training"); `seconds_left` of all
    the training, once it can be told.
    "estimate" comes once, after the first measured steps. `progress` is the training's own account after a step.
    """

    kind: Literal["scanning", "scoring", "reading", "estimate", "training", "comparing"]
    done: int
    total: int
    seconds_left: float | None = None
    progress: Progress | None = None


def read_now[T](readings: Generator[Reading, None, T]) -> Generator[Event, None, T]:
    """Carry out the readings here and now; the value is theirs."""
    while True:
        try:
            reading = next(readings)
        except StopIteration as end:
            value: T = end.value
            return value
        if reading.kind == "looking":
            with suppress(Failed):  # such a frame fails when somebody asks for it
                for place, (planes, props) in enumerate(clips.read(reading.clip, reading.positions)):
                    reading.take(place, planes, props)
            continue
        for place, (planes, props) in enumerate(clips.read(reading.clip, reading.positions)):
            reading.take(place, planes, props)
            yield Event(reading.kind, place + 1, len(reading.positions))


@dataclass
class Job:
    """The way to one network, and from it to HDR. Made by `preparing.prepare`."""

    request: Request
    store: Store
    may_train: bool
    trained: TrainedNetwork | None
    """The network, once there is one."""
    source: str = ""
    """The name of the clip's file, where somebody knows it: for the network's header."""
    _training: tuple[TrainingFrames, Progress] | None = field(default=None, repr=False)
    """The frames and the network of a training that goes on at this moment."""

    def limit_to(self, frames: range) -> None:
        """Say that these frames alone will be expanded: networks that they don't need are not trained.

        Here, all frames need the same.
        """

    def look_up(self) -> TrainedNetwork | None:
        """The network if it is there: the given one, or the store's."""
        if self.trained is None and (found := self.store.find(self.request.key)) is not None:
            self._take(found)
        return self.trained

    def _take(self, found: WeightFile) -> None:
        self.trained = TrainedNetwork(found.metadata, found, self.store.find_last(self.request.key))

    def train(self, team: Team | None = None) -> Generator[Event]:
        """Get the network: at once if there is one, else by training now. Iterate to the end.

        With a `team`, whose process 0 this is, all of its processes train. Whoever stops in between, by closing the
        iterator or by an exception, finds the training's state in the store the next time. Raises Refused where
        there is no network and `train` is off.
        """
        if not self._look_up_or_refuse():
            yield from self._train_in_turn(team=team)

    def _train_by_requests(self, follow: Follow) -> Generator[Reading]:
        """The same for lazy.after: it reads before its turn to train comes, to keep nobody waiting meanwhile.

        Several clips of one process may train the same network. If one held the lock from one callback to the next,
        another could wait for it in the very thread that the first needs to go on.
        """
        if self.trained is None:
            yield from self.request.read_digest()
        if not self._look_up_or_refuse():
            log("reading frames to train on")
            frames = yield from self._training_frames()
            follow(lazy.until_exit(self._train_in_turn(frames)))

    def _look_up_or_refuse(self) -> bool:
        if not self.look_up() and not self.may_train:
            raise Refused(
                "train is off and no network for this clip and these settings is in the cache: train it first"
            )
        return self.trained is not None

    def _train_in_turn(self, frames: TrainingFrames | None = None, team: Team | None = None) -> Generator[Event]:
        """Train, unless somebody else does: then wait for their network. Chooses the frames if nobody has."""
        say_waiting = cache(partial(log, "another process or filter is training on this clip; waiting for its network"))

        def waiting() -> None:
            say_waiting()
            lazy.refuse_at_exit()

        with self.store.training(self.request.key, waiting) as slot:
            if slot.found is not None:
                self._take(slot.found)
                return
            if frames is None:
                frames = yield from read_now(self._training_frames())

            from vszhdrv.zhdrv import hardware

            device, precision = self.request.computing.hardware()
            try:
                with hardware.memory_told(device):
                    yield from self._train(frames, device, precision, slot, team)
            finally:
                hardware.give_back_memory(device)

    def _training_frames(self) -> Generator[Reading, None, TrainingFrames]:
        if not self.request.config.still and self.request.stream is None:  # a film is looked at as a whole
            yield from check_fields(self.request.clip)
        return (yield from training_frames.choose(self.request))

    def _train(
        self, frames: TrainingFrames, device: torch.device, precision: Precision, slot: Slot, team: Team | None
    ) -> Generator[Event]:
        from vszhdrv.zhdrv import training

        saved = time.monotonic()
        progress = None
        first_work, first_seconds = 0.0, 0.0
        left: float | None = None
        try:
            state = slot.state()
            if team is not None:
                team.send(frames, self.request.config, device, precision, state)
            steps = training.train(frames, self.request.config, device, precision, state, team)
            try:
                first = next(steps)
            except Refused as error:
                if state is None or team is not None:
                    raise
                slot.refuse_state(error)
                state = None
                steps = training.train(frames, self.request.config, device, precision)
                first = next(steps)
            for progress in chain([first], steps):
                self._training = frames, progress
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
        if team is not None:
            team.await_more()
        best, last = progress.best, progress.weights
        processes = 1 if team is None else team.size
        metadata = self._metadata(progress, str(device), precision, processes, frames)
        stored = slot.finish(best, last, metadata)
        if stored is not None:
            self._take(stored)
        else:
            self.trained = TrainedNetwork(metadata, best=best, last=last)

    def _metadata(
        self, progress: Progress, device: str, precision: str, processes: int, frames: TrainingFrames
    ) -> dict[str, str]:
        """The header of the weights file: what a person, `_given_weights` or `expanding` wants to know of them."""
        import torch

        config = self.request.config
        return {
            "preset": config.preset,
            "network": json.dumps(config.architecture.as_json()),
            "key": self.request.key,
            "facts": json.dumps(self.request.facts),
            "loss": repr(progress.rows[-1]["total"]),
            "seconds": f"{progress.seconds:.1f}",
            "log": json.dumps(progress.rows),
            "training_frames": json.dumps(frames.numbers),
            "clip": json.dumps(self._about_clip()),
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "vszhdrv": __version__,
            "torch": torch.__version__,
            "device": device,
            "precision": precision,
            "threads": str(torch.get_num_threads()),
            "processes": str(processes),
            **frames.traits.to_header(),
        }

    def _about_clip(self) -> dict[str, Any]:
        """By what a person knows the clip again."""
        clip = self.request.clip
        return {"name": self.source, "width": clip.width, "height": clip.height, "frames": clip.num_frames}

    def expander(self) -> Expander:
        """The trained network, ready for frames. Raises Refused where the weights are of another architecture."""
        assert self.trained is not None
        grey = self.request.clip.format.color_family == vs.GRAY
        return expanding.expander(
            self.trained.weights(), self.trained.metadata, self.request.config, self.request.computing, grey=grey
        )

    def film(self) -> list[Shot]:
        """The shots of a film of several places; none where one network serves all frames."""
        return []

    def expander_of(self, place: int) -> Expander:
        """The network of one place of a film, as `expander`."""
        assert place == 0
        return self.expander()

    def linear(self) -> vs.VideoNode:
        """The clip itself in linear light, as its expansion is: RGBS, 1.0 = SDR white, its own primaries."""
        return to_linear(self.request.clip, self.request.colour)

    def expand(
        self, function: expanding.Function | None = None, *, planes: int = 3, follow: Follow | None = None
    ) -> vs.VideoNode:
        """The clip whose frames the trained network expands on request, or of what `function` makes of them.

        As `expanding.expanded`. With `follow`, a missing network is trained when the first frame is requested:
        it gets the events of `train`, and iterates to the end.
        """
        linear = self.linear()
        if follow is not None and self.trained is None:
            linear = lazy.after(linear, lambda: self._train_by_requests(follow))
        return expanding.expanded(
            linear, self.expander, self.request.config, self.request.computing, function, planes=planes
        )

    def expand_with(
        self, look: Look, *, levels: bool = False, lit: bool = False, follow: Follow | None = None
    ) -> vs.VideoNode:
        """`expand` with a look; `levels` and `lit` are those of `expanding.with_look`."""
        if look.strength == 1 and not (look.peak or levels):
            return self.expand(follow=follow)
        function = expanding.with_look(look, self.request.colour.primaries, levels=levels, lit=lit)
        return self.expand(function, follow=follow)

    def recs(self) -> dict[str, NDArray[np.uint8]]:
        """What the network does so far, on the most over-exposed training frame: (H,W,3) display-encoded pictures.

        "source", the expansion shown at -4, -2, +2 and +4 stops ("m4", "m2", "p2", "p4"), and "delta", the ratio of the
        picture at -2 stops to the source. Call it between two events of `train`.
        """
        from vszhdrv.zhdrv import footage
        from vszhdrv.zhdrv.expansion import Expander, show

        assert self._training is not None
        frames, progress = self._training
        device, precision = self.request.computing.hardware()
        network = copy.deepcopy(progress.network)  # an Expander changes the layout of weights that the optimizer knows
        traits = replace(frames.traits, clip_point=1.0, overlays=None)  # these pixels clip at 1, without overlays
        expander = Expander(network, self.request.config, device, precision, traits=traits)
        return show(expander, footage.most_exposed(frames))
