"""A film on the page: the picture, what the model says of it, and how to look at it."""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from interface.webapp import anomaly
from interface.webapp.films import Answer, Film
from interface.webapp.pictures import STEP, Map, View, data_uri, hottest, picture
from interface.webapp.wording import disagreement, figures, film_title, verdict, worth
from models.prediction.predictor import Prediction, Predictor

FIRST_HEAT = 45  # percent that the hottest pixel of a heat-map covers at first
MOST_HEAT = 70  # at most: the film is always seen beneath
MOST_ZOOM = 8.0
MEANS_NOTHING = "The {} means nothing here."


@dataclass(frozen=True, eq=False)
class Opinion:
    """A run, and what it says of a film."""

    predictor: Predictor
    answer: Answer | None  # None where the film could not be scored


def show_picture(film: Film) -> None:
    """Show a film of which nothing is known yet."""
    _figure(film, picture(film.pixels, film.first), "")


@st.fragment
def show_film(film: Film, opinions: Sequence[Opinion], film_id: str) -> None:
    """Show a film with what the chosen run says of it, and beneath, lightly, what a detector does.

    Args:
        film: Of the upload.
        opinions: The first is the chosen run's.
        film_id: Of the upload.
    """
    said = [(one.predictor, one.answer.said) for one in opinions if one.answer is not None]
    if said and said[0][1].complaints:
        _warn(said[0][1], said[0][0])
    place, result = st.container(), st.container()
    mapped = _choose_map(opinions, film_id)
    heat = None if mapped is None or mapped.answer is None else mapped.answer.heat
    view = _controls(film, heat, film_id)
    with place:
        scale = "" if mapped is None else _scale(mapped.predictor)
        _figure(film, picture(film.pixels, view, heat), scale)
    with result:
        for predictor, one in said:
            if predictor is not opinions[0].predictor:
                st.html(anomaly.second_opinion(one, predictor))
            elif predictor.is_detector:
                _anomaly(one, predictor)
            else:
                _result(one, predictor)


def _choose_map(opinions: Sequence[Opinion], film_id: str) -> Opinion | None:
    """Return whose map lies over the film; None where nobody has one."""
    known = {_of_map(one.predictor): one for one in opinions
             if one.answer is not None and one.answer.heat is not None}  # fmt: skip
    if len(known) < 2:
        return next(iter(known.values()), None)
    chosen = st.radio("Heat-map of", list(known), horizontal=True, key=f"map {film_id}")
    return known[chosen]


def _of_map(predictor: Predictor) -> str:
    """Return what a run's maps show."""
    if predictor.is_detector:
        return "errors beyond those of normal images"
    return f"evidence of {predictor.labels.condition}"


def _figure(film: Film, shown: NDArray[np.uint8], scale: str) -> None:
    title, image = html.escape(film_title(film)), data_uri(shown)
    alt = f"Mammogram, {title}" + (", with a heat-map over it" if shown.ndim == 3 else "")
    st.html(
        f"<figure class='film'><img src='{image}' alt='{alt}'>"
        f"<figcaption><span>{title}</span>{scale}</figcaption></figure>"
    )


def _scale(predictor: Predictor) -> str:
    ends = ("less", f"more {_of_map(predictor)}")
    if predictor.is_detector:
        ends = ("as in normal images", "larger errors")
    return f"<span class='scale'><span>{ends[0]}</span><i></i><span>{ends[1]}</span></span>"


def _warn(said: Prediction, predictor: Predictor) -> None:
    why = "; ".join(html.escape(one) for one in said.complaints)
    st.html(
        f"<div class='warning' role='alert'><strong>Unlike the images of the training.</strong> "
        f"This image {why}. {_nothing(predictor)}</div>"
    )


def _nothing(predictor: Predictor) -> str:
    return MEANS_NOTHING.format("score" if predictor.is_detector else "probability")


