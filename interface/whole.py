"""The whole way: its plan, what of it is done already, and running the rest."""

import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interface import flags
from interface.stages import STAGES, Outcome, run_stage
from pipeline.errors import UserError
from pipeline.options import checked
from pipeline.progress import Result, Table
from pipeline.provenance import out_of_date
from pipeline.records import RECORD, TIME, plain_options, read_json, write_json
from pipeline.stages.whole import Demo, Plan, Whole, demo_plan, whole_plan

if TYPE_CHECKING:
    from interface.screen import Screen

NO_MATTER = {"workers", "preview"}  # options that change nothing of what a stage makes
FOLDERS = ("synthesize", "organize", "preprocess")  # that make one folder, named by `out`


def run_whole(options: Whole, screen: "Screen") -> Result:
    """Run what is missing or out of date of the way from a download to a report."""
    return _run(whole_plan(options), options.out, screen)


def run_demo(options: Demo, screen: "Screen") -> Result:
    """Run the whole way on a synthetic collection."""
    return _run(demo_plan(options), options.out, screen)


def _run(plan: Plan, out: Path, screen: "Screen") -> Result:
    """Run a plan, leaving out what is done already.

    Returns:
        With the outcome of each stage in `facts["stages"]`.

    Raises:
        UserError: A stage could not be done; what was done before it is left out the next time.
    """
    screen.table(_plan_table(plan))
    outcomes: list[Outcome] = []
    made_anew = False
    for number, (name, values) in enumerate(plan, start=1):
        options = checked(STAGES[name].options, values)
        if not made_anew and (when := done_already(name, options)):
            screen.heading(f"{number}/{len(plan)}  {name}: done already, {when}")
            continue
        # What a stage makes anew puts all that follows out of date.
        made_anew = made_anew or name in FOLDERS
        screen.heading(f"{number}/{len(plan)}  {name}")
        try:
            outcomes.append(run_stage(name, options, screen, in_a_row=True))
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None  # the whole way says how it continues, not its part
    answers = out / "answers.json"
    stages = [(name, checked(STAGES[name].options, values)) for name, values in plan]
    write_json(answers, {"stages": [{"stage": name, "options": plain_options(one)}
                                    for name, one in stages]})  # fmt: skip
    screen.heading("All is done")
    screen.say("Each stage again, as one command:")
    for name, one in stages:
        screen.say(f"  {flags.command(name, one)}")
    screen.say(f"All of them again: python main.py --answers {answers}")
    report = outcomes[-1].result.facts["report"]
    return Result(
        folder=None,
        headline=f"The report: {report}",
        facts={"stages": [one.as_data() for one in outcomes], "report": report},
        set_aside=sum(one.result.set_aside for one in outcomes),
    )


def _plan_table(plan: Plan) -> Table:
    """Return what there is to do, and what is done."""
    rows, made_anew = [], False
    for name, values in plan:
        try:
            when = "" if made_anew else done_already(name, checked(STAGES[name].options, values))
        except UserError:  # its folder is made by a stage before
            when = ""
        made_anew = made_anew or (not when and name in FOLDERS)
        rows.append((name, STAGES[name].title, f"done, {when}" if when else "to do"))
    return Table("The plan", ("stage", "what it does", "state"), tuple(rows))


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
    if stage == "organize" and _newest_folder(options.source) > made.timestamp():
        return ""  # the download went on
    return f"{made.astimezone():%Y-%m-%d %H:%M}"


def _newest_folder(root: Path) -> float:
    """Return when a file was last added to or removed from a folder, in seconds."""
    times = [os.stat(place).st_mtime for place, _folders, _names in os.walk(root)]  # noqa: PTH116
    return max(times, default=0.0)
