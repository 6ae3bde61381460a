"""Mammolab's front door: asks or parses, runs stages, turns errors into exit statuses."""

import contextlib
import errno
import importlib
import io
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interface import flags, torchrun
from pipeline import workspace
from pipeline.errors import UserError, shown
from pipeline.holding import release
from pipeline.interrupts import noting_interrupts
from pipeline.options import checked, converted, defaults, items_of, spec_of
from pipeline.processes import World, world_here
from pipeline.progress import Result
from pipeline.records import plain_options, read_json, write_json
from pipeline.stages import data, demo, evaluation, training, tuning

if TYPE_CHECKING:
    from interface.screen import Screen

# Threads of OpenMP that spin while they wait take the core that another program needs: beside one
# a step of training took five times as long, not twice. Read when torch loads; a person's own wins.
for _name, _value in (("OMP_WAIT_POLICY", "PASSIVE"), ("GOMP_SPINCOUNT", "0")):
    os.environ.setdefault(_name, _value)
DONE, MISTAKE, SET_ASIDE, STOPPED = 0, 1, 3, 130
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}
GONE = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE}
QUIT = "quit"
Plan = Sequence[tuple[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Stage:
    """A stage: its options, and the function that runs it as "module:function"."""

    options: type
    function: str


STAGES = {
    "synthesize": Stage(data.Synthesize, "sources.synthetic.stage:synthesize"),
    "organize": Stage(data.Organize, "organize_data:organize"),
    "preprocess": Stage(data.Preprocess, "preprocess_data:preprocess"),
    "probe": Stage(data.Probe, "models.shortcuts.stage:check_shortcuts"),
    "tune": Stage(tuning.Tune, "models.tuning.stage:tune"),
    "train": Stage(training.Train, "models.training.queue:train_each"),
    "evaluate": Stage(evaluation.Evaluate, "models.evaluation.stage:evaluate"),
    "ensemble": Stage(evaluation.Ensemble, "models.evaluation.ensemble:ensemble"),
    "compare": Stage(evaluation.Compare, "models.evaluation.compare:compare"),
    "report": Stage(evaluation.Report, "interface.report.stage:report"),
}
DEMO = "demo"
# These show scores: say what they are not for.
SCORING = ("tune", "train", "evaluate", "compare", "report")


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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status; the one place where errors are printed."""
    world = World()
    _print_any_text()
    try:
        world = world_here()
        with torchrun.stdout_of_rank_zero(world):
            return _dispatch(argv, world)
    except UserError as error:
        return _fail(world, error, str(error))
    except EOFError as error:
        return _fail(world, error, "the input was closed; without a terminal give flags or --batch")
    except KeyboardInterrupt as stop:
        return _fail(world, stop, str(stop) or "stopped; nothing was run", STOPPED)
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if Path(__file__).with_name(package).exists():  # a mistake of ours
            raise
        text = f"the Python package {package} is missing; run: pip install -r requirements.txt"
        return _fail(world, error, text)
    except OSError as error:
        if error.errno not in DISK_ERRORS | GONE:
            raise
        return _fail(world, error, _disk_trouble(error))


def _print_any_text() -> None:
    """Escape what the output's code page lacks: a path may hold any character."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _fail(world: World, error: BaseException, text: str, status: int = MISTAKE) -> int:
    torchrun.report_failure(world, error, text)
    return status


def _disk_trouble(error: OSError) -> str:
    where = os.fsdecode(error.filename or "the output folder")
    if error.errno in GONE:
        return f"{where}: is gone; its folder was removed during the work, so run it again"
    return f"{where}: {error.strerror}; make room or choose another folder, then run it again"


def _dispatch(argv: Sequence[str] | None, world: World) -> int:
    options = {name: stage.options for name, stage in STAGES.items()} | {DEMO: demo.Demo}
    with torchrun.stderr_of_rank_zero(world):
        given = vars(flags.build_parser(options).parse_args(argv))
    name = given.pop("stage")
    answers = given.pop("answers", None)
    batch, as_json = given.pop("batch", False), given.pop("json", False)
    torchrun.check_start(world, name, asks=not batch and not answers)
    if name is None and answers is None:
        return _menu()
    from interface.screen import Screen

    screen = Screen(as_json, quiet=not world.is_rank_zero)
    if answers and name in (None, DEMO):
        outcomes = _replay(_read_answers(answers), screen)
    elif name == DEMO:
        outcomes = _demo(checked(demo.Demo, given), screen)
    else:
        with torchrun.process_group(world):
            with torchrun.raise_on_all_ranks(world):
                if answers:
                    given, batch = _answers_of(name, answers) | given, True
                filled = _fill(name, given, batch, as_json, screen)
            outcomes = [_run(name, filled, screen)]
    if as_json:
        data = [outcome.as_data() for outcome in outcomes]
        print(json.dumps(data if name == DEMO else data[0], indent=2, default=str))
    # The other ranks are done as well, and torchrun takes any other status of theirs for a failure.
    aside = world.is_rank_zero and any(outcome.result.set_aside for outcome in outcomes)
    return SET_ASIDE if aside else DONE


def _fill(name: str, given: dict[str, Any], batch: bool, as_json: bool, screen: "Screen") -> Any:
    """Return a stage's options: from flags and defaults, or asked for where some are left."""
    options = STAGES[name].options
    if batch:
        return checked(options, given)
    from interface import prompts

    left = prompts.open_questions(options, given)
    if not left:
        return checked(options, given)
    if not sys.stdin.isatty():
        raise UserError(
            f"{name}: there is no terminal to ask in", f"give {', '.join(left)}, or --batch"
        )
    with prompts.on_stderr() if as_json else contextlib.nullcontext():
        filled = _ask(name, given, {}, screen)
    if filled is None:
        raise KeyboardInterrupt
    return filled


def _ask(
    name: str, given: Mapping[str, Any], offered: Mapping[str, Any], screen: "Screen"
) -> Any | None:
    """Ask a stage's questions, offering what the stage before suggests or was answered last."""
    from interface import prompts

    options = STAGES[name].options
    offers = offered_answers(name, options) | dict(offered)
    return prompts.fill(options, given, offers, lambda filled: screen.summary(name, filled))


def offered_answers(name: str, options: type) -> dict[str, Any]:
    """Return the last answers to a stage's questions that are offered again; of no other type."""
    last, offers = workspace.recall().get(name, {}), {}
    for item in items_of(options):
        if spec_of(item).remember and item.name in last:
            with contextlib.suppress(UserError, TypeError, ValueError, OverflowError):
                converted(item, last[item.name])
                offers[item.name] = last[item.name]
    return offers


def _run(name: str, options: Any, screen: "Screen", in_a_row: bool = False) -> Outcome:
    """Run one stage and show its result; one of several in a row names no next step."""
    module, function = STAGES[name].function.split(":")
    started = time.monotonic()
    try:
        with screen.waiting(f"Loading what {name} needs ..."):
            run = getattr(importlib.import_module(module), function)
        with noting_interrupts():
            result: Result = run(options, screen)
    except KeyboardInterrupt as stop:
        _remember(name, options)
        text = str(stop) or f"{name}: stopped; continue with: {flags.command(name, options)}"
        raise KeyboardInterrupt(text) from None
    except UserError:
        if not in_a_row:  # so that twenty answers need not be given again for one mistake
            _remember(name, options)
        raise
    finally:
        release()
    if not in_a_row:
        _remember(name, options)
    outcome = Outcome(name, result, time.monotonic() - started)
    if name in SCORING:
        screen.notice()
    screen.result(result, "" if in_a_row else outcome.next_command(), outcome.seconds)
    return outcome


def _remember(name: str, options: Any) -> None:
    """Keep the answers that are offered next time, and no others: a password may be in those."""
    offered = {item.name for item in items_of(type(options)) if spec_of(item).remember}
    kept = {key: value for key, value in plain_options(options).items() if key in offered}
    workspace.remember(name, kept)


def _read_answers(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Read an answers file: a list of stages with their options."""
    try:
        data = read_json(path, like="answers.json")
    except UserError as error:
        if not path.is_file():
            raise
        reason = error.problem.removeprefix(f"{path}: ")
        problem = f"{path}: is not an answers file ({reason})"
        raise UserError(problem, "every run writes one") from None
    plan = [(entry["stage"], entry["options"]) for entry in data["stages"]]
    for name, options in plan:
        if name not in STAGES:
            raise UserError(f"{path}: {shown(name)!r} is not a stage")
        known = defaults(STAGES[name].options)
        if unknown := sorted(set(options) - set(known)):
            raise UserError(f"{path}: {name} has no option {shown(', '.join(unknown))}")
    return plan


def _answers_of(name: str, path: Path) -> dict[str, Any]:
    for stage, options in _read_answers(path):
        if stage == name:
            return options
    raise UserError(f"{path}: says nothing about {name}")


def _replay(plan: Plan, screen: "Screen") -> list[Outcome]:
    """Run several stages one after the other, as an answers file or the demo lists them."""
    outcomes = []
    for number, (name, values) in enumerate(plan, start=1):
        screen.heading(f"{number}/{len(plan)}  {name}")
        options = checked(STAGES[name].options, values)
        outcomes.append(_run(name, options, screen, in_a_row=True))
    return outcomes


def _demo(options: demo.Demo, screen: "Screen") -> list[Outcome]:
    """Run the demo's plan, and end with its report and the commands that repeat each stage."""
    plan = demo.demo_plan(options)
    outcomes = _replay(plan, screen)
    replay = options.out / "answers.json"
    write_json(
        replay, {"stages": [{"stage": name, "options": dict(values)} for name, values in plan]}
    )
    screen.heading("The demo is done")
    screen.say("Each stage again, as one command:")
    for name, values in plan:
        screen.say(f"  {flags.command(name, checked(STAGES[name].options, values))}")
    screen.say(f"All of them again: python main.py --answers {replay}")
    screen.say(f"The report: {outcomes[-1].result.facts['report']}")
    return outcomes


def _menu() -> int:
    """Show where the work stands, offer the next step, run it, and come back."""
    if not sys.stdin.isatty():
        raise UserError(
            "there is no terminal to ask in",
            "name a stage and give its flags or --batch; see: python main.py --help",
        )
    from interface import prompts
    from interface.screen import Screen

    screen = Screen()
    labels = {
        name: f"{name:<12} {(stage.options.__doc__ or '').strip()}"
        for name, stage in STAGES.items()
    }
    following, offered = "", dict[str, Any]()
    while True:
        state = workspace.survey(workspace.recall())
        screen.home(state.lines)
        choice = prompts.pick("Next step", labels | {QUIT: "quit"}, following or state.next_stage)
        if choice == QUIT:
            return DONE
        result = _menu_step(choice, offered if choice == following else {}, screen)
        following, offered = (result.next_stage, dict(result.next_options)) if result else ("", {})


def _menu_step(name: str, offered: Mapping[str, Any], screen: "Screen") -> Result | None:
    """Ask and run one stage from the menu; a mistake or Ctrl-C comes back to the menu."""
    try:
        options = _ask(name, {}, offered, screen)
        return None if options is None else _run(name, options, screen).result
    except UserError as error:
        screen.say(str(error))
    except OSError as error:
        if error.errno not in DISK_ERRORS | GONE:
            raise
        screen.say(_disk_trouble(error))
    except KeyboardInterrupt as stop:
        screen.say(str(stop) or "Back to the menu.")
    return None


if __name__ == "__main__":
    sys.exit(main())
