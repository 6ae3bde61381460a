"""Reads all imports of the source: which room of the house leans on which.

`python -m tests.imports` prints the rooms from the top down with the rooms that each imports, and
ends with status 1 where files import each other in a circle or a room imports one above it.
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from textwrap import wrap

ROOT = Path(__file__).parents[1]
# From the top down. A room may import those below its line, and none beside or above it.
LAYERS = (
    ("main",),
    ("interface.webapp",),
    ("interface.report", "interface.upkeep"),
    ("interface.report.reading",),
    ("interface",),
    ("interface.prompts",),
    ("organize_data", "preprocess_data"),
    ("models.tuning",),
    ("models.prediction",),
    ("models.comparison", "models.export"),
    ("models.explanation",),
    ("models.evaluation", "models.shortcuts"),
    ("models.training",),
    ("models",),
    ("models.anomaly", "models.data"),
    ("sources.synthetic.lookalikes",),
    ("sources.cbis_ddsm", "sources.folders", "sources.rsna", "sources.synthetic"),
    ("sources",),
    ("images",),
    ("pipeline.stages",),
    ("pipeline",),
    ("pipeline.resources",),
)
LEVELS = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
Graph = Mapping[str, set[str]]


def modules_of(root: Path) -> dict[str, Path]:
    """Return the source files below a folder by module name; tests are none."""
    paths = [path for path in root.rglob("*.py") if path.name != "__init__.py"]
    names = {".".join(path.relative_to(root).with_suffix("").parts): path for path in paths}
    return {name: path for name, path in names.items() if room_of(name) in LEVELS}


def room_of(module: str) -> str:
    """Return the package of a module; a file at the top is a room of its own."""
    return module.rpartition(".")[0] or module


def imports_of(root: Path) -> dict[str, set[str]]:
    """Return, for each module, the modules that it imports, inside functions too."""
    modules = modules_of(root)
    return {
        name: {_known(found, modules) for found in _names(path)} - {"", name}
        for name, path in modules.items()
    }


def _names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _known(name: str, modules: Mapping[str, Path]) -> str:
    """Return the module that "models.networks.build" or "models.networks" is in."""
    return next((one for one in (name, name.rpartition(".")[0]) if one in modules), "")


def rooms_of(imports: Graph) -> dict[str, set[str]]:
    """Return, for each room, the other rooms that its files import."""
    rooms: dict[str, set[str]] = {}
    for module, found in imports.items():
        room = room_of(module)
        rooms.setdefault(room, set()).update({room_of(one) for one in found} - {room})
    return rooms


def faults_of(imports: Graph) -> list[str]:
    """Return each circle of files and each import beside or upwards, in one line."""
    faults = []
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        faults.append("circle: " + " <- ".join(error.args[1]))
    for module, found in sorted(imports.items()):
        for other in sorted(found):
            here, there = room_of(module), room_of(other)
            if here != there and LEVELS[there] <= LEVELS[here]:
                faults.append(f"{module} imports {other}, which is not below it")
    return faults


def main() -> int:
    """Print the rooms and what they import; return the exit status."""
    imports = imports_of(ROOT)
    rooms, faults = rooms_of(imports), faults_of(imports)
    for line in LAYERS:
        for room in line:
            below = sorted(rooms.get(room, ()), key=lambda one: LEVELS[one])
            text = ", ".join(below) or "nothing"
            print("\n".join(wrap(text, 77, initial_indent=f"{room:<18} -> ",
                                 subsequent_indent=" " * 22)))  # fmt: skip
        print()
    print("main runs each stage by name, once it is chosen.")
    print("\n".join(faults) or "no circle, no import upwards")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
