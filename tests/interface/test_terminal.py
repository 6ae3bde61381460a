"""The questions as a person meets them: a real terminal, keys, Ctrl-C, a walk from end to end."""

import json
import os
import random
import re
import shlex
import shutil
import signal
import time
from pathlib import Path

import pexpect
import pytest

from tests.conftest import ROOT

ENTER, DOWN, ESC, CTRL_C, BACKSPACE = "\r", "\x1b[B", "\x1b", "\x03", "\x7f"
MENU, LIST = "Next step?", ": Enter runs it"
COLOUR = r"(?:\x1b\[[0-9;?]*[a-zA-Z])*"  # may stand before any character


class Walk:
    """A person at a terminal, whose keys are counted."""

    def __init__(self, child):
        self.child, self.keys = child, 0

    def press(self, question, *keys):
        """Wait for a question and press keys, at the pace of a person."""
        self.child.expect(COLOUR.join(map(re.escape, question)))
        for key in keys:
            time.sleep(0.3)
            self.child.send(key)
        self.keys += len(keys)

    def leave(self, status):
        self.child.expect(pexpect.EOF)
        self.child.close()
        assert self.child.exitstatus == status, self.child.before
        assert "Traceback" not in self.child.before


@pytest.fixture
def walk(terminal):
    return lambda *arguments, **more: Walk(terminal(*arguments, **more))


def test_ctrl_c_returns_to_the_menu_and_the_answers_are_offered_once_more(walk, tmp_path):
    person = walk()
    person.press(MENU, ENTER)
    person.press("Folder to write the collection to: raw", "mine", ENTER)
    person.press("Number of patients: 60", "7", ENTER)
    person.press("7: must be between 8 and 5000", "9", ENTER)
    person.press("Height of the films", CTRL_C)
    person.press(MENU, ENTER)
    person.press("Folder to write the collection to: mine", ENTER)
    person.press("Number of patients: 9", ENTER)
    person.press("Height of the films", ENTER)
    person.press(LIST, ESC)
    person.press(MENU, ENTER)
    person.press("Folder to write the collection to: mine", ESC)  # left without an answer
    person.press(MENU, ENTER)
    person.press("Folder to write the collection to: raw", CTRL_C)
    person.press(MENU, CTRL_C)
    person.leave(130)
    assert not (tmp_path / "mine").exists()


def test_ctrl_c_in_the_question_of_a_single_stage_is_status_130(walk):
    person = walk("synthesize")
    person.press("collection to: raw", CTRL_C)
    person.press("stopped; nothing was run")
    person.leave(130)


@pytest.mark.parametrize("question", [MENU, pytest.param("to: raw", marks=pytest.mark.slow), LIST])
def test_an_interrupt_that_no_key_sent_ends_a_question_too(walk, question):
    # Also what Ctrl-C is while a question is not drawn yet and the terminal not in raw mode.
    person = walk(*([] if question == MENU else ["synthesize"]))
    if question == LIST:
        person.press("to: raw", ENTER)
        person.press("Number of patients", ENTER)
        person.press("Height of the films", ENTER)
    person.press(question)
    time.sleep(0.3)  # until it waits for a key
    person.child.kill(signal.SIGINT)
    person.leave(130)


def test_tab_completes_a_path(walk, tmp_path):
    (tmp_path / "my download").mkdir()
    person = walk("organize")
    person.press("Folder of the raw download: raw", "my d")
    person.press("my download", "\t", ENTER, ENTER)  # choose, take, answer
    person.press("Folder to write the dataset to: dataset", CTRL_C)


@pytest.mark.slow
def test_keys_typed_while_a_stage_runs_answer_nothing(walk, tmp_path):
    person = walk()
    person.press(MENU, ENTER)
    person.press("to: raw", ENTER)
    person.press("Number of patients", "8", ENTER)
    person.press("Height of the films", ENTER)
    person.press(LIST, ENTER)
    person.press("The same as one command", ENTER * 8)
    person.press("Next: python")
    person.press("organize: Enter")
    time.sleep(1)
    assert not (tmp_path / "dataset").exists()
    person.child.send(CTRL_C)
    person.press(MENU, CTRL_C)
    person.leave(130)


