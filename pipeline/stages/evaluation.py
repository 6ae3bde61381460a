"""The questionnaire's last part: the stages that join, measure and compare what was trained."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.options import between, existing_file, option, usable_output
from pipeline.records import made_by
from pipeline.runs import (
    ALL_RUNS,
    LATEST,
    detector_chosen,
    evaluation_choices,
    member_choices,
    run_choices,
    run_problem,
)
from pipeline.stages.shared import FOLD, REPLICATES, RUNS, WRITTEN_RUNS, Common, advanced

# Options of evaluate that its figures depend on.
WAY = ("operating_point", "k", "target", "calibration", "aggregate", "tta", "replicates",
       "seed")  # fmt: skip
AUTO = "auto"  # of operating point and calibration: what suits the run
NEEDING_TARGET = ("sensitivity", "specificity", "cost", "quantile")


@dataclass(frozen=True, kw_only=True)
class Evaluate(Common):
    """Score a trained model on held-out images."""

    run: str = option(
        LATEST,
        "Run to evaluate, or all that wait for it",
        choices=evaluation_choices,
        other="run folders, models' names or latest",
        find=run_problem,
        several=True,
        when=lambda answers: answers.get("predictions") is None,
        remember=False,
    )
    data: Path | None = advanced(
        None,
        "Folder of the dataset",
        words={"auto": "the one that the run was trained on"},
        check=made_by("preprocess", "organize"),
    )
    predictions: Path | None = advanced(
        None,
        "Predictions made elsewhere, to measure instead: a CSV with image_id, patient_id, label, "
        "probability (or error, of an anomaly detector)",
        words={"none": "a run is measured"},
        check=existing_file,
        remember=False,
    )
    k: float = option(
        2.0,
        "Standard deviations above the mean error of normal images, from which an image is called "
        "anomalous",
        check=between(0.001, 1000),
        when=lambda answers: (
            answers["operating_point"] in (AUTO, "normals") and detector_chosen(answers)
        ),
    )
    operating_point: str = advanced(
        AUTO,
        "Operating point, chosen on validation",
        choices={
            AUTO: "youden; of an anomaly detector normals",
            "youden": "where sensitivity + specificity is largest",
            "sensitivity": "where a sensitivity is reached",
            "specificity": "where a specificity is reached",
            "cost": "where missed cancers and false alarms cost least",
            "f1": "where F1 is highest: for a search among few cancers",
            "half": "at a probability of 0.5",
            "normals": "k standard deviations above the mean of normal images",
            "quantile": "a quantile of normal images",
        },
    )
    target: float | None = advanced(
        None,
        "Sensitivity or specificity to reach, false alarms that a missed cancer is worth, or "
        "quantile",
        words={"auto": "0.9, 10 false alarms, or 0.95"},
        check=between(0.001, 1000),
        when=lambda answers: answers["operating_point"] in NEEDING_TARGET,
    )
    calibration: str = advanced(
        AUTO,
        "Calibrate the probabilities on validation",
        choices={
            AUTO: "temperature; an anomaly detector gives no probabilities",
            "temperature": "temperature scaling: one factor on the logits",
            "isotonic": "isotonic regression: steps; takes hundreds of images",
            "none": "no",
        },
    )
    aggregate: str = advanced(
        "max",
        "Score of a breast or a patient, from those of its images",
        choices={"max": "the highest", "mean": "the mean"},
    )
    tta: str = advanced(
        "none",
        "Average each image's score over its mirror images (test-time augmentation)",
        choices={"none": "no", "flips": "over the four of them"},
    )
    replicates: int = REPLICATES("Bootstrap replicates for the 95 % intervals")
    fold: int = FOLD(
        "Fold of the run, where all, latest or a model's name is given", words={"none": "any"}
    )
    runs: Path = RUNS()

    @property
    def way(self) -> dict[str, Any]:
        """The options that the figures depend on, beside the run and its data."""
        return {name: getattr(self, name) for name in WAY}


@dataclass(frozen=True, kw_only=True)
class Ensemble(Common):
    """Join trained runs into one: the mean of their logits."""

    members: str = option(
        ALL_RUNS,
        "Runs to join",
        choices=member_choices,
        other="run folders",
        find=run_problem,
        several=True,
        remember=False,
    )
    runs: Path = WRITTEN_RUNS()


@dataclass(frozen=True, kw_only=True)
class Compare(Common):
    """Compare evaluated runs: what can be ranked and what cannot."""

    out: Path = option(
        Path("reports/comparison"), "Folder to write the tables to", check=usable_output
    )
    sort: str = option(
        "auc",
        "Measure to sort by",
        choices={
            "auc": "ROC AUC",
            "pr_auc": "PR AUC",
            "sensitivity": "sensitivity",
            "specificity": "specificity",
            "balanced_accuracy": "balanced accuracy",
            "mcc": "Matthews correlation",
            "pf1": "probabilistic F1",
            "brier": "Brier score, lowest first",
            "ece": "calibration error, lowest first",
            "name": "name",
        },
    )
    filter: str = advanced("", "Only runs whose name contains this", words={"none": "all"})
    unit: str = advanced(
        "image",
        "What is counted",
        choices={"image": "images", "breast": "breasts", "patient": "patients"},
    )
    all_pairs: bool = advanced(
        False,
        "Compare every two runs, not only that of the highest AUC with the others (of 300 runs "
        "that takes half an hour)",
    )
    anomaly: bool = option(
        False,
        "Set anomaly detectors beside classifiers: accuracy, reliability and cost",
        when=lambda answers: detector_chosen({**answers, "run": ALL_RUNS}),
    )
    remeasure: bool = advanced(
        False,
        "Measure anew what networks cost, though it was measured on this machine",
        when=lambda answers: bool(answers["anomaly"]),
        remember=False,
    )
    price_of_leakage: bool = advanced(
        False,
        "Train one model again on a split by image, to show what such a split would have claimed",
        remember=False,
    )
    run: str = advanced(
        LATEST,
        "Run to train again for that",
        choices=run_choices,
        other="a run folder or a model's name",
        find=run_problem,
        when=lambda answers: bool(answers["price_of_leakage"]),
        remember=False,
    )
    replicates: int = REPLICATES("Bootstrap replicates of the comparison")
    runs: Path = RUNS()


@dataclass(frozen=True, kw_only=True)
class Report(Common):
    """Write one HTML page: data, models, metrics."""

    out: Path = option(Path("reports"), "Folder to write the report to", check=usable_output)
    runs: Path = RUNS(text="Folder that holds the runs")
