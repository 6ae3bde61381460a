"""A run, or an exported model, ready to score images that it has never seen; light, no torch."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.domain import Domain
from models.evaluation.calibration import Calibration, logistic
from models.onnx_scorer import AGAIN, OnnxModel
from models.onnx_scorer import MODEL as ONNX_FILE
from models.prediction.reading import FilmImage, Look
from pipeline.errors import UserError
from pipeline.labels import Labels
from pipeline.options import split_several
from pipeline.records import RECORD, digest, file_digest, read_json
from pipeline.runs import METRICS, MODEL_FILE, Run, find_run, run_problem

Floats = NDArray[np.float64]


class Scorer(Protocol):
    """A network, whatever computes it."""

    def prepare(self, workers: int) -> None:
        """Set up this process for it, before anything is scored."""
        ...

    def score(self, images: NDArray[np.uint8], tta: str) -> tuple[Floats, NDArray[Any]]:
        """Return logits of malignancy (N,) and features (N, F) of (N, S, S) uint8 images.

        Args:
            images: As the network takes them.
            tta: A key of `models.mirrors.MIRRORS`, for the logits alone.
        """
        ...


@dataclass(frozen=True)
class Prediction:
    """What a run says of one image."""

    probability: float  # of the positive label (malignancy), calibrated
    raw: float  # before calibration
    malignant: bool  # whether the probability reaches the operating point
    members: tuple[float, ...]  # probabilities of an ensemble's members; empty for one network
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
    threshold: float
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
        each = np.stack([logits for logits, _ in scored])  # (M, N)
        logits = each.mean(axis=0)
        probabilities, raw = self.calibration.apply(logits), logistic(logits)
        members = np.stack([self.calibration.apply(one) for one in each]).T  # (N, M)
        return [
            Prediction(
                probability=float(probabilities[number]),
                raw=float(raw[number]),
                malignant=bool(probabilities[number] >= self.threshold),
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
        """Return logits and features; see `Scorer`."""
        del tta
        logits, features = self._model.score(images)
        return logits.astype(np.float64), features


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
