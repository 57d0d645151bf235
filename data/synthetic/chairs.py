"""Synthetic chairs: seat, back, legs and arms in many styles, as solids to be turned.

Metres; the chair stands on y = 0 and looks along +z.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

from data.synthetic import solids
from data.synthetic.solids import BALL, BOX, Material, Scene, Solid, rod, rotation, solid

# Chances of kitchen, dining, arm and office chairs; a stranger should recognise each.
CHANCES = (0.4, 0.24, 0.18, 0.18)
BACKS = ("panel", "ladder", "slats", "spindles", "oval", "frame")
WOODS = (
    (0.72, 0.52, 0.33), (0.55, 0.36, 0.21), (0.40, 0.24, 0.14), (0.83, 0.68, 0.47),
    (0.28, 0.17, 0.11), (0.62, 0.30, 0.17),
)  # fmt: skip
PAINTS = (
    (0.92, 0.91, 0.88), (0.13, 0.13, 0.14), (0.20, 0.38, 0.62), (0.66, 0.16, 0.14),
    (0.23, 0.46, 0.30), (0.88, 0.68, 0.18), (0.47, 0.62, 0.62), (0.85, 0.48, 0.44),
)  # fmt: skip
FABRICS = (
    (0.72, 0.20, 0.18), (0.17, 0.30, 0.52), (0.27, 0.44, 0.27), (0.78, 0.66, 0.48),
    (0.36, 0.34, 0.36), (0.55, 0.30, 0.45), (0.85, 0.60, 0.20), (0.18, 0.42, 0.46),
    (0.40, 0.25, 0.18), (0.80, 0.78, 0.74),
)  # fmt: skip
METAL = (0.62, 0.63, 0.66)


@dataclass
class _Draft:
    """Sizes and materials of the chair that is being built."""

    rng: np.random.Generator
    width: float
    depth: float
    seat: float  # height of the seat's top
    frame: Material  # legs, back frame, arms
    fabric: Material  # cushions
    shine: float
    solids: list[Solid]

    def add(self, kind: str, centre, half, material: Material, turn=None, shine=0.0) -> None:
        self.solids.append(solid(kind, centre, half, material, turn, shine=shine))

    def bar(self, start, end, radius: float, square: bool, taper: float = 0.0) -> None:
        kind = {"kind": BOX} if square else {"taper": taper}
        self.solids.append(rod(start, end, radius, self.frame, shine=self.shine, **kind))


def sample_chair(rng: np.random.Generator) -> Scene:
    """A chair of a random style, size and finish, framed so that it never leaves the picture."""
    styles = (_kitchen, _dining, _armchair, _office)
    style = styles[rng.choice(len(styles), p=CHANCES)]
    draft = _Draft(
        rng, rng.uniform(0.40, 0.50), rng.uniform(0.39, 0.47), rng.uniform(0.42, 0.49),
        *_finish(rng, style is _office), solids=[],
    )  # fmt: skip
    style(draft)
    parts = tuple(draft.solids)
    low, high = bounds(parts)
    middle = (0.0, (low[1] + high[1]) / 2, (low[2] + high[2]) / 2)
    around = np.hypot(max(-low[0], high[0]), (high[2] - low[2]) / 2)
    tall = (high[1] - low[1]) / 2 * np.cos(np.deg2rad(20)) + around * np.sin(np.deg2rad(20))
    return Scene(parts, middle, float(2 * max(around, tall, (high[1] - low[1]) / 2) * 1.04))


def bounds(solids: tuple[Solid, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest corner (3,) of a box around all solids."""
    reach = np.stack([np.abs(s.axes).sum(axis=1) for s in solids])
    centres = np.stack([s.centre for s in solids])
    return (centres - reach).min(axis=0), (centres + reach).max(axis=0)


