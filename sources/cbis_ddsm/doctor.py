"""CBIS-DDSM: is a download whole? Expected against found, and every file that is not right."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from images.files import read_bytes
from pipeline.errors import UserError
from pipeline.holding import release
from pipeline.progress import Progress, Result, Table
from pipeline.records import RECORD, claim_folder, read_json, write_table_or_none, write_text
from pipeline.resources.places import CHECKED
from pipeline.stages.data import Organize
from sources.cbis_ddsm.collection import describe
from sources.cbis_ddsm.files import DIGITS, IMAGE, MASK, ZIP, Index, SourceFile, index_files
from sources.cbis_ddsm.layout import abnormality, remarks
from sources.cbis_ddsm.tables import CaseCsv, Lesion, read_case_csvs
from sources.writing import fit_of

PROBLEMS, REMARKS, MANIFEST = CHECKED
MAMMOGRAM, CROP = "mammogram", "crop"
ROLES = (MAMMOGRAM, CROP, MASK)
MISSING, TRUNCATED, SIZE = "missing", "truncated", "wrong size"
UNREADABLE, HEADER, DUPLICATE, PLACE = "unreadable", "wrong header", "duplicate", "wrong folder"
KINDS_OF_PROBLEM = (MISSING, TRUNCATED, SIZE, UNREADABLE, HEADER, DUPLICATE, PLACE)
COMPLETE = {"series": 6775, "files": 10239}  # of the collection as the archive gives it out
# What the NBIA Data Retriever reads: the archive's address, then one series a line.
TCIA_HEAD = """downloadServerUrl=https://public.cancerimagingarchive.net/nbia-download/servlet/DownloadServlet
includeAnnotation=true
noOfrRetry=4
databasketId=missing.tcia
manifestVersion=3.0
ListOfSeriesToDownload=
"""


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is not as it should be."""

    kind: str  # one of KINDS_OF_PROBLEM
    what: str  # the file, or what is missing
    series: str  # SeriesInstanceUID, where it is known
    reason: str  # in words


@dataclass(frozen=True)
class Part:
    """A file that the case descriptions promise."""

    kind: str  # the case description, "mass train"
    role: str  # MAMMOGRAM, CROP or MASK
    name: str  # as a person knows it
    subject: str  # the folder that the archive puts it in
    series: tuple[str, ...]  # where it may be, most likely first

    def files(self, index: Index) -> tuple[SourceFile, ...]:
        """Return its files, sound ones first."""
        return index.of_role(self.series, MASK if self.role == MASK else IMAGE)

    def is_sound(self, index: Index) -> bool:
        """Return whether there is a file of it that can be read."""
        return any(not file.defect for file in self.files(index))


def examine(options: Organize, progress: Progress) -> Result:
    """Hold a download against its case descriptions; write what is wrong as CSV and .tcia.

    Returns:
        facts["problems"] counts them by kind; facts["parts"] has expected and found by case
        description and role.

    Raises:
        UserError: There are no case descriptions, the output folder cannot be used, or patients
            are not to be named.
    """
    if options.pseudonymize:
        problem = "--check names files and patients, which --pseudonymize is to hide"
        raise UserError(problem, "leave one of the two out")
    tables = read_case_csvs(options.source, options.csv)
    claim_folder(options.out, "organize", options)
    _refuse_pseudonyms(options.out)
    index = index_files(options.source, options.out, options.workers, progress)
    parts, absent = _wanted(list(_parts(tables)), index, options.finding)
    unread = _unread(parts, index)
    problems = sorted([*_missing(parts, index, unread.values()), *_damaged(index, unread)])
    problems += sorted(_duplicates(options.source, index))
    known = {problem.what for problem in problems}
    problems += sorted(problem for problem in _misplaced(index) if problem.what not in known)
    lesions = [lesion for table in tables for lesion in table.lesions]
    unlike = list(_fits(lesions, index))
    notes = sorted([*remarks(lesions, index), *unlike, *_strangers(parts, index)])
    columns = ("kind", "what", "series", "reason")
    lines = [(x.kind, x.what, x.series, x.reason) for x in problems]
    write_table_or_none(options.out / PROBLEMS, columns, lines)
    write_table_or_none(options.out / REMARKS, ("what", "note"), notes)
    wanted = sorted({uid for part in parts for uid in _to_fetch(part, index)})
    (options.out / MANIFEST).unlink(missing_ok=True)
    if wanted:
        write_text(options.out / MANIFEST, TCIA_HEAD + "".join(f"{uid}\n" for uid in wanted))
    facts = _facts(tables, parts, index, problems)
    facts |= {
        "notes": len(notes),
        "masks_of_another_size": len(unlike),
        "series_to_download": len(wanted),
        "not_downloaded": absent,
        **_persons(index),
    }
    return _result(options, facts)


