"""The models by name: one row of data each; nothing heavy is imported here."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.options import Answers, split_several
from pipeline.stages.training import STANDARD

ALL = "all"
IMAGENET, NO_WEIGHTS = "imagenet", "none"
MAMMO_CNN = "mammo_cnn"
LINEAR_PROBE = "opw"  # the strategy that fits a linear probe and takes no gradient steps
STRENGTHS = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)  # C of scikit-learn: small is regularised most
HUB = "https://huggingface.co"
HUB_FILE = "model.safetensors"
WEIGHT_SUFFIXES = ".safetensors", ".pth", ".pt"
HUB_SECONDS = 1.0
UNREACHABLE = {407, 502, 503, 504}  # proxy authentication, bad gateway, unavailable, timeout
KEPT_VARIANTS = 4  # of each image in partial fine tuning


@dataclass(frozen=True)
class Head:
    """The classifier on top of the pooled features."""

    widths: tuple[int, ...] = ()  # of its hidden layers, in units; empty for one linear layer
    # Share of units dropped in training, before the first and each hidden layer.
    dropout: float = 0.0


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
    architecture: str  # A timm name with its pretrained tag, or "mammo_cnn"
    # "opw" (only pretrained weights: a linear probe on frozen features), "pft" (partial fine
    # tuning) or "cft" (complete fine tuning).
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
    head: Head = field(default_factory=Head)  # the classifier
    description: str  # what it is, in one line


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


MODELS = table(_rows())


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
    return each | {ALL: f"these {len(MODELS)}, one after the other"}


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
    """Return the models that an answer names: one, several with commas, or all.

    Raises:
        UserError: There is no such model; the message names those that there are.
    """
    names = split_several(answer)
    return list(MODELS) if ALL in names else [find_model(name).name for name in names]


def _pretrained(answers: Answers) -> set[str]:
    """Return the architectures of the chosen models that can start from pretrained weights."""
    names = split_several(str(answers.get("model")))
    rows = MODELS.values() if ALL in names else [MODELS[name] for name in names if name in MODELS]
    return {row.architecture for row in rows if row.architecture != MAMMO_CNN}


def takes_weights(answers: Answers) -> bool:
    """Return whether a chosen model can start from pretrained weights; an unknown one might."""
    unknown = set(split_several(str(answers.get("model")))) - set(MODELS)
    return bool(unknown or _pretrained(answers))


def weights_choices(answers: Answers) -> dict[str, str]:
    """Return the named starting weights, for a question; a file may be given beside them."""
    missing, fallback = _missing(_pretrained(answers)), ""
    if not missing:
        found = "on this machine"
    elif hub_reachable():
        megabytes = sum(MEGABYTES[name] for name in missing)
        found = f"from {hub_name()}, once, {megabytes} MB"
    else:
        found = f"not on this machine; {_no_hub()}"
        fallback = "; ImageNet's cannot be had here"
    return {
        IMAGENET: f"trained on ImageNet ({found})",
        NO_WEIGHTS: f"start from random weights{fallback}",
    }


def suggested_weights(answers: Answers) -> str:
    """Return "imagenet" where those weights can be had, else "none"."""
    wanted = _pretrained(answers)
    obtainable = wanted and (not _missing(wanted) or hub_reachable())
    return IMAGENET if obtainable else NO_WEIGHTS


def weights_problem(weights: str) -> str | None:
    """Check that starting weights are named, or a file that can be one of weights."""
    if weights in (IMAGENET, NO_WEIGHTS):
        return None
    path = Path(weights).expanduser()
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "no such file"
        return f"{what}; give an existing file, {IMAGENET} or {NO_WEIGHTS}"
    if path.suffix.lower() not in WEIGHT_SUFFIXES:
        return f"is not a weights file; give one of {', '.join(WEIGHT_SUFFIXES)}"
    return None


def refuse_missing(architectures: Iterable[str]) -> None:
    """Refuse ImageNet weights that are not here and that the hub cannot give either.

    Raises:
        UserError: It names them, and what can be done about it.
    """
    missing = _missing(architectures)
    if not missing or hub_reachable():
        return
    from huggingface_hub import constants

    name = missing[0] if len(missing) == 1 else "NAME"
    each = "" if len(missing) == 1 else "each "
    place = Path(constants.HF_HUB_CACHE, _cache_name(name), "snapshots", "main")
    raise UserError(
        f"ImageNet weights of {', '.join(missing)}: not on this machine, and {_no_hub()}",
        f"copy {each}{HUB_FILE} of {HUB}/{hub_repository(name)} to {place}, or give --weights "
        "none, or --weights FILE, or set HF_ENDPOINT to a mirror",
    )


def refuse_unobtainable(models: str, weights: str) -> None:
    """Refuse starting weights of models as they are named in an answer; see `refuse_missing`."""
    if weights == IMAGENET:
        refuse_missing(_pretrained({"model": models}))


def _missing(architectures: Iterable[str]) -> list[str]:
    return sorted(name for name in architectures if cached_weights(name) is None)


def _no_hub() -> str:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    return f"{hub_name()} cannot be reached"


def hub_name() -> str:
    """Return the host that weights come from: huggingface.co, or the mirror of HF_ENDPOINT."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT).partition("://")[2] or str(constants.ENDPOINT)


def hub_repository(architecture: str) -> str:
    """Return where the Hugging Face hub keeps the weights of a timm architecture."""
    return f"timm/{architecture}"


def _cache_name(architecture: str) -> str:
    return f"models--{hub_repository(architecture).replace('/', '--')}"


def cached_weights(architecture: str) -> Path | None:
    """Return the weights file in the Hugging Face cache of this machine, if it is there.

    Where the cache lies its own library says, from half a dozen variables of the environment; its
    layout is documented: `models--<owner>--<name>/snapshots/<commit>/<file>`.
    """
    from huggingface_hub import constants  # 30 ms; what looks into the cache there takes ten times

    folder = Path(constants.HF_HUB_CACHE, _cache_name(architecture), "snapshots")
    found = [path for path in folder.glob(f"*/{HUB_FILE}") if path.is_file()]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def hub_reachable() -> bool:
    """Tell, within about a second, whether the Hugging Face hub answers (proxies are honoured)."""
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE and _answers(constants.ENDPOINT)


@cache
def _answers(address: str) -> bool:
    """Ask once in a thread: a name server that does not answer heeds no timeout of ours."""
    import urllib.error
    import urllib.request  # heavy, and only needed when somebody is asked about weights

    answers: list[bool] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(address, method="HEAD")
            with urllib.request.urlopen(request, timeout=HUB_SECONDS):
                answers.append(True)
        except urllib.error.HTTPError as error:
            # A mirror may serve files alone and know nothing of its root; a proxy that does not
            # get there says so with one of these.
            answers.append(error.code not in UNREACHABLE)
        except (OSError, ValueError):
            answers.append(False)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(1.5 * HUB_SECONDS)
    return answers == [True]
