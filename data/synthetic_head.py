"""Head, face and hair of a synthetic person."""

from __future__ import annotations

import numpy as np

from data.synthetic_parts import Builder


def add_head(b: Builder) -> None:
    """Neck, skull, jaw, nose, ears and hair."""
    _skull(b)
    _hair(b)


def _skull(b: Builder) -> None:
    at = b.at
    base, skull = at("neck", "chest", (0, -0.012, -0.004)), at("skull", "head", (0, 0.01, 0))
    width = 0.027 if b.who.woman else 0.032
    b.add(base, skull, (width + 0.004, width), "chest", "neck", "head", "chest", offset=0.205)
    shapes = [
        ((0, 0.004, -0.004), 0.068, (0.76, 1.0, 0.92)),
        ((0, -0.034, 0.014), 0.044, (0.86, 0.86, 0.95)),
    ]
    for offset, radius, squash in shapes:
        centre = at("head", "head", offset)
        ends, radii = (centre, centre), (radius, radius)
        b.add(*ends, radii, "head", "head", "head", "head", squash=squash)
    bridge, tip = at("head", "head", (0, 0.004, 0.056)), at("head", "head", (0, -0.014, 0.063))
    b.add(bridge, tip, (0.005, 0.0075), "head", "head", "head", "head")
    for sign in (-1, 1):
        ear = at("head", "head", (sign * 0.051, -0.006, -0.006))
        b.add(ear, ear, (0.014, 0.014), "head", "head", "head", "head", squash=(0.5, 1, 0.7))


def _cap(b: Builder, radius: float, tilt: float, level: float) -> None:
    """Hair over the skull, cut by a plane from the forehead down to the nape."""
    frame = b.frames["head"]
    normal = frame @ np.array([b.who.parting, -np.cos(tilt), np.sin(tilt)])
    centre = b.at("head", "head", (0, 0.008, -0.007))
    cut = (normal, float(normal @ b.at("head", "head", (0, level, 0))))
    more = {"squash": (0.8, 1.0, 0.93), "clips": (cut,)}
    b.add(centre, centre, (radius, radius), "head", "hair", "head", "head", **more)


def _hair(b: Builder) -> None:
    style = b.who.hair
    if style == "bald":
        return
    radius = {"cropped": 0.0695, "curly": 0.088, "bob": 0.077, "long": 0.076}.get(style, 0.0735)
    _cap(b, radius, 0.68, 0.006)
    if b.who.fringe:
        _cap(b, radius, 0.42, 0.006)
    at = b.at
    front = b.frames["head"][:, 2]
    cut = (front, float(front @ at("head", "head", (0, 0, 0.012))))
    if style in ("bob", "long", "curly"):
        low = {"bob": (0, -0.065, -0.02), "curly": (0, -0.05, -0.02)}.get(style)
        end = at("head", "head", low) if low else at("chest", "chest", (0, 0.0, -0.042))
        ends = (at("head", "head", (0, -0.005, -0.012)), end)
        radii = (0.064, 0.066 if style == "long" else 0.07)
        more = {"squash": (1.0, 1.0, 0.62 if style == "long" else 0.8), "clips": (cut,)}
        b.add(*ends, radii, "head", "hair", "head", "head", **more)
    elif style == "ponytail":
        path = [(0, 0.03, -0.068), (0, -0.04, -0.1), (0, -0.13, -0.088)]
        for i, radii in enumerate(((0.015, 0.024), (0.024, 0.007))):
            ends = at("head", "head", path[i]), at("head", "head", path[i + 1])
            b.add(*ends, radii, "head", "hair", "head", "head")
    elif style == "bun":
        bun = at("head", "head", (0, 0.068, -0.045))
        b.add(bun, bun, (0.032, 0.032), "head", "hair", "head", "head")
