import csv
import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from models.data.loading import EvalTransform, load_split
from models.inference import choose_compute, image_logits, load_run, place, scoring_batch
from models.networks import build, head_name
from models.registry import MAMMO_CNN, MODELS
from models.training.frozen_features import FrozenLayers
from models.training.linear_probe import STRENGTHS, features_of
from models.training.stage import hyper_parameters_of, train
from pipeline.errors import UserError
from pipeline.manifest import read_manifest
from pipeline.progress import Silent
from pipeline.records import read_json
from pipeline.runs import list_runs
from tests.models.datasets import SIZE, make_dataset

QUICK = {"model": "MammoCNN", "size": 32}
PROBES = ("DenseNet121_OPW", "EfficientNetB3_OPW")  # the quickest of each family but ResNet18's
COLUMNS = [
    "epoch", "train_loss", "val_loss", "val_auc", "sensitivity", "specificity", "seconds",
]  # fmt: skip


def history_of(folder):
    with (folder / "history.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_real_training_learns(trained):
    rows = history_of(trained.folder)
    assert list(rows[0]) == COLUMNS
    assert float(rows[-1]["train_loss"]) < 0.7 * float(rows[0]["train_loss"])
    assert trained.facts["best_val_auc"] >= 0.85
    assert trained.facts["best_val_auc"] == max(float(row["val_auc"]) for row in rows)
    assert trained.headline.startswith("MammoCNN: best validation AUC ")
    assert trained.next_stage == "evaluate"
    assert trained.next_options["run"] == f"{trained.folder.parent.name}/{trained.folder.name}"


def test_the_row_says_how_to_train_and_options_say_otherwise(options_for, tmp_path):
    row = MODELS["ResNet18_CFT"]
    unsaid = {"model": row.name, "batch_size": 0}
    scratch = hyper_parameters_of(options_for(tmp_path, **unsaid), row)
    pretrained = hyper_parameters_of(options_for(tmp_path, weights="imagenet", **unsaid), row)
    assert (scratch.batch_size, scratch.learning_rate) == (8, 1e-3)
    assert (pretrained.batch_size, pretrained.learning_rate) == (16, 2e-4)
    given = hyper_parameters_of(options_for(tmp_path, batch_size=5, learning_rate=0.1), row)
    assert (given.batch_size, given.learning_rate) == (5, 0.1)


def test_the_run_folder_is_complete(trained, tiny_data):
    folder = trained.folder
    record = read_json(folder / "stage.json")
    counted = ("epochs", "best_epoch", "best_val_auc", "train_images", "val_images", "peak_memory")
    assert record["counts"] == {name: trained.facts[name] for name in counted}
    facts = read_json(folder / "model.json")
    rows = read_manifest(tiny_data)
    for split in ("train", "val"):
        expected = sorted({row.patient_id for row in rows if row.split == split})
        assert facts["patients"][split] == expected
    assert facts["input"]["size"] == SIZE
    assert facts["preprocess"]["clahe"] is True
    assert facts["weights"] == "none"
    assert facts["data"] == str(tiny_data.resolve())
    written = {path.name for path in folder.iterdir()}
    assert written - {"tensorboard"} == {  # that one only where it is installed
        "answers.json", "history.csv", "last.safetensors", "model.json", "stage.json",
        "weights.safetensors",
    }  # fmt: skip


def test_the_best_epoch_is_what_the_folder_predicts_with(trained, tiny_data):
    model = load_run(trained.folder)
    compute = choose_compute("cpu", "fp32")
    split = load_split(tiny_data, read_manifest(tiny_data), "val", model.size, 1, Silent())
    scores = image_logits(model.network, split.images, model.transform(compute), compute)
    best = history_of(trained.folder)[trained.facts["best_epoch"] - 1]
    called = np.mean(scores[split.targets > 0] >= 0)
    assert called == pytest.approx(float(best["sensitivity"]))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    few_data, options_for, tmp_path
):
    def state(name, seed):
        given = QUICK | {"data": few_data, "seed": seed, "augment": "flip-rotate"}
        return load_file(
            train(options_for(tmp_path / name, **given), Silent()).folder / "weights.safetensors"
        )

    first, again, other = state("a", 1), state("b", 1), state("c", 2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


# The others train and are loaded in tests of their own: MammoCNN and ResNet18_CFT here, those with
# frozen layers in test_frozen.py.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in PROBES else [pytest.mark.slow])
        for name in MODELS
        if name not in ("MammoCNN", "ResNet18_CFT") and name[-3:] != "PFT"
    ],
)
def test_every_model_trains_an_epoch_and_can_be_loaded(name, few_data, options_for, tmp_path):
    options = options_for(tmp_path, data=few_data, model=name)
    result = train(options, Silent())
    assert load_run(result.folder).facts["model"] == name
    row = MODELS[name]
    assert result.facts["epochs"] == int(row.takes_steps)
    # PatchCore's memory is no parameter.
    trained = row.takes_steps or not row.is_detector
    assert trained <= result.facts["trainable"] <= result.facts["parameters"]
    if row.is_detector:
        return
    frozen = result.facts["trainable"] < result.facts["parameters"]
    assert frozen == any("frozen layers are random" in note for note in result.notes)


