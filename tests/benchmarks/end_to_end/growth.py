"""How time and memory of each stage grow with the number of images.

    python -m tests.benchmarks.end_to_end.growth --images 100 1000 10000 --out growth

Small films of a synthetic collection (`many.py`), mass and calcification. Each stage
is a process of its own, as a person starts it: organize, preprocess, one epoch of MammoCNN with the
decoding in it, evaluate, then compare and report of several runs: that run and copies of it with
noise on the scores. The peak memory is that of the process and its children together. Beside the
seconds stand those of the processor, which other work on the machine changes less.

The slope between two numbers of images is that of the line in a log-log plot: 1 is linear, and 0
does not grow. Start-up hides growth at few images, so the last slope is the one to look at.
"""

import argparse
import itertools
import json
import math
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks.comparison import copies
from tests.benchmarks.end_to_end.many import multiply
from tests.benchmarks.end_to_end.watched import run_stage

MODEL, SIDE = "MammoCNN", 64  # small, so that 10,000 images take minutes
STEEP = 1.15  # a slope above this is no longer linear
TIME, PROCESSOR, MEMORY = "seconds", "processor seconds", "peak MB"


@dataclass(frozen=True)
class Cost:
    """What a stage took with a number of images."""

    stage: str
    images: int
    seconds: float
    processor: float  # seconds of the processor, with those of its worker processes
    peak: float  # MB, with its worker processes

    def of(self, measure):
        """Return one of the three measures."""
        return {TIME: self.seconds, PROCESSOR: self.processor, MEMORY: self.peak}[measure]


def measure(folder, raw, runs):
    """Yield what each stage costs on a collection."""
    images = 0

    def run(name, *words):
        nonlocal images
        result, watched = run_stage(folder, name, *words)
        images = images or result["facts"]["images"]
        found = Cost(name, images, watched.seconds, watched.processor, watched.peak)
        show(found)
        return result, found

    yield run("organize", "--source", raw, "--finding", "both")[1]
    yield run("preprocess", "--size", SIDE)[1]
    trained, cost = run("train", "--model", MODEL, "--size", SIDE, "--epochs", 1)
    yield cost
    trained = folder / trained["folder"]
    yield run("evaluate", "--run", trained)[1]
    copies(folder, trained, runs)
    yield run("compare")[1]
    yield run("report")[1]


def show(cost):
    """Print a row of the table."""
    print(
        f"{cost.stage:<12}{cost.images:>8}{cost.seconds:>10.1f}{cost.processor:>12.1f}"
        f"{cost.peak:>10.0f}",
        flush=True,
    )


def slopes(costs, measure):
    """Return, by stage, the slopes between neighbouring numbers of images."""
    by_stage = {}
    for cost in costs:
        by_stage.setdefault(cost.stage, []).append(cost)
    return {
        stage: [
            math.log(more.of(measure) / less.of(measure)) / math.log(more.images / less.images)
            for less, more in itertools.pairwise(found)
        ]
        for stage, found in by_stage.items()
    }


def conclude(costs):
    """Print the slopes of each measure, and which are above linear."""
    images = sorted({cost.images for cost in costs})
    spans = [f"{less} to {more}" for less, more in itertools.pairwise(images)]
    steep = []
    for measure in (TIME, PROCESSOR, MEMORY):
        print(f"\n{'slope of ' + measure:<28}" + "".join(f"{span:>18}" for span in spans))
        for stage, found in slopes(costs, measure).items():
            print(f"{stage:<28}" + "".join(f"{slope:>18.2f}" for slope in found))
            steep += [
                f"{stage}, {measure}, {span}: {slope:.2f}"
                for slope, span in zip(found, spans, strict=True)
                if slope > STEEP
            ]
    print(f"\nabove linear (a slope of more than {STEEP}):", "; ".join(steep) or "nothing")


def draw(costs, path):
    """Draw seconds and memory against the number of images."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for axis, name in zip(axes, (TIME, MEMORY), strict=True):
        for stage in dict.fromkeys(cost.stage for cost in costs):
            mine = [cost for cost in costs if cost.stage == stage]
            axis.loglog(
                [cost.images for cost in mine], [cost.of(name) for cost in mine], "o-", label=stage
            )
        ends = [min(cost.images for cost in costs), max(cost.images for cost in costs)]
        least = min(cost.of(name) for cost in costs)
        axis.loglog(ends, [least, least * ends[1] / ends[0]], "k:", label="linear")
        axis.set(xlabel="images", ylabel=name)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main():
    """Make the collections, measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--images", type=int, nargs="+", default=(100, 1000, 10_000), help="about how many"
    )
    parser.add_argument("--out", type=Path, default=Path("growth"), help="for figure and JSON")
    parser.add_argument(
        "--patients", type=int, default=50, help="drawn; the others are copies (default: 50)"
    )
    parser.add_argument("--runs", type=int, default=5, help="compared and reported (default: 5)")
    parser.add_argument("--keep", type=Path, help="folder to work in and to leave, for profiling")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        work = (options.keep or Path(name)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        words = ["--patients", options.patients, "--size", 256, "--out", "drawn"]
        drawn = run_stage(work, "synthesize", *words)[0]["facts"]["mammograms"]
        costs = []
        print(f"{'stage':<12}{'images':>8}{'seconds':>10}{'processor':>12}{'peak MB':>10}")
        for count in sorted({max(1, round(images / drawn)) for images in options.images}):
            folder = work / f"{count}"
            multiply(work / "drawn", folder / "raw", count)
            costs += measure(folder, folder / "raw", options.runs)
    conclude(costs)
    (options.out / "growth.json").write_text(json.dumps([asdict(cost) for cost in costs], indent=1))
    draw(costs, options.out / "growth.png")
    print(f"in {options.out}: growth.json, growth.png")


if __name__ == "__main__":
    sys.exit(main())
