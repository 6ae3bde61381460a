"""The page: one column, the film first; what it says beneath, then how to look and what to add."""

import hmac
import html
import os
import threading
import time
import traceback
from collections.abc import Container, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import streamlit as st
from PIL import Image
from streamlit.delta_generator import DeltaGenerator

from images.archives import MemoryFile
from interface.screen import NOTICE
from interface.webapp.about import about, facts_of
from interface.webapp.background import answering, loading, reading, wait_for
from interface.webapp.choosing import offered_runs, second_opinion
from interface.webapp.films import Answer, Film
from interface.webapp.gate import admit
from interface.webapp.viewer import Opinion, show_film, show_picture
from interface.webapp.wording import as_csv, line_of, plain
from models.prediction.predictor import Predictor
from models.prediction.results import Line
from pipeline.errors import UserError
from pipeline.runs import Run
from pipeline.stages.webapp import PASSWORD

STYLE = Path(__file__).with_name("style.css")
MOST_FILMS = 20  # of one person at a time
WRONG_SECONDS = 1.0  # for a wrong password, whoever gives it
SECOND = "Second opinion, sd above normal"
LOADING, READING, SCORING = "Loading the model ...", "Reading the film ...", "Scoring the film ..."
_one_guess = threading.Lock()


@dataclass(eq=False)
class Upload:
    """A file that a person dropped on the page, and what became of it."""

    file: MemoryFile
    film: "Future[Film]"
    answers: "dict[str, Future[Answer]]" = field(default_factory=dict)  # by key of the predictor


class Refused:
    """What the page could not do, each said once: two runs may meet with the same."""

    def __init__(self, place: DeltaGenerator) -> None:
        """Say it in a place of the page."""
        self._place = place
        self._said: set[str] = set()

    def say(self, text: str) -> None:
        """Say what could not be done, in Markdown."""
        if text not in self._said:
            self._said.add(text)
            self._place.error(text)


def draw(runs: Path, first: Path) -> None:
    """Draw the page for one person.

    Args:
        runs: The folder that holds all runs.
        first: Folder of the run that is offered first.
    """
    icon = Image.new("RGB", (16, 16), "#8cc4ff")
    st.set_page_config(page_title="Mammolab", page_icon=icon, layout="centered")
    st.html(STYLE)
    st.html(f"<header><h1>Mammolab</h1><p class='notice'>{NOTICE}</p></header>")
    if not _admitted():
        return
    admit()
    refused, viewer = Refused(st.container()), st.container()
    uploads = _uploads(refused)
    session = st.container()
    try:
        run = _choose_run(runs, first, refused)
        second = second_opinion(runs, run)
        models = [loading(runs, one) for one in (run, second) if one is not None]
        facts = facts_of(run)
        with st.expander("About this model"):
            for question, answers in about(facts).items():
                st.markdown(f"##### {question}\n" + "\n".join(f"- {one}" for one in answers))
        _show(uploads, models, (refused, viewer, session))
    except UserError as error:
        refused.say(plain(str(error)))


def _admitted() -> bool:
    """Return whether the person has given the password, where there is one; else ask for it."""
    wanted = os.environ.get(PASSWORD, "")
    if not wanted or st.session_state.get("admitted"):
        return True
    with st.form("admission", border=False):
        given = st.text_input("Password", type="password")
        sent = st.form_submit_button("Open")
    if sent and hmac.compare_digest(given.encode(), wanted.encode()):
        st.session_state["admitted"] = True
        st.rerun()
    if sent:
        with _one_guess:  # so that many guess no faster than one
            time.sleep(WRONG_SECONDS)
        st.error("Wrong password.")
    return False


def _uploads(refused: Refused) -> dict[str, Upload]:
    """Take what was dropped on the page, and begin to read it."""
    dropped = st.file_uploader(
        "Drop mammograms here: DICOM, PNG, JPEG or TIFF", accept_multiple_files=True, key="dropped"
    )
    if not dropped:
        st.caption(
            "They stay in this program's memory, are seen by nobody else, and are gone soon "
            "after you close the page. Nothing of them is written to disk."
        )
    if len(dropped) > MOST_FILMS:
        refused.say(
            f"Only the first {MOST_FILMS} of {len(dropped)} files were taken; "
            "take some away, and the next ones follow."
        )
    known: dict[str, Upload] = st.session_state.setdefault("uploads", {})
    there = {one.file_id: one for one in dropped[:MOST_FILMS]}
    for gone in known.keys() - there.keys():
        del known[gone]
    for file_id, one in there.items():
        if file_id not in known:
            names = {upload.file.name for upload in known.values()}
            file = MemoryFile(_new_name(one.name, names), one.getvalue())
            known[file_id] = Upload(file, reading(file))
            st.session_state["film"] = file_id  # the newest is looked at
    return known


