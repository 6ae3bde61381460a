"""A folder that is no collection's root: one line with what was looked for, found, and where."""

import shutil
import zipfile
from pathlib import Path

import pytest

from organize_data import organize
from pipeline.errors import UserError
from pipeline.progress import Silent
from pipeline.stages.data import Organize
from sources.registry import MODULES, module_of
from tests.sources.folders.making import class_folders, with_table, women


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Paths are given as people give them: from the folder that they work in."""
    monkeypatch.chdir(tmp_path)


def refused(source, out, **options):
    """Return the one line that a folder is answered with; nothing may be written."""
    with pytest.raises(UserError) as told:
        organize(Organize(source=source, out=out, workers=1, **options), Silent())
    assert not out.exists()
    line = str(told.value)
    assert "\n" not in line
    assert len(line) <= 302
    return line


def mini_mias(root):
    """Write the names of a mini-MIAS; films are not read where the folder is a wrong one."""
    root.mkdir(parents=True)
    films = [f"mdb{number:03d}" for number in range(1, 5)]
    for name in films:
        (root / f"{name}.pgm").write_bytes(b"P5\n1024 1024\n255\n")
    (root / "Info.txt").write_text("\n".join(f"{name} G NORM" for name in films) + "\n")
    return root


def cbis_ddsm(root, collection):
    return shutil.copytree(collection, root)


def folders(root):
    return class_folders(root, count=2)


def splits(root):
    for split in ("train", "test"):
        class_folders(root / split, count=1)
    return root


def table(root):
    return with_table(root, women(root, 2))


MADE = {"mini-mias": mini_mias, "folders": folders, "splits": splits, "table": table}
SPOKEN = {"mini-mias": "mini-MIAS", "folders": "a folder of images"}


@pytest.mark.parametrize("levels", ["download", "stuff/download"])
@pytest.mark.parametrize("made", MADE)
def test_too_high_names_where_it_lies(made, levels):
    root = MADE[made](Path("data") / levels)
    (Path("data") / "notes.txt").write_text("x")
    line = refused(Path("data"), Path("out"))
    name = SPOKEN.get(made, "a folder of images")
    assert f"{name} seems to lie in {root}: give that as --source" in line
    held = f"holds 1 folder ({levels.split('/')[0]}), 1 file (notes.txt)"
    assert f"data: {held}, " in line
    assert "but not " in line


@pytest.mark.parametrize(
    ("made", "place"),
    [("splits", "train/benign"), ("folders", "benign"), ("table", "images"),
     ("mini-mias", "views"), ("mini-mias", "views/left")],
)  # fmt: skip
def test_too_low_names_where_it_lies(made, place):
    root = MADE[made](Path("download"))
    (root / place).mkdir(parents=True, exist_ok=True)
    (root / place / "one.png").write_bytes(b"x")
    line = refused(root / place, Path("out"))
    assert f"seems to lie in {root}: give that as --source" in line


def test_cbis_ddsm_too_high_is_found_and_too_low_is_told(collection):
    root = cbis_ddsm(Path("data/raw"), collection)
    organize(Organize(source=Path("data"), dry_run=True), Silent())
    lowest = next(path for path in root.glob("CBIS-DDSM/*/*") if path.is_dir())
    line = refused(lowest.parent, Path("out"))
    assert f"CBIS-DDSM seems to lie in {root}: give that as --source" in line
    line = refused(lowest, Path("out"))
    assert f"CBIS-DDSM seems to lie in {root / 'CBIS-DDSM'}: give that as --source" in line


def test_one_split_of_several_is_taken_with_a_note():
    for name in ("train", "valid", "test"):
        class_folders(Path("data") / name, count=10)
    source = Path("data/train")
    result = organize(Organize(source=source, dry_run=True), Silent())
    wanted = "data/train is the train split alone: test, valid beside it are not read; for all of "
    assert f"{wanted}them give --source data" in result.notes


def test_two_that_fit_are_both_named():
    for name in ("one", "two"):
        mini_mias(Path("data") / name)
    line = refused(Path("data"), Path("out"))
    assert "lie in data/one (and in data/two)" in line


def test_a_packed_download_is_told_to_be_unpacked():
    root = mini_mias(Path("m"))
    Path("data").mkdir()
    with zipfile.ZipFile(Path("data") / "all-mias.zip", "w") as packed:
        for path in root.iterdir():
            packed.write(path, path.name)
    # A download, or datasets, that lie beside it by chance are not what was meant.
    for name in ("a", "b"):
        raw = class_folders(Path("work") / name, count=10)
        organize(Organize(source=raw, out=Path(name)), Silent())
    line = refused(Path("data"), Path("out"))
    assert "holds 1 file (all-mias.zip)" in line
    assert "unpack all-mias.zip, and give the folder that it makes as --source" in line


def test_a_packed_file_itself_and_a_table_itself_are_refused_as_flags(tmp_path, run_here):
    for name, what in (("all.zip", "is packed: unpack it"), ("labels.csv", "is a file: give the")):
        (tmp_path / name).write_bytes(b"x")
        done = run_here("organize", "--source", name, "--batch")
        assert done.returncode == 1
        assert what in done.stderr
        assert done.stderr.count("\n") == 1


def test_only_the_table():
    Path("a").mkdir()
    with_table(Path("a"), ["1.png,1,B,L,CC"])
    line = refused(Path("a"), Path("out"))
    assert "labels.csv names images, and none of them is there" in line
    root = mini_mias(Path("b"))
    for film in root.glob("*.pgm"):
        film.unlink()
    line = refused(root, Path("out"))
    assert "Info.txt of mini-MIAS is there, but none of its films" in line


def test_only_the_films():
    root = mini_mias(Path("b"))
    (root / "Info.txt").unlink()
    line = refused(root, Path("out"))
    assert "4 films of mini-MIAS are there, but not Info.txt" in line


def test_only_the_case_descriptions(collection):
    Path("raw").mkdir()
    for path in collection.glob("*.csv"):
        shutil.copy(path, Path("raw"))
    line = refused(Path("raw"), Path("out"))
    assert "holds no DICOM or JPEG file of the collection" in line


def test_nothing_near_names_the_collections_and_is_short():
    place = Path("a/b/c/d")
    place.mkdir(parents=True)
    (place / "letter.docx").write_text("x")
    line = refused(place, Path("out"))
    for name in ("CBIS-DDSM", "mini-MIAS", "a folder of images"):
        assert name in line
    assert "--collection" in line


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_named_collection_says_what_it_lacks(name):
    place = Path("a/b/c/d")
    place.mkdir(parents=True)
    (place / "letter.docx").write_text("x")
    line = refused(place, Path("out"), collection=name)
    assert str(place) in line
    assert module_of(name).MARKS


def test_a_home_full_of_folders_is_answered_soon():
    place = Path("a/b/home")
    for number in range(300):
        (place / f"d{number}" / "x" / "y").mkdir(parents=True)
    assert "none of the collections" in refused(place, Path("out"))
