"""The stage over real runs: what it draws, scores, refuses, and continues."""

import csv
import dataclasses
import json
import shutil
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from images.files import write_png
from models.evaluation.ensemble import ensemble
from models.evaluation.stage import evaluate
from models.explanation.lesions import View, read_lesions
from models.explanation.stage import explain
from models.training.stage import train
from pipeline.errors import UserError
from pipeline.manifest import read_manifest, read_masks
from pipeline.progress import Silent
from pipeline.records import read_json, write_json, write_table
from pipeline.runs import Run
from pipeline.stages.evaluation import Ensemble, Evaluate
from pipeline.stages.explanation import Explain
from tests.interrupts import interrupted_when, interrupts_itself

QUICK = {"device": "cpu", "workers": 1, "replicates": 200, "checks": 2}


@pytest.fixture(scope="module")
def evaluated(prepared, options_for, tmp_path_factory):
    """A run on the synthetic collection, evaluated; not to be written to."""
    root = tmp_path_factory.mktemp("explained")
    data = prepared / "preprocessed"
    options = options_for(root / "runs", data=data, size=64, epochs=2)
    folder = train(options, Silent()).folder
    evaluate(Evaluate(run=str(folder), runs=root / "runs", workers=1, replicates=200), Silent())
    return root


@pytest.fixture
def runs(evaluated, tmp_path):
    shutil.copytree(evaluated / "runs", tmp_path / "runs")
    return tmp_path / "runs"


OUTLINE = (0, 214, 255)  # blue, green, red


def lesion_box(dataset, image_id):
    """Return left, top and right, bottom of all lesions of a film, in its pixels."""
    places = [
        np.argwhere(cv2.imread(str(one.path), cv2.IMREAD_UNCHANGED) > 0)
        for one in read_masks(dataset)[image_id]
    ]
    every = np.concatenate(places)[:, ::-1]
    return every.min(axis=0), every.max(axis=0)


