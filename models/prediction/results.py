"""What predictions look like: a line for each image and run, breasts, tables, files."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.evaluation.calibration import logistic, logit
from models.evaluation.operating_point import flagged_normals
from models.prediction.inputs import Found
from models.prediction.predictor import Predictor
from pipeline.labels import is_rare
from pipeline.progress import Table
from pipeline.records import write_json, write_table, write_table_or_none

PREDICTIONS, PREDICTIONS_JSON, BREASTS = "predictions.csv", "predictions.json", "breasts.csv"
HEAT_MAPS = "heat_maps"  # the folder of pictures beside them
SHOWN = 20  # lines of a table on the screen
KINDS = 8  # of files that were left aside, the most frequent ones
PROBABILITY, ERROR, Z = "Probability", "Error", "Sd above"  # titles of columns
Z_IN_WORDS = (
    "sd above: by how many standard deviations an error lies above the mean of normal images; it "
    "says how unusual an image is, and not how likely a disease is"
)
BREAST_SCORES = (PROBABILITY, "probability", 3), (Z, "z", 2)  # title, key, digits
NAME_WIDTH, FOLDER_WIDTH = 30, 20  # of names on the screen, in columns
MEMBERS_WIDTH, ERROR_WIDTH = 6, 9  # by which names are shorter beside such columns
JOIN = "; "  # between the remarks of one image
# Of files, in order. A classifier's line has its probability, an anomaly detector's its error and
# z, the standard deviations above the mean of normal images; a file has the columns of its lines.
COLUMNS = (
    "image", "run", "probability", "low", "high", "error", "z", "z_low", "z_high", "called",
    "threshold", "error_threshold", "z_threshold", "like_training", "remarks", "heat_map",
    "raw_probability", "laterality", "view", "height", "width",
)  # fmt: skip
BREAST_COLUMNS = (
    "folder", "study", "laterality", "run", "images", "unlike", "probability", "error", "z",
    "called", "threshold", "error_threshold", "z_threshold",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Line:
    """What one run says of one image."""

    image: str  # its path as it was given
    predictor: Predictor
    facts: Mapping[str, Any]  # of the image: height, width, laterality, view, study
    said: Mapping[str, Any]  # of it by the run: the fields of `Prediction`
    heat_map: str = ""  # the picture, relative to the folder; empty where none was drawn

    @property
    def called(self) -> str:
        """The decision at the operating point."""
        return self.predictor.name_of(bool(self.said["malignant"]))

    @property
    def score(self) -> float:
        """What images are ranked by: the probability, or z of an anomaly detector."""
        return float(self.said["z" if self.predictor.is_detector else "probability"])

    @property
    def span(self) -> tuple[float | None, float | None]:
        """Smallest and largest score of an ensemble's members; None for one network."""
        members = self.said["members"]
        return (min(members), max(members)) if members else (None, None)

    @property
    def complaints(self) -> Sequence[str]:
        """How the image differs from those of the training."""
        found: Sequence[str] = self.said["complaints"]
        return found

    @property
    def like_training(self) -> str:
        """Whether the image is like those of the training: "yes", "no" or "unknown"."""
        if self.complaints:
            return "no"
        return "yes" if self.predictor.domain is not None else "unknown"

    def as_data(self) -> dict[str, Any]:
        """Return it as `predictions.json` and `predictions.csv` hold it."""
        low, high = self.span
        known = self.predictor
        said: dict[str, Any] = {"probability": self.score, "low": low, "high": high,
                                "threshold": known.threshold,
                                "raw_probability": self.said["raw"]}  # fmt: skip
        if known.is_detector:
            said = {"error": self.said["raw"], "z": self.score, "z_low": low, "z_high": high,
                    "error_threshold": known.error_at(known.limit),
                    "z_threshold": known.limit}  # fmt: skip
        found = said | {
            "image": self.image,
            "run": known.name,
            "called": self.called,
            "like_training": self.like_training,
            "remarks": JOIN.join(self.complaints),
            "heat_map": self.heat_map,
            "laterality": self.facts["laterality"],
            "view": self.facts["view"],
            "height": self.facts["height"],
            "width": self.facts["width"],
        }
        return {name: found[name] for name in COLUMNS if name in found}


