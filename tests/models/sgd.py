"""A training that is the same however a batch is sharded: no batch norm, no dropout."""

import dataclasses

import torch
from torch import nn

from models.inference import Compute
from models.registry import MODELS
from models.training.loop import fit
from models.training.stage import hyper_parameters_of, load_training_data
from pipeline.manifest import read_manifest
from pipeline.progress import Silent
from pipeline.stages.training import Train


def fit_linear(data, folder):
    """Return the weights of a linear model after some steps of plain gradient descent.

    Unlike Adam, gradient descent shows a gradient that is scaled wrongly.
    """
    row = MODELS["MammoCNN"]
    options = Train(data=data, model=row.name, epochs=2, batch_size=8, size=32, workers=1,
                    augment="flip", mixup=0.2, parts=2, ema=0.5)  # fmt: skip
    images = load_training_data(
        options, row, read_manifest(data), Compute(torch.device("cpu"), None), Silent()
    )
    how = dataclasses.replace(hyper_parameters_of(options, row), optimizer="sgd", learning_rate=0.1)
    torch.manual_seed(0)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16, 1))
    folder.mkdir(exist_ok=True)
    fit(network, "", images, how, folder, Silent())
    return [value for one in network.parameters() for value in one.flatten().tolist()]
