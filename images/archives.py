"""Files in zip files, opened in place ("raw/series.zip/1.dcm" is such a path), and files in memory.

The archive's programming interface hands out one zip file for each series, and people do not
always unpack them. A path without a zip file in it costs nothing here but a look at its text.
"""

import functools
import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath
from typing import BinaryIO

from isal import isal_zlib

from pipeline.errors import UserError

SUFFIX = ".zip"
MAC_FOLDER = "__MACOSX"  # where the Mac's archiver keeps what is no image
ENCRYPTED = 1  # bit 0 of a member's flags (APPNOTE.TXT of PKWARE, 4.4.4)
LOCAL_HEADER = struct.Struct("<26xHH")  # 4.3.7; what it says of name and extra field: lengths
RAW_DEFLATE = -15  # without the header and checksum of zlib
SLACK = 1024  # bytes; more than a deflate stream holds before its first byte of content
DIRECTORIES = 16  # zip files whose lists of members are kept in mind


@dataclass(frozen=True)
class MemoryFile:
    """The content of a file under the name that messages call it by."""

    name: str
    content: bytes = field(repr=False)  # no line of a log may hold it

    def __str__(self) -> str:
        return self.name

    @property
    def suffix(self) -> str:
        """The end of its name: ".dcm"."""
        return PurePath(self.name).suffix


ImageFile = Path | MemoryFile


def members(archive: Path) -> list[tuple[str, int]]:
    """List the files inside a zip file, sorted by name, with their size unpacked, in bytes.

    Folders, hidden files and those of __MACOSX are left out. `archive / name` opens a member.

    Raises:
        UserError: The zip file is missing, truncated or damaged.
    """
    return sorted((name, info.file_size) for name, info in _directory(archive, archive).items())


def inside(path: ImageFile) -> tuple[Path, str] | None:
    """Split a path that leads into a zip file into that file and the member's name."""
    if isinstance(path, MemoryFile) or SUFFIX not in str(path).lower():
        return None
    for parent in path.parents:
        if parent.suffix.lower() == SUFFIX and parent.is_file():
            return parent, path.relative_to(parent).as_posix()
    return None


def size_of(path: ImageFile) -> int:
    """Return the size of a file in bytes, of one inside a zip file unpacked.

    Raises:
        UserError: There is no such file, or its zip file is damaged.
    """
    if isinstance(path, MemoryFile):
        return len(path.content)
    if place := inside(path):
        return _member(path, *place).file_size
    try:
        return path.stat().st_size
    except OSError as error:
        raise unreadable(path, error) from None


def open_binary(path: ImageFile, first: int | None = None) -> BinaryIO:
    """Open a file for reading, also one inside a zip file or in memory.

    Args:
        path: The file.
        first: How many bytes of it will do; only of a file inside a zip file are no more read.

    Raises:
        UserError: The file is missing or may not be read; or inside a zip file it is damaged,
            encrypted or packed in a way that is not read.
    """
    if isinstance(path, MemoryFile):
        return io.BytesIO(path.content)
    if place := inside(path):
        return io.BytesIO(_unpack(path, place[0], _member(path, *place), first))
    try:
        return path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: ImageFile, error: OSError) -> UserError:
    """Return what to tell a person about a file that the system would not open."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return UserError(f"{path}: no such file")
    if isinstance(path, Path) and path.is_dir():
        return UserError(f"{path}: is a folder, not an image")
    return UserError(f"{path}: cannot be read ({error.strerror or error})")


def _directory(archive: Path, path: ImageFile) -> Mapping[str, zipfile.ZipInfo]:
    """Return the members of a zip file by name; errors name `path`."""
    try:
        status = archive.stat()
        return _read_directory(archive, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise unreadable(path, error) from None
    except Exception:  # zipfile raises anything when bytes are damaged
        what = "is" if path == archive else "lies in"
        raise UserError(
            f"{path}: {what} a zip file that is truncated or damaged", "download it again"
        ) from None


@functools.lru_cache(DIRECTORIES)
def _read_directory(archive: Path, size: int, changed: int) -> Mapping[str, zipfile.ZipInfo]:
    """Read the list of members; `size` and `changed` tell one state of the file from the next."""
    del size, changed
    with zipfile.ZipFile(archive) as opened:
        infos = [info for info in opened.infolist() if not info.is_dir()]
    # A leading slash would lead out of the zip file when joined to its path.
    named = ((PurePosixPath(info.filename.lstrip("/")), info) for info in infos)
    return {
        name.as_posix(): info
        for name, info in named
        if not any(part[0] == "." or part == MAC_FOLDER for part in name.parts)
    }


def _member(path: ImageFile, archive: Path, name: str) -> zipfile.ZipInfo:
    info = _directory(archive, path).get(name)
    if info is None:
        raise UserError(f"{path}: no such file in the zip file")
    return info


def _unpack(path: ImageFile, archive: Path, info: zipfile.ZipInfo, first: int | None) -> bytes:
    """Return the content of a member, or only its first bytes.

    zipfile itself would read the whole list of members anew for each of them.
    """
    if info.flag_bits & ENCRYPTED:
        raise UserError(f"{path}: is encrypted in its zip file", "unpack it with its password")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        method = f"method {info.compress_type}"  # 4.4.5; Windows takes 9 for large files
        raise UserError(f"{path}: is packed by {method} in its zip file", "unpack the zip file")
    damaged = UserError(f"{path}: is damaged in its zip file", "download the zip file again")
    whole = first is None or first >= info.file_size
    wanted = info.file_size if whole or first is None else first
    try:
        packed = _packed(archive, info, info.compress_size if whole else wanted + SLACK)
        if info.compress_type == zipfile.ZIP_DEFLATED and wanted:
            packed = zlib.decompressobj(RAW_DEFLATE).decompress(packed, wanted)
    except OSError as error:
        raise unreadable(path, error) from None
    except (struct.error, zlib.error):
        raise damaged from None
    content = packed[:wanted]
    if len(content) < wanted or (whole and isal_zlib.crc32(content) != info.CRC):
        raise damaged
    return content


def _packed(archive: Path, info: zipfile.ZipInfo, count: int) -> bytes:
    """Read the first bytes of a member as they lie in the zip file."""
    with archive.open("rb") as file:
        file.seek(info.header_offset)
        lengths = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
        file.seek(sum(lengths), io.SEEK_CUR)
        return file.read(min(count, info.compress_size))
