"""Films for the tests of prediction: a synthetic collection that was organised and trained on."""

import cv2
import numpy as np


def chest_radiograph(seed):
    """Return a drawn chest X-ray, (640, 600) uint8: two lungs, spine, heart, ribs."""
    random = np.random.default_rng(seed)
    height, width = 640, 600
    y, x = np.mgrid[:height, :width].astype(float)
    image = np.full((height, width), 150.0)
    for centre in (0.3 * width, 0.7 * width):
        across, down = (x - centre) / (0.15 * width), (y - 0.45 * height) / (0.3 * height)
        image -= 90 * np.exp(-(across**4 + down**4))
    image += 50 * np.exp(-(((x - 0.5 * width) / (0.05 * width)) ** 2))
    heart = ((x - 0.55 * width) / (0.15 * width)) ** 2 + (
        (y - 0.62 * height) / (0.12 * height)
    ) ** 2
    image += 40 * np.exp(-heart)
    for rib in range(9):
        bent = y - (0.1 + 0.08 * rib) * height - 30 * np.sin(x / width * np.pi)
        image += 12 * np.exp(-((bent / 6) ** 2))
    return np.clip(image + random.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


def photograph(seed):
    """Return what a camera might see, (480, 640, 3) uint8: sky, ground, round things, texture."""
    random = np.random.default_rng(seed)
    y = np.linspace(0, 1, 480)[:, None, None]
    sky, ground = random.integers(60, 250, 3), random.integers(20, 180, 3)
    image = np.repeat(np.where(y < 0.5, sky * (1 - y / 3), ground * y), 640, axis=1)
    for _ in range(8):
        centre = int(random.integers(640)), int(random.integers(480))
        colour = random.integers(0, 255, 3).tolist()
        cv2.circle(image, centre, int(random.integers(20, 90)), colour, -1)
    texture = cv2.GaussianBlur(random.normal(0, 25, image.shape), (0, 0), 2)
    return np.clip(image + 4 * texture, 0, 255).astype(np.uint8)


def unlike(films):
    """Return 20 images by name that are no whole film, from (H, W) uint16 films at hand."""
    random = np.random.default_rng(3)
    found = {}
    for number in range(4):
        film = films[number % len(films)]
        height, width = film.shape
        on_left = film[:, : width // 3].mean() > film[:, -width // 3 :].mean()
        upright = film if on_left else film[:, ::-1]
        top, left = height // 3, width // 10
        found[f"crop{number}"] = upright[top : top + height // 4, left : left + width // 4].copy()
        found[f"inverted{number}"] = np.uint16(65535) - film
        found[f"chest{number}"] = chest_radiograph(number)
        colour = photograph(number)
        found[f"photo{number}"] = colour if number % 2 else cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY)
    for number in range(3):
        found[f"noise{number}"] = random.integers(0, 256, (600 + 90 * number, 500), dtype=np.uint8)
    smooth = cv2.GaussianBlur(random.normal(size=(600, 400)), (0, 0), 25)
    found["clouds"] = cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    return found


def unlike_in_one_way(film):
    """Return images by name that differ in one way from a film, (H, W) uint16, its breast left.

    Nearly all else of each is as in a film, so a mean over many figures would not show it.
    """
    dark = cv2.GaussianBlur(film, (0, 0), 3) < film.max() * 0.12
    return {
        "digital": np.where(dark, 0, film).astype(np.uint16),
        "turned left": np.rot90(film).copy(),
        "turned right": np.rot90(film, 3).copy(),
    }
