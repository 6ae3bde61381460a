"""Sanity baselines of a dataset: scores without a trained network.

A model that beats neither the base rate nor a network that learnt nothing has shown nothing, and
where the background alone predicts the label, no score means what it says (Zech et al. 2018, PLoS
Med 15:e1002683). All are fitted on the training images; none chooses anything on validation.
"""

import contextlib
import importlib.metadata
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from images.jobs import chain_digest, code_digest
from models import inference, networks
from models.bootstrap import estimates
from models.data import loading
from models.data.loading import EvalTransform, Split, load_split
from models.evaluation import background
from models.evaluation.background import backgrounds
from models.evaluation.scored import interval_text
from models.evaluation.tested import BASELINES_FOLDER
from models.inference import choose_compute, run_over
from models.metrics import Floats
from models.registry import MODELS
from pipeline.errors import UserError
from pipeline.labels import Labels
from pipeline.manifest import SPLITS, Row, read_manifest
from pipeline.progress import Advance, Progress
from pipeline.provenance import dataset_hash
from pipeline.records import RECORD, digest, file_digest, read_json, write_json

Scores = Mapping[str, Mapping[str, float]]  # by split and image_id: probabilities of malignancy
BySplit = dict[str, Floats]

SCORED = SPLITS[1:]
BASELINES = {
    "majority": (
        "Majority class",
        "The share of {positive} training images, the same for every image.",
    ),
    "assessment": (
        "BI-RADS assessment alone",
        "The share of {positive} training images with the same BI-RADS assessment, of several "
        "lesions the highest. A radiologist gave it after reading the film.",
    ),
    "metadata": (
        "Metadata only",
        "Logistic regression on {columns}, "
        "as the case descriptions give them. Radiologists read most of them from the film.",
    ),
    "untrained": (
        "Untrained network",
        "ResNet18 with random weights and a random head, on the images at 56 pixels: what a "
        "network scores that learnt nothing.",
    ),
    "shuffled": (
        "Shuffled labels",
        "Logistic regression on the features of that network, fitted to labels that were "
        "shuffled among the training patients.",
    ),
    "background": (
        "Background only",
        "Logistic regression on mean and spread of the grey values in 256 cells of each image, "
        "with the breast masked out.",
    ),
}
COLUMNS = ("density", "view", "laterality", "finding", "subtlety", "shape", "margins")
# Where there are normal images, the columns of lesions would be the label itself.
WITH_NORMALS = COLUMNS[:3]
ARCHITECTURE = MODELS["ResNet18_OPW"]
SIZE = 224  # pixels, as ResNet18 and DenseNet121 take them: mostly they are decoded already
SHRINKING = 4  # the untrained network sees 56 pixels, which takes a third of the time of 112
STRENGTH = 0.01  # C of scikit-learn for some 500 features; small is regularised most
FEW_STRENGTH = 1.0  # for a few dozen
ITERATIONS = 10_000
PREDICTS = 0.55  # the lower end of an AUC's interval above which something predicts
MEANING = {
    "background": "the background alone, the breast masked out, tells {labels}",
    "untrained": "a network that learnt nothing tells {labels}",
    "shuffled": "a linear probe that was fitted to shuffled labels tells {labels}",
}
ADVICE = {
    "background": "look for marks, borders or grey values that differ between the classes",
    "untrained": "the classes must differ in brightness or layout",
    "shuffled": "the classes must differ in brightness or layout",
}

_found_unexpected: dict[str, list[str]] = {}  # by what they depend on; a queue has the same


