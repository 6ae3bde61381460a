"""The walkthrough: a valid notebook that holds what its own cells showed, and runs to its end."""

import json
import re

import nbformat
import pytest

from docs.notebook import DIGEST, WALKTHROUGH, digest_of, executed
from tests.conftest import ROOT

LARGEST = 1_500_000  # bytes
LINES = 60  # that a cell may have printed
# Where a machine keeps its files, and its users theirs.
MACHINE = re.compile(r"(?<![\w.<])/(?:home|root|tmp|usr|work|var|opt|Users|content)/|[A-Z]:\\\\")


@pytest.fixture(scope="module")
def walkthrough():
    return nbformat.read(WALKTHROUGH, as_version=4)


def outputs_of(notebook):
    return [one for cell in notebook.cells if cell.cell_type == "code" for one in cell.outputs]


def test_the_walkthrough_is_a_small_valid_notebook(walkthrough):
    nbformat.validate(walkthrough)
    assert WALKTHROUGH.stat().st_size < LARGEST


def test_it_holds_what_its_cells_showed_when_they_were_last_executed(walkthrough):
    again = "execute it again: python docs/notebook.py"
    assert walkthrough.metadata["mammolab"][DIGEST] == digest_of(walkthrough), again
    numbers = [cell.execution_count for cell in walkthrough.cells if cell.cell_type == "code"]
    assert numbers == [*range(1, len(numbers) + 1)]
    kinds = [kind for one in outputs_of(walkthrough) for kind in one.get("data", {})]
    assert kinds.count("image/png") >= 4
    assert kinds.count("text/html") >= 8


def test_it_shows_no_error_no_warning_and_nothing_of_a_machine(walkthrough):
    for output in outputs_of(walkthrough):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
        text = json.dumps({**output, "data": without_pictures(output.get("data", {}))})
        assert not MACHINE.search(text), text
        assert output.get("text", "").count("\n") <= LINES


def without_pictures(data):
    return {kind: value for kind, value in data.items() if not kind.startswith("image/")}


def test_the_checks_see_what_they_look_for():
    for path in ("/tmp/x", "In /home/ann/runs", 'File "/usr/lib/python3"', "C:\\\\Users"):
        assert MACHINE.search(path)
    for text in ("runs/ResNet18", "<br></p>", "203/203 images"):
        assert not MACHINE.search(text)


def test_the_pages_that_it_names_are_there(walkthrough):
    for cell in walkthrough.cells:
        for page in re.findall(r"`(docs/\w+\.md)`", cell.source):
            assert (ROOT / page).is_file()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_runs_from_its_first_cell_to_its_last(walkthrough, tmp_path):
    folder = tmp_path / "somewhere"
    folder.mkdir()
    # Beside a folder that is not the repository's no module is looked for.
    (tmp_path / "grp.py").write_text("raise SystemError('of no concern to the notebook')")
    shown = executed(nbformat.from_dict(walkthrough), folder)
    assert [one for one in outputs_of(shown) if one.output_type == "error"] == []
    assert list(folder.glob("walkthrough/reports/*/report.html"))
    assert digest_of(shown) == digest_of(walkthrough)
    kinds = [sorted(one.get("data", {})) for one in outputs_of(shown)]
    assert kinds == [sorted(one.get("data", {})) for one in outputs_of(walkthrough)]
