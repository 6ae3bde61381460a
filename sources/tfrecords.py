"""DDSM patches as TFRecords: the data set of E. Scuccimarra ("skooch") on Kaggle.

Patches of 299 pixels a side and 8 bits: negatives of DDSM, positives of CBIS-DDSM.
`training10_0.tfrecords` to `training10_4.tfrecords` hold `image`, `label` (0 negative, 1 benign
calcification, 2 benign mass, 3 malignant calcification, 4 malignant mass) and `label_normal` (0
negative, 1 positive); `cv10_data.npy` and `test10_data.npy` hold validation and test patches, with
`cv10_labels.npy` and `test10_labels.npy`. Nothing tells the patients.
"""

import functools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from images.files import SPREAD
from pipeline.errors import UserError
from pipeline.manifest import ABNORMAL, SPLITS
from pipeline.progress import Progress
from pipeline.stages.data import Organize
from pipeline.work import run_all, worker_count
from sources.exclusion import LeftOut
from sources.records import ImageRecord, Records
from sources.tfrecord_files import Feature, Index, data_of, features_of, index_of
from sources.twins import Fingerprint, fingerprint, near_duplicates

MARKS = "training10_0.tfrecords and on, cv10_data.npy with cv10_labels.npy, test10_data.npy"
SIDE = 299  # pixels
DATA, LABELS = "_data.npy", "_labels.npy"
SUFFIXES = (".tfrecords", ".tfrecord")
OWN_SPLIT = re.compile(r"(?P<train>train)|(?P<val>cv|val)|(?P<test>test)", re.IGNORECASE)
CLASSES = {
    0: ("normal", ""),
    1: ("benign", "calcification"),
    2: ("benign", "mass"),
    3: ("malignant", "calcification"),
    4: ("malignant", "mass"),
}
MOST_FOLDERS = 50  # looked into to recognise it: other collections hold thousands
CHUNK = 500  # patches that a worker looks at in one go
Aside = list[tuple[str, str]]


def is_here(folder: Path) -> bool:
    """Return whether a folder holds such files, or folders with them."""
    return any(OWN_SPLIT.match(path.name) for path in _files(folder, MOST_FOLDERS))


def read(options: Organize, progress: Progress) -> Records:
    """Read the labels and look at every patch: what is damaged, and what is there twice.

    Without pixels where only the cohort is counted.

    Raises:
        UserError: The folder holds no patch.
    """
    found = read_labels(options)
    if options.dry_run:
        note = "counted by labels alone: damaged patches and near-duplicates are not known"
        return replace(found, notes=(*found.notes, note))
    prints, aside = _looked_at(options, found.records, progress)
    kept = [record for record in found.records if record.image_id in prints]
    if not kept:
        problem = f"{options.source}: none of its {len(found.records):,} patches can be used"
        raise UserError(f"{problem} ({': '.join(aside[0])})", "download it again")
    records, left_out, groups = _grouped(kept, [prints[record.image_id] for record in kept])
    facts = {"near_duplicates": {"groups": groups, "left_out": sum(one.images for one in left_out)}}
    notes = found.notes
    if groups:
        notes += (f"{groups:,} groups of near-duplicates: each stays in one split",)
    return replace(
        found,
        records=tuple(records),
        set_aside=(*found.set_aside, *aside),
        left_out=tuple(left_out),
        notes=notes,
        facts={**found.facts, **facts},
    )


def read_labels(options: Organize) -> Records:
    """Read which patches there are and what they show; their pixels are not looked at.

    Raises:
        UserError: The folder holds no patch.
    """
    aside: Aside = []
    records: list[ImageRecord] = []
    codes = {}
    for path in _once(_files(options.source), options.source, aside):
        split = _split_of(path)
        if not split:
            aside.append((path.name, "its name tells no split (training, cv or test)"))
            continue
        try:
            labels = _labels_of(path, options.source, aside)
        except (UserError, OSError) as error:
            aside.append((path.name, _reason(error, path)))
            continue
        five = path.suffix != ".npy" or max(labels.values(), default=0) > 1
        codes[path.name] = "0 to 4" if five else "0 and 1"
        records += _records_of(path, options.source, split, labels, five)
    if not records:
        why = f" ({': '.join(aside[0])})" if aside else ""
        raise UserError(f"{options.source}: holds no patch that can be read{why}", "see --check")
    told = "; ".join(f"{name}: {code}" for name, code in codes.items() if name.endswith(".npy"))
    notes = ("negatives and positives come from different archives (DDSM and CBIS-DDSM)",)
    return Records(
        records=tuple(records),
        set_aside=tuple(aside),
        notes=(*notes, f"labels of {told}") if told else notes,
        has_patients=False,
        facts={"classes": _class_counts(records), "label_codes": codes},
        on_question={"abnormal-normal": "the accuracies of 0.9 that were published for this "
                     "collection answer this question"},
    )  # fmt: skip


