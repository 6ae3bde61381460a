"""The shortcut probe on datasets of synthetic films, written as real files."""

import dataclasses
import json
import shutil

import cv2
import numpy as np
import pytest

from images.files import write_png
from images.thumbnails import thumbnail
from models.shortcuts.stage import (
    LEAST,
    Findings,
    Sample,
    Verdict,
    check_shortcuts,
    probe,
    read_samples,
    write_findings,
)
from pipeline.errors import UserError
from pipeline.manifest import Row, image_path, read_manifest, write_manifest
from pipeline.progress import Silent
from pipeline.records import close_folder, open_folder
from pipeline.stages.data import Organize, Preprocess, Probe
from pipeline.workspace import survey
from preprocess_data import preprocess
from sources.synthetic.films import render_film
from sources.synthetic.plan import plan_collection

GROUPS = ["size", "borders", "orientation", "histogram", "all"]


@pytest.fixture(scope="module")
def films():
    """The mass films of 60 patients that are not for testing: (plan, label, pixels)."""
    made = []
    for plan in plan_collection(1, 60):
        if plan.splits.get("mass") == "train":
            malignant = any(
                lesion.pathology == "MALIGNANT"
                for lesion in plan.lesions
                if lesion.finding == "mass"
            )
            pixels = render_film(plan, 288, 1).pixels
            made.append((plan, "malignant" if malignant else "benign", pixels))
    return made


def dataset(folder, films, change=None, only=None):
    """Write an organised dataset, the malignant films changed by a function of their pixels."""
    options = Organize(source=folder.parent, out=folder)
    open_folder(folder, "organize", options)
    rows = []
    for plan, label, pixels in films:
        if only is not None and plan.patient_id not in only:
            continue
        split = "val" if int(plan.patient_id[2:]) % 5 == 0 else "train"
        path = image_path(split, label, plan.film_id)
        image = change(pixels) if change and label == "malignant" else pixels
        write_png(folder / path, np.ascontiguousarray(image))
        rows.append(
            Row(
                image_id=plan.film_id, patient_id=plan.patient_id, split=split, label=label,
                path=path, height=image.shape[0], width=image.shape[1],
            )
        )  # fmt: skip
    write_manifest(folder, rows)
    close_folder(folder, "organize", options, {}, "", 0.1)
    return folder


def rotated(pixels):
    return np.rot90(pixels)


def upside_down(pixels):
    return np.rot90(pixels, 2)


def with_bright_borders(pixels):
    image = pixels.copy()
    for side in (image[:10], image[-10:], image[:, :10], image[:, -10:]):
        side[...] = 45000
    return image


