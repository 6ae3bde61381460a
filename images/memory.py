"""A file that lies in memory alone, such as an upload; readers take it in place of a path."""

from dataclasses import dataclass, field
from pathlib import Path, PurePath


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
