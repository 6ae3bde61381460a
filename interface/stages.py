"""The stages of the tool, and running one of them: from its options to its result on the screen."""

import errno
import gc
import importlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interface import flags
from pipeline.errors import UserError
from pipeline.interrupts import noting_interrupts
from pipeline.options import defaults, items_of, spec_of
from pipeline.progress import Result
from pipeline.records import leave_folders, plain_options

if TYPE_CHECKING:
    from interface.screen import Screen


@dataclass(frozen=True)
class Stage:
    """A stage: its options as "module:class" of `pipeline.stages`, its function likewise."""

    declared: str
    function: str
    asks: bool = True  # whether it has questions; without them flags and defaults are enough

    @property
    def options(self) -> type:
        """Its options, imported when they are asked for: a command wants those of one stage."""
        module, name = self.declared.split(":")
        found: type = getattr(importlib.import_module(f"pipeline.stages.{module}"), name)
        return found

    @property
    def title(self) -> str:
        """What it does, in a line."""
        return (self.options.__doc__ or "").strip()


STAGES = {
    "all": Stage("whole:Whole", "interface.whole:run_whole"),
    "demo": Stage("whole:Demo", "interface.whole:run_demo", asks=False),
    "synthesize": Stage("collections:Synthesize", "sources.synthetic.stage:synthesize"),
    "organize": Stage("data:Organize", "organize_data:organize"),
    "preprocess": Stage("data:Preprocess", "preprocess_data:preprocess"),
    "probe": Stage("data:Probe", "models.shortcuts.stage:check_shortcuts"),
    "tune": Stage("tuning:Tune", "models.tuning.stage:tune"),
    "train": Stage("training:Train", "models.training.queue:train_each"),
    "evaluate": Stage("evaluation:Evaluate", "models.evaluation.queue:evaluate_each"),
    "ensemble": Stage("evaluation:Ensemble", "models.evaluation.ensemble:ensemble"),
    "explain": Stage("explanation:Explain", "models.explanation.stage:explain"),
    "predict": Stage("prediction:Predict", "models.prediction.stage:predict"),
    "app": Stage("webapp:App", "interface.webapp.stage:app", asks=False),
    "compare": Stage("evaluation:Compare", "models.comparison.stage:compare"),
    "report": Stage("evaluation:Report", "interface.report.stage:report"),
    "export": Stage("export:Export", "models.export.stage:export"),
    "runs": Stage("upkeep:Runs", "interface.upkeep.runs:manage_runs"),
    "clean": Stage("upkeep:Clean", "interface.upkeep.clean:clean"),
}
# These show scores: say what they are not for.
SCORING = ("tune", "train", "evaluate", "explain", "predict", "app", "compare", "report")
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}
GONE = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE}


@dataclass(frozen=True)
class Outcome:
    """A stage that was run, and how long it took in seconds."""

    stage: str
    result: Result
    seconds: float

    def next_command(self) -> str:
        """Return the command of the stage that comes next, or empty."""
        result = self.result
        if not result.next_stage:
            return ""
        options = STAGES[result.next_stage].options
        values = defaults(options) | dict(result.next_options)
        return flags.command(result.next_stage, options(**values)).removesuffix(" --batch")

    def as_data(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "stage": self.stage,
            "folder": None if self.result.folder is None else str(self.result.folder),
            "headline": self.result.headline,
            "facts": dict(self.result.facts),
            "notes": list(self.result.notes),
            "set_aside": self.result.set_aside,
            "seconds": round(self.seconds, 1),
            "next": self.next_command(),
        }


def outcome_of(name: str, options: Any, screen: "Screen") -> Outcome:
    """Run one stage; its result is not shown.

    Args:
        name: Its name.
        options: Its options, checked.
        screen: Where its progress is shown.

    Raises:
        UserError: It could not be done.
        KeyboardInterrupt: It was stopped; the message says how to continue.
    """
    module, function = STAGES[name].function.split(":")
    started = time.monotonic()
    try:
        with screen.waiting(f"Loading what {name} needs ..."):
            run = getattr(importlib.import_module(module), function)
        if not gc.isenabled():  # main.py began without it
            gc.freeze()  # what was imported stays; to go over it as the process ends takes 0.1 s
            gc.enable()
        with noting_interrupts():
            result: Result = run(options, screen)
    except KeyboardInterrupt as stop:
        text = str(stop) or f"{name}: stopped; continue with: {flags.command(name, options)}"
        raise KeyboardInterrupt(text) from None
    finally:
        leave_folders()
    return Outcome(name, result, time.monotonic() - started)


def run_stage(name: str, options: Any, screen: "Screen", in_a_row: bool = False) -> Outcome:
    """Run one stage and show its result.

    Args:
        name: Its name.
        options: Its options, checked.
        screen: Where it is shown.
        in_a_row: Whether it is one of several, so that no next step is named.

    Raises:
        UserError: It could not be done.
        KeyboardInterrupt: It was stopped; the message says how to continue.
    """
    outcome = outcome_of(name, options, screen)
    if name in SCORING:
        screen.notice()
    screen.result(outcome.result, "" if in_a_row else outcome.next_command(), outcome.seconds)
    return outcome


def disk_trouble(error: OSError) -> str:
    """Return in one line what the disk would not do."""
    where = os.fsdecode(error.filename or "the output folder, or the file of its text")
    if error.errno in GONE:
        return f"{where}: is gone; its folder was removed during the work, so run it again"
    return f"{where}: {error.strerror}; make room or choose another folder, then run it again"


@contextmanager
def disk_trouble_in_a_line() -> Iterator[None]:
    """Turn what the disk would not do in the block into a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS | GONE:
            raise
        raise UserError(disk_trouble(error)) from None


def remember(name: str, options: Any, result: Result) -> None:
    """Keep the answers to questions for the next time, and where the next stage finds its data."""
    from pipeline import workspace
    from pipeline.stages import whole

    workspace.remember(name, kept_answers(type(options), plain_options(options)))

    if isinstance(options, whole.Whole):  # so that its parts are offered as they were run
        for part, values in whole.whole_plan(options):
            filled = STAGES[part].options(**values)
            workspace.remember(part, kept_answers(type(filled), plain_options(filled)))
    if result.next_stage:
        following = STAGES[result.next_stage].options
        offered = plain_options(following(**(defaults(following) | dict(result.next_options))))
        named = {key: offered[key] for key in result.next_options}
        known = workspace.recall().get(result.next_stage, {})
        workspace.remember(result.next_stage, known | kept_answers(following, named))


def kept_answers(options: type, answers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answers that are offered next time, and no others: a password may be in those."""
    offered = {item.name for item in items_of(options) if spec_of(item).remember}
    return {key: value for key, value in answers.items() if key in offered}
