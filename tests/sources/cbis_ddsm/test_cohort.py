import pytest

from pipeline.errors import UserError
from pipeline.stages.data import Organize
from sources.cbis_ddsm.cohort import plan_cohort
from sources.cbis_ddsm.tables import Lesion


def lesion(patient="P_00001", split="train", pathology="BENIGN", **changes):
    values = {
        "patient_id": patient, "laterality": "LEFT", "view": "CC", "finding": "mass", "number": 1,
        "split": split, "pathology": pathology, "density": 2, "assessment": 4, "subtlety": 3,
        "shape": "OVAL", "margins": "OBSCURED", "subject": "", "mammogram_series": "1.1",
        "crop_series": "1.2", "mask_series": "1.2",
    }  # fmt: skip
    return Lesion(**values | changes)


def cohort_of(lesions, **options):
    return plan_cohort(lesions, Organize(**{"finding": "both"} | options))


def ids(cohort):
    return [image.image_id for image in cohort.images]


def homes(cohort):
    return {image.image_id: image.split for image in cohort.images}


def test_a_film_is_malignant_where_any_lesion_is_and_lesions_are_in_order():
    shown = [
        lesion(finding="calcification", mammogram_series="1.9"),
        lesion(number=2),
        lesion(number=1, pathology="MALIGNANT"),
    ]
    (image,) = cohort_of(shown).images
    assert image.image_id == "P_00001_LEFT_CC"
    assert image.label == "malignant"
    assert [(x.finding, x.number) for x in image.lesions] == [
        ("mass", 1),
        ("mass", 2),
        ("calcification", 1),
    ]
    assert image.series == ("1.1", "1.9")


def test_crops_are_one_image_for_each_lesion():
    shown = [lesion(), lesion(number=2, pathology="MALIGNANT"), lesion(finding="calcification")]
    images = cohort_of(shown, unit="crop").images
    assert {x.image_id: x.label for x in images} == {
        "P_00001_LEFT_CC_mass_1": "benign",
        "P_00001_LEFT_CC_mass_2": "malignant",
        "P_00001_LEFT_CC_calc_1": "benign",
    }


POOLED = [
    lesion(split="test"),
    lesion(split="train", finding="calcification", pathology="MALIGNANT"),
    lesion(split="train", finding="calcification", view="MLO"),
    lesion(split="test", laterality="RIGHT"),
    lesion("P_00002"),
]


def test_pooled_patients_lose_their_training_images_and_keep_all_that_is_known_of_a_twin():
    cohort = cohort_of(POOLED)
    assert [(x.image_id, x.split, x.label) for x in cohort.images] == [
        ("P_00001_LEFT_CC", "test", "malignant"),
        ("P_00001_RIGHT_CC", "test", "benign"),
        ("P_00002_LEFT_CC", "train", "benign"),
    ]
    assert cohort.pooled == ("P_00001",)
    (cost,) = cohort.left_out
    assert (cost.lesions, cost.images, cost.patients) == (1, 1, 0)
    crops = cohort_of(POOLED, unit="crop")
    assert ids(crops) == [
        "P_00001_LEFT_CC_mass_1",
        "P_00001_RIGHT_CC_mass_1",
        "P_00002_LEFT_CC_mass_1",
    ]
    assert crops.left_out[0].images == 2


def test_pooled_patients_lose_their_test_images_or_are_test_patients_on_request():
    dropped = cohort_of(POOLED, pooled="drop-test")
    assert homes(dropped) == dict.fromkeys(
        ("P_00001_LEFT_CC", "P_00001_LEFT_MLO", "P_00002_LEFT_CC"), "train"
    )
    moved = cohort_of(POOLED, pooled="move-to-test")
    assert homes(moved) == {
        "P_00001_LEFT_CC": "test",
        "P_00001_LEFT_MLO": "test",
        "P_00001_RIGHT_CC": "test",
        "P_00002_LEFT_CC": "train",
    }
    assert (moved.moved, moved.left_out) == (1, ())


def test_one_finding_alone_pools_nobody():
    assert cohort_of(POOLED, finding="mass").pooled == ()
    assert homes(cohort_of(POOLED, finding="calc")) == {
        "P_00001_LEFT_CC": "train",
        "P_00001_LEFT_MLO": "train",
    }


def test_without_callback_is_left_out_before_films_are_formed():
    shown = [
        lesion(),
        lesion(number=2, pathology="BENIGN_WITHOUT_CALLBACK"),
        lesion("P_00002", pathology="BENIGN_WITHOUT_CALLBACK"),
    ]
    assert len(cohort_of(shown).images) == 2
    cohort = cohort_of(shown, without_callback="leave-out")
    assert [(x.image_id, len(x.lesions)) for x in cohort.images] == [("P_00001_LEFT_CC", 1)]
    (cost,) = cohort.left_out
    assert (cost.why, cost.lesions, cost.images, cost.patients) == (
        "BENIGN_WITHOUT_CALLBACK", 2, 1, 1,
    )  # fmt: skip


MIXED = [lesion(), lesion(number=2, pathology="MALIGNANT"), lesion("P_00002")]


def test_films_with_both_kinds_of_lesion_are_malignant_left_out_or_counted_twice():
    assert {x.image_id: x.label for x in cohort_of(MIXED).images} == {
        "P_00001_LEFT_CC": "malignant",
        "P_00002_LEFT_CC": "benign",
    }
    assert ids(cohort_of(MIXED, mixed="leave-out")) == ["P_00002_LEFT_CC"]
    each = cohort_of(MIXED, mixed="each").images
    assert {x.image_id: (x.label, [y.number for y in x.lesions]) for x in each} == {
        "P_00001_LEFT_CC_benign": ("benign", [1]),
        "P_00001_LEFT_CC_malignant": ("malignant", [2]),
        "P_00002_LEFT_CC": ("benign", [1]),
    }


