"""One declaration for each option: the question, the flag, the default and the check.

A stage's options are a frozen dataclass whose fields are made with `option`. `parse` is the only
place where text becomes a checked value, so a question and a flag refuse the same values.
"""

import dataclasses
import difflib
import importlib
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import UserError

Answers = Mapping[str, Any]
Choices = Mapping[str, str]  # value -> what it means to a person
ChoicesSource = Choices | Callable[[Answers], Choices] | None

NO_WORDS: Mapping[str, str] = types.MappingProxyType({})
STARS = "****"  # in place of a password
TRUE, FALSE = {"y", "yes", "true", "on", "1"}, {"n", "no", "false", "off", "0"}


def _accept(_value: Any) -> str | None:
    return None


def always(_answers: Answers) -> bool:
    """Apply an option whatever the other answers are."""
    return True


@dataclass(frozen=True)
class Spec:
    """What one option means, beside its name, type and default."""

    text: str  # the question and the help text, with its unit, without a question mark
    check: Callable[[Any], str | None]  # says what is wrong with a value, or None
    # The values it can take, each with its meaning: a mapping, or a function of the answers so far.
    choices: ChoicesSource
    other: str  # what may be given beside the choices ("a file"); empty where nothing may
    # Says why what was typed at a question cannot be, given the other answers; it may look at the
    # disk, as the stage does when it runs.
    find: Callable[[Any, Answers], str | None] | None
    # Words for what is no plain value, each with its meaning: "auto" stands for the default, any
    # other word ("none", "full") for 0, empty text or None.
    words: Mapping[str, str]
    several: bool  # whether more than one of the choices may be given, with commas between them
    when: Callable[[Answers], bool]  # whether the option applies, given the answers so far
    # What a question offers instead of the default, given the answers so far.
    suggest: Callable[[Answers], Any] | None
    # What a question adds to each choice, given the option's name and the answers so far: how many
    # images it would leave, say. It may look at the disk.
    counts: Callable[[str, Answers], Mapping[str, str]] | None
    advanced: bool  # whether it stands in the list of advanced options, not in the tour
    remember: bool  # whether the answer of last time is offered next time
    # Whether a command takes it as words without a flag: text that holds words as in a shell.
    positional: bool
    secret: bool  # whether the answer is a password: never shown, and in no command


def option(
    default: Any,
    text: str,
    *,
    check: Callable[[Any], str | None] = _accept,
    choices: ChoicesSource = None,
    other: str = "",
    find: Callable[[Any, Answers], str | None] | None = None,
    words: Mapping[str, str] = NO_WORDS,
    several: bool = False,
    when: Callable[[Answers], bool] = always,
    suggest: Callable[[Answers], Any] | None = None,
    counts: Callable[[str, Answers], Mapping[str, str]] | None = None,
    advanced: bool = False,
    remember: bool = True,
    positional: bool = False,
    secret: bool = False,
) -> Any:
    """Declare one option of a stage; the parameters are those of `Spec`."""
    spec = Spec(
        text, check, choices, other, find, words, several, when, suggest, counts, advanced,
        remember, positional, secret,
    )  # fmt: skip
    return field(default=default, metadata={"spec": spec})


def named(name: str) -> Callable[..., Any]:
    """Return the function "module:function", imported when it is first called.

    So the declarations can ask what a package above this one knows, and stay light.
    """
    module, function = name.split(":")
    return lambda *given: getattr(importlib.import_module(module), function)(*given)


def items_of(options: type) -> list["dataclasses.Field[Any]"]:
    """Return a stage's options in the order of asking: its own, then those of every stage."""
    parent = options.__mro__[1]
    inherited = defaults(parent) if dataclasses.is_dataclass(parent) else {}
    return sorted(dataclasses.fields(options), key=lambda item: item.name in inherited)


def spec_of(item: "dataclasses.Field[Any]") -> Spec:
    """Return what was declared for a field by `option`."""
    return typing.cast(Spec, item.metadata["spec"])


