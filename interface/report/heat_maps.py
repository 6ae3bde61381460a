"""Maps of a run on the page: its gallery, their scores beside lesions, what checks found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interface.report.pictures import OUTCOMES, data_uri
from interface.report.reading.runs import RunView
from interface.report.reading.scores import FACTORS, interval_of
from interface.report.sheets import Sheet, SheetRow
from models.evaluation.predictions import maps_are_older
from models.evaluation.strata import FEW
from pipeline.errors import UserError
from pipeline.labels import KEYS, Labels
from pipeline.paths import inside
from pipeline.records import RECORD, read_json
from pipeline.stages.explanation import ERRORS, evidence_in_words
from pipeline.tables import read_table

HEAT_MAPS = "explanations"  # folder of a run
MAP_SIDE, MOST_MAPS = 384, 120  # pixels of a picture; pictures of a run on the page
MAP_COLUMNS = "image_id", "patient_id", "laterality", "view", "label", "outcome", "file"
MAP_KINDS = {"map": "Heat-map", "blob": "Centred blob", "breast": "Breast mask",
         "untrained": "Untrained network"}  # fmt: skip
MAP_SCORES = {"pointing": "Pointing game", "energy": "Energy in the lesion", "iou": "IoU",
              "pixel_auc": "Pixel AUC"}  # fmt: skip
ERROR_MAPS = {"restored": "What was given, what was restored and the error",
              "patches": "Distances to the nearest patch of normal images"}  # fmt: skip
MAP_METHODS = {"gradcam": "Grad-CAM", "gradcam++": "Grad-CAM++", "hirescam": "HiRes-CAM",
           "occlusion": "occlusion"}  # fmt: skip


@dataclass(frozen=True)
class HeatMap:
    """A test image with its heat-map."""

    source: str  # a JPEG as a data URI
    outcome: str  # "TP", "FP", "TN" or "FN"
    title: str  # the same in words
    name: str  # patient, side and view
    score: str  # what the run said of it: a probability, or an error, as people read it
    words: str  # the same in words, with what the map shows


@dataclass(frozen=True)
class Explanations:
    """What the page shows of the heat-maps of a run."""

    title: str  # "Heat-maps" or "Error maps"
    method: str  # what they are, to begin a sentence with
    shown: str  # what is bright in them, to go on with after "bright where"
    maps: Sequence[HeatMap]  # errors first
    counts: Mapping[str, int]  # of them, by outcome
    drawn: int  # how many there are, shown or not
    sheet: Sheet | None  # their scores; None where no mask is known
    strata: Sheet | None  # the scores of each kind of image
    checks: str  # what the checks found, in a sentence; empty without them
    older: bool  # whether the run was evaluated again since, with other probabilities or calls
    again: str  # the command that makes them again


def explanations_of(run: RunView) -> Explanations | None:
    """Read the heat-maps of a run; None where there are none, or they cannot be read."""
    folder = run.folder / HEAT_MAPS
    if not (folder / RECORD).is_file():
        return None
    try:
        facts = read_json(folder / "explanations.json")
        score = "error" if run.anomaly else "probability"
        columns = (*MAP_COLUMNS, score)
        lines = [line.cells for line in read_table(folder / "explanations.csv", columns).lines]
        drawn = sorted((line for line in lines if line["file"]), key=_errors_first(run))
        each = (_heat_map(folder, line, run) for line in drawn[:MOST_MAPS])
        shown = [found for found in each if found]
        sheet = _sheet(run, facts) if facts["scored"] else None
        strata, checks = _strata(run, facts), _checks(facts["checks"])
    except (UserError, KeyError, ValueError):
        return None
    counts = {name: sum(one.outcome == name for one in shown) for name in OUTCOMES}
    return Explanations(
        *_said_of(facts), shown, counts, len(drawn), sheet, strata, checks,
        maps_are_older(run.folder), f"python main.py explain --run {run.folder}",
    )  # fmt: skip


def _said_of(facts: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return title and method of the maps, and what is bright in them."""
    shown = evidence_in_words(facts["evidence"], Labels.recorded(facts))
    if facts["evidence"] != ERRORS:
        method = MAP_METHODS.get(facts["method"], facts["method"])
        return "Heat-maps", method, f"the network finds {shown}"
    method = ERROR_MAPS.get(facts["method"], facts["method"])
    return "Error maps", method, f"errors are large. {_scale(facts['scale'])}"


def _scale(scale: Mapping[str, Any]) -> str:
    """Say what the colours of all error maps of a run mean."""
    return (
        f"All maps are drawn on one scale, so colours compare between images: it begins at the "
        f"median error of pixels of {scale['images']} normal validation images "
        f"({scale['median']:.3g}), its middle is their {scale['quantile']:.1%} quantile "
        f"({scale['limit']:.3g}), its end {scale['top']:.3g}. The colours of its lower half are "
        "those of normal images"
    )


def _score(line: Mapping[str, str]) -> float:
    """Return the error of a line, or its probability."""
    return float(line["error"] if "error" in line else line["probability"])


def _errors_first(run: RunView) -> Any:
    threshold = run.anomaly.threshold if run.anomaly else run.threshold

    def key(line: Mapping[str, str]) -> tuple[bool, float, str]:
        sure = abs(_score(line) - threshold)
        return line["outcome"][0] == "T", -sure, line["image_id"]

    return key


