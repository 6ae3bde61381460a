"""What the page says of an anomaly detector: what normal was, and how its threshold was set."""

from collections.abc import Iterable

from interface.report.data import Dataset
from interface.report.reading.runs import RunView
from interface.report.reading.words import count
from interface.report.sheets import Cell, Sheet, SheetRow
from models.metrics import OF_PROBABILITIES
from pipeline.labels import is_normal, what_normal_is
from pipeline.manifest import NORMAL

CITED = {  # what detectors are, by the beginning of their architecture
    "cae": "a convolutional autoencoder (Masci et al. 2011)",
    "vae": "a variational autoencoder (Kingma & Welling 2014)",
}
PATCH_CORE = "the second and third stage of {} with a memory bank (PatchCore; Roth et al. 2022)"


def what_it_is(run: RunView) -> str:
    """Return what kind of detector a run is, with who described it."""
    kind = CITED.get(run.architecture.partition("_")[0])
    if kind is None:
        return PATCH_CORE.format(run.architecture)
    return f"{kind} with residual blocks (He et al. 2016)"


def normal_text(run: RunView, dataset: Dataset | None) -> str:
    """Say what normal was: which images it learnt from, and which set the threshold."""
    assert run.anomaly is not None
    rows = dataset.final.rows if dataset is not None and dataset.final is not None else ()
    learnt = [
        row
        for row in rows
        if is_normal(row) and row.patient_id in run.trained_patients and not row.parent
    ]
    if run.elsewhere:
        source = "What it learnt from is not known here"
    elif learnt and run.data == run.trained_on:
        patients = len({row.patient_id for row in learnt})
        source = (
            f"It learnt from {count(len(learnt), 'normal image')} of {count(patients, 'patient')}"
        )
    else:
        source = "It learnt from the normal images of its training data"
    meaning = what_normal_is(run.labels, run.unit, _leaves_normals_out(dataset))
    if run.labels.negative != NORMAL and any(row.diagnosis for row in rows):
        meaning = "those that show no finding, as the collection tells"
    val = run.anomaly.normals.get("val", 0)
    apart = "" if run.elsewhere else ", and never from a label of a lesion"
    return (
        f"{source}{apart}. Normal images are {meaning}. The errors of "
        f"{count(val, 'other normal image')}, of validation, set its threshold."
    )


def _leaves_normals_out(dataset: Dataset | None) -> bool:
    """Return whether the normal images of a collection were left out by its question."""
    organised = dataset.step("organize") if dataset is not None else None
    return organised is not None and any("normal" in text for text, _ in organised.left_out)


def rule_text(run: RunView) -> str:
    """Say how the threshold of single images was found, so that it can be computed by hand."""
    anomaly = run.anomaly
    assert anomaly is not None
    away = anomaly.away(anomaly.threshold)
    times, sd = "\N{MULTIPLICATION SIGN}", figure(anomaly.sd)
    return (
        f"An image is called anomalous where its error, {anomaly.score}, reaches "
        f"{figure(anomaly.threshold)} = {figure(anomaly.mean)} + {away:.3g} {times} {sd}: mean + k "
        f"{times} standard deviation of the errors of normal validation images. Rule: {run.rule}."
    )


def figure(error: float) -> str:
    """Return an error to four digits."""
    return f"{error:.4g}"


def threshold_sheet(run: RunView) -> Sheet:
    """Return the threshold with what it is made of, and how many normal images it flags."""
    anomaly = run.anomaly
    assert anomaly is not None
    away = anomaly.away(anomaly.threshold)
    rows: list[tuple[str, Cell]] = [
        ("Error", anomaly.score),
        ("Mean of normal validation images", figure(anomaly.mean)),
        ("Standard deviation of them", figure(anomaly.sd)),
        ("k, standard deviations from the mean to the threshold", f"{away:.3g}"),
        ("Threshold", figure(anomaly.threshold)),
        ("Rule", run.rule),
    ]
    for split, name in (("val", "validation"), ("test", "test")):
        share, number = anomaly.flagged.get(split), anomaly.normals.get(split, 0)
        if share is not None:
            text = f"{round(share * number)} of {number} ({share:.1%})"
            rows.append((f"Normal {name} images called anomalous", text))
    caption = "Threshold of single images, an error; set by normal validation images"
    if not run.rule.startswith(("mean", "quantile")):
        caption = "Threshold of single images, an error; its rule looked at labels of validation"
    listed = [SheetRow(name, [cell]) for name, cell in rows]
    return Sheet(f"{run.slug}/threshold", caption, ["Of", "Value"], listed)


def measures(names: Iterable[str], runs: Iterable[RunView]) -> list[str]:
    """Return the measures that runs share: those of probabilities not where one gives errors."""
    without = OF_PROBABILITIES if any(run.anomaly for run in runs) else ()
    return [name for name in names if name not in without]
