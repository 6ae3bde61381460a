"""Stage 1: a raw download becomes train, val and test, by the two labels of a question.

Splits are decided from the collection's tables before any image is looked at; then each image is
written as PNG with its row in the manifest, and the lesions' masks beside it.
"""

import runpy
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from images.files import SPREAD, read_image
from images.thumbnails import write_contact_sheet
from models.shortcuts import stage as shortcuts
from pipeline.errors import UserError
from pipeline.folds import FOLDS, write_folds
from pipeline.manifest import MASK_TABLE, PATCH_TABLE, SPLITS, THUMBNAILS, write_manifest
from pipeline.progress import Progress, Result, Silent
from pipeline.provenance import pixels_digest
from pipeline.records import (
    SET_ASIDE,
    claim_folder,
    close_folder,
    digest,
    open_folder,
    write_json,
    write_set_aside,
    write_table_or_none,
)
from pipeline.resources.sizes import bytes_text
from pipeline.stages.collections import FOLDERS
from pipeline.stages.data import Organize
from pipeline.work import worker_count
from pipeline.workspace import MEMORY
from sources import description
from sources.dataset import (
    MASK_COLUMNS,
    MISSING,
    PATCH_COLUMNS,
    Account,
    guard_against_leaks,
    near_duplicates_note,
)
from sources.plan import Layout, Plan, left_out_table, split_counts, split_table
from sources.pseudonyms import OpenNames, Pseudonyms, read_key
from sources.registry import check_of, plan_of
from sources.writing import Job, Writer, pixels_of

KEY = MEMORY.with_name("pseudonym.key")
SHEETS, NOTES, SUMMARY = "contact_sheets", "notes.csv", "summary.json"
BYTES_A_PIXEL = {"16": 1.7, "8": 0.5}  # of a written film; measured on film grain: 1.6 and 0.43


def organize(options: Organize, progress: Progress) -> Result:
    """Join the case descriptions to the files, split by patient, and write the dataset.

    Returns:
        What was written; facts["splits"][split] holds images, patients, breasts, benign and
        malignant.

    Raises:
        UserError: The case descriptions or the images are not there or not what they should be,
            the disk is too small, or the output folder cannot be used: then nothing is written.
            Or two splits hold the same pixels.
    """
    started = time.perf_counter()
    if not (options.dry_run and options.csv):
        _check_folders(options.source, None if options.dry_run else options.out)
    if options.check and not options.dry_run:
        return check_of(options, progress)
    rename = Pseudonyms(read_key(KEY)) if options.pseudonymize else OpenNames()
    plan = plan_of(options, rename, progress)
    if options.dry_run:
        return _dry_run(plan, options)
    fresh = not options.out.exists()
    claim_folder(options.out, "organize", options)
    try:
        keep = None if options.pseudonymize else options.out
        layout = plan.locate(keep, progress)
        jobs = _image_jobs(plan, layout)
        writer = Writer(options.out)
        _announce(plan, writer.left(_distinct(jobs)), progress)
    except UserError:
        if fresh:
            shutil.rmtree(options.out, ignore_errors=True)
        raise
    open_folder(options.out, "organize", options)
    if options.pseudonymize:
        for name in plan.private_files:  # they name files and patients
            (options.out / name).unlink(missing_ok=True)
    account = _write(plan, layout, jobs, writer, progress)
    if not account.rows:
        problem = f"{options.source}: none of its {len(jobs):,} {plan.unit} can be read"
        raise UserError(problem, f"see {options.out / SET_ASIDE} for the reasons")
    facts, notes = _finish(plan, layout, account)
    inputs = digest(layout.inputs())
    pixels, seconds = pixels_digest(account.pixels.items()), time.perf_counter() - started
    close_folder(options.out, "organize", options, facts, inputs, seconds, pixels=pixels)
    return _result(plan, facts, notes)


def _check_folders(source: Path, out: Path | None) -> None:
    if not source.is_dir():
        raise UserError(f"{source}: no such folder", "give --source the folder of the download")
    try:
        empty = not any(source.iterdir())
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror})") from None
    if empty:
        raise UserError(f"{source}: is empty", "give --source the folder of the download")
    if out is not None and out.resolve().is_relative_to(source.resolve()):
        raise UserError(
            f"{out}: lies in the download {source}, which is never written to",
            "choose another --out",
        )


def _dry_run(plan: Plan, options: Organize) -> Result:
    facts = plan.facts()
    facts["splits"] = facts["planned"]
    images = f"{len(plan.images):,} {plan.unit}"
    return Result(
        folder=None,
        headline=f"{images}{_of_patients(facts, len(plan.splits))}; nothing written",
        facts=facts,
        tables=(*plan.tables(facts), split_table(plan, facts), *left_out_table(facts)),
        notes=(*plan.notes(), *plan.collection_notes()),
        next_stage="organize",
        next_options=asdict(options) | {"dry_run": False},
    )