def table(folder):
    with (folder / "explanations.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_pictures_table_and_scores_agree(runs, prepared):
    result = explain(Explain(runs=runs, images="all", **QUICK), Silent())
    lines, facts = table(result.folder), read_json(result.folder / "explanations.json")
    rows = {row.image_id: row for row in read_manifest(prepared / "preprocessed")}
    films = {row.image_id: row for row in read_manifest(prepared / "dataset")}
    assert {line["image_id"] for line in lines} == {
        row.image_id for row in rows.values() if row.split == "test"
    }
    for line in lines:
        film = films[line["image_id"]]
        picture = cv2.imread(str(result.folder / line["file"]))
        assert picture.shape == (film.height, film.width, 3), "it is the film that is drawn"
        if line["pointing"]:
            yellow = np.argwhere((picture == OUTLINE).all(axis=2))
            (left, top), (right, bottom) = lesion_box(prepared / "dataset", line["image_id"])
            inside = (yellow >= (top - 2, left - 2)) & (yellow <= (bottom + 2, right + 2))
            assert len(yellow)
            assert inside.all(), "outlines lie where the masks do"
        assert (line["outcome"][0] == "T") == (
            (line["evidence"] == "malignant") == (line["label"] == "malignant")
        )
        if line["peak_x"]:
            # What was padded to a square lies beyond the film.
            assert -film.width <= float(line["peak_x"]) <= 2 * film.width
    hits = [float(line["pointing"]) for line in lines if line["pointing"]]
    assert len(hits) == facts["scored"] > 0
    assert facts["scores"]["map"]["all"]["pointing"]["value"] == pytest.approx(np.mean(hits))
    assert set(facts["scores"]) == {"map", "blob", "breast", "untrained"}
    assert set(facts["leads"]) == {"blob", "breast", "untrained"}
    assert facts["checks"]["images"] == 2
    assert facts["checks"]["randomised"][0]["unit"] == "head"
    assert facts["checks"]["single_mirror"]["value"] < 1
    leads = next(one for one in result.tables if "lead" in one.title)
    assert [row[0] for row in leads.rows] == ["Centred blob", "Breast mask", "Untrained network"]


def test_every_stratum_is_scored_by_its_own_images(runs, prepared):
    result = explain(Explain(runs=runs, count=1, **QUICK | {"checks": 0}), Silent())
    facts = read_json(result.folder / "explanations.json")
    hits = {one["image_id"]: float(one["pointing"]) for one in table(result.folder)
            if one["pointing"]}  # fmt: skip
    rows = {row.image_id: row for row in read_manifest(prepared / "preprocessed")}
    found = {(one["factor"], one["level"]): one for one in facts["strata"]}
    assert {"view", "density", "assessment", "subtlety"} <= {factor for factor, _ in found}
    for factor in ("view", "density"):
        levels = [one["images"] for one in facts["strata"] if one["factor"] == factor]
        assert sum(levels) == facts["scored"]
    own = [name for name in hits if rows[name].view == "MLO"]
    mlo = found["view", "MLO"]
    assert (mlo["images"], mlo["patients"]) == (
        len(own), len({rows[name].patient_id for name in own})
    )  # fmt: skip
    assert set(mlo["scores"]) == {"map", "blob", "breast", "untrained"}
    scored = mlo["scores"]["map"]["pointing"]
    assert scored["value"] == pytest.approx(np.mean([hits[name] for name in own]))


class Working(Silent):
    """Keeps how many steps of each kind of work were left to do."""

    def __init__(self):
        self.left = {}

    @contextmanager
    def track(self, text, total, unit, done=0):  # noqa: ARG002
        self.left[text] = total - done
        yield lambda _steps: None


@pytest.mark.slow
def test_checks_that_an_earlier_run_made_are_taken_over(runs):
    first = explain(Explain(runs=runs, count=1, **QUICK), Silent())
    again = Working()
    options = Explain(runs=runs, count=2, **QUICK | {"checks": 3})
    assert explain(options, again).facts["checks"]["images"] == 3
    assert again.left["Deletion and insertion"] == 2, "a third image's, of two kinds of maps"
    again = Working()
    found = explain(Explain(runs=runs, count=2, **QUICK), again)
    assert found.facts["checks"] == first.facts["checks"]
    assert not {"Deletion and insertion", "Random weights, mirror image"} & set(again.left)


@pytest.mark.slow
def test_the_same_command_gives_the_same_and_other_pictures_replace_the_old(runs):
    options = Explain(runs=runs, images="all", **QUICK)
    first = explain(options, Silent())
    kept = {path.name: path.read_bytes() for path in first.folder.glob("expl*.*")}
    assert explain(options, Silent()).facts == first.facts
    assert {path.name: path.read_bytes() for path in first.folder.glob("expl*.*")} == kept
    name = table(first.folder)[0]["image_id"]
    one = explain(dataclasses.replace(options, images=name, checks=0), Silent())
    assert [path.name for path in one.folder.glob("*.png")] == [f"{name}.png"]
    assert one.facts["checks"] is None
    assert one.facts["scores"] == first.facts["scores"]


@interrupts_itself
def test_after_ctrl_c_the_same_command_continues(runs):
    options = Explain(runs=runs, images="all", **QUICK)
    folder = next(runs.glob("MammoCNN/*")) / "explanations"
    with interrupted_when(lambda: list(folder.glob("*.png"))), pytest.raises(KeyboardInterrupt):
        explain(options, Silent())
    assert not (folder / "stage.json").exists()
    result = explain(options, Silent())
    assert result.folder == folder
    assert all((folder / line["file"]).is_file() for line in table(folder))


def test_what_cannot_be_explained_is_refused(runs):
    with pytest.raises(UserError, match="P_x: no test image of latest is called so"):
        explain(Explain(runs=runs, images="P_x", **QUICK), Silent())
    (run,) = runs.glob("MammoCNN/*")
    shutil.copytree(run, run.with_name("20990101-000000-1"))
    made = ensemble(Ensemble(runs=runs), Silent())
    with pytest.raises(UserError, match="is an ensemble, whose 2 networks have a heat-map each"):
        explain(Explain(runs=runs, run=str(made.folder), **QUICK), Silent())
    (run / "metrics.json").unlink()
    with pytest.raises(UserError, match="has not been evaluated"):
        explain(Explain(runs=runs, run=Run(run).name, **QUICK), Silent())


def test_other_data_are_refused_and_moved_ones_are_found_by_their_folder(runs, prepared, tmp_path):
    given = Explain(runs=runs, count=1, **QUICK | {"checks": 0})
    with pytest.raises(UserError, match="was not evaluated on it; do so first"):
        explain(dataclasses.replace(given, data=prepared / "dataset"), Silent())
    moved = tmp_path / "moved"
    shutil.copytree(prepared / "preprocessed", moved)
    path = next(runs.glob("MammoCNN/*/metrics.json"))
    write_json(path, read_json(path) | {"data": str(tmp_path / "before")})
    with pytest.raises(UserError, match="before: is gone") as refused:
        explain(given, Silent())
    assert "--data" in refused.value.remedy
    assert explain(dataclasses.replace(given, data=moved), Silent()).facts["scored"]


def test_masks_that_changed_since_are_scored_and_drawn_again(runs, prepared, tmp_path):
    organised, data = tmp_path / "dataset", tmp_path / "preprocessed"
    shutil.copytree(prepared / "dataset", organised)
    shutil.copytree(prepared / "preprocessed", data)
    record = read_json(data / "stage.json")
    record["source"]["folder"] = str(organised)
    write_json(data / "stage.json", record)
    given = Explain(runs=runs, images="all", data=data, **QUICK | {"checks": 0})
    folder = explain(given, Silent()).folder
    before = {line["image_id"]: line for line in table(folder) if line["pointing"]}
    masks = read_masks(organised)
    emptied, grown = [name for name in before if len(masks[name]) == 1][:2]
    pictures = {name: (folder / f"{name}.png").read_bytes() for name in before}
    for name, value in ((emptied, 0), (grown, 1)):
        path = masks[name][0].path
        write_png(path, np.full_like(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), value) > 0)
    result = explain(given, Silent())
    after = {line["image_id"]: line for line in table(folder)}
    assert after[emptied]["pointing"] == ""
    assert float(after[grown]["energy"]) > float(before[grown]["energy"])
    changed = {name for name in before if (folder / f"{name}.png").read_bytes() != pictures[name]}
    assert changed == {emptied, grown}
    assert result.facts["scored"] == len(before) - 1
    assert any("is empty" in reason for _, reason in set_aside(folder))


