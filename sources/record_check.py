"""Is a download of a collection that is read to records whole? Each image is decoded once."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError
from pipeline.progress import Progress, Result, Table
from pipeline.records import claim_folder, write_table_or_none
from pipeline.resources.places import CHECKED
from pipeline.stages.data import Organize
from pipeline.work import run_all, worker_count
from sources.record_plan import Reader
from sources.records import ImageRecord, RecordFile

FEW = 50  # images below which starting processes takes longer than reading them
PROBLEMS = CHECKED[0]
MISSING = "missing"


@dataclass(frozen=True)
class _Look:
    """An image to decode."""

    source: Path
    record: ImageRecord


def check_records(options: Organize, collection: str, read: Reader, progress: Progress) -> Result:
    """Hold a download against its tables, and decode every image.

    Returns:
        facts["problems"] counts what is missing, and what is damaged; check.csv lists it.

    Raises:
        UserError: The collection cannot be read, or patients are not to be named.
    """
    if options.pseudonymize:
        problem = "--check names files and patients, which --pseudonymize is to hide"
        raise UserError(problem, "leave one of the two out")
    records = read(options, progress)
    claim_folder(options.out, "organize", options)
    problems = list(records.set_aside)
    jobs = [_Look(options.source, record) for record in records.records]
    workers = worker_count(options.workers) if len(jobs) > FEW or options.workers else 1
    with progress.track("Reading images", len(jobs), "images") as advance:
        for job, found in run_all(_look, jobs, workers):
            if isinstance(found, UserError):
                problems.append((job.record.image_id, found.problem))
            advance(1)
    kinds = Counter(
        MISSING if reason.startswith(MISSING) or "no such file" in reason else "damaged"
        for _, reason in problems
    )
    write_table_or_none(options.out / PROBLEMS, ("what", "reason"), sorted(problems))
    return _result(options, collection, records.records, kinds, records.notes)


def _look(job: _Look) -> int:
    return RecordFile(job.record).read(job.source, False).size


def _result(
    options: Organize,
    collection: str,
    records: Sequence[ImageRecord],
    kinds: Counter[str],
    notes: Sequence[str],
) -> Result:
    diagnoses = Counter(record.diagnosis for record in records)
    patients = len({record.patient_id for record in records})
    problems = sum(kinds.values())
    rows = tuple((name, count) for name, count in sorted(diagnoses.items()))
    listed = f", listed in {options.out / PROBLEMS}" if problems else ""
    return Result(
        folder=options.out,
        headline=f"{len(records):,} images of {patients:,} patients; "
        f"{problems:,} {'problem' if problems == 1 else 'problems'}{listed}",
        facts={
            "collection": collection,
            "images": len(records),
            "patients": patients,
            "problems": dict(kinds),
        },
        tables=(Table("What the collection holds", ("diagnosis", "images"), rows),),
        notes=tuple(notes),
        set_aside=problems,
        listed_in=PROBLEMS,
        next_stage="" if problems else "organize",
        next_options={} if problems else {"source": options.source},
    )
