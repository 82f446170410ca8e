"""One clip's way to a trained network, step by step: what is read, told, kept and found again."""

import json
import signal
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import vapoursynth as vs

from vszhdrv.plugin import clips, colour
from vszhdrv.plugin import job as module
from vszhdrv.plugin.job import Event, Job
from vszhdrv.plugin.preparing import prepare
from vszhdrv.store import weight_files
from vszhdrv.zhdrv import camera, compression, footage
from vszhdrv.zhdrv.expansion import CLIP_RAMP, COMPRESSED_RAMP, Expander
from vszhdrv.zhdrv.footage import Traits
from vszhdrv.zhdrv.network import UNet

pytestmark = pytest.mark.usefixtures("one_thread")

MakeClip = Callable[..., Any]
STEPS = 8


def job_of(clip: Any, steps: int = STEPS, **arguments: Any) -> Job:
    """A job of few steps. Narrow, where the preset is the paper's."""
    job = prepare(clip, **{"device": "cpu", "epochs": 1, **arguments})
    config = job.request.config
    if config.steps_per_epoch is not None:
        config = replace(config, steps_per_epoch=steps)
    else:
        config = replace(config, widths=(4, 8, 8))
    job.request = replace(job.request, config=config)
    return job


def trained_by(job: Job) -> list[Event]:
    return [replace(event, progress=None) for event in job.train()]


def key_of(job: Job) -> str:
    return job.request.key


