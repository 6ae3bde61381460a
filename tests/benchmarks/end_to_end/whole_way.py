"""The whole way, from raw full-size films to ten compared models: this tool and the plain way.

    python -m tests.benchmarks.end_to_end.whole_way --films 20 --epochs 4 --plain-epochs 1

The plain way is `thesis_way.py`, a script of ours that goes it as the thesis before
this tool did. Both start from the same uncompressed 16-bit DICOM files of about 14.8 megapixels, a
synthetic collection, with the same split, random weights and batches of 8. Each part of the tool is
a stage in a process of its own; the plain way is one process. Memory is that of a process with its
workers, disk what each way has left beside the raw films.

The plain way trains on each image and four copies of it, so an epoch presents five times as many
images: the tool, which augments on the fly, gets five times as many epochs, and its early stopping
is off. Of the plain way's epochs only some are run and counted up, as the output says; its scores
are those of the epochs that were run.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pydicom

from models.registry import MODELS
from pipeline.manifest import read_manifest
from sources.synthetic.files import plan_files
from sources.synthetic.plan import MASS, plan_collection
from tests.benchmarks.end_to_end.thesis_way import ANGLES, BATCH
from tests.benchmarks.end_to_end.watched import run_stage, watch
from tests.benchmarks.training import FAMILIES, MAMMO_SIZE, SIZE

TEN = *(f"{one}_{how}" for one in FAMILIES for how in ("OPW", "PFT", "CFT")), "MammoCNN"
PRESENTED = 1 + 2 + len(ANGLES)  # an image, mirrored twice, turned twice
SEED = 42
DICOM, PREPROCESS, AUGMENT, EVALUATE = (
    "DICOM to images", "preprocess", "augmentation", "evaluation, comparison"
)  # fmt: skip
STARTING = "training, start and queue"
MADE = "dataset", "preprocessed", "runs", "reports"  # by this tool
ROOT = Path(__file__).parents[3]


@dataclass
class Way:
    """What one way took."""

    seconds: dict = field(default_factory=dict)  # by part
    scores: dict = field(default_factory=dict)  # of each model: accuracy and AUC on test
    peak: float = 0.0  # MB
    disk: int = 0  # bytes

    def add(self, part, watched, seconds=None):
        """Enter what a process took, or the part of its seconds that is this part's."""
        taken = watched.seconds if seconds is None else seconds
        self.seconds[part] = self.seconds.get(part, 0.0) + taken
        self.peak = max(self.peak, watched.peak)


def patients_for(films):
    """Return the least number of patients whose collection has so many mammograms with masses."""
    for patients in range(12, 5000):  # from 12 on both classes are in train
        rows = plan_files(SEED, plan_collection(SEED, patients))
        if len({row.film.film_id for row in rows if row.finding == MASS}) >= films:
            return patients
    raise SystemExit(f"{films} films: too many")


def our_way(folder, options):
    """Go the whole way with this tool."""
    way = Way()
    way.add(DICOM, run_stage(folder, "organize", "--source", "raw")[1])
    way.add(PREPROCESS, run_stage(folder, "preprocess")[1])
    way.seconds[AUGMENT] = 0.0
    epochs = PRESENTED * options.epochs
    own = [name for name in options.models if name == "MammoCNN"]
    families = [name for name in options.models if name not in own]
    for names, side in ((families, options.side or SIZE), (own, options.side or MAMMO_SIZE)):
        if names:
            train(way, folder, names, side, epochs)
    evaluated, watched = run_stage(folder, "evaluate", "--run", "all")
    way.add(EVALUATE, watched)
    way.add(EVALUATE, run_stage(folder, "compare")[1])
    for found in evaluated["facts"]["evaluations"]:
        metrics = found["test"]["metrics"]
        way.scores[found["model"]] = {
            name: metrics[name]["value"] for name in ("accuracy", "auc")
        }  # fmt: skip
    way.disk = sum(map(bytes_below, (folder / name for name in MADE)))
    return way


def train(way, folder, names, side, epochs):
    """Train models in one queue; refuse one that did not train as long as it should."""
    words = ["--model", ",".join(names), "--weights", "none", "--size", side, "--missing"]
    if learning := [name for name in names if MODELS[name].strategy != "opw"]:
        words += ["--epochs", epochs, "--patience", epochs, "--batch-size", BATCH]
    result, watched = run_stage(folder, "train", *words)
    trainings = result["facts"]["trainings"]
    for one in trainings:
        wanted = epochs if one["model"] in learning else 0
        if one["epochs"] != wanted:
            raise SystemExit(f"{one['model']}: {one['epochs']} epochs, not {wanted}; {one}")
        way.add(one["model"], watched, one["seconds"])
    way.add(STARTING, watched, watched.seconds - sum(one["seconds"] for one in trainings))


