"""How the page reads: in a browser, on a phone, in dark, and for who cannot see it."""

import html
import json
import re
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import pytest

from interface.report.stage import report
from pipeline.progress import Silent
from pipeline.stages.evaluation import Report
from tests.interface.report.files import baselines, cohort, dataset, run_folder, stratum
from tests.interface.report.test_stage import BROWSER, Page, browse

CSS = (Path(__file__).parents[3] / "interface" / "report" / "templates" / "report.css").read_text()
MODELS = [
    f"{family}_{strategy}"
    for family in ("ResNet18", "DenseNet121", "EfficientNetB3")
    for strategy in ("OPW", "PFT", "CFT")
] + ["EfficientNetB3_Optuna", "MammoCNN"]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page with all that a page can have."""
    root = tmp_path_factory.mktemp("reading")
    rows = cohort(48)
    data = dataset(root, rows)
    strata = [stratum("density", "1", 0.7), stratum("density", "2", 0.6, small=True)]
    run_folder(root / "runs", data, rows, strata=strata)
    run_folder(root / "runs", data, rows, seed=43)
    run_folder(root / "runs", data, rows, "MammoCNN", 0.8)
    baselines(root / "runs", data, rows, background=3.0, metadata=None)
    result = report(Report(runs=root / "runs", out=root / "reports"), Silent())
    return Path(result.facts["report"])


def accessible(page, folder):
    """Run axe-core over a page, all of it unfolded, and return what it found."""
    text = page.read_text(encoding="utf-8").replace("<details>", "<details open>")
    text = re.sub(r"<meta http-equiv[^>]*>", "", text)  # it lets no script run
    script = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    run = """axe.run().then(found => {
        const place = document.createElement("pre"); place.id = "found";
        place.textContent = JSON.stringify({violations: found.violations, passes: found.passes});
        document.body.append(place) })"""
    copy = folder / "page.html"
    scripts = f"<script>{script}</script><script>{run}</script></body>"
    copy.write_text(text.replace("</body>", scripts), encoding="utf-8")
    told = browse(copy, folder / "profile", "--virtual-time-budget=60000", "--dump-dom")
    return json.loads(
        html.unescape(re.search(r'<pre id="found">(.*?)</pre>', told.stdout, re.S)[1])
    )


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium")
def test_axe_finds_nothing_serious(page, tmp_path):
    """In the light theme; the colours of the dark one are compared below."""
    found = accessible(page, tmp_path)
    bad = [
        (one["id"], [node["html"][:200] for node in one["nodes"]])
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]
    assert bad == []
    assert {"color-contrast", "label", "heading-order", "region"} <= {
        one["id"] for one in found["passes"]
    }


def test_headings_are_in_order(page):
    levels = [int(tag[1]) for tag, _ in Page(page).elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_models_stand_first_and_options_of_preprocessing_are_folded(page):
    text = page.read_text(encoding="utf-8")
    sections = re.findall(r'<section(?: class="run")? id="(\w+)"', text)
    assert sections[:3] == ["models", "data", "preprocessing"]
    links = re.findall(r'<li><a href="#(\w+)">', text)
    assert links[:3] == sections[:3]
    folded = re.findall(r"<details>\s*<summary>(.*?)</summary>(.*?)</details>", text, re.S)
    assert "CLAHE" in dict(folded)["Options of preprocessing"]


def test_every_choice_has_its_label_and_every_scrolling_part_takes_the_keyboard(page):
    found = Page(page)
    assert {item["id"] for item in found.all("input")} == {
        item["for"] for item in found.all("label")
    }
    parts = [item for item in found.all("div") if item.get("class") == "scroll"]
    assert parts
    assert all(item["tabindex"] == "0" and item["aria-label"] for item in parts)


def contrast(one, other):
    """Return the contrast ratio of two colours as "#rrggbb" (WCAG 2.2)."""

    def luminance(color):
        parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_in_charts_too_stands_out_in_both_themes(theme):
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w{6});", part)) for part in re.findall(
        r":root \{(.*?)\}", CSS, re.S))  # fmt: skip
    colors = light if theme == "light" else light | dark
    for ink in ("ink", "muted", "accent", "malignant"):
        for ground in ("paper", "card"):
            assert contrast(colors[ink], colors[ground]) >= 4.5, (ink, ground)
    assert contrast(colors["warn-ink"], colors["warn-paper"]) >= 4.5
    assert contrast(colors["alarm-ink"], colors["alarm-paper"]) >= 4.5
    assert contrast(colors["benign"], colors["paper"]) >= 3  # no text


@pytest.mark.skipif(BROWSER is None, reason="no chromium")
def test_the_warning_of_a_shortcut_is_on_the_first_screen_of_a_phone(page, tmp_path):
    outer = tmp_path / "outer.html"
    outer.write_text(
        f'''<iframe src="{page.as_uri()}" style="width:390px;height:844px" onload="
        const box = contentDocument.querySelector('.alarm').getBoundingClientRect();
        document.title = [box.top >= 0, box.bottom < 844, box.width > 300].join()"></iframe>'''
    )
    told = browse(outer, tmp_path / "profile", "--allow-file-access-from-files", "--dump-dom")
    assert "<title>true,true,true</title>" in told.stdout


@pytest.mark.slow
def test_eleven_models_weigh_little(tmp_path):
    rows = cohort(24)
    data = dataset(tmp_path, rows)
    for model in MODELS:
        run_folder(tmp_path / "runs", data, rows, model)
    result = report(Report(runs=tmp_path / "runs", out=tmp_path / "reports"), Silent())
    assert Path(result.facts["report"]).stat().st_size < 10e6
    assert all(model in Page(result.facts["report"]).text for model in MODELS)
