"""A clip's frames as arrays, and arrays as a clip's frames.

`read` and `digest` are for a filter's constructor: they request frames and wait for them. (lazy.py has the other way.)
`on_request` is the other way round: a clip whose frames are computed when somebody asks for them. What the codes of a
frame mean is colour.py's subject.
"""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from itertools import cycle
from typing import Any

import numpy as np
import vapoursynth as vs

from vszhdrv.errors import Failed, message

from .colour import as_data
from .errors import in_callback
from .workers import Computed, Pixels, Planes, Streams, workers

Props = Mapping[str, Any]


_DIGEST_RUNS = 4
_DIGEST_RUN_LENGTH = 8


def read(clip: vs.VideoNode, positions: Sequence[int]) -> Iterator[tuple[Pixels, Props]]:
    """The frames at `positions`, in that order: contiguous copies of shape (planes, height, width), and properties.

    uint8, uint16, float16 or float32, as the clip's format, whose planes must be of one size (RGB or GRAY). As many
    frames are requested ahead as the core has threads, and no more are ever held.

    Raises:
        Failed: the source failed; the text is its own.
    """
    with closing(_requested(clip, positions)) as frames:
        for frame in frames:
            yield _pixels(frame), dict(frame.props)


class Digest:
    """The fingerprint that `digest` gives, of frames that come one by one, in any order and from any thread."""

    def __init__(self, clip: vs.VideoNode, positions: Sequence[int]) -> None:
        form = clip.format
        codes = (int(form.color_family), int(form.sample_type), form.bits_per_sample)
        shape = (form.subsampling_w, form.subsampling_h, clip.width, clip.height, clip.num_frames)
        self._digested = hashlib.sha256(repr((codes, shape, list(positions))).encode())
        self._frames = [b""] * len(positions)

    def add(self, place: int, planes: Iterable[Pixels]) -> None:
        """The planes of the frame at `positions[place]`."""
        digested = hashlib.sha256()
        for plane in planes:
            digested.update(np.ascontiguousarray(plane))
        self._frames[place] = digested.digest()

    def hexdigest(self) -> str:
        """64 hexadecimal digits, once all frames were added."""
        digested = self._digested.copy()
        digested.update(b"".join(self._frames))
        return digested.hexdigest()


def digest(clip: vs.VideoNode, positions: Sequence[int]) -> str:
    """A fingerprint (64 hexadecimal digits) of whole planes at `positions`, and of the clip's format, size and length.

    It is of the codes alone, not of what they mean: neither properties nor row padding enter.

    Raises:
        Failed: the source failed; the text is its own.
    """
    digested = Digest(clip, positions)
    with closing(_requested(clip, positions)) as frames:
        for place, frame in enumerate(frames):
            digested.add(place, planes_of(frame))
    return digested.hexdigest()


