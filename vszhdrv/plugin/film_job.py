"""A film's way to its networks: one for each place that its shots show.

Apart from job.py because that is about one network. A place is trained as a clip of its own frames is trained: by a
Job, under a key of these frames alone. So a film of one place is trained as ever, and a place of two films once.
"""

from __future__ import annotations

import json
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vapoursynth as vs

from vszhdrv.errors import Refused
from vszhdrv.shots import CutList, Shot, of_json, places_in, to_json, words
from vszhdrv.store.store import key as store_key

from . import expanding, film, lazy, training_frames
from .expanding import Function
from .fields import check_fields
from .job import Event, Follow, Job, read_now
from .lazy import Reading
from .log import log
from .request import Request
from .trained import TrainedNetwork

if TYPE_CHECKING:
    from vszhdrv.zhdrv.expansion import Expander
    from vszhdrv.zhdrv.parallel import Team
    from vszhdrv.zhdrv.training import Weights
    from vszhdrv.zhdrv.traits import Traits

EPOCHS = ((2, 40), (6, 16))
"""A film of up to so many places is trained for so many epochs a place, if the preset's are more."""
EPOCHS_OF_MANY = 8
"""Epochs a place in films of more places than these."""
MOST_NETWORKS = 8
"""Networks of one film that are ready for frames at a time: the most recently used."""
FEWEST_FRAMES = 24
"""A clip of fewer frames is not scanned: two places would leave too few for either."""


def epochs_of(config_epochs: int, places: int) -> int:
    """Epochs for each of so many places, where the user names none."""
    return min(config_epochs, next((epochs for most, epochs in EPOCHS if places <= most), EPOCHS_OF_MANY))


@dataclass
class PlaceJob(Job):
    """The way to the network of one place. A network that was trained for longer counts as found."""

    longer: tuple[Request, ...] = ()
    """The same place with more epochs, longest first."""

    def look_up(self) -> TrainedNetwork | None:
        """The network if it is there, the one that was trained for longest before others."""
        if self.trained is None:
            for request in self.longer:
                vars(request)["digest"] = self.request.digest
                if (found := self.store.find(request.key)) is not None:
                    self.trained = TrainedNetwork(found.metadata, found, self.store.find_last(request.key))
                    return self.trained
        return super().look_up()


