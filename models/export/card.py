"""The model card of an exported run: what it is, what it was measured on, what it is not for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.jobs import pixel_options
from models.evaluation.stage import FEW_PATIENTS, TITLES
from models.export import detector_card
from models.export.agreement import Agreement
from models.export.cohort import Cohort
from models.export.facts import weights_name
from models.metrics import OF_PROBABILITIES
from models.registry import IMAGENET, NO_WEIGHTS
from models.without_compiler import timm
from pipeline.labels import Labels, is_rare
from pipeline.options import applies, defaults, items_of, text_for
from pipeline.runs import Run, is_detector
from pipeline.stages.data import Preprocess

TEMPLATE = Path(__file__).with_name("card.md.j2")
TEST, VAL = "test", "val"
LICENCE = "mit"
CLASSIFICATION, DETECTION = "image-classification", "anomaly-detection"  # tasks, to the hub
# The names of the hub's metrics, of those that it knows.
OF_HUB = {"auc": "roc_auc", "accuracy": "accuracy", "f1": "f1", "brier": "brier_score"}
STRATEGIES = {
    "opw": "only pretrained weights: every pretrained layer is frozen, a logistic regression on "
    "its features is the head",
    "pft": "partial fine tuning: the last stages and the head are trained",
    "cft": "complete fine tuning: all layers are trained",
}
CALIBRATIONS = {
    "temperature": "Temperature scaling on validation (Guo et al. 2017): logits are divided by "
    "{temperature:.4g} before the logistic function.",
    "isotonic": "Isotonic regression on validation (Zadrozny & Elkan 2002), between the knots of "
    "the file's metadata.",
    "none": "None: the probability is the logistic function of the logit.",
}
PROBABILITIES = {
    "temperature": 'probability = 1 / (1 + np.exp(-logit / facts["calibration"]["temperature"]))',
    "isotonic": "probability = 1 / (1 + np.exp(-logit))\n"
    'probability = np.interp(probability, facts["calibration"]["x"], facts["calibration"]["y"])',
    "none": "probability = 1 / (1 + np.exp(-logit))",
}
AGGREGATES = {"max": "highest", "mean": "mean"}
MIRRORED = (
    "Its logit is the mean over the four mirror images of an image, in ONNX as it was evaluated; "
    "timm's network gives that of the image alone."
)


@dataclass(frozen=True)
class Exported:
    """What a card speaks of."""

    run: Run
    model: Mapping[str, Any]  # model.json
    measured: Mapping[str, Any]  # metrics.json
    record: Mapping[str, Any]  # stage.json of the training
    cohort: Cohort
    agreement: Agreement  # how near ONNX Runtime is to PyTorch
    without_timm: str  # why timm cannot load it; empty where it can


def model_card(exported: Exported) -> str:
    """Return the text of README.md: metadata that the hub reads, then what people read."""
    from huggingface_hub import ModelCard

    card = ModelCard.from_template(
        _metadata(exported), template_path=str(TEMPLATE), card=_view(exported)
    )
    return str(card).rstrip("\n") + "\n"


def _metadata(exported: Exported) -> Any:
    from huggingface_hub import EvalResult, ModelCardData

    test = exported.measured["splits"][TEST]
    figures, of_hub, detector = test["metrics"], dict(OF_HUB), is_detector(exported.model)
    if is_rare(test["malignant"], test["images"]):  # where guessing would look good by it
        del of_hub["accuracy"]
    results = [
        EvalResult(
            task_type=DETECTION if detector else CLASSIFICATION,
            dataset_type=exported.cohort.kind,
            dataset_name=exported.cohort.name,
            dataset_split=TEST,
            metric_type=hub_name,
            metric_name=TITLES[name],
            metric_value=round(figures[name]["value"], 4),
        )
        for name, hub_name in of_hub.items()
        if figures[name]["value"] is not None
    ]
    model = exported.model
    base = [f"timm/{model['architecture']}"] if model["weights"] == IMAGENET else None
    return ModelCardData(
        license=LICENCE,
        library_name="onnx" if exported.without_timm else "timm",
        pipeline_tag=None if detector else CLASSIFICATION,  # the hub has none for detectors
        tags=[
            "mammography",
            "medical-imaging",
            "onnx",
            "research-only",
            *([DETECTION] if detector else []),
        ],
        base_model=base,
        model_name=exported.run.model,
        eval_results=results or None,
    )


def _view(exported: Exported) -> dict[str, Any]:
    """Return what the template shows, as text."""
    model, measured, cohort = exported.model, exported.measured, exported.cohort
    words = _words(exported)
    return {
        **words,
        "title": exported.run.model,
        "summary": f"{words['summary']} {cohort.warning}".strip(),
        "few": " or ".join(reversed(Labels.recorded(measured).names)),
        "of_findings": Labels.recorded(model) == Labels(),
        "apart": cohort.apart,
        "facts": _facts(exported),
        "data": cohort.text,
        "splits": _splits(exported),
        "preprocessing": _preprocessing(model),
        "result": _result(measured["splits"][TEST]),
        "metrics": _metrics(measured["splits"], is_detector(model)),
        "intervals": f"Intervals: 95 %, bootstrap over patients, {measured['replicates']:,} "
        f"replicates, seed {measured['seed']}.",
        "aggregate": AGGREGATES[measured["aggregate"]],
        "units": _units(measured),
        "strata": _strata(measured["strata"], Labels.recorded(measured).positive),
        "rule": measured["operating_point"]["rule"],
        "limits": _limits(exported),
        "size": model["input"]["size"],
        "mean": model["input"]["mean"],
        "std": model["input"]["std"],
        "timm": not exported.without_timm,
        "without_timm": exported.without_timm,
        "licence": _licence(model, cohort),
        "made": _made(exported),
    }


def _words(exported: Exported) -> dict[str, Any]:
    """Return what a card says otherwise of a classifier and of an anomaly detector."""
    model, measured = exported.model, exported.measured
    if is_detector(model):
        return detector_card.words_of_detector(model, measured, _image_of(model))
    positive, calibration = Labels.recorded(model).positive, measured["calibration"]
    before, test = measured["uncalibrated"].get(TEST), measured["splits"][TEST]
    threshold = measured["operating_point"]["threshold"]
    return {
        "summary": f"A classifier of mammograms: the probability that a {_image_of(model)} "
        f"{_question(model)}.",
        "normal": "",
        "called": positive,
        "chosen": "Calibration and operating points",
        "score": "probability",
        "scores": "probabilities",
        "threshold": f"{threshold:.4g}",
        "flagged": "",
        "scale": "Calibration",
        "calibration": _calibration(calibration, before, test),
        "output": "logit",
        "code": f"{PROBABILITIES[calibration['method']]}\n{positive} = probability >= "
        'facts["operating_point"]["threshold"]',
    }


def _image_of(model: Mapping[str, Any]) -> str:
    parts = {"crop": "crop around a lesion", "patch": "square patch of a mammogram"}
    return parts.get(model["unit"], "whole mammogram")


def _question(model: Mapping[str, Any]) -> str:
    """Return what a probability is of, to go on with after "a whole mammogram"."""
    labels = Labels.recorded(model)
    if labels == Labels():
        return "shows a malignant finding rather than a benign one"
    return f"is {labels.names[1]} rather than {labels.names[0]}"


def _facts(exported: Exported) -> list[tuple[str, str]]:
    model, labels = exported.model, Labels.recorded(exported.model)
    output = f"one logit of {labels.condition}; features before the head"
    trained = "the head is random on purpose: a control" if model.get("untrained_head") else (
        STRATEGIES.get(str(model["strategy"]), str(model["strategy"])))  # fmt: skip
    if is_detector(model):
        restores = detector_card.is_autoencoder(model)
        trained, output = detector_card.TRAINED[restores], detector_card.OUTPUT[restores]
    return [
        ("network", str(model["architecture"])),
        ("parameters", f"{model['parameters']:,}, of which {model['trainable']:,} were trained"),
        ("input", f"one grey channel, {model['input']['size']} x {model['input']['size']} pixels"),
        ("output", output),
        ("training", trained),
        ("starting weights", _start(model)),
        ("run", exported.run.name),
        ("agreement", exported.agreement.in_words),
    ]


def _start(model: Mapping[str, Any]) -> str:
    name = weights_name(model)
    if name == IMAGENET:
        return f"ImageNet, timm/{model['architecture']}"
    return "random" if name == NO_WEIGHTS else f"a file, {name} ({model['weights_hash']})"


def _preprocessing(model: Mapping[str, Any]) -> str:
    """Return the options of `preprocess` that the images went through, as people give them."""
    if model["preprocess"] is None:
        return "none; images were used as they were organised"
    steps = pixel_options(model["preprocess"])
    values = defaults(Preprocess) | steps
    items = [item for item in items_of(Preprocess) if item.name in steps and applies(item, values)]
    said = [f"{item.name.replace('_', '-')} {text_for(item, values[item.name])}" for item in items]
    return f"the stage `preprocess` of Mammolab with {', '.join(said)}"


def _splits(exported: Exported) -> str:
    measured, patients = exported.measured, exported.model["patients"]
    images = exported.record["counts"].get("train_images")
    rows: list[Sequence[Any]] = [
        ("train", "-" if images is None else images, len(patients["train"]), "-", "-")
    ]
    for split, found in measured["splits"].items():
        name = "validation" if split == VAL else split
        rows.append((name, *(found[key] for key in ("images", "patients", "benign", "malignant"))))
    return table(("split", "images", "patients", *Labels.recorded(measured).names), rows)


def _result(test: Mapping[str, Any]) -> str:
    counted = f"on {test['images']} test images of {test['patients']} patients"
    area = test["metrics"]["auc"]
    if is_rare(test["malignant"], test["images"]) and "pf1" in test["metrics"]:
        share, metrics = test["malignant"] / test["images"], test["metrics"]
        soft = ""
        if metrics["pf1"]["value"] is not None:
            soft = f" and probabilistic F1 {_interval(metrics['pf1'])},"
        return (
            f"PR AUC **{_interval(metrics['pr_auc'])}**, where guessing has {share:.3f},{soft} "
            f"{counted}. Calling none of them positive has an accuracy of "
            f"{1 - share:.3f}, so accuracy says nothing here."
        )
    if area["value"] is None:
        return f"There is no AUC {counted}: they show one class only."
    return f"ROC AUC **{_interval(area)}** {counted}."


def _metrics(splits: Mapping[str, Any], detector: bool) -> str:
    shown = [split for split in (TEST, VAL) if split in splits]
    rows = [
        (title, *(_interval(splits[split]["metrics"][name]) for split in shown))
        for name, title in TITLES.items()
        if not (detector and name in OF_PROBABILITIES)
        and all(name in splits[split]["metrics"] for split in shown)
    ]
    names = ["test (95 % interval)", "validation (95 % interval)"]
    return table(("images", *names[: len(shown)]), rows)


def _units(measured: Mapping[str, Any]) -> str:
    rows = []
    for unit, found in measured["units"].items():
        test = found["splits"][TEST]
        measures = (_interval(test["metrics"][name]) for name in ("auc", "sensitivity"))
        specificity = _interval(test["metrics"]["specificity"])
        threshold = f"{found['threshold']:.4g}"
        if measured.get("anomaly"):
            threshold = detector_card.error_at(measured, found["threshold"])
        rows.append((unit, test["images"], *measures, specificity, threshold))
    columns = ("test, by", "number", "ROC AUC", "sensitivity", "specificity", "called from")
    return table(columns, rows)


def _strata(strata: Iterable[Mapping[str, Any]], positive: str) -> str:
    rows = [
        (f"{one['factor']} {one['level']}", one["images"], one["patients"], one["malignant"],
         _interval(one["auc"]))
        for one in strata
        if not one["small"]
    ]  # fmt: skip
    columns = ("part", "images", "patients", positive, "ROC AUC")
    return table(columns, rows) if rows else ""


def _calibration(
    calibration: Mapping[str, Any], before: Mapping[str, Any] | None, test: Mapping[str, Any]
) -> str:
    text = CALIBRATIONS[calibration["method"]].format(temperature=calibration["temperature"] or 0)
    if before is None or calibration["method"] == "none":
        return text
    changes = []
    for name in ("brier", "ece"):
        value = test["metrics"][name]["value"]
        if value is not None and before[name] is not None:
            changes.append(f"{TITLES[name]} {before[name]:.3f} -> {value:.3f}")
    return f"{text} On test: {', '.join(changes)}." if changes else text


def _limits(exported: Exported) -> list[str]:
    measured = exported.measured
    notes = [f"{note[:1].upper()}{note[1:]}." for note in measured["notes"]]
    if apart := exported.agreement.from_evaluation(str(exported.model.get("precision", "fp32"))):
        notes.append(f"{apart[:1].upper()}{apart[1:]}.")
    detector = is_detector(exported.model)
    if measured["tta"] != "none":
        notes.append(detector_card.MIRRORED if detector else MIRRORED)
    if detector:
        notes += detector_card.LIMITS
    if measured["splits"][TEST]["patients"] >= FEW_PATIENTS:
        notes.append("The intervals above hold for patients like those of the test set alone.")
    return [
        *notes,
        "A threshold moves with scanner and preprocessing: choose it again on normal images of the "
        "place where the model is studied."
        if detector
        else "A threshold and a calibration move with scanner, prevalence and preprocessing: "
        "choose them again on images of the place where the model is studied.",
        "Films of one collection share scanners and years; what a model gains from that is lost "
        "elsewhere.",
    ]


def _licence(model: Mapping[str, Any], cohort: Cohort) -> str:
    parts = ["MIT, as the tool that made it."]
    if model["weights"] == IMAGENET:
        found = timm.get_pretrained_cfg(model["architecture"]).license or "a licence of their own"
        parts.append(
            f"The starting weights timm/{model['architecture']} are under {found}; they were "
            "trained on ImageNet, whose images are for non-commercial research."
        )
    return " ".join([*parts, cohort.licence]).strip()


def _made(exported: Exported) -> str:
    versions = exported.record.get("versions", {})
    used = [f"{name} {versions[name]}" for name in ("python", "torch", "timm") if name in versions]
    commit = f" at commit {versions['commit']}" if "commit" in versions else ""
    with_what = f" with {', '.join(used)}" if used else ""
    return f"Mammolab{commit}{with_what}. Dataset {exported.model['data_hash']}."


def _interval(found: Mapping[str, Any]) -> str:
    """Return "0.921 (0.804 to 0.997)"; without an interval where there is none."""
    if found["value"] is None:
        return "-"
    if found["low"] is None or found["high"] is None:
        return f"{found['value']:.3f}"
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)
