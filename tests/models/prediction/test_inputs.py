"""What is found among files, folders, links and zip files, and what is said of the rest."""

import os
import shlex
import zipfile

import cv2
import numpy as np
import pytest

from models.prediction.inputs import find_images, stamp
from pipeline.errors import UserError
from pipeline.records import close_folder, open_folder
from pipeline.stages.prediction import Predict


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", np.eye(8, dtype=np.uint8))[1].tobytes())
    return path


def found_in(*paths):
    found = find_images(shlex.join(map(str, paths)))
    return found, {str(path): error.problem for path, error in found.unreadable.items()}


def test_a_damaged_zip_file_ends_no_search(tmp_path):
    film = picture(tmp_path / "film.png")
    (tmp_path / "cut.zip").write_bytes(b"PK\3\4 and no more")
    found, unreadable = found_in(tmp_path)
    assert found.images == (film,)
    assert "truncated or damaged" in unreadable[str(tmp_path / "cut.zip")]


def test_a_damaged_zip_file_alone_is_told(tmp_path):
    (tmp_path / "cut.zip").write_bytes(b"PK\3\4 and no more")
    with pytest.raises(UserError, match=r"cut\.zip: is a zip file that is truncated or damaged"):
        found_in(tmp_path / "cut.zip")


def test_a_zip_file_in_a_zip_file_is_told(tmp_path):
    film = picture(tmp_path / "film.png")
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as archive:
        archive.write(film, "film.png")
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(film, "film.png")
        archive.write(tmp_path / "inner.zip", "deep/inner.zip")
    found, unreadable = found_in(tmp_path / "outer.zip")
    assert found.images == (tmp_path / "outer.zip" / "film.png",)
    (problem,) = unreadable.values()
    assert problem.endswith("deep/inner.zip: is a zip file in a zip file")


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_are_followed_once_and_dangling_ones_told(tmp_path):
    picture(tmp_path / "elsewhere" / "far.png")
    film = picture(tmp_path / "study" / "film.png")
    (tmp_path / "study" / "linked").symlink_to(tmp_path / "elsewhere", True)
    (tmp_path / "study" / "loop").symlink_to(tmp_path / "study", True)
    (tmp_path / "study" / "gone.png").symlink_to(tmp_path / "gone.png")
    found, unreadable = found_in(tmp_path / "study")
    assert found.images == (film, tmp_path / "study" / "linked" / "far.png")
    assert unreadable == {
        str(tmp_path / "study" / "gone.png"): f"{tmp_path}/study/gone.png: is a link to nothing"
    }


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_what_may_not_be_read_is_told(tmp_path):
    film = picture(tmp_path / "film.png")
    secret = picture(tmp_path / "IM0001")
    locked = picture(tmp_path / "locked" / "film.png").parent
    secret.chmod(0)
    locked.chmod(0)
    try:
        found, unreadable = found_in(tmp_path)
    finally:
        locked.chmod(0o755)
    assert found.images == (secret, film), "reading the first will say why it cannot be"
    assert unreadable[str(locked)].endswith("locked: cannot be read (Permission denied)")


@pytest.mark.parametrize("finished", [True, False])
def test_the_tool_s_own_pictures_are_no_films(tmp_path, finished):
    film = picture(tmp_path / "film.png")
    own = tmp_path / "predictions"
    options = Predict(paths=str(tmp_path), out=own)
    open_folder(own, "predict", options)
    picture(own / "heat_maps" / "film-01234567.png")
    if finished:
        close_folder(own, "predict", options, {}, "", 1)
    found, _ = found_in(tmp_path)
    assert found.images == (film,)
    assert found.own == (own,)


def test_a_record_of_some_other_program_hides_no_film(tmp_path):
    film = picture(tmp_path / "film.png")
    (tmp_path / "stage.json").write_text('["of a theatre"]')
    assert found_in(tmp_path)[0].images == (film,)


def test_a_film_in_a_zip_file_changes_with_it(tmp_path):
    film = picture(tmp_path / "film.png")
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as archive:
        archive.write(film, "film.png")
    before = stamp(tmp_path / "films.zip" / "film.png")
    with zipfile.ZipFile(tmp_path / "films.zip", "a") as archive:
        archive.write(film, "more.png")
    assert before != stamp(tmp_path / "films.zip" / "film.png") != (0, 0)
