"""One question in the terminal: typed text, one of a list, several of a list, yes or no.

Enter takes what stands there, Esc goes back one question, Ctrl-C stops. What was answered stays on
one line: the question and the answer, without the list.
"""

import contextlib
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import questionary
from prompt_toolkit.application import create_app_session, get_app, get_app_session
from prompt_toolkit.filters import has_completions, shift_selection_mode
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.input.typeahead import clear_typeahead
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent, merge_key_bindings
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout.containers import Window
from prompt_toolkit.output.defaults import create_output
from prompt_toolkit.shortcuts import print_formatted_text
from questionary import Choice, Style
from questionary.prompts.common import InquirerControl

from pipeline.processes import as_started

STYLE = Style([
    ("qmark", "bold"), ("question", "bold"), ("answer", ""), ("instruction", ""),
    ("error", "ansired"), ("selected", "noreverse"), ("highlighted", "bold"),
])  # fmt: skip
TYPED_STYLE = Style([*STYLE.style_rules, ("selected", "reverse")])
ESCAPE_SECONDS = 0.1  # an arrow key begins with Esc too; what follows it comes at once
MARK = "!"  # before what is wrong, so that it is seen without colour too


class GoBack(Exception):
    """The person wants the question before this one."""


@contextlib.contextmanager
def on_stderr() -> Iterator[None]:
    """Ask on stderr, so that stdout holds nothing but the result."""
    with create_app_session(output=create_output(stdout=sys.stderr)):
        yield


def forget_keys() -> None:
    """Drop what was typed while a stage ran: it was no answer to a question not yet asked."""
    clear_typeahead(get_app_session().input)
    if not sys.stdin.isatty():
        return
    try:
        import termios
    except ModuleNotFoundError:  # Windows
        import msvcrt

        while msvcrt.kbhit():  # type: ignore[attr-defined]
            msvcrt.getch()  # type: ignore[attr-defined]
    else:
        termios.tcflush(sys.stdin, termios.TCIFLUSH)


def say_wrong(text: str) -> None:
    """Show what is wrong, marked, wrapped between words."""
    lines = _wrapped(as_started(text), 2)
    _print(("class:error", "\n".join([f"{MARK} {lines[0]}", *(f"  {one}" for one in lines[1:])])))


def pick(text: str, labels: Mapping[str, str], default: str, shown: str | None = None) -> str:
    """Ask for one of several values; typing narrows the list, the arrow keys move.

    Args:
        text: The question.
        labels: What is shown for each value.
        default: The value that Enter takes.
        shown: What stays of the question on the screen; None for the question and the value,
            empty for nothing.

    Raises:
        GoBack: Esc.
        KeyboardInterrupt: Ctrl-C.
    """
    question = questionary.select(
        _question(text),
        choices=_choices(labels),
        default=default if default in labels else None,
        instruction=" ",
        style=STYLE,
        use_search_filter=True,
        use_jk_keys=False,
    )
    value: str = _answer(question)
    if shown != "":
        _leave(text, shown or value)
    return value


def pick_several(text: str, labels: Mapping[str, str], chosen: Sequence[str]) -> list[str]:
    """Ask for one or several values: Enter takes the one that is pointed at, or all marked ones.

    Args:
        text: The question, without a question mark.
        labels: What is shown for each value.
        chosen: The values that Enter takes; several are marked.

    Raises:
        GoBack: Esc.
        KeyboardInterrupt: Ctrl-C.
    """
    marked = [value for value in chosen if value in labels]
    question = questionary.checkbox(
        _question(f"{text}? Space marks several"),
        choices=_choices(labels, marked if len(marked) > 1 else ()),
        initial_choice=marked[0] if marked else None,
        instruction=" ",
        style=STYLE,
        use_search_filter=True,
        use_jk_keys=False,
    )
    (control,) = (
        window.content
        for window in question.application.layout.walk()
        if isinstance(window, Window) and isinstance(window.content, InquirerControl)
    )
    values: list[str] = _answer(question) or [control.get_pointed_at().value]
    _leave(f"{text}?", ", ".join(values))
    return values


def confirm(text: str, offer: bool) -> bool:
    """Ask for yes or no; raises as `pick` does."""
    answer: bool = _answer(questionary.confirm(_question(f"{text}?"), default=offer, style=STYLE))
    _leave(f"{text}?", "yes" if answer else "no")
    return answer


