"""Caches are shown, removed by kind and made anew; results, links and what is in use stay."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from interface.upkeep.clean import clean, live_sizes
from models.training.stage import train
from organize_data import organize
from pipeline.errors import UserError
from pipeline.options import checked
from pipeline.progress import Silent
from pipeline.stages.data import Organize, Preprocess
from pipeline.stages.training import Train
from pipeline.stages.upkeep import KINDS, Clean
from preprocess_data import preprocess
from tests.conftest import ROOT

KILLED = """
import os, sys
from pathlib import Path
from pipeline.records import atomic
contexts = [atomic(Path(name)) for name in sys.argv[1:]]
for context in contexts:
    context.__enter__().write_text("half")
os._exit(1)
"""
USING = """
import mmap, sys, time
from pathlib import Path
from pipeline.holding import hold
how, path = sys.argv[1], Path(sys.argv[2])
if how == "hold":
    hold(path, "preprocess")
elif how == "open":
    file = path.open("rb")
else:
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
print("ready", flush=True)
time.sleep(60)
"""


def train_quickly(work, model="ResNet18_PFT", **given):
    quick = {
        "data": work / "preprocessed", "model": model, "weights": "none", "epochs": 1, "size": 32,
        "variants": 1, "precision": "fp32", "device": "cpu", "workers": 1, "runs": work / "runs",
    }  # fmt: skip
    return train(checked(Train, quick | given), Silent())


@pytest.fixture(scope="module")
def made(prepared, tmp_path_factory):
    """A workspace with a training and all that a training keeps; the raw collection is near."""
    work = tmp_path_factory.mktemp("made") / "work"
    shutil.copytree(prepared, work)
    train_quickly(work)
    (work / "reports" / "20260101-120000").mkdir(parents=True)
    begun = json.dumps({"stage": "report", "options": {}})
    (work / "reports" / "20260101-120000" / "unfinished.json").write_text(begun)
    trials = work / "runs" / "studies" / "one" / "trials" / "3"
    trials.mkdir(parents=True)
    (trials.parents[1] / "unfinished.json").write_text(json.dumps({"stage": "tune", "options": {}}))
    (trials.parents[1] / "study.db").write_bytes(b"study")
    (trials / "weights.safetensors").write_bytes(b"0" * 1000)
    old = time.time() - 7200
    os.utime(trials / "weights.safetensors", (old, old))
    killed = [work / "runs" / "queue.csv", work / "preprocessed" / "manifest.csv",
              work / ".mammolab" / "answers.json"]  # fmt: skip
    command = [sys.executable, "-c", KILLED, *killed]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 1
    return work


@pytest.fixture
def work(made, tmp_path):
    return shutil.copytree(made, tmp_path / "work", symlinks=True)


@pytest.fixture
def user():
    """Begin a process that uses a file or a folder."""
    begun = []

    def start(how, path):
        command = [sys.executable, "-c", USING, how, path]
        begun.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
        assert begun[-1].stdout.readline() == "ready\n"
        return begun[-1].pid

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def ask(work, what="nothing"):
    return clean(checked(Clean, {"folder": work, "what": what}), Silent())


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def is_result(name):
    parts = name.split("/")
    kept = {".cache", "working", "trials", "headers.jsonl", "20260101-120000"}
    return not kept.intersection(parts) and ".part" not in name


def test_every_kind_is_shown_with_its_bytes_and_nothing_is_removed(work):
    before = files_of(work)
    result = ask(work)
    assert files_of(work) == before
    assert all(result.facts["kinds"][kind] > 0 for kind in KINDS), result.facts
    cached = sum(len(data) for name, data in before.items() if ".cache" in name and
                 "frozen" not in name)  # fmt: skip
    assert result.facts["kinds"]["image-cache"] == cached
    assert result.facts["kinds"]["leftovers"] == 3 * len("half")
    assert f"clean --what all --folder {work} --batch" in result.notes[-1]
    assert {row[0] for row in result.tables[0].rows} == set(KINDS)


def test_a_kind_goes_alone_and_results_stay(work):
    before, sizes = files_of(work), ask(work).facts["kinds"]
    for kind in KINDS:  # one after the other
        result = ask(work, kind)
        after = files_of(work)
        assert result.facts["bytes"] == sizes[kind]
        assert sum(map(len, before.values())) - sum(map(len, after.values())) == sizes[kind]
        assert [name for name in before.keys() - after.keys() if is_result(name)] == []
        before = after
    assert ask(work).facts["kinds"] == dict.fromkeys(KINDS, 0)


@pytest.mark.slow
def test_all_leaves_results_and_everything_works_after_it(work, collection):
    before = files_of(work)
    ask(work, "all")
    after = files_of(work)
    assert after == {name: data for name, data in before.items() if is_result(name)}
    assert not list(work.rglob(".cache"))
    organize(Organize(source=collection, out=work / "dataset", workers=1), Silent())
    options = Preprocess(data=work / "dataset", out=work / "preprocessed", workers=1)
    preprocess(options, Silent())
    again = files_of(work)
    images = [name for name in before if name.endswith(".png") and is_result(name)]
    assert {name: again[name] for name in images} == {name: before[name] for name in images}
    result = train_quickly(work, seed=42)
    first, second = sorted(work.glob("runs/ResNet18_PFT/*/weights.safetensors"))
    assert first.read_bytes() == second.read_bytes()
    assert result.facts["model"] == "ResNet18_PFT"
    assert all(ask(work).facts["kinds"][kind] for kind in ("image-cache", "features", "headers"))


@pytest.mark.slow
def test_other_options_of_preprocess_work_without_working_images(work):
    ask(work, "working")
    preprocess(
        Preprocess(data=work / "dataset", out=work / "preprocessed", workers=1, clahe=False),
        Silent(),
    )
    assert ask(work).facts["kinds"]["working"] > 0


@pytest.mark.slow
def test_several_kinds_and_contradictions(work, run_main):
    done = run_main("clean", "--what", "image-cache, features", "--batch", cwd=work)
    assert done.returncode == 0, done.stderr
    assert "freed" in done.stdout
    left = ask(work).facts["kinds"]
    assert (left["image-cache"], left["features"]) == (0, 0)
    assert left["working"] > 0
    done = run_main("clean", "--what", "nothing,features", "--batch", cwd=work)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "names nothing and something" in done.stderr
    assert run_main("clean", "--what", "results", "--batch", cwd=work).returncode == 2


def test_the_list_fits_80_columns(work, run_here):
    done = run_here("clean", "--batch", cwd=work)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    to_copy = next(line for line in lines if "main.py" in line)
    assert to_copy.endswith("main.py clean --what all --batch")
    assert max(len(line) for line in lines if line != to_copy) <= 80


@pytest.mark.parametrize(
    ("how", "path", "kind"),
    [
        ("hold", "preprocessed", "working"),
        pytest.param("hold", "dataset", "headers", marks=pytest.mark.slow),
        pytest.param("hold", "reports/20260101-120000", "reports", marks=pytest.mark.slow),
        ("map", "preprocessed/.cache/*.pixels", "image-cache"),
        pytest.param("map", "preprocessed/.cache/frozen/*.npy", "features", marks=pytest.mark.slow),
        ("open", "runs/studies/one/study.db", "trials"),
    ],
)
def test_what_a_living_process_uses_stays(work, user, how, path, kind):
    used = next(work.glob(path))
    process = user(how, used)
    before = {name for name in files_of(work) if not name.endswith((".lock", ".lock.txt"))}
    shown = ask(work)
    assert any(f"process {process}" in note and kind in note for note in shown.notes)
    result = ask(work, kind)
    assert [note for note in result.notes if f"process {process}" in note]
    if how == "map" and kind == "features":  # the others of them went
        assert used.is_file()
    else:
        assert before <= set(files_of(work))


def test_trials_that_were_written_to_just_now_stay(work):
    (work / "runs" / "studies" / "one" / "trials" / "3" / "history.csv").write_text("epoch\n1\n")
    assert "a search wrote there within the last hour" in ask(work, "trials").notes[0]
    assert ask(work).facts["kinds"]["trials"] > 0


def test_the_file_of_a_living_process_is_not_left_over(work):
    from pipeline.leftovers import name_in_work

    own = name_in_work(work / "runs" / "queue.csv")
    own.write_text("half")
    ask(work, "all")
    assert own.is_file()


def test_links_are_not_followed(work, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(work / "preprocessed", elsewhere / "preprocessed")
    outside = files_of(elsewhere)
    (work / "linked").symlink_to(elsewhere / "preprocessed")
    shutil.rmtree(work / "preprocessed" / ".cache")
    shutil.rmtree(work / "preprocessed" / "working")
    (work / "preprocessed" / ".cache").symlink_to(elsewhere / "preprocessed" / ".cache")
    (work / "preprocessed" / "working").symlink_to(elsewhere / "preprocessed" / "working")
    (work / "dataset" / "headers.jsonl").unlink()
    (work / "dataset" / "headers.jsonl").symlink_to(elsewhere / "preprocessed" / "manifest.csv")
    ask(work, "all")
    assert files_of(elsewhere) == outside


def test_folders_of_somebody_else_are_left_alone(tmp_path):
    for name in ("thesis/.cache/64.json", "working/a.png", "headers.jsonl", "trials/notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    (tmp_path / "thesis" / "stage.json").write_text('{"stage": "preprocess"')  # not ours
    before = files_of(tmp_path)
    assert ask(tmp_path, "all").facts["bytes"] == 0
    assert files_of(tmp_path) == before
    assert ask(tmp_path).headline == f"Nothing to remove in {tmp_path}"


def test_a_run_whose_deletion_was_killed_is_left_over(work):
    code = "import sys; from pathlib import Path; from pipeline.leftovers import name_in_work; " \
           "name_in_work(Path(sys.argv[1])).mkdir()"  # fmt: skip
    subprocess.run([sys.executable, "-c", code, work / "runs" / "MammoCNN-1"], cwd=ROOT, check=True)
    (dead,) = (work / "runs").glob(".MammoCNN*")
    (dead / "weights.safetensors").write_bytes(b"0" * 500)
    assert ask(work).facts["kinds"]["leftovers"] == 500 + 3 * len("half")
    ask(work, "leftovers")
    assert not dead.exists()


def test_the_question_shows_the_bytes_of_each_kind(work):
    shown = live_sizes("what", {"folder": work})
    assert shown["trials"] == "1 kB"
    assert set(shown) == {*KINDS, "all"}


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        ask(tmp_path / "none")
