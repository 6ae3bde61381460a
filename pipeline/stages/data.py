"""The questionnaire's first part: the stages that make a dataset of a collection."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.options import (
    Answers,
    between,
    existing_file,
    existing_folder,
    named,
    odd_between,
    option,
    usable_output,
)
from pipeline.records import made_by
from pipeline.stages.collections import CBIS_DDSM, COLLECTIONS, FOLDERS, MENDELEY, MINI_MIAS, RSNA
from pipeline.stages.shared import AUGMENTATIONS, DATA, Common, advanced
from pipeline.tables import is_spreadsheet, unread_spreadsheets

PACKED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")  # files of many files


def _download_folder(path: Path) -> str | None:
    if path.is_file():
        packed = path.suffix.lower() in PACKED
        what = "is packed: unpack it, and give the folder that it makes" if packed else ""
        return what or "is a file: give the folder that the images are in"
    problem = existing_folder(path)
    hint = "python main.py synthesize makes one to try"
    return f"{problem}; {hint}" if problem else None


def _tables(path: Path) -> str | None:
    """Check that a folder holds tables, or that a table is there."""
    if path.is_file() and path.suffix.lower() == ".csv":
        return None
    if path.is_file():
        what = "a spreadsheet, which is not read: save" if is_spreadsheet(path) else "no CSV: give"
        return f"is {what} it as CSV (UTF-8)"
    if problem := existing_folder(path):
        return problem
    if any(path.glob("*.[cC][sS][vV]")):
        return None
    unread = unread_spreadsheets(path)
    return f"holds no CSV files{f'; {unread}' if unread else ''}"


def _is(*names: str) -> Callable[[Answers], bool]:
    """Return whether the collection is one of some."""
    return lambda answers: _collection_of(answers) in names


def _of_cases(answers: Answers) -> bool:
    return _is(CBIS_DDSM)(answers)


def _has_tables(answers: Answers) -> bool:
    return _is(CBIS_DDSM, RSNA, FOLDERS)(answers)


def _needs_images(answers: Answers) -> bool:
    return not answers["dry_run"]


def _of_both(answers: Answers) -> bool:
    return _of_cases(answers) and answers["finding"] == "both"


def _of_films(answers: Answers) -> bool:
    return _of_cases(answers) and answers["unit"] == "mammogram"


def _of_patches(answers: Answers) -> bool:
    return _of_cases(answers) and answers["unit"] == "patch"


_LIVE = named("sources.registry:live_counts")
_collection_of = named("sources.registry:collection_of")


@dataclass(frozen=True, kw_only=True)
class Organize(Common):
    """Sort a raw download by split and label: CBIS-DDSM, or one of the others."""

    source: Path = option(
        Path("raw"),
        "Folder of the raw download",
        check=_download_folder,
        when=lambda answers: not (answers["dry_run"] and answers["csv"]),
    )
    collection: str = advanced(
        "auto", "Which collection it is", choices={"auto": "as its files show", **COLLECTIONS}
    )
    csv: Path | None = advanced(
        None,
        "Folder of the tables, or a table",
        words={"auto": "in or beside the raw folder"},
        check=_tables,
        when=_has_tables,
    )
    out: Path = option(
        Path("dataset"), "Folder to write the dataset to", check=usable_output, when=_needs_images
    )
    unit: str = option(
        "mammogram",
        "What one image is",
        choices={
            "mammogram": "a whole mammogram",
            "crop": "the crop around one lesion",
            "patch": "a square of a mammogram: around each lesion, and as many of normal tissue",
        },
        when=_of_cases,
        counts=_LIVE,
    )
    finding: str = option(
        "mass",
        "Which findings",
        choices={"mass": "masses", "calc": "calcifications", "both": "both, pooled"},
        when=_of_cases,
        counts=_LIVE,
    )
    question: str = option(
        "auto",
        "Which question the labels answer",
        choices={
            "auto": "malignant-rest; of a collection without normal images benign-malignant",
            "malignant-rest": "is it malignant, or not",
            "benign-malignant": "is a finding benign or malignant; normal images are left out",
            "abnormal-normal": "is there a finding, benign or malignant, or none",
        },
        when=lambda answers: not _of_cases(answers),
        counts=_LIVE,
    )
    pooled: str = option(
        "drop-train",
        "Patients who are in train and in test",
        choices={
            "drop-train": "lose their training images",
            "drop-test": "lose their test images",
            "move-to-test": "are test patients",
        },
        when=_of_both,
        counts=_LIVE,
    )
    without_callback: str = option(
        "benign",
        "Lesions that are BENIGN_WITHOUT_CALLBACK",
        choices={"benign": "count as benign", "leave-out": "are left out"},
        when=_of_cases,
        counts=_LIVE,
    )
    mixed: str = advanced(
        "malignant",
        "Mammograms with benign and malignant lesions",
        choices={
            "malignant": "count as malignant",
            "leave-out": "are left out",
            "each": "stand under both labels (as older counts have it)",
        },
        when=_of_films,
        counts=_LIVE,
    )
    twins: str = advanced(
        "merged",
        "Mammograms that are stored twice, for masses and calcifications",
        choices={"merged": "are one image", "leave-out": "are left out"},
        when=lambda answers: _of_both(answers) and _of_films(answers),
        counts=_LIVE,
    )
    laterality: str = advanced(
        "both",
        "Which breasts",
        choices={"both": "left and right", "left": "left only", "right": "right only"},
        counts=_LIVE,
    )
    view: str = advanced(
        "both",
        "Which views",
        choices={"both": "CC and MLO", "cc": "CC only", "mlo": "MLO only"},
        counts=_LIVE,
    )
    exclude: Path | None = advanced(
        None,
        "File of image or patient ids to leave out, one a line",
        words={"none": "all stay"},
        check=existing_file,
    )
    cohort: str = advanced(
        "own",
        "Cohort",
        choices={
            "own": "as the other answers say",
            "original": "as the thesis project before this tool counted it",
        },
        when=_of_cases,
    )
    variants: str = advanced(
        "augment",
        "Further variants of a film, which somebody turned or mirrored",
        choices={"augment": "are augmented training images", "leave-out": "are left out"},
        when=_is(MENDELEY),
    )
    columns: str = advanced(
        "",
        'Columns of the table: "image=File,patient=ID,label=Class"',
        words={"auto": "by their names"},
        when=_is(FOLDERS),
        suggest=named("sources.folders.table:suggested_columns"),
        find=named("sources.folders.table:columns_problem"),
    )
    classes: str = advanced(
        "",
        'What each class is: "0=normal,1=malignant"',
        words={"auto": "by their names"},
        when=_is(FOLDERS),
    )
    test_share: float = advanced(
        0.2,
        "Share of the patients held out for the test (0.05 to 0.5)",
        check=between(0.05, 0.5),
        when=_is(RSNA, MENDELEY, MINI_MIAS, FOLDERS),
    )
    val_share: float = advanced(
        0.15,
        "Share of the training patients held out for validation (0.05 to 0.5)",
        check=between(0.05, 0.5),
    )
    folds: int = advanced(
        0,
        "Folds for cross-validation",
        words={"none": "only the plain split"},
        check=between(2, 50),
    )
    depth: str = advanced(
        "16",
        "Bits of a grey value in the images",
        choices={"16": "as in the collection", "8": "half the disk space"},
        when=_needs_images,
    )
    patch_side: int = advanced(
        0,
        "Side of the square patches in pixels of the film",
        words={"auto": "a fifth of a film's length: 1024, of small films less"},
        check=between(32, 4096),
        when=lambda answers: _of_patches(answers) and _needs_images(answers),
    )
    masks: bool = advanced(
        True,
        "Write the lesions' masks",
        when=lambda answers: answers["unit"] != "crop" and _needs_images(answers),
    )
    pseudonymize: bool = advanced(
        False,
        "Replace patient ids by keyed hashes (the key stays in .mammolab)",
        when=_needs_images,
    )
    dry_run: bool = advanced(
        False, "Only count the cohort, from the CSVs alone; write nothing", remember=False
    )
    check: bool = advanced(
        False,
        "Only check the download: what is missing or damaged",
        when=_needs_images,
        remember=False,
    )


def _switched_on(name: str) -> Any:
    return lambda answers: answers[name] not in ("none", False)


@dataclass(frozen=True, kw_only=True)
class Preprocess(Common):
    """Crop, remove annotations, blur, enhance contrast."""

    data: Path = option(
        Path("dataset"), "Folder of the organised dataset", check=made_by("organize")
    )
    out: Path = option(
        Path("preprocessed"), "Folder to write the preprocessed dataset to", check=usable_output
    )
    size: int = option(
        512,
        "Side of the square images in pixels",
        words={"full": "as large as the film"},
        check=between(64, 4096),
    )
    preview: int = option(
        0,
        "Preview: images to show the steps on",
        words={"none": "preprocess all"},
        check=between(1, 48),
        remember=False,
    )
    crop: str = advanced(
        "auto",
        "Crop the scanner's borders",
        choices={
            "auto": "where they are found in the image",
            "fixed": "by a fixed margin on each side",
            "none": "no",
        },
    )
    margin: float = advanced(
        0.02,
        "Margin to crop on each side, as a share of it",
        check=between(0, 0.2),
        when=lambda answers: answers["crop"] == "fixed",
    )
    annotations: bool = advanced(True, "Remove letters, labels and tape outside the breast")
    upright: bool = advanced(False, "Turn films upright that lie on a side or on their head")
    blur: str = advanced(
        "gaussian",
        "Smooth film grain",
        choices={
            "gaussian": "Gaussian blur",
            "bilateral": "bilateral filter, which keeps edges",
            "median": "median, which keeps edges and takes specks",
            "none": "no",
        },
    )
    blur_kernel: int = advanced(
        3,
        "Side of its kernel in pixels of the written image, odd (median: 3 or 5)",
        check=odd_between(3, 31),
        when=_switched_on("blur"),
    )
    clahe: bool = advanced(True, "Enhance local contrast (CLAHE)")
    clahe_clip: float = advanced(
        2.0, "CLAHE clip limit", check=between(0.5, 40), when=_switched_on("clahe")
    )
    clahe_tiles: int = advanced(
        8, "CLAHE tiles along each side", check=between(1, 64), when=_switched_on("clahe")
    )
    side: str = advanced(
        "as-is",
        "Side of the image that the chest wall is on",
        choices={
            "as-is": "as on the film",
            "left": "left: the other films are mirrored",
            "right": "right: the other films are mirrored",
        },
    )
    augment: str = advanced(
        "none",
        "Write augmented copies of the training images",
        choices={"none": "no: training augments on the fly"} | AUGMENTATIONS,
    )
    copies: int = advanced(
        2,
        "Augmented copies of each training image",
        check=between(1, 20),
        when=_switched_on("augment"),
    )
    fold: int = advanced(
        0,
        "Fold to write as the validation split",
        words={"none": "the plain train/val split, and all folds"},
        check=between(1, 50),
    )
    cluster: str = advanced(
        "",
        "Address of a Dask cluster to work on",
        words={"none": "this machine"},
        check=named("pipeline.cluster:address_problem"),
        remember=False,
    )


def _dataset_folder(path: Path) -> str | None:
    problem = existing_folder(path)
    return f"{problem}; run: python main.py organize" if problem else None


@dataclass(frozen=True, kw_only=True)
class Probe(Common):
    """Check that nothing but the breast predicts the label."""

    data: Path = DATA("Folder of the dataset to check", check=_dataset_folder)
