"""What the shortcut probe found in the datasets behind the runs, as the page shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interface.report.data import Dataset, Step
from interface.report.images import SHEET, jpeg
from pipeline.errors import UserError
from pipeline.records import read_json
from pipeline.workspace import SHORTCUTS

PICTURE = Path(SHORTCUTS).with_suffix(".png").name
IMAGES = {"organize": "organised", "preprocess": "preprocessed"}


@dataclass(frozen=True)
class ShortcutView:
    """The probe of one step's images."""

    images: str  # "organised" or "preprocessed"
    seen: bool  # whether the runs saw these images
    warnings: Sequence[str]  # what predicts the label
    line: str  # what to say where nothing does
    picture: str  # the classes' mean images as a data URI, where something does and it is there


def shortcuts_of(dataset: Dataset) -> list[ShortcutView]:
    """Return the probe of the images that the runs saw, and of earlier ones where it warns."""
    views = [view for step in dataset.steps if (view := _view(step, step is dataset.final))]
    return [view for view in views if view.seen or view.warnings]


def _view(step: Step, seen: bool) -> ShortcutView | None:
    path = step.folder / SHORTCUTS
    if not path.is_file():
        return None
    try:
        found = read_json(path)
        warnings = [text.removesuffix(f"; see {PICTURE}") for text in found["warnings"]]
        line = "" if warnings else _quiet(found)
    except (UserError, KeyError, TypeError, ValueError, AttributeError):
        warnings, line = [], f"{path} cannot be read"
    picture = jpeg(step.folder / PICTURE, SHEET) if warnings else ""
    return ShortcutView(IMAGES[step.stage], seen, warnings, line, picture)


def _quiet(found: Mapping[str, Any]) -> str:
    if found["problem"]:
        return f"no verdict, {found['problem']}"
    auc, low, high = (float(found["groups"]["all"][name]) for name in ("auc", "low", "high"))
    figures = f"AUC {auc:.2f}, {low:.2f} to {high:.2f}"
    return f"nothing predicts the label (all features together: {figures})"
