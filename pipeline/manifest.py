"""The manifest: one row for each image of a dataset, the truth that every stage reads."""

import csv
import dataclasses
import io
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import UserError, shown
from pipeline.paths import inside, is_file_name, is_inside
from pipeline.records import write_text
from pipeline.tables import Line, TableFile, read_table

MANIFEST = "manifest.csv"
MASK_TABLE = "masks.csv"  # beside it: where the mask of each lesion lies
PATCH_TABLE = "patches.csv"  # beside it: where in its film each patch lies
THUMBNAILS = "thumbnails"  # the folder beside it of each image reduced to 192 pixels
DESCRIPTION = "description.png"  # beside it: who and what is in each split, as a figure
SPLITS = ("train", "val", "test")
LABELS = ("benign", "malignant")
NORMAL = "normal"
DIAGNOSES = (NORMAL, *LABELS)
ABNORMAL = "abnormal"  # a diagnosis too: a finding of which nobody says what it is
# What a dataset asks of an image, with its two labels: the negative one first.
QUESTIONS = {
    "benign-malignant": LABELS,
    "malignant-rest": ("not_malignant", "malignant"),
    "abnormal-normal": ("normal", "abnormal"),
}
POSITIVE = {positive for _, positive in QUESTIONS.values()}
REMEDY = "make the folder again with the stage that made it"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image of a dataset.

    Clinical columns hold what the case description says, for an image with several lesions
    joined with "|" in the order of the lesions. Empty numbers are None.
    """

    image_id: str  # unique in the dataset; the file's name without suffix
    patient_id: str  # "P_00001"; one id space for masses and calcifications
    split: str  # "train", "val" or "test"
    # One of the two of QUESTIONS that its dataset has: "benign" or "malignant". An image with
    # several lesions has the positive one where any of them has.
    label: str
    path: str  # of the image, relative to the dataset's folder, with forward slashes
    # "mammogram" (a whole film), "crop" (one lesion) or "patch" (a square of a film).
    unit: str = "mammogram"
    laterality: str = ""  # "LEFT" or "RIGHT"
    view: str = ""  # "CC" or "MLO"
    finding: str = ""  # "mass", "calcification", or both joined
    pathology: str = ""  # MALIGNANT, BENIGN or BENIGN_WITHOUT_CALLBACK, as in the source
    lesions: int = 1  # how many lesions the image shows
    abnormality: str = ""  # finding and number of each, "mass 1|mass 2": the name of its mask
    density: int | None = None  # BI-RADS breast density, 1 to 4 (0 where the source says so)
    assessment: str = ""  # BI-RADS assessment, 0 to 5
    subtlety: str = ""  # 1 (subtle) to 5 (obvious)
    shape: str = ""  # mass shape or calcification type
    margins: str = ""  # mass margins or calcification distribution
    height: int = 0  # of the image file, in pixels
    width: int = 0  # of the image file, in pixels
    source_id: str = ""  # SeriesInstanceUID (or the like) of the file it was made from
    # Left edge, in pixels of the organised image, of the window that this image shows. Beyond the
    # film the window is black, so it may begin before it (negative).
    crop_x: int | None = None
    crop_y: int | None = None  # upper edge of the same window
    crop_width: int | None = None  # width of the same window
    crop_height: int | None = None  # height of the same window
    scale: float | None = None  # pixels of this image for one pixel of the organised image
    mirrored: int = 0  # 1 where this image is mirrored left to right, else 0
    parent: str = ""  # for an augmented image, the image_id that it was made from
    # The columns from here on stand in a manifest where any of its images has a value.
    turned: int = 0  # quarter turns, counter-clockwise, of this image before it was mirrored
    # One of DIAGNOSES, or ABNORMAL, where a dataset has normal images.
    diagnosis: str = ""
    age: int | None = None  # of the patient, in years
    site: str = ""  # where the image was taken
    machine: str = ""  # with which one
    implant: str = ""  # "yes" or "no"
    collection: str = ""  # of a dataset merged from several: which

    @property
    def is_positive(self) -> bool:
        """Whether it has the positive one of its dataset's two labels."""
        return self.label in POSITIVE


@dataclass(frozen=True)
class MaskFile:
    """The mask of a lesion, of the size of its organised image: white where the lesion is."""

    path: Path  # of the file
    fit: str  # how it got that size: "same size", "scaled", "stretched", or empty: not known


COLUMNS = tuple(item.name for item in dataclasses.fields(Row))
SOMETIMES = COLUMNS[COLUMNS.index("turned") :]


class Labelled(Protocol):
    """An image with a label, as a row of a manifest is."""

    @property
    def label(self) -> str:
        """One of the two of its dataset."""


