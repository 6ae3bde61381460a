import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from main import main
from models.evaluation.calibration import logistic
from models.export.agreement import Agreement, refuse_difference
from models.export.stage import export
from models.onnx_scorer import OnnxModel
from models.training.stage import train
from pipeline.errors import UserError
from pipeline.manifest import read_manifest
from pipeline.progress import Silent
from pipeline.records import read_json, read_record
from pipeline.stages.export import Export
from tests.models.export.reading import images_of, predicted

DOMAIN = {"domain.json", "domain.safetensors"}
FILES = {"model.onnx", "README.md", "stage.json", "answers.json", *DOMAIN}


@pytest.fixture
def run(mammo_cnn, tmp_path):
    """A copy of the evaluated run, to be changed."""
    folder = tmp_path / "runs" / "MammoCNN" / mammo_cnn.name
    shutil.copytree(mammo_cnn, folder)
    return folder


def exported(run, **given):
    return export(Export(run=str(run), runs=run.parents[1], **given), Silent())


def names(folder):
    return {path.name for path in folder.iterdir()}


def change(path, **given):
    path.write_text(json.dumps(json.loads(path.read_text()) | given))


def test_the_run_has_a_folder_with_the_model_its_card_and_a_record(run):
    result = exported(run)
    assert result.folder == run / "export"
    assert names(result.folder) == FILES
    record = read_record(result.folder, "export")
    assert record["counts"]["images"] == 12
    assert record["counts"]["validation_images"] is True
    assert record["counts"]["largest_difference"] < 1e-3
    assert "differ by at most" in result.headline
    assert any("MammoCNN is no architecture of timm" in note for note in result.notes)


@pytest.mark.slow
def test_architectures_of_timm_are_written_in_its_format_too(exported_resnet):
    assert names(exported_resnet.folder) == FILES | {"config.json", "model.safetensors"}
    assert exported_resnet.facts["files"] == [
        "model.onnx", "README.md", "config.json", "model.safetensors", "domain.json",
        "domain.safetensors",
    ]  # fmt: skip


def test_probabilities_are_those_of_the_evaluation(exported_resnet, resnet18, tiny_data):
    model = OnnxModel.open(exported_resnet.folder / "model.onnx")
    wanted = predicted(resnet18, "test", "raw_probability")
    logits, features = model.score(images_of(tiny_data, wanted, model.size))
    np.testing.assert_allclose(logistic(logits), list(wanted.values()), atol=1e-3)
    assert features.shape == (len(wanted), 512)


@pytest.mark.slow
def test_mirror_images_are_part_of_an_export_that_was_evaluated_with_them(
    run, evaluate_run, tiny_data
):
    alone = predicted(run, "test", "raw_probability")
    evaluate_run(run, tta="flips")
    wanted = predicted(run, "test", "raw_probability")
    model = OnnxModel.open(exported(run).folder / "model.onnx")
    logits, _ = model.score(images_of(tiny_data, wanted, model.size))
    np.testing.assert_allclose(logistic(logits), list(wanted.values()), atol=1e-3)
    assert np.abs(logistic(logits) - list(alone.values())).max() > 1e-3
    assert model.facts["tta"] == "flips"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["EfficientNetB3_Optuna", "DenseNet121_OPW"])
def test_the_other_networks_can_be_exported(name, options_for, evaluate_run, tiny_data, tmp_path):
    run = train(options_for(tmp_path / "runs", model=name), Silent()).folder
    result = exported(evaluate_run(run))
    wanted = predicted(run, "val", "probability")
    model = OnnxModel.open(result.folder / "model.onnx")
    logits, _ = model.score(images_of(tiny_data, wanted, model.size))
    raw = list(predicted(run, "val", "raw_probability").values())
    np.testing.assert_allclose(logistic(logits), raw, atol=1e-3)
    deep = name == "EfficientNetB3_Optuna"
    assert any("a head of several layers" in note for note in result.notes) == deep


def test_nobody_s_name_and_no_place_is_in_what_is_published(
    exported_cnn, exported_resnet, mammo_cnn, tiny_data
):
    patients = {row.patient_id for row in read_manifest(tiny_data)}
    private = [*patients, str(tiny_data), str(mammo_cnn.parents[2])]
    for result in (exported_cnn, exported_resnet):
        for name in result.facts["files"]:
            content = (result.folder / name).read_bytes()
            assert [text for text in private if text.encode() in content] == [], name
            assert b"/models/" not in content, name  # nor where the source lies


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes(exported_cnn, run):
    result = exported(run, out=run.parents[2] / "again")
    for name in exported_cnn.facts["files"]:
        assert (result.folder / name).read_bytes() == (exported_cnn.folder / name).read_bytes()


@pytest.mark.slow
def test_the_command_that_would_publish_is_told_and_leaves_records_out(run, capsys):
    words = ["export", "--run", str(run), "--runs", str(run.parents[1]), "--batch"]
    assert main(words) == 0
    shown = " ".join(capsys.readouterr().out.split())
    command = f"hf upload USER/NAME {run / 'export'} . --exclude stage.json --exclude answers.json"
    assert command in shown
    assert "nothing was sent" in shown


