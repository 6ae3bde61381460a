"""The course of a training as TensorBoard shows it, where tensorboard is installed."""

import contextlib
import errno
import importlib.util
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = "tensorboard"


class Events:
    """Writes one point an epoch for each figure; nothing where tensorboard is not installed."""

    def __init__(self, run: Path | None, history: Sequence[Mapping[str, Any]]) -> None:
        """Begin anew with what a run has come to so far, so that no epoch is written twice.

        Args:
            run: The run's folder; None where another process writes.
            history: Its finished epochs.
        """
        self._writer: Any = None
        if run is not None and importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            shutil.rmtree(run / FOLDER, ignore_errors=True)
            self._folder = run / FOLDER
            self._writer = SummaryWriter(str(self._folder))
        for row in history:
            self.add(row)

    def add(self, row: Mapping[str, Any]) -> None:
        """Write the figures of a finished epoch.

        Raises:
            FileNotFoundError: The folder was removed; the writer's thread would print a traceback.
        """
        if self._writer is None:
            return
        if not self._folder.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._folder))
        for name, value in row.items():
            if name != "epoch" and isinstance(value, int | float):
                self._writer.add_scalar(name, value, row["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Close the file; what it holds was flushed with every epoch."""
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()
