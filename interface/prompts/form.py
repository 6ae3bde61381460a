"""From a stage's options to questions: one by one, then all of them as a list to run or change."""

import contextlib
import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interface.prompts.terminal import GoBack, confirm, pick, pick_several, say_wrong, type_in
from pipeline.errors import UserError
from pipeline.options import (
    Answers,
    applies,
    checked,
    choices_of,
    converted,
    defaults,
    flag,
    items_of,
    kind_of,
    parse,
    shown_for,
    spec_of,
    split_several,
    text_for,
    text_of,
)
from pipeline.processes import PLAIN

Field = dataclasses.Field
RUN, QUESTIONS, ADVANCED, BACK, DONE, OTHER = (
    f"\0{word}" for word in ("run", "questions", "advanced", "back", "done", "other")
)
FLAG = re.compile(r"--([a-z][a-z-]*)")
LABEL_WIDTH = 44  # of a line of the list, in columns


@dataclass
class Form:
    """A stage's answers while they are given.

    Attributes:
        stage: Its name.
        options: Its dataclass.
        given: Answers given ahead by flags: not asked, only listed.
        offered: What a question offers in place of the declared default, where it still passes its
            check: the last run's answers, or what the stage before suggests.
        sources: Where these come from, as the list shows it: "last time".
    """

    stage: str
    options: type
    given: Answers
    offered: Answers
    sources: Mapping[str, str]
    answers: dict[str, Any] = field(init=False)
    said: set[str] = field(init=False, default_factory=set)  # what was answered in this form

    def __post_init__(self) -> None:
        self.offered = self._still_valid()
        fields = {item.name: item for item in items_of(self.options)}
        self.given = {name: converted(fields[name], value) for name, value in self.given.items()}
        self.answers = defaults(self.options) | dict(self.offered) | dict(self.given)

    @property
    def items(self) -> "list[Field[Any]]":
        """The options that matter, given the other answers."""
        return [item for item in items_of(self.options) if applies(item, self.answers)]

    def ask_each(self) -> None:
        """Ask the questions of a tour one by one; Esc goes back to the one before.

        Raises:
            GoBack: Esc at the first one.
            KeyboardInterrupt: Ctrl-C.
            EOFError: The input was closed.
        """
        asked: list[str] = []
        done = set(self.given)
        while item := next((i for i in self._tour() if i.name not in done), None):
            try:
                self._ask(item)
                asked.append(item.name)
                done.add(item.name)
            except GoBack:
                if not asked:
                    raise
                done.discard(asked.pop())

    def review(self, wrong: UserError | None = None, leave: str = "Back to the menu") -> Any | None:
        """Show all answers as a list until the person runs the stage or leaves.

        Args:
            wrong: Why the answers did not do, if they were tried: the list begins at that line.
            leave: What leaving is called.

        Returns:
            The stage's options; None where the person leaves.

        Raises:
            KeyboardInterrupt: Ctrl-C.
            EOFError: The input was closed.
        """
        place = self._show_wrong(wrong) if wrong else RUN
        while True:
            for item in self._tour():
                self._take_suggestion(item)
            try:
                text = f"{self.stage}: Enter runs it; a line that is chosen can be changed"
                chosen = pick(text, self._lines(leave), place, shown="")
            except GoBack:
                return None
            if chosen == BACK:
                return None
            place = RUN
            try:
                if chosen == RUN:
                    return checked(self.options, self.answers)
                if chosen == QUESTIONS:
                    self.ask_each()
                elif chosen == ADVANCED:
                    self._review_advanced()
                else:
                    self._ask(next(item for item in self.items if item.name == chosen))
            except GoBack:
                place = chosen
            except UserError as error:
                place = self._show_wrong(error)

    def _review_advanced(self, place: str = DONE) -> None:
        """Show the advanced options as a list of their own, until the person is done."""
        while True:
            items = {item.name: item for item in self.items if spec_of(item).advanced}
            lines = {DONE: "Done"} | {name: self._line(item) for name, item in items.items()}
            text = f"{self.stage}, advanced options; typing searches"
            chosen = pick(text, lines, place, shown="")
            if chosen == DONE:
                return
            with contextlib.suppress(GoBack):
                self._ask(items[chosen])
            place = chosen

    def _tour(self) -> "list[Field[Any]]":
        return [item for item in self.items if not spec_of(item).advanced]

    def _ask(self, item: "Field[Any]") -> None:
        self._take_suggestion(item)
        self.answers[item.name] = ask(item, self.answers[item.name], self.answers)
        self.said.add(item.name)

    def _take_suggestion(self, item: "Field[Any]") -> None:
        """Put what is suggested in place of a default where nothing better is known."""
        suggest = spec_of(item).suggest
        if suggest is not None and item.name not in {*self.given, *self.offered, *self.said}:
            self.answers[item.name] = suggest(self.answers)

    def _still_valid(self) -> dict[str, Any]:
        """Return the offered answers that still pass their checks."""
        fields = {item.name: item for item in items_of(self.options)}
        valid = {}
        for name, value in self.offered.items():
            with contextlib.suppress(UserError, KeyError):
                answers = defaults(self.options) | dict(self.offered)
                valid[name] = parse(fields[name], value, answers)
        return valid

    def _lines(self, leave: str) -> dict[str, str]:
        """Return the lines of the list: run, each question with its answer, the advanced ones."""
        advanced = [item for item in self.items if spec_of(item).advanced]
        changed = sum(self.answers[item.name] != item.default for item in advanced)
        lines = {RUN: "Run it as it stands"}
        if len(self._tour()) > 1:
            lines[QUESTIONS] = "Go through the questions one by one"
        lines |= {item.name: self._line(item) for item in self._tour()}
        lines |= {item.name: self._line(item) for item in advanced
                  if self.answers[item.name] != item.default}  # fmt: skip
        if advanced:
            count = f", {changed} of them changed" if changed else ""
            lines[ADVANCED] = f"Advanced options ({len(advanced)}{count})"
        return lines | {BACK: leave}

    def _line(self, item: "Field[Any]") -> str:
        """Return a line of the list: the question, its answer, and where that comes from."""
        value = self.answers[item.name]
        mark = ""
        if value != item.default:
            known = item.name in {*self.given, *self.said}
            offered = self.offered.get(item.name, None if known else value)
            mark = "changed" if value != offered else self.sources.get(item.name, "")
            if not mark:  # say why it is not the default
                meaning = (choices_of(item, self.answers) or {}).get(str(value))
                mark = f"suggested: {meaning}" if meaning else "suggested"
        label = spec_of(item).text
        label = label if len(label) <= LABEL_WIDTH else f"{label[: LABEL_WIDTH - 2].rstrip()} .."
        text = shown_for(item, value) or "-"
        return f"{label:<{LABEL_WIDTH}}  {text}{f' ({mark})' if mark else ''}"

    def _show_wrong(self, error: UserError) -> str:
        """Say what is wrong in the words of the questions; return the line that it is about."""
        fields = {item.name: item for item in items_of(self.options)}
        say_wrong(in_words(error, self.options))
        named = [name.replace("-", "_") for name in FLAG.findall(error.problem)]
        for name, item in fields.items():  # "raw: no such folder"
            text = text_for(item, self.answers[name])
            if kind_of(item) in (Path, str) and text and error.problem.startswith(f"{text}:"):
                named.append(name)
        lines = self._lines("")
        return next((name if name in lines else ADVANCED for name in named if name in fields), RUN)


