"""Work on a clip's frames that waits for the first request of another clip.

In a frame callback nobody may ask for a frame and wait for it: with all of VapourSynth's threads waiting, none is left
to make the frame. A filter says instead which frames it needs and is called when they are there. So a job that reads is
written as a generator that yields what it wants read, and goes on when that is done; `after` makes filters of it.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import vapoursynth as vs

from .clips import planes_of
from .errors import FrameError, in_callback
from .workers import Pixels

if TYPE_CHECKING:
    from .clips import Props

_ending = threading.Event()
atexit.register(_ending.set)  # runs before VapourSynth's own, which waits for the frames that are under way


@dataclass(frozen=True)
class Reading:
    """A wish: `take(place, planes, props)` for the frame at each `positions[place]` of `clip`.

    Frames come in any order, from any thread; the planes (height, width) and properties last as long as the call.
    """

    kind: Literal["looking", "scanning", "scoring", "reading"]
    clip: vs.VideoNode
    positions: Sequence[int]
    take: Callable[[int, Iterable[Pixels], Props], None]


def after(clip: vs.VideoNode, job: Callable[[], Generator[Reading]]) -> vs.VideoNode:
    """`clip`, none of whose frames is made before the job is done; the first request of any frame sets it going.

    A failure of the job is the frame's error, as one sentence, and the next request begins it anew.
    The job may compute for long: its last step blocks one of the core's threads.
    """
    token = vs.core.std.BlankClip(format=vs.GRAY8, width=1, height=1, length=1)  # says that something is done
    done = False

    def begin(n: int) -> vs.VideoNode:
        return token if done else go_on(job())

    def go_on(readings: Iterator[Reading]) -> vs.VideoNode:
        nonlocal done
        with in_callback():
            reading = next(readings, None)
        if reading is None:
            done = True
            return token
        # VapourSynth finishes what it has begun before it makes more: few frames wait to be taken.
        taken = [
            token.std.ModifyFrame(reading.clip[position], partial(take, reading, place))
            for place, position in enumerate(reading.positions)
        ]
        return token.std.FrameEval(lambda n, f: go_on(readings), prop_src=taken)

    def take(reading: Reading, place: int, n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        reading.take(place, planes_of(f), f.props)
        # Made here rather than asked of `token`: with nothing else to wait for, it is taken as soon as it is there.
        return vs.core.create_video_frame(vs.GRAY8, 1, 1)

    # Requests of one frame of one filter that come while it is made share it: the job runs once at a time.
    finished = token.std.FrameEval(begin)
    return clip.std.FrameEval(lambda n, f: clip, prop_src=finished)


def until_exit[T](events: Generator[T]) -> Generator[T]:
    """The events, until the process wants to end: then FrameError, and their generator is closed."""
    with closing(events):
        for event in events:
            refuse_at_exit()
            yield event


def refuse_at_exit() -> None:
    """Raise FrameError once the process wants to end: whoever works or waits in a frame callback must ask."""
    if _ending.is_set():
        raise FrameError("the process is ending")
