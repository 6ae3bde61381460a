"""Files of the tool's own that were damaged or edited: one line, or made anew; never a traceback.

Each reader gets hundreds of mutations of a file that the tool wrote, drawn from a fixed seed.
"""

import json
import random
import shutil

import pytest

from interface.report.data import shortcuts_of, trace
from interface.report.reading.runs import read_run
from interface.session import offered_answers
from interface.stages import STAGES
from models.data.loading import load_split
from models.domain import Domain
from models.evaluation.figures import read_history
from models.evaluation.predictions import read_predicted
from models.evaluation.scoring import members_of
from models.evaluation.tested import kept_baselines
from models.inference import load_run
from models.prediction.predictor import open_predictor
from organize_data import organize
from pipeline import workspace
from pipeline.errors import UserError
from pipeline.folds import read_folds, read_rows
from pipeline.manifest import read_manifest
from pipeline.options import checked
from pipeline.paths import is_inside
from pipeline.progress import Silent
from pipeline.provenance import read_fresh
from pipeline.records import read_json
from pipeline.runs import Run, list_runs, member_choices, run_choices
from pipeline.stages.data import Organize, Preprocess
from pipeline.stages.evaluation import Evaluate
from pipeline.stages.training import Train
from pipeline.tables import read_table
from pipeline.work import Ledger
from preprocess_data import preprocess
from sources.cbis_ddsm.files import index_files

pytestmark = pytest.mark.slow
MUTATIONS = 400
NODES = [None, -1, 10**30, 1e308, float("inf"), float("nan"), -0.5, True, "", "x" * 5000,
         "../../x", "\x00\n", [], {}, ["x"], {"x": {}}]  # fmt: skip


@pytest.fixture(scope="module")
def workspace_folder(collection, tmp_path_factory):
    """A workspace with an evaluated run, a fold and all caches; named relative to itself."""
    from models.evaluation.stage import evaluate
    from models.training.stage import train

    folder = tmp_path_factory.mktemp("w")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        organize(Organize(source=collection, folds=3, workers=1, masks=False), Silent())
        preprocess(Preprocess(size=64, workers=1), Silent())
        plain = {"model": "ResNet18_OPW", "weights": "none", "size": 32}
        run = train(checked(Train, plain), Silent()).folder
        evaluate(checked(Evaluate, {"replicates": 100}), Silent())
        (run / "set_aside.csv").write_text("what,reason\na.png,is damaged\n")
        workspace.remember("organize", {"source": str(collection), "seed": 42, "out": "dataset"})
        workspace.remember("train", {"runs": "runs", "model": "ResNet18_OPW", "epochs": 9})
    return folder


def _run():
    (path,) = [*workspace.Path("runs").glob("*/*/model.json")]
    return Run(path.parent)


def _dataset(path):
    record = read_fresh(path.parent, "organize", "preprocess")
    read_rows(path.parent, record, 0)
    workspace.survey({})
    return trace(path.parent)


def _choices(_path):
    workspace.survey({})
    run_choices({"runs": "runs"})
    member_choices({"runs": "runs"})
    for run in list_runs(workspace.Path("runs")):
        assert run.fold.number >= 0
        read_run(run)


def _ledger(path):
    ledger = Ledger(path.parent, path.name)
    assert all(is_inside(name) for name in ledger.keep_only(()))


def _model(_path):
    members_of(_run())
    read_run(_run())
    open_predictor(workspace.Path("runs"), "latest")


def _asked(_path):
    memory = workspace.recall()
    workspace.survey(memory)
    for name, stage in STAGES.items():
        offered_answers(name, stage.options)


def _images(_path):
    rows = read_manifest(workspace.Path("preprocessed"))
    split = load_split(workspace.Path("preprocessed"), rows, "val", 32, 1, Silent())
    assert len(split) == sum(row.split == "val" for row in rows)
    return split.content


