"""Stage 1: a raw CBIS-DDSM download becomes train, val and test, benign and malignant.

Splits are decided from the case descriptions before any file is looked at; then each image is
written as 16-bit PNG with its row in the manifest.
"""

import runpy
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.manifest import LABELS, SPLITS, Row, image_path, write_manifest
from pipeline.progress import Progress, Result, Table
from pipeline.records import SET_ASIDE, close_folder, digest, open_folder, write_set_aside
from pipeline.stages import Organize
from pipeline.work import Ledger, run_all, worker_count
from sources.cbis_ddsm import CALCIFICATION, MASS, OFFICIAL_CSVS, CaseCsv, read_case_csvs
from sources.cbis_ddsm_cohort import Cohort, PlannedImage, assign_splits, plan_cohort
from sources.cbis_ddsm_files import Index, SourceFile, index_files, is_mask
from sources.images import read_image, write_png

FINDINGS = {"mass": (MASS,), "calc": (CALCIFICATION,), "both": (MASS, CALCIFICATION)}
UNITS = {"mammogram": "mammograms", "crop": "lesion crops"}
PIXELS = "16-bit PNG, full range by bits stored"  # a change of it makes every image anew
PLANNED = "planned"  # the ledger's key of an image that was begun
MISSING = "missing: "  # how the reason begins where there is no file
SMALL = 200_000_000  # bytes below which starting processes takes longer than the work


@dataclass(frozen=True)
class Job:
    """One image to write.

    Attributes:
        target: The file to write.
        source: The folder of the download.
        candidates: Files that may hold the image; the first that does is taken.
    """

    target: Path
    source: Path
    candidates: tuple[SourceFile, ...]

    @property
    def key(self) -> str:
        """Digest of what the image is made from."""
        return digest(PIXELS, [asdict(file) for file in self.candidates])


def organize(options: Organize, progress: Progress) -> Result:
    """Join the case descriptions to the files, split by patient, and write the dataset.

    Args:
        options: What to organise, and where to.
        progress: Where to report.

    Returns:
        What was written; facts["splits"][split] holds images, patients, benign and malignant.

    Raises:
        UserError: The case descriptions or the images are not there or not what they should be,
            or the output folder cannot be used; in the first two cases nothing is written.
    """
    started = time.perf_counter()
    _check_folders(options.source, options.out)
    tables, missing_csvs = _tables(options)
    leave_out = options.without_callback == "leave-out"
    lesions = [lesion for table in tables for lesion in table.lesions]
    cohort = plan_cohort(lesions, options.unit, leave_out)
    splits = assign_splits(cohort.images, options.val_share, options.seed)
    index = index_files(options.source, options.workers, progress)
    jobs = dict(_jobs(options, cohort, splits, index))
    if not jobs:
        raise _nothing_found(options, cohort, index)

    open_folder(options.out, "organize", options)
    made = _write_images(options, list(jobs.values()), progress)
    rows, set_aside = [], list(index.unreadable)
    for image in cohort.images:
        row, reasons = _account(image, splits[image.patient_id], jobs, made)
        rows += [row] if row else []
        set_aside += reasons
    write_set_aside(options.out, set_aside)
    if not rows:
        problem = f"{options.source}: none of its {len(jobs):,} {UNITS[options.unit]} can be read"
        raise UserError(problem, f"see {options.out / SET_ASIDE} for the reasons")
    write_manifest(options.out, rows)
    facts = _facts(options, cohort, rows, set_aside)
    inputs = digest(
        [asdict(lesion) for lesion in lesions],
        [(uid, [file.size for file in files]) for uid, files in index.series.items()],
    )
    close_folder(options.out, "organize", options, facts, inputs, time.perf_counter() - started)
    return _result(options, facts, missing_csvs)


def make_image(job: Job) -> dict[str, Any]:
    """Write one image from the first candidate that holds it.

    Returns:
        height and width in pixels, source_id, and for each candidate that had to be passed over
        [name, reason] in skipped; without source_id where none would do.

    Raises:
        UserError: The image cannot be written (a bad candidate is no reason to stop).
    """
    skipped: list[tuple[str, str]] = []
    masks = 0
    for file in job.candidates:
        path = job.source / file.name
        try:
            image = read_image(path)
        except UserError as error:
            skipped.append((file.name, str(error).removeprefix(f"{path}: ")))
            continue
        if file.bits < 16 and is_mask(image):
            masks += 1
            continue
        write_png(job.target, image)
        height, width = image.shape
        return {"height": height, "width": width, "source_id": file.series, "skipped": skipped}
    reasons = [f"{name}: {reason}" for name, reason in skipped]
    if masks and not reasons:
        reasons = [f"{MISSING}its series holds nothing but the mask"]
    job.target.unlink(missing_ok=True)  # of an earlier run, when the file was still whole
    return {"skipped": skipped, "reason": "; ".join(reasons)}


