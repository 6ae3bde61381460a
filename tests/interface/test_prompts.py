"""The asking face: keys in, options out; the declarations under test are the real ones."""

from dataclasses import dataclass
from typing import Literal

import pytest

from interface import prompts
from pipeline.options import between, option
from pipeline.stages.data import Organize, Synthesize

ENTER, DOWN, CTRL_C, CLEAR = "\r", "\x1b[B", "\x03", "\x15"  # CLEAR is Ctrl-U
RUN, CHANGE, BACK = ENTER, DOWN + ENTER, DOWN * 2 + ENTER
NO_ADVANCED = ENTER


@dataclass(frozen=True)
class Sample:
    """A stage with few questions."""

    kind: str = option("a", "Kind", choices={"a": "first", "b": "second"})
    epochs: int = option(30, "Epochs", check=between(1, 100), when=lambda a: a["kind"] == "b")
    weights: str = option("none", "Weights", choices={"none": "no"}, other="a file")
    seed: int = option(42, "Seed", advanced=True)


def fill(options=Sample, given=None, offered=None):
    shown = []
    result = prompts.fill(options, given or {}, offered or {}, shown.append)
    assert result is None or shown[-1] == result, "what is run must be what the summary showed"
    return result


def test_enter_takes_every_default(keys):
    keys(ENTER, ENTER, NO_ADVANCED, RUN)
    assert fill() == Sample()


def test_an_answer_opens_the_question_that_depends_on_it(keys):
    keys(DOWN, ENTER, "7", ENTER, ENTER, NO_ADVANCED, RUN)
    assert fill() == Sample(kind="b", epochs=7)


def test_a_refused_answer_keeps_the_question_open(keys):
    wrong = ("0", ENTER, CLEAR, "soon", ENTER, CLEAR)
    keys(DOWN, ENTER, *wrong, "9", ENTER, ENTER, NO_ADVANCED, RUN)
    assert fill() == Sample(kind="b", epochs=9)


def test_a_flag_answers_its_question_ahead(keys):
    keys(ENTER, NO_ADVANCED, RUN)
    assert fill(given={"kind": "b", "epochs": 3}) == Sample(kind="b", epochs=3)


def test_another_value_than_the_choices(keys):
    keys(ENTER, DOWN, ENTER, "my weights.pth", ENTER, NO_ADVANCED, RUN)
    assert fill() == Sample(weights="my weights.pth")


@dataclass(frozen=True)
class Models:
    """A stage that takes several models and a word for a number."""

    model: str = option("a", "Model", choices={"a": "first", "b": "second"}, several=True)
    fold: int | Literal["all"] = option(0, "Fold", check=between(0, 5))


def test_several_choices_are_typed_with_commas(keys):
    wrong = ("a,c", ENTER, CLEAR)
    keys(DOWN * 2, ENTER, *wrong, "b , a", ENTER, "some", ENTER, CLEAR, "all", ENTER, RUN)
    assert fill(Models) == Models(model="b,a", fold="all")


def test_several_choices_of_last_time_are_offered(keys):
    keys(ENTER, ENTER, RUN)
    assert fill(Models, offered={"model": "b,a"}) == Models(model="b,a")


def test_the_last_answers_are_offered_where_they_still_hold(keys):
    keys(ENTER, ENTER, ENTER, NO_ADVANCED, RUN)
    offered = {"kind": "b", "epochs": 500, "weights": "old.pth", "seed": 7, "gone": 1}
    assert fill(offered=offered) == Sample(kind="b", epochs=30, weights="old.pth", seed=7)


def test_advanced_options_are_asked_when_wanted(keys):
    keys(ENTER, ENTER, "y", "5", ENTER, RUN)
    assert fill() == Sample(seed=5)


def test_change_asks_one_answer_again(keys):
    keys(ENTER, ENTER, NO_ADVANCED, CHANGE, ENTER, DOWN, ENTER, RUN)
    assert fill() == Sample(kind="b")


def test_back_runs_nothing(keys):
    keys(ENTER, ENTER, NO_ADVANCED, BACK)
    assert fill() is None


def test_ctrl_c_travels_up(keys):
    keys(ENTER, CTRL_C)
    with pytest.raises(KeyboardInterrupt):
        fill()


def test_closed_input_travels_up(keys):
    keys(ENTER)
    with pytest.raises(EOFError):
        fill()


def test_a_quoted_path_with_spaces_is_taken(keys, tmp_path):
    folder = tmp_path / "my download"
    folder.mkdir()
    keys(f"'{folder}'", ENTER, ENTER, ENTER, ENTER, ENTER, NO_ADVANCED, RUN)
    assert fill(Organize) == Organize(source=folder)


def test_open_questions_are_those_without_a_flag():
    assert prompts.open_questions(Sample, {}) == ["--kind", "--weights"]
    assert prompts.open_questions(Sample, {"kind": "b", "weights": "none"}) == ["--epochs"]
    assert prompts.open_questions(Synthesize, {"out": "x", "patients": 9, "size": "small"}) == []
