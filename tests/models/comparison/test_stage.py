"""Runs beside each other: ensembles, tables, and what a leaking split would have claimed."""

import csv
import dataclasses
import re
import shutil
import subprocess
import sys

import pytest

from models.comparison.leakage import split_by_image
from models.comparison.stage import compare
from models.evaluation.ensemble import ensemble
from models.evaluation.scoring import score_run
from models.evaluation.stage import evaluate
from models.evaluation.tested import preprocessing_of
from models.inference import load_run
from models.training.stage import train
from pipeline.errors import UserError
from pipeline.manifest import read_manifest, write_manifest
from pipeline.progress import Silent
from pipeline.records import close_folder, read_json, write_json
from pipeline.runs import Run, find_run, list_runs
from pipeline.stages.data import Preprocess
from pipeline.stages.evaluation import Compare, Ensemble, Evaluate
from tests.conftest import ROOT
from tests.models.datasets import divide, make_dataset


def assess(runs, **given):
    return evaluate(Evaluate(runs=runs, replicates=100, workers=1, **given), Silent()).folder


def logits(run, split):
    """The logit of each image."""
    said = score_run(run, None, 1, "none", Silent()).splits[split]
    return {row.image_id: value for row, value in zip(said.rows, said.values, strict=True)}


@pytest.fixture(scope="module")
def several(options_for, give_baselines, tmp_path_factory):
    """Two evaluated runs on one dataset."""
    runs = tmp_path_factory.mktemp("several")
    give_baselines(runs)
    for seed in (1, 2):
        train(options_for(runs, seed=seed, size=32), Silent())
        assess(runs)
    return runs


def compared(runs, out, **given):
    return compare(Compare(runs=runs, out=out, replicates=200, workers=1, **given), Silent())


def test_an_ensemble_says_the_mean_of_its_members_logits(several):
    result = ensemble(Ensemble(runs=several, members="MammoCNN"), Silent())
    members = [find_run(several, name) for name in result.facts["members"]]
    assert len(members) == 2
    for split in ("val", "test"):
        one, two, mean = (logits(run, split) for run in (*members, Run(result.folder)))
        assert mean.keys() == one.keys()
        for image, value in mean.items():
            assert value == pytest.approx((one[image] + two[image]) / 2, abs=1e-5)
    measured = read_json(assess(several, run=Run(result.folder).name) / "metrics.json")
    single = read_json(members[0].folder / "metrics.json")
    assert measured["cost"]["parameters"] == 2 * single["cost"]["parameters"]


def test_members_of_folds_score_only_whom_they_were_not_trained_on(options_for, tmp_path):
    data = make_dataset(tmp_path / "data", {"train": 4, "val": 4, "test": 2})
    divide(data, 2)
    for fold in (1, 2):
        train(options_for(tmp_path / "runs", data=data, fold=fold, size=32), Silent())
    runs = list_runs(tmp_path / "runs")
    result = ensemble(Ensemble(runs=tmp_path / "runs", members="all"), Silent())
    whole = logits(Run(result.folder), "val")
    own = [logits(run, "val") for run in runs]
    assert not own[0].keys() & own[1].keys()
    assert whole == pytest.approx(own[0] | own[1], abs=1e-5)
    patients = {row.patient_id for row in read_manifest(data) if row.split != "test"}
    assert {name.rsplit("_", 2)[0] for name in whole} == patients


def test_an_ensemble_of_one_or_of_different_data_is_refused(options_for, several, tmp_path):
    with pytest.raises(UserError, match=r"1 run, and an ensemble takes two"):
        ensemble(Ensemble(runs=several, members=list_runs(several)[0].name), Silent())
    runs = tmp_path / "runs"
    with pytest.raises(UserError, match=r"runs: holds no finished run; run: python main.py train"):
        ensemble(Ensemble(runs=runs), Silent())
    few = {"train": 2, "val": 2}
    for number in (300, 400):
        data = make_dataset(tmp_path / f"{number}", few, first=number)
        train(options_for(runs, data=data, size=32), Silent())
    with pytest.raises(UserError, match="were trained on different datasets"):
        ensemble(Ensemble(runs=runs), Silent())


def test_runs_stand_in_one_table_with_baselines_and_pairs(several, tmp_path):
    result = compared(several, tmp_path / "out", filter="mammocnn")
    table = result.tables[0]
    areas = [row[1] for row in table.rows if row[1] is not None]
    assert areas == sorted(areas, reverse=True)
    names = [row[0].replace("\n", "/") for row in table.rows]
    assert sum(name.startswith("MammoCNN/") for name in names) == 2
    assert len(names) > 2  # baselines
    with (tmp_path / "out" / "pairs.csv").open(encoding="utf-8") as file:
        (pair,) = csv.DictReader(file)
    assert {pair["first"], pair["second"]} <= set(names)
    with (tmp_path / "out" / "runs.csv").open(encoding="utf-8") as file:
        lines = {line["run"]: line for line in csv.DictReader(file)}
    for run in list_runs(several):
        if run.model == "MammoCNN":
            auc = run.metrics()["splits"]["test"]["metrics"]["auc"]["value"]
            assert float(lines[run.name]["auc"]) == pytest.approx(auc)


