import itertools

import pytest

from pipeline.errors import UserError
from pipeline.tables import read_table

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"]


@pytest.mark.parametrize(
    ("encoding", "separator", "end"),
    list(itertools.product(ENCODINGS, [",", ";", "\t"], ["\n", "\r\n", "\r"])),
)
def test_what_editors_and_spreadsheets_write_is_read(tmp_path, encoding, separator, end):
    path = tmp_path / "a.csv"
    lines = [["id", "größe", ""], ["a", '"x, y; z"', ""], ["", "", ""], ['"b\nc"', "é", ""], [], []]
    path.write_bytes(end.join(separator.join(line) for line in lines).encode(encoding))
    table = read_table(path, ["id"])
    assert table.columns == ("id", "größe")
    assert [dict(line.cells) for line in table.lines] == [
        {"id": "a", "größe": "x, y; z"},
        {"id": "b\nc", "größe": "é"},
    ]
    assert table.separator == separator


def test_the_hint_that_excel_writes_names_the_separator(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("sep=;\r\nid;b\r\nx;1,5\r\n")
    table = read_table(path, ["id"])
    assert table.lines[0].number == 3
    assert table.number(table.lines[0].cells["b"]) == 1.5
    assert "semicolons" in table.note


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"id,b\nx\n", "line 2: 1 cells, and the first line has 2"),
        (b"id,b\nx,1,2\n", "line 2: 3 cells, and the first line has 2"),
        (b'id,b\nx,"1\n', r"line 2: unexpected end of data"),
        (b"id,b\nx,\x00\n", "line 2: is no text, it holds NUL bytes"),
        (b"b,c\nx,1\n", r"line 1: lacks id \(has b, c\)"),
        (b"id,b,b\nx,1,1\n", "line 1: b stands there twice"),
        (b"", r"line 1: lacks id \(has no columns\)"),
        (b"\n\n;;;\n", r"line 1: lacks id \(has"),
        (b"\x89PNG\r\n\x1a\n\x81\x8d", "is no text"),
    ],
)
def test_what_is_no_table_is_refused_with_its_line_and_a_remedy(tmp_path, content, problem):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=problem) as refused:
        read_table(path, ["id"])
    assert str(refused.value).startswith(f"{path}: line ")
    assert str(refused.value).endswith("; save it as CSV (UTF-8)")


def test_a_message_stays_short_whatever_the_file_holds(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x" * 10_000 + "\n" + "y\x1b[2J\n")
    with pytest.raises(UserError) as refused:
        read_table(path, ["id"])
    assert len(str(refused.value)) <= 300
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("name", ["a.xlsx", "a.xls", "a.csv"])
@pytest.mark.parametrize("magic", [b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1"])
def test_a_spreadsheet_is_named_as_one_whatever_it_is_called(tmp_path, name, magic):
    path = tmp_path / name
    path.write_bytes(magic + bytes(range(256)))
    with pytest.raises(UserError, match=r"is a spreadsheet.* which is not read; save it as CSV"):
        read_table(path, ["id"])
