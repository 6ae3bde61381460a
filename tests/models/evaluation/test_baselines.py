"""The sanity baselines on small datasets of drawn films."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
import torch

from models.evaluation.background import background_features
from models.evaluation.baselines import baselines, shuffled_labels, unexpected
from models.evaluation.tested import kept_baselines
from models.metrics import auc
from pipeline.manifest import LABELS, Row, image_path, read_manifest, write_manifest
from pipeline.progress import Silent
from pipeline.records import close_folder
from pipeline.stages.data import Preprocess

SIDE = 224
PATIENTS = {"train": 10, "val": 2, "test": 8}
NAMES = ["majority", "assessment", "metadata", "untrained", "shuffled", "background"]
SAID = {"density": 2, "finding": "mass", "subtlety": "3", "shape": "OVAL", "margins": "ILL_DEFINED"}


def inside():
    """Where the breast is drawn: a half disc at the left side."""
    y, x = np.mgrid[:SIDE, :SIDE]
    return (x / 110) ** 2 + ((y - 112) / 95) ** 2 < 1


def film(number, level=110):
    """A breast of even brightness before a grainy dark background."""
    generator = np.random.default_rng(number)
    image = generator.integers(10, 15, (SIDE, SIDE))
    image[inside()] = level + generator.integers(-8, 9, int(inside().sum()))
    return image.astype(np.uint8)


def make(folder, draw=lambda number, _malignant: film(number), said=lambda _malignant: {}):
    """Write a dataset of one film a patient, every other one malignant."""
    rows, number = [], 0
    for split, count in PATIENTS.items():
        for _ in range(count):
            label = LABELS[number % 2]
            image_id = f"P_{number:05d}_LEFT_CC"
            path = image_path(split, label, image_id)
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / path), draw(number, bool(number % 2)))
            row = Row(
                image_id=image_id, patient_id=f"P_{number:05d}", split=split, label=label,
                path=path, laterality="LEFT", view="CC",
            )  # fmt: skip
            rows.append(dataclasses.replace(row, **said(bool(number % 2))))
            number += 1
    write_manifest(folder, rows)
    close_folder(folder, "preprocess", Preprocess(out=folder), {}, "", 0.0)
    return folder


def computed(folder, runs, rows=None, seed=1):
    return baselines(folder, rows or read_manifest(folder), runs, 1, seed, Silent())


def some(folder, **counts):
    """A few rows of each split: what is no matter of the images needs few of them."""
    rows = read_manifest(folder)
    parts = ([row for row in rows if row.split == split][:count] for split, count in counts.items())
    return [row for part in parts for row in part]


def scores_of(made):
    return {one["name"]: one["test"] | one["val"] for one in made["baselines"]}


def problems_of(made):
    return {one["name"]: one["problem"] for one in made["baselines"]}


def areas_on_test(made, folder):
    return {
        one["name"]: auc(
            np.array([row.label == "malignant" for row in tested]),
            np.array([one["test"][row.image_id] for row in tested]),
        )
        for one in made["baselines"]
        if (tested := [row for row in read_manifest(folder) if row.image_id in one["test"]])
    }


def with_mark(number, malignant):
    """A small bright square above the breast of malignant films, which is brighter as well."""
    image = film(number, 150 if malignant else 110)
    if malignant:
        image[6:14, 170:178] = 90
    return image


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A dataset in which only the assessment predicts the label; not to be written to."""

    def said(malignant):
        return SAID | {"assessment": "5" if malignant else "2"}

    return make(tmp_path_factory.mktemp("honest") / "data", said=said)


@pytest.fixture(scope="module")
def of_honest(honest, tmp_path_factory):
    """Its baselines, and the folder of runs where they are kept; not to be written to."""
    runs = tmp_path_factory.mktemp("honest") / "runs"
    return computed(honest, runs), runs


def test_every_baseline_scores_every_image_of_val_and_test(honest, of_honest):
    made, runs = of_honest
    rows = read_manifest(honest)
    assert [one["name"] for one in made["baselines"]] == NAMES
    for one in made["baselines"]:
        assert one["problem"] == ""
        assert one["title"]
        assert one["description"].endswith(".")
        for split in ("val", "test"):
            assert set(one[split]) == {row.image_id for row in rows if row.split == split}
            assert all(0 <= score <= 1 for score in one[split].values())
    kept = runs / ".baselines" / f"{made['data_hash']}.json"
    assert json.loads(kept.read_text(encoding="utf-8")) == made
    assert kept_baselines(runs, made["data_hash"]) == made["baselines"]
    assert kept_baselines(runs, "another") == []


def test_an_assessment_that_tells_the_label_is_perfect_and_the_majority_is_a_coin(
    honest, of_honest
):
    areas = areas_on_test(of_honest[0], honest)
    assert areas["assessment"] == 1
    assert areas["majority"] == 0.5
    assert set(scores_of(of_honest[0])["majority"].values()) == {0.5}


