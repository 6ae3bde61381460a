"""What a person should know of a model: how it works, what it learnt from, what it is not for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interface.report.data import Dataset, trace
from interface.webapp.wording import plain, share_of_malignant
from models.prediction.reading import known_options
from models.registry import AUTOENCODERS, LINEAR_PROBE, TARGET_LAYERS
from pipeline.errors import UserError
from pipeline.labels import Labels, what_normal_is
from pipeline.records import read_json
from pipeline.runs import MODEL_FILE, Run, is_detector
from pipeline.stages.collections import CBIS_DDSM, CITED, RSNA, collection_name
from pipeline.stages.data import Preprocess

PARTIAL = "pft"  # the strategy of partial fine tuning
CALIBRATIONS = {"temperature": "temperature scaling", "isotonic": "isotonic regression"}
METHODS = {
    "gradcam": "Grad-CAM (Selvaraju et al. 2017)",
    "gradcam++": "Grad-CAM++ (Chattopadhay et al. 2018)",
    "hirescam": "HiRes-CAM (Draelos & Carin 2020)",
}
ERRORS = {  # by whether it is an autoencoder
    True: "It restores the film from a short code, enough for normal films; its error is what "
    "it cannot restore, as a mean over the breast.",
    False: "It compares each patch of the film with a few thousand patches of normal films; its "
    "error is the distance of the most unusual one.",
}
ANCHORS = {"none": "random weights", "imagenet": "weights pretrained on photographs (ImageNet)"}


@dataclass(frozen=True)
class Facts:
    """What a run's folder says of it."""

    models: Sequence[Mapping[str, Any]]  # model.json; of an ensemble that of each member
    metrics: Mapping[str, Any]  # metrics.json

    @property
    def model(self) -> Mapping[str, Any]:
        """What is the same for all members of an ensemble, which share their test images."""
        return self.models[0]


def facts_of(run: Run) -> Facts:
    """Read what a run's folder says of it, without its network.

    Raises:
        UserError: A file of it is missing or damaged.
    """
    model, metrics = read_json(run.folder / MODEL_FILE), run.metrics()
    members = [(run.folder / place).resolve() for place in model.get("members", ())]
    for member in members:
        if not member.is_dir():
            lost = f"{member.parent.name}/{member.name}"
            raise UserError(f"{run.name}: its member {lost} is gone", "choose another model")
    models = [read_json(member / MODEL_FILE) for member in members] or [model]
    return Facts(models, metrics)


def about(facts: Facts) -> dict[str, list[str]]:
    """Answer the questions that people have of a model; Markdown, by question."""
    dataset = trace(Path(facts.model["data"])) if facts.model.get("data") else None
    return {
        "How does it work?": [*_way(facts)],
        "What was it trained on?": [*_training(facts, dataset)],
        "What must it not be used for?": [*_limits(facts, dataset)],
    }


def _way(facts: Facts) -> Iterator[str]:
    model = facts.model
    sides = dict.fromkeys(one["input"]["size"] for one in facts.models)
    size = " or ".join(f"{side} x {side}" for side in sides)
    names = plain(", ".join(dict.fromkeys(str(one["model"]) for one in facts.models)))
    count = len(facts.models)
    what = "A neural network" if count == 1 else f"The mean of {count} networks"
    yield f"{what} ({names}) scores one film at a time, reduced to {size} pixels."
    if model["preprocess"] is not None:
        yield f"Before that, each film is {_steps(known_options(model['preprocess']))}."
    if is_detector(model):
        yield from _way_of_detector(facts)
        return
    method = CALIBRATIONS.get(str(facts.metrics["calibration"]["method"]))
    if method:
        yield f"Its score becomes a probability by {method} on validation images."
    methods = dict.fromkeys(_method(str(one["architecture"])) for one in facts.models)
    yield (
        f"The heat-map is {' and '.join(methods)}: where the last layers of the network found "
        f"evidence {_labels(facts).evidence(True)}, the mean of the film's and its mirror "
        "image's. It is coarse, it outlines no lesion, and its colours do not compare between "
        "films."
    )


