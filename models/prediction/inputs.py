"""What a person hands in to be scored: files, folders, zip files -> images, one by one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from images import archives
from images.files import SUFFIXES, is_dicom
from pipeline.errors import UserError
from pipeline.manifest import MANIFEST, read_manifest
from pipeline.paths import named_paths
from pipeline.records import RECORD

DICOM_SUFFIXES = (".dcm", ".dicom")
DICOM_INDEX = "DICOMDIR"  # of a disc: it names the files and is no image (PS3.10, section 8)


@dataclass(frozen=True)
class Found:
    """The images among what was handed in."""

    images: tuple[Path, ...]  # each once; those inside a zip file as `archive / member`
    others: Mapping[str, int]  # files of folders that are no images, by suffix


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
    for path in named_paths(text):
        for found in _inside(path):
            if found == path or _is_image(found):
                images[found] = None
            else:
                kind = found.suffix.lower() or "without a suffix"
                others[kind] = others.get(kind, 0) + 1
    if not images:
        raise UserError(
            f"{text}: holds no image",
            f"images are DICOM files and {', '.join(one[1:].upper() for one in SUFFIXES)}",
        )
    return Found(tuple(images), others)


def _inside(path: Path) -> Iterator[Path]:
    if path.suffix.lower() == archives.SUFFIX and path.is_file():
        yield from (path / name for name, _ in archives.members(path))
        return
    if not path.is_dir():
        yield path
        return
    if (path / MANIFEST).is_file() and (path / RECORD).is_file():
        # A dataset of the tool's own: beside its images lie masks and thumbnails.
        yield from (path / row.path for row in read_manifest(path) if not row.parent)
        return
    for found in sorted(path.rglob("*")):
        hidden = any(part.startswith(".") for part in found.relative_to(path).parts)
        if hidden or not found.is_file():
            continue
        if found.suffix.lower() == archives.SUFFIX:
            yield from (found / name for name, _ in archives.members(found))
        else:
            yield found


def _is_image(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in (*SUFFIXES, *DICOM_SUFFIXES):
        return True
    if path.name.upper() == DICOM_INDEX:
        return False
    try:
        return is_dicom(path)
    except UserError:
        return False
