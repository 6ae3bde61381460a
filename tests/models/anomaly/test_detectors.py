"""Detectors from training to a call: normal images alone, and errors that reproduce by hand."""

import csv
import shutil

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.evaluation.ensemble import ensemble
from models.evaluation.stage import evaluate
from models.training.queue import jobs_of, train_each
from models.training.stage import train
from pipeline.errors import UserError
from pipeline.manifest import QUESTIONS, read_manifest, write_manifest
from pipeline.options import checked
from pipeline.progress import Silent
from pipeline.records import read_json
from pipeline.runs import list_unfinished
from pipeline.stages.evaluation import Ensemble, Evaluate
from tests.models.datasets import make_dataset
from tests.models.training.test_resume import Stopping

QUICK = {"model": "CAE", "size": 32, "epochs": 3, "batch_size": 8, "weights": "none"}
LABELS = QUESTIONS["abnormal-normal"]


@pytest.fixture(scope="module")
def normal_data(tmp_path_factory):
    """A dataset of 24 patients, every other one normal; not to be written to."""
    return make_dataset(tmp_path_factory.mktemp("normals") / "data", labels=LABELS)


@pytest.fixture(scope="module")
def trained_on(options_for, normal_data, tmp_path_factory):
    """Train a detector on it once, and return what training returned."""
    known = {}

    def get(model):
        if model not in known:
            runs = tmp_path_factory.mktemp(f"runs_{model}") / "runs"
            known[model] = train(options_for(runs, data=normal_data, **QUICK | {"model": model}),
                                 Silent())  # fmt: skip
        return known[model]

    return get


@pytest.fixture
def run_of(trained_on, give_baselines, tmp_path):
    """A copy of a trained run, to be evaluated."""

    def get(model):
        folder = trained_on(model).folder
        copied = tmp_path / "runs" / folder.parent.name / folder.name
        shutil.copytree(folder, copied)
        give_baselines(tmp_path / "runs")
        return copied

    return get


def measured(run, **given):
    options = {"run": str(run), "runs": run.parents[1], "replicates": 100, "workers": 1}
    return evaluate(checked(Evaluate, options | given), Silent())


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("model", ["CAE", "VAE", "PatchCore"])
def test_only_normal_images_are_learnt_from(trained_on, normal_data, model):
    result = trained_on(model)
    normal = {row.patient_id for row in read_manifest(normal_data)
              if row.split == "train" and row.label == "normal"}  # fmt: skip
    facts = read_json(result.folder / "model.json")
    assert result.facts["train_images"] == 2 * len(normal) == 12
    assert facts["patients"]["train"] == sorted(normal)
    assert facts["labels"] == list(LABELS)


@pytest.mark.parametrize("model", ["CAE", "VAE"])
def test_the_smallest_error_of_normal_images_chooses_the_epoch(trained_on, model):
    result = trained_on(model)
    rows = read(result.folder / "history.csv")
    assert list(rows[0]) == ["epoch", "train_loss", "val_loss", "val_auc", "seconds"]
    losses = [float(row["val_loss"]) for row in rows]
    assert result.facts["best_epoch"] == 1 + int(np.argmin(losses))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(("model", "k"), [("CAE", 2.0), ("VAE", 0.5), ("PatchCore", 3.0)])
def test_the_threshold_reproduces_by_hand_from_the_saved_errors(run_of, model, k):
    run = run_of(model)
    measured(run, k=k)
    rows = {split: read(run / f"predictions_{split}.csv") for split in ("val", "test")}
    known = [float(row["error"]) for row in rows["val"] if row["label"] == "normal"]
    threshold = np.mean(known) + k * np.std(known, ddof=1)
    figures = read_json(run / "metrics.json")
    assert figures["anomaly"]["threshold"] == pytest.approx(threshold, rel=1e-9)
    for split, lines in rows.items():
        errors = np.array([float(row["error"]) for row in lines])
        called = [row["predicted"] == "1" for row in lines]
        assert called == (errors >= threshold).tolist()
        normal = [row["label"] == "normal" for row in lines]
        share = np.mean(np.array(called)[normal])
        assert figures["anomaly"]["flagged"][split] == pytest.approx(share)
    # Errors are no probabilities: what is measured of those is left out.
    found = figures["splits"]["test"]["metrics"]
    assert found["brier"]["value"] is found["ece"]["value"] is None
    assert found["auc"]["value"] is not None
    assert figures["operating_point"]["rule"].startswith(f"mean + {k:g} standard deviations")


def test_a_quantile_of_normal_images_sets_the_threshold(run_of):
    run = run_of("CAE")
    measured(run, operating_point="quantile", target=0.75)
    known = [float(row["error"]) for row in read(run / "predictions_val.csv")
             if row["label"] == "normal"]  # fmt: skip
    figures = read_json(run / "metrics.json")["anomaly"]
    assert figures["threshold"] == pytest.approx(np.quantile(known, 0.75), rel=1e-9)


def test_many_flagged_normal_images_are_told(run_of):
    told = measured(run_of("CAE"), k=0.001).notes
    assert any("normal test images are called anomalous: give a larger --k" in one for one in told)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["CAE", "VAE"])
