import json
import subprocess
import sys

import numpy as np
import onnx
import pytest

from models.onnx_scorer import OnnxModel
from pipeline.errors import UserError
from tests.conftest import ROOT
from tests.models.export.reading import images_of, predicted

PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np
from models.evaluation.calibration import Calibration
from models.onnx_scorer import OnnxModel
from tests.models.export.reading import images_of
path, data, ids = json.loads(sys.argv[1])
model = OnnxModel.open(Path(path))
logits, _ = model.score(images_of(Path(data), ids, model.size))
assert not {"torch", "timm", "sklearn", "matplotlib"} & set(sys.modules)
print(json.dumps(Calibration.of(model.facts["calibration"]).apply(logits).tolist()))
"""


@pytest.fixture(scope="module")
def path(exported_cnn):
    return exported_cnn.folder / "model.onnx"


@pytest.fixture(scope="module")
def images(tiny_data, mammo_cnn, path):
    wanted = predicted(mammo_cnn, "test", "target")
    return images_of(tiny_data, wanted, OnnxModel.open(path).size)


@pytest.mark.parametrize("which", ["mammo_cnn", "resnet18"])
def test_a_process_without_torch_gives_the_probabilities_of_the_evaluation(
    request, which, tiny_data
):
    run = request.getfixturevalue(which)
    result = request.getfixturevalue({"resnet18": "exported_resnet"}.get(which, "exported_cnn"))
    wanted = predicted(run, "val", "probability")
    given = json.dumps([str(result.folder / "model.onnx"), str(tiny_data), list(wanted)])
    command = [sys.executable, "-c", PROGRAM, given]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == pytest.approx(list(wanted.values()), abs=1e-3)


def test_images_are_scored_the_same_alone_and_in_any_number(path, images):
    model = OnnxModel.open(path)
    logits, features = model.score(images)
    for count in (1, 3, 5):
        some, some_features = model.score(images[:count])
        np.testing.assert_allclose(some, logits[:count], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(some_features, features[:count], rtol=1e-4, atol=1e-4)
    steps = []
    many = np.concatenate([images] * 20)
    twice, _ = model.score(many, steps.append)
    assert sum(steps) == len(many)
    assert len(steps) > 1
    np.testing.assert_allclose(twice[-len(images) :], logits, rtol=1e-4, atol=1e-5)


def test_no_images_have_no_scores(path, images):
    logits, features = OnnxModel.open(path).score(images[:0])
    assert logits.shape == (0,)
    assert features.shape == (0, 4096)


def test_images_that_are_a_view_can_be_scored(path, images):
    model = OnnxModel.open(path)
    flipped = images[:, :, ::-1]
    assert np.array_equal(model.score(flipped)[0], model.score(flipped.copy())[0])


def foreign(target, source):
    proto = onnx.load(source)
    del proto.metadata_props[:]
    onnx.save(proto, target)


def cut(target, source):
    target.write_bytes(source.read_bytes()[:-1000])


def no_text(target, source):
    content = source.read_bytes()
    assert content.count(b"Youden's J") == 3  # of images, breasts and patients
    target.write_bytes(content.replace(b"Youden's J", b"\xffouden's J"))


def with_fact(key, value):
    def write(target, source):
        proto = onnx.load(source)
        (entry,) = [entry for entry in proto.metadata_props if entry.key == key]
        entry.value = value
        onnx.save(proto, target)

    return write


def of_other_size(target, source):
    facts = dict(OnnxModel.open(source).facts["model"])
    facts["input"] = facts["input"] | {"size": 7}
    with_fact("model", json.dumps(facts))(target, source)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda *_: None, "model.onnx: no such file"),
        (lambda target, _: target.mkdir(), "model.onnx: is a folder"),
        (lambda target, _: target.write_bytes(b""), "is no ONNX model, or is damaged"),
        (lambda target, _: target.write_text("hello"), "is no ONNX model, or is damaged"),
        (cut, "is no ONNX model, or is damaged"),
        (no_text, "is damaged"),
        (foreign, "is an ONNX model that `export` did not write"),
        (with_fact("calibration", "{"), "is damaged or of another version"),
        (with_fact("calibration", '{"method": "magic"}'), "is damaged or of another version"),
        (with_fact("model", "[" * 3000), "is damaged or of another version"),
        (of_other_size, "does not take or give what its metadata says"),
    ],
    ids=[
        "gone",
        "folder",
        "empty",
        "text",
        "cut",
        "no text",
        "foreign",
        "no json",
        "other",
        "deep",
        "size",
    ],
)
def test_a_file_that_is_none_of_ours_is_one_line(path, tmp_path, make, problem, capfd):
    target = tmp_path / "model.onnx"
    make(target, path)
    with pytest.raises(UserError, match=problem) as caught:
        OnnxModel.open(target)
    assert str(caught.value).isprintable()
    assert "python main.py export" in str(caught.value)
    told = capfd.readouterr()
    assert (told.out, told.err) == ("", ""), "ONNX Runtime's own lines would break a bar"


def test_without_onnx_runtime_one_line_says_what_to_install(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="is not installed; run: pip install onnxruntime"):
        OnnxModel.open(path)
