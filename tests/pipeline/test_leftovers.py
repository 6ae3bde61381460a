"""What a killed run was writing is removed by the next one, and nothing else is."""

import os
import subprocess
import sys
import time

import pytest

from pipeline.leftovers import is_left_over, machine, name_in_work, remove_left_over
from pipeline.records import atomic
from tests.conftest import ROOT

WRITING = """
import os, sys
from pathlib import Path
from pipeline.records import atomic
with atomic(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os._exit(1)
"""


def test_the_file_of_a_killed_process_goes_and_that_of_a_living_one_stays(tmp_path):
    command = [sys.executable, "-c", WRITING, tmp_path / "figures" / "roc.svg"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 1
    (dead,) = (tmp_path / "figures").iterdir()
    assert is_left_over(dead)
    with atomic(tmp_path / "figures" / "det.svg") as temporary:
        temporary.write_text("half")
        remove_left_over(tmp_path)
        assert [path.name for path in dead.parent.iterdir()] == [temporary.name]
    assert [path.name for path in dead.parent.iterdir()] == ["det.svg"]


@pytest.mark.parametrize(
    ("name", "age", "gone"),
    [
        (".roc.0123abcd.part.svg", 100, False),  # of an earlier version
        (".roc.0123abcd.part.svg", 2 * 86_400, True),
        (".roc.0123abcd000000011.part.svg", 100, False),  # of another machine
        (".roc.0123abcd000000011.part.svg", 2 * 86_400, True),
        (".thesis.part2.tex", 2 * 86_400, False),
        ("roc.svg", 2 * 86_400, False),
    ],
)
def test_files_of_others_stay_for_a_day(tmp_path, name, age, gone):
    path = tmp_path / name
    path.touch()
    os.utime(path, (time.time() - age,) * 2)
    remove_left_over(tmp_path)
    assert path.exists() != gone


def test_names_in_work_differ_and_keep_the_suffix(tmp_path):
    names = {name_in_work(tmp_path / "a.png") for _ in range(100)}
    assert len(names) == 100
    assert {name.suffix for name in names} == {".png"}
    assert all(machine() in name.name for name in names)
