"""Our PNG (images/png.py) against PyPI's imagecodecs: seconds and bytes, reading and writing.

    pip install --no-deps --target /tmp/imagecodecs imagecodecs
    PYTHONPATH=/tmp/imagecodecs python -m tests.benchmarks.codecs --films 2 --rounds 5

Films with grain at full size and as preprocess writes them, each of 8 and of 16 bits. Every way
works on every image in each round, in turns, on one thread in one process; the least and the
median of the rounds are told, in seconds of the processor, since other work may be running.
Reading has the checksums in it on both sides. What a way writes is decoded again and compared.

The rule: where imagecodecs takes at most 1.3 times our seconds, at a similar size, for reading and
writing at both depths, it replaces images/png.py.
"""

import argparse
import functools
import io
import statistics
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from images import png
from images.files import SPREAD, read_image, write_png
from sources.synthetic.films import render_film
from tests.benchmarks.films import HEIGHT, SEED, nearest_listings
from tests.benchmarks.preprocess import ours as preprocess

INSTALL = (
    "imagecodecs is not installed; run: pip install --no-deps --target /tmp/imagecodecs "
    "imagecodecs, then give PYTHONPATH=/tmp/imagecodecs to this command"
)
OURS = "ours"
WITHIN = 1.3  # times our seconds: the rule
SIMILAR = 1.1  # times our bytes
SMALL = 512  # side of the preprocessed images, the tool's default
DEPTHS = 8, 16


@dataclass(frozen=True)
class Way:
    """A way to write or to read an image.

    Attributes:
        name: What the table calls it.
        function: Takes an image and returns a file's bytes, or the other way round.
        depths: Bits of a grey value that it can do.
    """

    name: str
    function: Callable
    depths: tuple[int, ...] = DEPTHS


def our_write(image):
    """Write as this tool does, to memory."""
    file = io.BytesIO()
    png.write_grey(file, image)
    return file.getvalue()


def our_read(content):
    """Read as this tool does: first the checksums, then the pixels."""
    content = np.frombuffer(content, np.uint8)
    if fault := png.fault(content):
        raise ValueError(fault)
    return png.read_grey(content)


def packed(deflate, image):
    """Write with numpy's UP filter and another's deflate: one IDAT chunk of a zlib stream."""
    rows = np.ascontiguousarray(image, image.dtype.newbyteorder(">")).view(np.uint8)
    filtered = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = png.UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    header = png.HEADER.pack(image.shape[1], image.shape[0], 8 * image.itemsize, 0, 0, 0, 0)
    parts = [png.SIGNATURE]
    for kind, data in ((b"IHDR", header), (b"IDAT", deflate(filtered, level=1)), (png.END, b"")):
        checksum = zlib.crc32(data, zlib.crc32(kind))
        parts += [struct.pack(">I", len(data)), kind, data, struct.pack(">I", checksum)]
    return b"".join(parts)


def writers(codecs):
    """Return our way to write and those of imagecodecs that are quick."""
    found = [Way(OURS, our_write)]
    filters, strategies = codecs.PNG.FILTER, codecs.PNG.STRATEGY
    for strategy in (strategies.DEFAULT, strategies.RLE, strategies.HUFFMAN_ONLY):
        for kind in (filters.SUB, filters.UP):
            encode = functools.partial(
                codecs.png_encode, level=1, strategy=int(strategy), filter=int(kind)
            )
            found.append(Way(f"png, {strategy.name.lower()}, {kind.name.lower()}", encode))
    found.append(Way("png, level 1", functools.partial(codecs.png_encode, level=1)))
    found.append(Way("png, its default", codecs.png_encode))
    found.append(Way("spng, level 1", functools.partial(codecs.spng_encode, level=1)))
    found.append(Way("numpy + zlib-ng", functools.partial(packed, codecs.zlibng_encode)))
    found.append(Way("numpy + libdeflate", functools.partial(packed, codecs.deflate_encode)))
    return found


def readers(codecs):
    """Return our way to read and those of imagecodecs; its spng refuses grey of 16 bits."""
    return [
        Way(OURS, our_read),
        Way("png", codecs.png_decode),
        Way("spng", codecs.spng_decode, depths=(8,)),
    ]


