"""The tool as a person meets it: a terminal, flags, exit statuses, files."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from tests.conftest import OFFLINE, ROOT, TERMINAL

HEAVY = "torch torchvision timm albumentations cv2 pydicom optuna matplotlib sklearn".split()
ENTER, DOWN, CTRL_C = "\r", "\x1b[B", "\x03"
MENU = "Next step?"
SCRIPTS = ("organize_data.py", "preprocess_data.py")


STARTED = f"python {ROOT / 'main.py'}"  # as the tests start it


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


@pytest.mark.parametrize(
    ("arguments", "status"), [(["clean", "--batch"], 0), (["predict", "x"], 1)]
)
def test_what_was_registered_for_the_end_is_run_and_the_status_kept(tmp_path, arguments, status):
    (tmp_path / "sitecustomize.py").write_text("import atexit\natexit.register(print, 'ended')\n")
    command = [sys.executable, ROOT / "main.py", *arguments]
    environment = OFFLINE | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    assert done.stdout.splitlines()[-1:] == ["ended"]


def test_what_runs_the_tool_in_its_own_process_goes_on_afterwards(tmp_path):
    code = (
        f"import runpy, sys; sys.argv = ['main.py', 'predict', 'x', '--batch']\n"
        f"try: runpy.run_path({str(ROOT / 'main.py')!r}, run_name='__main__')\n"
        f"except SystemExit as end: print('went on after', end.code)"
    )
    command = [sys.executable, "-c", code]
    environment = OFFLINE | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "went on after 1\n"


# Errors


@pytest.mark.slow
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
    assert f"{STARTED} --help" in one_line(run_main(), 1)


def test_wrong_flag_has_status_2(run_main):
    assert "--epochs: 0: must be between" in one_line(run_main("train", "--epochs", "0"), 2)


@pytest.mark.parametrize(
    ("stage", "flag", "hint"),
    [
        ("organize", "--source", f"{STARTED} synthesize"),
        ("preprocess", "--data", f"run: {STARTED} organize"),
        ("train", "--data", f"run: {STARTED} preprocess"),
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


def test_an_answers_file_that_is_none(run_here, tmp_path):
    (tmp_path / "x.json").write_text('{"a": 1}')
    assert "is not an answers file" in one_line(run_here("--answers", "x.json"), 1)
    (tmp_path / "x.json").write_text('{"stages": [{"stage": "organize", "options": {"tree": 1}}]}')
    assert "organize has no option tree" in one_line(run_here("--answers", "x.json"), 1)
    assert "no such file" in one_line(run_here("train", "--answers", "gone.json"), 1)
    (tmp_path / "x.json").write_text('{"stages": []}')
    assert "x.json: names no stage" in one_line(run_here("--answers", "x.json", "--json"), 1)


# Light start


def loaded(child):
    child.expect(r"LOADED([^\r\n]*)")
    return child.match.group(1).split()


@pytest.mark.parametrize(
    "arguments", [["--help"], [], ["train"], pytest.param(["synthesize"], marks=pytest.mark.slow)]
)
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


# Batch, JSON, answers


@pytest.mark.slow  # stages say it in other tests, in the process of the test
def test_json_on_stdout_and_nothing_else(run_main, tmp_path):
    small = ("--patients", "8", "--size", "256", "--workers", "1")
    done = run_main("synthesize", *small, "--out", "d", "--batch", "--json")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["stage"] == "synthesize"
    assert data["folder"] == "d"
    assert data["next"] == f"{STARTED} organize --source d"
    assert (tmp_path / "d" / "stage.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_the_two_scripts_alone_show_the_same_options(run_main, script):
    done = run_main("--help", script=script)
    assert done.returncode == 0
    assert f"usage: main.py {script.split('_')[0]}" in done.stdout


@pytest.mark.parametrize("script", [SCRIPTS[0], pytest.param(SCRIPTS[1], marks=pytest.mark.slow)])
def test_the_two_scripts_alone_take_the_same_options(run_main, script, tmp_path):
    folder = "--source" if script.startswith("organize") else "--data"
    assert "gone: no such folder" in one_line(run_main(folder, "gone", "--batch", script=script), 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_demo_does_everything_and_says_how_to_repeat_it(run_here, tmp_path):
    small = ("--patients", "8", "--epochs", "1", "--workers", "1")
    done = run_here("demo", "--out", "d", *small)
    assert done.returncode == 0, done.stderr
    report = re.search(r"The report: (\S+report\.html)", done.stdout).group(1)
    assert (tmp_path / report).is_file()
    for stage in ("synthesize", "organize", "preprocess", "train", "evaluate", "report"):
        assert f"python main.py {stage} " in done.stdout
    assert "--epochs 1" in done.stdout
    assert "0.5 is chance" in done.stdout, "a newcomer is told what is happening"
    assert (tmp_path / "d" / "answers.json").is_file()
    assert done.stdout.count("Not a medical device") == 3, "with each stage that shows scores"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["--version"], ["runs"]])
def test_text_that_finds_no_room_is_a_line_and_not_silence(tmp_path, words):
    (tmp_path / "runs").mkdir()
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, ROOT / "main.py", *words, *["--batch"] * (words == ["runs"])]
        done = subprocess.run(
            command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert re.fullmatch(r"main\.py: the output folder, or .*: No space left.*\n", done.stderr)


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["runs", "--batch"]])
def test_a_reader_that_leaves_early_is_no_error(tmp_path, words):
    """As `main.py organize --dry-run | head -1` has one."""
    (tmp_path / "runs").mkdir()
    command = [sys.executable, ROOT / "main.py", *words]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        stderr = process.stderr.read()
    assert stderr == b""
    assert process.returncode == 141
