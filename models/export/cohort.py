"""Whose images a run learnt from, in words for its model card, as far as the records tell."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.paths import from_here
from pipeline.provenance import NO_PATIENTS, collection_record, dataset_hash, has_patients, locate
from pipeline.records import read_record
from pipeline.stages.collections import CBIS_DDSM as CBIS
from pipeline.stages.collections import CITED, COLLECTIONS, collection_name

CBIS_DDSM = (
    "The Curated Breast Imaging Subset of DDSM (CBIS-DDSM; Lee et al. 2017, Sci Data 4:170177), "
    "digitised film mammograms of the United States, collected in the 1990s"
)
OF_CBIS = "CBIS-DDSM is given under CC BY 3.0 by the Cancer Imaging Archive: cite it."
FINDINGS = {"mass": "masses", "calc": "calcifications", "both": "masses and calcifications"}
UNITS = {
    "mammogram": "whole mammograms",
    "crop": "crops around lesions",
    "patch": "square patches of mammograms, of normal tissue and",
}


@dataclass(frozen=True)
class Cohort:
    """What a card says of the data."""

    kind: str  # for the hub's metadata
    name: str  # for people
    text: str  # in sentences
    warning: str = ""  # what belongs into the first lines; empty where nothing does
    licence: str = ""  # what to say of it; empty where nothing is known
    apart: str = "No patient is in two splits."


UNKNOWN = Cohort(
    "unknown",
    "unknown",
    "Where the images came from is not known here: the dataset of the run is not on the machine "
    "that exported it.",
)
CHANGED = Cohort(
    "unknown",
    "unknown",
    "Where the images came from is not known here: the dataset of the run was made anew since its "
    "training.",
)


def cohort_of(facts: Mapping[str, Any]) -> Cohort:
    """Follow a run's dataset back to its collection, as far as the folders are still there.

    Args:
        facts: model.json of the run.
    """
    try:
        place = from_here(Path(str(facts["data"])))
        record = read_record(place, "preprocess", "organize")
        if "data_hash" in facts and facts["data_hash"] != dataset_hash(place):
            return CHANGED
        if record["stage"] == "preprocess":
            place = locate(Path(record["options"]["data"]), place)
            record = read_record(place, "organize")
        chosen = _chosen(record["options"])
        source = locate(Path(record["options"]["source"]), place)
    except (UserError, KeyError, TypeError, ValueError):
        return UNKNOWN
    if (name := collection_name(record)) != CBIS:
        return _of_others(name, record, source)
    try:
        made = collection_record(source)
    except UserError:
        return Cohort(
            "cbis-ddsm", "CBIS-DDSM, unverified",
            f"Organised as CBIS-DDSM: {chosen}. The download is not on the machine that exported "
            "the run, so whether it was the real collection or a synthetic one was not checked.",
            licence=OF_CBIS,
        )  # fmt: skip
    if made is not None:
        return Cohort(
            "synthetic", "a synthetic collection",
            "A **synthetic** collection that a program drew to try the tool: it shows no patient, "
            f"and its figures say nothing about real mammograms. It has the form of CBIS-DDSM: "
            f"{chosen}.",
            "**It was trained on synthetic images and is of no use on real mammograms.**",
        )  # fmt: skip
    return Cohort("cbis-ddsm", "CBIS-DDSM", f"{CBIS_DDSM}: {chosen}.", licence=OF_CBIS)


def _of_others(name: str, record: Mapping[str, Any], source: Path) -> Cohort:
    """Return the cohort of a collection that is not CBIS-DDSM, whose licence is its own."""
    cited, kind = CITED[name]
    short = COLLECTIONS[name].partition(",")[0]
    apart = Cohort.apart
    if not has_patients(record):
        apart = f"{NO_PATIENTS[:1].upper()}{NO_PATIENTS[1:]}."
    licence = f"The images are under the terms of {short}: look at them before this is passed on."
    try:
        made = collection_record(source)
    except UserError:
        checked = " The download is not on the machine that exported the run, so whether it was "
        text = f"{cited}: {kind}.{checked}the real collection or a synthetic one was not checked."
        return Cohort(name, f"{short}, unverified", text, licence=licence, apart=apart)
    if made is None:
        return Cohort(name, short, f"{cited}: {kind}.", licence=licence, apart=apart)
    return Cohort(
        "synthetic", "a synthetic collection",
        "A **synthetic** collection that a program drew to try the tool: it shows no patient, and "
        f"its figures say nothing about real mammograms. It has the form of {short}.",
        "**It was trained on synthetic images and is of no use on real mammograms.**",
        apart=apart,
    )  # fmt: skip


def _chosen(options: Mapping[str, Any]) -> str:
    """Return which images were taken, in words."""
    unit, finding = str(options["unit"]), str(options["finding"])
    parts = [f"{UNITS.get(unit, unit)} with {FINDINGS.get(finding, finding)}"]
    if options.get("without_callback") == "leave-out":
        parts.append("without those that were benign without callback")
    for name, rest in (("laterality", "breasts"), ("view", "views")):
        if options.get(name, "both") != "both":
            parts.append(f"{options[name]} {rest} only")
    return ", ".join(parts)
