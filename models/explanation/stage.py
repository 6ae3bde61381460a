"""The stage `explain`: maps of a run's evidence or errors, scored against the outlines."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.evaluation.predictions import ERROR
from models.explanation.baselines import BASELINES, DRAWS
from models.explanation.cams import own_method
from models.explanation.chosen import Case, cases_to_draw
from models.explanation.errors import FOLDER, SCORED, kind_of_map
from models.explanation.faithfulness import check_maps
from models.explanation.judging import KINDS, MAP, Found, Judge, kinds
from models.explanation.scores import (
    ALL,
    GROUPS,
    SCORES,
    THRESHOLDS,
    TOLERANCE,
    ScoredMaps,
    best_threshold,
    known_groups,
    strata_of,
)
from models.explanation.subject import Subject, read_subject
from models.inference import prepare_process
from models.registry import TARGET_LAYERS
from pipeline.errors import UserError
from pipeline.labels import Labels
from pipeline.options import defaults
from pipeline.progress import Progress, Result, Table
from pipeline.records import close_folder, open_folder, write_json, write_set_aside, write_table
from pipeline.stages.explanation import ERRORS, MALIGNANT, OCCLUSION, Explain, evidence_in_words

TABLE = "explanations.csv"
WHO = "image_id", "patient_id", "laterality", "view", "label"
FOUND = "file", "peak_x", "peak_y", "pointing", "energy", "iou", "pixel_auc"
COLUMNS = (*WHO, "probability", "outcome", "evidence", *FOUND)
ERROR_COLUMNS = (*WHO, ERROR, "outcome", *FOUND)  # of an anomaly detector
STAYS = 0.7  # rank correlation with the map of random weights above which a map is doubted


def explain(options: Explain, progress: Progress) -> Result:
    """Draw heat-maps of a run's test images, and score them beside the outlines of lesions.

    Returns:
        The folder `explanations` of the run: a PNG for each image that is drawn, explanations.csv
        with all test images, explanations.json with the scores, set_aside.csv with masks that could
        not be used. After Ctrl-C the same command continues.

    Raises:
        UserError: As `read_subject`; an image is named that is no test image; or method or evidence
            are asked for of an anomaly detector.
    """
    started = time.perf_counter()
    prepare_process(options.workers)
    subject = read_subject(options, progress)
    _refuse_meaningless(subject, options)
    drawn = cases_to_draw(subject.cases, options)
    folder = subject.run.folder / FOLDER
    used = options
    if not subject.detector:
        used = replace(options, method=own_method(subject.model, options.method))
    open_folder(folder, "explain", options)
    names = {case.image_id for case in drawn}
    for stale in folder.glob("*.png"):
        if stale.stem not in names:
            stale.unlink()
    judge = Judge(subject, used, folder, names, progress)
    found = judge.found(MAP, "test", progress)
    known = [case for case in subject.cases if found[case.image_id].judged is not None]
    scored = _score(judge, known, found, progress)
    checked = check_maps(subject, judge, used, progress) if options.checks else None
    _write_table(folder, subject, options.evidence, names, found, scored.get(MAP))
    write_set_aside(folder, subject.set_aside)
    facts = _facts(subject, used, known, scored, checked, len(drawn)) | _kind(subject, used, judge)
    write_json(folder / SCORED, facts)
    counts = {"images": len(subject.cases), "drawn": len(drawn), "scored": facts["scored"]}
    seconds = time.perf_counter() - started
    close_folder(folder, "explain", options, counts, subject.digest, seconds)
    return Result(
        folder=folder,
        headline=_headline(facts, len(drawn)),
        facts=facts,
        tables=_tables(facts),
        notes=tuple(_notes(facts, found)),
        set_aside=len(subject.set_aside),
        next_stage="report",
        next_options={"runs": options.runs},
    )


def _refuse_meaningless(subject: Subject, options: Explain) -> None:
    """Refuse what means nothing for an anomaly detector.

    Raises:
        UserError: It is asked for.
    """
    standard = defaults(Explain)
    for name in ("method", "evidence"):
        if subject.detector and (value := getattr(options, name)) != standard[name]:
            raise UserError(
                f"--{name} {value}: {subject.run.name} is an anomaly detector, whose maps show "
                "errors, not evidence",
                "leave it out",
            )


def _score(
    judge: Judge, cases: Sequence[Case], found: Mapping[str, Found], progress: Progress
) -> dict[str, ScoredMaps]:
    """Score maps of every kind on the test images whose lesions are known; empty without any."""
    if not cases:
        return {}
    malignant = np.array([case.malignant for case in cases], np.bool_)
    patients = [case.patient_id for case in cases]
    scored = {}
    for kind in KINDS:
        val = judge.found(kind, "val", progress).values()
        test = found if kind == MAP else judge.found(kind, "test", progress)
        threshold = best_threshold([one.judged for one in val if one.judged])
        judged = [one for case in cases if (one := test[case.image_id].judged)]
        scored[kind] = ScoredMaps.of(judged, malignant, patients, threshold)
    return scored


def _write_table(
    folder: Path,
    subject: Subject,
    wanted: str,
    drawn: set[str],
    found: Mapping[str, Found],
    scored: ScoredMaps | None,
) -> None:
    """Write explanations.csv: a line for each test image."""
    place = THRESHOLDS.index(scored.threshold) if scored else 0
    lines = []
    for case in subject.cases:
        one = found[case.image_id]
        peak = one.peak or ("", "")
        own = one.judged
        judged: tuple[float | str, ...] = ("",) * len(SCORES)
        if own:
            within = "" if own.pixel_auc is None else own.pixel_auc
            judged = own.pointing, own.energy, own.iou[place], within
        file = f"{case.image_id}.png" if case.image_id in drawn else ""
        said: tuple[str, ...] = repr(case.score), case.outcome
        if not subject.detector:
            (evidence,) = subject.evidence(wanted, [case.image_id])
            said += (subject.labels.label(evidence == MALIGNANT),)
        lines.append((case.image_id, case.patient_id, case.laterality, case.view, case.label,
                      *said, file, *peak, *judged))  # fmt: skip
    write_table(folder / TABLE, ERROR_COLUMNS if subject.detector else COLUMNS, lines)


def _facts(
    subject: Subject,
    options: Explain,
    known: Sequence[Case],
    scored: Mapping[str, ScoredMaps],
    checked: Mapping[str, Any] | None,
    drawn: int,
) -> dict[str, Any]:
    """Return explanations.json, but for `_kind`."""
    draws = options.replicates, options.seed
    own = scored.get(MAP)
    rows = [subject.row(case.image_id) for case in known]
    return {
        "run": str(subject.run.folder),
        "model": subject.run.model,
        **subject.labels.record,
        "images": len(subject.cases),
        "drawn": drawn,
        "scored": len(own.patients) if own else 0,
        "patients": len(set(own.patients)) if own else 0,
        "tolerance": TOLERANCE,
        "thresholds": {kind: found.threshold for kind, found in scored.items()},
        "scores": {kind: found.figures(*draws) for kind, found in scored.items()},
        "leads": {
            kind: own.figures(*draws, found)
            for kind, found in scored.items()
            if own and kind != MAP
        },
        "untrained_networks": DRAWS,
        "strata": strata_of(rows, scored, *draws),
        "checks": checked,
        "masks_set_aside": len(subject.lesions.set_aside),
    }


def _kind(subject: Subject, options: Explain, judge: Judge) -> dict[str, Any]:
    """Return what explanations.json says of what the maps are."""
    if judge.scale is not None:
        return {"method": kind_of_map(subject.model), "evidence": ERRORS, "layer": None,
                "scale": judge.scale.record}  # fmt: skip
    layer = TARGET_LAYERS[str(subject.model.facts["architecture"])]
    return {
        "method": options.method,
        "evidence": options.evidence,
        "layer": None if options.method == OCCLUSION else asdict(layer),
    }


def _headline(facts: Mapping[str, Any], drawn: int) -> str:
    what = "error map" if facts["evidence"] == ERRORS else "heat-map"
    pictures = f"{drawn} {what}{'s' * (drawn != 1)}"
    if not facts["scored"]:
        return f"{pictures} drawn; no test image has a mask that they could be scored with"
    own, blob = (facts["scores"][kind][ALL]["pointing"] for kind in (MAP, "blob"))
    return (
        f"{pictures} drawn; the hottest pixel lies in a lesion in {own['value']:.0%} of "
        f"{facts['scored']} test images, that of a centred blob in {blob['value']:.0%}"
    )


def _tables(facts: Mapping[str, Any]) -> tuple[Table, ...]:
    if not facts["scored"]:
        return ()
    tables, groups, known = [], _groups(facts), known_groups(facts["scores"][MAP])
    for score, title in SCORES.items():
        rows = []
        for kind, name in kinds(facts["evidence"] == ERRORS).items():
            found = facts["scores"][kind]
            rows.append((name, *(_cell(found[group][score]) for group in known)))
        columns = ("Map", *(groups[group] for group in known))
        tables.append(Table(f"{title} (95 % interval)", columns, tuple(rows)))
    return (*tables, _leads_table(facts), *_check_tables(facts["checks"]))


def _leads_table(facts: Mapping[str, Any]) -> Table:
    """Return how much more often the map hits, image by image: intervals of differences."""
    groups, known = _groups(facts), known_groups(facts["scores"][MAP])
    rows = tuple(
        (KINDS[kind], *(_cell(found[group]["pointing"], ", ") for group in known))
        for kind, found in facts["leads"].items()
    )
    own = kinds(facts["evidence"] == ERRORS)[MAP].lower()
    title = f"Pointing game, {own}'s lead (95 % interval)"
    return Table(title, ("Over", *(groups[group] for group in known)), rows)


def _groups(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return what the groups of images are called on the screen."""
    names = (ALL, *Labels.recorded(facts).names)
    return {group: name.capitalize() for group, name in zip(GROUPS, names, strict=True)}