@dataclass
class FilmJob(Job):
    """The way to a clip's networks, one for each place; to one network, as a Job, where there is one place."""

    cuts: CutList | None = None
    """Where shots begin, if the user says so."""
    epochs_given: bool = False
    shots: list[Shot] | None = None
    """Once they are found."""
    places: list[PlaceJob] = field(default_factory=list)
    """One for each place, by its number; none where the whole clip is one place."""
    frames: range | None = None
    """Those that will be expanded; None: all."""
    _now: Job | None = field(default=None, repr=False)
    """The place that is trained at this moment."""

    @property
    def folder(self) -> Path | None:
        """The cache's folder."""
        return None if self.store.networks is None else self.store.networks.parent

    def limit_to(self, frames: range) -> None:
        """As Job.limit_to: only the places that these frames show are looked for and trained."""
        self.frames = frames

    def _wanted(self) -> list[PlaceJob]:
        """The places whose networks are needed, by their number."""
        assert self.shots is not None
        frames = range(self.request.clip.num_frames) if self.frames is None else self.frames
        numbers = {
            number for before, shot in pairwise([self.shots[0], *self.shots]) for number in _shown(before, shot, frames)
        }
        return [self.places[number] for number in sorted(numbers)]

    def look_up(self) -> TrainedNetwork | None:
        """The network, or networks of all places that are needed, if they are there.

        Reads the clip where its shots are not known.
        """
        self._find_shots()
        if not self.places:
            return super().look_up()
        if self.trained is None and all([place.look_up() for place in self._wanted()]):
            self._take_all()
        return self.trained

    def _find_shots(self) -> None:
        for _ in self._scanned():
            pass

    def _scanned(self) -> Generator[Event]:
        """Find the shots, here and now; nothing where they are known."""
        if self.shots is None:
            yield from self._told(read_now(self._scan()))

    def _told(self, events: Generator[Event, None, Any]) -> Generator[Event]:
        """A scan's events, counted over the whole clip."""
        total, before = self.request.clip.num_frames, 0
        for event in events:
            if event.kind == "scanning":
                yield replace(event, done=before + event.done, total=total)
                before += event.total if event.done == event.total else 0

    def _scan(self) -> Generator[Reading, None, None]:
        """Find the shots and their places: in the cache, or by reading all of the clip."""
        clip = self.request.clip
        if self.shots is not None:
            return
        if clip.num_frames < FEWEST_FRAMES and self.cuts is None:
            self._take_shots([Shot(0, clip.num_frames, 0)])
            return
        key = film.scan_key(self.request.digest, clip.num_frames, self.cuts)
        shots = film.kept_shots(self.folder, key, clip.num_frames)
        if shots is None:
            yield from check_fields(clip)
            shots = yield from film.scan(clip, self.cuts)
            film.keep_shots(self.folder, key, shots)
        traits = None
        if len(places_in(shots)) > 1:
            traits_key = film.traits_key(self.request, key)
            traits = film.kept_traits(self.folder, traits_key)
            if traits is None:
                traits = yield from training_frames.survey(self.request, shots)
                film.keep_traits(self.folder, traits_key, traits)
        self._take_shots(shots, traits)

    def take_given(self, given: TrainedNetwork) -> None:
        """Use the networks of a film's file. Raises Refused where they are for a film of another length."""
        about = json.loads(given.metadata["film"])
        shots = of_json(about["shots"])
        if shots[-1].end != self.request.clip.num_frames:
            raise Refused(
                f"weights must be of a film of {self.request.clip.num_frames} frames, or of one network, "
                f"not of a film of {shots[-1].end} frames"
            )
        self._take_shots(shots)
        for number, (place, header) in enumerate(zip(self.places, about["places"], strict=True)):
            place.trained = PlaceOfFile(header, whole=given, number=number)
        self.trained = given

    def _take_shots(self, shots: list[Shot], traits: Traits | None = None) -> None:
        places = places_in(shots)
        if len(places) > 1:
            log(f"{words(shots)}: one network a place")
            request = replace(self.request, stream=traits)
            self.places = [self._place(request, of_place, shots, len(places)) for of_place in places]
        self.shots = shots

    def _place(self, request: Request, own: Sequence[Shot], shots: Sequence[Shot], count: int) -> PlaceJob:
        """The job of one place, whose clip is its frames, those aside that mix it with another."""
        clip = request.clip
        mixed = {n for shot in shots for n in shot.dissolve}
        runs = [run for shot in own for run in _runs(shot, mixed)] or [(shot.first, shot.end) for shot in own]
        parts = [clip[first:end] for first, end in runs]
        spliced = parts[0] if len(parts) == 1 else vs.core.std.Splice(parts)
        config = request.config
        wanted = config.epochs if self.epochs_given else epochs_of(config.epochs, count)
        sizes = {config.epochs, *(size for _, size in EPOCHS), EPOCHS_OF_MANY}
        longer = [] if self.epochs_given else sorted(n for n in sizes if wanted < n <= config.epochs)[::-1]
        of_epochs = [
            replace(request, clip=spliced, training_range=range(spliced.num_frames), config=config.of_few(epochs))
            for epochs in (wanted, *longer)
        ]
        return PlaceJob(of_epochs[0], self.store, self.may_train, None, longer=tuple(of_epochs[1:]))

    def train(self, team: Team | None = None) -> Generator[Event]:
        """Get the network of every place that is needed; as Job.train. A `team` trains one place after the other."""
        yield from self._scanned()
        if not self.places:
            yield from super().train(team)
            return
        missing = [place for place in self._wanted() if place.look_up() is None]
        for index, place in enumerate(missing):
            self._now = place
            place.source = self.source
            try:
                yield from _of_film(place.train(team), index, len(missing))
            finally:
                self._now = None
        self._take_all()

    def _take_all(self) -> None:
        assert self.shots is not None
        assert all(place.trained for place in self._wanted())
        self.trained = film_network(self.shots, [place.trained for place in self.places])

    def recs(self) -> dict[str, Any]:
        """As Job.recs: of the place that is trained at this moment."""
        return super().recs() if self._now is None else self._now.recs()

    def film(self) -> list[Shot]:
        """As Job.film."""
        return list(self.shots or ()) if self.places else []

    def expander_of(self, place: int) -> Expander:
        """As Job.expander_of."""
        return self.places[place].expander() if self.places else super().expander_of(place)

    def expander(self) -> Expander:
        """As Job.expander. Raises Refused where there is one network a place."""
        if self.places:
            raise Refused(f"shots must be off for one network to serve all: the clip has {len(self.places)} places")
        return super().expander()

    def expand(
        self, function: Function | None = None, *, planes: int = 3, follow: Follow | None = None
    ) -> vs.VideoNode:
        """As Job.expand: every frame by the network of its place, and mixed where shots dissolve.

        With `follow`, the first requested frame of a place trains that place alone.
        """
        if self.shots is None and follow is None:
            self._find_shots()
        if self.shots is not None and not self.places:
            return super().expand(function, planes=planes, follow=follow)
        routed = _Routed(self, function, planes, follow)
        if self.shots is not None:
            return routed.clip(None)
        token = vs.core.std.BlankClip(format=vs.GRAY8, width=1, height=1, length=1)
        return routed.clip(lazy.after(token, self._scan_by_requests))

    def _scan_by_requests(self) -> Generator[Reading]:
        if self.shots is None:
            yield from self.request.read_digest()
            log("reading the clip for its shots")
            yield from self._scan()


