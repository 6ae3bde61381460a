"""Files that can be trusted: written whole or not at all, and the record that closes a stage."""

import contextlib
import csv
import dataclasses
import functools
import hashlib
import json
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import UserError, shown
from pipeline.holding import HOLDER, LOCK, hold, is_held, release
from pipeline.leftovers import LEFT_OVER, name_in_work
from pipeline.paths import link_out_of

RECORD = "stage.json"  # written last: its presence says that the folder is complete
UNFINISHED = "unfinished.json"  # written first: says that the folder is ours and what made it
SET_ASIDE = "set_aside.csv"
TIME = "time"  # in either of the two: when it was written, in UTC
DIGEST_BLOCK = 2**24  # bytes of a file that are read at once for its digest
_begun: dict[Path, dict[str, Any]] = {}  # what UNFINISHED says, of folders that are held
DAMAGED = "mend it, or make its folder again"
PACKAGES = (
    "torch", "torchvision", "timm", "optuna", "pydicom", "opencv-python", "albumentations",
    "numpy", "scipy", "scikit-learn", "matplotlib", "isal", "python-gdcm", "grad-cam", "onnx",
    "onnxruntime",
)  # fmt: skip


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its name when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = name_in_work(path)
    try:
        yield temporary
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename = str(path)  # a full disk names no file
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic(path) as temporary:
        # A file's name may hold bytes that are no text; they are shown escaped.
        temporary.write_text(text, encoding="utf-8", newline="\n", errors="backslashreplace")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, data: Any) -> None:
    """Write data as readable JSON, paths as text, whole or not at all."""
    write_text(path, json.dumps(data, indent=2, default=str) + "\n")


def read_json(path: Path, like: str = "", remedy: str = DAMAGED) -> Any:
    """Read a JSON file that the tool wrote, after holding it against its schema.

    Args:
        path: Of the file.
        like: The key of its schema (`pipeline.schemas.SCHEMAS`), where neither its name nor its
            folder's tells it.
        remedy: What to do about a damaged one.

    Raises:
        UserError: The file is missing, is not JSON or does not hold what the tool writes.
    """
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})", remedy) from None
    import msgspec  # as long to load as all of --help

    from pipeline.schemas import SCHEMAS

    hidden = path.parent.name
    name = like or (hidden if hidden in SCHEMAS else path.name)
    try:
        msgspec.convert(data, SCHEMAS[name])
    except (msgspec.ValidationError, RecursionError) as error:
        raise UserError(f"{path}: is damaged or of another version ({error})", remedy) from None
    return data


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a CSV file whole or not at all."""
    with (
        atomic(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def write_table_or_none(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a table; without rows there is to be no file, and that of an earlier run goes."""
    if rows:
        write_table(path, columns, rows)
    else:
        path.unlink(missing_ok=True)


def write_set_aside(folder: Path, rows: Sequence[tuple[str, str]]) -> None:
    """List what could not be used, with the reason; no file where nothing was set aside."""
    write_table_or_none(folder / SET_ASIDE, ("what", "reason"), sorted(rows))


def digest(*parts: Any) -> str:
    """Return a short SHA-256 of anything JSON can hold, the same on every machine."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Return a short SHA-256 of a file's bytes."""
    found = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        # After every block a thread has to wait until others leave the interpreter to it.
        while block := file.read(DIGEST_BLOCK):
            found.update(block)
    return found.hexdigest()[:16]


def plain_options(options: Any) -> dict[str, Any]:
    """Return a stage's options as JSON can hold them, paths as text."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in dataclasses.asdict(options).items()
    }


def tool_version() -> str:
    """Return the version of this tool; empty where its pyproject.toml was not installed with it."""
    import tomllib  # milliseconds that only --version and export need

    project = Path(__file__).parents[1] / "pyproject.toml"
    with contextlib.suppress(OSError):
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
    return ""


def _installed() -> dict[str, str]:
    """Return the versions that the names of installed packages' folders tell, by package."""
    found: dict[str, str] = {}
    for place in reversed([Path(one) for one in sys.path if one]):  # the first on the path wins
        for folder in place.glob("*.dist-info"):
            name, _, version = folder.stem.rpartition("-")
            found[name.replace("_", "-").lower()] = version
    return found


def _version(package: str) -> str:
    """Return the version of a package that was installed in another way; empty where it is not."""
    import importlib.metadata  # as long to load as all else that --help loads

    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return ""


@functools.cache  # to look these up takes longer than many a stage of few images
def versions() -> Mapping[str, str]:
    """Return the versions that a result depends on: Python, the packages, the tool's commit."""
    import subprocess

    known = _installed()
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        if version := known.get(package) or _version(package):
            found[package] = version
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
        found["commit"] = commit.stdout.strip()
    return found


