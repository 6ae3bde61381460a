"""A stage by questions: asked, shown, run, and asked again where an answer did not do."""

import os
import sys
import webbrowser
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interface.stages import (
    STAGES,
    Outcome,
    disk_trouble_in_a_line,
    kept_answers,
    remember,
    run_stage,
)
from pipeline import workspace
from pipeline.errors import UserError
from pipeline.options import converted, items_of, spec_of

if TYPE_CHECKING:
    from interface.prompts.form import Form
    from interface.screen import Screen


@dataclass(frozen=True)
class Asked:
    """How a stage's questions are asked.

    Attributes:
        given: Answers given by flags.
        offered: What the stage before suggests.
        leave: What leaving the questions is called.
        tour: Whether the questions come one by one before the list of answers.
    """

    given: Mapping[str, Any]
    offered: Mapping[str, Any]
    leave: str
    tour: bool


def ask_and_run(name: str, asked: Asked, screen: "Screen") -> Outcome | None:
    """Ask a stage's questions and run it; a mistake comes back to the list of answers.

    Answers that were given but not run to an end are offered once more.

    Returns:
        Its outcome; None where the person left without having run it.

    Raises:
        UserError: It failed, and the person left it at that.
        KeyboardInterrupt: Ctrl-C.
        EOFError: The input was closed.
    """
    from interface.prompts.form import Form
    from interface.prompts.terminal import forget_keys

    options = STAGES[name].options
    sources = {
        "last time": offered_answers(name, options),
        "not run yet": _fitting(options, workspace.take_draft(name)),
        "from the stage before": asked.offered,
    }
    offered = {key: value for found in sources.values() for key, value in found.items()}
    marks = {key: source for source, found in sources.items() for key in found}
    form = Form(name, options, asked.given, offered, marks)
    wrong: UserError | None = None
    outcome: Outcome | None = None
    tried = False
    try:
        while (filled := _fill(form, wrong, asked, tried)) is not None:
            tried = True
            screen.summary(name, filled)
            try:
                with disk_trouble_in_a_line():
                    outcome = run_stage(name, filled, screen)
            except UserError as error:
                wrong = error
                forget_keys()
            else:
                remember(name, filled, outcome.result)
                return outcome
        if wrong:
            raise wrong
        return None
    finally:
        if outcome is None and (tried or form.said):
            workspace.keep_draft(name, kept_answers(options, _plain(form.answers)))


def _fill(form: "Form", wrong: UserError | None, asked: Asked, tried: bool) -> Any | None:
    from interface.prompts.terminal import GoBack

    try:
        if asked.tour and not tried:
            form.ask_each()
        return form.review(wrong, asked.leave)
    except GoBack:
        return None
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped" if tried else "stopped; nothing was run") from None


def _plain(answers: Mapping[str, Any]) -> dict[str, Any]:
    return {key: str(v) if isinstance(v, Path) else v for key, v in answers.items()}


def offered_answers(name: str, options: type) -> dict[str, Any]:
    """Return the last answers to a stage's questions that are offered again; of no other type."""
    return _fitting(options, workspace.recall().get(name, {}))


def _fitting(options: type, answers: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for item in items_of(options):
        if spec_of(item).remember and item.name in answers:
            try:
                converted(item, answers[item.name])
            except (UserError, TypeError, ValueError, OverflowError):
                continue
            found[item.name] = answers[item.name]
    return found


def open_in_browser(page: str) -> bool:
    """Open a page where there is a display; return whether it was."""
    far = os.environ.keys() & {"SSH_CONNECTION", "SSH_TTY", "CI"}
    display = os.environ.keys() & {"DISPLAY", "WAYLAND_DISPLAY"}
    if far or not (display or sys.platform in ("darwin", "win32")):
        return False
    return webbrowser.open(Path(page).resolve().as_uri())
