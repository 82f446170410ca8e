"""From a frame of linear light to its HDR."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from vszhdrv.zhdrv import camera, expansion, tiling
from vszhdrv.zhdrv.config import Architecture, Config
from vszhdrv.zhdrv.evaluation import Evaluator
from vszhdrv.zhdrv.expansion import Expander, show
from vszhdrv.zhdrv.footage import Traits
from vszhdrv.zhdrv.hardware import Precision
from vszhdrv.zhdrv.network import UNet, new_network
from vszhdrv.zhdrv.objectives import predicted

CPU = torch.device("cpu")
STEP = camera.gain(-2)  # 0.5325


def small(preset: str, **settings: object) -> tuple[UNet, Config]:
    """A network of a preset's kind, made narrow."""
    config = replace(Config.from_preset(preset, **settings), widths=(4, 8, 8))
    return new_network(config.architecture, 5), config


def expander(preset: str, tile: tuple[int, int] | None = None, **settings: object) -> Expander:
    network, config = small(preset, **settings)
    return Expander(network, config, CPU, "fp32", tile)


def brightened(expand: Expander, linear: Tensor) -> Tensor:
    """HDR of `(batch, 3, height, width)` linear light."""
    hdr = linear.clone()
    for frame in hdr:
        expand.brighten(list(frame.numpy()))
    return hdr


def ramp(low: float, high: float, height: int = 8, width: int = 64) -> Tensor:
    """Grey radiance in equal steps of stops, (1, 3, height, width)."""
    return torch.logspace(low, high, width, base=2).expand(1, 3, height, width).contiguous()


@pytest.mark.parametrize(
    ("preset", "settings"),
    [("fast", {}), ("paper", {}), ("paper", dict(n_exp_down=0, n_exp_up=0)), ("paper", dict(n_exp_down=0))],
)
def test_the_result_is_never_darker_than_the_source(preset: str, settings: dict[str, int]) -> None:
    linear = torch.rand(1, 3, 33, 47, generator=torch.Generator().manual_seed(1)) * 1.3  # superwhite, too
    linear[..., :8, :8] = 0
    linear[..., -8:, -8:] = 1
    hdr = brightened(expander(preset, **settings), linear)
    assert hdr.isfinite().all()
    assert (hdr >= linear).all()


def test_fast_leaves_alone_what_is_exposed_and_brightens_what_clips() -> None:
    linear = torch.full((1, 3, 32, 32), 0.5)
    linear[..., 16:] = 1.0
    hdr = brightened(expander("fast"), linear)
    assert torch.equal(hdr[..., :16], linear[..., :16])
    assert (hdr[..., 16:] > 1).all()


@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_grey_stays_grey(preset: str) -> None:
    network, config = small(preset)
    linear = ramp(-4, 0.2, 47, 61)
    tinted = brightened(Expander(network, config, CPU, "fp32"), linear)
    grey = Expander(network, config, CPU, "fp32", traits=Traits(grey=True))
    red, green, blue = brightened(grey, linear).unbind(1)
    assert torch.allclose(red, green, rtol=1e-6) and torch.allclose(red, blue, rtol=1e-6)
    if preset == "fast":
        assert torch.equal(red, green) and torch.equal(red, blue)
        assert torch.allclose(red.log2(), tinted.log2().mean(1), atol=1e-5)  # stops add up to what they were
    assert not torch.allclose(tinted[:, 0], tinted[:, 1], rtol=1e-3)
    assert (red > linear[:, 0] * 1.01).any()


def test_colour_in_a_grey_clip_stays_colour() -> None:
    network, config = small("fast")
    lamp = torch.tensor([1.0, 0.6, 0.3])[None, :, None, None].expand(1, 3, 32, 32)
    hdr = brightened(Expander(network, config, CPU, "fp32", traits=Traits(grey=True)), lamp)
    assert torch.allclose(hdr / hdr[:, :1], lamp)


@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_a_frame_is_expanded_where_it_lies(preset: str) -> None:
    expand = expander(preset)
    linear = highlights(131, 277, [(40, 10), (100, 100)]).numpy()
    planes = [np.zeros((131, 300), np.float32)[:, :277] for _ in range(3)]  # rows with gaps, planes apart
    for plane, source in zip(planes, linear, strict=True):
        plane[:] = source
    hdr = brightened(expand, torch.from_numpy(linear)[None])[0].numpy()
    expand.brighten(planes)
    assert np.array_equal(np.stack(planes), hdr)
    assert (hdr > linear).any()