def labels_of(rows: Iterable[Labelled]) -> tuple[str, str]:
    """Return the two labels of a dataset, the negative one first.

    Those of benign against malignant stand for rows that tell no question, or contradict
    themselves.
    """
    return pair_of(row.label for row in rows) or LABELS


def pair_of(labels: Iterable[str]) -> tuple[str, str] | None:
    """Return the first pair of QUESTIONS that labels are of; None where they are of no one pair."""
    there = set(labels)
    return next((pair for pair in QUESTIONS.values() if there <= set(pair)), None)


def image_path(split: str, label: str, image_id: str) -> str:
    """Return where an image lies in a dataset: folders that torchvision's ImageFolder reads."""
    return f"{split}/{label}/{image_id}.png"


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Return rows in the order of a manifest: by split, then image_id."""
    return sorted(rows, key=lambda row: (SPLITS.index(row.split), row.image_id))


def write_manifest(folder: Path, rows: Iterable[Row]) -> None:
    """Write the manifest of a dataset, in its order, after checking it.

    Raises:
        UserError: The rows contradict each other; see `validate`.
    """
    ordered = in_order(rows)
    validate(folder, ordered)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [one for one in COLUMNS if one not in SOMETIMES
               or any(getattr(row, one) not in ("", None, 0) for row in ordered)]  # fmt: skip
    writer.writerow(columns)
    for row in ordered:
        values = (getattr(row, column) for column in columns)
        writer.writerow(["" if value is None else value for value in values])
    write_text(folder / MANIFEST, text.getvalue())


def read_manifest(folder: Path) -> list[Row]:
    """Read the manifest of a dataset.

    Raises:
        UserError: It is missing, lacks columns, holds values of the wrong type, or names a file
            outside the folder.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(f"{path}: no such file", "make the folder with: python main.py organize")
    needed = [item.name for item in dataclasses.fields(Row) if item.default is dataclasses.MISSING]
    table = read_table(path, needed, REMEDY)
    rows = [_row(table, line) for line in table.lines]
    validate(folder, rows)
    for row in rows:
        inside(folder, row.path)
    return rows


def read_masks(folder: Path) -> dict[str, list[MaskFile]]:
    """Read where the masks of an organised dataset lie: by image_id, one for each lesion.

    Raises:
        UserError: The table is damaged, or names a file outside the folder.
    """
    found: dict[str, list[MaskFile]] = {}
    if (folder / MASK_TABLE).is_file():
        for line in read_table(folder / MASK_TABLE, ("image_id", "path"), REMEDY).lines:
            mask = MaskFile(inside(folder, line.cells["path"]), line.cells.get("fit", ""))
            found.setdefault(line.cells["image_id"], []).append(mask)
    return found


def _row(table: TableFile, line: Line) -> Row:
    values: dict[str, Any] = {}
    for item in dataclasses.fields(Row):
        text = line.cells.get(item.name)
        if text is None:
            continue
        optional = isinstance(item.type, types.UnionType)
        kind: Any = typing.get_args(item.type)[0] if optional else item.type
        try:
            if optional and not text:
                values[item.name] = None
            else:
                values[item.name] = table.number(text) if kind is float else kind(text)
        except ValueError:
            where = f"{table.path}: line {line.number}"
            raise UserError(f"{where}: {item.name} is {shown(text)!r}", REMEDY) from None
    return Row(**values)


def validate(folder: Path, rows: Sequence[Row]) -> None:
    """Check what every stage relies on.

    Raises:
        UserError: An unknown split or label, an image_id twice, a patient in two splits, or an
            augmented image outside training.
    """
    labels = labels_of(rows)
    seen: set[str] = set()
    home: dict[str, str] = {}
    for row in rows:
        where = f"{folder / MANIFEST}: {shown(row.image_id) or 'an image without a name'}"
        if not is_inside(row.path) or not is_file_name(row.image_id):
            raise UserError(f"{where}: its name or path leads out of the dataset", REMEDY)
        if row.split not in SPLITS or row.label not in labels:
            said = f"split {shown(row.split)!r}, label {shown(row.label)!r}"
            raise UserError(f"{where}: {said} are not known", REMEDY)
        if not row.patient_id:
            raise UserError(f"{where}: has no patient_id", REMEDY)
        if row.image_id in seen:
            raise UserError(f"{where}: stands there twice", REMEDY)
        if row.parent and row.split != "train":
            raise UserError(f"{where}: is an augmented image in {row.split}", REMEDY)
        seen.add(row.image_id)
        if home.setdefault(row.patient_id, row.split) != row.split:
            found = f"{shown(row.patient_id)} is in {home[row.patient_id]} and {row.split}"
            raise UserError(
                f"{where}: patient {found}, so results would be false",
                "organise again with: python main.py organize",
            )
