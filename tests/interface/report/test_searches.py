"""What the report says of the searches for hyper-parameters behind the runs."""

import csv
import dataclasses
import json

import pytest

from interface.report.searches import FIGURES
from interface.report.stage import report
from models.registry import MODELS
from models.training.best_trial import COMMON
from models.tuning.figures import write_figures
from models.tuning.result import COMPLETE, FAILED, PRUNED, Entry, Search, write_best, write_trials
from models.tuning.search_space import space_of
from pipeline.progress import Silent
from pipeline.records import file_digest, read_json, write_json
from pipeline.stages.evaluation import Report
from tests.interface.report.files import cohort, dataset, run_folder
from tests.interface.report.test_stage import Page

MODEL, STUDY = "ResNet18_CFT", "ResNet18_CFT-abc-def"
SPACE = [one for one in space_of(MODELS[MODEL]) if one.name in ("learning_rate", "balance")]


def study(runs, data, name=STUDY, drawn=False):
    """Write a study as tune leaves it: 15 trials, of which number 9 is the best."""
    entries = []
    for place in range(15):
        state = {4: PRUNED, 5: FAILED}.get(place, COMPLETE)
        area = None if state == FAILED else 0.9 if place == 9 else 0.6 + place / 100
        params = {"learning_rate": 10.0 ** (place % 3 - 4), "balance": "weights"}
        entries.append(
            Entry(place, place, state, area, params, 7, 30.0, own=place == 0, reason="broke")
        )
    facts = {"model": MODEL, "data_hash": file_digest(data / "manifest.csv")} | dict.fromkeys(
        COMMON, 7
    )
    common = {key: facts[key] for key in COMMON}
    search = Search(name, facts, SPACE, entries, common)
    folder = runs / "studies" / name
    if drawn:
        write_figures(folder, search, {"learning_rate": 0.8, "balance": 0.2})
    write_trials(folder, search)
    write_best(folder, search)
    return folder


def tuned(folder):
    """Make a run one that was trained with what the study found."""
    facts = read_json(folder / "model.json")
    facts["tuning"] = {
        "study": STUDY,
        "trial": 9,
        "val_auc": 0.9,
        "params": {"learning_rate": 0.01},
    }
    facts["recipe"] = {"learning_rate": 0.00123, "batch_size": 24, "weight_decay": 0.5}
    write_json(folder / "model.json", facts)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with a search behind it and one without."""
    root = tmp_path_factory.mktemp("searched")
    rows = [dataclasses.replace(row, laterality="LEFT") for row in cohort(48)]
    data = dataset(root, rows)
    tuned(run_folder(root / "runs", data, rows, MODEL, 0.8))
    run_folder(root / "runs", data, rows, "MammoCNN", 0.7)
    study(root / "runs", data, drawn=True)
    result = report(Report(runs=root / "runs", out=root / "reports"), Silent())
    return root, result, Page(result.facts["report"])


def test_search_stands_with_its_figures_and_the_held_out_test_of_its_run(made):
    _, result, page = made
    text = page.text
    assert "15 trials (1 ended early, 1 failed)" in text
    assert "trial 9 with an AUC of 0.900 there, against 0.600 with the model's own" in text
    run = json.loads((result.folder / "metrics.json").read_text())
    area = next(one for name, one in run.items() if name.startswith(MODEL))
    area = area["splits"]["test"]["metrics"]["auc"]
    between = f"95 % interval {area['low']:.3f} to {area['high']:.3f}"
    assert f"held-out test AUC {area['value']:.3f} ({between})" in text
    drawn = [one for one in page.all("img") if one["src"].startswith("data:image/svg+xml;base64,")]
    assert sum(one["alt"] in FIGURES.values() for one in drawn) == 4
    assert all(one["alt"] for one in drawn)


def test_table_lists_the_best_trials_and_the_own_values(made):
    _, result, _ = made
    with (result.folder / "tables" / "searches" / f"{STUDY}.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert lines[0]["Trial"] == "Trial 9"
    assert lines[-1]["detail"] == "the model's own values"
    assert len(lines) == 11
    assert {"Validation AUC", "Epochs", "Learning rate", "Balance"} < set(lines[0])
    copied = {path.name for path in (result.folder / "figures" / "searches" / STUDY).iterdir()}
    assert {"tuning-history.svg", "tuning-parallel.png"} < copied


def test_options_are_those_that_training_used_in_the_end(made):
    _, result, page = made
    sheet = next((result.folder / "tables").glob(f"{MODEL}-*/training.csv")).read_text()
    assert "0.00123" in sheet
    methods = (result.folder / "methods.txt").read_text()
    assert "were those of trial 9, the best of a search" in methods
    assert STUDY in methods
    assert "0.00123" in methods
    assert f"Hyper-parameters: those of trial 9 of {STUDY}" in page.text
    assert "a search on validation: learning rate 0.01." in page.text


def test_damaged_study_and_one_of_other_images_are_no_part_of_the_page(made, tmp_path):
    root, _, _ = made
    other = dataset(tmp_path, cohort(12))
    study(root / "runs", other, "of-other-images")
    damaged = root / "runs" / "studies" / "damaged"
    damaged.mkdir()
    (damaged / "best.json").write_text("{}")
    result = report(Report(runs=root / "runs", out=tmp_path / "reports"), Silent())
    page = Page(result.facts["report"])
    assert "of-other-images" not in page.text
    assert [note for note in result.notes if str(damaged) in note]


def test_page_without_searches_does_not_speak_of_them(tmp_path):
    rows = cohort(24)
    run_folder(tmp_path / "runs", dataset(tmp_path, rows), rows)
    result = report(Report(runs=tmp_path / "runs", out=tmp_path / "reports"), Silent())
    assert "Searches" not in Page(result.facts["report"]).text
