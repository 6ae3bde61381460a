"""The stage `compare`: every evaluated run in one table, and which of them can be ranked."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.evaluation.baselines import read_baselines
from models.evaluation.leakage import price_of_leakage
from models.evaluation.operating_point import OperatingPoint
from models.evaluation.predictions import read_predicted
from models.evaluation.scored import ScoredSplit, finite
from models.evaluation.significance import Pair, compare_all, in_words
from models.evaluation.units import grouped
from models.metrics import METRICS
from pipeline.errors import UserError
from pipeline.progress import Cell, Progress, Result, Table
from pipeline.records import (
    close_folder,
    digest,
    file_digest,
    open_folder,
    write_set_aside,
    write_table,
)
from pipeline.runs import METRICS as METRICS_FILE
from pipeline.runs import Run, find_run, list_runs
from pipeline.stages.evaluation import Compare

LOW_FIRST = {"brier", "ece"}
RUN_COLUMNS = ("run", "kind", "data_hash", "unit", "number", "patients", "malignant", *(
    f"{name}{part}" for name in METRICS for part in ("", "_low", "_high")))  # fmt: skip
PAIR_COLUMNS = ("first", "second", "difference", "low", "high", "p_bootstrap", "p_delong",
                "p_mcnemar", "p_adjusted")  # fmt: skip
SHOWN_PAIRS = 10


@dataclass(frozen=True)
class Entry:
    """One line of the table: a run or a baseline."""

    name: str
    kind: str  # "run" or "baseline"
    data_hash: str
    scored: ScoredSplit

    @property
    def tested_on(self) -> tuple[Any, ...]:
        """What has to be equal for two entries to stand in one comparison."""
        return self.data_hash, tuple(self.scored.unit.keys), tuple(self.scored.targets.tolist())


def compare(options: Compare, progress: Progress) -> Result:
    """Compare the test scores of all evaluated runs; see `models.evaluation.significance`.

    Returns:
        The folder with runs.csv and pairs.csv.

    Raises:
        UserError: No run has been evaluated, or none has the name that is asked for.
    """
    started = time.perf_counter()
    runs = _chosen(options)
    entries, refused = _entries(runs, options, progress)
    if not entries:
        raise UserError(f"{options.runs}: no run can be read ({refused[0][1]})")
    entries += _beside(entries, options)
    entries.sort(key=lambda entry: _rank(entry, options.sort))
    pairs, words = _pairs(entries, options, progress)
    labels = _labels(entries)
    leak = price_of_leakage(options, find_run(options.runs, options.run), progress) if (
        options.price_of_leakage) else None  # fmt: skip
    open_folder(options.out, "compare", options)
    write_table(options.out / "runs.csv", RUN_COLUMNS, [_line(one, options) for one in entries])
    write_table(
        options.out / "pairs.csv",
        PAIR_COLUMNS,
        [tuple(getattr(pair, name) for name in PAIR_COLUMNS) for pair in pairs],
    )
    write_set_aside(options.out, refused)
    counts = {"runs": sum(entry.kind == "run" for entry in entries), "pairs": len(pairs)}
    inputs = digest(*sorted(file_digest(run.folder / METRICS_FILE) for run in runs))
    close_folder(options.out, "compare", options, counts, inputs, time.perf_counter() - started)
    return Result(
        folder=options.out,
        headline=words[0],
        facts={
            "runs": {one.name: finite(one.scored.estimates["auc"].value) for one in entries},
            "words": words,
            "price_of_leakage": leak.facts if leak else None,
        },
        tables=(
            _table(entries, labels, options),
            *_pair_table(pairs, labels),
            *([leak.table] if leak else []),
        ),
        notes=(*words[1:], *(leak.notes if leak else ())),
        set_aside=len(refused),
    )


def _chosen(options: Compare) -> list[Run]:
    finished = list_runs(options.runs)
    evaluated = [run for run in finished if run.evaluated]
    if not evaluated:
        state = "holds no evaluated run" if finished else "holds no finished run"
        command = f"run: python main.py {'evaluate' if finished else 'train'}"
        raise UserError(f"{options.runs}: {state}", command)
    chosen = [run for run in evaluated if options.filter.lower() in run.name.lower()]
    if not chosen:
        names = ", ".join(run.name for run in evaluated[-3:])
        raise UserError(f"--filter {options.filter}: is in no run's name", f"runs: {names}")
    return chosen


def _entries(
    runs: Sequence[Run], options: Compare, progress: Progress
) -> tuple[list[Entry], list[tuple[str, str]]]:
    entries, refused = [], []
    with progress.track("Measuring runs", len(runs), "runs") as advance:
        for run in runs:
            try:
                entries.append(_of_run(run, options))
            except (UserError, KeyError, ValueError) as error:
                again = f"evaluate again with: python main.py evaluate --run {run.name} --batch"
                refused.append((run.name, f"{error}; {again}"))
            advance(1)
    return entries, refused


def _of_run(run: Run, options: Compare) -> Entry:
    measured = run.metrics()
    point = measured["operating_point"] if options.unit == "image" else (
        measured["units"][options.unit])  # fmt: skip
    rows, scores = read_predicted(run.folder / "predictions_test.csv")
    threshold = OperatingPoint(float(point["threshold"]), str(point["rule"]))
    unit = grouped(rows, np.array(scores, np.float64), options.unit, str(measured["aggregate"]))
    scored = ScoredSplit.of(unit, threshold, options.replicates, options.seed)
    return Entry(run.name, "run", measured["data_hash"], scored)


def _beside(entries: Sequence[Entry], options: Compare) -> list[Entry]:
    """Return the baselines of each dataset, on the test images of the first run on it."""
    found = []
    seen: set[str] = set()
    for run in list_runs(options.runs):
        if not run.evaluated or (name := str(run.metrics()["data_hash"])) in seen:
            continue
        if not any(entry.data_hash == name for entry in entries):
            continue
        seen.add(name)
        rows, _ = read_predicted(run.folder / "predictions_test.csv")
        for one in read_baselines(options.runs, name):
            known = [row for row in rows if row.image_id in one["test"]]
            if known:
                scores = np.array([float(one["test"][row.image_id]) for row in known])
                unit, point = grouped(known, scores, options.unit, "max"), OperatingPoint(0.5, "")
                scored = ScoredSplit.of(unit, point, options.replicates, options.seed)
                found.append(Entry(one["title"], "baseline", name, scored))
    return found


def _rank(entry: Entry, measure: str) -> tuple[float, str]:
    if measure == "name":
        return (0.0, entry.name)
    value = entry.scored.estimates[measure].value
    if np.isnan(value):
        return (np.inf, entry.name)
    return (value if measure in LOW_FIRST else -value, entry.name)


def _pairs(
    entries: Sequence[Entry], options: Compare, progress: Progress
) -> tuple[list[Pair], list[str]]:
    """Compare all runs that were tested on the same; the largest such group leads."""
    groups: dict[Any, list[Entry]] = {}
    for entry in entries:
        if entry.kind == "run":
            groups.setdefault(entry.tested_on, []).append(entry)
    pairs: list[Pair] = []
    words: list[str] = []
    labels = _labels(entries)
    for group in sorted(groups.values(), key=len, reverse=True):
        names = [entry.name for entry in group]
        if len(group) > 1:
            tested, scored = group[0].scored.unit, [one.scored for one in group]
            progress.say(f"Comparing {len(group)} runs on the same {len(tested.keys)} test "
                         f"{options.unit}s")  # fmt: skip
            found = compare_all(
                names, tested.targets, np.stack([one.scores for one in scored]),
                np.stack([one.scores >= one.point.threshold for one in scored]), tested.patients,
                options.replicates, options.seed,
            )  # fmt: skip
            pairs += found
            text = in_words(found)
            for name in names:
                text = text.replace(name, labels[name])
            words.append(text)
    if len(groups) > 1:
        words.append(f"{len(groups)} different test sets: only runs on the same one compare")
    return pairs, words or ["One run only: nothing to compare it with"]


def _labels(entries: Sequence[Entry]) -> dict[str, str]:
    """Return what each run is called on the terminal: its model, where that says which."""
    models = Counter(entry.name.split("/")[0] for entry in entries)
    return {
        entry.name: model if models[model := entry.name.split("/")[0]] == 1 else entry.name
        for entry in entries
    }


def _line(entry: Entry, options: Compare) -> tuple[Cell, ...]:
    found = entry.scored.figures
    figures = [
        found["metrics"][name][part] for name in METRICS for part in ("value", "low", "high")
    ]
    return (entry.name, entry.kind, entry.data_hash, options.unit, found["images"],
            found["patients"], found["malignant"], *figures)  # fmt: skip


def _table(entries: Sequence[Entry], labels: Mapping[str, str], options: Compare) -> Table:
    own = options.sort if options.sort not in ("auc", "name", "sensitivity", "specificity") else ""
    columns = ["Run", "AUC", "95 % interval", "Sens.", "Spec."]
    if own:
        columns.append(own.replace("_", " "))
    rows = []
    for entry in entries:
        measures = entry.scored.estimates
        area = measures["auc"]
        interval = "-" if np.isnan(area.low) else f"{area.low:.2f} to {area.high:.2f}"
        name = labels[entry.name].replace("/", "\n")
        cells: list[Cell] = [name, finite(area.value), interval]
        for measure in ("sensitivity", "specificity"):
            run = entry.kind == "run"  # a baseline has no operating point
            cells.append(finite(measures[measure].value) if run else "-")
        if own:
            cells.append(finite(measures[own].value))
        rows.append(tuple(cells))
    return Table(f"Test {options.unit}s, by {options.sort}", tuple(columns), tuple(rows))


def _pair_table(pairs: Sequence[Pair], labels: Mapping[str, str]) -> list[Table]:
    """Return the pairs that differ most surely."""
    if not pairs:
        return []
    surest = sorted(pairs, key=lambda pair: (pair.p_adjusted, -abs(pair.difference)))
    rows = [
        (f"{labels[pair.first]} -\n{labels[pair.second]}", pair.difference,
         f"{pair.low:.2f} to {pair.high:.2f}", pair.p_adjusted)
        for pair in surest[:SHOWN_PAIRS]
    ]  # fmt: skip
    title = "Pairs on the same test set"
    if len(pairs) > SHOWN_PAIRS:
        title += f", the {SHOWN_PAIRS} surest of {len(pairs)}"
    return [Table(title, ("Pair", "AUC diff.", "95 % interval", "p (Holm)"), tuple(rows))]
