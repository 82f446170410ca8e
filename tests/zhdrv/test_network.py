"""The U-Net: its size, its reach, what it accepts, and its pooling by hand."""

import pytest
import torch
from torch import nn

from vszhdrv.zhdrv import network
from vszhdrv.zhdrv.camera import CLIPPED
from vszhdrv.zhdrv.config import Architecture, Config, Head
from vszhdrv.zhdrv.network import (
    Lattice,
    MixedPool,
    UNet,
    for_autocast,
    network_of,
    new_network,
    pad,
)
from vszhdrv.zhdrv.objectives import predicted

FAST = Config.from_preset("fast")
PAPER = Config.from_preset("paper")


def built(config: Config, seed: int = 0) -> UNet:
    return new_network(config.architecture, seed)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_papers_network_has_its_published_size() -> None:
    # encoder 1,792 + 73,856 + 295,168 + 1,180,160; decoder 1,179,904 + 589,952 + 147,520; head 73,792 + 195; 3 mixes
    assert parameters(built(PAPER)) == 3_542_342
    assert parameters(built(FAST)) < 3_542_342 / 10


def test_mixed_pooling_by_hand() -> None:
    pool = MixedPool()
    x = torch.tensor([[1.0, 2.0, 0.0, 0.0], [3.0, 4.0, 0.0, 8.0]])[None, None]
    with torch.no_grad():
        pool.mix.fill_(0.25)
    pooled = pool(x)
    assert torch.equal(pooled, torch.tensor([[[[0.25 * 4 + 0.75 * 2.5, 0.25 * 8 + 0.75 * 2]]]]))
    pooled.sum().backward()
    assert pool.mix.grad == (4 - 2.5) + (8 - 2)  # it is a parameter: the loss pulls at it


def test_every_pooling_has_a_mix_of_its_own_that_is_trained_and_saved() -> None:
    model = built(PAPER)
    assert {name for name, _ in model.named_parameters() if "mix" in name} == {f"pools.{n}.mix" for n in range(3)}
    assert {f"pools.{n}.mix" for n in range(3)} <= model.state_dict().keys()


@pytest.mark.parametrize("config", [FAST, PAPER, FAST.for_size(1920, 1080)], ids=["fast", "paper", "fast at 1080p"])
def test_the_prediction_has_the_inputs_size_and_the_heads_range(config: Config) -> None:
    model = built(config)
    assert model.multiple == config.fold * 2 ** (len(config.widths) - 1)
    x = torch.rand(2, 3, 2 * model.multiple, model.multiple)
    with torch.no_grad():
        out = model(x)
    assert (out.shape, out.dtype) == (x.shape, torch.float32)
    assert config.head == "stops" or 0 <= out.min() <= out.max() <= 1