def test_of_several_lesions_the_highest_assessment_counts(honest, tmp_path):
    rows = some(honest, train=4, test=5)
    tested = [row.image_id for row in rows if row.split == "test"]
    changed = dict(zip(tested, ("2|5", "5|0", "2|2", "4", ""), strict=False))
    rows = [
        dataclasses.replace(row, assessment=changed.get(row.image_id, row.assessment))
        for row in rows
    ]
    found = scores_of(computed(honest, tmp_path, rows))["assessment"]
    assert [found[name] for name in changed] == [1, 1, 0, 0.5, 0.5], "unknown levels: the base rate"


def test_metadata_does_not_look_at_assessment_and_pathology(honest, of_honest, tmp_path):
    made, _ = of_honest
    assert areas_on_test(made, honest)["metadata"] == 0.5
    rows = [
        dataclasses.replace(row, margins="SPICULATED|ILL_DEFINED")
        if row.label == "malignant"
        else row
        for row in some(honest, train=6, test=4)
    ]
    assert areas_on_test(computed(honest, tmp_path, rows), honest)["metadata"] == 1


def test_labels_of_validation_and_test_and_augmented_copies_change_nothing(
    honest, of_honest, tmp_path
):
    rows = []
    for row in read_manifest(honest):
        other = LABELS[row.label == LABELS[0]]
        if row.split == "train":
            rows.append(dataclasses.replace(
                row, image_id=f"{row.image_id}_aug1", label=other, parent=row.image_id
            ))  # fmt: skip
            rows.append(row)
        else:
            rows.append(dataclasses.replace(row, label=other))
    assert scores_of(computed(honest, tmp_path, rows)) == scores_of(of_honest[0])


def test_shuffled_labels_belong_to_another_patient():
    rows = [
        Row(image_id=f"{patient}-{view}", patient_id=str(patient), split="train", path="",
            label=LABELS[patient % 4 == 0 and view == "CC"])
        for patient in range(40)
        for view in ("CC", "MLO")
    ]  # fmt: skip
    truth = np.arange(40) % 4 == 0
    agreeing = []
    for seed in range(20):
        labels = shuffled_labels(rows, seed).reshape(40, 2)
        assert (labels[:, 0] == labels[:, 1]).all(), "the images of a patient stay together"
        assert labels[:, 0].sum() == truth.sum()
        agreeing.append((labels[:, 0] == truth).mean())
    assert np.mean(agreeing) == pytest.approx(0.25**2 + 0.75**2, abs=0.05), "as chance has it"


def test_the_background_does_not_see_the_breast(honest, of_honest, tmp_path):
    def painted(number, malignant):
        image = film(number)
        image[inside()] = np.random.default_rng(number).permutation(image[inside()])
        if malignant:
            cv2.circle(image, (50, 112), 20, 170, -1)
        return image

    folder = make(tmp_path / "painted", painted)
    found = scores_of(computed(folder, tmp_path))
    assert found["background"] == pytest.approx(scores_of(of_honest[0])["background"], abs=0.03)
    assert found["untrained"] != scores_of(of_honest[0])["untrained"]
    assert areas_on_test(of_honest[0], honest)["background"] < 0.8
    assert unexpected(of_honest[0], read_manifest(honest), 500, 1) == []


def test_a_shortcut_in_the_background_is_called_out(tmp_path):
    folder = make(tmp_path / "marked", with_mark)
    made = computed(folder, tmp_path)
    areas = areas_on_test(made, folder)
    assert areas["background"] == 1
    assert areas["shuffled"] < 0.9, "fitted to the true labels it would be 1"
    notes = unexpected(made, read_manifest(folder), 500, 1)
    (note,) = (one for one in notes if one.startswith("the background alone"))
    assert "test AUC 1.000 (1.000 to 1.000); look for marks" in note


@pytest.mark.parametrize("image", ["nothing", "noise", "white"])
def test_where_no_breast_is_found_nothing_is_shown(image):
    generator = np.random.default_rng(1)
    pixels = {
        "nothing": np.zeros((SIDE, SIDE), np.uint8),
        "noise": generator.integers(0, 256, (SIDE, SIDE), np.uint8),
        "white": np.full((SIDE, SIDE), 255, np.uint8),
    }
    assert not background_features(pixels[image]).any()


def test_what_fills_the_image_up_to_a_square_is_no_film():
    square = np.zeros((SIDE, SIDE), np.uint8)
    square[:, 40:184] = film(1)[:, :144]
    other = square.copy()
    other[90:130, 60:90] = 170
    assert background_features(square) == pytest.approx(background_features(other), abs=1e-9)
    marked = square.copy()
    marked[6:14, 150:158] = 90
    assert background_features(square) != pytest.approx(background_features(marked), abs=0.01)


