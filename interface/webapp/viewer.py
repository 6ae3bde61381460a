"""A film on the page: the picture, what the model says of it, and how to look at it."""

import html
from dataclasses import replace

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from interface.webapp.films import Answer, Film
from interface.webapp.pictures import STEP, View, data_uri, hottest, picture
from interface.webapp.wording import disagreement, figures, film_title, verdict, worth
from models.prediction.predictor import Prediction, Predictor

FIRST_HEAT = 45  # percent that the hottest pixel of a heat-map covers at first
MOST_HEAT = 70  # at most: the film is always seen beneath
MOST_ZOOM = 8.0
MEANS_NOTHING = "The probability means nothing here."


def show_picture(film: Film) -> None:
    """Show a film of which nothing is known yet."""
    _figure(film, picture(film.pixels, film.first), "")


@st.fragment
def show_film(film: Film, answer: Answer | None, predictor: Predictor, film_id: str) -> None:
    """Show a film with what a run says of it; None where it could not be scored."""
    if answer is not None and answer.said.complaints:
        _warn(answer.said)
    place, result = st.container(), st.container()
    heat = None if answer is None else answer.heat
    view = _controls(film, answer, film_id)
    with place:
        _figure(film, picture(film.pixels, view, heat), "" if heat is None else _scale(predictor))
    if answer is not None:
        with result:
            _result(answer.said, predictor)


def _figure(film: Film, shown: NDArray[np.uint8], scale: str) -> None:
    title, image = html.escape(film_title(film)), data_uri(shown)
    alt = f"Mammogram, {title}" + (", with a heat-map over it" if shown.ndim == 3 else "")
    st.html(
        f"<figure class='film'><img src='{image}' alt='{alt}'>"
        f"<figcaption><span>{title}</span>{scale}</figcaption></figure>"
    )


def _scale(predictor: Predictor) -> str:
    evidence = f"more evidence of {predictor.labels.condition}"
    return f"<span class='scale'><span>less</span><i></i><span>{evidence}</span></span>"


def _warn(said: Prediction) -> None:
    why = "; ".join(html.escape(one) for one in said.complaints)
    st.html(
        f"<div class='warning' role='alert'><strong>Unlike the images of the training.</strong> "
        f"This image {why}. {MEANS_NOTHING}</div>"
    )


def _result(said: Prediction, predictor: Predictor) -> None:
    value, _ = figures(said.probability, predictor.threshold)
    if said.complaints:
        state, number, text = "void", f"<s>{value}</s>", [MEANS_NOTHING]
    else:
        state = "malignant" if said.malignant else "benign"
        number, text = value, [verdict(said, predictor), disagreement(said)]
    calibrated = predictor.metrics["calibration"]["method"] != "none"
    kind = "calibrated probability" if calibrated else "probability, not calibrated,"
    sure = worth(predictor.metrics)
    if predictor.domain is None:
        sure.append("It does not know its training images, so unlike ones are not noticed.")
    lines = "".join(f"<p>{html.escape(one)}</p>" for one in text if one)
    if not said.complaints:
        lines += f"<p class='sure'>How sure is it? {html.escape(' '.join(sure))}</p>"
    st.html(
        f"<section class='result {state}'><div class='number'>{number}"
        f"<small>{kind} of {predictor.labels.condition}</small></div>"
        f"<div>{lines}</div></section>"
    )


def _controls(film: Film, answer: Answer | None, film_id: str) -> View:
    """Draw what changes the view, and return the view that is chosen."""
    first, heat = film.first, None if answer is None else answer.heat
    covered = 0
    if heat is not None:
        covered = st.slider(
            "Heat-map", 0, MOST_HEAT, FIRST_HEAT, 5, format="%d %%", key=f"heat {film_id}"
        )
    left, right = st.columns(2)
    level = left.slider(
        "Window level", 0.0, 100.0, first.level, STEP, format="%.1f %%", key=f"level {film_id}"
    )
    width = right.slider(
        "Window width", STEP, 100.0, first.width, STEP, format="%.1f %%", key=f"width {film_id}"
    )
    zoom = st.slider("Zoom", 1.0, MOST_ZOOM, 1.0, 0.5, format="%.1f x", key=f"zoom {film_id}")
    view = replace(first, level=level, width=width, zoom=zoom, heat=float(covered))
    if zoom == 1:
        return view
    middle = (50.0, 50.0) if heat is None else hottest(heat)
    left, right = st.columns(2)
    across = left.slider(
        "Left to right", 0.0, 100.0, middle[0], 1.0, format="%d %%", key=f"across {film_id}"
    )
    down = right.slider(
        "Top to bottom", 0.0, 100.0, middle[1], 1.0, format="%d %%", key=f"down {film_id}"
    )
    return replace(view, across=across, down=down)
