"""What a part of the benchmark found, written as it is found: a part that is killed keeps it.

A part runs in a process of its own as `python -m tests.benchmarks.gpu.record PART SETTINGS FILE`.
"""

import contextlib
import dataclasses
import importlib
import json
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[3]
LAST_LINES = 6  # of an error that are kept
FIGURE, FAILED, UNMEASURED, NOTE = "figure", "failed", "unmeasured", "note"
NO_GPU, NO_TIME = "no GPU", "no time left"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What every part is told."""

    work: str  # the folder with the data sets
    dry: bool  # tiny, on the processor
    seconds: float  # that the part may take
    images: int  # of training at 224 pixels, where images are small
    files: int  # of training, where they are large files
    loaders: int  # workers of the plain loop
    chosen: str = ""  # what the part is about, where it is one of several

    @property
    def folder(self):
        """The folder with the data sets."""
        return Path(self.work)


class Record:
    """Gets the figures of a part, one JSON line for each, and the failures."""

    def __init__(self, part, file, seconds):
        """Take the part's name, where its lines go, and how long it may take."""
        self._part, self._file = part, file
        self._end = time.monotonic() + seconds
        self.failures = 0

    @property
    def left(self):
        """Seconds that are left to this part."""
        return self._end - time.monotonic()

    def figure(self, row, column, value, unit=""):
        """Note a figure: a cell of the part's table. A later one takes the place of an earlier."""
        self._write(kind=FIGURE, row=row, column=column, value=value, unit=unit)
        shown = f"{value:,.3f}" if isinstance(value, float) else value
        print(f"  {row}: {column} {shown} {unit}".rstrip(), flush=True)

    def note(self, text):
        """Note something worth reading."""
        self._write(kind=NOTE, text=text)
        print(f"  {text}", flush=True)

    def unmeasured(self, what, why):
        """Note what is not measured."""
        self._write(kind=UNMEASURED, what=what, why=why)
        print(f"  {what}: not measured: {why}", flush=True)

    def failed(self, what, why):
        """Note what failed."""
        self.failures += 1
        self._write(kind=FAILED, what=what, why=why)
        print(f"  {what}: FAILED", *why.splitlines(), sep="\n    ", flush=True)

    @contextlib.contextmanager
    def attempt(self, what):
        """Run a block; where it fails its last lines are noted and the part goes on."""
        try:
            yield
        except Exception:
            self.failed(what, last_lines(traceback.format_exc()))

    def _write(self, **line):
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"part": self._part, **line}, default=str) + "\n")


def last_lines(text, count=LAST_LINES):
    """Return the end of what a program printed."""
    return "\n".join([line for line in text.splitlines() if line.strip()][-count:])


def run_program(command, limit):
    """Run a program in the source's folder; return its status and what it printed.

    Raises:
        RuntimeError: It does not end within `limit` seconds.
    """
    words = [str(word) for word in command]
    try:
        return subprocess.run(
            words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=max(limit, 1)
        )
    except subprocess.TimeoutExpired as late:
        told = last_lines((late.stderr or b"").decode(errors="replace"))
        raise RuntimeError(f"{' '.join(words)}: no end after {limit:.0f} s\n{told}") from None


def read_lines(file):
    """Return what a part has noted; a line that it was killed in is left out."""
    found = []
    if file.is_file():
        for line in file.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
    return found


def main():
    """Run one part."""
    part, settings, file = sys.argv[1:]
    # A shell that starts a program in the background has it ignore Ctrl-C, which is tested here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    given = Settings(**json.loads(settings))
    record = Record(part, Path(file), given.seconds)
    importlib.import_module(f"tests.benchmarks.gpu.{part}").measure(record, given)


if __name__ == "__main__":
    main()
