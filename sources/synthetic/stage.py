"""The stage `synthesize`: writes a small look-alike of a collection, CBIS-DDSM header for header.

What is in the collection is planned first (synthetic_plan, synthetic_files), then every film is
drawn and written (synthetic_films, synthetic_writing), then the tables (synthetic_tables).
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.paths import inside
from pipeline.progress import Progress, Result, Table
from pipeline.records import close_folder, digest, open_folder, write_text
from pipeline.stages.collections import CBIS_DDSM, Synthesize, film_height
from pipeline.work import LEDGER, Ledger, run_all, worker_count
from sources.synthetic.files import Listing, PlannedFile, file_path, on_disk, plan_files
from sources.synthetic.others import write_lookalike
from sources.synthetic.plan import FilmPlan, plan_collection
from sources.synthetic.tables import CASE_DESCRIPTIONS, case_description, dicom_info, metadata
from sources.synthetic.writing import FilmJob, write_film

STAGE = "synthesize"
VERSION = 2  # to be raised when the same options give other bytes, so that folders are made anew
WHOLE = "collection"  # the ledger's entry that says which options the folder is made with
README = """SYNTHETIC DATA. No film in this folder shows a person.

It imitates the form of CBIS-DDSM (Curated Breast Imaging Subset of DDSM: folders, headers, tables
and their quirks) so that software can be tried without the 163 GB download. The pictures, names,
dates and diagnoses are drawn at random; nothing medical can be learnt from them.
"""


def synthesize(options: Synthesize, progress: Progress) -> Result:
    """Write a synthetic collection.

    The same seed, patients and size give the same plan and pixels in every layout, and the same
    bytes whatever the number of workers. A stopped run continues.

    Returns:
        The collection's folder and a table of its case descriptions.

    Raises:
        UserError: The folder holds something else or cannot be written.
    """
    if options.collection != CBIS_DDSM:
        return write_lookalike(options, progress)
    started = time.perf_counter()
    listings = plan_files(options.seed, plan_collection(options.seed, options.patients))
    files = _distinct_files(listings)
    paths = [file_path(file, options.layout) for _, file in files]
    key = digest(VERSION, options.seed, options.patients, options.size, options.layout)
    open_folder(options.out, STAGE, options)
    ledger = _open_ledger(options.out, key, [*paths, *_table_names(options.layout)])
    _draw_films(options, files, ledger, key, progress)
    facts = {path: ledger.facts(path, key) for path in paths}
    for name, text in _tables(options, listings, files, facts):
        write_text(options.out / name, text)
    counts = {
        "patients": options.patients, "files": len(files),
        "mammograms": sum(file.lesion is None for _, file in files), "rows": len(listings),
    }  # fmt: skip
    close_folder(options.out, STAGE, options, counts, key, time.perf_counter() - started)
    headline = (
        f"{counts['mammograms']} synthetic mammograms of {options.patients} patients with "
        f"{counts['rows']} lesion rows in {options.out}"
    )
    return Result(
        folder=options.out, headline=headline, facts=counts, tables=(_summary(listings),),
        next_stage="organize", next_options={"source": options.out},
    )  # fmt: skip


def _distinct_files(listings: Sequence[Listing]) -> list[tuple[FilmPlan, PlannedFile]]:
    """Return every file once, with its film, in the order of the rows."""
    found = {
        file.instance_uid: (listing.film, file)
        for listing in listings
        for file in (listing.mammogram, listing.crop, listing.mask)
    }
    return list(found.values())


def _open_ledger(out: Path, key: str, names: Sequence[str]) -> Ledger:
    """Take up the ledger of a run with the same options, or remove what other options made.

    Every name enters the ledger before its file is written, so that a run that was stopped
    leaves nothing which the next one would not know of.
    """
    ledger = Ledger(out)
    if ledger.facts(WHOLE, key) is not None:
        return ledger
    for name in set(ledger.keep_only(())) - {WHOLE}:
        path = inside(out, on_disk(name))
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == out or not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()
    (out / LEDGER).unlink(missing_ok=True)
    ledger.add(WHOLE, key, {})
    for name in names:
        ledger.add(name, "planned", None)
    return ledger


def _draw_films(
    options: Synthesize,
    files: Sequence[tuple[FilmPlan, PlannedFile]],
    ledger: Ledger,
    key: str,
    progress: Progress,
) -> None:
    """Draw and write the films that are not there yet."""
    by_film: dict[str, tuple[FilmPlan, list[PlannedFile]]] = {}
    for film, file in files:
        by_film.setdefault(film.film_id, (film, []))[1].append(file)

    def made(file: PlannedFile) -> bool:
        path = file_path(file, options.layout)
        return ledger.facts(path, key) is not None and (options.out / on_disk(path)).is_file()

    jobs = [
        FilmJob(
            film=film, files=tuple(members), out=options.out, layout=options.layout,
            height=film_height(options.size), seed=options.seed,
        )
        for film, members in by_film.values()
        if not all(made(file) for file in members)
    ]  # fmt: skip
    done = len(by_film) - len(jobs)
    workers = min(worker_count(options.workers), max(1, len(jobs)))
    with (
        closing(run_all(write_film, jobs, workers)) as results,
        progress.track("Drawing films", len(by_film), "films", done) as advance,
    ):
        for _, facts in results:
            if isinstance(facts, UserError):
                raise facts
            for path, fact in facts.items():
                ledger.add(path, key, fact)
            advance(1)


def _table_names(layout: str) -> list[str]:
    folder = "csv/" if layout == "kaggle" else ""
    tables = [f"{folder}{name}" for name in CASE_DESCRIPTIONS.values()]
    return [*tables, "csv/dicom_info.csv" if layout == "kaggle" else "metadata.csv", "README.txt"]


def _tables(
    options: Synthesize,
    listings: Sequence[Listing],
    files: Sequence[tuple[FilmPlan, PlannedFile]],
    facts: Mapping[str, Any],
) -> Iterator[tuple[str, str]]:
    *descriptions, index, readme = _table_names(options.layout)
    for name, (finding, split) in zip(descriptions, CASE_DESCRIPTIONS, strict=True):
        yield name, case_description(listings, finding, split)
    if options.layout == "kaggle":
        yield index, dicom_info(files, facts)
    else:
        yield index, metadata(files, options.layout, options.dialect, facts)
    yield readme, README


def _summary(listings: Sequence[Listing]) -> Table:
    rows = []
    for (finding, split), name in CASE_DESCRIPTIONS.items():
        mine = [one for one in listings if (one.finding, one.split) == (finding, split)]
        films = {one.film.film_id for one in mine}
        malignant = {one.film.film_id for one in mine if one.lesion.pathology == "MALIGNANT"}
        patients = {one.film.patient_id for one in mine}
        counts = len(mine), len(films), len(patients), len(films - malignant), len(malignant)
        rows.append((name.removesuffix("_set.csv"), *counts))
    columns = "case description", "rows", "images", "patients", "benign", "malignant"
    return Table("Synthetic collection", columns, tuple(rows))
