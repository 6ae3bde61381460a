"""What predictions look like: a line for each image and run, breasts, tables, files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.prediction.inputs import Found
from models.prediction.predictor import Predictor
from pipeline.labels import is_rare
from pipeline.progress import Table
from pipeline.records import write_json, write_table, write_table_or_none

PREDICTIONS, PREDICTIONS_JSON, BREASTS = "predictions.csv", "predictions.json", "breasts.csv"
HEAT_MAPS = "heat_maps"  # the folder of pictures beside them
SHOWN = 20  # lines of a table on the screen
NAME_WIDTH = 30  # of an image's name on the screen, in columns
JOIN = "; "  # between the remarks of one image


@dataclass(frozen=True, kw_only=True)
class Line:
    """What one run says of one image."""

    image: str  # its path as it was given
    predictor: Predictor
    facts: Mapping[str, Any]  # of the image: height, width, laterality, view, study
    said: Mapping[str, Any]  # of it by the run: probability, raw, malignant, members, complaints
    heat_map: str = ""  # the picture, relative to the folder; empty where none was drawn

    @property
    def called(self) -> str:
        """The decision at the operating point."""
        return self.predictor.labels.name(bool(self.said["malignant"]))

    @property
    def span(self) -> tuple[float | None, float | None]:
        """Smallest and largest probability of an ensemble's members; None for one network."""
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
        return {
            "image": self.image,
            "run": self.predictor.name,
            "probability": self.said["probability"],
            "low": low,
            "high": high,
            "called": self.called,
            "threshold": self.predictor.threshold,
            "like_training": self.like_training,
            "remarks": JOIN.join(self.complaints),
            "heat_map": self.heat_map,
            "raw_probability": self.said["raw"],
            "laterality": self.facts["laterality"],
            "view": self.facts["view"],
            "height": self.facts["height"],
            "width": self.facts["width"],
        }


def breast_lines(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Return what each run says of breasts of which several views were given.

    Views belong together that lie in one folder and whose headers name the same study and side.
    They are joined and called as evaluation did it.
    """
    groups: dict[tuple[str, str, str, str], list[Line]] = {}
    for line in lines:
        study, side = line.facts["study"], line.facts["laterality"]
        if study and side:
            key = str(Path(line.image).parent), study, side, line.predictor.name
            groups.setdefault(key, []).append(line)
    numbers: dict[tuple[str, str], int] = {}
    found = []
    for (folder, study, side, run), members in groups.items():
        # Studies are numbered: their identifiers go nowhere.
        number = numbers.setdefault(
            (folder, study), 1 + len({s for f, s in numbers if f == folder})
        )
        if len(members) > 1:
            found.append({"folder": folder, "study": number, "laterality": side, "run": run,
                          **_joined(members)})  # fmt: skip
    return found


def _joined(members: Sequence[Line]) -> dict[str, Any]:
    metrics = members[0].predictor.metrics
    scores = [float(line.said["probability"]) for line in members]
    score = max(scores) if metrics["aggregate"] == "max" else sum(scores) / len(scores)
    threshold = float(metrics["units"]["breast"]["threshold"])
    called = members[0].predictor.labels.name(score >= threshold)
    return {"images": len(members), "probability": score, "called": called, "threshold": threshold}


def write_results(
    folder: Path, lines: Sequence[Line], breasts: Sequence[Mapping[str, Any]]
) -> None:
    """Write predictions.csv, predictions.json and, where there are breasts, breasts.csv."""
    rows = [line.as_data() for line in lines]
    write_table(folder / PREDICTIONS, [*rows[0]], [_cells(row) for row in rows])
    write_json(folder / PREDICTIONS_JSON, {"predictions": rows, "breasts": list(breasts)})
    columns = [*breasts[0]] if breasts else []
    write_table_or_none(folder / BREASTS, columns, [_cells(row) for row in breasts])


def _cells(row: Mapping[str, Any]) -> list[Any]:
    return ["" if value is None else value for value in row.values()]


def headline(lines: Sequence[Line], set_aside: int) -> str:
    """Return the result in one sentence."""
    images = len({line.image for line in lines})
    unlike = len({line.image for line in lines if line.complaints})
    malignant = sum(line.said["malignant"] for line in lines)
    of = f"{len(lines)} predictions" if len(lines) != images else f"{images} image{_s(images)}"
    positive = dict.fromkeys(line.predictor.labels.positive for line in lines)
    text = f"{malignant} of {of} called {' or '.join(positive)}"
    if unlike:
        text += f"; {unlike} {'is' if unlike == 1 else 'are'} unlike the training images"
    return f"{text}; {set_aside} could not be read" if set_aside else text


def tables_of(
    lines: Sequence[Line], predictors: Sequence[Predictor], breasts: Sequence[Mapping[str, Any]]
) -> tuple[Table, ...]:
    """Return a table for each run, and one of breasts."""
    tables = [_table(predictor, [one for one in lines if one.predictor is predictor])
              for predictor in predictors]  # fmt: skip
    if breasts:
        rows = [
            (_short(one["folder"]), one["study"], one["laterality"].lower(), one["images"],
             _digits(one["probability"]), one["called"])
            for one in breasts[:SHOWN]
        ]  # fmt: skip
        columns = ("Folder", "Study", "Breast", "Images", "Probability", "Called")
        tables.append(Table("Breasts, from all their views", columns, tuple(rows)))
    return tuple(tables)


def _table(predictor: Predictor, lines: Sequence[Line]) -> Table:
    spans = any(line.span != (None, None) for line in lines)
    rows = []
    # Whoever looks at a few of many looks at the highest.
    shown = sorted(lines, key=lambda line: -float(line.said["probability"]))[:SHOWN]
    for line in shown:
        low, high = line.span
        span = [] if not spans else [f"{_digits(low)} to {_digits(high)}"]
        mark = "!" if line.complaints else ""
        rows.append((_short(line.image), _digits(line.said["probability"]), *span,
                     line.called, mark))  # fmt: skip
    columns = ("Image", "Probability", *(["Members"] if spans else []), "Called", "Unlike")
    title = f"{predictor.name}: {predictor.labels.positive} from {_digits(predictor.threshold)} on"
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
        yield f"{_short(names[0])}{more}: {complaint}; the probability means nothing there"
    for predictor in predictors:
        yield f"{predictor.name}: called at {predictor.rule}; {worth(predictor)}"
        if predictor.domain is None:
            yield (
                f"{predictor.name} does not know what its training images look like, so unlike "
                "images are not noticed; evaluate it again"
            )
    if drawn := sum(bool(line.heat_map) for line in lines):
        yield f"heat-map{_s(drawn)} of {drawn} image{_s(drawn)}: in {HEAT_MAPS}/"
    per_run = len(lines) // max(1, len(predictors))
    if per_run > SHOWN:
        yield f"the {SHOWN} highest of {per_run} images are shown; all are in {PREDICTIONS}"
    if found.others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(found.others.items()))
        yield f"files that are no images were left aside: {kinds}"


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
    return f"test {kind} {area['value']:.2f}{span} on {test['patients']} patients{chance}"


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _short(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else f"..{name[-NAME_WIDTH + 2 :]}"


def _s(count: int) -> str:
    return "" if count == 1 else "s"
