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
    images = subject.images("test", names)
    model, compute = subject.model, subject.compute
    evidence = subject.evidence(options.evidence, names)
    way = options.method, evidence
    shown = judge.maps(MAP, "test", names)
    areas: dict[str, list[tuple[float, float]]] = {}
    if not subject.detector:
        with progress.track("Deletion and insertion", 2 * len(images), "images") as advance:
            for kind, maps in ((MAP, shown), ("blob", judge.maps("blob", "test", names))):
                areas[kind] = []
                for image, heat, kept in zip(images, maps, evidence, strict=True):
                    areas[kind].append(deletion_and_insertion(model, image, heat, compute, kept))
                    advance(1)
    breasts = np.stack([breast_in(image) for image in images])
    steps = len(learnt_units(model.network)) + 1
    with progress.track("Random weights, mirror image", steps * len(images), "images") as step:
        changed = [
            {"unit": unit, "correlation": finite(value)}
            for unit, value in randomised(
                model, images, shown, breasts, compute, *way, options.seed, step
            )
        ]
        mirrored = mirror_correlations(model, images, compute, *way, step)
    known = ~np.isnan(mirrored)
    seen = [who for who, is_known in zip(patients, known, strict=True) if is_known]
    draws = options.replicates, options.seed
    return {
        "images": len(images),
        **{
            name: {
                kind: as_json(mean_of(np.array(found)[:, place], patients, *draws))
                for kind, found in areas.items()
            }
            for place, name in enumerate(("deletion", "insertion"))
        },
        "randomised": changed,
        "single_mirror": as_json(mean_of(mirrored[known], seen, *draws)),
    }


def sample(cases: Sequence[Case], options: Explain) -> list[Case]:
    """Draw the images that are looked at: of those that the run calls what evidence is shown of.

    In the others there is little evidence to take away. Where there are none, of all.
    """
    fitting = [case for case in cases if options.evidence in (CALLED, case.called)] or list(cases)
    order = np.random.default_rng(options.seed).permutation(len(fitting))[: options.checks]
    return [fitting[place] for place in sorted(order.tolist())]
