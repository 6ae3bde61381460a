"""A small but real collection, dataset and run, as the stages before the report leave them."""

import random

import cv2
import numpy as np

from interface.report.page import make_page
from interface.report.reading.runs import read_run
from pipeline import manifest
from pipeline.folds import Fold
from pipeline.progress import Silent
from pipeline.records import close_folder, file_digest, open_folder, write_json, write_table
from pipeline.runs import list_runs
from pipeline.stages.collections import Synthesize
from pipeline.stages.data import Organize, Preprocess
from pipeline.stages.evaluation import Report
from pipeline.stages.training import Train

METRICS = (
    "auc", "partial_auc", "pr_auc", "accuracy", "balanced_accuracy", "sensitivity", "specificity",
    "precision", "f1", "mcc", "sensitivity_at_specificity", "specificity_at_sensitivity", "brier",
    "ece",
)  # fmt: skip
COLUMNS = (
    "image_id", "patient_id", "laterality", "view", "label", "target", "probability", "predicted",
    "raw_probability",
)  # fmt: skip
FIGURES = ("roc", "pr", "confusion", "reliability", "decision", "history", "probabilities")
COST = {
    "parameters": 11177025, "gflops": 1.8, "train_minutes": 12.5, "images_per_second_1": 41.0,
    "images_per_second_32": 180.0, "peak_memory_mb": 612.0, "disk_mb": 44.7, "device": "cpu",
    "precision": "bf16",
}  # fmt: skip
COUNTS = {
    "expected": 60,
    "left_out": [{"why": "BENIGN_WITHOUT_CALLBACK", "lesions": 9, "images": 7, "patients": 3}],
}

