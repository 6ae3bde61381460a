"""The stage `runs`: lists the runs, renames one, deletes some."""

import contextlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from interface.upkeep.listing import headline, read_runs, tables_of
from pipeline.errors import UserError, shown
from pipeline.holding import hold, release
from pipeline.leftovers import name_in_work
from pipeline.options import split_several
from pipeline.paths import inside
from pipeline.progress import Progress, Result
from pipeline.records import RECORD, read_json, write_json
from pipeline.resources.sizes import bytes_of, bytes_text
from pipeline.runs import ALL_RUNS, LATEST, METRICS, MODEL_FILE, NEW_RUN, Run, list_all
from pipeline.stages.upkeep import DELETE, RENAME, Runs

STAGE = "runs"
# What a folder may be called everywhere, an answer may name beside others, a shell takes as it is.
NAME = re.compile(r"\w(?:[\w.+-]{0,98}[\w+-])?")
TAKEN = (LATEST, ALL_RUNS, NEW_RUN)  # words that stand for other runs
LIST_THEM = "to see all runs: python main.py runs"


def manage_runs(options: Runs, progress: Progress) -> Result:
    """List the runs of a folder, rename one of them or delete some.

    Returns:
        The list as tables; or what was renamed or deleted, with the bytes freed.

    Raises:
        UserError: A run that there is not, that another process is at work in, or that another
            one needs; a name that cannot be used.
    """
    if options.action == RENAME:
        return _rename(options)
    if options.action == DELETE:
        return _delete(options, progress)
    listed = read_runs(options.runs)
    return Result(
        folder=None,
        headline=headline(listed, options.runs),
        facts={"runs": [one.facts for one in listed], "bytes": sum(one.size for one in listed)},
        tables=tables_of(listed),
    )


def _named(options: Runs) -> list[Run]:
    """Return the runs that were named, each once, all of them in the folder of runs.

    Raises:
        UserError: No run was named, there is none of that name, or it lies elsewhere.
    """
    known = list_all(options.runs)
    if not options.run:
        newest = ", ".join(run.name for run in known[-3:]) or "none"
        problem = f"--action {options.action}: no run was named"
        raise UserError(problem, f"give --run; the newest there are: {newest}")
    by_folder = {run.folder.resolve(): run for run in known}
    found = {}
    for name in split_several(options.run):
        places = (options.runs / name, Path(name).expanduser())
        one = next((by_folder[p.resolve()] for p in places if p.resolve() in by_folder), None)
        if one is None:
            raise UserError(f"--run {name}: no such run in {options.runs}", LIST_THEM)
        # A link may lead to a run of somebody else.
        inside(options.runs, one.name)
        if one.folder.is_symlink() or one.folder.parent.is_symlink():
            raise UserError(f"{one.folder}: is a link", "rename or remove it yourself")
        found[one.folder] = one
    return list(found.values())


def _ensembles(runs: Path) -> dict[Run, list[Path]]:
    """Return the ensembles of a folder with the folders of their members."""
    found = {}
    for run in list_all(runs):
        with contextlib.suppress(UserError):  # what is damaged joins nobody
            members = read_json(run.folder / MODEL_FILE).get("members") or ()
            if members:
                found[run] = [(run.folder / member).resolve() for member in members]
    return found


def _rename(options: Runs) -> Result:
    chosen = _named(options)
    if len(chosen) != 1:
        raise UserError(f"--run {options.run}: names {len(chosen)} runs", "rename one at a time")
    run = chosen[0]
    new = Run(run.folder.with_name(_new_name(options, run)))
    _check_free(new)
    _hold_each([run])
    joined = [one for one, places in _ensembles(options.runs).items()
              if run.folder.resolve() in places]  # fmt: skip
    _hold_each(joined)
    old = run.folder.resolve()
    release(run.folder)  # the lock lies in the folder
    run.folder.rename(new.folder)
    for ensemble in joined:
        _carry(ensemble.folder, MODEL_FILE, "members", old, new)
        for file in (RECORD, "answers.json"):
            _carry_answers(ensemble.folder / file, run.name, new.name)
    with contextlib.suppress(UserError):
        write_json(new.folder / METRICS, read_json(new.folder / METRICS) | {"run": new.name})
    release()
    notes = [f"{one.name} names it by its new name" for one in joined]
    return Result(
        folder=new.folder,
        headline=f"{run.name} is now {new.name}",
        facts={"run": new.name, "before": run.name, "ensembles": [one.name for one in joined]},
        notes=tuple(notes),
    )


