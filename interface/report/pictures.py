"""Pictures: figures that evaluation and searches drew, forests, test images, heat-maps."""

import base64
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any
from xml.etree import ElementTree

from interface.report.reading.runs import Prediction, RunView
from interface.report.reading.scores import Interval
from interface.report.sheets import Note, Sheet, SheetRow, cell_text
from pipeline.errors import UserError
from pipeline.manifest import Row
from pipeline.records import atomic

FOLDER = "figures"
DESCRIPTION = "{http://purl.org/dc/elements/1.1/}description"  # as matplotlib writes it into SVG
BLUE, ORANGE, GREY = "#0b5394", "#b45f06", "#666666"
RUN_FIGURES = {
    "roc": "ROC curve",
    "pr": "Precision-recall curve",
    "reliability": "Reliability on test",
    "decision": "Decision curve on test",
    "probabilities": "Probabilities on test",
    "errors": "Errors on test",
    "history": "Training",
}
THUMBNAIL, SHEET = 256, 1600  # longest side in pixels
EACH = 3  # test images of each outcome
OUTCOMES = {"TP": (True, True), "FN": (True, False), "TN": (False, False), "FP": (False, True)}


@dataclass(frozen=True)
class Picture:
    """A figure on the page: its heading, what it shows in words, and its data URI."""

    title: str
    description: str
    source: str


def pictures_of(folder: Path, titles: Mapping[str, str]) -> list[Picture]:
    """Return those of the figures below a run or study that are there, in the order of titles."""
    return [
        Picture(title, _description(path) or title, data_uri("image/svg+xml", path.read_bytes()))
        for name, title in titles.items()
        if (path := folder / FOLDER / f"{name}.svg").is_file()
    ]


def _description(path: Path) -> str:
    try:
        return ElementTree.parse(path).getroot().findtext(f".//{DESCRIPTION}") or ""
    except ElementTree.ParseError:
        return ""


def copy_figures(source: Path, target: Path) -> None:
    """Copy all figures of a run or study."""
    for path in sorted((source / FOLDER).glob("[!.]*.*")):
        if path.suffix in (".svg", ".png"):
            with atomic(target / path.name) as temporary:
                shutil.copyfile(path, temporary)


