"""The shortcut probe: is the label predicted by what should not predict it?

A dataset whose image sizes, borders, orientation or grey values give the label away makes every
later score false, since a network takes the shortcut (Geirhos et al. 2020, Nat Mach Intell
2:665). So a small classifier on nothing but these is scored before anything is trained.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from images.files import SUFFIXES, read_image
from images.thumbnails import Thumbnail, thumbnail, write_mean_images
from models.bootstrap import estimates
from models.metrics import Floats
from models.shortcuts.features import features_of, one_hot
from models.shortcuts.lesions import hidden, read_places
from pipeline.errors import UserError
from pipeline.labels import ALL_LABELS, Labels
from pipeline.manifest import (
    MANIFEST,
    PATCH_TABLE,
    POSITIVE,
    SPLITS,
    Row,
    labels_of,
    pair_of,
    read_manifest,
)
from pipeline.progress import Progress, Result, Table
from pipeline.provenance import source_of
from pipeline.records import RECORD, UNFINISHED, read_json, write_json
from pipeline.stages.data import Preprocess, Probe
from pipeline.work import worker_count
from pipeline.workspace import SHORTCUTS

PICTURE = "shortcuts.png"
ALL = "all"  # the group of every feature
COLLECTION = "collection"  # the group that says which dataset an image was merged from
PREDICTS = 0.6  # the lower end of the AUC's interval beyond which a group predicts the label
LOOKED_AT = SPLITS[:2]  # the labels of the test images decide nothing
BALANCE = "train on one collection and test on another, or balance the classes of each"
FOLDS, REPLICATES = 5, 1000
# Labels dealt at random pass the bar in 5 % of datasets with ENOUGH patients of each class, in 2 %
# with 12, in none of 140 with 20 and more; in 12 % with 3. So with fewer it takes near certainty.
ENOUGH, LEAST = 8, 4
SURE = 0.9
REMEDIES = {"orientation": "; preprocess --upright --side left turns all films alike"}
FOLLOWING = {"organize": "preprocess", "preprocess": "train"}
PATIENT = re.compile(r"P_\d+")


@dataclass(frozen=True)
class Sample:
    """One image, as far as the probe looks at it."""

    patient_id: str  # its patient
    label: str  # one of its dataset's two labels
    height: int  # of the image file, in pixels
    width: int  # of the image file, in pixels
    thumbnail: Thumbnail  # (h, w) uint8, from `images.thumbnails.thumbnail`
    collection: str = ""  # of a dataset that was merged from several: which
    image_id: str = ""  # of its row in the manifest


@dataclass(frozen=True)
class Verdict:
    """How well a group of features predicts the label."""

    auc: float  # of images of patients that the classifier was not fitted on
    low: float  # lower end of its 95 % interval over patients
    high: float  # upper end
    images: int  # how many it rests on
    patients: int  # of how many patients
    # What the lower end must pass: 0.6, and more where there are few patients.
    bar: float = PREDICTS

    @property
    def predicts(self) -> bool:
        """Whether the group predicts the label."""
        return self.low > self.bar


@dataclass(frozen=True)
class Findings:
    """What the probe found."""

    # The verdict on each group of features and on "all"; empty where there is none.
    groups: Mapping[str, Verdict]
    problem: str = ""  # why there is no verdict; empty where there is one

    @property
    def predicting_groups(self) -> list[str]:
        """The groups that predict the label; "all" only where no group does so alone."""
        predicting = [name for name, verdict in self.groups.items() if verdict.predicts]
        return [name for name in predicting if name != ALL] or predicting

    @property
    def summary(self) -> str:
        """What predicts the label, in a few words; empty where nothing does."""
        names = self.predicting_groups
        if names == [ALL]:
            return "all features together predict the label"
        listed = " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
        verb = _verb(listed) if len(names) == 1 else "predict"
        return f"{listed} {verb} the label" if names else ""

    def warnings(self) -> list[str]:
        """Return one sentence for each group that predicts the label."""
        sentences = []
        for name in self.predicting_groups:
            found = self.groups[name]
            who = "all features together predict" if name == ALL else f"{name} alone {_verb(name)}"
            figures = f"AUC {found.auc:.3f} ({found.low:.3f} to {found.high:.3f})"
            see = BALANCE if name == COLLECTION else f"see {PICTURE}"
            sentences.append(f"{who} the label: {figures}; {see}{REMEDIES.get(name, '')}")
        return sentences

    def notes(self) -> list[str]:
        """Return the warnings, or why there is no verdict."""
        return [f"no verdict on shortcuts: {self.problem}"] if self.problem else self.warnings()

    def facts(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        groups = {}
        for name, found in self.groups.items():
            figures = {key: round(value, 4) for key, value in dataclasses.asdict(found).items()}
            groups[name] = figures | {"told": found.predicts}
        return {
            "summary": self.summary,
            "warnings": self.warnings(),
            "problem": self.problem,
            "groups": groups,
        }


def check_shortcuts(options: Probe, progress: Progress) -> Result:
    """Probe a dataset: one that a stage made, or any folder of {train,val}/{benign,malignant}.

    The folders may be those of any other question's two labels.

    Returns:
        The verdicts, with the warnings as notes; shortcuts.json and shortcuts.png lie in the
        dataset's folder.

    Raises:
        UserError: It is no dataset, is not finished, holds no image that can be read, or may not
            be written to.
    """
    folder = options.data
    if (folder / UNFINISHED).is_file():
        raise UserError(f"{folder}: is not finished", "run the stage that makes it again")
    rows, notes = _rows_of(folder)
    samples, unread = read_samples(folder, rows, options.workers, progress)
    if not samples:
        reason = f"can be read ({unread[0][1]})" if unread else "is for training or validation"
        raise UserError(f"{folder}: not one image {reason}")
    if unread:
        notes.append(f"images that cannot be read: {len(unread):,}, the first is {unread[0][1]}")
    findings = judge(folder, _organised(folder), rows, samples, options.seed)
    patients = len({sample.patient_id for sample in samples})
    verdict = findings.summary or "nothing predicts the label"
    lines = tuple(
        (name, found.auc, found.low, found.high, "predicts the label" if found.predicts else "no")
        for name, found in findings.groups.items()
    )
    maker = read_json(folder / RECORD).get("stage") if (folder / RECORD).is_file() else ""
    following = FOLLOWING.get(maker, "")
    return Result(
        folder=folder,
        headline=f"{len(samples):,} images of {patients:,} patients: "
        + ("no verdict on shortcuts" if findings.problem else verdict),
        facts=findings.facts() | {"images": len(samples), "patients": patients},
        tables=(Table("Shortcuts", ("group", "AUC", "low", "high", "verdict"), lines),)
        if lines
        else (),
        notes=(*findings.notes(), *notes),
        next_stage=following,
        next_options={"data": folder} if following else {},
    )


def probed(result: Result, options: Preprocess, rows: Sequence[Row], progress: Progress) -> Result:
    """Probe the dataset that preprocessing has just written, and add what is found to its result.

    Returns:
        The result with the findings as facts["shortcuts"] and the warnings among its notes.
    """
    samples, _ = read_samples(options.out, rows, options.workers, progress)
    findings = judge(options.out, options.data, rows, samples, options.seed)
    facts = dict(result.facts) | {"shortcuts": findings.facts()}
    return dataclasses.replace(result, facts=facts, notes=(*result.notes, *findings.notes()))


def _rows_of(folder: Path) -> tuple[list[Row], list[str]]:
    """Return a dataset's rows, by its manifest or by its folders, and what to say about that."""
    if (folder / MANIFEST).is_file():
        return read_manifest(folder), []
    rows, nameless = [], 0
    for path, split, label in _image_files(folder):
        named = PATIENT.search(path.stem)
        nameless += named is None
        patient = named[0] if named else path.stem
        name = path.relative_to(folder).as_posix()
        rows.append(Row(image_id=name, patient_id=patient, split=split, label=label, path=name))
    if not rows:
        where = f"{folder}: holds neither {MANIFEST} nor images in train/benign and train/malignant"
        raise UserError(where, "run: python main.py organize")
    labels = sorted({row.label for row in rows})
    if pair_of(labels) is None:
        raise UserError(
            f"{folder}: its images lie in the classes {', '.join(labels)}, and a probe takes two",
            "run: python main.py organize, which asks what to tell apart",
        )
    note = f"there is no {MANIFEST}: patients are told by P_number in the names of the images"
    if nameless:
        note += f"; {nameless:,} of {len(rows):,} have none, and each counts as its own patient"
    return rows, [note]


