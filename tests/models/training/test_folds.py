"""Folds through the stages: preprocessed, trained on and evaluated on real small datasets."""

import csv
import shutil

import pytest
import torch
from safetensors.torch import load_file

from models.comparison.stage import compare
from models.evaluation.queue import evaluate_each
from models.evaluation.stage import evaluate
from models.training.stage import train
from pipeline.errors import UserError
from pipeline.folds import read_folds
from pipeline.manifest import read_manifest, write_manifest
from pipeline.progress import Silent
from pipeline.provenance import dataset_hash
from pipeline.records import read_json
from pipeline.runs import Run
from pipeline.stages.data import Preprocess
from pipeline.stages.evaluation import Compare, Evaluate
from preprocess_data import preprocess
from tests.models.datasets import divide, make_dataset

COUNT = 3


QUICK = {"model": "MammoCNN", "size": 32}


@pytest.fixture(scope="module")
def organized(tmp_path_factory):
    """An organised dataset in three folds; not to be written to."""
    patients = {"train": 8, "val": 4, "test": 2}
    folder = make_dataset(tmp_path_factory.mktemp("folds") / "dataset", patients, stage="organize")
    divide(folder, COUNT)
    return folder


@pytest.fixture(scope="module")
def as_it_is(organized):
    """Options of a preprocessing that leaves the tiny pictures alone."""

    def make(out, **given):
        plain = {"crop": "none", "annotations": False, "blur": "none", "clahe": False}
        return Preprocess(
            **{"data": organized, "out": out, "size": 64, "workers": 1} | plain | given
        )

    return make


@pytest.fixture(scope="module")
def prepared(as_it_is, tmp_path_factory):
    """That dataset preprocessed with all its folds; not to be written to."""
    return preprocess(as_it_is(tmp_path_factory.mktemp("folds") / "out"), Silent()).folder


@pytest.fixture(scope="module")
def trained(prepared, options_for, tmp_path_factory):
    """A run of each fold in one folder of runs, the last fold first; not to be written to."""
    runs = tmp_path_factory.mktemp("folds") / "runs"
    for fold in range(COUNT, 0, -1):
        train(options_for(runs, data=prepared, fold=fold, **QUICK), Silent())
    return runs


@pytest.fixture
def runs(trained, tmp_path):
    """A copy of the runs of all folds."""
    return shutil.copytree(trained, tmp_path / "runs")


def run_of(runs, fold):
    (found,) = (path.parent for path in runs.glob("*/*/model.json") if is_of(path, fold))
    return Run(found)


def is_of(path, fold):
    return read_json(path)["fold"] == fold


def scored(runs, run="latest", **given):
    options = {"replicates": 100, "workers": 1, "runs": runs, "run": str(run)}
    return evaluate(Evaluate(**options | given), Silent())


def patients_scored(folder, split):
    with (folder / f"predictions_{split}.csv").open(encoding="utf-8") as file:
        return {line["patient_id"] for line in csv.DictReader(file)}


def patients(rows, split):
    return {row.patient_id for row in rows if row.split == split}


@pytest.mark.parametrize("fold", range(1, COUNT + 1))
def test_a_run_trains_on_the_other_folds_and_records_its_own(trained, prepared, fold):
    run = run_of(trained, fold)
    facts, folds = read_json(run.folder / "model.json"), read_folds(prepared)
    assert facts["patients"] == {
        "train": sorted(name for name, own in folds.items() if own != fold),
        "val": sorted(name for name, own in folds.items() if own == fold),
    }
    assert (facts["fold"], facts["folds"]) == (fold, COUNT)
    assert facts["data_hash"] == dataset_hash(prepared)
    assert run.record()["options"]["fold"] == fold
    assert run.fold.name == f"fold {fold} of 3"


def test_a_run_is_scored_on_the_validation_set_of_its_own_fold(runs, prepared):
    fold = COUNT  # not that of the latest run
    result = scored(runs, fold=fold)
    assert result.folder == run_of(runs, fold).folder
    expected = {name for name, own in read_folds(prepared).items() if own == fold}
    assert patients_scored(result.folder, "val") == expected
    assert patients_scored(result.folder, "test") == patients(read_manifest(prepared), "test")
    measured = read_json(result.folder / "metrics.json")
    assert (measured["fold"], result.facts["fold"]) == (fold, fold)
    assert result.tables[0].title == "Images, called at Youden's J on validation of fold 3 of 3"


