"""Pictures: figures that evaluation and searches drew, forests, test images, heat-maps."""

import base64
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any
from xml.etree import ElementTree

from interface.report.runs import Prediction, RunView
from interface.report.scores import Interval, interval_of
from interface.report.sheets import Note, Sheet, SheetRow, cell_text
from models.evaluation.predictions import maps_are_older
from pipeline.errors import UserError
from pipeline.labels import KEYS, Labels
from pipeline.manifest import Row
from pipeline.paths import inside
from pipeline.records import RECORD, atomic, read_json
from pipeline.stages.explanation import evidence_in_words
from pipeline.tables import read_table

FOLDER = "figures"
DESCRIPTION = "{http://purl.org/dc/elements/1.1/}description"  # as matplotlib writes it into SVG
BLUE, ORANGE, GREY = "#0b5394", "#b45f06", "#666666"
RUN_FIGURES = {
    "roc": "ROC curve",
    "pr": "Precision-recall curve",
    "reliability": "Reliability on test",
    "decision": "Decision curve on test",
    "probabilities": "Probabilities on test",
    "history": "Training",
}
THUMBNAIL, SHEET = 256, 1600  # longest side in pixels
EACH = 3  # test images of each outcome
OUTCOMES = {"TP": (True, True), "FN": (True, False), "TN": (False, False), "FP": (False, True)}

HEAT_MAPS = "explanations"  # folder of a run
MAP_SIDE, MOST_MAPS = 384, 120  # pixels of a picture; pictures of a run on the page
MAP_COLUMNS = ("image_id", "patient_id", "laterality", "view", "label", "probability", "outcome",
          "evidence", "file")  # fmt: skip
MAP_KINDS = {"map": "Heat-map", "blob": "Centred blob", "breast": "Breast mask",
         "untrained": "Untrained network"}  # fmt: skip
MAP_SCORES = {"pointing": "Pointing game", "energy": "Energy in the lesion", "iou": "IoU"}
MAP_METHODS = {"gradcam": "Grad-CAM", "gradcam++": "Grad-CAM++", "hirescam": "HiRes-CAM",
           "occlusion": "occlusion"}  # fmt: skip


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
    """Return the surest test images of each outcome: the highest or lowest probabilities."""
    found = []
    for malignant, positive in OUTCOMES.values():
        cell = [
            item
            for item in run.predictions["test"]
            if (item.malignant, item.positive) == (malignant, positive)
        ]
        sign = -1 if positive else 1
        cell.sort(key=lambda item: (sign * item.probability, item.image_id))
        shown = [Sample(item, thumbnails.of(item.image_id)) for item in cell[:EACH]]
        title = _outcome(malignant, positive, run.labels)
        found.append(Outcome(title, malignant == positive, len(cell), shown))
    return found


def _outcome(malignant: bool, positive: bool, labels: Labels) -> str:
    """Return a cell of the confusion matrix in words: "Malignant, called benign"."""
    return f"{labels.name(malignant).capitalize()}, called {labels.name(positive)}"


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


@dataclass(frozen=True)
class HeatMap:
    """A test image with its heat-map."""

    source: str  # a JPEG as a data URI
    outcome: str  # "TP", "FP", "TN" or "FN"
    title: str  # the same in words
    name: str  # patient, side and view
    probability: float  # of malignancy
    evidence: str  # the label that it is of, as people read it


@dataclass(frozen=True)
class Explanations:
    """What the page shows of the heat-maps of a run."""

    method: str
    evidence: str  # of what, in words
    maps: Sequence[HeatMap]  # errors first
    counts: Mapping[str, int]  # of them, by outcome
    drawn: int  # how many there are, shown or not
    sheet: Sheet | None  # their scores; None where no mask is known
    checks: str  # what the checks found, in a sentence; empty without them
    older: bool  # whether the run was evaluated again since, with other probabilities or calls
    again: str  # the command that makes them again


