"""Colours of a synthetic person's surface: textures, garments, skin and face, in part coordinates.

Painters take ``local`` (3, N): person's left, up along the part, front, in metres from the part's
texture origin, and return colours (N, 3) in [0, 1]. The coordinates belong to the part, so patterns
move with it.
"""

from collections.abc import Callable

import numpy as np

from data.synthetic.identity import Colour, Identity, Texture


def _fill(colour: Colour, count: int) -> np.ndarray:
    return np.broadcast_to(np.asarray(colour, np.float32), (count, 3)).copy()


def _angle(local: np.ndarray) -> np.ndarray:
    return np.arctan2(local[0], local[2])


def _weave(texture: Texture, local: np.ndarray, radius: float, creased=False) -> np.ndarray:
    """Colours (N, 3) of a texture around a part of the given radius; a logo's ground is plain.

    An even number of periods fits around, so that no seam shows. ``creased``: with soft shadows
    that belong to the cloth.
    """
    colours, angle = _fill(texture.colour, local.shape[1]), _angle(local)
    repeats = 2 * max(round(np.pi * radius / texture.period), 1)
    u, v = local[1] / texture.period, angle * (repeats / (2 * np.pi))
    if texture.kind == "stripes":
        colours[np.mod(u, 1.0) < 0.5] = texture.accent
    elif texture.kind == "bars":
        colours[np.mod(v, 1.0) < 0.5] = texture.accent
    elif texture.kind == "checks":
        share = 0.5 * (np.mod(u, 1.0) < 0.5) + 0.5 * (np.mod(v, 1.0) < 0.5)
        accent = np.asarray(texture.accent, np.float32)
        colours += share[:, None].astype(np.float32) * (accent - colours)
    elif texture.kind == "dots":
        shifted = u + 0.5 * np.mod(np.floor(v), 2.0)
        distance = (np.mod(shifted, 1.0) - 0.5) ** 2 + (np.mod(v, 1.0) - 0.5) ** 2
        colours[distance < 0.09] = texture.accent
    if creased:
        wave = np.sin(38.0 * local[1] + 2.0 * np.sin(2.0 * angle))
        wave *= np.sin(11.0 * local[1] - 3.0 * angle)
        colours *= (1.0 + 0.035 * wave)[:, None]
    return colours


