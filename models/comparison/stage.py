"""The stage `compare`: every evaluated run in one table, and which of them can be ranked."""

import dataclasses
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from models.comparison.entries import Entry, read_entries
from models.comparison.significance import Pair, compare_all, in_words
from models.evaluation.scored import finite, interval_text
from models.metrics import METRICS, PF1
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
from pipeline.runs import Run, find_run, in_two_lines, list_runs
from pipeline.stages.evaluation import Compare
from pipeline.work import worker_count

if TYPE_CHECKING:
    from models.comparison.anomaly import Beside
    from models.comparison.leakage import Leak

LOW_FIRST = {"brier", "ece"}
RUN_COLUMNS = (
    "run", "kind", "preprocessing", "test_images", "data", "data_hash", "unit", "number",
    "patients", "malignant",
)  # fmt: skip
PARTS = ("", "_low", "_high")  # of a measure in runs.csv, behind its name
PAIR_COLUMNS = ("first", "second", "difference", "low", "high", "p_bootstrap", "p_delong",
                "p_mcnemar", "p_adjusted", "p_choice")  # fmt: skip
CALLED = ("sensitivity", "specificity")  # at the operating point
AREAS = {"auc": "AUC", "pr_auc": "PR AUC"}
ANOMALY_FILES = (  # of `models.comparison.anomaly`
    "anomaly.json", "anomaly.csv", "anomaly_pairs.csv", "growth.csv", "figures/growth.svg",
    "figures/growth.png",
)  # fmt: skip
SHOWN_RUNS, SHOWN_PAIRS = 40, 10  # on the terminal


def compare(options: Compare, progress: Progress) -> Result:
    """Compare the test scores of all evaluated runs; see `models.comparison.significance`.

    Returns:
        The folder with runs.csv and pairs.csv.

    Raises:
        UserError: No run has been evaluated, or none has the name that is asked for.
    """
    started = time.perf_counter()
    runs = _chosen(options)
    entries, refused = read_entries(runs, options, progress)
    if not entries:
        raise UserError(f"{options.runs}: no run can be read ({refused[0][1]})")
    entries.sort(key=lambda entry: _rank(entry, options.sort))
    groups = _groups(entries)
    pairs, words = _pairs(groups, _labels(entries), options, progress)
    leak, beside = _further(options, runs, entries, progress)
    open_folder(options.out, "compare", options)
    measures = (*METRICS, *([PF1] if any(entry.scored.rare for entry in entries) else []))
    columns = (*RUN_COLUMNS, *(f"{name}{part}" for name in measures for part in PARTS))
    lines = [_line(one, measures, options) for one in entries]
    write_table(options.out / "runs.csv", columns, lines)
    write_table(options.out / "pairs.csv", PAIR_COLUMNS, [_pair_line(pair) for pair in pairs])
    write_set_aside(options.out, refused)
    for name in ANOMALY_FILES:  # of an earlier comparison: of other runs, or other figures
        (options.out / name).unlink(missing_ok=True)
    if beside:
        beside.write(options.out)
    counts = {"runs": sum(entry.kind == "run" for entry in entries), "pairs": len(pairs)}
    inputs = digest(*sorted(file_digest(run.folder / METRICS_FILE) for run in runs))
    close_folder(options.out, "compare", options, counts, inputs, time.perf_counter() - started)
    return Result(
        folder=options.out,
        headline=words[0],
        facts={
            "runs": _areas(entries),
            "words": words,
            "price_of_leakage": leak.facts if leak else None,
            "anomaly": beside.facts if beside else None,
        },
        tables=(
            _table(entries, groups, options),
            *_pair_table(pairs, _labels(entries), options),
            *([leak.table] if leak else []),
            *(beside.tables if beside else ()),
        ),
        next_stage="report",
        next_options={"runs": options.runs},
        notes=(
            *words[1:],
            *(leak.notes if leak else ()),
            *((" ".join(beside.words), *beside.notes) if beside else ()),
        ),
        set_aside=len(refused),
    )


