"""Files of cuts, ours and other programs'."""

from pathlib import Path

import pytest

from vszhdrv import shots
from vszhdrv.errors import Refused
from vszhdrv.shots import CutList, Shot

PYSCENEDETECT = """Timecode List:,00:00:00.417
Scene Number,Start Frame,Start Timecode,Start Time (seconds),End Frame,End Timecode
1,1,00:00:00.000,0.000,10,00:00:00.417
2,11,00:00:00.417,0.417,30,00:00:01.250
"""
AV1AN = '{"frames": 30, "scenes": [{"start_frame": 0, "end_frame": 10}, {"start_frame": 10, "end_frame": 30}]}'


@pytest.mark.parametrize(
    "text",
    [
        PYSCENEDETECT,
        PYSCENEDETECT.split("\n", 1)[1],
        AV1AN,
        "0 I -1\n10 I -1\n12 P -1\n",
        "10 K",
        "# made by hand\n10\n",
    ],
)
def test_cuts_of_other_programs(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cuts"
    path.write_text(text)
    assert shots.read_cuts(path, 30) == CutList((0, 10))


def test_our_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    film = [Shot(0, 10, 0), Shot(10, 20, 1, range(8, 12)), Shot(20, 30, 0)]
    shots.write_table(tmp_path / "film.csv", film)
    assert shots.read_cuts(tmp_path / "film.csv", 30).shots(30) == film


def test_places_may_have_any_names(tmp_path: Path) -> None:
    path = tmp_path / "film.csv"
    path.write_text("first,place\n0,kitchen\n10,street\n20,kitchen\n")
    assert [shot.place for shot in shots.read_cuts(path, 30).shots(30)] == [0, 1, 0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ten\n", "not something else"),
        ("31\n", "0 to 29, not 31"),
        ("first,place\n0,a\n20,b\n10,a\n", "ascend"),
        ("first,place\n5,a\n", "ascend from 0"),
        ("first,place,dissolve\n0,a,\n10,b,around\n", "such as 32-39, not 'around'"),
        ('{"scenes": 7}', "not something else"),
    ],
)
def test_a_file_that_is_no_list_of_cuts_is_refused_in_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "cuts"
    path.write_text(text)
    with pytest.raises(Refused, match=words):
        shots.read_cuts(path, 30)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="can't be read"):
        shots.read_cuts(tmp_path / "none", 30)


def test_shots_survive_json() -> None:
    film = [Shot(0, 10, 0), Shot(10, 30, 1, range(8, 12))]
    assert shots.of_json(shots.to_json(film)) == film
    assert shots.words(film) == "2 shots in 2 places"