def test_frozen_layers_are_saved_as_they_started(few_data, options_for, tmp_path):
    result = train(options_for(tmp_path, data=few_data, model="ResNet18_PFT", size=32), Silent())
    saved = load_file(result.folder / "weights.safetensors")
    torch.manual_seed(options_for(tmp_path).seed)
    start = build("resnet18.a1_in1k", MODELS["ResNet18_PFT"].head).state_dict()
    moved = {name.split(".")[0] for name in start if not torch.equal(start[name], saved[name])}
    assert moved == {"layer4", "fc"}


def test_the_readout_is_a_logistic_regression_folded_into_the_head(
    options_for, tmp_path, tiny_data, listener
):
    result = train(options_for(tmp_path, model="ResNet18_OPW"), listener)
    rows = history_of(result.folder)
    assert [float(row["C"]) for row in rows] == list(STRENGTHS)
    best = next(cells for cells, is_best in reversed(listener.rows) if is_best)
    assert best["val_auc"] == max(float(row["val_auc"]) for row in rows)

    model = load_run(result.folder)
    compute = choose_compute("cpu", "fp32")
    transform = model.transform(compute)
    split = load_split(tiny_data, read_manifest(tiny_data), "train", model.size, 1, Silent())
    frozen = FrozenLayers(tiny_data, model.network, head_name(model.network), compute)
    features = features_of(frozen, split, transform, "", Silent())
    scaled = StandardScaler().fit_transform(features)
    regression = LogisticRegression(C=float(best["C"]), class_weight="balanced", max_iter=10_000)
    expected = regression.fit(scaled, split.targets).decision_function(scaled)
    scores = image_logits(model.network, split.images, transform, compute)
    np.testing.assert_allclose(scores, expected, rtol=0.01, atol=0.01)


def test_an_untrained_head_is_left_random_and_says_so(options_for, tmp_path):
    options = options_for(tmp_path, model="ResNet18_OPW", untrained_head=True)
    result = train(options, Silent())
    torch.manual_seed(options.seed)
    start = build("resnet18.a1_in1k", MODELS["ResNet18_OPW"].head).state_dict()
    saved = load_file(result.folder / "weights.safetensors")
    assert all(torch.equal(start[name], saved[name]) for name in start)
    assert "control with an untrained head" in result.headline
    assert read_json(result.folder / "model.json")["untrained_head"] is True


def test_training_stops_when_validation_no_longer_improves(options_for, tmp_path):
    options = options_for(tmp_path, epochs=30, patience=1, learning_rate=1e-9, **QUICK)
    result = train(options, Silent())
    assert 2 <= result.facts["epochs"] < 10
    areas = [row["val_auc"] for row in history_of(result.folder)]
    assert max(areas[:-1]) >= areas[-1]


def test_training_starts_from_a_weights_file(few_data, options_for, tmp_path):
    given = {"data": few_data, "model": "ResNet18_CFT", "size": 32}
    first = train(options_for(tmp_path / "first", **given), Silent())
    assert load_run(first.folder).facts["model"] == "ResNet18_CFT"
    assert first.facts["trainable"] == first.facts["parameters"]
    file = first.folder / "weights.safetensors"
    again = options_for(tmp_path / "again", weights=str(file), learning_rate=1e-9, **given)
    result = train(again, Silent())
    start, saved = load_file(file), load_file(result.folder / "weights.safetensors")
    torch.testing.assert_close(start["conv1.weight"], saved["conv1.weight"], rtol=0, atol=1e-6)
    assert read_json(result.folder / "model.json")["weights"] == str(file)


@pytest.mark.slow
def test_bfloat16_gives_nearly_the_same(few_data, options_for, tmp_path):
    losses = []
    for precision in ("fp32", "bf16"):
        given = {"data": few_data, "batch_size": 4, "precision": precision} | QUICK
        folder = train(options_for(tmp_path, **given), Silent()).folder
        assert read_json(folder / "model.json")["precision"] == precision
        (row,) = history_of(folder)
        losses.append(float(row["train_loss"]))
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.2)


def test_scores_hardly_depend_on_the_layout_that_a_processor_trains_fastest_in():
    torch.manual_seed(1)
    network = build(MAMMO_CNN, MODELS["MammoCNN"].head)
    images = np.random.default_rng(1).integers(0, 256, (3, 64, 64), np.uint8)
    found = []
    for precision in ("auto", "fp32"):  # by name, so that sums are alike: always channels last
        compute = choose_compute("cpu", precision)
        compute = dataclasses.replace(compute, dtype=None)
        place(network, compute)
        transform = EvalTransform(0.5, 0.25, compute.device)
        found.append(image_logits(network, images, transform, compute))
    assert next(network.parameters()).is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(*found, atol=1e-5)


