"""Synthetic heads: skull, face, ears, hair and shoulders as solids, to be seen from 13 cameras.

Unit: about the height of the head; the head's centre is the origin and it looks along +z.
"""

from dataclasses import dataclass

import numpy as np

from data.synthetic import solids
from data.synthetic.solids import BALL, BOX, TUBE, Material, Scene, Solid, rod, rotation, solid

SKINS = (
    (0.96, 0.80, 0.69), (0.90, 0.71, 0.57), (0.80, 0.59, 0.44), (0.63, 0.43, 0.30),
    (0.45, 0.29, 0.20), (0.98, 0.86, 0.78),
)  # fmt: skip
HAIRS = (
    (0.10, 0.08, 0.07), (0.22, 0.14, 0.09), (0.36, 0.22, 0.12), (0.56, 0.37, 0.18),
    (0.80, 0.64, 0.36), (0.50, 0.18, 0.09), (0.66, 0.65, 0.64),
)  # fmt: skip
IRISES = ((0.25, 0.15, 0.08), (0.20, 0.34, 0.52), (0.25, 0.40, 0.25), (0.38, 0.26, 0.12))
CLOTHES = (
    (0.75, 0.20, 0.20), (0.18, 0.30, 0.55), (0.20, 0.45, 0.35), (0.88, 0.87, 0.84),
    (0.18, 0.18, 0.20), (0.85, 0.65, 0.25), (0.50, 0.35, 0.60), (0.40, 0.60, 0.72),
)  # fmt: skip
STYLES = {
    "short": 0.3, "long": 0.24, "bob": 0.12, "bald": 0.1, "bun": 0.08, "curly": 0.1, "cap": 0.06,
}  # fmt: skip
BACKGROUND = (0.72, 0.78, 0.84)
FLESH = 1  # number of the smoothed surface
MOUTH = -0.285  # height of the mouth


@dataclass
class _Draft:
    """Measures and materials of the head that is being built."""

    rng: np.random.Generator
    wide: float  # half width of the skull
    flesh: Material
    lips: Material
    hair: Material
    solids: list[Solid]

    def add(self, kind: str, centre, half, material: Material, turn=None, **more) -> None:
        self.solids.append(solid(kind, centre, half, material, turn, **more))

    def skin(self, centre, half) -> None:
        self.add(BALL, centre, half, self.flesh, smooth=FLESH, shine=0.05)

    def rod(self, start, end, radius: float, material: Material, kind=TUBE, **more) -> None:
        self.solids.append(rod(start, end, radius, material, kind, **more))


def sample_head(rng: np.random.Generator) -> Scene:
    """A random person's head, all framed alike."""
    colour = np.array(SKINS[rng.integers(len(SKINS))]) * rng.uniform(0.95, 1.04)
    hair_colour = np.array(HAIRS[rng.integers(len(HAIRS))]) * rng.uniform(0.85, 1.1)
    freckles = rng.uniform(0.4, 1) if rng.random() < 0.15 else 0.0
    draft = _Draft(
        rng, rng.uniform(0.345, 0.385), solids.skin(colour, rng.uniform(0, 6), freckles),
        solids.plain(colour * (0.82, 0.56, 0.56)),
        solids.hair(hair_colour, rng.uniform(0, 6), rng.uniform(18, 34)), [],
    )  # fmt: skip
    woman = bool(rng.random() < 0.5)
    _skull(draft)
    _eyes(draft, hair_colour)
    _nose_and_mouth(draft, woman)
    _ears(draft)
    _shoulders(draft)
    _hair(draft, woman)
    if not woman and rng.random() < 0.4:
        _beard(draft)
    if rng.random() < 0.25:
        _glasses(draft)
    return Scene(tuple(draft.solids), (0.0, -0.13, -0.02), 1.62, BACKGROUND)


def _skull(h: _Draft) -> None:
    rng, wide = h.rng, h.wide
    h.jaw, h.chin = rng.uniform(0.25, 0.3), rng.uniform(-0.50, -0.44)
    h.skin((0, 0.06, -0.04), (wide, 0.42, 0.43))
    h.skin((0, -0.10, 0.06), (wide * 0.93, 0.36, 0.34))  # face
    h.skin((0, h.chin + 0.17, 0.10), (h.jaw, 0.2, 0.26))  # jaw
    h.skin((0, h.chin + 0.06, 0.26), (0.11, 0.075, 0.1))  # chin
    h.skin((0, 0.115, 0.27), (0.25, 0.055, 0.12))  # brow
    for sx in (-1, 1):
        h.skin((sx * 0.2, -0.12, 0.24), (0.12, 0.11, 0.11))  # cheeks
    neck = rng.uniform(0.17, 0.22)
    h.rod((0, -0.95, -0.12), (0, -0.3, -0.05), neck, h.flesh, smooth=FLESH, taper=0.05)


