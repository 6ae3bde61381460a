"""What lies around the breast on a synthetic film: scanner borders, letters, labels, tape."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from sources.synthetic.lesions import Mask
from sources.synthetic.plan import FilmPlan

Pixels = npt.NDArray[np.uint16]
FONT = cv2.FONT_HERSHEY_DUPLEX
CAP_HEIGHT = 22  # pixels of a capital letter of this font at scale 1
# The real films' sizes, as shares of their typical height of 5,000 pixels.
HEIGHTS, ASPECTS = (0.66, 1.42), (0.42, 0.8)


@dataclass(frozen=True)
class Frame:
    """A film's size and the scanner's border around it, in pixels."""

    height: int  # of the whole image
    width: int  # of the whole image
    # Border on the (top, right, bottom, left), each as its width at either end.
    sides: tuple[tuple[int, int], ...]
    white: tuple[bool, ...]  # whether each of them is white; else it is black

    @property
    def inner(self) -> tuple[slice, slice]:
        """Where the film itself lies; a slanted border still covers a part of it."""
        top, right, bottom, left = (min(side) for side in self.sides)
        return slice(top, self.height - bottom), slice(left, self.width - right)

    @property
    def inner_height(self) -> int:
        """Height of the film itself."""
        return self.height - min(self.sides[0]) - min(self.sides[2])

    @property
    def inner_width(self) -> int:
        """Width of the film itself."""
        return self.width - min(self.sides[1]) - min(self.sides[3])

    @property
    def clear(self) -> tuple[slice, slice]:
        """The part of the film that no border covers."""
        top, right, bottom, left = (max(side) for side in self.sides)
        return slice(top, self.height - bottom), slice(left, self.width - right)

    def draw_border(self, pixels: Pixels, random: np.random.Generator) -> Mask:
        """Draw the border in place; return its mask, (H, W), 1 on the border."""
        border = np.zeros(pixels.shape, np.uint8)
        right, bottom = self.width, self.height
        (t0, t1), (r0, r1), (b0, b1), (l0, l1) = self.sides
        corners = (  # fillPoly draws the corners themselves too
            ((0, -1), (right, -1), (right, t1 - 1), (0, t0 - 1)),
            ((right, 0), (right, bottom), (right - r1, bottom), (right - r0, 0)),
            ((right, bottom), (0, bottom), (0, bottom - b1), (right, bottom - b0)),
            ((-1, bottom), (-1, 0), (l0 - 1, 0), (l1 - 1, bottom)),
        )
        for polygon, white, side in zip(corners, self.white, self.sides, strict=True):
            if max(side) == 0:
                continue
            area = np.zeros(pixels.shape, np.uint8)
            cv2.fillPoly(area, [np.array(polygon, np.int32)], 1)
            there = area > 0
            noise = np.abs(random.standard_normal(int(there.sum()), np.float32)) * 250
            noise = np.maximum(noise - 200, 0).astype(np.uint16)
            pixels[there] = 65535 - noise if white else noise
            border |= area
        return border


def plan_frame(random: np.random.Generator, height: int, laterality: str) -> Frame:
    """Choose a film's size and border.

    Args:
        random: The film's own random numbers for this.
        height: Typical height of a film in pixels.
        laterality: The chest wall's side gets a narrow border, as on most films.
    """
    tall = round(height * float(np.clip(random.normal(0.98, 0.12), *HEIGHTS)))
    wide = round(tall * float(np.clip(random.normal(0.6, 0.07), *ASPECTS)))
    chest = 3 if laterality == "LEFT" else 1
    sides = []
    for index in range(4):
        share = random.choice([0.0, random.uniform(0.003, 0.012), random.uniform(0.012, 0.045)])
        share = min(share, 0.012) if index == chest else share
        slant = random.uniform(0, 0.006) if share else 0.0
        ends = [round(share * tall), round((share + slant) * tall)]
        sides.append((ends[0], ends[1]) if random.random() < 0.5 else (ends[1], ends[0]))
    white = tuple(bool(value) for value in random.random(4) < 0.5)
    if not any(max(side) for side in sides):  # the scanner leaves at least a line
        line = max(1, round(0.004 * tall))
        sides[0] = (line, line)
    return Frame(tall, wide, tuple(sides), white)


def draw_marks(
    pixels: Pixels, breast: Mask, frame: Frame, plan: FilmPlan, random: np.random.Generator
) -> Mask:
    """Draw letters, a label and tape in place, off the breast where there is room.

    Args:
        pixels: The film, (H, W) uint16, before grain.
        breast: Its breast mask, (H, W).
        frame: Its size and border.
        plan: Gives the side and the view that the letters name.
        random: The film's own random numbers for this.

    Returns:
        The mask of all marks, (H, W), 1 on a mark.
    """
    marks = np.zeros(pixels.shape, np.uint8)
    if random.random() < 0.35:
        _tape(pixels, breast, marks, frame, random)
    if random.random() < 0.6:
        _put(pixels, breast, marks, frame, _label(frame, random), random)
    side = plan.laterality[0]
    texts = f"{side} {plan.view}", f"{side}{plan.view}", side
    text = texts[int(random.choice(3, p=[0.5, 0.3, 0.2]))]
    _put(pixels, breast, marks, frame, _letters(text, frame, random), random)
    if text == side:
        _put(pixels, breast, marks, frame, _letters(plan.view, frame, random), random)
    return marks


def _letters(text: str, frame: Frame, random: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return lead letters as a patch of grey values, NaN where the film shows through."""
    tall = random.uniform(0.022, 0.04) * frame.height
    scale = tall / CAP_HEIGHT
    thickness = max(1, round(tall / random.uniform(5, 9)))
    (wide, high), below = cv2.getTextSize(text, FONT, scale, thickness)
    canvas = np.zeros((high + below + 2 * thickness, wide + 2 * thickness), np.uint8)
    origin = thickness, high + thickness
    cv2.putText(canvas, text, origin, FONT, scale, 255, thickness, cv2.LINE_AA)
    bright = random.uniform(0.75, 1.0)
    patch = np.where(canvas > 40, canvas.astype(np.float32) / 255 * bright, np.nan)
    if random.random() < 0.25:  # a plate around them
        patch = np.where(np.isnan(patch), np.float32(random.uniform(0.18, 0.35)), patch)
    turns = random.choice(4, p=[0.7, 0.13, 0.04, 0.13])
    return np.rot90(patch, turns).astype(np.float32)


