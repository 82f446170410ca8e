"""Drawn clips: their truth, their films, and what the files say."""

import json
import shutil
from pathlib import Path

import cv2
import make_graphics
import numpy as np
import pytest
from evaluate import Scene
from make_graphics import GRAPHICS, PHOTOGRAPHS
from make_scenes import Coding

SIZE = (192, 128)


@pytest.mark.parametrize("name", GRAPHICS)
def test_graphics_are_the_same_in_truth_and_clip(name: str, tmp_path: Path) -> None:
    scene = Scene.open(make_graphics.render(name, tmp_path, frames=1, size=SIZE))
    truth, given = scene.truth(), scene.given()
    assert json.loads((scene.folder / "scene.json").read_text())["graphics"] is True
    box = GRAPHICS[name](0, 1, *SIZE).film
    graphics = np.ones(truth.shape[:3], bool)
    if box:
        graphics[:, box[1] : box[3], box[0] : box[2]] = False
    assert np.abs(truth - given)[graphics].max(initial=0) < 2e-3
    assert name == "subtitles" or given[graphics].max() > 0.9


@pytest.mark.parametrize("name", ["film_in_page", "beside", "subtitles"])
def test_films_are_brighter_than_what_clips(name: str, tmp_path: Path) -> None:
    scene = Scene.open(make_graphics.render(name, tmp_path, frames=3))
    assert (scene.truth()[scene.sdr() == 255] > 1.1).sum() > 50


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_of_white_are_lights_that_clip(name: str, tmp_path: Path) -> None:
    scene = Scene.open(make_graphics.render(name, tmp_path, frames=3, size=(320, 180)))
    assert json.loads((scene.folder / "scene.json").read_text())["graphics"] is False
    clipped = (scene.sdr() == 255).any(-1)
    assert clipped.any()
    assert scene.truth()[clipped].max() > 1.02


def test_letters_over_a_film_are_white_where_they_cover_it(tmp_path: Path) -> None:
    scene = Scene.open(make_graphics.render("subtitles", tmp_path, frames=1, size=SIZE))
    over = np.asarray(GRAPHICS["subtitles"](0, 1, *SIZE).over)
    assert (scene.sdr()[0][over == 255] == 255).all()
    assert scene.truth()[0][over == 255] == pytest.approx(1)


def test_the_same_clip_every_time(tmp_path: Path) -> None:
    first, again = (
        make_graphics.render("film_in_page", tmp_path / name, frames=2, size=SIZE) / "sdr" / "0001.png"
        for name in ("first", "again")
    )
    assert np.array_equal(cv2.imread(str(first)), cv2.imread(str(again)))


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs ffmpeg")
def test_video(tmp_path: Path) -> None:
    folder = make_graphics.render("chart", tmp_path, frames=2, size=SIZE, transfer="bt1886", coding=Coding("h264", 23))
    assert Scene.open(folder).given().shape == (2, 128, 192, 3)
