"""The models by name: one row of data each; nothing heavy is imported here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import UserError
from pipeline.options import Answers, split_several
from pipeline.runs import ANOMALY
from pipeline.stages.training import STANDARD

ALL = "all"
DETECTORS = "anomaly"  # the answer that means all models of that strategy
IMAGENET, NO_WEIGHTS = "imagenet", "none"
MAMMO_CNN = "mammo_cnn"
# Autoencoders of our own: channels of the first layer, and whether codes are drawn (VAE).
AUTOENCODERS = {
    "cae_16": (16, False),
    "cae_48": (48, False),
    "vae_16": (16, True),
    "vae_48": (48, True),
}
PATCH_DISTANCE = "patches"  # what PatchCore's score is
LOOKED_AT = 20_000  # patches that those of its bank are chosen of: 30 MB, and a minute at most
LINEAR_PROBE = "opw"  # the strategy that fits a linear probe and takes no gradient steps
STRENGTHS = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)  # C of scikit-learn: small is regularised most
KEPT_VARIANTS = 4  # of each image in partial fine tuning


@dataclass(frozen=True)
class Head:
    """What turns features into the one number that a network gives.

    A classifier on top of the pooled features; of an anomaly detector, how far an image is from
    normal ones.
    """

    widths: tuple[int, ...] = ()  # of its hidden layers, in units; empty for one linear layer
    # Share of units dropped in training, before the first and each hidden layer.
    dropout: float = 0.0
    # Of an anomaly detector what the number is: a `--loss` of `train`, or PATCH_DISTANCE.
    error: str = ""

    @classmethod
    def recorded(cls, facts: Mapping[str, Any]) -> "Head":
        """Return the head that model.json tells of."""
        head = facts["head"]
        return cls(tuple(head["widths"]), float(head["dropout"]), str(head.get("error", "")))

    @property
    def record(self) -> dict[str, Any]:
        """What model.json says of it."""
        found: dict[str, Any] = {"widths": list(self.widths), "dropout": self.dropout}
        return found | ({"error": self.error} if self.error else {})


@dataclass(frozen=True)
class TargetLayer:
    """The layer whose output a heat-map is made of: the target layer of Grad-CAM."""

    unit: str  # one of `models.networks.units`
    stride: int  # pixels of the input from one of its cells to the next
    # Where its first cell looks, in pixels from the centre of the first one: the centre of its
    # receptive field. A convolution of stride 2 with an odd kernel looks at even pixels, so it is
    # not the (stride - 1) / 2 that enlarging an image takes for granted.
    first: float
    method: str = "gradcam++"  # what hit most lesions of the synthetic collection with it


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """One model that people can name."""

    name: str  # what people type
    architecture: str  # A timm name with its pretrained tag, "mammo_cnn" or one of AUTOENCODERS
    # "opw" (only pretrained weights: a linear probe on frozen features), "pft" (partial fine
    # tuning), "cft" (complete fine tuning) or "anomaly" (normal images alone, without labels).
    strategy: str
    # The first unit of the network that is trained (see `models.networks.units`); everything before
    # it is the frozen prefix. Empty: all.
    trained_from: str
    size: int  # side of the square one-channel input, in pixels
    batch_size: int  # images in a batch when starting from pretrained weights
    learning_rate: float  # adamW's peak learning rate, likewise
    scratch_batch_size: int = 8  # images in a batch when starting from random weights
    scratch_learning_rate: float = 1e-3  # adamW's peak learning rate, likewise
    weight_decay: float = 0.01  # adamW's decoupled weight decay
    # Augmented variants of each training image; 0 for a new one every epoch. With few of them the
    # frozen prefix is computed once for each.
    variants: int = 0
    head: Head = field(default_factory=Head)
    description: str  # what it is, in one line

    @property
    def is_detector(self) -> bool:
        """Whether it learns what normal images look like, and never sees a label."""
        return self.strategy == ANOMALY

    @property
    def takes_steps(self) -> bool:
        """Whether it is trained by gradient steps."""
        return self.strategy != LINEAR_PROBE and self.head.error != PATCH_DISTANCE


@dataclass(frozen=True, kw_only=True)
class _Family:
    """What the three rows of one pretrained architecture share."""

    name: str
    architecture: str
    size: int
    batch_size: int
    learning_rate: float
    last_stage: str  # the first unit of the stages at 1/32 of the input's size
    head: str
    target: TargetLayer  # of heat-maps
    megabytes: int  # of its file on the hub, in 10^6 bytes


FAMILIES = (
    _Family(
        name="ResNet18", architecture="resnet18.a1_in1k", size=224, batch_size=16,
        learning_rate=2e-4, last_stage="layer4", head="fc",
        target=TargetLayer("layer3", 16, 0), megabytes=47,
    ),
    _Family(
        name="DenseNet121", architecture="densenet121.ra_in1k", size=224, batch_size=16,
        learning_rate=2e-4, last_stage="features.denseblock4", head="classifier",
        target=TargetLayer("features.denseblock3", 16, 6, "hirescam"), megabytes=32,
    ),
    _Family(
        name="EfficientNetB3", architecture="efficientnet_b3.ra2_in1k", size=288, batch_size=16,
        learning_rate=3e-4, last_stage="blocks.5", head="classifier",
        target=TargetLayer("bn2", 32, 0), megabytes=49,
    ),
)  # fmt: skip
MEGABYTES = {family.architecture: family.megabytes for family in FAMILIES}
TARGET_LAYERS = {family.architecture: family.target for family in FAMILIES} | {
    MAMMO_CNN: TargetLayer("block4", 16, 7.5)
}


def _row(family: _Family, strategy: str, trained_from: str, description: str) -> ModelRow:
    return ModelRow(
        name=f"{family.name}_{strategy.upper()}",
        architecture=family.architecture,
        strategy=strategy,
        trained_from=trained_from,
        size=family.size,
        batch_size=family.batch_size,
        learning_rate=family.learning_rate,
        variants=KEPT_VARIANTS if strategy == "pft" else 0,
        description=description,
    )


def _rows() -> Iterable[ModelRow]:
    for family in FAMILIES:
        yield _row(family, "opw", family.head, "only pretrained weights, with a linear probe")
        yield _row(family, "pft", family.last_stage, "partial fine tuning: last stages and head")
        yield _row(family, "cft", "", "complete fine tuning: all layers")
    yield ModelRow(
        name="EfficientNetB3_Optuna",
        architecture="efficientnet_b3.ra2_in1k",
        strategy="pft",
        trained_from="blocks.5",
        size=288,
        batch_size=16,
        learning_rate=4e-4,
        weight_decay=0.003,
        variants=KEPT_VARIANTS,
        head=Head(widths=(256,), dropout=0.3),
        description="partial fine tuning with a deeper head, to be tuned",
    )
    yield ModelRow(
        name="MammoCNN",
        architecture=MAMMO_CNN,
        strategy="cft",
        trained_from="",
        size=512,
        batch_size=8,
        learning_rate=5e-4,
        scratch_learning_rate=5e-4,
        description="small network of its own, from scratch",
    )


def _detectors() -> Iterable[ModelRow]:
    """Yield the anomaly detectors."""
    kinds = {False: ("CAE", "convolutional autoencoder"), True: ("VAE", "variational autoencoder")}
    for architecture, (width, variational) in AUTOENCODERS.items():
        name, what = kinds[variational]
        wide = width > 16
        yield ModelRow(
            name=f"{name}_Wide" if wide else name,
            architecture=architecture,
            strategy=ANOMALY,
            trained_from="",
            size=128,
            batch_size=16,
            learning_rate=2e-3,
            scratch_batch_size=16,
            scratch_learning_rate=2e-3,
            head=Head(error="mse"),
            description=f"{what}{' of more channels' if wide else ''}, of normal images",
        )
    yield ModelRow(
        name="PatchCore",
        architecture=FAMILIES[0].architecture,
        strategy=ANOMALY,
        trained_from="head",
        size=224,
        batch_size=16,
        learning_rate=0.0,
        head=Head(error=PATCH_DISTANCE),
        description="distance to patches of normal images",
    )


def meaningless_to(row: ModelRow) -> dict[str, str]:
    """Return the options of a training that mean nothing to a model, each with the reason."""
    taught = ("mixup", "balance", "label_smoothing")
    found = dict.fromkeys(taught, "learns without labels") if row.is_detector else {}
    return found | ({} if row.architecture in AUTOENCODERS else {"loss": "restores no images"})


def table(rows: Iterable[ModelRow]) -> dict[str, ModelRow]:
    """Return rows by name.

    Raises:
        ValueError: Two rows have the same name.
    """
    found: dict[str, ModelRow] = {}
    for row in rows:
        if row.name in found:
            raise ValueError(f"two models are called {row.name}")
        found[row.name] = row
    return found


MODELS = table([*_rows(), *_detectors()])
GROUPS = {
    ALL: [row.name for row in MODELS.values() if not row.is_detector],
    DETECTORS: [row.name for row in MODELS.values() if row.is_detector],
}


def find_model(name: str) -> ModelRow:
    """Return the row of a model.

    Raises:
        UserError: There is no such model; the message names those that there are.
    """
    if name not in MODELS:
        raise UserError(f"{name}: no such model", f"there are: {', '.join(MODELS)}")
    return MODELS[name]


def model_choices(_answers: Answers) -> dict[str, str]:
    """Return the models to choose from, for a question."""
    each = {row.name: f"{row.description}; {row.size} px" for row in MODELS.values()}
    counts = {name: len(names) for name, names in GROUPS.items()}
    return each | {
        ALL: f"the {counts[ALL]} classifiers, one after the other",
        DETECTORS: f"the {counts[DETECTORS]} that learn from normal images alone",
    }


def own_values(row: ModelRow, scratch: bool) -> dict[str, Any]:
    """Return the hyper-parameters that a model is trained with where nothing else is said.

    Returns:
        By the names of the options of training.
    """
    return {
        **STANDARD,
        "learning_rate": row.scratch_learning_rate if scratch else row.learning_rate,
        "batch_size": row.scratch_batch_size if scratch else row.batch_size,
        "weight_decay": row.weight_decay,
        "variants": row.variants,
    }


def named_models(answer: str) -> list[str]:
    """Return the models that an answer names: one, several with commas, or a group of them.

    Raises:
        UserError: There is no such model; the message names those that there are.
    """
    found = [one for name in split_several(answer)
             for one in GROUPS.get(name) or [find_model(name).name]]  # fmt: skip
    return list(dict.fromkeys(found))


def _named_rows(answers: Answers) -> list[ModelRow]:
    """Return the rows of the models that an answer names; of what is no model none."""
    found = [one for name in split_several(str(answers.get("model")))
             for one in GROUPS.get(name, [name])]  # fmt: skip
    return [MODELS[name] for name in found if name in MODELS]


def takes_steps(answers: Answers) -> bool:
    """Return whether a chosen model is trained by gradient steps; an unknown one might be."""
    return any(row.takes_steps for row in _named_rows(answers)) or _has_unknown(answers)


def sees_labels(answers: Answers) -> bool:
    """Return whether a chosen model is a classifier; an unknown one might be."""
    return any(not row.is_detector for row in _named_rows(answers)) or _has_unknown(answers)


def has_detector(answers: Answers) -> bool:
    """Return whether a chosen model is an anomaly detector."""
    return any(row.is_detector for row in _named_rows(answers))


def restores_images(answers: Answers) -> bool:
    """Return whether a chosen model is an autoencoder."""
    return any(row.architecture in AUTOENCODERS for row in _named_rows(answers))


def _has_unknown(answers: Answers) -> bool:
    names = split_several(str(answers.get("model")))
    return any(name not in MODELS and name not in GROUPS for name in names)


def pretrained_architectures(answers: Answers) -> set[str]:
    """Return the architectures of the chosen models that can start from pretrained weights."""
    own = {MAMMO_CNN, *AUTOENCODERS}
    return {row.architecture for row in _named_rows(answers)} - own


def takes_weights(answers: Answers) -> bool:
    """Return whether a chosen model can start from pretrained weights; an unknown one might."""
    return bool(pretrained_architectures(answers)) or _has_unknown(answers)
