"""The page of real anomaly detectors beside a classifier: errors, never probabilities."""

import csv
import re
import shlex
import shutil

import pytest

from interface.flags import build_parser
from interface.report.page import make_page
from interface.report.reading.anomaly import Anomaly
from interface.report.reading.runs import read_run
from interface.report.stage import report
from interface.stages import STAGES
from models.comparison import costs
from models.comparison.stage import compare
from models.evaluation.stage import evaluate
from models.explanation.stage import explain
from models.training.stage import train
from pipeline.errors import UserError
from pipeline.progress import Silent
from pipeline.records import read_json, write_json
from pipeline.runs import Run, list_runs
from pipeline.stages.evaluation import Compare, Evaluate, Report
from pipeline.stages.explanation import Explain
from pipeline.stages.training import Train
from tests.interface.report.files import cohort, dataset, run_folder
from tests.interface.report.files import page_of as fabricated
from tests.interface.report.test_stage import Page
from tests.quick import briefly_timed

QUICK = {"workers": 1, "replicates": 100}


@pytest.fixture(scope="module")
def runs(prepared, tmp_path_factory):
    """A CAE, a PatchCore and a linear probe on the same images; not to be written to."""
    found = tmp_path_factory.mktemp("mixed") / "runs"
    for model in ("CAE", "PatchCore", "ResNet18_OPW"):
        options = Train(data=prepared / "preprocessed", model=model, weights="none", epochs=2,
                        size=64, workers=1, device="cpu", precision="fp32", runs=found)  # fmt: skip
        folder = train(options, Silent()).folder
        with briefly_timed():
            k = {"k": 1.5} if model == "CAE" else {}
            evaluate(Evaluate(run=str(folder), runs=found, **QUICK, **k), Silent())
    for model in ("CAE", "PatchCore"):
        explain(Explain(runs=found, run=model, count=1, checks=2, device="cpu", **QUICK), Silent())
    return found


def page_of(runs, *models):
    """Return the page of the runs of some models, of all without any."""
    shown = [read_run(run) for run in list_runs(runs) if not models or run.model in models]
    return make_page(shown, 0, Report(runs=runs, out=runs.parent / "reports"), Silent())


def section_of(page, name):
    """Return the text of one run's part of a page."""
    (section,) = (one for one in page.sections if one.run.model == name)
    start = page.text.index(f'<section class="run" id="{section.run.anchor}">')
    return section, "<html>" + page.text[start : page.text.index("</section>", start)]


def only(runs, model):
    (folder,) = (runs / model).iterdir()
    return folder


@pytest.mark.parametrize("name", ["CAE", "PatchCore"])
def test_a_detector_is_shown_by_errors_and_calls(runs, name):
    section, text = section_of(page_of(runs), name)
    words = re.sub(r"\s+", " ", Page(text).text)
    facts = read_json(only(runs, name) / "metrics.json")["anomaly"]
    for figure in (facts["mean"], facts["sd"], facts["threshold"]):
        assert f"{figure:.4g}" in words
    k = "1.5" if name == "CAE" else "2"
    assert f"mean + {k} standard deviations of normal validation images" in words
    assert f"= {facts['mean']:.4g} + {k} \N{MULTIPLICATION SIGN} {facts['sd']:.4g}" in words
    shares = facts["flagged"]["test"], facts["normals"]["test"]
    flagged = f"{round(shares[0] * shares[1])} of {shares[1]} ({shares[0]:.1%})"
    assert flagged in words
    assert (" normal test images are called anomalous" in words) == (shares[0] > 0.1)
    assert re.search(r"It learnt from \d+ normal images of \d+ patients", words)
    assert "Normal images are benign images, the nearest thing" in words
    assert words.count("robabilit") == words.count("no probability of a disease") == 1
    assert "probability" not in " ".join(re.findall(r'alt="[^"]*"', text))
    for gone in ("Brier", "calibration", "reliability", "Decision curve", "Net benefit", "pF1"):
        assert gone.lower() not in words.lower(), gone
    assert "Errors on test" in [figure.title for figure in section.figures]
    assert {"anomalous", "not anomalous"} <= {
        outcome.title.partition("called ")[2] for outcome in section.outcomes
    }
    for outcome in section.outcomes:
        for sample in outcome.samples:
            away = (sample.prediction.error - facts["mean"]) / facts["sd"]
            assert f"{abs(away):.1f} SD" in words