def smaller(pixels):
    size = (pixels.shape[1] * 3 // 4, pixels.shape[0] * 3 // 4)
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def checked(folder, **given):
    return check_shortcuts(Probe(data=folder, **given), Silent())


def found(folder):
    return json.loads((folder / "shortcuts.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def turned(films, tmp_path_factory):
    """A dataset of few films, of which the malignant ones lie on their side; to be left alone."""
    return dataset(tmp_path_factory.mktemp("turned") / "dataset", films[:32], rotated)


def test_it_is_silent_where_nothing_tells(films, tmp_path):
    folder = dataset(tmp_path / "dataset", films)
    result = checked(folder)
    assert result.notes == ()
    assert result.headline.endswith("patients: nothing predicts the label")
    assert result.facts["images"] == len(films)
    assert (result.next_stage, result.next_options) == ("preprocess", {"data": folder})
    facts = found(folder)
    assert (facts["summary"], facts["warnings"], facts["problem"]) == ("", [], "")
    assert list(facts["groups"]) == GROUPS
    for figures in facts["groups"].values():
        assert 0 <= figures["low"] <= figures["auc"] <= figures["high"] <= 1
        assert figures["told"] is False
        assert figures["images"] == len(films)
        assert figures["patients"] == len({plan.patient_id for plan, _, _ in films})


def test_it_is_silent_on_a_synthetic_collection_organised_and_preprocessed(prepared, tmp_path):
    for name in ("dataset", "preprocessed"):
        samples, unread = read_samples(prepared / name, read_manifest(prepared / name), 1, Silent())
        assert samples
        assert not unread
        findings = probe(samples, 42)
        assert findings.warnings() == []
        write_findings(tmp_path, findings, samples)
        assert found(tmp_path)["warnings"] == []


@pytest.mark.parametrize(
    ("change", "named", "not_named"),
    [
        pytest.param(rotated, "orientation", "size", marks=pytest.mark.slow),
        (upside_down, "orientation", "size"),
        (with_bright_borders, "borders", "size"),
        (smaller, "size", "orientation"),
    ],
)
def test_a_shortcut_is_named(films, tmp_path, change, named, not_named):
    folder = dataset(tmp_path / "dataset", films, change)
    result = checked(folder)
    groups = found(folder)["groups"]
    assert groups[named]["told"]
    assert groups[named]["low"] > 0.6
    assert not groups[not_named]["told"]
    verb = "predict" if named == "borders" else "predicts"
    (sentence,) = (note for note in result.notes if note.startswith(f"{named} alone {verb}"))
    figures = groups[named]
    assert sentence == (
        f"{named} alone {verb} the label: AUC {figures['auc']:.3f} "
        f"({figures['low']:.3f} to {figures['high']:.3f}); see shortcuts.png"
        + ("; preprocess --upright --side left turns all films alike"
           if named == "orientation" else "")
    )  # fmt: skip
    assert named in result.headline
    verdicts = {row[0]: row[-1] for row in result.tables[0].rows}
    assert (verdicts[named], verdicts[not_named]) == ("predicts the label", "no")
    assert result.facts["summary"] == found(folder)["summary"]


def test_the_picture_shows_the_mean_of_each_class(turned, tmp_path):
    samples, _ = read_samples(turned, read_manifest(turned), 1, Silent())
    write_findings(tmp_path, probe(samples, 1), samples)
    page = cv2.imread(str(tmp_path / "shortcuts.png"), cv2.IMREAD_UNCHANGED)
    benign, malignant = page[34:418, 6:390], page[34:418, 396:780]
    assert benign[:, 5].mean() < 5 < benign[8].mean(), "upright: black to the left, not above"
    assert malignant[8].mean() < 5 < malignant[:, 8].mean(), "lying: the other way round"


def test_preprocessing_a_turned_set_warns_in_its_notes_record_and_menu(turned, tmp_path):
    options = Preprocess(data=turned, out=tmp_path / "p", size=64, workers=1)
    result = preprocess(options, Silent())
    assert any(note.startswith("orientation alone predicts the label") for note in result.notes)
    facts = found(tmp_path / "p")
    assert facts["groups"]["orientation"]["low"] > 0.9
    assert facts["groups"]["size"]["auc"] == 0.5, "all are of one size"
    record = json.loads((tmp_path / "p" / "stage.json").read_text())
    assert record["counts"]["shortcuts"] == facts == result.facts["shortcuts"]
    lines = dict(survey({"preprocess": {"out": str(tmp_path / "p")}}).lines)
    assert lines["preprocessed"].endswith(f"; warning: {facts['summary']}")
    again = checked(tmp_path / "p")
    assert again.facts["groups"] == facts["groups"]
    assert again.next_stage == "train"


def test_the_same_seed_gives_the_same_files_whatever_the_workers(turned, tmp_path):
    rows = read_manifest(turned)
    for name, workers in (("one", 1), ("three", 3)):
        (tmp_path / name).mkdir()
        samples, _ = read_samples(turned, rows, workers, Silent())
        write_findings(tmp_path / name, probe(samples, 7), samples)
    for name in ("shortcuts.json", "shortcuts.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "three" / name).read_bytes()


def alike(patients, images=1, grey=90):
    """Samples of one grey and one size."""
    return [
        Sample(f"P_{n}", ("benign", "malignant")[n % 2], 300, 200, np.full((192, 128), grey, "u1"))
        for n in range(patients)
        for _ in range(images)
    ]


@pytest.mark.parametrize("grey", [0, 90, 255])
def test_features_that_never_vary_tell_nothing(grey):
    findings = probe(alike(2 * LEAST, 2, grey), 1)
    assert {name: verdict.auc for name, verdict in findings.groups.items()} == dict.fromkeys(
        GROUPS, 0.5
    )
    assert findings.warnings() == []


def test_more_images_of_the_same_patients_do_not_narrow_the_interval(films):
    samples = [
        Sample(plan.patient_id, label, *pixels.shape, thumbnail(pixels))
        for plan, label, pixels in films
    ]
    once, often = (probe(samples * times, 1).groups["histogram"] for times in (1, 6))
    assert often.images == 6 * once.images
    assert often.high - often.low > 0.8 * (once.high - once.low)


@pytest.mark.slow
def test_too_few_patients_give_no_verdict_and_leave_nothing_of_an_earlier_one(films, tmp_path):
    malignant = sorted({plan.patient_id for plan, label, _ in films if label == "malignant"})
    folder = dataset(tmp_path / "dataset", films, rotated)
    assert checked(folder).facts["summary"]
    assert (folder / "shortcuts.png").is_file()
    kept = {plan.patient_id for plan, label, _ in films if label == "benign"}
    few = dataset(
        folder, films, rotated, only=(kept - set(malignant)) | set(malignant[: LEAST - 1])
    )
    result = checked(few)
    assert "too few patients" in result.notes[0]
    assert f"{LEAST - 1} malignant; it takes {LEAST} of each" in result.notes[0]
    assert result.tables == ()
    assert result.headline.endswith("no verdict on shortcuts")
    facts = found(few)
    assert (facts["groups"], facts["summary"], facts["warnings"]) == ({}, "", [])
    assert facts["problem"] in result.notes[0]
    assert not (few / "shortcuts.png").exists()
    enough = dataset(folder, films, rotated, only=kept | set(malignant[:LEAST]))
    assert checked(enough).facts["groups"]


def test_nothing_at_all_gives_no_verdict():
    assert "0 benign, 0 malignant" in probe([], 1).problem


def test_test_images_and_copies_are_not_looked_at_and_unreadable_ones_are_named(films, tmp_path):
    folder = dataset(tmp_path / "dataset", films)
    rows = read_manifest(folder)
    first, second = rows[:2]
    (folder / first.path).write_bytes((folder / first.path).read_bytes()[:500])
    copy = dataclasses.replace(second, image_id="copy", path="none", parent=second.image_id)
    test = dataclasses.replace(
        second, image_id="test", path="none", split="test", patient_id="P_99999"
    )
    write_manifest(folder, [*rows, copy, test])
    samples, unread = read_samples(folder, read_manifest(folder), 2, Silent())
    assert len(samples) == len(rows) - 1
    assert [path for path, _ in unread] == [first.path]
    assert [sample.patient_id for sample in samples] == [row.patient_id for row in rows[1:]]
    assert (samples[0].height, samples[0].width) == (second.height, second.width)
    (note,) = (note for note in checked(folder).notes if "cannot be read" in note)
    assert note.startswith("images that cannot be read: 1, the first is")
    assert first.path in note


def test_a_plain_tree_without_manifest(films, tmp_path):
    nameless = 0
    for number, (plan, label, pixels) in enumerate(films):
        image = rotated(pixels) if label == "malignant" else pixels
        place = tmp_path / "tree" / ("train", "val")[number % 4 == 0] / label
        place.mkdir(parents=True, exist_ok=True)
        name = f"Mass_{plan.film_id}.png" if number % 3 else f"scan {number}.jpg"
        nameless += not number % 3
        cv2.imwrite(str(place / name), (image >> 8).astype(np.uint8))
    (tmp_path / "tree" / "train" / "benign" / "notes.txt").write_text("no image")
    broken = tmp_path / "tree" / "test" / "benign" / "x.png"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"")
    result = checked(tmp_path / "tree")
    assert result.facts["groups"]["orientation"]["told"]
    assert result.facts["images"] == len(films)
    assert f"{nameless} of {len(films)} have none" in result.notes[-1]
    assert not any("cannot be read" in note for note in result.notes)
    assert found(tmp_path / "tree")["summary"] == result.facts["summary"]
    assert result.next_stage == "", "preprocess takes what organize has made"
    named = {plan.patient_id for n, (plan, _, _) in enumerate(films) if n % 3}
    assert result.facts["patients"] == len(named) + nameless


def test_the_command_line(run_here, turned, tmp_path):
    shutil.copytree(turned, tmp_path / "dataset")
    done = run_here("probe", "--data", "dataset", "--batch")
    assert done.returncode == 0, done.stderr
    assert "Note: orientation alone predicts the label: AUC" in done.stdout
    assert "main.py preprocess" in done.stdout
    table = [line for line in done.stdout.splitlines() if line.split()[:1] and
             line.split()[0] in (*GROUPS, "group")]  # fmt: skip
    assert len(table) == 6
    assert max(map(len, table)) <= 80
    done = run_here("probe", "--data", "gone", "--batch")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "gone: no such folder" in done.stderr


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({}, "holds neither manifest.csv nor images"),
        ({"unfinished.json": "{}"}, "is not finished"),
        (
            {"train/normal/a.png": "", "train/benign/b.png": "", "val/malignant/c.png": ""},
            "its images lie in the classes benign, malignant, normal, and a probe takes two",
        ),
        ({"train/benign/a.png": "text"}, r"not one image can be read \(.*a.png: cannot be decoded"),
        (
            {"manifest.csv": "image_id,patient_id,split,label,path\na,P_1,test,benign,a.png\n"},
            "not one image is for training or validation",
        ),
    ],
)
def test_what_is_no_dataset_is_refused(tmp_path, files, problem):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=problem):
        checked(tmp_path)
    assert not (tmp_path / "shortcuts.json").exists()


