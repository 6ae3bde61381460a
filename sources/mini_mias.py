"""mini-MIAS: 322 digitised films of 161 women (Suckling et al. 1994, Int Congr Series 1069:375).

`mdb001.pgm` to `mdb322.pgm`, 1024 pixels a side and 8 bits, and `Info.txt` (or `README`), one line
for each lesion: film, tissue, abnormality, and where there is one its severity, centre and radius.
Films 1 and 2, 3 and 4 and so on show the two breasts of one woman; all are MLO views. Odd ones are
left, as in the names of the original MIAS files (mdb001ll, mdb002rl); Info.txt says the opposite.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.errors import UserError
from pipeline.progress import Progress
from pipeline.stages.data import Organize
from pipeline.tables import read_text
from sources.records import Circle, ImageRecord, Records

MARKS = "films mdb001.pgm to mdb322.pgm, with Info.txt or README beside them"
TABLES = ("Info.txt", "info.txt", "README", "README.txt", "readme.txt")
FILM = re.compile(r"(mdb(\d{3}))\.(pgm|png|jpg|jpeg|tif|tiff)", re.IGNORECASE)
LINE = re.compile(
    r"(?P<film>mdb\d{3})[lrx]*\s+(?P<tissue>[FGD])\s+(?P<finding>[A-Z]{4})\b(?P<rest>.*)"
)
LESION = re.compile(r"\s*(?P<severity>[BM])\b(?P<place>.*)")
PLACE = re.compile(r"\s*(\d+(?:\.\d+)?)\s+(\d+(?:\.\d+)?)\s+(\d+(?:\.\d+)?)\s*$")
TISSUES = {"F": "fatty", "G": "fatty-glandular", "D": "dense-glandular"}
FINDINGS = {
    "CALC": "calcification",
    "CIRC": "mass, well defined",
    "SPIC": "mass, spiculated",
    "MISC": "mass, ill defined",
    "ARCH": "architectural distortion",
    "ASYM": "asymmetry",
    "NORM": "",
}
SIDE = 1024  # pixels: y of a lesion's centre is counted upwards from the lower edge
DIAGNOSES = {"B": "benign", "M": "malignant"}


def is_here(folder: Path) -> bool:
    """Return whether a folder holds films and their table."""
    return _table(folder) is not None and next(_films(folder), None) is not None


def half_here(folder: Path) -> str:
    """Say whether a folder holds films without their table, or the other way round."""
    if (table := _table(folder)) is not None:
        return f"{table.name} of mini-MIAS is there, but none of its films (mdb001.pgm and so on)"
    films = sum(path.suffix.lower() == ".pgm" for _, path in _films(folder))
    return f"{films} films of mini-MIAS are there, but not Info.txt" if films else ""


def read(options: Organize, progress: Progress) -> Records:
    """Read the table and the names of the films.

    Raises:
        UserError: The table names no film.
    """
    del progress  # nothing here takes long
    folder = options.source
    table = _table(folder)
    if table is None:
        raise UserError(f"{folder}: holds no table ({', '.join(TABLES[:1])})", "copy it there")
    listed: dict[str, ImageRecord] = {}
    aside: list[tuple[str, str]] = []
    for number, line in enumerate(read_text(table, "use the official file")[0].splitlines(), 1):
        if (found := LINE.match(line.strip())) is None:
            if re.match(r"mdb\d", line.strip(), re.IGNORECASE):
                aside.append((f"{table.name}: line {number}", f"cannot be understood: {line!r}"))
            continue
        record = _record(found, f"{table.name}: line {number}", aside)
        if record is not None:
            known = listed.get(record.image_id)
            listed[record.image_id] = _joined(known, record) if known else record
    if not listed:
        raise UserError(f"{table}: names no film (mdb001 and so on)", "use the official file")
    files = {film.lower(): path for film, path in _films(folder)}
    records = []
    for name, record in sorted(listed.items()):
        if (path := files.pop(name, None)) is None:
            aside.append((name, f"missing: no file {name}.pgm, which {table.name} lists"))
            continue
        status = path.stat()
        facts = {"file": path.name, "size": status.st_size, "changed": status.st_mtime_ns}
        records.append(replace(record, **facts))  # type: ignore[arg-type]  # of str and int
    aside += [(path.name, f"is not in {table.name}") for path in files.values()]
    return Records(
        records=tuple(records),
        set_aside=tuple(aside),
        notes=(
            "its films have 0.2 mm a pixel, and all views are MLO",
            "odd films are taken for left breasts, as in the names of the original MIAS files; "
            "Info.txt calls the even ones left",
        ),
    )


def _record(found: re.Match[str], where: str, aside: list[tuple[str, str]]) -> ImageRecord | None:
    """Return what one line says, or None where its finding contradicts itself."""
    film, finding = found["film"].lower(), found["finding"]
    number = int(film[3:])
    lesion = LESION.match(found["rest"])
    if finding not in FINDINGS or (finding == "NORM") != (lesion is None):
        aside.append((where, f"says {finding}{found['rest']}, which is no finding with a severity"))
        return None
    circles: tuple[Circle, ...] = ()
    if lesion and (place := PLACE.match(lesion["place"])):
        x, y, radius = map(float, place.groups())
        circles = (Circle(x, SIDE - y, radius),)
    severity = lesion["severity"] if lesion else ""
    return ImageRecord(
        image_id=film,
        patient_id=f"mias{(number + 1) // 2:03d}",
        diagnosis=DIAGNOSES.get(severity, "normal"),
        file="",
        rows=SIDE,
        columns=SIDE,
        laterality="LEFT" if number % 2 else "RIGHT",
        view="MLO",
        finding=FINDINGS[finding],
        pathology=f"{finding} {TISSUES[found['tissue']]}",
        circles=circles,
    )


def _joined(first: ImageRecord, second: ImageRecord) -> ImageRecord:
    """Join two lines on one film: any malignant lesion makes it malignant."""
    order = ("normal", "benign", "malignant")
    worst = max(first, second, key=lambda record: order.index(record.diagnosis))
    findings = "|".join(dict.fromkeys(filter(None, (first.finding, second.finding))))
    circles = tuple(
        dict.fromkeys((*first.circles, *second.circles))
    )  # a line may stand there twice
    return replace(worst, finding=findings, circles=circles)


def _table(folder: Path) -> Path | None:
    for name in TABLES:
        path = folder / name
        if path.is_file() and re.search(rb"mdb\d{3}", path.read_bytes()[:8192]):
            return path
    return None


def _films(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name and the file of each film."""
    for path in sorted(folder.iterdir()):
        if (found := FILM.fullmatch(path.name)) and path.is_file():
            yield found[1], path
