"""Mendeley ywsbh3ndr8: films by their names, variants and patients in one split, twins, damage."""

import csv
import shutil
from collections import defaultdict
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from organize_data import organize
from pipeline.errors import UserError
from pipeline.manifest import read_manifest
from pipeline.options import checked
from pipeline.progress import Silent
from pipeline.stages.collections import Synthesize
from pipeline.stages.data import Organize
from sources import mendeley
from sources.pseudonyms import OpenNames
from sources.registry import live_counts, plan_of, recognised
from sources.synthetic.others import write_lookalike

MERGED = "INbreast+MIAS+DDSM Dataset"


@pytest.fixture(scope="session")
def films(once):
    """A look-alike of all parts; not to be written to."""

    def make(folder):
        options = Synthesize(collection="mendeley", out=folder, patients=12, size="256", workers=1)
        write_lookalike(options, Silent())
        return folder

    return once("mendeley", make)


@pytest.fixture(scope="session")
def organised(films, once):
    """That look-alike, organised as it is by default."""
    return once("mendeley-organised", lambda folder: (folder, organise(films, folder)))


def organise(source, out, **options):
    return organize(Organize(source=source, out=out, workers=1, **options), Silent())


def aside(out):
    path = out / "set_aside.csv"
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {line["what"]: line["reason"] for line in csv.DictReader(file)}


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (20, 24)).astype(np.uint8)


def write(folder, name, pixels):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return path


def write_ddsm(root, women=12, variants=2):
    """Write films of one woman after the other, every second one malignant."""
    for woman in range(women):
        kind = "Malignant Masses" if woman % 2 else "Benign Masses"
        for view, seed in (("CC", 0), ("MLO", 1)):
            for number in range(1, variants + 1):
                name = f"{kind}/D2_A_{woman:04d}_1.LEFT_{view} ({number}).png"
                write(root, name, picture(100 * woman + 10 * seed + number))
    return root


@pytest.mark.parametrize(
    ("stem", "film", "patient", "side", "view", "density", "number"),
    [
        ("D1_A_0230_1.LEFT_CC (3)", "A_0230_1.LEFT_CC", "ddsm_A_0230", "LEFT", "CC", 1, 3),
        ("D4_B_3012_1.RIGHT_MLO", "B_3012_1.RIGHT_MLO", "ddsm_B_3012", "RIGHT", "MLO", 4, 0),
        ("20586908 (37)", "20586908", "", "", "", None, 37),
        ("20586908_6c613a14b80a8591_MG_R_ML_ANON (2)", "20586908", "inbreast_6c613a14b80a8591",
         "RIGHT", "MLO", None, 2),
        ("mdb001 (3)", "mdb001", "mias_001", "LEFT", "MLO", None, 3),
        ("mdb002(72)", "mdb002", "mias_001", "RIGHT", "MLO", None, 72),
    ],
)  # fmt: skip
def test_a_name_tells_its_film(stem, film, patient, side, view, density, number):
    found, variant = mendeley._film_of(stem)
    assert variant == number
    told = (found.film_id, found.patient_id, found.laterality, found.view, found.density)
    assert told == (film, patient, side, view, density)


@pytest.mark.parametrize("stem", ["photo (3)", "D1_A_0230", "2058690 (1)", "mdb1 (2)", ""])
def test_other_names_tell_no_film(stem):
    assert mendeley._film_of(stem) is None


def test_variants_are_training_images_of_the_film_that_one_stands_for(films, organised):
    out, result = organised
    assert recognised(films) == "mendeley"
    rows = read_manifest(out)
    films_in = defaultdict(set)
    patients = defaultdict(set)
    for row in rows:
        film, _, number = row.image_id.rpartition("_")
        films_in[film].add(row.split)
        patients[row.patient_id].add(row.split)
        assert row.parent == ("" if number == "1" else f"{film}_1")
        assert row.split == "train" or not row.parent
        folder = "Malignant Masses" if row.label == "malignant" else "Benign Masses"
        assert f"/{folder}/" in row.source_id
        assert MERGED not in row.source_id
    assert all(len(splits) == 1 for splits in (*films_in.values(), *patients.values()))
    assert {splits for found in films_in.values() for splits in found} == {"train", "val", "test"}
    assert {row.collection for row in rows} == {"DDSM", "INbreast", "MIAS"}
    pictures = list(films.rglob("*.png"))
    assert result.facts["pictures"] == len(pictures)
    assert result.facts["films"] == len({mendeley._film_of(one.stem)[0] for one in pictures})
    left_out = {entry["why"]: entry["images"] for entry in result.facts["left_out"]}
    assert result.facts["images"] + sum(left_out.values()) == len(pictures)
    assert left_out["the same pixels as another picture"] >= len(pictures) / 2
    assert aside(out) == {}