def lines_of(folder, name):
    with (folder / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def cells_of(result):
    return [cell for table in result.tables for row in table.rows for cell in row]


def preprocessed(folder, **given):
    """The same films as `make_dataset` makes for all tests, preprocessed otherwise."""
    make_dataset(folder, {"train": 4, "val": 4, "test": 6})
    rows = read_manifest(folder)
    sized = [dataclasses.replace(row, height=given["size"], width=given["size"]) for row in rows]
    write_manifest(folder, [dataclasses.replace(one, source_id=f"1.2.{one.image_id}")
                            for one in sized])  # fmt: skip
    options = Preprocess(out=folder, **given)
    close_folder(folder, "preprocess", options, {}, "", 0.0)
    return folder


@pytest.fixture(scope="module")
def sizes(options_for, tmp_path_factory):
    """A run, three times, on the same test films preprocessed in three ways."""
    root = tmp_path_factory.mktemp("sizes")
    looks = {"a": {"size": 64}, "b": {"size": 96},
             "c": {"size": 64, "clahe_clip": 8.0, "annotations": False}}  # fmt: skip
    data = {name: preprocessed(root / name, **given) for name, given in looks.items()}
    train(options_for(root / "runs", data=data["a"]), Silent())
    (run,) = list_runs(root / "runs")
    for name, folder in data.items():
        copy = shutil.copytree(run.folder, run.folder.with_name(f"20260102-030405-{name}"))
        assess(root / "runs", run=str(copy), data=folder)
    shutil.rmtree(run.folder)
    return root / "runs"


@pytest.mark.slow
def test_runs_on_the_same_films_compare_whatever_their_pixels(sizes, tmp_path):
    result = compared(sizes, tmp_path / "out", all_pairs=True)
    assert len(lines_of(tmp_path / "out", "pairs.csv")) == 3
    looks = {"64 px", "96 px", "64 px, no annotations, clahe-clip 8"}
    runs = lines_of(tmp_path / "out", "runs.csv")
    assert {line["preprocessing"] for line in runs if line["kind"] == "run"} == looks
    assert len({line["test_images"] for line in runs}) == 1
    assert result.tables[0].columns[1] == "Images"
    assert {row[1].replace("\n", " ") for row in result.tables[0].rows} == looks
    assert any("preprocessed in 3 ways: " in note for note in result.notes)
    assert not any("test sets" in note for note in (result.headline, *result.notes))


@pytest.mark.slow
def test_baselines_stand_once_for_each_test_set_and_preprocessing(sizes, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(sizes, runs)
    shutil.copytree(list_runs(runs)[0].folder, runs / "MammoCNN" / "20260102-030405-again")
    result = compared(runs, tmp_path / "out")
    lines = lines_of(tmp_path / "out", "runs.csv")
    found = [(line["run"], line["preprocessing"], line["data"]) for line in lines
             if line["kind"] == "baseline"]  # fmt: skip
    assert len(set(found)) == len(found)
    majority = sorted(one for one in found if one[0] == "Majority class")
    assert [one[1] for one in majority] == ["64 px", "64 px, no annotations, clahe-clip 8", "96 px"]
    assert [one[2].rpartition("/")[2] for one in majority] == ["a", "c", "b"]
    assert result.facts["runs"]["Majority class (96 px)"] == 0.5


@pytest.mark.slow
def test_metrics_of_before_compare_by_their_dataset(sizes, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(sizes, runs)
    for run in list_runs(runs):
        measured = read_json(run.folder / "metrics.json")
        del measured["test_images"], measured["preprocess"]
        write_json(run.folder / "metrics.json", measured)
    result = compared(runs, tmp_path / "out")
    assert any("2 different test sets" in text for text in (result.headline, *result.notes))
    lines = lines_of(tmp_path / "out", "runs.csv")
    assert {line["test_images"] for line in lines} == {line["data_hash"] for line in lines}
    # What model.json says of the training's images holds for the test images of that dataset.
    assert {line["preprocessing"] for line in lines} == {"64 px", ""}
    shown = {row[1] for row in result.tables[0].rows}
    assert shown == {"set 1: 64 px", "set 2"}


@pytest.mark.slow
def test_metrics_of_before_compare_with_those_of_today_on_the_same_dataset(sizes, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(sizes, runs)
    old = Run(shutil.copytree(list_runs(runs)[0].folder, runs / "MammoCNN" / "20260102-030405-old"))
    measured = read_json(old.folder / "metrics.json")
    del measured["test_images"], measured["preprocess"]
    write_json(old.folder / "metrics.json", measured)
    compared(runs, tmp_path / "out")
    assert len(lines_of(tmp_path / "out", "pairs.csv")) == 3


def test_what_cannot_be_said_is_a_dash(several, tmp_path):
    data = make_dataset(tmp_path / "data", {"val": 4, "test": 2}, first=500)
    for run in list_runs(several):
        if run.model == "MammoCNN":
            copy = tmp_path / "runs" / "MammoCNN" / run.folder.name
            assess(tmp_path / "runs", run=str(shutil.copytree(run.folder, copy)), data=data)
    result = compared(tmp_path / "runs", tmp_path / "out")
    (_, difference, interval, p) = result.tables[1].rows[0]
    assert difference >= 0
    assert (interval, p) == ("-", None)  # None is drawn as "-"
    said = [*map(str, cells_of(result)), result.headline, *result.notes]
    said += [(tmp_path / "out" / name).read_text() for name in ("runs.csv", "pairs.csv")]
    assert not any(re.search(r"\bnan\b", text) for text in said)


def test_many_runs_are_compared_with_the_best_alone_and_listed_in_part(several, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(several, runs)
    first = next(run for run in list_runs(runs) if run.model == "MammoCNN")
    for number in range(45):
        shutil.copytree(first.folder, first.folder.with_name(f"20260101-{number:06d}-{number}"))
    result = compared(runs, tmp_path / "out", filter="MammoCNN/")
    pairs = lines_of(tmp_path / "out", "pairs.csv")
    listed = [line for line in lines_of(tmp_path / "out", "runs.csv") if line["kind"] == "run"]
    assert len(listed) == 47
    assert len(pairs) == 46
    assert {pair["first"] for pair in pairs} == {listed[0]["run"]}
    table = result.tables[0]
    assert table.title.endswith("40 of 47 runs, all are in runs.csv")
    assert sum(row[0].startswith("MammoCNN") for row in table.rows) == 40
    assert any(row[0] == "Majority class" for row in table.rows)
    assert len(result.headline) < 500


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (None, "as organised"),
        ({}, "512 px"),
        ({"size": 0}, "full size"),
        ({"size": 64, "data": "elsewhere", "augment": "flip", "workers": 3}, "64 px"),
        ({"crop": "fixed", "margin": 0.1}, "512 px, crop fixed, margin 0.1"),
        ({"margin": 0.1}, "512 px"),  # of a crop that was not made
        ({"clahe": False, "blur": "none"}, "512 px, blur none, no clahe"),
        ({"side": "left", "an_option_of_later": 3}, "512 px, side left"),
    ],
)
def test_preprocessing_in_words_is_its_size_and_what_differs(given, text):
    assert preprocessing_of(given) == text


def test_to_compare_loads_no_torch():
    """It takes seconds, and 500 MB where torch is built for a GPU."""
    check = "import sys, models.comparison.stage as _; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=False).returncode == 0


def test_a_name_that_no_run_has_is_refused(several, tmp_path):
    with pytest.raises(UserError, match="--filter VGG: is in no run's name"):
        compared(several, tmp_path / "out", filter="VGG")


def test_a_split_by_image_keeps_sizes_and_leaks(tiny_data):
    rows = read_manifest(tiny_data)
    dealt = split_by_image(rows, seed=3)

    def sizes(found):
        return sorted((row.split, row.label) for row in found)

    assert sizes(dealt) == sizes(rows)
    assert {row.image_id for row in dealt} == {row.image_id for row in rows}
    patients = {row.image_id: row.patient_id for row in rows}
    trained = {patients[row.image_id] for row in dealt if row.split == "train"}
    assert any(patients[row.image_id] in trained for row in dealt if row.split == "test")


def test_the_price_of_leakage_is_trained_once_and_shown_beside(several, tmp_path):
    first = compared(several, tmp_path / "a", filter="MammoCNN", price_of_leakage=True,
                     run="MammoCNN")  # fmt: skip
    price = first.facts["price_of_leakage"]
    assert price["image"]["images"] == price["patient"]["images"] == 12
    assert 0 < price["shared"] <= 1
    own = load_run(list_runs(several)[1].folder).facts["model"]
    assert first.tables[-1].title == f"Price of leakage: {own}"
    made = sorted(path for path in (several / ".leakage").rglob("weights.safetensors"))
    again = compared(several, tmp_path / "b", filter="MammoCNN", price_of_leakage=True,
                     run="MammoCNN")  # fmt: skip
    assert again.facts["price_of_leakage"] == price
    assert sorted((several / ".leakage").rglob("weights.safetensors")) == made
    assert all(run.model in ("MammoCNN", "Ensemble") for run in list_runs(several))
