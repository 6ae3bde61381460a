"""CBIS-DDSM: what its case description CSVs say (Lee et al. 2017, Sci Data 4:170177).

Four CSVs, one for each of mass and calcification, train and test; one row for each abnormality in
each view. They are known by their columns and rows, since people rename and copy files.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError, shown
from pipeline.tables import read_columns, read_table, unread_spreadsheets
from sources.walking import walk

MASS, CALCIFICATION = "mass", "calcification"
SHORT = {MASS: "mass", CALCIFICATION: "calc"}
MALIGNANT, BENIGN = "MALIGNANT", "BENIGN"
WITHOUT_CALLBACK = "BENIGN_WITHOUT_CALLBACK"
OFFICIAL_CSVS = tuple(
    f"{finding}_case_description_{split}_set.csv"
    for finding in ("mass", "calc")
    for split in ("train", "test")
)
# Column names are compared in lower case, "_" as a space: the official files spell
# "breast_density" and "breast density".
COLUMNS = (
    "patient id", "breast density", "left or right breast", "image view", "abnormality id",
    "abnormality type", "assessment", "pathology", "subtlety", "image file path",
    "cropped image file path", "roi mask file path",
)  # fmt: skip
SHAPE_COLUMNS = {
    MASS: ("mass shape", "mass margins"),
    CALCIFICATION: ("calc type", "calc distribution"),
}
REMEDY = "use the official file"
MOST_DIGITS = 4  # of a number in a row
RESEMBLING = 7  # of the columns above: what has so many was a case description once
KNOWN_VALUES = {
    "left or right breast": ("LEFT", "RIGHT"),
    "image view": ("CC", "MLO"),
    "abnormality type": (MASS, CALCIFICATION),
    "pathology": (MALIGNANT, BENIGN, WITHOUT_CALLBACK),
}
PATIENT = re.compile(r"P_\d+")
SUBJECT = re.compile(r"(Mass|Calc)-(Training|Test)_(P_\d+)_(LEFT|RIGHT)_(CC|MLO)(_\d+)?")
PATHS = ("image file path", "cropped image file path", "roi mask file path")
FINDING_OF = {"Mass": MASS, "Calc": CALCIFICATION}
SPLIT_OF = {"Training": "train", "Test": "test"}


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """One abnormality in one view: a row of a case description."""

    patient_id: str  # "P_00001"; one id space for masses and calcifications
    laterality: str  # "LEFT" or "RIGHT"
    view: str  # "CC" or "MLO"
    finding: str  # "mass" or "calcification"
    number: int  # the abnormality's id within the breast, from 1
    split: str  # the official one, "train" or "test"
    pathology: str  # MALIGNANT, BENIGN or BENIGN_WITHOUT_CALLBACK
    density: int  # BI-RADS breast density, 1 to 4; 0 where the source says so
    assessment: int  # BI-RADS assessment, 0 to 5
    subtlety: int  # 1 (subtle) to 5 (obvious); 0 where the source says so
    shape: str  # mass shape or calcification type
    margins: str  # mass margins or calcification distribution
    subject: str  # first part of the mammogram's path, "Mass-Training_P_00001_LEFT_CC"
    mammogram_series: str  # SeriesInstanceUID of the mammogram
    # That of the crop, as the CSV says; a few rows have it exchanged with the mask.
    crop_series: str
    mask_series: str  # that of the region-of-interest mask


@dataclass(frozen=True)
class CaseCsv:
    """One of the four case descriptions."""

    path: Path
    finding: str
    split: str
    lesions: tuple[Lesion, ...]  # each once
    repeated: tuple[int, ...] = ()  # numbers, from 1, of rows that equal an earlier one

    @property
    def kind(self) -> str:
        """What it is called for short: "mass train", "calc test"."""
        return f"{SHORT[self.finding]} {self.split}"


def read_case_csvs(source: Path, given: Path | None) -> list[CaseCsv]:
    """Find and read the case descriptions of a download.

    Args:
        source: The folder of the download; looked through in full, and its parent by itself.
        given: A folder, or one CSV, to look in instead.

    Returns:
        One to four, in the order mass train, mass test, calc train, calc test. Of identical
        copies one is taken.

    Raises:
        UserError: There is none; one was edited or is not what it was given as; or two that
            differ describe the same cases.
    """
    found: dict[tuple[str, str], CaseCsv] = {}
    for path in find_case_csvs(source, given):
        table = read_case_csv(path)
        known = found.setdefault((table.finding, table.split), table)
        if known.lesions != table.lesions:
            kind = f"{table.finding} {table.split}"
            raise UserError(
                f"{known.path} and {path}: both describe the {kind} cases and differ",
                "name the folder of the right one with --csv",
            )
    return sorted(found.values(), key=lambda table: (table.finding != MASS, table.split != "train"))


def find_case_csvs(source: Path, given: Path | None) -> list[Path]:
    """Find the CSVs whose columns are, or once were, those of a case description.

    Raises:
        UserError: There is none; the message says which are expected and where they can be had.
    """
    if given is not None and not given.exists():
        raise UserError(f"{given}: no such file or folder", "give --csv the folder of the CSVs")
    if given is not None and given.is_file():
        return [given]
    if given is not None:
        try:
            next(given.iterdir(), None)
        except OSError as error:
            raise UserError(f"{given}: cannot be read ({error.strerror or error})") from None
        paths = sorted(csvs_under(given))
    else:
        paths = [*sorted(csvs_under(source)), *_csvs_beside(source)]
    if fitting := [path for path in paths if _may_be_case_csv(path)]:
        return fitting
    place = given or source
    others = ", ".join(path.name for path in paths[:3])
    raise UserError(
        f"{place}: holds none of the case description CSVs ({OFFICIAL_CSVS[0]} and the like)"
        + (f" (other columns: {others})" if others else ""),
        unread_spreadsheets(place)
        or "get them from the CBIS-DDSM page of the Cancer Imaging Archive and name their folder "
        "with --csv",
    )


def case_csvs_in(folder: Path) -> list[Path]:
    """Return the files below a folder that are called like case descriptions, or look like one."""
    return [path for path in sorted(csvs_under(folder))
            if path.name.lower() in OFFICIAL_CSVS or _may_be_case_csv(path)]  # fmt: skip


def may_hold_series(folder: Path) -> bool:
    """Return whether a folder's names are those of the download, with or without its tables."""
    named = re.compile(r"CBIS-DDSM|(Mass|Calc)-(Training|Test)_|1\.3\.6\.1\.4\.1\.9590\.")
    return any(named.match(path.name) for path in folder.iterdir())


