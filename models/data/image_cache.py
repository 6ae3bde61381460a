"""The decoded images of a dataset, kept on disk as one block of bytes that is mapped into memory.

A file of pixels is written once under a name of its own and never changed; the index that names
it is put in place last. So a reader sees a whole file or none, whoever else is writing, and what
a killed run left is known by no index naming it. Pages that are not in use belong to the system,
which drops them when memory is short.
"""

import contextlib
import errno
import json
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.paths import inside
from pipeline.progress import Progress
from pipeline.records import digest, read_json, write_text
from pipeline.resources.places import CACHE, PIXELS
from pipeline.work import worker_count

RESERVE = 2**28  # bytes of the disk that are left free, for weights and figures
PAUSE = 0.1  # seconds between two looks at whether the other run is done

Stamp = tuple[int, int]  # size in bytes, time of the last change in ns
Decode = Callable[[Path], NDArray[np.uint8]]
Put = Callable[[int, NDArray[np.uint8]], None]


class ImageView:
    """Some of the images of a file, in an order of their own; indexed like (N, S, S) uint8.

    What an index gives is a copy, which may be changed.
    """

    def __init__(self, pixels: NDArray[np.uint8], slots: NDArray[np.int64]) -> None:
        """Take the (M, S, S) images of a file and the (N,) places of those wanted."""
        self._pixels = pixels
        self._slots = slots

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, S, S)."""
        _, height, width = self._pixels.shape
        return len(self), height, width

    @property
    def ndim(self) -> int:
        """3, as of an array."""
        return 3

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """Of the pixels."""
        return self._pixels.dtype

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        first, *rest = key if isinstance(key, tuple) else (key,)
        slots = self._slots[first]
        images: NDArray[np.uint8] = np.take(self._pixels, slots, axis=0)
        return images[(slice(None),) * np.ndim(slots) + tuple(rest)]

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (self[index] for index in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("the images lie in a file and can only be copied")
        return self[:].astype(dtype or self.dtype, copy=False)


@dataclass(frozen=True)
class _Kept:
    """A file of pixels and what its index says."""

    name: str
    pixels: NDArray[np.uint8]  # (N, S, S)
    slots: Mapping[str, int]  # by path
    stamps: Mapping[str, Stamp | None]  # of the image files when they were decoded

    def lacks(self, path: str, stamp: Stamp | None) -> bool:
        return path not in self.slots or self.stamps[path] != stamp


class ImageCache:
    """The decoded images of one dataset at one size."""

    def __init__(self, folder: Path, size: int, decode: Decode, code: str) -> None:
        """Say what is kept; nothing is read or written yet.

        Args:
            folder: The dataset.
            size: Side of the decoded images in pixels.
            decode: Reads one image file as (size, size) uint8; raises UserError where it cannot.
            code: A digest of what `decode` depends on: what another code made is made again.
        """
        self._folder, self._size = folder, size
        self._decode, self._code = decode, code
        self._place = folder / CACHE
        self._index = self._place / f"{size}.json"

    def load(
        self, wanted: Sequence[str], others: Sequence[str], workers: int, progress: Progress
    ) -> tuple[ImageView, list[int], list[tuple[str, str]]]:
        """Return images, decoding only what is not kept yet or has changed since.

        Where something has to be decoded, so are the others, for the runs that follow. Where
        nothing can be kept (no right to write, a full disk), the wanted images go to memory.

        Args:
            wanted: Paths of images, relative to the dataset.
            others: More such paths, that are likely to be wanted soon.
            workers: Threads; 0 for one for each core.
            progress: Where it reports.

        Returns:
            The images that can be read; which of `wanted` they are; the rest with the reason.
        """
        kept = self._open()
        problems: Mapping[str, str] = {}
        if any(kept.lacks(path, self._stamp(path)) for path in wanted):
            try:
                kept, problems = self._extend([*wanted, *others], workers, progress)
            except OSError as error:
                reason = error.strerror or error
                progress.say(f"{self._place}: cannot be used, so images go to memory ({reason})")
                kept, problems = self._in_memory(kept, wanted, workers, progress)
        good = [index for index, path in enumerate(wanted) if path not in problems]
        slots = np.array([kept.slots[wanted[index]] for index in good], np.int64)
        bad = [(path, problems[path]) for path in wanted if path in problems]
        return ImageView(kept.pixels, slots), good, bad

    def _stamp(self, path: str) -> Stamp | None:
        try:
            facts = (self._folder / path).stat()
        except OSError:
            return None  # decoding raises the reason
        return facts.st_size, facts.st_mtime_ns

    def _open(self) -> _Kept:
        """Return what is kept; nothing where the index or its file is missing or of no use."""
        # Another run may just have replaced it, or it is damaged: then it is made again.
        useless = (UserError, OSError, ValueError)
        with contextlib.suppress(*useless):
            index = read_json(self._index)
            # The check: one wrong digit would give an image the pixels of another.
            if index["code"] == self._code and index.pop("check") == digest(index):
                images = index["images"].items()
                slots = {path: int(slot) for path, (slot, _, _) in images}
                stamps = {path: (size, changed) for path, (_, size, changed) in images}
                if 0 <= min(slots.values()) and max(slots.values()) < index["count"]:
                    inside(self._place, index["file"])
                    return self._map(index["file"], index["count"], slots, stamps)
        return _Kept("", np.empty((0, self._size, self._size), np.uint8), {}, {})

    def _map(
        self, name: str, count: int, slots: Mapping[str, int], stamps: Mapping[str, Stamp | None]
    ) -> _Kept:
        shape = (count, self._size, self._size)
        # As a plain array: indexing a memmap object costs more than the copy that it makes.
        pixels = np.asarray(np.memmap(self._place / name, np.uint8, "r", 0, shape))
        return _Kept(name, pixels, slots, stamps)

    def _extend(
        self, paths: Sequence[str], workers: int, progress: Progress
    ) -> tuple[_Kept, Mapping[str, str]]:
        """Return all that is still good and all that can be decoded, in a new file if need be."""
        self._place.mkdir(exist_ok=True)
        with _one_at_a_time(self._index.with_suffix(".lock"), progress):
            old = self._open()  # another run may have written it in the meantime
            stamps = {path: self._stamp(path) for path in dict.fromkeys([*old.slots, *paths])}
            lacking = [path for path in dict.fromkeys(paths) if old.lacks(path, stamps[path])]
            if not lacking:
                return old, {}
            still = [path for path in old.slots if not old.lacks(path, stamps[path])]
            self._sweep(old.name if still else "")
            target = self._place / f"{self._size}-{secrets.token_hex(4)}.{PIXELS}"
            try:
                problems = self._write(target, old, still, lacking, workers, progress)
                made = [path for path in lacking if path not in problems]
                if made:
                    order = {path: slot for slot, path in enumerate([*still, *lacking])}
                    slots = {path: order[path] for path in [*still, *made]}
                    new = self._map(target.name, len(order), slots, stamps)
                    self._put_in_place(new)
            except BaseException:
                target.unlink(missing_ok=True)
                raise
            self._sweep(target.name if made else old.name)
        return (new if made else old), problems

    def _write(
        self,
        target: Path,
        old: _Kept,
        still: Sequence[str],
        lacking: Sequence[str],
        workers: int,
        progress: Progress,
    ) -> Mapping[str, str]:
        """Write a file of pixels: first what is kept, then what has to be decoded."""
        bytes_each = self._size**2
        total = (len(still) + len(lacking)) * bytes_each
        if shutil.disk_usage(self._place).free < total + RESERVE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        turn = threading.Lock()
        with target.open("xb") as file:

            def put(slot: int, image: NDArray[np.uint8]) -> None:
                with turn:
                    file.seek(slot * bytes_each)
                    file.write(np.ascontiguousarray(image).data)

            problems = self._decode_all(lacking, len(still), put, workers, progress)
            if len(problems) < len(lacking):
                for slot, path in enumerate(still):
                    put(slot, old.pixels[old.slots[path]])
                file.truncate(total)
                file.flush()
                os.fsync(file.fileno())  # the index must not survive a power cut without it
        return problems

    def _in_memory(
        self, old: _Kept, wanted: Sequence[str], workers: int, progress: Progress
    ) -> tuple[_Kept, Mapping[str, str]]:
        stamps = {path: self._stamp(path) for path in wanted}
        lacking = [path for path in stamps if old.lacks(path, stamps[path])]
        still = [path for path in stamps if not old.lacks(path, stamps[path])]
        order = [*still, *lacking]
        pixels = np.empty((len(order), self._size, self._size), np.uint8)
        problems = self._decode_all(lacking, len(still), pixels.__setitem__, workers, progress)
        for slot, path in enumerate(still):
            pixels[slot] = old.pixels[old.slots[path]]
        slots = {path: slot for slot, path in enumerate(order)}
        return _Kept("", pixels, slots, stamps), problems

    def _decode_all(
        self, paths: Sequence[str], first: int, put: Put, workers: int, progress: Progress
    ) -> Mapping[str, str]:
        """Decode images into the slots from `first` on, and return what could not be, and why.

        Decoding and resizing leave Python's lock, so threads do it: no process has to be started
        and no image copied between processes.
        """

        def one(index: int) -> str:
            try:
                image = self._decode(self._folder / paths[index])
            except UserError as error:
                return str(error)
            put(first + index, image)
            return ""

        problems = {}
        pool = ThreadPoolExecutor(worker_count(workers))
        try:
            with progress.track("Reading images", len(paths), "images") as advance:
                results = pool.map(one, range(len(paths)))
                for path, problem in zip(paths, results, strict=True):
                    if problem:
                        problems[path] = problem
                    advance(1)
        finally:
            pool.shutdown(cancel_futures=True)
        return problems

    def _put_in_place(self, kept: _Kept) -> None:
        images = {
            path: (slot, *stamp)
            for path, slot in kept.slots.items()
            if (stamp := kept.stamps[path]) is not None
        }
        index: dict[str, Any] = {"code": self._code, "file": kept.name, "count": len(kept.pixels)}
        index |= {"images": images}
        write_text(self._index, json.dumps(index | {"check": digest(index)}))

    def _sweep(self, wanted: str) -> None:
        """Remove files of pixels that no index names: of an earlier content or a killed run."""
        for path in [*self._place.glob(f"{self._size}-*"), *self._place.glob(f".{self._size}.*")]:
            if path.name != wanted:
                with contextlib.suppress(OSError):  # Windows keeps what is mapped somewhere
                    path.unlink()


@contextlib.contextmanager
def _one_at_a_time(path: Path, progress: Progress) -> Iterator[None]:
    """Hold a file's lock while the block runs; the system frees it if the process dies."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress.say(f"{path.parent}: waiting for another run that reads the same images")
        lock.acquire(poll_interval=PAUSE)
    except (NotImplementedError, OSError):
        pass  # No locks on this file system: two runs may do the same work, each in its own file.
    try:
        yield
    finally:
        lock.release()