def _of_patients(facts: Mapping[str, Any], patients: int) -> str:
    return f" of {patients:,} patients" if facts.get("has_patients", True) else ", patients unknown"


def _image_jobs(plan: Plan, layout: Layout) -> dict[str, Job]:
    """Return how each image that has a file is written, by image_id."""
    images = plan.images
    jobs = {image.image_id: job for image in images if (job := layout.image_job(image))}
    if jobs:
        return jobs
    layout.refuse_nothing(images)


def _distinct(jobs: Mapping[str, Job]) -> list[Job]:
    """Return each job once: the patches of a film are cut by one."""
    return list({job.name: job for job in jobs.values()}.values())


def _announce(plan: Plan, left: Sequence[Job], progress: Progress) -> None:
    """Say how much there is to write, and refuse where there is no room for it."""
    options = plan.options
    if not left:
        return
    read = zip(left, pixels_of(left), strict=True)
    pixels = sum(job.pixels_written(size) for job, size in read)
    need = int(pixels * BYTES_A_PIXEL[options.depth])
    free = shutil.disk_usage(options.out).free
    images = sum(job.images for job in left)
    text = f"{images:,} {plan.unit} need up to {bytes_text(need)}"
    if need > free:
        smaller = ", or --depth 8" if options.depth == "16" else ""
        raise UserError(
            f"{options.out}: has {bytes_text(free)} free, but {text}",
            f"make room or choose another --out{smaller}",
        )
    size = sum(job.candidates[0].size for job in left)
    progress.say(f"To write: {text} of {bytes_text(free)} free, from {bytes_text(size)} of files.")


def _write(
    plan: Plan, layout: Layout, jobs: Mapping[str, Job], writer: Writer, progress: Progress
) -> Account:
    """Write images and masks, and account for every one that was planned."""
    options, account = plan.options, Account(set_aside=list(layout.unreadable))
    masks: list[tuple[Any, Any, Job | None]] = []
    every = _distinct(jobs)
    names = [name for job in every for name in job.names]
    if options.masks and options.unit == "mammogram":
        names += [
            job.name for image in plan.images for _, job in layout.mask_jobs(image, (0, 0)) if job
        ]
    writer.keep_only(names)
    _forecast(writer.left(every), options, writer, progress)
    made = writer.write(every, options.workers, *layout.work, progress)
    done = [job.name for job in every if "taken" in made[job.name]]
    for image in plan.images:
        job = jobs.get(image.image_id)
        facts = made[job.name] if job else {}
        before = len(account.rows)
        layout.account_image(image, job, facts, account)
        account.images += [image] * (len(account.rows) - before)
        if "taken" in facts and options.masks and options.unit == "mammogram":
            shape = facts["height"], facts["width"]
            masks += [(image, *found) for found in layout.mask_jobs(image, shape)]
    if any(job for _, _, job in masks):  # without any, they were not downloaded
        wanted = [job for _, _, job in masks if job]
        made = writer.write(wanted, options.workers, "Writing masks", "masks", progress)
        for image, lesion, job in masks:
            layout.account_mask(image, lesion, job, made[job.name] if job else {}, account)
    # What could not be made this time takes what belongs to it along.
    writer.keep_only(
        [*done, *(row.path for row in account.rows), *(line[2] for line in account.masks)]
    )
    write_set_aside(options.out, account.set_aside)
    return account


def _forecast(left: Sequence[Job], options: Organize, writer: Writer, progress: Progress) -> None:
    """Write one image to say how long all of them will take."""
    if len(left) < 2:
        return
    started = time.perf_counter()
    writer.write(left[:1], 1, "", "", Silent())
    sizes = pixels_of(left)
    rate = (time.perf_counter() - started) / max(1, sizes[0])
    minutes = rate * sum(sizes[1:]) / worker_count(options.workers) / 60
    expected = f"about {minutes:.0f} minutes" if minutes >= 1 else "less than a minute"
    progress.say(f"It will take {expected}.")


