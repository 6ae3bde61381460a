"""One run at a time in an output folder: who else comes is told which run is at work there."""

import contextlib
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UserError, shown

if TYPE_CHECKING:
    from filelock import FileLock

LOCK, HOLDER = ".lock", ".lock.txt"  # in the folder; the system frees the lock of a dead process
LONGEST = 100  # characters of who is at work
_held: dict[Path, "FileLock"] = {}


def hold(folder: Path, stage: str) -> None:
    """Hold a folder for this process until `release`; again is no matter.

    Raises:
        UserError: Another process holds it; the message says which.
    """
    place = folder.resolve()
    if place in _held:
        return
    from filelock import FileLock, Timeout  # a tenth of a second that --help need not wait

    lock = FileLock(place / LOCK, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = "another run"
        with contextlib.suppress(OSError, UnicodeDecodeError):
            who = shown((place / HOLDER).read_text(encoding="utf-8").strip(), LONGEST) or who
        raise UserError(
            f"{folder}: {who} is at work there", "wait for its end, or choose another folder"
        ) from None
    except (NotImplementedError, OSError):
        return  # No locks on this file system.
    if not (place / LOCK).exists():  # its last holder removed it in between
        lock.release()
        hold(folder, stage)
        return
    _held[place] = lock
    with contextlib.suppress(OSError):
        since = time.strftime("%H:%M")
        text = f"{stage} since {since}, process {os.getpid()} on {socket.gethostname()}"
        (place / HOLDER).write_text(text, encoding="utf-8")


def is_held(folder: Path) -> bool:
    """Return whether this process holds a folder."""
    return folder.resolve() in _held


def holder_of(folder: Path) -> str:
    """Return which other process is at work in a folder, in words; empty where none is."""
    place = folder.resolve()
    if place in _held or not (place / LOCK).exists():
        return ""
    try:
        hold(folder, "")
    except UserError as error:
        return error.problem.removeprefix(f"{folder}: ").removesuffix(" is at work there")
    release(folder)
    return ""


def release(*folders: Path) -> None:
    """Release some folders, or all that this process holds."""
    for place in [folder.resolve() for folder in folders] or [*_held]:
        if lock := _held.pop(place, None):
            for name in (HOLDER, LOCK):
                with contextlib.suppress(OSError):  # Windows keeps what is open
                    (place / name).unlink(missing_ok=True)
            lock.release()
