"""The reporting checklist CLAIM (Mongan, Moy & Kahn 2020), filled from the runs where they know.

Radiology: Artificial Intelligence 2(2):e200029. The items are in words of our own.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from interface.report.data import Dataset, Step
from interface.report.groups import Group
from interface.report.reading.runs import RunView
from interface.report.reading.words import count, listed
from interface.report.sheets import Sheet, SheetRow
from pipeline.labels import what_normal_is
from pipeline.stages.collections import CBIS_DDSM, CITED, collection_name

AUTHORS = "To be written by the authors"
ITEMS = (
    ("Title and abstract", 1, "Named as a study of artificial intelligence, with its kind"),
    ("Title and abstract", 2, "Structured summary of design, methods, results, conclusions"),
    ("Introduction", 3, "Background, intended use and clinical role"),
    ("Introduction", 4, "Objectives and hypotheses"),
    ("Study design", 5, "Prospective or retrospective"),
    ("Study design", 6, "Goal of the study"),
    ("Data", 7, "Sources of the data"),
    ("Data", 8, "Eligibility: how, where and when cases were found"),
    ("Data", 9, "Preprocessing"),
    ("Data", 10, "Selection of subsets"),
    ("Data", 11, "Definitions of the data elements"),
    ("Data", 12, "De-identification"),
    ("Data", 13, "Handling of missing data"),
    ("Ground truth", 14, "Definition of the reference standard"),
    ("Ground truth", 15, "Reason for choosing it"),
    ("Ground truth", 16, "Who annotated, and with what training"),
    ("Ground truth", 17, "Tools of annotation"),
    ("Ground truth", 18, "Variability between and within readers"),
    ("Partitions", 19, "Intended sample size and how it was found"),
    ("Partitions", 20, "How cases were assigned, and in what proportions"),
    ("Partitions", 21, "Level at which partitions are disjoint"),
    ("Model", 22, "Architecture, input and output"),
    ("Model", 23, "Software and versions"),
    ("Model", 24, "Initial values of the parameters"),
    ("Training", 25, "Training, augmentation, hyper-parameters, number of models"),
    ("Training", 26, "How the final model was selected"),
    ("Training", 27, "Ensembling"),
    ("Evaluation", 28, "Measures of performance"),
    ("Evaluation", 29, "Significance and uncertainty"),
    ("Evaluation", 30, "Robustness and sensitivity analysis"),
    ("Evaluation", 31, "Explanation of the model's decisions"),
    ("Evaluation", 32, "Test on external data"),
    ("Results", 33, "Flow of cases, with exclusions"),
    ("Results", 34, "Demographic and clinical features by partition"),
    ("Results", 35, "Performance on all partitions"),
    ("Results", 36, "Diagnostic accuracy and its precision"),
    ("Results", 37, "Failures"),
    ("Discussion", 38, "Limitations, bias, generality"),
    ("Discussion", 39, "Implications for practice"),
    ("Other", 40, "Registration"),
    ("Other", 41, "Where the protocol is"),
    ("Other", 42, "Funding, and the funders' part"),
)


@dataclass(frozen=True)
class Study:
    """What the checklist is filled from."""

    group: Group  # the runs of the main comparison
    dataset: Dataset | None  # what they were tested on; None where it is not known
    versions: Mapping[str, str]  # of the packages behind the figures


def claim_sheet(study: Study) -> Sheet:
    """Return the checklist with what the runs know of each item."""
    answers = _of_models(study) | _of_results(study)
    if study.dataset is not None and study.dataset.steps:
        answers |= _of_data(study.dataset)
    rows = [
        SheetRow(f"{number}", [item, answers.get(number) or AUTHORS], part=section,
                 kind="" if answers.get(number) else "open")
        for section, number, item in ITEMS
    ]  # fmt: skip
    known = sum(number in answers for _, number, _ in ITEMS)
    caption = (
        f"CLAIM, the checklist for artificial intelligence in medical imaging (Mongan, Moy & Kahn "
        f"2020): {known} of its {len(ITEMS)} items are filled from the runs, for the authors to "
        "check; the others are theirs to write."
    )
    return Sheet("claim", caption, ["Item", "What is to be reported", "In this study"], rows)


def _of_data(dataset: Dataset) -> dict[int, str]:
    organised, final = dataset.step("organize"), dataset.final
    assert final is not None
    splits = final.splits
    answers = {
        13: f"What could not be read was set aside with its reason: {_set_aside(dataset)}",
        20: "; ".join(f"{name} {splits[split].in_words}" for split, name in
                      (("train", "training"), ("val", "validation"), ("test", "test"))),
        21: _level(organised),
        33: "Section Data of this page, tables cohort and exclusions",
    }  # fmt: skip
    if organised is None:
        return answers
    options = organised.record["options"]
    answers[10] = f"One image is a {organised.content}; {organised.cohort.in_words}"
    if dataset.synthetic:
        return answers | {7: "Synthetic: drawn by a program; no patient is in it"}
    if (name := collection_name(organised.record)) != CBIS_DDSM:
        source, kind = CITED[name]
        labels = " or ".join(organised.labels.names)
        return answers | {7: f"{source}: {kind}", 14: f"What the collection gives: {labels}"}
    truth = (
        "Pathology as the collection gives it; an image is malignant where any of its lesions is; "
        "benign without callback counts as "
        + ("benign" if options.get("without_callback") == "benign" else "left out")
    )
    if options.get("unit") == "patch":
        normal = what_normal_is(organised.labels, "patch")
        truth = f"Outlines of lesions as the collection gives them; normal: {normal}"
    return answers | {
        5: "Retrospective",
        7: "CBIS-DDSM (Lee et al. 2017, Sci Data 4:170177), a public collection",
        12: "The collection was published without identities",
        14: truth,
    }


def _level(organised: Step | None) -> str:
    if organised is None or organised.has_patients:
        return "Patient: no patient is in two partitions"
    return "Image: the collection tells no patients"


def _set_aside(dataset: Dataset) -> str:
    return ", ".join(
        f"{step.excluded} in {'organising' if step.stage == 'organize' else 'preprocessing'}"
        for step in dataset.steps
    )


def _of_models(study: Study) -> dict[int, str]:
    runs, best = study.group.runs, study.group.best
    models = dict.fromkeys(run.model for run in runs)
    members = [run.model for run in runs if run.record["stage"] == "ensemble"]
    starts = dict.fromkeys(run.start for run in runs if run.record["stage"] == "train")
    tuned = [run for run in runs if run.tuning]
    return {
        9: "Section Preprocessing of this page" if best.preprocessing else "No preprocessing",
        22: f"{best.model}: {best.architecture}, input {best.size} x {best.size} pixels and "
            f"{count(best.channels, 'channel')}, output one "
            f"{'error' if best.anomaly else 'probability'}; {best.parameters:,} parameters",
        23: ", ".join(f"{name} {text}" for name, text in study.versions.items()),
        24: f"Networks started from {listed(starts)}" if starts else "",
        25: f"{count(len(runs), 'run')} of {count(len(models), 'model')}; options with each run on "
            "this page" + (f"; hyper-parameters of {count(len(tuned), 'run')} found by a search on "
                           "validation" if tuned else ""),
        26: _selection(study.group) + "; the test images had no say",
        27: f"Ensembles: {', '.join(members)}" if members else "No ensemble",
    }  # fmt: skip


def _of_results(study: Study) -> dict[int, str]:
    group, best = study.group, study.group.best
    answers = {
        28: "AUC, PR AUC, sensitivity, specificity, MCC"
            + (" and others" if best.anomaly else ", Brier score, calibration error and others"),
        29: ("None: too few patients for intervals" if not best.test.of("auc").known else
             f"95 % intervals, {best.replicates:,} bootstrap replicates over patients")
            + ("; paired comparison, Holm's correction" if group.significance else ""),
        35: "Validation and test: table Metrics of each run",
        36: f"{best.title}: {_areas(best)}AUC {best.test.of('auc').in_words}, sensitivity "
            f"{best.test.of('sensitivity').in_words}, specificity "
            f"{best.test.of('specificity').in_words}",
        37: "Surest errors of each run, with their images",
    }  # fmt: skip
    checks = []
    if best.strata:
        checks.append("strata of the test images")
    if group.baselines:
        checks.append("sanity baselines")
    if checks:
        answers[30] = " and ".join(checks).capitalize()
    return answers


def _selection(group: Group) -> str:
    """Return how epoch and run were chosen."""
    if not any(run.anomaly for run in group.runs):
        return "Highest validation AUC, epoch and run"
    epochs = "smallest error of normal validation images"
    if not all(run.anomaly for run in group.runs):
        epochs = f"highest validation AUC, of anomaly detectors {epochs}"
    return f"Epoch: {epochs}; run: highest validation AUC"


def _areas(run: RunView) -> str:
    """Return what leads where few test images are positive; empty elsewhere."""
    if not run.rare:
        return ""
    soft = "" if run.anomaly else f"pF1 {run.test.of('pf1').in_words}, "
    return f"PR AUC {run.test.of('pr_auc').in_words}, {soft}"
