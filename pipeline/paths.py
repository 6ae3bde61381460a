"""Names that a file of a workspace gives: they lead to files inside their folder, or are refused.

A workspace may come from somebody else. What its tables and ledgers name is read, written and
removed, so a name like "../thesis.docx" must not be followed.
"""

import functools
import os
import shlex
from pathlib import Path

from pipeline.errors import UserError, shown


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file that a file of the folder names; the one way to join the two.

    Args:
        folder: A folder of the workspace.
        name: Relative to it, with forward slashes.

    Raises:
        UserError: The name leads out of the folder, by itself or over a link in the folder.
    """
    path = folder / name if is_inside(name) else None
    if path is None or not _stays(folder.absolute(), path.absolute()):
        raise UserError(
            f"{folder}: a file in it names {shown(name)!r}, which lies outside of it",
            "do not use this folder, or make it again",
        )
    return path


def link_out_of(folder: Path) -> Path | None:
    """Return a link below a folder that leads out of it, or None where there is none."""
    own = folder.resolve()
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *files)):
            if path.is_symlink() and not path.resolve().is_relative_to(own):
                return path
    return None


def from_here(path: Path) -> Path:
    """Return a path as people read it best: relative where it lies below the current folder."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def is_inside(name: str) -> bool:
    """Return whether a relative path stays below the folder that it starts from."""
    # Windows takes a backslash for a separator, and "C:name" for a path of another drive.
    if not name or "\0" in name or "\\" in name or name[1:2] == ":":
        return False
    return name[0] != "/" and ".." not in name.split("/") and name != "."


def is_possible(path: object) -> bool:
    """Return whether a value of a file is the path of a file that there can be."""
    if not isinstance(path, str | Path):
        return False
    try:
        Path(path).lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return True
    except (OSError, ValueError):  # too long, or with a NUL byte
        return False
    return True


def is_file_name(name: str) -> bool:
    """Return whether a text is the name of a file, without a folder."""
    return is_inside(name) and "/" not in name and ":" not in name


def _stays(folder: Path, path: Path) -> bool:
    """Return whether no link on the way leads out of the folder; both paths are absolute."""
    try:
        if not _resolves_inside(folder, path.parent):
            return False
        return not path.is_symlink() or path.resolve().is_relative_to(folder.resolve())
    except OSError:  # no name that a file can have
        return False


@functools.lru_cache(maxsize=256)  # thousands of images lie in six folders
def _resolves_inside(folder: Path, parent: Path) -> bool:
    return parent.resolve().is_relative_to(folder.resolve())


def named_paths(text: str) -> list[Path]:
    """Return the paths that an answer names: words as in a shell, or one path with spaces.

    Raises:
        UserError: A quote is not closed.
    """
    whole = text.strip()
    if not whole:
        return []
    if Path(whole).expanduser().exists():
        return [Path(whole).expanduser()]
    try:
        words = shlex.split(whole, posix=os.name != "nt")
    except ValueError:
        raise UserError(f"{text}: a quote is not closed") from None
    return [Path(word.strip("\"'") if os.name == "nt" else word).expanduser() for word in words]
