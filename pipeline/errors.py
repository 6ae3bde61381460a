"""What a person did wrong, as against what the program did wrong."""

LONGEST = 300  # characters of a message: what a damaged file holds may be of any length
SHOWN = 40  # characters of a value in it
SURROGATES = frozenset(map(chr, range(0xDC80, 0xDD00)))


def shown(value: object, longest: int = SHOWN) -> str:
    """Return a value of a file as a message can hold it: short and on one line."""
    text = _printable(value if isinstance(value, str) else repr(value))
    return text if len(text) <= longest else f"{text[: longest - 4]} ..."


def _printable(text: str) -> str:
    """Return a text without what would end or rewrite a line of a terminal.

    Names of files may hold bytes that are no text, as surrogates; they stay, to be found again.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in SURROGATES else ascii(c)[1:-1] for c in text)


def _shortened(problem: str, longest: int) -> str:
    """Return a problem in one line, without its middle where it is long."""
    text = _printable(problem)
    half = max(longest, LONGEST // 2) // 2 - 2
    return text if len(text) <= 2 * half + 4 else f"{text[:half]} .. {text[-half:]}"


class UserError(Exception):
    """A person's mistake, in one line: what is wrong, with which path or value, what to do.

    Only main.py catches it and turns it into an exit status, a notebook shows its line; every
    other exception is a programming error and keeps its traceback.

    Attributes:
        problem: What is wrong and where, without a full stop.
        remedy: What to do next; empty where the problem says it.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = _shortened(problem, LONGEST - len(remedy) - 2)
        self.remedy = remedy
        super().__init__(f"{self.problem}; {remedy}" if remedy else self.problem)

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows in place of a traceback: a notebook has no main.py."""
        return [f"UserError: {self}"]

    def __reduce__(self) -> tuple[type["UserError"], tuple[str, str]]:
        # Raised in worker processes too: the default would rebuild it from the joined line.
        return UserError, (self.problem, self.remedy)
