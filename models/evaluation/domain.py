"""Learning what a run's images look like, so that prediction can tell others from them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from images.files import SPREAD, read_image
from images.statistics import film_statistics
from models.data.loading import Split, load_split
from models.domain import (
    ARRAYS_FILE,
    FACTS_FILE,
    LEAST_SPREAD,
    Domain,
    Normal,
    nearest,
    unit_length,
)
from models.evaluation.scoring import ScoredRun, members_of
from models.inference import Compute, TrainedModel, load_run, place, run_over, scoring_compute
from models.networks import head_name, pooled, split_before
from pipeline.errors import UserError
from pipeline.manifest import MANIFEST, THUMBNAILS, Row, read_manifest
from pipeline.paths import is_possible
from pipeline.progress import Progress
from pipeline.provenance import SOURCE
from pipeline.records import digest, read_json
from pipeline.runs import MODEL_FILE

FEWEST = 5  # training images, below which nothing can be said of others
MOST = 400  # training images, and as many of validation: more would say the same
FOLDS = 5  # parts of the training images that are left out in turn
EXCEEDED = 0.002  # share of new images that may be beyond a limit
SEEN = 0.99  # share of the images that a limit was found with and that keep it, at least
MARGIN = 5  # over the number of patients: how much wider limits are, as a fit to few is too narrow
VERSION = 2  # a change of it makes what runs know anew


def learn_domain(scored: ScoredRun, workers: int, seed: int, progress: Progress) -> None:
    """Write into a run's folder what its training images look like; see `models.domain`.

    Of an ensemble it is that of its first member. Nothing is done where it is known already, where
    the training images are not in the dataset that is evaluated on, or where they are too few.
    """
    member = members_of(scored.run)[0]
    facts = read_json(member.folder / MODEL_FILE)
    if scored.data is None or scored.data_hash != facts["data_hash"]:
        return
    key = digest(
        VERSION, facts["data_hash"], facts.get("pixels", {}), str(member.folder.name), seed
    )
    known = Domain.load(scored.run.folder)
    if known is not None and known.key == key:
        return
    model = load_run(member.folder)
    compute = scoring_compute()
    place(model.network, compute)
    parts = {
        name: _some(load_split(scored.data, scored.rows, name, model.size, workers, progress), seed)
        for name in ("train", "val")
    }
    if len(parts["train"]) < FEWEST or not len(parts["val"]):
        for name in (FACTS_FILE, ARRAYS_FILE):  # of an earlier training
            (scored.run.folder / name).unlink(missing_ok=True)
        return
    total = sum(map(len, parts.values()))
    with progress.track("Learning what its images look like", total, "images") as advance:
        features = {
            name: unit_length(_features(model, part.images, compute, advance))
            for name, part in parts.items()
        }
    films = {name: _films(scored, part.rows) for name, part in parts.items()}
    patients = {name: [row.patient_id for row in part.rows] for name, part in parts.items()}
    working = {name: _statistics(part.images) for name, part in parts.items()}
    Domain(
        working=_normal(working["train"], working["val"], patients),
        film=_film_normal(films, patients),
        sides=_sides(scored, parts["train"].rows),
        features=features["train"],
        features_limit=_limit(
            nearest(features["val"], features["train"]),
            len({row.patient_id for row in parts["val"].rows}),
        ),
        key=key,
    ).save(scored.run.folder)


def _some(split: Split, seed: int) -> Split:
    """Return the images that are not augmented copies, no more than are needed, in memory."""
    own = np.array([i for i, row in enumerate(split.rows) if not row.parent], np.int64)
    if len(own) > MOST:
        own = np.sort(np.random.default_rng(seed).choice(own, MOST, replace=False))
    return split.some(own)


def _features(
    model: TrainedModel, images: NDArray[np.uint8], compute: Compute, advance: Any
) -> NDArray[np.float32]:
    body, _ = split_before(model.network, head_name(model.network))

    return run_over(lambda batch: pooled(body(batch)), images, model.transform(compute), advance)


def _statistics(images: Any) -> NDArray[np.float64]:
    return np.stack([film_statistics(image) for image in images])


def _organised(scored: ScoredRun) -> Path | None:
    """Return the folder of the films as they were organised; None where it is gone."""
    if scored.data is None or scored.record.get("stage") == "organize":
        return scored.data
    source = scored.record.get(SOURCE)
    if source is None:
        return None
    places = Path(source["folder"]), scored.data.resolve() / source["relative"]
    return next((one for one in places if is_possible(one) and (one / MANIFEST).is_file()), None)


def _films(scored: ScoredRun, rows: Sequence[Row]) -> NDArray[np.float64] | None:
    """Return the statistics of the films' thumbnails; None where one of them is not there."""
    folder, found = _organised(scored), []
    if folder is None:
        return None
    for row in rows:
        try:
            image = read_image(folder / THUMBNAILS / f"{row.image_id}.png")
        except UserError:
            return None
        found.append(film_statistics((image // SPREAD).astype(np.uint8)))
    return np.stack(found)


def _sides(scored: ScoredRun, rows: Sequence[Row]) -> tuple[int, int] | None:
    folder = _organised(scored)
    if folder is None:
        return None
    wanted = {row.image_id for row in rows}
    found = [max(row.height, row.width) for row in read_manifest(folder) if row.image_id in wanted]
    return (min(found), max(found)) if found else None


def _film_normal(
    films: Mapping[str, NDArray[np.float64] | None], patients: Mapping[str, Sequence[str]]
) -> Normal | None:
    train, val = films["train"], films["val"]
    return None if train is None or val is None else _normal(train, val, patients)


def _normal(
    train: NDArray[np.float64], val: NDArray[np.float64], patients: Mapping[str, Sequence[str]]
) -> Normal:
    """Fit (N, D) statistics of training images; the limits are what new images keep.

    How far new images are follows from validation, and from training images of patients that were
    left out of the fit in turn: a few validation images alone would not show it.
    """
    fitted = _fit(train)
    groups = np.unique(patients["train"], return_inverse=True)[1] % FOLDS
    new = [(fitted, values) for values in val]
    for fold in np.unique(groups):
        if np.count_nonzero(groups != fold) >= FEWEST // 2:
            without = _fit(train[groups != fold])
            new += [(without, values) for values in train[groups == fold]]
    # Images of one patient resemble each other, so patients count.
    count = len({*patients["train"], *patients["val"]})
    distances = np.array([normal.distance(values) for normal, values in new])
    excesses = np.array([normal.excess(values).max() for normal, values in new])
    wider = 1 + MARGIN / count
    return replace(
        fitted, limit=wider * _limit(distances, count), reach=wider * _limit(excesses, count)
    )


def _fit(values: NDArray[np.float64]) -> Normal:
    """Fit a normal distribution to (N, D) statistics.

    The covariance is shrunk towards that of independent statistics (Ledoit & Wolf 2004, J.
    Multivariate Analysis 88:365), as there may be few more images than statistics.
    """
    from sklearn.covariance import LedoitWolf

    mean, spread = values.mean(axis=0), np.maximum(values.std(axis=0), LEAST_SPREAD)
    covariance = LedoitWolf(assume_centered=True).fit((values - mean) / spread).covariance_
    # What does not vary at all would make the smallest difference an endless distance.
    covariance = covariance + LEAST_SPREAD * np.eye(len(mean))
    precision = np.linalg.inv(covariance) / np.outer(spread, spread)
    return Normal(mean, precision, values.min(axis=0), values.max(axis=0), limit=0.0, reach=0.0)


def _limit(distances: NDArray[Any], patients: int) -> float:
    """Return the distance that one of five hundred new images exceeds, from those of new images.

    It is the one-sided prediction limit of a normal distribution of their logarithms, which allows
    for how few they are; and 99 of 100 of them keep it.

    Args:
        distances: (N,), of images that were not fitted.
        patients: Whose they are: so many are independent.
    """
    from scipy.stats import t as student

    logs = np.log(np.maximum(distances.astype(np.float64), 1e-6))
    count = min(len(logs), patients)
    spread = logs.std(ddof=1) if len(logs) > 1 else 1.0
    reach = student.ppf(1 - EXCEEDED, max(1, count - 1)) * np.sqrt(1 + 1 / count)
    return float(max(np.exp(logs.mean() + reach * spread), np.quantile(distances, SEEN)))