def _check_folders(source: Path, out: Path) -> None:
    if not source.is_dir():
        raise UserError(f"{source}: no such folder", "give --source the folder of the download")
    try:
        empty = not any(source.iterdir())
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror})") from None
    if empty:
        raise UserError(f"{source}: is empty", "give --source the folder of the download")
    if out.resolve().is_relative_to(source.resolve()):
        raise UserError(
            f"{out}: lies in the download {source}, which is never written to",
            "choose another --out",
        )


def _tables(options: Organize) -> tuple[list[CaseCsv], list[str]]:
    """Return the case descriptions of the wanted findings, and the names of those not there."""
    found = read_case_csvs(options.source, options.csv)
    findings = FINDINGS[options.finding]
    tables = [table for table in found if table.finding in findings]
    expected = dict(
        zip(
            [(finding, split) for finding in (MASS, CALCIFICATION) for split in ("train", "test")],
            OFFICIAL_CSVS,
            strict=True,
        )
    )
    present = {(table.finding, table.split) for table in tables}
    missing = [
        name for kind, name in expected.items() if kind[0] in findings and kind not in present
    ]
    if not tables:
        raise UserError(
            f"{options.csv or options.source}: holds neither {' nor '.join(missing)}",
            "get them from the CBIS-DDSM page of the Cancer Imaging Archive, "
            "or choose another --finding",
        )
    return tables, missing


def _jobs(
    options: Organize, cohort: Cohort, splits: Mapping[str, str], index: Index
) -> Iterator[tuple[str, Job]]:
    """Yield image_id and job of each image that has files."""
    for image in cohort.images:
        if candidates := index.candidates(image.series):
            path = image_path(splits[image.patient_id], image.label, image.image_id)
            yield image.image_id, Job(options.out / path, options.source, candidates)


def _nothing_found(options: Organize, cohort: Cohort, index: Index) -> UserError:
    files = sum(map(len, index.series.values()))
    if not files and not index.unreadable:
        problem = f"{options.source}: holds no DICOM or JPEG file of the collection"
        return UserError(problem, "give --source the folder of the download")
    if not files:
        name, reason = index.unreadable[0]
        count = f"none of its {len(index.unreadable):,} image files can be read"
        return UserError(f"{options.source}: {count} ({name}: {reason})", "download them again")
    wanted = f"{len(cohort.images):,} {options.finding} {UNITS[options.unit]}"
    return UserError(
        f"{options.source}: none of its {files:,} image files is one of the {wanted}",
        "choose another --unit, --finding or --source",
    )


def _write_images(
    options: Organize, jobs: Sequence[Job], progress: Progress
) -> dict[Path, dict[str, Any]]:
    """Write every image that is not there yet; return what was learnt of each, by target."""
    ledger = Ledger(options.out)
    names = {job.target: job.target.relative_to(options.out).as_posix() for job in jobs}
    for stale in ledger.keep_only(names.values()):
        _remove(options.out / stale)
    made = {
        job.target: facts
        for job in jobs
        if (facts := ledger.facts(names[job.target], job.key)) and job.target.is_file()
    }
    left = [job for job in jobs if job.target not in made]
    for job in left:  # noted before it is written, so that no kill leaves a file nobody knows of
        ledger.add(names[job.target], PLANNED, None)
    size = sum(job.candidates[0].size for job in left)
    workers = 1 if size < SMALL and not options.workers else worker_count(options.workers)
    with progress.track("Writing images", len(jobs), "images", done=len(made)) as advance:
        for job, facts in run_all(make_image, left, workers):
            if isinstance(facts, UserError):
                raise facts
            made[job.target] = facts
            if "source_id" in facts:
                ledger.add(names[job.target], job.key, facts)
            advance(1)
    return made


