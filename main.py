"""Mammolab's front door: asks or parses, runs stages, turns errors into exit statuses."""

import atexit
import contextlib
import gc
import io
import json
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

# What imports make stays: to look for garbage in it again and again takes a tenth of a start.
# `interface.stages` turns the collector on when a stage begins.
if __name__ == "__main__":
    gc.disable()

from interface import flags, torchrun
from interface.stages import DISK_ERRORS, GONE, STAGES, Outcome, disk_trouble, run_stage
from pipeline.errors import UserError, shown
from pipeline.options import checked, defaults
from pipeline.processes import World, as_started, leave_cores_to_others, world_here
from pipeline.records import read_json

if TYPE_CHECKING:
    from interface.screen import Screen
    from pipeline.stages.whole import Plan

leave_cores_to_others()
DONE, MISTAKE, SET_ASIDE, STOPPED, PIPE_CLOSED = 0, 1, 3, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # who read the output is gone, as `head` is when it has its lines
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except OSError as error:  # no room for the last of the text
        if error.errno not in DISK_ERRORS:
            raise
        return _fail(World(), error, disk_trouble(error))


def _run(argv: Sequence[str] | None) -> int:
    """Run the command line; the one place where errors are printed."""
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
        return _fail(world, stop, str(stop) or "stopped", STOPPED)
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if Path(__file__).with_name(package).exists():  # a mistake of ours
            raise
        text = f"the Python package {package} is missing; run: pip install -r requirements.txt"
        return _fail(world, error, text)
    except OSError as error:
        if error.errno not in DISK_ERRORS | GONE:
            raise
        return _fail(world, error, disk_trouble(error))


def _print_any_text() -> None:
    """Escape what the output's code page lacks: a path may hold any character."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _fail(world: World, error: BaseException, text: str, status: int = MISTAKE) -> int:
    torchrun.report_failure(world, error, as_started(text))
    return status


def _dispatch(argv: Sequence[str] | None, world: World) -> int:
    words = sys.argv[1:] if argv is None else argv
    # The flags of one stage are made in a moment, those of all take 20 ms more.
    named = [words[0]] if words and words[0] in STAGES else list(STAGES)
    options = {name: STAGES[name].options for name in named}
    with torchrun.stderr_of_rank_zero(world):
        given = vars(flags.build_parser(options).parse_args(argv))
    name = given.pop("stage")
    answers = given.pop("answers", None)
    batch, as_json = given.pop("batch", False), given.pop("json", False)
    torchrun.check_start(world, name, asks=not batch and not answers)
    if name is None and answers is None:
        from interface.menu import run_menu

        run_menu()
        return DONE
    from interface.screen import Screen

    said = flags.without_secrets(sys.argv, options.values())
    log = given.pop("log_file", None)
    screen = Screen(as_json, quiet=not world.is_rank_zero, log=log, words=said)
    with screen.logging_errors():
        if answers and name in (None, "demo"):
            outcomes = _replay(_read_answers(answers), screen)
        else:
            with torchrun.process_group(world):
                with torchrun.raise_on_all_ranks(world):
                    if answers:
                        given, batch = _answers_of(name, answers) | given, True
                    filled = _fill(name, given, batch)
                if filled is None:
                    outcomes = [_by_questions(name, given, as_json, screen)]
                else:
                    outcomes = [run_stage(name, filled, screen)]
    if as_json:
        data = [outcome.as_data() for outcome in outcomes]
        replayed = answers and name in (None, "demo")
        # The whole way is several stages, as a replay of answers is.
        found = data if replayed else data[0]["facts"].get("stages", data[0])
        print(json.dumps(found, indent=2, default=str))
    elif not batch and sys.stdout.isatty() and (page := outcomes[-1].result.facts.get("report")):
        from interface.session import open_in_browser

        open_in_browser(page)
    # The other ranks are done as well, and torchrun takes any other status of theirs for a failure.
    aside = world.is_rank_zero and any(outcome.result.set_aside for outcome in outcomes)
    return SET_ASIDE if aside else DONE


def _fill(name: str, given: dict[str, Any], batch: bool) -> Any:
    """Return a stage's options from flags and defaults; None where questions are left to ask.

    Raises:
        UserError: An answer is refused, or there is no terminal to ask in.
    """
    options = STAGES[name].options
    if batch or not STAGES[name].asks:
        return checked(options, given)
    from interface.prompts.form import open_questions

    left = open_questions(options, given)
    if not left:
        return checked(options, given)
    if not sys.stdin.isatty():
        raise UserError(
            f"{name}: there is no terminal to ask in", f"give {', '.join(left)}, or --batch"
        )
    return None


def _by_questions(name: str, given: Mapping[str, Any], as_json: bool, screen: "Screen") -> Outcome:
    """Ask one stage's questions and run it."""
    from interface.prompts.terminal import on_stderr
    from interface.session import Asked, ask_and_run

    with on_stderr() if as_json else contextlib.nullcontext():
        outcome = ask_and_run(name, Asked(given, {}, "Leave", tour=True), screen)
    if outcome is None:
        raise KeyboardInterrupt("stopped; nothing was run")
    return outcome


def _read_answers(path: Path) -> "Plan":
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
    if not plan:
        raise UserError(f"{path}: names no stage", "every run writes an answers file")
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


def _replay(plan: "Plan", screen: "Screen") -> list[Outcome]:
    """Run several stages one after the other, as an answers file or the demo lists them."""
    outcomes = []
    for number, (name, values) in enumerate(plan, start=1):
        screen.heading(f"{number}/{len(plan)}  {name}")
        options = checked(STAGES[name].options, values)
        outcomes.append(run_stage(name, options, screen, in_a_row=True))
    return outcomes


def _end(status: int) -> NoReturn:
    """End the process as it stands: to take apart what it loaded is a tenth of a cold start.

    What was registered for the end is run. Python ends in its own way where a thread is left, and
    where a caller, such as runpy, may have more to do.
    """
    is_called = sys._getframe(1).f_back is not None
    if is_called or threading.active_count() > 1:
        sys.exit(status)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # closed, or its reader is gone
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    _end(main())
