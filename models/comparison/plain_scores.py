"""Two scores that a detector has to beat: how bright the breast is, and how much it varies.

What restores images fails mostly at bright and varied places, so it may find nothing else.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from images.jobs import code_digest
from models.data.loading import load_split
from models.metrics import Floats, auc
from pipeline.errors import UserError
from pipeline.manifest import SPLITS, Row
from pipeline.progress import Progress
from pipeline.provenance import dataset_hash
from pipeline.records import RECORD, digest, file_digest, read_json, write_json
from pipeline.resources.places import ANOMALY
from pipeline.work import worker_count

ByImage = Mapping[str, float]  # image_id -> score
SIZE = 224  # pixels, as the sanity baselines take them: mostly they are decoded already
WINDOW = 7  # side in pixels of the field whose standard deviation is the local contrast
CHOSEN_ON, SCORED = SPLITS[1:]
BRIGHTNESS, CONTRAST = "brightness", "contrast"
TITLES = {  # higher is more suspicious, and the same where lower is
    BRIGHTNESS: ("Mean brightness", "Mean darkness"),
    CONTRAST: ("Local contrast", "Local smoothness"),
}


def plain_scores(
    data: Path, rows: Sequence[Row], runs: Path, workers: int, progress: Progress
) -> Mapping[str, ByImage]:
    """Return both scores of the test images, kept for the next time.

    The direction in which each is suspicious is that which suits the validation images.

    Args:
        data: The dataset.
        rows: Its manifest.
        runs: The folder that holds all runs.
        workers: Threads; 0 for one for each core.
        progress: Where it reports.

    Returns:
        By a title of TITLES, a score in [0, 1] by image_id; higher is more suspicious.

    Raises:
        UserError: No test image can be read.
    """
    used = [row for row in rows if not row.parent and row.split in (CHOSEN_ON, SCORED)]
    key = digest(
        dataset_hash(data), sorted((row.image_id, row.split, row.label) for row in used),
        file_digest(data / RECORD) if (data / RECORD).is_file() else "", code_digest(__file__),
    )  # fmt: skip
    return kept_scores(
        runs / ANOMALY / f"{dataset_hash(data)}.json", key,
        lambda: _made(data, used, workers, progress),
    )  # fmt: skip


def kept_scores(
    path: Path, key: str, make: Callable[[], Mapping[str, ByImage]]
) -> Mapping[str, ByImage]:
    """Return scores that a file keeps; make them where it has none for the key."""
    with contextlib.suppress(UserError):  # missing or damaged
        kept: dict[str, Any] = read_json(path)
        if kept["key"] == key:
            return dict(kept["scores"])
    made = {name: dict(found) for name, found in make().items()}
    with contextlib.suppress(OSError):  # no right to write, a full disk
        write_json(path, {"key": key, "scores": made})
    return made


def _made(
    data: Path, rows: Sequence[Row], workers: int, progress: Progress
) -> Mapping[str, ByImage]:
    splits = {
        name: load_split(data, rows, name, SIZE, workers, progress) for name in (CHOSEN_ON, SCORED)
    }
    if not len(splits[SCORED]):
        raise UserError(f"{data}: no test image can be read", "preprocess again")
    found: dict[str, Floats] = {}
    total = sum(map(len, splits.values()))
    threads = ThreadPoolExecutor(worker_count(workers))
    with threads, progress.track("Brightness and contrast", total, "images") as advance:
        for name, split in splits.items():
            measured = []
            for one in threads.map(brightness_and_contrast, split.images):
                measured.append(one)
                advance(1)
            found[name] = np.array(measured, np.float64).reshape(-1, 2)
    scores = {}
    for column, titles in enumerate(TITLES.values()):
        area = auc(splits[CHOSEN_ON].targets > 0, found[CHOSEN_ON][:, column])
        lower = bool(area < 0.5)  # not known without both classes: then higher
        values = found[SCORED][:, column]
        scores[titles[lower]] = {
            row.image_id: float(1 - value if lower else value)
            for row, value in zip(splits[SCORED].rows, values, strict=True)
        }
    return scores


def brightness_and_contrast(image: NDArray[np.uint8]) -> tuple[float, float]:
    """Return the mean grey value of the breast, and its mean local standard deviation, in [0, 1].

    Args:
        image: (S, S) uint8, black outside the breast; pixels above 0.5 / 255 are the breast.
    """
    inside = (image > 0).astype(np.float64)
    if not inside.any():
        return 0.0, 0.0
    grey = image / 255.0  # (S, S), 0 outside
    share = np.maximum(uniform_filter(inside, WINDOW, mode="constant"), 1 / WINDOW**2)
    mean = uniform_filter(grey, WINDOW, mode="constant") / share
    square = uniform_filter(grey * grey, WINDOW, mode="constant") / share
    spread = np.sqrt(np.maximum(square - mean * mean, 0))
    return float(grey.sum() / inside.sum()), float((spread * inside).sum() / inside.sum())
