"""The stage `clean`: what is kept beside the results to save time, and how to be rid of it."""

import contextlib
import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from interface.upkeep.kept import Kept, find_kept, in_use
from pipeline.errors import UserError
from pipeline.holding import hold, release
from pipeline.options import Answers, split_several
from pipeline.processes import program
from pipeline.progress import Progress, Result, Table
from pipeline.records import RECORD
from pipeline.resources.sizes import bytes_of, bytes_text
from pipeline.stages.upkeep import EVERYTHING, KINDS, NOTHING, Clean

STAGE = "clean"


def clean(options: Clean, progress: Progress) -> Result:
    """Show what is kept to save time below a folder, and remove the kinds that are chosen.

    Results are never touched, nor is what another process uses; links are not followed.

    Returns:
        Bytes by kind, and what was freed.
    """
    kept = find_kept(options.folder)
    used = in_use(kept)
    chosen = _kinds_of(options.what)
    free = [one for one in kept if one not in used]
    facts: dict[str, Any] = {"kinds": _sizes(kept), "in_use": sorted(str(one.path) for one in used)}
    if not chosen:
        total = sum(one.size for one in free)
        return Result(
            folder=None,
            headline=_headline(options.folder, total),
            facts=facts | {"bytes": total},
            tables=(_table(kept),) if kept else (),
            notes=(*_notes(used, [*KINDS]), *([_command(options.folder)] if total else [])),
        )
    wanted = [one for one in free if one.kind in chosen]
    freed, problems = 0, []
    with progress.track("Removing", len(wanted), "files and folders") as advance:
        for one in wanted:
            size, problem = _remove(one)
            freed += size
            problems += [problem] if problem else []
            advance(1)
    names = "everything" if len(chosen) == len(KINDS) else ", ".join(chosen)
    return Result(
        folder=None,
        headline=f"{bytes_text(freed)} freed" if wanted else f"Nothing to remove of {names}",
        facts=facts | {"bytes": freed, "removed": [str(one.path) for one in wanted]},
        notes=(*_notes(used, chosen), *problems),
    )


def _notes(used: Mapping[Kept, str], kinds: Sequence[str]) -> tuple[str, ...]:
    """Return what is left of the kinds because a process uses it, each kind of a folder once."""
    lines = {
        (one.kind, one.owner): f"{one.kind} of {one.owner}: left, {reason}"
        for one, reason in used.items()
        if one.kind in kinds
    }
    return tuple(lines.values())


def _kinds_of(what: str) -> list[str]:
    """Return the kinds that an answer names; none where nothing is to be removed.

    Raises:
        UserError: It says nothing and something at once.
    """
    parts = split_several(what)
    if NOTHING in parts and len(parts) > 1:
        raise UserError(f"--what {what}: names nothing and something", f"leave out {NOTHING}")
    if EVERYTHING in parts:
        return [*KINDS]
    return [kind for kind in KINDS if kind in parts]


def _sizes(kept: Sequence[Kept]) -> dict[str, int]:
    return {kind: sum(one.size for one in kept if one.kind == kind) for kind in KINDS}


def live_sizes(_name: str, answers: Answers) -> dict[str, str]:
    """Return for each kind how many bytes there are, for the question."""
    with contextlib.suppress(OSError):
        kept = find_kept(Path(answers["folder"]))
        sizes = _sizes(kept)
        words = {kind: bytes_text(size) if size else "none" for kind, size in sizes.items()}
        return words | {EVERYTHING: bytes_text(sum(sizes.values()))}
    return {}


def _headline(folder: Path, total: int) -> str:
    where = "here" if folder == Path() else f"in {folder}"
    if not total:
        return f"Nothing to remove {where}"
    return f"{bytes_text(total)} {where} can be freed"


def _command(folder: Path) -> str:
    """Return the command that removes everything; on a line of its own, to be copied."""
    where = [] if folder == Path() else ["--folder", str(folder)]
    words = [STAGE, "--what", EVERYTHING, *where, "--batch"]
    return f"remove them all with: {program()} {shlex.join(words)}"


def _table(kept: Sequence[Kept]) -> Table:
    """Return one row for each kind and folder."""
    sizes: dict[tuple[str, Path], int] = {}
    for one in kept:
        sizes[one.kind, one.owner] = sizes.get((one.kind, one.owner), 0) + one.size
    rows = tuple(
        (kind, KINDS[kind], str(owner), f"{bytes_text(size):>7}")
        for (kind, owner), size in sorted(
            sizes.items(), key=lambda item: [*KINDS].index(item[0][0])
        )
    )
    return Table("Caches and working files", ("Kind", "What", "Of", "   Size"), rows)


def _remove(one: Kept) -> tuple[int, str]:
    """Remove a file or a folder; return the bytes freed, and why it is still there or nothing.

    Another process may have begun with it since it was found.
    """
    if one.path.is_symlink():
        return 0, f"{one.path}: left, it is a link"
    size = bytes_of(one.path)
    try:
        if one.hold:
            hold(one.owner, STAGE)
        if one.kind == "reports" and (one.path / RECORD).is_file():
            return 0, f"{one.path}: left, it was finished in the meantime"
        if one.path.is_dir():
            shutil.rmtree(one.path)
        else:
            one.path.unlink()
    except UserError as error:
        return 0, f"{one.path}: left, {error.problem}"
    except OSError as error:
        return size - bytes_of(one.path), f"{one.path}: cannot be removed ({error.strerror})"
    finally:
        release(one.owner)
    _remove_empty(one.empties)
    return size, ""


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):  # not empty
            folder.rmdir()
