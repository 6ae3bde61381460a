"""What the report says of runs beside each other, beside baselines and beside published results."""

import csv
import dataclasses

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from interface.report.commands import operating_point
from interface.report.stage import report
from models.evaluation.operating_point import choose
from pipeline.errors import UserError
from pipeline.folds import Fold, apply_fold, write_folds
from pipeline.progress import Silent
from pipeline.records import plain_options, read_json, write_json
from pipeline.stages.evaluation import Ensemble, Evaluate, Report
from tests.interface.report.files import (
    METRICS,
    baselines,
    cohort,
    dataset,
    page_of,
    run_folder,
    stratum,
)
from tests.interface.report.test_stage import Page


def made(root):
    result = report(Report(runs=root / "runs", out=root / "reports"), Silent())
    return result, Page(result.facts["report"])


def table(result, name):
    """Return a table beside the page: by what the first column says, the others by heading."""
    with (result.folder / "tables" / f"{name}.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    key = next(column for column in lines[0] if column != "group")
    return {line[key]: line for line in lines}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Three models on real images, baselines beside them."""
    root = tmp_path_factory.mktemp("compared")
    rows = [dataclasses.replace(row, laterality="LEFT") for row in cohort(96)]
    data = dataset(root, rows, synthetic=False)
    strata = [stratum("density", "1", 0.7), stratum("density", "2", 0.6, small=True)]
    run_folder(root / "runs", data, rows, "ResNet18_CFT", 0.9, val_auc=0.7, strata=strata)
    run_folder(root / "runs", data, rows, "MammoCNN", 0.8, val_auc=0.85)
    run_folder(root / "runs", data, rows, "ResNet18_OPW", 0.55, val_auc=0.5)
    baselines(root / "runs", data, rows, assessment=9, background=0.0, metadata=None)
    return made(root)


# The first screen


def test_the_main_result_is_of_the_run_that_was_best_on_validation(compared):
    _, page = compared
    assert (
        "MammoCNN, the best of 3 runs on validation, reaches a test AUC of "
        "0.800 (95 % interval 0.720 to 0.860) on 48 images of 24 patients."
    ) in page.text


def test_a_model_that_does_not_beat_a_baseline_is_called_out(compared):
    _, page = compared
    assert "MammoCNN is not shown to be better than Assessment (AUC 1.000)." in page.text
    assert "Neither of the other runs is shown to be better than every baseline." in page.text
    assert "The background alone predicts" not in page.text
    assert "Sanity baselines: scores without a trained network" in page.text


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ({"a": 0.9}, "The other run is not shown to be better than every baseline."),
        ({"a": 0.9, "b": 0.9, "c": 0.9}, "None of the 3 other runs is shown to be better than"),
    ],
)
def test_the_other_runs_are_counted_in_agreement(tmp_path, others, told):
    rows = cohort(96)
    data = dataset(tmp_path, rows)
    run_folder(tmp_path / "runs", data, rows, "best", 0.9, val_auc=0.95)
    for name, auc in others.items():
        run_folder(tmp_path / "runs", data, rows, name, auc, val_auc=0.6)
    baselines(tmp_path / "runs", data, rows, assessment=9, metadata=9)
    text = Page(page_of(tmp_path).text).text
    assert told in text
    assert "best is not shown to be better than any of the 2 sanity baselines." in text
    assert "The same holds" not in text


def test_few_patients_give_no_interval_and_nothing_that_is_better(tmp_path):
    rows = cohort(8)
    data = dataset(tmp_path, rows)
    folder = run_folder(tmp_path / "runs", data, rows, said=dict.fromkeys(
        [row.image_id for row in rows if row.label == "benign"], 0.1) | dict.fromkeys(
        [row.image_id for row in rows if row.label == "malignant"], 0.9))  # fmt: skip
    measured = read_json(folder / "metrics.json")
    for figure in measured["splits"]["test"]["metrics"].values():
        figure |= {"value": 1.0, "low": None, "high": None}
    write_json(folder / "metrics.json", measured)
    baselines(tmp_path / "runs", data, rows, background=-9)
    page = Page(page_of(tmp_path).text)
    assert "With so few patients, the difference in AUC has no interval." in page.text
    assert "There are no intervals: the patients are too few." in page.text
    assert not [item for item in page.all("b") if item.get("class") == "value strong"]
    assert "+1.000" in page.text


def test_baselines_that_must_not_predict_stand_above_the_title(tmp_path):
    rows = cohort(48)
    data = dataset(tmp_path, rows)
    run_folder(tmp_path / "runs", data, rows)
    baselines(tmp_path / "runs", data, rows, background=3, shuffled=3, untrained=3, metadata=3)
    page = Page(page_of(tmp_path).text)
    title = page.text.index("Mammogram classification report", 60)
    for told in (
        "The background alone predicts the label",
        "A model of shuffled labels predicts the label",
        "A network that learnt nothing predicts the label",
    ):
        assert page.text.index(told) < title
    assert sum("alarm" in item.get("class", "") for item in page.all("div")) == 3


# Comparison


def test_baselines_stand_apart_in_every_table_without_figures_at_a_threshold(compared):
    result, page = compared
    for unit in ("image", "breast", "patient"):
        lines = table(result, f"comparison_{unit}")
        assert lines["MammoCNN"]["group"] == ""
        assert lines["Assessment"]["group"].startswith("Sanity baselines")
        assert float(lines["Assessment"]["AUC"]) == 1.0
        assert lines["Assessment"]["Sensitivity"] == ""
    assert "Metadata no such column" in page.text
    assert "24 breasts of 24 patients" in page.text


def test_the_auc_of_a_baseline_is_that_of_its_probabilities(compared):
    result, _ = compared
    root = result.folder.parent.parent
    (kept,) = (root / "runs" / ".baselines").glob("*.json")
    said = read_json(kept)["baselines"][1]["test"]
    rows = [row for row in cohort(96) if row.split == "test"]
    truth = [row.label == "malignant" for row in rows]
    area = roc_auc_score(truth, [said[row.image_id] for row in rows])
    assert float(table(result, "comparison_image")["Background"]["AUC"]) == pytest.approx(area)


def test_pairs_are_told_in_words_and_as_a_table(compared):
    result, page = compared
    lines = (result.folder / "tables" / "pairs.csv").read_text().splitlines()
    assert len(lines) == 1 + 3
    assert lines[0].startswith("First,Second,Difference in AUC,Difference in AUC low")
    assert "after Holm's correction" in page.text


def test_runs_of_other_images_are_not_tested_against_each_other(tmp_path):
    rows = cohort(16)
    data = dataset(tmp_path, rows)
    run_folder(tmp_path / "runs", data, rows)
    folder = run_folder(tmp_path / "runs", data, rows, "MammoCNN", 0.8)
    path = folder / "predictions_test.csv"
    path.write_text(path.read_text().replace("I_00003_CC", "I_99999_CC"))
    page = Page(page_of(tmp_path).text)
    assert "The runs were not compared: their predictions" in page.text


def test_published_results_stand_beside_real_ones_of_the_same_split_and_unit(compared):
    result, page = compared
    lines = table(result, "published")
    assert "Accuracies of 0.93 to 0.99 on this collection should be presumed" in page.text
    again = lines["Shen et al. 2019, Sci Rep 9:12495, re-tested by others"]
    assert (again["AUC"], again["detail"]) == ("0.69 to 0.75", "same unit and test set as here")
    assert lines["Petrini et al. 2022, IEEE Access 10:77723"]["detail"] == ""
    assert lines["MammoCNN"]["Split"] == "official test set"
    bands = [item for item in page.all("rect") if "expected" in item.get("class", "")]
    assert len(bands) == 2 * len(
        (result.folder / "tables/published.csv").read_text().splitlines()[1:]
    )


@pytest.mark.parametrize("gone", [False, True])
def test_published_results_stand_beside_no_others(tmp_path, gone):
    rows = cohort(8)
    data = dataset(tmp_path, rows, synthetic=not gone)
    run_folder(tmp_path / "runs", data, rows)
    if gone:
        (tmp_path / "raw").rmdir()
    page = page_of(tmp_path)
    assert "Petrini" not in page.text
    assert "published" not in {sheet.name for sheet in page.sheets}
    reason = "Where the images come from is not known" if gone else "say nothing about mammograms"
    assert reason in page.text


# Each run


def test_small_strata_are_grey_and_not_hidden(compared):
    result, page = compared
    assert "2 strata of the test images; 1 of them too small to say anything" in page.text
    grey = [item for item in page.all("tr") if item.get("class") == "small"]
    assert len(grey) == 1
    lines = (result.folder / "tables/ResNet18_CFT-20260102-030405-42/strata.csv").read_text()
    assert "Breast density,2,too few to say anything,0.6,0.5,0.7,12,6,5" in lines


def test_cost_of_all_runs_is_one_table(compared):
    result, _ = compared
    line = table(result, "cost")["MammoCNN"]
    assert line["GFLOPs an image"] == "1.8"
    assert line["Device"] == "cpu"


# Folds and seeds


def test_folds_are_pooled_and_seeds_averaged(tmp_path):
    rows = cohort(48)
    data = dataset(tmp_path, rows)
    outside = sorted({row.patient_id for row in rows if row.split != "test"})
    write_folds(data, {patient: place % 3 + 1 for place, patient in enumerate(outside)})
    noise = np.random.default_rng(1)
    said = {row.image_id: float(noise.uniform()) for row in rows}
    for number, auc in ((1, 0.6), (2, 0.7), (3, 0.8)):
        applied = apply_fold(data, rows, number)
        run_folder(tmp_path / "runs", data, applied, auc=auc, fold=Fold(number, 3), said=said)
    for seed in (1, 2):
        run_folder(tmp_path / "runs", data, rows, "MammoCNN", 0.7, seed=seed)
    run_folder(tmp_path / "runs", data, rows, "ResNet18_PFT", 0.7)
    result, page = made(tmp_path)
    lines = table(result, "folds_and_seeds")
    assert set(lines) == {"ResNet18_CFT", "MammoCNN"}
    assert lines["ResNet18_CFT"]["detail"] == "3 folds"
    assert lines["ResNet18_CFT"]["Test AUC"] == "0.700 \u00b1 0.100"
    pooled = [row for row in rows if row.split != "test"]
    truth = [row.label == "malignant" for row in pooled]
    area = roc_auc_score(truth, [said[row.image_id] for row in pooled])
    assert float(lines["ResNet18_CFT"]["Out-of-fold AUC"]) == pytest.approx(area)
    assert lines["ResNet18_CFT"]["Its images"] == str(len(pooled))
    assert lines["MammoCNN"]["detail"] == "2 seeds"
    assert lines["MammoCNN"]["Test AUC"] == "0.700 \u00b1 0.000"
    assert lines["MammoCNN"]["Out-of-fold AUC"] == ""
    assert "It is the spread of training" in page.text


# Methods and checklist


def test_methods_say_what_was_done_with_the_exact_cohort(compared):
    result, page = compared
    text = (result.folder / "methods.txt").read_text()
    assert "The case descriptions listed 60 of them." in text
    assert "the collection's official one: 48 images of 24 patients (24 malignant" in text
    assert "96 images of 48 patients (48 malignant, 48 benign) were used for training" in text
    assert (
        "For MammoCNN, the network resnet18, with an input of 224 x 224 pixels and 1 channel, "
        "started from random weights; all its layers were trained (11,177,025 parameters)."
    ) in text
    assert "percentile intervals of 200 bootstrap replicates (seed 42)" in text
    assert "The 3 pairs of runs were compared on the same images" in text
    assert "temperature scaling (Guo et al. 2017). The temperature of MammoCNN was 1.30." in text
    assert all(" ".join(part.split()) in page.text for part in text.split("\n\n"))


def test_methods_do_not_call_a_drawn_collection_cbis_ddsm(tmp_path):
    rows = cohort(8)
    run_folder(tmp_path / "runs", dataset(tmp_path, rows), rows)
    text = "".join(page_of(tmp_path).methods)
    assert "The collection was synthetic" in text
    assert "CBIS-DDSM" not in text


def test_checklist_is_filled_where_the_runs_know_and_left_to_the_authors_elsewhere(compared):
    result, page = compared
    lines = table(result, "claim")
    assert list(lines) == [str(number) for number in range(1, 43)]
    assert lines["21"]["In this study"] == "Patient: no patient is in two partitions"
    assert "0.800 (95\u00a0% interval 0.720 to 0.860)" in lines["36"]["In this study"]
    assert lines["42"]["In this study"] == "To be written by the authors"
    assert "CLAIM" in page.text


# Other runs


def test_a_run_of_before_is_refused_with_the_command_that_helps(tmp_path):
    rows = cohort(8)
    data = dataset(tmp_path, rows)
    run_folder(tmp_path / "runs", data, rows)
    folder = run_folder(tmp_path / "runs", data, rows, "MammoCNN")
    measured = read_json(folder / "metrics.json")
    del measured["units"]
    write_json(folder / "metrics.json", measured)
    result, _ = made(tmp_path)
    assert result.set_aside == 1
    told = (result.folder / "set_aside.csv").read_text()
    assert f"python main.py evaluate --run {folder} --batch" in told
    (folder.parent.parent / "ResNet18_CFT").rename(tmp_path / "away")
    with pytest.raises(UserError, match=r"no run can be read .*main\.py evaluate --run"):
        made(tmp_path)


def test_predictions_made_elsewhere_need_neither_validation_nor_dataset(tmp_path):
    rows = cohort(48)
    folder = run_folder(tmp_path / "runs", dataset(tmp_path, rows), rows, "theirs", 0.8)
    record = read_json(folder / "stage.json")
    options = plain_options(Evaluate(runs=tmp_path / "runs"))
    write_json(folder / "stage.json", record | {"stage": "evaluate", "options": options})
    for name in ("predictions_val.csv", "history.csv"):
        (folder / name).unlink()
    measured = read_json(folder / "metrics.json") | {"data": "", "data_hash": "other", "cost": {}}
    for part in (measured, *measured["units"].values()):
        del part["splits"]["val"]
    del measured["uncalibrated"]["val"]
    write_json(folder / "metrics.json", measured)
    info = read_json(folder / "model.json")
    info |= {
        "strategy": "elsewhere", "parameters": 0, "trainable": 0, "data": "", "preprocess": None,
        "input": {"size": 0, "channels": 0}, "weights": "/far/theirs.csv",
    }  # fmt: skip
    write_json(folder / "model.json", info)
    page = Page(page_of(tmp_path).text)
    assert "theirs reaches a test AUC of 0.80" in page.text
    assert "Predictions made elsewhere: /far/theirs.csv" in page.text
    assert "image not found" in page.text
    # What their images went through is not known, so nothing is said of it.
    for untrue in ("were not cropped", "used as they were organised", "images as they are"):
        assert untrue not in page.text


def test_an_untrained_head_is_a_control_that_was_not_fitted(tmp_path):
    rows = cohort(16)
    data = dataset(tmp_path, rows)
    folder = run_folder(tmp_path / "runs", data, rows, "ResNet18_OPW", strategy="opw")
    record = read_json(folder / "stage.json")
    record["options"]["untrained_head"] = True
    write_json(folder / "stage.json", record)
    text = Page(page_of(tmp_path).text).text
    assert "its head left random: a control" in text
    assert "fitted" not in text.partition("Methods")[2]
    assert "a linear probe was fitted" not in text


def test_an_ensemble_has_no_options_of_training(tmp_path):
    rows = cohort(16)
    data = dataset(tmp_path, rows)
    run_folder(tmp_path / "runs", data, rows, auc=0.6)
    folder = run_folder(tmp_path / "runs", data, rows, "Ensemble", 0.8, strategy="ensemble")
    record = read_json(folder / "stage.json")
    options = plain_options(Ensemble(members="a,b", runs=tmp_path / "runs"))
    write_json(folder / "stage.json", record | {"stage": "ensemble", "options": options})
    (folder / "history.csv").unlink()
    found = page_of(tmp_path)
    page = Page(found.text)
    assert "python main.py ensemble --members a,b" in page.text
    assert page.text.count("Options of training ResNet18_CFT") == 1
    assert "Options of training Ensemble" not in page.text
    assert "For Ensemble, the score was the mean logit of several runs" in "".join(found.methods)
    assert "1 runs were trained" not in page.text


@pytest.mark.parametrize(
    ("choice", "target"),
    [("youden", 0.0), ("half", 0.0), ("sensitivity", 0.9), ("specificity", 0.955), ("cost", 10.0)],
)
def test_commands_repeat_the_operating_point(choice, target):
    truth, scores = np.array([True, False] * 20), np.linspace(0.01, 0.99, 40)
    found = operating_point(choose(choice, target, truth, scores).rule)
    assert found["operating_point"] == choice
    assert found.get("target", 0.0) == target


def test_every_metric_of_every_unit_is_on_the_page(compared):
    result, _ = compared
    lines = table(result, "MammoCNN-20260102-030405-42/metrics")
    assert len(lines) == 1 + len(METRICS)
    assert "Test, patients low" in lines["PR AUC"]
