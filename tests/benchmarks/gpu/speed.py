"""Images a second of whole epochs: this tool and a plain loop with autocast, in turns.

Both train the same network with the same batch size and augmentation, and score validation after
each epoch. The first epoch of a run, in which algorithms are chosen, stands for itself: this
tool's has the start of the training in it. Its epochs last until the checkpoint is written; the
plain loop writes none.

- from files: the plain loop reads large PNG files, and waits for them.
- in memory: its images are read and scaled beforehand; its workers only augment them.

A GPU is busy while a kernel runs on it. How long that is torch's profiler (CUPTI) tells of one more
epoch: the union of its kernels' times, which it measures on the GPU, so that what it costs the
processor does not matter. The share is of the median epoch without a profiler.
"""

import gc
import itertools
import statistics
import tempfile
import time

import torch
from torch.autograd import DeviceType

from pipeline.manifest import read_manifest
from pipeline.options import checked
from pipeline.progress import Silent
from pipeline.stages.training import Train
from tests.benchmarks import own_training, plain_training
from tests.benchmarks.gpu.data import LARGE, MEDIUM, SMALL
from tests.benchmarks.gpu.networks import (
    DRY_SHAPE,
    FROM_FILES,
    IN_MEMORY,
    data_of,
    measured,
    row_of,
    shape_in,
)
from tests.benchmarks.gpu.record import NO_GPU, NO_TIME, last_lines
from tests.benchmarks.training import MAMMO_SIZE, SIZE

EPOCHS = 3  # of a run; the first does not count
ROUNDS = 3  # at most
MEGA = 1e6


class Clock(Silent):
    """Notes when each epoch of a training ended; profiles one of them where it should."""

    def __init__(self, profiled=0):
        """Take the number of the epoch that is profiled; 0 for none."""
        self._profiled, self._profiler = profiled, None
        self._began, self._ends, self._inside = time.perf_counter(), [], []
        self.busy, self.problem = None, ""  # seconds in which a kernel ran; why that is not known

    def row(self, cells, best=False):  # noqa: ARG002
        """Take an epoch's end."""
        self._ends.append(time.perf_counter())
        self._inside.append(cells["seconds"])
        try:
            self._profile(cells["epoch"])
        except Exception as error:  # a profiler that is not allowed here is no fault of training
            self._profiler, self.problem = None, last_lines(str(error)) or type(error).__name__

    def _profile(self, epoch):
        if self._profiler is not None:
            self._profiler.stop()
            self.busy, self._profiler = busy_seconds(self._profiler), None
            self.problem = "" if self.busy else "the profiler saw no kernel"
        elif epoch == self._profiled - 1:
            self._profiler = torch.profiler.profile(
                activities=[torch.profiler.ProfilerActivity.CUDA]
            )
            self._profiler.start()

    @property
    def seconds(self):
        """Of each epoch that counts."""
        return [end - begin for begin, end in itertools.pairwise(self._ends[:EPOCHS])]

    @property
    def first(self):
        """Seconds from the beginning to the end of the first epoch."""
        return self._ends[0] - self._began

    @property
    def writing(self):
        """Seconds of these epochs after training and scoring: weights, history, checkpoint."""
        return sum(self.seconds) - sum(self._inside[1:EPOCHS])


def busy_seconds(profiler):
    """Return the seconds in which at least one kernel ran."""
    spans = sorted(
        (event.start_ns(), event.start_ns() + event.duration_ns())
        for event in profiler.profiler.kineto_results.events()
        if event.device_type() == DeviceType.CUDA
        and not event.name().startswith(("Memcpy", "Memset"))
    )
    busy, reached = 0, 0
    for begin, end in spans:
        busy += max(0, end - max(begin, reached))
        reached = max(reached, end)
    return busy / 1e9


