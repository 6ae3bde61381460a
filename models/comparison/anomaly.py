"""`compare --anomaly`: detectors beside classifiers on the same test patients, and what is said."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.comparison.claims import beaten, on_accuracy, on_cost, on_reliability
from models.comparison.costs import COMPARED_SIDE, WHAT, Costs, kind_of, measured_costs
from models.comparison.entries import Entry
from models.comparison.further_scores import CODES, ELBO, further_scores, is_variational
from models.comparison.growth import draw_growth, power_text
from models.comparison.plain_scores import plain_scores
from models.comparison.seeds import Stability, stabilities
from models.comparison.significance import Pair, compare_all
from models.comparison.subjects import (
    CLASSIFIER,
    PLAIN,
    Subject,
    chosen_group,
    dataset_of,
    detectors_of,
    interval,
    plain_subject,
    read_subject,
    representatives,
)
from models.evaluation.scored import finite, interval_text
from models.registry import LINEAR_PROBE
from pipeline.labels import Labels
from pipeline.manifest import read_manifest
from pipeline.paths import from_here
from pipeline.progress import Cell, Progress, Table
from pipeline.records import digest, file_digest, write_json, write_table
from pipeline.runs import ELSEWHERE, METRICS, Run, in_two_lines
from pipeline.stages.evaluation import Compare
from pipeline.work import worker_count

RESULT = "anomaly.json"
COST_COLUMNS = ("parameters", "gflops", "train_minutes", "images_per_second_1",
                "images_per_second_32")  # fmt: skip
COLUMNS = ("name", "kind", "of", "auc", "auc_low", "auc_high", "normal_auc", "normal_auc_low",
           "normal_auc_high", "pixel_auc", "pointing", "beats_plain_scores",
           *COST_COLUMNS, "step_seconds", "forward_seconds", "step_mb", "forward_mb")  # fmt: skip
PAIR_COLUMNS = ("first", "second", "difference", "low", "high", "p_bootstrap", "p_delong",
                "p_adjusted")  # fmt: skip
GROWTH_COLUMNS = ("network", "what", "size", "median", "rounds")
SHORT = {ELBO: "ELBO", CODES: "Mahalanobis"}  # further scores on the terminal
MEGA = 1e6


@dataclass(frozen=True)
class Found:
    """Everything that the files and tables are made of."""

    subjects: Sequence[Subject]  # runs and plain scores
    further: Mapping[str, Sequence[Subject]]  # further scores by the name of their run
    chosen: Sequence[Subject]  # one run of each model
    pairs: Sequence[Pair]
    seeds: Sequence[Stability]
    costs: Costs
    keys: Mapping[str, str]  # what costs go by, by the run's name
    labels: Mapping[str, str]  # what a run is called


@dataclass(frozen=True)
class Beside:
    """What was found: as JSON, as tables, and in words."""

    facts: Mapping[str, Any]
    tables: tuple[Table, ...]
    words: tuple[str, ...]
    notes: tuple[str, ...]
    found: Found

    def write(self, folder: Path) -> None:
        """Write anomaly.json, the tables as CSV and the figure of how costs grow."""
        lines = [tuple(line[name] for name in COLUMNS) for line in self.facts["lines"]]
        write_table(folder / "anomaly.csv", COLUMNS, lines)
        pairs = [_pair_line(pair) for pair in self.found.pairs]
        write_table(folder / "anomaly_pairs.csv", PAIR_COLUMNS, pairs)
        write_table(folder / "growth.csv", GROWTH_COLUMNS, _growth_lines(self.found))
        draw_growth(folder, self.found.costs, _titles(self.found))
        write_json(folder / RESULT, dict(self.facts))


def set_beside(
    options: Compare, runs: Sequence[Run], entries: Sequence[Entry], progress: Progress
) -> Beside:
    """Compare detectors with classifiers.

    Args:
        options: Folder, unit, bootstrap, and whether costs are measured anew.
        runs: Evaluated ones.
        entries: What `compare` measured of them.
        progress: Where it reports.

    Raises:
        UserError: There is no detector, or the dataset is gone.
    """
    detectors = detectors_of(runs)
    group = chosen_group(entries, detectors, options.runs)
    data = dataset_of(group, detectors)
    rows = read_manifest(data)
    known = {row.image_id: row for row in rows}
    by_name = {run.name: run for run in runs}
    subjects = [read_subject(one, by_name[one.name], known, options) for one in group]
    test = [row for row in rows if row.split == "test" and not row.parent]
    plain = plain_scores(data, rows, options.runs, options.workers, progress)
    readable = [row for row in test if all(row.image_id in one for one in plain.values())]
    subjects += [plain_subject(title, scores, readable, options) for title, scores in plain.items()]
    further = {
        one.name: [
            plain_subject(name, scores, [row for row in test if row.image_id in scores], options)
            for name, scores in further_scores(
                one.run, data, options.runs, options.workers, progress
            ).items()
        ]
        for one in subjects if one.run is not None and is_variational(one.facts)
    }  # fmt: skip
    chosen = representatives(subjects)
    kinds = {one.name: kind_of(one.facts, _takes_steps(one)) for one in subjects if _is_timed(one)}
    costs = measured_costs(
        list(kinds.values()), options.runs, options.workers, options.remeasure, progress
    )
    found = Found(
        subjects, further, chosen, _tested(_same_items(subjects), options, progress),
        stabilities(subjects), costs, {name: kind["key"] for name, kind in kinds.items()},
        _labels(subjects),
    )  # fmt: skip
    return _told(found, Labels.of(test), options)


def _takes_steps(one: Subject) -> bool:
    return one.facts["strategy"] != LINEAR_PROBE and bool(one.facts.get("recipe"))


def _is_timed(one: Subject) -> bool:
    return one.run is not None and not one.is_ensemble and one.facts["strategy"] != ELSEWHERE


def _labels(subjects: Sequence[Subject]) -> dict[str, str]:
    """Return what each is called: of a model's only run, or of the best of several, the model."""
    best = {one.name for one in representatives(subjects)}
    return {
        one.name: one.run.model if one.run and one.name in best else one.name for one in subjects
    }