def read_patch(path: Path, member: int) -> NDArray[np.uint16]:
    """Return a patch as (299, 299) uint16 in [0, 65535].

    Args:
        path: A TFRecord file, or an array `*_data.npy`.
        member: Its number there, from 0.

    Raises:
        UserError: It is damaged.
        OSError: The file cannot be read.
    """
    return np.multiply(_grey(path, member), SPREAD, dtype=np.uint16)


def _grey(path: Path, member: int) -> NDArray[np.uint8]:
    """Return a patch as (299, 299) uint8."""
    if path.suffix == ".npy":
        patch = np.reshape(_array(path)[member], (SIDE, SIDE))
        with np.errstate(invalid="ignore"):  # what is no number is refused below
            grey: NDArray[np.uint8] = patch.astype(np.uint8)
        if not np.array_equal(grey, patch):
            raise UserError(f"has {patch.dtype} values that are no grey values from 0 to 255")
        return grey
    content, index = _mapped(path)
    features = features_of(data_of(content, index.places[member]))
    image = features.get("image")
    if not isinstance(image, bytes) or len(image) != SIDE * SIDE:
        has = f"{len(image):,} bytes" if isinstance(image, bytes) else "nothing"
        raise UserError(f"its image has {has} and not {SIDE} x {SIDE}")
    return np.frombuffer(image, np.uint8).reshape(SIDE, SIDE)


def _mapped(path: Path) -> tuple[NDArray[np.uint8], Index]:
    status = path.stat()
    return _mapped_once(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _mapped_once(path: Path, size: int, changed: int) -> tuple[NDArray[np.uint8], Index]:
    """Return a memory map of a file with its index, kept while the file stays as it is."""
    del changed
    # There is no map of nothing.
    content = np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)
    return content, index_of(content)


def _array(path: Path) -> NDArray[np.generic]:
    return _array_once(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _array_once(path: Path, changed: int) -> NDArray[np.generic]:
    """Return the array of a file, not loaded; never what `pickle` would have to make."""
    del changed
    try:
        array: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f"{path}: is damaged, or no NumPy array ({error})") from None
    return array


def _files(folder: Path, most: int | None = None) -> Iterator[Path]:
    """Yield the files of patches in a folder and the folders in it, of its first `most` entries."""
    for path in sorted(folder.iterdir())[:most]:
        # Kaggle unpacks each into a folder, which may have the file's own name.
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            if file.name.lower().endswith((*SUFFIXES, DATA)) and file.is_file():
                yield file


def _once(files: Iterator[Path], source: Path, aside: Aside) -> Iterator[Path]:
    """Yield files of different names: a second copy of one is set aside."""
    known: dict[str, Path] = {}
    for path in files:
        if (first := known.setdefault(_stem(path), path)) is path:
            yield path
        else:
            name, other = (one.relative_to(source).as_posix() for one in (path, first))
            aside.append((name, f"is there already: {other}"))


def _stem(path: Path) -> str:
    """Return what a file's patches are named by: "training10_0", "cv10"."""
    return path.stem.removesuffix(DATA.removesuffix(".npy"))


def _split_of(path: Path) -> str:
    found = OWN_SPLIT.match(path.name)
    return (found.lastgroup or "") if found else ""


def _reason(error: UserError | OSError, path: Path) -> str:
    text = error.strerror if isinstance(error, OSError) else str(error)
    return str(text).removeprefix(f"{path}: ")


def _labels_of(path: Path, source: Path, aside: Aside) -> dict[int, int]:
    """Return the label of each patch of a file that has one.

    Raises:
        UserError: The file cannot be understood.
    """
    if path.suffix == ".npy":
        return _labels_of_array(path, source, aside)
    content, index = _mapped(path)
    if not index.places:
        raise UserError(index.fault or "is empty")
    labels = {}
    for member, place in enumerate(index.places):
        # Its checksum is looked at with its pixels.
        data = content[place.start : place.start + place.length].data
        try:
            labels[member] = _label(features_of(data, ("label", "label_normal")))
        except UserError as error:
            aside.append((f"{path.name}[{member}]", error.problem))
    if index.fault:
        aside.append((path.name, index.fault))
    return labels


def _label(features: dict[str, Feature]) -> int:
    label, positive = features.get("label"), features.get("label_normal")
    if not (isinstance(label, list) and len(label) == 1 and label[0] in CLASSES):
        raise UserError(f"its label is {label!r}, not one of 0 to {max(CLASSES)}")
    if positive and positive != [int(label[0] > 0)]:
        raise UserError(f"contradicts itself: label {label[0]}, label_normal {positive!r}")
    return label[0]