def read_case_csv(path: Path) -> CaseCsv:
    """Read one case description.

    Raises:
        UserError: Columns are missing, a value is not one that the collection has, a row says
            another patient, side or view than its paths, two rows contradict each other, or the
            rows are of more than one of the four CSVs; the message names the file and the row.
    """
    _check_columns(path, read_columns(path))
    lesions: dict[Lesion, int] = {}
    repeated = []
    for number, line in enumerate(read_table(path, remedy=REMEDY).lines, start=1):
        record = {_plain(name): text for name, text in line.cells.items()}
        lesion = _lesion(f"{path}: row {number}", record)
        if lesions.setdefault(lesion, number) != number:
            repeated.append(number)
    _refuse_contradictions(path, lesions)
    kinds = sorted({(lesion.finding, lesion.split) for lesion in lesions})
    if len(kinds) != 1:
        held = " and ".join(" ".join(kind) for kind in kinds) or "no"
        raise UserError(
            f"{path}: holds {held} rows, where each of the four CSVs has those of one kind", REMEDY
        )
    return CaseCsv(path, *kinds[0], tuple(lesions), tuple(repeated))


def csvs_under(folder: Path) -> Iterator[Path]:
    """Yield the CSV files below a folder."""
    for parent, names in walk(folder):
        yield from filter(_is_csv, (parent / name for name in names))


def _csvs_beside(source: Path) -> list[Path]:
    with contextlib.suppress(OSError):  # a parent that may not be listed holds no CSV of ours
        return sorted(filter(_is_csv, source.resolve().parent.iterdir()))
    return []


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv" and not path.name.startswith(".") and path.is_file()


def _may_be_case_csv(path: Path) -> bool:
    """Return whether a CSV is or was a case description, by its columns.

    Raises:
        UserError: It is called like one of the four and cannot be read as one.
    """
    official = path.name.lower() in OFFICIAL_CSVS
    try:
        header = read_columns(path)
    except UserError:
        if official:
            raise
        return False  # another table, which need not be readable
    if official and not _resembles(header):
        shown = ", ".join(header[:4]) or "none"
        raise UserError(
            f"{path}: is called like a case description and has not its columns ({shown})", REMEDY
        )
    return _resembles(header)


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", " ")


def _resembles(header: list[str]) -> bool:
    return len({_plain(name) for name in header} & set(COLUMNS)) >= RESEMBLING


