"""The questions: keys in, options out; the declarations under test are the real ones."""

from dataclasses import dataclass
from typing import Literal

import pytest

from interface.prompts.form import Form, in_words, open_questions
from interface.stages import STAGES
from pipeline.errors import UserError
from pipeline.options import between, option
from pipeline.records import close_folder
from pipeline.stages.collections import Synthesize
from pipeline.stages.data import Organize
from pipeline.stages.evaluation import Evaluate

ENTER, DOWN, UP, ESC, CTRL_C = "\r", "\x1b[B", "\x1b[A", "\x1b", "\x03"
DELETE, BACKSPACE = "\x1b[3~", "\x7f"
RUN = ENTER


@dataclass(frozen=True)
class Sample:
    """A stage with few questions."""

    kind: str = option("a", "Kind", choices={"a": "first", "b": "second"})
    epochs: int = option(30, "Epochs", check=between(1, 100), when=lambda a: a["kind"] == "b")
    weights: str = option("none", "Weights", choices={"none": "no"}, other="a file")
    note: str | None = option(None, "Note", advanced=True)
    seed: int = option(42, "Seed", words={"auto": "42"}, check=between(1, 99), advanced=True)


def form(options=Sample, given=None, offered=None, sources=None):
    return Form("sample", options, given or {}, offered or {}, sources or {})


def fill(*given, **more):
    """Answer the questions, then run what stands in the list."""
    asked = form(*given, **more)
    asked.ask_each()
    return asked.review()


def test_enter_takes_every_default(keys):
    keys(ENTER, ENTER, RUN)
    assert fill() == Sample()


def test_an_answer_opens_the_question_that_depends_on_it(keys):
    keys(DOWN, ENTER, "7", ENTER, ENTER, RUN)
    assert fill() == Sample(kind="b", epochs=7)


def test_a_refused_answer_keeps_the_question_open(keys):
    keys(DOWN, ENTER, "0", ENTER, "soon", ENTER, "9", ENTER, ENTER, RUN)
    assert fill() == Sample(kind="b", epochs=9)


def test_a_flag_answers_its_question_ahead(keys):
    keys(ENTER, RUN)
    assert fill(given={"kind": "b", "epochs": 3}) == Sample(kind="b", epochs=3)


def test_another_value_than_the_choices(keys):
    keys(ENTER, DOWN, ENTER, "my weights.pth", ENTER, RUN)
    assert fill() == Sample(weights="my weights.pth")


def test_an_empty_answer_is_no_answer(keys):
    keys(ENTER, DOWN, ENTER, ENTER, "w.pth", ENTER, RUN)  # the first Enter of a file is refused
    assert fill() == Sample(weights="w.pth")


def test_escape_at_another_value_comes_back_to_the_choices(keys):
    keys(ENTER, DOWN, ENTER, ESC, ENTER, RUN)
    assert fill() == Sample()


def test_a_run_that_is_not_there_is_refused_at_the_question(keys, tmp_path):
    (tmp_path / "runs").mkdir()
    close_folder(tmp_path / "runs" / "MammoCNN" / "best", "train", Synthesize(), {}, "", 1)
    asked = form(Evaluate, given={"runs": tmp_path / "runs"})
    other = "other", ENTER
    keys(*other, "MammoCNN/no", ENTER, "MammoCNN/best", ENTER, RUN)
    asked.ask_each()
    assert asked.review().run == "MammoCNN/best"


# Going back


def test_escape_goes_back_one_question_and_keeps_its_answer(keys):
    keys(DOWN, ENTER, "7", ENTER, ESC, ENTER, ENTER, RUN)
    assert fill() == Sample(kind="b", epochs=7)


def test_up_in_typed_text_goes_back_too_and_the_answer_can_change(keys):
    keys(DOWN, ENTER, UP, UP, ENTER, ENTER, RUN)  # b; back; up to a
    assert fill() == Sample()


def test_the_last_line_of_the_list_leaves(keys):
    keys(ENTER, ENTER, UP, ENTER)
    assert fill() is None


def test_ctrl_c_travels_up(keys):
    keys(ENTER, CTRL_C)
    with pytest.raises(KeyboardInterrupt):
        fill()


def test_closed_input_travels_up(keys):
    keys(ENTER)
    with pytest.raises(EOFError):
        fill()


# The list


def test_a_line_of_the_list_is_asked_again(keys):
    keys("Kind", ENTER, DOWN, ENTER, RUN)
    assert form().review() == Sample(kind="b")


def test_the_questions_can_be_gone_through_from_the_list(keys):
    keys(DOWN, ENTER, DOWN, ENTER, "5", ENTER, ENTER, RUN)
    assert form().review() == Sample(kind="b", epochs=5)


def test_advanced_options_are_a_list_of_their_own(keys):
    keys("Advanced", ENTER, "Seed", ENTER, "5", ENTER, "Done", ENTER, RUN)
    assert form().review() == Sample(seed=5)


@pytest.mark.parametrize("key", [DELETE, BACKSPACE])
def test_an_optional_answer_can_be_emptied(keys, key):
    keys("Note", ENTER, key, ENTER, RUN)
    assert form(offered={"note": "of last time"}).review() == Sample()


