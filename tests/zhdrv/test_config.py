"""Settings: what the presets promise, what is refused and how, and what weights depend on."""

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from vszhdrv.zhdrv.config import Config


def test_paper_is_the_published_recipe() -> None:
    paper = Config.from_preset("paper")
    assert (paper.n_exp_down, paper.n_exp_up) == (2, 2)
    assert (paper.epochs, paper.lr, paper.alpha, paper.batch) == (128, 1e-4, 0.95, 1)
    assert (paper.widths, paper.head, paper.fold) == ((64, 128, 256, 512), "ratio", 1)
    assert (paper.schedule, paper.crop, paper.max_frames, paper.few_frames) == ("plateau", 320, 128, 30)


def test_fast_is_the_default_and_counts_steps_not_seconds() -> None:
    assert Config.from_preset() == Config.from_preset("fast")
    assert Config.from_preset().schedule == "one-cycle"
    assert Config.from_preset().steps_per_epoch


def test_draft_is_fast_with_few_steps() -> None:
    draft = Config.from_preset("draft")
    assert draft.epochs * (draft.steps_per_epoch or 0) <= 400
    assert draft.architecture == Config.from_preset().architecture


@pytest.mark.parametrize("preset", ["fast", "paper", "draft"])
def test_what_is_given_holds_and_none_leaves_it_to_the_preset(preset: str) -> None:
    plain = Config.from_preset(preset)
    assert Config.from_preset(preset, epochs=None, lr=None, seed=None, alpha=None) == plain
    given: dict[str, Any] = dict(epochs=3, lr=0.01, alpha=0.5, seed=9, n_exp_down=3, n_exp_up=0, still=True)
    config = Config.from_preset(preset, **given)
    assert {name: getattr(config, name) for name in given} == given
    assert config.widths == plain.widths


@pytest.mark.parametrize(
    ("argument", "value", "accepted"),
    [
        ("n_exp_up", -1, "from 0 to 6"),
        ("n_exp_up", 10**9, "from 0 to 6"),
        ("epochs", 0, "from 1 to 100000"),
        ("epochs", -5, "from 1 to 100000"),
        ("epochs", 100_001, "from 1 to 100000"),
        ("lr", 0.0, "over 0 and at most 1"),
        ("lr", -1e-4, "over 0 and at most 1"),
        ("lr", 2.0, "over 0 and at most 1"),
        ("lr", float("inf"), "over 0 and at most 1"),
        ("lr", float("nan"), "over 0 and at most 1"),
        ("alpha", -0.1, "from 0 to 1"),
        ("alpha", 1.1, "from 0 to 1"),
        ("alpha", float("nan"), "from 0 to 1"),
        ("seed", -1, "from 0 to 2147483647"),
        ("seed", 2**31, "from 0 to 2147483647"),
    ],
)
@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_each_number_out_of_range_is_named(preset: str, argument: str, value: float, accepted: str) -> None:
    with pytest.raises(ValueError) as raised:
        Config.from_preset(preset, **{argument: value})
    assert str(raised.value) == f"{argument} must be {accepted}, not {value}"


@pytest.mark.parametrize(
    ("argument", "value", "accepted"),
    [("epochs", "1", "a whole number"), ("seed", 1.5, "a whole number"), ("lr", "1e-3", "a number")],
)
def test_what_is_not_a_number_is_told_so(argument: str, value: object, accepted: str) -> None:
    with pytest.raises(ValueError, match=f"^{argument} must be {accepted}, not {value!r}$"):
        Config.from_preset(**{argument: value})


@pytest.mark.parametrize(("preset", "lowest"), [("fast", 1), ("paper", 0)])
@pytest.mark.parametrize("value", [-1, 7])
def test_fast_looks_one_step_down_at_least(preset: str, lowest: int, value: int) -> None:
    with pytest.raises(ValueError, match=f"^n_exp_down must be from {lowest} to 6, not {value}$"):
        Config.from_preset(preset, n_exp_down=value)


@pytest.mark.parametrize("preset", ["", "slow", "Fast"])
def test_an_unknown_preset_is_told_the_known(preset: str) -> None:
    with pytest.raises(ValueError) as raised:
        Config.from_preset(preset)
    assert str(raised.value) == f"preset must be one of paper, fast, draft, not {preset!r}"


def test_an_unknown_setting_is_told_the_known() -> None:
    with pytest.raises(ValueError, match=r"^there is no setting 'gamma'; the settings are alpha, .*widths$"):
        Config.from_preset(gamma=2.2)


def test_fast_needs_a_step_downwards_and_paper_does_not() -> None:
    assert Config.from_preset("paper", n_exp_down=0).n_exp_down == 0
    with pytest.raises(ValueError, match=r"^n_exp_down must be from 1 to 6, not 0$"):
        Config.from_preset("fast", n_exp_down=0)


def test_fast_trains_for_more_than_its_steps_span() -> None:
    assert Config.from_preset(n_exp_down=1).max_shift > 2
    assert Config.from_preset(n_exp_down=3).max_shift > 6


def test_a_fifth_of_the_epochs_are_the_second_round() -> None:
    fast = Config.from_preset("fast")
    assert fast.first_epochs == fast.epochs * 4 // 5 == 32
    for epochs, first in ((1, 1), (4, 4), (5, 4), (11, 9)):
        assert replace(fast, epochs=epochs).first_epochs == first
    assert replace(fast, still=True).first_epochs == fast.epochs
    assert Config.from_preset("paper").first_epochs == 128


def test_few_epochs_are_of_fewer_and_larger_steps_by_muon() -> None:
    fast = Config.from_preset("fast")
    few = fast.of_few(8)
    assert (few.epochs, few.optimizer) == (8, "muon")
    assert (few.batch, few.steps_per_epoch) == (2 * fast.batch, 25)
    assert fast.of_few(40) == fast.of_few(100) == fast
    assert "optimizer" not in fast.training_settings()  # keys of networks that are trained already stay


def test_larger_frames_make_fast_see_larger_blocks() -> None:
    fast = Config.from_preset("fast")
    small, hd, uhd = fast.for_size(960, 540), fast.for_size(1920, 1080), fast.for_size(3840, 2160)
    assert small == fast == fast.for_size(16, 16)
    assert (hd.fold, hd.crop) == (2 * small.fold, 2 * small.crop)
    assert (uhd.fold, uhd.crop) == (4 * small.fold, 4 * small.crop)
    assert (small.stride, hd.stride, uhd.stride) == (1, 2, 4)
    assert fast.for_size(1080, 1920) == hd
    paper = Config.from_preset("paper")
    assert paper.for_size(3840, 2160) == paper
    assert paper.stride == 1


@pytest.mark.parametrize(("preset", "expansion_only"), [("fast", {"n_exp_up"}), ("paper", {"n_exp_up", "n_exp_down"})])
def test_weights_depend_on_every_setting_but_those_of_the_expansion(preset: str, expansion_only: set[str]) -> None:
    config = Config.from_preset(preset)
    settings = config.training_settings()
    assert json.loads(json.dumps(settings)) == settings
    for field in fields(Config):
        changed = replace(config, **{field.name: "changed"}).training_settings()
        assert (changed == settings) == (field.name in expansion_only), field.name
