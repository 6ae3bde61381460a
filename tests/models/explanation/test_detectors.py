"""Maps of anomaly detectors: where errors lie, one scale for all, and the stage over real runs."""

import csv
import dataclasses
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.anomaly.maps import enlarged
from models.anomaly.patchcore import PATCH_STRIDE
from models.data.loading import load_split
from models.evaluation.stage import evaluate
from models.explanation.baselines import without_weights
from models.explanation.errors import ErrorScale, error_maps, error_scale, restored_images
from models.explanation.pictures import GAP, draw_heat
from models.explanation.stage import explain
from models.inference import Compute, image_logits, load_run, place
from models.training.normals import normals_of
from models.training.stage import train
from pipeline.errors import UserError
from pipeline.labels import is_normal
from pipeline.manifest import read_manifest
from pipeline.progress import Silent
from pipeline.records import read_json
from pipeline.stages.evaluation import Evaluate
from pipeline.stages.explanation import Explain

SIZE = 64
QUICK = {"device": "cpu", "workers": 1, "replicates": 200, "checks": 2}
COMPUTE = Compute(torch.device("cpu"), None)
BOTH = pytest.mark.parametrize("name", ["CAE", "PatchCore"])


@pytest.fixture(scope="module")
def evaluated(prepared, options_for, tmp_path_factory):
    """Detectors on the synthetic collection, evaluated; not to be written to."""
    root = tmp_path_factory.mktemp("detectors")
    for model in ("CAE", "PatchCore"):
        given = {"data": prepared / "preprocessed", "size": SIZE, "epochs": 4, "model": model}
        folder = train(options_for(root / "runs", **given), Silent()).folder
        evaluate(Evaluate(run=str(folder), runs=root / "runs", workers=1, replicates=200), Silent())
    return root


@pytest.fixture
def runs(evaluated, tmp_path):
    shutil.copytree(evaluated / "runs", tmp_path / "runs")
    return tmp_path / "runs"


def loaded(runs, name):
    """Return the folder of a run, its network, and test images with their rows."""
    (folder,) = (runs / name).iterdir()
    model = load_run(folder)
    place(model.network, COMPUTE)
    data = Path(read_json(folder / "metrics.json")["data"])
    return folder, model, data


def images_of(data):
    rows = read_manifest(data)
    return load_split(data, rows, "test", SIZE, 1, Silent())


