"""What a person did wrong, as against what the program did wrong."""

import re

LONGEST = 300  # characters of a message: what a damaged file holds may be of any length
SHOWN = 40  # characters of a value in it
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def shown(value: object, longest: int = SHOWN) -> str:
    """Return a value of a file as a message can hold it: short and on one line."""
    text = _printable(value if isinstance(value, str) else repr(value))
    return text if len(text) <= longest else f"{text[: longest - 4]} ..."


def _printable(text: str) -> str:
    """Return a text without what would end or rewrite a line of a terminal."""
    return CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def _shortened(problem: str, longest: int) -> str:
    """Return a problem in one line, without its middle where it is long."""
    text = _printable(problem)
    half = max(longest, LONGEST // 2) // 2 - 2
    return text if len(text) <= 2 * half + 4 else f"{text[:half]} .. {text[-half:]}"


class UserError(Exception):
    """A person's mistake, in one line: what is wrong, with which path or value, what to do.

    Only main.py catches it and turns it into an exit status; every other exception is a
    programming error and keeps its traceback.

    Attributes:
        problem: What is wrong and where, without a full stop.
        remedy: What to do next; empty where the problem says it.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = _shortened(problem, LONGEST - len(remedy))
        self.remedy = remedy
        super().__init__(f"{self.problem}; {remedy}" if remedy else self.problem)

    def __reduce__(self) -> tuple[type["UserError"], tuple[str, str]]:
        # Raised in worker processes too: the default would rebuild it from the joined line.
        return UserError, (self.problem, self.remedy)
