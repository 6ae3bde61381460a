"""What a person hands in to be scored: files, folders, zip files -> images, one by one."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from images import archives
from images.archives import unreadable
from images.files import SUFFIXES, is_dicom
from pipeline.errors import UserError
from pipeline.manifest import MANIFEST, read_manifest
from pipeline.paths import named_paths
from pipeline.records import RECORD, UNFINISHED, read_json

DICOM_SUFFIXES = (".dcm", ".dicom")
DICOM_INDEX = "DICOMDIR"  # of a disc: it names the files and is no image (PS3.10, section 8)
MAKERS_OF_FILMS = ("synthesize", "organize", "preprocess")  # stages whose folders hold films


@dataclass(frozen=True)
class Found:
    """The images among what was handed in."""

    images: tuple[Path, ...]  # each once; those inside a zip file as `archive / member`
    others: Mapping[str, int]  # files of folders that are no images, by suffix
    unreadable: Mapping[Path, UserError]  # folders, links and zip files, which may hold images
    own: tuple[Path, ...]  # folders that this tool wrote and that hold no films


def paths_problem(text: str) -> str | None:
    """Say which of the paths that an answer names is not there; None where all are."""
    try:
        paths = named_paths(text)
    except UserError as error:
        return error.problem.removeprefix(f"{text}: ")
    missing = [str(path) for path in paths if not path.exists() and not archives.inside(path)]
    if missing:
        one = f"{missing[0]} is" if len(paths) > 1 else "it is"
        return f"{one} no file or folder"
    return None


def find_images(text: str) -> Found:
    """Find the images of files, folders and zip files.

    A file that is named is taken whatever it is called; of a folder, with all folders in it, those
    files that a suffix or their first bytes show to be images.

    Raises:
        UserError: A path is not there, or there is no image.
    """
    if problem := paths_problem(text):
        raise UserError(f"{text}: {problem}", "give images, folders of images or zip files")
    images: dict[Path, None] = {}
    others: dict[str, int] = {}
    search = _Search()
    for path in named_paths(text):
        for found in search.inside(path):
            if found == path or _may_be_image(found):
                images[found] = None
            else:
                kind = found.suffix.lower() or "without a suffix"
                others[kind] = others.get(kind, 0) + 1
    if not images:
        for error in search.unreadable.values():
            raise error
        raise UserError(
            f"{text}: holds no image",
            f"images are DICOM files and {', '.join(one[1:].upper() for one in SUFFIXES)}",
        )
    return Found(tuple(images), others, search.unreadable, tuple(search.own))


class _Search:
    """A walk through what was handed in, which a part that cannot be read does not end."""

    def __init__(self) -> None:
        self.unreadable: dict[Path, UserError] = {}
        self.own: list[Path] = []  # folders of this tool that hold no films
        self._seen: set[tuple[int, int]] = set()  # folders; links may lead back to them

    def inside(self, path: Path) -> Iterator[Path]:
        """Yield the files of a file, a folder or a zip file."""
        if path.is_dir():
            yield from self._of_folder(path)
        elif path.suffix.lower() == archives.SUFFIX and path.is_file():
            yield from self._of_archive(path)
        else:
            yield path

    def _of_folder(self, folder: Path) -> Iterator[Path]:
        try:
            status = folder.stat()
            if (place := (status.st_dev, status.st_ino)) in self._seen:
                return
            self._seen.add(place)
            made_by = _maker(folder)
            entries = sorted(folder.iterdir())
        except OSError as error:
            self.unreadable[folder] = UserError(f"{folder}: cannot be read ({error.strerror})")
            return
        if (folder / MANIFEST).is_file() and (folder / RECORD).is_file():
            # A dataset of the tool's own: beside its images lie masks and thumbnails.
            yield from (folder / row.path for row in read_manifest(folder) if not row.parent)
        elif made_by not in (None, *MAKERS_OF_FILMS):
            # Heat-maps above all: the same command would score its own pictures the next time.
            self.own.append(folder)
        else:
            for path in entries:
                if not path.name.startswith("."):
                    yield from self._of_entry(path)

    def _of_entry(self, path: Path) -> Iterator[Path]:
        try:
            there = path.is_dir() or path.is_file()
        except OSError as error:
            self.unreadable[path] = unreadable(path, error)
            return
        if there:
            yield from self.inside(path)
        else:
            what = "is a link to nothing" if path.is_symlink() else "is no file or folder"
            self.unreadable[path] = UserError(f"{path}: {what}")

    def _of_archive(self, path: Path) -> Iterator[Path]:
        try:
            members = archives.members(path)
        except UserError as error:
            self.unreadable[path] = error
            return
        for name, _ in members:
            if name.lower().endswith(archives.SUFFIX):
                problem = f"{path / name}: is a zip file in a zip file"
                self.unreadable[path / name] = UserError(problem, "unpack the outer one")
            else:
                yield path / name


def _maker(folder: Path) -> str | None:
    """Return the stage of this tool that wrote a folder; None of any other folder."""
    for name in (RECORD, UNFINISHED):
        with contextlib.suppress(UserError, KeyError, TypeError):
            if (folder / name).is_file():
                return str(read_json(folder / name)["stage"])
    return None


def _may_be_image(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in (*SUFFIXES, *DICOM_SUFFIXES):
        return True
    if path.name.upper() == DICOM_INDEX:
        return False
    try:
        return is_dicom(path)
    except UserError:
        return True  # reading it will say why it cannot be told


def stamp(path: Path) -> tuple[int, int]:
    """Return size and time of a file, by which a change is noticed; of one in a zip file, of it."""
    place = archives.inside(path)
    try:
        facts = (place[0] if place else path).stat()
    except OSError:  # reading it will say why
        return 0, 0
    return facts.st_size, facts.st_mtime_ns