def test_a_run_that_was_not_evaluated_is_refused(trained, tmp_path):
    folder = tmp_path / "runs" / "MammoCNN" / trained.folder.name
    shutil.copytree(trained.folder, folder)
    with pytest.raises(UserError, match=r"has not been evaluated; run: python main\.py evaluate"):
        exported(folder)
    assert not (folder / "export").exists()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"strategy": "ensemble", "members": ["../x"]}, "is an ensemble, which is several"),
        ({"strategy": "elsewhere"}, "was not made here, so there is no network"),
    ],
)
def test_a_run_without_one_network_is_refused(run, given, problem):
    change(run / "model.json", **given)
    with pytest.raises(UserError, match=problem):
        exported(run)
    assert not (run / "export").exists()


def test_the_folder_of_a_run_is_not_written_into(run):
    with pytest.raises(UserError, match="is the folder of the run"):
        exported(run, out=run)


@pytest.mark.slow
def test_what_does_not_agree_is_refused_and_leaves_an_earlier_export_as_it_is(run):
    before = exported(run).folder
    content = {name: (before / name).read_bytes() for name in FILES}
    weights = load_file(run / "weights.safetensors")
    weights["head.4.bias"][:] = np.nan
    save_file(weights, run / "weights.safetensors")
    with pytest.raises(UserError, match="ONNX Runtime does not give what PyTorch gives"):
        exported(run)
    assert {name: (before / name).read_bytes() for name in FILES} == content
    with pytest.raises(UserError, match="ONNX Runtime does not give what PyTorch gives"):
        exported(run, out=run.parents[2] / "new")
    assert not (run.parents[2] / "new" / "model.onnx").exists()


@pytest.mark.parametrize(
    ("probability", "features"), [(0.002, 0), (0, 0.002), (np.nan, 0), (0, np.nan)]
)
def test_a_difference_above_the_tolerance_is_refused(probability, features):
    refuse_difference("a/b", Agreement(8, True, 0.0009, 0.0009))
    with pytest.raises(UserError, match="on 8 validation images"):
        refuse_difference("a/b", Agreement(8, True, probability, features))


@pytest.mark.slow
def test_what_the_evaluation_said_otherwise_is_told_in_result_and_card(run):
    assert exported(run).facts["largest_difference_from_evaluation"] < 1e-3
    path = run / "predictions_val.csv"
    head, first, *rest = path.read_text().splitlines()
    cells = first.split(",")
    column = head.split(",").index("probability")
    cells[column] = repr(abs(float(cells[column]) - 0.03125))
    path.write_text("\n".join([head, ",".join(cells), *rest]) + "\n")
    result = exported(run)
    (told,) = [note for note in result.notes if "those of the evaluation" in note]
    assert "computed in fp32, differ from the exported model's by up to 0.031" in told
    assert told[1:] in (result.folder / "README.md").read_text()
    path.unlink()
    assert exported(run).facts["largest_difference_from_evaluation"] is None


@pytest.mark.slow
def test_without_its_dataset_a_run_is_compared_on_noise_and_that_is_said(run):
    change(run / "model.json", data=str(run / "gone"))
    result = exported(run)
    assert result.facts["validation_images"] is False
    assert (
        "the validation images are gone or made anew: compared on images of noise" in result.notes
    )
    assert "images of noise" in (result.folder / "README.md").read_text()


@pytest.mark.slow
def test_a_dataset_that_was_made_anew_is_not_taken_for_that_of_the_run(run):
    change(run / "model.json", data_hash="another")
    result = exported(run)
    assert result.facts["validation_images"] is False
    card = (result.folder / "README.md").read_text()
    assert "the dataset of the run was made anew since its training" in card


@pytest.mark.slow
def test_the_out_of_domain_check_goes_with_the_model_while_the_run_has_one(run):
    folder = exported(run).folder
    for name in DOMAIN:
        assert (folder / name).read_bytes() == (run / name).read_bytes()
    for name in DOMAIN:
        (run / name).unlink()
    assert names(exported(run).folder) == FILES - DOMAIN


def test_the_facts_are_those_of_the_run(exported_cnn, mammo_cnn):
    facts = OnnxModel.open(exported_cnn.folder / "model.onnx").facts
    model, measured = read_json(mammo_cnn / "model.json"), read_json(mammo_cnn / "metrics.json")
    assert facts["run"] == f"MammoCNN/{mammo_cnn.name}"
    for name in ("calibration", "operating_point", "aggregate", "tta"):
        assert facts[name] == measured[name]
    assert facts["units"]["patient"]["threshold"] == measured["units"]["patient"]["threshold"]
    for name in ("architecture", "input", "unit", "data_hash", "head"):
        assert facts["model"][name] == model[name]
    assert {"patients", "data", "pixels"} & facts["model"].keys() == set()
    assert facts["model"]["preprocess"]["clahe"] == model["preprocess"]["clahe"]
    assert facts["mammolab"]["version"]
