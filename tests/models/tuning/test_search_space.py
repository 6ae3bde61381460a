"""What a search may choose: the spaces of all models, and what is given beside them."""

import dataclasses

import pytest
import torch

from models.registry import MODELS
from models.training.best_trial import apply_point
from models.training.stage import hyper_parameters_of, make_network
from models.tuning.search_space import space_of, start_points, tunable_choices
from pipeline.stages.training import Train


@pytest.mark.parametrize("name", tunable_choices({}))
def test_what_a_model_records_lies_in_its_search_space(name):
    row = MODELS[name]
    space = {one.name: one for one in space_of(row)}
    for scratch in (True, False):
        points = start_points(row, scratch)
        assert points[0][1]
        for point, _ in points:
            for key, value in point.items():
                one = space[key]
                if one.choices:
                    assert value in one.choices
                else:
                    assert one.low <= value <= one.high
    if row.strategy != "opw":
        options = Train(model=name, weights="none")
        point = start_points(row, scratch=True)[0][0]
        given, same = apply_point(point, options, row)
        assert (given, same) == (dataclasses.replace(options, **_named(point, given)), row)
        ignored = {} if row.trained_from else {"variants": 0}
        assert dataclasses.replace(
            hyper_parameters_of(given, same), **ignored
        ) == hyper_parameters_of(options, row)


def _named(point, given):
    return {name: getattr(given, name) for name in point if hasattr(given, name)}


def test_what_was_given_wins_over_what_was_found():
    row = MODELS["EfficientNetB3_Optuna"]
    found = {
        "trained_from": "blocks.6", "head_depth": 2, "head_width": 128, "dropout": 0.1,
        "optimizer": "sgd", "sgd_learning_rate": 0.05, "batch_size": 32, "epochs": 12,
    }  # fmt: skip
    found |= {"balance": "none", "label_smoothing": 0.1}
    # What is given wins where it is what the model would have without a search, too.
    given = Train(batch_size=8, epochs=30, balance="weights", label_smoothing=0.0)
    options, changed = apply_point(found, given, row)
    assert (options.batch_size, options.epochs) == (8, 30)
    assert (options.balance, options.label_smoothing) == ("weights", 0.0)
    assert (options.optimizer, options.learning_rate) == ("sgd", 0.05)
    assert (changed.trained_from, changed.head.widths) == ("blocks.6", (128, 64))
    network, _, _ = make_network(dataclasses.replace(options, weights="none"), changed)
    assert isinstance(network.classifier[-1], torch.nn.Linear)
