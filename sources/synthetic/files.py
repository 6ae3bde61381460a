"""Which files the synthetic collection consists of, and where they lie in each layout.

UIDs are hashes under the root 2.25, which is free to use (DICOM PS3.5, B.2). They depend on the
seed and the subject alone, so the same plan gives the same UIDs in every layout.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from sources.synthetic.plan import CALC, MASS, FilmPlan, Lesion, random_for

COLLECTION = "CBIS-DDSM"
MAMMOGRAM, CROP, MASK = "full mammogram images", "cropped images", "ROI mask images"
PREFIXES = {
    (MASS, "train"): "Mass-Training", (MASS, "test"): "Mass-Test",
    (CALC, "train"): "Calc-Training", (CALC, "test"): "Calc-Test",
}  # fmt: skip
DATES = {  # of the studies of each case description
    (MASS, "train"): date(2016, 7, 20), (MASS, "test"): date(2016, 10, 4),
    (CALC, "train"): date(2016, 7, 20), (CALC, "test"): date(2017, 8, 29),
}  # fmt: skip
SECONDS_A_DAY = 86_400
ZIP = ".zip"


@dataclass(frozen=True, kw_only=True)
class PlannedFile:
    """One file of the collection."""

    kind: str  # MAMMOGRAM, CROP or MASK
    subject: str  # the subject folder, which the header gives as PatientID
    finding: str  # MASS or CALC
    split: str  # "train" or "test"
    study_uid: str  # of its study; every series has its own
    series_uid: str  # of its series
    instance_uid: str  # its own
    series_name: str  # what the archive calls the series
    description: str  # seriesDescription in the file's own header; empty where it lacks one
    study_date: date  # studyDate in the header
    archive_date: date  # what the archive says instead; for some, a day later
    clock: int  # studyTime in the header, in seconds after midnight
    position: int = 1  # number in the series, from 1
    lesion: int | None = None  # index into the lesions of the film; None for a mammogram
    # Height and width of a mask over its mammogram's; (1, 1) but for a few.
    mask_stretch: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A row of a case description with the three files that it names."""

    film: FilmPlan  # the film
    lesion: Lesion  # one of its lesions
    finding: str  # MASS or CALC
    split: str  # "train" or "test"
    mammogram: PlannedFile  # shared by the rows of a film with several lesions
    crop: PlannedFile  # cut from the film around the lesion
    mask: PlannedFile  # of the lesion
    density: int  # as the row says; 0 in one row of all
    margins: str  # as the row says; "N/A" in a few rows
    swapped: bool  # whether the row names crop and mask in each other's column


def plan_files(seed: int, films: Sequence[FilmPlan]) -> list[Listing]:
    """Plan every file and every row of the case descriptions.

    Returns:
        The rows, in the order of the films.
    """
    rows = [
        (film, index, split)
        for film in films
        for finding, split in film.splits.items()
        for index, lesion in enumerate(film.lesions)
        if lesion.finding == finding
    ]
    traps = _traps(seed, [(film.lesions[index].finding, split) for film, index, split in rows])
    listings = []
    for number, (film, index, split) in enumerate(rows):
        mine = {name for name, numbers in traps.items() if number in numbers}
        listings.append(_listing(seed, film, index, split, mine))
    return listings


def _traps(seed: int, rows: list[tuple[str, str]]) -> dict[str, list[int]]:
    """Choose the rows with a peculiarity, about as many as in the real collection, at least one."""
    random = random_for(seed, "traps")
    shares = {
        "separate": 0.03, "undescribed crop": 0.03, "undescribed mask": 0.03,
        "called cropped": 0.01, "other size": 0.02, "later": 0.3,
        "no margins": 0.04,
    }  # fmt: skip
    chosen = {
        name: [
            int(one) for one in random.permutation(len(rows))[: max(1, round(share * len(rows)))]
        ]
        for name, share in shares.items()
    }
    calc = [number for number, row in enumerate(rows) if row == (CALC, "train")]
    if len(calc) >= 4:  # swapping columns says something only where the two have a series each
        chosen["swapped"] = [calc[int(random.integers(len(calc)))]]
        chosen["separate"] += chosen["swapped"]
    if len(rows) >= 20:
        chosen["no density"] = [int(random.integers(len(rows)))]
    return chosen


