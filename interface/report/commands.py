"""The commands that make all of a page again, and the options of a stage in words."""

import dataclasses
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from interface.flags import command
from interface.report.data import Dataset
from interface.report.heat_maps import HEAT_MAPS
from interface.report.reading.runs import RunView
from interface.report.reading.scores import NONE
from interface.report.searches import Search
from interface.stages import STAGES
from pipeline.errors import UserError
from pipeline.options import applies, as_text, defaults, kind_of, spec_of, split_several
from pipeline.records import TIME, read_record
from pipeline.stages.evaluation import AUTO

IDLE = ("workers", "preview", "cluster", "resume")  # options that change no figure


def restore(stage: str, values: Mapping[str, Any]) -> Any:
    """Rebuild a stage's options from its record; unlike `checked` it asks nothing of the disk."""
    kind = STAGES[stage].options
    known = {item.name: item for item in dataclasses.fields(kind)}
    return kind(
        **{
            name: Path(value) if kind_of(known[name]) is Path and value is not None else value
            for name, value in values.items()
            if name in known
        }
    )


def repeat(stage: str, values: Mapping[str, Any]) -> str:
    """Return the command that repeats a stage as its record says."""
    return command(stage, restore(stage, values))


def settings(
    stage: str, values: Mapping[str, Any], without: Collection[str] = ()
) -> list[tuple[str, str]]:
    """Return a stage's options as (question, answer) in words.

    Left out are what does not apply, and folders, workers and the like: they change no figure.

    Args:
        stage: Of STAGES.
        values: Its options by name.
        without: Names of options to leave out beside these.
    """
    kind = STAGES[stage].options
    answers = defaults(kind) | {k: v for k, v in values.items() if k in defaults(kind)}
    rows = []
    for item in dataclasses.fields(kind):
        if item.name in (*IDLE, *without) or kind_of(item) is Path or not applies(item, answers):
            continue
        text = as_text(answers[item.name])
        choices = spec_of(item).choices
        meaning = choices.get(text, "") if isinstance(choices, Mapping) else ""
        rows.append((spec_of(item).text, meaning or text))
    return rows


def stages_before(datasets: Iterable[Dataset]) -> list[dict[str, Any]]:
    """Return the stages before training: stage, seed, duration in seconds and the command."""
    chain: dict[str, dict[str, Any]] = {}
    for dataset in datasets:
        made = [(step.stage, step.folder, step.record) for step in dataset.steps]
        if dataset.collection is not None and dataset.source is not None:
            made.insert(0, ("synthesize", dataset.source, dataset.collection))
        for stage, folder, record in made:
            chain[str(folder)] = {
                "stage": stage, "seed": record["options"].get("seed", NONE),
                "seconds": record.get("seconds", 0), "command": repeat(stage, record["options"]),
            }  # fmt: skip
    return list(chain.values())


def commands_after(runs: Sequence[RunView], searches: Sequence[Search]) -> list[str]:
    """Return the commands that search, train, join and evaluate again, to be run in this order.

    A run is evaluated before the next one is trained, so that its model's name means it alone.
    """
    made: list[tuple[str, int, list[str]]] = []
    for search in searches:
        with suppress(UserError):  # a study of before left no record
            options = read_record(search.folder, "tune")["options"]
            times = [str(search.facts["finished"]), *(_time(run) for run in search.runs)]
            made.append((min(times), 0, [repeat("tune", options)]))
    made += [(_time(run), 1, list(_of_run(run, runs))) for run in runs]
    return [line for *_, lines in sorted(made) for line in lines]


def _time(run: RunView) -> str:
    return str(run.record.get(TIME, ""))


def _of_run(run: RunView, runs: Sequence[RunView]) -> Iterator[str]:
    stage, given = run.record["stage"], run.record.get("options", {})
    if stage == "ensemble":
        given = given | {"members": _members(str(given.get("members", "")), run, runs)}
    if stage in STAGES:
        yield repeat(stage, given)
    if stage == "evaluate":  # predictions made elsewhere are evaluated as they are read
        return
    elsewhere = None if run.data == run.trained_on else str(run.data)
    evaluation = {
        "run": run.model, "data": elsewhere, "runs": given.get("runs", "runs"),
        "replicates": run.replicates, "seed": run.seed, "aggregate": run.aggregate, "tta": run.tta,
        **(_settled(run) if run.way else
           {"calibration": run.calibration["method"], **operating_point(run.rule)}),
    }  # fmt: skip
    yield repeat("evaluate", evaluation)
    with suppress(UserError):  # it has no maps
        shown = read_record(run.folder / HEAT_MAPS, "explain")["options"]
        yield repeat("explain", shown | {"run": run.model, "data": elsewhere})


def _settled(run: RunView) -> dict[str, Any]:
    """Return the options of an evaluation as it recorded them.

    What "auto" would come to again is left to it: of a detector no calibration may be named.
    """
    found = dict(run.way)
    own = "normals" if run.anomaly else "youden"
    if found["operating_point"] == own:
        found["operating_point"] = AUTO
    if run.anomaly or found["calibration"] == "temperature":
        found["calibration"] = AUTO
    return found


def _members(members: str, ensemble: RunView, runs: Sequence[RunView]) -> str:
    """Return the members of an ensemble by model: the names of runs trained again are others.

    A model stands for all its runs, so one of which only some were joined keeps their names.
    """
    parts = split_several(members)
    before = [run for run in runs if _time(run) < _time(ensemble)]
    partly = {run.model for run in before if run.name not in parts}
    known = {run.name: run.model for run in before if run.model not in partly}
    return ",".join(dict.fromkeys(known.get(part, part) for part in parts))


def operating_point(rule: str) -> dict[str, Any]:
    """Return the options that gave an operating point, by a rule of versions that kept no more."""
    found = re.search(r"(sensitivity|specificity|alarms).*?([\d.]+)", rule)
    if found:
        choice = {"alarms": "cost"}.get(found[1], found[1])
        return {"operating_point": choice, "target": float(found[2])}
    named = {"a probability": "half", "highest F1": "f1"}
    choice = next((name for start, name in named.items() if rule.startswith(start)), "youden")
    return {"operating_point": choice}