def draw_forest(sheet: Sheet, path: Path) -> None:
    """Draw the first figure of each row of a table with its interval."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from models.evaluation.figures import STYLE, save

    assert sheet.forest is not None
    rows = [row for row in sheet.rows if row.whisker is not None]
    scale = sheet.forest.scale
    with rc_context(STYLE):
        height = 1.2 + 0.24 * (len(rows) + len({row.part for row in rows}))
        figure = Figure(figsize=(7.2, height), facecolor="white")
        axes = figure.add_axes((0.5, 0.5 / height, 0.48, 1 - 0.6 / height))
        for place, (_, left, right) in enumerate(sheet.forest.bands):
            axes.axvspan(left, right, color=(ORANGE, BLUE)[place % 2], alpha=0.12, linewidth=0)
        axes.axvline(sheet.forest.chance, color=GREY, linewidth=0.8, linestyle=":")
        labels = _draw_rows(axes, rows)
        axes.set_yticks([place for place, _ in labels], [text for _, text in labels], fontsize=7)
        axes.set(ylim=(labels[-1][0] + 0.7, labels[0][0] - 0.7), xlabel=sheet.forest.title)
        axes.set(xlim=(scale.start, scale.end))
        axes.set_xticks([t.at for t in sheet.forest.ticks], [t.text for t in sheet.forest.ticks])
        save(figure, path)


def _draw_rows(axes: Any, rows: Sequence[SheetRow]) -> list[tuple[float, str]]:
    """Draw whiskers from the top down, with room before each part; return places and labels."""
    labels: list[tuple[float, str]] = []
    place = 0.0
    leveled = len({row.part for row in rows}) > 2  # heads such as "2" need the factor's name
    for before, row in zip((None, *rows), rows, strict=False):
        if before is not None and before.part != row.part:
            place += 0.8
        found = row.whisker
        assert found is not None
        color = GREY if row.kind else BLUE
        axes.plot([found.low, found.high], [place, place], color=color, linewidth=1.4)
        axes.plot(found.value, place, "o", color=color, markersize=4)
        first = row.cells[0]
        figures = cell_text(first) if isinstance(first, Interval | Note) else ""
        name = f"{row.part}, {row.head}" if leveled else row.head
        labels.append((place, f"{shorten(name, 50, placeholder=' ...')}  {figures}"))
        place += 1
    return labels


@dataclass(frozen=True)
class Thumbnail:
    """A test image as the page shows it."""

    source: str  # a JPEG as a data URI; empty where the image cannot be read
    outlined: int  # how many lesions are outlined in it


@dataclass(frozen=True)
class Sample:
    """One test image with what the model said of it."""

    prediction: Prediction
    picture: Thumbnail


@dataclass(frozen=True)
class Outcome:
    """The surest predictions of one cell of the confusion matrix."""

    title: str
    correct: bool
    total: int  # test images in the cell
    samples: Sequence[Sample]


class Thumbnails:
    """Makes each thumbnail once, however many runs show it."""

    def __init__(self, folder: Path, rows: Sequence[Row], masks: Mapping[str, list[Path]]) -> None:
        """Remember where the images of a dataset lie, and the masks of their lesions.

        Args:
            folder: The dataset.
            rows: Its manifest.
            masks: By image_id, (H, W) files of the size of the organised image.
        """
        self._folder, self._masks = folder, masks
        self._rows = {row.image_id: row for row in rows}
        self._made: dict[str, Thumbnail] = {}

    def of(self, image_id: str) -> Thumbnail:
        """Return an image with the outlines of its lesions."""
        if image_id not in self._made:
            self._made[image_id] = self._make(image_id)
        return self._made[image_id]

    def _make(self, image_id: str) -> Thumbnail:
        row = self._rows.get(image_id)
        if row is None:
            return Thumbnail("", 0)
        lesions = [found for path in self._masks.get(image_id, ()) if (found := _lesion(path, row))]
        outlines = [one for lesion in lesions for one in lesion]
        return Thumbnail(jpeg(self._folder / row.path, THUMBNAIL, outlines), len(lesions))


def _lesion(mask: Path, row: Row) -> list[Any]:
    """Return the outlines of a mask in the pixels of its image; none where it cannot be read."""
    from images.files import read_image
    from images.frame import Frame
    from images.outlines import outlines_of

    try:
        found = outlines_of(read_image(mask) > 0)
    except UserError:
        return []
    if row.crop_width is None:  # organised, not preprocessed: the mask has its size
        return found
    frame = Frame.of_row(row)
    return [frame.to_working(points) for points in found]


def samples(run: RunView, thumbnails: Thumbnails) -> list[Outcome]:
    """Return the surest test images of each outcome: the highest or lowest scores."""
    found = []
    for malignant, positive in OUTCOMES.values():
        cell = [
            item
            for item in run.predictions["test"]
            if (item.malignant, item.positive) == (malignant, positive)
        ]
        sign = -1 if positive else 1
        cell.sort(key=lambda item: (sign * item.score, item.image_id))
        shown = [Sample(item, thumbnails.of(item.image_id)) for item in cell[:EACH]]
        title = run.outcome(malignant, positive)
        found.append(Outcome(title, malignant == positive, len(cell), shown))
    return found


def jpeg(path: Path, side: int, outlines: Sequence[Any] = ()) -> str:
    """Return an image file as a JPEG data URI, no side longer than `side` pixels.

    Args:
        path: Of the image.
        side: In pixels.
        outlines: `images.outlines.Outline`s, in pixels of the image; they are drawn after
            reducing it, so that the line stays thin.

    Returns:
        Empty text where the file cannot be read as an image.
    """
    import cv2

    from images.files import read_image
    from images.outlines import draw_outlines

    try:
        image = read_image(path)  # (H, W) uint16
    except UserError:
        return ""
    height, width = image.shape
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    shown: Any = cv2.convertScaleAbs(small, alpha=255 / 65535)
    if outlines:
        ratio = size[0] / width, size[1] / height
        shown = draw_outlines(shown, [points * ratio for points in outlines])
    full = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444  # colours at half the resolution would blur lines
    quality = [cv2.IMWRITE_JPEG_QUALITY, 80, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, full]
    done, content = cv2.imencode(".jpg", shown, quality)
    return data_uri("image/jpeg", content.tobytes()) if done else ""


def data_uri(kind: str, content: bytes) -> str:
    """Return bytes as a data URI of a media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
