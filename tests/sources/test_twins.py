import cv2
import numpy as np
import pytest

from sources.twins import exact_key, fingerprint, joined, near_duplicates, orientations, same_key


def picture(seed, side=299):
    """A smooth picture unlike those of other seeds."""
    rough = np.random.default_rng(seed).integers(0, 256, (9, 9)).astype(np.uint8)
    return cv2.resize(rough, (side, side), interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize("shape", [(5, 7), (4, 4), (3, 3)])
def test_a_picture_has_one_key_in_all_orientations(shape):
    for seed in range(40):
        pixels = np.random.default_rng(seed).integers(0, 2, shape).astype(np.uint16)
        turned = list(orientations(pixels))
        assert len({exact_key(one) for one in turned}) == 1
        other = pixels.copy()
        other[1, 2] ^= 2
        assert exact_key(other) != exact_key(pixels)
    assert same_key(pixels) == same_key(pixels.copy())
    assert same_key(pixels) != same_key(np.vstack([pixels, pixels]))


def test_there_are_eight_orientations():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert len({(one.shape, one.tobytes()) for one in orientations(pixels)}) == 8


@pytest.mark.parametrize("turn", range(8))
def test_a_turned_and_recompressed_copy_is_a_near_duplicate(turn):
    pictures = [picture(seed) for seed in range(30)]
    copy = np.ascontiguousarray(list(orientations(pictures[7]))[turn])
    jpeg = cv2.imencode(".jpg", copy, [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    pictures.append(cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE))
    assert near_duplicates([fingerprint(one) for one in pictures]) == [[7, 30]]


def test_nothing_has_no_near_duplicates():
    assert near_duplicates([]) == []


def test_groups_are_joined_by_chains():
    assert joined(7, [(5, 1), (2, 6), (1, 0), (3, 3)]) == [[0, 1, 5], [2, 6]]
