"""The images of a plain folder: which files they are, and which of them are the same."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from pipeline.stages.data import PACKED
from sources.walking import walk

READ = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".pgm", ".dcm", ".dicom")
# Images, as people have them, that no reader here knows.
UNREAD = (".gif", ".heic", ".heif", ".webp", ".jp2", ".j2k", ".avif", ".svg", ".raw", ".mha",
          ".mhd", ".nrrd", ".nii", ".npy", ".npz", ".mat")  # fmt: skip
SIDES = {"l": "LEFT", "left": "LEFT", "r": "RIGHT", "right": "RIGHT"}
VIEWS = ("CC", "MLO", "ML", "LM", "LMO", "XCCL")
MASK = re.compile(r"(?P<image>.+?)[_ -]mask(?:[_ -]?\d+)?", re.IGNORECASE)
PART = 1024  # bytes at a quarter, half and three quarters of a file, that are compared first
DICOM_MAGIC_AT, DICOM_MAGIC = 128, b"DICM"  # PS3.10, section 7.1


def named(name: str) -> str:
    """Mark a name of a file or a person in a text, for `told`."""
    return f"\0{name}\0"


def told(text: str, hide: bool) -> str:
    """Return a text with the names in it, or without them where they are not to be told."""
    return re.sub("\0[^\0]*\0", "(name hidden)", text) if hide else text.replace("\0", "")


@dataclass(frozen=True)
class Picture:
    """A file that holds an image."""

    name: str  # its path relative to the folder, with forward slashes
    size: int  # bytes
    changed: int  # time of its last change in nanoseconds
    masks: tuple[str, ...] = ()  # files beside it with the masks of its lesions

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The folders on the way to it."""
        return tuple(self.name.split("/")[:-1])

    @cached_property
    def stem(self) -> str:
        """Its name without suffix."""
        return PurePosixPath(self.name).stem

    @cached_property
    def view(self) -> str:
        """The view, where its name tells it: "P_00001_LEFT_CC"."""
        return next((part.upper() for part in self._words if part.upper() in VIEWS), "")

    @cached_property
    def laterality(self) -> str:
        """The side, where its name tells it; "L" and "R" count beside a view alone."""
        told = (part.lower() for part in self._words if len(part) > 1 or self.view)
        return next((SIDES[part] for part in told if part in SIDES), "")

    @cached_property
    def _words(self) -> list[str]:
        return re.split(r"[^A-Za-z]+", self.stem)


@dataclass
class Found:
    """What a folder holds."""

    pictures: list[Picture] = field(default_factory=list)  # sorted by name
    unread: list[str] = field(default_factory=list)  # names of images of other kinds
    packed: list[str] = field(default_factory=list)  # names of files of many files
    empty: list[str] = field(default_factory=list)  # folders without a file below them

    def unread_counts(self) -> str:
        """Say how many there are of which kind: "3 .gif, 1 .heic"."""
        kinds = Counter(PurePosixPath(name).suffix.lower() for name in self.unread)
        return ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))


def find_pictures(folder: Path) -> Found:
    """Look through a folder; linked folders count, hidden files do not."""
    found = Found()
    held: set[str] = set()
    folders: list[str] = []
    for parent, names in walk(folder):
        place = parent.relative_to(folder).as_posix()
        folders.append(place)
        for name in sorted(name for name in names if name[0] != "."):
            kind = _kind(parent / name)
            if not kind:
                continue
            held.update(str(one) for one in (PurePosixPath(place), *PurePosixPath(place).parents))
            relative = (PurePosixPath(place) / name).as_posix()
            if kind != "read":
                (found.unread if kind == "unread" else found.packed).append(relative)
                continue
            status = (parent / name).stat()
            found.pictures.append(Picture(relative, status.st_size, status.st_mtime_ns))
    found.pictures = _with_masks(sorted(found.pictures, key=lambda picture: picture.name))
    found.empty = [place for place in folders if place not in held]
    return found


def first_picture(folder: Path) -> bool:
    """Return whether a folder holds an image that can be read; it stops at the first."""
    return any(Path(name).suffix.lower() in READ for _, names in walk(folder) for name in names)


