"""Bytes of folders, and bytes, ages and times in words."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

MINUTE, HOUR, DAY = 60, 3600, 86_400
YEAR = 365 * DAY


def files_below(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the files below a folder with their status; links are not followed, nor yielded."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            with contextlib.suppress(OSError):  # removed in the meantime
                if not path.is_symlink():
                    yield path, path.lstat()


def bytes_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder; 0 where there is none."""
    if path.is_symlink() or not path.exists():
        return 0
    if path.is_file():
        return path.lstat().st_size
    return sum(status.st_size for _, status in files_below(path))


def bytes_text(count: float) -> str:
    """Return bytes in a unit that leaves few digits: "0.4 GB", "45 MB", "3 kB"."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= (0.1 if unit == "GB" else 0.95) * factor:
            value = count / factor
            return f"{value:.1f} {unit}" if value < 9.5 and unit != "kB" else f"{value:,.0f} {unit}"
    return f"{count:,.0f} bytes"


def age_text(seconds: float) -> str:
    """Return an age in its largest unit: "3 min", "5 h", "12 d", "2 y"; of the future "now"."""
    if seconds < MINUTE:
        return "now"
    for unit, length in (("y", YEAR), ("d", DAY), ("h", HOUR)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / MINUTE:.0f} min"


def time_text(seconds: float) -> str:
    """Return a time as an estimate can tell it: "40 s", "12 min", "3.5 h", "2 d"."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 90 * MINUTE:
        return f"{seconds / MINUTE:.0f} min"
    return f"{seconds / HOUR:.1f} h" if seconds < 2 * DAY else f"{seconds / DAY:.0f} d"
