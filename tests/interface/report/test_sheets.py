"""The files beside the page: tables as CSV and LaTeX, figures, metrics."""

import csv
import json
import xml.etree.ElementTree as ElementTree

import cv2
import pytest

from interface.report.reading.scores import Interval
from interface.report.sheets import Note, Sheet, SheetRow, escape, latex, write_sheet
from interface.report.stage import report
from pipeline.progress import Silent
from pipeline.records import read_json
from pipeline.stages.evaluation import Report
from tests.interface.report.files import FIGURES, ROC, cohort, dataset, run_folder, stratum
from tests.interface.report.test_stage import Page

SHEET = Sheet(
    "one/two",
    "100 % of R&D_1",
    ["Run", "AUC", "Note", "Device"],
    [
        SheetRow("a_b", [Interval(0.81234, 0.7, 0.9), Note("+0.1", "p 0.01", True), "cpu"]),
        SheetRow("c", [None, None, "gpu"], detail="late", part="Baselines"),
        SheetRow("d", [Interval(0.5, None, None), Note("\u00b1 1"), "\\input{x}"],
                 part="Baselines"),
    ],
)  # fmt: skip


def test_csv_has_figures_in_full_and_intervals_in_columns_of_their_own(tmp_path):
    write_sheet(tmp_path, SHEET)
    with (tmp_path / "one" / "two.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert lines[0] == {
        "group": "", "Run": "a_b", "detail": "", "AUC": "0.81234", "AUC low": "0.7",
        "AUC high": "0.9", "Note": "+0.1 (p 0.01)", "Device": "cpu",
    }  # fmt: skip
    assert (lines[1]["group"], lines[1]["AUC"], lines[1]["detail"]) == ("Baselines", "", "late")


def test_latex_is_escaped_and_every_line_has_its_columns():
    text = latex(SHEET)
    assert r"\caption{100 \% of R\&D\_1}" in text
    assert r"\begin{tabular}{lrrl}" in text
    assert r"a\_b & 0.812 (0.700 to 0.900) & +0.1 (p 0.01) & cpu \\" in text
    assert r"\multicolumn{4}{l}{\textit{Baselines}} \\" in text
    assert r"\textbackslash{}input\{x\}" in text
    assert "\u00b1" not in text
    body = text.partition(r"\midrule")[2].partition(r"\bottomrule")[0]
    lines = [line for line in body.splitlines() if "&" in line]
    assert {line.replace(r"\&", "").count("&") for line in lines} == {3}
    for rule in ("toprule", "midrule", "bottomrule"):
        assert text.count(rf"\{rule}") == 1


def test_every_letter_that_latex_takes_for_a_command_is_escaped():
    assert escape("#$%&_{}~^") == (
        r"\#\$\%\&\_\{\}\textasciitilde{}\textasciicircum{}"
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("beside")
    rows = cohort(48)
    data = dataset(root, rows)
    run_folder(root / "runs", data, rows, strata=[stratum("density", "1", 0.7)])
    run_folder(root / "runs", data, rows, "MammoCNN", 0.8)
    return report(Report(runs=root / "runs", out=root / "reports"), Silent()).folder


def test_figures_of_a_run_are_copied_and_tables_with_intervals_drawn(folder):
    there = folder / "figures" / "ResNet18_CFT-20260102-030405-42"
    names = {*FIGURES, "strata"}
    assert {path.name for path in there.iterdir()} == {
        f"{name}.{suffix}" for name in names for suffix in ("svg", "png")
    }
    assert (there / "roc.svg").read_text() == ROC
    assert (there / "pr.png").read_text() == "ResNet18_CFT pr png"
    drawn = folder / "figures" / "comparison_patient"
    assert cv2.imread(str(drawn.with_suffix(".png"))).std() > 5
    assert ElementTree.parse(drawn.with_suffix(".svg")).getroot().tag.endswith("svg")


def test_every_table_of_the_page_lies_beside_it(folder):
    page = Page(folder / "report.html")
    written = {path.relative_to(folder / "tables") for path in (folder / "tables").rglob("*.csv")}
    for path in written:
        assert (folder / "tables" / path).with_suffix(".tex").is_file()
    names = {path.stem for path in written}
    assert {
        "comparison_image", "comparison_breast", "comparison_patient", "pairs", "cost", "claim",
        "cohort", "exclusions", "preprocessing", "metrics", "strata", "training", "confusion",
    } == names  # fmt: skip
    assert len(page.all("table")) > len(names)


def test_exclusions_add_up_and_are_listed_in_full(folder):
    with (folder / "tables" / "exclusions.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    aside = [line for line in lines if line["group"] == "Organised: set aside"]
    assert sum(int(line["Number"]) for line in aside) == 3
    assert ("BENIGN_WITHOUT_CALLBACK", "7") in {(line["Reason"], line["Number"]) for line in lines}


def test_metrics_of_all_runs_are_one_json(folder):
    found = json.loads((folder / "metrics.json").read_text())
    assert set(found) == {"ResNet18_CFT/20260102-030405-42", "MammoCNN/20260102-030405-42"}
    run = folder.parent.parent / "runs" / "MammoCNN" / "20260102-030405-42"
    assert found["MammoCNN/20260102-030405-42"] == read_json(run / "metrics.json")
