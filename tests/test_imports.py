"""The rooms of the house: imports point downwards, and nothing goes round in a circle."""

import ast
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.imports import LAYERS, faults_of, imports_of, modules_of, room_of, rooms_of

IMPORTS = imports_of(ROOT)
ROOMS = rooms_of(IMPORTS)


def plant(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return faults_of(imports_of(root))


def test_no_file_imports_upwards_or_in_a_circle():
    assert faults_of(IMPORTS) == []


def test_every_source_file_is_in_a_room():
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("no git checkout")
    names = {
        line.removesuffix(".py").replace("/", ".")
        for line in listed.stdout.splitlines()
        if not line.startswith(("docs/", "tests/")) and not line.endswith("__init__.py")
    }
    assert names == set(modules_of(ROOT))


@pytest.mark.parametrize("room", [room for line in LAYERS for room in line])
def test_a_room_imports_only_what_it_may(room):
    never = {
        "main": (),  # runs all of them, by name
        "interface": ("models.training", "models.evaluation", "sources", "images"),
        "interface.report": ("models.training", "models.data", "models.tuning", "sources"),
        "interface.webapp": ("models.training", "models.data", "models.tuning", "sources"),
        "images": ("models", "sources", "interface"),
        "sources": ("models", "interface"),
        "sources.cbis_ddsm": ("models", "interface"),
        "sources.synthetic": ("models", "interface", "images"),
        "models.training": ("models.tuning", "models.evaluation", "interface"),
        "pipeline": ("images", "models", "sources", "interface"),
        "pipeline.stages": ("images", "models", "sources", "interface"),
    }.get(room, ("interface", "main"))
    found = ROOMS.get(room, set())
    assert [one for one in sorted(found) if one.startswith(never)] == []


def test_only_main_imports_a_face():
    faces = {module for module in IMPORTS if room_of(module) == "interface"}
    for module, found in IMPORTS.items():
        if faces & found:
            known = "main", "interface", "interface.report", "interface.webapp"
            assert room_of(module) in known, module


def test_the_contract_between_stages_is_standard_library_only():
    for name, path in modules_of(ROOT).items():
        if room_of(name).startswith("pipeline"):
            for node in ast.parse(path.read_text()).body:  # Dask is imported where it is needed
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else (
                    [node.module] if isinstance(node, ast.ImportFrom) else [])  # fmt: skip
                roots = {one.partition(".")[0] for one in names}
                # Schemas are declared with msgspec, and loaded with the first file that is read.
                known = {"msgspec"} if name in ("pipeline.schemas", "pipeline.findings") else set()
                assert roots <= {"pipeline", *sys.stdlib_module_names, *known}, name


def test_the_checker_sees_what_is_planted(tmp_path):
    good = {
        "main.py": "def run():\n    from interface import flags\n",
        "interface/flags.py": "import pipeline.errors\n",
        "pipeline/errors.py": "import os\n",
        "images/png.py": "from pipeline.errors import UserError\n",
    }
    assert plant(tmp_path, good) == []
    circle, upwards = plant(tmp_path, {"pipeline/errors.py": "def f():\n    import images.png\n"})
    assert circle.startswith("circle: ")
    assert set(circle.removeprefix("circle: ").split(" <- ")) == {"images.png", "pipeline.errors"}
    assert upwards == "pipeline.errors imports images.png, which is not below it"
    found = plant(tmp_path, {"pipeline/errors.py": "", "images/png.py": "from models import loop\n",
                             "models/loop.py": ""})  # fmt: skip
    assert found == ["images.png imports models.loop, which is not below it"]


def test_rooms_and_arrows_are_printed():
    done = subprocess.run(
        [sys.executable, "-m", "tests.imports"], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\nmodels.training    -> models," in done.stdout
    assert done.stdout.endswith("no circle, no import upwards\n")
    assert max(map(len, done.stdout.splitlines())) <= 80
