"""CBIS-DDSM: what the case descriptions hold as a whole, and what each answer would leave of it."""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.options import Answers, checked, choices_of, defaults
from pipeline.progress import Table
from pipeline.stages.data import Organize
from sources.cbis_ddsm.cohort import plan_cohort
from sources.cbis_ddsm.tables import (
    BENIGN,
    CALCIFICATION,
    MALIGNANT,
    MASS,
    WITHOUT_CALLBACK,
    CaseCsv,
    Lesion,
    read_case_csvs,
)

Film = tuple[str, str, str]  # patient, laterality, view
KINDS = [(finding, split) for finding in (MASS, CALCIFICATION) for split in ("train", "test")]
ALL = "all"
ROWS = {
    "rows": "rows (a lesion in a view)",
    "patients": "patients",
    "mammograms": "mammograms",
    "malignant": "mammograms malignant",
    "benign": "mammograms benign",
    "mixed": "mammograms with both",
    MALIGNANT: "rows malignant",
    BENIGN: "rows benign",
    WITHOUT_CALLBACK: "rows without callback",
}
_read: dict[tuple[Path, Path | None], tuple[list[CaseCsv], list[tuple[Path, int, int]]]] = {}


def film_of(lesion: Lesion) -> Film:
    """Return which film a lesion is on; the same for both copies of a film stored twice."""
    return lesion.patient_id, lesion.laterality, lesion.view


def describe(tables: Sequence[CaseCsv]) -> dict[str, Any]:
    """Count what the case descriptions hold, before any choice.

    Returns:
        "case_descriptions": for "mass train" and so on, and "all": rows, patients, mammograms (as
        stored, so that a film stored twice counts twice), malignant, benign and mixed ones, and
        rows by pathology. "pooled_patients": in train for one finding and in test for the other,
        in all and by kind. "twins": films stored twice, in all, by the splits of their copies,
        and those to which the copies give different labels. "mixed_mammograms": with lesions of
        both kinds, as stored and after merging twins. "mammograms": distinct films. "series" and
        "files": that a complete download of these has.
    """
    by_kind = {table.kind: table.lesions for table in tables}
    counts = {kind: _counts(lesions) for kind, lesions in by_kind.items()}
    lesions = [lesion for table in tables for lesion in table.lesions]
    counts[ALL] = {name: sum(kind[name] for kind in counts.values()) for name in ROWS}
    counts[ALL]["patients"] = len({lesion.patient_id for lesion in lesions})
    merged = _by_film(lesions)
    return {
        "case_descriptions": counts,
        "mammograms": len(merged),
        "mixed_mammograms": {
            "as stored": counts[ALL]["mixed"],
            "twins merged": sum(map(_is_mixed, merged.values())),
        },
        "pooled_patients": _pooled(lesions),
        "twins": _twins(by_kind),
        "series": len({uid for lesion in lesions for uid in _series(lesion)}),
        "files": counts[ALL]["mammograms"] + 2 * counts[ALL]["rows"],
    }


def description_table(facts: Mapping[str, Any]) -> Table:
    """Return the counts of `describe` as a table with a column for each case description."""
    counts = facts["case_descriptions"]
    rows = tuple((text, *(counts[kind][name] for kind in counts)) for name, text in ROWS.items())
    return Table("What the case descriptions hold", ("", *counts), rows)


def known_tables(source: Path, given: Path | None) -> list[CaseCsv]:
    """Read the case descriptions as `read_case_csvs`, or take them as read a moment ago.

    Several questions in a row want them, and a download of thousands of folders is long to search.

    Raises:
        UserError: As `read_case_csvs`.
    """
    tables, stamps = _read.get((source, given), ([], []))
    if not tables or _stamps(tables) != stamps:
        tables = read_case_csvs(source, given)
        _read[source, given] = tables, _stamps(tables)
    return tables