def _shown(before: Shot, shot: Shot, frames: range) -> set[int]:
    """The places that some frames show of a shot, and of the dissolve from the shot before."""

    def any_of(first: int, end: int) -> bool:
        return max(first, frames.start) < min(end, frames.stop)

    numbers = {shot.place} if any_of(shot.first, shot.end) else set()
    if any_of(shot.dissolve.start, shot.dissolve.stop):
        numbers |= {before.place, shot.place}
    return numbers


def _runs(shot: Shot, mixed: set[int]) -> list[tuple[int, int]]:
    """First and end frame of the parts of a shot that show nothing of another."""
    runs: list[tuple[int, int]] = []
    for n in range(shot.first, shot.end):
        if n in mixed:
            continue
        if runs and runs[-1][1] == n:
            runs[-1] = (runs[-1][0], n + 1)
        else:
            runs.append((n, n + 1))
    return runs


def _of_film(events: Generator[Event], index: int, count: int) -> Generator[Event]:
    """The events of one of `count` trainings that are alike, the time left being that of all."""
    for event in events:
        left = event.seconds_left
        if left is not None and event.progress is not None:
            share = event.progress.work / (event.progress.work + event.progress.work_left)
            left += (count - index - 1) * left / max(1 - share, 1e-3) if share < 1 else 0.0
        if event.kind == "estimate" and index:
            continue
        if event.kind in ("training", "estimate"):
            event = replace(event, done=event.done + index * event.total, total=count * event.total)
        yield replace(event, seconds_left=left)


