import pytest
from huggingface_hub import ModelCard

from models.evaluation.scored import interval_text
from models.export.card import table
from models.export.cohort import cohort_of
from pipeline.records import close_folder, read_json
from pipeline.stages.data import Organize, Preprocess


def card_of(result):
    return ModelCard((result.folder / "README.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("which", [pytest.param("resnet18", marks=pytest.mark.slow), "mammo_cnn"])
def test_the_card_shows_the_figures_of_the_run(request, which):
    run = request.getfixturevalue(which)
    result = request.getfixturevalue({"resnet18": "exported_resnet"}.get(which, "exported_cnn"))
    text, measured = card_of(result).text, read_json(run / "metrics.json")
    for split in ("test", "val"):
        for found in measured["splits"][split]["metrics"].values():
            assert f"{found['value']:.3f} (" in text
            assert interval_text(found["low"], found["high"]) in text
    test, val = (measured["splits"][split] for split in ("test", "val"))
    assert f"| test | {test['images']} | {test['patients']} | {test['benign']} |" in text
    assert f"| validation | {val['images']} | {val['patients']} |" in text
    assert "| train | 24 | 12 |" in text
    assert f"**{measured['operating_point']['threshold']:.4g}**" in text
    assert measured["operating_point"]["rule"] in text
    for note in measured["notes"]:
        assert note[1:] in text
    assert "Not a medical device; not for diagnosis." in text.splitlines()[3]
    assert "probabilities of ONNX Runtime and PyTorch differ by at most" in text
    assert "{{" not in text
    assert "None" not in text
    assert max(map(len, text.split("```")[1].splitlines())) <= 100


@pytest.mark.slow
def test_the_hub_reads_its_metadata(exported_resnet, exported_cnn, resnet18):
    data = card_of(exported_resnet).data
    assert (data.library_name, data.pipeline_tag) == ("timm", "image-classification")
    assert data.license == "mit"
    assert card_of(exported_cnn).data.library_name == "onnx"
    areas = [one for one in data.eval_results if one.metric_type == "roc_auc"]
    test = read_json(resnet18 / "metrics.json")["splits"]["test"]["metrics"]
    assert areas[0].metric_value == round(test["auc"]["value"], 4)


@pytest.mark.slow
def test_the_code_of_the_card_gives_the_probabilities_of_the_run(
    exported_resnet, resnet18, tiny_data, monkeypatch
):
    from tests.models.export.reading import images_of, predicted

    monkeypatch.chdir(exported_resnet.folder)
    wanted = predicted(resnet18, "val", "probability")
    size = read_json(resnet18 / "model.json")["input"]["size"]
    told = {"images": images_of(tiny_data, wanted, size)}
    for block in card_of(exported_resnet).text.split("```python\n")[1:]:
        exec(block.split("```")[0], told)
    assert told["probability"].tolist() == pytest.approx(list(wanted.values()), abs=1e-3)
    assert told["logit"].shape == (len(wanted),)


def test_a_synthetic_collection_is_called_one(prepared):
    cohort = cohort_of({"data": str(prepared / "preprocessed")})
    assert cohort.kind == "synthetic"
    assert "of no use on real mammograms" in cohort.warning
    assert "whole mammograms with masses" in cohort.text


def organised(folder, raw, **given):
    """Leave the records of an organised and preprocessed dataset."""
    options = Organize(source=raw, out=folder / "dataset", **given)
    (folder / "dataset").mkdir()
    (folder / "preprocessed").mkdir()
    close_folder(folder / "dataset", "organize", options, {}, "", 0.0)
    later = Preprocess(data=folder / "dataset", out=folder / "preprocessed")
    close_folder(folder / "preprocessed", "preprocess", later, {}, "", 0.0)
    return {"data": str(folder / "preprocessed")}


def test_a_download_is_called_cbis_ddsm_with_what_was_taken_of_it(tmp_path):
    (tmp_path / "raw").mkdir()
    given = {"finding": "calc", "unit": "crop", "view": "cc", "without_callback": "leave-out"}
    cohort = cohort_of(organised(tmp_path, tmp_path / "raw", **given))
    assert cohort.name == "CBIS-DDSM"
    assert "crops around lesions with calcifications, without those" in cohort.text
    assert "cc views only" in cohort.text
    assert "CC BY 3.0" in cohort.licence


def test_what_cannot_be_checked_is_not_claimed(tmp_path):
    assert cohort_of({"data": str(tmp_path / "gone")}).name == "unknown"
    cohort = cohort_of(organised(tmp_path, tmp_path / "removed"))
    assert "whether it was the real collection or a synthetic one was not checked" in cohort.text


def test_a_table_is_markdown():
    assert table(("a", "b"), [(1, "x")]) == "| a | b |\n| --- | --- |\n| 1 | x |"