READERS = {
    "dataset/manifest.csv": lambda path: read_manifest(path.parent),
    "dataset/folds.csv": lambda path: read_folds(path.parent),
    "dataset/stage.json": _dataset,
    "preprocessed/stage.json": _dataset,
    "dataset/ledger.jsonl": _ledger,
    "preprocessed/ledger.jsonl": _ledger,
    "dataset/shortcuts.json": lambda path: (workspace.survey({}), shortcuts_of(trace(path.parent))),
    ".mammolab/answers.json": _asked,
    "RUN/stage.json": _choices,
    "RUN/model.json": _model,
    "RUN/metrics.json": lambda _: (
        _run().metrics(),
        read_run(_run()),
        open_predictor(workspace.Path("runs"), "latest"),
    ),
    "RUN/domain.json": lambda path: Domain.load(path.parent),
    "RUN/domain.safetensors": lambda path: Domain.load(path.parent),
    "RUN/predictions_test.csv": lambda path: (read_predicted(path), read_run(_run())),
    "RUN/history.csv": lambda path: (read_history(path), read_run(_run())),
    "RUN/set_aside.csv": lambda path: read_table(path, ("what", "reason")),
    "RUN/answers.json": read_json,
    "runs/.baselines/*.json": lambda path: kept_baselines(path.parents[1], path.stem),
    "preprocessed/.cache/32.json": _images,
}


def mutations(content, name, number):
    """Yield damaged versions of a file: bytes, and for JSON nodes, changed at random."""
    draw = random.Random(name)
    for turn in range(number):
        if name.endswith(".json") and turn % 2:
            yield json.dumps(_with_other_node(json.loads(content), draw)).encode()
        else:
            yield _with_other_bytes(bytearray(content), draw)


def _with_other_bytes(content, draw):
    for _ in range(draw.choice((1, 1, 2, 8))):
        at, what = draw.randrange(len(content) + 1), draw.randrange(7)
        if what == 0:
            content[at : at + 1] = bytes([draw.randrange(256)])
        elif what == 1:
            del content[at : at + draw.choice((1, 2, 20, 500))]
        elif what == 2:
            content[at:at] = bytes(draw.randrange(256) for _ in range(draw.choice((1, 4, 40))))
        elif what == 3:
            del content[at:]
        elif what == 4:
            content[at:at] = draw.choice((b'"', b",", b"\n", b"{", b"[" * 3000, b"\0", b";", b"-"))
        elif what == 5:
            content[at : at + 1] = draw.choice(b"0123456789.eE-").to_bytes(1, "big")
        else:
            content[at:at] = content[at : at + 200]
    return bytes(content)


def _with_other_node(data, draw):
    node = data
    while True:
        keys = [*node] if isinstance(node, dict) else [*range(len(node))]
        if not keys:
            return data
        key = draw.choice(keys)
        if isinstance(node[key], dict | list) and node[key] and draw.random() < 0.7:
            node = node[key]
            continue
        if draw.random() < 0.3:
            del node[key]
        else:
            node[key] = draw.choice(NODES)
        return data


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_one_line_or_made_anew(workspace_folder, tmp_path, monkeypatch, name):
    shutil.copytree(workspace_folder, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    place = name.replace("RUN", str(_run().folder))
    (path,) = workspace.Path().glob(place)
    content, read, said = path.read_bytes(), READERS[name], set()
    for mutated in mutations(content, name, MUTATIONS):
        path.write_bytes(mutated)
        try:
            read(path)
        except UserError as error:
            said.add(str(error))
        path.write_bytes(content)
    read(path)
    assert {text for text in said if len(text) > 300 or not text.isprintable()} == set()


def test_a_run_with_damaged_facts_is_loaded_or_refused(workspace_folder, tmp_path, monkeypatch):
    shutil.copytree(workspace_folder, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    path = _run().folder / "model.json"
    content, refused, longest = path.read_bytes(), 0, 0
    for mutated in mutations(content, "model.json", MUTATIONS):
        path.write_bytes(mutated)
        try:
            load_run(path.parent)
        except UserError as error:
            refused += 1
            longest = max(longest, len(str(error)))
    assert refused
    assert longest <= 300


def test_a_damaged_index_of_headers_is_made_anew(collection, tmp_path):
    source, keep = tmp_path / "raw", tmp_path / "keep"
    keep.mkdir()
    for file in sorted(collection.rglob("*.dcm"))[:6]:
        target = source / file.relative_to(collection)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)
    whole = index_files(source, keep, 1, Silent())
    path = keep / "headers.jsonl"
    content = path.read_bytes()
    for mutated in mutations(content, "headers.jsonl", MUTATIONS):
        path.write_bytes(mutated)
        assert index_files(source, keep, 1, Silent()).series == whole.series