def baselines(
    data: Path, rows: Sequence[Row], runs: Path, workers: int, seed: int, progress: Progress
) -> dict[str, Any]:
    """Return the scores of every baseline on validation and test, kept for the next time.

    They are made again where the images, their split, the code or the seed are others.

    Args:
        data: The dataset.
        rows: Its manifest, in the splits that the run was trained with.
        runs: The folder that holds all runs.
        workers: Threads; 0 for one for each core.
        seed: Of the random network and of the shuffling.
        progress: Where it reports.

    Returns:
        "data_hash", "seed", and as "baselines" one mapping each: "name", "title", "description",
        "val" and "test" (a probability by image_id), and "problem": why there are none.
    """
    manifest = _originals(read_manifest(data))
    used = _originals(rows)
    if all(row.split != "train" for row in used):
        used = manifest  # an ensemble of all folds validates on every patient
    wanted = {
        "data_hash": dataset_hash(data),
        "seed": seed,
        "splits": _dealt(used),
        "images": file_digest(data / RECORD) if (data / RECORD).is_file() else "",
        "code": _code(),
    }
    fold = "" if wanted["splits"] == _dealt(manifest) else f"-{wanted['splits']}"
    path = runs / BASELINES_FOLDER / f"{wanted['data_hash']}{fold}.json"
    kept = _kept(path)
    if kept and all(kept.get(name) == value for name, value in wanted.items()):
        return kept
    made = wanted | {"baselines": _made(data, used, workers, seed, progress)}
    try:
        write_json(path, made)
    except OSError as error:  # no right to write, a full disk
        progress.say(f"{path}: cannot be written, so it is not kept ({error.strerror or error})")
    return made


def unexpected(
    made: Mapping[str, Any], rows: Sequence[Row], replicates: int, seed: int
) -> list[str]:
    """Return a warning for each baseline that should not predict the label and does so on test.

    It does where the lower end of its AUC's 95 % interval over patients passes 0.55.
    """
    key = digest(
        made, sorted((row.image_id, row.label) for row in rows if row.split == "test"),
        replicates, seed,
    )  # fmt: skip
    if key not in _found_unexpected:
        _found_unexpected[key] = _unexpected(made, rows, replicates, seed)
    return [*_found_unexpected[key]]


def _unexpected(
    made: Mapping[str, Any], rows: Sequence[Row], replicates: int, seed: int
) -> list[str]:
    notes = []
    labels = " from ".join(reversed(Labels.of(rows).names))
    for one in made["baselines"]:
        known = [row for row in rows if row.split == "test" and row.image_id in one["test"]]
        if one["name"] not in MEANING or not known:
            continue
        scores = np.array([one["test"][row.image_id] for row in known], np.float64)
        patients = [row.patient_id for row in known]
        area = estimates(_malignant(known), scores, 0.5, patients, replicates, seed)["auc"]
        if area.low > PREDICTS:
            figures = f"test AUC {area.value:.3f} ({interval_text(area.low, area.high)})"
            meaning = MEANING[one["name"]].format(labels=labels)
            notes.append(f"{meaning}: {figures}; {ADVICE[one['name']]}")
    return notes


def _originals(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if not row.parent]


def _dealt(rows: Iterable[Row]) -> str:
    return digest(sorted((row.image_id, row.split) for row in rows))


@cache
def _code() -> str:
    """Return a digest of the code behind the scores: an older version's are made again."""
    files = __file__, *(one.__file__ for one in (background, inference, loading, networks))
    made_with = [importlib.metadata.version(name) for name in ("scikit-learn", "timm", "torch")]
    return digest(code_digest(*files), chain_digest(), made_with)


def _kept(path: Path) -> dict[str, Any] | None:
    """Return what a file holds; None where it is missing or of no use."""
    with contextlib.suppress(UserError, KeyError, TypeError, AttributeError):
        kept: dict[str, Any] = read_json(path)
        parts = [(one["name"], *map(dict, (one["val"], one["test"]))) for one in kept["baselines"]]
        if [name for name, *_ in parts] == list(BASELINES):
            return kept
    return None


