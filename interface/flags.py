"""From a stage's options to command-line flags, and back to a command to copy."""

import argparse
import dataclasses
import shlex
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from pipeline.errors import UserError
from pipeline.options import (
    as_text,
    choices_of,
    defaults,
    flag,
    items_of,
    kind_of,
    parse,
    spec_of,
    words_of,
)

WRONG_FLAGS = 2
Field = dataclasses.Field  # a short name for the annotations below


class OneLineParser(ArgumentParser):
    """An argument parser whose refusal is one line, as every other error of the tool."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the flags and leave with status 2."""
        self.exit(WRONG_FLAGS, f"{self.prog}: {message}; see: python {self.prog} --help\n")


def build_parser(stages: Mapping[str, type]) -> ArgumentParser:
    """Make the parser of the whole command line.

    Args:
        stages: The options dataclass of each stage, by stage name.

    Returns:
        A parser whose result has `stage` (None where the menu is wanted), the face's own flags
        (batch, json, answers) where they were given, and every option that was given.
    """
    parser = OneLineParser(
        prog="main.py",
        description="Mammolab: from the raw CBIS-DDSM download to evaluated models, led by "
        "questions. Without a stage it opens the menu.",
        epilog="Research software; not a medical device.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--answers", type=Path, metavar="FILE", help="replay all stages of an answers file"
    )
    commands = parser.add_subparsers(dest="stage", metavar="STAGE", title="stages")
    for name, options in stages.items():
        text = (options.__doc__ or "").strip()
        command = commands.add_parser(
            name,
            help=text[0].lower() + text[1:],
            description=text,
            argument_default=SUPPRESS,
            allow_abbrev=False,
        )
        for item in items_of(options):
            _add_option(command, item)
        _add_common(command)
    return parser


def _add_common(command: ArgumentParser) -> None:
    group = command.add_argument_group("how it is run")
    group.add_argument(
        "--batch", action="store_true", help="ask nothing; take the default for what is not given"
    )
    group.add_argument(
        "--answers", type=Path, metavar="FILE", help="repeat what an answers file says; flags win"
    )
    group.add_argument(
        "--json", action="store_true", help="the result as JSON on stdout, progress on stderr"
    )


def _add_option(command: ArgumentParser, item: "Field[Any]") -> None:
    if kind_of(item) is bool:
        action = argparse.BooleanOptionalAction
        command.add_argument(flag(item), action=action, help=_help(item))
    else:
        kind = kind_of(item).__name__.upper()
        free = bool(spec_of(item).other) or not _plain_choices(item)
        words = [*_plain_choices(item), *([kind] if free else []), *words_of(item)]
        metavar = "|".join(words)
        if len(metavar) > 40:
            metavar = item.name.upper()
        command.add_argument(flag(item), type=_reader(item), metavar=metavar, help=_help(item))


def _plain_choices(item: "Field[Any]") -> list[str]:
    """Return the choices that do not depend on other answers."""
    source = spec_of(item).choices
    if source is None or (spec_of(item).other and callable(source)):
        return []
    return list(choices_of(item, {}) or ())


def _help(item: "Field[Any]") -> str:
    text = spec_of(item).text
    choices = _plain_choices(item)
    parts = [text, f"one of {', '.join(choices)}" if choices else ""]
    if spec_of(item).several:
        parts.append("or several with commas")
    if spec_of(item).other:
        parts.append(f"or {spec_of(item).other}")
    default = as_text(item.default)
    parts.append(f"default: {default}" if default else "")
    return "; ".join(part for part in parts if part).replace("%", "%%")


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


def command(stage: str, options: Any) -> str:
    """Return the command that repeats a stage exactly: the flags that differ from the defaults."""
    standard = defaults(type(options))
    words = ["python", "main.py", stage]
    for item in items_of(type(options)):
        value = getattr(options, item.name)
        if value == standard[item.name]:
            continue
        if isinstance(value, bool):
            words.append(flag(item) if value else "--no-" + flag(item)[2:])
        else:
            words += [flag(item), as_text(value)]
    return shlex.join([*words, "--batch"])
