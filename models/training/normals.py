"""Which images an anomaly detector learns from: the normal ones of the training split."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.data.loading import Split
from pipeline.errors import UserError
from pipeline.labels import is_normal
from pipeline.manifest import Row

LEAST_VALIDATED = 2  # normal images: of fewer, errors have no standard deviation


def normals_of(split: Split) -> Split:
    """Return the normal images of a split."""
    return split.some(np.flatnonzero([is_normal(row) for row in split.rows]))


def refuse_no_normals(manifest: Path, rows: Sequence[Row]) -> None:
    """Refuse a dataset without normal images to learn from, or to set a threshold by.

    Raises:
        UserError: It is so.
    """
    train, val = ([row for row in rows if row.split == split] for split in ("train", "val"))
    if not any(map(is_normal, train)):
        raise UserError(
            f"{manifest}: its train split holds no normal image, and an anomaly detector learns "
            "from those alone",
            "organise a collection that has some, with --question malignant-rest or "
            "abnormal-normal; or patches of CBIS-DDSM, with --unit patch",
        )
    if (count := sum(map(is_normal, val))) < LEAST_VALIDATED:
        raise UserError(
            f"{manifest}: its val split holds {count} normal images; {LEAST_VALIDATED} are needed, "
            "whose errors set the threshold",
            "organise more patients",
        )
