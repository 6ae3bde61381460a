"""Mendeley ywsbh3ndr8: films with masses of INbreast, MIAS and DDSM (Huang and Lin 2020).

Pictures of 227 pixels a side and 8 bits in `DDSM Dataset/Benign Masses`, `.../Malignant Masses`,
the same for `INbreast Dataset` and `MIAS Dataset`, and all of them once more in
`INbreast+MIAS+DDSM Dataset`. Each film is there in several variants, turned, mirrored or with
another contrast: `D1_A_0230_1.LEFT_CC (3).png` (density, series, case, side, view, variant),
`20586908 (3).png` (film number of INbreast), `mdb001 (3).png`. What is the original is not told:
the picture without a number stands for a film, else the one with the lowest number.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from images.files import SUFFIXES, read_image
from pipeline.errors import UserError
from pipeline.progress import Progress
from pipeline.stages.data import Organize
from pipeline.work import run_all, worker_count
from sources.exclusion import LeftOut
from sources.records import ImageRecord, Records
from sources.twins import exact_key, joined, same_key

MARKS = (
    "folders 'Benign Masses' and 'Malignant Masses' with pictures such as "
    "'D1_A_0230_1.LEFT_CC (3).png', '20586908 (3).png' or 'mdb001 (3).png'"
)
CLASS = re.compile(r"(benign|malignant)[ _-]*mass(es)?", re.IGNORECASE)
VARIANT = re.compile(r"(?P<film>.*?)\s*(\((?P<number>\d+)\))?")
DDSM = re.compile(
    r"(D(?P<density>[1-4])_)?(?P<case>[A-Z]_\d+)_\d+\.(?P<side>LEFT|RIGHT)_(?P<view>CC|MLO)",
    re.IGNORECASE,
)
INBREAST = re.compile(
    r"(?P<film>\d{8})(_(?P<patient>[0-9a-f]{16})_MG_(?P<side>[LR])_(?P<view>CC|MLO?)(_ANON)?)?",
    re.IGNORECASE,
)
MIAS = re.compile(r"mdb(?P<film>\d{3})[a-z]*", re.IGNORECASE)
SIDES = {"L": "LEFT", "R": "RIGHT"}
DEEPEST = 3  # levels below the root that a class folder may lie
MOST_FOLDERS = 12  # of a level that are looked into to recognise it: others hold thousands
# INbreast numbers the films of one woman some 26 apart (20586908, 20586934, 20586960, 20586986).
# Where only numbers are told, what is near stays together: she may have three such steps.
NEAR = 80
CHUNK = 200  # pictures that a worker looks at in one go
LITTER = {"thumbs.db", "desktop.ini"}


@dataclass(frozen=True, kw_only=True)
class Film:
    """What a name tells of its film."""

    film_id: str  # the same for all its variants, however they are named
    patient_id: str  # empty where nobody tells
    collection: str
    laterality: str = ""
    view: str = ""
    density: int | None = None


@dataclass(frozen=True)
class Picture:
    """One file: a variant of a film."""

    path: Path
    diagnosis: str
    number: int  # of the variant; 0 without one
    film: Film


@dataclass(frozen=True)
class Look:
    """What the pixels of a picture tell."""

    rows: int
    columns: int
    same: bytes  # the same for the same pixels
    turned: bytes  # the same for the same pixels in any of the 8 orientations


def is_here(folder: Path) -> bool:
    """Return whether there are class folders with such pictures, up to 3 levels down."""
    return any(
        _film_of(path.stem)
        for one in _class_folders(folder, [], most=MOST_FOLDERS)
        for path in one.iterdir()
        if path.suffix.lower() in SUFFIXES
    )


def read(options: Organize, progress: Progress) -> Records:
    """Read the names and look at every picture: what is damaged, and what is there twice.

    Without pixels where only the cohort is counted.

    Raises:
        UserError: There is no such picture.
    """
    if options.dry_run:
        found = read_labels(options)
        note = "counted by names alone: damaged pictures and twins of other names are not known"
        return replace(found, notes=(*found.notes, note))
    pictures, aside = _pictures(options.source)
    looks, damaged = _looked_at(pictures, options, progress)
    whole = [picture for picture in pictures if picture.path in looks]
    if not whole:
        raise UserError(f"{options.source}: none of its {len(pictures):,} pictures can be read")
    kept, twins, same_person = _without_twins(whole, looks)
    return _records(options.source, whole, kept, twins, same_person, looks, (*aside, *damaged))


def read_labels(options: Organize) -> Records:
    """Read the names alone: pictures of one film and number are taken to be the same.

    Raises:
        UserError: There is no such picture.
    """
    pictures, aside = _pictures(options.source)
    once: dict[tuple[str, int], Picture] = {}
    for picture in pictures:
        once.setdefault((picture.film.film_id, picture.number), picture)
    kept = list(once.values())
    return _records(options.source, pictures, kept, len(pictures) - len(kept), [], {}, aside)


def _class_folders(
    folder: Path, beside: list[Path], depth: int = DEEPEST, most: int | None = None
) -> Iterator[Path]:
    """Yield the class folders; the files that lie in no such folder are added to `beside`.

    Args:
        folder: To look in.
        beside: Is added to.
        depth: Levels down to look.
        most: How many entries of a level to look at; None for all.
    """
    for path in sorted(folder.iterdir())[:most]:
        if not path.is_dir():
            beside.append(path)
        elif CLASS.fullmatch(path.name):
            yield path
        elif depth > 1 and not path.name.startswith("."):
            yield from _class_folders(path, beside, depth - 1, most)


def _pictures(source: Path) -> tuple[list[Picture], list[tuple[str, str]]]:
    """Return the pictures, those of the merged part last, and what cannot be understood."""
    parts: dict[Path, list[Picture]] = {}
    aside: list[tuple[str, str]] = []
    beside: list[Path] = []
    for folder in _class_folders(source, beside):
        diagnosis = "malignant" if folder.name[:1] in "mM" else "benign"
        for path in sorted(folder.iterdir()):
            name = path.relative_to(source).as_posix()
            if path.name.lower() in LITTER or path.name.startswith("."):
                continue
            if path.suffix.lower() not in SUFFIXES or not path.is_file():
                aside.append((name, "is no image file"))
            elif found := _film_of(path.stem):
                picture = Picture(path, diagnosis, found[1], found[0])
                parts.setdefault(folder.parent, []).append(picture)
            else:
                aside.append((name, "its name tells no film of DDSM, INbreast or MIAS"))
    aside += [
        (path.relative_to(source).as_posix(), "lies in no folder 'Benign' or 'Malignant Masses'")
        for path in beside
        if path.suffix.lower() in SUFFIXES and _film_of(path.stem)
    ]
    if not parts:
        raise UserError(f"{source}: holds no picture ({MARKS})", "give the folder above them")

    def kinds(held: list[Picture]) -> int:
        return len({picture.film.collection for picture in held})

    ordered = sorted(parts.items(), key=lambda item: (kinds(item[1]), item[0].as_posix()))
    return [picture for _, held in ordered for picture in held], aside


def _film_of(stem: str) -> tuple[Film, int] | None:
    """Return which film a file's name tells, and its variant's number."""
    named = VARIANT.fullmatch(stem)
    if named is None:
        return None
    name, number = named["film"], int(named["number"] or 0)
    if found := DDSM.fullmatch(name):
        film = Film(
            film_id=name.upper()[2 + len(found["density"]) if found["density"] else 0 :],
            patient_id=f"ddsm_{found['case'].upper()}",
            collection="DDSM",
            laterality=found["side"].upper(),
            view=found["view"].upper(),
            density=int(found["density"]) if found["density"] else None,
        )
    elif found := INBREAST.fullmatch(name):
        view = (found["view"] or "").upper()
        film = Film(
            film_id=found["film"],
            patient_id=f"inbreast_{found['patient'].lower()}" if found["patient"] else "",
            collection="INbreast",
            laterality=SIDES[found["side"].upper()] if found["side"] else "",
            view="MLO" if view == "ML" else view,  # INbreast's ML is mediolateral oblique
        )
    elif found := MIAS.fullmatch(name):
        film_number = int(found["film"])
        film = Film(
            film_id=f"mdb{film_number:03d}",
            patient_id=f"mias_{(film_number + 1) // 2:03d}",
            collection="MIAS",
            laterality="LEFT" if film_number % 2 else "RIGHT",
            view="MLO",
        )
    else:
        return None
    return film, number


def _looked_at(
    pictures: Sequence[Picture], options: Organize, progress: Progress
) -> tuple[dict[Path, Look], list[tuple[str, str]]]:
    """Return what each picture's pixels tell, and why the others cannot be read."""
    paths = [picture.path for picture in pictures]
    jobs = [tuple(paths[at : at + CHUNK]) for at in range(0, len(paths), CHUNK)]
    workers = worker_count(options.workers) if len(jobs) > 2 * worker_count(0) else 1
    looks: dict[Path, Look] = {}
    damaged = []
    with progress.track("Looking at pictures", len(paths), "pictures") as advance:
        for job, found in run_all(_look, jobs, workers):
            if isinstance(found, UserError):
                raise found
            for path, one in zip(job, found, strict=True):
                if isinstance(one, Look):
                    looks[path] = one
                else:
                    damaged.append((path.relative_to(options.source).as_posix(), one))
            advance(len(job))
    return looks, sorted(damaged)


