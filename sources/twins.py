"""Images that are the same, or nearly: turned and mirrored copies, and patches cut alike."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 16  # of the small copy that two images are compared by, in pixels
MOST_BITS = 6  # of 64 in which the hashes of near-duplicates may differ
MOST_GREY = 1.5  # grey values of 255 by which their small copies may differ on average
Grey = NDArray[np.uint8] | NDArray[np.uint16]
Sums = NDArray[np.uint64]


def orientations(pixels: Grey) -> Iterator[Grey]:
    """Yield (H, W) pixels as they are, turned and mirrored: 8 ways, (H, W) or (W, H)."""
    for turned in (pixels, pixels.T):
        for rows in (turned, turned[::-1]):
            yield rows
            yield rows[:, ::-1]


def same_key(pixels: Grey) -> bytes:
    """Return what two images share that have the same (H, W) pixels."""
    return _digest(pixels.shape, pixels.tobytes())


def exact_key(pixels: Grey) -> bytes:
    """Return what two images share that have the same (H, W) pixels in any orientation."""
    rows, columns = (pixels.sum(axis=axis, dtype=np.uint64) for axis in (1, 0))
    # Their sums tell nearly all orientations apart, at a small part of the cost of the pixels.
    turned = zip(orientations(pixels), _orders(rows, columns) + _orders(columns, rows), strict=True)
    ways = [(one, (one.shape, b"".join(map(bytes, order)))) for one, order in turned]
    least = min(way for _, way in ways)
    return _digest(least[0], min(one.tobytes() for one, way in ways if way == least))


def _orders(rows: Sums, columns: Sums) -> list[tuple[Sums, Sums]]:
    """Return the sums of rows and columns of the first four orientations."""
    return [(down, across) for down in (rows, rows[::-1]) for across in (columns, columns[::-1])]


def _digest(shape: tuple[int, ...], content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16, person=str(shape).encode()).digest()


@dataclass(frozen=True)
class Fingerprint:
    """What near-duplicates are told by; the same for the 8 orientations of an image."""

    hash: int  # the difference hash: of neighbours in 8 x 9 cells, which is brighter
    small: NDArray[np.uint8]  # (SIDE, SIDE)


def fingerprint(pixels: NDArray[np.uint8]) -> Fingerprint:
    """Return the fingerprint of (H, W) uint8 pixels, H and W at least SIDE."""
    small = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    # The brighter half to the left, the brighter half up, the brighter corner to the upper right.
    half = SIDE // 2
    if small[:, :half].sum() < small[:, half:].sum():
        small = small[:, ::-1]
    if small[:half].sum() < small[half:].sum():
        small = small[::-1]
    if np.triu(small).sum() < np.tril(small).sum():
        small = small.T
    small = np.ascontiguousarray(small)
    cells = cv2.resize(small, (9, 8), interpolation=cv2.INTER_AREA)  # (8, 9)
    bits = np.packbits(cells[:, 1:] > cells[:, :-1])
    return Fingerprint(int.from_bytes(bits.tobytes()), small.astype(np.uint8))


def near_duplicates(prints: Sequence[Fingerprint]) -> list[list[int]]:
    """Return the groups of near-duplicates, each two or more places in `prints`, in order.

    Two are near-duplicates whose hashes differ in few bits and whose small copies differ little; a
    group holds whatever a chain of such pairs joins.
    """
    if not prints:
        return []
    small = np.stack([one.small.ravel() for one in prints]).astype(np.int16)  # (N, SIDE * SIDE)
    hashes = np.array([one.hash for one in prints], np.uint64)
    means = small.mean(axis=1)
    order = np.argsort(means, kind="stable")
    # Small copies differ on average by no less than their means do, so the others are far.
    ends = np.searchsorted(means[order], means[order] + MOST_GREY, side="right")
    pairs = []
    for place, end in enumerate(ends.tolist()):
        one, others = order[place], order[place + 1 : end]
        others = others[np.bitwise_count(hashes[others] ^ hashes[one]) <= MOST_BITS]
        apart = np.abs(small[others] - small[one]).mean(axis=1)
        pairs += [(int(one), int(other)) for other in others[apart <= MOST_GREY]]
    return joined(len(prints), pairs)


def joined(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Return the groups of 0 to count - 1 that pairs join, of two and more, in order."""
    parent = list(range(count))

    def root(one: int) -> int:
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    for first, second in pairs:
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    groups: dict[int, list[int]] = {}
    for one in range(count):
        groups.setdefault(root(one), []).append(one)
    return [group for group in groups.values() if len(group) > 1]
