"""The training frames: which of a clip's frames are trained on, and how they are prepared.

Apart from job.py because that is about one training among many processes, and this about pictures. It reads nothing
itself: `choose` yields what it wants read, so that it can be done at once or in a frame callback (lazy.py).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import vapoursynth as vs

from .colour import Colour, to_encoded
from .lazy import Reading
from .log import log, warn

if TYPE_CHECKING:
    from torch import Tensor

    from vszhdrv.shots import Shot
    from vszhdrv.zhdrv.config import Config
    from vszhdrv.zhdrv.footage import TrainingFrames
    from vszhdrv.zhdrv.overlays import Overlays
    from vszhdrv.zhdrv.shots import Glance
    from vszhdrv.zhdrv.traits import Traits

    from .clips import Props
    from .request import Request
    from .workers import Pixels

Pairs = Sequence[tuple[int, int]]
"""For each frame that was drawn, the places of itself and its companion among those that are held."""

SURVEYED = 48
"""Frames in which the traits of a whole film are looked for, each with its successor."""
MEMORY_BYTES = 2 * 2**30
"""The training frames that are held in memory take no more; larger ones are held scaled down."""

PREDICTED = {"P", "B", b"P", b"B"}
"""Values of the property _PictType that decoders give to frames which were coded by their difference to others."""


def choose(request: Request) -> Generator[Reading, None, TrainingFrames]:
    """Choose the frames to train on and hold them: they are the generator's value."""
    from vszhdrv.zhdrv import choosing

    config, numbers_of = request.config, request.training_range
    count = choosing.frames_to_draw(len(numbers_of), config)
    pictures = count * (2 if config.alpha > 0 else 1)
    source = encoded(request.clip, request.colour, pictures)[numbers_of.start : numbers_of.stop]
    drawn = yield from _draw(source, count, config)
    if config.alpha > 0:
        numbers, pairs = choosing.with_successors(drawn, len(numbers_of))
    else:
        numbers, pairs = drawn, tuple((place, place) for place in range(len(drawn)))
    pixels, glances, coded = yield from _hold(source, numbers, glancing=config.alpha > 0)
    if config.alpha > 0:
        pairs = choosing.within_shots(pairs, glances)
    positions = [numbers_of[number] for number in numbers]
    prepared = _prepared(pixels, pairs, positions, config, request.stream, coded=coded)
    chosen = replace(prepared, numbers=tuple(positions))
    _tell(chosen)
    return chosen


def survey(request: Request, shots: Sequence[Shot]) -> Generator[Reading, None, Traits]:
    """What belongs to a film as a whole, found in frames of all of its shots: logos, subtitles, the clip point, and
    whether it was compressed. So no shot differs from the next in these."""
    from vszhdrv.zhdrv import compression, footage
    from vszhdrv.zhdrv.overlays import Overlays

    numbers, pairs = _spread(shots)
    source = encoded(request.clip, request.colour, len(numbers))
    pixels, _, coded = yield from _hold(source, numbers, glancing=False)
    overlays = Overlays.find(pixels, numbers)
    _tell_overlays(overlays)
    pixels = overlays.without(pixels)
    white = footage.clip_point(pixels)
    traits = footage.Traits(overlays or None, white)
    frames = footage.TrainingFrames(_tensor(footage.rescaled(pixels, white)), tuple(pairs), traits)
    return replace(traits, compressed=compression.shows(frames, request.config, coded=coded))


def _spread(shots: Sequence[Shot]) -> tuple[list[int], Pairs]:
    """Frames that stand for a film, evenly spread, each with its successor in its shot; no mixed ones."""
    mixed = {n for shot in shots for n in shot.dissolve}
    steady = [n for shot in shots for n in range(shot.first, shot.end - 1) if not {n, n + 1} & mixed]
    steady = steady or [n for shot in shots for n in range(shot.first, shot.end - 1)] or [0]
    count = min(SURVEYED, len(steady))
    drawn = sorted({steady[round(k * (len(steady) - 1) / max(count - 1, 1))] for k in range(count)})
    numbers = sorted({*drawn, *(n + 1 for n in drawn)})
    place = {number: index for index, number in enumerate(numbers)}
    return numbers, [(place[n], place[n + 1]) for n in drawn]


def encoded(clip: vs.VideoNode, colour: Colour, count: int) -> vs.VideoNode:
    """The clip in the working encoding, small enough that `count` of its frames fit into MEMORY_BYTES."""
    bytes_per_pixel = 3 * (1 if clip.format.bits_per_sample == 8 else 2)
    scale = math.sqrt(MEMORY_BYTES / (count * clip.width * clip.height * bytes_per_pixel))
    if scale >= 1:
        return to_encoded(clip, colour)
    width, height = (max(16, int(size * scale)) for size in (clip.width, clip.height))
    return to_encoded(clip, colour, width=width, height=height)