def set_aside(folder):
    with (folder / "set_aside.csv").open(encoding="utf-8") as file:
        return [(line["what"], line["reason"]) for line in csv.DictReader(file)]


def test_masks_that_do_not_fit_are_set_aside(prepared, tmp_path):
    for name in ("dataset", "preprocessed"):
        shutil.copytree(prepared / name, tmp_path / name)
    organised = tmp_path / "dataset"
    data = tmp_path / "preprocessed"
    record = json.loads((data / "stage.json").read_text())
    record["source"]["folder"] = str(organised)
    rows = read_manifest(data)
    whole = read_lesions(data, record, rows, 96, Silent())
    with (organised / "masks.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    single = [line for line in lines if line["image_id"] in whole.masks]
    counts = [line["image_id"] for line in single]
    first, second, third = [line for line in single if counts.count(line["image_id"]) == 1][:3]
    write_png(organised / first["path"], np.ones((7, 9), bool))
    (organised / second["path"]).write_bytes(b"\x89PNG broken")
    third["fit"] = "stretched"
    write_table(organised / "masks.csv", tuple(lines[0]), [tuple(line.values()) for line in lines])
    found = read_lesions(data, record, rows, 96, Silent())
    gone = {line["image_id"] for line in (first, second, third)}
    assert set(whole.masks) - set(found.masks) == gone
    reasons = dict(found.set_aside)
    assert "has 9 x 7 pixels, and its film" in reasons[f"masks of {first['image_id']}"]
    assert "stretched" in reasons[f"masks of {third['image_id']}"]


def test_a_mask_lies_in_the_input_where_it_lies_in_the_film(prepared):
    """A point of the input that its mask marks is marked in the film too."""
    data = prepared / "preprocessed"
    record = json.loads((data / "stage.json").read_text())
    rows = {row.image_id: row for row in read_manifest(data)}
    lesions = read_lesions(data, record, list(rows.values()), 96, Silent())
    assert lesions.masks
    with (prepared / "dataset" / "masks.csv").open(encoding="utf-8") as file:
        paths = {line["image_id"]: line["path"] for line in csv.DictReader(file)}
    for name, mask in lesions.masks.items():
        if rows[name].lesions > 1:
            continue
        film = cv2.imread(str(prepared / "dataset" / paths[name]), cv2.IMREAD_GRAYSCALE) > 0
        y, x = np.argwhere(mask).mean(axis=0) + 0.5
        at = View.of(rows[name], 96).point_to_film(float(x), float(y))
        middle = np.argwhere(film).mean(axis=0)[::-1] + 0.5
        assert np.hypot(*(np.array(at) - middle)) < 0.03 * max(film.shape)


@pytest.mark.slow
def test_without_masks_maps_are_drawn_and_nothing_is_scored(trained, tmp_path):
    runs = tmp_path / "runs"
    folder = runs / trained.folder.parent.name / trained.folder.name
    shutil.copytree(trained.folder, folder)
    evaluate(Evaluate(run=str(folder), runs=runs, workers=1, replicates=200), Silent())
    result = explain(Explain(runs=runs, count=1, **QUICK), Silent())
    assert "no test image has a mask" in result.headline
    assert result.facts["scores"] == {}
    assert result.tables == ()
    assert list(result.folder.glob("*.png"))
    assert {line["pointing"] for line in table(result.folder)} == {""}