def test_a_stopped_training_ends_as_if_nothing_had_happened(
    trained_on, options_for, normal_data, tmp_path, model
):
    whole, runs = trained_on(model), tmp_path / "runs"
    given = QUICK | {"model": model, "data": normal_data}
    with pytest.raises(KeyboardInterrupt):
        train(options_for(runs, **given), Stopping(3))
    (run,) = list_unfinished(runs)
    result = train(options_for(runs, resume=run.name), Silent())
    first, second = (load_file(one.folder / "weights.safetensors") for one in (whole, result))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_ensemble_of_detectors_has_the_mean_error(
    options_for, normal_data, give_baselines, tmp_path
):
    runs = tmp_path / "runs"
    options = options_for(runs, data=normal_data, **QUICK | {"seeds": 2, "epochs": 1})
    train_each(options, Silent())
    give_baselines(runs)
    joined = ensemble(checked(Ensemble, {"members": "CAE", "runs": runs}), Silent()).folder
    measured(joined)
    members = sorted(path for path in (runs / "CAE").iterdir() if path.is_dir())
    each = []
    for member in members:
        measured(member)
        each.append([float(row["error"]) for row in read(member / "predictions_test.csv")])
    found = [float(row["error"]) for row in read(joined / "predictions_test.csv")]
    assert len(each) == 2
    np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-6)


def test_a_detector_and_a_classifier_make_no_ensemble(options_for, normal_data, tmp_path):
    runs = tmp_path / "runs"
    both = QUICK | {"model": "CAE,MammoCNN", "epochs": 1}
    train_each(options_for(runs, data=normal_data, **both), Silent())
    with pytest.raises(UserError, match="have no scores that can be averaged"):
        ensemble(checked(Ensemble, {"members": "all", "runs": runs}), Silent())


# --- what cannot be


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"size": 40}, "--size 40: CAE takes multiples of 16"),
        ({"balance": "none"}, "--balance: CAE learns without labels"),
        ({"mixup": 0.2}, "--mixup: CAE learns without labels"),
        ({"model": "MammoCNN", "loss": "ssim"}, "--loss: MammoCNN restores no images"),
        ({"model": "PatchCore", "loss": "l1"}, "--loss: PatchCore restores no images"),
    ],
)
def test_options_without_a_meaning_are_refused(options_for, normal_data, tmp_path, given, problem):
    with pytest.raises(UserError, match=problem):
        train(options_for(tmp_path, data=normal_data, **QUICK | given), Silent())


def test_of_several_models_an_option_is_for_those_that_it_means_something_to(options_for, tmp_path):
    options = options_for(tmp_path, model="CAE,ResNet18_CFT", loss="ssim", balance="none")
    first, second = (job.options for job in jobs_of(options))
    assert (first.loss, first.balance) == ("ssim", "own")
    assert (second.loss, second.balance) == ("own", "none")


def relabelled(data, folder, change):
    """Return a copy of a dataset with other rows."""
    shutil.copytree(data, folder)
    write_manifest(folder, list(filter(None, map(change, read_manifest(folder)))))
    return folder


def test_a_dataset_without_normal_images_is_refused(options_for, normal_data, tmp_path):
    data = relabelled(
        normal_data, tmp_path / "data",
        lambda row: None if row.label == "normal" and row.split == "train" else row,
    )  # fmt: skip
    with pytest.raises(
        UserError, match="train split holds no normal image, and an anomaly detector"
    ):
        train(options_for(tmp_path / "runs", data=data, **QUICK), Silent())


def test_one_normal_validation_image_sets_no_threshold(options_for, normal_data, tmp_path):
    kept = next(row.image_id for row in read_manifest(normal_data)
                if row.split == "val" and row.label == "normal")  # fmt: skip
    data = relabelled(
        normal_data, tmp_path / "data",
        lambda row: None if row.label == "normal" and row.split == "val" and row.image_id != kept
        else row,
    )  # fmt: skip
    with pytest.raises(UserError, match="its val split holds 1 normal images; 2 are needed"):
        train(options_for(tmp_path / "runs", data=data, **QUICK), Silent())


def test_normal_images_alone_are_enough_to_train_on(options_for, normal_data, tmp_path):
    data = relabelled(normal_data, tmp_path / "data",
                      lambda row: row if row.label == "normal" else None)  # fmt: skip
    result = train(options_for(tmp_path / "runs", data=data, **QUICK | {"epochs": 1}), Silent())
    assert result.facts["best_val_auc"] is None
    run = result.folder
    assert measured(run).headline == "no test AUC: the 6 test images show one class only"
    assert read_json(run / "metrics.json")["anomaly"]["normals"] == {"val": 6, "test": 6}


def test_constant_images_set_no_threshold(options_for, tmp_path):
    data = make_dataset(tmp_path / "data", labels=LABELS)
    for row in read_manifest(data):
        cv2.imwrite(str(data / row.path), np.full((48, 48), 90, np.uint8))
    run = train(options_for(tmp_path / "runs", data=data, **QUICK | {"epochs": 1}), Silent()).folder
    with pytest.raises(UserError, match="normal validation images have the same error"):
        measured(run)
    assert not (run / "metrics.json").exists()


@pytest.mark.parametrize("given", [{"calibration": "isotonic"}, {"operating_point": "half"}])
def test_errors_are_not_taken_for_probabilities(run_of, given):
    with pytest.raises(UserError, match="gives errors, which are no probabilities"):
        measured(run_of("CAE"), **given)


def test_where_no_two_patients_are_normal_the_threshold_of_images_is_theirs(
    options_for, normal_data, tmp_path
):
    kept = sorted({row.patient_id for row in read_manifest(normal_data)
                   if row.split == "val" and row.label == "normal"})[0]  # fmt: skip
    data = relabelled(
        normal_data, tmp_path / "data",
        lambda row: None if row.label == "normal" and row.split == "val" and row.patient_id != kept
        else row,
    )  # fmt: skip
    run = train(options_for(tmp_path / "runs", data=data, **QUICK | {"epochs": 1}), Silent()).folder
    measured(run)
    figures = read_json(run / "metrics.json")
    assert figures["anomaly"]["normals"]["val"] == 2
    assert figures["units"]["patient"]["threshold"] == figures["operating_point"]["threshold"]
