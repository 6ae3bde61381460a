"""Ctrl-C that cannot get lost.

Python raises KeyboardInterrupt wherever the main thread happens to be. In a destructor, or in a
callback of a library, it is printed or swallowed there, and the work goes on for hours. So it is
noted as well, and raised again at the next step of the work.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_noted = False


@contextlib.contextmanager
def noting_interrupts() -> Iterator[None]:
    """Note each Ctrl-C while the block runs; other handlers of it are left alone."""
    global _noted
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _noted = False


def raise_if_interrupted() -> None:
    """Raise KeyboardInterrupt where one was noted and the work has gone on all the same."""
    if _noted:
        raise KeyboardInterrupt


def _note(_signal: int, _frame: FrameType | None) -> None:
    global _noted
    _noted = True
    raise KeyboardInterrupt
