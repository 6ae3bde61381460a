"""Whose images a run learnt from, in words for its model card, as far as the records tell."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.collections import CBIS_DDSM, collection_of, source_of
from pipeline.errors import UserError
from pipeline.paths import from_here
from pipeline.provenance import collection_record, locate
from pipeline.records import read_record

FINDINGS = {"mass": "masses", "calc": "calcifications", "both": "masses and calcifications"}
QUESTIONS = {
    "malignant-rest": "malignant images against all others",
    "benign-malignant": "benign against malignant images",
    "abnormal-normal": "abnormal against normal images",
}
UNITS = {"mammogram": "whole mammograms", "crop": "crops around lesions"}


@dataclass(frozen=True)
class Cohort:
    """What a card says of the data."""

    kind: str  # for the hub's metadata
    name: str  # for people
    text: str  # in sentences
    warning: str = ""  # what belongs into the first lines; empty where nothing does
    licence: str = ""  # what to say of it; empty where nothing is known


UNKNOWN = Cohort(
    "unknown",
    "unknown",
    "Where the images came from is not known here: the dataset of the run is not on the machine "
    "that exported it.",
)


def cohort_of(facts: Mapping[str, Any]) -> Cohort:
    """Follow a run's dataset back to its collection, as far as the folders are still there.

    Args:
        facts: model.json of the run.
    """
    try:
        place = from_here(Path(str(facts["data"])))
        record = read_record(place, "preprocess", "organize")
        if record["stage"] == "preprocess":
            place = locate(Path(record["options"]["data"]), place)
            record = read_record(place, "organize")
        chosen = _chosen(record)
        source = locate(Path(record["options"]["source"]), place)
    except (UserError, KeyError, TypeError, ValueError):
        return UNKNOWN
    name, held = collection_of(record), source_of(record)
    try:
        made = collection_record(source)
    except UserError:
        return Cohort(
            name, f"{held.title}, unverified",
            f"Organised as {held.title}: {chosen}. The download is not on the machine that "
            "exported the run, so whether it was the real collection or a synthetic one was not "
            "checked.",
            licence=held.licence,
        )  # fmt: skip
    if made is not None:
        return Cohort(
            "synthetic", "a synthetic collection",
            "A **synthetic** collection that a program drew to try the tool: it shows no patient, "
            f"and its figures say nothing about real mammograms. It has the form of {held.title}: "
            f"{chosen}.",
            "**It was trained on synthetic images and is of no use on real mammograms.**",
        )  # fmt: skip
    cited = held.cited[:1].upper() + held.cited[1:]
    return Cohort(name, held.title, f"{cited}, {held.films}: {chosen}.", licence=held.licence)


def _chosen(record: Mapping[str, Any]) -> str:
    """Return which images were taken, in words."""
    options = record["options"]
    unit, finding = str(options["unit"]), str(options["finding"])
    if collection_of(record) == CBIS_DDSM:
        parts = [f"{UNITS.get(unit, unit)} with {FINDINGS.get(finding, finding)}"]
    else:
        parts = [QUESTIONS.get(str(options.get("question")), "images")]
    if options.get("without_callback") == "leave-out":
        parts.append("without those that were benign without callback")
    for name, rest in (("laterality", "breasts"), ("view", "views")):
        if options.get(name, "both") != "both":
            parts.append(f"{options[name]} {rest} only")
    return ", ".join(parts)