def _label(frame: Frame, random: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return an identification label: a bright plate with lines of print."""
    high = round(random.uniform(0.04, 0.075) * frame.height)
    wide = round(high * random.uniform(1.5, 2.4))
    bright, dark = random.uniform(0.6, 0.97), random.uniform(0.1, 0.3)
    ink = np.zeros((high, wide), np.uint8)
    lines = int(random.integers(2, 5))
    step = high / (lines + 0.6)
    for index in range(lines):
        print_ = "".join(random.choice(list("ABCDEFGHKLMNPRSTUVX0123456789 -/"), 12))
        scale = 0.6 * step / CAP_HEIGHT
        place = round(0.05 * wide), round((index + 0.95) * step)
        thickness = max(1, round(step / 14))
        cv2.putText(ink, print_, place, FONT, scale, 255, thickness, cv2.LINE_AA)
    patch = bright + (dark - bright) * ink.astype(np.float32) / 255
    return np.rot90(patch, random.choice(4, p=[0.6, 0.2, 0.0, 0.2]))


def _put(
    pixels: Pixels,
    breast: Mask,
    marks: Mask,
    frame: Frame,
    patch: npt.NDArray[np.float32],
    random: np.random.Generator,
) -> None:
    """Put a patch where it covers neither the breast nor another mark; leave it out elsewhere."""
    clear_rows, clear_columns = frame.clear
    high, wide = patch.shape
    bottom, right = clear_rows.stop - high, clear_columns.stop - wide
    if bottom <= clear_rows.start or right <= clear_columns.start:
        return
    upper = (clear_rows.start + bottom + 1) // 2
    for attempt in range(60):  # the upper half is tried first: letters name the axillary side
        y = int(random.integers(clear_rows.start, upper if attempt < 30 else bottom))
        x = int(random.integers(clear_columns.start, right))
        there = np.s_[y : y + high, x : x + wide]
        if breast[there].any() or marks[there].any():
            continue
        shown = ~np.isnan(patch)
        pixels[there][shown] = (patch[shown] * 65535).astype(np.uint16)
        marks[there][shown] = 1
        return


def _tape(
    pixels: Pixels, breast: Mask, marks: Mask, frame: Frame, random: np.random.Generator
) -> None:
    """Lay a strip of tape along an edge away from the chest wall; it brightens what it covers."""
    area = np.zeros(pixels.shape, np.uint8)
    across = random.uniform(0.02, 0.05) * frame.height
    long = random.uniform(0.3, 0.9)
    lateral = frame.width if breast[:, : frame.width // 2].sum() > breast.sum() / 2 else 0
    if random.random() < 0.5:
        centre = abs(lateral - across), random.uniform(0.2, 0.8) * frame.height
        size, turn = (across, long * frame.height), random.uniform(-3, 3)
    else:
        edge = random.choice([0.6 * across, frame.height - 0.6 * across])
        centre, size = (random.uniform(0.3, 0.7) * frame.width, edge), (long * frame.width, across)
        turn = random.uniform(-3, 3)
    corners = cv2.boxPoints((centre, size, turn)).astype(np.int32)
    cv2.fillConvexPoly(area, corners, 1)
    there = (area > 0) & (breast == 0)
    pixels[there] = np.clip(pixels[there] + random.uniform(0.1, 0.3) * 65535, 0, 65535)
    marks[there] = 1
