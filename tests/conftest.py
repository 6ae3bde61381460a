"""Fixtures that several test files use: typed keys, a terminal, a small collection made once."""

import gc
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest
from filelock import FileLock
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.input.typeahead import get_typeahead
from prompt_toolkit.output import DummyOutput

ROOT = Path(__file__).parents[1]
# Several tests run at once, and their programs with them: threads that wait for each other on cores
# that are taken cost many times what they save. (OMP_THREAD_LIMIT would stop oneDNN for good.)
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
os.environ.update(dict.fromkeys(THREADS, "1"))  # before numpy loads
# As main.py does, for tests that call a stage themselves.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
# Small films: what is tested of a collection seldom hangs on their size.
COLLECTION = {"patients": 10, "seed": 4, "size": "256", "workers": 1}
# Tests never reach for weights over a network, whether there is one or not.
OFFLINE = os.environ | {"HF_HUB_OFFLINE": "1", "COLUMNS": "80"}
# Without NO_CPR prompt_toolkit waits two seconds for a cursor report that pexpect never sends.
TERMINAL = OFFLINE | {"PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm"}


class Loaded:
    """How many modules there were when garbage was last told from what stays."""

    modules = 0


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    gc.disable()  # what is loaded stays
    try:
        return (yield)
    finally:
        gc.enable()
        leave_out_what_is_loaded()


def pytest_runtest_teardown():
    leave_out_what_is_loaded()


@pytest.fixture(scope="session", autouse=True)
def without_descriptions():
    """Draw none: they take half a second of each organised dataset; few tests look at one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sources.description.write_description", lambda *_: None)
        yield


def leave_out_what_is_loaded():
    """Let no garbage collection look through modules again: that took a sixth of all time."""
    if len(sys.modules) > Loaded.modules + 100:
        gc.collect()
        gc.freeze()
        Loaded.modules = len(sys.modules)


@pytest.fixture
def keys():
    """Type ahead for every prompt, then hang up.

    A question too many raises EOFError; a question too few leaves keys, which fails the test.
    """
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):

        def send(*strokes):
            pipe.send_text("".join(strokes))
            pipe.close()

        yield send
        left = get_typeahead(pipe) + pipe.read_keys()
        assert not left, "keys left over: fewer questions than expected"


@pytest.fixture
def run_main(tmp_path):
    """Run main.py as a person would, in an empty folder and without a terminal."""

    def run(*arguments, cwd=tmp_path, script="main.py", env=None):
        return subprocess.run(
            [sys.executable, str(ROOT / script), *map(str, arguments)],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,
            env=OFFLINE | (env or {}),
        )

    return run


@pytest.fixture
def run_here(tmp_path, monkeypatch, capsys):
    """Do what `run_main` does in this process, which has loaded what takes others seconds."""
    from main import main

    def run(*arguments, cwd=tmp_path):
        monkeypatch.chdir(cwd)
        for name in ("HF_HUB_OFFLINE", "COLUMNS"):
            monkeypatch.setenv(name, OFFLINE[name])
        capsys.readouterr()
        status = main([*map(str, arguments)])
        shown = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, status, shown.out, shown.err)

    return run


@pytest.fixture
def terminal(tmp_path):
    """Start main.py in a pseudo-terminal of 80 columns, in an empty folder."""
    started = []

    def start(*arguments, cwd=tmp_path, **more):
        child = pexpect.spawn(
            sys.executable,
            [str(ROOT / "main.py"), *map(str, arguments)],
            cwd=str(cwd),
            env=TERMINAL,
            encoding="utf-8",
            timeout=60,
            dimensions=(24, 80),
            **more,
        )
        started.append(child)
        return child

    yield start
    for child in started:
        child.close(force=True)


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Make a folder once for all processes of a test run; nobody is to write to it afterwards.

    Return what `make` returned, which may name files in that folder.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # each process has a folder of its own there

    def have(name, make):
        told = root / f"{name}.pickle"
        with FileLock(root / f"{name}.lock"):
            if not told.exists():
                made = make(root / name)
                told.write_bytes(pickle.dumps(made))
        return pickle.loads(told.read_bytes())

    return have


@pytest.fixture(scope="session")
def collection(once):
    """A synthetic collection of 10 patients; not to be written to."""
    return once("collection", lambda folder: write_collection(folder / "raw"))


@pytest.fixture(scope="session")
def layouts(once):
    """Return a smaller one in a layout; not to be written to."""

    def get(layout):
        given = {"dialect": "linux" if layout == "classic" else "windows", "layout": layout}
        return once(
            f"layout-{layout}", lambda out: write_collection(out, patients=8, seed=7, **given)
        )

    return get


def write_collection(out, **given):
    """Write a synthetic collection, and return its folder."""
    from pipeline.progress import Silent
    from pipeline.stages.collections import Synthesize
    from sources.synthetic.stage import synthesize

    synthesize(Synthesize(out=out, **COLLECTION | given), Silent())
    return out


@pytest.fixture(scope="session")
def prepared(collection, once):
    """A workspace with that collection organised and preprocessed; not to be written to."""
    from organize_data import organize
    from pipeline.progress import Silent
    from pipeline.stages.data import Organize, Preprocess
    from preprocess_data import preprocess

    def make(folder):
        organize(Organize(source=collection, out=folder / "dataset", workers=1), Silent())
        options = Preprocess(data=folder / "dataset", out=folder / "preprocessed", workers=1)
        preprocess(options, Silent())
        return folder

    return once("prepared", make)