def kind_of(item: "dataclasses.Field[Any]") -> type:
    """Return the plain type of a field: Path for `Path | None`, int for `int | Literal["all"]`."""
    parts = [item.type]
    if typing.get_origin(item.type) in (types.UnionType, typing.Union):
        parts = [part for part in typing.get_args(item.type) if part is not type(None)]
    (kind,) = (part for part in parts if typing.get_origin(part) is not typing.Literal)
    return typing.cast(type, kind)


def text_of(item: "dataclasses.Field[Any]") -> str:
    """Return the question, with what its words stand for: "Learning rate (auto: the model's)"."""
    spec = spec_of(item)
    words = "; ".join(f"{word}: {meaning}" for word, meaning in spec.words.items())
    return f"{spec.text} ({words})" if words and spec.choices is None else spec.text


def words_of(item: "dataclasses.Field[Any]") -> tuple[str, ...]:
    """Return the words that an answer may be where others are numbers, names or paths."""
    return tuple(dict.fromkeys((*_literals(item), *spec_of(item).words)))


def _meant(item: "dataclasses.Field[Any]", word: str) -> Any:
    """Return the value that a word stands for."""
    if word in _literals(item):
        return word
    if word == "auto":
        return item.default
    return None if is_optional(item) else kind_of(item)()


def _literals(item: "dataclasses.Field[Any]") -> tuple[str, ...]:
    """Return the words that are values themselves: "all" for `int | Literal["all"]`."""
    parts = typing.get_args(item.type)
    return tuple(
        word
        for part in parts
        if typing.get_origin(part) is typing.Literal
        for word in typing.get_args(part)
    )


def is_optional(item: "dataclasses.Field[Any]") -> bool:
    """Return whether a field may be left empty."""
    return type(None) in typing.get_args(item.type)


def choices_of(item: "dataclasses.Field[Any]", answers: Answers) -> Choices | None:
    """Return the values an option can take, given the answers so far; None where it is free."""
    spec = spec_of(item)
    choices = spec.choices(answers) if callable(spec.choices) else spec.choices
    return None if choices is None else {**spec.words, **choices}


def parse(item: "dataclasses.Field[Any]", value: Any, answers: Answers | None = None) -> Any:
    """Turn typed text (or a default, or a value from an answers file) into a checked value.

    Args:
        item: The dataclass field, made with `option`.
        value: Text, or a value that is already of the field's type.
        answers: The answers so far, for choices that depend on them.

    Returns:
        A value of the field's type; None for empty text where the field allows it.

    Raises:
        UserError: The text is not of the type, not among the choices, or fails the check.
    """
    if is_optional(item) and (value is None or str(value).strip() == ""):
        return None
    spec, result = spec_of(item), _value(item, value)
    if result in _literals(item) or any(result == _meant(item, word) for word in spec.words):
        return result
    if result == "":
        raise UserError("nothing was given")
    if spec.several:
        if "" in (parts := split_several(result)) and len(parts) > 1:
            raise UserError("nothing before or after a comma")
        result = ",".join(parts)
    if not spec.other:
        choices = choices_of(item, answers or {})
        for part in split_several(result) if spec.several else [result]:
            if choices is not None and part not in choices:
                near = f"; did you mean {near}?" if (near := nearest(part, choices)) else ""
                raise UserError(f"{part}: not one of {', '.join(choices)}{near}")
    if problem := spec.check(result):
        raise UserError(f"{result}: {problem}")
    return result


