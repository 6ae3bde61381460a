"""Where the images of RSNA Screening Mammography lie: DICOM files, or copies that people made.

`<patient>/<image>.dcm` or `.png`, or `<patient>_<image>.png`, in the folder or in any one folder in
it. Each folder is listed once; no file is opened.
"""

import os
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from images.files import SUFFIXES

DICOM = (".dcm", ".dicom")
IMAGES = (*DICOM, *SUFFIXES)
COPY = re.compile(r"\d+_\d+")
MOST_LOOKED_AT = 50  # names in a folder, by which it is known for one of images


class Place(NamedTuple):
    """Where an image lies; of several places the first in order is taken."""

    is_copy: bool  # no DICOM file
    folder: str  # that holds the patients' folders or the images; empty for the source itself
    flat: bool  # "<patient>_<image>", without a folder of the patient
    suffix: str
    file: str  # relative to the source, with forward slashes
    size: int  # in bytes
    changed: int  # time of its last change in nanoseconds

    @property
    def shown(self) -> str:
        """What its folder and its suffix are, for a message."""
        return f"{self.folder or '.'} ({self.suffix})"

    def other(self, patient: str, image: str) -> str:
        """Return where another image would lie that lies like this one."""
        start = f"{self.folder}/" if self.folder else ""
        return f"{start}{patient}{'_' if self.flat else '/'}{image}{self.suffix}"


@dataclass
class Found:
    """What a folder holds of a table's images."""

    places: dict[str, Place] = field(default_factory=dict)  # by image_id
    twice: Counter[tuple[str, str]] = field(default_factory=Counter)  # (taken, other) folder
    # (file or folder, reason) of what no row is about, or what may not be read.
    unlisted: list[tuple[str, str]] = field(default_factory=list)

    @property
    def usual(self) -> Place:
        """One that lies as most do."""

        def kind(place: Place) -> tuple[str, bool, str]:
            return place.folder, place.flat, place.suffix

        most = Counter(map(kind, self.places.values())).most_common(1)[0][0]
        return next(place for place in self.places.values() if kind(place) == most)


def find_images(source: Path, named: Iterable[tuple[str, str]], table: str) -> Found:
    """Find the files of the images that a table lists.

    Args:
        source: The folder.
        named: Patient and image of each row.
        table: Name of the table, for what it does not list.
    """
    pairs = set(named)
    patients, listed = {patient for patient, _ in pairs}, {f"{who}_{one}" for who, one in pairs}
    found = Found()
    below = [
        entry.name
        for entry in _entries(source, "", found)
        if entry.name not in patients and entry.name[:1] != "." and entry.is_dir()
    ]
    for root in ("", *below):
        strange: list[tuple[str, str]] = []
        known = len(found.places) + found.twice.total()
        for entry in _entries(source, root, found):
            if entry.name in patients and entry.is_dir():
                _take_patient(source, root, entry.name, listed, found, table)
            elif _is_image(entry):
                name = _parts(entry.name)[0]
                if name in listed:
                    _take(entry, root, root, name, found)
                else:
                    strange.append((_joined(root, entry.name), f"is not in {table}"))
            elif root and entry.is_dir():
                reason = f"is the folder of no patient of {table}"
                strange.append((_joined(root, entry.name), reason))
        if len(found.places) + found.twice.total() > known:  # else it holds something else
            found.unlisted += strange
    return found


def _take_patient(
    source: Path, root: str, patient: str, listed: Container[str], found: Found, table: str
) -> None:
    """Take up the files in a patient's folder."""
    folder = _joined(root, patient)
    for entry in _entries(source, folder, found):
        if not _is_image(entry):
            continue
        name = f"{patient}_{_parts(entry.name)[0]}"
        if name in listed:
            _take(entry, root, folder, name, found)
        else:
            found.unlisted.append((f"{folder}/{entry.name}", f"is not in {table}"))


def _take(entry: os.DirEntry[str], root: str, folder: str, image_id: str, found: Found) -> None:
    """Take up a file of an image; of several the best."""
    status, suffix = entry.stat(), _parts(entry.name)[1]
    place = Place(
        is_copy=suffix.lower() not in DICOM,
        folder=root,
        flat=folder == root,
        suffix=suffix,
        file=_joined(folder, entry.name),
        size=status.st_size,
        changed=status.st_mtime_ns,
    )
    known = found.places.get(image_id)
    if known is None:
        found.places[image_id] = place
        return
    taken, other = sorted((known, place))
    found.places[image_id] = taken
    found.twice[taken.shown, other.shown] += 1


def holds_images(folder: Path) -> bool:
    """Return whether a folder's first names are those of patients' folders or of copies."""
    with os.scandir(folder) as entries:
        for _, entry in zip(range(MOST_LOOKED_AT), entries, strict=False):
            flat = _is_image(entry) and COPY.fullmatch(_parts(entry.name)[0])
            if flat or (entry.name.isdecimal() and entry.is_dir()):
                return True
    return False


def _entries(source: Path, folder: str, found: Found) -> Iterator[os.DirEntry[str]]:
    """Yield what a folder holds, by name; a folder that may not be read is noted."""
    try:
        with os.scandir(source / folder) as entries:
            held = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        found.unlisted.append((folder or ".", f"cannot be read ({error.strerror or error})"))
        return
    yield from held


def _joined(root: str, name: str) -> str:
    return f"{root}/{name}" if root else name


def _parts(name: str) -> tuple[str, str]:
    """Return the stem and the suffix of a file's name; quicker than a Path for each of 54,706."""
    stem, dot, suffix = name.rpartition(".")
    return stem, dot + suffix


def _is_image(entry: os.DirEntry[str]) -> bool:
    # No pipe, which nobody may ever write to.
    return entry.name[:1] != "." and entry.name.lower().endswith(IMAGES) and entry.is_file()