def _same_items(subjects: Sequence[Subject]) -> list[Subject]:
    """Put the items of all in the order of the first; leave out one that lacks some."""
    keys, found = subjects[0].unit.keys, []
    for one in subjects:
        place = {key: number for number, key in enumerate(one.unit.keys)}
        if set(keys) <= place.keys():
            order = [place[key] for key in keys]
            unit = dataclasses.replace(
                one.unit, keys=keys, patients=[one.unit.patients[at] for at in order],
                targets=one.unit.targets[order], scores=one.unit.scores[order],
                normal=one.unit.normal[order],
            )  # fmt: skip
            found.append(dataclasses.replace(one, unit=unit))
    return found


def _tested(subjects: Sequence[Subject], options: Compare, progress: Progress) -> list[Pair]:
    """Compare every run with both plain scores, and every detector with every other run."""
    places = range(len(subjects))
    couples = [
        (a, b) for a, b in itertools.combinations(places, 2)
        if {subjects[a].kind, subjects[b].kind} not in ({CLASSIFIER}, {PLAIN})
    ]  # fmt: skip
    unit = subjects[0].unit
    progress.say(
        f"Comparing {len(couples)} pairs on the same {len(unit.keys)} test {options.unit}s"
    )
    return compare_all(
        [one.name for one in subjects], unit.targets,
        np.stack([one.unit.scores for one in subjects]),
        np.stack([one.unit.scores >= one.threshold for one in subjects]), unit.patients,
        options.replicates, options.seed, couples=couples,
        workers=worker_count(options.workers), progress=progress,
    )  # fmt: skip


def _told(found: Found, labels: Labels, options: Compare) -> Beside:
    words = (
        *on_accuracy(found.chosen, found.subjects, found.pairs, found.labels),
        *on_reliability(found.seeds),
        *on_cost(found.chosen, found.keys, found.costs, found.labels),
    )
    lines = _lines(found)
    facts = {
        "inputs": inputs_of([one.run for one in found.subjects if one.run]),
        "runs": [one.name for one in found.subjects if one.run],
        "unit": options.unit,
        **labels.record,
        "words": list(words),
        "lines": lines,
        "seeds": [
            {"model": one.model, "kind": one.kind, "aucs": list(one.areas), "mean": one.mean,
             "sd": finite(one.deviation), "spread": finite(one.spread), "command": one.command}
            for one in found.seeds
        ],
        "machine": dict(found.costs.machine),
        "slopes": {
            name: {what: interval(found.costs.slope(key, what)) for what in WHAT}
            for key, name in _titles(found).items()
        },
    }  # fmt: skip
    return Beside(facts, _tables(found, labels, options), words, _notes(found), found)


def inputs_of(runs: Sequence[Run]) -> str:
    """Return a digest of what evaluation measured of runs: another one means to compare again."""
    return digest(*sorted(file_digest(run.folder / METRICS) for run in runs))


def _lines(found: Found) -> list[dict[str, Any]]:
    """Return what anomaly.csv and anomaly.json say of each run, plain score and further score."""
    lines = []
    for one in found.subjects:
        lines.append(_line(one, one.kind, "", found))
        lines += [
            _line(more, "further score", one.name, found)
            for more in found.further.get(one.name, ())
        ]
    return lines


