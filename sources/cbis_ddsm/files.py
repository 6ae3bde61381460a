"""CBIS-DDSM: which file holds which series, in any layout of folders, and what is a mask."""

import contextlib
import io
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from images import archives
from images.dicom import defect, read_header
from images.files import SPREAD, SUFFIXES, is_dicom, read_bytes, read_image
from pipeline.errors import UserError
from pipeline.progress import Progress
from pipeline.records import digest
from pipeline.resources.places import HEADERS
from pipeline.tables import read_columns, read_table
from pipeline.work import Ledger, run_all, worker_count
from sources.cbis_ddsm.masks import is_flat, is_mask
from sources.cbis_ddsm.tables import csvs_under
from sources.walking import walk
from sources.writing import GREY_IN_PLACE, MASK_IN_PLACE

NO_IMAGE = False  # what the index keeps of a licence and the like
INDEX_VERSION = 3  # to be raised when other facts are kept of a file
BATCH = 64  # headers read in one job: one alone is too short to be worth sending
FEW = 1000  # files below which starting processes takes longer than reading the headers
UID = re.compile(r"\d+(\.\d+){2,}")  # PS3.5, section 9
TABLES_AND_TEXTS = (".csv", ".txt", ".json", ".xml", ".html", ".pdf", ".lnk", ".tcia")
ZIP = ".zip"
DIGITS = 5  # of its series that a descriptive folder ends in
SUFFIX = re.compile(rf"-(\d{{{DIGITS}}})$")
JPEG, JPEG_END, JPEG_TAIL = (".jpg", ".jpeg"), b"\xff\xd9", 64  # it may be padded
MASK, IMAGE = "mask", "image"
SMALL_GREY = 0.1  # the same at an eighth of the size, where an outline is a larger share
INFO_COLUMNS = {"image_path", "SeriesInstanceUID", "Rows", "Columns", "BitsAllocated"}
Line = dict[str, str]  # of dicom_info.csv
Table = dict[str, Line]  # its lines on one series, by the name of the file


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One image file of a download."""

    # Path relative to the download, with forward slashes; of a file in a zip archive, the archive's
    # path and the name in it.
    name: str
    series: str  # SeriesInstanceUID: from the header, or for JPEG copies from the folder's name
    sop: str  # SOPInstanceUID; empty for JPEG copies
    role: str  # MASK where it has 8 bits (for JPEG copies: where it is black and white), else IMAGE
    rows: int  # height in pixels
    columns: int  # width in pixels
    description: str  # seriesDescription; empty where the file has none
    laterality: str  # "LEFT", "RIGHT" or empty
    view: str  # "CC", "MLO" or empty
    size: int  # in bytes
    changed: int  # time of the last change in nanoseconds
    listed: bool = False  # whether the table of the JPEG copy says its role
    defect: str = ""  # why its pixels cannot be read, as far as the header tells
    oddity: str = ""  # what is wrong with a header that can be read all the same
    identifying: str = ""  # its tags that may tell who a person is, with blanks between them
    burned_in: bool = False  # whether it says that text is burned into the pixels

    @property
    def strayed(self) -> tuple[int, int, int, str]:
        """How little a file seems to be where it was downloaded to; of two copies the less."""
        places = {True: 0, None: 1, False: 2}
        return places[self.in_its_folder], self.changed, len(self.name), self.name

    @property
    def in_its_folder(self) -> bool | None:
        """Whether the folder's name is that of the file's series; None where it tells nothing.

        It is the UID in classic layouts, and ends in its last five digits in descriptive ones.
        """
        folder = PurePosixPath(self.name).parent.name.removesuffix(ZIP)
        if UID.fullmatch(folder):
            return folder == self.series
        suffix = SUFFIX.search(folder)
        return self.series.endswith(suffix[1]) if suffix else None

    @property
    def source_id(self) -> str:
        """What the collection calls it."""
        return self.series

    @property
    def pixels(self) -> int:
        """How many pixels it has."""
        return self.rows * self.columns

    def facts(self) -> dict[str, Any]:
        """Return what tells it from any other content; see `sources.writing.Candidate`."""
        return asdict(self)

    def read(self, source: Path, wants_mask: bool) -> NDArray[np.uint16]:
        """Return its pixels; see `sources.writing.Candidate`."""
        image = read_image(source / self.name)
        if wants_mask and not is_mask(image):
            raise UserError(GREY_IN_PLACE)
        if not wants_mask and self._shows_mask(image):
            raise UserError(MASK_IN_PLACE)
        return image

    def _shows_mask(self, image: NDArray[np.uint16]) -> bool:
        if self.is_copy:  # its bits say nothing, so its table does, or else its pixels
            return self.role == MASK if self.listed else is_mask(image)
        return self.role == MASK and is_flat(image)

    @property
    def is_copy(self) -> bool:
        """Whether it is a JPEG (or PNG) copy: its bits say nothing of its role."""
        return self.name.lower().endswith(SUFFIXES)


@dataclass(frozen=True)
class Index:
    """What a download holds."""

    series: dict[str, tuple[SourceFile, ...]]  # SeriesInstanceUID -> its files, sorted by name
    # (relative path, reason) of what should have been an image.
    unreadable: tuple[tuple[str, str], ...]
    headers_read: int  # how many files had to be opened; the others are known from last time

    def candidates(self, series: Iterable[str], role: str = IMAGE) -> tuple[SourceFile, ...]:
        """Return the files of some series, the most likely one of the role first.

        An earlier series comes before a later one: of a film stored twice the same copy is taken
        wherever, and in whatever order, its files were put on the disk.
        """
        ranks = {uid: rank for rank, uid in enumerate(dict.fromkeys(series))}
        files = [file for uid in ranks for file in self.series.get(uid, ())]

        def order(file: SourceFile) -> tuple[Any, ...]:
            return file.role != role, bool(file.defect), ranks[file.series], file.strayed

        return tuple(sorted(files, key=order))

    def of_role(self, series: Iterable[str], role: str) -> tuple[SourceFile, ...]:
        """Return the files of some series that have a role, sound ones first."""
        return tuple(file for file in self.candidates(series, role) if file.role == role)


@dataclass(frozen=True)
class _Found:
    """A file to identify: its path, and what tells whether it changed."""

    name: str
    size: int
    changed: int

    @property
    def key(self) -> str:
        return digest(INDEX_VERSION, self.size, self.changed)


def index_files(source: Path, keep: Path | None, workers: int, progress: Progress) -> Index:
    """Read the header of every image file under a folder, once.

    Files that are no images (tables, licences, links) are passed over.

    Args:
        source: The folder of the download.
        keep: The folder to keep the index in, so that a later run reads no header again; None to
            keep nothing.
        workers: Processes to read with; 0 for one each core where there are enough files for it.
        progress: Where to report.
    """
    unreadable: list[tuple[str, str]] = []
    found = sorted(_files(source, unreadable), key=lambda file: file.name)
    ledger = Ledger(keep, HEADERS) if keep else None
    known = {file.name: ledger.facts(file.name, file.key) for file in found} if ledger else {}
    left = [file for file in found if known.get(file.name) is None]
    jobs = [(source, left[at : at + BATCH]) for at in range(0, len(left), BATCH)]
    processes = 1 if len(left) < FEW and not workers else worker_count(workers)
    files = [SourceFile(**facts) for facts in known.values() if facts]
    with progress.track("Reading headers", len(found), "files", len(found) - len(left)) as advance:
        for (_, batch), outcomes in run_all(_identify_batch, jobs, processes):
            if isinstance(outcomes, UserError):
                raise outcomes
            unreadable += [item for item in outcomes if isinstance(item, tuple)]
            files += [item for item in outcomes if isinstance(item, SourceFile)]
            if ledger:
                ledger.add_all(
                    (file.name, file.key, asdict(item) if item else NO_IMAGE)
                    for file, item in zip(batch, outcomes, strict=True)
                    if not isinstance(item, tuple)
                )
            advance(len(batch))
    return Index(_by_series(_compared(source, files)), tuple(sorted(unreadable)), len(left))


def _by_series(files: Iterable[SourceFile]) -> dict[str, tuple[SourceFile, ...]]:
    series: dict[str, list[SourceFile]] = {}
    for file in sorted(files, key=lambda file: file.name):
        series.setdefault(file.series, []).append(file)
    return {uid: tuple(members) for uid, members in sorted(series.items())}


def _files(source: Path, unreadable: list[tuple[str, str]]) -> Iterator[_Found]:
    """Yield everything under a folder that may be an image, looking into zip archives."""
    for path in _paths(source, unreadable):
        name = path.relative_to(source).as_posix()
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                continue  # a pipe would be waited for without end
            if path.suffix.lower() == ZIP:
                for member, size in archives.members(path):
                    if _may_be_image(member):
                        yield _Found(f"{name}/{member}", size, status.st_mtime_ns)
            else:
                yield _Found(name, status.st_size, status.st_mtime_ns)
        except UserError as error:
            unreadable.append((name, str(error).removeprefix(f"{path}: ")))
        except OSError as error:
            unreadable.append((name, f"cannot be read ({error.strerror})"))


def _paths(source: Path, unreadable: list[tuple[str, str]]) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        name = Path(error.filename).relative_to(source).as_posix()
        unreadable.append((name, f"the folder cannot be read ({error.strerror})"))

    for parent, names in walk(source, refuse):
        yield from (parent / name for name in names if _may_be_image(name))


def _may_be_image(name: str) -> bool:
    return not name.startswith(".") and not name.lower().endswith(TABLES_AND_TEXTS)


def _identify_batch(job: tuple[Path, list[_Found]]) -> list[SourceFile | tuple[str, str] | None]:
    source, found = job
    return [_identify(source, file) for file in found]


def _identify(source: Path, found: _Found) -> SourceFile | tuple[str, str] | None:
    """Return the facts of one file, why it cannot be read, or None where it is no image."""
    path = source / found.name
    try:
        if path.suffix.lower() in SUFFIXES:
            return _identify_copy(path, found) if UID.fullmatch(path.parent.name) else None
        if not is_dicom(path):
            return None
        header = read_header(path)
    except UserError as error:
        return found.name, str(error).removeprefix(f"{path}: ")
    if not header.series_uid:
        return found.name, "its header has no SeriesInstanceUID"
    return SourceFile(
        name=found.name,
        series=header.series_uid,
        sop=header.sop_uid,
        role=MASK if header.bits_allocated == 8 else IMAGE,
        rows=header.rows,
        columns=header.columns,
        description=header.series_description,
        laterality=header.laterality,
        view=header.view,
        size=found.size,
        changed=found.changed,
        defect=defect(header, found.size),
        oddity=header.oddity,
        identifying=" ".join(header.identifying),
        burned_in=header.burned_in,
    )


def _identify_copy(path: Path, found: _Found) -> SourceFile:
    """Look at a JPEG copy, which has no header: an eighth of its size tells what it shows."""
    content = read_bytes(path)
    rows, columns = _size_of_copy(path, content)
    whole = path.suffix.lower() not in JPEG or JPEG_END in content[-JPEG_TAIL:].tobytes()
    role = IMAGE
    if whole:
        tiny = min(rows, columns) < 64
        how = cv2.IMREAD_GRAYSCALE if tiny else cv2.IMREAD_REDUCED_GRAYSCALE_8
        small = cv2.imdecode(content, how)
        if small is None:
            raise UserError(f"{path}: cannot be decoded, it is damaged or not an image")
        role = MASK if is_mask(np.multiply(small, SPREAD, dtype=np.uint16), SMALL_GREY) else IMAGE
    return SourceFile(
        name=found.name,
        series=path.parent.name,
        sop="",
        role=role,
        rows=rows,
        columns=columns,
        description="",
        laterality="",
        view="",
        size=found.size,
        changed=found.changed,
        defect="" if whole else "is truncated",
    )


def _size_of_copy(path: Path, content: NDArray[np.uint8]) -> tuple[int, int]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content.tobytes())) as image:
            return image.height, image.width
    except UnidentifiedImageError:  # its text holds an address in memory
        raise UserError(f"{path}: is not an image, or damaged from its beginning") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be decoded ({error})") from None


def _compared(source: Path, files: list[SourceFile]) -> list[SourceFile]:
    """Hold JPEG copies against the table that came with them, where there is one."""
    copies = [file for file in files if file.is_copy]
    if not copies:
        return files
    info = _read_info(source)
    present = {(file.series, _last(file)) for file in copies}
    absent = {
        uid: [line for name, line in lines.items() if (uid, name) not in present]
        for uid, lines in info.items()
    }
    compared = [file for file in files if not file.is_copy]
    for file in copies:
        lines = info.get(file.series)
        compared.append(_in_table(file, lines, absent[file.series]) if lines else file)
    return compared


def _in_table(file: SourceFile, lines: Table, absent: list[Line]) -> SourceFile:
    """Return a copy with what the table says; `absent` are lines of its series without a file."""
    if line := lines.get(_last(file)):
        return _as_listed(file, line)
    size = file.rows, file.columns
    if line := next((line for line in absent if _size_in(line) == size), None):
        absent.remove(line)  # it was given another name
        return _as_listed(file, line)
    if file.defect or any(_size_in(line) == size for line in lines.values()):
        return file  # it may be a copy of the one that is there
    sizes = " and ".join(sorted({f"{x[1]} x {x[0]}" for x in map(_size_in, lines.values())}))
    reason = f"is {file.columns} x {file.rows}, but its series is listed as {sizes}"
    return replace(file, defect=reason)


def _as_listed(file: SourceFile, line: Line) -> SourceFile:
    facts: dict[str, Any] = {"description": line.get("SeriesDescription") or ""}
    rows, columns = _size_in(line)
    if rows and columns and (rows, columns) != (file.rows, file.columns) and not file.defect:
        facts["defect"] = f"is {file.columns} x {file.rows}, but listed as {columns} x {rows}"
    if bits := _whole(line.get("BitsAllocated")):
        # What the header said before it was lost; a bright crop may look like a mask.
        facts |= {"role": MASK if bits == 8 else IMAGE, "listed": True}
    return replace(file, **facts)


def _size_in(line: Line) -> tuple[int, int]:
    return _whole(line.get("Rows")), _whole(line.get("Columns"))


def _last(file: SourceFile) -> str:
    return file.name.rpartition("/")[2]


def _whole(text: str | None) -> int:
    """Return a number of a table that may have been written as "204.0"; 0 where there is none."""
    try:
        return int(float(text or 0))
    except (ValueError, OverflowError):
        return 0


def _read_info(source: Path) -> dict[str, Table]:
    """Read dicom_info.csv, wherever it lies: SeriesInstanceUID -> name of a file -> its line."""
    for path in sorted(csvs_under(source)):
        with contextlib.suppress(UserError):  # another table, which is not ours to judge
            if not set(read_columns(path)) >= INFO_COLUMNS:
                continue
            info: dict[str, Table] = {}
            for line in read_table(path).lines:
                if line.cells["image_path"]:
                    *_, uid, name = ("/" + line.cells["image_path"]).split("/")
                    info.setdefault(uid, {})[name] = dict(line.cells)
            return info
    return {}
