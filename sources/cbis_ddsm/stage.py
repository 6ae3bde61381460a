"""CBIS-DDSM: what the registry of collections asks for; each part loads when it is wanted."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.options import Answers
from pipeline.progress import Progress, Result
from pipeline.stages.data import Organize
from sources.cbis_ddsm.tables import OFFICIAL_CSVS, case_csvs_in, find_case_csvs, may_hold_series

if TYPE_CHECKING:
    from sources.plan import Plan
    from sources.pseudonyms import OpenNames

MARKS = f"the case description CSVs ({OFFICIAL_CSVS[0]} and the like) in it or beside it"


def is_here(folder: Path) -> bool:
    """Return whether a folder holds the case descriptions, or folders of the download."""
    return may_hold_series(folder) or bool(case_csvs_in(folder))


def may_be_here(folder: Path) -> bool:
    """Return whether the case descriptions lie beside a folder."""
    try:
        return bool(find_case_csvs(folder, None))
    except UserError:
        return False


def is_near(folder: Path) -> bool:
    """Return `is_here` by the names in the folder itself: others are not walked through."""
    return may_hold_series(folder) or any((folder / name).is_file() for name in OFFICIAL_CSVS)


def plan(options: Organize, rename: "OpenNames") -> "Plan":
    """Read the case descriptions and decide all that they decide."""
    from sources.cbis_ddsm.plan import plan_dataset

    return plan_dataset(options, rename)


def check(options: Organize, progress: Progress) -> Result:
    """Hold a download against its case descriptions."""
    from sources.cbis_ddsm.doctor import examine

    return examine(options, progress)


def live_counts(name: str, answers: Answers) -> Mapping[str, Any]:
    """Return for each choice of an option what would be left with it."""
    from sources.cbis_ddsm.collection import live_counts as counts

    return counts(name, answers)
