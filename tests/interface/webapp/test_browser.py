"""The page in a real browser, served by the command as a person starts it."""

import base64
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import pydicom
import pytest

from interface.screen import NOTICE
from tests.conftest import OFFLINE, ROOT
from tests.interface.webapp.conftest import bomb, coloured, photo
from tests.models.prediction.workspace import make_detectors

sync_api = pytest.importorskip("playwright.sync_api")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium"),
    # Of playwright, whose loop outlives a test that failed.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
START_SECONDS = 10
BIG = 3 * 2**20  # bytes: more than servers keep in memory by themselves


class Served:
    """The page's process, and what it printed."""

    def __init__(self, place, log, *flags, **env):
        self.started = time.monotonic()
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "main.py"), "app", *flags],
            cwd=place, env=OFFLINE | {"PYTHONDONTWRITEBYTECODE": "1"} | env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=write_nothing,
        )  # fmt: skip
        while not (found := re.search(r"http://\S+", line := self.process.stdout.readline())):
            assert line, self.process.communicate()
        self.address = found[0]

    def end(self):
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


def write_nothing():
    """Let this process and those that it starts put no byte into any file."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


@pytest.fixture(scope="module")
def served(place, tmp_path_factory):
    page = Served(place, tmp_path_factory.mktemp("log"))
    yield page
    if page.process.poll() is None:
        page.end()


@pytest.fixture(scope="module")
def detectors(place, once, tmp_path_factory):
    """A page with a classifier, beside which there are detectors."""
    runs = once("detected", lambda folder: make_detectors(place, folder))
    flags = ("--run", "ResNet18_OPW", "--runs", str(runs), "--port", "8740")
    page = Served(place, tmp_path_factory.mktemp("log"), *flags)
    yield page
    page.end()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, served):
    """Open the page as another person, with a window of its own size."""
    opened = []

    def open_page(width=1280, height=900, address=None):
        context = browser.new_context(viewport={"width": width, "height": height})
        opened.append(context)
        page = context.new_page()
        page.requested = []
        page.on("request", lambda request: page.requested.append(request.url))
        page.goto(address or served.address)
        page.get_by_text("Research software.").wait_for()
        return page

    yield open_page
    for context in opened:
        context.close()


def drop(page, *files):
    """Drop files, paths or pairs of name and content, beside those that lie there."""
    given = [
        {"name": one[0], "mimeType": "application/octet-stream", "buffer": one[1]}
        if isinstance(one, tuple) else str(one)
        for one in files
    ]  # fmt: skip
    page.locator("input[type=file]").set_input_files(given)


def picture_of(page):
    """Return the picture that is shown, as bytes."""
    source = page.locator(".film img").get_attribute("src")
    return base64.b64decode(source.partition(",")[2])


def wide_of(page):
    """Return how far a person could scroll the page to the side, in pixels."""
    return page.evaluate(
        "[document.documentElement, document.querySelector('.stMain')]"
        ".map(e => e.scrollWidth - e.clientWidth)"
    )


@pytest.fixture(scope="module")
def named(dicom, tmp_path_factory):
    """A large DICOM file that names a patient in its header, and in its own name."""
    data = pydicom.dcmread(dicom)
    data.PatientName, data.PatientBirthDate = "Doe^Jane", "19531224"
    data.private_block(0x0099, "tests", create=True).add_new(1, "OB", bytes(BIG))
    path = tmp_path_factory.mktemp("named") / "doe_jane.dcm"
    data.save_as(path)
    return path


def test_the_page_is_there_within_ten_seconds(place, browser, tmp_path):
    page = Served(place, tmp_path, "--port", "8700")
    try:
        context = browser.new_context()
        shown = context.new_page()
        shown.goto(page.address)
        shown.get_by_text("Drop mammograms here").wait_for()
        seconds = time.monotonic() - page.started
        context.close()
    finally:
        status, out, _ = page.end()
    assert seconds < START_SECONDS
    assert status == 0
    assert "The page is closed." in out


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_a_film_with_its_heat_map_comes_first(visit, named, width, height):
    page = visit(width, height)
    drop(page, named)
    page.locator(".result").wait_for()
    film, result = page.locator(".film img"), page.locator(".result")
    assert film.bounding_box()["y"] < result.bounding_box()["y"] < height
    assert page.get_by_text(NOTICE).is_visible()
    assert coloured(picture_of(page)).max() > 40
    assert wide_of(page) == [0, 0]
    shape = film.evaluate("e => [e.naturalHeight / e.naturalWidth, getComputedStyle(e).objectFit]")
    assert shape[1] == "contain"  # never stretched
    page.get_by_role("slider", name="Heat-map").focus()
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(2000)
    assert coloured(picture_of(page)).max() == 0
    text = page.locator("body").inner_text()
    assert "19531224" not in text
    assert "Doe^Jane" not in text
    assert [url for url in page.requested if "127.0.0.1" not in url and "data:" not in url] == []


def test_a_png_too(visit, picture):
    page = visit()
    drop(page, picture)
    page.locator(".result").wait_for()
    assert coloured(picture_of(page)).max() > 40
    with page.expect_download() as download:
        page.get_by_text("Download as CSV").click()
    assert download.value.suggested_filename == "mammolab.csv"


def test_what_is_no_film_is_answered_politely(visit):
    page = visit()
    for name, content, reason in (
        ("torn.dcm", b"\0" * 128 + b"DICM" + b"\xff" * 400, "torn.dcm: "),
        ("note.dcm", b"a text\n" * 90, "is a text file, not DICOM"),
        ("bomb.png", bomb(), "has more than 178 million pixels"),
    ):
        drop(page, (name, content))
        page.get_by_role("alert").filter(has_text=reason).wait_for()
    drop(page, ("holiday.jpg", photo()))
    page.get_by_text("Unlike the images of the training.").wait_for()
    assert page.get_by_text("The probability means nothing here.").first.is_visible()
    text = page.locator("body").inner_text()
    assert "Traceback" not in text
    assert "Error" not in text


def test_a_file_over_the_limit_is_refused(visit, tmp_path):
    large = tmp_path / "large.dcm"
    with large.open("wb") as file:
        file.truncate(200 * 2**20)
    page = visit()
    drop(page, large)
    reason = page.get_by_text("File must be 100.0MB or smaller")
    reason.wait_for()
    assert reason.bounding_box()["width"] > 100  # seen, and not by a screen reader alone
    assert reason.bounding_box()["height"] > 10


def test_two_people_at_once_see_only_their_own(visit, named, picture):
    one, other = visit(), visit()
    drop(one, named)
    drop(other, ("yours.png", picture.read_bytes()))
    one.locator(".result").wait_for()
    other.locator(".result").wait_for()
    assert "doe_jane.dcm" in one.locator("body").inner_text()
    assert "yours.png" not in one.locator("body").inner_text()
    assert "yours.png" in other.locator("body").inner_text()
    assert "doe_jane.dcm" not in other.locator("body").inner_text()
    assert picture_of(one) != picture_of(other)


def test_a_password_opens_the_page(place, visit, tmp_path):
    page = Served(place, tmp_path, "--port", "8720", MAMMOLAB_PASSWORD="sesame")
    try:
        shown = visit(address=page.address)
        shown.get_by_label("Password", exact=True).fill("sesame")
        assert shown.locator("input[type=file]").count() == 0
        shown.get_by_role("button", name="Open").click()
        shown.get_by_text("Drop mammograms here").wait_for()
    finally:
        _, out, err = page.end()
    assert "sesame" not in out + err


PUT = """async session => {
  const form = new FormData();
  form.append('file', new File(['film'], 'film.png'));
  const token = document.cookie.match(/_streamlit_xsrf=([^;]+)/);
  const headers = token ? {'X-Xsrftoken': token[1]} : {};
  const url = `/_stcore/upload_file/${session}/1`;
  return (await fetch(url, {method: 'PUT', body: form, headers})).status;
}"""
SESSION = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def test_nothing_can_be_uploaded_before_the_password(place, browser, tmp_path):
    page = Served(place, tmp_path, "--port", "8730", MAMMOLAB_PASSWORD="sesame")
    context = browser.new_context()
    try:
        shown, frames = context.new_page(), []
        heard = frames.append
        shown.on("websocket", lambda one: one.on("framereceived", lambda frame: heard(frame)))
        shown.goto(page.address)
        field = shown.get_by_label("Password", exact=True)
        field.wait_for()
        sessions = set(SESSION.findall(b"".join(one for one in frames if isinstance(one, bytes))))
        before = {shown.evaluate(PUT, one.decode()) for one in sessions}
        field.fill("sesame")
        shown.get_by_role("button", name="Open").click()
        shown.get_by_text("Drop mammograms here").wait_for()
        after = {shown.evaluate(PUT, one.decode()) for one in sessions}
    finally:
        context.close()
        page.end()
    assert before == {403}
    assert 204 in after


def test_nothing_serious_is_found_by_axe(visit, picture):
    from importlib.resources import files

    page = visit()
    drop(page, picture)
    page.locator(".result").wait_for()
    # Streamlit fades what it has not drawn again yet, and for a moment after.
    page.wait_for_function("!document.querySelector('[data-stale=\"true\"]')")
    page.wait_for_timeout(1000)
    page.add_script_tag(content=files("axe_core_python").joinpath("axe.min.js").read_text("utf-8"))
    found = page.evaluate("axe.run()")
    ours = [
        (one["id"], node["html"][:160])
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]
    assert ours == []


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_a_second_opinion_stands_below_and_its_map_can_be_chosen(
    detectors, browser, picture, width, height
):
    context = browser.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    page.goto(detectors.address)
    drop(page, picture)
    page.locator(".second").wait_for()
    result, second = page.locator(".result"), page.locator(".second")
    assert result.bounding_box()["y"] < second.bounding_box()["y"]
    assert page.get_by_text(NOTICE).is_visible()
    assert wide_of(page) == [0, 0]
    bar, marker = page.locator(".bar").bounding_box(), page.locator(".bar i").bounding_box()
    assert bar["width"] > 150
    assert bar["x"] - 10 <= marker["x"] <= bar["x"] + bar["width"]
    for label in page.locator(".bar span").all():
        box = label.bounding_box()
        assert box["x"] + box["width"] <= bar["x"] + bar["width"] + 1
    before = picture_of(page)
    page.get_by_text("errors beyond those of normal images").click()
    page.get_by_text("larger errors").wait_for()
    assert picture_of(page) != before
    context.close()


def test_at_the_end_no_upload_was_named(served, visit, named):
    """The last one: it ends the page."""
    page = visit()
    drop(page, named)
    page.locator(".result").wait_for()
    status, out, err = served.end()
    assert status == 0
    assert NOTICE in out
    for name in ("doe", "Doe", "yours", "holiday", "note.dcm", "Traceback"):
        assert name not in out + err