def claim_folder(folder: Path, stage: str, options: Any, alone: bool = True) -> None:
    """Make a stage's output folder, or take up one that the same stage left there.

    What it holds stays as it is, so that a stage can still refuse its inputs. The folder is held
    for this process until `close_folder` or `pipeline.holding.release`.

    Args:
        folder: To make or to take up.
        stage: The stage's name.
        options: Its options.
        alone: Whether no other process may work in it at the same time.

    Raises:
        UserError: The folder holds something that the stage did not make, cannot be written, or
            another process is at work there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        owned = _is_owned(folder, stage)
        if alone:
            hold(folder, stage)
        if link := link_out_of(folder):
            raise UserError(f"{link}: is a link out of {folder}", "remove the link")
        for path in folder.glob("**/.*.part*"):
            if LEFT_OVER.fullmatch(path.name) and path.is_file():
                path.unlink()  # what a killed run was writing
        if not owned:
            _begin(folder, stage, options)
    except PermissionError:
        raise UserError(f"{folder}: may not be written", "choose another --out") from None
    except (FileExistsError, NotADirectoryError):
        raise UserError(
            f"{folder}: a file is in the way of this folder", "choose another --out"
        ) from None
    except FileNotFoundError:  # a drive that is not there, or a folder that only the system fills
        raise UserError(f"{folder}: cannot be made there", "choose another --out") from None


def _is_owned(folder: Path, stage: str) -> bool:
    """Return whether a folder is of the stage; one that is empty is of nobody yet.

    Raises:
        UserError: It is somebody else's.
    """
    owned = (folder / UNFINISHED).is_file() or (folder / RECORD).is_file()
    if owned and (maker := _maker(folder)) != stage:
        raise UserError(f"{folder}: was made by {maker}, not {stage}", "choose another --out")
    if not owned and not all(_was_begun(path) for path in folder.iterdir()):
        problem = f"{folder}: is not empty and was not made by {stage}"
        raise UserError(problem, "choose another --out")
    return owned


def open_folder(folder: Path, stage: str, options: Any, alone: bool = True) -> None:
    """Begin to write a stage's output: the folder is claimed, and not complete from here on.

    Raises:
        UserError: As `claim_folder`.
    """
    claim_folder(folder, stage, options, alone)
    _begin(folder, stage, options)
    (folder / RECORD).unlink(missing_ok=True)


def _was_begun(path: Path) -> bool:
    """Return whether a file is what is left of a run that was killed at its very beginning."""
    begun = bool(LEFT_OVER.fullmatch(path.name)) and path.name.startswith(f".{UNFINISHED[:-5]}.")
    return begun or path.name in (LOCK, HOLDER)


def _begin(folder: Path, stage: str, options: Any) -> None:
    begun = {"stage": stage, "options": plain_options(options), TIME: _now()}
    write_json(folder / UNFINISHED, begun)
    if is_held(folder):
        _begun[folder.resolve()] = begun


def leave_folders() -> None:
    """Release all folders that this process holds, however the work in them ended.

    Where somebody removed one during the work, and a worker has written to it since, the next run
    has to find whose it is.
    """
    for folder, begun in _begun.items():
        closed = any((folder / name).is_file() for name in (RECORD, UNFINISHED))
        if is_held(folder) and folder.is_dir() and not closed:
            with contextlib.suppress(OSError):
                write_json(folder / UNFINISHED, begun)
    _begun.clear()
    release()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _maker(folder: Path) -> str:
    record = folder / RECORD if (folder / RECORD).is_file() else folder / UNFINISHED
    return shown(read_json(record)["stage"])


def close_folder(
    folder: Path,
    stage: str,
    options: Any,
    counts: Mapping[str, Any],
    inputs: str,
    seconds: float,
    **content: Any,
) -> None:
    """Write the completion record and the answers file: the last act of a stage.

    Args:
        folder: The stage's output folder.
        stage: The stage's name.
        options: Its options.
        counts: What was made, in figures.
        inputs: A digest of what it was made from.
        seconds: How long it took.
        content: What else the record is to say of what was made; see `pipeline.provenance`.

    Raises:
        UserError: Somebody removed the folder, or files in it, since the stage began.
    """
    if is_held(folder) and not (folder / UNFINISHED).is_file():
        raise UserError(f"{folder}: was removed during the work", "run it again")
    plain = plain_options(options)
    answers = {"stages": [{"stage": stage, "options": plain}]}
    write_json(folder / "answers.json", answers)
    record = {
        "stage": stage, "state": "done", "options": plain, "counts": dict(counts),
        "input_hash": inputs, "seconds": round(seconds, 1), TIME: _now(), **content,
        "versions": versions(),
    }  # fmt: skip
    write_json(folder / RECORD, record)
    (folder / UNFINISHED).unlink(missing_ok=True)
    release(folder)


def read_record(folder: Path, *makers: str) -> dict[str, Any]:
    """Read the record of a finished stage.

    Args:
        folder: The folder that the stage made.
        makers: The stages whose output will do.

    Raises:
        UserError: There is no such folder, it is not complete, or another stage made it; the
            message names the command that makes it.
    """
    command = f"run: python main.py {makers[0]}"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder", command)
    if not (folder / RECORD).is_file():
        if (folder / UNFINISHED).is_file():
            raise UserError(f"{folder}: was not finished", f"to continue, {command}")
        raise UserError(f"{folder}: is not a folder made by {' or '.join(makers)}", command)
    record: dict[str, Any] = read_json(folder / RECORD)
    if record.get("stage") not in makers:
        raise UserError(f"{folder}: was made by {shown(record['stage'])}", command)
    return record


def made_by(*makers: str) -> Any:
    """Return a check that a folder is the complete output of one of the stages."""

    def check(folder: Path) -> str | None:
        try:
            read_record(folder, *makers)
        except UserError as error:
            return str(error).removeprefix(f"{folder}: ")
        return None

    return check