def weights(job: Job) -> dict[str, torch.Tensor]:
    assert job.trained is not None
    return job.trained.weights()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def material(job: Job) -> footage.TrainingFrames:
    """What the job learns from."""
    with closing(job.train()) as events:
        next(event for event in events if event.kind == "training")
        assert job._training is not None
        return job._training[0]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The positions of every batch of frames that is read for the training."""
    seen: list[list[int]] = []
    read = clips.read

    def noting(clip: Any, positions: Any) -> Any:
        seen.append(list(positions))
        return read(clip, positions)

    monkeypatch.setattr(clips, "read", noting)
    return seen


def test_events_tell_of_every_frame_and_step(make_clip: MakeClip) -> None:
    events = trained_by(job_of(make_clip()))
    reading = [(event.done, event.total) for event in events if event.kind == "reading"]
    training = [event for event in events if event.kind == "training"]
    assert reading == [(n, 6) for n in range(1, 7)]
    assert [(event.done, event.total) for event in training] == [(n, STEPS) for n in range(1, STEPS + 1)]
    assert [event.kind for event in events[:6]] == ["reading"] * 6
    (estimate,) = (event for event in events if event.kind == "estimate")
    assert events.index(estimate) == 6 + module.MEASURED_STEPS
    assert estimate.seconds_left is not None and estimate.seconds_left > 0
    assert training[-1].seconds_left == 0


def test_events_tell_of_every_frame_that_is_compared_between_the_rounds(make_clip: MakeClip) -> None:
    job = job_of(make_clip(), steps=4, epochs=5)
    assert job.request.config.first_epochs == 4
    events = [event for event in trained_by(job) if event.kind in ("training", "comparing")]
    comparing = [("comparing", n, 6) for n in range(1, 7)]
    steps = [("training", n, 20) for n in range(1, 21)]
    assert [(event.kind, event.done, event.total) for event in events] == [*steps[:16], *comparing, *steps[16:]]
    left = [event.seconds_left for event in events[module.MEASURED_STEPS :]]
    assert all(seconds is not None and seconds > 0 for seconds in left[:-1]) and left[-1] == 0


def test_the_time_left_is_training_time_whatever_else_is_done_between_its_steps(make_clip: MakeClip) -> None:
    left = []
    for event in job_of(make_clip()).train():
        if event.kind == "estimate":
            left.append(event.seconds_left)
        elif event.kind == "training" and event.done <= module.MEASURED_STEPS:
            time.sleep(0.5)  # as drawing a picture may take
    (seconds,) = left
    assert seconds is not None and seconds < 0.5 * (STEPS - module.MEASURED_STEPS - 1)


def test_an_events_progress_is_the_trainings_own(make_clip: MakeClip) -> None:
    steps = [(e.done, e.progress.step) for e in job_of(make_clip()).train() if e.kind == "training" and e.progress]
    assert steps == [(n, n) for n in range(1, STEPS + 1)]


def test_what_was_learned_is_found_again_and_costs_nothing(make_clip: MakeClip, own_cache: Path) -> None:
    first, second = job_of(make_clip()), job_of(make_clip())
    assert not second.look_up()
    trained_by(first)
    assert trained_by(second) == []
    assert second.look_up()
    assert second.trained is not None and second.trained.file is not None
    assert second.trained.file.path == own_cache / "networks" / f"{first.request.key}.safetensors"
    assert same(weights(first), weights(second))
    last = second.trained.last_weights()
    assert last is not None and last.keys() == weights(second).keys()


def test_a_network_whose_room_the_store_needs_is_used_all_the_same(
    make_clip: MakeClip, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VSZHDRV_CACHE_SIZE", "1K")
    made, found = job_of(make_clip()), job_of(make_clip())
    trained_by(made)
    assert found.look_up()
    trained_by(job_of(make_clip(), seed=1))
    assert not (own_cache / "networks" / f"{made.request.key}.safetensors").exists()
    for each in (made, found):
        each.expand().get_frame(0).close()


def test_without_a_store_the_network_is_the_jobs_own(make_clip: MakeClip, own_cache: Path, tmp_path: Path) -> None:
    job = job_of(make_clip(), cache="")
    trained_by(job)
    assert job.trained is not None and job.trained.file is None
    assert list(own_cache.rglob("*")) == []
    path = tmp_path / "own.safetensors"
    job.trained.write(path)
    assert same(weight_files.read(path).tensors(), weights(job))


@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_a_stopped_learning_goes_on_to_the_same_bits(make_clip: MakeClip, tmp_path: Path, preset: str) -> None:
    def job(cache: str) -> Job:
        return job_of(make_clip(width=24, height=16, length=3), preset=preset, cache=str(tmp_path / cache))

    whole, stopped, resumed = job("whole"), job("stopped"), job("stopped")
    trained_by(whole)
    events = stopped.train()
    for event in events:
        if event.kind == "training" and event.done == 4:
            events.close()  # as Ctrl-C does
    assert stopped.trained is None
    assert [path.suffix for path in (tmp_path / "stopped/networks").iterdir() if path.suffix != ".lock"] == [".state"]
    assert next(event.done for event in trained_by(resumed) if event.kind == "training") == 5
    assert same(weights(whole), weights(resumed))
    assert not list(tmp_path.rglob("*.state"))


@pytest.mark.parametrize("change", ["nothing", "other weights", "a step beyond the end", "text"])
def test_a_state_of_another_training_is_set_aside(make_clip: MakeClip, own_cache: Path, change: str) -> None:
    def job() -> Job:
        return job_of(make_clip(width=24, height=16, length=3))

    events = job().train()
    for event in events:
        if event.kind == "training" and event.done == 4:
            events.close()
    (path,) = own_cache.rglob("*.state")
    state = weight_files.read_state(path)
    changes = {
        "nothing": {},
        "other weights": {**state, "weights": {"a": torch.ones(2)}},
        "a step beyond the end": {**state, "step": 10**9},
        "text": {**state, "first": "x", "step": "y"},
    }
    weight_files.write_state(path, changes[change])
    again = job()
    assert next(event.done for event in trained_by(again) if event.kind == "training") == 1
    assert again.trained is not None
    assert [found.name.split(".", 1)[1] for found in own_cache.rglob("*.state")] == ["damaged.state"]


def raise_interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def raise_error() -> None:
    raise RuntimeError("no memory left")


@pytest.mark.parametrize(
    ("event", "raised", "first"), [(raise_interrupt, KeyboardInterrupt, 6), (raise_error, RuntimeError, 5)]
)
def test_what_comes_in_the_middle_of_a_step_spoils_nothing(
    make_clip: MakeClip,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    event: Callable[[], None],
    raised: type[BaseException],
    first: int,
) -> None:
    """Ctrl-C lets the step come to its end; after an error the last state that was saved is gone on from."""

    def job(cache: str) -> Job:
        return job_of(make_clip(width=24, height=16, length=3), cache=str(tmp_path / cache))

    whole, stopped, resumed = job("whole"), job("stopped"), job("stopped")
    trained_by(whole)
    monkeypatch.setattr(module, "STATE_SECONDS", 0)
    step, steps = torch.optim.AdamW.step, iter(range(1, STEPS + 1))

    def interrupted(optimizer: torch.optim.AdamW, *given: Any) -> None:
        step(optimizer, *given)
        if next(steps) == 5:
            event()  # the weights have changed, and nobody has counted it

    monkeypatch.setattr(torch.optim.AdamW, "step", interrupted)
    with pytest.raises(raised):
        trained_by(stopped)
    monkeypatch.undo()
    assert next(event.done for event in trained_by(resumed) if event.kind == "training") == first
    assert same(weights(whole), weights(resumed))


def test_the_key_is_of_the_clip_and_of_what_training_depends_on(make_clip: MakeClip) -> None:
    clip = make_clip()
    key = key_of(prepare(clip))
    assert key_of(prepare(make_clip())) == key
    same_network: list[dict[str, Any]] = [
        dict(n_exp_up=5), dict(precision="fp32"), dict(device="cpu"), dict(train=False), dict(tile=[64, 64]),
        dict(tile_pad=0), dict(num_streams=3), dict(graphics="off"),
    ]  # fmt: skip
    assert {key_of(prepare(clip, **arguments)) for arguments in same_network} == {key}
    others = [
        key_of(prepare(clip, **arguments))
        for arguments in (dict(seed=1), dict(epochs=3), dict(lr=1e-3), dict(n_exp_down=3), dict(preset="paper"))
    ]
    untagged = clip.std.RemoveFrameProps("_Transfer")
    others += [
        key_of(prepare(untagged, transfer_in="470m")),
        key_of(prepare(clip.std.SetFrameProps(_Primaries=9))),
    ]
    assert (
        key_of(prepare(clip, transfer_in="470m")) == key_of(prepare(untagged, transfer_in="709")) == key
    )  # a property wins
    others += [
        key_of(prepare(clip.std.Trim(1))),
        key_of(prepare(make_clip(gain=1.3))),
        key_of(prepare(make_clip(vs.RGB48))),
    ]
    assert len({key, *others}) == 1 + len(others)


def test_the_papers_network_is_one_for_any_number_of_steps(make_clip: MakeClip) -> None:
    keys = {key_of(prepare(make_clip(), preset="paper", n_exp_down=down, n_exp_up=up)) for down, up in ((2, 2), (3, 1))}
    assert len(keys) == 1


def test_the_weights_header_says_where_they_come_from(make_clip: MakeClip) -> None:
    job = job_of(make_clip(), seed=5)
    trained_by(job)
    assert job.trained is not None
    metadata = job.trained.metadata
    assert (metadata["preset"], metadata["key"], metadata["device"], metadata["threads"]) == (
        "fast",
        job.request.key,
        "cpu",
        "1",
    )
    assert json.loads(metadata["network"]) == job.request.config.architecture.as_json()
    facts = json.loads(metadata["facts"])
    assert (facts["length"], facts["settings"]["seed"], facts["colour"]["matrix"]) == (6, 5, 0)
    assert [row["epoch"] for row in json.loads(metadata["log"])] == [1]
    assert metadata["torch"] == torch.__version__


def test_a_range_is_learned_from_and_all_is_expanded(make_clip: MakeClip, reads: list[list[int]]) -> None:
    clip = make_clip(width=32, height=16, length=12)
    ranged = job_of(clip, train_range=[3, 7])
    trained_by(ranged)
    trimmed = job_of(clip[3:8])
    trained_by(trimmed)
    trained_on = [read for read in reads if len(read) > 3]  # the others look for fields
    assert trained_on == [list(range(5)), list(range(5))]
    assert same(weights(ranged), weights(trimmed))
    assert ranged.expand().num_frames == 12


def test_whole_numbers_and_truth_values_are_the_same_key(make_clip: MakeClip) -> None:
    clip = make_clip(width=32, height=16)
    assert key_of(job_of(clip, still=1, alpha=0)) == key_of(job_of(clip, still=True, alpha=0.0))
    assert key_of(job_of(clip, still=0, lr=1)) == key_of(job_of(clip, lr=1.0))


def test_a_range_is_part_of_the_key(make_clip: MakeClip) -> None:
    clip = make_clip(width=32, height=16, length=100)
    keys = [key_of(job_of(clip, train_range=given)) for given in (None, [0, 99], [0, 98], [40, 60], [40, 61])]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


def test_a_range_is_digested_even_where_the_whole_clips_digest_does_not_look(make_clip: MakeClip) -> None:
    clip = make_clip(width=32, height=16, length=100)
    changed = clip[:15] + clip[15:18].std.Invert() + clip[18:]
    assert key_of(job_of(clip)) == key_of(job_of(changed))
    assert key_of(job_of(clip, train_range=[12, 20])) != key_of(job_of(changed, train_range=[12, 20]))


def test_a_range_is_taken_from_the_first_requested_frame_on_too(make_clip: MakeClip, own_cache: Path) -> None:
    clip = make_clip(width=32, height=16, length=40)
    vs.core.zhdrv.Expand(clip, epochs=1, device="cpu", train_range=[35, 39], when="frame").get_frame(0).close()
    assert job_of(clip, steps=50, train_range=[35, 39]).look_up()


def test_overlays_stay_as_they_are(overlaid: Any) -> None:
    job = job_of(overlaid)
    trained_by(job)
    for again in (job, job_of(overlaid)):
        trained_by(again)
        before, after = (
            np.stack([light for light, _ in clips.read(each, range(12))])
            for each in (colour.to_linear(overlaid, job.request.colour), again.expand())
        )
        assert np.array_equal(after[..., 20:26, 40:46], before[..., 20:26, 40:46])
        assert np.array_equal(after[..., :8, :], before[..., :8, :])
        assert after.max() > before.max()


@pytest.mark.parametrize("compressed", [False, True])
def test_a_compressed_clip_is_learned_from_and_expanded_as_one(lamps: np.ndarray, compressed: bool) -> None:
    pictures = footage.scaled(torch.from_numpy(lamps))
    if compressed:
        pictures = torch.cat([compression.coded(one, 8 / 255, 0, 0) for one in pictures.split(1)])
    codes = (pictures * 255).round().numpy().astype(np.uint8)

    def draw(n: int, f: Any) -> Any:
        f = f.copy()
        for plane in range(3):
            np.asarray(f[plane])[:] = codes[n, plane]
        return f

    blank = vs.core.std.BlankClip(format=vs.RGB24, width=160, height=96, length=4)
    clip = blank.std.ModifyFrame(blank, draw).std.SetFrameProps(_Matrix=0, _Transfer=4, _Primaries=1)
    job = job_of(clip)
    assert material(job).traits.compressed == material(job).traits.levelled == compressed
    trained_by(job)
    again = job_of(clip)
    assert again.look_up()
    assert again.expander().ramp == (COMPRESSED_RAMP if compressed else CLIP_RAMP)
    assert again.expander().traits.levelled == compressed
    assert not material(job_of(clip, preset="paper")).traits.compressed


@pytest.mark.parametrize(("types", "coded"), [("III", False), ("IPB", True), ("", False)])
def test_a_decoder_that_predicted_frames_is_taken_for_a_sign_of_compression(
    make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch, types: str, coded: bool
) -> None:
    told = []
    monkeypatch.setattr(compression, "shows", lambda frames, config, *, coded: told.append(coded))
    clip = make_clip()

    def typed(n: int, f: Any) -> Any:
        f = f.copy()
        f.props["_PictType"] = types[n % len(types)]
        return f

    material(job_of(clip.std.ModifyFrame(clip, typed) if types else clip))
    assert told == [coded]


def test_black_and_white_stays_black_and_white(make_clip: MakeClip, network: Path) -> None:
    def coloured(job: Job) -> bool:
        trained_by(job)
        red, green, blue = next(clips.read(job.expand(), [2]))[0]
        assert red.max() > 1.01
        return not (np.array_equal(red, green) and np.array_equal(red, blue))

    colour = make_clip()
    grey = make_clip(vs.GRAY8)
    neutral = grey.resize.Bicubic(format=vs.YUV420P8).std.SetFrameProps(_Matrix=1)
    assert coloured(job_of(colour))
    for clip in (grey, neutral):
        for _ in range(2):  # learned, and found again
            assert not coloured(job_of(clip))
        assert material(job_of(clip, seed=1)).traits.grey
    assert not coloured(job_of(grey, weights=str(network)))
    assert not material(job_of(colour, seed=1)).traits.grey


@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_pictures_while_it_learns(make_clip: MakeClip, preset: str) -> None:
    job = job_of(make_clip(width=32, height=16), preset=preset, precision="fp32")
    pictures = []
    for event in job.train():
        if event.kind == "training":
            pictures.append(job.recs())
    assert pictures[0].keys() == {"source", "m4", "m2", "p2", "p4", "delta"}
    assert all(picture.shape == (16, 32, 3) for picture in pictures[0].values())
    assert np.array_equal(pictures[0]["source"], pictures[-1]["source"])
    assert not np.array_equal(pictures[0]["m2"], pictures[-1]["m2"])
    undisturbed = job_of(make_clip(width=32, height=16), preset=preset, precision="fp32", cache="")
    trained_by(undisturbed)
    assert same(weights(undisturbed), weights(job))


def test_pictures_of_a_clip_that_clips_below_white_are_of_its_expansion(make_clip: MakeClip) -> None:
    job = job_of(make_clip(width=64, height=32).std.Expr("x 250 min"))
    with closing(job.train()) as events:
        next(event for event in events if event.kind == "training" and event.done == STEPS)
        assert job._training is not None
        gathered, progress = job._training
        shown = job.recs()["m2"]
        traits = Traits(clip_point=gathered.traits.clip_point)
        expander = Expander(progress.network, job.request.config, torch.device("cpu"), "fp32", traits=traits)
        source = camera.decode(footage.most_exposed(gathered)) * expander.white
        expander.brighten(list(source.numpy()))
        hdr = source / expander.white  # pictures have white where the clip clips
    assert expander.white < 0.99
    expected = (camera.encode(hdr / 4) * 255).permute(1, 2, 0).numpy()
    assert np.abs(shown - expected).max() < 2


def test_a_run_folder_gets_best_and_last(make_clip: MakeClip, tmp_path: Path) -> None:
    job = job_of(make_clip())
    trained_by(job)
    job.trained.save(tmp_path / "ckpt")
    assert sorted(path.name for path in (tmp_path / "ckpt").iterdir()) == ["best.safetensors", "last.safetensors"]
    assert same(weight_files.read(tmp_path / "ckpt" / "best.safetensors").tensors(), weights(job))


def test_training_off_and_nothing_there(make_clip: MakeClip) -> None:
    with pytest.raises(ValueError, match=r"^train is off and no network for this clip"):
        trained_by(job_of(make_clip(), train=False))


def test_an_unusable_device_is_refused_before_anything_is_read(make_clip: MakeClip, reads: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=r"^device must be auto or one of those here"):
        prepare(make_clip(), device="cuda:77")
    assert reads == []


def test_a_card_without_memory_is_told_in_a_sentence(make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(make_clip())
    trained_by(job)

    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of ..."
        )

    monkeypatch.setattr(UNet, "forward", full)
    monkeypatch.setattr(UNet, "inner", full)
    for work in (lambda: trained_by(job_of(make_clip(), seed=1)), lambda: job.expand().get_frame(0)):
        with pytest.raises(
            (RuntimeError, vs.Error),
            match=r"^(\n?zhdrv: frame 0: )?cpu is out of memory: close what else uses it, .* \(num_streams, tile\)\n?$",
        ):
            work()