def _check_columns(path: Path, header: list[str]) -> None:
    if not _resembles(header):
        shown = ", ".join(header[:4]) or "none"
        raise UserError(
            f"{path}: is not a case description of CBIS-DDSM (its columns: {shown})",
            f"give --csv the folder of {OFFICIAL_CSVS[0]} and the like",
        )
    present = {_plain(name) for name in header}
    kind = CALCIFICATION if present & set(SHAPE_COLUMNS[CALCIFICATION]) else MASS
    expected = (*COLUMNS, *SHAPE_COLUMNS[kind])
    missing = [name for name in expected if name not in present]
    unknown = [name or "(one without a name)" for name in header if _plain(name) not in expected]
    twice = [name for name in present if sum(_plain(other) == name for other in header) > 1]
    wrong = {"lacks the columns": missing, "has unknown columns": unknown, "repeats": sorted(twice)}
    if found := [f"{what} {', '.join(names)}" for what, names in wrong.items() if names]:
        raise UserError(f"{path}: was edited; it {' and '.join(found)}", REMEDY)


def _lesion(where: str, record: Mapping[str, str]) -> Lesion:
    for column, known in KNOWN_VALUES.items():
        if record.get(column) not in known:
            raise _unexpected(where, column, record, " or ".join(known))
    if not PATIENT.fullmatch(record.get("patient id", "")):
        raise _unexpected(where, "patient id", record, "like P_00001")
    finding = record["abnormality type"]
    if not all(column in record for column in SHAPE_COLUMNS[finding]):
        raise _unexpected(where, "abnormality type", record, "what the columns are of")
    subject, mammogram_series = _subject_and_series(where, "image file path", record)
    # The split stands in the paths alone; a spreadsheet may have renamed the file.
    prefix = SUBJECT.fullmatch(subject)
    if not prefix or FINDING_OF[prefix[1]] != finding:
        raise _unexpected(where, "image file path", record, f"one of a {finding}")
    _hold_against_paths(where, record)
    shape, margins = (record[column] for column in SHAPE_COLUMNS[finding])
    return Lesion(
        patient_id=record["patient id"],
        laterality=record["left or right breast"],
        view=record["image view"],
        finding=finding,
        number=_number(where, "abnormality id", record),
        split=SPLIT_OF[prefix[2]],
        pathology=record["pathology"],
        density=_number(where, "breast density", record),
        assessment=_number(where, "assessment", record),
        subtlety=_number(where, "subtlety", record),
        shape=shape,
        margins=margins,
        subject=subject,
        mammogram_series=mammogram_series,
        crop_series=_subject_and_series(where, "cropped image file path", record)[1],
        mask_series=_subject_and_series(where, "roi mask file path", record)[1],
    )


def _hold_against_paths(where: str, record: Mapping[str, str]) -> None:
    """Refuse a row whose columns and paths name different films.

    A mistyped patient would put one woman into two splits, and a column that was sorted by itself
    would give every film another label.
    """
    said = tuple(record[name] for name in ("patient id", "left or right breast", "image view"))
    for column in PATHS:
        found = SUBJECT.match(record.get(column, ""))
        if found and found.group(3, 4, 5) != said:
            raise UserError(
                f"{where}: is of {' '.join(said)}, but its {column} of "
                f"{' '.join(found.group(3, 4, 5))}",
                REMEDY,
            )


def _refuse_contradictions(path: Path, rows: Mapping[Lesion, int]) -> None:
    """Refuse rows that say different things of one lesion; equal ones have been merged.

    Distinct lesions that share a number have crops of their own.
    """
    seen: dict[tuple[str, int, str, str], int] = {}
    for lesion, number in rows.items():
        one = lesion.subject, lesion.number, lesion.crop_series, lesion.mask_series
        if (other := seen.setdefault(one, number)) != number:
            problem = f"rows {other} and {number} say different things of one lesion"
            raise UserError(f"{path}: {problem} ({lesion.subject}, {lesion.number})", REMEDY)


def _subject_and_series(where: str, column: str, record: Mapping[str, str]) -> tuple[str, str]:
    """Take subject and SeriesInstanceUID from "<subject>/<study>/<series>/<file>".

    The file's name in it is fictional: downloads number the files otherwise.
    """
    parts = re.split(r"[/\\]", record.get(column, ""))
    if len(parts) != 4:
        raise _unexpected(where, column, record, "a path of four parts")
    return parts[0], parts[2]


def _number(where: str, column: str, record: Mapping[str, str]) -> int:
    text = record.get(column, "")
    if not text.isdecimal() or len(text) > MOST_DIGITS:
        raise _unexpected(where, column, record, "a whole number")
    return int(text)


def _unexpected(where: str, column: str, record: Mapping[str, str], wanted: str) -> UserError:
    value = shown(record.get(column, ""))
    return UserError(f"{where}: {column} is {value!r}, not {wanted}", REMEDY)
