"""The solid shape of a synthetic person: some sixty tapered ellipsoidal parts on the skeleton."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from data.synthetic.identity import Identity
from data.synthetic.pose import Skeleton

ROUND = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Part:
    """A ball moved from ``start`` to ``end`` while its radius changes, squashed along its frame.

    Colours are looked up at ``frame.T @ (point - origin) + (0, offset, 0)``, so textures move with
    the part. ``clips`` are half spaces (normal, bound): what has ``normal @ point > bound`` is cut.
    """

    start: np.ndarray  # (3,) metres
    end: np.ndarray  # (3,)
    radii: tuple[float, float]
    frame: np.ndarray  # (3, 3)
    paint: str
    limb: str
    origin: np.ndarray  # (3,)
    offset: float = 0.0
    squash: tuple[float, float, float] = ROUND
    clips: tuple[tuple[np.ndarray, float], ...] = ()


class Builder:
    """Collects the parts of one person in one pose; lengths are fractions of the height."""

    def __init__(self, identity: Identity, skeleton: Skeleton) -> None:
        self.who, self.points, self.frames = identity, skeleton.points, skeleton.frames
        self.h = identity.body.height
        self.parts: list[Part] = []

    def at(self, point: str, frame: str, offset: Sequence[float]) -> np.ndarray:
        """World position of an offset from a named point in a named frame."""
        return self.points[point] + self.frames[frame] @ (np.asarray(offset) * self.h)

    def add(
        self, start, end, radii, frame: str, paint: str, limb: str, origin: str, **more
    ) -> None:
        """Append a part; ``origin`` names the point where its texture starts."""
        radii = tuple(float(r) * self.h for r in radii)
        more["offset"] = more.get("offset", 0.0) * self.h
        origin_point = self.points[origin]
        self.parts.append(
            Part(start, end, radii, self.frames[frame], paint, limb, origin_point, **more)
        )

    def tube(
        self, path, radii, covered: float, frames, paint: str, limbs, margin: float = 0.0
    ) -> None:
        """A limb or a garment over it: along ``path`` up to the length ``covered``, cut there."""
        done = 0.0
        for i in range(len(path) - 1):
            length = float(np.linalg.norm(path[i + 1] - path[i])) / self.h
            share = min(max((covered - done) / length, 0.0), 1.0)
            if share > 0.0:
                end = path[i] + share * (path[i + 1] - path[i])
                tip = radii[i] + share * (radii[i + 1] - radii[i])
                axis = -self.frames[frames[i]][:, 1]
                last = share < 1.0 or i == len(path) - 2
                beyond = end + axis * margin * self.h
                cut = ((axis, float(axis @ beyond)),) if last else ()
                frame, origin = frames[i], path[i]
                self.parts.append(
                    Part(path[i], end + (axis * 0.01 * self.h if last else 0.0),
                         (radii[i] * self.h, tip * self.h), self.frames[frame], paint, limbs[i],
                         origin, -done * self.h, ROUND, cut)
                )  # fmt: skip
            done += length


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


FLAT = (1.0, 1.0, 0.68)  # the trunk is wider than deep
ARM_LENGTH, LEG_LENGTH = 0.32, 0.47  # of the body height


class BodyBuilder(Builder):
    """Trunk, limbs and clothes of one person in one pose."""

    def build(self) -> list[Part]:
        """All parts of the person."""
        self._trunk()
        add_head(self)
        for side in "RL":
            self._arm(side)
            self._leg(side)
            self._foot(side)
        if self.who.bottom.kind != "trousers":
            self._skirt()
        return self.parts

    def _trunk(self) -> None:
        body, at = self.who.body, self.at
        shoulders, waist = 0.09 * body.shoulders * body.bulk, 0.081 * body.waist * body.bulk
        hips = 0.094 * body.hips * body.bulk
        levels = [
            ("chest", (0, 0.028, -0.004), 0.9 * shoulders),
            ("chest", (0, -0.01, 0), shoulders),
            ("waist", (0, 0.01, 0), waist),
            ("pelvis", (0, 0.012, 0), hips),
            ("pelvis", (0, -0.022, 0), 0.93 * hips),
        ]
        for (upper, a, ra), (lower, b, rb) in pairwise(levels):
            offset = {"chest": 0.205, "waist": 0.08, "pelvis": 0.0}[upper]
            ends = at(upper, upper, a), at(lower, lower, b)
            more = {"offset": offset, "squash": FLAT}
            self.add(*ends, (ra, rb), upper, "trunk", "trunk", upper, **more)
        chest = {"offset": 0.205}
        right, left = self.points["RSho"], self.points["LSho"]
        self.add(right, left, (0.029, 0.029), "chest", "trunk", "trunk", "chest", **chest)
        nape = at("neck", "chest", (0, 0.022, -0.005))
        for side in (right, left):
            inner = 0.75 * side + 0.25 * nape
            self.add(nape, inner, (0.026, 0.031), "chest", "trunk", "trunk", "chest", **chest)
        if self.who.top.collar:
            self._collar()
        for sign in (-1, 1):
            seat = 0.92 * hips / 0.094
            glute = at("pelvis", "pelvis", (sign * 0.034 * seat, -0.024, -0.022 * seat))
            size = (0.044 * seat, 0.044 * seat)
            self.add(glute, glute, size, "pelvis", "trunk", "trunk", "pelvis")
        if body.bust:
            ends = (at("chest", "chest", (x, -0.008, 0.027)) for x in (-0.034, 0.034))
            radii = (0.036 * body.bust, 0.036 * body.bust)
            self.add(*ends, radii, "chest", "trunk", "trunk", "chest", **chest)
        self._shirt_tail(waist, hips)

    def _collar(self) -> None:
        at, chest = self.at, self.frames["chest"]
        low, high = at("neck", "chest", (0, -0.004, 0.002)), at("neck", "chest", (0, 0.03, 0.0))
        tilted = chest[:, 1] * 0.9 + chest[:, 2] * 0.44  # lower at the throat
        cut = ((tilted, float(tilted @ at("neck", "chest", (0, 0.02, 0)))),)
        more = {"offset": 0.205, "clips": cut}
        self.add(low, high, (0.047, 0.04), "chest", "collar", "trunk", "chest", **more)

    def _shirt_tail(self, waist: float, hips: float) -> None:
        top, bottom = self.who.top, self.who.bottom
        tucked = top.tucked or bottom.kind == "skirt"
        if bottom.kind == "dress" or (tucked and top.open_front is None):
            return
        size = 1.17 if bottom.kind == "skirt" else 1.08  # a jacket hangs over the skirt
        hem = -0.075 if top.open_front else -0.04
        pelvis = self.frames["pelvis"]
        cut = (-pelvis[:, 1], float(-pelvis[:, 1] @ self.at("pelvis", "pelvis", (0, hem, 0))))
        radii = (waist * size, hips * size)
        ends = self.at("waist", "pelvis", (0, 0.02, 0)), self.at("pelvis", "pelvis", (0, 0.015, 0))
        more = {"squash": (1.0, 1.0, 0.76), "clips": (cut,)}
        self.add(*ends, radii, "pelvis", "tail", "trunk", "pelvis", **more)
        low = self.at("pelvis", "pelvis", (0, hem - 0.04, 0))
        radii = (hips * size, hips * (size + 0.04))
        self.add(ends[1], low, radii, "pelvis", "tail", "trunk", "pelvis", **more)

    def _arm(self, side: str) -> None:
        points, bulk = self.points, self.who.body.bulk**0.5 * (0.92 if self.who.woman else 1.08)
        shoulder, elbow, wrist = (points[side + joint] for joint in ("Sho", "Elb", "Wri"))
        frames = [side + "Upper", side + "Fore", side + "Fore"]
        path = [shoulder, elbow, 0.7 * elbow + 0.3 * wrist, wrist]
        radii = [0.03 * bulk, 0.0245 * bulk, 0.026 * bulk, 0.0165 * bulk]
        self.tube(path, radii, 1.0, frames, "arm", frames, margin=0.02)
        sleeve = self.who.top.sleeve
        if sleeve:
            extra = 0.006 if sleeve == 1.0 else 0.008
            radii = [0.033 * bulk] + [
                r + extra for r in (0.027 * bulk, 0.0275 * bulk, 0.018 * bulk)
            ]
            self.tube(path, radii, sleeve * ARM_LENGTH, frames, "sleeve", frames)
        fore = side + "Fore"
        palm = wrist + self.frames[fore] @ (np.array([0, -0.038, 0.004]) * self.h)
        tips = wrist + self.frames[fore] @ (np.array([0, -0.082, 0.008]) * self.h)
        thumb = wrist + self.frames[fore] @ (np.array([0, -0.05, 0.026]) * self.h)
        hand = {"squash": (0.6, 1.0, 1.0), "offset": -ARM_LENGTH / 2}
        for a, b, r in (
            (wrist, palm, (0.0155, 0.021)),
            (palm, tips, (0.02, 0.009)),
            (wrist, thumb, (0.012, 0.0075)),
        ):
            self.add(a, b, r, fore, "hand", side + "Hand", side + "Elb", **hand)

    def _leg(self, side: str) -> None:
        points, bulk = self.points, (self.who.body.bulk * self.who.body.hips) ** 0.8
        hip, knee, ankle = (points[side + joint] for joint in ("Hip", "Knee", "Ank"))
        frames = [side + "Thigh", side + "Thigh", side + "Shin", side + "Shin"]
        path = [hip, 0.5 * (hip + knee), knee, 0.68 * knee + 0.32 * ankle, ankle]
        radii = [r * bulk for r in (0.043, 0.046, 0.034, 0.0365, 0.021)]
        self.tube(path, radii, 1.0, frames, "leg", frames, margin=0.03)
        bottom = self.who.bottom
        if bottom.kind == "trousers":
            flare = bottom.flare
            radii = [
                0.0435,
                0.049,
                0.039 + 0.014 * flare,
                0.0395 + 0.012 * flare,
                0.027 + 0.028 * flare,
            ]
            radii = [r * bulk for r in radii]
            covered = bottom.length * LEG_LENGTH + (0.012 if bottom.length == 1.0 else 0.0)
            self.tube(path, radii, covered, frames, "trousers", frames, margin=0.01)

    def _foot(self, side: str) -> None:
        foot, ankle = side + "Foot", side + "Ank"
        heel, toe = (
            self.at(ankle, foot, (0, -0.02, -0.014)),
            self.at(ankle, foot, (0, -0.028, 0.092)),
        )
        squash = (1.0, 0.8, 1.0)
        self.add(heel, toe, (0.028, 0.021), foot, "shoe", foot, ankle, squash=squash)
        instep = self.at(ankle, foot, (0, -0.022, 0.05))
        self.add(self.points[ankle], instep, (0.0245, 0.018), foot, "shoe", foot, ankle)
        if self.who.boots:
            frames = [side + "Shin"]
            top = 0.45 * self.points[side + "Knee"] + 0.55 * self.points[ankle]
            axis = self.frames[frames[0]][:, 1]
            more = {"clips": ((axis, float(axis @ top)),)}
            start = self.points[ankle]
            self.add(start, top, (0.029, 0.043), frames[0], "shoe", foot, ankle, **more)

    def _skirt(self) -> None:
        body, bottom, pelvis = self.who.body, self.who.bottom, self.frames["pelvis"]
        hips = 0.094 * body.hips * body.bulk
        length = bottom.length * LEG_LENGTH
        lows = [self._along_leg(side, length) for side in "RL"]
        spread = np.abs(pelvis.T @ (lows[0] - lows[1])) / self.h / 2
        width = max(spread[0] + 0.055, hips * 1.05) + 0.1 * bottom.flare * bottom.length
        depth = max(spread[2] + 0.062, hips * 0.66) + 0.08 * bottom.flare * bottom.length
        hem = 0.5 * (lows[0] + lows[1])
        top = self.at("waist", "waist", (0, -0.015, 0))
        middle = self.at("pelvis", "pelvis", (0, -0.02, 0))
        waist = 0.083 * body.waist * body.bulk
        up, edge = pelvis[:, 1], self.at("pelvis", "pelvis", (0, 0.058, 0))
        more = {"squash": (1.0, 1.0, 0.76), "clips": ((up, float(up @ edge)),)}
        paint = "skirt"
        self.add(top, middle, (waist, hips * 1.08), "pelvis", paint, "skirt", "pelvis", **more)
        axis = (hem - middle) / np.linalg.norm(hem - middle)
        cut = ((axis, float(axis @ hem)),)
        squash = (1.0, 1.0, float(np.clip(depth / width, 0.76, 1.3)))
        beyond = hem + axis * 0.02 * self.h
        more = {"squash": squash, "clips": cut}
        self.add(middle, beyond, (hips * 1.08, width), "pelvis", paint, "skirt", "pelvis", **more)

    def _along_leg(self, side: str, length: float) -> np.ndarray:
        """The point at a distance (height = 1) below the hip along the leg."""
        hip, knee, ankle = (self.points[side + joint] for joint in ("Hip", "Knee", "Ank"))
        half = LEG_LENGTH / 2
        if length <= half:
            return hip + (knee - hip) * (length / half)
        return knee + (ankle - knee) * min((length - half) / half, 1.0)


def build_body(identity: Identity, skeleton: Skeleton) -> list[Part]:
    """The parts of a person in a pose (world coordinates, metres)."""
    return BodyBuilder(identity, skeleton).build()