def _look(job: Sequence[Path]) -> list[Look | str]:
    """Return of each picture what its pixels tell, or what is wrong with it."""
    found: list[Look | str] = []
    for path in job:
        try:
            pixels = read_image(path)
        except UserError as error:
            found.append(error.problem.removeprefix(f"{path}: "))
            continue
        if pixels.min() == pixels.max():
            found.append("is of one grey value")
        else:
            rows, columns = pixels.shape
            found.append(Look(rows, columns, same_key(pixels), exact_key(pixels)))
    return found


def _without_twins(
    pictures: Sequence[Picture], looks: dict[Path, Look]
) -> tuple[list[Picture], int, list[tuple[str, str]]]:
    """Keep the first of those with the same pixels.

    Returns:
        The pictures, in order; how many were left out; and the films, two and two, that share
        pixels. A film's own variants may be the same but for their orientation: these stay.
    """
    kept: list[Picture] = []
    first: dict[bytes, Picture] = {}  # by the pixels in any orientation
    seen: set[bytes] = set()  # of pictures that were kept, as they are
    same_films = []
    for picture in pictures:
        look = looks[picture.path]
        other = first.setdefault(look.turned, picture)
        if other.film.film_id != picture.film.film_id:
            same_films.append((other.film.film_id, picture.film.film_id))
        elif look.same not in seen:
            seen.add(look.same)
            kept.append(picture)
    return kept, len(pictures) - len(kept), same_films


