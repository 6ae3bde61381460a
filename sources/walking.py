"""Looking through the folders of a download."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def walk(
    folder: Path, refuse: Callable[[OSError], None] | None = None
) -> Iterator[tuple[Path, list[str]]]:
    """Yield every folder under one, linked ones too, with the names of its files.

    Args:
        folder: Where to begin.
        refuse: Told of folders that cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        status = Path(parent).stat()
        place = status.st_dev, status.st_ino
        if place in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(place)
        # Hidden files and __MACOSX hold what the Mac's archiver adds: "._1-1.dcm" is no image.
        folders[:] = sorted(name for name in folders if name[0] != "." and name != "__MACOSX")
        yield Path(parent), names
