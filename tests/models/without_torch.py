"""Runs main.py in a process of its own that must not load torch."""

import json
import subprocess
import sys

from tests.conftest import ROOT


def run_without_torch(*words):
    """Run a stage by its words with --batch and --json; return its process and its JSON."""
    command = [*map(str, words), "--batch", "--json"]
    code = (
        "import sys, main\n"
        f"status = main.main({command!r})\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
        "sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done, json.loads(done.stdout)
