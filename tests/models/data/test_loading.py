import cv2
import numpy as np
import pytest
import torch

from models.data.loading import EvalTransform, TrainTransform, batches, load_split
from pipeline.manifest import read_manifest
from pipeline.progress import Silent
from tests.models.datasets import make_dataset

CPU = torch.device("cpu")
PLAIN = EvalTransform(0.5, 0.25, CPU)


def test_a_split_holds_its_images_in_the_order_of_the_manifest(tiny_data):
    rows = read_manifest(tiny_data)
    split = load_split(tiny_data, rows, "val", 48, 2, Silent())
    assert [row.image_id for row in split.rows] == [r.image_id for r in rows if r.split == "val"]
    assert split.targets.tolist() == [float(row.label == "malignant") for row in split.rows]
    for row, image in zip(split.rows, split.images, strict=True):
        assert np.array_equal(image, cv2.imread(str(tiny_data / row.path), cv2.IMREAD_GRAYSCALE))


def test_an_image_that_cannot_be_read_is_set_aside_with_its_reason(tmp_path):
    folder = make_dataset(tmp_path / "data", {"train": 2})
    rows = read_manifest(folder)
    (folder / rows[1].path).write_bytes(b"no image")
    (folder / rows[2].path).unlink()
    split = load_split(folder, rows, "train", 16, 1, Silent())
    assert [row.image_id for row in split.rows] == [rows[0].image_id, rows[3].image_id]
    assert split.images.shape == (2, 16, 16)
    reasons = dict(split.set_aside)
    assert "cannot be decoded" in reasons[rows[1].path]
    assert "no such file" in reasons[rows[2].path]


def test_sixteen_bit_images_that_are_not_square_can_be_used_directly(tmp_path):
    folder = make_dataset(tmp_path / "dataset", {"train": 1}, stage="organize")
    rows = read_manifest(folder)
    image = np.full((60, 30), 40000, np.uint16)
    cv2.imwrite(str(folder / rows[0].path), image)
    split = load_split(folder, rows, "train", 20, 1, Silent())
    assert split.images[0, 10].tolist() == [0] * 5 + [round(40000 / 257)] * 10 + [0] * 5


def test_the_transform_normalises_and_adds_the_channel():
    images = np.array([[[0, 255], [51, 102]]], np.uint8)
    tensor = PLAIN(images)
    assert tensor.shape == (1, 1, 2, 2)
    assert tensor.dtype == torch.float32
    expected = (torch.tensor([[0.0, 1.0], [0.2, 0.4]]) - 0.5) / 0.25
    torch.testing.assert_close(tensor[0, 0], expected)


def test_training_without_augmentation_sees_what_evaluation_sees(tiny_data):
    split = load_split(tiny_data, read_manifest(tiny_data), "train", 32, 1, Silent())
    batch = TrainTransform(PLAIN, "none", 1)(split, [3, 1], variant=1)
    assert torch.equal(batch, PLAIN(split.images[[3, 1]]))


def test_augmentation_depends_on_seed_epoch_and_image_alone(tiny_data):
    split = load_split(tiny_data, read_manifest(tiny_data), "train", 32, 1, Silent())
    transform = TrainTransform(PLAIN, "flip-rotate", 1)
    batch = transform(split, [3, 1], variant=1)
    again = TrainTransform(PLAIN, "flip-rotate", 1)(split, [1, 3], variant=1)
    assert torch.equal(batch.flip(0), again)
    assert not torch.equal(batch, transform(split, [3, 1], variant=2))
    assert not torch.equal(batch, TrainTransform(PLAIN, "flip-rotate", 2)(split, [3, 1], variant=1))


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [(8, 4, [4, 4]), (9, 4, [4, 5]), (10, 4, [4, 4, 2]), (3, 8, [3]), (5, 2, [2, 3]), (1, 4, [1])],
)
def test_no_batch_has_a_single_image_where_there_are_more(count, size, sizes):
    order = np.arange(count)[::-1]
    found = batches(count, size, order)
    assert [len(one) for one in found] == sizes
    assert np.concatenate(found).tolist() == order.tolist()
