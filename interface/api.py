"""Every stage as a function, for notebooks and scripts: `from interface.api import train`.

A function has the name of its stage (`whole` is the stage `all`) and takes the stage's options by
keyword: `train(data="preprocessed", model="ResNet18_PFT", epochs=3)`. What is left out takes its
default, as with `--batch`. `help(train)` lists the options.
"""

import inspect
import multiprocessing
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from interface.flags import help_text
from interface.notebook import result_as_html, table_as_html
from interface.screen import Screen
from interface.stages import SCORING, STAGES, Outcome, disk_trouble_in_a_line, outcome_of
from pipeline.errors import UserError, shown
from pipeline.options import (
    checked,
    choices_of,
    defaults,
    flag,
    items_of,
    kind_of,
    nearest,
    parse,
    spec_of,
    text_for,
    text_of,
)
from pipeline.processes import PLAIN, leave_cores_to_others
from pipeline.progress import Result, Table

leave_cores_to_others()
# tqdm, which the Hugging Face hub loads, asks each notebook for widgets; no bar here needs them.
warnings.filterwarnings("ignore", message="IProgress not found")
# "all" is a function of Python's own.
NAMES = {"whole" if name == "all" else name: name for name in STAGES}
# A command as messages name it, with its flags.
COMMAND = re.compile(rf"{PLAIN} ([a-z]+)((?: --[a-z-]+(?: (?!--)('[^']*'|[^\s;]*[^\s,;]))?)*)")

FLAG = re.compile(r"(?<![\w-])--([a-z][a-z-]*)")


@dataclass(frozen=True, repr=False)
class StageResult(Result):
    """What a stage returned, as a cell of a notebook and `print` show it.

    Attributes:
        stage: The stage's name.
        seconds: How long it took.
        next_call: The call of the stage that comes next, or empty.
    """

    stage: str = ""
    seconds: float = 0.0
    next_call: str = ""

    def __repr__(self) -> str:
        return Screen().text_of_result(
            self, self.next_call, self.seconds, notice=self.stage in SCORING
        )

    def _repr_html_(self) -> str:
        return result_as_html(self, self.next_call, self.seconds, self.stage in SCORING)


@dataclass(frozen=True, repr=False)
class ShownTable(Table):
    """A table, as a cell of a notebook and `print` show it."""

    def __repr__(self) -> str:
        return Screen().text_of_table(self)

    def _repr_html_(self) -> str:
        return table_as_html(self)


def run(stage: str, /, *, quiet: bool = False, **given: Any) -> StageResult:
    """Run a stage by its name, and return its result.

    Args:
        stage: One of `STAGES`, as on the command line: "organize", "all".
        quiet: Whether nothing is shown while it runs.
        given: Its options, by the name of their flag with "_" for "-". Paths are taken from the
            current folder. Where a flag takes several with commas, a list will do.

    Raises:
        UserError: There is no such stage or option, a value is refused, or the stage could not be
            done; in one line.
        KeyboardInterrupt: It was stopped; the same call continues.
    """
    _refuse_a_worker()
    try:
        options = _filled(stage, given)
        with disk_trouble_in_a_line():
            outcome = outcome_of(stage, options, Screen(quiet=quiet))
    except UserError as error:  # without the frames in between: it is the caller's
        raise UserError(as_calls(error.problem), as_calls(error.remedy)) from None
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(as_calls(str(stop))) from None
    return _shown(outcome)


def choices(stage: str, option: str) -> ShownTable:
    """Return the values that an option can take, and what each means.

    Args:
        stage: Its stage.
        option: Its name, such as "model".

    Raises:
        UserError: There is no such stage or option, or the option takes any value.
    """
    item = _items(stage, (option,))[option]
    found = choices_of(item, defaults(_options(stage)))
    if found is None:
        raise UserError(f"{stage}: {option} has no choices", f"it is: {text_of(item)}")
    return ShownTable(spec_of(item).text, (option, "meaning"), tuple(found.items()))


def options(stage: str) -> ShownTable:
    """Return the options of a stage: name, default, what it is with its unit.

    Raises:
        UserError: There is no such stage.
    """
    rows = tuple(
        (item.name, text_for(item, item.default) or "-", text_of(item))
        for item in items_of(_options(stage))
    )
    return ShownTable(f"Options of {stage}", ("option", "default", "what it is"), rows)


def as_calls(text: str) -> str:
    """Return a message as a caller reads it: its commands as calls, its flags as names.

    "python main.py train --seeds 3" is "train(seeds='3')", "--val-share" is "val_share".
    """
    return FLAG.sub(lambda found: found[1].replace("-", "_"), COMMAND.sub(_call, text))


