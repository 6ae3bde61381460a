"""The two labels of a dataset: how files keep them, and how people read them."""

import json

import pytest

from pipeline.errors import UserError
from pipeline.labels import KEYS, Labels, is_rare, known_label, note_on_labels, what_normal_is
from pipeline.manifest import QUESTIONS, Row
from pipeline.records import read_json

PAIRS = [Labels(*pair) for pair in QUESTIONS.values()]


@pytest.mark.parametrize("labels", PAIRS, ids=QUESTIONS)
def test_a_file_gives_back_the_labels_that_it_was_told(labels):
    assert Labels.recorded({"model": "x", **json.loads(json.dumps(labels.record))}) == labels
    rows = [
        Row(image_id=label, patient_id=label, split="train", label=label, path="")
        for label in (labels.positive, labels.negative)
    ]
    assert Labels.of(rows) == labels
    assert [labels.label(row.is_positive) for row in rows] == [labels.positive, labels.negative]


def test_the_usual_pair_leaves_files_as_they_were():
    assert Labels().record == {}
    assert Labels().names == KEYS == ("benign", "malignant")
    assert Labels.recorded({}) == Labels()
    assert Labels().evidence(False) == "of a benign finding"


def test_names_are_words():
    assert Labels("not_malignant", "malignant").names == ("not malignant", "malignant")
    assert Labels("normal", "abnormal").evidence(True) == "of abnormality"
    assert known_label(" Not malignant ") == "not_malignant"
    assert known_label("cancer") is None


def test_a_run_is_not_asked_what_it_did_not_learn():
    usual, rest, finding = PAIRS
    for trained, data in ((usual, finding), (finding, usual), (finding, rest), (rest, finding)):
        with pytest.raises(UserError, match=r"^M/1: learnt to tell .*, and the images of") as told:
            note_on_labels("M/1", trained, data)
        assert "\n" not in str(told.value)
    assert note_on_labels("M/1", usual, usual) == ""
    note = note_on_labels("M/1", usual, rest)
    assert note == (
        "the run learnt to tell benign or malignant, and the images here are not malignant or "
        "malignant"
    )


@pytest.mark.parametrize(
    ("positive", "images", "rare"),
    [(0, 100, False), (1, 100, True), (9, 100, True), (10, 100, False), (50, 100, False)],
)
def test_few_positives_are_less_than_a_tenth_and_some(positive, images, rare):
    assert is_rare(positive, images) == rare


def test_a_model_file_with_other_labels_is_damaged(tmp_path):
    path = tmp_path / "metrics.json"
    facts = {"labels": ["sick", "healthy"]}
    path.write_text(json.dumps(facts))
    with pytest.raises(UserError, match="is damaged"):
        read_json(path)


@pytest.mark.parametrize(
    ("question", "unit", "left_out", "said"),
    [
        ("abnormal-normal", "mammogram", False, "normal films"),
        ("abnormal-normal", "patch", False, "normal-tissue patches outside every lesion mask"),
        ("benign-malignant", "mammogram", False,
         "benign images, the nearest thing: the collection has no normal ones"),
        ("benign-malignant", "crop", False,
         "benign images, the nearest thing: the collection has no normal ones"),
        ("benign-malignant", "mammogram", True,
         "benign images; the collection's normal ones are left out"),
        ("malignant-rest", "mammogram", False,
         "normal films (where none are told, those that are not malignant)"),
    ],
)  # fmt: skip
def test_what_normal_was_can_be_said_of_each_question(question, unit, left_out, said):
    assert what_normal_is(Labels(*QUESTIONS[question]), unit, left_out) == said
