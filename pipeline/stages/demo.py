"""The demo: a list of stages and their options, on a synthetic collection."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.options import between, option, usable_output
from pipeline.stages.shared import Common

DEMO_PATIENTS = 200  # enough for a test AUC whose interval says something


@dataclass(frozen=True, kw_only=True)
class Demo(Common):
    """Run everything on a synthetic collection, without a question."""

    out: Path = option(Path("demo"), "Folder to work in", check=usable_output)
    patients: int = option(DEMO_PATIENTS, "Number of patients", check=between(8, 5000))
    epochs: int = option(8, "Epochs at most", check=between(1, 1000))


def demo_plan(options: Demo) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the demo as what it is: a list of stages and their options."""
    out, common = options.out, {"seed": options.seed, "workers": options.workers}
    return [
        ("synthesize", {"out": out / "raw", "patients": options.patients, **common}),
        ("organize", {"source": out / "raw", "out": out / "dataset", **common}),
        ("preprocess", {"data": out / "dataset", "out": out / "preprocessed", **common}),
        (
            "train",
            {
                "data": out / "preprocessed",
                "runs": out / "runs",
                "model": "ResNet18_CFT",
                "weights": "none",
                "epochs": options.epochs,
                **common,
            },
        ),
        ("evaluate", {"runs": out / "runs", **common}),
        ("report", {"runs": out / "runs", "out": out / "reports", **common}),
    ]
