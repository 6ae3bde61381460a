"""Small collections in the form of RSNA Screening Mammography, and a table as large as its own."""

import csv

import cv2
import numpy as np

COLUMNS = ["site_id", "patient_id", "image_id", "laterality", "view", "age", "cancer", "biopsy",
           "invasive", "BIRADS", "implant", "density", "machine_id",
           "difficult_negative_case"]  # fmt: skip
ROWS, PATIENTS, CANCERS = 54_706, 11_913, 1_158  # of the real collection


def row(patient, image, **values):
    """One row of the table."""
    given = {
        "site_id": 1, "patient_id": patient, "image_id": image, "laterality": "L", "view": "CC",
        "age": 61.0, "cancer": 0, "biopsy": 0, "invasive": 0, "BIRADS": 1.0, "implant": 0,
        "density": "B", "machine_id": 49, "difficult_negative_case": False,
    }  # fmt: skip
    return given | values


def some_rows(women=12):
    """Two images of each woman; every fourth woman has a cancer, every fifth a biopsy."""
    return [
        row(100 + woman, 1000 + 10 * woman + image, laterality="LR"[image],
            cancer=int(woman % 4 == 0 and image == 0), biopsy=int(woman % 5 == 0),
            site_id=1 + woman % 2)
        for woman in range(women) for image in range(2)
    ]  # fmt: skip


def write_table(path, rows, encoding="utf-8", separator=",", columns=None):
    """Write a table."""
    columns = columns or list(dict.fromkeys([name for one in rows for name in one]))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, columns, delimiter=separator, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_copies(folder, rows, name="{patient}/{image}.png", side=96):
    """Write a PNG file for each row, none like another."""
    for one in rows:
        path = folder / name.format(patient=one["patient_id"], image=one["image_id"])
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(one["image_id"]).integers(0, 256, (side, side // 2))
        assert cv2.imwrite(str(path), pixels.astype(np.uint8))
    return folder


def real_rows(women=PATIENTS, images=ROWS, cancers=CANCERS):
    """As many rows, women and cancers as the real table has, or fewer in its shares."""
    random = np.random.default_rng(0)
    counts = 4 + np.bincount(random.integers(0, women, images - 4 * women), minlength=women)
    ids = random.choice(65_000, women, replace=False) + 3
    ill = dict.fromkeys(random.permutation(women)[: -(-cancers // 2)].tolist(), 2)
    ill[next(iter(ill))] = 2 - cancers % 2
    image_ids = iter(random.choice(2**31, images, replace=False).tolist())
    rows = []
    for woman, count in enumerate(counts.tolist()):
        site, machine = 1 + int(random.random() < 0.46), int(random.choice([21, 29, 48, 49, 170]))
        density = str(random.choice(list("ABCD"), p=[0.1, 0.43, 0.4, 0.07])) if site == 1 else ""
        age, biopsied = float(random.integers(33, 90)), random.random() < 0.05
        for number in range(count):
            cancer = int(number % 2 == 0 and number // 2 < ill.get(woman, 0))
            rows.append(row(
                int(ids[woman]), next(image_ids), laterality="LR"[number % 2], age=age,
                view="CC" if number % 4 < 2 else "MLO", cancer=cancer,
                biopsy=int(cancer or biopsied), density=density, site_id=site, machine_id=machine,
                BIRADS="" if site == 2 else float(random.integers(0, 3)),
            ))  # fmt: skip
    return rows
