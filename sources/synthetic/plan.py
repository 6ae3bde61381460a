"""Who is in the synthetic collection: patients, breasts, films and lesions, without a pixel.

The shares are those of the real collection's case descriptions. What a reader sees on a film
beside the lesion (size, borders, density, side, view, number of lesions) is drawn without looking
at the pathology, so that it cannot give the label away.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

MASS, CALC = "mass", "calcification"
SPLITS = ("train", "test")
MASS_SHARE = 0.7  # of the patients; more than the real 57 %, since organising takes masses first
SHARED_SHARE = 0.05
TEST_SHARE = 0.21
MALIGNANT_SHARE = {  # of the patients of each case description
    (MASS, "train"): 0.49, (MASS, "test"): 0.42, (CALC, "train"): 0.41, (CALC, "test"): 0.42,
}  # fmt: skip
WITHOUT_CALLBACK_SHARE = {MASS: 0.15, CALC: 0.47}
ATYPICAL_SHARE = 0.02  # lesions that look like the other pathology
# Where shared patients stand: (split of their masses, split of their calcifications).
SHARED_SPLITS = (("train", "test"), ("train", "train"), ("test", "train"), ("train", "train"))
ASSESSMENTS = {  # BI-RADS category -> share
    "MALIGNANT": {5: 0.46, 4: 0.44, 3: 0.07, 0: 0.03},
    "BENIGN": {4: 0.43, 3: 0.33, 0: 0.18, 2: 0.05, 5: 0.01},
    "BENIGN_WITHOUT_CALLBACK": {2: 0.46, 3: 0.43, 4: 0.09, 5: 0.02},
}
SUBTLETIES = {5: 0.41, 4: 0.28, 3: 0.2, 2: 0.08, 1: 0.03}
DENSITIES = {1: 0.21, 2: 0.44, 3: 0.26, 4: 0.09}
SHAPES = {  # (finding, looks malignant) -> share of each mass shape or calcification type
    (MASS, True): {
        "IRREGULAR": 0.68, "IRREGULAR-ARCHITECTURAL_DISTORTION": 0.14,
        "ARCHITECTURAL_DISTORTION": 0.1, "LOBULATED-IRREGULAR": 0.08,
    },
    (MASS, False): {"OVAL": 0.44, "LOBULATED": 0.34, "ROUND": 0.18, "LYMPH_NODE": 0.04},
    (CALC, True): {"PLEOMORPHIC": 0.62, "FINE_LINEAR_BRANCHING": 0.2, "AMORPHOUS": 0.18},
    (CALC, False): {
        "COARSE": 0.26, "ROUND_AND_REGULAR": 0.34, "LUCENT_CENTER": 0.26, "PUNCTATE": 0.14,
    },
}  # fmt: skip
MARGINS = {  # the same for mass margins or calcification distribution
    (MASS, True): {"SPICULATED": 0.7, "ILL_DEFINED-SPICULATED": 0.16, "ILL_DEFINED": 0.14},
    (MASS, False): {"CIRCUMSCRIBED": 0.68, "OBSCURED": 0.21, "MICROLOBULATED": 0.11},
    (CALC, True): {"CLUSTERED": 0.68, "LINEAR": 0.18, "SEGMENTAL": 0.14},
    (CALC, False): {"CLUSTERED": 0.32, "REGIONAL": 0.34, "DIFFUSELY_SCATTERED": 0.34},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """One abnormality of one breast, the same on both views."""

    finding: str  # MASS or CALC
    number: int  # the "abnormality id" of the case description, from 1
    pathology: str  # MALIGNANT, BENIGN or BENIGN_WITHOUT_CALLBACK
    assessment: int  # BI-RADS assessment, 0 to 5
    subtlety: int  # 1 (subtle) to 5 (obvious); the contrast that it is drawn with follows
    shape: str  # mass shape or calcification type
    margins: str  # mass margins or calcification distribution
    spiculated: bool  # whether it is drawn as malignant ones usually look
    radius: float  # as a share of the film's height


@dataclass(frozen=True, kw_only=True)
class FilmPlan:
    """One film: a breast in one view, with everything that it shows."""

    patient_id: str  # "P_00001"
    laterality: str  # "LEFT" or "RIGHT"
    view: str  # "CC" or "MLO"
    density: int  # BI-RADS breast density, 1 to 4
    lesions: tuple[Lesion, ...]  # masses first, then calcifications
    # The case descriptions that list the film: finding -> "train" or "test". A film listed under
    # both findings is stored twice in the collection.
    splits: dict[str, str]

    @property
    def film_id(self) -> str:
        """As in the subject names of the collection: "P_00001_LEFT_CC"."""
        return f"{self.patient_id}_{self.laterality}_{self.view}"


def random_for(seed: int, *names: str) -> np.random.Generator:
    """Return the random numbers of one purpose, whatever else is drawn and in which order."""
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


def choose(random: np.random.Generator, shares: dict[Any, float]) -> Any:
    """Draw one of the keys by its share."""
    mark = random.random()
    for value, share in shares.items():
        mark -= share
        if mark < 0:
            return value
    return value


@dataclass(frozen=True)
class _Member:
    """A patient in the case descriptions of one finding."""

    patient: int
    split: str
    malignant: bool
    special: str = ""  # what is forced so that every collection holds it


def plan_collection(seed: int, patients: int) -> list[FilmPlan]:
    """Plan every film of a collection.

    Args:
        seed: The same seed and number give the same plan.
        patients: At least 8; from 12 on, the mass training set has two patients of each class.

    Returns:
        The films in the order of patient, side and view.
    """
    random = random_for(seed, "plan")
    numbers = np.cumsum(random.integers(1, 4, patients))
    order = [int(index) for index in random.permutation(patients)]
    shared = max(2, round(SHARED_SHARE * patients))
    with_mass = round(MASS_SHARE * patients)
    groups = {MASS: order[:with_mass], CALC: order[:shared] + order[with_mass:]}
    fixed = {order[index]: SHARED_SPLITS[index % len(SHARED_SPLITS)] for index in range(shared)}
    members = {
        finding: _deal(random, finding, group, {who: s[n] for who, s in fixed.items()})
        for n, (finding, group) in enumerate(groups.items())
    }
    twins = {order[index] for index in range(0, shared, 2)}
    films = []
    for patient in range(patients):
        mine = {finding: found[patient] for finding, found in members.items() if patient in found}
        patient_id = f"P_{numbers[patient]:05d}"
        films += _films_of(random_for(seed, patient_id), patient_id, mine, patient in twins)
    return sorted(films, key=lambda film: film.film_id)


def _deal(
    random: np.random.Generator, finding: str, group: Sequence[int], fixed: dict[int, str]
) -> dict[int, _Member]:
    """Split patients 80/20 into training and test, with both classes on either side."""
    tests = [who for who, split in fixed.items() if split == "test"]
    free = [who for who in group if who not in fixed]
    wanted = max(2, round(TEST_SHARE * len(group))) - len(tests)
    sets = {"test": tests + free[:wanted]}
    sets["train"] = [who for who in group if who not in sets["test"]]
    members: dict[int, _Member] = {}
    for split, who in sets.items():
        least = 2 if len(who) >= 4 and split == "train" else 1
        share = MALIGNANT_SHARE[finding, split]
        malignant = int(np.clip(round(share * len(who)), least, len(who) - least))
        labels = random.permutation([index < malignant for index in range(len(who))])
        members |= {
            one: _Member(one, split, bool(label)) for one, label in zip(who, labels, strict=True)
        }
    return _force_specials(members, set(fixed))


def _force_specials(members: dict[int, _Member], shared: set[int]) -> dict[int, _Member]:
    """See to it that several lesions, mixed pathology and no-callback occur in any training set.

    A benign patient gets two lesions for each malignant one that does, so that their number says
    nothing about the label.
    """
    free = [one for one in members.values() if one.split == "train" and one.patient not in shared]
    malignant = [one for one in free if one.malignant]
    benign = [one for one in free if not one.malignant]
    if malignant and len(benign) >= 3:
        members[malignant[0].patient] = replace(malignant[0], special="two lesions")
        members[benign[0].patient] = replace(benign[0], special="two lesions")
        members[benign[1].patient] = replace(benign[1], special="without callback")
    return members


def _films_of(
    random: np.random.Generator, patient_id: str, mine: dict[str, _Member], twin: bool
) -> list[FilmPlan]:
    density = choose(random, DENSITIES)
    side = ("LEFT", "RIGHT")[random.integers(2)]
    other = {"LEFT": "RIGHT", "RIGHT": "LEFT"}[side]
    views = choose(random, {("CC", "MLO"): 0.72, ("MLO",): 0.18, ("CC",): 0.1})
    shown: dict[tuple[str, str], list[Lesion]] = {}
    listed: dict[tuple[str, str], dict[str, str]] = {}
    for finding, member in mine.items():
        home = other if finding == CALC and len(mine) == 2 and not twin else side
        breasts = [(home, views, member)]
        if len(mine) == 1 and random.random() < 0.05:
            malignant = member.malignant and random.random() < 0.5
            breasts.append((other, views, replace(member, malignant=malignant, special="")))
        for laterality, which, owner in breasts:
            for lesion, visible in _lesions_of(random, finding, owner, which):
                for view in visible:
                    shown.setdefault((laterality, view), []).append(lesion)
                    listed.setdefault((laterality, view), {})[finding] = member.split
    return [
        FilmPlan(
            patient_id=patient_id, laterality=laterality, view=view, density=density,
            lesions=tuple(sorted(lesions, key=lambda one: (one.finding != MASS, one.number))),
            splits=listed[laterality, view],
        )
        for (laterality, view), lesions in shown.items()
    ]  # fmt: skip


def _lesions_of(
    random: np.random.Generator, finding: str, member: _Member, views: tuple[str, ...]
) -> list[tuple[Lesion, tuple[str, ...]]]:
    """Return the lesions of one breast, each with the views that show it."""
    count = choose(random, {1: 0.9, 2: 0.08, 3: 0.02})
    if member.special == "two lesions":
        count = 2
    places = random.permutation(count)
    lesions = []
    for index in range(count):
        # The first lesion makes the breast's label and is on every view; the others may be benign.
        further = index > 0 and (bool(member.special) or random.random() < 0.6)
        visible = views if index == 0 or random.random() < 0.7 else views[:1]
        pathology = "MALIGNANT" if member.malignant and not further else "BENIGN"
        quiet = random.random() < WITHOUT_CALLBACK_SHARE[finding]
        if pathology == "BENIGN" and (quiet or member.special == "without callback"):
            pathology = "BENIGN_WITHOUT_CALLBACK"
        lesions.append((plan_lesion(random, finding, int(places[index]) + 1, pathology), visible))
    return lesions


def plan_lesion(random: np.random.Generator, finding: str, number: int, pathology: str) -> Lesion:
    """Draw what a lesion is like; `pathology` is that of the case descriptions."""
    spiculated = (pathology == "MALIGNANT") != (random.random() < ATYPICAL_SHARE)
    low, high = (0.05, 0.09) if finding == MASS else (0.04, 0.08)
    return Lesion(
        finding=finding, number=number, pathology=pathology,
        assessment=choose(random, ASSESSMENTS[pathology]),
        subtlety=choose(random, SUBTLETIES),
        shape=choose(random, SHAPES[finding, spiculated]),
        margins=choose(random, MARGINS[finding, spiculated]),
        spiculated=spiculated, radius=random.uniform(low, high),
    )  # fmt: skip