def _eyes(h: _Draft, hair_colour: np.ndarray) -> None:
    rng = h.rng
    apart, size = rng.uniform(0.135, 0.16), rng.uniform(0.068, 0.078)
    iris = solids.eye(np.array(IRISES[rng.integers(len(IRISES))]))
    brow = solids.plain(hair_colour * 0.75)
    lift, thick = rng.uniform(-12, 8), rng.uniform(0.013, 0.024)
    h.apart = apart
    for sx in (-1, 1):
        at = np.array([sx * apart, 0.0, 0.335])
        h.add(BALL, at, (size, size * 0.8, size), iris, rotation("y", sx * 6), shine=0.35)
        # lids: slightly larger balls that leave the eye open in the middle
        for up, open_ in ((1.0, rng.uniform(0.3, 0.36)), (-1.0, 0.5)):
            cut = ((0.0, -up, 0.25), -up * at[1] + 0.25 * at[2] - open_ * size + 0.25 * size * 0.9)
            h.add(BALL, at, (size * 1.16, size * 0.98, size * 1.08), h.flesh, cuts=(cut,))
        h.add(BALL, at + np.array([sx * 0.012, 0.115, 0.045]), (0.085, thick, 0.03), brow,
              rotation("z", sx * lift) @ rotation("y", sx * 22))  # fmt: skip


def _nose_and_mouth(h: _Draft, woman: bool) -> None:
    rng = h.rng
    length, tip = rng.uniform(0.2, 0.25), rng.uniform(0.05, 0.066)
    reach = rng.uniform(0.44, 0.5)
    low = (0, 0.06 - length, reach - 0.035)
    h.rod(low, (0, 0.07, 0.36), tip * 0.8, h.flesh, smooth=FLESH, taper=0.3)
    h.skin((0, 0.05 - length, reach - 0.02), (tip, tip * 0.8, tip))
    for sx in (-1, 1):
        h.skin((sx * tip * 0.85, 0.045 - length, reach - 0.065), (tip * 0.6, tip * 0.55, tip * 0.7))
    half, full = rng.uniform(0.095, 0.125), rng.uniform(0.018, 0.026) * (1.25 if woman else 1)
    y = MOUTH
    h.skin((0, y, 0.31), (0.15, 0.085, 0.075))
    h.add(BALL, (0, y + full * 0.8, 0.355), (half, full, 0.045), h.lips, rotation("x", 12))
    h.add(BALL, (0, y - full * 0.8, 0.35), (half * 0.88, full * 1.2, 0.05), h.lips)


def _ears(h: _Draft) -> None:
    size = h.rng.uniform(0.85, 1.1)
    inner = solids.plain(h.flesh(np.zeros((1, 3)), np.zeros((1, 3)))[0] * (0.86, 0.74, 0.7))
    for sx in (-1, 1):
        at = np.array([sx * (h.wide + 0.005), -0.06, -0.03])
        turn = rotation("y", sx * 24) @ rotation("x", -10)
        h.add(BALL, at, (0.035, 0.115 * size, 0.075 * size), h.flesh, turn)
        middle, half = at + turn @ [sx * 0.02, 0.01, 0.006], (0.024, 0.07 * size, 0.042 * size)
        h.add(BALL, middle, half, inner, turn)


def _shoulders(h: _Draft) -> None:
    rng = h.rng
    one, two = np.array(CLOTHES)[rng.choice(len(CLOTHES), 2, replace=False)]
    kind = rng.choice(["plain", "stripes", "checks"], p=[0.6, 0.25, 0.15])
    if kind == "stripes":
        cloth = solids.stripes(one, two, rng.uniform(0.1, 0.2), 1)
    elif kind == "checks":
        cloth = solids.checks(one, two, rng.uniform(0.12, 0.2), (0, 1))
    else:
        cloth = solids.plain(one)
    broad = rng.uniform(0.72, 0.86)
    h.add(BALL, (0, -1.18, -0.12), (broad, 0.46, 0.34), cloth)
    h.add(TUBE, (0, -0.8, -0.1), (0.26, 0.07, 0.26), cloth, rotation("x", 14), taper=0.12)


