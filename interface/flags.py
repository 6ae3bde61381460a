"""From a stage's options to command-line flags, and back to a command to copy."""

import argparse
import dataclasses
import re
import shlex
import sys
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from pipeline.errors import UserError
from pipeline.options import (
    STARS,
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
    words_of,
)
from pipeline.paths import named_paths
from pipeline.processes import program
from pipeline.records import tool_version

WRONG_FLAGS = 2
HELP = "Show this help"
# How argparse names a word that it does not know.
UNKNOWN = re.compile(r"invalid choice: '([^']*)'|unrecognized arguments: (\S+)")
Field = dataclasses.Field  # a short name for the annotations below


class OneLineParser(ArgumentParser):
    """An argument parser whose refusal is one line, as every other error of the tool.

    Attributes:
        known: Words that somebody may have meant by one that is unknown.
        stages: The parser of each stage, where it has any.
    """

    known: Sequence[str] = ()
    stages: Mapping[str, "OneLineParser"] = MappingProxyType({})

    def _print_message(self, message: str, file: Any = None) -> None:
        """Write help; argparse would say nothing where it cannot be written, and end as done."""
        (file or sys.stderr).write(message)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse all arguments; one that is unknown is refused by the parser of its stage."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            parser = self.stages.get(found.stage, self)
            parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the flags and leave with status 2."""
        wrong = UNKNOWN.search(message)
        near = nearest(wrong[1] or wrong[2], self.known) if wrong else ""
        if near:
            message = f"{wrong[0] if wrong else message}; did you mean {near}?"
        see = f"{program()} {self.prog.removeprefix('main.py').strip()}".strip()
        self.exit(WRONG_FLAGS, f"{self.prog}: {message}; see: {see} --help\n")


class _ShowVersion(argparse.Action):
    def __call__(self, parser: ArgumentParser, *_: Any) -> NoReturn:
        print(f"Mammolab {tool_version()}")
        parser.exit()


class _JoinWords(argparse.Action):
    """Makes one text of several words, from which `shlex.split` gives them back."""

    def __call__(
        self, _parser: ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any
    ) -> None:
        if values:
            setattr(namespace, self.dest, shlex.join(values))


def build_parser(stages: Mapping[str, type]) -> ArgumentParser:
    """Make the parser of the whole command line.

    Args:
        stages: The options dataclass of each stage, by stage name.

    Returns:
        A parser whose result has `stage` (None where the menu is wanted), the face's own flags
        (batch, json, log_file, answers) where they were given, and every option that was given.
    """
    parser = OneLineParser(
        prog="main.py",
        description="Mammolab: from the raw CBIS-DDSM download to evaluated models, led by "
        "questions. Without a stage it opens the menu.",
        epilog="Research software; not a medical device.",
        usage="main.py [STAGE [option ...]]",
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("-h", "--help", action="help", help=HELP)
    parser.add_argument(
        "--version", action=_ShowVersion, nargs=0, default=SUPPRESS, help="Show the version"
    )
    parser.add_argument(
        "--answers", type=Path, metavar="FILE", help="Replay all stages of an answers file"
    )
    # Without prog a stage's refusal would begin with the whole usage.
    _add_output(parser)
    commands = parser.add_subparsers(
        dest="stage", metavar="STAGE", title="Stages", prog=parser.prog
    )
    for name, options in stages.items():
        text = (options.__doc__ or "").strip()
        items = items_of(options)
        words = "".join(f"{flag(item)} ... " for item in items if spec_of(item).positional)
        command = commands.add_parser(
            name,
            help=text,
            description=text,
            argument_default=SUPPRESS,
            allow_abbrev=False,
            usage=f"main.py {name} {words}[option ...]",
            add_help=False,
        )
        asked = command.add_argument_group("Questions")
        advanced = command.add_argument_group("Advanced options")
        for item in items:
            _add_option(advanced if spec_of(item).advanced else asked, item)
        _add_common(command)
        flags = [word for action in command._actions for word in action.option_strings]
        command.known = flags
    parser.known = [*stages, "--answers", "--help", "--json", "--log-file", "--version"]
    parser.stages = dict(commands.choices)
    return parser


def _add_common(command: ArgumentParser) -> None:
    group = command.add_argument_group("How it is run")
    group.add_argument("-h", "--help", action="help", help=HELP)
    group.add_argument(
        "--batch", action="store_true", help="Ask nothing; take the default for what is not given"
    )
    group.add_argument(
        "--answers", type=Path, metavar="FILE", help="Repeat what an answers file says; flags win"
    )
    _add_output(group)


def _add_output(group: "argparse._ActionsContainer") -> None:
    group.add_argument(
        "--log-file", type=Path, metavar="FILE", default=SUPPRESS,
        help="Write what is shown to a file as well",
    )  # fmt: skip
    group.add_argument(
        "--json", action="store_true", default=SUPPRESS,
        help="The result as JSON on stdout, progress on stderr",
    )  # fmt: skip


def _add_option(group: "argparse._ArgumentGroup", item: "Field[Any]") -> None:
    if kind_of(item) is bool:
        action = argparse.BooleanOptionalAction
        group.add_argument(flag(item), action=action, help=_escaped(item))
    elif spec_of(item).positional:
        group.add_argument(
            item.name, nargs="*", action=_JoinWords, metavar=item.name.upper(), help=_escaped(item)
        )
    else:
        kind = kind_of(item).__name__.upper()
        free = bool(spec_of(item).other) or not _plain_choices(item)
        words = [*_plain_choices(item), *([kind] if free else []), *words_of(item)]
        metavar = "|".join(dict.fromkeys(words))
        if len(metavar) > 40:
            metavar = item.name.upper()
        group.add_argument(flag(item), type=_reader(item), metavar=metavar, help=_escaped(item))


def _plain_choices(item: "Field[Any]") -> list[str]:
    """Return the choices that do not depend on other answers."""
    source = spec_of(item).choices
    if source is None or (spec_of(item).other and callable(source)):
        return []
    return list(choices_of(item, {}) or ())


def _escaped(item: "Field[Any]") -> str:
    return help_text(item).replace("%", "%%")  # argparse formats it


def help_text(item: "Field[Any]") -> str:
    """Return what `--help` says of an option: text with its unit, values, default."""
    text = text_of(item)
    choices = _plain_choices(item)
    parts = [text, f"one of {', '.join(choices)}" if choices else ""]
    if spec_of(item).several:
        parts.append("or several with commas")
    if spec_of(item).other:
        parts.append(f"or {spec_of(item).other}")
    default = text_for(item, item.default)
    parts.append(f"default: {default}" if default else "")
    return "; ".join(part for part in parts if part)


def _reader(item: "Field[Any]") -> Callable[[str], Any]:
    """Return the `type=` of a flag.

    What is wrong with the flag itself is refused here (status 2). Whether a folder is there is a
    fact about the world, so paths pass as text and are checked with the other answers (status 1).
    """
    if kind_of(item) is Path:
        return str
    return partial(_parse_flag, item)


def _parse_flag(item: "Field[Any]", text: str) -> Any:
    try:
        return parse(item, text)
    except UserError as error:
        raise ArgumentTypeError(str(error)) from None


def without_secrets(words: Sequence[str], stages: Iterable[type]) -> list[str]:
    """Return the words of a command line as a log may hold them: of a password only stars."""
    flags = {flag(item) for one in stages for item in items_of(one) if spec_of(item).secret}
    found, hidden = list[str](), False
    for word in words:
        name, equals, _ = word.partition("=")
        found.append(STARS if hidden else f"{name}={STARS}" if equals and name in flags else word)
        hidden = word in flags
    return found


def command(stage: str, options: Any) -> str:
    """Return the command that repeats a stage: the flags that differ from the defaults.

    A password is left out.
    """
    standard = defaults(type(options))
    words = [stage]
    for item in items_of(type(options)):
        value = getattr(options, item.name)
        if value == standard[item.name] or spec_of(item).secret:
            continue
        if spec_of(item).positional:
            words += map(str, named_paths(value))
        elif isinstance(value, bool):
            words.append(flag(item) if value else "--no-" + flag(item)[2:])
        else:
            words += [flag(item), text_for(item, value)]
    return f"{program()} {shlex.join([*words, '--batch'])}"
