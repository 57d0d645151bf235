"""Backgrounds behind synthetic people: bright studio, coloured studio, street, room, a mixture."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import cv2
import numpy as np


def _gradient(size: tuple[int, int], top, bottom, side: float) -> np.ndarray:
    """A smooth (H, W, 3) wall, ``side`` brighter towards one edge."""
    h, w = size
    y = np.linspace(0.0, 1.0, h, dtype=np.float32)[:, None, None]
    x = np.linspace(-1.0, 1.0, w, dtype=np.float32)[None, :, None]
    wall = np.asarray(top, np.float32) * (1 - y) + np.asarray(bottom, np.float32) * y
    return np.clip(wall + side * x, 0.0, 1.0)


def light(rng: np.random.Generator, size: tuple[int, int], horizon: float) -> np.ndarray:
    """A near-white studio with a faint gradient."""
    tone = rng.uniform(0.91, 0.96) + rng.uniform(-0.006, 0.006, 3)
    return _gradient(size, tone, tone - rng.uniform(0.01, 0.05), rng.uniform(-0.015, 0.015))


def studio(rng: np.random.Generator, size: tuple[int, int], horizon: float) -> np.ndarray:
    """A softly coloured paper roll with a vignette."""
    tone = np.array(
        colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.0, 0.18), rng.uniform(0.7, 0.9))
    )
    wall = _gradient(size, tone * 0.96, tone, rng.uniform(-0.04, 0.04))
    h, w = size
    y, x = np.linspace(-1, 1, h, dtype=np.float32), np.linspace(-1, 1, w, dtype=np.float32)
    return wall * (1.0 - 0.1 * (y[:, None] ** 2 + x[None] ** 2))[..., None]


def street(rng: np.random.Generator, size: tuple[int, int], horizon: float) -> np.ndarray:
    """Blurred house fronts above a pavement."""
    h, w = size
    picture = _gradient(size, (0.72, 0.78, 0.84), (0.66, 0.68, 0.7), 0.0)
    line = int(np.clip(horizon, 0.3, 0.98) * h)
    left = -int(rng.integers(0, w // 3))
    while left < w:
        width = int(w * rng.uniform(0.25, 0.6))
        hue, value = rng.uniform(0.02, 0.14), rng.uniform(0.5, 0.8)
        front = np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.05, 0.3), value), np.float32)
        columns = slice(max(left, 0), max(left + width, 0))
        picture[int(h * rng.uniform(0.0, 0.2)) : line, columns] = front
        pane, step = max(width // 7, 2), max(width // 4, 4)
        for top in range(int(h * 0.22), line - h // 6, step * 2):
            for x in range(max(left, 0) + pane // 2, min(left + width - pane, w), step):
                picture[top : top + int(pane * 1.7), x : x + pane] = front * rng.uniform(0.45, 0.7)
        left += width
    ground = rng.uniform(0.5, 0.68)
    picture[line:] = ground
    blur = max(h / 110.0, 0.5)
    return cv2.GaussianBlur(picture, (0, 0), blur)


def room(rng: np.random.Generator, size: tuple[int, int], horizon: float) -> np.ndarray:
    """A wall with a skirting board, a picture frame and a floor."""
    h, w = size
    tone = np.array(
        colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.03, 0.16), rng.uniform(0.76, 0.92))
    )
    picture = _gradient(size, tone, tone * 0.95, rng.uniform(-0.03, 0.03))
    line = int(np.clip(horizon - 0.06, 0.3, 0.98) * h)
    floor = np.array(colorsys.hsv_to_rgb(rng.uniform(0.05, 0.1), 0.35, rng.uniform(0.45, 0.7)))
    picture[line:] = floor
    picture[line - max(h // 50, 1) : line] = tone * 1.05
    x, y = int(w * rng.uniform(-0.1, 0.8)), int(h * rng.uniform(0.05, 0.25))
    height, width = int(h * rng.uniform(0.12, 0.25)), int(w * rng.uniform(0.15, 0.35))
    edge = max(h // 100, 1)
    picture[y : y + height, max(x, 0) : x + width] = tone * 0.5
    inside = np.array(colorsys.hsv_to_rgb(rng.random(), 0.3, 0.7))
    picture[y + edge : y + height - edge, max(x + edge, 0) : max(x + width - edge, 0)] = inside
    return cv2.GaussianBlur(
        np.clip(picture, 0.0, 1.0).astype(np.float32), (0, 0), max(h / 160.0, 0.4)
    )


def varied(rng: np.random.Generator, size: tuple[int, int], horizon: float) -> np.ndarray:
    """One of the other backgrounds, a new draw for each picture."""
    return (light, studio, street, room)[rng.integers(4)](rng, size, horizon)


BACKGROUNDS: dict[str, Callable[[np.random.Generator, tuple[int, int], float], np.ndarray]] = {
    "light": light,
    "studio": studio,
    "street": street,
    "room": room,
    "varied": varied,
}