def _finish(rng: np.random.Generator, office: bool) -> tuple[Material, Material, float]:
    """Material of the frame and of the cushions, and how much the frame shines."""
    seed, tint = rng.uniform(0, 6), rng.uniform(0.9, 1.1)
    if office or rng.random() < 0.12:
        dark = rng.random() < 0.5
        frame, shine = solids.plain((0.16, 0.16, 0.17) if dark else METAL), 0.35
    elif rng.random() < 0.62:
        colour = np.array(WOODS[rng.integers(len(WOODS))]) * tint
        frame, shine = solids.wood(colour, seed, rng.uniform(0.1, 0.2)), 0.08
    else:
        frame, shine = solids.plain(PAINTS[rng.integers(len(PAINTS))]), 0.15
    colour, accent = np.array(FABRICS)[rng.choice(len(FABRICS), 2, replace=False)]
    width, patterns = rng.uniform(0.09, 0.16), (None, solids.stripes, solids.checks, solids.dots)
    pattern = patterns[rng.choice(4, p=[0.52, 0.2, 0.16, 0.12])]
    return frame, pattern(colour, accent, width) if pattern else solids.plain(colour), shine


def _legs(c: _Draft, top: float, splay: float, radius: float, square: bool, raked: float) -> None:
    """Four legs below the seat, perhaps joined by stretchers."""
    x, z = c.width / 2 - radius * 1.3, c.depth / 2 - radius * 1.3
    legs = []
    for sx, sz in product((-1, 1), (-1, 1)):
        foot = np.array([sx * (x + splay), 0.0, sz * z + (splay if sz > 0 else -splay - raked)])
        legs.append((foot, np.array([sx * x, top, sz * z])))
        c.bar(*legs[-1], radius, square, -0.28)
    joined = c.rng.choice([0, 2, 4], p=[0.35, 0.35, 0.3])  # the sides, then also front and back
    if joined:
        share = c.rng.uniform(0.25, 0.5)
        places = [foot * (1 - share) + high * share for foot, high in legs]
        for a, b in ((0, 1), (2, 3), (0, 2), (1, 3))[:joined]:
            c.bar(places[a], places[b], radius * 0.6, square)


def _cushion(c: _Draft, centre, half, turn: np.ndarray | None = None) -> None:
    """A pillow: a ball that bulges along its thinnest axis, cut at the sides of the box."""
    axes = (np.eye(3) if turn is None else turn) * np.asarray(half, dtype=np.float64)
    inverse, cuts = np.linalg.inv(axes), []
    thin = int(np.argmin(half))
    for side, sign in product(np.delete(inverse, thin, axis=0), (1, -1)):
        cuts.append((tuple(sign * side), float(sign * side @ np.asarray(centre)) + 1.0))
    grow = np.where(np.arange(3) == thin, 1.05, 1.48)
    c.solids.append(Solid(BALL, np.asarray(centre, float), axes * grow, c.fabric, cuts=tuple(cuts)))


def _back(c: _Draft, kind: str, tall: float, tilt: float) -> None:
    """Two posts and what is between them; the back leans away."""
    z, lean = -c.depth / 2 + 0.02, np.tan(np.deg2rad(tilt))
    base = c.seat - 0.04
    radius, square = c.rng.uniform(0.014, 0.021), bool(c.rng.random() < 0.5)

    def at(x: float, up: float) -> np.ndarray:  # up: from 0 at the seat to 1 at the top
        return np.array([x, base + up * tall, z - up * tall * lean])

    x = c.width / 2 - radius * 1.2
    if kind != "oval":
        for sx in (-1, 1):
            c.bar(at(sx * x, 0), at(sx * x, 1), radius, square, 0.12)
    turn = rotation("x", -tilt)

    def board(low: float, high: float, half_width: float, thick=0.011) -> None:
        half = (half_width, (high - low) * tall / 2 / np.cos(np.deg2rad(tilt)), thick)
        c.add(BOX, at(0, (low + high) / 2), half, c.frame, turn, c.shine)

    if kind == "panel":
        board(0.22, 0.97, x)
    elif kind == "ladder":
        for up in np.linspace(0.35, 0.93, int(c.rng.integers(2, 5))):
            board(up - 0.055, up + 0.055, x)
    elif kind in ("slats", "spindles"):
        board(0.88, 1.0, x + radius, 0.016)
        board(0.16, 0.24, x)
        count = int(c.rng.integers(3, 7))
        for sx in np.linspace(-x, x, count + 2)[1:-1]:
            thin = 0.009 if kind == "spindles" else 0.014
            c.bar(at(sx, 0.2), at(sx, 0.92), thin, kind == "slats")
    elif kind == "frame":
        board(0.92, 1.0, x, 0.014)
        board(0.18, 0.25, x, 0.014)
        _cushion(c, at(0, 0.58), (x * 0.92, tall * 0.33, 0.03), turn)
    else:
        for sx in (-1, 1):
            c.bar(at(sx * x * 0.6, 0), at(sx * x * 0.6, 0.5), radius, square)
        _oval(c, at(0, 0.62), (c.width * 0.46, tall * 0.46, 0.028), turn)


