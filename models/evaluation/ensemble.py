"""The stage `ensemble`: several runs as one, whose logit is the mean of theirs."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from models.inference import save_facts
from pipeline.errors import UserError
from pipeline.labels import Labels
from pipeline.options import split_several
from pipeline.progress import Progress, Result
from pipeline.records import close_folder, digest, open_folder, read_json
from pipeline.runs import (
    ALL_RUNS,
    ELSEWHERE,
    ENSEMBLE,
    MODEL_FILE,
    Run,
    create_run,
    find_run,
    is_detector,
    list_runs,
)
from pipeline.stages.evaluation import Ensemble


def ensemble(options: Ensemble, progress: Progress) -> Result:
    """Join runs: nothing is trained, and evaluate scores the whole as it scores a run.

    The mean of logits is the geometric mean of the odds (Satopää et al. 2014); each member sees
    images at its own size. Members of different folds are joined as well: a validation image is
    then scored by those that were not trained on its patient.

    Returns:
        The folder of the new run.

    Raises:
        UserError: Fewer than two runs, runs on different datasets, or one that has no network.
    """
    started = time.perf_counter()
    # Logits and not probabilities: their mean is pulled less towards 0.5 by one unsure member.
    members = _members(options)
    known = {member.name: read_json(member.folder / MODEL_FILE) for member in members}
    _check(known)
    progress.say(f"Joining {len(members)}: {', '.join(known)}")
    run = create_run(options.runs, ENSEMBLE, options.seed)
    open_folder(run.folder, "ensemble", options)
    save_facts(run.folder, _facts(run, members, list(known.values())))
    counts = {"members": len(members)}
    inputs = digest(*sorted(known))
    close_folder(run.folder, "ensemble", options, counts, inputs, time.perf_counter() - started)
    return Result(
        folder=run.folder,
        headline=f"Ensemble of {len(members)} runs; evaluate it to know what it is worth",
        facts={"run": str(run.folder), "members": list(known)},
        next_stage="evaluate",
        next_options={"run": run.name, "runs": options.runs},
    )


def _members(options: Ensemble) -> list[Run]:
    runs = [run for run in list_runs(options.runs) if run.model != ENSEMBLE]
    if not runs:
        raise UserError(f"{options.runs}: holds no finished run", "run: python main.py train")
    found: dict[Any, Run] = {}
    for part in split_several(options.members):
        fitting = [run for run in runs if part in (ALL_RUNS, run.model)]
        if part == ALL_RUNS:  # those of other people's have no network to ask
            fitting = [run for run in fitting if _strategy(run) != ELSEWHERE]
        for run in fitting or [find_run(options.runs, part)]:
            found[run.folder.resolve()] = run
    if len(found) < 2:
        raise UserError(
            f"--members {options.members}: {len(found)} run{'s' * (len(found) != 1)}, and an "
            "ensemble takes two",
            "train more, such as with: python main.py train --seeds 3",
        )
    return list(found.values())


def _strategy(run: Run) -> str:
    return str(read_json(run.folder / MODEL_FILE)["strategy"])


def _check(known: Mapping[str, Mapping[str, Any]]) -> None:
    first = next(iter(known))
    for name, facts in known.items():
        if facts["strategy"] in (ELSEWHERE, "ensemble"):
            raise UserError(f"{name}: has no network of its own", "name trained runs")
        if _error(facts) != _error(known[first]):
            raise UserError(
                f"{name} and {first} have no scores that can be averaged: a classifier's logits "
                "and errors, or errors of two kinds",
                "name runs of one kind with --members",
            )
        if facts["data_hash"] != known[first]["data_hash"]:
            raise UserError(
                f"{name} and {first} were trained on different datasets",
                "name runs on one dataset with --members",
            )


def _error(facts: Mapping[str, Any]) -> str:
    """Return what an anomaly detector's score is; empty of a classifier."""
    return str((facts.get("head") or {}).get("error", ""))


def _facts(run: Run, members: Sequence[Run], known: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    models = list(dict.fromkeys(str(facts["model"]) for facts in known))
    first = known[0]
    patients = {
        split: sorted({one for facts in known for one in facts["patients"][split]})
        for split in ("train", "val")
    }
    return {
        "model": ENSEMBLE,
        "architecture": " + ".join(models),
        "strategy": "ensemble",
        "trained_from": "",
        "untrained_head": False,
        **({"head": first["head"]} if is_detector(first) else {}),
        "members": [os.path.relpath(one.folder.resolve(), run.folder.resolve()) for one in members],
        "input": {"size": max(one["input"]["size"] for one in known), "channels": 1},
        "weights": ", ".join(dict.fromkeys(str(one["weights"]) for one in known)),
        "weights_hash": "",
        "parameters": sum(one["parameters"] for one in known),
        "trainable": sum(one["trainable"] for one in known),
        **{name: first[name] for name in ("unit", "preprocess", "data", "data_hash")},
        **Labels.recorded(first).record,
        "patients": patients,
    }
