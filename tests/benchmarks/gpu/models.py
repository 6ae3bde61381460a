"""Every model through the real command line: stopped in the middle, continued, evaluated."""

import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import main
from models.registry import MODELS
from tests.benchmarks.gpu.data import MEDIUM
from tests.benchmarks.gpu.record import NO_TIME, ROOT, last_lines
from tests.interrupts import interrupted_when

KILLED = "ResNet18_CFT"  # ends by SIGKILL, the others by Ctrl-C
DRY = KILLED, "EfficientNetB3_Optuna"
TUNED = "EfficientNetB3_Optuna"
STOPPED = 130  # exit status after Ctrl-C
SET_ASIDE = 3
EPOCHS = 3
POLL = 0.005  # seconds between two looks at a run folder
# What is done with a finished run, each a stage with its flags; the next one is one more line.
AFTER = {"evaluate": ("--replicates", 100), "explain": ("--checks", "none", "--replicates", 100)}


def call(*words):
    """Run main.py in this process, as imports cost seconds; return its result.

    Raises:
        RuntimeError: It ended badly; with what it printed last.
    """
    status, result, told = attempt(*words)
    if status not in (0, SET_ASIDE):
        raise RuntimeError(f"main.py {' '.join(map(str, words))}: status {status}\n{told}")
    return result


def attempt(*words):
    """Run main.py in this process; return its exit status, result and last lines."""
    out, told = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(told):
        status = main.main([*map(str, words), "--batch", "--json"])
    result = json.loads(out.getvalue()) if status in (0, SET_ASIDE) else None
    return status, result, last_lines(told.getvalue())


def train_words(settings, model, runs):
    """Return the words of a training: the tool's own choices, but for few epochs."""
    words = ["train", "--data", settings.folder / MEDIUM, "--runs", runs, "--model", model]
    words += ["--weights", "none"]
    if not model.endswith("_OPW"):
        words += ["--epochs", EPOCHS]
    return words + (["--size", 32] if settings.dry else [])


def begun(runs, model):
    """Return whether a training has come so far that it can be stopped in the middle."""
    # A linear probe has no checkpoint: it has one short step.
    sign = "model.json" if model.endswith("_OPW") else "checkpoint.pt"
    return any(runs.glob(f"{model}/*/{sign}"))


def stop(settings, model, runs):
    """Train until the first epoch is kept, and press Ctrl-C."""
    try:
        with interrupted_when(lambda: begun(runs, model)):
            status, _, told = attempt(*train_words(settings, model, runs))
    except KeyboardInterrupt:
        raise RuntimeError(f"{model}: was done before Ctrl-C came") from None
    if status != STOPPED:
        raise RuntimeError(f"{model}: Ctrl-C ended it with status {status}\n{told}")


def kill(settings, model, runs, limit):
    """Train in another process until the first epoch is kept, and kill that."""
    words = [*train_words(settings, model, runs), "--batch", "--json"]
    end = time.monotonic() + limit
    with tempfile.TemporaryFile("w+", encoding="utf-8") as told:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "main.py"), *map(str, words)],
            stdout=subprocess.DEVNULL, stderr=told,
        )  # fmt: skip
        try:
            while process.poll() is None and time.monotonic() < end and not begun(runs, model):
                time.sleep(POLL)
        finally:
            process.kill()
            process.wait()
        if not begun(runs, model):
            told.seek(0)
            raise RuntimeError(f"{model}: no checkpoint\n{last_lines(told.read())}")


def follow(record, settings, model, runs):
    """Take one model the whole way and note how long each part took."""

    def timed(column, work):
        started = time.perf_counter()
        result = work()
        record.figure(model, column, time.perf_counter() - started, "s")
        return result

    if model == TUNED:
        words = ["tune", *train_words(settings, model, runs)[1:]]
        words += ["--trials", 1 if settings.dry else 2]
        timed("tune", lambda: call(*words))
    if model == KILLED:
        timed("until killed", lambda: kill(settings, model, runs, max(record.left / 2, 30)))
    else:
        timed("until stopped", lambda: stop(settings, model, runs))
    resumed = timed("continued", lambda: call("train", "--resume", "latest", "--runs", runs))
    facts = resumed["facts"]
    if facts["model"] != model:
        raise RuntimeError(f"{facts['model']} was continued, not {model}")
    if not model.endswith("_OPW") and facts["epochs"] < 2:
        raise RuntimeError(f"{model}: {facts['epochs']} epochs after it was continued")
    made = json.loads(Path(facts["run"], "model.json").read_text(encoding="utf-8"))
    if model == TUNED and not made["tuning"]:
        raise RuntimeError(f"{model}: was not trained with what the search found")
    record.figure(model, "precision", made["precision"])
    record.figure(model, "validation AUC", facts["best_val_auc"])
    for stage, flags in AFTER.items():
        words = stage, "--run", facts["run"], "--runs", runs, *flags
        found = timed(stage, lambda words=words: call(*words))
        if stage == "evaluate":
            record.figure(model, "test AUC", found["facts"]["test"]["metrics"]["auc"]["value"])


def tell_choices(record):
    """Note what `--device auto --precision auto` takes, and how a network is laid out there."""
    import torch

    from models.inference import choose_compute, place
    from models.networks import build

    compute = choose_compute("auto", "auto")
    row = MODELS["ResNet18_CFT"]
    network = build(row.architecture, row.head)
    place(network, compute)
    kernels = [p for p in network.parameters() if p.ndim == 4]
    last = all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
    layout = "channels last" if last else "channels first"
    record.note(f"auto takes {compute.device.type}, {compute.precision}, {layout}")
    if compute.device.type == "cuda" and (compute.precision != "bf16" or not last):
        record.failed("choices", f"a GPU is used with {compute.precision}, {layout}")


def tell_pinned(record):
    """Note how much pinned memory images went to the GPU from."""
    import torch

    if torch.cuda.is_available():
        peak = torch.cuda.host_memory_stats().get("allocated_bytes.peak", 0)
        record.note(f"pinned memory: {peak / 1e6:.1f} MB at its peak")


def measure(record, settings):
    """Follow every model; one that fails does not stop the rest."""
    with record.attempt("choices"):
        tell_choices(record)
    names = [KILLED, *(name for name in MODELS if name != KILLED)]
    for model in DRY if settings.dry else names:
        if record.left < 5:
            record.unmeasured(model, NO_TIME)
            continue
        with record.attempt(model):
            follow(record, settings, model, settings.folder / "runs")
    with record.attempt("pinned memory"):
        tell_pinned(record)
