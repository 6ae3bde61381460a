"""Where pretrained weights come from: this machine, the Hugging Face hub or a file; no torch."""

import threading
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from models.registry import IMAGENET, MEGABYTES, NO_WEIGHTS, pretrained_architectures
from pipeline.errors import UserError
from pipeline.options import Answers

HUB = "https://huggingface.co"
HUB_FILE = "model.safetensors"
WEIGHT_SUFFIXES = ".safetensors", ".pth", ".pt"
HUB_SECONDS = 1.0
UNREACHABLE = {407, 502, 503, 504}  # proxy authentication, bad gateway, unavailable, timeout


def weights_choices(answers: Answers) -> dict[str, str]:
    """Return the named starting weights, for a question; a file may be given beside them."""
    missing, fallback = _missing(pretrained_architectures(answers)), ""
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
    wanted = pretrained_architectures(answers)
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
        refuse_missing(pretrained_architectures({"model": models}))


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
