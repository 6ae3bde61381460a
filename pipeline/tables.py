"""Tables that people open: read from whatever a spreadsheet made of them."""

import codecs
import contextlib
import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError, shown

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
EXCEL_HINT = re.compile(r"sep=(.)\r?\n")  # a first line that Excel writes and reads
DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
SAVE_AS = "save it as CSV (UTF-8)"
SPREADSHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers")
PACKED_MAGIC = (b"PK\3\4", b"\xd0\xcf\x11\xe0")  # of zip files, which .xlsx are, and of .xls


@dataclass(frozen=True)
class Line:
    """One line of a table below its header."""

    number: int  # in the file, from 1; of a cell with line breaks the last
    cells: Mapping[str, str]  # by column, without the space around them


@dataclass(frozen=True)
class TableFile:
    """What a CSV file holds."""

    path: Path
    columns: tuple[str, ...]  # as the file calls them; those without a name are left out
    lines: tuple[Line, ...]  # empty ones are left out
    encoding: str  # "UTF-8", "UTF-16" or "Windows-1252"
    separator: str  # one of SEPARATORS

    @property
    def note(self) -> str:
        """What is unusual in how the file is written; empty for UTF-8 with commas."""
        parts = [f"as {self.encoding}"] if self.encoding != "UTF-8" else []
        if self.separator != ",":
            parts.append(f"with {SEPARATORS[self.separator]} between its columns")
        return f"{self.path}: read {' '.join(parts)}" if parts else ""

    def number(self, text: str) -> float:
        """Return a cell as a number; where columns are not parted by commas, "0,5" is one.

        Raises:
            ValueError: It is none.
        """
        if self.separator != "," and DECIMAL_COMMA.fullmatch(text):
            text = text.replace(",", ".")
        return float(text)


def read_table(path: Path, needed: Sequence[str] = (), remedy: str = SAVE_AS) -> TableFile:
    """Read a CSV file, as this tool or a spreadsheet wrote it.

    Understood are UTF-8, with a byte order mark or without, UTF-16 and Windows-1252; columns
    parted by commas, semicolons or tabs; empty columns and lines.

    Args:
        path: Of the file.
        needed: Columns that it must have.
        remedy: What to do about a file that is not so.

    Raises:
        UserError: It is missing or is no such table; the message has the number of the line.
    """
    text, encoding = read_text(path, remedy)
    text, separator = _separated(text, needed)
    rows = _rows(path, text, separator, remedy)
    _, names = next(rows, (1, []))
    if missing := [name for name in needed if name not in names]:
        has = ", ".join(shown(name) for name in names[:4]) or "no columns"
        raise UserError(f"{path}: line 1: lacks {', '.join(missing)} (has {has})", remedy)
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise UserError(f"{path}: line 1: {shown(twice[0])} stands there twice", remedy)
    lines = []
    for number, cells in rows:
        if len(cells) < len(names) or any(cells[len(names) :]):
            problem = f"{len(cells)} cells, and the first line has {len(names)}"
            raise UserError(f"{path}: line {number}: {problem}", remedy)
        lines.append(Line(number, dict(zip(names, cells, strict=False))))
    columns = tuple(name for name in names if name)
    return TableFile(path, columns, tuple(lines), encoding, separator)


def read_text(path: Path, remedy: str = SAVE_AS) -> tuple[str, str]:
    """Read a text file in one of the encodings that editors and spreadsheets write.

    Returns:
        The text, line ends as they are, and the encoding: "UTF-8", "UTF-16" or "Windows-1252".

    Raises:
        UserError: It is missing, cannot be read or is no text.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file", remedy) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})", remedy) from None
    if content.startswith(PACKED_MAGIC):
        kind = "a spreadsheet" if is_spreadsheet(path) else "a spreadsheet or a packed file"
        how = SAVE_AS if remedy == SAVE_AS else f"{SAVE_AS}: {remedy}"
        raise UserError(f"{path}: is {kind}, which is not read", how)
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        if marked or b"\0" in content[:2]:  # without a mark a first letter has an empty byte
            little = content[1:2] == b"\0"
            text = content.decode("utf-16" if marked else "utf-16-le" if little else "utf-16-be")
            encoding = "UTF-16"
        else:
            text, encoding = content.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError:
        try:
            # Python knows five bytes of it as none; then it is no text of that kind either.
            text, encoding = content.decode("cp1252"), "Windows-1252"
        except UnicodeDecodeError as error:
            number = content[: error.start].count(b"\n") + 1
            raise UserError(f"{path}: line {number}: is no text", remedy) from None
    if "\0" in text:
        number = text[: text.index("\0")].count("\n") + 1
        raise UserError(f"{path}: line {number}: is no text, it holds NUL bytes", remedy)
    return text, encoding


def is_spreadsheet(path: Path) -> bool:
    """Return whether a file is called as spreadsheets are, which are not read."""
    return path.suffix.lower() in SPREADSHEETS


def unread_spreadsheets(folder: Path) -> str:
    """Say which spreadsheets lie in a folder, and what to do with them; empty where there is none.

    Hidden ones, locks of open ones (~$table.xlsx) and those with a CSV beside them do not count.
    """
    with contextlib.suppress(OSError):
        found = [path.name for path in sorted(folder.iterdir())
                 if is_spreadsheet(path) and path.name[0] not in ".~" and path.is_file()
                 and not path.with_suffix(".csv").exists()]  # fmt: skip
        if found:
            more = " and so on" if len(found) > 3 else ""
            return f"spreadsheets are not read: save {', '.join(found[:3])}{more} as CSV (UTF-8)"
    return ""


def read_columns(path: Path) -> list[str]:
    """Return the names of a table's columns; none where it is no table.

    Raises:
        UserError: It is missing, cannot be read or is no text.
    """
    text, separator = _separated(read_text(path)[0], ())
    with contextlib.suppress(UserError):
        return next(_rows(path, text, separator, SAVE_AS), (1, []))[1]
    return []


def _separated(text: str, needed: Sequence[str]) -> tuple[str, str]:
    """Return the text without Excel's hint, and what parts its columns."""
    if hint := EXCEL_HINT.match(text):
        text = "\n" + text[hint.end() :]  # the numbers of the lines stay those of the file
    return text, hint[1] if hint and hint[1] in SEPARATORS else _separator(text, needed)


def _separator(text: str, needed: Sequence[str]) -> str:
    """Return what parts the columns of the first line: it finds most of those needed."""
    first = next((line for line in re.split(r"[\r\n]", text) if line.strip()), "")

    def found(separator: str) -> tuple[int, int]:
        names = [name.strip() for name in next(csv.reader([first], delimiter=separator), [])]
        return len(set(names) & set(needed)), len(names)

    try:
        return max(SEPARATORS, key=found)
    except csv.Error:
        return ","


def _rows(path: Path, text: str, separator: str, remedy: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each line that is not empty, and its cells; trailing empty ones go."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header = 0
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                if not header:
                    while not stripped[-1]:
                        del stripped[-1]
                header = header or len(stripped)
                yield reader.line_num, stripped
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num}: {error}", remedy) from None
