"""The methods section: what was done, in sentences for a thesis, filled from the runs."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from interface.report.data import Dataset
from interface.report.detectors import figure, what_it_is
from interface.report.groups import Group
from interface.report.reading.anomaly import Anomaly
from interface.report.reading.runs import RunView
from interface.report.reading.words import count, listed
from interface.report.recipes import Options, preprocessing_of, said, training_of
from interface.report.significance import titles_of
from pipeline.labels import Labels
from pipeline.stages.collections import CBIS_DDSM, CITED, collection_name

AGGREGATES = {"max": "highest", "mean": "mean"}
CALIBRATIONS = {
    "temperature": "temperature scaling (Guo et al. 2017)",
    "isotonic": "isotonic regression (Zadrozny & Elkan 2002)",
}
STATISTICS = ("python", "numpy", "scipy", "scikit-learn", "torch", "timm")


def methods(group: Group, dataset: Dataset | None, versions: Mapping[str, str]) -> list[str]:
    """Return paragraphs of plain text on the runs of one group.

    Args:
        group: The runs.
        dataset: What they were tested on; None where it is not known.
        versions: Of the packages behind the figures.
    """
    parts = [
        ("Data", _data(group, dataset)),
        ("Preprocessing", preprocessing_of(group.runs)),
        ("Models", _models(group.runs)),
        ("Training", training_of(group.runs)),
        ("Operating point and calibration", _operating_point(group)),
        ("Statistics", _statistics(group, versions)),
    ]
    return [f"{title}. {' '.join(found)}" for title, sentences in parts if (found := [*sentences])]


def _data(group: Group, dataset: Dataset | None) -> Iterator[str]:
    if dataset is None or not dataset.steps:
        yield (
            f"The models were tested on {count(group.test.images, 'image')} of "
            f"{count(group.test.patients, 'patient')}; where these came from is not recorded here."
        )
        return
    organised = dataset.step("organize")
    if dataset.synthetic:
        yield "The collection was synthetic: a program drew it, and it shows no patient."
    elif organised is not None and collection_name(organised.record) == CBIS_DDSM:
        yield (
            "The Curated Breast Imaging Subset of DDSM (CBIS-DDSM; Lee et al. 2017, Sci Data "
            "4:170177) was used, a retrospective collection of digitised film mammograms."
        )
    elif organised is not None:
        cited, kind = CITED[collection_name(organised.record)]
        yield f"The data were {cited}: {kind}."
    if organised is not None:
        expected = organised.listed
        known = f" The {organised.tables} listed {expected:,} of them." if expected else ""
        yield f"One image was a {organised.content}.{known}"
    for step in dataset.steps:
        what = "organising" if step.stage == "organize" else "preprocessing"
        excluded = step.lost or "none was excluded"
        yield f"After {what}, {step.cohort.in_words} were left; {excluded}."
    yield from _splits(group, dataset)


def _splits(group: Group, dataset: Dataset) -> Iterator[str]:
    assert dataset.final is not None
    splits = dataset.final.splits
    official = " the collection's official one:" if _is_official(dataset) else ""
    yield f"The test set was{official} {splits['test'].in_words}."
    if any(run.fold.number for run in group.runs):
        folds = max(run.fold.count for run in group.runs)
        yield f"All other patients were divided into {count(folds, 'fold')} for cross-validation."
    if any(not run.fold.number for run in group.runs):
        yield (
            f"Of the other patients, {splits['train'].in_words} were used for training and "
            f"{splits['val'].in_words} for validation."
        )
    yield _counting(dataset)


def _is_official(dataset: Dataset) -> bool:
    """Return whether the test set is one that the collection came with."""
    organised = dataset.step("organize")
    of_cbis = organised is None or collection_name(organised.record) == CBIS_DDSM
    return of_cbis and not dataset.synthetic


def _counting(dataset: Dataset) -> str:
    """Say how far partitions are apart, and when an image counted as positive."""
    assert dataset.final is not None
    labels, organised = dataset.final.labels, dataset.step("organize")
    apart = "No patient was in two partitions"
    if organised is not None and not organised.has_patients:
        apart = "The collection tells no patients, so one patient's images may be in two partitions"
    if labels.positive == "abnormal":
        return f"{apart}; an image counted as abnormal where it showed a finding."
    rest = "" if labels == Labels() else ", and as not malignant else, normal images included"
    return f"{apart}; an image counted as malignant where any of its lesions was{rest}."


def _models(runs: Sequence[RunView]) -> Iterator[str]:
    titles = titles_of(runs)
    found: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        found.setdefault((run.model, _network(run)), []).append(titles[run.name])
    kinds = Counter(model for model, _ in found)
    for (model, text), names in found.items():
        yield f"For {model if kinds[model] == 1 else listed(names)}, {text}."


def _network(run: RunView) -> str:
    if run.record["stage"] == "ensemble":
        return f"the score was the mean logit of several runs ({run.architecture})"
    if run.record["stage"] == "evaluate":
        return "the predictions were made elsewhere"
    if run.anomaly is not None:
        return f"{what_it_is(run)}{run.input_text} {run.training_text}"
    return f"the network {run.architecture}{run.input_text} {run.training_text}"


def _operating_point(group: Group) -> Iterator[str]:
    titles, best = titles_of(group.runs), group.best
    known = {
        titles[run.name]: {"rule": run.rule, "method": run.calibration["method"],
                           "aggregate": run.aggregate, "tta": run.tta,
                           "error": run.anomaly and run.anomaly.score}
        for run in group.runs
    }  # fmt: skip
    yield said(known, partial(_called, best.labels.positive))
    if best.anomaly is None:
        yield f"For {titles[best.name]}, this was {best.threshold:.3f}."
    else:
        yield f"For {titles[best.name]}, this was {_by_hand(best.anomaly)}."
    if classifiers := {title: given for title, given in known.items() if not given["error"]}:
        yield said(classifiers, _calibrated)
    if temperature := best.calibration["temperature"]:
        yield f"The temperature of {titles[best.name]} was {temperature:.2f}."
    yield said(
        known,
        lambda given: (
            "the score of a breast or a patient was the "
            f"{AGGREGATES.get(given['aggregate'], given['aggregate'])} of its images' scores"
        ),
    )
    if any(run.tta != "none" for run in group.runs):
        yield said(
            known,
            lambda given: "the score of an image was "
            + ("that of the image alone" if given["tta"] == "none"
               else "the mean logit over its four mirror images"),
        )  # fmt: skip


def _called(positive: str, given: Options) -> str:
    """Return from where on images were called positive, or anomalous."""
    rule = given["rule"]
    if given["error"] is None:
        return f"images were called {positive} at or above {_threshold(rule)}"
    if not rule.startswith(("mean", "quantile")):
        rule = f"the error with the rule: {rule}"
    return (
        f"images were called anomalous where their error, {given['error']}, reached {rule}; errors "
        "are no probabilities and were not calibrated"
    )


def _by_hand(anomaly: Anomaly) -> str:
    """Return a threshold with what it is made of."""
    away = anomaly.away(anomaly.threshold)
    return (
        f"{figure(anomaly.threshold)}, {away:.3g} standard deviations ({figure(anomaly.sd)}) above "
        f"the mean ({figure(anomaly.mean)}) of {anomaly.normals.get('val', 0)} normal validation "
        "images"
    )


def _threshold(rule: str) -> str:
    """Return the rule of an operating point as what a sentence can go on with."""
    if rule.startswith("Youden"):
        return f"the probability that maximised {rule}"
    if rule.startswith(("sensitivity", "specificity")):
        end = "highest" if rule.startswith("sensitivity") else "lowest"
        return f"the {end} probability with a {rule}"
    if rule.startswith(("fewest", "highest")):
        return f"the probability with the {rule}"
    return rule if rule.startswith("a probability") else f"a probability of {rule}"


def _calibrated(given: Options) -> str:
    method = given["method"]
    if method == "none":
        return "probabilities were not calibrated"
    return f"probabilities were calibrated on validation by {CALIBRATIONS.get(method, method)}"


def _lower(title: str) -> str:
    """Return a title within a sentence; an abbreviation in front keeps its capitals."""
    return title if title[1:2].isupper() else title[:1].lower() + title[1:]


def _statistics(group: Group, versions: Mapping[str, str]) -> Iterator[str]:
    run = group.best
    if not run.test.of("auc").known:
        yield "There were too few patients for intervals."
        return
    yield (
        f"Intervals were 95 % percentile intervals of {run.replicates:,} bootstrap replicates "
        f"(seed {run.seed}) that drew patients, with all their images, with replacement (Field & "
        "Welsh 2007), expanded for the number of patients (Hesterberg 2015)."
    )
    if group.significance is not None:
        pairs = len(group.significance.pairs)
        yield (
            f"The {'two runs' if pairs == 1 else f'{pairs} pairs of runs'} were compared on the "
            "same images by the paired bootstrap over patients, with p-values corrected by Holm's "
            "method (1979); DeLong's test (1988) and the exact McNemar test (1947) at the "
            "operating points, which take images for independent, were computed beside it."
        )
    if measured := [_lower(one.title) for one in group.baselines if one.units]:
        yield (
            "On the same images, the AUC was measured of sanity baselines, which are scores "
            f"without a trained network: {listed(measured)}."
        )
    if run.rare:
        yield (
            f"As few test images were {run.labels.positive}, the leading measure was the area "
            "under the precision-recall curve, as average precision, whose level by chance is "
            f"the prevalence ({run.test.base_rate or 0:.3f})"
            + ("." if run.anomaly else ", with probabilistic F1 (Yacouby & Axman 2020).")
        )
    detectors = [one for one in group.runs if one.anomaly]
    if detectors:
        yield (
            "Anomaly detectors were measured by how well their errors order the images, and by "
            "their calls."
        )
    if len(detectors) < len(group.runs):
        yield (
            f"Calibration {'of classifiers ' if detectors else ''}was measured by the Brier score "
            "and the expected calibration error in ten equal bins (Naeini et al. 2015), clinical "
            "use by decision curves (Vickers & Elkin 2006)."
        )
    yield (
        "The main result was that of the run with the highest validation AUC, not that of the "
        "highest test AUC."
    )
    used = [f"{name} {versions[name]}" for name in STATISTICS if name in versions]
    tool = "Mammolab" + (f" at commit {versions['commit']}" if "commit" in versions else "")
    yield f"The software was {listed([*used, tool])}."
