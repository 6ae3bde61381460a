"""Detectors beside classifiers: what a detector has to beat, what is said, and what it costs."""

import csv
import dataclasses
import json

import cv2
import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from models.comparison import costs as costs_module
from models.comparison.costs import Costs, fit_power
from models.comparison.further_scores import mahalanobis
from models.comparison.plain_scores import brightness_and_contrast, plain_scores
from models.comparison.seeds import Stability, ratio_of_spreads
from models.comparison.stage import compare
from models.evaluation.stage import evaluate
from models.training.stage import train
from pipeline.errors import UserError
from pipeline.manifest import QUESTIONS, read_manifest, write_manifest
from pipeline.progress import Silent
from pipeline.records import read_json
from pipeline.stages.evaluation import Compare, Evaluate
from tests.models.datasets import make_dataset

LABELS = QUESTIONS["abnormal-normal"]
PLAIN = {"Mean brightness", "Mean darkness", "Local contrast", "Local smoothness"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A dataset of which every other patient is normal, the others malignant; abnormal: bright."""
    folder = make_dataset(tmp_path_factory.mktemp("normals") / "data", labels=LABELS)
    rows = read_manifest(folder)
    meant = {"normal": "normal", "abnormal": "malignant"}
    write_manifest(folder, [dataclasses.replace(row, diagnosis=meant[row.label]) for row in rows])
    for row in rows:
        if row.label == "abnormal":
            image = cv2.imread(str(folder / row.path), cv2.IMREAD_GRAYSCALE)
            cv2.imwrite(str(folder / row.path), np.clip(image.astype(int) + 60, 0, 255))
    return folder


@pytest.fixture(scope="module")
def runs(data, options_for, give_baselines, tmp_path_factory):
    """Evaluated: two seeds of a VAE, PatchCore, a classifier."""
    folder = tmp_path_factory.mktemp("detectors") / "runs"
    folder.mkdir()
    give_baselines(folder)
    for model, seed in (("VAE", 1), ("VAE", 2), ("PatchCore", 1), ("MammoCNN", 1)):
        train(
            options_for(folder, data=data, model=model, seed=seed, size=32, batch_size=8), Silent()
        )
        evaluate(Evaluate(runs=folder, replicates=100, workers=1), Silent())
    return folder


@pytest.fixture(autouse=True)
def _quickly(monkeypatch):
    """Few sizes in few rounds: for the form, not the figures."""
    monkeypatch.setattr(costs_module, "SIDES", (32, 64, 256))
    monkeypatch.setattr(costs_module, "COUNTS", (8, 16, 24))
    monkeypatch.setattr(costs_module, "ROUNDS", 3)


def compared(runs, out, **given):
    return compare(Compare(runs=runs, out=out, replicates=200, workers=1, **given), Silent())


def lines_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def found(runs, tmp_path):
    return compared(runs, tmp_path / "out", anomaly=True)


@pytest.mark.drawn
def test_detectors_stand_beside_classifiers_and_what_they_have_to_beat(found, tmp_path):
    out = tmp_path / "out"
    lines = lines_of(out / "anomaly.csv")
    kinds = {line["name"]: line["kind"] for line in lines}
    assert len({name for name, kind in kinds.items() if kind == "plain"} & PLAIN) == 2
    assert sorted(kinds.values()).count("detector") == 3
    known = {line["run"]: line for line in lines_of(out / "runs.csv")}
    for line in lines:
        if line["kind"] in ("detector", "classifier"):
            assert line["auc"] == known[line["name"]]["auc"]
            # All abnormal images are malignant here: the same question.
            assert float(line["normal_auc"]) == pytest.approx(float(line["auc"]))
            assert float(line["step_seconds"]) > 0
    vae = [line for line in lines if line["kind"] == "further score"]
    assert {line["name"] for line in vae} == {
        "negative ELBO", "Mahalanobis distance of the mean code"
    }  # fmt: skip
    assert all(line["of"].startswith("VAE/") for line in vae)
    assert len(vae) == 4
    # Every run with both plain scores, every detector with each other run.
    assert len(lines_of(out / "anomaly_pairs.csv")) == 4 * 2 + 3 + 3
    # The abnormal images are made brighter: nothing can beat that, so nothing is claimed.
    bright = next(line for line in lines if line["name"] == "Mean brightness")
    assert float(bright["auc"]) > 0.9
    words = " ".join(found.facts["anomaly"]["words"])
    assert "No claim for" in words
    assert "mean brightness" in words
    assert "accurate than" not in words.replace("more or less accurate than", "")
    said = read_json(out / "anomaly.json")
    assert said["words"] == found.facts["anomaly"]["words"]
    assert any(said["words"][0] in note for note in found.notes)
    assert (out / "figures" / "growth.svg").is_file()
    assert (out / "figures" / "growth.png").is_file()


def test_seeds_are_counted_and_one_alone_gets_a_command(found):
    seeds = {one["model"]: one for one in found.facts["anomaly"]["seeds"]}
    assert len(seeds["VAE"]["aucs"]) == 2
    assert seeds["VAE"]["spread"] == pytest.approx(abs(np.subtract(*seeds["VAE"]["aucs"])))
    assert seeds["PatchCore"]["sd"] is None
    assert "--seeds 5 --missing" in seeds["PatchCore"]["command"]
    assert any(seeds["PatchCore"]["command"].split()[4][-12:] in note or
               "answers.json --seeds 5 --missing" in note for note in found.notes)  # fmt: skip


@pytest.mark.slow
def test_what_was_measured_is_measured_again_only_when_asked_for(runs, tmp_path):
    compared(runs, tmp_path / "again", anomaly=True)
    (kept,) = (runs / ".costs").iterdir()
    before = kept.read_bytes()
    compared(runs, tmp_path / "again", anomaly=True)
    assert kept.read_bytes() == before
    compared(runs, tmp_path / "again", anomaly=True, remeasure=True)
    assert kept.read_bytes() != before
    points = json.loads(before)["points"]
    assert len(points) == 3
    for found_of in points.values():
        assert found_of["step"].keys() == {"32", "64", "256"}
        assert all(len(values) == 3 for values in found_of["forward"].values())
        assert found_of["step_memory"].keys() == {"32", "64", "256"}


@pytest.mark.drawn
def test_a_plain_comparison_removes_what_is_of_other_figures(runs, tmp_path):
    compared(runs, tmp_path / "out", anomaly=True)
    assert (tmp_path / "out" / "anomaly.json").is_file()
    result = compared(runs, tmp_path / "out", sort="brier")
    assert not (tmp_path / "out" / "anomaly.json").exists()
    assert not (tmp_path / "out" / "figures" / "growth.svg").exists()
    # Errors are no probabilities: no Brier score, and what has none stands last.
    table = result.tables[0]
    shown = {row[0].replace("\n", "/"): row[-1] for row in table.rows}
    assert all((value is None) == name.startswith(("VAE", "PatchCore"))
               for name, value in shown.items())  # fmt: skip
    assert [value is None for value in shown.values()] == sorted(
        value is None for value in shown.values()
    )
    lines = {line["run"]: line for line in lines_of(tmp_path / "out" / "runs.csv")}
    assert all((line["ece"] == "") == name.startswith(("VAE", "PatchCore"))
               for name, line in lines.items())  # fmt: skip


def test_without_a_detector_it_says_how_to_train_one(runs, tmp_path):
    with pytest.raises(UserError, match=r"no evaluated anomaly detector; run: .*--model anomaly"):
        compared(runs, tmp_path / "out", anomaly=True, filter="MammoCNN")
    assert not (tmp_path / "out").exists()


def test_brightness_and_contrast_are_those_of_the_breast_alone():
    image = np.zeros((64, 64), np.uint8)
    image[:, 32:] = 51
    bright, contrast = brightness_and_contrast(image)
    assert bright == pytest.approx(0.2)
    assert contrast == pytest.approx(0, abs=1e-6), "the edge of the breast is no contrast"
    image[::2, 32:] = 153
    bright, contrast = brightness_and_contrast(image)
    assert bright == pytest.approx(0.4)
    assert contrast == pytest.approx(0.2, rel=0.03)
    assert brightness_and_contrast(np.zeros((64, 64), np.uint8)) == (0.0, 0.0)


def test_plain_scores_are_kept_and_made_again_for_other_labels(data, tmp_path):
    rows = read_manifest(data)
    made = plain_scores(data, rows, tmp_path, 1, Silent())
    (path,) = (tmp_path / ".anomaly").iterdir()
    path.write_text(path.read_text().replace("Mean brightness", "Kept"))
    assert "Kept" in plain_scores(data, rows, tmp_path, 1, Silent())
    turned = [dataclasses.replace(row, label=LABELS[row.label == "normal"]) for row in rows]
    other = plain_scores(data, turned, tmp_path, 1, Silent())
    assert "Mean brightness" in made
    assert "Mean darkness" in other
    image = next(iter(made["Mean brightness"]))
    assert other["Mean darkness"][image] == pytest.approx(1 - made["Mean brightness"][image])


def test_distances_of_codes_are_those_of_a_shrunk_covariance():
    random = np.random.default_rng(1)
    known = random.normal(size=(30, 5)) @ np.diag([1, 2, 3, 4, 5]) + 7
    codes = random.normal(size=(4, 5)) + 7
    fitted = LedoitWolf().fit(known)
    away = codes - fitted.location_
    squared = np.einsum("ni,ij,nj->n", away, np.linalg.inv(fitted.covariance_), away)
    assert mahalanobis(known, codes) == pytest.approx(np.sqrt(squared))


def test_a_power_is_fitted_with_its_interval():
    sizes = [64, 128, 256, 512]
    exact = fit_power(sizes, [3e-6 * size**2 for size in sizes])
    assert (exact.value, exact.low, exact.high) == pytest.approx((2, 2, 2))
    noisy = fit_power(sizes, [1.1, 3.6, 17.0, 60.0])
    assert noisy.low < noisy.value < noisy.high
    # By numpy's covariance of the same line, and Student's 97.5 % at two degrees of freedom.
    _, covariance = np.polyfit(np.log(sizes), np.log([1.1, 3.6, 17.0, 60.0]), 1, cov=True)
    assert noisy.high - noisy.value == pytest.approx(4.30265 * np.sqrt(covariance[0, 0]), rel=1e-4)
    assert np.isnan(fit_power(sizes[:2], [1, 2]).value)


def test_costs_are_compared_round_by_round():
    points = {"a": {"step": {"256": [1.0, 2.0, 4.0]}}, "b": {"step": {"256": [2.0, 4.0, 8.0]}}}
    found = Costs({}, points).ratio("a", "b", "step")
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    points["b"]["step"]["256"] = [2.0, 2.0, 2.0]
    found = Costs({}, points).ratio("a", "b", "step")
    assert found.low < 1 < found.high


def test_the_interval_of_two_spreads_is_that_of_f():
    wide = Stability("A", "detector", (0.5, 0.6, 0.7, 0.8, 0.9), "")
    narrow = Stability("B", "classifier", (0.68, 0.69, 0.70, 0.71, 0.72), "")
    ratio, low, high = ratio_of_spreads(wide, narrow)
    assert ratio == pytest.approx(10)
    # F's 97.5 % quantile with 4 and 4 degrees of freedom is 9.6045.
    assert (low, high) == pytest.approx((10 / 9.6045**0.5, 10 * 9.6045**0.5), rel=1e-4)
    assert np.isnan(ratio_of_spreads(wide, Stability("C", "classifier", (0.7,), ""))[0])