def _refuse_pseudonyms(out: Path) -> None:
    """Refuse to name patients beside a dataset that hides them."""
    if (out / RECORD).is_file() and read_json(out / RECORD)["options"].get("pseudonymize"):
        raise UserError(
            f"{out}: holds a pseudonymized dataset, and the check names patients",
            "choose another --out",
        )


def _wanted(parts: Sequence[Part], index: Index, finding: str) -> tuple[list[Part], list[str]]:
    """Leave out a finding of which nothing was downloaded, unless both are asked for.

    Returns:
        The parts to look for, and the findings that were left out.
    """
    findings = {part.kind.split()[0] for part in parts}
    there = {part.kind.split()[0] for part in parts if part.files(index)}
    absent = sorted(findings - there) if there and finding != "both" else []
    return [part for part in parts if part.kind.split()[0] not in absent], absent


def _parts(tables: Sequence[CaseCsv]) -> Iterator[Part]:
    for table in tables:
        kind = table.kind
        films = {lesion.mammogram_series: lesion for lesion in table.lesions}
        for uid, lesion in films.items():
            name = f"mammogram of {lesion.subject}"
            yield Part(kind, MAMMOGRAM, name, lesion.subject, (uid,))
        for lesion in table.lesions:
            name = f"of {lesion.subject}, {abnormality(lesion)}"
            subject = f"{lesion.subject}_{lesion.number}"
            pair = lesion.crop_series, lesion.mask_series
            yield Part(kind, CROP, f"crop {name}", subject, tuple(dict.fromkeys(pair)))
            yield Part(kind, MASK, f"mask {name}", subject, tuple(dict.fromkeys(pair[::-1])))


def _unread(parts: Iterable[Part], index: Index) -> dict[str, str]:
    """Return the series of unreadable files, where the folder's name still tells it."""
    ends: dict[str, list[Part]] = {}
    for part in parts:
        for uid in part.series:
            ends.setdefault(uid[-DIGITS:], []).append(part)
    found = {}
    for name, _ in index.unreadable:
        path = PurePosixPath(name)
        place = path if path.suffix.lower() == ZIP else path.parent
        folder = place.stem if place.suffix.lower() == ZIP else place.name
        for part in ends.get(folder[-DIGITS:], []):
            for uid in part.series:
                if folder == uid or (folder.endswith(uid[-DIGITS:]) and part.subject in path.parts):
                    found[name] = uid
    return found


def _missing(parts: Iterable[Part], index: Index, unread: Iterable[str]) -> Iterator[Problem]:
    damaged = set(unread)
    for part in parts:
        if not part.files(index) and not damaged & set(part.series):
            series = _likely(part, index)
            there = "holds no such file" if series in index.series else "is not there"
            yield Problem(MISSING, part.name, series, f"its series {there}")


def _likely(part: Part, index: Index) -> str:
    """Return where a missing part should be: a series without a file before one with another."""
    return next((uid for uid in part.series if uid not in index.series), part.series[0])


def _to_fetch(part: Part, index: Index) -> list[str]:
    if part.is_sound(index):
        return []
    damaged = [file.series for file in part.files(index)]
    return damaged or [_likely(part, index)]


def _damaged(index: Index, unread: Mapping[str, str]) -> Iterator[Problem]:
    for name, reason in index.unreadable:
        yield Problem(UNREADABLE, name, unread.get(name, ""), reason)
    for file in _all_files(index):
        if file.defect:
            kind = next((kind for kind in (TRUNCATED, SIZE) if kind in file.defect), UNREADABLE)
            kind = SIZE if "listed as" in file.defect else kind
            yield Problem(kind, file.name, file.series, file.defect)
        elif file.oddity:
            yield Problem(HEADER, file.name, file.series, file.oddity)


def _duplicates(source: Path, index: Index) -> Iterator[Problem]:
    """Yield each file that repeats another one, as an instance of DICOM or byte for byte."""
    for files in index.series.values():
        sound = sorted((file for file in files if not file.defect), key=lambda file: file.strayed)
        groups: dict[tuple[str, ...], list[SourceFile]] = {}
        for file in sound:
            key = (file.sop,) if file.sop else (file.role, str(file.size))
            groups.setdefault(key, []).append(file)
        for first, *others in groups.values():
            digest = _digest(source / first.name) if others else ""
            for file in others:
                if _digest(source / file.name) == digest:
                    yield Problem(DUPLICATE, file.name, file.series, f"the same as {first.name}")
                elif file.sop:
                    reason = f"claims to be {first.name}, but its content differs"
                    yield Problem(DUPLICATE, file.name, file.series, reason)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(read_bytes(path).data).hexdigest()
    except UserError as error:
        return str(error)


def _misplaced(index: Index) -> list[Problem]:
    """Return the files in folders that are named after another series.

    Where most are, somebody renamed the folders, and their names say nothing.
    """
    placed = [file for file in _all_files(index) if file.in_its_folder is not None]
    wrong = [file for file in placed if not file.in_its_folder]
    if 2 * len(wrong) >= len(placed):
        return []
    reason = "lies in the folder {}, which is of another series"
    return [
        Problem(PLACE, file.name, file.series, reason.format(PurePosixPath(file.name).parent.name))
        for file in wrong
    ]