def _hair(h: _Draft, woman: bool) -> None:
    rng = h.rng
    style = str(rng.choice(list(STYLES), p=list(STYLES.values())))
    if woman and style in ("bald", "short"):
        style = str(rng.choice(["long", "bob", "bun"]))
    if not woman and style in ("bun", "bob", "long") and rng.random() < 0.6:
        style = "short"
    line = rng.uniform(0.2, 0.3)  # height of the hairline on the forehead
    grow = rng.uniform(0.03, 0.06)
    top = np.array([h.wide + grow, 0.42 + grow * 1.2, 0.43 + grow])
    tilt = np.array([0.0, -1.0, 0.62])  # a plane that rises from the nape to the forehead
    tilt /= np.linalg.norm(tilt)
    cut = (tuple(tilt), float(tilt @ [0, line, 0.33]))
    if style == "bald":
        ring = (((0.0, 1.0, 0.0), 0.12), ((0.0, 0.25, 1.0), -0.02), ((0.0, -1.0, 0.0), 0.26))
        h.add(BALL, (0, 0.03, -0.05), top - (grow * 0.6, 0, grow * 0.4), h.hair, cuts=ring)
        return
    if style == "cap":
        colour = solids.plain(CLOTHES[rng.integers(len(CLOTHES))])
        h.add(BALL, (0, 0.09, -0.03), top * 1.02, colour, cuts=(((0.0, -1.0, 0.1), -0.17),))
        h.add(BALL, (0, 0.2, 0.36), (0.27, 0.03, 0.27), colour, rotation("x", 10))
        cut = (tuple(tilt), float(tilt @ [0, 0.05, 0.05]))
    h.add(BALL, (0, 0.07, -0.05), top, h.hair, cuts=(cut,), shine=0.06)
    if style in ("long", "bob"):  # a curtain behind the face, and strands before the shoulders
        low = -0.95 if style == "long" else -0.42
        middle, half = (0.1 + low) / 2, (0.1 - low) / 2 + 0.14
        cuts = (((0.0, -1.0, 0.0), -low), ((0.0, 0.0, 1.0), -0.06))
        h.add(BALL, (0, middle, -0.12), (top[0] * 1.06, half * 1.25, 0.38), h.hair, cuts=cuts)
        for sx in (-1, 1):
            at, turn = (sx * top[0] * 0.93, middle + 0.04, 0.01), rotation("z", sx * 4)
            h.add(BALL, at, (0.085, half, 0.15), h.hair, turn, cuts=cuts[:1])
    elif style == "bun":
        h.add(BALL, (0, rng.uniform(0.2, 0.5), -0.44), (0.18, 0.17, 0.16), h.hair)
    elif style == "curly":
        _curls(h, top, cut)
    if style != "cap" and rng.random() < 0.45:  # a fringe
        side = rng.choice([-1, 1]) * rng.uniform(0, 0.12)
        half = (h.wide * 0.82, 0.12, 0.17)
        h.add(BALL, (side, line + 0.06, 0.24), half, h.hair, rotation("z", side * 60))


def _curls(h: _Draft, top: np.ndarray, cut) -> None:
    rng = h.rng
    while sum(s.material is h.hair for s in h.solids) < 46:
        way = rng.normal(size=3)
        at = np.array([0, 0.08, -0.05]) + way / np.linalg.norm(way) * top
        if cut[0] @ at < cut[1] - 0.02:
            h.add(BALL, at, [rng.uniform(0.085, 0.13)] * 3, h.hair)


def _beard(h: _Draft) -> None:
    rng = h.rng
    if rng.random() < 0.65:
        low = (0.0, 1.0, 0.0), MOUTH - 0.03
        side = (0.0, 1.0, -0.9), MOUTH - 0.03 - 0.9 * 0.05
        half = (h.jaw + 0.03, 0.235, 0.29)
        h.add(BALL, (0, h.chin + 0.17, 0.095), half, h.hair, cuts=(low, side))
        h.add(BALL, (0, h.chin + 0.06, 0.25), (0.15, 0.12, 0.13), h.hair, cuts=(low,))
    h.add(BALL, (0, MOUTH + 0.055, 0.372), (0.115, 0.024, 0.04), h.hair)


def _glasses(h: _Draft) -> None:
    frame = solids.plain((0.12, 0.1, 0.1) if h.rng.random() < 0.7 else (0.7, 0.6, 0.4))
    x, half, tall, z = h.apart, 0.105, h.rng.uniform(0.065, 0.09), 0.44
    thick = h.rng.uniform(0.011, 0.016)
    for sx in (-1, 1):
        for sign in (-1, 1):
            h.add(BOX, (sx * x, sign * tall, z), (half, thick, thick), frame)
            h.add(BOX, (sx * x + sign * half, 0, z), (thick, tall, thick), frame)
        h.rod((sx * (x + half), 0.02, z), (sx * (h.wide + 0.02), 0.02, -0.03), thick, frame, BOX)
    h.add(BOX, (0, 0.02, z + 0.01), (x - half + 0.01, thick, thick), frame)
