"""The networks whose speed is measured, and in which situations."""

from tests.benchmarks.gpu.data import MEDIUM, SMALL
from tests.benchmarks.training import FAMILIES, shape_of

MEASURED = *(f"{name}_CFT" for name in FAMILIES), "MammoCNN"
DRY, DRY_SHAPE = ("MammoCNN",), (32, 8)  # side of the input in pixels, images in a batch
FROM_FILES, IN_MEMORY = "from files", "in memory"


def measured(settings):
    """Return the models to measure."""
    return DRY if settings.dry else MEASURED


def shape_in(settings, model):
    """Return the side of a model's input in pixels, and its batch size."""
    return DRY_SHAPE if settings.dry else shape_of(model)


def data_of(settings, model):
    """Return the data set whose images are about as large as a model's input."""
    return settings.folder / (SMALL if shape_in(settings, model)[0] <= 224 else MEDIUM)


def row_of(model, situation):
    """Return the name of a row of the table."""
    return f"{model}, {situation}"
