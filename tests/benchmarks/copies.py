"""A dataset of as many images as a benchmark needs, made of the few of another one."""

import dataclasses
import itertools
import shutil
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from images.files import read_image, write_png
from pipeline.manifest import image_path, read_manifest, write_manifest
from pipeline.records import RECORD
from pipeline.work import worker_count

GRAIN = 3  # grey values, the standard deviation


def replicate(data, folder, counts, shape):
    """Write copies of a dataset's images in another size, each with film grain of its own.

    Every other round through the images is mirrored. Copies stay with their patient, so splits
    share none.

    Args:
        data: A complete dataset.
        folder: Gets the new one.
        counts: How many images of each split.
        shape: Their height and width in pixels.
    """
    rows = read_manifest(data)
    wanted = [
        (row, number // len(own), number)
        for split, count in counts.items()
        if (own := [row for row in rows if row.split == split])
        for number, row in zip(range(count), itertools.cycle(own), strict=False)
    ]

    def write(one):
        row, turn, number = one
        image = cv2.resize(read_image(data / row.path), shape[::-1]) / 257  # 16 bits to 8
        random = np.random.default_rng((turn, number))
        image = image + random.standard_normal(shape, np.float32) * GRAIN
        image_id = f"{row.image_id}_{turn}" if turn else row.image_id
        path = image_path(row.split, row.label, image_id)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        image = image[:, ::-1] if turn % 2 else image
        write_png(folder / path, np.ascontiguousarray(np.clip(image, 0, 255).astype(np.uint8)))
        return dataclasses.replace(
            row, image_id=image_id, path=path, height=shape[0], width=shape[1]
        )

    with ThreadPoolExecutor(worker_count(0)) as pool:
        write_manifest(folder, list(pool.map(write, wanted)))
    shutil.copy(data / RECORD, folder / RECORD)
    return folder
