"""What an evaluated run says of images, and these images as a network takes them."""

import csv

import numpy as np

from images.files import read_image
from images.square import fit_square
from pipeline.manifest import read_manifest


def predicted(run, split, column):
    """Return a column of the predictions of a run, by image_id."""
    with (run / f"predictions_{split}.csv").open(encoding="utf-8") as file:
        return {line["image_id"]: float(line[column]) for line in csv.DictReader(file)}


def images_of(data, image_ids, size):
    """Return (N, S, S) uint8 images of a dataset, in the order of their ids."""
    paths = {row.image_id: data / row.path for row in read_manifest(data)}
    return np.stack([fit_square(read_image(paths[one]), size) for one in image_ids])
