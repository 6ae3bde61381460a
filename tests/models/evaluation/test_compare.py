"""Runs beside each other: ensembles, tables, and what a leaking split would have claimed."""

import csv

import pytest

from models.evaluation.compare import compare
from models.evaluation.ensemble import ensemble
from models.evaluation.leakage import split_by_image
from models.evaluation.scoring import score_run
from models.evaluation.stage import evaluate
from models.inference import load_run
from models.training.stage import train
from pipeline.errors import UserError
from pipeline.manifest import read_manifest
from pipeline.progress import Silent
from pipeline.records import read_json
from pipeline.runs import Run, find_run, list_runs
from pipeline.stages.evaluation import Compare, Ensemble, Evaluate
from tests.models.datasets import divide, make_dataset


def assess(runs, **given):
    return evaluate(Evaluate(runs=runs, replicates=100, workers=1, **given), Silent()).folder


def logits(run, split):
    """The logit of each image."""
    said = score_run(run, None, 1, "none", Silent()).splits[split]
    return {row.image_id: value for row, value in zip(said.rows, said.values, strict=True)}


@pytest.fixture(scope="module")
def several(options_for, tmp_path_factory):
    """Two evaluated runs and predictions made elsewhere, on one dataset."""
    runs = tmp_path_factory.mktemp("several")
    for seed in (1, 2):
        train(options_for(runs, seed=seed), Silent())
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
        train(options_for(tmp_path / "runs", data=data, fold=fold), Silent())
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
    train(options_for(runs), Silent())
    train(options_for(runs, data=make_dataset(tmp_path / "other", first=300)), Silent())
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