def _anomaly(said: Prediction, predictor: Predictor) -> None:
    """Show what an anomaly detector says."""
    assert said.z is not None
    number, where = f"{abs(said.z):.1f}", anomaly.distance(said.z).partition(" ")[2]
    if said.complaints:
        text = f"<p>{_nothing(predictor)}</p>"
        _section("void", f"<s>{number}</s>", where, text)
        return
    lines = (anomaly.verdict(said, predictor), disagreement(said), anomaly.NO_DISEASE,
             anomaly.what_normal_was(predictor))  # fmt: skip
    sure = [*anomaly.worth(predictor.metrics), *_unguarded(predictor)]
    text = anomaly.bar(said.z, predictor) + _paragraphs(lines, sure)
    _section("anomalous" if said.malignant else "usual", number, where, text)


def _paragraphs(lines: Iterable[str], sure: Sequence[str]) -> str:
    found = "".join(f"<p>{html.escape(one)}</p>" for one in lines if one)
    if sure:
        found += f"<p class='sure'>How sure is it? {html.escape(' '.join(sure))}</p>"
    return found


def _unguarded(predictor: Predictor) -> list[str]:
    if predictor.domain is not None:
        return []
    return ["It does not know its training images, so unlike ones are not noticed."]


def _section(state: str, number: str, kind: str, text: str) -> None:
    st.html(
        f"<section class='result {state}'><div class='number'>{number}"
        f"<small>{kind}</small></div><div>{text}</div></section>"
    )


def _result(said: Prediction, predictor: Predictor) -> None:
    """Show what a classifier says."""
    value, _ = figures(said.probability or 0.0, predictor.threshold)
    if said.complaints:
        state, number, text = "void", f"<s>{value}</s>", [_nothing(predictor)]
    else:
        state = "malignant" if said.malignant else "benign"
        number, text = value, [verdict(said, predictor), disagreement(said)]
    calibrated = predictor.metrics["calibration"]["method"] != "none"
    kind = "calibrated probability" if calibrated else "probability, not calibrated,"
    sure = [] if said.complaints else [*worth(predictor.metrics), *_unguarded(predictor)]
    lines = _paragraphs(text, sure)
    _section(state, number, f"{kind} of {predictor.labels.condition}", lines)


def _controls(film: Film, heat: Map | None, film_id: str) -> View:
    """Draw what changes the view, and return the view that is chosen."""
    first, covered = film.first, 0
    turn = f"{film_id} {st.session_state.get(f'turn {film_id}', 0)}"  # new sliders at each reset
    if heat is not None:
        covered = st.slider(
            "Heat-map", 0, MOST_HEAT, FIRST_HEAT, 5, format="%d %%", key=f"heat {film_id}"
        )
    left, right = st.columns(2)
    level = left.slider(
        "Window level", 0.0, 100.0, first.level, STEP, format="%.1f %%", key=f"level {turn}"
    )
    width = right.slider(
        "Window width", STEP, 100.0, first.width, STEP, format="%.1f %%", key=f"width {turn}"
    )
    zoom = st.slider("Zoom", 1.0, MOST_ZOOM, 1.0, 0.5, format="%.1f x", key=f"zoom {turn}")
    view = replace(first, level=level, width=width, zoom=zoom, heat=float(covered))
    if zoom > 1:
        view = _moved(view, heat, turn)
    if replace(view, heat=first.heat) != first:
        st.button("Reset view", on_click=_reset, args=(film_id,), key=f"reset {turn}")
    return view


def _reset(film_id: str) -> None:
    st.session_state[f"turn {film_id}"] = st.session_state.get(f"turn {film_id}", 0) + 1


def _moved(view: View, heat: Map | None, turn: str) -> View:
    """Draw what moves an enlarged film, and return the view that is chosen."""
    middle = (50.0, 50.0) if heat is None else hottest(heat)
    left, right = st.columns(2)
    across = left.slider(
        "Left to right", 0.0, 100.0, middle[0], 1.0, format="%d %%", key=f"across {turn}"
    )
    down = right.slider(
        "Top to bottom", 0.0, 100.0, middle[1], 1.0, format="%d %%", key=f"down {turn}"
    )
    return replace(view, across=across, down=down)