def live_counts(name: str, answers: Answers) -> dict[str, str]:
    """Return for each choice of an option of the cohort what would be left with it.

    Args:
        name: Of the option.
        answers: The other answers so far.

    Returns:
        "1,592 images (361 test), 892 patients" by choice; nothing where the CSVs cannot be read
        yet: the stage will say why.
    """
    item = next(item for item in dataclasses.fields(Organize) if item.name == name)
    counts = {}
    with contextlib.suppress(UserError, OSError):
        known = {key: value for key, value in answers.items() if key in defaults(Organize)}
        tables = known_tables(Path(answers["source"]), answers.get("csv"))
        lesions = [lesion for table in tables for lesion in table.lesions]
        for choice in choices_of(item, answers) or ():
            # The folders are not asked about here, and may not be there yet.
            settled = known | {"source": Path(), "out": Path(), name: choice}
            images = plan_cohort(lesions, checked(Organize, settled)).images
            patients = len({image.patient_id for image in images})
            test = sum(image.split == "test" for image in images)
            counts[choice] = f"{len(images):,} images ({test:,} test), {patients:,} patients"
    return counts


def _counts(lesions: Sequence[Lesion]) -> dict[str, int]:
    films = _by_film(lesions).values()
    malignant = sum(map(_is_malignant, films))
    pathologies = Counter(lesion.pathology for lesion in lesions)
    return {
        "rows": len(lesions),
        "patients": len({lesion.patient_id for lesion in lesions}),
        "mammograms": len(films),
        "malignant": malignant,
        "benign": len(films) - malignant,
        "mixed": sum(map(_is_mixed, films)),
        **{name: pathologies[name] for name in (MALIGNANT, BENIGN, WITHOUT_CALLBACK)},
    }


def _by_film(lesions: Iterable[Lesion]) -> dict[Film, list[Lesion]]:
    films: dict[Film, list[Lesion]] = {}
    for lesion in lesions:
        films.setdefault(film_of(lesion), []).append(lesion)
    return films


def _is_malignant(shown: Sequence[Lesion]) -> bool:
    return any(lesion.pathology == MALIGNANT for lesion in shown)


def _is_mixed(shown: Sequence[Lesion]) -> bool:
    return len({lesion.pathology == MALIGNANT for lesion in shown}) > 1


def _pooled(lesions: Iterable[Lesion]) -> dict[str, int]:
    homes: dict[str, set[tuple[str, str]]] = {}
    for lesion in lesions:
        homes.setdefault(lesion.patient_id, set()).add((lesion.finding, lesion.split))
    kinds = {
        "mass train, calc test": {(MASS, "train"), (CALCIFICATION, "test")},
        "mass test, calc train": {(MASS, "test"), (CALCIFICATION, "train")},
    }
    found = {name: sum(kind <= home for home in homes.values()) for name, kind in kinds.items()}
    both = sum(len({split for _, split in home}) > 1 for home in homes.values())
    return {ALL: both, **found}


def _twins(by_kind: Mapping[str, Sequence[Lesion]]) -> dict[str, int]:
    """Count films that stand under both findings, by the splits of the two copies."""
    copies: dict[Film, list[tuple[str, list[Lesion]]]] = {}
    for kind, lesions in by_kind.items():
        for film, shown in _by_film(lesions).items():
            copies.setdefault(film, []).append((kind, shown))
    twins = [held for held in copies.values() if len({x[1][0].finding for x in held}) > 1]
    splits = Counter(tuple(sorted(shown[0].split for _, shown in held)) for held in twins)
    differ = sum(len({_is_malignant(shown) for _, shown in held}) > 1 for held in twins)
    return {
        ALL: len(twins),
        "both train": splits["train", "train"],
        "both test": splits["test", "test"],
        "train and test": splits["test", "train"],
        "with different labels": differ,
    }


def _series(lesion: Lesion) -> tuple[str, str, str]:
    return lesion.mammogram_series, lesion.crop_series, lesion.mask_series


def _stamps(tables: Iterable[CaseCsv]) -> list[tuple[Path, int, int]]:
    found = []
    for table in tables:
        with contextlib.suppress(OSError):
            status = table.path.stat()
            found.append((table.path, status.st_size, status.st_mtime_ns))
    return found
