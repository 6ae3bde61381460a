"""Checks on a sample of test images whether heat-maps are true to their network."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.evaluation.scored import finite
from models.explanation.baselines import breast_in
from models.explanation.checks import (
    deletion_and_insertion,
    learnt_units,
    mirror_correlations,
    randomised,
)
from models.explanation.chosen import Case
from models.explanation.judging import MAP, Judge
from models.explanation.scores import as_json, mean_of
from models.explanation.subject import Subject
from pipeline.progress import Progress
from pipeline.records import digest
from pipeline.stages.explanation import CALLED, Explain


def check_maps(
    subject: Subject, judge: Judge, options: Explain, progress: Progress
) -> dict[str, Any]:
    """Check on a sample of test images whether maps are true to their network.

    Maps of errors are what the score of an anomaly detector is computed from, so hiding their
    hottest pixels lowers it by definition: deletion and insertion would say nothing of them.

    Returns:
        "images" (how many were looked at); "deletion" and "insertion" of the heat-map and of the
        centred blob, empty of a detector; "randomised", a rank correlation for each unit that lost
        what it learnt; "single_mirror", the correlation of single maps of images and of their
        mirror images.
    """
    cases = sample(subject.cases, options)
    names, patients = [case.image_id for case in cases], [case.patient_id for case in cases]
    areas = {} if subject.detector else _all_areas(subject, judge, options, names, progress)
    entry = f"changes/{digest(names)}"
    changes = judge.known(entry)
    if changes is None:
        changes = judge.keep(entry, _changes(subject, judge, options, names, progress))
    mirrored = np.array(changes["mirrored"], np.float64)  # null, of a flat map, is NaN
    known = ~np.isnan(mirrored)
    seen = [who for who, is_known in zip(patients, known, strict=True) if is_known]
    draws = options.replicates, options.seed
    return {
        "images": len(names),
        **{
            name: {
                kind: as_json(mean_of(np.array(found)[:, place], patients, *draws))
                for kind, found in areas.items()
            }
            for place, name in enumerate(("deletion", "insertion"))
        },
        "randomised": changes["randomised"],
        "single_mirror": as_json(mean_of(mirrored[known], seen, *draws)),
    }


def _all_areas(
    subject: Subject, judge: Judge, options: Explain, names: Sequence[str], progress: Progress
) -> dict[str, list[tuple[float, float]]]:
    """Return deletion and insertion of the maps of images, by kind; what is known is kept."""
    every = [(kind, name) for kind in (MAP, "blob") for name in names]
    left = [one for one in every if judge.known("areas/{}/{}".format(*one)) is None]
    if left:
        done = len(every) - len(left)
        with progress.track("Deletion and insertion", len(every), "images", done=done) as step:
            for kind, name in left:
                found = _areas(subject, judge, options, kind, name)
                judge.keep(f"areas/{kind}/{name}", found)
                step(1)
    return {kind: [judge.known(f"areas/{kind}/{name}") for name in names] for kind in (MAP, "blob")}


def _areas(
    subject: Subject, judge: Judge, options: Explain, kind: str, name: str
) -> tuple[float, float]:
    """Return the areas of deletion and insertion of one image's map of a kind."""
    (heat,), (image,) = judge.maps(kind, "test", [name]), subject.images("test", [name])
    (kept,) = subject.evidence(options.evidence, [name])
    return deletion_and_insertion(subject.model, image, heat, subject.compute, kept)


def _changes(
    subject: Subject, judge: Judge, options: Explain, names: Sequence[str], progress: Progress
) -> dict[str, Any]:
    """Return how maps change with random weights, unit by unit, and with the image mirrored."""
    images, maps = subject.images("test", names), judge.maps(MAP, "test", names)
    breasts = np.stack([breast_in(image) for image in images])
    model, compute = subject.model, subject.compute
    way = options.method, subject.evidence(options.evidence, names)
    steps = len(learnt_units(model.network)) + 1
    with progress.track("Random weights, mirror image", steps * len(names), "images") as step:
        changed = [
            {"unit": unit, "correlation": finite(value)}
            for unit, value in randomised(
                model, images, maps, breasts, compute, *way, options.seed, step
            )
        ]
        mirrored = mirror_correlations(model, images, compute, *way, step)
    return {"randomised": changed, "mirrored": [finite(value) for value in mirrored]}


def sample(cases: Sequence[Case], options: Explain) -> list[Case]:
    """Draw the images that are looked at: of those that the run calls what evidence is shown of.

    In the others there is little evidence to take away. Where there are none, of all.
    """
    fitting = [case for case in cases if options.evidence in (CALLED, case.called)] or list(cases)
    order = np.random.default_rng(options.seed).permutation(len(fitting))[: options.checks]
    return [fitting[place] for place in sorted(order.tolist())]