def _line(one: Subject, kind: str, of: str, found: Found) -> dict[str, Any]:
    area, normal = interval(one.area), interval(one.normal)
    said = one.localisation
    cost = one.measured.get("cost", {})
    key = found.keys.get(one.name, "")
    won = one.run is not None and all(beaten(one, found.subjects, found.pairs).values())
    line: dict[str, Any] = {"name": one.name, "kind": kind, "of": of}
    for name, figures in (("auc", area), ("normal_auc", normal)):
        line |= {name: figures["value"], f"{name}_low": figures["low"],
                 f"{name}_high": figures["high"]}  # fmt: skip
    line |= {name: (said[name] or {}).get("value") for name in ("pixel_auc", "pointing")}
    line |= {"beats_plain_scores": int(won) if one.run is not None else None}
    line |= {name: cost.get(name) for name in COST_COLUMNS}
    for what, name, unit in (("step", "step_seconds", 1), ("forward", "forward_seconds", 1),
                             ("step_memory", "step_mb", MEGA),
                             ("forward_memory", "forward_mb", MEGA)):  # fmt: skip
        value = found.costs.medians(key, what).get(COMPARED_SIDE)
        line[name] = None if value is None else round(value / unit, 6)
    return line


def _pair_line(pair: Pair) -> tuple[Cell, ...]:
    values = (getattr(pair, name) for name in PAIR_COLUMNS)
    return tuple(finite(value) if isinstance(value, float) else value for value in values)


def _titles(found: Found) -> dict[str, str]:
    """Return what each kind of network is called, by the key of its costs: its model."""
    titles: dict[str, str] = {}
    for one in found.chosen:
        if one.name in found.keys and one.run is not None:
            titles.setdefault(found.keys[one.name], one.run.model)
    return titles


def _growth_lines(found: Found) -> list[tuple[Cell, ...]]:
    return [
        (name, what, size, median, len(found.costs.points[key][what][str(size)]))
        for key, name in _titles(found).items()
        for what in WHAT
        for size, median in found.costs.medians(key, what).items()
    ]


def _tables(found: Found, labels: Labels, options: Compare) -> tuple[Table, ...]:
    return (
        _accuracy_table(found, labels, options),
        Table(
            "Over seeds: test AUC", ("Model", "Seeds", "Mean", "SD", "Spread"),
            tuple((one.model, len(one.areas), one.mean, finite(one.deviation), finite(one.spread))
                  for one in found.seeds),
        ),
        _cost_table(found),
        Table(
            "Growth: cost ~ size to the power of (95 % interval)",
            ("Network", "Step, side", "Forward, side", "Epoch, images"),
            tuple(
                (name, *(power_text(found.costs.slope(key, what)).replace(" (", "\n(")
                         for what in ("step", "forward", "epoch")))
                for key, name in _titles(found).items()
            ),
        ),
    )  # fmt: skip


def _accuracy_table(found: Found, labels: Labels, options: Compare) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for one in sorted(found.subjects, key=lambda one: -one.area.value):
        said = one.localisation
        rows.append((
            _cell(one, found), one.kind, *_area_cells(one),
            *((said[name] or {}).get("value") if one.run else None
              for name in ("pixel_auc", "pointing")),
        ))  # fmt: skip
        rows += [
            (f"- {SHORT[more.name]}", "further", *_area_cells(more), None, None)
            for more in found.further.get(one.name, ())
        ]  # fmt: skip
    columns = ("Run", "Kind", "AUC", "95 % interval", "Normal", "Pixel", "Point.")
    title = (
        f"{labels.positive.capitalize()} from {labels.names[0]} test {options.unit}s (Normal: "
        "malignant from normal alone)"
    )
    return Table(title, columns, tuple(rows))


def _cell(one: Subject, found: Found) -> str:
    name = found.labels[one.name]
    return in_two_lines(name, one.run.fold) if one.run else name


def _area_cells(one: Subject) -> tuple[Cell, ...]:
    text = interval_text(one.area.low, one.area.high).replace(" to ", "-")
    return finite(one.area.value), text, finite(one.normal.value)


def _cost_table(found: Found) -> Table:
    rows = []
    for one in found.chosen:
        line = _line(one, one.kind, "", found)
        memory = line["step_mb"]
        rows.append((
            found.labels[one.name], line["parameters"] and f"{line['parameters'] / MEGA:.2f} M",
            line["gflops"] and f"{line['gflops']:.2f}", line["train_minutes"],
            line["images_per_second_1"], line["step_seconds"], memory and round(memory),
        ))  # fmt: skip
    columns = ("Run", "Param.", "GFLOP", "Train min", "Images/s", "Step s", "Step MB")
    return Table(f"Cost (step: 2 images of {COMPARED_SIDE} pixels)", columns, tuple(rows))


def _notes(found: Found) -> tuple[str, ...]:
    notes = []
    single = [one for one in found.seeds if len(one.areas) == 1]
    if single:
        names = ", ".join(one.model for one in single)
        notes.append(f"one seed of {names}; more, e.g.: {single[0].command} --batch")
    bare = [one for one in found.chosen if one.run and not any(one.localisation.values())
            and not one.is_ensemble]  # fmt: skip
    if bare and (run := bare[0].run):
        where = from_here(run.folder)
        names = ", ".join(found.labels[one.name] for one in bare)
        notes.append(f"not explained: {names}; "
                     f"e.g.: python main.py explain --run {where} --batch")  # fmt: skip
    if not any(one.kind == CLASSIFIER for one in found.chosen):
        notes.append("no classifier was evaluated on these test images: train and evaluate one")
    return tuple(notes)
