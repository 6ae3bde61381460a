"""A look-alike of the DDSM patches on Kaggle: five TFRecord files, and arrays for val and test."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.paths import inside
from pipeline.records import write_bytes
from pipeline.stages.collections import Synthesize, film_height
from sources.synthetic.films import Film, render_film
from sources.synthetic.plan import CALC, MASS, random_for
from sources.synthetic.screening import ScreenedFilm, plan_screening
from sources.tfrecord_files import example_of, record_of

SHARES = {"normal": 0.4, "benign": 0.3, "malignant": 0.3}
FILES = (
    *(f"training10_{number}/training10_{number}.tfrecords" for number in range(5)),
    "cv10_data/cv10_data.npy",
    "test10_data/test10_data.npy",
)
SIDE = 299  # pixels of a patch
CUT = 0.25  # side of what a patch shows, in shares of the film's height
NEGATIVES = 3  # patches of a film without a lesion
LABELS = {("benign", CALC): 1, ("benign", MASS): 2, ("malignant", CALC): 3, ("malignant", MASS): 4}
Patch = NDArray[np.uint8]


@dataclass(frozen=True)
class FileJob:
    """One file of patches."""

    name: str  # of the file
    films: tuple[ScreenedFilm, ...]
    height: int  # of a film in pixels
    seed: int


def plan(options: Synthesize) -> list[FileJob]:
    """Return the files; the women of each diagnosis are dealt out to them like cards."""
    films: dict[str, list[ScreenedFilm]] = {}
    for film in plan_screening(options.seed, options.patients, SHARES, findings=(MASS, CALC)):
        films.setdefault(film.film.patient_id, []).append(film)
    order = sorted(films.values(), key=lambda own: max(film.diagnosis != "normal" for film in own))
    order.sort(key=lambda own: sorted({film.diagnosis for film in own} - {"normal"}))
    return [
        FileJob(
            name=name,
            films=tuple(film for own in order[at :: len(FILES)] for film in own),
            height=film_height(options.size),
            seed=options.seed,
        )
        for at, name in enumerate(FILES)
    ]


def write(job: FileJob, out: Path) -> dict[str, Any]:
    """Draw the films of a file and write their patches; return their labels, in order."""
    cut = [(label, patch) for film in job.films for label, patch in _patches(job, film)]
    # The patches of a film do not follow each other in the real files either.
    order = random_for(job.seed, job.name, "order").permutation(len(cut))
    patches = [cut[place] for place in order]
    target = inside(out, job.name)
    if target.suffix == ".npy":
        stacked = [patch for _, patch in patches] or [np.empty((0, SIDE, SIDE), np.uint8)]
        write_bytes(target, _npy(np.reshape(stacked, (-1, SIDE, SIDE, 1))))
    else:
        examples = (
            {"label": label, "image": patch.tobytes(), "label_normal": int(label > 0)}
            for label, patch in patches
        )
        write_bytes(target, b"".join(record_of(example_of(one)) for one in examples))
    return {"labels": [label for label, _ in patches]}


def tables(
    jobs: Sequence[FileJob], facts: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, bytes]]:
    """Yield the labels of the arrays."""
    for job in jobs:
        if job.name.endswith(".npy"):
            labels = np.array(facts[job.name]["labels"], np.int64)
            yield Path(job.name).name.replace("_data", "_labels"), _npy(labels)


def _npy(array: NDArray[Any]) -> bytes:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    return content.getvalue()


def _patches(job: FileJob, screened: ScreenedFilm) -> Iterator[tuple[int, Patch]]:
    """Yield label and patch: of the lesion where there is one, else of healthy tissue."""
    film = render_film(screened.film, job.height, job.seed)
    random = random_for(job.seed, screened.film.film_id, "patches")
    side = round(CUT * film.pixels.shape[0])
    for lesion, mask in zip(screened.film.lesions, film.lesions, strict=True):
        if mask.any():
            yield LABELS[screened.diagnosis, lesion.finding], _cut(film, mask, side, random)
    if not screened.film.lesions:
        for _ in range(NEGATIVES):
            yield 0, _cut(film, film.breast, side, random)


def _cut(film: Film, where: NDArray[np.uint8], side: int, random: np.random.Generator) -> Patch:
    """Return a patch around some pixel of a mask."""
    rows, columns = np.nonzero(where)
    at = random.integers(len(rows))
    height, width = film.pixels.shape
    top = int(np.clip(rows[at] - side // 2, 0, max(0, height - side)))
    left = int(np.clip(columns[at] - side // 2, 0, max(0, width - side)))
    window = film.pixels[top : top + side, left : left + side]
    grown = cv2.resize(window, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    return np.right_shift(grown, 8).astype(np.uint8)
