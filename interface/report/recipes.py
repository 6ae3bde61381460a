"""How images were preprocessed and networks trained, in sentences, filled from the options."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from interface.report.reading.runs import RunView
from interface.report.reading.words import count, listed, sentence, were
from interface.report.significance import titles_of
from pipeline.options import defaults
from pipeline.stages.data import Preprocess
from pipeline.stages.shared import AUGMENTATIONS
from pipeline.stages.training import STANDARD, Train

Options = Mapping[str, Any]

UNPROCESSED = {"crop": "none", "annotations": False, "size": 0, "blur": "none", "clahe": False}
CROPS = {
    "auto": "the scanner's borders were found in each image and cropped",
    "fixed": "a margin of {:g} % was cropped on each side",
    "none": "the scanner's borders were not cropped",
}
BLURS = {
    "gaussian": "a Gaussian blur",
    "bilateral": "a bilateral filter",
    "median": "a median filter",
}
RECIPES = AUGMENTATIONS | {
    "wide": "flips, rotations of up to 15 degrees, shifts, changes of size and contrast, blur and "
    "grain"
}
OPTIMIZERS = {
    "adamw": "AdamW (Loshchilov & Hutter 2019)",
    "sgd": "stochastic gradient descent with Nesterov's momentum",
}
BALANCES = {
    "weights": "the classes were balanced by weights in the loss",
    "sampler": "the classes were balanced by drawing images of both equally often",
    "none": "the classes were not balanced",
}
# Said only where a run used it: the value of not using it, and what is said of either.
RARE: Mapping[str, tuple[float, str, str]] = {
    "layer_decay": (
        1,
        "the learning rate of each stage of layers was {:g} times that of the stage behind it",
        "all layers had the same learning rate",
    ),
    "clip": (0, "the norm of the gradient was limited to {:g}", "gradients were not clipped"),
    "ema": (
        0,
        "a moving average of the weights with a decay of {:g} was scored and kept",
        "no moving average of the weights was taken",
    ),
}
PRECISIONS = {
    "fp32": "arithmetic was in 32-bit floating point",
    "bf16": "arithmetic was in bfloat16 where that is safe, else in 32-bit floating point",
}  # fmt: skip


def said(known: Mapping[str, Options], clause: Callable[[Options], str]) -> str:
    """Return what a clause says of the options of each run, by title, as one sentence.

    What is the same of all runs is said once, without their names.
    """
    names: dict[str, list[str]] = {}
    for title, options in known.items():
        names.setdefault(clause(options), []).append(title)
    if len(names) == 1:
        return sentence(next(iter(names)))
    return sentence("; ".join(f"for {listed(found)}, {text}" for text, found in names.items()))


def preprocessing_of(runs: Sequence[RunView]) -> Iterator[str]:
    """Yield what was done to the images, in this order; of predictions made elsewhere nothing."""
    runs = [run for run in runs if not run.elsewhere]
    if not runs:
        return
    if all(run.preprocessing is None for run in runs):
        yield "Images were used as they were organised."
        return
    titles, standard = titles_of(runs), defaults(Preprocess)
    known = {
        titles[run.name]: standard
        | (UNPROCESSED if run.preprocessing is None else dict(run.preprocessing))
        for run in runs
    }
    yield "Each image went through the following steps, none of which used its label."
    film = (_crop, _annotations) if runs[0].unit == "mammogram" else ()
    copied = any(given["augment"] != "none" for given in known.values())
    for clause in (*film, _size, _blur, _contrast, _side, *([_copies] if copied else [])):
        yield said(known, clause)


def _crop(given: Options) -> str:
    return CROPS[given["crop"]].format(100 * given["margin"])


def _annotations(given: Options) -> str:
    done = "blackened" if given["annotations"] else "not removed"
    return f"letters, labels and tape outside the breast were {done}"


def _size(given: Options) -> str:
    size = given["size"]
    if not size:
        return "images kept their size in pixels"
    return (
        f"images were scaled to fit {size} x {size} pixels, their aspect ratio kept, the rest black"
    )


def _blur(given: Options) -> str:
    if given["blur"] not in BLURS:
        return "film grain was not smoothed"
    side = given["blur_kernel"]
    return f"film grain was smoothed by {BLURS[given['blur']]} of {side} x {side} pixels"


def _contrast(given: Options) -> str:
    if not given["clahe"]:
        return "local contrast was not enhanced"
    tiles = given["clahe_tiles"]
    return (
        "local contrast was enhanced by contrast-limited adaptive histogram equalisation (CLAHE; "
        f"Zuiderveld 1994) with a clip limit of {given['clahe_clip']:g} and {tiles} x {tiles} tiles"
    )


def _side(given: Options) -> str:
    if given["side"] == "as-is":
        return "breasts were left on their side of the film"
    return f"images were mirrored where the chest wall was not on the {given['side']}"


def _copies(given: Options) -> str:
    if given["augment"] == "none":
        return "no augmented copies were written"
    number, recipe = given["copies"], RECIPES[given["augment"]]
    variants = f"{count(number, 'augmented variant')} {were(number)} added"
    return f"to each training image {variants} ({recipe})"


def training_of(runs: Sequence[RunView]) -> Iterator[str]:
    """Yield how the networks and linear probes were trained."""
    titles = titles_of(runs)
    trained = [run for run in runs if run.record["stage"] == "train"]
    probes = [titles[run.name] for run in trained if run.linear_probe and not run.untrained_head]
    known = {titles[run.name]: _answers(run) for run in trained if run.stepped}
    kept = [titles[run.name] for run in trained if run.keeps_patches]
    if known:
        if probes or kept:
            yield f"{listed(known)} {were(len(known))} trained by gradient steps."
        yield from _steps(known)
    if probes:
        yield (
            f"The linear {'probe' if len(probes) == 1 else 'probes'} of {listed(probes)} "
            f"{were(len(probes))} fitted by logistic regression, with the strength of "
            "regularisation that gave the highest validation AUC."
        )
    if kept:
        yield (
            f"No layer of {listed(kept)} was trained: features of patches of normal training "
            "images were kept, so that all others lie near one of them (greedy k-centre selection, "
            "Sener & Savarese 2018)."
        )
    if trained:
        seeds = sorted({int(run.options.get("seed", 0)) for run in trained})
        several = "s" * (len(seeds) > 1)
        yield f"The random seed{several} {were(len(seeds))} {listed(map(str, seeds))}."
        precisions = {titles[run.name]: {"precision": run.precision} for run in trained}
        if all(run.precision in PRECISIONS for run in trained):
            yield said(precisions, lambda given: PRECISIONS[given["precision"]])
    for run in trained:
        if run.tuning:
            yield (
                f"The hyper-parameters of {titles[run.name]} were those of trial "
                f"{run.tuning['trial']}, the best of a search for the highest validation AUC "
                f"(Optuna, Akiba et al. 2019; study {run.tuning['study']})."
            )
    if trained:
        yield (
            "The test images had no part in training, in choosing epochs, in calibration or in "
            "choosing operating points."
        )


def _answers(run: RunView) -> Options:
    """Return the options of a training, each with the value that it came to."""
    given = defaults(Train) | run.options | {"error": run.anomaly and run.anomaly.score}
    return given | {name: value for name, value in STANDARD.items() if given[name] in (None, "own")}


def _steps(known: Mapping[str, Options]) -> Iterator[str]:
    """Say how networks were trained by gradient steps."""
    for clause in (_epochs, _patience, _optimizer, _rate, _batch, _augmented):
        yield said(known, clause)
    if labelled := {title: given for title, given in known.items() if not given["error"]}:
        yield said(labelled, _regularised)
        yield said(labelled, _balance)
    if len(labelled) < len(known):
        yield "Anomaly detectors were trained on normal images alone, without labels."
    for name, (idle, _, _) in RARE.items():
        if any(given[name] != idle for given in known.values()):
            yield said(known, partial(_rare, name))
    yield said(known, lambda given: f"the weights of the epoch with the {_best(given)} were kept")


def _best(given: Options) -> str:
    """Return what the kept epoch was the best by."""
    if given["error"]:
        return "smallest error of normal validation images"
    return "highest validation AUC"


def _rare(name: str, given: Options) -> str:
    idle, used, unused = RARE[name]
    return unused if given[name] == idle else used.format(given[name])


def _epochs(given: Options) -> str:
    return f"training lasted at most {count(given['epochs'], 'epoch')}"


def _patience(given: Options) -> str:
    better = "smaller error" if given["error"] else "better validation AUC"
    return f"it was to stop after {count(given['patience'], 'epoch')} without a {better}"


def _optimizer(given: Options) -> str:
    name, decay = OPTIMIZERS.get(given["optimizer"], given["optimizer"]), given["weight_decay"]
    return (
        f"the optimiser was {name} with "
        + ("the model's own weight decay" if decay is None else f"a weight decay of {decay:.3g}")
        + "; its learning rate rose linearly at first and then fell along a cosine (Loshchilov & "
        "Hutter 2017)"
    )


def _rate(given: Options) -> str:
    rate = given["learning_rate"]
    return f"the peak learning rate was {f'{rate:.3g}' if rate else 'that of the model'}"


def _batch(given: Options) -> str:
    size = given["batch_size"]
    return f"a batch held {count(size, 'image') if size else 'the number of images of the model'}"


def _balance(given: Options) -> str:
    return BALANCES[given["balance"]]


def _augmented(given: Options) -> str:
    if given["augment"] == "none":
        return "training images were not augmented on the fly"
    variants = given.get("variants")
    fixed = f", in {count(variants, 'variant')} of each image" if variants else ""
    return f"training images were augmented on the fly by {RECIPES[given['augment']]}{fixed}"


def _regularised(given: Options) -> str:
    used = []
    if given["mixup"]:
        used.append(f"mixup (Zhang et al. 2018) with an alpha of {given['mixup']:.3g}")
    if given["label_smoothing"]:
        used.append(f"label smoothing (Szegedy et al. 2016) of {given['label_smoothing']:.3g}")
    if not used:
        return "neither mixup nor label smoothing was used"
    return f"{listed(used)} {were(len(used))} used"
