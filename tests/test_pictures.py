"""The README's pictures show the program as it is."""

import pytest

from docs.pictures import QUESTIONNAIRE, draw_questionnaire, texts_of


@pytest.mark.slow  # it makes a collection
def test_the_questionnaire_in_the_readme_is_what_the_program_shows(tmp_path):
    drawn = texts_of(QUESTIONNAIRE.read_text(encoding="utf-8"))
    shown = texts_of(draw_questionnaire(tmp_path))
    assert drawn == shown, "draw it again: python docs/pictures.py questionnaire"