def _cell(found: Mapping[str, float | None], to: str = "-") -> str:
    value, low, high = found["value"], found["low"], found["high"]
    shown = "-" if value is None else f"{value:.2f}"
    return shown if low is None or high is None else f"{shown} ({low:.2f}{to}{high:.2f})"


def _check_tables(checks: Mapping[str, Any] | None) -> list[Table]:
    if not checks:
        return []
    rows = [
        (f"{name.capitalize()}, {KINDS[kind].lower()}", _cell(found))
        for name in ("deletion", "insertion")
        for kind, found in checks[name].items()
    ]
    rows.append(("Single map of the mirror image, correlation", _cell(checks["single_mirror"])))
    title = f"Checks on {checks['images']} images"
    changed = tuple(
        (one["unit"], "-" if one["correlation"] is None else f"{one['correlation']:.2f}")
        for one in checks["randomised"]
    )
    return [
        Table(title, ("Check", "Value (95 % interval)"), tuple(rows)),
        Table(
            "Random weights from the head on",
            ("Up to the layer", "Rank correlation with the map"),
            changed,
        ),
    ]


def _notes(facts: Mapping[str, Any], found: Mapping[str, Found]) -> list[str]:
    """Return what to know before believing the maps."""
    notes = []
    cold = sum(one.peak is None for one in found.values())
    if cold:
        notes.append(
            f"{cold} of {len(found)} maps are empty: the network finds no "
            f"{evidence_in_words(facts['evidence'], Labels.recorded(facts))}; they count as "
            "equally warm everywhere"
        )
    if facts["masks_set_aside"]:
        notes.append(f"images with masks that cannot be used: {facts['masks_set_aside']}")
    for kind in BASELINES if facts["scored"] else ():
        low = facts["leads"][kind][ALL]["pointing"]["low"]
        if low is not None and low <= 0:
            notes.append(f"the maps do not point better than: {KINDS[kind].lower()}")
    return notes + _stay(facts)


def _stay(facts: Mapping[str, Any]) -> list[str]:
    """Say so where maps stay as they are while the layers that they look at lose what they learnt.

    That is those from the target layer on; of other maps all.
    """
    steps = facts["checks"]["randomised"] if facts["checks"] else []
    last = facts["layer"]["unit"] if facts["layer"] else None
    reached = [one for one in steps if one["unit"] == last] or steps[-1:]
    return [
        f"the maps hardly change with random weights from {one['unit']} to the head (rank "
        f"correlation {one['correlation']:.2f}): they say little of what was learnt there"
        for one in reached
        if one["correlation"] is not None and one["correlation"] > STAYS
    ]
