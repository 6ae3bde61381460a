"""The plain way to train: torchvision's ImageFolder, Resize, AdamW, a loop.

What a careful tutorial would write, with timm's network as it comes (three channels): the way
that this tool is measured against. On a processor in float32; with `--device cuda --amp` as
tutorials for GPUs have it: bfloat16 autocast, channels last, fused AdamW, workers that stay from
epoch to epoch, pinned memory. Prints one JSON line.
"""

import argparse
import json
import resource
import time
from contextlib import nullcontext

import timm
import torch
from PIL import Image
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


class HeldImages(ImageFolder):
    """An ImageFolder that has read and scaled its images before: no epoch waits for a file."""

    def __init__(self, folder, transform, size):
        super().__init__(folder, transform)
        self._held = {path: self.loader(path).resize((size, size)) for path, _ in self.samples}
        self.loader = self._copy

    def _copy(self, path) -> Image.Image:
        return self._held[path].copy()


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
    found, on_gpu = [], options.device != "cpu"
    for split, augment in (("train", options.augment), ("val", False)):
        steps = transform(channels, options.size, augment)
        place = f"{options.data}/{split}"
        folder = (
            HeldImages(place, steps, options.size) if options.held else ImageFolder(place, steps)
        )
        found.append(
            DataLoader(
                folder,
                options.batch_size,
                shuffle=split == "train",
                num_workers=options.loaders,
                pin_memory=on_gpu,
                persistent_workers=on_gpu and options.loaders > 0,
            )
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


def options_of(words=None):
    """Return the options that words of the command line say."""
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
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--amp", action="store_true", help="bfloat16, channels last, fused AdamW")
    parser.add_argument("--loaders", type=int, default=LOADERS, help="of the DataLoader")
    parser.add_argument("--held", action="store_true", help="images read and scaled beforehand")
    return parser.parse_args(None if words is None else [*map(str, words)])


class Plain:
    """A plain training: what is trained, on what, and how long it waits for images."""

    def __init__(self, options):
        """Make network, loaders and optimiser."""
        self._options, self._device = options, torch.device(options.device)
        torch.manual_seed(options.seed)
        network, channels = make_network(MODELS[options.model])
        layout = torch.channels_last if options.amp else torch.contiguous_format
        self.network = network.to(self._device, memory_format=layout)
        self._train, self._val = loaders(options, channels)
        trained = [p for p in network.parameters() if p.requires_grad]
        fused = True if options.amp else None
        self._optimizer = torch.optim.AdamW(trained, lr=options.learning_rate, fused=fused)
        self._loss = nn.BCEWithLogitsLoss()
        self.waited = 0.0  # seconds, in the epoch at hand
        if options.amp:
            torch.backends.cudnn.benchmark = True

    def _batches(self, loader):
        """Yield what a loader gives, on the device, and note how long it took to come."""
        iterator = iter(loader)
        while True:
            started = time.perf_counter()
            batch = next(iterator, None)
            self.waited += time.perf_counter() - started
            if batch is None:
                return
            images, labels = (one.to(self._device, non_blocking=True) for one in batch)
            if self._options.amp:
                images = images.contiguous(memory_format=torch.channels_last)
            yield images, labels

    def _autocast(self):
        if not self._options.amp:
            return nullcontext()
        return torch.autocast(self._device.type, torch.bfloat16)

    def epoch(self):
        """Train for an epoch and return the validation AUC; 0 where images are only loaded."""
        self.waited = 0.0
        if self._options.only_load:
            for _ in self._batches(self._train):
                pass
            return 0.0
        self.network.train()
        for images, labels in self._batches(self._train):
            self._optimizer.zero_grad()
            with self._autocast():
                found = self.network(images).squeeze(1)
            loss = self._loss(found.float(), labels.float())
            loss.backward()
            self._optimizer.step()
        if self._options.settle:
            update_bn(self._train, self.network)
        return self._validate()

    def _validate(self):
        self.network.eval()
        scores, targets = [], []
        with torch.no_grad():
            for images, labels in self._batches(self._val):
                with self._autocast():
                    found = self.network(images).squeeze(1)
                scores += found.float().tolist()
                targets += labels.tolist()
        return float(roc_auc_score(targets, scores))


def run(options):
    """Train; return the seconds of each epoch and how long each waited, and the best AUC."""
    plain, seconds, waited, auc = Plain(options), [], [], 0.0
    for _ in range(options.epochs):
        started = time.perf_counter()
        auc = max(auc, plain.epoch())
        seconds.append(time.perf_counter() - started)
        waited.append(plain.waited)
    return {"seconds": seconds, "waited": waited, "auc": auc}


def main():
    """Train and print the seconds of each epoch, validation AUC, peak memory."""
    found = run(options_of())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps({**found, "peak_mb": peak}))


if __name__ == "__main__":
    main()
