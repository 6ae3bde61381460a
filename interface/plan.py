"""The plan of the whole way: what is done, and about what time and disk the rest takes."""

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from interface.stages import STAGES
from pipeline.errors import UserError
from pipeline.options import checked, named
from pipeline.progress import Table
from pipeline.provenance import PLACES, out_of_date
from pipeline.records import RECORD, SET_ASIDE, TIME, plain_options, read_json
from pipeline.resources.estimates import (
    FILM_PIXELS,
    Estimate,
    evaluate_estimate,
    organize_estimate,
    preprocess_estimate,
    report_estimate,
    total,
)
from pipeline.resources.sizes import bytes_text, time_text
from pipeline.stages.collections import film_height
from pipeline.stages.whole import Plan

NO_MATTER = PLACES - {"source", "data", "csv"}  # options that change nothing of what a stage makes
FOLDERS = ("synthesize", "organize", "preprocess")  # that make one folder, named by `out`
_planned_images = named("sources.registry:planned_images")
_training_estimates = named("models.training.budget:estimates_of")


def done_stages(plan: Plan) -> dict[str, str]:
    """Return when the stages were done that can be left out.

    They are the first ones: what a stage makes anew puts all that follows out of date.
    """
    done: dict[str, str] = {}
    for name, values in plan:
        try:
            when = done_already(name, checked(STAGES[name].options, values))
        except UserError:  # a folder that a stage before is to make
            when = ""
        if not when:
            break
        done[name] = when
    return done


def plan_table(plan: Plan, done: Mapping[str, str]) -> Table:
    """Return what there is to do and what is done, with about what time and disk it takes."""
    takes = _estimates(plan)
    rows, left = [], []
    for name, _ in plan:
        when = done.get(name, "")
        found = None if when else takes.get(name)
        left += [found] if found else []
        rows.append((name, f"done, {when}" if when else "to do", *_shown(found)))
    if len(left) > 1:
        rows.append(("all", "", *_shown(total(left))))
    columns = "stage", "state", "about", "disk"
    return Table("The plan", columns, tuple(rows))


def _shown(found: Estimate | None) -> tuple[str, str]:
    if found is None:
        return "-", "-"
    return "-" if found.seconds is None else time_text(found.seconds), bytes_text(found.size)


def _estimates(plan: Plan) -> dict[str, Estimate]:
    """Return what each stage takes, as far as the case descriptions tell how much there is."""
    stages = dict(plan)
    try:
        organize = checked(STAGES["organize"].options, stages["organize"])
        images, normals = _planned_images(organize)
    except (UserError, OSError):
        return {}
    number, pixels = sum(images.values()), _film_pixels(organize.source)
    side = stages["preprocess"]["size"]
    train = STAGES["train"].options(**stages["train"])
    given = train, images, normals, (side or 0) ** 2 or pixels
    training, scoring, runs = _training_estimates(*given)
    return {
        "organize": organize_estimate(number, pixels, organize.workers),
        "preprocess": preprocess_estimate(number, side, pixels, organize.workers),
        "train": training,
        "evaluate": evaluate_estimate(runs, scoring),
        "report": report_estimate(runs),
    }


def _film_pixels(raw: Path) -> float:
    """Return the pixels of a film: those of the collection, or of a synthetic one."""
    try:
        size = str(read_json(raw / RECORD)["options"]["size"])
    except (UserError, KeyError):
        return FILM_PIXELS
    return 0.6 * film_height(size) ** 2  # a film is narrower than high


def done_already(stage: str, options: Any) -> str:
    """Return when a stage's folder was made with the same options, of what is there still.

    Stages that know themselves what is left to do are never done: training, evaluation, report.

    Returns:
        "2026-11-29 13:45"; empty where it is to be run.
    """
    if stage not in FOLDERS or not (options.out / RECORD).is_file():
        return ""
    try:
        record = read_json(options.out / RECORD)
        made = datetime.fromisoformat(record[TIME])
    except (UserError, KeyError, ValueError):
        return ""
    wanted = plain_options(options)
    same = all(record["options"].get(name) == value for name, value in wanted.items()
               if name not in NO_MATTER)  # fmt: skip
    if record["stage"] != stage or not same or out_of_date(options.out, record):
        return ""
    if (options.out / SET_ASIDE).is_file():  # it may have been mended, and the exit status says so
        return ""
    if stage == "organize" and _newest_folder(options.source) > made.timestamp():
        return ""  # the download went on
    return f"{made.astimezone():%Y-%m-%d %H:%M}"


def _newest_folder(root: Path) -> float:
    """Return when a file was last added to or removed from a folder, in seconds."""
    times = [os.stat(place).st_mtime for place, _folders, _names in os.walk(root)]  # noqa: PTH116
    return max(times, default=0.0)