def _new_name(name: str, taken: Container[str]) -> str:
    """Return a name that tells a file from others: all films of CBIS-DDSM are called 1-1.dcm."""
    path, number = PurePath(name), 1
    while name in taken:
        number += 1
        name = f"{path.stem} ({number}){path.suffix}"
    return name


def _choose_run(runs: Path, first: Path, refused: Refused) -> Run:
    known = {run.folder.resolve(): run for run in offered_runs(runs, first)}
    folders = list(known)
    if len(folders) == 1:
        st.caption(f"Model: {plain(known[folders[0]].name)}")
        chosen = folders[0]
    else:
        chosen = st.selectbox("Model", folders, format_func=lambda one: known[one].name, key="run")
    run, before = known[chosen], st.session_state.get("run before")
    if before is not None and before.folder.resolve() not in known:
        refused.say(plain(f"{before.name} is gone from this machine: {run.name} answers now."))
    st.session_state["run before"] = run
    return run


def _show(
    uploads: dict[str, Upload],
    models: "Sequence[Future[Predictor]]",
    places: tuple[Refused, DeltaGenerator, DeltaGenerator],
) -> None:
    refused, viewer, session = places
    with viewer:
        films = _read(uploads, refused)
        if not films:
            with session:
                wait_for(models[0], LOADING)
            return
        chosen = _choose_film(films)
        slot = st.empty()
        with slot.container():
            show_picture(films[chosen])
            predictors = _loaded(models, refused)
    opinions: dict[str, list[Opinion]] = {}
    with viewer, slot.container():
        # First the one that is looked at.
        for file_id in (chosen, *(one for one in films if one != chosen)):
            opinions[file_id] = [
                Opinion(predictor, _answer(uploads[file_id], predictor, refused))
                for predictor in predictors
            ]
            if file_id == chosen:
                show_film(films[chosen], opinions[chosen], chosen)
    with session:
        _list_session(films, opinions)


def _loaded(models: "Sequence[Future[Predictor]]", refused: Refused) -> list[Predictor]:
    """Wait for the chosen run, and for a second opinion, without which it goes on."""
    found = [wait_for(models[0], LOADING)]
    for model in models[1:]:
        try:
            found.append(wait_for(model, LOADING))
        except UserError as error:
            refused.say(plain(str(error)))
    return found


def _read(uploads: dict[str, Upload], refused: Refused) -> dict[str, Film]:
    films = {}
    for file_id, upload in uploads.items():
        try:
            films[file_id] = wait_for(upload.film, READING)
        except Exception as error:
            refused.say(_said(error, upload))
    return films


def _answer(upload: Upload, predictor: Predictor, refused: Refused) -> Answer | None:
    if predictor.key not in upload.answers:
        upload.answers[predictor.key] = answering(upload.file, predictor)
    try:
        return wait_for(upload.answers[predictor.key], SCORING)
    except Exception as error:
        refused.say(_said(error, upload))
        return None


def _said(error: Exception, upload: Upload) -> str:
    """Return what a person reads of an error, in one line."""
    if isinstance(error, UserError):
        return plain(str(error))
    name = plain(upload.file.name)
    if isinstance(error, MemoryError):
        return f"{name}: takes more memory than this machine has left"
    # A mistake of ours. Its message may hold what was in the file, so only its place is printed.
    traceback.print_tb(error.__traceback__)
    return f"{name}: could not be worked on ({type(error).__name__}); the terminal says where"


def _choose_film(films: dict[str, Film]) -> str:
    """Return which film is looked at: the newest, or the one that was chosen."""
    if st.session_state.get("film") not in films:
        st.session_state["film"] = next(reversed(films))
    if len(films) > 1:
        st.selectbox("Film", list(films), format_func=lambda one: films[one].name, key="film")
    return str(st.session_state["film"])


def _list_session(films: dict[str, Film], opinions: dict[str, list[Opinion]]) -> None:
    by_film = [
        [line_of(films[one], opinion.answer.said, opinion.predictor)
         for opinion in opinions[one] if opinion.answer is not None]
        for one in films
    ]  # fmt: skip
    by_film = [lines for lines in by_film if lines]
    if not by_film:
        return
    if len(by_film) > 1:
        rows = [(lines[0].image, *_cells(lines[0]), *(", ".join(_cells(one)) for one in lines[1:]))
                for lines in by_film]  # fmt: skip
        longest = max(by_film, key=len)
        st.html(_table(("Film", _title(longest[0]), "Called", *[SECOND] * len(longest[1:])), rows))
    text = as_csv([line for lines in by_film for line in lines])
    st.download_button("Download as CSV", text, "mammolab.csv", "text/csv", on_click="ignore")


def _title(line: Line) -> str:
    return "Sd above normal" if line.predictor.is_detector else "Probability"


def _cells(line: Line) -> tuple[str, str]:
    if line.complaints:
        return "-", "unlike the training"
    places = 1 if line.predictor.is_detector else 2
    return f"{line.score:z.{places}f}", line.called  # z: no -0.0


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th scope='col'>{html.escape(one)}</th>" for one in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table class='session'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
