"""The benchmarks can be started: they import what there is."""

import importlib

from tests.conftest import ROOT

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "tests" / "benchmarks").rglob("*.py")
    if path.name != "__init__.py"
)


def test_benchmarks_import_what_there_is():
    for module in MODULES:
        importlib.import_module(module)
