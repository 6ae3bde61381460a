"""What the names of classes and splits mean, whoever gave them."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from pipeline.errors import UserError, shown
from pipeline.manifest import ABNORMAL, DIAGNOSES

NORMAL, BENIGN, MALIGNANT = DIAGNOSES
LEAVE_OUT = "leave-out"
MEANINGS = (*DIAGNOSES, ABNORMAL, LEAVE_OUT)
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
# Whole names. A number is one only where there are no others than these two.
EXACT = {
    "b": BENIGN, "m": MALIGNANT, "n": NORMAL, "positive": MALIGNANT, "negative": NORMAL,
    "no cancer": NORMAL, "non cancer": NORMAL, "noncancer": NORMAL, "without cancer": NORMAL,
    "benign without callback": BENIGN,
}  # fmt: skip
NUMBERS = {"0": NORMAL, "1": MALIGNANT, "false": NORMAL, "true": MALIGNANT}
WORDS = {
    "normal": NORMAL, "normals": NORMAL, "healthy": NORMAL,
    "abnormal": ABNORMAL, "abnormals": ABNORMAL, "abnormality": ABNORMAL,
    "benign": BENIGN, "benigns": BENIGN,
    "malignant": MALIGNANT, "malignants": MALIGNANT, "malign": MALIGNANT, "cancer": MALIGNANT,
    "cancers": MALIGNANT, "cancerous": MALIGNANT, "carcinoma": MALIGNANT,
}  # fmt: skip
# Beside one of the words; any other ("not", "suspected") leaves a name to the person.
FILLING = {
    "mass", "masses", "calc", "calcification", "calcifications", "lesion", "lesions", "tumor",
    "tumors", "tumour", "tumours", "case", "cases", "finding", "findings", "image", "images",
    "mammogram", "mammograms", "film", "films", "breast", "breasts", "patient", "patients",
    "class", "tissue", "only",
}  # fmt: skip


def split_of(name: str) -> str:
    """Return which split a name means; empty where it is none's."""
    return SPLIT_NAMES.get(_plain(name), "")


def diagnosis_of(name: str) -> str:
    """Return which diagnosis the name of a class means: "Benign Masses"; empty where unknown."""
    plain = _plain(name)
    if known := EXACT.get(plain) or NUMBERS.get(plain):
        return known
    words = plain.split()
    found = {WORDS[word] for word in words if word in WORDS}
    rest = {word for word in words if word not in WORDS and not word.isdigit()}
    return found.pop() if len(found) == 1 and rest <= FILLING else ""


def understood(classes: Mapping[str, int], given: str, where: str) -> dict[str, str]:
    """Return for each class its diagnosis, or LEAVE_OUT.

    Args:
        classes: How many images each has.
        given: What the option says: "a=benign,b=malignant".
        where: What holds them, for the message.

    Raises:
        UserError: A class is not understood, or the option cannot be.
    """
    said = _given(given, classes)
    meant = {}
    numbers = {name for name in classes if name not in said and _plain(name).isdigit()}
    for name in classes:
        plain = _plain(name)
        sure = name not in numbers or {_plain(one) for one in numbers} <= set(NUMBERS)
        meant[name] = said.get(name) or (diagnosis_of(name) if plain and sure else "")
    if unknown := [name for name, diagnosis in meant.items() if not diagnosis]:
        held = ", ".join(f"{shown(name)}: {count:,}" for name, count in sorted(classes.items())[:9])
        more = f" and {len(classes) - 9:,} more" if len(classes) > 9 else ""
        example = ",".join(f"{name}={diagnosis}" for name, diagnosis in
                           zip(sorted(unknown), (BENIGN, MALIGNANT), strict=False))  # fmt: skip
        raise UserError(
            f"{where}: its classes are not all understood (images: {held}{more})",
            f'say what they are with --classes "{example}" ({", ".join(MEANINGS)})',
        )
    return meant


def _given(text: str, classes: Iterable[str]) -> dict[str, str]:
    """Read what the option says, by the names of the classes as they are written."""
    known = {name.casefold(): name for name in classes}
    said = {}
    for name, meaning in pairs_of(text, "--classes", "name=benign"):
        if name.casefold() not in known:
            there = ", ".join(shown(one) for one in sorted(known.values())[:9])
            raise UserError(f"--classes: no class is called {name!r}", f"there are {there}")
        plain = meaning.lower()
        if plain not in MEANINGS:
            raise UserError(
                f"--classes: {name}={meaning} is no diagnosis", f"give one of {', '.join(MEANINGS)}"
            )
        said[known[name.casefold()]] = plain
    return said


def pairs_of(text: str, option: str, example: str) -> list[tuple[str, str]]:
    """Read "a=b,c=d".

    Raises:
        UserError: It is written otherwise, or says two things of one name.
    """
    pairs = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, sign, value = part.rpartition("=")
        if not sign or not name.strip():
            raise UserError(f"{option}: {part!r} is not written like {example}")
        pairs.append((name.strip(), value.strip()))
    if twice := [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]:
        raise UserError(f"{option}: {twice[0]} stands there twice", "give it once")
    return pairs


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()
