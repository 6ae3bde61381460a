"""Numbers and lists in sentences."""

from collections.abc import Iterable


def count(number: int, noun: str) -> str:
    """Return "1 run", "1,200 runs" or "2 patches"."""
    plural = "es" if noun.endswith("tch") else "s"
    return f"{number:,} {noun}" + ("" if number == 1 else plural)


def listed(items: Iterable[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    *most, last = [*items] or [""]
    return f"{', '.join(most)} and {last}" if most else last


def sentence(text: str) -> str:
    """Return a clause as a sentence: a capital in front, a full stop behind."""
    return f"{text[:1].upper()}{text[1:]}."


def were(number: int) -> str:
    """Return "was" of one thing, else "were"."""
    return "was" if number == 1 else "were"