def _oval(c: _Draft, centre: np.ndarray, half: tuple, turn: np.ndarray) -> None:
    """A round back, perhaps with a cushion."""
    c.add(BALL, centre, half, c.frame, turn, c.shine)
    if c.rng.random() < 0.6:
        inner = (half[0] * 0.8, half[1] * 0.8, 0.036)
        c.add(BALL, centre + turn @ [0, 0, 0.006], inner, c.fabric, turn)


def _arms(c: _Draft, height: float) -> None:
    for x in (-c.width / 2, c.width / 2):
        back, front = (c.seat + height + 0.02, -c.depth * 0.5), (c.seat + height, c.depth * 0.42)
        low, high = (c.seat - 0.06, c.depth * 0.33), (c.seat + height, c.depth * 0.36)
        c.bar((x, *back), (x, *front), 0.02, True)
        c.bar((x, *low), (x, *high), 0.015, True)


def _kitchen(c: _Draft) -> None:
    rng = c.rng
    square = bool(rng.random() < 0.5)
    thickness = rng.uniform(0.02, 0.04)
    _legs(c, c.seat - thickness, rng.uniform(0, 0.05), rng.uniform(0.016, 0.024), square,
          rng.uniform(0, 0.05))  # fmt: skip
    half = (c.width / 2, thickness / 2, c.depth / 2)
    c.add(BOX, (0, c.seat - thickness / 2, 0), half, c.frame, shine=c.shine)
    if rng.random() < 0.4:
        high = rng.uniform(0.035, 0.06)
        _cushion(c, (0, c.seat + high * 0.55, 0.0), (c.width * 0.48, high, c.depth * 0.48))
        c.seat += high
    _back(c, str(rng.choice(BACKS)), rng.uniform(0.36, 0.5), rng.uniform(4, 13))
    if rng.random() < 0.25:
        _arms(c, rng.uniform(0.17, 0.22))


def _dining(c: _Draft) -> None:
    """Upholstered seat and a high padded back."""
    rng = c.rng
    _legs(c, c.seat - 0.06, rng.uniform(0, 0.03), rng.uniform(0.018, 0.026),
          bool(rng.random() < 0.6), rng.uniform(0, 0.04))  # fmt: skip
    _cushion(c, (0, c.seat - 0.03, 0), (c.width / 2, 0.05, c.depth / 2))
    tall, tilt = rng.uniform(0.44, 0.62), rng.uniform(4, 11)
    turn = rotation("x", -tilt)
    lean = np.tan(np.deg2rad(tilt)) * tall / 2
    low = 0.0 if rng.random() < 0.5 else rng.uniform(0.05, 0.14)
    middle = (0, c.seat + low + (tall - low) / 2, -c.depth / 2 + 0.02 - lean)
    _cushion(c, middle, (c.width * 0.47, (tall - low) / 2, 0.04), turn)
    if low:
        for sx in (-1, 1):
            x, z = sx * c.width * 0.36, -c.depth / 2 + 0.02
            c.bar((x, c.seat - 0.05, z), (x, c.seat + low + 0.05, z - 0.02), 0.017, True)
    if rng.random() < 0.3:
        _arms(c, rng.uniform(0.17, 0.22))


