"""A small but real collection, dataset and run, as the stages before the report leave them."""

import random

import cv2
import numpy as np

from pipeline import manifest
from pipeline.folds import Fold
from pipeline.records import close_folder, file_digest, open_folder, write_json, write_table
from pipeline.stages import Organize, Preprocess, Synthesize, Train

METRICS = (
    "auc", "pr_auc", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "precision",
    "f1", "mcc", "brier",
)  # fmt: skip
COUNTS = {
    "expected": 60,
    "left_out": [{"why": "BENIGN_WITHOUT_CALLBACK", "lesions": 9, "images": 7, "patients": 3}],
}

PLAIN = Fold()


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
    runs, data, rows, model="ResNet18_CFT", auc=0.9, unknown=(), evaluated=True, fold=PLAIN
):  # fmt: skip
    """Write a run as train and evaluate leave it; metrics named in `unknown` are null."""
    folder = runs / model / f"20260102-03040{5 + fold.number}-42"
    number = fold.number
    options = Train(data=data, runs=runs, model=model, weights="none", epochs=6, fold=number)
    open_folder(folder, "train", options)
    write_json(
        folder / "model.json",
        {
            "model": model, "architecture": "resnet18", "strategy": "CFT",
            "input": {"size": 224, "channels": 3, "mean": [0.5], "std": [0.2]},
            "weights": "none", "parameters": 11177025, "trainable": 11177025,
            "unit": "mammogram", "preprocess": {"size": 96, "clahe": False},
            "data": str(data), "data_hash": "abc",
            **fold.facts, "patients": {
                split: sorted({row.patient_id for row in rows if row.split == split})
                for split in ("train", "val")
            },
        },
    )  # fmt: skip
    curve = [(e, 0.7 - 0.06 * e, 0.72 - 0.04 * e, 0.5 + 0.06 * e - 0.004 * e * e) for e in range(6)]
    write_table(folder / "history.csv", ("epoch", "train_loss", "val_loss", "val_auc"), curve)
    counts = {"epochs": 6, "best_epoch": 4, **fold.facts}
    close_folder(folder, "train", options, counts, "abc", 95.0)
    if not evaluated:
        return folder
    draw = random.Random(auc)
    splits = {}
    for split in ("val", "test"):
        chosen = [row for row in rows if row.split == split]
        scored = []
        for row in chosen:
            target = int(row.label == "malignant")
            probability = 1 / (1 + np.exp(-draw.gauss(3 * (auc - 0.5) * (2 * target - 1), 1)))
            scored.append((row, target, probability, int(probability >= 0.5)))
        write_table(
            folder / f"predictions_{split}.csv",
            ("image_id", "patient_id", "laterality", "view", "label", "target", "probability",
             "predicted"),
            [(r.image_id, r.patient_id, r.laterality, r.view, r.label, t, p, c)
             for r, t, p, c in scored],
        )  # fmt: skip
        cells = [f"{'tf'[t != c]}{'np'[c]}" for _, t, _, c in scored]
        malignant = sum(t for _, t, _, _ in scored)
        splits[split] = {
            "images": len(chosen), "patients": len({row.patient_id for row in chosen}),
            "benign": len(chosen) - malignant, "malignant": malignant,
            "metrics": {
                name: dict.fromkeys(("value", "low", "high"))
                if name in unknown
                else {"value": auc, "low": auc - 0.08, "high": min(auc + 0.06, 1)}
                for name in METRICS
            },
            "confusion": {cell: cells.count(cell) for cell in ("tn", "fp", "fn", "tp")},
        }  # fmt: skip
    write_json(
        folder / "metrics.json",
        {
            "model": model, "run": str(folder), "unit": "mammogram",
            "data": str(data), "data_hash": file_digest(data / "manifest.csv"),
            "weights": "none", "strategy": "CFT",
            "operating_point": {"threshold": 0.5, "rule": "Youden"},
            "replicates": 200, "seed": 42, "splits": splits, "notes": ["weights: none"],
        },
    )  # fmt: skip
    return folder
