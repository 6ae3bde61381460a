"""A run, or an exported model, ready to score images that it has never seen; light, no torch."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.domain import Domain
from models.evaluation.calibration import Calibration, logistic, logit
from models.onnx_scorer import AGAIN, OnnxModel
from models.onnx_scorer import MODEL as ONNX_FILE
from models.prediction.reading import FilmImage, Look
from pipeline.errors import UserError
from pipeline.labels import Labels
from pipeline.options import split_several
from pipeline.records import RECORD, digest, file_digest, read_json
from pipeline.runs import METRICS, MODEL_FILE, Run, find_run, run_problem

Floats = NDArray[np.float64]
ANOMALOUS = "anomalous"  # what an anomaly detector calls an image


class Scorer(Protocol):
    """A network, whatever computes it."""

    def prepare(self, workers: int) -> None:
        """Set up this process for it, before anything is scored."""
        ...

    def score(self, images: NDArray[np.uint8], tta: str) -> tuple[Floats, NDArray[Any]]:
        """Return scores (N,) and features (N, F) of (N, S, S) uint8 images.

        Scores are logits of malignancy, or the errors of an anomaly detector.

        Args:
            images: As the network takes them.
            tta: A key of `models.mirrors.MIRRORS`, for the scores alone.
        """
        ...


@dataclass(frozen=True)
class Prediction:
    """What a run says of one image."""

    # Of the positive label (malignancy), calibrated; None of an anomaly detector.
    probability: float | None
    raw: float  # the probability before calibration; of an anomaly detector the error
    # By how many standard deviations the error lies above the mean of normal images; None of a
    # classifier.
    z: float | None
    malignant: bool  # whether it reaches the operating point
    members: tuple[float, ...]  # probabilities, or z, of an ensemble's members; empty for one
    # How the image differs from those of the training; empty where it does not.
    complaints: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Predictor:
    """A run with all that a prediction needs."""

    name: str
    key: str  # digest of weights, calibration and operating point
    looks: tuple[Look, ...]  # one for each network
    scorers: tuple[Scorer, ...]
    calibration: Calibration
    threshold: float  # the operating point, of probabilities; see `limit` for detectors
    rule: str  # how the threshold was found, in words
    tta: str
    domain: Domain | None
    # What it is worth on held-out images: metrics.json, or what an exported model says of it.
    metrics: Mapping[str, Any]
    labels: Labels  # that it learnt to tell apart

    @property
    def has_network(self) -> bool:
        """Whether its networks are at hand, and not exported."""
        return not any(isinstance(scorer, _OnnxScorer) for scorer in self.scorers)

    @property
    def is_detector(self) -> bool:
        """Whether it says how far images are from normal ones, and no probability."""
        return self.calibration.normal is not None

    @property
    def limit(self) -> float:
        """Of an anomaly detector the operating point as z: standard deviations above normal."""
        return float(logit(np.array(self.threshold)))

    def error_at(self, z: float) -> float:
        """Return the error of an anomaly detector that lies so many standard deviations up."""
        mean, sd = self.calibration.normal or (0.0, 1.0)
        return mean + z * sd

    @property
    def limit_in_words(self) -> str:
        """The operating point of an anomaly detector: "mean + 2 sd"."""
        return f"mean {'-' if self.limit < 0 else '+'} {abs(self.limit):.3g} sd"

    def name_of(self, reached: bool) -> str:
        """Return how an image is called: "malignant", or "not anomalous"; see `Labels.name`."""
        if self.is_detector:
            return ANOMALOUS if reached else f"not {ANOMALOUS}"
        return self.labels.name(reached)

    def predict(self, films: Sequence[FilmImage], first: int = 0) -> list[Prediction]:
        """Score films.

        Args:
            films: At least one; read for looks among which are those of this predictor.
            first: Place of its first look among theirs.
        """
        scored = [
            scorer.score(np.stack([film.inputs[first + place] for film in films]), self.tta)
            for place, scorer in enumerate(self.scorers)
        ]
        each = np.stack([scores for scores, _ in scored])  # (M, N)
        scores = each.mean(axis=0)
        known = self.calibration
        said = known.deviations if self.is_detector else known.apply
        values, raw = said(scores), scores if self.is_detector else logistic(scores)
        members = np.stack([said(one) for one in each]).T  # (N, M)
        # As evaluation does it, to the last digit.
        reached = known.apply(scores) >= self.threshold
        return [
            Prediction(
                probability=None if self.is_detector else float(values[number]),
                raw=float(raw[number]),
                z=float(values[number]) if self.is_detector else None,
                malignant=bool(reached[number]),
                members=tuple(members[number].tolist()) if len(each) > 1 else (),
                complaints=self._complaints(film, film.inputs[first], scored[0][1][number]),
            )
            for number, film in enumerate(films)
        ]

    def _complaints(
        self, film: FilmImage, working: NDArray[np.uint8], features: NDArray[Any]
    ) -> tuple[str, ...]:
        found = ["is in colour, and no film is"] if film.colour else []
        if self.domain is not None:
            unit = self.looks[0].unit
            found += self.domain.complaints(film.thumbnail, film.side, working, features, unit)
        return tuple(found)


def open_predictor(runs: Path, name: str, fold: int = 0) -> Predictor:
    """Open a run, or an exported model.

    Args:
        runs: The folder that holds all runs.
        name: Of a run as `pipeline.runs.find_run` takes it, or the path of an exported model or
            of its folder.
        fold: The fold that a run must have validated on; 0 for any.

    Raises:
        UserError: There is none, it has not been evaluated, or a file of it is damaged.
    """
    if exported := exported_model(name):
        return _of_exported(exported)
    return _of_run(find_run(runs, name, fold))


def predictor_problem(names: str, answers: Any) -> str | None:
    """Say why runs or exported models that were named cannot be found; None where they can."""
    runs = [name for name in split_several(names) if exported_model(name) is None]
    return run_problem(",".join(runs), answers) if runs else None


def exported_model(name: str) -> Path | None:
    """Return the file of an exported model that a name leads to; None where it leads to none."""
    path = Path(name).expanduser()
    if path.is_dir():
        path = path / ONNX_FILE
    return path if path.suffix == Path(ONNX_FILE).suffix and path.is_file() else None


class _OnnxScorer:
    """An exported model; its mirror images are part of it."""

    def __init__(self, model: OnnxModel) -> None:
        self._model = model

    def prepare(self, workers: int) -> None:
        """Do nothing: the session has been made."""

    def score(self, images: NDArray[np.uint8], tta: str) -> tuple[Floats, NDArray[Any]]:
        """Return scores and features; see `Scorer`."""
        del tta
        scores, features = self._model.score(images)
        return scores.astype(np.float64), features


def _of_exported(path: Path) -> Predictor:
    with ThreadPoolExecutor(1) as beside:
        digesting = beside.submit(file_digest, path)
        model = OnnxModel.open(path)
        content = digesting.result()
    record = path.with_name(RECORD)
    known = read_json(record)["counts"].get("content") if record.is_file() else None
    if known not in (None, content):  # it would open, and score wrongly
        raise UserError(f"{path}: is damaged, or not the file that was exported here", AGAIN)
    facts = model.facts
    looks, scorers = (Look.of(facts["model"]),), (_OnnxScorer(model),)
    labels = Labels.recorded(facts["model"])
    return _predictor(str(facts["run"]), content, looks, scorers, path.parent, facts, labels)


def _predictor(
    name: str,
    content: str,
    looks: tuple[Look, ...],
    scorers: tuple[Scorer, ...],
    folder: Path,
    metrics: Mapping[str, Any],
    labels: Labels,
) -> Predictor:
    """Join networks with what evaluation found; `content` is a digest of all but the domain."""
    domain, point = Domain.load(folder), metrics["operating_point"]
    return Predictor(
        name=name,
        key=digest(content, domain.key if domain else ""),
        looks=looks,
        scorers=scorers,
        calibration=Calibration.of(metrics["calibration"]),
        threshold=float(point["threshold"]),
        rule=str(point["rule"]),
        tta=str(metrics["tta"]),
        domain=domain,
        metrics=metrics,
        labels=labels,
    )


def _of_run(run: Run) -> Predictor:
    metrics = run.metrics()
    from models.inference import WEIGHTS_FILE
    from models.prediction.network import NetworkScorer, members_of

    folders = [member.folder for member in members_of(run)]
    facts = [read_json(folder / MODEL_FILE) for folder in folders]
    weights = [file_digest(_there(folder / WEIGHTS_FILE)) for folder in folders]
    content = digest(weights, file_digest(run.folder / METRICS))
    looks, scorers = tuple(map(Look.of, facts)), tuple(map(NetworkScorer, folders))
    labels = Labels.recorded(facts[0])
    return _predictor(run.name, content, looks, scorers, run.folder, metrics, labels)


def _there(path: Path) -> Path:
    if not path.is_file():
        raise UserError(f"{path}: no such file", "train again with: python main.py train")
    return path


def predict_each(
    predictors: Sequence[Predictor], films: Sequence[FilmImage]
) -> list[list[Prediction]]:
    """Return what each predictor says of films that were read for the looks of all of them."""
    found, first = [], 0
    for predictor in predictors:
        found.append(predictor.predict(films, first))
        first += len(predictor.looks)
    return found
