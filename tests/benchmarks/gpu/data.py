"""The data sets of the benchmark, from a synthetic collection that goes the usual way."""

import time

from tests.benchmarks.copies import replicate
from tests.benchmarks.training import prepare

SMALL, MEDIUM, LARGE, FEW = "small", "medium", "large", "few"
FILE_SHAPE = (2000, 1500)  # height and width of a large file, in pixels
PATIENTS = 40  # all images are copies of theirs


def measure(record, settings):
    """Make the data sets; say how many images each has and how long that took."""
    dry, folder = settings.dry, settings.folder
    started = time.perf_counter()
    patients, film = (8, "256") if dry else (PATIENTS, "small")
    data = prepare(folder, patients, film)
    record.figure("collection", "seconds", time.perf_counter() - started, "s")
    quarter = max(settings.images // 4, 1)
    held_out = max(settings.images // 16, 12)
    sets = {
        SMALL: ({"train": settings.images, "val": settings.images // 10}, (224, 224)),
        MEDIUM: ({"train": quarter, "val": held_out, "test": held_out}, (512, 512)),
        LARGE: ({"train": settings.files, "val": settings.files // 5}, FILE_SHAPE),
        FEW: ({"train": 24, "val": 8}, (512, 512)),
    }
    if dry:  # there are too few originals for less
        sets = {
            SMALL: ({"train": 24, "val": 8}, (64, 64)),
            MEDIUM: ({"train": 24, "val": 12, "test": 12}, (64, 64)),
            LARGE: ({"train": 16, "val": 8}, (400, 300)),
        }
    for name, (counts, shape) in sets.items():
        started = time.perf_counter()
        replicate(data, folder / name, counts, shape)
        record.figure(name, "training images", counts["train"])
        record.figure(name, "height", shape[0], "px")
        record.figure(name, "seconds", time.perf_counter() - started, "s")