def films_of(count, height):
    """Yield what is measured on: its name and images by depth, films at full size and small."""
    large = {depth: [] for depth in DEPTHS}
    small = {depth: [] for depth in DEPTHS}
    with tempfile.TemporaryDirectory() as name:
        for number in range(count):
            pixels = render_film(nearest_listings()[number].film, height, SEED).pixels
            source, target = Path(name, f"{number}.png"), Path(name, f"{number}-small.png")
            write_png(source, pixels)
            preprocess(source, target, SMALL)
            large[16].append(pixels)
            large[8].append(((pixels.astype(np.uint32) + SPREAD // 2) // SPREAD).astype(np.uint8))
            small[8].append((read_image(target) // SPREAD).astype(np.uint8))
            # Of 16 bits only working images are written, before blur and contrast.
            small[16].append(cv2.resize(pixels, (SMALL, SMALL), interpolation=cv2.INTER_AREA))
    return {"full size": large, "small": small}


def seconds_of(ways, inputs, rounds, repeats):
    """Return, by way, the seconds of the processor for an image in each round."""
    found = {way.name: [] for way in ways}
    for turn in range(-1, rounds):  # the first is not counted: memory is taken for the first time
        for way in ways:
            started = time.process_time()
            for one in inputs * repeats:
                way.function(one)
            if turn >= 0:
                took = time.process_time() - started
                found[way.name].append(took / len(inputs) / repeats)
    return found


def shares(seconds):
    """Return, by way, its least seconds as a share of ours."""
    return {name: min(took) / min(seconds[OURS]) for name, took in seconds.items()}


def show(title, seconds, sizes):
    """Print a table: the least and the median of the seconds, the bytes, and shares of ours."""
    print(f"\n{title:<34}{'least ms':>10}{'median':>9}{'kB':>10}{'time':>8}{'size':>7}")
    for name, share in shares(seconds).items():
        least, middle = 1e3 * min(seconds[name]), 1e3 * statistics.median(seconds[name])
        size = f"{sizes[name] / 1e3:>10.0f}" if name in sizes else " " * 10
        against = f"{sizes[name] / sizes[OURS]:>7.2f}" if name in sizes else ""
        print(f"{name:<34}{least:>10.2f}{middle:>9.2f}{size}{f'x{share:.2f}':>8}{against}")


def one_depth(title, images, codecs, options):
    """Measure images of a kind and depth; return the best share of writing and of reading."""
    depth = 8 * images[0].itemsize
    repeats = max(1, options.pixels // images[0].size)
    ways = [way for way in writers(codecs) if depth in way.depths]
    sizes = {}
    for way in ways:
        written = [way.function(image) for image in images]
        sizes[way.name] = statistics.mean(map(len, written))
        for content, image in zip(written, images, strict=True):
            np.testing.assert_array_equal(codecs.png_decode(content), image, err_msg=way.name)
    seconds = seconds_of(ways, images, options.rounds, repeats)
    show(f"write, {title}, {depth} bits", seconds, sizes)
    similar = {
        name: share
        for name, share in shares(seconds).items()
        if name != OURS and sizes[name] <= SIMILAR * sizes[OURS]
    }
    contents = [our_write(image) for image in images]
    ways = [way for way in readers(codecs) if depth in way.depths]
    for way in ways:
        for content, image in zip(contents, images, strict=True):
            np.testing.assert_array_equal(way.function(content), image, err_msg=way.name)
    seconds = seconds_of(ways, contents, options.rounds, repeats)
    show(f"read, {title}, {depth} bits", seconds, {})
    read = {name: share for name, share in shares(seconds).items() if name != OURS}
    return {"write": best(similar), "read": best(read)}


def best(found):
    """Return the way that takes least, and its share of our seconds."""
    return min(found.items(), key=lambda item: item[1], default=("none of similar size", np.inf))


def conclude(verdicts):
    """Print the best of imagecodecs for each kind of work, and what the rule says."""
    print(f"\n{'the best of imagecodecs at a similar size':<44}{'time of ours':>14}")
    for what, (name, share) in verdicts.items():
        print(f"{what + ': ' + name:<44}{f'x{share:.2f}':>14}")
    slow = [what for what, (_, share) in verdicts.items() if share > WITHIN]
    if slow:
        print(f"images/png.py stays: more than {WITHIN} times its seconds for {'; '.join(slow)}")
    else:
        print(f"imagecodecs may replace images/png.py: within {WITHIN} times its seconds for all")


def main():
    """Draw the films, measure, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--films", type=int, default=2, help="films (default: 2)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--height", type=int, default=HEIGHT, help="of a film in pixels")
    parser.add_argument(
        "--pixels", type=int, default=4_000_000,
        help="small images are done again until a turn has so many pixels",
    )  # fmt: skip
    options = parser.parse_args()
    try:
        import imagecodecs
    except ImportError:
        sys.exit(INSTALL)
    print(f"imagecodecs {imagecodecs.__version__}, {options.films} films, {options.rounds} rounds")
    verdicts = {}
    for title, images in films_of(options.films, options.height).items():
        for depth in DEPTHS:
            found = one_depth(title, images[depth], imagecodecs, options)
            verdicts |= {f"{side}, {title}, {depth} bits": one for side, one in found.items()}
    conclude(verdicts)


if __name__ == "__main__":
    main()
