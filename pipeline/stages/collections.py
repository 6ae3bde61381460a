"""The collections that the tool knows, and the stage that writes look-alikes of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.options import between, option, usable_output
from pipeline.stages.shared import Common, advanced

CBIS_DDSM, RSNA, MENDELEY = "cbis-ddsm", "rsna", "mendeley"
MINI_MIAS, TFRECORDS, FOLDERS, MERGED = "mini-mias", "ddsm-tfrecords", "folders", "merged"
COLLECTIONS = {
    CBIS_DDSM: "CBIS-DDSM (Cancer Imaging Archive), or its JPEG copy",
    RSNA: "RSNA Screening Mammography, DICOM or PNG copies",
    MENDELEY: "Mendeley ywsbh3ndr8 (INbreast, MIAS and DDSM, augmented)",
    MINI_MIAS: "mini-MIAS",
    TFRECORDS: "DDSM patches as TFRecords (Kaggle, skooch)",
    FOLDERS: "images in class folders, with or without a table",
    MERGED: "several datasets that organize made, in one folder",
}
SHORT_NAMES = {MERGED: "a set of datasets", FOLDERS: "a folder of images"}
# How each is cited, and what its images are: what a report or a model card says of the data.
CITED = {
    CBIS_DDSM: (
        "CBIS-DDSM (Lee et al. 2017, Sci Data 4:170177)", "digitised film mammograms of the 1990s"
    ),
    RSNA: (
        "RSNA Screening Mammography Breast Cancer Detection (Kaggle, 2022)",
        "digital screening mammograms",
    ),
    MENDELEY: (
        "Dataset of Breast Mammography Images with Masses, made of INbreast, MIAS and DDSM "
        "(Huang & Lin 2020, Data Brief 31:105928)",
        "mammograms of 227 pixels a side in variants that were turned and mirrored",
    ),
    MINI_MIAS: (
        "mini-MIAS (Suckling et al. 1994, Int Congr Series 1069:375)",
        "digitised film mammograms, MLO views",
    ),
    TFRECORDS: (
        "DDSM Mammography (Scuccimarra, Kaggle)",
        "patches of digitised film mammograms, negative ones from another archive",
    ),
    FOLDERS: ("images in class folders", "mammograms of a source that is not recorded"),
    MERGED: ("several collections, merged", "mammograms of several sources"),
}  # fmt: skip


def collection_name(record: Mapping[str, Any]) -> str:
    """Return which collection a dataset comes from, a key of COLLECTIONS.

    Args:
        record: stage.json of `organize`; before there were several it told of CBIS-DDSM's counts.
    """
    named = record.get("counts", {}).get("collection")
    return named if isinstance(named, str) and named in COLLECTIONS else CBIS_DDSM


SMALL, REAL = 640, 5000  # height of a synthetic film in pixels


def short_name(name: str) -> str:
    """Return what a collection is called in a sentence."""
    return SHORT_NAMES.get(name) or COLLECTIONS[name].partition(",")[0].partition(" (")[0]


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
class Synthesize(Common):
    """Write a small synthetic look-alike of a collection."""

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
    collection: str = advanced(
        CBIS_DDSM,
        "Which collection it looks like",
        choices={name: text for name, text in COLLECTIONS.items() if name != MERGED},
    )
    layout: str = advanced(
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
        when=lambda answers: answers["collection"] == CBIS_DDSM,
    )
    dialect: str = advanced(
        "windows",
        "Dialect of metadata.csv",
        choices={"windows": "back-slashes, LF", "linux": "slashes, CRLF"},
        when=lambda answers: answers["collection"] == CBIS_DDSM and answers["layout"] != "kaggle",
    )
