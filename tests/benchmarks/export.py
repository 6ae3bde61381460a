"""What an exported model gains: images a second, and the seconds until a film has its answer.

    OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0 python -m tests.benchmarks.export --rounds 7

With these two variables, which main.py sets, PyTorch's threads leave the cores to others.

- speed: forward passes over decoded images in memory, normalisation included: PyTorch in float32
  and, where the processor has instructions for it, bfloat16 (channels stored last, as this tool
  scores); ONNX Runtime as `models.onnx_scorer` runs it; OpenVINO on the same file where it is
  installed, in float32. Medians over rounds, in turns; random weights.
- start: a fresh process that reads one DICOM film, preprocesses it and prints the probability:
  `predict` with model.onnx, which also writes its tables, against the plain way with PyTorch, timm,
  pydicom and a resize. Seconds of the whole process, in turns, on the clock and of the
  processor (which others' work on the machine hardly changes), for a small film and for one of real
  size; the files are in the page cache, and compiled modules are kept.
"""

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from models.devices import has_fast_bf16
from models.export.facts import FORMAT
from models.export.graph import write_onnx
from models.inference import Compute, TrainedModel, image_logits, place, prepare_process
from models.networks import build, normalisation
from models.onnx_scorer import INPUT, TOOL, OnnxModel
from models.registry import MODELS
from pipeline.options import defaults
from pipeline.stages.data import Preprocess
from pipeline.work import worker_count
from sources.synthetic.films import render_film
from tests.benchmarks import machine
from tests.benchmarks.films import SEED, nearest_listings
from tests.images.dicom_files import write

ROOT = Path(__file__).parents[2]
NETWORKS = {"ResNet18_CFT": (1, 32), "DenseNet121_CFT": (1, 32), "EfficientNetB3_CFT": (1, 32),
            "MammoCNN": (1, 4)}  # fmt: skip
WAYS = "torch fp32", "torch bf16", "onnxruntime", "openvino"
SECONDS = 0.3  # of each measurement, at least one pass
NEAR = 0.02  # logits of float32 ways are at most so far apart, or the comparison is none
FILMS = {"small film (640 px)": 640, "film of real size (5000 px)": 5000}
TARGET = 8
TESTED = {"images": 0, "patients": 0, "benign": 0, "malignant": 0,
          "metrics": {"auc": {"value": None, "low": None, "high": None}}}  # fmt: skip
WITHOUT_TORCH = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    assert "torch" not in sys.modules
"""
PLAIN = """
import sys
import cv2, numpy as np, pydicom, timm, torch
network = timm.create_model(sys.argv[3], num_classes=1, in_chans=1)
network.load_state_dict(torch.load(sys.argv[1], weights_only=True))
network.eval()
pixels = pydicom.dcmread(sys.argv[2]).pixel_array.astype(np.float32)
image = cv2.resize(pixels / pixels.max(), (int(sys.argv[4]),) * 2, interpolation=cv2.INTER_AREA)
with torch.inference_mode():
    logit = network(torch.from_numpy((image - 0.449) / 0.226)[None, None])