@pytest.mark.parametrize("name", ["CAE", "PatchCore"])
def test_the_gallery_says_what_its_one_scale_is(runs, name):
    _, text = section_of(page_of(runs), name)
    words = Page(text).text
    scale = read_json(only(runs, name) / "explanations" / "explanations.json")["scale"]
    assert "All maps are drawn on one scale" in words
    for part in ("median", "limit", "top"):
        assert f"{scale[part]:.3g}" in words
    assert 'alt="Error map of ' in text
    assert 'alt="Heat-map of ' not in text
    assert ("gallery wide" in text) == (name == "CAE")
    assert "Pixel AUC" in words
    assert "deletion" not in words


def test_the_surest_errors_come_first_by_their_distance_from_the_threshold(runs):
    section, _ = section_of(page_of(runs), "CAE")
    with (only(runs, "CAE") / "explanations" / "explanations.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["file"]]
    wrong = [line for line in lines if line["outcome"][0] == "F"]
    threshold = read_json(only(runs, "CAE") / "metrics.json")["anomaly"]["threshold"]
    wrong.sort(key=lambda line: -abs(float(line["error"]) - threshold))
    shown = [one.outcome for one in section.explanations.maps]
    assert shown[: len(wrong)] == [line["outcome"] for line in wrong]


def test_a_classifier_and_a_detector_stand_in_one_table_without_measures_of_probabilities(runs):
    mixed, alone = page_of(runs), page_of(runs, "ResNet18_OPW")
    found = {sheet.name: sheet for sheet in mixed.sheets}
    table = found["comparison_image"]
    assert {"CAE", "PatchCore", "ResNet18_OPW"} <= {row.head for row in table.rows}
    assert not {"Brier", "ECE"} & set(table.columns)
    assert all(len(row.cells) == len(table.columns) - 1 for row in table.rows)
    assert "an anomaly detector's scores are errors" in table.caption
    (before,) = (sheet for sheet in alone.sheets if sheet.name == "comparison_image")
    assert {"Brier", "ECE"} <= set(before.columns), "a classifier alone keeps them"
    _, text = section_of(mixed, "ResNet18_OPW")
    assert "Brier" in text, "and has them in its own table"
    thresholds = {row.head: row.cells[0] for row in found["confusion"].rows
                  if row.part == "By image"}  # fmt: skip
    assert thresholds["CAE"] == "+1.5 SD"
    assert 0 <= float(thresholds["ResNet18_OPW"]) <= 1


def test_methods_cite_and_say_what_was_kept_and_compared(runs):
    text = " ".join(page_of(runs).methods)
    for cited in ("Masci et al. 2011", "PatchCore; Roth et al. 2022", "Guo et al. 2017"):
        assert cited in text
    assert "For CAE, the weights of the epoch with the smallest error of normal" in text or (
        "The weights of the epoch with the smallest error of normal validation images" in text
    )
    assert "reached mean + 1.5 standard deviations of normal validation images" in text
    detectors = " ".join(page_of(runs, "CAE", "PatchCore").methods)
    for gone in ("Brier", "balanced by", "mixup", "probability", "highest validation AUC were"):
        assert gone not in detectors, gone


def test_calibration_is_said_of_classifiers_alone(tmp_path):
    rows = cohort(48)
    data = dataset(tmp_path, rows)
    folders = [run_folder(tmp_path / "runs", data, rows, name) for name in ("CAE", "MammoCNN")]
    path = folders[0] / "metrics.json"
    anomaly = {"error": "mse", "mean": 0.004, "sd": 0.001, "threshold": 0.006,
               "normals": {"val": 20}, "flagged": {"val": 0.05}}  # fmt: skip
    write_json(path, read_json(path) | {"anomaly": anomaly})
    text = " ".join(fabricated(tmp_path).methods)
    assert "Calibration of classifiers was measured by the Brier score" in text
    assert "0.006, 2 standard deviations (0.001) above the mean (0.004) of 20 normal" in text or (
        "For MammoCNN, this was 0.500" in text
    )


def test_the_commands_evaluate_a_detector_as_it_was(runs, tmp_path):
    text = Page(page_of(runs).text).text
    lines = re.findall(r"python main\.py .*? --batch", text[text.index("Commands that repeat") :])
    parser = build_parser({name: stage.options for name, stage in STAGES.items()})
    given = [parser.parse_args(shlex.split(one)[2:]) for one in lines if " evaluate " in one]
    found = {one.run: vars(one) for one in given}
    assert found["CAE"]["k"] == 1.5
    assert not {"operating_point", "calibration", "target"} & set(found["CAE"])
    assert not {"k", "operating_point", "calibration"} & set(found["PatchCore"])
    shutil.copytree(runs, tmp_path / "runs")
    named = {name: found["CAE"][name] for name in ("run", "k", "replicates")}
    with briefly_timed():
        again = evaluate(Evaluate(runs=tmp_path / "runs", workers=1, **named), Silent())
    before = read_json(only(runs, "CAE") / "metrics.json")["operating_point"]["threshold"]
    assert again.facts["threshold"] == pytest.approx(before)


def test_many_flagged_normal_images_are_warned_of(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "runs")
    folder = only(tmp_path / "runs", "CAE")
    with briefly_timed():
        evaluate(Evaluate(run=str(folder), runs=tmp_path / "runs", k=0.001, **QUICK), Silent())
    share = read_json(folder / "metrics.json")["anomaly"]["flagged"]["test"]
    assert share > 0.1
    _, text = section_of(page_of(tmp_path / "runs"), "CAE")
    warned = re.search(r'<div class="missing">.*?</div>', text, re.DOTALL)[0]
    assert f"{share:.0%} of the " in warned
    assert "give a larger --k" in warned
    # Its maps are those of the evaluation before, whose calls were others.
    assert "error maps are of an earlier evaluation of this run: the errors and outcomes" in text


def test_errors_in_words():
    anomaly = Anomaly("mse", 2.0, 0.5, 3.0, {}, {})
    assert anomaly.short(3.35) == "+2.7 SD"
    assert anomaly.short(1.5) == "\N{MINUS SIGN}1.0 SD"
    assert anomaly.words(3.35) == "2.7 standard deviations above normal images"
    assert anomaly.words(1.5) == "1.0 standard deviations below normal images"
    assert Anomaly.recorded(None) is None


def test_a_damaged_threshold_is_one_line(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "runs")
    path = only(tmp_path / "runs", "CAE") / "metrics.json"
    write_json(path, read_json(path) | {"anomaly": {"error": "mse"}})
    with pytest.raises(UserError, match=r"required field `mean`"):
        read_run(Run(path.parent))


def test_detectors_stand_beside_classifiers_once_they_were_compared(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "SIDES", (32, 64, 128))
    monkeypatch.setattr(costs, "COUNTS", (8, 16, 24))
    monkeypatch.setattr(costs, "ROUNDS", 3)
    shutil.copytree(runs, tmp_path / "runs")
    out = tmp_path / "reports"
    options = Compare(runs=tmp_path / "runs", out=out / "comparison", anomaly=True, **QUICK)
    before = page_of(tmp_path / "runs").text
    assert f"compare --anomaly --runs {options.runs} --out {options.out} --batch" in before
    assert "Anomaly detection beside classifiers" not in page_of(runs, "ResNet18_OPW").text

    said = compare(options, Silent()).facts["anomaly"]
    found = report(Report(runs=options.runs, out=out), Silent())
    page = (found.folder / "report.html").read_text(encoding="utf-8")
    section = page[page.index('<section id="beside">') :]
    section = Page("<html>" + section[: section.index("</section>")]).text
    assert " ".join(said["words"]) in re.sub(r"\s+", " ", section)
    assert (found.folder / "figures" / "comparison" / "growth.svg").is_file()
    with (found.folder / "tables" / "anomaly.csv").open(encoding="utf-8", newline="") as file:
        lines = [line[1:3] for line in csv.reader(file)]
    assert all([run.model, run.folder.name] in lines for run in list_runs(options.runs))

    # Evaluated otherwise since: what was said is of other figures.
    evaluate(Evaluate(run="CAE", runs=options.runs, k=3.0, **QUICK), Silent())
    assert "compare --anomaly --runs" in page_of(options.runs).text
