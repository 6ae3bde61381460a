"""Heat-maps of films that were handed in: where a run finds its evidence, or the largest errors."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from images.square import unfit_square
from models.anomaly.autoencoder import Autoencoder
from models.anomaly.patchcore import MemoryBank
from models.explanation.cams import heat_maps, mean_maps
from models.explanation.pictures import draw_reduced, reduced_size, write_picture
from models.inference import Compute, TrainedModel, run_over
from models.networks import head_name, split_before
from models.prediction.network import NetworkScorer
from models.prediction.predictor import Predictor
from models.prediction.reading import FilmImage, ReadJob, open_film, read_film
from models.prediction.results import HEAT_MAPS
from pipeline.progress import Progress
from pipeline.records import digest

Heat = NDArray[np.float32]  # (h, w), [0, 1]
# Of the scale of errors: standard deviations below and above the mean for distances of patches,
# which are measured for the worst patch; the mean itself and times it for errors of pixels.
BELOW, ABOVE, TIMES = 2, 4, 5


def film_heat(film: FilmImage, predictor: Predictor, first: int = 0) -> Heat | None:
    """Return the mean of the networks' maps of a film; None where they have none.

    Args:
        film: Read for looks among which are those of the predictor.
        predictor: A run.
        first: Place of its first look among theirs.

    Returns:
        (h, w) float32 in [0, 1] of the whole film, no side longer than 1400.
    """
    maps = []
    for place, scorer in enumerate(predictor.scorers, start=first):
        if not isinstance(scorer, NetworkScorer):
            return None
        (found,) = _maps(scorer, film.inputs[place][None], predictor)
        maps.append(_on_film(found, film, place)[None])
    if predictor.is_detector:  # on one scale, which their mean keeps
        return np.asarray(np.mean(maps, axis=0)[0], np.float32)
    mean: Heat = mean_maps(maps)[0]
    return mean


def _maps(scorer: NetworkScorer, images: NDArray[np.uint8], predictor: Predictor) -> Heat:
    """Return maps (N, S, S) in [0, 1] of (N, S, S) images."""
    if predictor.calibration.normal is None:
        return heat_maps(scorer.placed, images, scorer.compute)
    return error_maps(scorer.placed, images, scorer.compute, predictor.calibration.normal)


def error_maps(
    model: TrainedModel, images: NDArray[np.uint8], compute: Compute, normal: tuple[float, float]
) -> Heat:
    """Return where an anomaly detector's errors are larger than in normal images.

    Args:
        model: Placed on the device of `compute`.
        images: (N, S, S) uint8 in [0, 255].
        compute: Its device.
        normal: Mean and standard deviation of the errors of normal images.

    Returns:
        (N, S, S) float32 in [0, 1], on one scale for all images of a run.
    """
    mean, sd = normal
    body, head = split_before(model.network, head_name(model.network))
    if isinstance(bank := head[0], MemoryBank):
        low, high = mean - BELOW * sd, mean + ABOVE * sd  # of the worst patch of normal images
        found = run_over(lambda some: bank.distances(body(some)), images, model.transform(compute))
    else:
        low, high = mean, TIMES * mean  # of a pixel of them
        (autoencoder,) = body
        assert isinstance(autoencoder, Autoencoder)
        found = run_over(autoencoder.errors, images, model.transform(compute))
    size = model.size, model.size
    full = [cv2.resize(one, size, interpolation=cv2.INTER_LINEAR) for one in found]
    return np.clip((np.stack(full) - low) / (high - low), 0, 1).astype(np.float32)


def _on_film(heat: Heat, film: FilmImage, place: int) -> Heat:
    """Bring a map of a network's input to the film, as large as it is drawn."""
    shape, frame = (film.height, film.width), film.frames[place]
    if frame is None:
        whole = unfit_square(heat, shape)
    else:
        whole = frame.image_to_original(unfit_square(heat, (frame.rows, frame.columns)), shape)
    return np.asarray(
        cv2.resize(whole, reduced_size(shape), interpolation=cv2.INTER_AREA), np.float32
    )


def draw_films(
    paths: Sequence[Path], predictor: Predictor, folder: Path, progress: Progress
) -> dict[Path, str]:
    """Draw films with their heat-maps, but for those that were drawn before.

    Args:
        paths: Of the films.
        predictor: A run that has heat-maps.
        folder: Where the pictures go, into a folder of their own.
        progress: Where it reports.

    Returns:
        For each film the picture, relative to the folder.
    """
    drawn = {}
    with progress.track("Drawing heat-maps", len(paths), "images") as advance:
        for path in paths:
            # Two folders may hold files of one name.
            key = digest(str(path.absolute()), path.stat().st_mtime_ns if path.exists() else 0,
                         predictor.key)[:8]  # fmt: skip
            drawn[path] = f"{HEAT_MAPS}/{path.stem}-{key}.png"
            if not (folder / drawn[path]).is_file():
                _draw(path, predictor, folder / drawn[path])
            advance(1)
    return drawn


def _draw(path: Path, predictor: Predictor, target: Path) -> None:
    film = read_film(ReadJob(path.absolute(), predictor.looks))
    heat = film_heat(film, predictor)
    assert heat is not None, "a run without heat-maps was to be drawn"
    pixels, _ = open_film(path)
    whole = cv2.resize(heat, pixels.shape[::-1], interpolation=cv2.INTER_LINEAR)
    target.parent.mkdir(exist_ok=True)
    write_picture(target, draw_reduced(pixels, whole.astype(np.float32, copy=False)))
