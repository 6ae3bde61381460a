"""What stages take, in seconds and bytes, from how many images there are and how large.

Times are those of one core of the machine that the tables were measured on, scaled by a short
measurement of this machine; they are rough, and said with "about".
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.resources.machine import core_speed, cores

MEGA = 1e6
FILM_PIXELS = 15e6  # of a film of CBIS-DDSM, half of them more
SMALL_PIXELS = 0.25e6  # of a film of the synthetic collection, `--size small`
START_SECONDS = 2.0  # of a stage: what it imports; with torch three times as long
TORCH_SECONDS = 6.0


@dataclass(frozen=True)
class Cost:
    """Seconds of one core for each image and for each of its megapixels; and bytes likewise."""

    image: float
    megapixel: float
    image_bytes: float
    megapixel_bytes: float


ORGANIZE = Cost(0.08, 0.045, 12e3, 1.7e6)
PREPROCESS = Cost(0.19, 0.05, 4e3, 0.0)
SCORED_RUN = 14.0  # core seconds of an evaluation: intervals, figures, its cost
REPORT, REPORTED_RUN = 3.0, 1.5  # core seconds of a report, and of each run in it
WRITTEN_BYTES = 0.7  # of a preprocessed pixel of 8 bits
WORKING_BYTES = 1.7  # of a pixel of a working image of 16 bits
EVALUATION_BYTES, REPORT_BYTES, REPORTED_RUN_BYTES = 1.5e6, 1e6, 1.6e6


@dataclass(frozen=True)
class Estimate:
    """What work takes."""

    seconds: float | None  # None where nothing is known
    size: float  # bytes that it adds on the disk

    def __add__(self, other: "Estimate") -> "Estimate":
        known = self.seconds is not None and other.seconds is not None
        seconds = (self.seconds or 0) + (other.seconds or 0) if known else None
        return Estimate(seconds, self.size + other.size)


def total(estimates: Iterable[Estimate]) -> Estimate:
    """Return what several works take one after the other."""
    found = Estimate(0.0, 0.0)
    for one in estimates:
        found += one
    return found


def organize_estimate(images: int, pixels: float = FILM_PIXELS, workers: int = 0) -> Estimate:
    """Return what organising takes: headers, pixels, masks, contact sheets.

    Args:
        images: How many mammograms or crops.
        pixels: Of one of them, on average.
        workers: Processes; 0 for one for each core.
    """
    size = images * (ORGANIZE.image_bytes + ORGANIZE.megapixel_bytes * pixels / MEGA)
    return Estimate(_shared(ORGANIZE, images, pixels, workers), size)


def preprocess_estimate(
    images: int, side: int, pixels: float = FILM_PIXELS, workers: int = 0
) -> Estimate:
    """Return what preprocessing takes: every step, the working images and the result.

    Args:
        images: How many, augmented copies counted too.
        side: Of the square results in pixels; 0 for full size.
        pixels: Of an organised image, on average.
        workers: Processes; 0 for one for each core.
    """
    # A film is narrower than high: its square result is partly black.
    written = side**2 * 0.6 if side else pixels * 0.6
    working = side**2 * 0.6 if side else 0.0
    each = PREPROCESS.image_bytes + WRITTEN_BYTES * written + WORKING_BYTES * working
    return Estimate(_shared(PREPROCESS, images, pixels, workers), images * each)


def evaluate_estimate(runs: int = 1, scoring: float = 0.0) -> Estimate:
    """Return what evaluating runs in one process takes.

    Args:
        runs: How many.
        scoring: Seconds that the networks score images for, all runs together.
    """
    seconds = TORCH_SECONDS + runs * SCORED_RUN
    return Estimate(seconds / core_speed() + scoring, runs * EVALUATION_BYTES)


def report_estimate(runs: int) -> Estimate:
    """Return what a report of evaluated runs takes."""
    seconds = START_SECONDS + REPORT + REPORTED_RUN * runs
    return Estimate(seconds / core_speed(), REPORT_BYTES + REPORTED_RUN_BYTES * runs)


def _shared(cost: Cost, images: int, pixels: float, workers: int) -> float:
    """Return the seconds of work on images that processes share."""
    each = cost.image + cost.megapixel * pixels / MEGA
    processes = max(1, min(workers or cores(), images))
    return (START_SECONDS + images * each / processes) / core_speed()


def has_gpu() -> bool:
    """Return whether there seems to be a GPU of NVIDIA's, before torch can be asked."""
    return any(Path(place).exists() for place in ("/dev/nvidia0", "/dev/dxg"))
