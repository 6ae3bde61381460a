"""A run that was trained on one collection, evaluated on another: the question must be the same.

That data of the same question are scored, and told to be others, is in test_stage.
"""

import shutil

import pytest

from models.evaluation.stage import evaluate
from models.training.stage import train
from pipeline.errors import UserError
from pipeline.manifest import QUESTIONS
from pipeline.progress import Silent
from pipeline.records import read_json
from pipeline.stages.evaluation import Evaluate
from tests.models.datasets import make_dataset

FEW = {"train": 4, "val": 2, "test": 4}


def measured(run, data):
    options = Evaluate(run=str(run), runs=run.parents[1], data=data, replicates=20, workers=1)
    return evaluate(options, Silent())


def dataset(folder, question, first=0):
    return make_dataset(folder, FEW, labels=QUESTIONS[question], first=first, seed=9)


@pytest.mark.slow
def test_malignant_against_the_rest_is_measured_against_benign_with_a_note(options_for, tmp_path):
    data = dataset(tmp_path / "data", "malignant-rest")
    run = train(options_for(tmp_path / "runs", data=data, batch_size=4), Silent()).folder
    assert read_json(run / "model.json")["labels"] == ["not_malignant", "malignant"]
    result = measured(run, dataset(tmp_path / "other", "benign-malignant", first=500))
    assert result.facts["test"]["images"] == 8
    learnt = "the run learnt to tell not malignant or malignant, "
    wanted = f"{learnt}and the images here are benign or malignant"
    assert wanted in result.notes


@pytest.mark.slow
def test_another_positive_is_refused_in_one_line(trained, tmp_path):
    run = tmp_path / "runs" / trained.folder.parent.name / trained.folder.name
    shutil.copytree(trained.folder, run)
    assert "labels" not in read_json(run / "model.json")  # benign and malignant
    data = dataset(tmp_path / "other", "abnormal-normal", first=500)
    wanted = "learnt to tell benign or malignant, and the images of this dataset are normal or "
    wanted += "abnormal; organise the data with --question benign-malignant or malignant-rest"
    with pytest.raises(UserError, match=wanted):
        measured(run, data)
    assert not (run / "metrics.json").exists()
