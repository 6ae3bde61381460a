"""From a stage's options to questions in the terminal: the only place that asks."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import questionary
from prompt_toolkit.application import create_app_session
from prompt_toolkit.output.defaults import create_output
from questionary import Choice, Style

from pipeline.errors import UserError
from pipeline.options import (
    Answers,
    applies,
    as_text,
    checked,
    choices_of,
    defaults,
    flag,
    is_optional,
    items_of,
    kind_of,
    parse,
    spec_of,
)

Field = dataclasses.Field
Show = Callable[[Any], None]
RUN, CHANGE, BACK = "run", "change", "back"
OTHER = "\0other"
SEVERAL = "with commas between them"
STYLE = Style([("qmark", "bold"), ("question", "bold"), ("answer", ""), ("instruction", "")])


@contextlib.contextmanager
def on_stderr() -> Iterator[None]:
    """Ask on stderr, so that stdout holds nothing but the result."""
    with create_app_session(output=create_output(stdout=sys.stderr)):
        yield


def open_questions(options: type, given: Answers) -> list[str]:
    """Return the flags of the questions that `given` leaves open."""
    answers = defaults(options) | dict(given)
    return [
        flag(item)
        for item in items_of(options)
        if item.name not in given and not spec_of(item).advanced and applies(item, answers)
    ]


def fill(options: type, given: Answers, offered: Answers, show: Show) -> Any | None:
    """Ask what is left of a stage's options, show a summary, and let the person change answers.

    Args:
        options: The dataclass of the stage.
        given: Answers given ahead by flags: not asked.
        offered: What a question offers in place of the declared default (the last run's
            answers, or what the stage before suggests), where it still passes its check.
        show: Called with the options to draw the summary.

    Returns:
        The stage's options; None where the person went back.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        EOFError: The input was closed.
        UserError: An answer given ahead does not pass its check.
    """
    valid = _still_valid(options, offered)
    answers = defaults(options) | valid | dict(given)
    fields = items_of(options)
    for item in fields:
        if item.name not in given and not spec_of(item).advanced and applies(item, answers):
            answers[item.name] = ask(item, _offer(item, answers, valid), answers)
    advanced = [item for item in fields if spec_of(item).advanced and item.name not in given]
    if advanced and _confirm("Change advanced options", False):
        for item in advanced:
            if applies(item, answers):
                answers[item.name] = ask(item, _offer(item, answers, valid), answers)
    return _settle(options, answers, show)


def _settle(options: type, answers: dict[str, Any], show: Show) -> Any | None:
    """Show the summary until the person runs the stage or goes back."""
    while True:
        filled = checked(options, answers)
        show(filled)
        action = pick("What next", {RUN: "Run", CHANGE: "Change an answer", BACK: "Back"}, RUN)
        if action != CHANGE:
            return filled if action == RUN else None
        fields = {item.name: item for item in items_of(options) if applies(item, answers)}
        labels = {name: f"{spec_of(item).text}" for name, item in fields.items()}
        name = pick("Which answer", labels | {BACK: "None of them"}, next(iter(labels)))
        if name != BACK:
            answers[name] = ask(fields[name], answers[name], answers)


def _still_valid(options: type, offered: Answers) -> dict[str, Any]:
    """Return the offered answers that still pass their checks."""
    fields = {item.name: item for item in items_of(options)}
    valid = {}
    for name, value in offered.items():
        with contextlib.suppress(UserError, KeyError):
            valid[name] = parse(fields[name], value, defaults(options) | dict(offered))
    return valid


def _offer(item: "Field[Any]", answers: Answers, offered: Answers) -> Any:
    """Return what Enter takes: a suggestion only where nothing better than the default is known."""
    suggest = spec_of(item).suggest
    if suggest is not None and item.name not in offered:
        return suggest(answers)
    return answers[item.name]


def ask(item: "Field[Any]", offer: Any, answers: Answers) -> Any:
    """Ask one question in the form that its type calls for.

    Args:
        item: The option.
        offer: What Enter takes.
        answers: The other answers, for choices that depend on them.

    Returns:
        The checked value.
    """
    spec = spec_of(item)
    choices = choices_of(item, answers)
    if kind_of(item) is bool:
        return _confirm(spec.text, offer)
    if choices is not None:
        word, other = ("several", SEVERAL) if spec.several else ("other", spec.other)
        width = max(map(len, [*choices, word]))
        counts = spec.counts(item.name, answers) if spec.counts else {}
        labels = {
            value: ": ".join(filter(None, (f"{value:<{width}}  {meaning}", counts.get(value))))
            for value, meaning in choices.items()
        }
        if other:
            if offer not in labels and _passes(item, offer, answers):
                labels[offer] = as_text(offer)
            labels[OTHER] = f"{word:<{width}}  {other}"
        value = pick(spec.text, labels, offer if offer in labels else next(iter(labels)))
        if value != OTHER:
            return parse(item, value, answers)
        if spec.several:  # the list is gone by now, and a refusal has one line only
            other = f"{', '.join(choices)}; {SEVERAL}"
        return _type_in(item, other[0].upper() + other[1:], None, answers)
    return _type_in(item, spec.text, offer, answers)


def _passes(item: "Field[Any]", value: Any, answers: Answers) -> bool:
    try:
        parse(item, value, answers)
    except UserError:
        return False
    return bool(value != item.default)


def _type_in(item: "Field[Any]", text: str, offer: Any, answers: Answers) -> Any:
    """Ask for typed text; Enter takes the offer, which stands in brackets."""

    def accepts(typed: str) -> bool | str:
        try:
            parse(item, typed if typed.strip() else offer, answers)
        except UserError as error:
            return str(error)  # shown at the foot of the screen; the question stays open
        return True

    shown = as_text(offer)
    message = f"{text} [{shown}]:" if shown or is_optional(item) else f"{text}:"
    is_path = kind_of(item) is Path or "file" in spec_of(item).other
    form = questionary.path if is_path else questionary.text
    typed = _answer(form(message, validate=accepts, style=STYLE))
    return parse(item, typed if typed.strip() else offer, answers)


def _confirm(text: str, offer: bool) -> bool:
    answer: bool = _answer(questionary.confirm(f"{text}?", default=offer, style=STYLE))
    return answer


def _answer(question: questionary.Question) -> Any:
    # A list of questionary ignores SIGINT: kill -INT, or Ctrl-C before the terminal is in raw mode.
    # asyncio ends it with KeyboardInterrupt, if prompt_toolkit leaves the signal alone.
    return question.application.run(handle_sigint=False)


def pick(text: str, labels: Mapping[str, str], default: str) -> str:
    """Ask for one of several values, shown by their labels; the arrow keys move.

    Args:
        text: The question, without a question mark.
        labels: What is shown for each value.
        default: The value that Enter takes.
    """
    choices = [Choice(label, value=value) for value, label in labels.items()]
    question = questionary.select(
        f"{text}?",
        choices=choices,
        default=next((choice for choice in choices if choice.value == default), None),
        style=STYLE,
    )
    answer: str = _answer(question)
    return answer
