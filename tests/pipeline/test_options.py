"""One declaration: what text becomes, what is refused, and in which words."""

from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.options import as_text, between, checked, existing_folder, odd_between, option, parse


@dataclass(frozen=True)
class Sample:
    """A stage with an option of every kind."""

    folder: Path = option(Path("here"), "Folder")
    extra: Path | None = option(None, "Extra")
    epochs: int = option(30, "Epochs", check=between(1, 100))
    share: float = option(0.15, "Share", check=between(0, 1))
    flip: bool = option(True, "Flip")
    kind: str = option("a", "Kind", choices={"a": "first", "b": "second"})
    depth: str = option(
        "one",
        "Depth",
        choices=lambda answers: {"one": "1"} if answers["kind"] == "a" else {"two": "2"},
        when=lambda answers: answers["flip"],
    )
    weights: str = option("none", "Weights", choices={"none": "no"}, other="a file")


FIELDS = {item.name: item for item in fields(Sample)}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("folder", "'/data/CBIS DDSM'", Path("/data/CBIS DDSM")),
        ("folder", '"/data/CBIS DDSM" ', Path("/data/CBIS DDSM")),
        ("folder", "~/raw", Path.home() / "raw"),
        ("extra", "", None),
        ("extra", " /x ", Path("/x")),
        ("epochs", " 7 ", 7),
        ("epochs", 7.0, 7),
        ("share", "0.5", 0.5),
        ("share", 1, 1.0),
        ("flip", "No", False),
        ("flip", True, True),
        ("kind", "b", "b"),
        ("weights", "my.pth", "my.pth"),
    ],
)
def test_text_becomes_a_value_of_the_fields_type(name, text, value):
    parsed = parse(FIELDS[name], text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("epochs", "soon", "'soon' is not a whole number"),
        ("epochs", "2.5", "'2.5' is not a whole number"),
        ("epochs", 2.5, "2.5 is not a whole number"),
        ("epochs", "0", "0: must be between 1 and 100"),
        ("share", "half", "'half' is not a number"),
        ("flip", "maybe", "'maybe' is not yes or no"),
        ("kind", "c", "c: not one of a, b"),
        ("folder", "''", "no path was given"),
    ],
)
def test_refusal_says_what_is_wrong(name, text, message):
    with pytest.raises(UserError, match=message):
        parse(FIELDS[name], text)


@pytest.mark.parametrize("item", fields(Sample), ids=lambda item: item.name)
def test_what_as_text_writes_parse_reads(item):
    answers = {"kind": "a", "flip": True}
    assert parse(item, as_text(item.default), answers) == item.default


def test_choices_depend_on_other_answers():
    assert checked(Sample, {"kind": "b", "depth": "two"}).depth == "two"
    with pytest.raises(UserError, match="--depth: one: not one of two"):
        checked(Sample, {"kind": "b"})


def test_an_option_that_does_not_apply_is_not_checked():
    assert checked(Sample, {"kind": "b", "flip": "no"}).depth == "one"


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    assert existing_folder(tmp_path) is None
    assert existing_folder(tmp_path / "file") == "is a file, not a folder"
    assert existing_folder(tmp_path / "gone") == "no such folder"


def test_kernel_sides_are_odd():
    check = odd_between(3, 31)
    assert check(5) is None
    assert check(4) == check(33) == "must be an odd number between 3 and 31"
