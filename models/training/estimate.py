"""How long a training will take and how much memory, measured on its first steps."""

import sys
import time

import torch

from models.devices import wait_for
from models.run_facts import HyperParameters, TrainingData
from pipeline.progress import Progress

SKIPPED, MEASURED = 2, 4  # steps: the first ones allocate memory and choose algorithms
SCORING_SHARE = 0.35  # of the time of a training step, for an image that is scored
LONG_SECONDS = 60  # what is shorter needs no forecast


class Forecast:
    """Measures the first steps of a training and says once how long all of them will take."""

    def __init__(
        self, data: TrainingData, hparams: HyperParameters, batches: int, done: int
    ) -> None:
        """Take what is trained on, the batches of an epoch, and how many epochs are done."""
        self._data, self._hparams = data, hparams
        self._batches, self._epochs = batches, hparams.epochs - done
        self._left = 0 if done else SKIPPED + MEASURED
        self._started = 0.0

    def step(self, progress: Progress) -> None:
        """Note that a step was done; the first ones end in one line for the person."""
        if not self._left:
            return
        self._left -= 1
        if self._left == MEASURED:
            wait_for(self._data.compute.device)
            self._started = time.perf_counter()
        elif not self._left:
            wait_for(self._data.compute.device)
            self._tell((time.perf_counter() - self._started) / MEASURED, progress)

    def _tell(self, seconds: float, progress: Progress) -> None:
        scored = len(self._data.val) / self._hparams.batch_size
        epoch = seconds * (self._batches + SCORING_SHARE * scored)
        if epoch * self._epochs < LONG_SECONDS:
            return
        memory = peak_memory(self._data.compute.device)
        held = f"; peak memory {memory / 1e9:.1f} GB" if memory else ""
        progress.say(
            f"An epoch takes about {_duration(epoch)}, all {self._epochs} at most "
            f"{_duration(epoch * self._epochs)}{held}."
        )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def peak_memory(device: torch.device) -> int:
    """Return the most memory that was held so far in bytes, of the GPU where one is used.

    A GPU of Apple shares the memory of the process. 0 where the system does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak(device: torch.device) -> None:
    """Watch the peak of a GPU's memory anew, once something lies there; a process has none."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