def _further(
    options: Compare, runs: Sequence[Run], entries: Sequence[Entry], progress: Progress
) -> "tuple[Leak | None, Beside | None]":
    """Return what is asked for beside the table: the price of a leak, detectors beside classifiers.

    Both load torch, which takes longer than most comparisons.
    """
    leak = beside = None
    if options.price_of_leakage:
        from models.comparison.leakage import price_of_leakage

        leak = price_of_leakage(options, find_run(options.runs, options.run), progress)
    if options.anomaly:
        from models.comparison.anomaly import set_beside

        names = {entry.name for entry in entries}
        beside = set_beside(options, [run for run in runs if run.name in names], entries, progress)
    return leak, beside


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


def _rank(entry: Entry, measure: str) -> tuple[float, str]:
    if measure == "name":
        return (0.0, entry.name)
    value = entry.scored.estimates[measure].value
    if np.isnan(value):
        return (np.inf, entry.name)
    return (value if measure in LOW_FIRST else -value, entry.name)


def _areas(entries: Sequence[Entry]) -> dict[str, float | None]:
    """Return the AUC of each entry by name; of baselines of one name, by preprocessing too."""
    counts = Counter(entry.name for entry in entries)
    found = {}
    for entry in entries:
        of = f" ({entry.tested.preprocessing or '-'})" if counts[entry.name] > 1 else ""
        found[entry.name + of] = finite(entry.scored.estimates["auc"].value)
    return found


