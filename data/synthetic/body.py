"""The solid shape of a synthetic person: some sixty tapered ellipsoidal parts on the skeleton."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from data.synthetic.identity import Identity
from data.synthetic.pose import Skeleton

FLAT = (1.0, 1.0, 0.68)  # the trunk is wider than deep
ARM_LENGTH, LEG_LENGTH = 0.32, 0.47  # of the body height
TEXTURE_HEIGHTS = {"chest": 0.205, "waist": 0.08}  # of the frames of the trunk above its origin


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
    squash: tuple[float, float, float] = (1.0, 1.0, 1.0)
    clips: tuple[tuple[np.ndarray, float], ...] = ()


def _cut(normal: np.ndarray, point: np.ndarray) -> tuple[np.ndarray, float]:
    """The half space beyond a point."""
    return normal, float(normal @ point)


class Builder:
    """Collects the parts of one person in one pose; lengths are fractions of the height."""

    def __init__(self, identity: Identity, skeleton: Skeleton) -> None:
        self.who, self.points, self.frames = identity, skeleton.points, skeleton.frames
        self.h = identity.body.height
        self.parts: list[Part] = []

    def at(self, point: str, offset, frame: str | None = None) -> np.ndarray:
        """World position of an offset from a named point, in its own frame or a named one."""
        return self.points[point] + self.frames[frame or point] @ (np.asarray(offset) * self.h)

    def add(
        self, start, end, radii, frame: str, paint: str, limb="trunk", origin=None, offset=None,
        **more,
    ) -> None:  # fmt: skip
        """Append a part; ``origin`` names the point where its texture starts."""
        radii = tuple(float(r) * self.h for r in radii)
        offset = (TEXTURE_HEIGHTS.get(frame, 0.0) if offset is None else offset) * self.h
        origin = self.points[origin or frame]
        part = Part(start, end, radii, self.frames[frame], paint, limb, origin, offset, **more)
        self.parts.append(part)

    def head(self, start, end, radii, paint: str = "head", **more) -> None:
        """Append a part of the head between two offsets from its centre."""
        start, end = self.at("head", start), self.at("head", end)
        self.add(start, end, radii, "head", paint, "head", **more)

    def tube(self, path, radii, covered: float, frames, paint: str, margin: float = 0.0) -> None:
        """A limb or a garment over it: along ``path`` up to the length ``covered``, cut there."""
        done = 0.0
        for i, frame in enumerate(frames):
            length = float(np.linalg.norm(path[i + 1] - path[i])) / self.h
            share = min(max((covered - done) / length, 0.0), 1.0)
            if share > 0.0:
                end = path[i] + share * (path[i + 1] - path[i])
                ends = radii[i] * self.h, (radii[i] + share * (radii[i + 1] - radii[i])) * self.h
                axis = -self.frames[frame][:, 1]
                last = share < 1.0 or i == len(frames) - 1
                cut = (_cut(axis, end + axis * margin * self.h),) if last else ()
                end = end + axis * 0.01 * self.h if last else end
                where = self.frames[frame], paint, frame, path[i], -done * self.h
                self.parts.append(Part(path[i], end, ends, *where, clips=cut))
            done += length

    def build(self) -> list[Part]:
        """All parts of the person."""
        self._trunk()
        self._skull()
        if self.who.hair != "bald":
            self._hair()
        for side in "RL":
            self._arm(side)
            self._leg(side)
            self._foot(side)
        if self.who.bottom.kind != "trousers":
            self._skirt()
        return self.parts

    def _skull(self) -> None:
        base, skull = (
            self.at("neck", (0, -0.012, -0.004), "chest"),
            self.at("skull", (0, 0.01, 0), "head"),
        )
        width = 0.027 if self.who.woman else 0.032
        self.add(base, skull, (width + 0.004, width), "chest", "neck", "head")
        for centre, radius, squash in (
            ((0, 0.004, -0.004), 0.068, (0.76, 1.0, 0.92)),
            ((0, -0.034, 0.014), 0.044, (0.86, 0.86, 0.95)),
        ):
            self.head(centre, centre, (radius, radius), squash=squash)
        self.head((0, 0.004, 0.056), (0, -0.014, 0.063), (0.005, 0.0075))  # nose
        for x in (-0.051, 0.051):
            ear = (x, -0.006, -0.006)
            self.head(ear, ear, (0.014, 0.014), squash=(0.5, 1, 0.7))

    def _cap(self, radius: float, tilt: float) -> None:
        """Hair over the skull, cut by a plane from the forehead down to the nape."""
        normal = np.array([self.who.parting, -np.cos(tilt), np.sin(tilt)])
        cut = _cut(self.frames["head"] @ normal, self.at("head", (0, 0.006, 0)))
        centre = (0, 0.008, -0.007)
        self.head(centre, centre, (radius, radius), "hair", squash=(0.8, 1.0, 0.93), clips=(cut,))

    def _hair(self) -> None:
        style = self.who.hair
        radius = {"cropped": 0.0695, "curly": 0.088, "bob": 0.077, "long": 0.076}.get(style, 0.0735)
        self._cap(radius, 0.68)
        if self.who.fringe:
            self._cap(radius, 0.42)
        if style in ("bob", "long", "curly"):
            ends = [self.at("head", (0, -0.005, -0.012)), self.at("chest", (0, 0.0, -0.042))]
            if style != "long":
                ends[1] = self.at("head", (0, -0.065 if style == "bob" else -0.05, -0.02))
            radii, deep = ((0.064, 0.066), 0.62) if style == "long" else ((0.064, 0.07), 0.8)
            cut = _cut(self.frames["head"][:, 2], self.at("head", (0, 0, 0.012)))
            more = {"squash": (1.0, 1.0, deep), "clips": (cut,)}
            self.add(*ends, radii, "head", "hair", "head", **more)
        elif style == "ponytail":
            self.head((0, 0.03, -0.068), (0, -0.04, -0.1), (0.015, 0.024), "hair")
            self.head((0, -0.04, -0.1), (0, -0.13, -0.088), (0.024, 0.007), "hair")
        elif style == "bun":
            self.head((0, 0.068, -0.045), (0, 0.068, -0.045), (0.032, 0.032), "hair")

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
            self.add(at(upper, a), at(lower, b), (ra, rb), upper, "trunk", squash=FLAT)
        right, left = self.points["RSho"], self.points["LSho"]
        self.add(right, left, (0.029, 0.029), "chest", "trunk")
        nape = at("neck", (0, 0.022, -0.005), "chest")
        for side in (right, left):
            self.add(nape, 0.75 * side + 0.25 * nape, (0.026, 0.031), "chest", "trunk")
        if self.who.top.collar:
            low, high = at("neck", (0, -0.004, 0.002), "chest"), at("neck", (0, 0.03, 0.0), "chest")
            chest = self.frames["chest"]
            tilted = chest[:, 1] * 0.9 + chest[:, 2] * 0.44  # lower at the throat
            cut = _cut(tilted, at("neck", (0, 0.02, 0), "chest"))
            self.add(low, high, (0.047, 0.04), "chest", "collar", clips=(cut,))
        for sign in (-1, 1):
            seat = 0.92 * hips / 0.094
            glute = at("pelvis", (sign * 0.034 * seat, -0.024, -0.022 * seat))
            self.add(glute, glute, (0.044 * seat, 0.044 * seat), "pelvis", "trunk")
        if body.bust:
            ends = (at("chest", (x, -0.008, 0.027)) for x in (-0.034, 0.034))
            self.add(*ends, (0.036 * body.bust, 0.036 * body.bust), "chest", "trunk")
        self._shirt_tail(waist, hips)

    def _shirt_tail(self, waist: float, hips: float) -> None:
        top, bottom = self.who.top, self.who.bottom
        tucked = top.tucked or bottom.kind == "skirt"
        if bottom.kind == "dress" or (tucked and top.open_front is None):
            return
        size = 1.17 if bottom.kind == "skirt" else 1.08  # a jacket hangs over the skirt
        hem = -0.075 if top.open_front else -0.04
        cut = _cut(-self.frames["pelvis"][:, 1], self.at("pelvis", (0, hem, 0)))
        more = {"squash": (1.0, 1.0, 0.76), "clips": (cut,)}
        high, middle = self.at("waist", (0, 0.02, 0), "pelvis"), self.at("pelvis", (0, 0.015, 0))
        self.add(high, middle, (waist * size, hips * size), "pelvis", "tail", **more)
        radii = (hips * size, hips * (size + 0.04))
        self.add(middle, self.at("pelvis", (0, hem - 0.04, 0)), radii, "pelvis", "tail", **more)

    def _arm(self, side: str) -> None:
        points, bulk = self.points, self.who.body.bulk**0.5 * (0.92 if self.who.woman else 1.08)
        shoulder, elbow, wrist = (points[side + joint] for joint in ("Sho", "Elb", "Wri"))
        fore = side + "Fore"
        frames = [side + "Upper", fore, fore]
        path = [shoulder, elbow, 0.7 * elbow + 0.3 * wrist, wrist]
        radii = [0.03 * bulk, 0.0245 * bulk, 0.026 * bulk, 0.0165 * bulk]
        self.tube(path, radii, 1.0, frames, "arm", margin=0.02)
        sleeve = self.who.top.sleeve
        if sleeve:
            extra = 0.006 if sleeve == 1.0 else 0.008
            radii = [r * bulk + extra for r in (0.027, 0.0275, 0.018)]
            self.tube(path, [0.033 * bulk, *radii], sleeve * ARM_LENGTH, frames, "sleeve")
        palm, tips, thumb = (
            self.at(side + "Wri", offset, fore)
            for offset in ((0, -0.038, 0.004), (0, -0.082, 0.008), (0, -0.05, 0.026))
        )
        hand = {"squash": (0.6, 1.0, 1.0), "offset": -ARM_LENGTH / 2, "origin": side + "Elb"}
        for a, b, radii in (
            (wrist, palm, (0.0155, 0.021)),
            (palm, tips, (0.02, 0.009)),
            (wrist, thumb, (0.012, 0.0075)),
        ):
            self.add(a, b, radii, fore, "hand", side + "Hand", **hand)

    def _leg(self, side: str) -> None:
        points, bulk = self.points, (self.who.body.bulk * self.who.body.hips) ** 0.8
        hip, knee, ankle = (points[side + joint] for joint in ("Hip", "Knee", "Ank"))
        frames = [side + "Thigh", side + "Thigh", side + "Shin", side + "Shin"]
        path = [hip, 0.5 * (hip + knee), knee, 0.68 * knee + 0.32 * ankle, ankle]
        radii = [r * bulk for r in (0.043, 0.046, 0.034, 0.0365, 0.021)]
        self.tube(path, radii, 1.0, frames, "leg", margin=0.03)
        bottom = self.who.bottom
        if bottom.kind == "trousers":
            low = [
                r + f * bottom.flare for r, f in ((0.039, 0.014), (0.0395, 0.012), (0.027, 0.028))
            ]
            radii = [r * bulk for r in (0.0435, 0.049, *low)]
            covered = bottom.length * LEG_LENGTH + (0.012 if bottom.length == 1.0 else 0.0)
            self.tube(path, radii, covered, frames, "trousers", margin=0.01)

    def _foot(self, side: str) -> None:
        foot, ankle, shin = side + "Foot", side + "Ank", side + "Shin"
        heel, toe, instep = (
            self.at(ankle, offset, foot)
            for offset in ((0, -0.02, -0.014), (0, -0.028, 0.092), (0, -0.022, 0.05))
        )
        shoe, start = ("shoe", foot, ankle), self.points[ankle]
        self.add(heel, toe, (0.028, 0.021), foot, *shoe, squash=(1.0, 0.8, 1.0))
        self.add(start, instep, (0.0245, 0.018), foot, *shoe)
        if self.who.boots:
            top = 0.45 * self.points[side + "Knee"] + 0.55 * start
            cut = _cut(self.frames[shin][:, 1], top)
            self.add(start, top, (0.029, 0.043), shin, *shoe, clips=(cut,))

    def _skirt(self) -> None:
        body, bottom, pelvis = self.who.body, self.who.bottom, self.frames["pelvis"]
        hips = 0.094 * body.hips * body.bulk
        lows, thigh, length = [], LEG_LENGTH / 2, bottom.length * LEG_LENGTH
        for side in "RL":  # the points of both legs where the skirt ends
            hip, knee, ankle = (self.points[side + joint] for joint in ("Hip", "Knee", "Ank"))
            below = knee + (ankle - knee) * min((length - thigh) / thigh, 1.0)
            lows.append(hip + (knee - hip) * (length / thigh) if length <= thigh else below)
        right, left = lows
        spread = np.abs(pelvis.T @ (right - left)) / self.h / 2
        width = max(spread[0] + 0.055, hips * 1.05) + 0.1 * bottom.flare * bottom.length
        depth = max(spread[2] + 0.062, hips * 0.66) + 0.08 * bottom.flare * bottom.length
        hem = 0.5 * (right + left)
        top, middle = self.at("waist", (0, -0.015, 0)), self.at("pelvis", (0, -0.02, 0))
        skirt, waist = ("pelvis", "skirt", "skirt"), 0.083 * body.waist * body.bulk
        cut = _cut(pelvis[:, 1], self.at("pelvis", (0, 0.058, 0)))
        more = {"squash": (1.0, 1.0, 0.76), "clips": (cut,)}
        self.add(top, middle, (waist, hips * 1.08), *skirt, **more)
        axis = (hem - middle) / np.linalg.norm(hem - middle)
        squash = (1.0, 1.0, float(np.clip(depth / width, 0.76, 1.3)))
        more = {"squash": squash, "clips": (_cut(axis, hem),)}
        self.add(middle, hem + axis * 0.02 * self.h, (hips * 1.08, width), *skirt, **more)