def _image_files(folder: Path) -> Iterator[tuple[Path, str, str]]:
    for split in LOOKED_AT:
        for label in ALL_LABELS:
            for path in sorted((folder / split / label).glob("[!.]*")):
                if path.suffix.lower() in (*SUFFIXES, ".dcm"):
                    yield path, split, label


def read_samples(
    folder: Path, rows: Iterable[Row], workers: int, progress: Progress
) -> tuple[list[Sample], list[tuple[str, str]]]:
    """Read and reduce the images that the probe may look at: never test, no augmented copies.

    Args:
        folder: The dataset.
        rows: Its manifest.
        workers: Threads (decoding leaves Python's lock); 0 for one for each core.
        progress: Where to report.

    Returns:
        The samples in the order of the rows, and (path, reason) of what cannot be read.
    """
    wanted = [row for row in rows if row.split in LOOKED_AT and not row.parent]
    samples, unread = [], []

    def read(row: Row) -> Sample | UserError:
        try:
            image = read_image(folder / row.path)
        except UserError as error:
            return error
        height, width = image.shape
        small = thumbnail(image)
        return Sample(row.patient_id, row.label, height, width, small, row.collection, row.image_id)

    pool = ThreadPoolExecutor(worker_count(workers))
    try:
        with progress.track("Looking for shortcuts", len(wanted), "images") as advance:
            for row, sample in zip(wanted, pool.map(read, wanted), strict=True):
                if isinstance(sample, UserError):
                    unread.append((row.path, str(sample)))
                else:
                    samples.append(sample)
                advance(1)
    finally:
        pool.shutdown(cancel_futures=True)
    return samples, unread