def _made(
    data: Path, rows: Sequence[Row], workers: int, seed: int, progress: Progress
) -> list[dict[str, Any]]:
    parts = {split: [row for row in rows if row.split == split] for split in SPLITS}
    loaded = {split: load_split(data, rows, split, SIZE, workers, progress) for split in SPLITS}
    images = {split: found for split, found in loaded.items() if len(found)}
    total = 2 * sum(map(len, images.values()))
    with progress.track("Sanity baselines", total, "images") as advance:
        features, logits = _untrained_network(images, seed, advance)
        rest = {
            split: backgrounds(found.images, workers, advance) for split, found in images.items()
        }
    makers: dict[str, Callable[[], Scores]] = {
        "majority": lambda: _by_level(parts, lambda _row: ""),
        "assessment": lambda: _by_level(_assessed(parts), _highest_assessment),
        "metadata": lambda: _of_metadata(parts),
        "untrained": lambda: _named(images, logits),
        "shuffled": lambda: _of_images(images, features, seed),
        "background": lambda: _of_images(images, _with_background(parts, rest)),
    }
    columns = _columns(rows)
    listed = f"{', '.join(columns[:-1])} and {columns[-1]}"
    words = {"positive": Labels.of(rows).positive, "columns": listed}
    return [_entry(name, make, words) for name, make in makers.items()]


def _columns(rows: Iterable[Row]) -> Sequence[str]:
    return COLUMNS if Labels.of(rows) == Labels() else WITH_NORMALS


def _entry(name: str, make: Callable[[], Scores], words: Mapping[str, str]) -> dict[str, Any]:
    scores: Scores = {}
    problem = ""
    try:
        scores = make()
    except UserError as error:
        problem = str(error)
    title, description = BASELINES[name]
    return {
        "name": name,
        "title": title,
        "description": description.format(**words),
        **{split: dict(scores.get(split, {})) for split in SCORED},
        "problem": problem,
    }


def _malignant(rows: Iterable[Row]) -> NDArray[np.bool_]:
    return np.array([row.is_positive for row in rows], np.bool_)


def _by_level(parts: Mapping[str, Sequence[Row]], level: Callable[[Row], str]) -> Scores:
    """Return the share of malignant training images at the level of each image.

    Where no training image has that level, or it is not known, it is the share of all of them.
    """
    known = parts["train"]
    if not known:
        raise UserError("there are no training images")
    malignant, levels = _malignant(known), np.array([level(row) for row in known], np.str_)
    overall = float(malignant.mean())
    shares = {str(one): float(malignant[levels == one].mean()) for one in np.unique(levels) if one}
    return {
        split: {row.image_id: shares.get(level(row), overall) for row in parts[split]}
        for split in SCORED
    }


def _assessed(parts: Mapping[str, Sequence[Row]]) -> Mapping[str, Sequence[Row]]:
    if not any(row.assessment for row in parts["train"]):
        raise UserError("the dataset names no BI-RADS assessments")
    normal = [row for row in parts["train"] if row.diagnosis == "normal"]
    if normal and not any(row.assessment for row in normal):
        raise UserError("normal images have no BI-RADS assessment, so it would be the label itself")
    return parts


def _highest_assessment(row: Row) -> str:
    return max(row.assessment.split("|"))  # one digit each


def _of_metadata(parts: Mapping[str, Sequence[Row]]) -> Scores:
    """Return scores of a logistic regression on which levels an image's columns name."""
    columns = _columns(parts["train"])
    levels = sorted({level for row in parts["train"] for level in _levels(row, columns)})
    if not levels:
        raise UserError(f"the dataset says nothing of {', '.join(columns)}")
    place = {level: number for number, level in enumerate(levels)}
    features = {}
    for split, rows in parts.items():
        features[split] = np.zeros((len(rows), len(levels)))
        for number, row in enumerate(rows):
            features[split][
                number, [place[one] for one in _levels(row, columns) if one in place]
            ] = 1
    found = _predicted(features, _malignant(parts["train"]), FEW_STRENGTH)
    return _named(parts, found)


def _levels(row: Row, columns: Iterable[str]) -> set[tuple[str, str]]:
    """Return (column, value) of what is known of an image, one for each of its lesions."""
    said = {name: getattr(row, name) for name in columns}
    texts = {name: "" if value is None else str(value) for name, value in said.items()}
    return {(name, part) for name, text in texts.items() for part in text.split("|") if part}


