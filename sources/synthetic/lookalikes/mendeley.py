"""A look-alike of Mendeley ywsbh3ndr8: films in several variants, in three parts and all in one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from images.files import write_png
from pipeline.paths import inside
from pipeline.stages.collections import Synthesize, film_height
from sources.synthetic.films import render_film
from sources.synthetic.plan import random_for
from sources.synthetic.screening import ScreenedFilm, plan_screening

SHARES = {"normal": 0.0, "benign": 0.5, "malignant": 0.5}
SIDE = 227  # pixels
MERGED = "INbreast+MIAS+DDSM Dataset"
CLASSES = {"benign": "Benign Masses", "malignant": "Malignant Masses"}
VARIANTS = {"DDSM": 6, "INbreast": 8, "MIAS": 8}  # of a film; the real ones have 6, 72 and 72
PARTS = ("DDSM", "DDSM", "DDSM", "INbreast", "MIAS")  # of one woman after the other
FIRST, STEP, NEXT = 20586908, 26, 200  # film numbers of INbreast: of a woman, between women
Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class FilmJob:
    """The variants of one film."""

    name: str  # of the first file
    part: str
    stem: str  # of the files
    screened: ScreenedFilm
    height: int  # of the film in pixels
    seed: int


def plan(options: Synthesize) -> list[FilmJob]:
    """Return the films with masses, dealt to the parts by woman; MIAS has MLO views alone."""
    women: dict[str, list[ScreenedFilm]] = {}
    for film in plan_screening(options.seed, options.patients, SHARES):
        if film.diagnosis != "normal":
            women.setdefault(film.film.patient_id, []).append(film)
    # Each part gets women of both classes.
    order = sorted(women.values(), key=lambda films: films[0].diagnosis)
    jobs = []
    for number, films in enumerate(order, start=1):
        part = PARTS[(number + 2) % len(PARTS)]
        for place, film in enumerate(films):
            if part == "MIAS" and film.film.view != "MLO":
                continue
            stem = _stem(part, number, place, film)
            name = f"{part} Dataset/{CLASSES[film.diagnosis]}/{stem} (1).png"
            jobs.append(FilmJob(name, part, stem, film, film_height(options.size), options.seed))
    return jobs


def write(job: FilmJob, out: Path) -> dict[str, Any]:
    """Draw a film and write its variants, each once more in the merged part."""
    film = render_film(job.screened.film, job.height, job.seed)
    grey = np.right_shift(film.pixels, 8).astype(np.uint8)
    whole = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.uint8)
    random = random_for(job.seed, job.screened.film.film_id, "variants")
    for number in range(1, VARIANTS[job.part] + 1):
        variant = whole if number == 1 else _varied(whole, number, random)
        name = f"{CLASSES[job.screened.diagnosis]}/{job.stem} ({number}).png"
        for part in (f"{job.part} Dataset", MERGED):
            write_png(inside(out, f"{part}/{name}"), variant)
    return {}


def _stem(part: str, woman: int, place: int, film: ScreenedFilm) -> str:
    """Return how the files of a film are named, but for the variant."""
    shown = film.film
    if part == "DDSM":
        return f"D{shown.density}_A_{woman:04d}_1.{shown.laterality}_{shown.view}"
    if part == "INbreast":
        return str(FIRST + woman * NEXT + place * STEP)
    return f"mdb{2 * woman - (shown.laterality == 'LEFT'):03d}"


def _varied(whole: Grey, number: int, random: np.random.Generator) -> Grey:
    """Return a film turned and mirrored, and with another contrast where the number is odd."""
    middle = (SIDE - 1) / 2
    turn = cv2.getRotationMatrix2D((middle, middle), float(30 * random.integers(1, 12)), 1.0)
    varied = cv2.warpAffine(whole, turn, (SIDE, SIDE))
    if random.random() < 0.5:
        varied = np.ascontiguousarray(varied[:, ::-1])
    if number % 2:
        varied = cv2.createCLAHE(2.0, (8, 8)).apply(varied)
    return varied.astype(np.uint8)