def _full(source: vs.VideoNode) -> int:
    """The code of white in the working encoding."""
    return 255 if source.format.bits_per_sample == 8 else 65535


def _draw(source: vs.VideoNode, count: int, config: Config) -> Generator[Reading, None, list[int]]:
    """The numbers of the frames to train on; frames are scored where there are more than `count` candidates."""
    from vszhdrv.zhdrv import choosing
    from vszhdrv.zhdrv.shots import Glance, shots_of

    candidates = choosing.candidates(source.num_frames)
    if count >= len(candidates):
        return candidates
    full = np.float32(_full(source))
    scores = [0.0] * len(candidates)
    glances: dict[int, Glance] = {}

    def score(place: int, planes: Iterable[Pixels], props: Props) -> None:
        sdr = np.stack(list(planes)).astype(np.float32) / full
        scores[place] = choosing.well_exposedness(sdr)
        glances[place] = Glance.of(sdr, props)

    yield Reading("scoring", source, candidates, score)
    shots = shots_of(candidates, [glance for _, glance in sorted(glances.items())])
    return choosing.choose_frames(candidates, scores, count, config.seed, shots)


def _hold(
    source: vs.VideoNode, numbers: Sequence[int], *, glancing: bool
) -> Generator[Reading, None, tuple[Pixels, dict[int, Glance], bool]]:
    """These frames in memory, (count, 3, height, width) in integers of the source's depth; a glance at each, or none;
    whether a decoder has said of any that it was predicted from others."""
    from vszhdrv.zhdrv.shots import Glance

    full = _full(source)
    pixels = np.empty((len(numbers), 3, source.height, source.width), np.uint8 if full == 255 else np.uint16)
    glances: dict[int, Glance] = {}
    types: set[object] = set()

    def keep(place: int, planes: Iterable[Pixels], props: Props) -> None:
        for channel, plane in enumerate(planes):
            pixels[place, channel] = plane
        types.add(props.get("_PictType"))
        if glancing:
            glances[place] = Glance.of(pixels[place] / np.float32(full), props)

    yield Reading("reading", source, numbers, keep)
    return pixels, glances, not PREDICTED.isdisjoint(types)


def _prepared(
    pixels: Pixels, pairs: Pairs, positions: Sequence[int], config: Config, stream: Traits | None, *, coded: bool
) -> TrainingFrames:
    """The frames at these positions of the clip as the training wants them; predicted stops want more than `paper`.

    That is: without what is no picture, white where the clip clips, and even white where compression has left that
    uneven.

    Args:
        stream: the film's logos, subtitles, clip point and compression, where the clip is a place of one.
        coded: whether a decoder has said of any frame that it was predicted from others.
    """
    from vszhdrv.zhdrv import compression, footage, graphics, uneven
    from vszhdrv.zhdrv.overlays import Overlays

    if config.head != "stops":
        found = _tensor(pixels)
        return footage.TrainingFrames(found, tuple(pairs), footage.Traits(grey=footage.is_grey(found)))
    drawn = graphics.found_in(pixels)
    if drawn:
        log(graphics.WORDS[drawn])
    overlays = Overlays.find(pixels, positions)
    if stream is not None:
        overlays = overlays.in_stream(stream.overlays)
    if overlays:
        if stream is None:
            _tell_overlays(overlays)
        pixels = overlays.without(pixels)
    white = footage.clip_point(pixels) if stream is None else stream.clip_point
    pixels = footage.rescaled(pixels, white)
    found = _tensor(pixels)
    traits = footage.Traits(overlays or None, white, grey=footage.is_grey(found), graphics=drawn)
    chosen = footage.TrainingFrames(found, tuple(pairs), traits)
    if not (compression.shows(chosen, config, coded=coded) if stream is None else stream.compressed):
        return chosen
    uneven.level_codes(pixels)  # and so `found`, which is the same memory
    return replace(chosen, traits=replace(traits, compressed=True, levelled=True))


def _tensor(pixels: Pixels) -> Tensor:
    import torch

    return torch.from_numpy(pixels)


def _tell_overlays(overlays: Overlays) -> None:
    for words in overlays.words():
        log(words)


def _tell(chosen: TrainingFrames) -> None:
    """What there is to say about the frames before they are trained on."""
    from vszhdrv.zhdrv import footage

    if not footage.clips(chosen):  # what is not trained on may clip, and be made brighter
        warn("nothing in the frames to train on clips: there is little to train on")
    elif footage.all_clips(chosen):
        warn("all of the frames to train on clips: nothing in them shows what is hidden, and the result is a guess")
    if chosen.traits.compressed:
        log("white is uneven, as compression leaves it: training on pictures that are compressed as well")
