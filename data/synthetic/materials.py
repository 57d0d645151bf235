"""Procedural materials of turned objects: colours that are fixed to the object, not to the view."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data.synthetic.solids import Material

Colour = Sequence[float]  # red, green, blue in [0, 1]


def plain(colour: Colour) -> Material:
    """One colour."""
    colour = np.asarray(colour, dtype=np.float64)
    return lambda local, unit: np.broadcast_to(colour, local.shape)


def wood(colour: Colour, seed: float, grain: float = 0.16) -> Material:
    """Grain along the longest axis of the part: rings of a slightly bent trunk."""
    colour = np.asarray(colour, dtype=np.float64)

    def material(local: np.ndarray, unit: np.ndarray) -> np.ndarray:
        sizes = np.abs(local).sum(axis=0) / np.maximum(np.abs(unit).sum(axis=0), 1e-9)
        long = int(np.argmax(sizes))
        a, b = (local[:, i] for i in range(3) if i != long)
        along = local[:, long]
        r = np.hypot(a + 0.13 + 0.012 * np.sin(9 * along + seed), 0.8 * b + 0.05)
        ring = np.sin(2 * np.pi * 55.0 * r + 1.3 * np.sin(23 * along + 3 * seed))
        fine = np.sin(430 * a + 310 * b + 5 * np.sin(31 * along + seed))
        return colour * (1 + grain * (0.75 * ring + 0.25 * fine))[:, None]

    return material


def stripes(colour: Colour, accent: Colour, width: float, axis: int = 0) -> Material:
    """Stripes across one axis of the part; ``width`` is that of a pair of stripes."""
    colour, accent = np.asarray(colour), np.asarray(accent)

    def material(local: np.ndarray, unit: np.ndarray) -> np.ndarray:
        on = np.floor(2 * local[:, axis] / width + 0.5) % 2 == 1
        return np.where(on[:, None], accent, colour)

    return material


def checks(
    colour: Colour, accent: Colour, width: float, axes: tuple[int, int] = (0, 2)
) -> Material:
    """A woven check: both directions tint the ground half."""
    colour, accent = np.asarray(colour), np.asarray(accent)

    def material(local: np.ndarray, unit: np.ndarray) -> np.ndarray:
        on = sum(np.floor(2 * local[:, axis] / width + 0.5) % 2 for axis in axes) / 2
        return colour + (accent - colour) * on[:, None]

    return material


def dots(colour: Colour, accent: Colour, width: float, axes: tuple[int, int] = (0, 2)) -> Material:
    """Dots on a square lattice."""
    colour, accent = np.asarray(colour), np.asarray(accent)

    def material(local: np.ndarray, unit: np.ndarray) -> np.ndarray:
        a, b = (local[:, axis] / width for axis in axes)
        on = (a - np.round(a)) ** 2 + (b - np.round(b)) ** 2 < 0.1
        return np.where(on[:, None], accent, colour)

    return material


def hair(colour: Colour, seed: float, strands: float = 26.0, depth: float = 0.16) -> Material:
    """Strands that fall from the crown."""
    colour = np.asarray(colour, dtype=np.float64)

    def material(local: np.ndarray, unit: np.ndarray) -> np.ndarray:
        around = np.arctan2(unit[:, 0], unit[:, 2] + 1e-9)
        wave = np.sin(strands * around + 2.2 * np.sin(5 * unit[:, 1] + seed))
        fine = np.sin(2.7 * strands * around + 4 * np.sin(7 * unit[:, 1] + 2 * seed))
        return colour * (1 + depth * (0.65 * wave + 0.35 * fine))[:, None]

    return material


def eye(iris: Colour) -> Material:
    """White ball with iris and pupil toward +z; ``unit`` is in radii of the eyeball."""
    iris = np.asarray(iris, dtype=np.float64)

    def material(local: np.ndarray, unit: np.ndarray) -> np.ndarray:
        off = np.hypot(unit[:, 0], unit[:, 1]) + 10 * (unit[:, 2] < 0)
        colour = np.where((off < 0.52)[:, None], iris, np.array([0.96, 0.95, 0.94]))
        return np.where((off < 0.26)[:, None], 0.05, colour)

    return material


def skin(colour: Colour, seed: float, freckles: float = 0.0) -> Material:
    """Flesh, a little redder at the front of the cheeks; ``freckles`` from 0 to 1."""
    colour = np.asarray(colour, dtype=np.float64)

    def material(local: np.ndarray, unit: np.ndarray) -> np.ndarray:
        a, b = local[:, 0] * 90, local[:, 1] * 90
        spot = np.sin(a + seed) * np.sin(1.3 * b + 2 * seed) * np.sin(0.7 * (a - b))
        dark = 1 - 0.22 * freckles * (spot > 0.55) * (unit[:, 2] > 0.3)
        return colour * dark[:, None]

    return material
