"""The methods section: sentences in the past tense, that agree with numbers and with the runs."""

import dataclasses

import pytest

from interface.report.reading.words import listed
from pipeline.records import read_json, write_json
from tests.interface.report.files import cohort, dataset, page_of, run_folder
from tests.interface.report.test_stage import Page

PREPROCESSED = {
    "size": 512, "crop": "auto", "annotations": True, "blur": "median", "blur_kernel": 5,
    "clahe": True, "clahe_clip": 2.0, "clahe_tiles": 8, "side": "left", "augment": "flip",
    "copies": 1,
}  # fmt: skip


def change(folder, preprocess=None, **options):
    """Change what a run was trained with, and on."""
    record = read_json(folder / "stage.json")
    write_json(folder / "stage.json", record | {"options": record["options"] | options})
    if preprocess:
        model = read_json(folder / "model.json")
        write_json(folder / "model.json", model | {"preprocess": preprocess})


@pytest.fixture
def two(tmp_path):
    """Two runs on real images: their folders and what gives their methods."""
    rows = [dataclasses.replace(row, laterality="LEFT") for row in cohort(8)]
    data = dataset(tmp_path, rows, synthetic=False)
    first = run_folder(tmp_path / "runs", data, rows, "ResNet18_CFT", 0.9)
    second = run_folder(tmp_path / "runs", data, rows, "MammoCNN", 0.8)
    return first, second, lambda: " ".join(page_of(tmp_path).methods)


def test_preprocessing_is_told_in_sentences_with_its_units(two):
    *folders, text = two
    for folder in folders:
        change(folder, PREPROCESSED)
    assert (
        "The scanner's borders were found in each image and cropped. Letters, labels and tape "
        "outside the breast were blackened. Images were scaled to fit 512 x 512 pixels, their "
        "aspect ratio kept, the rest black. Film grain was smoothed by a median filter of 5 x 5 "
        "pixels. Local contrast was enhanced by contrast-limited adaptive histogram equalisation "
        "(CLAHE; Zuiderveld 1994) with a clip limit of 2 and 8 x 8 tiles. Images were mirrored "
        "where the chest wall was not on the left. To each training image 1 augmented variant was "
        "added (flips)."
    ) in text()


def test_what_differs_between_runs_is_told_of_each(two):
    first, second, text = two
    change(first, PREPROCESSED, label_smoothing=0.1, learning_rate=0.001, seed=1)
    change(second, PREPROCESSED | {"size": 224}, mixup=0.2, learning_rate=0.0005, seed=2)
    written = text()
    for sentence in (
        "For ResNet18_CFT, images were scaled to fit 512 x 512 pixels, their aspect ratio kept, "
        "the rest black; for MammoCNN, images were scaled to fit 224 x 224 pixels",
        "For ResNet18_CFT, label smoothing (Szegedy et al. 2016) of 0.1 was used; for MammoCNN, "
        "mixup (Zhang et al. 2018) with an alpha of 0.2 was used.",
        "For ResNet18_CFT, the peak learning rate was 0.001; for MammoCNN, the peak learning rate "
        "was 0.0005.",
        "The random seeds were 1 and 2.",
        "The two runs were compared",
    ):
        assert sentence in written
    assert "None" not in written


def test_runs_of_one_model_are_told_apart_by_their_seeds(tmp_path):
    rows = cohort(8)
    data = dataset(tmp_path, rows)
    for seed in (1, 2):
        change(run_folder(tmp_path / "runs", data, rows, seed=seed), epochs=seed)
    text = " ".join(page_of(tmp_path).methods)
    assert (
        "For ResNet18_CFT (seed 1), training lasted at most 1 epoch; for ResNet18_CFT (seed 2), "
        "training lasted at most 2 epochs."
    ) in text


def test_numbers_agree_with_their_nouns(two):
    *folders, text = two
    for folder in folders:
        change(folder, epochs=1, patience=1, batch_size=1)
    written = text()
    assert (
        "Training lasted at most 1 epoch. It was to stop after 1 epoch without a better" in written
    )
    assert "A batch held 1 image." in written
    assert "Neither mixup nor label smoothing was used." in written


@pytest.mark.parametrize("weights", ["none", "imagenet"])
def test_a_linear_probe_on_random_weights_is_called_a_control(tmp_path, weights):
    rows = cohort(8)
    run_folder(tmp_path / "runs", dataset(tmp_path, rows), rows, "ResNet18_OPW", strategy="opw",
               weights=weights)  # fmt: skip
    made = page_of(tmp_path)
    control = (
        "was frozen at random weights, as no pretrained weights were given: a control, not "
        "transfer learning; a linear probe was fitted"
    )
    for text in (" ".join(made.methods), Page(made.text).text):
        assert (control in text) == (weights == "none")
        assert ("was frozen at ImageNet weights; a linear" in text) == (weights == "imagenet")
    assert "epoch of the highest" not in " ".join(made.methods)
    assert "The linear probe of ResNet18_OPW was fitted by logistic regression" in made.methods[3]


@pytest.mark.parametrize(
    ("items", "expected"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), ("abc", "a, b and c")]
)
def test_a_list_is_joined_as_in_a_sentence(items, expected):
    assert listed(items) == expected
