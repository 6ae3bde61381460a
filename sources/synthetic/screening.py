"""Who is in a synthetic screening collection: women with cancer, with benign lesions, with none.

The lesions are drawn as those of the synthetic CBIS-DDSM. What a reader sees beside them (age,
density, borders, side, view) does not depend on the diagnosis.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sources.synthetic.plan import (
    ASSESSMENTS,
    DENSITIES,
    MASS,
    FilmPlan,
    Lesion,
    choose,
    plan_lesion,
    random_for,
)

VIEWS = ("CC", "MLO")
SIDES = ("LEFT", "RIGHT")
NORMAL_ASSESSMENTS = {1: 0.7, 2: 0.3}  # BI-RADS category -> share


@dataclass(frozen=True, kw_only=True)
class ScreenedFilm:
    """One film of a woman who was screened."""

    film: FilmPlan  # without a lesion where its breast is normal
    diagnosis: str  # of the breast: "normal", "benign" or "malignant"
    age: int  # of the woman, in years
    assessment: int  # BI-RADS assessment of the breast, 1 to 5


def plan_screening(
    seed: int,
    patients: int,
    shares: dict[str, float],
    views: Sequence[str] = VIEWS,
    findings: Sequence[str] = (MASS,),
) -> list[ScreenedFilm]:
    """Plan the films of a screening collection: both breasts of every woman.

    Args:
        seed: The same seed and number give the same plan.
        patients: How many women.
        shares: Of women by their worst diagnosis: "normal", "benign", "malignant". From 8 women
            on, each diagnosis whose share is not 0 has at least two.
        views: Of each breast.
        findings: Of the lesions, one drawn for each lesion.

    Returns:
        The films in the order of woman, side and view.
    """
    random = random_for(seed, "screening")
    counts = {name: max(2, round(share * patients)) if share else 0 for name, share in
              shares.items() if name != "normal"}  # fmt: skip
    worst = [name for name, count in counts.items() for _ in range(count)]
    worst += ["normal"] * (patients - len(worst))
    films = []
    for number, at in enumerate(random.permutation(patients), start=1):
        patient_id = f"S_{number:05d}"
        films += _films_of(seed, patient_id, worst[at], views, findings)
    return films


def _films_of(
    seed: int, patient_id: str, worst: str, views: Sequence[str], findings: Sequence[str]
) -> list[ScreenedFilm]:
    random = random_for(seed, patient_id, "screening")
    density, age = choose(random, DENSITIES), int(random.integers(40, 80))
    ill = SIDES[random.integers(2)]
    films = []
    for side in SIDES:
        diagnosis = worst if side == ill else "normal"
        lesions: tuple[Lesion, ...] = ()
        assessment = choose(random, NORMAL_ASSESSMENTS)
        if diagnosis != "normal":
            finding = findings[int(random.integers(len(findings)))]
            pathology = diagnosis.upper()
            lesions = (plan_lesion(random, finding, 1, pathology),)
            assessment = choose(random, ASSESSMENTS[pathology])
        for view in views:
            film = FilmPlan(
                patient_id=patient_id, laterality=side, view=view, density=density,
                lesions=lesions, splits={},
            )  # fmt: skip
            films.append(
                ScreenedFilm(film=film, diagnosis=diagnosis, age=age, assessment=assessment)
            )
    return films