def breast_lines(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Return what each run says of breasts of which several views were given.

    Views belong together whose headers name the same study and side. They are joined and called as
    evaluation did it.
    """
    groups: dict[tuple[str, str, str], list[Line]] = {}
    for line in lines:
        study, side = line.facts["study"], line.facts["laterality"]
        if study and side:
            groups.setdefault((study, side, line.predictor.name), []).append(line)
    numbers: dict[tuple[str, str], int] = {}
    found = []
    for (study, side, run), group in groups.items():
        for folder, members in _by_folder(group).items():
            # Studies are numbered: their identifiers go nowhere.
            number = numbers.setdefault(
                (folder, study), 1 + len({s for f, s in numbers if f == folder})
            )
            if len(members) > 1:
                found.append({"folder": folder, "study": number, "laterality": side, "run": run,
                              **_joined(members)})  # fmt: skip
    return found


def _by_folder(group: Sequence[Line]) -> dict[str, list[Line]]:
    """Return the images of one study and side by folder.

    Archives keep each series in a folder of its own, so images of several folders are joined, but
    only where each shows another view: anonymisers exist that give all patients one study.
    """
    folders: dict[str, list[Line]] = {}
    for line in group:
        folders.setdefault(str(Path(line.image).parent), []).append(line)
    views = {line.facts["view"] for line in group}
    if len(folders) == 1 or len(views) < len(group) or "" in views:
        return folders
    try:
        return {str(Path(os.path.commonpath(folders))): list(group)}
    except ValueError:  # of drives, or of a path that is relative and one that is not
        return folders


def _joined(members: Sequence[Line]) -> dict[str, Any]:
    predictor = members[0].predictor
    scores = np.array([line.score for line in members])
    if predictor.is_detector:  # evaluation joins these
        scores = logistic(scores)
    score = float(scores.max() if predictor.metrics["aggregate"] == "max" else scores.mean())
    threshold = float(predictor.metrics["units"]["breast"]["threshold"])
    found = {"images": len(members), "unlike": sum(bool(line.complaints) for line in members),
             "called": predictor.name_of(score >= threshold)}  # fmt: skip
    if not predictor.is_detector:
        return found | {"probability": score, "threshold": threshold}
    z, limit = logit(np.array([score, threshold])).tolist()
    return found | {"error": predictor.error_at(z), "z": z,
                    "error_threshold": predictor.error_at(limit), "z_threshold": limit}  # fmt: skip


def write_results(
    folder: Path, lines: Sequence[Line], breasts: Sequence[Mapping[str, Any]]
) -> None:
    """Write predictions.csv, predictions.json and, where there are breasts, breasts.csv."""
    rows = [line.as_data() for line in lines]
    columns, cells = cells_of(rows, COLUMNS)
    write_table(folder / PREDICTIONS, columns, cells)
    write_json(folder / PREDICTIONS_JSON, {"predictions": rows, "breasts": list(breasts)})
    write_table_or_none(folder / BREASTS, *cells_of(breasts, BREAST_COLUMNS))


def cells_of(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str]
) -> tuple[list[str], list[list[Any]]]:
    """Return those of the columns that any row has, and the cells of each row."""
    there = [name for name in columns if any(name in row for row in rows)]
    cells = [[row.get(name) for name in there] for row in rows]
    return there, [["" if value is None else value for value in line] for line in cells]


def headline(lines: Sequence[Line], set_aside: int) -> str:
    """Return the result in one sentence."""
    images = len({line.image for line in lines})
    unlike = len({line.image for line in lines if line.complaints})
    malignant = sum(line.said["malignant"] for line in lines)
    of = f"{len(lines)} predictions" if len(lines) != images else f"{images} image{_s(images)}"
    positive = dict.fromkeys(line.predictor.name_of(True) for line in lines)
    text = f"{malignant} of {of} called {' or '.join(positive)}"
    if unlike:
        text += f"; {unlike} {'is' if unlike == 1 else 'are'} unlike the training images"
    return f"{text}; {set_aside} could not be read" if set_aside else text


def tables_of(
    lines: Sequence[Line], predictors: Sequence[Predictor], breasts: Sequence[Mapping[str, Any]]
) -> tuple[Table, ...]:
    """Return a table for each run, and one of breasts where there are any."""
    tables = [_table(predictor, [one for one in lines if one.predictor is predictor])
              for predictor in predictors]  # fmt: skip
    for predictor in predictors:
        if own := [one for one in breasts if one["run"] == predictor.name]:
            of = f", by {predictor.name}" if len(predictors) > 1 else ""
            tables.append(_table_of_breasts(own, f"Breasts, from all their views{of}"))
    return tuple(tables)


def _table_of_breasts(breasts: Sequence[Mapping[str, Any]], title: str) -> Table:
    # Columns that say nothing are left out: a terminal has 80.
    scores = [score for score in BREAST_SCORES if score[1] in breasts[0]]
    studies = any(one["study"] > 1 for one in breasts)
    unlike = any(one["unlike"] for one in breasts)
    rows = [
        (_short(one["folder"], FOLDER_WIDTH), *([one["study"]] if studies else []),
         one["laterality"].lower(), one["images"],
         *(_digits(one.get(name), places) for _, name, places in scores), one["called"],
         *(["!" if one["unlike"] else ""] if unlike else []))
        for one in breasts[:SHOWN]
    ]  # fmt: skip
    titles = [one for one, *_ in scores]
    columns = ("Folder", *(["Study"] if studies else []), "Breast", "Images", *titles, "Called",
               *(["Unlike"] if unlike else []))  # fmt: skip
    return Table(title, columns, tuple(rows))


def _table(predictor: Predictor, lines: Sequence[Line]) -> Table:
    spans = any(line.span != (None, None) for line in lines)
    rows, places = [], 2 if predictor.is_detector else 3
    # With more columns names leave them room: a line of 80 columns is not broken.
    width = NAME_WIDTH - (MEMBERS_WIDTH if spans else 0) - (ERROR_WIDTH * predictor.is_detector)
    # Whoever looks at a few of many looks at the highest.
    shown = sorted(lines, key=lambda line: -line.score)[:SHOWN]
    for line in shown:
        low, high = line.span
        span = [] if not spans else [f"{_digits(low, places)} to {_digits(high, places)}"]
        mark = "!" if line.complaints else ""
        error = [f"{line.said['raw']:#.3g}"] if predictor.is_detector else []
        rows.append((_short(line.image, width), *error, _digits(line.score, places), *span,
                     line.called, mark))  # fmt: skip
    scores = (ERROR, Z) if predictor.is_detector else (PROBABILITY,)
    columns = ("Image", *scores, *(["Members"] if spans else []), "Called", "Unlike")
    limit = _digits(predictor.threshold)
    if predictor.is_detector:
        limit = predictor.limit_in_words
    title = f"{predictor.name}: {predictor.name_of(True)} from {limit} on"
    return Table(title, columns, tuple(rows))


def notes_on(found: Found, lines: Sequence[Line], predictors: Sequence[Predictor]) -> Iterator[str]:
    """Yield what a person should know before believing the figures."""
    said: dict[str, list[str]] = {}
    for line in lines:
        for complaint in line.complaints:
            said.setdefault(complaint, []).append(line.image)
    for complaint, images in said.items():
        names = list(dict.fromkeys(images))
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        score = "score" if any(one.is_detector for one in predictors) else "probability"
        yield f"{_short(names[0])}{more}: {complaint}; the {score} means nothing there"
    for predictor in predictors:
        yield f"{predictor.name}: called at {predictor.rule}; {worth(predictor)}"
        if predictor.domain is None:
            again = (
                f"evaluate it again with: python main.py evaluate --run {predictor.name}"
                if predictor.has_network
                else "evaluate its run and export it again"
            )
            yield (
                f"{predictor.name} does not know what its training images look like, so unlike "
                f"images are not noticed; {again}"
            )
    if any(one.is_detector for one in predictors):
        yield Z_IN_WORDS
    if drawn := sum(bool(line.heat_map) for line in lines):
        yield f"heat-map{_s(drawn)} of {drawn} image{_s(drawn)}: in {HEAT_MAPS}/"
    per_run = len(lines) // max(1, len(predictors))
    if per_run > SHOWN:
        yield f"the {SHOWN} highest of {per_run} images are shown; all are in {PREDICTIONS}"
    yield from _left_aside(found)


def _left_aside(found: Found) -> Iterator[str]:
    if found.others:
        kinds = sorted(found.others.items(), key=lambda kind: (-kind[1], kind[0]))
        named = [f"{count} {kind}" for kind, count in kinds[:KINDS]]
        if rest := sum(count for _, count in kinds[KINDS:]):
            named.append(f"{rest} more")
        yield f"files of other kinds were left aside: {', '.join(named)}"
    if found.own:
        more = f" and {len(found.own) - 1} more" if len(found.own) > 1 else ""
        yield f"a folder that this tool wrote, without films, was left aside: {found.own[0]}{more}"


def worth(predictor: Predictor) -> str:
    """Return in words what a run was worth on held-out images."""
    test = predictor.metrics["splits"]["test"]
    area, kind, chance = test["metrics"]["auc"], "AUC", ""
    if is_rare(test["malignant"], test["images"]) and "pr_auc" in test["metrics"]:
        area, kind = test["metrics"]["pr_auc"], "PR AUC"
        chance = f"; guessing has {test['malignant'] / test['images']:.3f}"
    if area["value"] is None:
        return f"no test AUC is known ({test['images']} images of {test['patients']} patients)"
    span = ""
    if area["low"] is not None:
        span = f" ({area['low']:.2f} to {area['high']:.2f})"
    found = f"test {kind} {area['value']:.2f}{span} on {test['patients']} patients{chance}"
    return f"{found}; {flagged}" if (flagged := flagged_normals(predictor.metrics)) else found


def _digits(value: float | None, places: int = 3) -> str:
    return "-" if value is None else f"{value:.{places}f}"


def _short(name: str, width: int = NAME_WIDTH) -> str:
    return name if len(name) <= width else f"..{name[-width + 2 :]}"


def _s(count: int) -> str:
    return "" if count == 1 else "s"
