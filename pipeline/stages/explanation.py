"""The questionnaire's part on heat-maps: what a model looks at."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.labels import KEYS, Labels
from pipeline.options import Answers, between, option
from pipeline.records import made_by
from pipeline.runs import LATEST, detector_chosen, run_choices, run_problem
from pipeline.stages.shared import DEVICE, REPLICATES, RUNS, Common, advanced

SUREST, ALL_IMAGES = "surest", "all"
OCCLUSION, CALLED = "occlusion", "called"
OWN_METHOD = "auto"
ERRORS = "errors"  # what maps of an anomaly detector show in place of evidence
BENIGN, MALIGNANT = KEYS
# Evidence of the positive label and of the negative one go by the names of the usual pair.
SIGNS = {MALIGNANT: 1, BENIGN: -1}  # of what the logit of malignancy gains by evidence


def _shows_evidence(answers: Answers) -> bool:
    """Return whether the run has heat-maps of evidence: an anomaly detector's show errors."""
    return not detector_chosen(answers)


@dataclass(frozen=True, kw_only=True)
class Explain(Common):
    """Show where a model finds its evidence, or its errors: heat-maps."""

    run: str = option(
        LATEST,
        "Run to explain, evaluated before",
        choices=run_choices,
        other="a run folder or a model's name",
        find=run_problem,
        remember=False,
    )
    images: str = option(
        SUREST,
        "Test images to draw",
        choices={SUREST: "the surest errors and the surest hits", ALL_IMAGES: "all of them"},
        other="image ids",
        several=True,
        remember=False,
    )
    method: str = option(
        OWN_METHOD,
        "Method",
        choices={
            OWN_METHOD: "the one that hit most lesions of synthetic films with such networks",
            "gradcam++": "Grad-CAM++, which weighs what speaks for the class alone",
            "gradcam": "Grad-CAM, the one that most papers show",
            "hirescam": "HiRes-CAM, which shows only what the score was computed from",
            OCCLUSION: "hide part after part of the image: 256 times as slow, to check the others",
        },
        when=_shows_evidence,
    )
    evidence: str = advanced(
        CALLED,
        "Evidence to show",
        choices={
            CALLED: "for what the run calls the image at its operating point",
            MALIGNANT: "of malignancy, or of abnormality where that was learnt",
            BENIGN: "of a benign finding, or against what was learnt",
        },
        when=_shows_evidence,
    )
    count: int = advanced(
        6,
        "Images to draw of each outcome (true and false positives and negatives)",
        check=between(1, 10_000),
        when=lambda answers: answers["images"] == SUREST,
    )
    checks: int = advanced(
        40,
        "Test images for the slow checks: deletion, insertion, random weights, mirror image",
        words={"none": "without them"},
        check=between(1, 10_000),
    )
    data: Path | None = advanced(
        None,
        "Folder of the dataset",
        words={"auto": "the one that the run was evaluated on, where it lay then"},
        check=made_by("preprocess", "organize"),
    )
    replicates: int = REPLICATES("Bootstrap replicates for the 95 % intervals")
    device: str = DEVICE()
    runs: Path = RUNS()


def evidence_in_words(evidence: str, labels: Labels) -> str:
    """Return what the maps of a run show: "evidence of malignancy", "errors"."""
    if evidence == ERRORS:
        return "errors"
    if evidence == CALLED:
        return "evidence for what it calls the image"
    return f"evidence {labels.evidence(evidence == MALIGNANT)}"
