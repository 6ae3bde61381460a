"""A look-alike of mini-MIAS: `mdb001.pgm` and on, and `Info.txt`; two films of each woman."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.records import write_bytes
from pipeline.stages.collections import Synthesize, film_height
from sources.synthetic.films import render_film
from sources.synthetic.screening import ScreenedFilm, plan_screening

SHARES = {"normal": 0.4, "benign": 0.3, "malignant": 0.3}
SIDE = 1024
TISSUES = {1: "F", 2: "G", 3: "G", 4: "D"}
SEVERITIES = {"benign": "B", "malignant": "M"}
HEAD = """SYNTHETIC DATA in the form of the mini-MIAS database. No film shows a person.

"""


@dataclass(frozen=True)
class FilmJob:
    """One film to draw."""

    name: str  # of the file
    screened: ScreenedFilm
    height: int  # that it is drawn at, in pixels
    seed: int


def plan(options: Synthesize) -> list[FilmJob]:
    """Return the films; those with odd numbers show the left breast."""
    height = min(SIDE, film_height(options.size))
    films = plan_screening(options.seed, options.patients, SHARES, views=("MLO",))
    return [
        FilmJob(f"mdb{number:03d}.pgm", film, height, options.seed)
        for number, film in enumerate(films, start=1)
    ]


def write(job: FilmJob, out: Path) -> dict[str, Any]:
    """Draw and write one film; return where its lesion is, as the table has it."""
    film = render_film(job.screened.film, job.height, job.seed)
    rows, columns = film.pixels.shape
    scale = SIDE / max(rows, columns)
    size = max(1, round(columns * scale)), max(1, round(rows * scale))
    left = (SIDE - size[0]) // 2
    page = np.zeros((SIDE, SIDE), np.uint8)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    shown = cv2.resize(film.pixels, size, interpolation=how)
    page[: size[1], left : left + size[0]] = np.right_shift(shown.astype(np.uint16), 8)
    head = f"P5\n{SIDE} {SIDE}\n255\n".encode()
    write_bytes(out / job.name, head + page.tobytes())
    if not film.lesions:
        return {}
    (x, y), radius = cv2.minEnclosingCircle(cv2.findNonZero(film.lesions[0]))
    # The centre's y is counted upwards.
    place = round(left + x * scale), round(SIDE - y * scale), max(1, round(radius * scale))
    return {"x": place[0], "y": place[1], "radius": place[2]}


def tables(
    jobs: Sequence[FilmJob], facts: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, bytes]]:
    """Yield the table of the films."""
    lines = []
    for job in jobs:
        tissue = TISSUES[job.screened.film.density]
        line = f"{Path(job.name).stem} {tissue}"
        if not job.screened.film.lesions:
            lines.append(f"{line} NORM")
            continue
        lesion, place = job.screened.film.lesions[0], facts[job.name]
        finding = "SPIC" if lesion.spiculated else "CIRC"
        severity = SEVERITIES[job.screened.diagnosis]
        lines.append(f"{line} {finding} {severity} {place['x']} {place['y']} {place['radius']}")
    yield "Info.txt", (HEAD + "\n".join(lines) + "\n").encode()
