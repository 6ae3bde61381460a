"""What the page says of a film, in plain words, and as CSV."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from interface.webapp.films import Film
from models.prediction.predictor import Prediction, Predictor
from models.prediction.results import COLUMNS, Line, cells_of
from pipeline.labels import Labels, is_rare

CHANCE = 0.5  # AUC of a coin
ON_VALIDATION = " on validation"
MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:&])")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with which a cell begins that a spreadsheet computes


def plain(text: str) -> str:
    """Return a text that Markdown shows as it is: a file may be called anything."""
    return MARKDOWN.sub(r"\\\1", text)


def figures(value: float, other: float) -> tuple[str, str]:
    """Write two probabilities with as many digits as tell them apart: two, or up to six."""
    for count in range(2, 7):
        one, two = f"{value:.{count}f}", f"{other:.{count}f}"
        if one != two or value == other:
            break
    return one, two


def verdict(said: Prediction, predictor: Predictor) -> str:
    """Say what a film was called, and why."""
    value, threshold = figures(said.probability or 0.0, predictor.threshold)
    called = predictor.labels.name(said.malignant)
    place = "at or above" if said.malignant else "below"
    return f"Called {called}: {value} is {place} {threshold}, {_chosen(predictor.rule)}."


def _chosen(rule: str) -> str:
    if not rule.endswith(ON_VALIDATION):
        return f"which was set at {rule}"
    aim = rule.removesuffix(ON_VALIDATION)
    if aim.startswith("Youden"):
        aim = f"highest sum of sensitivity and specificity ({aim})"
    article = "a" if aim.startswith(("sensitivity", "specificity")) else "the"
    return f"which was chosen on validation images for {article} {aim}"


def disagreement(said: Prediction) -> str:
    """Say how far the networks of an ensemble are apart; empty for one network."""
    if not said.members:
        return ""
    low, high = min(said.members), max(said.members)
    return f"Its {len(said.members)} networks say {low:.2f} to {high:.2f}."


def worth(metrics: Mapping[str, Any]) -> list[str]:
    """Say how far a run can be believed, and on how many patients that rests.

    Args:
        metrics: Its metrics.json.
    """
    test = metrics["splits"]["test"]
    found = area_of(test)
    if test["metrics"]["auc"]["value"] is None:
        return found
    if is_rare(test["malignant"], test["images"]) and "pr_auc" in test["metrics"]:
        precise, share = test["metrics"]["pr_auc"], test["malignant"] / test["images"]
        found.insert(0, f"Test PR AUC {precise['value']:.2f}, where guessing has {share:.3f}.")
    counts, (negative, positive) = test["confusion"], Labels.recorded(metrics).names
    found.append(
        f"At this operating point it called {counts['tp']} of {test['malignant']} {positive} test "
        f"images {positive}, and {counts['fp']} of {test['benign']} {negative} ones."
    )
    return found


def area_of(test: Mapping[str, Any]) -> list[str]:
    """Say the AUC of the test images, or that it is not known.

    Args:
        test: Of metrics.json.
    """
    images, patients = f"{test['images']:,} test images", f"{test['patients']:,} patients"
    area = test["metrics"]["auc"]
    if area["value"] is None:
        return [f"Its test AUC is not known; it was tested on {images} of {patients}."]
    span = ""
    if area["low"] is not None:
        span = f" (95 % interval {area['low']:.2f} to {area['high']:.2f})"
    found = [f"Test AUC {area['value']:.2f}{span}, measured on {images} of {patients}."]
    if area["low"] is not None and area["low"] <= CHANCE:
        found.append("The interval includes 0.50, which is chance.")
    return found


def share_of_malignant(metrics: Mapping[str, Any]) -> str:
    """Say for how many positive (malignant) images among all the probabilities hold."""
    images = sum(metrics["splits"][split]["images"] for split in metrics["splits"])
    malignant = sum(metrics["splits"][split]["malignant"] for split in metrics["splits"])
    percent, positive = round(100 * malignant / max(1, images)), Labels.recorded(metrics).positive
    rest = "" if is_rare(malignant, images) else " In screening far fewer are."
    return (
        f"Its probabilities hold where {percent} in 100 images are {positive}, as in the images "
        f"that it was calibrated and tested on.{rest}"
    )


def film_title(film: Film) -> str:
    """Return side, view and size of a film, as far as they are known."""
    side = " ".join(filter(None, (film.laterality.capitalize(), film.view)))
    return ", ".join(filter(None, (side, f"{film.height:,} x {film.width:,} pixels")))


def line_of(film: Film, said: Prediction, predictor: Predictor) -> Line:
    """Return a film's line as the stage `predict` writes it."""
    facts = {"laterality": film.laterality, "view": film.view, "height": film.height,
             "width": film.width}  # fmt: skip
    return Line(image=film.name, predictor=predictor, facts=facts, said=vars(said))


def as_csv(lines: Sequence[Line]) -> str:
    """Return lines with the columns of `predictions.csv`."""
    rows = [line.as_data() for line in lines]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    columns, cells = cells_of(rows, COLUMNS)
    writer.writerow(columns)
    writer.writerows(map(_as_shown, cells))
    return file.getvalue()


def _as_shown(values: Iterable[Any]) -> list[Any]:
    return [
        f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
        for value in values
    ]
