"""A look-alike of a folder that somebody sorted by hand: `train/benign/P_00001_LEFT_CC.png`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.files import write_png
from pipeline.manifest import DIAGNOSES, SPLITS
from pipeline.stages.collections import Synthesize, film_height
from sources.synthetic.films import render_film
from sources.synthetic.screening import ScreenedFilm, plan_screening

SHARES = {"normal": 0.34, "benign": 0.33, "malignant": 0.33}


@dataclass(frozen=True)
class FilmJob:
    """One film to draw."""

    name: str  # of the file
    screened: ScreenedFilm
    height: int  # pixels
    seed: int


def plan(options: Synthesize) -> list[FilmJob]:
    """Return the films. Of every five women with the same diagnosis one tests, one validates."""
    films = plan_screening(options.seed, options.patients, SHARES)
    worst: dict[str, str] = {}
    for film in films:
        known = worst.get(film.film.patient_id, DIAGNOSES[0])
        worst[film.film.patient_id] = max(known, film.diagnosis, key=DIAGNOSES.index)
    splits: dict[str, str] = {}
    for diagnosis in DIAGNOSES:
        women = [who for who, found in worst.items() if found == diagnosis]
        places = (SPLITS[2], SPLITS[1], *[SPLITS[0]] * 3)
        splits |= {who: places[number % 5] for number, who in enumerate(women)}
    return [
        FilmJob(_name(film, splits), film, film_height(options.size), options.seed)
        for film in films
    ]


def _name(film: ScreenedFilm, splits: Mapping[str, str]) -> str:
    who = film.film.patient_id
    image = f"{who.replace('S_', 'P_')}_{film.film.laterality}_{film.film.view}.png"
    return f"{splits[who]}/{film.diagnosis}/{image}"


def write(job: FilmJob, out: Path) -> dict[str, Any]:
    """Draw and write one film."""
    write_png(out / job.name, render_film(job.screened.film, job.height, job.seed).pixels)
    return {}