def test_a_word_stands_for_what_the_tool_decides(keys):
    keys("Seed", ENTER, "auto", ENTER, RUN)
    assert form(offered={"seed": 7}).review() == Sample(seed=42)


def test_a_mistake_comes_back_to_its_line_in_the_words_of_the_question(keys):
    wrong = UserError("--kind b: cannot be done here", "run: python main.py organize --kind b")
    keys(ENTER, DOWN, ENTER, RUN)
    assert form(offered={"kind": "a"}).review(wrong) == Sample(kind="b")
    told = in_words(wrong, Sample)
    assert told == '"Kind" b: cannot be done here; run: python main.py organize --kind b'


def test_the_list_shows_where_an_answer_comes_from():
    asked = form(offered={"kind": "b", "epochs": 7}, sources={"kind": "last time"})
    lines = asked._lines("Leave")
    assert lines["kind"].endswith("b (last time)")
    asked.answers["kind"] = "a"
    assert "(" not in asked._lines("Leave")["kind"]
    assert "note" not in lines, "an advanced option at its default"


@pytest.mark.parametrize("name", STAGES)
def test_the_list_of_every_stage_can_be_shown(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = Form(name, STAGES[name].options, {}, {}, {})
    for item in asked.items:
        assert asked._line(item)
    assert len(asked._lines("Leave")) >= 3


# Offers


@dataclass(frozen=True)
class Models:
    """A stage that takes several models and a word for a number."""

    model: str = option("a", "Model", choices={"a": "1st", "b": "2nd", "c": "3rd"}, several=True)
    fold: int | Literal["all"] = option(0, "Fold", check=between(0, 5))


def test_enter_takes_one_of_several(keys):
    keys(DOWN, ENTER, ENTER, RUN)
    assert fill(Models) == Models(model="b")


def test_space_marks_several(keys):
    keys(DOWN, " ", DOWN, " ", ENTER, "some", ENTER, "all", ENTER, RUN)
    assert fill(Models) == Models(model="b,c", fold="all")


def test_several_choices_of_last_time_are_marked(keys):
    keys(ENTER, ENTER, RUN)
    assert fill(Models, offered={"model": "a,c"}) == Models(model="a,c")


def test_the_last_answers_are_offered_where_they_still_hold(keys):
    keys(ENTER, ENTER, ENTER, RUN)
    offered = {"kind": "b", "epochs": 500, "weights": "old.pth", "seed": 7, "gone": 1}
    assert fill(offered=offered) == Sample(kind="b", epochs=30, weights="old.pth", seed=7)


@pytest.mark.parametrize("paste", ["{}", "\x1b[200~{}\x1b[201~"], ids=["typed", "pasted"])
def test_a_quoted_path_with_spaces_replaces_what_is_offered(keys, tmp_path, paste):
    folder = tmp_path / "my download"
    folder.mkdir()
    keys(paste.format(f"'{folder}'"), ENTER, ENTER, ENTER, ENTER, ENTER, RUN)
    assert fill(Organize) == Organize(source=folder)


def test_an_absolute_path_replaces_what_is_offered(keys, tmp_path):
    keys(*str(tmp_path), ENTER, ENTER, ENTER, RUN)
    assert fill(Synthesize) == Synthesize(out=tmp_path)


def test_open_questions_are_those_without_a_flag():
    assert open_questions(Sample, {}) == ["--kind", "--weights"]
    assert open_questions(Sample, {"kind": "b", "weights": "none"}) == ["--epochs"]
    assert open_questions(Synthesize, {"out": "x", "patients": 9, "size": "small"}) == []


def test_the_questions_are_those_of_the_collection(collection, tmp_path):
    cbis_ddsm = open_questions(Organize, {"source": collection})
    assert {"--unit", "--finding"} < set(cbis_ddsm)
    assert "--question" not in cbis_ddsm
    assert open_questions(Organize, {"source": tmp_path / "not here yet"}) == cbis_ddsm
    for name in ("benign", "malignant"):
        (tmp_path / "raw" / name).mkdir(parents=True)
    assert open_questions(Organize, {"source": tmp_path / "raw"}) == ["--out", "--question"]
    assert open_questions(Organize, {"collection": "mini-mias"}) == [
        "--source", "--out", "--question",
    ]  # fmt: skip


def test_the_question_for_columns_shows_the_first_rows_until_it_can_be(keys, tmp_path):
    (tmp_path / "labels.csv").write_text("file,who,class\na.png,7,B\nb.png,8,M\n")
    given = {"source": tmp_path, "collection": "folders", "out": tmp_path / "out",
             "question": "malignant-rest"}  # fmt: skip
    keys("Advanced", ENTER, "Columns", ENTER, ENTER,  # what is offered holds a "?"
         "image=file,patient=who,label=class", ENTER, "Done", ENTER, RUN)  # fmt: skip
    found = form(Organize, given=given).review()
    assert found.columns == "image=file,patient=who,label=class"