print(torch.sigmoid(logit).item())
"""


def exported(name, folder):
    """Write a model with random weights, and return it and its file."""
    row = MODELS[name]
    torch.manual_seed(SEED)
    mean, std = normalisation(row.architecture)
    steps = {"size": 512, "crop": "auto"}
    assert steps.keys() <= defaults(Preprocess).keys()
    facts = {
        "model": name, "architecture": row.architecture, "strategy": row.strategy,
        "input": {"size": row.size, "channels": 1, "mean": mean, "std": std},
        "weights": "none", "unit": "mammogram", "preprocess": steps,
    }  # fmt: skip
    model = TrainedModel(build(row.architecture, row.head).eval(), facts)
    told = {
        TOOL: {"format": FORMAT}, "run": name, "model": facts,
        "calibration": {"method": "none", "temperature": None, "x": [], "y": []},
        "operating_point": {"threshold": 0.5, "rule": "half"}, "units": {}, "aggregate": "max",
        "tta": "none", "splits": {"test": TESTED},
    }  # fmt: skip
    path = folder / f"{name}.onnx"
    started = time.perf_counter()
    write_onnx(model, "none", told, path)
    print(f"{name}: exported in {time.perf_counter() - started:.1f} s", flush=True)
    return model, path


def torch_way(name, model, dtype):
    """Return what scores images with PyTorch, with a network of its own."""
    row = MODELS[name]
    network = build(row.architecture, row.head).eval()
    network.load_state_dict(model.network.state_dict())
    compute = Compute(torch.device("cpu"), dtype)
    place(network, compute)
    return lambda images: image_logits(network, images, model.transform(compute), compute)


def openvino_way(path):
    """Return what scores images with OpenVINO; None where it is not installed."""
    try:
        import openvino
    except ModuleNotFoundError:
        return None
    threads = {"INFERENCE_NUM_THREADS": worker_count(0), "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path), "CPU", threads)
    return lambda images: compiled({INPUT: images})["logit"]


def ways_of(name, model, path):
    """Return the ways that there are on this machine, by their names."""
    exported_model = OnnxModel.open(path)
    ways = {
        WAYS[0]: torch_way(name, model, None),
        WAYS[1]: torch_way(name, model, torch.bfloat16) if has_fast_bf16() else None,
        WAYS[2]: lambda images: exported_model.score(images)[0],
        WAYS[3]: openvino_way(path),
    }
    return {way: score for way, score in ways.items() if score}


def images_per_second(score, images):
    """Return the rate over passes that take at least SECONDS together."""
    started, done = time.perf_counter(), 0
    while not done or time.perf_counter() - started < SECONDS:
        score(images)
        done += len(images)
    return done / (time.perf_counter() - started)


def speed(folder, rounds, names):
    """Print images a second."""
    print(f"{'images a second':<28}" + "".join(f"{way:>13}" for way in WAYS), flush=True)
    for name in names:
        model, path = exported(name, folder)
        ways = ways_of(name, model, path)
        for batch in NETWORKS[name]:
            shape = (batch, model.size, model.size)
            images = np.random.default_rng(SEED).integers(0, 256, shape).astype(np.uint8)
            answers = {way: score(images) for way, score in ways.items()}  # warms up too
            for way, logits in answers.items():
                apart = np.abs(logits - answers[WAYS[0]]).max()
                assert way == WAYS[1] or apart < NEAR, (name, way, apart)
            found = {way: [] for way in ways}
            for _ in range(rounds):
                for way, score in ways.items():
                    found[way].append(images_per_second(score, images))
            cells = [f"{statistics.median(found[w]):.1f}" if w in found else "-" for w in WAYS]
            text = f"{name.removesuffix('_CFT')} {model.size} px, batch {batch}"
            print(f"{text:<28}" + "".join(f"{cell:>13}" for cell in cells), flush=True)


def seconds_of(environment, *words):
    """Return how long a fresh process of Python takes, on the clock and of the processor."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, used


def start(folder, rounds):
    """Print how long it takes until one film has its probability."""
    name = "ResNet18_CFT"
    model, path = exported(name, folder)
    weights = folder / "weights.pth"
    torch.save(model.network.state_dict(), weights)
    architecture = MODELS[name].architecture
    environment = machine.compiled_in(folder / "compiled")
    print(f"{name + ', cold start (s)':<44}{'exported':>10}{'plain':>10}{'ratio':>8}{'target':>8}")
    for text, height in FILMS.items():
        pixels = render_film(nearest_listings()[0].film, height, SEED).pixels
        film = write(folder / f"{height}.dcm", pixels)
        out = folder / "out"
        ours = (ROOT / "main.py", "predict", film, "--run", path, "--out", out, "--batch")
        ways = {"ours": ours, "plain": ("-c", PLAIN, weights, film, architecture, 224)}
        seconds_of(environment, "-c", WITHOUT_TORCH, *ours)
        found = {way: [] for way in ways}
        for turn in range(rounds + 1):
            for way, words in ways.items():
                shutil.rmtree(folder / "out", ignore_errors=True)  # it holds the answer
                taken = seconds_of(environment, *words)
                if turn:  # the first one reads files into the page cache
                    found[way].append(taken)
        for which, kind in enumerate(("clock", "processor")):
            ours, plain = (statistics.median(one[which] for one in found[way]) for way in ways)
            ratio, target = f"x{plain / ours:.1f}", f"x{TARGET}"
            line = f"{f'{text}, {kind}':<44}{ours:>10.2f}{plain:>10.2f}{ratio:>8}{target:>8}"
            print(line, flush=True)


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--what", nargs="+", choices=("speed", "start"), default=("speed", "start"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--models", nargs="+", choices=NETWORKS, default=tuple(NETWORKS))
    options = parser.parse_args()
    print(machine.text(machine.facts(with_gpu=False)), flush=True)
    prepare_process(0)
    with tempfile.TemporaryDirectory() as name:
        if "speed" in options.what:
            speed(Path(name), options.rounds, options.models)
        if "start" in options.what:
            start(Path(name), options.rounds)


if __name__ == "__main__":
    main()