def fresh_memory():
    """Free what the last run held, and begin anew to watch the peak."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peaks():
    """Return the most memory of the GPU that tensors took, and that torch held for them, in MB."""
    if not torch.cuda.is_available():
        return {}
    held = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return dict(zip(("tensors", "reserved"), (size / MEGA for size in held), strict=True))


def plain(settings, data, model, shape, situation):
    """Run the plain loop; return its epochs, its waiting and its memory."""
    words = ["--data", data, "--model", model, "--size", shape[0], "--batch-size", shape[1]]
    words += ["--epochs", EPOCHS, "--augment", "--loaders", settings.loaders]
    words += ["--device", "cuda", "--amp"] if torch.cuda.is_available() else []
    words += ["--held"] if situation == IN_MEMORY else []
    fresh_memory()
    found = plain_training.run(plain_training.options_of(words))
    first, *seconds = found["seconds"]
    waited = sum(found["waited"][1:])
    return {"first": first, "seconds": seconds, "waited": waited, "peaks": peaks()}


def ours(data, model, shape, profiled):
    """Train with this tool, with one epoch more that is profiled where that is wanted."""
    from models.training.stage import train

    clock, epochs = Clock(EPOCHS + 1 if profiled else 0), EPOCHS + profiled
    with tempfile.TemporaryDirectory() as runs:
        options = checked(Train, {
            "data": data, "model": model, "weights": "none", "size": shape[0],
            "batch_size": shape[1], "epochs": epochs, "patience": epochs, "runs": runs,
        })  # fmt: skip
        fresh_memory()
        train(options, clock)
        found = peaks()
    return {"first": clock.first, "seconds": clock.seconds, "clock": clock, "peaks": found}


class Pair:
    """One network in one situation, measured in turns."""

    def __init__(self, settings, model, situation):
        """Take what is measured."""
        self._settings, self._model, self._situation = settings, model, situation
        self._shape = shape_in(settings, model)
        large = situation == FROM_FILES
        self._data = settings.folder / LARGE if large else data_of(settings, model)
        self._images = sum(row.split == "train" for row in read_manifest(self._data))
        self._plain, self._ours = [], []
        self.name, self.cost = row_of(model, situation), 0.0  # seconds of a round

    def once(self, record):
        """Measure both once and note the medians so far."""
        started, begins = time.perf_counter(), not self._plain
        profiled = begins and self._situation == IN_MEMORY and torch.cuda.is_available()
        self._plain.append(
            plain(self._settings, self._data, self._model, self._shape, self._situation)
        )
        self._ours.append(ours(self._data, self._model, self._shape, profiled))
        self.cost = time.perf_counter() - started
        slow, quick = (_epoch(runs) for runs in (self._plain, self._ours))
        record.figure(self.name, "plain", self._images / slow, "images/s")
        record.figure(self.name, "ours", self._images / quick, "images/s")
        record.figure(self.name, "ratio", slow / quick, "x")
        waits = sum(run["waited"] for run in self._plain) / _total(self._plain)
        writes = sum(run["clock"].writing for run in self._ours) / _total(self._ours)
        record.figure(self.name, "plain waits for images", 100 * waits, "%")
        record.figure(self.name, "ours writes", 100 * writes, "%")
        record.figure(self.name, "rounds", len(self._plain))
        if begins:
            self._note_first(record)
        if profiled:
            self._note_busy(record, quick)

    def _note_first(self, record):
        for side, (run,) in (("plain", self._plain), ("ours", self._ours)):
            record.figure(self.name, f"{side}, first epoch", run["first"], "s")
            for kind, value in run["peaks"].items():
                record.figure(self.name, f"{side}, peak of {kind}", value, "MB")

    def _note_busy(self, record, epoch):
        clock = self._ours[0]["clock"]
        if clock.problem:
            record.unmeasured(f"{self.name}: GPU busy", clock.problem)
        else:
            record.figure(self.name, "GPU busy", 100 * clock.busy / epoch, "%")


def _epoch(runs):
    return statistics.median(one for run in runs for one in run["seconds"])


def _total(runs):
    return sum(sum(run["seconds"]) for run in runs)


def loading(record, settings):
    """Measure how quickly this tool makes augmented tensors, on the processor alone.

    It is a ceiling of every epoch without frozen layers.
    """
    sizes = ((SMALL, SIZE), (MEDIUM, MAMMO_SIZE))
    for name, size in sizes[:1] if settings.dry else sizes:
        data, size = settings.folder / name, DRY_SHAPE[0] if settings.dry else size
        options = checked(Train, {
            "data": data, "size": size, "epochs": 1, "augment": "flip-rotate", "weights": "none",
        })  # fmt: skip
        (seconds,) = own_training.load(options)["seconds"]
        images = sum(row.split == "train" for row in read_manifest(data))
        record.figure("ours, images alone", f"{size} px", images / seconds, "images/s")


def measure(record, settings):
    """Measure every network in both situations, round by round, while there is time."""
    with record.attempt("images alone"):
        loading(record, settings)
    pairs = [
        Pair(settings, model, situation)
        for situation in (IN_MEMORY, FROM_FILES)
        for model in measured(settings)
    ]
    failed = set()
    for _ in range(1 if settings.dry else ROUNDS):
        for pair in pairs:
            if pair.name in failed:
                continue
            if record.left < max(1.2 * pair.cost, 5):
                if not pair.cost:
                    record.unmeasured(pair.name, NO_TIME)
                continue
            with record.attempt(pair.name):
                failed.add(pair.name)
                pair.once(record)
                failed.discard(pair.name)
    if not torch.cuda.is_available():
        record.unmeasured("GPU busy", NO_GPU)
        record.unmeasured("GPU memory", NO_GPU)