def _fits(lesions: Iterable[Lesion], index: Index) -> Iterator[tuple[str, str]]:
    """Yield the masks whose size is not that of their mammogram."""
    for lesion in lesions:
        films = index.of_role([lesion.mammogram_series], IMAGE)
        for mask in index.of_role((lesion.mask_series, lesion.crop_series), MASK)[:1]:
            for film in films[:1]:
                fit = fit_of(mask.rows, mask.columns, film.rows, film.columns)
                if fit != "same size":
                    sizes = f"{mask.columns} x {mask.rows}, its mammogram {film.columns} x "
                    yield mask.name, f"is {sizes}{film.rows}; it will be {fit} to fit"


def _strangers(parts: Iterable[Part], index: Index) -> Iterator[tuple[str, str]]:
    expected = {uid for part in parts for uid in part.series}
    for file in _all_files(index):
        if file.series not in expected:
            yield file.name, f"its series {file.series} is in none of the case descriptions"


def _persons(index: Index) -> dict[str, Any]:
    """Return how many files carry each identifying tag, and how many say that text is burned in."""
    tags = Counter(tag for file in _all_files(index) for tag in file.identifying.split())
    return {
        "identifying_tags": dict(tags.most_common()),
        "burned_in": sum(file.burned_in for file in _all_files(index)),
    }


def _all_files(index: Index) -> Iterator[SourceFile]:
    for files in index.series.values():
        yield from files


def _facts(
    tables: Sequence[CaseCsv], parts: Sequence[Part], index: Index, problems: Sequence[Problem]
) -> dict[str, Any]:
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for part in parts:
        role = counts.setdefault(part.kind, {}).setdefault(part.role, {"expected": 0, "found": 0})
        role["expected"] += 1
        role["found"] += part.is_sound(index)
    collection = describe(tables)
    expected = {uid for part in parts for uid in part.series}
    kinds = Counter(problem.kind for problem in problems)
    return {
        "parts": counts,
        "series": {"expected": len(expected), "found": len(expected & set(index.series))},
        "files": {
            "expected": collection["files"],
            "found": sum(map(len, index.series.values())) + len(index.unreadable),
        },
        "complete_collection": COMPLETE,
        "problems": {kind: kinds[kind] for kind in KINDS_OF_PROBLEM if kinds[kind]},
    }


def _result(options: Organize, facts: Mapping[str, Any]) -> Result:
    out = options.out
    rows = tuple(
        (kind, *(f"{roles[role]['found']:,} of {roles[role]['expected']:,}" for role in ROLES))
        for kind, roles in facts["parts"].items()
    )
    problems, total = facts["problems"], sum(facts["problems"].values())
    tables = [Table("Sound, of those expected", ("", "mammograms", "crops", "masks"), rows)]
    if problems:
        tables.append(Table("What is wrong", ("kind", "count"), tuple(problems.items())))
    if facts["identifying_tags"]:
        # The values stay where they are: who looks at a screen or a log is not to read them.
        rows = tuple((tag, f"{count:,}") for tag, count in facts["identifying_tags"].items())
        tables.append(Table("Header tags that may tell who a person is", ("tag", "files"), rows))
    series, files = facts["series"], facts["files"]
    notes = [
        f"series: {series['found']:,} of {series['expected']:,}; files: {files['found']:,} of "
        f"{files['expected']:,} (the complete collection: {COMPLETE['series']:,} and "
        f"{COMPLETE['files']:,})"
    ]
    notes += [
        f"{finding}: none of its files is here, so it was not checked (--finding both does)"
        for finding in facts["not_downloaded"]
    ]
    if facts["series_to_download"]:
        notes.append(
            f"{out / MANIFEST} holds the {facts['series_to_download']:,} series to download "
            "again; open it with the NBIA Data Retriever"
        )
    if facts["burned_in"]:
        notes.append(
            f"text is burned into the pixels of {facts['burned_in']:,} files, as their headers "
            "say: look at them before passing images on"
        )
    if facts["masks_of_another_size"]:
        notes.append(
            f"masks that do not fit their mammogram: {facts['masks_of_another_size']:,}; they are "
            "scaled to it when organised"
        )
    if facts["notes"]:
        notes.append(f"usable, but worth knowing: {facts['notes']:,} lines in {out / REMARKS}")
    release(out)
    return Result(
        folder=out,
        headline=f"{total:,} problems" if total else "The download is whole",
        facts=facts,
        tables=tuple(tables),
        notes=tuple(notes),
        set_aside=total,
        listed_in=PROBLEMS,
        next_stage="organize",
        next_options={"source": options.source, "csv": options.csv, "out": out},
    )
