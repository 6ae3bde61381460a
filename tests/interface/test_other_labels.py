"""The whole way of a collection with normal images: no word of a question that was not asked."""

import csv
import re

import pytest

from main import main
from pipeline.records import read_json
from pipeline.runs import list_runs
from tests.interface.report.files import METRICS

# Words that would be those of another question: none of them may be read after organising.
FOREIGN = {
    "malignant-rest": r"\bbenign\b|\babnormal|not_malignant",
    "abnormal-normal": r"\bbenign\b|malignan",
}
NAMES = {
    "malignant-rest": ["not_malignant", "malignant"],
    "abnormal-normal": ["normal", "abnormal"],
}
QUICK = ("--workers", "1", "--batch")
# What stays, whatever is asked: who wrote what, the command line, and the image of a class folder.
KEPT = re.compile(
    r"data:[\w/+]+;base64,[^\"']*|malignant-rest|/not_malignant/|<style>.*?</style>", re.DOTALL
)


def said(text):
    """Return a text without pictures, styles and commands."""
    return KEPT.sub("", text)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("question", FOREIGN)
def test_no_stage_speaks_of_another_question(question, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*words):
        assert main([*words, *QUICK]) == 0
        return "".join(capsys.readouterr())

    run("synthesize", "--collection", "mini-mias", "--patients", "16")
    run("organize", "--question", question)
    texts = {
        "preprocess": run("preprocess", "--size", "64"),
        "probe": run("probe", "--data", "preprocessed"),
        "train": run("train", "--model", "ResNet18_OPW", "--weights", "none", "--epochs", "1",
                     "--device", "cpu"),
        "evaluate": run("evaluate", "--replicates", "200"),
        "explain": run("explain", "--replicates", "200", "--checks", "2", "--device", "cpu"),
        "compare": run("compare", "--replicates", "200"),
        "report": run("report"),
        "predict": run("predict", "preprocessed/test", "--heat-maps", "none"),
    }  # fmt: skip
    capsys.readouterr()
    assert main(["export", "--batch"]) == 0
    texts["export"] = "".join(capsys.readouterr())
    (folder,) = (one.folder for one in list_runs(tmp_path / "runs"))
    texts["card"] = (folder / "export" / "README.md").read_text()
    (report,) = (tmp_path / "reports").glob("2*")
    for path in (report / "report.html", report / "methods.txt", *report.glob("tables/**/*.csv")):
        texts[str(path.relative_to(report))] = path.read_text()
    texts |= {path.name: path.read_text() for path in (folder / "figures").glob("roc.svg")}
    found = {
        name: re.findall(f".*(?:{FOREIGN[question]}).*", said(text)) for name, text in texts.items()
    }
    assert {name: lines for name, lines in found.items() if lines} == {}

    names = NAMES[question]
    for name in ("model.json", "metrics.json", "explanations/explanations.json"):
        assert read_json(folder / name)["labels"] == names
    for path in (folder / "predictions_test.csv", folder / "explanations" / "explanations.csv"):
        with path.open(encoding="utf-8") as file:
            assert {line["label"] for line in csv.DictReader(file)} <= set(names)
    with (tmp_path / "predictions" / "predictions.csv").open(encoding="utf-8") as file:
        called = {line["called"] for line in csv.DictReader(file)}
    assert called <= {name.replace("_", " ") for name in names}
    assert set(METRICS) <= set(read_json(folder / "metrics.json")["splits"]["test"]["metrics"])
