"""The whole way: what is done is left out, what is stale is made anew, a stop loses nothing."""

import json
import os
import signal
import time
from pathlib import Path

import pexpect
import pytest
from huggingface_hub import constants

from interface.plan import done_already
from interface.stages import STAGES
from pipeline.options import checked, defaults
from pipeline.records import close_folder, write_set_aside
from pipeline.stages.data import Organize, Preprocess
from pipeline.stages.whole import Demo, Whole, demo_plan, whole_plan
from tests.interrupts import interrupted_when, interrupts_itself
from tests.quick import briefly_timed, without_figures

SMALL = ("--model", "ResNet18_OPW", "--weights", "none", "--epochs", "1", "--size", "64",
         "--workers", "1", "--batch", "--json")  # fmt: skip


@pytest.fixture
def organized(tmp_path):
    """A dataset with its collection, both of nothing but records."""
    options = Organize(source=tmp_path / "raw", out=tmp_path / "dataset")
    (tmp_path / "raw" / "films").mkdir(parents=True)
    close_folder(options.out, "organize", options, {}, "", 1.0)
    (options.out / "manifest.csv").write_text("")
    return options


def test_a_dataset_of_the_same_options_is_done(organized, tmp_path, monkeypatch):
    assert done_already("organize", organized)
    assert done_already("organize", Organize(**vars(organized) | {"workers": 2}))
    monkeypatch.chdir(tmp_path)
    assert done_already("organize", Organize(**vars(organized) | {"out": Path("dataset")}))
    assert not done_already("organize", Organize(**vars(organized) | {"unit": "crop"}))
    assert not done_already("organize", Organize(**vars(organized) | {"out": tmp_path / "no"}))
    assert not done_already("preprocess", Preprocess(data=organized.out, out=organized.out))


def test_a_download_that_went_on_is_organised_again(organized):
    later = time.time() + 5
    (organized.source / "films" / "new.dcm").touch()
    os.utime(organized.source / "films", (later, later))
    assert not done_already("organize", organized)


def test_a_dataset_with_files_set_aside_is_tried_again(organized):
    write_set_aside(organized.out, [("a.dcm", "cut short")])
    assert not done_already("organize", organized)


def test_a_damaged_record_is_made_anew(organized):
    (organized.out / "stage.json").write_text("[1")
    assert not done_already("organize", organized)


@pytest.mark.parametrize(
    ("model", "beside"), [("CAE,MammoCNN", True), ("anomaly", True), ("all", False)]
)
def test_detectors_are_compared_with_what_they_have_to_beat(model, beside):
    plan = dict(whole_plan(Whole(model=model)))
    assert plan["compare"].get("anomaly", False) == beside


def test_several_models_are_compared_and_one_is_not():
    assert "compare" not in dict(whole_plan(Whole(model="MammoCNN")))
    for given in ({"model": "all"}, {"model": "MammoCNN,ResNet18_OPW"}, {"seeds": 2}):
        plan = dict(whole_plan(Whole(**{"model": "MammoCNN"} | given)))
        assert [*plan][-2:] == ["compare", "report"]
        assert plan["evaluate"]["run"] == "all"


def test_the_demo_is_the_whole_way_on_a_collection_of_its_own():
    plan = demo_plan(Demo())
    assert [name for name, _ in plan] == [
        "synthesize", "organize", "preprocess", "train", "evaluate", "report",
    ]  # fmt: skip
    for name, values in plan:
        assert not values.keys() - defaults(STAGES[name].options).keys()


def test_the_demo_of_detectors_goes_to_a_comparison_of_them():
    plan = demo_plan(Demo(anomaly=True))
    assert [name for name, _ in plan] == [
        "synthesize", "organize", "preprocess", "train", "evaluate", *["explain"] * 4, "compare",
        "report",
    ]  # fmt: skip
    for name, values in plan:
        assert not values.keys() - defaults(STAGES[name].options).keys()
    stages_of = dict(plan)
    assert stages_of["compare"]["anomaly"]
    assert stages_of["organize"]["question"] == "abnormal-normal"
    assert stages_of["synthesize"]["collection"] == "mini-mias"
    assert stages_of["train"]["model"].split(",") == ["CAE", "VAE", "PatchCore", "ResNet18_CFT"]


def stages(done):
    assert done.returncode == 0, done.stderr
    return {one["stage"]: one for one in json.loads(done.stdout)}


@pytest.mark.slow
def test_the_whole_way_leaves_out_what_is_done_and_makes_what_is_stale(
    run_here, collection, tmp_path
):
    first = stages(run_here("all", "--source", collection, *SMALL))
    assert [*first] == ["organize", "preprocess", "train", "evaluate", "report"]
    again = run_here("all", "--source", collection, *SMALL)
    assert again.stderr.count("done already") == 2
    assert [*stages(again)] == ["train", "evaluate", "report"]
    assert "nothing was left to train" in stages(again)["train"]["headline"]
    assert len(list(tmp_path.glob("runs/*/*/metrics.json"))) == 1
    # Other preprocessing: what follows is made anew, what comes before is kept.
    other = run_here("all", "--source", collection, *SMALL, "--size", "96")
    assert [*stages(other)] == ["preprocess", "train", "evaluate", "report"]
    assert len(list(tmp_path.glob("runs/*/*/metrics.json"))) == 2
    plan = json.loads((tmp_path / "answers.json").read_text())["stages"]
    assert [one["stage"] for one in plan] == [*first]
    assert checked(Whole, {"source": collection}).out.resolve() == tmp_path


def test_weights_that_cannot_be_had_are_refused_before_the_work(
    run_here, collection, tmp_path, monkeypatch
):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    done = run_here("all", "--source", collection, "--weights", "imagenet", "--batch")
    assert done.returncode == 1
    assert "ImageNet weights of densenet121.ra_in1k" in done.stderr
    assert not (tmp_path / "dataset").exists()


@interrupts_itself
def test_a_stop_says_how_the_whole_way_goes_on_and_so_it_does(run_here, collection, tmp_path):
    with interrupted_when(lambda: list(tmp_path.glob("preprocessed/*/*/*.png"))):
        done = run_here("all", "--source", collection, *SMALL)
    assert done.returncode == 130
    assert "all: stopped; continue with: python main.py all " in done.stderr
    assert (tmp_path / "dataset" / "stage.json").is_file()
    assert not (tmp_path / "preprocessed" / "stage.json").exists()
    with without_figures(), briefly_timed():
        rest = stages(run_here("all", "--source", collection, *SMALL))
    assert [*rest] == ["preprocess", "train", "evaluate", "report"]
    assert Path(rest["report"]["facts"]["report"]).is_file()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_a_stop_in_a_terminal_says_how_the_whole_way_goes_on(terminal, collection, tmp_path):
    child = terminal("all", "--source", collection, *SMALL[:-2], "--batch")
    child.expect_exact("Preprocessing")
    child.kill(signal.SIGINT)
    child.expect(r"all: stopped; continue with: python \S*main.py all ")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert (tmp_path / "dataset" / "stage.json").is_file()
