"""DDSM patches as TFRecords: labels, own splits, near-duplicates, and damage."""

import csv
import json
import shutil

import cv2
import numpy as np
import pytest

from models.evaluation.stage import evaluate
from organize_data import organize
from pipeline.errors import UserError
from pipeline.manifest import read_manifest
from pipeline.progress import Silent
from pipeline.records import read_json
from pipeline.stages.collections import Synthesize
from pipeline.stages.data import Organize, Preprocess
from pipeline.stages.evaluation import Evaluate
from preprocess_data import preprocess
from sources.registry import live_counts, recognised
from sources.synthetic.lookalikes import ddsm_tfrecords as lookalike
from sources.synthetic.others import write_lookalike
from sources.tfrecord_files import example_of, record_of

NO_PATIENTS = "the collection tells no patients"
SIDE = 299


@pytest.fixture(scope="session")
def patches(once):
    """A look-alike; not to be written to."""

    def make(folder):
        options = Synthesize(
            collection="ddsm-tfrecords", out=folder, patients=14, size="256", workers=1
        )
        write_lookalike(options, Silent())
        return folder

    return once("ddsm-tfrecords", make)


@pytest.fixture(scope="session")
def organised(patches, once):
    """That look-alike, organised by the question of the published figures."""

    def make(folder):
        return folder, organise(patches, folder, question="abnormal-normal")

    return once("ddsm-tfrecords-organised", make)


def organise(source, out, **options):
    return organize(Organize(source=source, out=out, workers=1, **options), Silent())