def test_what_the_collection_lacks_is_said(organised, films, tmp_path):
    _, result = organised
    assert result.facts["question"] == "benign-malignant"
    assert any(note.startswith("the collection holds no normal images") for note in result.notes)
    assert any(note.startswith("names of INbreast tell no patient") for note in result.notes)
    other = organise(films, tmp_path / "other", question="malignant-rest", dry_run=True)
    assert any("--question benign-malignant names the labels so" in note for note in other.notes)
    with pytest.raises(UserError, match="images are abnormal"):
        organise(films, tmp_path / "other", question="abnormal-normal", dry_run=True)


def test_variants_can_be_left_out(films, organised, tmp_path):
    out, result = organised
    organise(films, tmp_path / "out", variants="leave-out")
    alone = {row.image_id: row.split for row in read_manifest(tmp_path / "out")}
    assert alone == {row.image_id: row.split for row in read_manifest(out) if not row.parent}
    assert len(alone) == result.facts["films"]


def test_a_question_counts_films_by_names(films, organised):
    counts = live_counts("question", {"source": films, "collection": "mendeley"})
    films_in = organised[1].facts["films"]
    assert counts["benign-malignant"].startswith(f"{films_in:,} images (")
    assert counts["auto"] == counts["benign-malignant"]


@pytest.mark.parametrize("part", ["DDSM Dataset", MERGED])
def test_a_part_is_enough_and_may_be_renamed(films, tmp_path, part):
    root = tmp_path / "masses"
    for kind, name in (("Benign Masses", "benign_masses"), ("Malignant Masses", "MALIGNANT MASS")):
        shutil.copytree(films / part / kind, root / "renamed" / name)
    for source in (root, root / "renamed"):
        result = organise(source, source.with_name(f"{source.name}-out"), dry_run=True)
        pictures = list((films / part).rglob("*.png"))
        assert result.facts["pictures"] == len(pictures)
        assert result.facts["films"] == len({mendeley._film_of(one.stem)[0] for one in pictures})


def test_twins_under_other_names_count_once_and_join_their_patients(tmp_path):
    root = write_ddsm(tmp_path / "raw")
    turned = np.rot90(picture(1))  # variant 1 of woman 0, CC
    write(root, "Benign Masses/D2_A_0900_1.LEFT_CC (1).png", turned)
    write(root, "Benign Masses/D2_A_0900_1.LEFT_MLO (1).png", picture(9001))
    own = "Benign Masses/D2_A_0000_1.LEFT_CC (3).png"
    write(root, own, picture(1)[::-1])  # of the same film: a variant, and no twin
    result = organise(root, tmp_path / "out")
    rows = {row.image_id: row for row in read_manifest(tmp_path / "out")}
    assert "A_0900_1.LEFT_CC_1" not in rows
    assert rows["A_0900_1.LEFT_MLO_1"].patient_id == "ddsm_A_0000"
    assert result.facts["twins"] == 1
    variant = "A_0000_1.LEFT_CC_3"
    assert (variant in rows) == (rows["A_0000_1.LEFT_CC_1"].split == "train")
    assert rows["A_0001_1.LEFT_CC_1"].patient_id == "ddsm_A_0001"


def test_a_film_in_both_classes_is_malignant(tmp_path):
    root = write_ddsm(tmp_path / "raw")
    write(root, "Malignant Masses/D2_A_0000_1.LEFT_CC (1).png", picture(5000))
    result = organise(root, tmp_path / "out")
    rows = [row for row in read_manifest(tmp_path / "out") if "A_0000_1.LEFT_CC" in row.image_id]
    assert {row.label for row in rows} == {"malignant"}
    assert any(note.startswith("1 films stand in both classes") for note in result.notes)
    assert len({row.image_id for row in rows}) == len(rows)


