"""The report, made of a small but real dataset and runs, and read as a browser would."""

import csv
import json
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import pytest

from interface.report.pictures import RUN_FIGURES
from interface.report.stage import report
from pipeline import manifest
from pipeline.errors import UserError
from pipeline.folds import Fold, apply_fold, write_folds
from pipeline.progress import Silent
from pipeline.records import read_json, write_json, write_table
from pipeline.stages.evaluation import Report
from tests.interface.report.files import METRICS, baselines, cohort, dataset, page_of, run_folder

EVIL = "P_<script>alert(1)</script>"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")


class Page(HTMLParser):
    """Collects elements, their attributes and the text of a page, or of the file that holds it."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.pieces = [], []
        self.feed(page if "<html" in str(page) else Path(page).read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.pieces).split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.lasttag != "style":
            self.pieces.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report of two runs, one of them with a figure that does not exist."""
    root = tmp_path_factory.mktemp("report")
    rows = cohort(24, strange=EVIL)
    data = dataset(root, rows)
    run_folder(root / "runs", data, rows, "ResNet18_CFT", 0.9)
    run_folder(root / "runs", data, rows, "MammoCNN", 0.8, unknown=("mcc", "precision"))
    run_folder(root / "runs", data, rows, "DenseNet121_PFT", evaluated=False)
    result = report(Report(runs=root / "runs", out=root / "reports"), Silent())
    return result, Page(result.facts["report"])


def test_result_names_the_page_and_the_test_auc_of_every_run(made):
    result, _ = made
    assert Path(result.facts["report"]).parent == result.folder
    assert result.facts["report"] in result.headline
    assert result.facts["test_auc"] == {
        "ResNet18_CFT/20260102-030405-42": 0.9, "MammoCNN/20260102-030405-42": 0.8,
    }  # fmt: skip
    record = read_json(result.folder / "stage.json")
    assert record["stage"] == "report"
    assert record["counts"] == {"runs": 2, "not_evaluated": 1}


def test_page_loads_nothing_and_runs_no_script(made):
    _, page = made
    assert not page.all("script") + page.all("link") + page.all("iframe") + page.all("base")
    sources = [item["src"] for item in page.all("img")]
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    assert all(item["href"].startswith("#") for item in page.all("a"))
    policy = next(item for item in page.all("meta") if "http-equiv" in item)
    assert "default-src 'none'" in policy["content"]
    markup = " ".join(value or "" for _, item in page.elements for value in item.values())
    assert "http://" not in markup
    assert "https://" not in markup


def test_what_comes_from_files_is_escaped(made):
    result, page = made
    raw = Path(result.facts["report"]).read_text(encoding="utf-8")
    assert EVIL not in raw
    assert EVIL in page.text
    assert "is <truncated>" in page.text


def test_ids_are_unique_and_every_anchor_has_its_target(made):
    _, page = made
    ids = [item["id"] for _, item in page.elements if "id" in item]
    assert len(ids) == len(set(ids))
    assert {item["href"].removeprefix("#") for item in page.all("a")} <= set(ids)


def test_images_and_charts_say_what_they_show_and_table_heads_have_a_scope(made):
    _, page = made
    assert all(item.get("alt") for item in page.all("img"))
    assert all("aria-label" in item or "aria-hidden" in item for item in page.all("svg"))
    assert all(item.get("scope") in ("row", "col", "rowgroup") for item in page.all("th"))
    assert [item["lang"] for item in page.all("html")] == ["en"]
    assert len(page.all("h1")) == 1


def test_synthetic_collection_is_called_out_and_the_notice_stands(made):
    _, page = made
    assert "Synthetic collection: these figures say nothing about real mammograms" in page.text
    assert "Not a medical device; not for diagnosis" in page.text


def test_cohort_flow_counts_splits_and_reasons(made):
    _, page = made
    assert "48 images of 24 patients" in page.text
    for expected in ("24 images of 12 patients", "12 images of 6 patients"):
        assert expected in page.text
    assert "3 set aside in organising" in page.text
    assert "2 \u00d7 missing: no file of series 1 \u00d7 is <truncated>" in page.text
    assert "7 images: BENIGN_WITHOUT_CALLBACK" in page.text
    assert "60 mammograms in the case descriptions" in page.text