def _way_of_detector(facts: Facts) -> Iterator[str]:
    model = facts.model
    yield ERRORS[model["architecture"] in AUTOENCODERS]
    yield (
        "Its score is that error in standard deviations above the mean of normal images. A film is "
        f"called anomalous from {facts.metrics['operating_point']['rule']} on."
    )
    yield (
        "The heat-map shows where the error is larger than in normal images, on one scale for all "
        "films. It outlines no lesion."
    )


def _method(architecture: str) -> str:
    layer = TARGET_LAYERS.get(architecture)
    return METHODS[layer.method] if layer else "a heat-map"


def _steps(options: Preprocess) -> str:
    steps = {
        "cropped to the breast": options.crop != "none",
        "cleared of labels": options.annotations,
        "smoothed": options.blur != "none",
        "given an even contrast (CLAHE)": options.clahe,
    }
    done = [step for step, taken in steps.items() if taken]
    done.append(f"resized to {options.size} pixels")
    return ", ".join(done[:-1]) + (" and " if len(done) > 1 else "") + done[-1]


def _training(facts: Facts, dataset: Dataset | None) -> Iterator[str]:
    model = facts.model
    patients = {split: len(names) for split, names in model.get("patients", {}).items()}
    if dataset is not None and dataset.synthetic:
        yield "**Synthetic films: a program drew them, and they show no patient.**"
    elif dataset is not None and (organised := dataset.step("organize")):
        name = collection_name(organised.record)
        cited, kind = CITED[name]
        yield (
            "CBIS-DDSM: digitised film mammograms of the 1990s (Lee et al. 2017)."
            if name == CBIS_DDSM
            else f"{cited}: {kind}."
        )
    else:
        yield "Where its films came from is not known here: their folders are gone."
    if patients:
        counted = {split: f"{count:,} patients" for split, count in patients.items()}
        yield (
            f"Films of {counted.get('train', 'unknown patients')} for training and of "
            f"{counted.get('val', 'others')} for validation; each image was a {model['unit']}."
        )
    if dataset is not None and (organised := dataset.step("organize")):
        shown = "films with " if organised.findings.startswith("or ") else ""
        yield f"They showed {shown}{organised.findings}."
    if not is_detector(model):
        yield from dict.fromkeys(map(_learnt, facts.models))
        yield share_of_malignant(facts.metrics)
        return
    normal = what_normal_is(_labels(facts), str(model["unit"]))
    yield f"It learnt from normal images alone, and from no label of a lesion. Normal: {normal}."
    if model["architecture"] not in AUTOENCODERS:
        yield f"Its features are those of {_weights(model)}, which were not trained further."


def _weights(model: Mapping[str, Any]) -> str:
    return ANCHORS.get(str(model["weights"]), f"the weights {plain(str(model['weights']))}")


def _learnt(model: Mapping[str, Any]) -> str:
    """Say what of a network was trained, and from where."""
    weights = _weights(model)
    if model["strategy"] == LINEAR_PROBE:
        fitted = "drawn at random" if model["untrained_head"] else "fitted to these films"
        return (
            f"Its layers hold {weights} and were not trained; only a logistic regression on what "
            f"they give was {fitted}."
        )
    kept = "; its first layers were left as they were" if model["strategy"] == PARTIAL else ""
    return f"Training began from {weights}{kept}."


def _limits(facts: Facts, dataset: Dataset | None) -> Iterator[str]:
    yield (
        "**Diagnosis, screening, triage, or any other decision about a person.** It is research "
        "software; no authority has examined it, and it is no medical device."
    )
    organised = dataset.step("organize") if dataset is not None else None
    of_rsna = organised is not None and collection_name(organised.record) == RSNA
    films = "digital mammograms" if of_rsna else "digitised films"
    if dataset is not None and dataset.synthetic:
        films = "synthetic films"
    others = "digitised films" if of_rsna else "digital mammography"
    whole = facts.model["unit"] == "mammogram"
    other = "crops of a mammogram" if whole else "whole mammograms"
    yield (
        f"Images other than its training showed. It knows {films} alone: no {others}, "
        f"tomosynthesis, ultrasound or MRI, and no {other}."
    )
    unseen = ""
    if _labels(facts) == Labels():
        unseen = ", and a film without a finding was not among those that it learnt from"
    yield (
        "Ruling a cancer out: it sees one film, and no other view, earlier film, age or symptom"
        f"{unseen}."
    )


def _labels(facts: Facts) -> Labels:
    return Labels.recorded(facts.model)