def test_a_mistake_at_a_single_stage_comes_back_to_its_line(walk, tmp_path):
    (tmp_path / "empty").mkdir()
    person = walk("organize", "--out", "empty/dataset", "--batch")
    person.leave(1)
    person = walk("organize", "--source", "empty", "--finding", "calc", "--unit", "crop")
    person.press("Folder to write the dataset to", ENTER)
    person.press("BENIGN_WITHOUT_CALLBACK", ENTER)
    person.press(LIST, ENTER)
    person.press('! empty: is empty; give "Folder of the raw download" the folder of the download')
    person.press(LIST, ENTER)  # the line that is wrong
    person.press("Folder of the raw download: empty", ESC)
    person.press(LIST, ESC)
    person.press("empty: is empty")
    person.leave(1)


def take_one_core():
    """Without a question about workers, training takes as many threads as it has cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {random.choice(sorted(os.sched_getaffinity(0)))})


@pytest.mark.slow
def test_a_newcomer_comes_to_a_report_with_at_most_25_keys(walk, tmp_path):
    """Back twice and a mistake corrected in place are among them; a word typed counts as one."""
    person = walk(preexec_fn=take_one_core)
    person.press(MENU, ENTER)
    person.press("collection to: raw", ENTER)
    person.press("Number of patients: 60", ESC)  # back, once
    person.press("collection to: raw", ENTER)
    person.press("Number of patients: 60", "7", ENTER)
    person.press("7: must be between 8 and 5000", "8", ENTER)  # the mistake
    person.press("Height of the films", ESC)  # back, twice
    person.press("Number of patients: 8", ENTER)
    person.press("Height of the films", ENTER)
    for stage in ("synthesize", "organize", "preprocess"):
        person.press(f"{stage}: Enter", ENTER)
        person.press("Next: python")
    person.press("train: Enter", "Epochs", ENTER)
    person.press("as a search had): auto", "1", ENTER)
    for stage in ("train", "evaluate", "explain", "report"):
        person.press(f"{stage}: Enter", ENTER)
    person.press("Report of 1 run")
    person.press(MENU, CTRL_C)
    person.leave(130)
    (metrics,) = tmp_path.glob("runs/ResNet18_CFT/*/metrics.json")
    assert 0 <= json.loads(metrics.read_text())["splits"]["test"]["metrics"]["auc"]["value"] <= 1
    assert list(tmp_path.glob("reports/*/report.html"))
    assert person.keys - 1 <= 23


@pytest.mark.slow
def test_the_printed_command_and_the_answers_file_repeat_the_stage(walk, run_here, prepared):
    flags = ("--size", "64", "--workers", "1")
    person = walk("preprocess", "--data", prepared / "dataset", *flags)
    person.press("Folder to write the preprocessed dataset to", "first", ENTER)
    person.press("Preview: images to show the steps on", ENTER)
    person.press(LIST, ENTER)
    person.child.expect(r"python (\S*main.py) (preprocess [^\r\n]*--batch)\s")
    assert person.child.match.group(1) == str(ROOT / "main.py"), "as it was started"
    words = shlex.split(re.sub(COLOUR, "", person.child.match.group(2)))
    person.leave(0)
    folder = Path(person.child.cwd)
    manifest = (folder / "first" / "manifest.csv").read_bytes()
    answers = (folder / "first" / "answers.json").read_text()
    shutil.rmtree(folder / "first")
    assert run_here(*words).returncode == 0
    assert (folder / "first" / "manifest.csv").read_bytes() == manifest
    (folder / "again.json").write_text(answers)
    done = run_here("preprocess", "--answers", "again.json", "--out", "second")
    assert done.returncode == 0, done.stderr
    assert (folder / "second" / "manifest.csv").read_bytes() == manifest
    done = run_here("demo", "--answers", "again.json", "--json")
    assert done.returncode == 0, done.stderr
    assert [part["stage"] for part in json.loads(done.stdout)] == ["preprocess"]
    done = run_here("--answers", "again.json")
    assert done.returncode == 0, done.stderr
    assert (folder / "first" / "manifest.csv").read_bytes() == manifest
