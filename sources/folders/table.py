"""The table of a plain folder: which column is what, and which row is of which image."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.errors import UserError, shown
from pipeline.options import Answers
from pipeline.tables import TableFile, read_table
from sources.folders.classes import pairs_of, split_of
from sources.folders.files import SIDES, Picture, named

# What a column may be, and what it is called then: letters and digits alone, the likeliest first.
ROLES = {
    "image": (
        "filename", "file", "filepath", "imagefilename", "imagefile", "imagepath", "path", "image",
        "imageid", "imagename", "img", "picture", "dicom", "sopinstanceuid",
    ),
    "patient": (
        "patientid", "patient", "subjectid", "subject", "clientid", "caseid", "case", "pid",
        "personid", "womanid",
    ),
    "label": (
        "label", "class", "pathology", "diagnosis", "classification", "target", "category",
        "cancer", "malignancy", "malignant", "severity", "outcome",
    ),
    "laterality": ("laterality", "side", "breast", "breastside", "leftorrightbreast"),
    "view": ("view", "viewposition", "imageview", "projection"),
    "split": ("split", "subset", "set", "partition"),
    "age": ("age", "patientage", "ageyears"),
    "density": ("density", "breastdensity", "acr", "tissuedensity"),
    "assessment": ("assessment", "birads", "biradsassessment", "breastbirads"),
    "finding": ("finding", "findings", "lesion", "lesiontype", "abnormality", "abnormalitytype"),
}  # fmt: skip
DENSITIES = {"a": 1, "b": 2, "c": 3, "d": 4, "1": 1, "2": 2, "3": 3, "4": 4}
PREVIEWED, WIDEST, ROOM = 3, 16, 140  # rows of a preview, characters of a cell, and in all
WHAT_TO_SAY = 'give --columns "image=COLUMN,patient=COLUMN,label=COLUMN"'


@dataclass(frozen=True)
class Entry:
    """What is known of one image."""

    picture: Picture
    label: str  # the name of its class
    where: str = ""  # the line of the table that says so
    patient: str = ""
    split: str = ""
    laterality: str = ""
    view: str = ""
    age: int | None = None
    density: int | None = None
    assessment: str = ""
    finding: str = ""


@dataclass(frozen=True)
class LabelTable:
    """A table with a row for each image."""

    table: TableFile
    roles: Mapping[str, str]  # role -> column


def find_tables(source: Path, csv: Path | None) -> list[Path]:
    """Return the tables of a folder: those that were given, or those in it."""
    if csv is not None and csv.is_file():
        return [csv]
    place = csv or source
    visible = (path for path in place.iterdir() if path.name[0] != "." and path.is_file())
    return sorted(path for path in visible if path.suffix.lower() == ".csv")


def read_tables(
    paths: Sequence[Path], given: str
) -> tuple[list[LabelTable], list[TableFile], list[UserError]]:
    """Read tables; return those that name images, the others, and why some cannot be read.

    Raises:
        UserError: What was said of the columns cannot be, or the only table is none.
    """
    fitting, others, unread = [], [], []
    for path in paths:
        try:
            table = read_table(path)
        except UserError as error:
            if len(paths) == 1 or given:
                raise
            unread.append(error)
            continue
        roles = roles_of(table, given)
        if "image" in roles:
            fitting.append(LabelTable(table, roles))
        else:
            others.append(table)
    return fitting, others, unread


def roles_of(table: TableFile, given: str) -> dict[str, str]:
    """Return which column of a table is what, by their names and by what was said of them.

    Raises:
        UserError: What was said names a column that is not there, or a role that is none.
    """
    named = {_plain(name): name for name in reversed(table.columns)}
    roles = {role: next((named[one] for one in names if one in named), "")
             for role, names in ROLES.items()}  # fmt: skip
    for role, column in pairs_of(given, "--columns", "image=File"):
        if role.lower() not in ROLES:
            raise UserError(f"--columns: {role!r} is none of {', '.join(ROLES)}")
        known = {name.casefold(): name for name in table.columns}
        if column and column.casefold() not in known:
            raise UserError(
                f"{table.path}: has no column {column!r} but {preview(table)}", WHAT_TO_SAY
            )
        roles[role.lower()] = known.get(column.casefold(), "")
    return {role: column for role, column in roles.items() if column}


def preview(table: TableFile) -> str:
    """Return the columns of a table with what their first rows hold, as much as a line takes."""
    for rows in range(PREVIEWED, -1, -1):
        parts = []
        for column in table.columns:
            cells = [shown(line.cells[column], WIDEST) for line in table.lines[:rows]]
            parts.append(f"{shown(column)} ({', '.join(cells)})" if cells else shown(column))
        if len(text := ", ".join(parts)) <= ROOM:
            return text
    return f"{text[:ROOM]} and so on" if text else "none"


def refuse_columns(table: TableFile, lacks: str) -> UserError:
    """Return the refusal of a table of which a column is not known."""
    return UserError(
        f"{table.path}: no column is known to tell {lacks}; {preview(table)}", WHAT_TO_SAY
    )


def suggested_columns(answers: Answers) -> str:
    """Return what the question for the columns offers: those that are known, "?" for others."""
    for table in _tables_of(answers):
        roles = {"image": "?", "patient": "?", "label": "?"} | roles_of(table, "")
        return ",".join(f"{role}={column}" for role, column in roles.items())
    return ""


def columns_problem(given: str, answers: Answers) -> str | None:
    """Say why what was said of the columns cannot be, with the columns that there are."""
    try:
        for table in _tables_of(answers):
            if "image" not in roles_of(table, given):
                return str(refuse_columns(table, "the image"))
    except UserError as error:
        return str(error)
    return None


def _tables_of(answers: Answers) -> list[TableFile]:
    try:
        paths = find_tables(Path(answers["source"]), answers.get("csv"))
        return [read_table(path) for path in paths[:1]]
    except (OSError, UserError):
        return []


def join(
    tables: Sequence[LabelTable], pictures: Sequence[Picture], classes: Mapping[str, str]
) -> tuple[list[Entry], list[tuple[str, str]], list[str]]:
    """Join the rows of tables to the images of a folder.

    Args:
        tables: Each names images.
        pictures: Of the folder.
        classes: By a picture's name, the class of its folder: for tables without labels.

    Returns:
        An entry for each row whose image is there; (what, reason) of rows and images that are
        not used; and what to note.
    """
    finder = _Finder(pictures)
    entries: list[Entry] = []
    aside: list[tuple[str, str]] = []
    odd: Counter[str] = Counter()
    for one in tables:
        table, roles = one.table, one.roles
        split = split_of(table.path.stem)
        seen: dict[tuple[tuple[str, str], ...], int] = {}
        for line in table.lines:
            where = f"{table.path.name}: line {line.number}"
            cells = {role: line.cells[column] for role, column in roles.items()}
            first = seen.setdefault(tuple(sorted(line.cells.items())), line.number)
            if first != line.number:
                aside.append((where, f"repeats line {first}, and counts once"))
                continue
            picture, problem = finder.find(cells["image"], cells.get("patient", ""))
            if picture is None:
                aside.append((where, problem))
                continue
            label = cells.get("label", classes.get(picture.name, ""))
            if not label:
                aside.append((where, "tells no label"))
                continue
            entries.append(_entry(where, picture, label, split, cells, odd))
    named = {entry.picture.name for entry in entries} | finder.named
    names = ", ".join(one.table.path.name for one in tables)
    aside += [(picture.name, f"is not in {names}")
              for picture in pictures if picture.name not in named]  # fmt: skip
    notes = [f"{names}: {count:,} cells of {what} are not understood and count as not known"
             for what, count in sorted(odd.items())]  # fmt: skip
    return entries, aside, notes


def _entry(
    where: str, picture: Picture, label: str, split: str, cells: Mapping[str, str],
    odd: Counter[str],
) -> Entry:  # fmt: skip
    def understood(role: str, known: Mapping[str, str], text: str) -> str:
        found = known.get(text.lower(), "")
        odd[role] += bool(text) and not found
        return found

    said = cells.get("split", "")
    if said and not split_of(said):
        odd["split"] += 1
    age, density = cells.get("age", ""), cells.get("density", "")
    years = re.fullmatch(r"0*(\d{1,3})(?:\.\d*)?\s*[yY]?", age)
    odd["age"] += bool(age) and years is None
    dense = re.fullmatch(r"(?:BI-?RADS|ACR|density)?\s*([A-Da-d1-4])(?:\.0+)?", density, re.I)
    odd["density"] += bool(density) and dense is None
    return Entry(
        picture=picture,
        label=label,
        where=where,
        patient=cells.get("patient", ""),
        split=split_of(said) or split or next(filter(None, map(split_of, picture.parts)), ""),
        laterality=understood("laterality", SIDES, cells.get("laterality", ""))
        or picture.laterality,
        view=cells.get("view", "").upper() or picture.view,
        age=int(years[1]) if years else None,
        density=DENSITIES[dense[1].lower()] if dense else None,
        assessment=cells.get("assessment", ""),
        finding=cells.get("finding", ""),
    )


class _Finder:
    """Finds the image that a cell means: by its path, the end of it, its name, or its stem."""

    def __init__(self, pictures: Iterable[Picture]) -> None:
        self._by_key: dict[str, list[Picture]] = defaultdict(list)
        self.named: set[str] = set()  # files that some row names, if only as one of several
        for picture in pictures:
            parts = picture.name.casefold().split("/")
            for start in range(len(parts)):
                end = "/".join(parts[start:])
                for key in dict.fromkeys((end, str(PurePosixPath(end).with_suffix("")))):
                    self._by_key[key].append(picture)

    def find(self, cell: str, patient: str) -> tuple[Picture | None, str]:
        """Return the image, or why there is none."""
        path = re.sub(r"^(\./)+|^/+", "", cell.replace("\\", "/")).casefold()
        if not path:
            return None, "names no image"
        found: list[Picture] = []
        # Tables often keep the paths of the computer that they were made on.
        parts = path.split("/")
        for start in range(len(parts)):
            if found := self._by_key.get("/".join(parts[start:]), []):
                break
        if len(found) > 1 and patient:
            found = self._by_key.get(f"{patient.casefold()}/{parts[-1]}", found)
        self.named.update(picture.name for picture in found)
        if len(found) == 1:
            return found[0], ""
        if found:
            names = ", ".join(named(picture.name) for picture in found[:3])
            return None, f"{named(shown(cell))} may be any of {len(found)} files ({names})"
        return None, f"missing: no file {named(shown(cell))}"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.lower())