def _new_name(options: Runs, run: Run) -> str:
    """Return the last part of a run's new name.

    Raises:
        UserError: There is none, or a run cannot be called that.
    """
    example = f"give it a name such as {run.model}/best"
    name = options.name or ""
    if not name:
        raise UserError("--action rename: no new name was given", f"give --name; {example}")
    last = name.removeprefix(f"{run.model}/")
    if "/" in last or "\\" in last:
        model = "its folder is that of its model, which stays"
        raise UserError(f"--name {shown(name)}: {model}", example)
    if not NAME.fullmatch(last) or last in TAKEN:
        allowed = "up to 100 letters, digits, _ . + -"
        raise UserError(f"--name {shown(name)}: a run cannot be called that", f"give {allowed}")
    return last


def _check_free(new: Run) -> None:
    """Refuse a name that is taken, or that a report or a file system takes for another one.

    Raises:
        UserError: It is.
    """
    alike = _simplified(new.folder.name)
    for path in new.folder.parent.iterdir():
        if _simplified(path.name) == alike:
            raise UserError(
                f"--name {new.folder.name}: {new.model}/{path.name} is there already",
                "give another",
            )


def _simplified(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name).casefold()


def _hold_each(runs: Sequence[Run]) -> None:
    """Hold runs for this process.

    Raises:
        UserError: Another process is at work in one.
    """
    try:
        for run in runs:
            hold(run.folder, STAGE)
    except UserError as error:
        release()
        raise UserError(error.problem, "stop it, or wait for its end") from None


def _carry(folder: Path, file: str, key: str, old: Path, new: Run) -> None:
    """Write a member's new place into the file of an ensemble."""
    facts = read_json(folder / file)
    place = Path("..", "..", new.model, new.folder.name).as_posix()
    facts[key] = [place if _leads(folder, one, old) else one for one in facts[key]]
    write_json(folder / file, facts)


def _leads(folder: Path, member: str, old: Path) -> bool:
    return (folder / member).resolve() == old


def _carry_answers(path: Path, old: str, new: str) -> None:
    """Write a member's new name where an ensemble's answers name it: they are to be repeated."""
    with contextlib.suppress(UserError):  # missing or damaged
        data = read_json(path)
        for one in data.get("stages", [data]):
            members = split_several(str(one["options"].get("members", "")))
            if old in members:
                names = [new if name == old else name for name in members]
                one["options"]["members"] = ",".join(names)
                write_json(path, data)


def _delete(options: Runs, progress: Progress) -> Result:
    chosen = _named(options)
    gone = {run.folder.resolve() for run in chosen}
    for ensemble, places in _ensembles(options.runs).items():
        if ensemble.folder.resolve() not in gone and (needed := gone.intersection(places)):
            names = [run.name for run in chosen if run.folder.resolve() in needed]
            raise UserError(
                f"{', '.join(names)}: {'is a member' if len(names) == 1 else 'are members'} of "
                f"{ensemble.name}",
                "delete that too, or first",
            )
    sizes = {run: bytes_of(run.folder) for run in chosen}
    _hold_each(chosen)
    for run in chosen:
        _remove(run)
        if len(chosen) > 1:
            progress.say(f"Deleted {run.name}: {bytes_text(sizes[run])}")
    count = chosen[0].name if len(chosen) == 1 else f"{len(chosen)} runs"
    left, freed = len(list_all(options.runs)), sum(sizes.values())
    return Result(
        folder=None,
        headline=f"Deleted {count}: {bytes_text(freed)} freed, {left} left in {options.runs}",
        facts={"deleted": [run.name for run in chosen], "bytes": freed, "left": left},
    )


def _remove(run: Run) -> None:
    """Remove a run's folder; killed in between, no part of it is taken for a run."""
    release(run.folder)  # the lock lies in the folder
    # Two levels above, where nothing looks for runs, under the name of a file in work.
    plain = run.folder.name.replace(".", "-")  # what follows a dot would be its suffix
    aside = name_in_work(run.folder.parents[1] / f"{run.model}-{plain}")
    run.folder.rename(aside)
    shutil.rmtree(aside)
    with contextlib.suppress(OSError):  # other runs of the model
        run.folder.parent.rmdir()