def _labels_of_array(path: Path, source: Path, aside: Aside) -> dict[int, int]:
    name = _stem(path) + LABELS
    beside = (path.parent, source, source / name, source / name.removesuffix(".npy"))
    file = next((one / name for one in beside if (one / name).is_file()), None)
    if file is None:
        raise UserError(f"missing: no file {name}, which tells what its patches show")
    array, labels = _array(path), np.squeeze(_array(file))
    if array.shape[1:] not in ((SIDE, SIDE), (SIDE, SIDE, 1)) or array.dtype.kind not in "uif":
        raise UserError(f"holds {array.dtype} of {array.shape}, not patches of {SIDE} x {SIDE}")
    if labels.shape != array.shape[:1]:
        lengths = f"{len(array):,} patches, but {name} has {labels.size:,} labels"
        raise UserError(f"has {lengths}: which belongs to which is not known")
    known = {}
    for member, label in enumerate(labels.tolist()):
        if label in CLASSES:
            known[member] = int(label)
        else:
            aside.append((f"{path.name}[{member}]", f"its label is {label!r}, not one of 0 to 4"))
    return known


def _records_of(
    path: Path, source: Path, split: str, labels: dict[int, int], five: bool
) -> Iterator[ImageRecord]:
    status = path.stat()
    for member, label in labels.items():
        # Of two classes 1 is whatever is there.
        diagnosis, finding = CLASSES[label] if five or not label else (ABNORMAL, "")
        image_id = f"{_stem(path)}_{member:05d}"
        yield ImageRecord(
            image_id=image_id,
            patient_id=image_id,
            diagnosis=diagnosis,
            file=path.relative_to(source).as_posix(),
            size=SIDE * SIDE,
            changed=status.st_mtime_ns,
            member=member,
            read=read_patch,
            unit="crop",
            rows=SIDE,
            columns=SIDE,
            split=split,
            finding=finding,
        )


def _class_counts(records: Sequence[ImageRecord]) -> dict[str, int]:
    kinds = Counter(f"{record.diagnosis} {record.finding}".strip() for record in records)
    return dict(sorted(kinds.items()))


@dataclass(frozen=True)
class _Look:
    """Patches of a file to look at."""

    path: Path
    members: tuple[int, ...]
    names: tuple[str, ...]  # of the patches, image_id


def _looked_at(
    options: Organize, records: Sequence[ImageRecord], progress: Progress
) -> tuple[dict[str, Fingerprint], Aside]:
    """Return the fingerprint of each patch, by image_id, and why the others have none."""
    by_file: dict[str, list[ImageRecord]] = {}
    for record in records:
        by_file.setdefault(record.file, []).append(record)
    jobs = []
    for file, held in by_file.items():
        for at in range(0, len(held), CHUNK):
            chunk = held[at : at + CHUNK]
            members = tuple(record.member for record in chunk)
            names = tuple(record.image_id for record in chunk)
            jobs.append(_Look(options.source / file, members, names))
    workers = worker_count(options.workers) if len(jobs) > 2 * worker_count(0) else 1
    prints: dict[str, Fingerprint] = {}
    aside: Aside = []
    with progress.track("Looking at patches", len(records), "patches") as advance:
        for job, found in run_all(_look, jobs, workers):
            if isinstance(found, UserError):
                raise found
            for name, member, one in zip(job.names, job.members, found, strict=True):
                if isinstance(one, Fingerprint):
                    prints[name] = one
                else:
                    aside.append((f"{job.path.name}[{member}]", one))
            advance(len(job.names))
    return prints, sorted(aside)


def _look(job: _Look) -> list[Fingerprint | str]:
    """Return of each patch its fingerprint, or what is wrong with it."""
    found: list[Fingerprint | str] = []
    for member in job.members:
        try:
            grey = _grey(job.path, member)
        except (UserError, OSError) as error:
            found.append(_reason(error, job.path))
            continue
        flat = grey.min() == grey.max()
        found.append("is of one grey value" if flat else fingerprint(grey))
    return found


def _grouped(
    records: Sequence[ImageRecord], prints: Sequence[Fingerprint]
) -> tuple[list[ImageRecord], list[LeftOut], int]:
    """Keep near-duplicates in one split: of those in several, those of the last one stay.

    Returns:
        The records, with the name of their group as patient; what was left out; how many groups.
    """
    kept: dict[str, ImageRecord] = {record.image_id: record for record in records}
    groups = near_duplicates(prints)
    lost: Counter[str] = Counter()
    for group in groups:
        members = [records[place] for place in group]
        last = max((record.split for record in members), key=SPLITS.index)
        for record in members:
            if record.split == last:
                kept[record.image_id] = replace(record, patient_id=members[0].image_id)
            else:
                del kept[record.image_id]
                lost[record.split] += 1
    left_out = [
        LeftOut(f"{split} images that are near-duplicates of val or test images", count, count, 0)
        for split, count in sorted(lost.items())
    ]
    return list(kept.values()), left_out, len(groups)