def plain_way(folder, options):
    """Go the whole way in the plain way, with the tool's split; count its epochs up."""
    films = {}
    for path in (folder / "raw").rglob("*.dcm"):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        films[header.SeriesInstanceUID] = str(path)
    rows = [
        {"image_id": row.image_id, "split": row.split, "label": row.label,
         "film": films[row.source_id]}
        for row in read_manifest(folder / "dataset")
    ]  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(rows))
    out = folder / "thesis"
    command = [sys.executable, "-m", "tests.benchmarks.end_to_end.thesis_way"]
    command += ["--plan", folder / "plan.json", "--out", out, "--models", *options.models]
    command += ["--epochs", options.plain_epochs, "--side", options.side]
    watched = watch(command, ROOT, folder / "thesis_way")
    found, way = json.loads(watched.said), Way(peak=watched.peak, disk=bytes_below(out))
    took = found["seconds"]
    way.seconds = {
        DICOM: took["images"], PREPROCESS: took["preprocess"], AUGMENT: took["augment"],
        EVALUATE: took["evaluate"],
    }  # fmt: skip
    for name, seconds in found["epochs"].items():
        way.seconds[name] = sum(seconds) / len(seconds) * options.epochs
    measured = sum(took.values()) + sum(map(sum, found["epochs"].values()))
    way.seconds[STARTING] = watched.seconds - measured
    way.scores = found["scores"]
    return way


def bytes_below(folder):
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def show(options, ours, plain):
    """Print seconds by part, their ratios, memory, disk and scores."""
    print(f"\n{'part':<30}{'plain s':>10}{'ours s':>10}{'ratio':>9}")
    parts = (DICOM, PREPROCESS, AUGMENT, STARTING, *options.models, EVALUATE)
    for part in parts:
        row(part, plain.seconds[part], ours.seconds.get(part, 0.0))
    trained = [STARTING, *options.models]
    row(
        "training in all",
        *(sum(way.seconds.get(one, 0.0) for one in trained) for way in (plain, ours)),
    )
    row("all", sum(plain.seconds.values()), sum(ours.seconds.values()))
    print(f"\n{'':<30}{'plain':>10}{'ours':>10}{'ratio':>9}")
    row("peak memory, MB", plain.peak, ours.peak)
    row("disk, MB", plain.disk / 1e6, ours.disk / 1e6)
    print(f"\n{'on test':<30}{'plain accuracy, AUC':>22}{'ours':>15}")
    for name in options.models:
        each = [
            f"{way.scores[name]['accuracy']:.3f}, {way.scores[name]['auc']:.3f}"
            for way in (plain, ours)
        ]
        print(f"{name:<30}{each[0]:>22}{each[1]:>15}")


def row(text, plain, ours):
    """Print a row with its ratio."""
    ratio = f"x{plain / ours:.1f}" if ours else "-"
    print(f"{text:<30}{plain:>10.1f}{ours:>10.1f}{ratio:>9}")


def tell(options, rows):
    """Say what is measured, and how it was made the same on both sides."""
    counts = {split: sum(row.split == split for row in rows) for split in ("train", "val", "test")}
    pixels = sum(row.height * row.width for row in rows) / len(rows) / 1e6
    images, epochs = counts["train"], options.epochs
    split = ", ".join(f"{count} {name}" for name, count in counts.items())
    print(f"{len(rows)} films of {pixels:.1f} megapixels on average: {split}; random weights")
    print(
        f"presented to each model: {images * PRESENTED * epochs} training images in batches of "
        f"{BATCH}; plain: {images}, each with four copies, in {epochs} epochs; ours: {images}, "
        f"augmented on the fly, in {PRESENTED * epochs} epochs"
    )
    print("early stopping is off (ours: the patience is the number of epochs; plain: none)")
    print(
        "linear probes (OPW): plain, the head is trained in as many epochs; ours, the features of "
        "each image are computed once"
    )
    print(
        f"plain: {options.plain_epochs} of {epochs} epochs were run and their seconds counted up; "
        f"its scores are those after {options.plain_epochs}"
    )


def main():
    """Make the films, go both ways, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--films", type=int, default=20, help="with masses, at least (default: 20)")
    parser.add_argument("--height", default="real", help="of a film in pixels, or real")
    parser.add_argument("--epochs", type=int, default=4, help="of the plain way (default: 4)")
    parser.add_argument("--plain-epochs", type=int, default=1, help="of them that are run")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=TEN)
    parser.add_argument("--side", type=int, default=0, help="of the input; 0: 224, MammoCNN 512")
    parser.add_argument("--out", type=Path, default=Path("whole_way.json"))
    options = parser.parse_args()
    options.plain_epochs = min(options.plain_epochs, options.epochs)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = ["--patients", patients_for(options.films), "--size", options.height]
        run_stage(folder, "synthesize", *words)
        ours = our_way(folder, options)
        plain = plain_way(folder, options)
        tell(options, read_manifest(folder / "dataset"))
    show(options, ours, plain)
    found = {"options": vars(options) | {"out": str(options.out)}}
    found |= {name: vars(way) for name, way in (("plain", plain), ("ours", ours))}
    options.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
