"""From the arguments of core.zhdrv.Expand to the job that carries them out: for one network, or for a film's.

Apart from the jobs because it chooses between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import vapoursynth as vs

from vszhdrv.store.store import Store
from vszhdrv.store.store import folder as store_folder
from vszhdrv.zhdrv.config import Config

from . import film, fitting
from .expanding import Computing
from .fields import check_fields
from .film_job import FilmJob
from .job import Job, read_now
from .log import warn
from .request import request_of
from .trained import read_given


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
    graphics: str = "auto",
    train_range: list[int] | None = None,
    shots: str | Sequence[str] = "auto",
) -> Job:
    """Check the arguments and the clip, and settle its colour: what can be wrong is said here, as a Refused.

    The arguments are those of core.zhdrv.Expand; None or "" leaves a choice to the preset, the clip or the system.
    """
    config = Config.from_preset(
        preset,
        n_exp_down=n_exp_down,
        n_exp_up=n_exp_up,
        epochs=epochs,
        lr=lr,
        alpha=0.0 if still and alpha is None else alpha,
        seed=seed,
        still=still,
    )
    request = request_of(
        clip,
        config,
        Computing(device, precision, tile, tile_pad, num_streams, graphics or "auto"),
        train_range=train_range,
        matrix_in=matrix_in,
        transfer_in=transfer_in,
        range_in=range_in,
    )
    given = read_given(Path(weights).expanduser(), request.config) if weights else None
    if given is not None and not still:
        for _ in read_now(check_fields(clip)):
            pass
    store = Store(store_folder(cache), warn, lambda found: fitting.check(found, request.config))
    chosen = [shots] if isinstance(shots, str) else list(shots)
    cuts = None if chosen in ([], ["off"]) else film.given_cuts(chosen, clip.num_frames)
    of_film = given is not None and "film" in given.metadata
    one_network = chosen == ["off"] or still or bool(train_range) or config.head == "ratio" or given is not None
    if one_network and not of_film:
        return Job(request, store, train, given)
    job = FilmJob(request, store, train, None, cuts=cuts, epochs_given=epochs is not None)
    if given is not None:
        job.take_given(given)
    return job
