"""White that is meant to be white, told from light in frames whose content is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vszhdrv.errors import Refused
from vszhdrv.zhdrv import graphics
from vszhdrv.zhdrv.config import Config
from vszhdrv.zhdrv.expansion import Expander
from vszhdrv.zhdrv.network import UNet
from vszhdrv.zhdrv.traits import Graphics, Traits

HEIGHT, WIDTH = 180, 320


def slide(colour: tuple[int, int, int] = (30, 80, 160)) -> np.ndarray:
    """A white slide below an even bar of a colour, (3, height, width)."""
    frame = np.full((3, HEIGHT, WIDTH), 255, np.uint8)
    frame[:, :40] = np.array(colour)[:, None, None]
    return frame


def lines_of_text(paper: int, ink: int, lines: int = 6) -> np.ndarray:
    """Rows of upright strokes, all other pixels being paper, (3, height, width)."""
    frame = np.full((3, HEIGHT, WIDTH), paper, np.uint8)
    rng = np.random.default_rng(2)
    for line in range(lines):
        top = 20 + 22 * line
        for left in range(20, WIDTH - 20, 5):
            frame[:, top + rng.integers(3) : top + 10, left : left + 2] = ink
    return frame


def lamps(seed: int = 0, step: int = 0) -> np.ndarray:
    """Round lamps with a falloff before a textured wall, as a camera sees them: they clip, (3, height, width)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    light = 0.2 * 2 ** rng.normal(0, 0.1, (HEIGHT, WIDTH))
    for _ in range(12):
        distance = np.hypot(x - rng.uniform(0, WIDTH) - step, y - rng.uniform(0, HEIGHT))
        light += 2 ** rng.uniform(1, 5) * np.exp(-((distance / rng.uniform(6, 16)) ** 2))
    colour = np.array([1.0, 0.9, 0.7])[:, None, None]
    return (255 * np.minimum(light * colour, 1) ** (1 / 2.2)).round().astype(np.uint8)


def test_white_beside_an_even_area_is_graphics() -> None:
    mask = graphics.areas(slide())
    assert mask[40:].all()
    assert not mask[:40].any()  # the bar could not be expanded anyway


def test_white_beside_white_or_black_of_one_code_is_no_evidence() -> None:
    assert not graphics.areas(slide((0, 0, 0))).any()
    assert not graphics.areas(slide((250, 250, 250))).any()


def test_paper_of_text_is_graphics_and_so_are_letters_on_black() -> None:
    page = lines_of_text(255, 20)
    assert graphics.areas(page)[(page == 255).all(axis=0)].mean() > 0.95
    credits = lines_of_text(0, 255)
    assert graphics.areas(credits)[(credits == 255).all(axis=0)].mean() > 0.95


def test_a_line_or_two_of_strokes_is_chance() -> None:
    assert not graphics.areas(lines_of_text(255, 20, lines=2)).any()


def test_lights_are_no_graphics() -> None:
    for seed in range(5):
        frame = lamps(seed)
        assert (frame == 255).any()
        assert not graphics.areas(frame).any()
    night = lamps()
    night[:, lamps().max(axis=0) < 120] = 0  # a sky without stars
    assert not graphics.areas(night).any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_clips_have_none_some_or_only_graphics(dtype: type) -> None:
    def clip(*frames: np.ndarray) -> np.ndarray:
        return np.stack(frames).astype(dtype) * (1 if dtype is np.uint8 else 257)

    film = [lamps(step=3 * step) for step in range(4)]
    window = [slide() for _ in film]
    for page, frame in zip(window, film, strict=True):
        page[:, 80:150, 100:220] = frame[:, 80:150, 100:220]
    assert graphics.found_in(clip(*film)) == ""
    assert graphics.found_in(clip(*[slide()] * 4)) == "all"
    assert graphics.found_in(clip(*window)) == "areas"
    assert graphics.found_in(clip(*film, *film, *film, slide())) == ""  # a frame of 13 may be chance


def test_a_film_in_a_page_is_not_taken_with_it() -> None:
    page, film = slide(), lamps()
    wall = lamps().min(axis=(0, 1))[None, None] // 2
    page[:, 60:160, 60:260] = np.minimum(film, wall)[:, 60:160, 60:260]  # its border is dark
    page[:, 72:148, 72:248] = film[:, 72:148, 72:248]
    mask = graphics.areas(page)
    inside = np.zeros_like(mask)
    inside[72:148, 72:248] = True
    assert not mask[inside].any()
    assert (page[:, inside] == 255).any()
    assert mask[45:50].all()


def expander(traits: Traits) -> Expander:
    """With random weights, whose predictions are over 0."""
    config = replace(Config.from_preset("fast"), widths=(8, 8))
    network = UNet(config.architecture)
    torch.nn.init.ones_(list(network.parameters())[-1])
    return Expander(network, config, torch.device("cpu"), "fp32", traits=traits)


def test_graphics_keep_their_light_and_films_are_expanded() -> None:
    page, film = slide(), lamps()
    page[:, 60:160, 60:260] = film[:, 60:160, 60:260]
    linear = (page / np.float32(255)) ** np.float32(2.2)

    def brightened(kind: Graphics) -> np.ndarray:
        planes = linear.copy()
        expander(Traits(graphics=kind)).brighten(list(planes))
        return planes

    torch.manual_seed(0)
    expanded = brightened("")
    torch.manual_seed(0)
    areas = brightened("areas")
    mask = graphics.areas(page)
    assert expanded[:, 45:50].min() > 1.2
    assert np.array_equal(areas[:, mask], linear[:, mask])
    assert np.array_equal(areas[:, ~mask], expanded[:, ~mask])
    assert areas[:, ~mask].max() > 1.2
    assert np.array_equal(brightened("all"), linear)


def test_the_header_names_graphics_only_where_there_are_some() -> None:
    assert "graphics" not in Traits().to_header()
    assert Traits.from_header(Traits(graphics="areas").to_header()).graphics == "areas"
    assert Traits.from_header({}).graphics == ""
    with pytest.raises(Refused, match="graphics must be areas or all, not 'some'"):
        Traits.from_header({"graphics": "some"})