def _listing(seed: int, film: FilmPlan, index: int, split: str, traps: set[str]) -> Listing:
    lesion = film.lesions[index]
    whole = f"{PREFIXES[lesion.finding, split]}_{film.film_id}"
    subject = f"{whole}_{lesion.number}"
    random = random_for(seed, subject)
    lost = random_for(seed, whole).random() < 0.02
    mammogram = _file(
        seed, MAMMOGRAM, whole, lesion.finding, split, later=False,
        description="" if lost else MAMMOGRAM,
    )  # fmt: skip
    mask_first = int(random.integers(2))
    stretch = random.uniform(0.82, 0.95), random.uniform(0.75, 0.92)
    separate, later = "separate" in traps, "later" in traps
    name = CROP if "called cropped" in traps else MASK
    crop = _file(
        seed, CROP, subject, lesion.finding, split, later=later, lesion=index,
        series_name=CROP if separate else name,
        series="crop" if separate else "both", position=1 if separate else 1 + mask_first,
        description="" if "undescribed crop" in traps else CROP,
    )  # fmt: skip
    mask = _file(
        seed, MASK, subject, lesion.finding, split, later=later, lesion=index,
        series_name=MASK if separate else name,
        series="mask" if separate else "both", position=1 if separate else 2 - mask_first,
        description="" if "undescribed mask" in traps else MASK,
        mask_stretch=stretch if "other size" in traps else (1.0, 1.0),
    )  # fmt: skip
    return Listing(
        film=film, lesion=lesion, finding=lesion.finding, split=split,
        mammogram=mammogram, crop=crop, mask=mask, swapped="swapped" in traps,
        density=0 if "no density" in traps else film.density,
        margins="N/A" if "no margins" in traps else lesion.margins,
    )  # fmt: skip


def _file(
    seed: int, kind: str, subject: str, finding: str, split: str, *, later: bool,
    description: str, series: str = "film", series_name: str = MAMMOGRAM, position: int = 1,
    lesion: int | None = None, mask_stretch: tuple[float, float] = (1.0, 1.0),
) -> PlannedFile:  # fmt: skip
    day = DATES[finding, split]
    return PlannedFile(
        kind=kind, subject=subject, finding=finding, split=split,
        study_uid=_uid(seed, subject, f"study {series}"),
        series_uid=_uid(seed, subject, f"series {series}"),
        instance_uid=_uid(seed, subject, f"instance {kind}"),
        series_name=series_name, description=description, study_date=day,
        archive_date=day + timedelta(days=1) if later else day,
        clock=int(random_for(seed, subject, "clock").integers(SECONDS_A_DAY)),
        position=position, lesion=lesion, mask_stretch=mask_stretch,
    )  # fmt: skip


def _uid(seed: int, subject: str, what: str) -> str:
    hashed = hashlib.sha256(f"{seed}/{subject}/{what}".encode()).digest()
    return f"2.25.{int.from_bytes(hashed[:16], 'big')}"


def series_folder(file: PlannedFile, layout: str) -> str:
    """Return where a file's series lies, relative to the collection, with forward slashes.

    It is a folder, or in the layout "rest" a zip file.
    """
    day = f"{file.archive_date:%m-%d-%Y}"
    study, series = file.study_uid[-5:], file.series_uid[-5:]
    subject = f"{COLLECTION}/{file.subject}"
    return {
        "descriptive": f"{subject}/{day}-DDSM-NA-{study}/1.000000-{file.series_name}-{series}",
        "descriptive-2023": f"{subject}/{day}-DDSM-{study}/1.000000-{file.series_name}-{series}",
        "descriptive-old": f"{subject}/{day}-DDSM-{study}/1-{file.series_name}-{series}",
        "classic": f"{subject}/{file.study_uid}/{file.series_uid}",
        "csv": f"{file.subject}/{file.study_uid}/{file.series_uid}",
        "rest": f"{subject}/{file.series_uid}{ZIP}",
        "kaggle": f"jpeg/{file.series_uid}",
    }[layout]


def file_path(file: PlannedFile, layout: str) -> str:
    """Return where a file lies, relative to the collection, with forward slashes."""
    number = int(hashlib.sha256(file.instance_uid.encode()).hexdigest()[:8], 16) % 300
    name = {
        "descriptive": f"1-{file.position}.dcm",
        "descriptive-2023": f"1-{file.position}.dcm",
        "descriptive-old": f"{file.position - 1:06d}.dcm",
        "classic": f"1-{file.position}.dcm",
        "csv": f"{file.position - 1:06d}.dcm",
        "rest": f"{file.position}.dcm",
        "kaggle": f"{file.position}-{number:03d}.jpg",
    }[layout]
    return f"{series_folder(file, layout)}/{name}"


def on_disk(path: str) -> str:
    """Return what holds a file on the disk: the file itself, or the zip file that it lies in."""
    before, in_zip, _ = path.partition(f"{ZIP}/")
    return f"{before}{ZIP}" if in_zip else path


def listed_path(file: PlannedFile) -> str:
    """Return the path that a case description gives; the file's name in it is fictional."""
    second = (file.kind == MASK) if file.finding == MASS else (file.kind == CROP)
    return f"{file.subject}/{file.study_uid}/{file.series_uid}/{int(second):06d}.dcm"