def test_large_images_are_scored_a_few_at_a_time():
    assert [scoring_batch(size) for size in (48, 224, 512, 4096)] == [32, 32, 6, 1]


def test_one_class_in_validation_is_noted_and_the_loss_decides(options_for, tmp_path):
    data = make_dataset(tmp_path / "data", {"train": 6, "val": 1})
    result = train(options_for(tmp_path / "runs", data=data, epochs=2, **QUICK), Silent())
    assert result.facts["best_val_auc"] is None
    assert any("one class only" in note for note in result.notes)
    json.dumps(result.facts, allow_nan=False)
    losses = [float(row["val_loss"]) for row in history_of(result.folder)]
    assert losses.index(min(losses)) + 1 == result.facts["best_epoch"]


def test_images_that_cannot_be_read_are_listed(options_for, tmp_path):
    data = make_dataset(tmp_path / "data", {"train": 6, "val": 2})
    row = read_manifest(data)[0]
    (data / row.path).write_bytes(b"")
    result = train(options_for(tmp_path / "runs", data=data, **QUICK), Silent())
    assert result.set_aside == 1
    assert row.path in (result.folder / "set_aside.csv").read_text()
    assert result.facts["train_images"] == 11


def test_the_last_image_alone_does_not_stop_training(options_for, tmp_path):
    data = make_dataset(tmp_path / "data", {"train": 6, "val": 2})
    (data / read_manifest(data)[0].path).unlink()
    # 11 images in batches of 2 and a 1 x 1 feature map: batch norm could not do a single image.
    result = train(options_for(tmp_path / "runs", data=data, batch_size=2, size=32), Silent())
    assert result.facts["epochs"] == 1


@pytest.mark.parametrize(
    ("patients", "labels", "problem"),
    [
        ({"train": 4, "val": 2}, ("benign",), "train split holds no malignant one"),
        ({"train": 4}, ("benign", "malignant"), "holds no validation images"),
        ({"val": 4}, ("benign", "malignant"), "holds no benign and no malignant one"),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused(
    patients, labels, problem, options_for, tmp_path
):
    data = make_dataset(tmp_path / "data", patients, labels)
    with pytest.raises(UserError, match=problem):
        train(options_for(tmp_path / "runs", data=data), Silent())
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"batch_size": 1}, "needs at least two images"),
        ({"untrained_head": True}, "is for the models that end in _OPW"),
        ({"model": "ResNet18_CFT", "weights": "nowhere.pth"}, r"nowhere\.pth: no such file"),
        ({"learning_rate": 1e30, "epochs": 3}, "loss is no longer finite"),
    ],
)
def test_what_cannot_work_is_refused(given, problem, options_for, tmp_path):
    with pytest.raises(UserError, match=problem):
        train(options_for(tmp_path, **given), Silent())
    assert list_runs(tmp_path) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(options_for, tmp_path):
    with pytest.raises(UserError, match="torch finds no GPU"):
        train(options_for(tmp_path, device="cuda"), Silent())


def test_data_that_was_not_finished_is_refused(options_for, tmp_path):
    with pytest.raises(UserError, match=r"run: python main\.py preprocess"):
        train(options_for(tmp_path, data=tmp_path / "nothing"), Silent())


RARE = ("not_malignant",) * 49 + ("malignant",)


@pytest.mark.parametrize("balance", ["weights", "sampler", "none"])
def test_two_percent_of_positives_can_be_trained_on(balance, options_for, tmp_path):
    data = make_dataset(tmp_path / "data", {"train": 100, "val": 50}, RARE)
    options = options_for(tmp_path / "runs", data=data, balance=balance, epochs=2, batch_size=8)
    result = train(options, Silent())
    for row in history_of(result.folder):  # batches without a positive among them
        assert np.isfinite([float(row[name]) for name in ("train_loss", "val_loss")]).all()
    assert 0 <= result.facts["best_val_auc"] <= 1
    asked = [note for note in result.notes if "are not balanced" in note]
    assert bool(asked) == (balance == "none")
    assert any(note.startswith("2 of 100 validation images are malignant") for note in result.notes)
    assert read_json(result.folder / "model.json")["labels"] == ["not_malignant", "malignant"]


def test_classes_are_named_as_the_dataset_names_them(options_for, tmp_path):
    data = make_dataset(tmp_path / "data", {"train": 4, "val": 2}, ("not_malignant",))
    problem = "needs not malignant and malignant images, and its train split holds no malignant one"
    with pytest.raises(UserError, match=problem):
        train(options_for(tmp_path / "runs", data=data), Silent())
