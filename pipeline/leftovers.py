"""Files in work, and what is left of those whose process was killed."""

import contextlib
import functools
import hashlib
import itertools
import os
import re
import socket
import time
from pathlib import Path

# ".name.<machine><process><number>.part.suffix"; earlier versions had eight random digits.
LEFT_OVER = re.compile(
    r"\..+\.(?P<machine>[0-9a-f]{8})(?:(?P<process>[0-9a-f]{8})\w+)?\.part(\.\w+)?"
)
STALE_SECONDS = 24 * 3600  # after which a file in work of another machine is left over
_number = itertools.count()


def name_in_work(path: Path) -> Path:
    """Return what a file is called while it is written.

    The name starts with a dot and keeps the suffix, so that encoders which look at it work and
    nothing takes it for a result. It says which process writes it.
    """
    number = f"{machine()}{os.getpid():08x}{next(_number):x}"
    return path.with_name(f".{path.stem}.{number}.part{path.suffix}")


def is_left_over(path: Path) -> bool:
    """Return whether a file is in work by nobody: its process is gone."""
    found = LEFT_OVER.fullmatch(path.name)
    if found is None:
        return False
    try:
        if found["machine"] == machine() and found["process"]:
            return not _is_alive(int(found["process"], 16))
        return time.time() - path.stat().st_mtime > STALE_SECONDS
    except OSError:
        return False


def remove_left_over(folder: Path) -> None:
    """Remove the files below a folder that killed processes were writing."""
    for path in folder.glob("**/.*.part*"):
        if is_left_over(path):
            with contextlib.suppress(OSError):
                path.unlink()


@functools.cache
def machine() -> str:
    """Return eight hexadecimal digits for this machine since it was started; containers differ."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:8]


def _is_alive(process: int) -> bool:
    import psutil  # as slow to load as all of --help

    return bool(psutil.pid_exists(process))