def explanations_of(run: RunView) -> Explanations | None:
    """Read the heat-maps of a run; None where there are none, or they cannot be read."""
    folder = run.folder / HEAT_MAPS
    if not (folder / RECORD).is_file():
        return None
    try:
        facts = read_json(folder / "explanations.json")
        lines = [line.cells for line in read_table(folder / "explanations.csv", MAP_COLUMNS).lines]
        drawn = sorted((line for line in lines if line["file"]), key=_errors_first(run))
        each = (_heat_map(folder, line, run.labels) for line in drawn[:MOST_MAPS])
        shown = [found for found in each if found]
        sheet = _sheet(run, facts) if facts["scored"] else None
    except (UserError, KeyError, ValueError):
        return None
    counts = {name: sum(one.outcome == name for one in shown) for name in OUTCOMES}
    method = MAP_METHODS.get(facts["method"], facts["method"])
    evidence = evidence_in_words(facts["evidence"], Labels.recorded(facts))
    return Explanations(
        method, evidence, shown, counts, len(drawn), sheet, _checks(facts["checks"]),
        maps_are_older(run.folder), f"python main.py explain --run {run.folder}",
    )  # fmt: skip


def _errors_first(run: RunView) -> Any:
    def key(line: Mapping[str, str]) -> tuple[bool, float, str]:
        sure = abs(float(line["probability"]) - run.threshold)
        return line["outcome"][0] == "T", -sure, line["image_id"]

    return key


def _heat_map(folder: Path, line: Mapping[str, str], labels: Labels) -> HeatMap | None:
    if not (source := _picture(inside(folder, line["file"]))):
        return None
    name = f"{line['patient_id']} {line['laterality']} {line['view']}"
    title = _outcome(*OUTCOMES[line["outcome"]], labels)
    probability = float(line["probability"])
    evidence = line["evidence"].replace("_", " ")
    return HeatMap(source, line["outcome"], title, name, probability, evidence)


def _picture(path: Path) -> str:
    """Return a picture in colours as a JPEG data URI; empty text where it cannot be read."""
    import cv2

    from images.files import read_bytes

    try:
        picture = cv2.imdecode(read_bytes(path), cv2.IMREAD_COLOR)
    except UserError:
        return ""
    if picture is None:
        return ""
    scale = min(1.0, MAP_SIDE / max(picture.shape[:2]))
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    done, content = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])
    return data_uri("image/jpeg", content.tobytes()) if done else ""


def _sheet(run: RunView, facts: Mapping[str, Any]) -> Sheet:
    rows = [
        SheetRow(
            title,
            [interval_of(facts["scores"][kind][group][score]) for score in MAP_SCORES],
            part=part,
        )
        for group, part in _groups(Labels.recorded(facts)).items()
        for kind, title in MAP_KINDS.items()
    ]
    caption = (
        f"Heat-maps beside the outlines of lesions: {facts['scored']} test images of "
        f"{facts['patients']} patients. Pointing game: the share of images whose hottest pixel "
        f"lies in a lesion, or within {facts['tolerance']:.0%} of the side beside it. IoU: at the "
        "threshold that was best on validation. 95 % intervals over patients."
    )
    return Sheet(f"{run.slug}/heat_maps", caption, ("Map", *MAP_SCORES.values()), rows)


def _groups(labels: Labels) -> dict[str, str]:
    """Return the groups of images by their names in JSON, as they are called on the page."""
    names = ("All images", *(name.capitalize() for name in labels.names))
    return dict(zip(("all", *KEYS), names, strict=True))


def _checks(checks: Mapping[str, Any] | None) -> str:
    if not checks:
        return ""
    parts = []
    mirror = (checks.get("single_mirror") or {}).get("value")
    last = checks["randomised"][-1]["correlation"]
    for name in ("deletion", "insertion"):
        own, blob = (checks[name][kind]["value"] for kind in ("map", "blob"))
        parts.append(f"area under the {name} curve {own:.2f} (centred blob {blob:.2f})")
    if mirror is not None:
        parts.append(f"correlation of single maps of mirror images {mirror:.2f}")
    if last is not None:
        parts.append(f"rank correlation with the maps of random weights {last:.2f}")
    return f"Checks on {checks['images']} test images: {'; '.join(parts)}."
