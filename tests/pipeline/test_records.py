"""A folder can be trusted when, and only when, its record is there."""

import importlib.metadata
import json
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.records import (
    PACKAGES,
    atomic,
    close_folder,
    leave_folders,
    made_by,
    open_folder,
    read_json,
    read_record,
    versions,
    write_set_aside,
    write_text,
)


@dataclass(frozen=True)
class Options:
    out: Path = Path("x")
    seed: int = 1


def close(folder, stage="organize"):
    close_folder(folder, stage, Options(folder), {"images": 3}, "abc", 1.26)


def test_a_closed_folder_is_read_back(tmp_path):
    open_folder(tmp_path, "organize", Options())
    close(tmp_path)
    record = read_record(tmp_path, "organize")
    assert record["counts"] == {"images": 3}
    assert record["options"] == {"out": str(tmp_path), "seed": 1}
    assert record["seconds"] == 1.3
    assert "python" in record["versions"]
    assert made_by("organize")(tmp_path) is None


def test_a_folder_that_was_removed_during_the_work_is_not_closed(tmp_path):
    out = tmp_path / "out"
    open_folder(out, "organize", Options())
    shutil.rmtree(out)
    write_text(out / "train" / "a.txt", "as a worker does that was at it")
    with pytest.raises(UserError, match=r"out: was removed during the work; run it again"):
        close(out)
    leave_folders()
    assert not (out / "stage.json").exists()
    open_folder(out, "organize", Options())
    close(out)
    assert made_by("organize")(out) is None


def test_the_answers_file_repeats_the_stage(tmp_path):
    close(tmp_path)
    stages = read_json(tmp_path / "answers.json")["stages"]
    assert stages == [{"stage": "organize", "options": {"out": str(tmp_path), "seed": 1}}]


def test_work_on_a_folder_takes_its_trust_away(tmp_path):
    close(tmp_path)
    open_folder(tmp_path, "organize", Options())
    with pytest.raises(UserError, match=r"was not finished; to continue, run: .* organize"):
        read_record(tmp_path, "organize")


def test_another_stages_folder_is_refused(tmp_path):
    close(tmp_path, "organize")
    with pytest.raises(UserError, match=r"was made by organize; run: python main\.py preprocess"):
        read_record(tmp_path, "preprocess")
    with pytest.raises(UserError, match="was made by organize, not preprocess"):
        open_folder(tmp_path, "preprocess", Options())
    assert read_record(tmp_path, "organize"), "refusing must leave the folder as it was"


def test_a_strangers_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.docx").write_text("years of work")
    with pytest.raises(UserError, match="is not empty and was not made by organize"):
        open_folder(tmp_path, "organize", Options())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]


def test_a_missing_folder_names_the_command(tmp_path):
    with pytest.raises(UserError, match=r"gone: no such folder; run: python main\.py organize"):
        read_record(tmp_path / "gone", "organize")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no folder of the system's")
def test_a_place_where_no_folder_can_be_made_is_named():
    with pytest.raises(UserError, match="/proc/dataset: cannot be made there; choose another"):
        open_folder(Path("/proc/dataset"), "organize", Options())


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(UserError, match="a file is in the way"):
        open_folder(tmp_path / "out", "organize", Options())


def test_what_a_killed_run_was_writing_is_swept_away(tmp_path):
    open_folder(tmp_path, "organize", Options())
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / ".P_00001.0123abcd.part.png").write_bytes(b"half")
    open_folder(tmp_path, "organize", Options())
    assert list((tmp_path / "train").iterdir()) == []


def test_a_run_killed_at_its_very_first_write_is_taken_up(tmp_path):
    (tmp_path / ".unfinished.0123abcd.part.json").write_text("{")
    open_folder(tmp_path, "organize", Options())
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["unfinished.json"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def interrupted_write():
        with atomic(path) as temporary:
            temporary.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_broken_json_is_one_line(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError, match=r"x\.json: cannot be read as JSON"):
        read_json(tmp_path / "x.json")
    with pytest.raises(UserError, match="no such file"):
        read_json(tmp_path / "y.json")


def test_set_aside_is_listed_and_a_clean_run_clears_it(tmp_path):
    write_set_aside(tmp_path, [("b.dcm", "is truncated"), ("a.dcm", "is, text")])
    lines = (tmp_path / "set_aside.csv").read_text().splitlines()
    assert lines == ["what,reason", 'a.dcm,"is, text"', "b.dcm,is truncated"]
    write_set_aside(tmp_path, [])
    assert not (tmp_path / "set_aside.csv").exists()


def test_records_are_plain_json(tmp_path):
    close(tmp_path)
    assert json.loads((tmp_path / "stage.json").read_text())["state"] == "done"


def test_files_of_others_are_never_swept_away(tmp_path):
    for name in (".disk.partitions", ".thesis.part2.tex", "a.txt"):
        (tmp_path / name).write_text("mine")
    (tmp_path / ".x.part.d").mkdir()
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(UserError, match="is not empty and was not made by organize"):
        open_folder(tmp_path, "organize", Options())
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_full_disk_is_told_with_the_file(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_text("old")

    def write():
        with atomic(path), open("/dev/full", "wb", buffering=0) as file:  # noqa: PTH123
            file.write(b"new")

    with pytest.raises(OSError, match=r"No space left on device: '.*weights\.bin'"):
        write()
    assert path.read_text() == "old"


def test_versions_are_those_of_the_installed_packages():
    found = dict(versions())
    assert found.pop("python") == platform.python_version()
    found.pop("commit", None)
    assert set(found) == set(PACKAGES)
    assert {name: importlib.metadata.version(name) for name in found} == found