def digest_positions(length: int) -> list[int]:
    """Up to 32 positions for `digest`, ascending: all of a short clip, else 4 evenly spread runs of 8 frames.

    Runs, because of the cost: with long groups of pictures a source decodes a hundred frames and more to reach one, and
    its successors are almost free. In 10 minutes of 1080p H.264 with 250 frames a group, by BestSource, four runs took
    1.3 to 2.5 s and 32 single frames 14.6 s. The first run is the clip's first frames, the last run its last.
    """
    if length <= _DIGEST_RUNS * _DIGEST_RUN_LENGTH:
        return list(range(length))
    starts = [run * (length - _DIGEST_RUN_LENGTH) // (_DIGEST_RUNS - 1) for run in range(_DIGEST_RUNS)]
    return [start + frame for start in starts for frame in range(_DIGEST_RUN_LENGTH)]


def on_request(
    clip: vs.VideoNode,
    function: Callable[[Planes], Computed],
    *,
    planes: int = 3,
    streams: Callable[[], Streams] = Streams,
) -> vs.VideoNode:
    """A clip whose frame n is `function` of the clip's frame n, computed when the frame is requested.

    Args:
        clip: RGBS.
        function: from the frame's three planes, float32 (height, width), its own to write to, to `planes` of them: the
            same list or others; or to such planes and a mapping of frame properties to set. Unless `streams` says
            "here", it runs on threads that compute for all clips of the process: torch keeps a team of threads per
            thread that calls it. It must request no frames.
        planes: 3 for RGBS, 1 for GRAYS that is not light (a mask), without the properties that describe light.
        streams: says how many frames are computed at the same time, and where. Asked once, at the first frame.

    A failure of `function` is the frame's error, as one sentence.
    The clip's frame properties stay, but for those that `function` sets.
    """
    shape = clip if planes == 3 else clip.std.BlankClip(format=vs.GRAYS, keep=True)
    choosing = threading.Lock()
    turns: Iterator[vs.VideoNode] | None = None
    chosen = Streams()

    def compute(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        light = vs.core.create_video_frame(vs.RGBS, f.width, f.height)
        own = planes_of(light)
        for target, source in zip(own, planes_of(f), strict=True):
            np.copyto(target, source)  # f.copy() would copy when it is written to, and hold Python's lock meanwhile
        with in_callback(f"frame {n}: "):
            computed = workers.run(chosen, function, own)
        pixels, props = computed if isinstance(computed, tuple) else (computed, {})
        frame = light if planes == 3 else vs.core.create_video_frame(vs.GRAYS, f.width, f.height)
        frame.props = {**f.props, **props}
        if pixels is not own:
            for target, plane in zip(planes_of(frame), pixels, strict=True):
                target[:] = plane
        return frame

    def choose(n: int) -> vs.VideoNode:
        nonlocal turns, chosen
        with choosing:
            if turns is None:
                chosen = streams()
                # One node computes one frame at a time. No frame is asked for twice: nothing is to be kept for that.
                clip.std.SetVideoCache(mode=0)
                nodes = [shape.std.ModifyFrame(clip, compute) for _ in range(chosen.count)]
                for node in nodes:
                    node.std.SetVideoCache(mode=0)
                turns = cycle(nodes)
            return next(turns)  # in turn, not by n: whoever takes every second frame keeps all of them busy, too

    computed = shape.std.FrameEval(choose)
    return computed if planes == 3 else as_data(computed)


def on_passing(clip: vs.VideoNode, function: Callable[[int, Pixels, Props], None]) -> vs.VideoNode:
    """The clip itself; `function` sees every frame requested, one at a time, before the requester does: its number, a
    copy of its pixels, and its properties.

    A failure of `function` is the frame's error, as one sentence.
    """

    def look(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        with in_callback(f"frame {n}: "):
            function(n, _pixels(f), f.props)
        return f

    return clip.std.ModifyFrame(clip, look)


def planes_of(frame: vs.VideoFrame) -> Planes:
    """A frame's planes, not copied: they last as long as the frame is open."""
    return [np.asarray(frame[plane]) for plane in range(frame.format.num_planes)]


def _pixels(frame: vs.VideoFrame) -> Pixels:
    return np.stack(planes_of(frame))


def _requested(clip: vs.VideoNode, positions: Sequence[int]) -> Generator[vs.VideoFrame]:
    """The frames at `positions`, each closed when the next one is asked for."""
    # clip.frames() does the same for a whole clip; a clip spliced from positions would take a node for each
    waiting: deque[tuple[int, Future[vs.VideoFrame]]] = deque()
    ahead = iter(positions)
    try:
        while True:
            while len(waiting) < vs.core.num_threads and (position := next(ahead, None)) is not None:
                waiting.append((position, clip.get_frame_async(position)))
            if not waiting:
                return
            position, request = waiting.popleft()
            try:
                if not request.done():
                    # The same frame once more, since get_frame lends the core another thread while it waits: called
                    # from a frame callback (FrameEval), a plain wait could block the one that makes the frame.
                    clip.get_frame(position).close()
                frame = request.result()
            except vs.Error as error:
                raise Failed(message(error)) from None
            with frame:
                yield frame
    finally:  # also when the caller stops half-way: leave no request behind
        for _, request in waiting:
            with suppress(vs.Error):
                request.result().close()