PLAIN = Fold()
ROC = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:dc="http://purl.org/dc/elements/1.1/"
width="30" height="20"><dc:description>ROC of this run</dc:description></svg>"""


def page_of(root):
    """Return the page on the runs of a folder, without what a report writes beside it."""
    runs = [read_run(run) for run in list_runs(root / "runs") if run.evaluated]
    return make_page(runs, 0, Report(runs=root / "runs", out=root / "reports"), Silent())


def finish(folder, stage, options, seconds=3.0):
    open_folder(folder, stage, options)
    close_folder(folder, stage, options, {"images": {"train": 8}}, "abc", seconds)


def dataset(root, rows, synthetic=True, preview=True):
    """Write a collection, an organised and a preprocessed dataset; return the last."""
    raw, organised, prepared = root / "raw", root / "dataset", root / "preprocessed"
    raw.mkdir(parents=True)
    if synthetic:
        finish(raw, "synthesize", Synthesize(out=raw, patients=12))
    for folder, stage, options in (
        (organised, "organize", Organize(source=raw, out=organised)),
        (prepared, "preprocess", Preprocess(data=organised, out=prepared)),
    ):
        open_folder(folder, stage, options)
        manifest.write_manifest(folder, rows)
        close_folder(folder, stage, options, COUNTS, "abc", 2.0)
    reasons = [
        ("I_1", "missing: no file of series 1.3.6.1.4.1.9590 (mass train, Mass-Training_P_1)"),
        ("I_2", "missing: no file of series 1.3.6.1.4.1.9591 or 1.3.6.1.4.1.9592 (mass test, P_2)"),
        ("a b/c.dcm", "a b/c.dcm: is <truncated>; a b/d.dcm: is empty"),
    ]
    write_table(organised / "set_aside.csv", ("what", "reason"), reasons)
    noise = np.random.default_rng(0)
    for row in rows:
        path = prepared / row.path
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = noise.integers(0, 90, (96, 96), dtype=np.uint8)
        cv2.circle(picture, (48, 48), 20 if row.label == "benign" else 30, 200, -1)
        cv2.imwrite(str(path), picture)
    if preview:
        cv2.imwrite(str(prepared / "preview.png"), noise.integers(0, 255, (80, 300), np.uint8))
    return prepared


def cohort(patients, images=2, strange=""):
    """Return manifest rows of a cohort; a strange patient id goes into the test split."""
    rows = []
    for number in range(patients):
        split = ("train", "train", "val", "test")[number % 4]
        label = manifest.LABELS[(number // 4) % 2]
        patient = strange if strange and number == 3 else f"P_{number:05d}"
        for view in ("CC", "MLO")[:images]:
            name = f"I_{number:05d}_{view}"
            rows.append(
                manifest.Row(
                    image_id=name, patient_id=patient, split=split, label=label,
                    path=manifest.image_path(split, label, name), laterality="LEFT", view=view,
                    height=96, width=96,
                )
            )  # fmt: skip
    return rows


def run_folder(
    runs, data, rows, model="ResNet18_CFT", auc=0.9, unknown=(), evaluated=True, fold=PLAIN,
    seed=42, val_auc=None, said=None, strata=(), strategy="cft", weights="none",
):  # fmt: skip
    """Write a run as train and evaluate leave it; metrics named in `unknown` are null.

    `said` gives the probability of each image; without it they are drawn around the label.
    """
    folder = runs / model / f"20260102-03040{5 + fold.number}-{seed}"
    options = Train(
        data=data, runs=runs, model=model, weights=weights, epochs=6, fold=fold.number, seed=seed
    )
    open_folder(folder, "train", options)
    write_json(folder / "model.json", facts(model, data, rows, fold, strategy, weights))
    curve = [(e, 0.7 - 0.06 * e, 0.72 - 0.04 * e, 0.5 + 0.06 * e - 0.004 * e * e) for e in range(6)]
    write_table(folder / "history.csv", ("epoch", "train_loss", "val_loss", "val_auc"), curve)
    counts = {"epochs": 6, "best_epoch": 4, **fold.facts}
    close_folder(folder, "train", options, counts, "abc", 95.0)
    if not evaluated:
        return folder
    draw = random.Random(f"{auc} {seed} {fold.number}")
    splits = {}
    for split in ("val", "test"):
        value = val_auc if split == "val" and val_auc is not None else auc
        scored = predictions([row for row in rows if row.split == split], draw, auc, said)
        write_table(folder / f"predictions_{split}.csv", COLUMNS, scored)
        splits[split] = figures(scored, value, unknown)
    write_json(
        folder / "metrics.json",
        {
            "model": model, "run": str(folder), **fold.facts, "unit": "mammogram",
            "data": str(data), "data_hash": file_digest(data / "manifest.csv"),
            "weights": weights, "strategy": strategy,
            "calibration": {"method": "temperature", "temperature": 1.3, "x": [], "y": []},
            "aggregate": "max", "tta": "none", "replicates": 200, "seed": 42,
            "operating_point": {"threshold": 0.5, "rule": "Youden's J on validation"},
            "splits": splits,
            "units": {
                unit: {
                    "threshold": 0.45, "rule": "Youden's J on validation",
                    "splits": {name: by_patient(found) for name, found in splits.items()},
                }
                for unit in ("breast", "patient")
            },
            "uncalibrated": {split: {"brier": 0.21, "ece": 0.125} for split in splits},
            "strata": list(strata), "cost": COST, "notes": ["weights: none"],
        },
    )  # fmt: skip
    (folder / "figures").mkdir()
    for name in FIGURES:
        for suffix in ("svg", "png"):
            (folder / "figures" / f"{name}.{suffix}").write_text(f"{model} {name} {suffix}")
    (folder / "figures" / "roc.svg").write_text(ROC)
    return folder


def facts(model, data, rows, fold, strategy, weights):
    """Return model.json."""
    return {
        "model": model, "architecture": "resnet18", "strategy": strategy,
        "input": {"size": 224, "channels": 1, "mean": [0.5], "std": [0.2]},
        "weights": weights, "parameters": 11177025, "trainable": 11177025,
        "unit": "mammogram", "preprocess": {"size": 96, "clahe": False},
        "data": str(data), "data_hash": "abc",
        **fold.facts, "patients": {
            split: sorted({row.patient_id for row in rows if row.split == split})
            for split in ("train", "val")
        },
    }  # fmt: skip


def predictions(rows, draw, auc, said):
    """Return the lines of predictions_{val,test}.csv."""
    lines = []
    for row in rows:
        target = int(row.label == "malignant")
        raw = 1 / (1 + np.exp(-draw.gauss(3 * (auc - 0.5) * (2 * target - 1), 1)))
        probability = said[row.image_id] if said else 1 / (1 + (1 / raw - 1) ** (1 / 1.3))
        lines.append((row.image_id, row.patient_id, row.laterality, row.view, row.label, target,
                      probability, int(probability >= 0.5), raw))  # fmt: skip
    return lines


def figures(scored, value, unknown):
    """Return what metrics.json says of a split."""
    cells = [f"{'tf'[line[5] != line[7]]}{'np'[line[7]]}" for line in scored]
    malignant = sum(line[5] for line in scored)
    return {
        "images": len(scored), "patients": len({line[1] for line in scored}),
        "benign": len(scored) - malignant, "malignant": malignant,
        "metrics": {
            name: dict.fromkeys(("value", "low", "high"))
            if name in unknown
            else {"value": value, "low": value - 0.08, "high": min(value + 0.06, 1)}
            for name in METRICS
        },
        "confusion": {cell: cells.count(cell) for cell in ("tn", "fp", "fn", "tp")},
    }  # fmt: skip


def by_patient(found):
    """Return the figures of images as those of patients, of whom each has one breast here."""
    each = found["images"] // found["patients"]
    counts = {name: found[name] // each for name in ("images", "benign", "malignant")}
    return found | counts


def stratum(factor, level, value, small=False):
    """Return one line of the strata."""
    auc = {"value": value, "low": value - 0.1, "high": min(value + 0.1, 1)}
    return {"factor": factor, "level": level, "images": 12, "patients": 6, "malignant": 5,
            "auc": auc, "small": small}  # fmt: skip


def baselines(runs, data, rows, **strengths):
    """Write the baselines of a dataset: how far apart each puts the classes, or None for a problem.

    They are drawn, so that 0 is guessing and 9 predicts the label.
    """
    draw, found = random.Random(7), []
    for name, strength in strengths.items():
        said = {}
        for row in rows if strength is not None else ():
            shift = strength * ((row.label == "malignant") - 0.5)
            said[row.image_id] = 1 / (1 + np.exp(-draw.gauss(shift, 1)))
        found.append({
            "name": name, "title": name.capitalize(), "description": f"What {name} says.",
            "val": said, "test": said, "problem": "" if said else "no such column",
        })  # fmt: skip
    name = file_digest(data / "manifest.csv")
    (runs / ".baselines").mkdir(parents=True, exist_ok=True)
    write_json(
        runs / ".baselines" / f"{name}.json", {"data_hash": name, "seed": 1, "baselines": found}
    )
