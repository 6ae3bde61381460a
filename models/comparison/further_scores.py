"""Further scores of a variational autoencoder: the ELBO, and how unusual its mean code is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from images.jobs import code_digest
from models.anomaly import autoencoder
from models.anomaly.autoencoder import DIVERGENCE
from models.comparison.plain_scores import ByImage, kept_scores
from models.data.loading import load_split
from models.inference import (
    WEIGHTS_FILE,
    load_run,
    place,
    prepare_process,
    run_over,
    scoring_compute,
)
from models.networks import head_name, split_before
from models.registry import AUTOENCODERS
from models.training.normals import normals_of
from pipeline.folds import read_rows
from pipeline.progress import Progress
from pipeline.provenance import dataset_hash, read_fresh
from pipeline.records import digest, file_digest
from pipeline.resources.places import ANOMALY
from pipeline.runs import Run

ELBO, CODES = "negative ELBO", "Mahalanobis distance of the mean code"


def is_variational(facts: Mapping[str, Any]) -> bool:
    """Return whether model.json is of a variational autoencoder."""
    _, variational = AUTOENCODERS.get(str(facts["architecture"]), (0, False))
    return variational and "members" not in facts


def further_scores(
    run: Run, data: Path, runs: Path, workers: int, progress: Progress
) -> Mapping[str, ByImage]:
    """Return further scores of the test images of a VAE's run, kept for the next time.

    The ELBO is that of its loss (Kingma & Welling 2014, arXiv:1312.6114, equation 3), with codes at
    their mean. Mean and covariance of mean codes are those of normal training images, the
    covariance shrunk (Ledoit & Wolf 2004, J Multivar Anal 88:365).

    Args:
        run: A variational autoencoder's.
        data: The dataset that it was evaluated on.
        runs: The folder that holds all runs.
        workers: Threads; 0 for one for each core.
        progress: Where it reports.

    Returns:
        By name, a score in [0, 1) by image_id: x / (1 + x) of what is measured, which keeps its
        order; higher is more suspicious.
    """
    key = digest(
        file_digest(run.folder / WEIGHTS_FILE), dataset_hash(data),
        code_digest(__file__, autoencoder.__file__),
    )  # fmt: skip
    path = runs / ANOMALY / f"{run.model}-{run.folder.name}.json"
    return kept_scores(path, key, lambda: _made(run, data, workers, progress))


def _made(run: Run, data: Path, workers: int, progress: Progress) -> Mapping[str, ByImage]:
    prepare_process(workers)
    model, compute = load_run(run.folder), scoring_compute()
    place(model.network, compute)
    body, _ = split_before(model.network, head_name(model.network))
    rows, _ = read_rows(data, read_fresh(data, "preprocess", "organize"), run.fold.number)
    train = normals_of(load_split(data, rows, "train", model.size, workers, progress))
    test = load_split(data, rows, "test", model.size, workers, progress)
    total = len(train) + len(test)
    with progress.track(f"Codes of {run.model}", total, "images") as advance:
        features = [
            run_over(body, part.images, model.transform(compute), advance).astype(np.float64)
            for part in (train, test)
        ]  # (N, 2 + C) each
    known, found = features
    return {
        name: {row.image_id: float(x / (1 + x)) for row, x in zip(test.rows, values, strict=True)}
        for name, values in (
            (ELBO, np.maximum(found[:, 0] + DIVERGENCE * found[:, 1], 0)),
            (CODES, mahalanobis(known[:, 2:], found[:, 2:])),
        )
    }


def mahalanobis(known: NDArray[np.float64], found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance (N,) of codes (N, C) to the mean of known ones (M, C), M at least 2."""
    from sklearn.covariance import LedoitWolf

    fitted = LedoitWolf().fit(known)
    distances: NDArray[np.float64] = np.sqrt(np.maximum(fitted.mahalanobis(found), 0))
    return distances