def _patients(films: Iterable[Film], same_films: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return by film_id who it shows, or what must stay together where that is not told."""
    told: dict[str, str] = {}
    for film in films:
        told[film.film_id] = told.get(film.film_id, "") or film.patient_id
    names = sorted(told)
    place = {name: number for number, name in enumerate(names)}
    pairs = [(place[one], place[other]) for one, other in same_films]
    by_patient: dict[str, int] = {}
    named = [name for name in names if told[name]]
    pairs += [(by_patient.setdefault(told[name], place[name]), place[name]) for name in named]
    numbers = [name for name in names if name.isdecimal()]
    pairs += [
        (place[one], place[other])
        for one, other in pairwise(numbers)
        if int(other) - int(one) <= NEAR and not (told[one] and told[other])
    ]
    patients = {name: told[name] or f"inbreast_{name}" for name in names}
    for group in joined(len(names), pairs):
        members = [names[number] for number in group]
        who = min(filter(None, (told[name] for name in members)), default="")
        patients |= dict.fromkeys(members, who or f"inbreast_{members[0]}")
    return patients


def _records(
    source: Path,
    pictures: Sequence[Picture],
    kept: Sequence[Picture],
    twins: int,
    same_films: Sequence[tuple[str, str]],
    looks: dict[Path, Look],
    aside: Sequence[tuple[str, str]],
) -> Records:
    patients = _patients((picture.film for picture in pictures), same_films)
    classes: dict[str, set[str]] = {}
    for picture in pictures:
        classes.setdefault(picture.film.film_id, set()).add(picture.diagnosis)
    for one, other in same_films:
        classes[one] |= classes[other]
    by_film: dict[str, list[Picture]] = {}
    for picture in kept:
        by_film.setdefault(picture.film.film_id, []).append(picture)
    records: list[ImageRecord] = []
    names: Counter[str] = Counter()
    for film_id, variants in by_film.items():
        standing = ""
        for picture in sorted(variants, key=lambda one: one.number):  # of equals the first stays
            record = replace(
                _record(picture, source, looks.get(picture.path), names),
                patient_id=patients[film_id],
                diagnosis=max(classes[film_id]),  # any malignant lesion makes it malignant
                variant_of=standing,
            )
            standing = standing or record.image_id
            records.append(record)
    both = sorted(film for film, found in classes.items() if len(found) > 1 and film in by_film)
    return Records(
        records=tuple(records),
        set_aside=tuple(aside),
        notes=tuple(_notes(by_film, both)),
        facts={"pictures": len(pictures), "films": len(by_film), "twins": twins,
               "in_both_classes": len(both)},
        left_out=(LeftOut("the same pixels as another picture", twins, twins, 0),) if twins else (),
    )  # fmt: skip


def _record(picture: Picture, source: Path, look: Look | None, names: Counter[str]) -> ImageRecord:
    film, status = picture.film, picture.path.stat()
    name = f"{film.film_id}_{picture.number}"
    names[name] += 1
    again = f"-{names[name]}" if names[name] > 1 else ""  # the merged part may hold others
    return ImageRecord(
        image_id=name + again,
        patient_id=film.patient_id,
        diagnosis=picture.diagnosis,
        file=picture.path.relative_to(source).as_posix(),
        size=status.st_size,
        changed=status.st_mtime_ns,
        rows=look.rows if look else 0,
        columns=look.columns if look else 0,
        laterality=film.laterality,
        view=film.view,
        finding="mass",
        density=film.density,
        collection=film.collection,
    )


def _notes(by_film: dict[str, list[Picture]], both: Sequence[str]) -> Iterator[str]:
    count = sum(map(len, by_film.values()))
    yield (
        f"{count:,} pictures show {len(by_film):,} films: the one with the lowest number stands "
        "for a film, since nothing tells the original"
    )
    held = [picture.film for variants in by_film.values() for picture in variants]
    if any(film.collection == "INbreast" and not film.patient_id for film in held):
        yield (
            "names of INbreast tell no patient: films whose numbers are at most "
            f"{NEAR} apart stay in one split, and count as one patient"
        )
    if both:
        # Without names: the dataset may be one of pseudonyms.
        yield f"{len(both):,} films stand in both classes, and count as malignant"
