"""What the terminal shows: it fits 80 columns, reads without colour, and shows text as it is."""

from pathlib import Path

import pytest

from interface.screen import Screen
from pipeline.errors import UserError
from pipeline.progress import Result, Table
from pipeline.stages.data import Preprocess
from pipeline.stages.training import Train
from pipeline.workspace import Workspace


@pytest.fixture
def shown(capsys, monkeypatch):
    """Return what was drawn on a terminal of 80 columns, by line."""
    monkeypatch.setenv("COLUMNS", "80")

    def lines():
        return [line.rstrip() for line in capsys.readouterr().out.splitlines()]

    return lines


def result(**more):
    table = Table("Images", ("split", "n", "AUC"), (("train", 70, 0.91234), ("val", 12, None)))
    return Result(
        Path("out [1]"), more.pop("headline", "Done [really]"), {}, tables=(table,), **more
    )


def test_a_result_shows_headline_tables_and_the_next_command(shown):
    Screen().result(result(notes=("small [n]",)), "python main.py train", 75)
    text = "\n".join(shown())
    for expected in (
        "Done [really]",
        "Note: small [n]",
        "train   70   0.912",
        "val     12       -",
        "In out [1], after 01:15 min.",
        "Next: python main.py train",
    ):
        assert expected in text
    assert "\x1b" not in text


def test_what_was_set_aside_is_said_with_its_list(shown):
    Screen().result(result(set_aside=3), "", 1)
    assert f"Set aside: 3, each with its reason in {Path('out [1]') / 'set_aside.csv'}" in shown()


@pytest.mark.parametrize("options", [Preprocess(), Train(), Train(model="MammoCNN")])
def test_a_summary_fits_80_columns_but_for_the_command_to_copy(shown, options):
    Screen().summary("stage", options)
    lines = shown()
    command = next(line for line in lines if "main.py" in line)
    assert command.endswith("--batch")
    assert max(len(line) for line in lines if line != command) <= 80


def test_a_summary_marks_what_is_not_the_default_and_leaves_out_what_does_not_apply(shown):
    Screen().summary("preprocess", Preprocess(clahe=False, clahe_clip=9.0))
    text = shown()
    assert any("Enhance local contrast" in line and "changed" in line for line in text)
    assert not any("clip limit" in line for line in text)


def test_rows_stand_under_their_heads_and_the_best_is_marked(shown):
    screen = Screen()
    screen.row({"epoch": 1, "train loss": 0.71234, "val AUC": float("nan")})
    screen.row({"epoch": 2, "train loss": 0.6, "val AUC": 0.75}, best=True)
    head, first, second = shown()
    assert head.split() == ["epoch", "train", "loss", "val", "AUC"]
    assert first.split() == ["1", "0.712", "-"]
    assert second.split() == ["2", "0.600", "0.750", "best"]
    assert len(head) == len(first) == len(second) - len("  best")


def test_a_bar_ends_full_and_counts_only_this_runs_work(shown):
    with Screen().track("Reading", 10, "files", done=4) as advance:
        for _ in range(6):
            advance(1)
    assert any("Reading" in line and "10/10" in line for line in shown())


def test_the_home_panel_shows_the_state_and_the_notice(shown):
    state = Workspace((("dataset", "train 70"), ("runs", "none yet")), "dataset ready", "train", {})
    screen = Screen()
    screen.console.height = 40
    screen.home(state)
    text = "\n".join(shown())
    assert "train 70" in text
    assert "Not a medical device" in text
    screen.console.height = 24  # so that the result above stays in sight
    screen.home(state)
    assert [line for line in shown() if line] == ["Mammolab  dataset ready"]


def test_what_is_shown_is_written_to_the_log_too(shown, tmp_path):
    screen = Screen(log=tmp_path / "logs" / "a.log")
    with screen.track("Reading", 10, "files"):
        screen.say("half way")
    screen.result(result(), "", 1)
    with pytest.raises(UserError), screen.logging_errors():
        raise UserError("no room")
    log = (tmp_path / "logs" / "a.log").read_text()
    assert "half way" in "\n".join(shown())
    for expected in ("Reading: 10 files", "half way", "Done [really]", "0.912", "no room"):
        assert expected in log
    with pytest.raises(UserError, match="cannot be written"):
        Screen(log=tmp_path / "logs")


def test_with_json_everything_is_drawn_on_stderr(capsys):
    Screen(to_stderr=True).say("hello")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "hello\n"


@pytest.mark.parametrize("width", [80, 30])
def test_a_title_wider_than_its_table_is_broken_by_the_terminal_alone(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    title = "ResNet18_CFT: malignant from 0.306 on"
    lines = Screen().text_of_table(Table(title, ("Image",), (("a.png",),))).splitlines()
    assert (lines[0].rstrip() == title) == (width == 80)
    assert max(map(len, lines)) <= width
