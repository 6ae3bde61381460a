"""Where the work stands, and which step comes next."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.records import claim_folder, close_folder, open_folder
from pipeline.stages.data import Organize, Preprocess
from pipeline.workspace import keep_draft, recall, remember, survey, take_draft


@dataclass(frozen=True)
class Options:
    seed: int = 1


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Each test begins in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def finish(folder, stage, **counts):
    close_folder(folder, stage, Options(), counts, "abc", 1.0)


def test_the_next_step_follows_the_work(empty_folder):
    def next_stage():
        return survey(recall()).next_stage

    assert next_stage() == "synthesize"
    (empty_folder / "raw").mkdir()
    assert next_stage() == "organize"
    finish(empty_folder / "dataset", "organize")
    assert next_stage() == "preprocess"
    finish(empty_folder / "preprocessed", "preprocess")
    assert next_stage() == "train"
    run = empty_folder / "runs" / "MammoCNN" / "20260101-100000-1"
    finish(run, "train")
    assert next_stage() == "evaluate"
    (run / "metrics.json").write_text("{}")
    assert next_stage() == "report"
    report = empty_folder / "reports" / "20260101-110000" / "report.html"
    report.parent.mkdir(parents=True)
    report.write_text("<html>")
    assert next_stage() == "train"


def test_an_unfinished_folder_says_how_to_go_on(empty_folder):
    open_folder(empty_folder / "dataset", "organize", Options())
    lines = dict(survey({}).lines)
    assert lines["dataset"] == "dataset: not finished; run it again to continue"


def test_a_synthetic_collection_that_was_stopped_is_not_organised_yet(empty_folder):
    open_folder(empty_folder / "raw", "synthesize", Options())
    state = survey({})
    assert state.next_stage == "synthesize"
    assert "not finished" in dict(state.lines)["raw collection"]


def test_an_organise_of_another_download_that_was_stopped_comes_next(empty_folder):
    (empty_folder / "download").mkdir()
    open_folder(empty_folder / "dataset", "organize", Organize(source=Path("download")))
    state = survey({})
    assert state.next_stage == "organize"
    assert dict(state.lines)["raw collection"].startswith("download")
    # A dataset that flags made says it as well, whatever was answered at questions before.
    close_folder(Path("dataset"), "organize", Organize(source=Path("download")), {}, "abc", 1.0)
    lines = dict(survey({"organize": {"source": "before"}}).lines)
    assert lines["raw collection"].startswith("download")


def test_counts_of_each_split_are_shown(empty_folder):
    finish(
        empty_folder / "mine", "organize", splits={"train": {"images": 70}, "test": {"images": 20}}
    )
    (empty_folder / "mine" / "film.png").write_bytes(bytes(3_000_000))
    yesterday = time.time() - 50 * 3600
    os.utime(empty_folder / "mine" / "stage.json", (yesterday, yesterday))
    lines = dict(survey({"organize": {"out": "mine"}}).lines)
    assert lines["dataset"] == "mine: 70 train, 20 test images, 3.0 MB, 2 d ago"


def test_answers_are_kept_for_the_next_time():
    remember("train", {"epochs": 3})
    remember("organize", {"unit": "crop"})
    remember("train", {"epochs": 4})
    assert recall() == {"train": {"epochs": 4}, "organize": {"unit": "crop"}}


def test_what_is_unfinished_or_waiting_is_marked(empty_folder):
    open_folder(empty_folder / "dataset", "organize", Options())
    for name in ("20260101-100000-1", "20260101-100000-2"):
        finish(empty_folder / "runs" / "MammoCNN" / name, "train")
    open_folder(empty_folder / "runs" / "MammoCNN" / "20260101-100000-3", "train", Options())
    (empty_folder / "runs" / "MammoCNN" / "20260101-100000-1" / "metrics.json").write_text("{}")
    state = survey({})
    assert state.marks == {"organize": "not finished", "train": "1 stopped",
                           "evaluate": "1 waiting"}  # fmt: skip
    assert state.brief == (
        "raw none, dataset not finished, preprocessed none, 2 runs (1 stopped, 1 waiting), "
        "report none"
    )
    assert "1 stopped; run train to continue" in dict(state.lines)["runs"]


def test_a_draft_is_offered_once():
    keep_draft("train", {"epochs": 3})
    assert take_draft("train") == {"epochs": 3}
    assert take_draft("train") == {}
    assert recall() == {}


def test_a_broken_memory_is_no_memory(empty_folder):
    (empty_folder / ".mammolab").mkdir()
    (empty_folder / ".mammolab" / "answers.json").write_text("[1, 2")
    assert recall() == {}


def test_a_preview_is_told_from_a_dataset_begun():
    claim_folder(Path("preprocessed"), "preprocess", Preprocess(preview=3))
    assert dict(survey({}).lines)["preprocessed"].endswith("nothing preprocessed yet")


def test_a_download_that_was_only_checked_is_told_from_a_dataset_begun():
    claim_folder(Path("dataset"), "organize", Organize(check=True))
    assert dict(survey({}).lines)["dataset"].endswith("checked; not organised yet")
    open_folder(Path("dataset"), "organize", Organize())
    assert dict(survey({}).lines)["dataset"].endswith("run it again to continue")
