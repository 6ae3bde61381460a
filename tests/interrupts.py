"""Ctrl-C pressed inside the process of the tests, at the moment that a test names."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

_EVERY = 0.002  # seconds


def interrupts_itself(test):
    """Mark a test that uses `interrupted_when`."""
    # The signal may come between open() and its with statement: that file is closed by the
    # collector, with a warning.
    test = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")(test)
    return pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")(test)


@contextmanager
def interrupted_when(happened: Callable[[], object]) -> Iterator[None]:
    """Send SIGINT to this process as soon as `happened` is true, once, within the block."""
    over = threading.Event()

    def press() -> None:
        while not over.wait(_EVERY):
            if happened():
                os.kill(os.getpid(), signal.SIGINT)
                return

    thread = threading.Thread(target=press, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
