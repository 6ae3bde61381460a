"""The questionnaire's first part: the stages that make a dataset of a collection."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.options import Answers, between, existing_folder, named, option, usable_output

SMALL, REAL = 640, 5000  # height of a synthetic film in pixels


def film_height(size: str) -> int:
    """Return the height of a synthetic film in pixels: "small", "real" or a number."""
    return {"small": SMALL, "real": REAL}.get(size) or int(size)


def _film_size(size: str) -> str | None:
    if size in ("small", "real"):
        return None
    if size.isdecimal() and 256 <= int(size) <= 7200:
        return None
    return "must be small, real, or a height from 256 to 7200 pixels"


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every stage takes."""

    seed: int = option(42, "Seed of everything random", check=between(0, 2**31 - 1), advanced=True)
    workers: int = option(
        0, "Worker processes (0: one for each core)", check=between(0, 256), advanced=True
    )


@dataclass(frozen=True, kw_only=True)
class Synthesize(Common):
    """Write a small synthetic look-alike of CBIS-DDSM."""

    out: Path = option(Path("raw"), "Folder to write the collection to", check=usable_output)
    patients: int = option(60, "Number of patients", check=between(8, 5000))
    size: str = option(
        "small",
        "Height of the films in pixels",
        check=_film_size,
        choices={
            "small": f"{SMALL} pixels: quick to try",
            "real": f"about {REAL} pixels, 30 MB each: as the real collection",
        },
        other="another height in pixels",
    )
    layout: str = option(
        "descriptive",
        "Layout of the folders",
        choices={
            "descriptive": "NBIA Data Retriever, descriptive names (as downloaded today)",
            "descriptive-2023": "NBIA Data Retriever, descriptive names of 2023",
            "descriptive-old": "NBIA Data Retriever, descriptive names before 2020",
            "classic": "NBIA Data Retriever, classic names",
            "csv": "as the paths in the case description CSVs",
            "rest": "a zip file for each series, as the NBIA REST interface gives",
            "kaggle": "the JPEG copy on Kaggle",
        },
        advanced=True,
    )
    dialect: str = option(
        "windows",
        "Dialect of metadata.csv",
        choices={"windows": "back-slashes, LF", "linux": "slashes, CRLF"},
        when=lambda answers: answers["layout"] != "kaggle",
        advanced=True,
    )


def _download_folder(path: Path) -> str | None:
    problem = existing_folder(path)
    hint = "python main.py synthesize makes one to try"
    return f"{problem}; {hint}" if problem else None


def _existing_file(path: Path) -> str | None:
    return None if path.is_file() else "no such file"


def _folds(number: int) -> str | None:
    return None if number == 0 or 2 <= number <= 50 else "must be 0, or between 2 and 50"


def _needs_images(answers: Answers) -> bool:
    return not answers["dry_run"]


def _of_both(answers: Answers) -> bool:
    return bool(answers["finding"] == "both")


def _of_films(answers: Answers) -> bool:
    return bool(answers["unit"] == "mammogram")


_LIVE = named("sources.cbis_ddsm_collection:live_counts")


@dataclass(frozen=True, kw_only=True)
class Organize(Common):
    """Sort a raw CBIS-DDSM download by split and label."""

    source: Path = option(
        Path("raw"),
        "Folder of the raw download",
        check=_download_folder,
        when=lambda answers: not (answers["dry_run"] and answers["csv"]),
    )
    csv: Path | None = option(
        None,
        "Folder of the case CSVs (empty: in or beside the raw folder)",
        advanced=True,
    )
    out: Path = option(
        Path("dataset"),
        "Folder to write the dataset to",
        check=usable_output,
        when=_needs_images,
    )
    unit: str = option(
        "mammogram",
        "What one image is",
        choices={"mammogram": "a whole mammogram", "crop": "the crop around one lesion"},
        counts=_LIVE,
    )
    finding: str = option(
        "mass",
        "Which findings",
        choices={"mass": "masses", "calc": "calcifications", "both": "both, pooled"},
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
        counts=_LIVE,
    )
    mixed: str = option(
        "malignant",
        "Mammograms with benign and malignant lesions",
        choices={
            "malignant": "count as malignant",
            "leave-out": "are left out",
            "each": "stand under both labels (as older counts have it)",
        },
        when=_of_films,
        counts=_LIVE,
        advanced=True,
    )
    twins: str = option(
        "merged",
        "Mammograms that are stored twice, for masses and calcifications",
        choices={"merged": "are one image", "leave-out": "are left out"},
        when=lambda answers: _of_both(answers) and _of_films(answers),
        counts=_LIVE,
        advanced=True,
    )
    laterality: str = option(
        "both",
        "Which breasts",
        choices={"both": "left and right", "left": "left only", "right": "right only"},
        counts=_LIVE,
        advanced=True,
    )
    view: str = option(
        "both",
        "Which views",
        choices={"both": "CC and MLO", "cc": "CC only", "mlo": "MLO only"},
        counts=_LIVE,
        advanced=True,
    )
    exclude: Path | None = option(
        None,
        "File of image or patient ids to leave out, one a line (empty: none)",
        check=_existing_file,
        advanced=True,
    )
    cohort: str = option(
        "own",
        "Cohort",
        choices={
            "own": "as the other answers say",
            "original": "as the thesis project before this tool counted it",
        },
        advanced=True,
    )
    val_share: float = option(
        0.15,
        "Share of the training patients held out for validation (0.05 to 0.5)",
        check=between(0.05, 0.5),
        advanced=True,
    )
    folds: int = option(
        0, "Folds for cross-validation, beside that split (0: none)", check=_folds, advanced=True
    )
    depth: str = option(
        "16",
        "Bits of a grey value in the images",
        choices={"16": "as in the collection", "8": "half the disk space"},
        when=_needs_images,
        advanced=True,
    )
    masks: bool = option(
        True,
        "Write the lesions' masks",
        when=lambda answers: _of_films(answers) and _needs_images(answers),
        advanced=True,
    )
    pseudonymize: bool = option(
        False,
        "Replace patient ids by keyed hashes (the key stays in .mammolab)",
        when=_needs_images,
        advanced=True,
    )
    dry_run: bool = option(
        False,
        "Only count the cohort, from the CSVs alone; write nothing",
        remember=False,
        advanced=True,
    )
    check: bool = option(
        False,
        "Only check the download: what is missing or damaged",
        when=_needs_images,
        remember=False,
        advanced=True,
    )
