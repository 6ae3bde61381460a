"""The whole way from a download to a report: a list of stages and their options.

The demo is the same list, on a synthetic collection.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.options import always, between, named, option, split_several, usable_output
from pipeline.stages.collections import MINI_MIAS
from pipeline.stages.data import Organize, Preprocess
from pipeline.stages.shared import DEVICE, Common, advanced
from pipeline.stages.training import Train

DEMO_PATIENTS = 200  # enough for a test AUC whose interval says something
# For a newcomer who waits: a test AUC of about 0.9 in one to three minutes. Augmented images, or a
# lower rate, would need more epochs; smaller images lose the spicules (docs/performance.md).
DEMO_TRAINING = {"size": 192, "augment": "none", "learning_rate": 2e-3}
DEMO_EPOCHS = 3
# Of the demo of anomaly detectors: four networks in about four minutes.
ANOMALY_MODELS = ("CAE", "VAE", "PatchCore", "ResNet18_CFT")
ANOMALY_PATIENTS, ANOMALY_EPOCHS, ANOMALY_SIZE = 120, 8, 96
Plan = list[tuple[str, dict[str, Any]]]


def _same(options: type, name: str, **change: Any) -> Any:
    """Declare an option as another stage does."""
    (item,) = (one for one in dataclasses.fields(options) if one.name == name)
    default = change.pop("default", item.default)
    spec = dataclasses.replace(item.metadata["spec"], **change)
    return dataclasses.field(default=default, metadata={"spec": spec})


_takes_weights = named("models.registry:takes_weights")
_has_detector = named("models.registry:has_detector")


@dataclass(frozen=True, kw_only=True)
class Whole(Common):
    """Go the whole way from a download to a report."""

    source: Path = _same(Organize, "source", when=always)
    unit: str = _same(Organize, "unit")
    finding: str = _same(Organize, "finding")
    question: str = _same(Organize, "question")
    model: str = _same(Train, "model", default="all", text="Models to train", when=always)
    weights: str = _same(Train, "weights", when=_takes_weights)
    epochs: int | None = _same(Train, "epochs", when=always)
    out: Path = advanced(
        Path(), "Folder to work in: dataset, preprocessed, runs, reports", check=usable_output
    )
    without_callback: str = _same(Organize, "without_callback", advanced=True)
    size: int = _same(Preprocess, "size", advanced=True)
    seeds: int = _same(Train, "seeds", when=always)
    device: str = DEVICE()


def whole_plan(options: Whole) -> Plan:
    """Return the stages of the whole way, each with the options that are not its defaults."""
    out, common = options.out, {"seed": options.seed, "workers": options.workers}
    runs = {"runs": out / "runs", **common}
    cohort = {name: getattr(options, name) for name in ("source", "unit", "finding", "question")}
    learnt = {name: getattr(options, name) for name in ("model", "weights", "epochs", "seeds")}
    plan: Plan = [
        ("organize", {**cohort, "out": out / "dataset",
                      "without_callback": options.without_callback, **common}),
        ("preprocess", {"data": out / "dataset", "out": out / "preprocessed",
                        "size": options.size, **common}),
        ("train", {"data": out / "preprocessed", **learnt, "device": options.device,
                   "missing": True, **runs}),
        ("evaluate", {"run": "all", **runs}),
    ]  # fmt: skip
    several = options.model in ("all", "anomaly") or len(split_several(options.model)) > 1
    if several or options.seeds > 1:
        compare = {"out": out / "reports" / "comparison", **runs}
        beside = {"anomaly": True} if _has_detector({"model": options.model}) else {}
        plan.append(("compare", compare | beside))
    return [*plan, ("report", {"out": out / "reports", **runs})]


@dataclass(frozen=True, kw_only=True)
class Demo(Common):
    """Go the whole way on a synthetic collection, without a question."""

    out: Path = option(Path("demo"), "Folder to work in", check=usable_output)
    patients: int | None = option(
        None,
        "Number of patients",
        words={"auto": f"{DEMO_PATIENTS}; of anomaly detectors {ANOMALY_PATIENTS}"},
        check=between(8, 5000),
    )
    epochs: int | None = option(
        None,
        "Epochs at most",
        words={"auto": f"{DEMO_EPOCHS}; of anomaly detectors {ANOMALY_EPOCHS}"},
        check=between(1, 1000),
    )
    anomaly: bool = option(
        False, "Show anomaly detectors beside a classifier instead (about four minutes)"
    )


def demo_plan(options: Demo) -> Plan:
    """Return the stages of the demo, each with the options that are not its defaults."""
    if options.anomaly:
        return _anomaly_plan(options)
    out, common = options.out, {"seed": options.seed, "workers": options.workers}
    patients = options.patients or DEMO_PATIENTS
    collection = {"out": out / "raw", "patients": patients, **common}
    whole = Whole(
        source=out / "raw", out=out, model="ResNet18_CFT", weights="none",
        epochs=options.epochs or DEMO_EPOCHS, seed=options.seed, workers=options.workers,
    )  # fmt: skip
    plan = [("synthesize", collection), *whole_plan(whole)]
    dict(plan)["train"].update(DEMO_TRAINING)
    return plan


def _anomaly_plan(options: Demo) -> Plan:
    """Return the way of detectors beside a classifier, on a collection with normal films."""
    out, common = options.out, {"seed": options.seed, "workers": options.workers}
    patients = options.patients or ANOMALY_PATIENTS
    collection = {"out": out / "raw", "patients": patients, "collection": MINI_MIAS}
    whole = Whole(
        source=out / "raw", out=out, question="abnormal-normal", model=",".join(ANOMALY_MODELS),
        weights="none", epochs=options.epochs or ANOMALY_EPOCHS, size=2 * ANOMALY_SIZE,
        seed=options.seed, workers=options.workers,
    )  # fmt: skip
    *way, compare, report = whole_plan(whole)
    dict(way)["train"].update(DEMO_TRAINING | {"size": ANOMALY_SIZE})
    explained: Plan = [
        ("explain", {"run": name, "runs": out / "runs", **common}) for name in ANOMALY_MODELS
    ]
    return [("synthesize", collection | common), *way, *explained, compare, report]
