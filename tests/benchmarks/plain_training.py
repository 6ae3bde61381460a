"""The plain way to train: torchvision's ImageFolder, Resize, float32, AdamW, a loop.

What a careful tutorial would write, with timm's network as it comes (three channels): the way
that this tool is measured against. Prints one JSON line.
"""

import argparse
import json
import resource
import time

import timm
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from models.networks import mammo_cnn, split_before
from models.registry import MAMMO_CNN, MODELS

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LOADERS = 2


def transform(channels, size, augment):
    """Return what an image goes through, from file to tensor."""
    steps = [transforms.Grayscale(channels)] if channels == 1 else []
    steps.append(transforms.Resize((size, size)))
    if augment:
        steps += [
            transforms.RandomHorizontalFlip(),
            transforms.RandomVerticalFlip(),
            transforms.RandomRotation(15),
        ]
    steps += [transforms.ToTensor(), transforms.Normalize(MEAN[:channels], STD[:channels])]
    return transforms.Compose(steps)


def loaders(options, channels):
    """Return the loaders of training and validation images."""
    found = []
    for split, augment in (("train", options.augment), ("val", False)):
        folder = ImageFolder(f"{options.data}/{split}", transform(channels, options.size, augment))
        found.append(
            DataLoader(folder, options.batch_size, shuffle=split == "train", num_workers=LOADERS)
        )
    return found


def make_network(row):
    """Return a network with what its strategy trains, in the usual way."""
    if row.architecture == MAMMO_CNN:
        return mammo_cnn(), 1
    network = timm.create_model(row.architecture, num_classes=1)
    frozen, _ = split_before(network, row.trained_from)
    frozen.requires_grad_(False)
    return network, 3


def main():
    """Train and print the seconds of each epoch, validation AUC, peak memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--augment", action="store_true")
    parser.add_argument("--settle", action="store_true", help="batch norm before validation")
    parser.add_argument("--only-load", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    network, channels = make_network(MODELS[options.model])
    train, val = loaders(options, channels)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=options.learning_rate)
    loss_of = nn.BCEWithLogitsLoss()
    seconds, auc = [], 0.0
    for _ in range(options.epochs):
        started = time.perf_counter()
        if options.only_load:
            for _ in train:
                pass
            seconds.append(time.perf_counter() - started)
            continue
        network.train()
        for images, labels in train:
            optimizer.zero_grad()
            loss = loss_of(network(images).squeeze(1), labels.float())
            loss.backward()
            optimizer.step()
        if options.settle:
            update_bn(train, network)
        auc = max(auc, validate(network, val))
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps({"seconds": seconds, "auc": auc, "peak_mb": peak}))


def validate(network, val):
    """Return the validation AUC."""
    network.eval()
    scores, targets = [], []
    with torch.no_grad():
        for images, labels in val:
            scores += network(images).squeeze(1).tolist()
            targets += labels.tolist()
    return float(roc_auc_score(targets, scores))


if __name__ == "__main__":
    main()