def type_in(text: str, offer: str, problem_of: Callable[[str], str | None], is_path: bool) -> str:
    """Ask for typed text. What is offered stands there, selected: typing replaces it.

    Args:
        text: The question.
        offer: The text that Enter takes.
        problem_of: Says what is wrong with a text, or None; the question stays open until then.
        is_path: Whether Tab completes the names of files.

    Raises:
        GoBack: Esc or Up.
        KeyboardInterrupt: Ctrl-C.
    """
    form = questionary.path if is_path else questionary.text
    while True:
        question = form(_question(f"{text}:"), default=offer, style=TYPED_STYLE)
        typed: str = _answer(question, _typing_keys(), _select_all)
        problem = problem_of(typed)
        if problem is None:
            _leave(f"{text}:", typed)
            return typed
        say_wrong(problem)
        offer = typed


def _answer(
    question: questionary.Question,
    keys: KeyBindings | None = None,
    prepare: Callable[[], None] | None = None,
) -> Any:
    app = question.application
    own = app.key_bindings or KeyBindings()
    app.key_bindings = merge_key_bindings([own, keys or KeyBindings(), _escape()])
    app.ttimeoutlen = ESCAPE_SECONDS
    app.erase_when_done = True
    # A list of questionary ignores SIGINT: kill -INT, or Ctrl-C before the terminal is in raw mode.
    # asyncio ends it with KeyboardInterrupt, if prompt_toolkit leaves the signal alone.
    return app.run(handle_sigint=False, pre_run=prepare)


def _escape() -> KeyBindings:
    keys = KeyBindings()

    @keys.add(Keys.Escape, eager=True, filter=~has_completions)
    def _back(event: KeyPressEvent) -> None:
        event.app.exit(exception=GoBack())

    @keys.add(Keys.Escape, eager=True, filter=has_completions)
    def _close(event: KeyPressEvent) -> None:
        event.current_buffer.cancel_completion()

    return keys


def _typing_keys() -> KeyBindings:
    """Return the keys of typed text: Up goes back; what is typed first replaces the offer."""
    keys = KeyBindings()

    @keys.add(Keys.Up, eager=True, filter=~has_completions)
    def _back(event: KeyPressEvent) -> None:
        event.app.exit(exception=GoBack())

    @keys.add(Keys.Delete, eager=True, filter=shift_selection_mode)
    def _clear(event: KeyPressEvent) -> None:
        event.current_buffer.cut_selection()

    @keys.add(Keys.BracketedPaste, eager=True, filter=shift_selection_mode)
    def _paste(event: KeyPressEvent) -> None:
        event.current_buffer.cut_selection()
        event.current_buffer.insert_text(event.data.replace("\r", "").replace("\n", ""))

    # A path question takes its separator before the keys that replace a selection see it.
    @keys.add(os.path.sep, eager=True, filter=shift_selection_mode)
    def _root(event: KeyPressEvent) -> None:
        event.current_buffer.cut_selection()
        event.current_buffer.insert_text(os.path.sep)

    return keys


def _select_all() -> None:
    buffer = get_app().current_buffer
    if buffer.text:
        buffer.cursor_position = 0
        buffer.start_selection()
        if buffer.selection_state is not None:
            buffer.selection_state.enter_shift_mode()
        buffer.cursor_position = len(buffer.text)


def _choices(labels: Mapping[str, str], marked: Sequence[str] = ()) -> list[Choice]:
    return [
        Choice(_hanging(label), value=value, checked=value in marked)
        for value, label in labels.items()
    ]


def _hanging(label: str) -> str:
    """Wrap a choice between words; its meaning goes on where it began."""
    name, gap, meaning = label.partition("  ")
    start = len(name) + len(gap) + len(meaning) - len(meaning.lstrip())
    if not meaning or len(label) <= _width() - 4:
        return label
    width = max(_width() - 4 - start, 20)
    lines = textwrap.wrap(meaning.lstrip(), width, break_on_hyphens=False)
    return f"\n{' ' * (start + 3)}".join([label[:start] + lines[0], *lines[1:]])


def _question(text: str) -> str:
    return "\n  ".join(_wrapped(text, 3))


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(text, max(_width() - indent, 20), break_on_hyphens=False) or [""]


def _width() -> int:
    return get_app_session().output.get_size().columns


def _leave(text: str, value: str) -> None:
    _print(("class:qmark", "? "), ("class:question", _question(text)), ("", f" {value or '-'}"))


def _print(*parts: tuple[str, str]) -> None:
    print_formatted_text(FormattedText(parts), style=STYLE)
