"""The plain way from raw films to trained models, as the thesis before this tool went it.

A script of ours that does what that project did, with the libraries as they come: DICOM to PNG
with pydicom, float64 and Pillow; five passes that each read and write a PNG at full size; four
augmented copies of each training image as further PNGs; torchvision's ImageFolder, Resize, three
channels, float32, no cache, timm's networks, a DataLoader with two workers; accuracy and AUC on
test in a table. It is told the files, labels and splits. Prints one JSON line.

    python -m tests.benchmarks.end_to_end.thesis_way --plan plan.json --out thesis --models MammoCNN
"""

import argparse
import csv
import json
import shutil
import time
from pathlib import Path

import cv2
import numpy as np
import pydicom
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, roc_auc_score
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from tests.benchmarks.plain_training import LOADERS, Plain, options_of, transform
from tests.benchmarks.training import shape_of

MARGIN = 0.02  # of the film, on each side
BACKGROUND = 18  # grey value of 255 below which a pixel is no tissue
DILATION = 55  # side in pixels
ANGLES = 15, -15
BATCH, LEARNING_RATE = 8, 1e-3


def convert(film, out):
    """Write the pixels of a DICOM file as an 8-bit PNG."""
    pixels = pydicom.dcmread(film).pixel_array.astype(np.float64)
    scaled = (pixels - pixels.min()) / (pixels.max() - pixels.min()) * 255
    Image.fromarray(scaled.astype(np.uint8)).save(out)


def crop(image):
    """Cut the scanner's borders."""
    down, across = (round(MARGIN * side) for side in image.shape)
    return image[down:-down, across:-across]


def remove_annotations(image):
    """Keep the largest bright thing, which is the breast."""
    _, bright = cv2.threshold(image, BACKGROUND, 255, cv2.THRESH_BINARY)
    bright = cv2.dilate(bright, np.ones((DILATION, DILATION), np.uint8))
    contours, _ = cv2.findContours(bright, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    mask = np.zeros_like(image)
    if contours:
        cv2.drawContours(mask, [max(contours, key=cv2.contourArea)], -1, 255, cv2.FILLED)
    return cv2.bitwise_and(image, mask)


def blur(image):
    """Smooth film grain."""
    return cv2.GaussianBlur(image, (5, 5), 0)


def enhance(image):
    """Enhance local contrast."""
    return cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(image)


def normalise(image):
    """Stretch to the full range."""
    return cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX)


PASSES = crop, remove_annotations, blur, enhance, normalise


def read(path):
    """Read a grey PNG."""
    return cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)


def convert_all(rows, out):
    """Convert every film."""
    (out / "png").mkdir(parents=True)
    for row in rows:
        convert(row["film"], out / "png" / f"{row['image_id']}.png")


def preprocess(rows, out):
    """Do one step after the other, each over all images, from folder to folder."""
    source = out / "png"
    for step in PASSES:
        target = out / step.__name__
        target.mkdir()
        for row in rows:
            name = f"{row['image_id']}.png"
            cv2.imwrite(str(target / name), step(read(source / name)))
        source = target


def augment(rows, out):
    """Sort images as ImageFolder wants them, training images with four copies."""
    for row in rows:
        source = out / PASSES[-1].__name__ / f"{row['image_id']}.png"
        target = out / "data" / row["split"] / row["label"] / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
        if row["split"] == "train":
            for number, copy in enumerate(copies(read(source)), start=1):
                cv2.imwrite(str(target.with_name(f"{target.stem}-{number}.png")), copy)


def copies(image):
    """Yield an image mirrored and turned, twice each."""
    yield cv2.flip(image, 1)
    yield cv2.flip(image, 0)
    high, wide = image.shape
    for angle in ANGLES:
        turn = cv2.getRotationMatrix2D((wide / 2, high / 2), angle, 1)
        yield cv2.warpAffine(image, turn, (wide, high))


def train(name, out, side, epochs):
    """Train a model and keep its best weights; return the network and seconds by epoch."""
    words = ["--data", out / "data", "--model", name, "--size", side, "--batch-size", BATCH]
    words += ["--epochs", epochs, "--learning-rate", LEARNING_RATE]
    plain, best, seconds = Plain(options_of(words)), -1.0, []
    file = out / "models" / f"{name}.pth"
    file.parent.mkdir(exist_ok=True)
    for _ in range(epochs):
        started = time.perf_counter()
        if (auc := plain.epoch()) > best:
            best = auc
            torch.save(plain.network.state_dict(), file)
        seconds.append(time.perf_counter() - started)
    plain.network.load_state_dict(torch.load(file))
    return plain.network.eval(), seconds


def evaluate(name, network, out, side):
    """Return accuracy and AUC on test."""
    channels = 1 if name == "MammoCNN" else 3
    folder = ImageFolder(out / "data" / "test", transform(channels, side, False))
    scores, targets = [], []
    with torch.no_grad():
        for images, labels in DataLoader(folder, BATCH, num_workers=LOADERS):
            scores += network(images).squeeze(1).tolist()
            targets += labels.tolist()
    called = [score > 0 for score in scores]
    return {"accuracy": accuracy_score(targets, called), "auc": roc_auc_score(targets, scores)}


def main():
    """Go the whole way; print the seconds of each part, and the scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plan", type=Path, required=True, help="JSON of films and splits")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--side", type=int, default=0, help="of the input, for all models")
    options = parser.parse_args()
    rows, out = json.loads(options.plan.read_text()), options.out
    seconds, epochs, scores = {}, {}, {}
    for part, function in (("images", convert_all), ("preprocess", preprocess),
                           ("augment", augment)):  # fmt: skip
        started = time.perf_counter()
        function(rows, out)
        seconds[part] = time.perf_counter() - started
    seconds["evaluate"] = 0.0
    for name in options.models:
        side = options.side or shape_of(name)[0]
        network, epochs[name] = train(name, out, side, options.epochs)
        started = time.perf_counter()
        scores[name] = evaluate(name, network, out, side)
        seconds["evaluate"] += time.perf_counter() - started
    with (out / "comparison.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("model", "accuracy", "auc"))
        table.writerows((name, *found.values()) for name, found in scores.items())
    print(json.dumps({"seconds": seconds, "epochs": epochs, "scores": scores}))


if __name__ == "__main__":
    main()
