"""What `predict` costs beside the bare work: reading, preprocessing and scoring in one loop.

    python main.py demo && python -m tests.benchmarks.prediction demo --images 1000

The films of the demo's dataset are linked as often as needed. The bare loop reads, preprocesses and
scores them in one process, in batches of 32, and keeps nothing. `predict` also looks at thumbnails,
compares features, notes each image and writes its tables; with one worker, and with one for each
core. Both are fresh processes, in turns; the seconds of loading torch are in both.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline.manifest import read_manifest
from pipeline.runs import find_run

ROOT = Path(__file__).parents[2]
BARE = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
import numpy as np
from images.chain import preprocess_image
from images.files import SPREAD, read_image
from images.square import fit_square
from models.inference import image_logits, load_run, place, prepare_process, scoring_compute
from models.prediction.reading import Look
run, folder = map(Path, sys.argv[1:])
prepare_process(0)
model = load_run(run)
look, compute = Look.of(model.facts), scoring_compute()
place(model.network, compute)
batch = []
def score():
    if batch:
        image_logits(model.network, np.stack(batch), model.transform(compute), compute)
    batch.clear()
for path in sorted(folder.iterdir()):
    image, _ = preprocess_image(read_image(path), look.preprocess, look.unit)
    batch.append(fit_square(image.astype(np.uint16) * SPREAD, look.size))
    if len(batch) == 32:
        score()
score()
"""


def seconds(*command):
    """Return how long a process takes."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *map(str, command)], check=True, capture_output=True, cwd=ROOT)
    return time.perf_counter() - started


def link(films, folder, count):
    """Link films under `count` names into a folder."""
    for number in range(count):
        film = films[number % len(films)]
        os.link(film, folder / f"{number:06d}{film.suffix}")


def main():
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("demo", type=Path, help="folder of the demo")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    run = find_run(options.demo / "runs", "latest")
    dataset = options.demo / "dataset"
    films = [(dataset / row.path).resolve() for row in read_manifest(dataset)]
    taken = {"bare": [], "1 worker": [], "a worker for each core": []}
    with tempfile.TemporaryDirectory(dir=options.demo) as place:
        folder = Path(place, "films")
        folder.mkdir()
        link(films, folder, options.images)
        for number in range(options.rounds):
            taken["bare"].append(seconds("-c", BARE, run.folder.resolve(), folder.resolve()))
            for workers, name in ((1, "1 worker"), (0, "a worker for each core")):
                words = ["--workers", workers] if workers else []
                out = Path(place, f"out{number}{workers}").resolve()
                command = ["main.py", "predict", folder.resolve(), "--run", run.folder.resolve(),
                           "--out", out, "--batch", *words]  # fmt: skip
                taken[name].append(seconds(*command))
    bare = statistics.median(taken["bare"])
    print(f"{options.images} images, medians of {options.rounds}")
    for name, each in taken.items():
        print(
            f"{name:<24} {statistics.median(each):>7.1f} s  x{statistics.median(each) / bare:.2f}"
        )


if __name__ == "__main__":
    main()
