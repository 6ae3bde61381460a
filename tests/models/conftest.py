import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch

import models.evaluation.figures
import models.tuning.figures
from models.evaluation.baselines import baselines
from models.evaluation.tested import BASELINES_FOLDER
from models.training.stage import train
from pipeline.manifest import read_manifest
from pipeline.progress import Silent
from pipeline.stages.evaluation import Evaluate
from pipeline.stages.export import Export
from pipeline.stages.training import Train
from tests.conftest import OFFLINE, ROOT
from tests.models.datasets import SIZE, make_dataset
from tests.quick import DRAWN, briefly_timed, without_figures

FIGURES = dict(
    zip(
        DRAWN,
        (models.evaluation.figures.write_figures, models.tuning.figures.write_figures),
        strict=True,
    )
)


class Listener(Silent):
    """Keeps what a stage told."""

    def __init__(self):
        self.rows = []
        self.lines = []

    def say(self, text):
        self.lines.append(text)

    def row(self, cells, best=False):
        self.rows.append((dict(cells), best))


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture(autouse=True)
def _one_thread():
    """On pictures this small threads wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# Of the package, so that the fixtures of modules are made within.
@pytest.fixture(scope="package", autouse=True)
def _quick():
    with without_figures(), briefly_timed():
        yield


@pytest.fixture(autouse=True)
def _drawn(request, monkeypatch):
    """Tests that look at figures are marked, and draw them."""
    if "drawn" in request.keywords:
        for name, function in FIGURES.items():
            monkeypatch.setattr(name, function)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """A dataset of 24 patients; not to be written to."""
    return make_dataset(tmp_path_factory.mktemp("tiny") / "preprocessed")


@pytest.fixture(scope="session")
def few_data(tmp_path_factory):
    """A dataset of six patients; not to be written to, but for what is kept of frozen layers."""
    return make_dataset(tmp_path_factory.mktemp("few") / "data", {"train": 4, "val": 2})


@pytest.fixture(scope="session")
def options_for(tiny_data):
    """Options of a quick training on the tiny dataset."""

    def make(runs, **given):
        quick = {
            "data": tiny_data,
            "model": "MammoCNN",
            "weights": "none",
            "epochs": 1,
            "size": SIZE,
            "batch_size": 12,
            "workers": 1,
            "augment": "none",
            "precision": "fp32",
            "device": "cpu",
        }
        return Train(**{**quick, "runs": runs, **given})

    return make


@pytest.fixture(scope="session")
def trained(options_for, tmp_path_factory):
    """A real training that learns; its folder is not to be written to."""
    runs = tmp_path_factory.mktemp("trained") / "runs"
    return train(options_for(runs, epochs=4, batch_size=6), Silent())


@pytest.fixture(scope="session")
def give_baselines(tiny_data, tmp_path_factory):
    """Give a folder of runs the baselines of the tiny dataset, which take longer than all else."""
    made = tmp_path_factory.mktemp("baselines")
    baselines(tiny_data, read_manifest(tiny_data), made, 1, Evaluate().seed, Silent())

    def give(runs):
        shutil.copytree(made / BASELINES_FOLDER, runs / BASELINES_FOLDER)

    return give


# --- evaluated runs, and what exporting them gives


@pytest.fixture(scope="session")
def evaluate_run(give_baselines):
    """Evaluate a run whose folder of runs is ours to write to; return its folder."""
    from models.evaluation.stage import evaluate

    def evaluated(folder, **given):
        runs = folder.parents[1]
        if not (runs / BASELINES_FOLDER).is_dir():
            give_baselines(runs)
        quick = {"run": str(folder), "runs": runs, "replicates": 100, "workers": 1}
        evaluate(Evaluate(**quick | given), Silent())
        return folder

    return evaluated


@pytest.fixture(scope="session")
def mammo_cnn(trained, evaluate_run, tmp_path_factory):
    """An evaluated run of MammoCNN; not to be written to."""
    place = tmp_path_factory.mktemp("mammo") / "runs" / "MammoCNN" / trained.folder.name
    shutil.copytree(trained.folder, place)
    return evaluate_run(place)


@pytest.fixture(scope="session")
def resnet18(options_for, evaluate_run, tmp_path_factory):
    """An evaluated run of ResNet18, calibrated by isotonic regression; not to be written to."""
    options = options_for(tmp_path_factory.mktemp("resnet") / "runs", model="ResNet18_CFT")
    return evaluate_run(train(options, Silent()).folder, calibration="isotonic")


@pytest.fixture(scope="session")
def export_of(tmp_path_factory):
    """Export a run into a folder of its own; return what the stage returned."""
    from models.export.stage import export

    def exported(run):
        out = tmp_path_factory.mktemp("exported") / "export"
        return export(Export(run=str(run), runs=run.parents[1], out=out), Silent())

    return exported


@pytest.fixture(scope="session")
def exported_cnn(mammo_cnn, export_of):
    """What exporting the run of MammoCNN gave; not to be written to."""
    return export_of(mammo_cnn)


@pytest.fixture(scope="session")
def exported_resnet(resnet18, export_of):
    """What exporting the run of ResNet18 gave; not to be written to."""
    return export_of(resnet18)


# --- processes that can be killed


# Forks a process for each line, so that what takes seconds is loaded once; says its id, and in the
# end its status.
NURSERY = """
import json, os, sys
import main, models.training.stage, models.tuning.stage
for line in sys.stdin:
    words, folder, told = json.loads(line)
    child = os.fork()
    if not child:
        os.chdir(folder)
        for stream in (1, 2):
            os.dup2(os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        sys.exit(main.main(words))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Begun:
    """main.py in a process of its own, and a file with what it tells."""

    def __init__(self, number, told, statuses):
        self.number, self._told, self._statuses = number, told, statuses
        self._status = None

    def lives(self):
        try:
            os.kill(self.number, 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self):
        if self._status is None and self.lives():
            os.kill(self.number, signal.SIGKILL)
        self.wait()

    def wait(self):
        if self._status is None:
            self._status = int(self._statuses.readline())
        return self._status

    def told(self):
        return self._told.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def nursery():
    process = subprocess.Popen(
        [sys.executable, "-c", NURSERY],
        env=OFFLINE | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.communicate(timeout=60)


@pytest.fixture
def begin(nursery, tmp_path):
    """Begin main.py with these words in an empty folder; one at a time."""
    begun = []

    def start(*words):
        told = tmp_path / "told.txt"
        nursery.stdin.write(json.dumps([[*map(str, words)], str(tmp_path), str(told)]) + "\n")
        nursery.stdin.flush()
        begun.append(Begun(int(nursery.stdout.readline()), told, nursery.stdout))
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
