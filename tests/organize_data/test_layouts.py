"""One collection in every layout: the same dataset."""

import os
import zipfile

import pytest

from organize_data import organize
from pipeline.options import items_of, spec_of
from pipeline.progress import Silent
from pipeline.stages.collections import Synthesize
from pipeline.stages.data import Organize
from tests.organize_data.reading import contents, run

LAYOUTS = next(
    tuple(spec_of(item).choices) for item in items_of(Synthesize) if item.name == "layout"
)


@pytest.fixture(scope="module")
def plain(layouts, tmp_path_factory):
    """What comes of the smaller collection in the layout of the download."""
    out = tmp_path_factory.mktemp("plain") / "dataset"
    run(layouts("descriptive"), out)
    return contents(out)


# The JPEG copy has tests of its own in test_images.py.
@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(layout, marks=[pytest.mark.slow] if "descriptive" in layout else [])
        for layout in LAYOUTS
        if layout not in ("descriptive", "kaggle")
    ],
)
def test_every_layout_gives_the_same_bytes(plain, layouts, tmp_path, layout):
    run(layouts(layout), tmp_path / "dataset")
    assert plain
    assert contents(tmp_path / "dataset") == plain


def test_which_copy_of_a_film_stored_twice_is_taken_does_not_hang_on_dates_or_names(
    collection, copy, tmp_path
):
    plain = run(collection, tmp_path / "plain", finding="both", masks=False)
    moved = tmp_path / "moved"
    for number, path in enumerate(sorted(copy.rglob("*.dcm"))):  # calc first
        (moved / f"{number % 7}").mkdir(parents=True, exist_ok=True)
        place = path.rename(moved / f"{number % 7}" / f"{number}")
        os.utime(place, (number, number))
    for path in copy.glob("*.csv"):
        path.rename(moved / path.name)
    again = run(moved, tmp_path / "again", finding="both", masks=False)
    assert plain.facts["collection"]["twins"]["all"] > 0
    assert contents(again.folder) == contents(plain.folder)


@pytest.mark.parametrize("table", ["absent", "stale", "CRLF"])
def test_metadata_csv_says_nothing_that_is_needed(copy, whole, tmp_path, table):
    path = copy / "metadata.csv"
    text = path.read_text()
    path.unlink()
    if table == "stale":
        path.write_text(text.replace("2.25.", "2.26."))
    elif table == "CRLF":
        path.write_text(text.replace("\\", "/"), newline="\r\n")
    run(copy, tmp_path / "dataset")
    assert contents(tmp_path / "dataset") == contents(whole.folder)


def test_zips_of_any_content_and_name_are_looked_into(copy, whole, tmp_path):
    files = sorted(copy.rglob("*.dcm"))
    for number in range(3):
        with zipfile.ZipFile(copy / f"part {number}.ZIP", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("LICENSE", "text")
            for place, path in enumerate(files[number::3], start=1):
                archive.write(path, f"deep/{place}")
    for path in files:
        path.unlink()
    run(copy, tmp_path / "dataset")
    assert contents(tmp_path / "dataset") == contents(whole.folder)


class Counted(Silent):
    """Notes how many headers there were to read, and how many were known already."""

    def track(self, text, total, unit, done=0):
        if text == "Reading headers":
            self.total, self.known = total, done
        return super().track(text, total, unit, done)


def test_a_second_run_opens_no_header_again(collection, tmp_path):
    out, counted = tmp_path / "dataset", Counted()
    organize(Organize(source=collection, out=out, workers=1), counted)
    assert counted.total >= len(list(collection.rglob("*.dcm"))) > counted.known == 0
    organize(Organize(source=collection, out=out, workers=1, unit="crop"), counted)
    assert counted.known == counted.total


def test_a_file_that_changed_is_opened_again(copy, tmp_path):
    run(copy, tmp_path / "dataset")
    path, counted = next(copy.rglob("*.dcm")), Counted()
    path.write_bytes(path.read_bytes())
    organize(Organize(source=copy, out=tmp_path / "dataset", workers=1), counted)
    assert counted.known == counted.total - 1
