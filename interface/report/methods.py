"""The methods paragraph: what was done, in sentences to copy, filled from the runs."""

import re
from collections.abc import Iterator, Mapping, Sequence

from interface.report.cohort import described, lost
from interface.report.data import Dataset, settings
from interface.report.groups import Group
from interface.report.runs import RunView

FINDINGS = {"mass": "masses", "calc": "calcifications", "both": "masses and calcifications"}
STRATEGIES = {
    "opw": "frozen, with a logistic regression fitted on its features",
    "pft": "with its last stages and its head trained",
    "cft": "with all layers trained",
}
STATISTICS = ("python", "numpy", "scipy", "scikit-learn", "torch", "timm")
AGGREGATES = {"max": "highest", "mean": "mean"}
CALIBRATIONS = {
    "temperature": "temperature scaling (Guo et al. 2017)",
    "isotonic": "isotonic regression (Zadrozny & Elkan 2002)",
}
OWN = ("batch_size", "learning_rate", "weight_decay")  # of which 0 or none is the model's own
TRAINING = {
    "epochs": "epochs at most", "patience": "epochs of patience", "batch_size": "images a batch",
    "learning_rate": "learning rate", "weight_decay": "weight decay", "optimizer": "optimiser",
    "augment": "augmentation", "balance": "class balance", "label_smoothing": "label smoothing",
    "mixup": "mixup", "ema": "moving average", "seed": "seed", "precision": "precision",
}  # fmt: skip


def methods(group: Group, dataset: Dataset | None, versions: Mapping[str, str]) -> list[str]:
    """Return paragraphs of plain text on the runs of one group.

    Args:
        group: The runs.
        dataset: What they were tested on; None where it is not known.
        versions: Of the packages behind the figures.
    """
    parts = [
        ("Data", _data(group, dataset)),
        ("Preprocessing", _preprocessing(group.best)),
        ("Models", _models(group.runs)),
        ("Training", _training(group.runs)),
        ("Operating point and calibration", _operating_point(group.best)),
        ("Statistics", _statistics(group, versions)),
    ]
    return [f"{title}. {' '.join(found)}" for title, sentences in parts if (found := [*sentences])]


def _data(group: Group, dataset: Dataset | None) -> Iterator[str]:
    if dataset is None or not dataset.steps:
        yield (
            f"The models were tested on {group.test.images:,} images of "
            f"{group.test.patients:,} patients; where these come from is not recorded here."
        )
        return
    organised = dataset.step("organize")
    if dataset.synthetic:
        yield "The collection is synthetic: a program drew it, and no patient is in it."
    elif organised is not None:
        yield (
            "The Curated Breast Imaging Subset of DDSM (CBIS-DDSM; Lee et al. 2017, Sci Data "
            "4:170177) was used, a retrospective collection of digitised film mammograms."
        )
    if organised is not None:
        options = organised.record["options"]
        finding = FINDINGS.get(options.get("finding", ""), "findings")
        expected = organised.record["counts"].get("expected")
        known = f" The case descriptions list {expected:,}." if expected else ""
        yield f"One image is a {options.get('unit', 'mammogram')} with {finding}.{known}"
    for step in dataset.steps:
        lost_images = lost(step)
        what = "organising" if step.stage == "organize" else "preprocessing"
        left = f"After {what} {described(step.cohort)} were left"
        yield f"{left}: {lost_images}." if lost_images else f"{left}; none was excluded."
    yield from _splits(group, dataset)


def _splits(group: Group, dataset: Dataset) -> Iterator[str]:
    assert dataset.final is not None
    splits = dataset.final.splits
    folds = sorted({run.fold.number for run in group.runs} - {0})
    official = "" if dataset.synthetic else " the collection's official one:"
    yield f"The test set is{official} {described(splits['test'])}."
    if folds:
        count = max(run.fold.count for run in group.runs)
        yield f"All other patients were parted into {count} folds by patient."
    if any(not run.fold.number for run in group.runs):
        yield (
            f"Of the other patients {described(splits['train'])} were trained on and "
            f"{described(splits['val'])} validated on."
        )
    yield "No patient is in two partitions; an image is malignant where any of its lesions is."


def _preprocessing(run: RunView) -> Iterator[str]:
    if run.preprocessing is None:
        yield "Images were used as they were organised."
        return
    rows = settings("preprocess", run.preprocessing, ("seed", "fold", "augment", "copies"))
    bare = re.compile(r" \([^)]*\)")  # of a question, what its answers may be
    listed = "; ".join(f"{bare.sub('', question)}: {answer}" for question, answer in rows)
    yield f"All images went through the same steps, which no label enters. {listed}."


