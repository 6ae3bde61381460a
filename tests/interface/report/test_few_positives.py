"""The report on test images of which few are positive, and of a question of another name."""

import re
import shutil

import pytest

from interface.report.reading.runs import read_run
from interface.report.stage import report
from models.evaluation.stage import evaluate
from pipeline.progress import Silent
from pipeline.records import read_json, write_json
from pipeline.runs import list_runs
from pipeline.stages.evaluation import Compare, Evaluate, Report
from tests.interface.report.files import METRICS, page_of
from tests.quick import without_figures


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Predictions made elsewhere of 300 patients, 2 % of them malignant, as an evaluated run."""
    root = tmp_path_factory.mktemp("rare")
    lines = ["image_id,patient_id,label,probability"]
    for number in range(300):
        positive = number % 50 == 0
        name = "malignant" if positive else "not_malignant"
        lines.append(f"i{number},p{number},{name},{(number * 37 % 100) / 200 + 0.4 * positive}")
    (root / "theirs.csv").write_text("\n".join(lines) + "\n")
    options = Evaluate(
        predictions=root / "theirs.csv", runs=root / "runs", replicates=100, workers=1
    )
    with without_figures():
        evaluate(options, Silent())
    return root


@pytest.fixture
def errors(tmp_path):
    """Errors of an anomaly detector elsewhere, with validation, as an evaluated run."""
    lines = ["image_id,patient_id,label,split,error"]
    for number in range(400):
        positive, split = number % 50 == 0, "val" if number % 4 else "test"
        name = "malignant" if positive else "not_malignant"
        error = 3 + (number * 37 % 100) / 100 + 0.8 * positive
        lines.append(f"i{number},p{number},{name},{split},{error}")
    (tmp_path / "theirs.csv").write_text("\n".join(lines) + "\n")
    runs = tmp_path / "runs"
    with without_figures():
        evaluate(
            Evaluate(predictions=tmp_path / "theirs.csv", runs=runs, replicates=100, workers=1),
            Silent(),
        )
    return tmp_path


def test_errors_made_elsewhere_are_no_probabilities_where_few_are_positive_either(errors):
    page = page_of(errors)
    text = words_of(page.text)
    assert "theirs reaches a test PR AUC of 0." in text
    assert "What it learnt from is not known here" in text
    assert "mean + 2 standard deviations of normal validation images" in text
    for gone in ("pF1", "robabilistic", "ECE", "Brier", "\N{EN DASH} no interval"):
        assert gone not in text, gone
    assert all("robabilistic" not in part for part in page.methods)
    assert re.search(r"\+\d\.\d SD", text)


def words_of(text):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", re.sub(r"(?s)<style>.*</style>", "", text)))


def test_pr_auc_and_pf1_lead_and_a_line_says_why(measured):
    page = page_of(measured)
    text = words_of(page.text)
    assert "theirs reaches a test PR AUC of 0." in text
    assert "where guessing has 0.020, and a probabilistic F1 of 0." in text
    assert "Only 2.0% of the test images are malignant, so accuracy means nothing here." in text
    assert "has an accuracy of 0.980" in text
    first = page.text.index("Test PR AUC</dt>")
    assert first < page.text.index("Probabilistic F1</dt>")
    metrics = next(sheet for sheet in page.sheets if sheet.name.endswith("/metrics"))
    heads = [row.head for row in metrics.rows]
    assert heads[:3] == ["Number, malignant", "PR AUC", "Probabilistic F1 (pF1)"]
    assert heads[-1] == "Accuracy"
    by_image = next(sheet for sheet in page.sheets if sheet.name == "comparison_image")
    assert by_image.columns[1:4] == ["PR AUC", "pF1", "F1"]
    assert by_image.forest.chance < by_image.forest.scale(0.1)
    assert "not malignant" in text
    assert "benign" not in text
    assert any("probabilistic F1 (Yacouby & Axman 2020)" in part for part in page.methods)


def test_the_screen_has_them_too(measured, tmp_path):
    from models.comparison.stage import compare

    shown = report(Report(runs=measured / "runs", out=tmp_path / "reports"), Silent())
    assert shown.tables[0].columns[2:6] == ("PR AUC", "95 % interval", "chance", "pF1")
    found = compare(
        Compare(runs=measured / "runs", out=tmp_path / "compared", sort="pf1", replicates=100),
        Silent(),
    )
    table = found.tables[0]
    assert table.columns == ("Run", "PR AUC", "95 % interval", "Sens.", "Spec.", "pF1")
    assert table.title == "Test images, by pf1; PR AUC by chance: 0.020"
    assert "pf1_low" in (tmp_path / "compared" / "runs.csv").read_text().splitlines()[0]


def test_figures_of_before_that_lack_pf1_are_read(measured, tmp_path):
    shutil.copytree(measured / "runs", tmp_path / "runs")
    (run,) = list_runs(tmp_path / "runs")
    found = read_json(run.folder / "metrics.json")
    for units in (found, *found["units"].values()):
        del units["splits"]["test"]["metrics"]["pf1"]
    del found["labels"]
    write_json(run.folder / "metrics.json", found)
    assert set(read_run(run).test.metrics) == set(METRICS)
    assert "a probabilistic F1 of unknown" in words_of(page_of(tmp_path).text)
