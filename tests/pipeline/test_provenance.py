"""Nothing continues on what has changed since: each link of the chain is known by its content."""

import shutil

import pytest

from pipeline.provenance import dataset_hash, differences, out_of_date
from pipeline.records import read_json
from pipeline.workspace import survey

ONE = ("--workers", "1", "--batch")
TRAIN = ("train", "--model", "ResNet18_OPW", "--weights", "none", "--size", "32", *ONE)


@pytest.fixture
def workspace(collection, run_here, tmp_path):
    """A workspace of small images, with a trained run."""
    (tmp_path / "raw").symlink_to(collection)
    for command in (("organize", *ONE), ("preprocess", "--size", "64", *ONE), TRAIN):
        done = run_here(*command)
        assert done.returncode == 0, done.stderr
    return tmp_path


def refused(done):
    assert done.returncode == 1, done.stdout
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.usefixtures("workspace")
def test_a_dataset_that_was_organised_again_stops_all_that_follows(run_here):
    assert run_here("organize", "--seed", "7", "--val-share", "0.3", *ONE).returncode == 0
    for command in (TRAIN, ("evaluate", "--batch"), ("tune", "--trials", "2", "--batch")):
        line = refused(run_here(*command))
        assert (
            "preprocessed: is out of date: dataset was organised again since (seed 42 -> 7" in line
        )
    state = survey({})
    assert state.next_stage == "preprocess"
    assert "out of date: dataset was organised again" in dict(state.lines)["preprocessed"]
    command = line.partition("run: python main.py ")[2].split()
    assert run_here(*command, "--workers", "1").returncode == 0
    assert run_here(*TRAIN).returncode == 0
    assert survey({}).next_stage == "evaluate"


@pytest.mark.slow
def test_a_dataset_that_is_being_organised_again_is_out_of_date(workspace, run_here):
    (workspace / "dataset" / "stage.json").rename(workspace / "dataset" / "unfinished.json")
    assert "dataset was organised again and that is not finished" in refused(run_here(*TRAIN))


@pytest.mark.slow
def test_a_moved_workspace_is_held_against_its_own_dataset(workspace, tmp_path_factory):
    moved = tmp_path_factory.mktemp("moved")
    for name in ("dataset", "preprocessed"):
        shutil.move(workspace / name, moved / name)
    record = read_json(moved / "preprocessed" / "stage.json")
    assert out_of_date(moved / "preprocessed", record) == ""
    manifest = moved / "dataset" / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("BENIGN", "MALIGNANT", 1))
    assert "images or labels changed" in out_of_date(moved / "preprocessed", record)
    shutil.rmtree(moved / "dataset")  # it may be thrown away
    assert out_of_date(moved / "preprocessed", record) == ""


@pytest.mark.slow
def test_other_pixels_under_the_same_manifest_are_another_dataset(workspace, run_here):
    folder = workspace / "preprocessed"
    manifest, before = (folder / "manifest.csv").read_bytes(), dataset_hash(folder)
    again = ("preprocess", "--size", "64", "--workers", "1", "--batch")
    assert run_here(*again).returncode == 0
    assert dataset_hash(folder) == before
    assert run_here(*again, "--clahe-clip", "8").returncode == 0
    assert (folder / "manifest.csv").read_bytes() == manifest
    assert dataset_hash(folder) != before
    line = refused(run_here("evaluate", "--batch"))
    assert "has changed since ResNet18_OPW/" in line
    assert "(clahe-clip 2.0 -> 8.0)" in line
    done = run_here("evaluate", "--data", "preprocessed", "--replicates", "100", "--batch")
    assert done.returncode == 0, done.stderr
    assert "preprocessed otherwise" in done.stdout.replace("\n", " ")


@pytest.mark.slow
def test_an_image_that_was_edited_is_noticed(workspace, run_here):
    one, other = sorted((workspace / "preprocessed" / "val").rglob("*.png"))[:2]
    shutil.copyfile(other, one)
    line = refused(run_here("evaluate", "--batch"))
    assert "preprocessed: val images have changed since ResNet18_OPW/" in line


def test_differences_are_named_and_places_are_none():
    old = {"seed": 1, "unit": "crop", "out": "a", "workers": 1}
    assert differences(old, old | {"out": "b", "workers": 2}) == ""
    assert differences(old, old | {"seed": 2, "new": True}) == "seed 1 -> 2, new None -> True"
