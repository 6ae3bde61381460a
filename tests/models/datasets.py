"""A tiny dataset for tests: what preprocess leaves behind, with a difference that can be learnt."""

import cv2
import numpy as np

from pipeline.folds import write_folds
from pipeline.manifest import LABELS, POSITIVE, Row, image_path, read_manifest, write_manifest
from pipeline.options import checked
from pipeline.records import close_folder
from pipeline.stages.data import Organize, Preprocess
from pipeline.stages.tuning import Tune

PATIENTS = {"train": 12, "val": 6, "test": 6}
SIZE = 48


def picture(malignant, generator):
    """Noise under bright bars that lie (benign) or stand (malignant)."""
    image = generator.integers(0, 60, (SIZE, SIZE))
    bars = (np.arange(SIZE) + generator.integers(8)) % 8 < 3
    image += 150 * (bars[None, :] if malignant else bars[:, None])
    return image.astype(np.uint8)


def make_dataset(folder, patients=None, labels=LABELS, first=0, seed=5, stage="preprocess"):
    """Write a dataset of two images a patient, and return its folder."""
    generator = np.random.default_rng(seed)
    rows, number = [], first
    for split, count in (patients or PATIENTS).items():
        for _ in range(count):
            label = labels[number % len(labels)]
            for view in ("CC", "MLO"):
                patient_id = f"P_{number:05d}"
                image_id = f"{patient_id}_LEFT_{view}"
                path = image_path(split, label, image_id)
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                image = picture(label in POSITIVE, generator)
                cv2.imwrite(str(folder / path), image)
                row = Row(
                    image_id=image_id,
                    patient_id=patient_id,
                    split=split,
                    label=label,
                    path=path,
                    laterality="LEFT",
                    view=view,
                    height=image.shape[0],
                    width=image.shape[1],
                )
                rows.append(row)
            number += 1
    write_manifest(folder, rows)
    options = Preprocess(out=folder) if stage == "preprocess" else Organize(out=folder)
    close_folder(folder, stage, options, {}, "", 0.0)
    return folder


def divide(folder, count):
    """Deal the patients outside test to folds, pair by pair, so that each fold has both labels."""
    patients = sorted({row.patient_id for row in read_manifest(folder) if row.split != "test"})
    folds = {patient: number // 2 % count + 1 for number, patient in enumerate(patients)}
    write_folds(folder, folds)
    return folds


def tune_options(data, runs, **given):
    """Return the options of a quick search on a tiny dataset."""
    quick = {
        "data": data, "runs": runs, "model": "MammoCNN", "weights": "none", "trials": 3,
        "epochs": 2, "size": 32, "workers": 1, "device": "cpu", "precision": "fp32",
    }  # fmt: skip
    return checked(Tune, quick | given)
