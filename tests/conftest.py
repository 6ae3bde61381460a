"""Fixtures that several test files use: typed keys, a terminal, a small collection made once."""

import os
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest
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
COLLECTION = {"patients": 16, "seed": 3, "size": "256", "workers": 1}
# Tests never reach for weights over a network, whether there is one or not.
OFFLINE = os.environ | {"HF_HUB_OFFLINE": "1", "COLUMNS": "80"}
# Without NO_CPR prompt_toolkit waits two seconds for a cursor report that pexpect never sends.
TERMINAL = OFFLINE | {"PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm"}


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

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
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
def collection(tmp_path_factory):
    """A synthetic collection of 16 patients, made once; not to be written to."""
    from pipeline.progress import Silent
    from pipeline.stages.data import Synthesize
    from sources.synthetic.stage import synthesize

    folder = tmp_path_factory.mktemp("collection") / "raw"
    synthesize(Synthesize(out=folder, **COLLECTION), Silent())
    return folder


@pytest.fixture(scope="session")
def prepared(collection, tmp_path_factory):
    """A workspace with that collection organised and preprocessed; not to be written to."""
    from organize_data import organize
    from pipeline.progress import Silent
    from pipeline.stages.data import Organize, Preprocess
    from preprocess_data import preprocess

    folder = tmp_path_factory.mktemp("prepared")
    organize(Organize(source=collection, out=folder / "dataset", workers=1), Silent())
    options = Preprocess(data=folder / "dataset", out=folder / "preprocessed", workers=1)
    preprocess(options, Silent())
    return folder
