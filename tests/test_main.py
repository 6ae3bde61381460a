"""The tool as a person meets it: a terminal, flags, exit statuses, files."""

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pexpect
import pytest

from tests.conftest import OFFLINE, ROOT, TERMINAL

HEAVY = "torch torchvision timm albumentations cv2 pydicom optuna matplotlib sklearn".split()
ENTER, DOWN, CTRL_C = "\r", "\x1b[B", "\x03"
MENU = "Next step?"


def one_line(done, status):
    """Check that a refusal is one line with this status, and return the line."""
    assert done.returncode == status, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == ""
    return done.stderr


def test_threads_that_wait_leave_their_core_to_others():
    ask = "import main, os; print(os.environ['OMP_WAIT_POLICY'], os.environ['GOMP_SPINCOUNT'])"
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("OMP", "GOMP"))
    }

    def told(environment):
        command = [sys.executable, "-c", ask]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    assert told(own) == ["PASSIVE", "0"]
    assert told(own | {"OMP_WAIT_POLICY": "active"}) == ["active", "0"]


# Errors


def test_a_code_page_that_lacks_a_character_of_the_path_loses_nothing(tmp_path, collection):
    done = subprocess.run(
        [sys.executable, ROOT / "main.py", "organize", "--source", collection, "--out", "\u03a9/ds",
         "--batch", "--no-masks"],
        cwd=tmp_path, env=OFFLINE | {"PYTHONIOENCODING": "cp1252"}, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert rb"\u03a9/ds" in done.stdout
    assert (tmp_path / "\u03a9" / "ds" / "stage.json").is_file()


def test_no_terminal_names_the_flags_that_would_do(run_main, tmp_path):
    line = one_line(run_main("organize"), 1)
    assert "no terminal" in line
    assert "--source, --out, --unit, --finding, --without-callback, or --batch" in line
    assert list(tmp_path.iterdir()) == []


def test_no_terminal_for_the_menu(run_main):
    assert "python main.py --help" in one_line(run_main(), 1)


def test_wrong_flag_has_status_2(run_main):
    assert "--epochs: 0: must be between" in one_line(run_main("train", "--epochs", "0"), 2)


@pytest.mark.parametrize(
    ("stage", "flag", "hint"),
    [
        ("organize", "--source", "python main.py synthesize"),
        ("preprocess", "--data", "run: python main.py organize"),
        ("train", "--data", "run: python main.py preprocess"),
    ],
)
def test_a_missing_folder_is_named_with_what_to_do(run_main, tmp_path, stage, flag, hint):
    line = one_line(run_main(stage, flag, "no such", "--batch"), 1)
    assert "no such: no such folder" in line
    assert hint in line
    assert list(tmp_path.iterdir()) == []


def test_packages_that_are_not_installed(tmp_path):
    # -S: without what was installed.
    command = [sys.executable, "-S", ROOT / "main.py", "organize", "--batch"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "is missing; run: pip install -r requirements.txt" in one_line(done, 1)


def test_an_answers_file_that_is_none(run_main, tmp_path):
    (tmp_path / "x.json").write_text('{"a": 1}')
    assert "is not an answers file" in one_line(run_main("--answers", "x.json"), 1)
    (tmp_path / "x.json").write_text('{"stages": [{"stage": "organize", "options": {"tree": 1}}]}')
    assert "organize has no option tree" in one_line(run_main("--answers", "x.json"), 1)
    assert "no such file" in one_line(run_main("train", "--answers", "gone.json"), 1)


# Light start


def loaded(child):
    child.expect(r"LOADED([^\r\n]*)")
    return child.match.group(1).split()


@pytest.mark.parametrize("arguments", [["--help"], [], ["train"], ["synthesize"]])
def test_nothing_heavy_is_loaded_before_the_first_answer(tmp_path, arguments):
    code = (
        "import atexit, runpy, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        f"sys.argv = ['main.py', *{arguments!r}]\n"
        f"heavy = {HEAVY!r}\n"
        "atexit.register(lambda: print('LOADED', *[m for m in heavy if m in sys.modules]))\n"
        f"runpy.run_path({str(ROOT / 'main.py')!r}, run_name='__main__')"
    )
    child = pexpect.spawn(
        sys.executable, ["-c", code], cwd=str(tmp_path), env=TERMINAL, encoding="utf-8", timeout=30
    )
    if arguments != ["--help"]:
        child.expect(r"\w\?|\]:")
        child.send(CTRL_C)
    assert loaded(child) == []


# The terminal


def test_ctrl_c_and_back_return_to_the_menu_and_quit_leaves(terminal, tmp_path):
    child = terminal()
    child.expect_exact("Not a medical device")
    child.expect_exact(MENU)
    child.send(ENTER)
    child.expect_exact("Folder to write the collection to [raw]:")
    child.send(CTRL_C)
    child.expect_exact(MENU)
    child.send(ENTER)
    child.expect_exact("[raw]:")
    child.send(ENTER)
    child.expect_exact("Number of patients [60]:")
    child.send("7" + ENTER)
    child.expect_exact("7: must be between 8 and 5000")
    child.send("\x158" + ENTER)
    child.expect_exact("Height of the films")
    child.send(ENTER)
    child.expect_exact("advanced")
    child.send(ENTER)
    child.expect_exact("python main.py synthesize --patients 8 --batch")
    child.expect_exact("What next")
    child.send(DOWN + DOWN + ENTER)
    child.expect_exact(MENU)
    child.send(CTRL_C)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert not (tmp_path / "raw").exists()


def test_ctrl_c_in_the_question_of_a_single_stage_is_status_130(terminal):
    child = terminal("synthesize")
    child.expect_exact("[raw]:")
    child.send(CTRL_C)
    child.expect_exact("stopped; nothing was run")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130


@pytest.mark.parametrize("question", ["Next step?", "[raw]:", "advanced options?"])
def test_an_interrupt_that_no_key_sent_ends_a_question_too(terminal, question):
    # Also what Ctrl-C is while a question is not drawn yet and the terminal not in raw mode.
    child = terminal(*([] if question == MENU else ["synthesize"]))
    if question == "advanced options?":
        press(child, "[raw]:")
        press(child, "Number of patients")
        press(child, "Height of the films")
    child.expect_exact(question)
    time.sleep(0.2)  # until it waits for a key
    child.kill(signal.SIGINT)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert "Traceback" not in child.before


def test_tab_completes_a_path(terminal, tmp_path):
    (tmp_path / "my download").mkdir()
    child = terminal("organize")
    child.expect_exact("Folder of the raw download [raw]:")
    child.send("my d")
    child.expect_exact("my download")  # the list that opens while typing
    for key in ("\t", ENTER, ENTER):  # choose, take, answer: at the pace of a person
        child.send(key)
        time.sleep(0.7)
    child.expect_exact("Folder to write the dataset to [dataset]:")


def press(child, question, keys=ENTER):
    child.expect_exact(question)
    child.send(keys)


def take_one_core():
    """Without a question about workers, training takes as many threads as it has cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {random.choice(sorted(os.sched_getaffinity(0)))})


def test_a_newcomer_comes_to_an_evaluated_model_by_pressing_mostly_enter(terminal, tmp_path):
    child = terminal(preexec_fn=take_one_core)
    press(child, MENU)
    press(child, "[raw]:")
    press(child, "Number of patients", "8" + ENTER)
    press(child, "Height of the films", "256" + ENTER)
    press(child, "advanced")
    press(child, "What next")
    for question in (MENU, "[raw]:", "[dataset]:", "What one image is", "Which findings"):
        press(child, question)
    press(child, "Lesions that are BENIGN_WITHOUT_CALLBACK")
    press(child, "advanced")
    press(child, "What next")
    for question in (MENU, "[dataset]:", "[preprocessed]:"):
        press(child, question)
    press(child, "Side of the square images", "64" + ENTER)
    press(child, "Only show the steps on so many images")
    press(child, "advanced")
    press(child, "What next")
    for question in (MENU, "[preprocessed]:", "Model", "Pretrained weights"):
        press(child, question)
    press(child, "Epochs at most", "1" + ENTER)
    press(child, "advanced")
    press(child, "What next")
    for question in (MENU, "Run to evaluate", "advanced", "What next"):
        press(child, question)
    child.expect_exact("Test AUC")
    press(child, MENU, CTRL_C)
    child.expect(pexpect.EOF)
    (metrics,) = tmp_path.glob("runs/ResNet18_CFT/*/metrics.json")
    assert 0 <= json.loads(metrics.read_text())["splits"]["test"]["metrics"]["auc"]["value"] <= 1


# Batch, JSON, answers


def test_json_on_stdout_and_nothing_else(run_main, collection, tmp_path):
    done = run_main("organize", "--source", collection, "--out", "d", "--batch", "--json")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["stage"] == "organize"
    assert data["folder"] == "d"
    assert data["next"] == "python main.py preprocess --data d"
    assert (tmp_path / "d" / "stage.json").is_file()


def test_the_printed_command_and_the_answers_file_repeat_the_stage(terminal, run_here, prepared):
    flags = ("--size", "64", "--workers", "1")
    child = terminal("preprocess", "--data", prepared / "dataset", *flags)
    press(child, "Folder to write the preprocessed dataset to", "first" + ENTER)
    press(child, "Only show the steps on so many images")
    press(child, "advanced")
    child.expect(r"python main.py (preprocess [^\r\n]*--batch)\s")
    words = shlex.split(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", child.match.group(1)))
    press(child, "What next")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    folder = child.cwd and ROOT.__class__(child.cwd)
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


@pytest.mark.parametrize("script", ["organize_data.py", "preprocess_data.py"])
def test_the_two_scripts_alone_take_the_same_options(run_main, script, tmp_path):
    done = run_main("--help", script=script)
    assert done.returncode == 0
    assert f"usage: main.py {script.split('_')[0]}" in done.stdout
    folder = "--source" if script.startswith("organize") else "--data"
    assert "gone: no such folder" in one_line(run_main(folder, "gone", "--batch", script=script), 1)
    assert list(tmp_path.iterdir()) == []


def test_the_demo_does_everything_and_says_how_to_repeat_it(run_here, tmp_path):
    small = ("--patients", "8", "--epochs", "1", "--workers", "1")
    done = run_here("demo", "--out", "d", *small)
    assert done.returncode == 0, done.stderr
    report = re.search(r"The report: (\S+report\.html)", done.stdout).group(1)
    assert (tmp_path / report).is_file()
    for stage in ("synthesize", "organize", "preprocess", "train", "evaluate", "report"):
        assert f"python main.py {stage} " in done.stdout
    assert "--epochs 1" in done.stdout
    assert (tmp_path / "d" / "answers.json").is_file()
    assert done.stdout.count("Not a medical device") == 3, "with each stage that shows scores"