def picture(seed):
    rough = np.random.default_rng(seed).integers(0, 256, (9, 9)).astype(np.uint8)
    return cv2.resize(rough, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


def record(pixels, label, **more):
    features = {"label": label, "image": pixels.tobytes(), "label_normal": int(label > 0)}
    return record_of(example_of(features | more))


def write_small(folder, train=range(10), val=range(10, 15), test=range(15, 20), code=5):
    """Write a collection of a few patches; labels go round the classes."""
    folder.mkdir(exist_ok=True)
    content = b"".join(record(picture(seed), seed % 5) for seed in train)
    (folder / "training10_0.tfrecords").write_bytes(content)
    for name, seeds in (("cv10", val), ("test10", test)):
        np.save(folder / f"{name}_data.npy", np.stack([picture(seed) for seed in seeds])[..., None])
        labels = [seed % 5 if code == 5 else int(seed % 5 > 0) for seed in seeds]
        np.save(folder / f"{name}_labels.npy", np.array(labels))
    return folder


def aside(out):
    path = out / "set_aside.csv"
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {line["what"]: line["reason"] for line in csv.DictReader(file)}


def test_five_classes_and_own_splits_stay(patches, organised):
    out, result = organised
    assert recognised(patches) == "ddsm-tfrecords"
    truth = {name: np.load(patches / f"{name}_labels.npy").tolist() for name in ("cv10", "test10")}
    rows = read_manifest(out)
    kinds = {0: ("normal", ""), 1: ("benign", "calcification"), 2: ("benign", "mass"),
             3: ("malignant", "calcification"), 4: ("malignant", "mass")}  # fmt: skip
    for name, split in (("cv10", "val"), ("test10", "test")):
        here = [row for row in rows if row.split == split]
        assert here
        for row in here:
            label = truth[name][int(row.image_id.removeprefix(f"{name}_"))]
            assert (row.diagnosis, row.finding) == kinds[label]
            assert row.label == ("abnormal" if label else "normal")
    assert {row.image_id.rpartition("_")[0] for row in rows if row.split == "train"} == {
        f"training10_{number}" for number in range(5)
    }
    assert {row.unit for row in rows} == {"crop"}
    pixels = np.load(patches / "test10_data" / "test10_data.npy")[3, :, :, 0]
    written = next(row for row in rows if row.image_id == "test10_00003")
    assert np.array_equal(cv2.imread(str(out / written.path), -1), pixels.astype(np.uint16) * 257)
    assert result.facts["classes"]["normal"] == sum(row.diagnosis == "normal" for row in rows)


@pytest.mark.slow
def test_every_result_says_that_nobody_tells_the_patients(patches, tmp_path):
    out = tmp_path / "dataset"
    result = organise(patches, out, question="benign-malignant")
    assert result.headline.endswith("patients unknown")
    for notes in (result.notes, json.loads((out / "summary.json").read_bytes())["warnings"]):
        assert any(note.startswith(NO_PATIENTS) for note in notes)
    prepared = tmp_path / "prepared"
    preprocess(Preprocess(data=out, out=prepared, size=64, workers=1), Silent())
    table = tmp_path / "theirs.csv"
    lines = ["image_id,patient_id,label,probability"]
    for number, row in enumerate(read_manifest(prepared)):
        if row.split == "test":
            lines.append(f"{row.image_id},{row.patient_id},{row.label},{number % 7 / 7}")
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = Evaluate(
        predictions=table, data=prepared, runs=tmp_path / "runs", replicates=50, workers=1
    )
    measured = evaluate(options, Silent())
    assert any(note.startswith(NO_PATIENTS) for note in measured.notes)
    noted = read_json(measured.folder / "metrics.json")["notes"]
    assert any(note.startswith(NO_PATIENTS) for note in noted)


def test_what_guessing_scores_is_said_with_the_question_of_the_published_figures(organised):
    _, result = organised
    classes = result.facts["classes"]
    share = classes["normal"] / sum(classes.values())
    said = [note for note in result.notes if "published" in note]
    assert len(said) == 1
    assert said[0].endswith(f"calling every image normal is right for {share:.2f} of them")


def test_another_question_takes_other_labels(patches, tmp_path):
    result = organise(patches, tmp_path / "out", question="benign-malignant")
    labels = {(row.diagnosis, row.label) for row in read_manifest(tmp_path / "out")}
    assert labels == {("benign", "benign"), ("malignant", "malignant")}
    assert not any("published" in note for note in result.notes)


def test_questions_count_by_labels(patches):
    counts = live_counts("question", {"source": patches, "collection": "ddsm-tfrecords"})
    facts = organise(patches, patches, dry_run=True).facts["classes"]
    total, normal = sum(facts.values()), facts["normal"]
    assert counts["abnormal-normal"].startswith(f"{total:,} images ({total - normal:,} abnormal)")
    assert counts["auto"] == counts["malignant-rest"]
    assert counts["benign-malignant"].startswith(f"{total - normal:,} images")


def test_near_duplicates_of_other_splits_leave_training(tmp_path):
    source = write_small(tmp_path / "raw")
    copy = np.rot90(picture(16))[:, ::-1].copy()  # of a test patch, turned and mirrored
    noisy = np.clip(picture(3).astype(int) + 1, 0, 255).astype(np.uint8)  # of a training patch
    with (source / "training10_0.tfrecords").open("ab") as file:
        file.write(record(copy, 1) + record(noisy, 3))
    result = organise(source, tmp_path / "out")
    rows = {row.image_id: row for row in read_manifest(tmp_path / "out")}
    assert "training10_0_00010" not in rows
    assert rows["training10_0_00011"].patient_id == rows["training10_0_00003"].patient_id
    assert result.facts["near_duplicates"] == {"groups": 2, "left_out": 1}
    left_out = result.facts["left_out"][0]
    assert (left_out["images"], left_out["why"]) == (
        1, "train images that are near-duplicates of val or test images",
    )  # fmt: skip
    assert len(rows) == 21


def test_labels_of_two_classes_answer_one_question(tmp_path):
    source = write_small(tmp_path / "raw", code=2)
    result = organise(source, tmp_path / "out", question="abnormal-normal")
    assert result.facts["label_codes"]["cv10_data.npy"] == "0 and 1"
    assert any("cv10_data.npy: 0 and 1" in note for note in result.notes)
    rows = [row for row in read_manifest(tmp_path / "out") if row.split != "train"]
    assert {(row.diagnosis, row.label) for row in rows} == {
        ("normal", "normal"), ("abnormal", "abnormal"),
    }  # fmt: skip
    other = organise(source, tmp_path / "other", question="benign-malignant")
    assert {row.split for row in read_manifest(tmp_path / "other")} >= {"train"}
    assert {entry["why"] for entry in other.facts["left_out"]} == {
        "normal images", "findings that may be benign or malignant",
    }  # fmt: skip


def test_damage_is_set_aside_by_name_and_nothing_else_is_lost(tmp_path):
    source = write_small(tmp_path / "raw")
    whole = organise(source, tmp_path / "whole")
    path = source / "training10_0.tfrecords"
    content = bytearray(path.read_bytes())
    size = len(content) // 10
    content[2 * size + size // 2] ^= 1  # in the pixels of record 2
    flat, wrong = np.full((SIDE, SIDE), 90, np.uint8), record(picture(30), 2, label_normal=0)
    content += record(flat, 0) + wrong + record(picture(31)[:200], 1) + record(picture(32), 9)
    path.write_bytes(content + record(picture(33), 0)[:-1000])
    result = organise(source, tmp_path / "out")
    name = "training10_0.tfrecords"
    assert aside(tmp_path / "out") == {
        f"{name}[2]": "its checksum is wrong: the record is damaged",
        f"{name}[10]": "is of one grey value",
        f"{name}[11]": "contradicts itself: label 2, label_normal [0]",
        f"{name}[12]": "its image has 59,800 bytes and not 299 x 299",
        f"{name}[13]": "its label is [9], not one of 0 to 4",
        name: "is truncated: record 14 lacks 1,000 bytes",
    }
    assert result.set_aside == 6
    before = {row.image_id for row in read_manifest(tmp_path / "whole")}
    after = {row.image_id for row in read_manifest(tmp_path / "out")}
    assert before - after == {"training10_0_00002"}
    assert after <= before
    assert whole.set_aside == 0


def test_arrays_that_cannot_be_understood_are_set_aside_by_name(tmp_path):
    source = write_small(tmp_path / "raw")
    np.save(source / "cv10_labels.npy", np.zeros(4, np.int64))
    (source / "test10_labels.npy").unlink()
    result = organise(source, tmp_path / "out")
    reasons = aside(tmp_path / "out")
    assert reasons["cv10_data.npy"].startswith("has 5 patches, but cv10_labels.npy has 4 labels")
    assert reasons["test10_data.npy"].startswith("missing: no file test10_labels.npy")
    assert any("no test images of its own" in note for note in result.notes)
    source = write_small(tmp_path / "more")
    content = (source / "cv10_data.npy").read_bytes()
    (source / "cv10_data.npy").write_bytes(content[:-5000])
    np.save(source / "test10_data.npy", np.array([{"a": 1}], object), allow_pickle=True)
    organise(source, tmp_path / "again")
    reasons = aside(tmp_path / "again")
    assert reasons["cv10_data.npy"].startswith("is damaged, or no NumPy array (mmap length")
    assert "is damaged, or no NumPy array" in reasons["test10_data.npy"]


def test_check_lists_what_is_damaged_and_writes_no_dataset(tmp_path):
    source = write_small(tmp_path / "raw")
    content = bytearray((source / "training10_0.tfrecords").read_bytes())
    content[len(content) // 3] ^= 1
    (source / "training10_0.tfrecords").write_bytes(content)
    result = organise(source, tmp_path / "out", check=True)
    assert result.facts["problems"] == {"damaged": 1}
    assert "training10_0.tfrecords[" in (tmp_path / "out" / "check.csv").read_text()
    assert not (tmp_path / "out" / "manifest.csv").exists()


def test_a_level_too_high_is_told(tmp_path):
    (tmp_path / "upper" / "middle").mkdir(parents=True)
    write_small(tmp_path / "upper" / "middle" / "raw")
    with pytest.raises(UserError) as caught:
        organise(tmp_path / "upper", tmp_path / "out")
    assert str(tmp_path / "upper" / "middle") in caught.value.remedy


def test_the_same_options_give_the_same_bytes(patches, tmp_path):
    options = Synthesize(collection="ddsm-tfrecords", patients=14, size="256")
    job = lookalike.plan(options)[-1]
    lookalike.write(job, tmp_path)
    assert (tmp_path / job.name).read_bytes() == (patches / job.name).read_bytes()


def test_a_second_copy_of_a_file_is_told(tmp_path):
    source = write_small(tmp_path / "raw")
    (source / "training10_0").mkdir()
    shutil.copy(source / "training10_0.tfrecords", source / "training10_0")
    (source / "training10_1.tfrecords").write_bytes(b"")
    organise(source, tmp_path / "out")
    assert aside(tmp_path / "out") == {
        "training10_0.tfrecords": "is there already: training10_0/training10_0.tfrecords",
        "training10_1.tfrecords": "is empty",
    }
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["images"] == 20


@pytest.mark.parametrize(("val", "test", "told"), [((0, 1, 3), (0, 2, 4), True),
                                                   ((0, 1, 4), (0, 2, 3), False)])  # fmt: skip
def test_it_is_said_where_validation_and_test_share_no_finding(tmp_path, val, test, told):
    """Those of the published files are calcifications alone, and masses alone."""
    raw = write_small(tmp_path / "raw", val=[10 + one for one in val], test=[20 + x for x in test])
    notes = organise(raw, tmp_path / "d", question="abnormal-normal", dry_run=True).notes
    wanted = "of findings, val only calcification and test only mass: "
    assert any(note.startswith(wanted) for note in notes) is told