def _call(found: re.Match[str]) -> str:
    stage, words = found[1], shlex.split(found[2])
    if stage not in STAGES or any(spec_of(item).positional for item in _items(stage, ()).values()):
        return found[0]  # words without a flag follow
    given: list[str] = []
    for position, word in enumerate(words):
        if not word.startswith("--"):
            continue
        name = word[2:].replace("-", "_")
        value = words[position + 1] if position + 1 < len(words) else "--"
        if not value.startswith("--"):
            given.append(f"{name}={value!r}")
        elif name.startswith("no_"):
            given.append(f"{name[3:]}=False")
        elif name != "batch":
            given.append(f"{name}=True")
    function = next(function for function, one in NAMES.items() if one == stage)
    return f"{function}({', '.join(given)})"


def _shown(outcome: Outcome) -> StageResult:
    result = outcome.result
    told = vars(result) | {
        "headline": as_calls(result.headline),
        "notes": tuple(as_calls(note) for note in result.notes),
    }
    # As a call it is typed in this program, however that was started.
    call = as_calls(outcome.next_command())
    return StageResult(**told, stage=outcome.stage, seconds=outcome.seconds, next_call=call)


def _options(stage: str) -> type:
    if stage not in STAGES:
        near = f"; did you mean {near}?" if (near := nearest(stage, STAGES)) else ""
        raise UserError(f"{shown(stage)}: no such stage{near}", f"there are: {', '.join(STAGES)}")
    return STAGES[stage].options


def _items(stage: str, names: Any) -> dict[str, Any]:
    """Return a stage's options by name.

    Raises:
        UserError: One of the names is none of them.
    """
    items = {item.name: item for item in items_of(_options(stage))}
    for name in names:
        if name not in items:
            near = f"; did you mean {near}?" if (near := nearest(name, items)) else ""
            raise UserError(f"{stage}: no option {name}{near}", f'see options("{stage}")')
    return items


def _filled(stage: str, given: Mapping[str, Any]) -> Any:
    """Return a stage's options, checked as flags are.

    Raises:
        UserError: A name or a value is refused; the message begins with the stage and the name.
    """
    items = _items(stage, given)
    words = {name: _typed(items[name], value) for name, value in given.items()}
    names = {flag(item): name for name, item in items.items()}
    try:
        for name, value in words.items():  # those that do not apply too, as the flags' parser does
            if value is not None and kind_of(items[name]).__name__ != "Path":
                _parse(items[name], value)
        return checked(_options(stage), words)
    except UserError as error:
        word, colon, rest = error.problem.partition(":")
        problem = f"{names.get(word, word)}{colon}{rest}"
        raise UserError(f"{stage}: {problem}", error.remedy) from None


def _parse(item: Any, value: Any) -> None:
    try:
        parse(item, value)
    except UserError as error:
        raise UserError(f"{flag(item)}: {error.problem}", error.remedy) from None


def _typed(item: Any, value: Any) -> Any:
    """Return several values as a person types them: a list of models, of films to predict."""
    if not isinstance(value, list | tuple):
        return value
    if spec_of(item).positional:
        return shlex.join(map(str, value))
    return ",".join(map(str, value)) if spec_of(item).several else value


def _refuse_a_worker() -> None:
    """Leave a process that is being started as a worker of a script with calls at its top level."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(
            "each worker process loads this script again; put its calls below: "
            'if __name__ == "__main__":'
        )


def _function(name: str) -> Callable[..., StageResult]:
    """Make the function of a stage, whose help is that of its flags."""
    stage = NAMES[name]
    items = items_of(STAGES[stage].options)

    def call(*, quiet: bool = False, **given: Any) -> StageResult:
        return run(stage, quiet=quiet, **given)

    call.__name__ = call.__qualname__ = name
    lines = [f"    {item.name}: {help_text(item)}" for item in items]
    lines.append("    quiet: Whether nothing is shown while it runs; default: no")
    call.__doc__ = "\n".join([STAGES[stage].title, "", "Args:", *lines])
    named = {item.name: item.default for item in items} | {"quiet": False}
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in named.items()
    ]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


def __getattr__(name: str) -> Callable[..., StageResult]:
    """Return the function of a stage; its options are loaded when it is first asked for."""
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    function = globals()[name] = _function(name)
    return function


def __dir__() -> list[str]:
    return sorted({*globals(), *NAMES})
