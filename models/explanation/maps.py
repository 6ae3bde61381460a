"""Maps of any run: heat-maps of a classifier, errors of an anomaly detector on one scale."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.evaluation.scoring import SPLITS
from models.explanation.baselines import breast_in
from models.explanation.cams import heat_maps
from models.explanation.errors import ErrorScale, error_maps
from models.explanation.subject import Subject
from models.inference import Compute, TrainedModel, scoring_batch
from pipeline.labels import is_normal
from pipeline.progress import Advance, Progress
from pipeline.records import digest
from pipeline.runs import is_detector
from pipeline.work import Ledger

MOST_NORMALS = 256  # validation images that a scale is measured on: 13 million pixels of 224 x 224


def maps_of(
    model: TrainedModel,
    images: NDArray[np.uint8],
    compute: Compute,
    method: str,
    evidence: Sequence[str],
    advance: Advance = lambda _steps: None,
    mirrored: bool = True,
) -> NDArray[np.float32]:
    """Return the maps (N, S, S) float32, at least 0, that `explain` makes of images.

    Those of a classifier are `heat_maps`, each with a maximum of 1. Those of an anomaly detector
    are `error_maps`, in the unit of its score: they have no method and no evidence, and are of the
    image alone, not the mean with its mirror image.
    """
    if is_detector(model.facts):
        return error_maps(model, images, compute, advance)
    return heat_maps(model, images, compute, method, evidence, advance, mirrored)


def normal_scale(subject: Subject, ledger: Ledger, code: str, progress: Progress) -> ErrorScale:
    """Measure the scale of a detector's maps on normal validation images.

    Of more than 256 such images, 256 are looked at, evenly through the list.

    Args:
        subject: A detector's.
        ledger: Knows the scale where an earlier run measured it.
        code: Digest of the code behind it.
        progress: Where it reports.
    """
    val, _ = SPLITS
    names = [row.image_id for row in subject.splits[val].rows if is_normal(row)]
    places = np.linspace(0, len(names) - 1, min(len(names), MOST_NORMALS)).round().astype(int)
    names = [names[place] for place in places]
    key = digest(code, subject.digest, names)
    if known := ErrorScale.recorded(ledger.facts("scale", key)):
        return known
    batch = scoring_batch(subject.model.size)
    errors, breasts = [], []
    with progress.track("Errors of normal images", len(names), "images") as advance:
        for start in range(0, len(names), batch):
            images = subject.images(val, names[start : start + batch])
            errors.append(error_maps(subject.model, images, subject.compute, advance))
            breasts.append(np.stack([breast_in(image) for image in images]))
    scale = ErrorScale.of(np.concatenate(errors), np.concatenate(breasts))
    ledger.add("scale", key, scale.record)
    return scale