def _kind(path: Path) -> str:
    """Return "read", "unread", or nothing for a file that is no image."""
    suffix = path.suffix.lower()
    if suffix in READ:
        return "read" if path.is_file() else ""
    if suffix in UNREAD:
        return "unread"
    if suffix in PACKED:
        return "packed"
    # DICOM files often have no suffix, or the last number of a UID for one.
    if suffix and not suffix[1:].isdigit():
        return ""
    try:
        with path.open("rb") as file:
            head = file.read(DICOM_MAGIC_AT + len(DICOM_MAGIC))
    except OSError:
        return ""
    return "read" if head[DICOM_MAGIC_AT:] == DICOM_MAGIC else ""


def _with_masks(pictures: Sequence[Picture]) -> list[Picture]:
    """Give "1_mask.png" to "1.png" beside it; a mask is no image of its own."""
    by_place = {(picture.parts, picture.stem): picture for picture in pictures}
    masks: dict[str, list[str]] = defaultdict(list)
    for picture in pictures:
        match = MASK.fullmatch(picture.stem)
        if match and (image := by_place.get((picture.parts, match["image"]))):
            masks[image.name].append(picture.name)
    taken = {name for names in masks.values() for name in names}
    return [
        Picture(one.name, one.size, one.changed, tuple(masks.get(one.name, ())))
        for one in pictures
        if one.name not in taken
    ]


def same_content(folder: Path, pictures: Sequence[Picture]) -> list[list[Picture]]:
    """Return the groups of files that are the same, byte for byte.

    Whole files are read only where size and a few parts are the same: films that are not
    compressed all have one size.
    """
    groups = [list(pictures)]
    for key in (lambda one: one.size, lambda one: _digest(folder / one.name, one.size),
                lambda one: _digest(folder / one.name)):  # fmt: skip
        groups = [part for group in groups for part in _parted(group, key)]
    return groups


def _parted(pictures: Sequence[Picture], key: Callable[[Picture], object]) -> list[list[Picture]]:
    """Return those of which several have the same key; none without one."""
    found: dict[object, list[Picture]] = defaultdict(list)
    for picture in pictures:
        found[key(picture)].append(picture)
    return [group for value, group in found.items() if value and len(group) > 1]


def _digest(path: Path, size: int = 0) -> str:
    """Return the digest of a file, or of three parts of one of some size."""
    try:
        with path.open("rb") as file:
            if not size:
                return hashlib.file_digest(file, "sha256").hexdigest()
            parts = hashlib.sha256()
            for place in (1, 2, 3):
                file.seek(place * size // 4)
                parts.update(file.read(PART))
            return parts.hexdigest()
    except OSError:  # it is set aside when it is to be read
        return ""


def image_ids(pictures: Sequence[Picture]) -> Mapping[str, str]:
    """Return a name for each image, by its file: its own, with its folders where two share it."""
    forms: tuple[Callable[[Picture], str], ...] = (
        lambda picture: picture.stem,
        lambda picture: str(PurePosixPath(picture.name).with_suffix("")),
        lambda picture: picture.name,
    )
    ids: dict[str, str] = {}
    left = list(pictures)
    for form in forms:
        names = {picture.name: _plain(form(picture)) for picture in left}
        used = Counter(name.casefold() for name in (*names.values(), *ids.values()))
        ids |= {file: name for file, name in names.items() if used[name.casefold()] == 1}
        left = [picture for picture in left if picture.name not in ids]
    taken = {name.casefold() for name in ids.values()}
    for picture in left:  # "a b.png" and "a_b.png"
        name, number = _plain(picture.name), 2
        while f"{name}-{number}".casefold() in taken:
            number += 1
        ids[picture.name] = f"{name}-{number}"
        taken.add(ids[picture.name].casefold())
    return ids


def _plain(name: str) -> str:
    """Return a name of letters, digits, ".", "_" and "-", as a file may have it anywhere."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")
    return plain or "image-" + hashlib.sha256(name.encode()).hexdigest()[:8]