@pytest.mark.parametrize("rule", ["drop-train", "drop-test", "move-to-test"])
def test_a_film_that_stands_under_both_labels_goes_with_its_patient_as_one(rule):
    # Its benign mass is in train, its malignant calcification in test: no part may be lost, or
    # the film would stand under the wrong label alone.
    shown = [lesion(), lesion(finding="calcification", split="test", pathology="MALIGNANT")]
    home = "train" if rule == "drop-test" else "test"
    cohort = cohort_of(shown, mixed="each", pooled=rule)
    assert homes(cohort) == {"P_00001_LEFT_CC_benign": home, "P_00001_LEFT_CC_malignant": home}
    assert (cohort.moved, cohort.left_out) == (0, ())


def test_a_film_that_stands_under_both_labels_can_be_left_out_by_either_name(tmp_path):
    listed = tmp_path / "unfit.txt"
    listed.write_text("P_00001_LEFT_CC_malignant")  # as the manifest and leaks.csv have it
    assert ids(cohort_of(MIXED, mixed="each", exclude=listed)) == [
        "P_00001_LEFT_CC_benign",
        "P_00002_LEFT_CC",
    ]
    listed.write_text("P_00001_LEFT_CC")
    assert ids(cohort_of(MIXED, mixed="each", exclude=listed)) == ["P_00002_LEFT_CC"]


def test_the_original_cohort_is_a_name_for_other_answers():
    shown = [*MIXED, lesion("P_00003", pathology="BENIGN_WITHOUT_CALLBACK")]
    named = cohort_of(shown, cohort="original", finding="mass")
    spelt = cohort_of(shown, finding="mass", without_callback="leave-out", mixed="each")
    assert named == spelt
    assert len(named.images) == 3
    with pytest.raises(UserError, match="--cohort original means --finding mass, not calc"):
        cohort_of(shown, cohort="original", finding="calc")


def test_films_stored_twice_can_be_left_out():
    shown = [lesion(), lesion(finding="calcification"), lesion("P_00002")]
    assert ids(cohort_of(shown, twins="leave-out")) == ["P_00002_LEFT_CC"]


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"laterality": "right"}, ["P_00001_RIGHT_CC"]),
        ({"view": "mlo"}, ["P_00001_LEFT_MLO"]),
        ({"laterality": "left", "view": "cc"}, ["P_00001_LEFT_CC"]),
    ],
)
def test_sides_and_views_can_be_chosen(options, left):
    shown = [lesion(), lesion(view="MLO"), lesion(laterality="RIGHT")]
    cohort = cohort_of(shown, **options)
    assert ids(cohort) == left
    assert sum(cost.images for cost in cohort.left_out) == 2


def test_images_and_patients_can_be_listed_to_be_left_out(tmp_path):
    shown = [lesion(), lesion(view="MLO"), lesion("P_00002"), lesion("P_00003")]
    listed = tmp_path / "unfit.txt"
    listed.write_text("P_00001_LEFT_MLO\n\n P_00002 \n")
    cohort = cohort_of(shown, exclude=listed)
    assert ids(cohort) == ["P_00001_LEFT_CC", "P_00003_LEFT_CC"]
    assert [(x.why, x.images, x.patients) for x in cohort.left_out] == [
        ("listed in unfit.txt", 2, 1)
    ]
    with pytest.raises(UserError, match=r"gone\.txt: no such file; give a list of ids"):
        cohort_of(shown, exclude=tmp_path / "gone.txt")


@pytest.mark.parametrize(
    "line",
    [
        "P_00001", "P_00001;", '"P_00001"', "P_00001,leak", "P_00001;leak", "p_00001",
        "P_00001\tin two archives", "patient_id,why\r\nP_00001,leak", "# a leak\n\nP_00001",
        "'P_00001'", "1,P_00001",
    ],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_list_is_understood_however_it_was_saved(tmp_path, line, encoding):
    listed = tmp_path / "unfit.csv"
    listed.write_bytes((line + "\r\n").encode(encoding))
    assert ids(cohort_of([lesion(), lesion("P_00002")], exclude=listed)) == ["P_00002_LEFT_CC"]


def test_a_file_of_the_dataset_may_be_listed(tmp_path):
    listed = tmp_path / "unfit.txt"
    listed.write_text("train/malignant/P_00001_LEFT_CC.png\n")
    shown = [lesion(), lesion(view="MLO")]
    assert ids(cohort_of(shown, exclude=listed)) == ["P_00001_LEFT_MLO"]


def test_the_name_of_a_film_stands_for_its_crops(tmp_path):
    listed = tmp_path / "unfit.txt"
    listed.write_text("P_00001_LEFT_CC\n")
    shown = [lesion(), lesion(number=2), lesion(view="MLO")]
    cohort = cohort_of(shown, exclude=listed, unit="crop")
    assert ids(cohort) == ["P_00001_LEFT_MLO_mass_1"]


@pytest.mark.parametrize("line", ["P_6", "P_99999", "P_00001_LEFT", "P_00001_LEFT_CC_malignant"])
def test_a_line_that_names_nothing_is_refused(tmp_path, line):
    listed = tmp_path / "unfit.txt"
    listed.write_text(f"P_00001\n{line}\n")
    with pytest.raises(UserError, match=rf"line 2: '{line}': no image or patient has this name"):
        cohort_of([lesion(), lesion("P_00002")], exclude=listed)
