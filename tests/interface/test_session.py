"""What is kept of the answers for the next time, and what is not."""

from pathlib import Path

from interface.menu import GROUPS, WHOLE
from interface.session import offered_answers
from interface.stages import STAGES, remember
from pipeline import workspace
from pipeline.progress import Result
from pipeline.stages.collections import Synthesize
from pipeline.stages.data import Organize
from pipeline.stages.training import Train
from pipeline.stages.tuning import Tune
from pipeline.stages.whole import Whole


def test_the_next_stage_offers_the_folder_that_was_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "films").mkdir()
    made = Result(Path("films"), "", {}, next_stage="organize", next_options={"source": "films"})
    remember("synthesize", Synthesize(out=Path("films")), made)
    # After a restart: what the panel shows is what is offered.
    assert offered_answers("organize", Organize)["source"] == "films"
    assert dict(workspace.survey(workspace.recall()).lines)["raw collection"].startswith("films")


def test_answers_of_a_stage_outlive_what_the_stage_before_offers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    remember("organize", Organize(source=Path("a"), unit="crop"), Result(None, "", {}))
    made = Result(Path("b"), "", {}, next_stage="organize", next_options={"source": "b"})
    remember("synthesize", Synthesize(out=Path("b")), made)
    offered = offered_answers("organize", Organize)
    assert (offered["source"], offered["unit"]) == ("b", "crop")


def test_parts_of_the_whole_way_are_offered_as_they_were_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    remember("all", Whole(finding="both", model="MammoCNN"), Result(None, "", {}))
    assert offered_answers("organize", Organize)["finding"] == "both"
    assert offered_answers("train", Train)["model"] == "MammoCNN"


def test_every_stage_stands_in_the_menu():
    grouped = [name for group in GROUPS.values() for name in group]
    assert sorted([*grouped, *WHOLE]) == sorted(STAGES)


def test_a_password_in_an_address_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    remember("tune", Tune(storage="postgresql://me:secret@host/db"), Result(None, "", {}))
    assert "secret" not in (tmp_path / ".mammolab" / "answers.json").read_text()


def test_batch_teaches_nothing(run_here, tmp_path):
    small = ("--patients", "8", "--size", "256", "--workers", "1")
    done = run_here("synthesize", *small, "--out", "x", "--batch")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / ".mammolab").exists()
    assert run_here("train", "--data", "gone", "--batch").returncode == 1
    assert not (tmp_path / ".mammolab").exists()
    assert offered_answers("train", Train) == {}
