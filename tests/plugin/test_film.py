"""A clip's shots: found once, kept, and told from what a user names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from vszhdrv import find_shots
from vszhdrv.command.cli import main
from vszhdrv.errors import Refused
from vszhdrv.plugin import film

MakeFilm = Callable[..., Any]


def test_shots_and_places_of_a_clip(make_film: MakeFilm) -> None:
    found = find_shots(make_film(1, 2, 1))
    assert [(shot.first, shot.end, shot.place) for shot in found] == [(0, 16, 0), (16, 32, 1), (32, 48, 0)]


def test_a_clip_is_scanned_once(make_film: MakeFilm, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_shots(make_film(1, 2))
    monkeypatch.setattr(film, "scan", lambda *_: pytest.fail("scanned again"))
    assert find_shots(make_film(1, 2)) == found


def test_a_damaged_file_of_shots_is_found_anew(make_film: MakeFilm, own_cache: Path) -> None:
    found = find_shots(make_film(1, 2))
    (path,) = (own_cache / "shots").iterdir()
    path.write_text("{")
    assert find_shots(make_film(1, 2)) == found


def test_given_cuts_are_taken_and_their_places_found(make_film: MakeFilm) -> None:
    found = find_shots(make_film(1, 2, 1), ["16", "32"])
    assert [(shot.first, shot.place) for shot in found] == [(0, 0), (16, 1), (32, 0)]


def test_words_that_name_no_cuts_are_refused(make_film: MakeFilm) -> None:
    with pytest.raises(Refused, match="shots must name frames of the clip, 0 to 31, not 40"):
        find_shots(make_film(1, 2), ["40"])
    with pytest.raises(Refused, match="can't be read"):
        find_shots(make_film(1, 2), "automatic")


def test_the_command_writes_the_table_that_it_reads_back(
    make_film: MakeFilm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "film"
    folder.mkdir()
    for n, frame in enumerate(make_film(1, 2, 1).frames()):
        cv2.imwrite(str(folder / f"{n:04d}.png"), np.dstack([np.asarray(frame[plane]) for plane in (2, 1, 0)]))
    table, sheet = tmp_path / "film.csv", tmp_path / "film.png"
    assert main(["shots", str(folder), "--csv", str(table), "--sheet", str(sheet)]) == 0
    assert "3 shots in 2 places" in capsys.readouterr().err
    assert cv2.imread(str(sheet)).shape[0] == 2 * (90 + 14 + 3)
    table.write_text(table.read_text().replace("16,31,16,1,", "20,31,12,1,"))
    assert main(["shots", str(folder), "--shots", str(table)]) == 0
    assert capsys.readouterr().out.splitlines()[1:3] == ["0,19,20,0,", "20,31,12,1,"]
    assert main(["shots", str(folder), "--csv", str(table)]) == 2