def in_words(error: UserError, options: type) -> str:
    """Return what is wrong for a person at questions: flags are named by their questions."""
    texts = {flag(item): f'"{spec_of(item).text}"' for item in items_of(options)}
    # Flags of a command that is to be run stay as they are.
    text, command, rest = str(error).partition(PLAIN)
    return FLAG.sub(lambda found: texts.get(found[0], found[0]), text) + command + rest


def open_questions(options: type, given: Answers) -> list[str]:
    """Return the flags of the questions that `given` leaves open."""
    answers = defaults(options) | dict(given)
    return [
        flag(item)
        for item in items_of(options)
        if item.name not in given and not spec_of(item).advanced and applies(item, answers)
    ]


def ask(item: "Field[Any]", offer: Any, answers: Answers) -> Any:
    """Ask one question in the form that its type calls for.

    Args:
        item: The option.
        offer: What Enter takes.
        answers: The other answers, for choices that depend on them.

    Returns:
        The checked value.

    Raises:
        GoBack: Esc.
    """
    spec, choices = spec_of(item), choices_of(item, answers)
    if kind_of(item) is bool:
        return confirm(spec.text, offer)
    if choices is None:
        shown = "" if spec.secret else text_for(item, offer)
        return _type_in(item, text_of(item), shown, answers)
    labels = _labels(item, choices, answers, offer)
    while True:
        if spec.several:
            value = ",".join(pick_several(spec.text, labels, split_several(str(offer))))
        else:
            value = pick(f"{spec.text}?", labels, offer if offer in labels else next(iter(labels)))
        if OTHER not in split_several(value):
            return parse(item, value, answers)
        with contextlib.suppress(GoBack):  # to the list
            return _type_in(item, spec.other[0].upper() + spec.other[1:], "", answers)


def _labels(
    item: "Field[Any]", choices: Mapping[str, str], answers: Answers, offer: Any
) -> dict[str, str]:
    spec = spec_of(item)
    width = max(map(len, [*choices, "other"]))
    counts = spec.counts(item.name, answers) if spec.counts else {}
    labels = {
        value: ": ".join(filter(None, (f"{value:<{width}}  {meaning}", counts.get(value))))
        for value, meaning in choices.items()
    }
    if spec.other:
        if offer not in labels and offer != item.default and not spec.several:
            labels[offer] = str(offer)
        labels[OTHER] = f"{'other':<{width}}  {spec.other}"
    return labels


def _type_in(item: "Field[Any]", text: str, offer: str, answers: Answers) -> Any:
    def problem_of(typed: str) -> str | None:
        try:
            value = parse(item, typed, answers)
        except UserError as error:
            return str(error)
        find = spec_of(item).find
        return find(value, answers) if find else None

    spec = spec_of(item)
    is_path = kind_of(item) is Path or "file" in spec.other or spec.positional
    return parse(item, type_in(text, offer, problem_of, is_path), answers)
