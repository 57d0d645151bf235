"""The parts a synthetic person is made of, and the builder that hangs them on a skeleton."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.synthetic_identity import Identity
from data.synthetic_pose import Skeleton

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