def converted(item: "dataclasses.Field[Any]", value: Any) -> Any:
    """Give an answer that does not apply its type, without checking it."""
    return value if value is None else _value(item, value)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return which known word somebody may have meant; empty where none is near."""
    by_lower = {one.lower(): one for one in known}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else ""


def split_several(text: str) -> list[str]:
    """Return the parts of an answer that may name several, each once: "a, b" as it is typed."""
    return list(dict.fromkeys(part.strip() for part in text.split(","))) or [""]


def _value(item: "dataclasses.Field[Any]", value: Any) -> Any:
    word = str(value).strip()
    if word in _literals(item):
        return word
    if word in spec_of(item).words:
        return _meant(item, word)
    try:
        return _convert(kind_of(item), value)
    except UserError as error:
        raise UserError(" or ".join([error.problem, *words_of(item)]), error.remedy) from None


def _convert(kind: type, value: Any) -> Any:
    if value is None:
        raise UserError("nothing was given")
    if kind is Path:
        return _path(str(value))
    if kind is bool:
        return _bool(value)
    try:
        if kind is int and isinstance(value, float) and not value.is_integer():
            raise ValueError
        return kind(value.strip() if isinstance(value, str) else value)
    except (TypeError, ValueError):
        article = {int: "a whole number", float: "a number"}.get(kind, f"a {kind.__name__}")
        raise UserError(f"{value!r} is not {article}") from None


def _path(text: str) -> Path:
    """Read a path as a person gives it: quotes from drag-and-drop, a leading ~, stray spaces."""
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1]
    if not text:
        raise UserError("no path was given")
    return Path(text).expanduser()


def _bool(value: Any) -> bool:
    text = str(value).strip().lower()
    if text not in TRUE | FALSE:
        raise UserError(f"{value!r} is not yes or no")
    return text in TRUE


def between(low: float, high: float) -> Callable[[Any], str | None]:
    """Return a check that a number lies in [low, high]."""
    return lambda value: None if low <= value <= high else f"must be between {low} and {high}"


def odd_between(low: int, high: int) -> Callable[[Any], str | None]:
    """Return a check for the side of a filter kernel in pixels: odd and in [low, high]."""

    def check(value: int) -> str | None:
        if value % 2 and low <= value <= high:
            return None
        return f"must be an odd number between {low} and {high}"

    return check


def existing_folder(path: Path) -> str | None:
    """Check that a folder is there."""
    if path.is_dir():
        return None
    return "is a file, not a folder" if path.is_file() else "no such folder"


def existing_file(path: Path) -> str | None:
    """Check that a file is there."""
    if path.is_file():
        return None
    return "is a folder, not a file" if path.is_dir() else "no such file"


def usable_output(path: Path) -> str | None:
    """Check that a path can be made a folder to write in."""
    return "is a file, not a folder" if path.is_file() else None


def applies(item: "dataclasses.Field[Any]", answers: Answers) -> bool:
    """Return whether an option matters, given the other answers."""
    return spec_of(item).when(answers)


def checked(options: type, values: Answers) -> Any:
    """Make a stage's options from values that may still be text, checking each.

    Args:
        options: The dataclass of the stage.
        values: By field name; what is missing takes its default.

    Raises:
        UserError: A value is refused; the message begins with the flag's name.
    """
    answers = defaults(options) | dict(values)
    for item in dataclasses.fields(options):
        if applies(item, answers):
            try:
                answers[item.name] = parse(item, answers[item.name], answers)
            except UserError as error:
                raise UserError(f"{flag(item)}: {error.problem}", error.remedy) from None
        else:
            answers[item.name] = converted(item, answers[item.name])
    return options(**answers)


def flag(item: "dataclasses.Field[Any]") -> str:
    """Return the flag of an option: "--val-share" for val_share; of words without one, PATHS."""
    if spec_of(item).positional:
        return item.name.upper()
    return "--" + item.name.replace("_", "-")


def defaults(options: type) -> dict[str, Any]:
    """Return the declared defaults of a stage's options, by field name."""
    return {item.name: item.default for item in dataclasses.fields(options)}


def text_for(item: "dataclasses.Field[Any]", value: Any) -> str:
    """Write an answer as a person would type it, so that `parse` gives it back."""
    for word in spec_of(item).words:
        if value == _meant(item, word):
            return word
    return as_text(value)


def shown_for(item: "dataclasses.Field[Any]", value: Any) -> str:
    """Write an answer as a list of answers shows it: `text_for`, but of a secret only stars."""
    return STARS if spec_of(item).secret and value else text_for(item, value)


def as_text(value: Any) -> str:
    """Write a value as a person would type it; `text_for` knows an option's words too."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
