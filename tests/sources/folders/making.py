"""Folders as people have them, made for tests, and what organising them gives."""

import csv
from collections import Counter

import numpy as np

from images.files import write_png
from organize_data import organize
from pipeline.manifest import read_manifest
from pipeline.progress import Silent
from pipeline.stages.data import Organize


def draw(path, seed=None):
    """Write a small picture of noise, the same for the same seed; by default its name's own."""
    noise = np.random.default_rng(hash_of(str(path)) if seed is None else seed)
    write_png(path, noise.integers(0, 60000, (24, 20), dtype=np.uint16))


def hash_of(text):
    return sum(ord(letter) * 31**place for place, letter in enumerate(text[-40:])) % 2**32


def class_folders(root, names=("benign", "malignant"), count=10, pattern="{}.png"):
    for name in names:
        for number in range(count):
            draw(root / name / pattern.format(number))
    return root


def with_table(root, lines, head="File,Patient,Class,Side,View", name="labels.csv"):
    (root / name).write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return root


def women(root, count=12, place="images/{}.png"):
    """Write two pictures of each woman; return lines of a table about them."""
    lines = []
    for number in range(count):
        for view in ("CC", "MLO"):
            name = f"w{number}_{view}"
            draw(root / place.format(name))
            lines.append(f"{name}.png,{number},{'BM'[number % 2]},{'LR'[number // 2 % 2]},{view}")
    return lines


def run(source, out, **options):
    return organize(Organize(source=source, out=out, workers=1, **options), Silent())


def planned(source, **options):
    return organize(Organize(source=source, dry_run=True, **options), Silent())


def aside(out):
    path = out / "set_aside.csv"
    with path.open(newline="", encoding="utf-8") as file:
        return {line["what"]: line["reason"] for line in csv.DictReader(file)}


def diagnoses(out):
    return Counter(row.diagnosis for row in read_manifest(out))