@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_a_frame_goes_to_another_device_and_comes_back(preset: str) -> None:
    """There is none here: the way there and back is that of any device."""
    expand = expander(preset)
    linear = highlights(131, 277, [(0, 0), (40, 200)])
    frame = linear.clone()
    with torch.inference_mode():
        expand._there(frame.unbind())
    assert torch.equal(frame, brightened(expand, linear[None])[0])


def highlights(height: int, width: int, places: list[tuple[int, int]]) -> Tensor:
    """A dim frame with small lights, `(3, height, width)` linear."""
    linear = torch.rand(3, height, width, generator=torch.Generator().manual_seed(2)) * 0.8
    for top, left in places:
        linear[:, top : top + 5, left : left + 7] = 1.2
    return linear


@pytest.mark.parametrize("places", [[(0, 0)], [(120, 270)], [(40, 10), (44, 200), (100, 100)], []])
@pytest.mark.parametrize("tile", [None, (64, 128)])
def test_only_what_clips_is_computed_and_as_in_the_whole_frame(
    places: list[tuple[int, int]], tile: tuple[int, int] | None
) -> None:
    expand = expander("fast", tile)
    linear = highlights(131, 277, places)
    sdr = camera.encode(linear[None])
    with torch.inference_mode():
        stops = predicted(expand.network, sdr)
    expected = torch.maximum(linear * torch.exp2(stops[0] * expansion.clipping(sdr[0], expand.ramp)), linear)
    hdr = brightened(expand, linear[None])[0]
    assert torch.allclose(hdr, expected, rtol=1e-5)
    exposed = linear < 0.9
    assert torch.equal(hdr[exposed], linear[exposed])
    assert places == [] or (hdr[~exposed] > linear[~exposed]).all()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("tile", [None, (256, 448)])
def test_threads_that_share_a_frame_make_that_of_one(
    precision: Precision,
    tile: tuple[int, int] | None,
    set_threads: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tiling, "STRIP_VALUES", 2**18)
    config = replace(Config.from_preset("fast"), fold=4)
    expand = Expander(new_network(config.architecture, 0), config, CPU, precision, tile)
    linear = highlights(431, 877, [(0, 0), (200, 300), (204, 700), (420, 800)])[None]
    alone = brightened(expand, linear)
    set_threads(3)
    assert torch.equal(brightened(expand, linear), alone)


@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_tiles_that_see_nothing_around_them_show_seams(preset: str) -> None:
    config = replace(Config.from_preset(preset), widths=(4, 8, 8))
    network = new_network(config.architecture, 2)
    linear = torch.rand(1, 3, 131, 277, generator=torch.Generator().manual_seed(1)) * 1.2

    def tiled(tile: tuple[int, int] | None, tile_pad: int | None) -> Tensor:
        return brightened(Expander(network, config, CPU, "fp32", tile, tile_pad), linear)

    whole = tiled(None, None)
    assert torch.equal(tiled(None, 0), whole)  # a single tile has no neighbours
    assert torch.allclose(tiled((64, 64), 10**9), whole, rtol=1e-4)
    assert torch.equal(tiled((64, 64), 1), tiled((64, 64), network.multiple))  # rounded up
    off = (tiled((64, 64), 0) - whole).abs() > 1e-3 * whole
    assert off.any()


def test_a_source_that_clips_below_white_is_expanded_as_if_it_clipped_there() -> None:
    linear = highlights(131, 277, [(40, 10), (44, 200)])[None]
    at_white, below = expander("fast"), expander("fast")
    below.white = 0.9
    assert torch.allclose(brightened(below, linear * 0.9), brightened(at_white, linear) * 0.9, rtol=1e-5)


def test_a_frame_in_which_nothing_clips_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    expand = expander("fast")
    linear = highlights(131, 277, [])[None]
    monkeypatch.setattr(UNet, "encode_finest", lambda *_: pytest.fail("the network was evaluated"))
    assert torch.equal(brightened(expand, linear), linear)
    linear[0, 1, 130, 276] = expand.foot * 1.0001
    with pytest.raises(pytest.fail.Exception):
        brightened(expand, linear)


