"""The stage `predict`: what trained models say of images that a person hands in."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.prediction.inputs import Found, find_images, stamp
from models.prediction.predictor import (
    ANOMALOUS,
    Prediction,
    Predictor,
    open_predictor,
    predict_each,
)
from models.prediction.reading import FilmImage, ReadJob, loading_readers, read_film, reading_code
from models.prediction.results import (
    Line,
    breast_lines,
    headline,
    notes_on,
    tables_of,
    write_results,
)
from pipeline.errors import UserError
from pipeline.labels import KEYS
from pipeline.options import split_several
from pipeline.progress import Progress, Result
from pipeline.records import (
    SET_ASIDE,
    claim_folder,
    close_folder,
    digest,
    open_folder,
    write_set_aside,
)
from pipeline.stages.prediction import Predict
from pipeline.work import Ledger, run_all, worker_count

FEW_FILES = 8  # below which starting processes takes longer than the work
ONNX = "(exported)"
BATCH = 32  # images that are scored at once, at most


@dataclass(frozen=True)
class _Entry:
    """One file, with what the ledger calls it."""

    path: Path
    name: str  # digest of its path
    key: str  # digest of all that its predictions depend on


def predict(options: Predict, progress: Progress) -> Result:
    """Score images with the run's own preprocessing, calibration and operating point.

    What was scored before with the same run is taken over. An image that cannot be read is set
    aside.

    Returns:
        The folder of predictions.csv and predictions.json.

    Raises:
        UserError: There is no image or no such run, or none of the images can be read.
    """
    started = time.monotonic()
    if not options.paths:
        raise UserError("no image was given", "run: python main.py predict IMAGE ...")
    found = find_images(options.paths)
    names = split_several(options.run)
    with loading_readers(found.images):
        predictors = _each_once(
            [open_predictor(options.runs, name, options.fold) for name in names]
        )
    claim_folder(options.out, "predict", options)
    ledger = Ledger(options.out)
    entries = [_entry(path, predictors) for path in found.images]
    done = {one.path: facts for one in entries
            if (facts := ledger.facts(one.name, one.key)) is not None}  # fmt: skip
    open_folder(options.out, "predict", options)
    todo = [one for one in entries if one.path not in done]
    set_aside = [(str(path), _reason(error, path)) for path, error in found.unreadable.items()]
    with progress.track("Scoring images", len(entries), "images", done=len(done)) as advance:
        for entry, facts in _scored(todo, predictors, options):
            if isinstance(facts, UserError):
                set_aside.append((str(entry.path), _reason(facts, entry.path)))
            else:
                ledger.add(entry.name, entry.key, facts)
                done[entry.path] = facts
            advance(1)
    if not done:
        raise _nothing_read(options.out, set_aside)
    pictures = _draw(options, predictors, done, progress)
    lines = [
        Line(
            image=str(one.path),
            predictor=predictor,
            facts=done[one.path],
            said=said,
            heat_map=pictures.get((predictor.name, one.path), ""),
        )
        for one in entries
        if one.path in done
        for predictor, said in zip(predictors, done[one.path]["runs"], strict=True)
    ]
    return _finished(options, found, predictors, lines, set_aside, time.monotonic() - started)


def _each_once(opened: Sequence[Predictor]) -> list[Predictor]:
    """Return each predictor once, and an exported run beside itself under a name of its own."""
    once = {one.key: one for one in opened}.values()
    runs = {one.name for one in once if one.has_network}
    return [
        one if one.has_network or one.name not in runs else replace(one, name=f"{one.name} {ONNX}")
        for one in once
    ]


def _nothing_read(folder: Path, set_aside: Sequence[tuple[str, str]]) -> UserError:
    write_set_aside(folder, set_aside)
    (path, reason), *further = set_aside
    problem = f"none of the images can be read: {path}: {reason}"
    return UserError(problem, f"all reasons are in {folder / SET_ASIDE}" if further else "")


def _entry(path: Path, predictors: Sequence[Predictor]) -> _Entry:
    here = path.absolute()
    keys = [predictor.key for predictor in predictors]
    return _Entry(path, digest(str(here)), digest(str(here), stamp(path), keys, reading_code()))


def _scored(
    entries: Sequence[_Entry], predictors: Sequence[Predictor], options: Predict
) -> Iterator[tuple[_Entry, dict[str, Any] | UserError]]:
    """Yield what each file gives, in batches: reading goes on while a batch is scored."""
    if not entries:
        return
    for predictor in predictors:
        for scorer in predictor.scorers:
            scorer.prepare(options.workers)
    looks = tuple(look for predictor in predictors for look in predictor.looks)
    jobs = {ReadJob(one.path.absolute(), looks): one for one in entries}
    workers = worker_count(options.workers) if len(entries) > FEW_FILES else 1
    waiting: list[tuple[_Entry, FilmImage]] = []
    for job, film in run_all(read_film, jobs, workers):
        if isinstance(film, UserError):
            yield jobs[job], film
            continue
        waiting.append((jobs[job], film))
        if len(waiting) == BATCH:
            yield from _batch(waiting, predictors)
            waiting = []
    if waiting:
        yield from _batch(waiting, predictors)


def _batch(
    waiting: Sequence[tuple[_Entry, FilmImage]], predictors: Sequence[Predictor]
) -> Iterator[tuple[_Entry, dict[str, Any]]]:
    found = predict_each(predictors, [film for _, film in waiting])
    for number, (entry, film) in enumerate(waiting):
        yield (
            entry,
            {
                "height": film.height,
                "width": film.width,
                "laterality": film.laterality,
                "view": film.view,
                "study": film.study,
                "runs": [_facts(predictions[number]) for predictions in found],
            },
        )


def _draw(
    options: Predict,
    predictors: Sequence[Predictor],
    done: Mapping[Path, Mapping[str, Any]],
    progress: Progress,
) -> dict[tuple[str, Path], str]:
    """Draw the heat-maps that are asked for; return the pictures by run and image."""
    drawn: dict[tuple[str, Path], str] = {}
    for place, predictor in enumerate(predictors):
        said = {path: facts["runs"][place] for path, facts in done.items()}
        # Of an image that is unlike those of the training a map would mean nothing either.
        like = [path for path, one in said.items() if not one["complaints"]]
        score = "z" if predictor.is_detector else "probability"
        chosen = sorted(like, key=lambda path: -said[path][score])[: options.heat_maps]
        if not chosen or not predictor.has_network:
            continue
        from models.prediction.heat import draw_films

        pictures = draw_films(chosen, predictor, options.out, progress)
        drawn |= {(predictor.name, path): name for path, name in pictures.items()}
    return drawn


def _facts(one: Prediction) -> dict[str, Any]:
    return {**vars(one), "members": list(one.members), "complaints": list(one.complaints)}


def _called(lines: Sequence[Line]) -> dict[str, int]:
    """Count what classifiers call malignant (positive), and what detectors call anomalous."""
    found: dict[str, int] = {}
    for line in lines:
        key = ANOMALOUS if line.predictor.is_detector else KEYS[1]
        found[key] = found.get(key, 0) + bool(line.said["malignant"])
    return found


def _reason(error: UserError, path: Path) -> str:
    return error.problem.removeprefix(f"{path.absolute()}: ").removeprefix(f"{path}: ")


def _finished(
    options: Predict,
    found: Found,
    predictors: Sequence[Predictor],
    lines: Sequence[Line],
    set_aside: Sequence[tuple[str, str]],
    seconds: float,
) -> Result:
    breasts = breast_lines(lines)
    write_results(options.out, lines, breasts)
    write_set_aside(options.out, set_aside)
    counts = {
        "images": len({line.image for line in lines}),
        **_called(lines),
        "unlike": len({line.image for line in lines if line.complaints}),
        "set_aside": len(set_aside),
    }
    inputs = digest([predictor.key for predictor in predictors], [line.image for line in lines])
    close_folder(options.out, "predict", options, counts, inputs, seconds)
    return Result(
        folder=options.out,
        headline=headline(lines, len(set_aside)),
        facts={**counts, "predictions": [line.as_data() for line in lines]},
        tables=tables_of(lines, predictors, breasts),
        notes=tuple(notes_on(found, lines, predictors)),
        set_aside=len(set_aside),
    )