def _models(runs: Sequence[RunView]) -> Iterator[str]:
    seen: dict[str, RunView] = {}
    for run in runs:
        seen.setdefault(run.model, run)
    for run in seen.values():
        if run.record["stage"] == "ensemble":
            yield f"{run.model}: the mean logit of several runs ({run.architecture})."
            continue
        if run.record["stage"] == "evaluate":
            yield f"{run.model}: predictions that were made elsewhere."
            continue
        named = {"none": "random weights", "imagenet": "ImageNet weights"}
        start = named.get(run.weights, f"the weights of {run.weights}")
        how = STRATEGIES.get(run.strategy.lower(), run.strategy)
        yield (
            f"{run.model}: {run.architecture}, {how}, on "
            f"{run.size} x {run.size} pixels and {run.channels} channel"
            f"{'s' if run.channels > 1 else ''}, starting from {start}; {run.trainable:,} of "
            f"{run.parameters:,} parameters trained."
        )


def _training(runs: Sequence[RunView]) -> Iterator[str]:
    trained = [run for run in runs if run.record["stage"] == "train"]
    if not trained:
        return
    answers = [run.options for run in trained]
    names = [name for name in TRAINING if any(name in given for given in answers)]
    same = [name for name in names if len({repr(given.get(name)) for given in answers}) == 1]
    listed = ", ".join(f"{TRAINING[name]} {_said(name, answers[0].get(name))}" for name in same)
    several = f"{len(trained)} runs were trained, all with" if len(trained) > 1 else "Trained with"
    own = " (own: the model's own value)" if " own" in listed else ""
    yield f"{several}: {listed}{own}."
    for name in names:
        if name not in same:
            values = dict.fromkeys(_said(name, given.get(name)) for given in answers)
            yield f"{TRAINING[name].capitalize()}, by run: {', '.join(values)}."
    for run in trained:
        if run.tuning:
            yield (
                f"The hyper-parameters of {run.title} are those of the best trial (number "
                f"{run.tuning['trial']}) of a search for the highest validation AUC (Optuna, Akiba "
                f"et al. 2019; study {run.tuning['study']})."
            )
    yield (
        "The epoch of the highest validation AUC was kept; the test images had no part in "
        "training, in choosing epochs, in calibration or in choosing operating points."
    )


def _said(name: str, value: object) -> str:
    return "own" if name in OWN and not value else f"{value}"


def _operating_point(run: RunView) -> Iterator[str]:
    yield f"Images are called malignant from a probability on that was chosen by: {run.rule}."
    method, temperature = run.calibration["method"], run.calibration["temperature"]
    if method == "none":
        yield "Probabilities were not calibrated."
    else:
        by = CALIBRATIONS.get(method, method)
        degree = f", for {run.model} with a temperature of {temperature:.2f}" if temperature else ""
        yield f"Probabilities were calibrated on validation by {by}{degree}."
    how = AGGREGATES.get(run.aggregate, run.aggregate)
    yield f"A breast or a patient has the {how} score of its images."
    if run.tta != "none":
        yield "An image's score is the mean logit over its four mirror images."


def _statistics(group: Group, versions: Mapping[str, str]) -> Iterator[str]:
    run = group.best
    yield (
        f"Intervals are 95 % percentile intervals of {run.replicates:,} bootstrap replicates "
        f"(seed {run.seed}) that draw patients, with all their images, with replacement (Field & "
        "Welsh 2007), expanded for the number of patients (Hesterberg 2015)."
    )
    if group.significance is not None:
        yield (
            f"The {len(group.significance.pairs)} pairs of runs were compared on the same images "
            "by the paired bootstrap over patients, p-values corrected by Holm's method (1979); "
            "beside it stand DeLong's test (1988) and the exact McNemar test (1947) at the "
            "operating points, which take images for independent."
        )
    yield (
        "Calibration: Brier score and expected calibration error in ten equal bins (Naeini et al. "
        "2015). Clinical use: decision curves (Vickers & Elkin 2006). The main result is that of "
        "the run with the highest validation AUC, not that of the highest test AUC."
    )
    used = [f"{name} {versions[name]}" for name in STATISTICS if name in versions]
    commit = f", Mammolab at commit {versions['commit']}" if "commit" in versions else ", Mammolab"
    yield f"Software: {', '.join(used)}{commit}."