class _Routed:
    """The clips of a film's places, made when a frame of theirs is requested, and put together by frame number."""

    def __init__(self, job: FilmJob, function: Function | None, planes: int, follow: Follow | None) -> None:
        self._job, self._function, self._planes, self._follow = job, function, planes, follow
        self._linear = Job.linear(job)
        self._nodes: dict[int, vs.VideoNode] = {}
        self._making = threading.Lock()
        self._training = threading.Lock()
        self._networks: OrderedDict[int, Expander] = OrderedDict()
        self._loading = threading.Lock()

    def clip(self, ready: vs.VideoNode | None) -> vs.VideoNode:
        """The film. `ready`: none of its frames is made before this clip's only frame."""
        shape = self._linear if self._planes == 3 else self._linear.std.BlankClip(format=vs.GRAYS, keep=True)
        if ready is None:
            return shape.std.FrameEval(self._frame)
        return shape.std.FrameEval(lambda n, f: self._frame(n), prop_src=ready)

    def _frame(self, n: int) -> vs.VideoNode:
        """A clip whose frame n is the film's."""
        shots = self._job.shots
        assert shots is not None
        index = bisect_right(shots, n, key=lambda shot: shot.first) - 1
        for later in (index, index + 1):  # a dissolve lies around the beginning of its second shot
            if 0 < later < len(shots) and n in shots[later].dissolve:
                before, after = shots[later - 1].place, shots[later].place
                if before != after:
                    share = (n - shots[later].dissolve.start + 1) / (len(shots[later].dissolve) + 1)
                    return self._of_place(before).std.Merge(self._of_place(after), weight=[share])
        return self._of_place(shots[index].place)

    def _of_place(self, number: int) -> vs.VideoNode:
        with self._making:
            if number not in self._nodes:
                self._nodes[number] = self._expanded(number)
            return self._nodes[number]

    def _expanded(self, number: int) -> vs.VideoNode:
        """All of the film by the network of one place."""
        job: Job = self._job.places[number] if self._job.places else self._job
        linear = self._linear
        if (follow := self._follow) is not None and job.trained is None:

            def in_turn(events: Generator[Event]) -> None:
                with self._training:  # places side by side would take each other's threads
                    follow(events)

            linear = lazy.after(linear, lambda: job._train_by_requests(in_turn))
        request = self._job.request
        return expanding.expanded(
            linear,
            lambda: self._network(number, job.expander if self._job.places else super(FilmJob, self._job).expander),
            request.config,
            request.computing,
            self._function,
            planes=self._planes,
            keep=False,
        )

    def _network(self, number: int, load: Callable[[], Expander]) -> Expander:
        """The network of a place; the least recently used of too many is let go."""
        with self._loading:
            if number not in self._networks:
                self._networks[number] = load()
            self._networks.move_to_end(number)
            while len(self._networks) > MOST_NETWORKS:
                self._networks.popitem(last=False)
            return self._networks[number]


# Files


@dataclass(frozen=True)
class FilmNetwork(TrainedNetwork):
    """The networks of a film's places, to be kept as one. Its metadata says which shots and places there are."""

    places: tuple[TrainedNetwork | None, ...] = ()
    """None: of a place that was not needed."""

    def weights(self) -> Weights:
        """The weights of all places; their names begin with the place's number."""
        return {
            f"{number}/{name}": tensor
            for number, network in enumerate(self.places)
            if network is not None
            for name, tensor in network.weights().items()
        }

    def save(self, folder: Path) -> None:
        """Write each place's files into a folder in `folder`, and best.safetensors where no place is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        for number, network in enumerate(self.places):
            if network is not None:
                network.save(folder / f"place_{number:03d}")
        if all(self.places):
            self.write(folder / "best.safetensors")


@dataclass(frozen=True)
class PlaceOfFile(TrainedNetwork):
    """The network of one place, of a file that holds all places' networks."""

    whole: TrainedNetwork | None = None
    number: int = 0

    def weights(self) -> Weights:
        """The weights of this place."""
        assert self.whole is not None
        prefix = f"{self.number}/"
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self.whole.weights().items()
            if name.startswith(prefix)
        }


def film_network(shots: Sequence[Shot], networks: Sequence[TrainedNetwork | None]) -> FilmNetwork:
    """The networks of a film's places as one; None for places that were not needed."""
    headers = [{} if network is None else dict(network.metadata) for network in networks]
    rows = [
        {"place": number, **row} for number, about in enumerate(headers) for row in json.loads(about.get("log", "[]"))
    ]
    about = {
        "shots": to_json(shots),
        "places": headers,
    }
    known = next(header for header in headers if header)
    metadata: dict[str, str] = {name: known[name] for name in ("preset", "network") if name in known}
    metadata |= {"film": json.dumps(about), "log": json.dumps(rows)}
    metadata["key"] = store_key({"film": [header.get("key") for header in headers], "shots": about["shots"]})
    return FilmNetwork(metadata, places=tuple(networks))