def _groups(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Return the runs by what they were tested on, the largest such group first."""
    groups: dict[Any, list[Entry]] = {}
    for entry in entries:
        if entry.kind == "run":
            groups.setdefault(entry.tested_on, []).append(entry)
    return sorted(groups.values(), key=len, reverse=True)


def _pairs(
    groups: Sequence[Sequence[Entry]],
    labels: Mapping[str, str],
    options: Compare,
    progress: Progress,
) -> tuple[list[Pair], list[str]]:
    """Compare all runs that were tested on the same, and say what was found."""
    pairs: list[Pair] = []
    words: list[str] = []
    for group in groups:
        if len(group) == 1:
            continue
        tested, scored = group[0].scored.unit, [one.scored for one in group]
        progress.say(f"Comparing {len(group)} runs on the same {len(tested.keys)} test "
                     f"{options.unit}s")  # fmt: skip
        found = compare_all(
            [entry.name for entry in group], tested.targets,
            np.stack([one.scores for one in scored]),
            np.stack([one.scores >= one.point.threshold for one in scored]), tested.patients,
            options.replicates, options.seed, best_only=not options.all_pairs,
            workers=worker_count(options.workers), progress=progress,
        )  # fmt: skip
        pairs += found
        words.append(in_words([
            dataclasses.replace(pair, first=labels[pair.first], second=labels[pair.second])
            for pair in found
        ]))  # fmt: skip
    words = words or ["One run only: nothing to compare it with"]
    if len(groups) > 1:
        words.append(f"{len(groups)} different test sets: only runs on the same one compare")
    looks = Counter(entry.tested.preprocessing for group in groups[:1] for entry in group)
    if len(looks) > 1:
        listed = "; ".join(f"{look or 'not known'} ({count})" for look, count in looks.items())
        words.append(f"the same test images, preprocessed in {len(looks)} ways: {listed}")
    return pairs, words


def _labels(entries: Sequence[Entry]) -> dict[str, str]:
    """Return what each run is called on the terminal: its model, where that says which."""
    models = Counter(entry.name.split("/")[0] for entry in entries)
    return {
        entry.name: model if models[model := entry.name.split("/")[0]] == 1 else entry.name
        for entry in entries
    }


def _line(entry: Entry, measures: Sequence[str], options: Compare) -> tuple[Cell, ...]:
    found, tested = entry.scored.figures(rare=True), entry.tested
    figures = [
        found["metrics"][name][part] for name in measures for part in ("value", "low", "high")
    ]
    return (entry.name, entry.kind, tested.preprocessing, tested.images, tested.data,
            tested.data_hash, options.unit, found["images"], found["patients"],
            found["malignant"], *figures)  # fmt: skip


def _pair_line(pair: Pair) -> tuple[Cell, ...]:
    values = (getattr(pair, name) for name in PAIR_COLUMNS)
    return tuple(finite(value) if isinstance(value, float) else value for value in values)


def _table(entries: Sequence[Entry], groups: Sequence[Sequence[Entry]], options: Compare) -> Table:
    # Where few images are positive, PR AUC leads and ROC AUC, of which it says little, goes.
    rare = any(entry.scored.rare for entry in entries if entry.kind == "run")
    leading = "pr_auc" if rare else "auc"
    own = options.sort if options.sort not in {"auc", "name", *CALLED, leading} else ""
    own = own or (PF1 if rare else "")
    labels, images = _labels(entries), _images(entries, groups)
    columns = ["Run", *(["Images"] if images else []), AREAS[leading], "95 % interval",
               "Sens.", "Spec."]  # fmt: skip
    if own:
        columns.append("pF1" if own == PF1 else own.replace("_", " "))
    rows = []
    runs = [entry for entry in entries if entry.kind == "run"]
    hidden = {id(entry) for entry in runs[SHOWN_RUNS:]}
    for entry in (one for one in entries if id(one) not in hidden):
        measures = entry.scored.estimates
        area = measures[leading]
        cells: list[Cell] = [in_two_lines(labels[entry.name], entry.fold)]
        if images:
            cells.append(images[entry.tested.images, entry.tested.preprocessing])
        cells += [finite(area.value), interval_text(area.low, area.high)]
        for measure in CALLED:
            run = entry.kind == "run"  # a baseline has no operating point
            cells.append(finite(measures[measure].value) if run else "-")
        if own:
            cells.append(finite(measures[own].value))
        rows.append(tuple(cells))
    title = f"Test {options.unit}s, by {options.sort}"
    if rare:
        shares = {one.scored.malignant / len(one.scored.targets) for one in runs}
        listed = " or ".join(f"{share:.3f}" for share in sorted(shares))
        title += f"; PR AUC by chance: {listed}"
    if hidden:
        title += f": {SHOWN_RUNS} of {len(runs)} runs, all are in runs.csv"
    return Table(title, tuple(columns), tuple(rows))


def _images(
    entries: Sequence[Entry], groups: Sequence[Sequence[Entry]]
) -> dict[tuple[str, str], str]:
    """Return what says on which images an entry was tested; nothing where all are the same."""
    sets = list(dict.fromkeys(group[0].tested.images for group in groups))
    found = {}
    for entry in entries:
        tested = entry.tested
        parts = [f"set {sets.index(tested.images) + 1}"] if len(sets) > 1 else []
        parts += [tested.preprocessing] if tested.preprocessing else []
        found[tested.images, tested.preprocessing] = ": ".join(parts).replace(", ", ",\n") or "-"
    return found if len(found) > 1 else {}


def _pair_table(pairs: Sequence[Pair], labels: Mapping[str, str], options: Compare) -> list[Table]:
    """Return the pairs that differ most surely, or those in which the best leads least."""
    if not pairs:
        return []
    which, title = "nearest", "The highest AUC and the others"
    ordered = sorted(pairs, key=lambda pair: pair.difference)
    if options.all_pairs:
        which, title = "surest", "Pairs on the same test set"
        ordered = sorted(pairs, key=lambda pair: (pair.p, -abs(pair.difference)))
    rows = [
        (f"{labels[pair.first]} -\n{labels[pair.second]}", finite(pair.difference),
         interval_text(pair.low, pair.high), finite(pair.p))
        for pair in ordered[:SHOWN_PAIRS]
    ]  # fmt: skip
    if len(pairs) > SHOWN_PAIRS:
        title += f": the {SHOWN_PAIRS} {which} of {len(pairs)} pairs"
    return [Table(title, ("Pair", "AUC diff.", "95 % interval", "p"), tuple(rows))]
