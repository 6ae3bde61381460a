"""How the program was started, so that the commands that it prints can be pasted."""

import shlex
import sys
from pathlib import Path

PLAIN = "python main.py"  # as commands stand in messages
SCRIPTS = ("main.py", "organize_data.py", "preprocess_data.py")


def program() -> str:
    """Return how to start the program from where the person is: "python ../lab/main.py"."""
    started = Path(sys.argv[0])
    if started.name not in SCRIPTS:  # a test, or another program
        return PLAIN
    return f"python {shlex.quote(str(started.with_name('main.py')))}"


def as_started(text: str) -> str:
    """Return a message whose commands start the program as it was started."""
    return text.replace(PLAIN, program())