def judge(
    folder: Path, organised: Path | None, rows: Sequence[Row], samples: Sequence[Sample], seed: int
) -> Findings:
    """Probe what is in a dataset, and write into it what was found.

    Of patches the lesions are hidden, and in normal ones the same places: what is left should be
    alike.

    Args:
        folder: The dataset.
        organised: The one that it was made from, or itself; None where it is gone.
        rows: Its manifest.
        samples: What is looked at of it.
        seed: Of the folds and the bootstrap.

    Raises:
        UserError: The picture cannot be written.
        OSError: The folder cannot be written to.
    """
    problem = ""
    if patches := [row for row in rows if row.unit == "patch" and row.split in LOOKED_AT]:
        places, problem = read_places(organised, patches)
        samples = [dataclasses.replace(one, thumbnail=hidden(one.thumbnail,
                                                             places.get(one.image_id)))
                   for one in samples]  # fmt: skip
    findings = Findings({}, problem) if problem else probe(samples, seed)
    write_findings(folder, findings, samples)
    return findings


def _organised(folder: Path) -> Path | None:
    """Return the organised dataset that a folder is, or was made from; None where it is gone."""
    if (folder / PATCH_TABLE).is_file() or not (folder / RECORD).is_file():
        return folder
    return source_of(folder, read_json(folder / RECORD))


def write_findings(folder: Path, findings: Findings, samples: Sequence[Sample]) -> None:
    """Write what was found as shortcuts.json, and the classes' mean images as shortcuts.png.

    Without a verdict the first says why, and there is no second; nothing of an earlier probe
    stays.

    Raises:
        UserError: The picture cannot be written.
        OSError: The folder cannot be written to.
    """
    (folder / SHORTCUTS).unlink(missing_ok=True)
    if findings.groups:
        classes = {
            label: [sample.thumbnail for sample in samples if sample.label == label]
            for label in labels_of(samples)
        }
        title = findings.summary or "nothing predicts the label"
        write_mean_images(folder / PICTURE, title, classes)
    else:
        (folder / PICTURE).unlink(missing_ok=True)
    write_json(folder / SHORTCUTS, findings.facts())


def _verb(group: str) -> str:
    return "predict" if group.endswith("s") else "predicts"


def probe(samples: Sequence[Sample], seed: int) -> Findings:
    """Score how well each group of features predicts the label of patients not seen.

    Args:
        samples: From training and validation, no augmented copies.
        seed: Of the folds and the bootstrap.

    Returns:
        The AUCs of out-of-fold probabilities, with intervals from a bootstrap over patients; no
        verdict where a class has fewer than 4 patients.
    """
    malignant = np.array([sample.label in POSITIVE for sample in samples], np.bool_)
    patients = np.array([sample.patient_id for sample in samples], np.str_)
    counts = [len(np.unique(patients[malignant == value])) for value in (False, True)]
    if min(counts) < LEAST:
        names = Labels(*labels_of(samples)).names
        found = ", ".join(f"{count} {name}" for count, name in zip(counts, names, strict=True))
        return Findings({}, f"too few patients ({found}; it takes {LEAST} of each)")
    # Imported here: worker processes of preprocessing load this module and fit nothing.
    from sklearn.model_selection import StratifiedGroupKFold

    # Grouped by patient: seen patients would be recognised, not their label predicted.
    cutter = StratifiedGroupKFold(min(FOLDS, *counts), shuffle=True, random_state=seed)
    folds = list(cutter.split(malignant, malignant, patients))
    sides = np.array([(sample.height, sample.width) for sample in samples], np.float64)
    groups = features_of([sample.thumbnail for sample in samples], sides)
    if len({sample.collection for sample in samples}) > 1:
        groups[COLLECTION] = one_hot([sample.collection for sample in samples])
    groups[ALL] = np.hstack(list(groups.values()))
    images, people = len(samples), len(np.unique(patients))
    bar = PREDICTS if min(counts) >= ENOUGH else SURE
    verdicts = {}
    for name, features in groups.items():
        scores = _out_of_fold(features, malignant, folds)
        area = estimates(malignant, scores, 0.5, patients.tolist(), REPLICATES, seed)["auc"]
        verdicts[name] = Verdict(area.value, area.low, area.high, images, people, bar)
    return Findings(verdicts)


def _out_of_fold(features: Floats, malignant: NDArray[np.bool_], folds: Iterable[Any]) -> Floats:
    """Return (N,) probabilities, each by a logistic regression that did not see the patient."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scores = np.zeros(len(malignant))
    for known, fresh in folds:
        scaler = StandardScaler().fit(features[known])
        model = LogisticRegression(class_weight="balanced", max_iter=10_000)
        model.fit(scaler.transform(features[known]), malignant[known])
        scores[fresh] = model.predict_proba(scaler.transform(features[fresh]))[:, 1]
    return scores