def _predicted(features: BySplit, targets: NDArray[np.bool_], strength: float) -> BySplit:
    """Fit a logistic regression on the features of "train", and return (N,) probabilities."""
    from sklearn.linear_model import LogisticRegression  # a second that a kept file need not wait

    if len(np.unique(targets)) < 2:
        raise UserError("the training images show one class only")
    model = LogisticRegression(C=strength, max_iter=ITERATIONS)
    model.fit(features["train"], targets)
    return {
        split: model.predict_proba(features[split])[:, 1]
        for split in SCORED
        if len(features.get(split, ()))
    }


def _named(of: Mapping[str, Split | Sequence[Row]], found: BySplit) -> Scores:
    named = {}
    for split in set(SCORED) & set(found):
        part = of[split]
        rows = part.rows if isinstance(part, Split) else part
        named[split] = {
            row.image_id: score for row, score in zip(rows, found[split].tolist(), strict=True)
        }
    return named


def _of_images(
    images: Mapping[str, Split], features: BySplit, shuffled: int | None = None
) -> Scores:
    """Return scores of a logistic regression on standardised features of the images.

    Args:
        images: By split; those that can be read.
        features: (N, F) of each split.
        shuffled: The seed with which labels are shuffled among patients; None for the true ones.
    """
    if "train" not in images:
        raise UserError("no training image can be read")
    rows = images["train"].rows
    targets = _malignant(rows) if shuffled is None else shuffled_labels(rows, shuffled)
    middle, spread = features["train"].mean(axis=0), features["train"].std(axis=0)
    # A constant feature would be divided by rounding errors.
    spread[spread < 1e-9] = 1  # the same in all images, but for rounding
    scaled = {split: (found - middle) / spread for split, found in features.items()}
    return _named(images, _predicted(scaled, targets, STRENGTH))


def shuffled_labels(rows: Sequence[Row], seed: int) -> NDArray[np.bool_]:
    """Return (N,) labels: each patient's images take that of another patient, as a whole."""
    # By patient, since images of one patient share their label: shuffled one by one they would
    # be easier to tell from the truth than a model that knows nothing is.
    ill: dict[str, bool] = {}
    for row in rows:
        ill[row.patient_id] = ill.get(row.patient_id, False) or row.is_positive
    patients = sorted(ill)
    dealt = np.random.default_rng(seed).permutation([ill[one] for one in patients])
    label = dict(zip(patients, dealt.tolist(), strict=True))
    return np.array([label[row.patient_id] for row in rows], np.bool_)


def _untrained_network(
    images: Mapping[str, Split], seed: int, advance: Advance
) -> tuple[BySplit, BySplit]:
    """Return (N, 512) features and (N,) probabilities of a network with random weights.

    It is computed on the processor, so that the scores are the same with and without a GPU.
    """
    import torch  # only modules that pyproject.toml names may do so when they load

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = networks.build(ARCHITECTURE.architecture, ARCHITECTURE.head).eval()
    body, head = networks.split_before(network, networks.head_name(network))
    shrunk = torch.nn.Sequential(torch.nn.AvgPool2d(SHRINKING), body)
    compute = choose_compute("cpu", "fp32")
    inference.place(network, compute)
    transform = EvalTransform(
        *networks.normalisation(ARCHITECTURE.architecture), device=compute.device
    )
    features, scores = {}, {}
    for split, part in images.items():
        found = run_over(shrunk, part.images, transform, advance)
        features[split] = found.astype(np.float64)
        with torch.inference_mode():
            logits = head(torch.from_numpy(found)).squeeze(1)
        scores[split] = torch.sigmoid(logits.double()).numpy()
    return features, scores


def _with_background(parts: Mapping[str, Sequence[Row]], rest: BySplit) -> BySplit:
    units = {row.unit for row in parts["train"]}
    for unit, name in (("crop", "lesion crops have"), ("patch", "patches have next to")):
        if unit in units:
            raise UserError(f"{name} no background")
    return rest
