"""Work beside the threads that draw: films are read on one thread, the model has another.

So two people at once take no more memory than one, and a film is on the screen before torch is
loaded.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import streamlit as st

from images.archives import MemoryFile
from interface.webapp.films import Answer, Film, answer, read_upload
from models.prediction.predictor import Predictor, open_predictor
from pipeline.runs import METRICS, Run

Made = TypeVar("Made")

MOST_MODELS = 4  # in memory at once
POLL_SECONDS = 0.1

_reading = ThreadPoolExecutor(1, "reading")
_model = ThreadPoolExecutor(1, "model")


def loading(runs: Path, run: Run) -> "Future[Predictor]":
    """Begin to load a run; the same answer for all who ask, until it is evaluated again."""
    what = runs, run.folder, (run.folder / METRICS).stat().st_mtime_ns
    future = _loading(*what)
    if future.done() and future.exception():  # the person may have mended it
        _loading.clear(*what)
        future = _loading(*what)
    return future


@st.cache_resource(show_spinner=False, max_entries=MOST_MODELS)
def _loading(runs: Path, folder: Path, evaluated: int) -> "Future[Predictor]":
    del evaluated  # part of what the answer is kept under
    return _model.submit(_load, runs, folder)


def _load(runs: Path, folder: Path) -> Predictor:
    from models.inference import prepare_process
    from models.prediction.network import NetworkScorer

    prepare_process(0)
    predictor = open_predictor(runs, str(folder))
    for scorer in predictor.scorers:
        if isinstance(scorer, NetworkScorer):
            scorer.load()
    # Seconds that the first film need not wait. After models.inference, which loads torchvision
    # without torch's compiler.
    import models.explanation.cams  # noqa: F401

    return predictor


def reading(file: MemoryFile) -> "Future[Film]":
    """Begin to read an upload for the eye."""
    return _reading.submit(read_upload, file)


def answering(file: MemoryFile, predictor: Predictor) -> "Future[Answer]":
    """Begin to score an upload."""
    return _model.submit(answer, file, predictor)


def wait_for(future: "Future[Made]", text: str) -> Made:
    """Return what a thread makes; the page says what it waits for.

    Raises:
        Exception: Whatever that thread met with.
    """
    if not future.done():
        with st.spinner(text):
            step: Callable[[], Any] = st.empty().empty
            while not future.done():
                step()  # here Streamlit takes up what the person has done meanwhile
                time.sleep(POLL_SECONDS)
    return future.result()
