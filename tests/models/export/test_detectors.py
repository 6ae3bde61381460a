"""Anomaly detectors as ONNX: their errors, what the file and the card say of them."""

import shlex

import numpy as np
import pytest
from huggingface_hub import ModelCard

from models.onnx_scorer import OnnxModel
from models.training.stage import train
from pipeline.progress import Silent
from pipeline.records import read_json, read_record
from tests.models.export.reading import images_of, predicted
from tests.models.without_torch import run_without_torch

DETECTORS = ["CAE", "PatchCore", pytest.param("VAE", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def exported_of(options_for, evaluate_run, export_of, tmp_path_factory):
    """Train, evaluate and export a detector; return its run and what the export returned."""
    known = {}

    def make(model):
        if model not in known:
            runs = tmp_path_factory.mktemp(model) / "runs"
            run = evaluate_run(train(options_for(runs, model=model), Silent()).folder)
            known[model] = run, export_of(run)
        return known[model]

    return make


@pytest.mark.parametrize("model", DETECTORS)
def test_errors_are_those_of_the_evaluation(exported_of, tiny_data, model):
    run, result = exported_of(model)
    exported = OnnxModel.open(result.folder / "model.onnx")
    wanted = predicted(run, "test", "error")
    errors, _ = exported.score(images_of(tiny_data, wanted, exported.size))
    np.testing.assert_allclose(errors, list(wanted.values()), rtol=1e-3)
    counts = read_record(result.folder, "export")["counts"]
    assert counts["largest_difference"] < 1e-3
    assert counts["largest_difference_from_evaluation"] < 1e-3
    assert result.headline.endswith("of their size on 12 validation images")


@pytest.mark.parametrize("model", DETECTORS)
def test_the_file_says_what_its_errors_mean(exported_of, model):
    run, result = exported_of(model)
    exported, measured = (
        OnnxModel.open(result.folder / "model.onnx"),
        read_json(run / "metrics.json"),
    )
    assert exported.facts["anomaly"] == measured["anomaly"]
    known = exported.facts["anomaly"]
    assert exported.facts["calibration"]["normal"] == [known["mean"], known["sd"]]
    assert known["threshold"] == pytest.approx(known["mean"] + 2 * known["sd"])


@pytest.mark.parametrize("model", DETECTORS)
def test_timm_s_folder_is_left_out_and_that_is_said_in_one_line(exported_of, model):
    _, result = exported_of(model)
    assert not {"config.json", "model.safetensors"} & {one.name for one in result.folder.iterdir()}
    (told,) = [note for note in result.notes if "timm" in note]
    assert told == f"{model} is no architecture of timm: the network is there as ONNX alone"
    assert not any("calibrated" in note for note in result.notes)


@pytest.mark.parametrize("model", DETECTORS)
def test_the_card_says_what_a_detector_is_and_nothing_of_probabilities(exported_of, model):
    run, result = exported_of(model)
    content = (result.folder / "README.md").read_text(encoding="utf-8")
    card, measured = ModelCard(content), read_json(run / "metrics.json")
    text, known = " ".join(card.text.split()), measured["anomaly"]
    for told in (
        "An anomaly detector of mammograms, trained on normal images alone",
        "Normal here: benign images, the nearest thing: the collection has no normal ones.",
        f"called anomalous where its error is at or above **{known['threshold']:.4g}** (mean + 2 "
        "standard deviations of normal validation images)",
        f"of {known['normals']['test']} normal test images are called anomalous too.",
        f"above the mean of {known['normals']['val']} normal validation images",
        "not how likely a disease is",
        "Not a medical device; not for diagnosis.",
    ):
        assert told in text
    for word in ("probab", "logit", "classifier of", "Brier", "ECE", "{{", "None"):
        assert word not in content, word
    assert card.data.library_name == "onnx"
    assert card.data.pipeline_tag is None
    assert "anomaly-detection" in card.data.tags


@pytest.mark.parametrize("model", DETECTORS)
def test_the_code_of_the_card_gives_the_calls_of_the_run(
    exported_of, tiny_data, monkeypatch, model
):
    run, result = exported_of(model)
    monkeypatch.chdir(result.folder)
    wanted = predicted(run, "test", "error")
    size = read_json(run / "model.json")["input"]["size"]
    told = {"images": images_of(tiny_data, wanted, size)}
    (block,) = ModelCard((result.folder / "README.md").read_text()).text.split("```python\n")[1:]
    exec(block.split("```")[0], told)
    assert told["error"].tolist() == pytest.approx(list(wanted.values()), rel=1e-3)
    assert told["anomalous"].tolist() == [
        called == 1 for called in predicted(run, "test", "predicted").values()
    ]


@pytest.mark.parametrize("model", DETECTORS)
def test_prediction_with_the_file_gives_the_errors_without_torch(
    exported_of, tiny_data, tmp_path, model
):
    run, result = exported_of(model)
    words = ["predict", shlex.quote(str(tiny_data / "test")), "--run", str(result.folder), "--out",
             str(tmp_path / "out"), "--workers", "1"]  # fmt: skip
    _, said = run_without_torch(*words)
    wanted, calls = (predicted(run, "test", name) for name in ("error", "predicted"))
    lines = said["facts"]["predictions"]
    assert len(lines) == len(wanted)
    known = read_json(run / "metrics.json")["anomaly"]
    for line in lines:
        image_id = line["image"].split("/")[-1].partition(".")[0]
        assert line["error"] == pytest.approx(wanted[image_id], rel=1e-3)
        assert line["z"] == pytest.approx((line["error"] - known["mean"]) / known["sd"])
        assert line["called"] == ("anomalous" if calls[image_id] else "not anomalous")
        assert "probability" not in line


@pytest.mark.slow
def test_mirror_images_are_part_of_the_file(
    options_for, evaluate_run, export_of, tiny_data, tmp_path
):
    run = train(options_for(tmp_path / "runs", model="CAE"), Silent()).folder
    alone = predicted(evaluate_run(run), "test", "error")
    wanted = predicted(evaluate_run(run, tta="flips"), "test", "error")
    result = export_of(run)
    exported = OnnxModel.open(result.folder / "model.onnx")
    errors, _ = exported.score(images_of(tiny_data, wanted, exported.size))
    np.testing.assert_allclose(errors, list(wanted.values()), rtol=1e-3)
    assert np.abs(errors / list(alone.values()) - 1).max() > 1e-3
    assert "mean over the four mirror images" in (result.folder / "README.md").read_text()