def _heat_map(folder: Path, line: Mapping[str, str], run: RunView) -> HeatMap | None:
    # Three panels of an autoencoder stand beside each other.
    side = (2 if run.anomaly and not run.keeps_patches else 1) * MAP_SIDE
    if not (source := _picture(inside(folder, line["file"]), side)):
        return None
    name = f"{line['patient_id']} {line['laterality']} {line['view']}"
    title = run.outcome(*OUTCOMES[line["outcome"]])
    score, words = run.score_text(_score(line)), run.score_words(_score(line))
    if "evidence" in line:
        words += f", evidence shown: {line['evidence'].replace('_', ' ')}"
    return HeatMap(source, line["outcome"], title, name, score, words)


def _picture(path: Path, side: int) -> str:
    """Return a picture in colours as a JPEG data URI; empty text where it cannot be read."""
    import cv2

    from images.files import read_bytes

    try:
        picture = cv2.imdecode(read_bytes(path), cv2.IMREAD_COLOR)
    except UserError:
        return ""
    if picture is None:
        return ""
    scale = min(1.0, side / max(picture.shape[:2]))
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    done, content = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])
    return data_uri("image/jpeg", content.tobytes()) if done else ""


def _sheet(run: RunView, facts: Mapping[str, Any]) -> Sheet:
    errors = facts["evidence"] == ERRORS
    known = facts["scores"]["map"]["all"]  # maps of earlier versions have no pixel AUC
    names = {name: title for name, title in MAP_SCORES.items() if name in known}
    rows = [
        SheetRow(
            title, [interval_of(facts["scores"][kind][group][score]) for score in names], part=part
        )
        for group, part in _groups(facts).items()
        for kind, title in (MAP_KINDS | ({"map": "Error map"} if errors else {})).items()
    ]
    within = ""
    if "pixel_auc" in names:
        within = (
            "Pixel AUC: area under the ROC curve of the pixels inside the breast, those of lesions "
            "against others, the mean over images. "
        )
    caption = (
        f"{'Error maps' if errors else 'Heat-maps'} beside the outlines of lesions: "
        f"{facts['scored']} test images of {facts['patients']} patients. Pointing game: the share "
        "of images whose hottest pixel lies in a lesion, or within "
        f"{facts['tolerance']:.0%} of the side beside it. IoU: at the threshold that was best on "
        f"validation. {within}{_untrained(facts)}95 % intervals over patients."
    )
    return Sheet(f"{run.slug}/heat_maps", caption, ("Map", *names.values()), rows)


def _untrained(facts: Mapping[str, Any]) -> str:
    """Say how many untrained networks the baseline is the mean of."""
    count = facts.get("untrained_networks", 1)
    return f"Untrained network: the mean of {count} with random weights. " if count > 1 else ""


def _strata(run: RunView, facts: Mapping[str, Any]) -> Sheet | None:
    """Return what maps are worth in each stratum; None where an earlier version did not say."""
    if not (strata := facts.get("strata")):
        return None
    beside = [kind for kind in MAP_KINDS if kind not in ("map", "breast")]
    columns = (
        "Stratum", "Images", "Patients", *MAP_SCORES.values(),
        *(f"Pointing game, {MAP_KINDS[kind].lower()}" for kind in beside),
    )  # fmt: skip
    rows = [
        SheetRow(
            head=one["level"],
            cells=[
                one["images"],
                one["patients"],
                *(interval_of(one["scores"]["map"][score]) for score in MAP_SCORES),
                *(interval_of(one["scores"][kind]["pointing"]) for kind in beside),
            ],
            detail="too few to say anything" if one["images"] < FEW else "",
            part=FACTORS.get(one["factor"], one["factor"].capitalize()),
            kind="small" if one["images"] < FEW else "",
        )
        for one in strata
    ]
    caption = (
        "The same scores of each kind of image whose lesions are outlined. So many intervals are "
        f"looked at that some lie far off by chance; grey rows have fewer than {FEW} images."
    )
    return Sheet(f"{run.slug}/heat_map_strata", caption, columns, rows)


def _groups(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the groups of images by their names in JSON, as they are called on the page.

    Where the images of one label alone have lesions, as normal ones have none, theirs are all.
    """
    names = ("All images", *(name.capitalize() for name in Labels.recorded(facts).names))
    found = dict(zip(("all", *KEYS), names, strict=True))
    own = facts["scores"]["map"]
    both = all(own[key]["pointing"]["value"] is not None for key in found)
    return found if both else {"all": found["all"]}


def _checks(checks: Mapping[str, Any] | None) -> str:
    if not checks:
        return ""
    parts = []
    mirror = (checks.get("single_mirror") or {}).get("value")
    steps = [one for one in checks["randomised"] if one["correlation"] is not None]
    for name in ("deletion", "insertion"):
        if not checks[name]:  # of an anomaly detector, whose score is computed from its map
            continue
        own, blob = (checks[name][kind]["value"] for kind in ("map", "blob"))
        parts.append(f"area under the {name} curve {own:.2f} (centred blob {blob:.2f})")
    if mirror is not None:
        parts.append(f"correlation of single maps of mirror images {mirror:.2f}")
    if steps:
        each = ", ".join(f"{one['unit']} {one['correlation']:.2f}" for one in steps)
        parts.append(f"rank correlation with the maps of random weights, from the head on: {each}")
    return f"Checks on {checks['images']} test images: {'; '.join(parts)}."
