"""Heat-maps of films that were handed in: where a run finds its evidence, or the largest errors."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from images.square import unfit_square
from models.explanation.cams import heat_maps, mean_maps
from models.explanation.errors import ErrorScale, error_maps, error_scale, restores
from models.explanation.pictures import draw_reduced, reduced_size, write_picture
from models.prediction.inputs import stamp
from models.prediction.network import NetworkScorer
from models.prediction.predictor import Predictor
from models.prediction.reading import FilmImage, ReadJob, open_film, read_film, reading_code
from models.prediction.results import HEAT_MAPS
from pipeline.progress import Progress
from pipeline.records import digest

Heat = NDArray[np.float32]  # (h, w), [0, 1]
# Where a scale that was not measured begins and has its middle: standard deviations below and above
# the mean score of normal images, or times that mean. About what it would be on synthetic films.
BELOW, ABOVE, TIMES = 2, 1, 3
LONGEST = 48  # letters of a film's name in its picture's: a name may have 255 bytes, more than fit


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
    scale = _scale_of(scorer, predictor)
    if scale is None:
        return heat_maps(scorer.placed, images, scorer.compute)
    return scale.heat(error_maps(scorer.placed, images, scorer.compute))


def _scale_of(scorer: NetworkScorer, predictor: Predictor) -> ErrorScale | None:
    """Return the scale of an anomaly detector's errors; None of a classifier.

    It is that which `explain` measured; of a run that was not explained, one by the scores of
    normal images.
    """
    if predictor.calibration.normal is None:
        return None
    mean, sd = predictor.calibration.normal
    if restores(scorer.model):  # a score is the mean of a pixel's errors
        own = ErrorScale(mean, TIMES * mean, 0)
    else:  # and here the error of the worst patch
        own = ErrorScale(mean - BELOW * sd, mean + ABOVE * sd, 0)
    return error_scale(scorer.folder) or own


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
    scales = [_scale_of(one, predictor) for one in predictor.scorers
              if isinstance(one, NetworkScorer)]  # fmt: skip
    with progress.track("Drawing heat-maps", len(paths), "images") as advance:
        for path in paths:
            # Two folders may hold files of one name.
            key = digest(str(path.absolute()), stamp(path), predictor.key, reading_code(),
                         *[one.record for one in scales if one])[:8]  # fmt: skip
            drawn[path] = f"{HEAT_MAPS}/{path.stem[:LONGEST]}-{key}.png"
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
