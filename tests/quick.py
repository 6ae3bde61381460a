"""What an evaluation or a search leaves out in tests that do not look at it."""

import contextlib

import pytest

DRAWN = ("models.evaluation.stage.write_figures", "models.tuning.stage.write_figures")


@contextlib.contextmanager
def without_figures():
    """Draw none: they take most of the time of what is so small."""
    with pytest.MonkeyPatch.context() as patch:
        for name in DRAWN:
            patch.setattr(name, lambda *_: None)
        yield


@contextlib.contextmanager
def briefly_timed():
    """Half a second of forward passes for each batch size is for networks of a real size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.evaluation.cost.SECONDS", 0.05)
        yield