def _logo(period: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where a chest print is, in coordinates from -1 to 1: a ring, a block or a triangle."""
    if period < 0.08:
        return (x**2 + y**2 < 1.0) & (x**2 + y**2 > 0.3)
    if period < 0.105:
        return (np.abs(x) < 1.0) & (np.abs(y) < 0.75)
    return (np.abs(x) < 0.5 * (0.9 - y)) & (y > -0.9)


class Wardrobe:
    """Paints every kind of surface of one identity; ``paint(kind, local)`` is the only entry."""

    def __init__(self, identity: Identity) -> None:
        self.who, self.h = identity, identity.body.height
        self._painters: dict[str, Callable[[np.ndarray], np.ndarray]] = {
            "head": self._head, "hair": self._hair, "trunk": self._trunk, "collar": self._collar,
            "skirt": self._skirt, "shoe": self._shoe,
            "tail": lambda local: self._front(local, self._top(local, 0.12)),
            "sleeve": lambda local: self._top(local, 0.05),
            "trousers": lambda local: _weave(identity.bottom.texture, local, 0.075, creased=True),
        }  # fmt: skip

    def paint(self, kind: str, local: np.ndarray) -> np.ndarray:
        """Colours (N, 3) of the surface ``kind`` at part coordinates (3, N)."""
        return self._painters.get(kind, self._skin)(local)

    def _skin(self, local: np.ndarray) -> np.ndarray:
        return _fill(self.who.skin, local.shape[1])

    def _top(self, local: np.ndarray, radius: float) -> np.ndarray:
        return _weave(self.who.top.texture, local, radius, creased=True)

    def _collar(self, local: np.ndarray) -> np.ndarray:
        colours = 0.88 * _weave(self.who.top.texture, local, 0.06)
        colours[(local[2] > 0) & (np.abs(local[0]) < 0.014 * self.h)] = self.who.skin
        return colours

    def _front(self, local: np.ndarray, colours: np.ndarray) -> np.ndarray:
        """Logo, and the shirt that shows where a jacket is open."""
        top, h = self.who.top, self.h
        x, y, z = local
        if top.texture.kind == "logo":
            mark = _logo(top.texture.period, x / (0.05 * h), (y - 0.185 * h) / (0.038 * h))
            colours[mark & (z > 0)] = top.texture.accent
        if top.collar:
            colours[(z > 0) & (np.abs(x) < 0.0035 * h) & (y < 0.25 * h)] *= 0.75
            button = (np.mod(y / (0.035 * h), 1.0) - 0.5) ** 2 * 25.0 + (x / (0.006 * h)) ** 2
            colours[(z > 0) & (button < 1.0) & (y < 0.25 * h)] = (0.9, 0.88, 0.84)
        if top.open_front is not None:
            wide = 0.09 * np.maximum(y - 0.1 * h, 0.0)
            gap, edge = ((z > 0) & (np.abs(x) < half * h + wide) for half in (0.018, 0.024))
            colours[gap] = top.open_front
            colours[edge & ~gap] *= 0.72
        return colours

    def _trunk(self, local: np.ndarray) -> np.ndarray:
        colours = self._front(local, self._top(local, 0.12))
        bottom, waistline = self.who.bottom, 0.05 * self.h
        if bottom.kind != "dress":
            below = local[1] < waistline
            colours[below] = _weave(bottom.texture, local[:, below], 0.12)
        if bottom.belt is not None:
            colours[np.abs(local[1] - waistline) < 0.011 * self.h] = bottom.belt
        colours[self._bare(local)] = self.who.skin
        return colours

    def _bare(self, local: np.ndarray) -> np.ndarray:
        """Where the top leaves the trunk bare: neckline and, without sleeves, the shoulders."""
        top, h = self.who.top, self.h
        x, y, z = local
        depth = np.where(z > 0, top.neckline, 0.01)
        wide, low = 0.036 * h + 0.25 * depth, 0.03 * h + depth
        bare = (x / wide) ** 2 + ((y - 0.3 * h) / low) ** 2 < 1.0
        if top.collar:
            bare &= (z > 0) & (np.abs(x) < 0.5 * (y - 0.25 * h + depth))
        elif top.v_neck:
            bare |= (z > 0) & (np.abs(x) < 0.5 * (y - 0.25 * h + depth)) & (np.abs(x) < wide)
        if top.sleeve == 0.0:
            bare |= (np.abs(x) > 0.075 * h * self.who.body.shoulders) & (y > 0.215 * h)
        return bare

    def _skirt(self, local: np.ndarray) -> np.ndarray:
        bottom, low = self.who.bottom, np.clip(-6.0 * local[1], 0.0, 1.0)
        pleats = 1.0 + 0.1 * bottom.flare * np.sin(14.0 * _angle(local)) * low
        colours = _weave(bottom.texture, local, 0.12) * pleats[:, None]
        if bottom.belt is not None:
            colours[np.abs(local[1] - 0.05 * self.h) < 0.012 * self.h] = bottom.belt
        return colours

    def _shoe(self, local: np.ndarray) -> np.ndarray:
        colours = _fill(self.who.shoes, local.shape[1])
        colours[local[1] < -0.0335 * self.h] = self.who.sole
        return colours

    def _hair(self, local: np.ndarray) -> np.ndarray:
        angle = _angle(local)
        sheen = 0.16 * np.exp(-(((local[1] - 0.035 * self.h) / (0.014 * self.h)) ** 2))
        strands = 0.1 * np.sin(26.0 * angle + 60.0 * local[1]) * np.sin(9.0 * angle + 3.0)
        return _fill(self.who.hair_colour, local.shape[1]) * (1.0 + sheen + strands)[:, None]

    def _head(self, local: np.ndarray) -> np.ndarray:
        who = self.who
        colours = self._skin(local)
        x, y, z = local / (0.068 * self.h)
        front = z > 0.2

        def spot(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
            return front & (((np.abs(x) - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1.0)

        def blend(mask: np.ndarray, colour: Colour, share: float) -> None:
            colours[mask] += share * (np.asarray(colour, np.float32) - colours[mask])

        dark = tuple(0.55 * c for c in who.hair_colour)
        blend(spot(0.42, -0.3, 0.2, 0.16), (0.9, 0.4, 0.35), 0.12)
        blend(spot(0.29, 0.06, 0.2, 0.17), (0.45, 0.3, 0.25), 0.2)
        if who.beard:
            jaw = (y < -0.3 - 0.55 * (z - 0.35)) & (y < 0.05) & (z > -0.05)
            blend(jaw & ~spot(0.0, -0.6, 0.2, 0.07), dark, 0.7)
            blend(spot(0.0, -0.44, 0.3, 0.06), dark, 0.65)
        blend(spot(0.29, 0.03, 0.155, 0.085), (0.97, 0.96, 0.95), 1.0)
        blend(spot(0.28, 0.03, 0.08, 0.085), who.iris, 1.0)
        blend(spot(0.29, 0.12, 0.17, 0.04), (0.12, 0.08, 0.07), 0.85)
        blend(spot(0.3, 0.27, 0.19, 0.045), dark, 0.8)
        y = y - 0.6 * x**2  # the corners of the mouth lie higher
        blend(spot(0.0, -0.62, 0.25, 0.085), who.lips, 0.9)
        blend(spot(0.0, -0.615, 0.23, 0.02), (0.35, 0.1, 0.1), 0.6)
        if who.hair == "bald" and not who.woman:
            blend((y > 0.35) & (z < 0.55), who.hair_colour, 0.12)
        return colours
