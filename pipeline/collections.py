"""What is said of each collection in reports, cards and pages: its paper, its films, its limits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CBIS_DDSM = "cbis-ddsm"


@dataclass(frozen=True)
class Source:
    """A collection as papers speak of it."""

    title: str  # "CBIS-DDSM"
    cited: str  # its name with its paper, as a noun
    films: str  # what its images are, in the plural
    licence: str  # under which it is given, as a sentence; empty where that is not known
    normals: bool  # whether it holds images without a finding


SOURCES = {
    CBIS_DDSM: Source(
        "CBIS-DDSM",
        "the Curated Breast Imaging Subset of DDSM (CBIS-DDSM; Lee et al. 2017, Sci Data 4:170177)",
        "digitised film mammograms of the 1990s",
        "CBIS-DDSM is given under CC BY 3.0 by the Cancer Imaging Archive: cite it.",
        normals=False,
    ),
    "rsna": Source(
        "RSNA Screening Mammography",
        "the RSNA Screening Mammography Breast Cancer Detection data (Carr et al. 2022, Kaggle)",
        "digital screening mammograms",
        "The RSNA data may be used under the rules of its competition, not commercially.",
        normals=True,
    ),
    "mendeley": Source(
        "Mendeley ywsbh3ndr8",
        "the Dataset of Breast Mammography Images with Masses (Huang and Lin 2020, Data Brief "
        "31:105928), which was made of INbreast, MIAS and DDSM",
        "parts of mammograms at 227 pixels, which somebody turned and contrast-enhanced",
        "The Mendeley data are given under CC BY 4.0: cite them.",
        normals=False,
    ),
    "mini-mias": Source(
        "mini-MIAS",
        "the mini-MIAS database of mammograms (Suckling et al. 1994, Int Congr Series 1069:375)",
        "digitised film mammograms at 0.2 mm a pixel",
        "MIAS may be used for research; its licence wants to be read and its paper cited.",
        normals=True,
    ),
    "ddsm-tfrecords": Source(
        "DDSM patches",
        "patches of DDSM and CBIS-DDSM as TFRecords (Scuccimarra 2018, Kaggle)",
        "patches of digitised film mammograms at 299 pixels",
        "The patches are of CBIS-DDSM (CC BY 3.0) and DDSM: cite both.",
        normals=True,
    ),
    "folders": Source("images in folders", "a collection of images in folders", "images", "", True),
    "merged": Source("several collections", "several collections", "images", "", True),
}


def collection_of(record: Mapping[str, Any]) -> str:
    """Return the name of the collection that a dataset was made of, by its completion record."""
    known = record.get("counts", {}).get("collection")
    return known if isinstance(known, str) and known in SOURCES else CBIS_DDSM


def source_of(record: Mapping[str, Any]) -> Source:
    """Return what is said of the collection that a dataset was made of."""
    return SOURCES[collection_of(record)]
