"""Workspaces with evaluated runs, as `predict` and the page need them."""

import shutil

from models.evaluation.stage import evaluate
from models.training.stage import train
from organize_data import organize
from pipeline.options import checked
from pipeline.progress import Silent
from pipeline.stages.collections import Synthesize
from pipeline.stages.data import Organize, Preprocess
from pipeline.stages.evaluation import Evaluate
from pipeline.stages.training import Train
from preprocess_data import preprocess
from sources.synthetic.stage import synthesize
from tests.quick import briefly_timed, without_figures


def make_workspace(place):
    common = {"workers": 1}
    for stage, options, values in (
        (synthesize, Synthesize, {"out": place / "raw", "patients": 40}),
        (organize, Organize, {"source": place / "raw", "out": place / "dataset"}),
        (preprocess, Preprocess, {"data": place / "dataset", "out": place / "preprocessed",
                                  "size": 128}),
        (train, Train, {"data": place / "preprocessed", "model": "ResNet18_OPW", "size": 64,
                        "weights": "none", "runs": place / "runs", "device": "cpu"}),
        (evaluate, Evaluate, {"runs": place / "runs", "replicates": 100}),
    ):  # fmt: skip
        with without_figures(), briefly_timed():
            stage(checked(options, {**common, **values}), Silent())
    return place


def make_detectors(place, folder):
    """Make runs of a workspace's data in a folder: its classifier, a CAE and PatchCore."""
    runs = folder / "runs"
    shutil.copytree(place / "runs", runs)
    for model in ("CAE", "PatchCore"):
        values = {"data": place / "preprocessed", "model": model, "size": 64, "weights": "none",
                  "epochs": 1, "runs": runs, "device": "cpu", "workers": 1}  # fmt: skip
        with without_figures(), briefly_timed():
            run = train(checked(Train, values), Silent()).folder
            options = {"run": str(run), "runs": runs, "replicates": 100, "workers": 1}
            evaluate(checked(Evaluate, options), Silent())
    return runs
