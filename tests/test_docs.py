"""README and pages: short, linked, and naming only what there is."""

import re
import subprocess
import sys

import pytest

from interface.flags import build_parser
from interface.stages import STAGES
from pipeline.options import flag, items_of
from tests.conftest import OFFLINE, ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHER_TOOLS = {"--nproc-per-node", "--logdir"}  # of torchrun and tensorboard
# The code blocks in Python that are whole scripts.
SCRIPT = re.compile(r"```python\n(.*?)```", re.DOTALL)
OF_MAIN = {"--batch", "--json", "--answers", "--help", "--log-file", "--version"}


def test_the_readme_fits_on_two_screens_and_has_the_two_commands():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 130
    for command in ("python main.py demo", "python -m pytest"):
        assert f"    pip install -r requirements.txt && {command}" in lines[:25]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_is_linked_from_the_readme():
    links = set(re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text()))
    assert {f"docs/{page.name}" for page in PAGES[2:]} <= links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_and_stages_that_are_named_exist(page):
    kinds = {name: stage.options for name, stage in STAGES.items()}
    known = {flag(item) for kind in kinds.values() for item in items_of(kind)}
    text = page.read_text()
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))
    assert named - known - OF_MAIN - OTHER_TOOLS == set()
    assert set(re.findall(r"python main\.py (\w+)", text)) <= {*kinds, "STAGE"}
    assert build_parser(kinds).prog


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_of_the_source_that_are_named_exist(page):
    named = set(re.findall(r"`((?:\w+/)+\w+\.py)`", page.read_text()))
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


@pytest.mark.slow  # it trains
def test_the_script_in_the_page_on_the_api_runs(tmp_path):
    (script,) = SCRIPT.findall((ROOT / "docs" / "api.md").read_text())
    assert script.count("\n") <= 18
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=200,
        env=OFFLINE | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "images preprocessed to 128 x 128 pixels" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("Test AUC")
