"""What a dataset leaves out: the list that people write and save, and what each rule cost."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError, shown
from pipeline.stages.data import Organize
from pipeline.tables import read_text

# What the first line of a list may call its columns.
LIST_COLUMNS = {"image_id", "patient_id", "image", "patient", "id", "what", "name", "file", "path"}


@dataclass(frozen=True)
class LeftOut:
    """What one rule cost."""

    why: str  # in words
    lesions: int  # rows of the case descriptions that are in no image because of it
    images: int  # images lost
    patients: int  # patients of whom nothing is left


def breast_rules(options: Organize) -> Iterator[tuple[str, Callable[[Any], bool]]]:
    """Yield what is left out by side and view, and a test of what stays: of lesions or records."""
    if options.laterality != "both":
        side = options.laterality.upper()
        yield f"not the {side} breast", lambda one: one.laterality == side
    if options.view != "both":
        view = options.view.upper()
        yield f"not the {view} view", lambda one: one.view == view


def listed_names(path: Path, names: Iterable[str]) -> set[str]:
    """Return the names that a list holds; each line holds one, beside what else it says.

    Raises:
        UserError: The file cannot be read, or a line holds no name that there is: a leak that
            somebody meant to close would stay open.
    """
    known = {name.casefold(): name for name in names}
    listed, strange = set(), []
    for number, line in enumerate(read_text(path, "give a list of ids")[0].splitlines(), start=1):
        cells = [plain_name(cell) for cell in re.split("[,;\t]", line)]
        found = next((known[cell] for cell in cells if cell in known), None)
        if found is not None:
            listed.add(found)
        elif any(cells) and not line.lstrip().startswith("#"):
            if number > 1 or not LIST_COLUMNS & set(cells):
                strange.append(f"line {number}: {shown(line.strip())!r}")
    if strange:
        more = f" and {len(strange) - 3:,} more lines" if len(strange) > 3 else ""
        problem = f"{path}: {', '.join(strange[:3])}{more}: no image or patient has this name"
        raise UserError(problem, "correct or remove it")
    return listed


def plain_name(cell: str) -> str:
    """Return a cell without quotes, folders, suffix and case."""
    name = re.split(r"[/\\]", cell.strip(" \"'"))[-1].casefold()
    return re.sub(r"\.(png|jpe?g|dcm)$", "", name)
