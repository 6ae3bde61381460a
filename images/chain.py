"""The chain of steps from a film to what a network sees, for the stage and for prediction.

The head of the chain reads the whole film and ends with the working image, still of 16 bits; the
tail (blur, contrast, side) works on that alone, so that another contrast does not mean to read the
films again.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from images import borders, breast, steps
from images.frame import CENTRE, Box, Frame
from images.steps import Grey, Mask
from pipeline.errors import UserError
from pipeline.stages.data import Preprocess

BLURS = {"gaussian": steps.blur, "bilateral": steps.bilateral, "median": steps.median}
Step = tuple[str, Grey]


@dataclass(frozen=True)
class WorkingImage:
    """The working image, before blur and contrast."""

    image: Grey  # (H, W) uint16 in [0, 65535], of the working size
    inside: Mask  # (H, W) bool: the breast; everything, where it was not sought
    frame: Frame  # where the image lies in its film
    side: str  # on which side of the image the chest wall is; CENTRE for a part of one


def preprocess_image(
    image: Grey, options: Preprocess, unit: str = "mammogram"
) -> tuple[NDArray[np.uint8], Frame]:
    """Run the chain that the options switch on.

    Args:
        image: (H, W) uint16 in [0, 65535], as `images.files.read_image` gives it.
        options: Of the stage; paths, seed and augmentation do not matter here.
        unit: "mammogram", or "crop" or "patch" for a part of one, which has no borders.

    Returns:
        uint8 in [0, 255], (size, size), or of the cropped film's size where the options' size is
        0; and its path in `image`.

    Raises:
        UserError: There is no breast in the image.
    """
    return finish(prepare(image, options, unit), options)


def preprocessing_steps(image: Grey, options: Preprocess, unit: str) -> list[Step]:
    """Return the name and the image of each step, from the original to the result.

    Raises:
        UserError: There is no breast in the image.
    """
    *before, (last, prepared) = _head(image, options, unit)
    shown = [(name, seen.image) for name, seen in before] + [(last, prepared.image)]
    return [("original", image), *shown, *_tail(prepared, options)]


def prepare(image: Grey, options: Preprocess, unit: str) -> WorkingImage:
    """Run the head: crop, annotation removal, resize.

    Raises:
        UserError: There is no breast in the image.
    """
    *_, (_, prepared) = _head(image, options, unit)
    return prepared


def finish(prepared: WorkingImage, options: Preprocess) -> tuple[NDArray[np.uint8], Frame]:
    """Run the tail: blur, CLAHE, turn to one side, 8 bits."""
    last = deque(_tail(prepared, options), maxlen=1)  # the others need not be kept in memory
    # Nothing of the tail may be switched on: then the working image is the result.
    image = last[0][1] if last else prepared.image
    frame = prepared.frame.mirror() if _is_turned(prepared, options) else prepared.frame
    return steps.to_uint8(image), frame


def _head(image: Grey, options: Preprocess, unit: str) -> Iterator[tuple[str, WorkingImage]]:
    """Yield what the head has made, step by step.

    A film is shrunk by a whole factor as soon as it is cropped, to no less than the working size
    and than what finding the breast needs, and to the working size before the blur: grain, kernel
    and tiles then mean the same on films of any size, and each step costs a fraction.
    """
    film = unit == "mammogram"
    box = _film_box(image, options) if film else Box(0, 0, image.shape[1], image.shape[0])
    turns = steps.quarter_turns(box.of(image)) if film and options.upright else 0
    if not turns:
        yield from _upright_head(image, box, options, film)
        return
    shape = image.shape
    for name, seen in _upright_head(
        np.ascontiguousarray(np.rot90(image, turns)), box.turned(turns, shape), options, film
    ):
        yield name, replace(seen, frame=seen.frame.of_turned(turns, shape))


def _upright_head(
    image: Grey, box: Box, options: Preprocess, film: bool
) -> Iterator[tuple[str, WorkingImage]]:
    """Yield the steps of `_head` on a film that lies as it should, with the frame in it."""
    side = CENTRE
    result = steps.reduce_by_area(box.of(image), factor := _factor(box, options.size))
    box = Box(box.x, box.y, result.shape[1] * factor, result.shape[0] * factor)
    inside = np.ones(result.shape, np.bool_)
    if film and options.crop != "none":
        yield "borders cropped", WorkingImage(result, inside, Frame.of_box(box), side)
    if film and options.annotations:
        inside = breast.breast_mask(result)
        if not inside.any():
            raise UserError("no breast can be found in it")
        result = steps.remove_annotations(result, inside)
        yield "annotations removed", WorkingImage(result, inside, Frame.of_box(box), side)
    side = steps.chest_wall_side(result) if film else CENTRE
    if not options.size:
        yield "full size", WorkingImage(result, inside, Frame.of_box(box), side)
        return
    result, _ = steps.resize_and_pad(result, options.size, side)
    shown, _ = steps.resize_and_pad(inside.astype(np.uint16), options.size, side)
    yield "resized", WorkingImage(result, shown > 0, Frame.around(box, options.size, side), side)


def _tail(prepared: WorkingImage, options: Preprocess) -> Iterator[Step]:
    result = prepared.image
    if options.blur != "none":
        result = BLURS[options.blur](result, options.blur_kernel)
        yield "blurred", result
    if options.clahe:
        clip, tiles = options.clahe_clip, options.clahe_tiles
        result = steps.clahe(result, prepared.inside, clip, tiles)
        yield "contrast enhanced", result
    if _is_turned(prepared, options):
        yield f"turned to the {options.side}", steps.flip(result)


def _is_turned(prepared: WorkingImage, options: Preprocess) -> bool:
    return options.side not in ("as-is", prepared.side) and prepared.side != CENTRE


def _film_box(image: Grey, options: Preprocess) -> Box:
    if options.crop == "auto":
        return borders.find_border_box(image)
    return borders.fixed_border_box(image.shape, options.margin * (options.crop == "fixed"))


def _factor(box: Box, size: int) -> int:
    if not size:
        return 1
    least = max(size, breast.DETAIL)
    return max(1, min(max(box.width, box.height) // least, box.width, box.height))