@pytest.mark.parametrize("ramp", [expansion.CLIP_RAMP, expansion.COMPRESSED_RAMP])
def test_the_ramp_begins_over_its_foot(ramp: tuple[float, float]) -> None:
    expand = expander("fast")
    expand.ramp = ramp
    foot = torch.tensor(expand.foot)
    assert expansion.clipping(camera.encode(foot), ramp) == 0
    assert expansion.clipping(camera.encode(foot * 1.001), ramp) > 0
    assert expansion.clipping(torch.tensor(ramp[1]), ramp) == pytest.approx(1)


@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_the_presets_own_networks_show_no_seams(preset: str) -> None:
    config = Config.from_preset(preset)
    widths = tuple(width // 4 for width in config.widths)
    network = new_network(Architecture(widths, config.head, config.fold), 0)
    linear = torch.rand(1, 3, 70, 3 * network.architecture.reach) * 1.1
    whole, parts = (brightened(Expander(network, config, CPU, "fp32", tile), linear) for tile in (None, (64, 64)))
    assert torch.allclose(parts, whole, rtol=1e-4)


def test_only_running_out_of_memory_halves_the_tiles_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expand = expander("fast")
    linear = highlights(131, 277, [(0, 0), (125, 270)])[None]
    expected = brightened(expand, linear)
    inner = UNet.inner

    def short(network: UNet, finest: Tensor) -> Tensor:
        if finest.shape[-1] > 100:
            raise torch.OutOfMemoryError("no")
        return inner(network, finest)

    monkeypatch.setattr(UNet, "inner", short)
    assert torch.allclose(brightened(expand, linear), expected, rtol=1e-4)
    assert caplog.messages[0] == "cpu is out of memory: going on in tiles of 144x72"
    said = len(caplog.messages)
    brightened(expand, linear)
    assert len(caplog.messages) == said  # the tiles stay as they are
    monkeypatch.setattr(UNet, "inner", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("never")))
    with pytest.raises(torch.OutOfMemoryError):
        brightened(expand, linear)


def test_a_tile_is_made_whole_strides_of_the_network() -> None:
    config = Config.from_preset("fast").for_size(3840, 2160)
    network = new_network(Architecture((4,) * len(config.widths), config.head, config.fold), 0)
    assert network.multiple > 64
    sdr = torch.rand(1, 3, 64, 3 * network.architecture.reach).sqrt()
    with torch.inference_mode():
        whole, parts = (Evaluator(network, CPU, "fp32", tile).predict(sdr) for tile in (None, (64, 192)))
    assert torch.allclose(parts, whole, atol=1e-4)


def test_pictures_of_an_expansion() -> None:
    sdr = torch.linspace(0, 1, 48).expand(3, 32, 48).contiguous()
    pictures = show(expander("fast"), sdr)
    assert set(pictures) == {"source", "m4", "m2", "p2", "p4", "delta"}
    for picture in pictures.values():
        assert (picture.shape, picture.dtype) == ((32, 48, 3), np.uint8)
    assert np.array_equal(pictures["source"][..., 0], (sdr[0] * 255).round().numpy().astype(np.uint8))
    means = [pictures[name].mean() for name in ("m4", "m2", "source", "p2", "p4")]
    assert means == sorted(means)
    # where nothing clips, two stops down is the product by 2^(-2/2.2), in the picture and as its ratio
    assert np.abs(pictures["m2"][:, 4:40] - pictures["source"][:, 4:40] * STEP).max() <= 1
    assert np.abs(pictures["delta"][:, 4:40] / 255 - STEP).max() < 0.02
    assert expansion.CLIP_RAMP[0] > 40 / 48


@pytest.mark.parametrize("fold", [2, 4])
def test_predictions_near_what_clips_are_those_of_the_whole_frame(fold: int) -> None:
    config = replace(Config.from_preset("fast"), widths=(4, 8, 8), fold=fold)
    evaluator = Evaluator(new_network(config.architecture, 3), CPU, "fp32")
    x = torch.rand(1, 3, 330, 517) * 0.9
    x[..., 130:140, 60:90] = x[..., 1, 300:320, 500:] = 1.0
    with torch.inference_mode():
        whole, near = evaluator.predict(x), evaluator.predict_near(x, 0.99, distance=3)
    clips = (x >= 0.99).any(1, keepdim=True).float()
    around = torch.nn.functional.max_pool2d(clips, 7, 1, 3).expand_as(x) > 0
    assert torch.allclose(near[around], whole[around], atol=1e-5)
    assert (near == 0).float().mean() > 0.5  # not all of it was computed
