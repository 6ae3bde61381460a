"""What an anomaly detector says of a film: how far above normal images its error is, as a bar."""

import html
from collections.abc import Mapping
from typing import Any

from interface.webapp.wording import area_of
from models.evaluation.operating_point import flagged_normals
from models.prediction.predictor import Prediction, Predictor
from pipeline.labels import Labels, what_normal_is

LOWEST, HIGHEST = -3.0, 6.0  # ends of the bar, in standard deviations from the mean of normal ones
BEYOND = 2.5  # standard deviations that the bar goes on after the threshold, at least
USUAL = 2.0  # within so many standard deviations lie 95 in 100 normal images, or nearly
NO_DISEASE = "It says how unusual a film is, and not how likely a disease is."


def distance(z: float) -> str:
    """Say where an error lies: "2.7 standard deviations above normal images"."""
    return f"{abs(z):.1f} standard deviations {'below' if z < 0 else 'above'} normal images"


def verdict(said: Prediction, predictor: Predictor) -> str:
    """Say what a film was called, and why."""
    called = predictor.name_of(said.malignant).capitalize()
    place = "at or above" if said.malignant else "below"
    return f"{called}: its error is {place} {predictor.limit_in_words} of normal images."


def what_normal_was(predictor: Predictor) -> str:
    """Say which images were normal to a run."""
    count = predictor.metrics["anomaly"]["normals"].get("val")
    normal = what_normal_is(predictor.labels, predictor.looks[0].unit)
    measured = f" Mean and sd are those of {count:,} of them in validation." if count else ""
    return f"Normal here: {normal}.{measured}"


def worth(metrics: Mapping[str, Any]) -> list[str]:
    """Say how far a detector can be believed; `metrics` is its metrics.json."""
    test, positive = metrics["splits"]["test"], Labels.recorded(metrics).positive
    found = f"{test['confusion']['tp']} of {test['malignant']} {positive} test images"
    flagged = flagged_normals(metrics)
    return [*area_of(test), f"It calls {found} anomalous" + (f"; {flagged}." if flagged else ".")]


def bar(z: float, predictor: Predictor) -> str:
    """Draw an error beside those of normal images and the threshold, as HTML."""
    highest = max(HIGHEST, predictor.limit + BEYOND)

    def place(value: float) -> float:
        share = (value - LOWEST) / (highest - LOWEST)
        return round(100 * min(1.0, max(0.0, share)), 1)

    usual, beyond = place(-USUAL), 100 - place(USUAL)
    label = f"This film: {distance(z)}. The threshold is {predictor.limit_in_words}."
    return (
        f"<div class='bar' role='img' aria-label='{html.escape(label)}'>"
        f"<b style='left: {usual}%; right: {beyond}%'></b>"
        f"<s style='left: {place(predictor.limit)}%'></s><i style='left: {place(z)}%'></i>"
        f"<span style='left: {usual}%'>normal images</span>"
        f"<span style='left: {place(predictor.limit)}%'>threshold</span></div>"
    )


def second_opinion(said: Prediction, predictor: Predictor) -> str:
    """Return what a detector says beside a classifier, as HTML."""
    assert said.z is not None
    text = [verdict(said, predictor), what_normal_was(predictor), NO_DISEASE]
    sure = ["How sure is it?", *worth(predictor.metrics)]
    told = bar(said.z, predictor) + "".join(
        f"<p>{html.escape(' '.join(one))}</p>" for one in (text, sure)
    )
    if said.complaints:
        told = "<p>This image is unlike those of its training, so its score means nothing.</p>"
    else:
        told = f"<p><strong>{html.escape(distance(said.z).capitalize())}</strong></p>{told}"
    return (
        f"<section class='second'><p class='by'>Second opinion, by {html.escape(predictor.name)}, "
        f"which saw no label of a lesion</p>{told}</section>"
    )