def test_what_cannot_be_computed_says_why_and_a_broken_image_stops_nothing(tmp_path):
    folder = make(tmp_path / "data")
    rows = read_manifest(folder)
    broken = next(row for row in rows if row.split == "test")
    (folder / broken.path).write_bytes(b"no image")
    bare = [dataclasses.replace(row, view="", laterality="", unit="crop") for row in rows]
    made = computed(folder, tmp_path, bare)
    problems = problems_of(made)
    assert problems["assessment"] == "the dataset names no BI-RADS assessments"
    assert problems["metadata"].startswith("the dataset says nothing of density, view")
    assert problems["background"] == "lesion crops have no background"
    scores = scores_of(made)
    assert not any(scores[name] for name in ("assessment", "metadata", "background"))
    assert broken.image_id in scores["majority"]
    assert broken.image_id not in scores["untrained"]
    assert len(scores["untrained"]) == len(scores["shuffled"]) == len(scores["majority"]) - 1
    few = [dataclasses.replace(row, unit="patch") for row in some(folder, train=6, test=2)]
    patches = computed(folder, tmp_path / "patches", few)
    assert problems_of(patches)["background"] == "patches have next to no background"
    one_class = [
        row
        for row in some(folder, train=6, test=2)
        if row.split != "train" or row.label == "benign"
    ]
    alone = computed(folder, tmp_path, one_class)
    assert problems_of(alone)["shuffled"] == "the training images show one class only"
    assert set(scores_of(alone)["majority"].values()) == {0.0}


def test_they_are_kept_and_made_again_where_something_changed(honest, tmp_path):
    rows = some(honest, train=4, test=2)
    state = torch.get_rng_state()
    made = computed(honest, tmp_path, rows)
    assert torch.equal(torch.get_rng_state(), state), "nobody else's random numbers change"
    (path,) = (tmp_path / ".baselines").iterdir()
    first = path.stat()
    assert computed(honest, tmp_path, rows) == made
    assert path.stat().st_mtime_ns == first.st_mtime_ns
    for damage in (path.read_text(encoding="utf-8")[:-500], "[]", '{"baselines": [{}]}'):
        path.write_text(damage, encoding="utf-8")
        assert kept_baselines(tmp_path, made["data_hash"]) == []
    assert computed(honest, tmp_path, rows) == made, "the same seed gives the same scores"
    other = computed(honest, tmp_path, rows, seed=2)
    assert other["seed"] == 2
    assert scores_of(other)["untrained"] != scores_of(made)["untrained"]
    old = json.loads(path.read_text(encoding="utf-8")) | {"code": "older"}
    path.write_text(json.dumps(old), encoding="utf-8")
    assert computed(honest, tmp_path, rows, seed=2) == other
    assert json.loads(path.read_text(encoding="utf-8")) == other


def test_folds_are_kept_beside_the_split_and_an_ensemble_of_all_takes_the_split(honest, of_honest):
    made, runs = of_honest
    rows = read_manifest(honest)
    swap = {"train": "val", "val": "train", "test": "test"}
    fold = computed(honest, runs, [dataclasses.replace(row, split=swap[row.split]) for row in rows])
    assert len(fold["baselines"][0]["val"]) == PATIENTS["train"]
    assert kept_baselines(runs, made["data_hash"]) == made["baselines"]
    every = [dataclasses.replace(row, split=row.split.replace("train", "val")) for row in rows]
    assert computed(honest, runs, every) == made


def test_only_what_should_not_predict_is_unexpected_and_only_with_enough_patients():
    rows = [
        Row(image_id=str(number), patient_id=f"P_{number}", split="test", path="",
            label=LABELS[number % 2])
        for number in range(40)
    ]  # fmt: skip
    perfect = {row.image_id: float(row.label == "malignant") for row in rows}
    made = {"baselines": [{"name": name, "test": perfect} for name in NAMES]}
    notes = unexpected(made, rows, 200, 1)
    assert len(notes) == 3
    assert [note.split(" tells")[0] for note in notes] == [
        "a network that learnt nothing",
        "a linear probe that was fitted to shuffled labels",
        "the background alone, the breast masked out,",
    ]
    assert unexpected(made, rows[:4], 200, 1) == [], "two patients of each class say nothing"
    reverse = {name: 1 - score for name, score in perfect.items()}
    assert unexpected({"baselines": [{"name": "background", "test": reverse}]}, rows, 200, 1) == []
    assert unexpected({"baselines": [{"name": "background", "test": {}}]}, rows, 200, 1) == []


def test_an_assessment_that_only_lesions_have_is_no_baseline(tmp_path):
    folder = make(tmp_path / "data")
    rows = [
        dataclasses.replace(
            row,
            label="abnormal" if row.is_positive else "normal",
            diagnosis="malignant" if row.is_positive else "normal",
            assessment="4" if row.is_positive else "",
        )
        for row in some(folder, train=6, val=2, test=2)
    ]
    made = computed(folder, tmp_path, rows)
    assert problems_of(made)["assessment"].startswith("normal images have no BI-RADS assessment")
    assert not scores_of(made)["assessment"]