def _remove(path: Path) -> None:
    """Remove an image of an earlier run, and its folders where they are empty then."""
    path.unlink(missing_ok=True)
    for folder in (path.parent, path.parent.parent):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _account(
    image: PlannedImage, split: str, jobs: Mapping[str, Job], made: Mapping[Path, Mapping[str, Any]]
) -> tuple[Row | None, list[tuple[str, str]]]:
    """Return the row of one image, if it was written, and what was set aside on the way."""
    if image.image_id not in jobs:
        series = " or ".join(image.series)
        lesion = image.lesions[0]
        where = f"{lesion.finding} {lesion.split}, {lesion.subject}"
        return None, [(image.image_id, f"{MISSING}no file of series {series} ({where})")]
    facts = made[jobs[image.image_id].target]
    if "source_id" not in facts:
        return None, [(image.image_id, facts["reason"])]
    return _row(image, split, facts), [(name, reason) for name, reason in facts["skipped"]]


def _row(image: PlannedImage, split: str, facts: Mapping[str, Any]) -> Row:
    first, shown = image.lesions[0], image.lesions

    def joined(field: str) -> str:
        return "|".join(str(getattr(lesion, field)) for lesion in shown)

    return Row(
        image_id=image.image_id,
        patient_id=image.patient_id,
        split=split,
        label=image.label,
        path=image_path(split, image.label, image.image_id),
        unit=image.unit,
        laterality=first.laterality,
        view=first.view,
        finding="|".join(dict.fromkeys(lesion.finding for lesion in shown)),
        pathology=joined("pathology"),
        lesions=len(shown),
        density=max(lesion.density for lesion in shown),
        assessment=joined("assessment"),
        subtlety=joined("subtlety"),
        shape=joined("shape"),
        margins=joined("margins"),
        height=facts["height"],
        width=facts["width"],
        source_id=facts["source_id"],
    )


def _facts(
    options: Organize, cohort: Cohort, rows: Sequence[Row], set_aside: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    splits = {}
    for split in SPLITS:
        members = [row for row in rows if row.split == split]
        counts = {label: sum(row.label == label for row in members) for label in LABELS}
        patients = len({row.patient_id for row in members})
        splits[split] = {"images": len(members), "patients": patients, **counts}
    return {
        "unit": options.unit,
        "finding": options.finding,
        "images": len(rows),
        "patients": len({row.patient_id for row in rows}),
        "splits": splits,
        "expected": len(cohort.images),
        "without_file": sum(reason.startswith(MISSING) for _, reason in set_aside),
        "set_aside": len(set_aside),
        "left_out": {
            "lesions_without_callback": cohort.lesions_without_callback,
            "images_without_callback": cohort.images_without_callback,
            "pooled_patients": cohort.pooled_patients,
            "pooled_images": cohort.pooled_images,
        },
    }


def _result(options: Organize, facts: Mapping[str, Any], missing_csvs: Sequence[str]) -> Result:
    splits = facts["splits"]
    columns = ("images", "patients", *LABELS)
    table = Table(
        f"{UNITS[options.unit].capitalize()} by split",
        ("split", *columns),
        tuple((split, *(splits[split][name] for name in columns)) for split in SPLITS),
    )
    headline = (
        f"{facts['images']:,} of {facts['expected']:,} {UNITS[options.unit]} organised, "
        f"of {facts['patients']:,} patients"
    )
    return Result(
        folder=options.out,
        headline=headline,
        facts=facts,
        tables=(table,),
        notes=tuple(_notes(options, facts, missing_csvs)),
        set_aside=facts["set_aside"],
        next_stage="preprocess",
        next_options={"data": options.out},
    )


def _notes(
    options: Organize, facts: Mapping[str, Any], missing_csvs: Sequence[str]
) -> Iterator[str]:
    left_out = facts["left_out"]
    if missing_csvs:
        yield f"not found, so its cases are not in the dataset: {', '.join(missing_csvs)}"
    if left_out["pooled_patients"]:
        yield (
            f"patients in train for one finding and in test for the other: "
            f"{left_out['pooled_patients']:,}; training images of theirs left out: "
            f"{left_out['pooled_images']:,}"
        )
    if left_out["lesions_without_callback"]:
        yield (
            f"BENIGN_WITHOUT_CALLBACK lesions left out: {left_out['lesions_without_callback']:,}; "
            f"images left out that show no other: {left_out['images_without_callback']:,}"
        )
    if facts["without_file"]:
        yield (
            f"{facts['without_file']:,} of {facts['expected']:,} {UNITS[options.unit]} have no "
            f"file in {options.source}: is the download complete?"
        )
    for split, counts in facts["splits"].items():
        empty = [label for label in LABELS if not counts[label]]
        if not counts["images"]:
            yield f"{split} holds no image"
        elif empty:
            yield f"{split} holds no {empty[0]} image"


if __name__ == "__main__":
    sys.argv.insert(1, "organize")
    runpy.run_path(str(Path(__file__).with_name("main.py")), run_name="__main__")