@pytest.mark.parametrize("config", [FAST, PAPER], ids=["fast", "paper"])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 23), (33, 47), (64, 1)])
def test_odd_sizes_are_padded_by_their_edges_and_cut_back(config: Config, height: int, width: int) -> None:
    model = built(config)
    x = torch.rand(1, 3, height, width)
    multiple = model.multiple
    rows = torch.arange(-(-height // multiple) * multiple).clamp(max=height - 1)
    columns = torch.arange(-(-width // multiple) * multiple).clamp(max=width - 1)
    with torch.no_grad():
        out = predicted(model, x)
        # in another memory layout, of which only the last bits know
        assert torch.allclose(out, model(x[..., rows, :][..., columns])[..., :height, :width], atol=1e-6)
    assert out.shape == x.shape


@pytest.mark.parametrize("config", [FAST, PAPER], ids=["fast", "paper"])
def test_predictions_computed_in_bf16_have_no_steps(config: Config) -> None:
    model = built(config).eval()
    with torch.no_grad():
        model.out.weight *= 30  # so that predictions are as far from 0 as those of a trained one
    sky = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    with torch.inference_mode():
        exact = predicted(model, sky)
        with torch.autocast("cpu", torch.bfloat16):
            found = predicted(model, sky)
    assert found.dtype == torch.float32 and (found - exact).abs().mean() < 0.02 * exact.std()
    assert len(found.unique()) > 0.9 * len(exact.unique())  # bf16 has 128 values from 1 to 2


@pytest.mark.parametrize(("fold", "lattice"), [(4, Lattice(2, 1, 0)), (8, Lattice(4, 3, 2)), (4, Lattice(4, 0, 3))])
@pytest.mark.parametrize(("height", "width"), [(128, 64), (101, 67), (2, 3)])
def test_a_lattices_prediction_is_that_of_its_pixels(fold: int, lattice: Lattice, height: int, width: int) -> None:
    model = new_network(Architecture(FAST.widths, "stops", fold), 0)
    x = torch.rand(2, 3, height, width).sqrt()
    every, some = predicted(model, x), predicted(model, x, lattice)
    assert some.shape == lattice.of(every).shape
    assert torch.allclose(some, lattice.of(every), atol=1e-6)
    weight = model.out.weight
    (of_every,), (of_some,) = (torch.autograd.grad(out.sum(), weight) for out in (lattice.of(every), some))
    assert torch.allclose(of_some, of_every, rtol=1e-4, atol=1e-4 * float(of_every.abs().max()) + 1e-9)


@pytest.mark.parametrize("config", [FAST, PAPER], ids=["fast", "paper"])
def test_weights_made_bfloat16_once_predict_as_those_of_every_call(config: Config) -> None:
    model = built(config).requires_grad_(False)
    x = torch.rand(1, 3, 64, 96).sqrt()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(predicted(for_autocast(model), x), predicted(model, x))
    assert {weights.dtype for weights in model.parameters()} == {torch.float32}


def test_padding_repeats_the_last_row_and_column() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])[None, None]
    assert pad(x, 4)[0, 0].tolist() == [[1, 2, 3, 3], [4, 5, 6, 6], [4, 5, 6, 6], [4, 5, 6, 6]]
    assert pad(x, 1) is x


@pytest.mark.parametrize(
    ("widths", "head", "fold"),
    [((4, 4, 4, 4), "ratio", 1), ((4, 4, 4), "stops", 2), ((4, 4, 4, 4, 4), "stops", 2), ((4, 4), "ratio", 4)],
)
def test_nothing_beyond_its_reach_changes_a_pixel(widths: tuple[int, ...], head: Head, fold: int) -> None:
    model = UNet(Architecture(widths, head, fold))
    with torch.no_grad():
        for parameter in model.parameters():  # means of what is seen, so that nothing of it is lost in a ReLU
            parameter.fill_(1 / parameter[0].numel() if parameter.ndim == 4 else 0.5)
    reach, multiple = model.architecture.reach, model.multiple
    side = -(-(2 * reach + 2 * multiple) // multiple) * multiple
    for column in range(side // 2, side // 2 + multiple):
        x = torch.ones(1, 3, 2 * multiple, side, requires_grad=True)  # a strip: its reach across is that along
        model(x)[..., column].sum().backward()
        assert x.grad is not None
        seen = x.grad.abs().sum((0, 1, 2)).nonzero().flatten()
        assert column - seen.min() <= reach and seen.max() - column <= reach
    assert seen.max() - seen.min() > reach  # and the margin is not absurdly wide


def test_a_seed_gives_its_weights_and_leaves_the_processs_random_state(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(seed: int) -> None:
        raise AssertionError("the graphics cards' random state was changed")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    before = torch.get_rng_state()
    first, again, other = built(FAST, 3).state_dict(), built(FAST, 3).state_dict(), built(FAST, 4).state_dict()
    network_of(first, FAST.architecture)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["encoder.0.weight"], other["encoder.0.weight"])


def test_weights_make_the_same_network_or_none() -> None:
    model = new_network(Architecture((4, 8), "stops", 2), 1)
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(network_of(model.state_dict(), model.architecture)(x), model(x))
    for widths, head, fold in (((4, 4), "stops", 2), ((4, 8, 8), "stops", 2), ((4, 8), "ratio", 2)):
        with pytest.raises(ValueError, match=r"^the weights are of another architecture than a \w+ U-Net \[4, "):
            network_of(model.state_dict(), Architecture(widths, head, fold))  # type: ignore[arg-type]


def test_stops_that_have_fallen_to_nothing_can_rise_again() -> None:
    model = new_network(Architecture((4, 4), "stops"), 0)
    torch.nn.init.constant_(model.out.bias, -30.0)
    stops = model(torch.rand(1, 3, 8, 8))
    assert stops.max() <= 0
    stops.mean().backward()
    assert model.out.bias.grad is not None
    assert float(model.out.bias.grad.sum()) == pytest.approx(network.LEAK)


def test_stops_are_told_from_what_clips() -> None:
    model = new_network(Architecture((4, 4), "stops"), 0)
    below = torch.full((1, 3, 8, 8), CLIPPED - 1e-6)
    with torch.no_grad():
        assert (model(below + 2e-6) - model(below)).abs().max() > 1e-3