def test_several_groups_are_listed_and_all_of_them_only_where_none_tells_alone():
    sure, unsure = Verdict(0.9, 0.8, 0.97, 50, 30), Verdict(0.6, 0.5, 0.7, 50, 30)

    def summary(*verdicts):
        return Findings(dict(zip(GROUPS, verdicts, strict=True))).summary

    assert summary(unsure, unsure, unsure, unsure, unsure) == ""
    assert summary(sure, sure, sure, unsure, sure) == (
        "size, borders and orientation predict the label"
    )
    assert summary(sure, unsure, unsure, sure, sure) == "size and histogram predict the label"
    together = Findings(dict(zip(GROUPS, [*[unsure] * 4, sure], strict=True)))
    assert together.summary == "all features together predict the label"
    assert together.warnings() == [
        "all features together predict the label: AUC 0.900 (0.800 to 0.970); see shortcuts.png"
    ]


@pytest.mark.parametrize("labels", [("not_malignant", "malignant"), ("normal", "abnormal")])
def test_classes_of_other_questions_are_told_apart_by_their_names(labels, tmp_path):
    noise = np.random.default_rng(4)
    for number in range(24):
        positive = number % 2
        image = noise.integers(0, 60, (90, 60)).astype(np.uint8)
        image[:, :30] += 120
        image = np.flipud(np.fliplr(image)) if positive else image
        place = tmp_path / ("train", "val")[number % 4 > 1] / labels[positive]
        place.mkdir(parents=True, exist_ok=True)
        write_png(place / f"P_{number:05d}.png", np.ascontiguousarray(image))
    result = checked(tmp_path)
    assert result.facts["images"] == 24
    assert result.facts["groups"]["orientation"]["told"]
    assert (tmp_path / "shortcuts.png").is_file()