def test_films_of_near_numbers_stay_together(tmp_path):
    root = tmp_path / "INbreast Dataset"
    numbers = [20586908, 20586934, 20586986, 20587200, 20587226]
    named = {30000000: "30000000_6c613a14b80a8591_MG_R_CC_ANON",
             30000026: "30000026_b6a4f750c6df4f90_MG_R_CC_ANON",
             30005000: "30005000_6c613a14b80a8591_MG_L_CC_ANON"}  # fmt: skip
    for place, number in enumerate([*numbers, *named]):
        kind = "Malignant Masses" if place in (0, 1, 5) else "Benign Masses"
        write(root, f"{kind}/{named.get(number, number)} (2).png", picture(place))
    options = checked(Organize, {"source": tmp_path, "workers": 1})
    records = mendeley.read(options, Silent()).records
    who = {int(record.image_id.split("_")[0]): record.patient_id for record in records}
    assert len({who[number] for number in numbers[:3]}) == 1
    assert len({who[number] for number in numbers[3:]}) == 1
    assert who[numbers[0]] != who[numbers[3]]
    assert who[30000000] == who[30005000] == "inbreast_6c613a14b80a8591"
    assert who[30000026] == "inbreast_b6a4f750c6df4f90"


def test_damage_is_set_aside_by_name_and_the_next_variant_stands_in(tmp_path):
    root = write_ddsm(tmp_path / "raw")
    broken = root / "Benign Masses" / "D2_A_0000_1.LEFT_CC (1).png"
    broken.write_bytes(broken.read_bytes()[:-60])
    write(root, "Benign Masses/D2_A_0002_1.LEFT_CC (2).png", np.full((20, 24), 7, np.uint8))
    write(root, "Benign Masses/holiday (1).png", picture(1))
    write(root, "D2_A_0004_1.RIGHT_CC (1).png", picture(2))
    (root / "Benign Masses" / "notes.txt").write_text("text")
    (root / "Benign Masses" / "Thumbs.db").write_text("text")
    result = organise(root, tmp_path / "out")
    reasons = aside(tmp_path / "out")
    assert "truncated" in reasons.pop(broken.relative_to(root).as_posix())
    assert reasons == {
        "Benign Masses/D2_A_0002_1.LEFT_CC (2).png": "is of one grey value",
        "Benign Masses/holiday (1).png": "its name tells no film of DDSM, INbreast or MIAS",
        "Benign Masses/notes.txt": "is no image file",
        "D2_A_0004_1.RIGHT_CC (1).png": "lies in no folder 'Benign' or 'Malignant Masses'",
    }
    assert result.set_aside == 5
    rows = {row.image_id: row for row in read_manifest(tmp_path / "out")}
    assert rows["A_0000_1.LEFT_CC_2"].parent == ""
    assert sum(not row.parent for row in rows.values()) == 24


@pytest.mark.slow
def test_the_13128_pictures_of_ddsm_are_2188_films_of_1100_patients(tmp_path):
    for kind in ("Benign Masses", "Malignant Masses"):
        (tmp_path / "DDSM Dataset" / kind).mkdir(parents=True)
    for woman in range(1100):
        kind = ("Benign Masses", "Malignant Masses")[woman % 2]
        for view in ("CC", "MLO")[: 1 if woman < 12 else 2]:
            name = f"D{woman % 4 + 1}_{'ABCD'[woman % 4]}_{woman:04d}_1.LEFT_{view}"
            for number in range(1, 7):
                (tmp_path / "DDSM Dataset" / kind / f"{name} ({number}).png").touch()
    options = checked(Organize, {"source": tmp_path, "dry_run": True})
    plan = plan_of(options, OpenNames(), Silent())
    facts = plan.facts()
    assert (facts["pictures"], facts["films"], len(plan.splits)) == (13128, 2188, 1100)
    films_in = defaultdict(set)
    for image in plan.images:
        films_in[image.record.variant_of or image.image_id].add(plan.splits[image.patient_id])
    assert len(films_in) == 2188
    assert all(len(splits) == 1 for splits in films_in.values())
    planned = facts["planned"]
    films_of_training = 2188 - planned["val"]["images"] - planned["test"]["images"]
    assert planned["train"]["images"] == 6 * films_of_training


def test_looking_at_pictures_is_shown(films):
    shown = []

    class Shown(Silent):
        @contextmanager
        def track(self, text, total, *_):
            counted = []
            yield counted.append
            shown.append((text, total, sum(counted)))

    plan_of(checked(Organize, {"source": films}), OpenNames(), Shown())
    ((text, total, counted),) = shown
    assert text == "Looking at pictures"
    assert total == counted == sum(1 for path in films.rglob("*.png"))