def _finish(plan: Plan, layout: Layout, account: Account) -> tuple[dict[str, Any], list[str]]:
    """Write what belongs to the images: tables, sheets, probe, summary."""
    options = plan.options
    out = options.out
    guard_against_leaks(out, account)
    write_manifest(out, account.rows)
    description.write_description(out, account.rows)
    write_table_or_none(out / MASK_TABLE, MASK_COLUMNS, sorted(account.masks))
    write_table_or_none(out / PATCH_TABLE, PATCH_COLUMNS, sorted(account.patches))
    doubts = sorted([*layout.remarks(), *account.notes])
    write_table_or_none(out / NOTES, ("what", "note"), doubts)
    if plan.folds:
        write_folds(out, {plan.shown(who): fold for who, fold in plan.folds.items()})
    else:
        (out / FOLDS).unlink(missing_ok=True)
    samples = _samples(out, account)
    _contact_sheets(out, plan.labels, account, samples)
    # Test labels decide nothing, not even whether the dataset is fit for use.
    looked_at = [row for row in account.rows if row.split != "test" and not row.parent]
    seen = [samples[row.image_id] for row in looked_at]
    findings = shortcuts.judge(out, out, looked_at, seen, options.seed)
    more, told = layout.outcome(account)
    fits = Counter(str(line[6]) for line in account.masks)
    facts = plan.facts() | {
        "images": len(account.rows),
        "patients": len({row.patient_id for row in account.rows}),
        "splits": split_counts(account.images, plan.splits, plan.labels),
        "expected": len(plan.images),
        "without_file": sum(
            reason.startswith(MISSING) and not what.startswith("mask of ")
            for what, reason in account.set_aside
        ),
        "set_aside": len(account.set_aside),
        "masks": {"written": len(account.masks), **fits},
        "notes": len(doubts),
        "shortcuts": findings.facts(),
        **more,
    }
    near = []
    if facts.get("collection") == FOLDERS:  # of any origin, copies among it
        shown = {name: sample.thumbnail for name, sample in samples.items()}
        near = near_duplicates_note(out, account.rows, shown)
    notes = [*_notes(plan, facts, layout), *near, *told, *findings.warnings()]
    write_json(out / SUMMARY, facts | {"warnings": notes})
    return facts, notes


def _samples(out: Path, account: Account) -> dict[str, shortcuts.Sample]:
    """Return each image as the probe and the sheets see it, by image_id."""
    return {
        row.image_id: shortcuts.Sample(
            patient_id=row.patient_id,
            label=row.label,
            height=row.height,
            width=row.width,
            thumbnail=(read_image(out / THUMBNAILS / Path(row.path).name) // SPREAD).astype("u1"),
            collection=row.collection,
            image_id=row.image_id,
        )
        for row in account.rows
    }


def _contact_sheets(
    out: Path, labels: Sequence[str], account: Account, samples: Mapping[str, shortcuts.Sample]
) -> None:
    for split in SPLITS:
        for label in labels:
            path = out / SHEETS / f"{split}_{label}.png"
            shown = [
                (row.image_id, samples[row.image_id].thumbnail)
                for row in sorted(account.rows, key=lambda row: row.image_id)
                if (row.split, row.label) == (split, label)
            ]
            if shown:
                write_contact_sheet(path, f"{split}, {label}", shown)
            else:
                path.unlink(missing_ok=True)


def _notes(plan: Plan, facts: Mapping[str, Any], layout: Layout) -> Iterator[str]:
    options, unit = plan.options, plan.unit
    yield from plan.notes()
    if facts["without_file"]:
        verb = "has" if facts["without_file"] == 1 else "have"
        yield (
            f"{facts['without_file']:,} of {facts['expected']:,} {unit} {verb} no file in "
            f"{options.source}: is the download complete? --check lists what is missing"
        )
    if options.masks and options.unit == "mammogram" and not layout.holds_masks:
        yield "the download holds no masks"
    if facts["notes"]:
        yield f"usable, but worth knowing: {facts['notes']:,} lines in {options.out / NOTES}"
    for split, counts in facts["splits"].items():
        empty = [label for label in plan.labels if not counts[label]]
        if not counts["images"]:
            yield f"{split} holds no image"
        elif empty:
            yield f"{split} holds no {empty[0]} image"


def _result(plan: Plan, facts: Mapping[str, Any], notes: Sequence[str]) -> Result:
    options = plan.options
    masks = f", {facts['masks']['written']:,} masks" if facts["masks"]["written"] else ""
    return Result(
        folder=options.out,
        headline=(
            f"{facts['images']:,} of {facts['expected']:,} {plan.unit} organised,"
            f"{_of_patients(facts, facts['patients']).lstrip(',')}{masks}"
        ),
        facts=facts,
        tables=(split_table(plan, facts), *left_out_table(facts)),
        notes=tuple(notes),
        set_aside=facts["set_aside"],
        next_stage="preprocess",
        next_options={"data": options.out},
    )


if __name__ == "__main__":
    sys.argv.insert(1, "organize")
    runpy.run_path(str(Path(__file__).with_name("main.py")), run_name="__main__")