def test_without_a_fold_the_run_that_is_named_keeps_its_own(runs, prepared):
    run = run_of(runs, 2)
    scored(runs, run.name)
    expected = {name for name, own in read_folds(prepared).items() if own == 2}
    assert patients_scored(run.folder, "val") == expected


def test_tables_of_several_runs_tell_their_folds(runs, tmp_path):
    evaluated = evaluate_each(Evaluate(runs=runs, run="all", replicates=100, workers=1), Silent())
    options = Compare(runs=runs, out=tmp_path / "out", replicates=200, workers=1)
    for result in (evaluated, compare(options, Silent())):
        cells = {row[0] for row in result.tables[0].rows}
        named = {f"{QUICK['model']}, fold {fold}\n{run_of(runs, fold).folder.name}"
                 for fold in range(1, COUNT + 1)}  # fmt: skip
        assert named <= cells


def test_a_run_of_another_fold_than_the_one_given_is_refused(runs):
    with pytest.raises(UserError, match=r"is a run of fold 2 of 3, not of fold 1"):
        scored(runs, run_of(runs, 2).folder, fold=1)
    with pytest.raises(UserError, match=r"no finished run of fold 4; .* train --fold 4"):
        scored(runs, fold=4)


def test_the_headline_of_a_training_names_the_fold(prepared, options_for, tmp_path):
    options = options_for(tmp_path, data=prepared, fold=2, model="ResNet18_OPW")
    result = train(options, Silent())
    assert " on fold 2 of 3, " in result.headline
    assert (result.facts["fold"], result.facts["folds"]) == (2, 3)


def test_a_fold_that_there_is_not_is_refused_before_anything_is_written(
    prepared, options_for, tmp_path
):
    with pytest.raises(UserError, match=r"has 3 folds, so there is no fold 4"):
        train(options_for(tmp_path / "runs", data=prepared, fold=4), Silent())
    assert not (tmp_path / "runs").exists()


def test_data_without_folds_is_refused(tiny_data, options_for, tmp_path):
    with pytest.raises(UserError, match=r"folds\.csv: no such file.* organize --folds 5"):
        train(options_for(tmp_path / "runs", data=tiny_data, fold=1), Silent())


def test_folds_that_were_dealt_anew_are_refused_as_a_leak(runs, prepared, tmp_path):
    other = shutil.copytree(prepared, tmp_path / "other")
    lines = (other / "folds.csv").read_text().splitlines()
    turned = {"1": "2", "2": "3", "3": "1"}
    moved = [line[:-1] + turned[line[-1]] for line in lines[1:]]
    (other / "folds.csv").write_text("\n".join([lines[0], *moved, ""]))
    with pytest.raises(UserError, match=r"4 val patients \(.*\) were trained on in "):
        scored(runs, fold=2, data=other)


def test_folds_that_are_gone_are_refused_in_evaluation(runs, prepared, tmp_path):
    other = shutil.copytree(prepared, tmp_path / "other")
    (other / "folds.csv").unlink()
    with pytest.raises(UserError, match=r"folds\.csv: no such file"):
        scored(runs, fold=2, data=other)


def test_preprocessing_hands_the_folds_on(organized, prepared):
    assert (prepared / "folds.csv").read_bytes() == (organized / "folds.csv").read_bytes()
    before, after = read_manifest(organized), read_manifest(prepared)
    assert [(row.image_id, row.split) for row in before] == [
        (row.image_id, row.split) for row in after
    ]


