"""Which films are joined to a breast: by study and side, over folders where that is sure."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from models.prediction.results import Line, breast_lines, tables_of

RUN: Any = SimpleNamespace(
    name="Model/1",
    is_detector=False,
    metrics={"aggregate": "max", "units": {"breast": {"threshold": 0.5}}},
    name_of=lambda reached: "malignant" if reached else "benign",
)


def line(image, view, probability, study="a", side="LEFT", complaints=()):
    facts = {"study": study, "laterality": side, "view": view}
    said = {
        "probability": probability,
        "malignant": probability >= 0.5,
        "complaints": complaints,
        "members": (),
    }
    return Line(image=image, predictor=RUN, facts=facts, said=said)


def test_a_study_with_a_folder_for_each_series_is_joined():
    breasts = breast_lines(
        [
            line("disc/s1/0.dcm", "CC", 0.2),
            line("disc/s2/0.dcm", "MLO", 0.7),
            line("disc/s3/0.dcm", "CC", 0.1, side="RIGHT"),
            line("disc/s4/0.dcm", "MLO", 0.3, side="RIGHT"),
        ]
    )
    assert [(one["folder"], one["study"], one["images"]) for one in breasts] == [("disc", 1, 2)] * 2
    assert [(one["laterality"], one["probability"], one["called"]) for one in breasts] == [
        ("LEFT", 0.7, "malignant"),
        ("RIGHT", 0.3, "benign"),
    ]


@pytest.mark.parametrize("views", [("CC", "CC"), ("CC", "")])
def test_patients_of_one_study_identifier_are_not_joined(views):
    first, second = views
    assert not breast_lines([line("p1/0.dcm", first, 0.2), line("p2/0.dcm", second, 0.7)])


def test_within_a_folder_repeated_views_are_joined():
    (breast,) = breast_lines([line("p/0.dcm", "CC", 0.2), line("p/1.dcm", "CC", 0.7)])
    assert (breast["folder"], breast["images"], breast["unlike"]) == ("p", 2, 0)


def test_a_breast_says_how_many_of_its_images_are_unlike_the_training():
    crop = line("p/1.dcm", "MLO", 0.9, complaints=("is a crop",))
    (breast,) = breast_lines([line("p/0.dcm", "CC", 0.2), crop])
    assert (breast["images"], breast["unlike"]) == (2, 1)


def test_each_of_several_runs_has_a_table_of_breasts():
    other = SimpleNamespace(**vars(RUN) | {"name": "Model/2", "threshold": 0.5})
    first = SimpleNamespace(**vars(RUN) | {"threshold": 0.5})
    lines = [
        replace(line(f"p/{view}.dcm", view, score), predictor=run)
        for run, score in ((first, 0.2), (other, 0.7))
        for view in ("CC", "MLO")
    ]
    tables = tables_of(lines, [first, other], breast_lines(lines))
    assert [(table.title, table.rows) for table in tables[2:]] == [
        ("Breasts, from all their views, by Model/1", (("p", "left", 2, "0.200", "benign"),)),
        ("Breasts, from all their views, by Model/2", (("p", "left", 2, "0.700", "malignant"),)),
    ]