def test_every_figure_stands_with_its_interval_and_unknown_ones_as_a_dash(made):
    _, page = made
    assert "0.900 0.820 to 0.960" in page.text
    assert "Matthews correlation (MCC) \u2013 \u2013 \u2013 \u2013" in page.text
    assert "nan" not in page.text.lower().split()
    assert "None" not in page.text.split()


def test_overlapping_models_are_not_ranked(made):
    _, page = made
    assert "intervals that overlap do not rank models" in page.text
    assert "ResNet18_CFT and MammoCNN cannot be ranked: the difference in AUC is" in page.text
    assert "1 run not evaluated yet" in page.text


def test_commands_repeat_the_stages(made):
    result, page = made
    runs = result.folder.parent.parent / "runs"
    assert f"--runs {runs} --batch" in page.text
    assert "python main.py synthesize --out" in page.text
    assert "python main.py train --data" in page.text
    assert "--replicates 200" in page.text


def test_metrics_csv_has_every_run_split_and_metric(made):
    result, _ = made
    with (result.folder / "metrics.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * 3 * 2 * len(METRICS)
    assert {line["unit"] for line in lines} == {"image", "breast", "patient"}
    assert {line["value"] for line in lines if line["metric"] == "auc"} == {"0.9", "0.8"}
    assert {line["value"] for line in lines if line["metric"] == "mcc"} == {"0.9", ""}


def test_figures_and_thumbnails_are_shown_of_every_run(made):
    result, page = made
    shown = [item for item in page.all("img") if item["src"].startswith("data:image/svg+xml")]
    runs = [path.name for path in (result.folder / "figures").iterdir() if path.is_dir()]
    assert len(shown) == 2 * (len(RUN_FIGURES) - 1), "all but the errors of a detector"
    assert len(runs) == 2
    assert sum(item["alt"] == "ROC of this run" for item in shown) == 2  # as the file says
    assert sum(item["alt"] == "Training" for item in shown) == 2  # a file without a description
    assert sum("probability" in item["alt"] for item in page.all("img")) >= 6


def test_a_run_without_figures_says_how_to_get_them(tmp_path):
    rows = cohort(8)
    folder = run_folder(tmp_path / "runs", dataset(tmp_path, rows), rows)
    shutil.rmtree(folder / "figures")
    assert "no figures: evaluate it again to draw them" in Page(page_of(tmp_path).text).text


def test_moved_dataset_still_gives_a_report_that_says_so(tmp_path):
    rows = cohort(8)
    data = dataset(tmp_path, rows)
    run_folder(tmp_path / "runs", data, rows)
    data.rename(tmp_path / "elsewhere")
    made = page_of(tmp_path)
    page = Page(made.text)
    assert made.problems == [f"{data}: no such folder"]
    assert f"{data}: no such folder. What depends on it is left out" in page.text
    assert "image not found" in page.text
    assert "Enhance local contrast (CLAHE) no" in page.text
    assert "Synthetic collection" not in page.text


def test_collection_that_is_gone_leaves_open_whether_it_was_synthetic(tmp_path):
    rows = cohort(8)
    run_folder(tmp_path / "runs", dataset(tmp_path, rows), rows)
    shutil.rmtree(tmp_path / "raw")
    made = page_of(tmp_path)
    page = Page(made.text)
    assert made.problems == [f"{tmp_path / 'raw'}: no such folder"]
    assert "whether the images are synthetic is not known" in page.text
    assert "16 images of 8 patients" in page.text


def test_real_collection_without_a_preview_has_no_banner(tmp_path):
    rows = cohort(8)
    data = dataset(tmp_path, rows, synthetic=False, preview=False)
    run_folder(tmp_path / "runs", data, rows)
    made = page_of(tmp_path)
    page = Page(made.text)
    assert "say nothing about real mammograms" not in page.text
    assert "There is no preview sheet in" in page.text
    assert not made.problems


def test_fitted_read_out_has_no_training_curve(tmp_path):
    rows = cohort(8)
    folder = run_folder(tmp_path / "runs", dataset(tmp_path, rows), rows)
    write_table(folder / "history.csv", ("C", "val_auc"), [(0.01, 0.6), (1.0, float("nan"))])
    text = Page(page_of(tmp_path).text).text
    assert "There is no training curve: a linear probe was fitted" in text


def test_runs_on_different_test_images_stand_in_tables_of_their_own(tmp_path):
    for name, patients in (("a", 8), ("b", 16)):
        rows = cohort(patients)
        data = dataset(tmp_path / name, rows)
        run_folder(tmp_path / "runs", data, rows, model=f"ResNet18_{name}")
    made = page_of(tmp_path)
    page = Page(made.text)
    assert sum(item.get("class") == "comparison by-image" for item in page.all("table")) == 2
    assert "figures of different tables do not compare" in page.text


def test_same_films_at_two_sizes_stand_in_one_table_each_with_its_baselines(tmp_path):
    rows = cohort(8)
    for size in (64, 96):
        data = dataset(tmp_path / str(size), rows)
        manifest.write_manifest(data, [replace(row, width=size, height=size) for row in rows])
        folder = run_folder(tmp_path / "runs", data, rows, seed=size)
        measured = read_json(folder / "metrics.json")
        measured |= {"test_images": "films", "preprocess": {"size": size}}
        write_json(folder / "metrics.json", measured)
        baselines(tmp_path / "runs", data, rows, shuffled=0)
    made = page_of(tmp_path)
    page = Page(made.text)
    assert sum(item.get("class") == "comparison by-image" for item in page.all("table")) == 1
    assert "20260102-030405-64, 64 px" in page.text
    assert "20260102-030405-96, 96 px" in page.text
    assert "Shuffled (64 px)" in page.text
    assert "Shuffled (96 px)" in page.text


def test_dataset_that_was_made_anew_is_called_out(tmp_path):
    rows = cohort(8)
    data = dataset(tmp_path, rows)
    run_folder(tmp_path / "runs", data, rows)
    told = "The data of this run have changed since: "
    assert told not in Page(page_of(tmp_path).text).text
    manifest.write_manifest(data, rows[:-2])
    assert told in Page(page_of(tmp_path).text).text


def test_runs_of_folds_are_named_and_their_cohorts_are_their_own(tmp_path):
    rows = cohort(32)
    data = dataset(tmp_path, rows)
    outside = sorted({row.patient_id for row in rows if row.split != "test"})
    folds = {patient: number % 3 + 1 for number, patient in enumerate(outside)}
    write_folds(data, folds | {outside[-1]: 1})
    for number in (1, 2):
        applied = apply_fold(data, rows, number)
        run_folder(tmp_path / "runs", data, applied, fold=Fold(number, 3))
    options = Report(runs=tmp_path / "runs", out=tmp_path / "reports")
    result = report(options, Silent())
    page = Page(result.facts["report"])
    for number in (1, 2):
        val = [row for row in apply_fold(data, rows, number) if row.split == "val"]
        malignant = sum(row.label == "malignant" for row in val)
        rest = 48 - len(val)
        assert (
            f"fold {number} of 3 {rest} images of {rest // 2} patients {24 - malignant} malignant"
        ) in page.text
        assert f"{len(val)} images of {len(val) // 2} patients {malignant} malignant" in page.text
        assert page.text.count(f"ResNet18_CFT, fold {number} of 3") >= 3
    assert "Test 16 images of 8 patients" in page.text
    # The plain split, which no run used, must not stand there as if one had.
    assert "Validation 16 images of 8 patients" not in page.text
    assert [row[1] for row in result.tables[0].rows] == [1, 2]
    with (result.folder / "metrics.csv").open(newline="") as file:
        assert {line["fold"] for line in csv.DictReader(file)} == {"1", "2"}
    run_folder(tmp_path / "runs", data, rows, "MammoCNN")
    page = Page(page_of(tmp_path).text)
    assert "Validation 16 images of 8 patients" in page.text
    assert "fold 2 of 3" in page.text


def test_broken_metrics_are_set_aside_with_their_reason(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = cohort(8)
    data = dataset(tmp_path, rows)
    run_folder(tmp_path / "runs", data, rows)
    broken = run_folder(tmp_path / "runs", data, rows, model="MammoCNN")
    (broken / "metrics.json").write_text(json.dumps({"model": "MammoCNN"}))
    result = report(Report(runs=Path("runs"), out=tmp_path / "reports"), Silent())
    assert result.set_aside == 1
    assert list(result.facts["test_auc"]) == ["ResNet18_CFT/20260102-030405-42"]
    said = (result.folder / "set_aside.csv").read_text()
    assert "of another version (Object missing required field `data`" in said
    assert "evaluate --run runs/MammoCNN/20260102-030405-42 --batch" in said


def test_no_evaluated_run_is_refused_with_the_command(tmp_path):
    rows = cohort(8)
    run_folder(tmp_path / "runs", dataset(tmp_path, rows), rows, evaluated=False)
    with pytest.raises(UserError, match=r"no evaluated run; run: python main\.py evaluate"):
        report(Report(runs=tmp_path / "runs", out=tmp_path / "reports"), Silent())
    assert not (tmp_path / "reports").exists()


def test_two_reports_in_one_second_lie_in_two_folders(tmp_path):
    rows = cohort(8)
    run_folder(tmp_path / "runs", dataset(tmp_path, rows), rows)
    options = Report(runs=tmp_path / "runs", out=tmp_path / "reports")
    assert report(options, Silent()).folder != report(options, Silent()).folder


def browse(page, profile, *flags):
    return subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
         "--no-first-run", "--hide-scrollbars", "--disable-component-update",
         "--enable-logging=stderr", f"--user-data-dir={profile}", *flags, Path(page).as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip


@pytest.mark.skipif(BROWSER is None, reason="no chromium")
def test_browser_draws_the_page_and_asks_the_network_for_nothing(made, tmp_path):
    result, _ = made
    shot, log = tmp_path / "page.png", tmp_path / "net.json"
    told = browse(
        result.facts["report"], tmp_path / "profile", "--window-size=1200,2000",
        f"--screenshot={shot}", f"--log-net-log={log}",
    )  # fmt: skip
    picture = cv2.imread(str(shot))
    assert picture.shape == (2000, 1200, 3)
    assert picture[:1000].std() > 10
    assert "CONSOLE" not in told.stderr
    asked = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    # What the browser asks for itself has no page behind it: "not an origin".
    by_page = [p["url"] for p in asked if p.get("initiator", "not an origin") != "not an origin"]
    assert by_page == []


@pytest.mark.skipif(BROWSER is None, reason="no chromium")
def test_page_needs_no_sideways_scrolling_on_a_phone(made, tmp_path):
    result, _ = made
    outer = tmp_path / "outer.html"
    outer.write_text(
        f'''<iframe src="{Path(result.facts["report"]).as_uri()}" style="width:380px;height:800px"
        onload="document.title = contentDocument.documentElement.scrollWidth"></iframe>'''
    )
    told = browse(outer, tmp_path / "profile", "--allow-file-access-from-files", "--dump-dom")
    assert "<title>380</title>" in told.stdout


def test_reports_of_killed_runs_are_removed_and_those_in_work_are_not(tmp_path):
    rows = cohort(8)
    run_folder(tmp_path / "runs", dataset(tmp_path, rows), rows)
    killed, stranger = (tmp_path / "reports" / name for name in ("20260101-000000", "mine"))
    for folder in (killed, stranger):
        folder.mkdir(parents=True)
        (folder / "methods.txt").touch()
    (killed / "unfinished.json").write_text('{"stage": "report", "options": {}}')
    (stranger / "unfinished.json").write_text('{"stage": "train", "options": {}}')
    report(Report(runs=tmp_path / "runs", out=tmp_path / "reports"), Silent())
    assert not killed.exists()
    assert (stranger / "methods.txt").exists()
