"""Draws the README's pictures anew: the questionnaire as SVG, the top of a report as PNG.

    python docs/pictures.py                  # both; the report trains two models first
    python docs/pictures.py questionnaire    # the questionnaire alone, in half a minute

Both show what the program does now, on a synthetic collection in a temporary folder. The
questionnaire needs a pseudo-terminal (Linux, macOS), the report chromium.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

import pexpect
import pyte

DOCS = Path(__file__).resolve().parent
QUESTIONNAIRE, REPORT = DOCS / "questionnaire.svg", DOCS / "report.png"
MAIN = DOCS.parent / "main.py"
COLUMNS, LINES = 80, 24
WAIT, QUIET = 120.0, 0.5  # seconds: for a screen at most, and without a byte until it is complete
ENTER, DOWN = "\r", "\x1b[B"
# Without NO_CPR prompt_toolkit waits for a cursor report; without a hub nothing is downloaded.
PLACE = os.environ | {"PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm", "HF_HUB_OFFLINE": "1",
                      "COLUMNS": str(COLUMNS), "LINES": str(LINES)}  # fmt: skip

# Of the SVG, in pixels. A width of its own on each text makes any monospaced font fit.
CELL, LINE, SIZE, MARGIN, BAR, GAP = 8.4, 20, 14, 16, 30, 16
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
# One dark window for light and dark pages; each pair of colours has a contrast of 7 or more.
STYLE = f"""
text {{ font: {SIZE}px {FONTS}; fill: #d0d7de; white-space: pre }}
.bold {{ font-weight: 600; fill: #ffffff }}
.red {{ fill: #ff9d96 }}
.title {{ fill: #b1bac4 }}
.window {{ fill: #161b22; stroke: #57606a }}
.bar {{ stroke: #57606a }}
"""
PRESERVE = {"lengthAdjust": "spacingAndGlyphs", "xml:space": "preserve"}
DESCRIPTION = (
    "Two screens of the questionnaire. The questions of organize: beside each choice stands how "
    "many images it leaves. Then all answers as a list, which Enter runs as it stands."
)

PATIENTS, MODELS, EPOCHS = 200, "ResNet18_CFT,ResNet18_OPW", 8  # of the report
WIDTH, HEIGHT = 1280, 1095  # of its picture, in pixels
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Part(NamedTuple):
    """Characters beside each other that look the same."""

    text: str
    look: str  # a class of STYLE, or empty


Row = list[Part]


class Person:
    """A person at the program's terminal: reads the screen and presses keys."""

    def __init__(self, folder: Path) -> None:
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.Stream(self._screen)
        self._child = pexpect.spawn(
            sys.executable, [str(MAIN)], cwd=str(folder), env=PLACE, encoding="utf-8",
            dimensions=(LINES, COLUMNS),
        )  # fmt: skip

    def reads(self, text: str) -> list[Row]:
        """Wait until the screen shows a text and stands still; return the screen.

        Raises:
            TimeoutError: It never came.
        """
        until = time.monotonic() + WAIT
        while time.monotonic() < until:
            try:
                self._stream.feed(self._child.read_nonblocking(1 << 16, QUIET))
            except pexpect.TIMEOUT:
                if any(text in line for line in self._screen.display):
                    return self._rows()
            except pexpect.EOF:
                break
        shown = "\n".join(line.rstrip() for line in self._screen.display)
        raise TimeoutError(f"{text!r} is not on the screen:\n{shown}")

    def presses(self, *keys: str) -> None:
        """Press keys, at the pace of a person."""
        for key in keys:
            self._child.send(key)
            time.sleep(0.2)

    def leaves(self) -> None:
        """Hang up."""
        self._child.close(force=True)

    def _rows(self) -> list[Row]:
        """Return the lines of the screen, without empty ones before and after."""
        rows = []
        for number in range(LINES):
            cells = [self._screen.buffer[number][column] for column in range(COLUMNS)]
            looks = groupby(cells, lambda cell: "red" if cell.fg == "red" else "bold" * cell.bold)
            parts = [Part("".join(cell.data for cell in same), look) for look, same in looks]
            rows.append(_stripped(parts))
        while rows and not rows[0]:
            rows.pop(0)
        while rows and not rows[-1]:
            rows.pop()
        return rows


def _stripped(parts: Row) -> Row:
    """Drop the spaces at the end of a line."""
    while parts and not parts[-1].text.strip():
        parts.pop()
    return [*parts[:-1], parts[-1]._replace(text=parts[-1].text.rstrip())] if parts else []


def run(folder: Path, *words: str) -> None:
    """Run a stage in a folder, without a question.

    Raises:
        subprocess.CalledProcessError: It failed.
    """
    command = [sys.executable, str(MAIN), *words, "--batch"]
    subprocess.run(command, cwd=folder, env=PLACE, check=True, stdin=subprocess.DEVNULL)


def ask(folder: Path) -> list[list[Row]]:
    """Walk through the questions of organize as a new user does; return the screens to show."""
    run(folder, "synthesize", "--size", "256")
    person = Person(folder)
    try:
        person.reads("Next step?")
        person.presses(ENTER)  # the step that is offered: organize
        person.reads("Folder of the raw download")
        person.presses(ENTER)
        person.reads("Folder to write the dataset to")
        person.presses(ENTER)
        person.reads("What one image is")
        person.presses(ENTER)
        person.reads("Which findings?")
        person.presses(DOWN, DOWN)
        counted = person.reads("» both")
        person.presses(ENTER)
        person.reads("Patients who are in train and in test?")
        person.presses(ENTER)
        person.reads("BENIGN_WITHOUT_CALLBACK")
        person.presses(ENTER)
        return [counted, person.reads("Enter runs it")]
    finally:
        person.leaves()


def svg_of(screens: Sequence[Sequence[Row]]) -> str:
    """Return screens one below the other as the text of an SVG, each in a window."""
    width = COLUMNS * CELL + 2 * MARGIN
    heights = [BAR + len(rows) * LINE + 2 * MARGIN for rows in screens]
    height = sum(heights) + GAP * (len(screens) - 1)
    root = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img",
                              "viewBox": f"-1 -1 {width + 2:.0f} {height + 2}"})  # fmt: skip
    ET.SubElement(root, "title").text = "The questionnaire of Mammolab"
    ET.SubElement(root, "desc").text = DESCRIPTION
    ET.SubElement(root, "style").text = STYLE
    top = 0
    for rows, high in zip(screens, heights, strict=True):
        window = ET.SubElement(root, "g", {"transform": f"translate(0 {top})"})
        frame = {"class": "window", "width": f"{width:.0f}", "height": str(high), "rx": "8"}
        ET.SubElement(window, "rect", frame)
        ET.SubElement(window, "path", {"class": "bar", "d": f"M0 {BAR}H{width:.0f}"})
        _write(window, [Part("python main.py", "title")], BAR - 10)
        for number, row in enumerate(rows, start=1):
            if row:
                _write(window, row, BAR + MARGIN + number * LINE - 5)
        top += high + GAP
    # A line of the file for each line of text, so that a change of one reads as one.
    return ET.tostring(root, encoding="unicode").replace("><text", ">\n<text") + "\n"


def _write(window: ET.Element, row: Row, y: int) -> None:
    """Add a line of text at a height."""
    width = f"{sum(len(part.text) for part in row) * CELL:.1f}"
    place = {"x": str(MARGIN), "y": str(y), "textLength": width}
    line = ET.SubElement(window, "text", place | PRESERVE)
    for part in row:
        ET.SubElement(line, "tspan", {"class": part.look} if part.look else {}).text = part.text


def texts_of(svg: str) -> list[str]:
    """Return the lines of text in an SVG of `svg_of`."""
    return [
        "".join(line.itertext()) for line in ET.fromstring(svg).iter() if line.tag.endswith("}text")
    ]


def draw_questionnaire(folder: Path) -> str:
    """Return the questionnaire of a new user in an empty folder as the text of an SVG."""
    return svg_of(ask(folder))


def draw_report(folder: Path) -> bytes:
    """Return the top of the report of two models, trained in an empty folder, as a PNG."""
    run(folder, "synthesize", "--patients", str(PATIENTS))
    run(folder, "all", "--model", MODELS, "--weights", "none", "--epochs", str(EPOCHS))
    (page,) = folder.glob("reports/*/report.html")
    return photograph(page, folder / "report.png")


def photograph(page: Path, picture: Path) -> bytes:
    """Write the top of a page as a PNG and return its bytes.

    Raises:
        FileNotFoundError: There is no browser to draw with.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise FileNotFoundError(f"the report's picture needs one of {', '.join(BROWSERS)}")
    # A browser refuses its sandbox to root, who is the user of many containers.
    size = f"--window-size={WIDTH},{HEIGHT}"
    quiet = "--headless", "--no-sandbox", "--hide-scrollbars"
    command = [browser, *quiet, size, f"--screenshot={picture}", page.resolve().as_uri()]
    subprocess.run(command, check=True, capture_output=True)
    return picture.read_bytes()


def main(words: Sequence[str]) -> None:
    """Draw the pictures that are named, or both."""
    with contextlib.ExitStack() as stack:
        for name in words or ("questionnaire", "report"):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            if name == "questionnaire":
                QUESTIONNAIRE.write_text(draw_questionnaire(folder), encoding="utf-8")
            else:
                REPORT.write_bytes(draw_report(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
