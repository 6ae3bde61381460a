from dataclasses import replace

from images.files import read_image
from interface.report.data import description_of, trace
from pipeline.manifest import DESCRIPTION, Row
from sources.description import UNKNOWN, _variables, write_description
from tests.organize_data.reading import run

ROWS = [
    Row(
        image_id=f"i{number}",
        patient_id=f"p{number}",
        split=("train", "val", "test")[number % 3],
        label=("not_malignant", "malignant")[number % 2],
        path=f"{number}.png",
        view="CC",
        assessment="2|4",
        age=None if number % 4 else 40 + number,
        diagnosis=("normal", "malignant")[number % 2],
    )
    for number in range(24)
]


def picture(folder, rows):
    folder.mkdir()
    write_description(folder, rows)
    return (folder / DESCRIPTION).read_bytes()


def test_the_same_rows_give_the_same_bytes_and_others_do_not(tmp_path):
    first = picture(tmp_path / "a", ROWS)
    assert picture(tmp_path / "b", ROWS[::-1]) == first
    assert picture(tmp_path / "c", [replace(row, view="MLO") for row in ROWS[:8]]) != first
    copies = [replace(row, image_id=f"{row.image_id}c", parent=row.image_id) for row in ROWS]
    assert picture(tmp_path / "d", [*ROWS, *copies]) == first  # augmented images do not count
    shown = read_image(tmp_path / "a" / DESCRIPTION)
    assert min(shown.shape) > 300
    assert shown.min() < 30_000  # bars and letters, not an empty page
    assert len(set(shown[:, ::7].ravel())) > 20


def test_what_is_read_off_a_row():
    values = {name: [read(row) for row in ROWS] for name, read in _variables(ROWS).items()}
    assert values["age in years"][:5] == ["40-49", UNKNOWN, UNKNOWN, UNKNOWN, "40-49"]
    assert set(values["BI-RADS assessment"]) == {"4"}
    assert set(values["side"]) == {UNKNOWN}
    assert values["finding"][:2] == ["none", UNKNOWN]
    assert values["diagnosis"][:2] == ["normal", "malignant"]
    assert "site" not in values
    sited = [replace(row, site="1") for row in ROWS[:1]] + ROWS[1:]
    assert [read(sited[1]) for name, read in _variables(sited).items() if name == "site"] == [
        UNKNOWN
    ]


def test_it_lies_beside_an_organised_dataset_and_stands_in_the_report(
    collection, tmp_path, monkeypatch
):
    monkeypatch.setattr("sources.description.write_description", write_description)
    run(collection, tmp_path / "dataset")
    assert min(read_image(tmp_path / "dataset" / DESCRIPTION).shape) > 300
    found = description_of(trace(tmp_path / "dataset"))
    assert found.startswith("data:image/png;base64,")
    (tmp_path / "dataset" / DESCRIPTION).unlink()
    assert description_of(trace(tmp_path / "dataset")) == ""
