"""What a person did wrong, as against what the program did wrong."""


class UserError(Exception):
    """A person's mistake, in one line: what is wrong, with which path or value, what to do.

    Only main.py catches it and turns it into an exit status; every other exception is a
    programming error and keeps its traceback.

    Attributes:
        problem: What is wrong and where, without a full stop.
        remedy: What to do next; empty where the problem says it.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem}; {remedy}" if remedy else problem)

    def __reduce__(self) -> tuple[type["UserError"], tuple[str, str]]:
        # Raised in worker processes too: the default would rebuild it from the joined line.
        return UserError, (self.problem, self.remedy)
