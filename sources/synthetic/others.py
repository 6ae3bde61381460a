"""The stage `synthesize` for the collections beside CBIS-DDSM; each look-alike is a module.

A module of `sources.synthetic.lookalikes` has

- `plan(options)`: the jobs, each a frozen dataclass with `name`, the file that it writes (or the
  first of several), relative to the collection;
- `write(job, out)`: writes the job's files, and returns facts that the tables need, as JSON can
  hold them;
- `tables(jobs, facts)`, if there are any: yields (name, content), given facts by the jobs' names.
"""

import functools
import importlib
import time
from typing import Any

from pipeline.errors import UserError
from pipeline.paths import inside
from pipeline.progress import Progress, Result
from pipeline.records import close_folder, digest, open_folder, write_bytes
from pipeline.stages.collections import Synthesize, short_name
from pipeline.work import Ledger, run_all, worker_count

VERSION = 1  # to be raised when the same options give other bytes
README = """SYNTHETIC DATA. No film in this folder shows a person.

It imitates the form of a collection (folders, names, formats and tables) so that software can be
tried without the download. Pictures, names and diagnoses are drawn at random.
"""


def write_lookalike(options: Synthesize, progress: Progress) -> Result:
    """Write a look-alike; a stopped run continues.

    Raises:
        UserError: The folder holds something else or cannot be written.
    """
    started = time.perf_counter()
    name = "sources.synthetic.lookalikes." + options.collection.replace("-", "_")
    module: Any = importlib.import_module(name)
    jobs = module.plan(options)
    key = digest(VERSION, options.seed, options.patients, options.size, options.collection)
    open_folder(options.out, "synthesize", options)
    ledger = Ledger(options.out)
    for stale in ledger.keep_only([job.name for job in jobs]):
        inside(options.out, stale).unlink(missing_ok=True)
    facts = {job.name: known for job in jobs
             if (known := ledger.facts(job.name, key)) is not None
             and inside(options.out, job.name).is_file()}  # fmt: skip
    left = [job for job in jobs if job.name not in facts]
    workers = min(worker_count(options.workers), max(1, len(left)))
    draw = functools.partial(module.write, out=options.out)
    with progress.track("Drawing films", len(jobs), "files", len(facts)) as advance:
        for job, made in run_all(draw, left, workers):
            if isinstance(made, UserError):
                raise made
            facts[job.name] = made
            ledger.add(job.name, key, made)
            advance(1)
    tables = module.tables(jobs, facts) if hasattr(module, "tables") else ()
    for table, content in tables:
        write_bytes(inside(options.out, table), content)
    write_bytes(options.out / "SYNTHETIC.txt", README.encode())
    counts = {"patients": options.patients, "files": len(jobs)}
    close_folder(options.out, "synthesize", options, counts, key, time.perf_counter() - started)
    return Result(
        folder=options.out,
        headline=f"{len(jobs):,} files in the form of {short_name(options.collection)}, "
        f"of {options.patients} synthetic patients, in {options.out}",
        facts=counts,
        next_stage="organize",
        next_options={"source": options.out},
    )