def table(folder):
    with (folder / "explanations.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@BOTH
def test_a_map_is_in_the_unit_of_the_score_and_no_image_changes_that_of_another(
    evaluated, name, prepared
):
    _, model, _ = loaded(evaluated / "runs", name)
    images = images_of(prepared / "preprocessed").images
    maps = error_maps(model, images, COMPUTE)
    assert maps.shape == images.shape
    assert maps.dtype == np.float32
    assert maps.min() >= 0
    scores = image_logits(model.network, images, model.transform(COMPUTE), COMPUTE)
    if name == "PatchCore":  # its score is the largest distance
        assert maps.max(axis=(1, 2)) == pytest.approx(scores, rel=1e-4)
    else:  # that of an autoencoder is the mean inside the breast
        inside = [one[image > 0] for one, image in zip(maps, images, strict=True)]
        assert [one.mean() for one in inside] == pytest.approx(scores, rel=0.1)
        assert not maps[images == 0].any()
        assert not restored_images(model, images, COMPUTE)[images == 0].any()
    alone = np.concatenate([error_maps(model, one[None], COMPUTE) for one in images[:3]])
    np.testing.assert_allclose(alone, maps[:3], rtol=1e-3, atol=1e-5)


def test_a_cell_is_hottest_where_its_patch_lies_and_keeps_its_value():
    cells = torch.zeros(1, 8, 8)
    cells[0, 3, 5] = 0.7
    (heat,) = enlarged(cells, 8 * PATCH_STRIDE).numpy()
    assert np.unravel_index(heat.argmax(), heat.shape) == (3 * PATCH_STRIDE, 5 * PATCH_STRIDE)
    assert heat.max() == pytest.approx(0.7)
    same = enlarged(torch.full((1, 7, 7), 0.3), 50)
    assert same.numpy() == pytest.approx(0.3)


def test_the_same_error_has_the_same_colour_in_two_images_and_normal_ones_do_not_glow():
    draw = np.random.default_rng(3)
    normals = draw.gamma(4, 0.001, (20, 40, 40)).astype(np.float32)
    scale = ErrorScale.of(normals, np.ones(normals.shape, bool))
    assert scale.images == 20
    assert np.mean(scale.heat(normals) > 0.5) == pytest.approx(0.001, abs=2e-4)
    calm, wild = normals[0].copy(), normals[1] * 10
    calm[5, 5] = wild[5, 5] = 1.5 * scale.limit
    film = np.full((40, 40), 9000, np.uint16)
    drawn = [draw_heat(film, scale.heat(one)) for one in (calm, wild)]
    assert (drawn[0][5, 5] == drawn[1][5, 5]).all()
    red = [one[..., 2].astype(int) for one in drawn]
    assert np.quantile(red[0], 0.99) < red[0][5, 5], "a normal image beside one hot pixel"
    assert red[1].mean() > 1.5 * red[0].mean(), "what is ten times as far off glows"


@BOTH
def test_the_stage_draws_and_scores_a_detector(runs, name):
    options = Explain(runs=runs, run=name, images="all", **QUICK)
    result = explain(options, Silent())
    facts, lines = read_json(result.folder / "explanations.json"), table(result.folder)
    run, model, data = loaded(runs, name)
    test = images_of(data)
    assert {line["image_id"] for line in lines} == {row.image_id for row in test.rows}
    with (run / "predictions_test.csv").open(encoding="utf-8") as file:
        said = {line["image_id"]: line for line in csv.DictReader(file)}
    for line in lines:
        assert "probability" not in line
        assert float(line["error"]) == float(said[line["image_id"]]["error"])
        assert (line["outcome"][1] == "P") == (said[line["image_id"]]["predicted"] == "1")
        assert (result.folder / line["file"]).is_file()
    known = [float(line["pixel_auc"]) for line in lines if line["pixel_auc"]]
    assert facts["scores"]["map"]["all"]["pixel_auc"]["value"] == pytest.approx(np.mean(known))
    assert facts["scores"]["breast"]["all"]["pixel_auc"]["value"] == pytest.approx(0.5)
    assert set(facts["scores"]) == {"map", "blob", "breast", "untrained"}
    assert facts["checks"]["deletion"] == {}
    assert facts["checks"]["randomised"]
    assert facts["evidence"] == "errors"
    assert any("Error map" in str(row) for one in result.tables for row in one.rows)
    scale = error_scale(run)
    assert scale == ErrorScale.recorded(facts["scale"])
    assert scale.median < scale.limit < scale.top == facts["scale"]["top"]
    normal = [is_normal(row) for row in test.rows]
    heat = scale.heat(error_maps(model, test.images[normal], COMPUTE))
    assert np.mean(heat > 0.5) < 0.05, "normal test images do not glow"
    again = {path: path.stat().st_mtime_ns for path in result.folder.glob("*.png")}
    assert explain(options, Silent()).facts == result.facts
    assert {path: path.stat().st_mtime_ns for path in again} == again, "nothing is drawn twice"


def test_an_untrained_patchcore_remembers_normal_images_too(runs):
    _, model, data = loaded(runs, "PatchCore")
    val = load_split(data, read_manifest(data), "val", SIZE, 1, Silent())
    normals = normals_of(val).images[:20]
    blank = without_weights(model, normals, COMPUTE, 1)
    first = next(iter(blank.network.parameters()))
    assert not torch.equal(first, next(iter(model.network.parameters())))
    # All their patches are kept, so none of them is far from the bank; those of noise are.
    noise = np.random.default_rng(1).integers(0, 255, normals[:2].shape, np.uint8)
    near, far = (error_maps(blank, images, COMPUTE) for images in (normals, noise))
    assert near.max() < 0.05 * far.min()


def test_an_autoencoder_shows_what_it_was_given_and_what_it_restored_beside_the_errors(runs):
    folder = explain(Explain(runs=runs, run="CAE", count=1, **QUICK), Silent()).folder
    path = next(iter(folder.glob("*.png")))
    picture = cv2.imread(str(path))
    width = (picture.shape[1] - 2 * GAP) // 3
    panels = [picture[:, at * (width + GAP) :][:, :width] for at in range(3)]
    assert {one.shape for one in panels} == {panels[0].shape}
    grey = [one[..., 0].astype(float) for one in panels[:2]]
    assert (panels[1] == panels[1][..., :1]).all(), "what is restored has no colour"
    assert np.corrcoef(grey[0].ravel(), grey[1].ravel())[0, 1] > 0.5


@pytest.mark.parametrize(("name", "value"), [("method", "occlusion"), ("evidence", "benign")])
def test_what_means_nothing_of_errors_is_refused(runs, name, value):
    options = dataclasses.replace(Explain(runs=runs, run="CAE", **QUICK), **{name: value})
    with pytest.raises(UserError, match=f"--{name} {value}: CAE/.* is an anomaly detector"):
        explain(options, Silent())


def test_it_is_not_asked_either(runs):
    from pipeline.options import applies, items_of

    for run, asked in (("CAE", False), ("elsewhere", True)):
        answers = {"run": run, "runs": runs, "images": "surest"}
        names = {item.name for item in items_of(Explain) if applies(item, answers)}
        assert ({"method", "evidence"} <= names) == asked


def test_maps_of_before_another_evaluation_say_so(runs):
    from models.evaluation.predictions import maps_are_older

    run, _, _ = loaded(runs, "CAE")
    explain(Explain(runs=runs, run="CAE", count=1, **QUICK), Silent())
    assert not maps_are_older(run)
    path = run / "predictions_test.csv"
    first, line, *rest = path.read_text().splitlines()
    other = ",".join([*line.split(",")[:-1], "0.5"])  # its last column is the error
    path.write_text("\n".join([first, other, *rest]) + "\n")
    assert maps_are_older(run)
