"""The functions for notebooks and scripts: what they check, what they return, how it is shown."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from interface import api
from interface.stages import STAGES
from pipeline.errors import UserError
from pipeline.options import items_of
from pipeline.records import read_json
from tests.conftest import OFFLINE, ROOT
from tests.interrupts import interrupted_when, interrupts_itself

CELLS = (
    "from interface.api import organize, synthesize",
    "synthesize(patients=8, size='256', out='raw films', workers=1)",
    "organize(source='raw films', out='dataset', workers=1)",
    "organize(source='nowhere')",
    "organize(saurce='raw films')",
)


@pytest.fixture
def small(tmp_path, monkeypatch, collection):
    """Be in an empty folder, with a collection to go from."""
    monkeypatch.chdir(tmp_path)
    return {"source": collection, "workers": 1, "quiet": True}


@pytest.mark.parametrize("name", api.NAMES)
def test_each_stage_is_a_function_whose_help_names_its_options(name):
    function = getattr(api, name)
    options = STAGES[api.NAMES[name]].options
    names = {item.name for item in items_of(options)}
    assert function.__name__ == name
    assert {*function.__signature__.parameters} == names | {"quiet"}
    for item in names:
        assert f"    {item}: " in function.__doc__
    assert "quiet" not in names
    assert {row[0] for row in api.options(api.NAMES[name]).rows} == names


def test_a_name_that_is_no_stage_is_no_function():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = api.trian
    assert {"train", "whole", "choices"} <= {*dir(api)}


@pytest.mark.parametrize(
    ("stage", "given", "message"),
    [
        ("trian", {}, "trian: no such stage; did you mean train?; there are: all, demo, "),
        ("train", {"modle": 1}, "train: no option modle; did you mean model?; see options("),
        ("train", {"epochs": 0}, "train: epochs: 0: must be between 1 and 10000"),
        ("train", {"epochs": 2.5}, "train: epochs: 2.5 is not a whole number or auto"),
        # As with flags, one that does not apply is checked too.
        ("train", {"model": "ResNet18_OPW", "batch_size": -1}, "train: batch_size: -1: must be"),
        ("train", {"model": ["MammoCNN", "vgg"]}, "train: model: vgg: not one of ResNet18_OPW, "),
        ("train", {"data": "no such"}, "train: data: no such: no such folder; run: preprocess()"),
        ("organize", {"val_share": 0.9}, "organize: val_share: 0.9: must be between 0.05 and 0.5"),
        ("organize", {"source": ""}, "organize: source: no path was given"),
        ("preprocess", {"clahe": "perhaps"}, "preprocess: clahe: 'perhaps' is not yes or no"),
        ("runs", {"action": "delete", "run": "gone"},
         "run gone: no such run in runs; to see all runs: runs()"),
    ],
)  # fmt: skip
def test_a_wrong_name_or_value_is_one_line(tmp_path, monkeypatch, stage, given, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as refused:
        api.run(stage, quiet=True, **given)
    line = str(refused.value)
    assert message in line
    assert "\n" not in line
    assert "--" not in line
    # What IPython shows in place of frames from the depths.
    assert refused.value._render_traceback_() == [f"UserError: {line}"]
    assert list(tmp_path.iterdir()) == []


def test_what_the_functions_make_is_what_the_flags_make(small, run_here):
    organized = api.organize(**small, out="by call/dataset", val_share="0.3", masks=False)
    api.preprocess(
        data=organized.folder, out=Path("by call/preprocessed"), size=64, clahe=False, workers=1,
        quiet=True,
    )  # fmt: skip
    flags = ["--source", small["source"], "--out", "by flag/dataset", "--val-share", "0.3"]
    assert run_here("organize", *flags, "--no-masks", "--workers", "1", "--batch").returncode == 0
    flags = ["--data", "by flag/dataset", "--out", "by flag/preprocessed", "--size", "64"]
    assert run_here("preprocess", *flags, "--no-clahe", "--workers", "1", "--batch").returncode == 0
    files = {
        how: {
            path.relative_to(how).as_posix(): path.read_bytes()
            for folder in ("dataset", "preprocessed")
            for path in Path(how, folder).rglob("*")
            if path.suffix == ".png" or path.name in ("manifest.csv", "notes.csv")
        }
        for how in ("by call", "by flag")
    }
    assert len(files["by call"]) > 20
    assert files["by call"] == files["by flag"]
    called, flagged = (
        read_json(Path(how, "dataset", "stage.json"))["options"] for how in ("by call", "by flag")
    )
    assert called | {"out": ""} == flagged | {"out": ""}
    assert organized.facts["images"] == organized.tables[0].rows[-1][1]


def test_a_result_shows_its_tables_and_the_next_call(small, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = api.organize(**small, out="data <1>")
    text, html = repr(result), result._repr_html_()
    assert str(result) == text
    for expected in ("Mammograms by split", result.headline, "Next: preprocess(data='data <1>')"):
        assert expected in text
    assert "In data <1>, after" in text
    assert "python main.py" not in text + html
    assert "<th" in html
    assert ">train</td>" in html
    assert "<code>data &lt;1&gt;</code>" in html
    assert "<1>" not in html
    assert "not for diagnosis" not in html  # it shows no score


def test_choices_are_a_table(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    table = api.choices("train", "model")
    assert table.columns == ("model", "meaning")
    assert "MammoCNN" in {row[0] for row in table.rows}
    assert "ResNet18_PFT" in repr(table)
    assert ">ResNet18_PFT</td>" in table._repr_html_()
    with pytest.raises(UserError, match="train: epochs has no choices"):
        api.choices("train", "epochs")
    with pytest.raises(UserError, match="no option modle; did you mean model"):
        api.choices("train", "modle")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("run: python main.py train", "run: train()"),
        ("run: python main.py all --source 'my raw'", "run: whole(source='my raw')"),
        ("python main.py organize --folds 5, and then preprocess",
         "organize(folds='5'), and then preprocess"),
        ("python main.py train --model MammoCNN,ResNet18_OPW --weights none --learning-rate 0.002",
         "train(model='MammoCNN,ResNet18_OPW', weights='none', learning_rate='0.002')"),
        ("python main.py preprocess --no-clahe --all-pairs --batch",
         "preprocess(clahe=False, all_pairs=True)"),
        ("run it again with --workers 1", "run it again with workers 1"),
        ("a--b: no such folder", "a--b: no such folder"),
        ("run: python main.py predict IMAGE ...", "run: python main.py predict IMAGE ..."),
    ],
)  # fmt: skip
def test_commands_in_messages_are_calls(message, expected):
    assert api.as_calls(message) == expected


@interrupts_itself
def test_an_interrupt_says_which_call_continues(small, tmp_path):
    with (
        interrupted_when(lambda: list(tmp_path.glob("dataset/*/*/*.png"))),
        pytest.raises(KeyboardInterrupt, match=r"organize: stopped; continue with: organize\("),
    ):
        api.organize(**small)
    api.organize(**small)
    assert (tmp_path / "dataset" / "stage.json").is_file()


def run_script(folder, text):
    path = folder / "script.py"
    path.write_text(text)
    return subprocess.run(
        [sys.executable, str(path)], cwd=folder, capture_output=True, text=True, timeout=200,
        env=OFFLINE | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_a_script_shows_a_mistake_without_the_depths(tmp_path):
    done = run_script(tmp_path, "from interface.api import train\ntrain(epochs=0)\n")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[-1].endswith("train: epochs: 0: must be between 1 and 10000")
    assert "pipeline/options.py" not in done.stderr
    assert done.stdout == ""


def test_a_script_that_its_workers_would_run_again_is_told_so(tmp_path, collection):
    text = f"from interface.api import organize\norganize(source={str(collection)!r}, workers=2)\n"
    done = run_script(tmp_path, text)
    assert done.returncode == 1
    assert 'put its calls below: if __name__ == "__main__":' in done.stderr


def test_threads_that_wait_leave_their_core_to_others_here_too(tmp_path):
    command = "import os, interface.api; print(os.environ['OMP_WAIT_POLICY'])"
    env = {name: value for name, value in OFFLINE.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=tmp_path, capture_output=True, text=True,
        env=env | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout == "PASSIVE\n"


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Execute a notebook in a folder of its own; return that folder and what each cell showed."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = new_notebook(cells=[new_code_cell(source) for source in CELLS])
    client = NotebookClient(
        notebook, timeout=200, allow_errors=True, resources={"metadata": {"path": str(folder)}}
    )
    client.execute(env=OFFLINE | {"PYTHONPATH": str(ROOT)})
    nbformat.validate(notebook)
    return folder, [cell.outputs for cell in notebook.cells]


def test_in_a_notebook_a_bar_leaves_one_line_and_the_result_is_a_table(cells):
    folder, (imported, synthesized, organized, *_) = cells
    assert imported == []
    lines = "".join(one.text for one in synthesized if one.output_type == "stream").splitlines()
    assert len(lines) == 1
    assert re.match(r"Drawing films .* \d+/\d+ films", lines[0])
    # The place of the bar while it moved: empty when the cell is done.
    drawn = [one.data for one in synthesized if one.output_type == "display_data"]
    assert drawn == [{"text/html": "", "text/plain": ""}]
    assert synthesized[-1].output_type == organized[-1].output_type == "execute_result"
    assert "<table" in organized[-1].data["text/html"]
    assert "Mammograms by split" in organized[-1].data["text/plain"]
    streams = {one.name for one in [*synthesized, *organized] if one.output_type == "stream"}
    assert streams == {"stdout"}
    assert "\x1b" not in str([synthesized, organized])
    assert (folder / "dataset" / "stage.json").is_file()  # beside the notebook


def test_in_a_notebook_a_mistake_is_one_line(cells):
    _, (*_, [no_folder], [no_option]) = cells
    for shown, line in (
        (no_folder, "organize: source: nowhere: no such folder; synthesize() makes one to try"),
        (no_option, 'organize: no option saurce; did you mean source?; see options("organize")'),
    ):
        assert shown.output_type == "error"
        assert shown.traceback == [f"UserError: {line}"]