def test_preprocessing_of_one_fold_writes_it_as_the_validation_split(organized, as_it_is, tmp_path):
    options = as_it_is(tmp_path / "out", fold=2, augment="flip", copies=1)
    result = preprocess(options, Silent())
    rows, folds = read_manifest(options.out), read_folds(organized)
    assert patients(rows, "val") == {name for name, own in folds.items() if own == 2}
    assert patients(rows, "train") == {name for name, own in folds.items() if own != 2}
    assert {row.path.split("/")[0] for row in rows if row.split == "val"} == {"val"}
    written = {path.relative_to(options.out).as_posix() for path in options.out.glob("*/*/*.png")}
    assert written == {row.path for row in rows}
    assert {row.patient_id for row in rows if row.parent} == patients(rows, "train")
    assert not (options.out / "folds.csv").exists()
    assert (result.facts["fold"], result.facts["folds"]) == (2, 3)
    assert result.tables[0].title == "Preprocessed images, val is fold 2 of 3"


@pytest.mark.slow
def test_another_fold_in_the_same_folder_leaves_nothing_of_the_first(as_it_is, organized, tmp_path):
    for fold in (0, 1, 3):
        preprocess(as_it_is(tmp_path / "again", fold=fold), Silent())
    preprocess(as_it_is(tmp_path / "fresh", fold=3), Silent())
    left, right = (
        {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.suffix in (".png", ".csv")
        }
        for folder in (tmp_path / "again", tmp_path / "fresh")
    )
    assert left == right
    preprocess(as_it_is(tmp_path / "again"), Silent())
    assert read_folds(tmp_path / "again") == read_folds(organized)


@pytest.mark.slow
def test_a_fold_is_the_same_before_and_after_preprocessing(
    trained, prepared, as_it_is, options_for, tmp_path
):
    alone = preprocess(as_it_is(tmp_path / "alone", fold=2), Silent()).folder
    run = train(options_for(tmp_path / "runs", data=alone, **QUICK), Silent()).folder
    assert Run(run).fold.name == "fold 2 of 3"
    first, second = (
        load_file(folder / "weights.safetensors") for folder in (run, run_of(trained, 2).folder)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    expected = {name for name, own in read_folds(prepared).items() if own == 2}
    for data in (alone, prepared):
        result = scored(tmp_path / "runs", fold=2, data=data)
        assert patients_scored(run, "val") == expected
        assert not any("preprocessed otherwise" in note for note in result.notes)


def test_what_was_preprocessed_for_one_fold_is_not_trained_on_for_another(
    as_it_is, options_for, tmp_path
):
    alone = preprocess(as_it_is(tmp_path / "alone", fold=2), Silent()).folder
    problem = r"was preprocessed for fold 2 of 3 alone and holds no folds\.csv.*without --fold"
    with pytest.raises(UserError, match=problem):
        train(options_for(tmp_path / "runs", data=alone, fold=1), Silent())


def test_copies_of_what_is_validated_are_not_trained_on(as_it_is, options_for, tmp_path):
    data = preprocess(as_it_is(tmp_path / "out", augment="flip", copies=1), Silent()).folder
    result = train(options_for(tmp_path / "runs", data=data, fold=1, **QUICK), Silent())
    folds, rows = read_folds(data), read_manifest(data)
    kept = [row for row in rows if row.split != "test" and folds[row.patient_id] != 1]
    assert result.facts["train_images"] == len(kept)
    assert result.facts["val_images"] == 2 * sum(own == 1 for own in folds.values())
    assert 0 < sum(bool(row.parent) for row in kept) < len(kept)


def test_preprocessing_for_a_fold_that_there_is_not_touches_nothing(as_it_is, tmp_path):
    with pytest.raises(UserError, match="has 3 folds, so there is no fold 9"):
        preprocess(as_it_is(tmp_path / "out", fold=9), Silent())
    assert not (tmp_path / "out").exists()


def test_a_patient_without_a_fold_is_refused(prepared, options_for, tmp_path):
    other = shutil.copytree(prepared, tmp_path / "other")
    write_manifest(other, [*read_manifest(other), *read_manifest(make_dataset(
        tmp_path / "more", {"train": 1}, first=900
    ))])  # fmt: skip
    with pytest.raises(UserError, match="has 3 folds, but patient P_00900 is in none of them"):
        train(options_for(tmp_path / "runs", data=other, fold=1), Silent())
