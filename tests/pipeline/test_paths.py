"""A workspace from somebody else reads, writes and removes nothing outside of itself."""

import json
import shutil

import pytest

from pipeline.errors import UserError
from pipeline.paths import inside, is_inside


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/../../x", "a/..", "C:\\x", "C:x", "..\\x", "", ".", "a\0b"]
)
def test_names_that_lead_out_are_refused(tmp_path, name):
    assert not is_inside(name)
    with pytest.raises(UserError, match="lies outside"):
        inside(tmp_path, name)


def test_links_that_lead_out_are_refused(tmp_path):
    home, folder = tmp_path / "home", tmp_path / "folder"
    (folder / "train").mkdir(parents=True)
    home.mkdir()
    (home / "x.png").touch()
    (folder / "train" / "x.png").symlink_to(home / "x.png")
    (folder / "val").symlink_to(home)
    (folder / "train" / "y.png").symlink_to(folder / "z.png")
    for name in ("train/x.png", "val/x.png", "val/new.png"):
        with pytest.raises(UserError, match="lies outside"):
            inside(folder, name)
    assert inside(folder, "train/y.png") == folder / "train" / "y.png"


@pytest.fixture
def workspace(prepared, tmp_path):
    for name in ("dataset", "preprocessed"):
        shutil.copytree(prepared / name, tmp_path / name)
    (tmp_path / "victim.txt").write_text("mine")
    return tmp_path


def _add_entry(ledger, name):
    entry = {"name": name, "key": "k", "facts": {}}
    with ledger.open("a") as file:
        file.write("\n" + json.dumps(entry) + "\n")


@pytest.mark.parametrize(
    ("folder", "command"),
    [
        ("preprocessed", ("preprocess", "--data", "dataset", "--size", "64")),
        ("dataset", ("organize", "--seed", "9")),
    ],
)
def test_a_ledger_that_names_a_file_outside_removes_nothing(
    workspace, collection, run_here, folder, command
):
    _add_entry(workspace / folder / "ledger.jsonl", "../victim.txt")
    source = ("--source", collection) if folder == "dataset" else ()
    done = run_here(*command, *source, "--workers", "1", "--batch")
    assert done.returncode == 0, done.stderr
    assert (workspace / "victim.txt").read_text() == "mine"


def test_a_manifest_that_names_a_file_outside_is_refused(workspace, run_here):
    manifest = workspace / "dataset" / "manifest.csv"
    text = manifest.read_text()
    name, path = text.splitlines()[1].split(",")[0], text.splitlines()[1].split(",")[4]
    for old, new in (
        (f"{name},", f"../../{name},"),
        (path, "/etc/passwd"),
        (path, "../victim.txt"),
    ):
        manifest.write_text(text.replace(old, new, 1))
        done = run_here("preprocess", "--data", "dataset", "--out", "new", "--batch")
        assert done.returncode == 1
        assert "leads out of the dataset" in done.stderr
        assert done.stderr.count("\n") == 1
        assert not (workspace / "new").exists()


def test_a_folder_with_a_link_out_is_not_written_to(workspace, run_here):
    home = workspace / "home"
    shutil.move(workspace / "preprocessed" / "working", home)
    (workspace / "preprocessed" / "working").symlink_to(home)
    (home / "holiday.png").write_text("mine")
    done = run_here("preprocess", "--data", "dataset", "--size", "64", "--batch")
    assert done.returncode == 1
    assert "is a link out of preprocessed; remove the link" in done.stderr
    assert (home / "holiday.png").read_text() == "mine"
