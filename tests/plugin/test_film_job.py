"""A film: one network a place, whoever asks for which frame first."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vapoursynth as vs

from vszhdrv.errors import Refused
from vszhdrv.plugin import clips, film_job
from vszhdrv.plugin.job import Job
from vszhdrv.plugin.preparing import prepare
from vszhdrv.store.store import Store
from vszhdrv.zhdrv.traits import Traits

pytestmark = pytest.mark.usefixtures("one_thread")

MakeFilm = Callable[..., Any]
core = vs.core


def expanded(clip: Any, **arguments: Any) -> Any:
    return core.zhdrv.Expand(clip, **{"device": "cpu", "epochs": 1, **arguments})


def pixels(clip: Any, n: int) -> np.ndarray:
    return next(clips.read(clip, [n]))[0]


def networks(cache: Path) -> set[str]:
    return {path.name for path in (cache / "networks").glob("*.safetensors") if ".last" not in path.name}


def test_every_frame_is_expanded_by_the_network_of_its_place(make_film: MakeFilm, own_cache: Path) -> None:
    film = make_film(1, 2, 1)
    hdr = expanded(film)
    found = networks(own_cache)
    assert len(found) == 2
    edit = expanded(film[16:32] + film[:16] + film[32:])
    assert networks(own_cache) == found  # the same shots in another edit
    for n, there in ((40, 40), (20, 4), (3, 19)):
        assert (pixels(hdr, n) == pixels(edit, there)).all()
    assert (pixels(hdr, 20) != pixels(hdr, 3)).any()


def test_a_clip_of_one_place_has_the_network_that_it_has_without_shots(make_film: MakeFilm) -> None:
    clip = make_film(1, frames=30)
    settings = {"epochs": 1, "device": "cpu"}
    on, off = prepare(clip, **settings), prepare(clip, shots="off", **settings)
    for job in (on, off):
        for _ in job.train():
            pass
    assert on.trained is not None
    assert on.trained.metadata["key"] == off.request.key


def test_a_requested_frame_trains_its_place_alone(make_film: MakeFilm, own_cache: Path) -> None:
    hdr = expanded(make_film(1, 2), when="frame")
    assert not networks(own_cache)
    hdr.get_frame(20).close()
    assert len(networks(own_cache)) == 1
    hdr.get_frame(0).close()
    assert len(networks(own_cache)) == 2


def test_the_order_of_requests_leaves_no_trace(make_film: MakeFilm, tmp_path: Path) -> None:
    results = []
    for turn, order in enumerate(((0, 20, 40), (40, 0, 20))):
        hdr = expanded(make_film(1, 2, 1), when="frame", cache=str(tmp_path / str(turn)))
        results.append({n: pixels(hdr, n) for n in order})
    for n in (0, 20, 40):
        assert (results[0][n] == results[1][n]).all()


def test_a_file_of_all_places_networks_expands_the_film(make_film: MakeFilm, tmp_path: Path) -> None:
    film, path = make_film(1, 2), tmp_path / "film.safetensors"
    assert core.zhdrv.Train(film, path=str(path), epochs=1, device="cpu") == str(path)
    given = expanded(film, weights=str(path), cache="", train=0, epochs=None)
    known = expanded(film, train=0)
    for n in (3, 20):
        assert (pixels(given, n) == pixels(known, n)).all()
    with pytest.raises(vs.Error, match="weights must be of a film of 16 frames"):
        expanded(film[:16], weights=str(path))


def test_without_a_path_the_cache_keeps_the_films_file(make_film: MakeFilm) -> None:
    film = make_film(1, 2)
    path = core.zhdrv.Train(film, epochs=1, device="cpu")
    assert (pixels(expanded(film, weights=path), 20) == pixels(expanded(film), 20)).all()


LOGO = np.s_[20:30, 120:132]


def with_logo(film: Any) -> Any:
    """The second shot stands still; a white logo lies on all of the film."""

    def draw(n: int, f: Any) -> Any:
        f = f.copy()
        for plane in range(3):
            np.asarray(f[plane])[LOGO] = 255
        return f

    film = film.std.FreezeFrames(first=[16], last=[31], replacement=[16])
    return film.std.ModifyFrame(film, draw)


def traits_of(job: Job) -> Traits:
    return Traits.from_header(job.trained.metadata)  # type: ignore[union-attr]


def test_a_logo_of_the_film_stays_white_in_a_place_that_shows_no_evidence_of_it(make_film: MakeFilm) -> None:
    film = with_logo(make_film(4, 5, 6))
    alone = prepare(film[16:32], epochs=1, device="cpu", shots="off")
    job = prepare(film, epochs=1, device="cpu", shots=["16", "32"])
    for each in (alone, job):
        for _ in each.train():
            pass
    assert isinstance(job, film_job.FilmJob)
    assert traits_of(alone).overlays is None
    masks = [traits_of(place).overlays.logos for place in job.places]  # type: ignore[union-attr]
    assert all((mask == masks[0]).all() for mask in masks)
    assert (masks[0][LOGO] == 1).all()
    hdr = expanded(film, shots=["16", "32"])
    for n in (3, 20, 40):
        assert pixels(hdr, n)[:, *LOGO] == pytest.approx(1.0)


def test_a_films_traits_are_known_to_its_places_keys_and_found_once(make_film: MakeFilm, own_cache: Path) -> None:
    film = make_film(4, 5, 6)
    plain, marked = (prepare(clip, epochs=1, device="cpu", shots=["16", "32"]) for clip in (film, with_logo(film)))
    for job in (plain, marked):
        assert job.look_up() is None
    keys = [{place.request.key for place in job.places} for job in (plain, marked)]  # type: ignore[attr-defined]
    assert not keys[0] & keys[1]
    files = set((own_cache / "shots").iterdir())
    again = prepare(film, epochs=1, device="cpu", shots=["16", "32"])
    assert [event.kind for event in again._scanned()] == []  # type: ignore[attr-defined]
    assert {place.request.key for place in again.places} == keys[0]  # type: ignore[attr-defined]
    for file in files:
        file.write_text("damaged")
    assert prepare(film, epochs=1, device="cpu", shots=["16", "32"]).look_up() is None


def test_across_a_dissolve_both_networks_are_mixed(make_film: MakeFilm, tmp_path: Path) -> None:
    film, table = make_film(1, 2), tmp_path / "cuts.csv"
    table.write_text("first,place,dissolve\n0,a,\n16,b,15-17\n")
    hdr = expanded(film, shots=str(table))
    job = prepare(film, shots=str(table), epochs=1, device="cpu")
    assert job.look_up() is not None
    assert isinstance(job, film_job.FilmJob)
    routed = film_job._Routed(job, None, 3, None)
    one, other = (pixels(routed._of_place(place), 16) for place in (0, 1))
    assert pixels(hdr, 16) == pytest.approx((one + other) / 2, rel=1e-5)


def test_shots_that_are_off_or_ranges_to_train_on_mean_one_network(make_film: MakeFilm, own_cache: Path) -> None:
    film = make_film(1, 2)
    expanded(film, shots="off")
    assert len(networks(own_cache)) == 1
    assert not isinstance(prepare(film, train_range=[0, 9]), film_job.FilmJob)
    assert not isinstance(prepare(film, preset="paper"), film_job.FilmJob)


def test_a_network_of_more_steps_counts_as_found(make_film: MakeFilm, own_cache: Path) -> None:
    film = make_film(1, 2, 3)
    job = prepare(film, device="cpu")
    assert isinstance(job, film_job.FilmJob)
    job._find_shots()
    assert [place.request.config.epochs for place in job.places] == [16, 16, 16]
    place = job.places[1]
    assert [request.config.epochs for request in place.longer] == [40]
    longer = Job(place.longer[0], Store(own_cache, print), True, None)
    longer.store.networks.mkdir(parents=True)  # type: ignore[union-attr]
    for _ in prepare(film[16:32], epochs=1, device="cpu", shots="off").train():
        pass
    (file,) = (path for path in (own_cache / "networks").glob("*.safetensors") if ".last" not in path.name)
    file.rename(file.with_name(f"{longer.request.key}.safetensors"))
    assert place.look_up() is not None
    assert job.look_up() is None


def test_epochs_fall_with_the_number_of_places() -> None:
    assert [film_job.epochs_of(40, places) for places in (2, 3, 16, 500)] == [40, 16, 8, 8]
    assert film_job.epochs_of(4, 2) == 4


def test_masks_and_levels_know_places(make_film: MakeFilm) -> None:
    film = make_film(1, 2)
    hdr = expanded(film, peak=1000.0)
    with hdr.get_frame(20) as frame:
        assert frame.props["PLSceneAvg"] > 0
    mask = core.zhdrv.Mask(film, epochs=1, device="cpu")
    assert mask.format.id == vs.GRAYS
    assert np.isfinite(pixels(mask, 20)).all()


def test_one_graph_for_several_places_is_refused(make_film: MakeFilm) -> None:
    job = prepare(make_film(1, 2), epochs=1, device="cpu")
    for _ in job.train():
        pass
    with pytest.raises(Refused, match="shots must be off"):
        job.expander()


def test_a_film_goes_on_after_a_place_that_is_lost(make_film: MakeFilm, own_cache: Path) -> None:
    film = make_film(1, 2)
    before = pixels(expanded(film), 20)
    lost = sorted((own_cache / "networks").glob("*.safetensors"))
    for path in lost[:2]:
        path.unlink()
    assert (pixels(expanded(film), 20) == before).all()


def test_a_still_trains_the_place_of_its_frame_alone(make_film: MakeFilm, own_cache: Path, tmp_path: Path) -> None:
    film = make_film(1, 2)
    core.zhdrv.Still(film, str(tmp_path / "still.png"), frame=20, epochs=1, device="cpu")
    assert len(networks(own_cache)) == 1
    expanded(film)
    assert len(networks(own_cache)) == 2


def test_frames_to_expand_name_the_places_that_are_needed(make_film: MakeFilm, tmp_path: Path) -> None:
    table = tmp_path / "cuts.csv"
    table.write_text("first,place,dissolve\n0,a,\n16,b,14-17\n32,c,\n")
    film = make_film(1, 2, 3)
    for frames, places in ((range(0, 14), 1), (range(14, 15), 2), (range(20, 22), 1), (range(17, 33), 3)):
        job = prepare(film, epochs=1, device="cpu", shots=str(table), cache=str(tmp_path))
        job.limit_to(frames)
        assert job.look_up() is None
        assert len(job._wanted()) == places  # type: ignore[attr-defined]
    job = prepare(film, epochs=1, device="cpu", shots=str(table), cache=str(tmp_path / str(places)))
    job.limit_to(range(20, 22))
    for _ in job.train():
        pass
    assert job.trained is not None
    job.trained.save(tmp_path / "ckpt")
    assert {path.name for path in (tmp_path / "ckpt").iterdir()} == {"place_001"}
    whole = expanded(film, shots=str(table), cache=str(tmp_path / "whole"))
    assert (pixels(job.expand(), 21) == pixels(whole, 21)).all()


def test_a_place_that_the_cache_has_lost_is_trained_alone(make_film: MakeFilm, own_cache: Path) -> None:
    film = make_film(1, 2, 3)
    first = pixels(expanded(film), 20)
    files = {path.name: path.stat().st_ino for path in (own_cache / "networks").glob("*.safetensors")}
    lost = prepare(film, epochs=1, device="cpu")
    lost.look_up()
    key = lost.places[1].request.key  # type: ignore[attr-defined]
    for path in (own_cache / "networks").glob(f"{key}*"):
        path.unlink()
    assert (pixels(expanded(film), 20) == first).all()
    again = {path.name: path.stat().st_ino for path in (own_cache / "networks").glob("*.safetensors")}
    assert again.keys() == files.keys()
    assert {name for name in files if not name.startswith(key)} <= {n for n in files if files[n] == again[n]}


def test_a_film_that_is_stopped_in_one_place_goes_on_there(make_film: MakeFilm, own_cache: Path) -> None:
    film = make_film(1, 2, 3)
    whole = prepare(film, epochs=1, device="cpu", cache=str(own_cache / "whole"))
    for _ in whole.train():
        pass
    stopped = prepare(film, epochs=1, device="cpu").train()
    total = next(event.total for event in stopped if event.kind == "training")
    at = next(event.done for event in stopped if event.kind == "training" and event.done >= total // 2)
    stopped.close()
    assert len(networks(own_cache)) == 1
    resumed = prepare(film, epochs=1, device="cpu")
    counted = [event for event in resumed.train() if event.kind == "training"]
    assert counted[0].total == total * 2 // 3  # of two places, the first of them half done
    assert counted[0].done + total // 3 == at + 1
    for n in (0, 20, 40):
        assert (pixels(resumed.expand(), n) == pixels(whole.expand(), n)).all()


PLACE = """
import sys
sys.path.insert(0, {tests!r})
import vapoursynth as vs
from conftest import film_of
hdr = vs.core.zhdrv.Expand(film_of(1, 2), epochs=1, device="cpu", when="frame", cache={cache!r})
hdr.get_frame({frame}).close()
"""


def test_two_processes_that_want_different_places_train_each_once(make_film: MakeFilm, tmp_path: Path) -> None:
    tests = str(Path(__file__).parent)
    scripts = [PLACE.format(tests=tests, cache=str(tmp_path / "both"), frame=frame) for frame in (3, 20)]
    workers = [
        subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True) for script in scripts
    ]
    errors = [worker.communicate(timeout=100)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], errors
    assert len(networks(tmp_path / "both")) == 2
    found = expanded(make_film(1, 2), cache=str(tmp_path / "both"), train=0)
    alone = expanded(make_film(1, 2), cache=str(tmp_path / "one"))
    for n in (3, 20):
        assert pixels(found, n) == pytest.approx(pixels(alone, n), rel=0.05, abs=1e-3)