def _armchair(c: _Draft) -> None:
    """Blocks of upholstery on short legs."""
    rng = c.rng
    c.width, c.depth, c.seat = (
        rng.uniform(0.62, 0.74), rng.uniform(0.6, 0.7), rng.uniform(0.36, 0.42),
    )  # fmt: skip
    leg, arm = rng.uniform(0.06, 0.14), rng.uniform(0.08, 0.13)
    _legs(c, leg + 0.02, 0.0, 0.022, bool(rng.random() < 0.5), 0.0)
    middle = (c.seat + leg) / 2
    inner = c.width / 2 - arm
    _cushion(c, (0, middle, 0.02), (inner + 0.02, (c.seat - leg) / 2, c.depth / 2 - 0.02))
    _cushion(c, (0, c.seat + 0.01, 0.06), (inner, 0.05, c.depth / 2 - 0.07))
    tall, tilt = rng.uniform(0.36, 0.56), rng.uniform(6, 14)
    back = (0, c.seat + tall / 2 - 0.06, -c.depth / 2 + 0.07 - tall * 0.08)
    _cushion(c, back, (inner + arm * 0.6, tall / 2 + 0.05, 0.085), rotation("x", -tilt))
    high = rng.uniform(0.15, 0.24)
    for sx in (-1, 1):
        x = sx * (c.width / 2 - arm / 2)
        top = c.seat + high
        half = (arm / 2, (top - leg) / 2, c.depth / 2)
        _cushion(c, (x, (top + leg) / 2, 0.0), half)
        if rng.random() < 0.35:
            c.bar((x, top, -c.depth * 0.42), (x, top, c.depth * 0.47), arm * 0.5, False)


def _office(c: _Draft) -> None:
    """Padded seat on a column and a star of five feet with castors."""
    rng = c.rng
    c.bar((0, 0.09, 0), (0, c.seat - 0.05, 0), 0.028, False)
    dark = solids.plain((0.12, 0.12, 0.13))
    start = rng.uniform(0, 72)
    for i in range(5):
        angle = np.deg2rad(start + 72 * i)
        out = np.array([np.sin(angle), 0, np.cos(angle)]) * rng.uniform(0.285, 0.29)
        c.bar((0, 0.12, 0), out + np.array([0, 0.07, 0]), 0.02, False)
        castor = out + np.array([0, 0.032, 0])
        c.add(BALL, castor, (0.03, 0.032, 0.03), dark)
    _cushion(c, (0, c.seat - 0.02, 0.01), (c.width / 2, 0.055, c.depth / 2))
    tall, tilt = rng.uniform(0.36, 0.6), rng.uniform(3, 10)
    gap = rng.uniform(0.05, 0.14)
    turn = rotation("x", -tilt)
    behind = -c.depth / 2 + 0.01
    middle = (0, c.seat + gap + tall / 2, behind - 0.08 * tall)
    if rng.random() < 0.35:
        c.add(BALL, middle, (c.width * 0.47, tall / 2, 0.05), c.fabric, turn)
    else:
        _cushion(c, middle, (c.width * 0.46, tall / 2, 0.045), turn)
    c.bar((0, c.seat - 0.04, behind + 0.05), (0, c.seat + gap + tall * 0.5, behind - 0.06), 0.02,
          True)  # fmt: skip
    if rng.random() < 0.6:
        for sx in (-1, 1):
            x = sx * (c.width / 2 + 0.02)
            top = c.seat + rng.uniform(0.19, 0.2)
            c.bar((x * 0.8, c.seat - 0.05, 0), (x, top, 0), 0.016, True)
            c.add(BOX, (x, top, 0.02), (0.025, 0.014, c.depth * 0.3), dark)
