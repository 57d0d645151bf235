"""Movements of synthetic people: poses over time, seen by a camera that stands still."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from data.synthetic.identity import Body
from data.synthetic.pose import ARMS, LEGS, Pose, solve, walking
from data.synthetic.render import Camera, project_joints

RELAXED, STANDING = ARMS["relaxed"], LEGS["stand"]
SIDEWAYS, THREE_QUARTERS = 1.2, 0.75  # radians away from the front
MARGINS = (0.06, 0.04, 0.08)  # of the height above and below the figure, of the width beside it


def _pose(yaw: float, arms=(RELAXED, RELAXED), legs=STANDING, lean: float = 0.02) -> Pose:
    arms, legs = (tuple(tuple(map(float, limb)) for limb in pair) for pair in (arms, legs))
    return Pose(yaw=yaw, lean=lean, arms=arms, legs=legs)


def _ease(share: float) -> float:
    """0 to 1 with a soft start and a soft end."""
    return float(0.5 - 0.5 * np.cos(np.pi * np.clip(share, 0, 1)))


def _mixed(a: tuple[float, ...], b: tuple[float, ...], share: float) -> tuple[float, ...]:
    return tuple(float(v) for v in (1 - share) * np.array(a) + share * np.array(b))


def walk(time: float) -> Pose:
    """Two steps on the spot; ``time`` 0 to 1."""
    arms, legs = walking(2 * np.pi * time)
    return _pose(SIDEWAYS, arms, legs, lean=0.05)


def wave(time: float) -> Pose:
    """The right arm is raised, waves three times and sinks; ``time`` 0 to 1."""
    raised = _ease(time / 0.2) * _ease((1 - time) / 0.2)
    swing = 0.5 * np.sin(2 * np.pi * 3 * np.clip((time - 0.2) / 0.6, 0, 1))
    up = (0.1, 1.75 + 0.25 * swing, -1.5, 1.25 + swing)
    return _pose(0.1, (_mixed(RELAXED, up, raised), RELAXED))


def turn(time: float) -> Pose:
    """Once round; ``time`` 0 to 1."""
    return _pose(2 * np.pi * time)


def sit(time: float) -> Pose:
    """Down on a seat that is not there, and up again; ``time`` 0 to 1."""
    down = _ease(time / 0.4) * _ease((1 - time) / 0.4)
    seated = (1.4, 0.12, 0.15, 1.4)
    legs = tuple(_mixed(leg, seated, down) for leg in STANDING)
    arms = tuple(_mixed(RELAXED, (0.55, 0.1, 0.3, 0.7), down) for _ in range(2))
    return _pose(THREE_QUARTERS, arms, legs, lean=0.02 + 0.35 * np.sin(np.pi * down))


MOVEMENTS: dict[str, Callable[[float], Pose]] = {
    "walk": walk,
    "wave": wave,
    "turn": turn,
    "sit": sit,
}


def movement_keypoints(
    body: Body,
    movement: str,  # a key of MOVEMENTS
    count: int,
    size: tuple[int, int],  # (h, w) pixels
) -> np.ndarray:
    """``count`` poses of one round of a movement, float64 (count, 18, 2), (y, x).

    The last pose leads on to the first. The whole movement fits into the picture, feet near its
    lower edge. Joints behind the body are given, the parts of an averted face are -1.
    """
    poses = [MOVEMENTS[movement](i / count) for i in range(count)]
    skeletons = [solve(body, pose) for pose in poses]
    points = np.stack([list(skeleton.points.values()) for skeleton in skeletons])
    low, high = points.min(axis=(0, 1)), points.max(axis=(0, 1))
    above, below, beside = MARGINS
    tall, wide = high[1] + 0.04 * body.height, high[0] - low[0]
    scale = min((1 - above - below) * size[0] / tall, (1 - 2 * beside) * size[1] / wide)
    middle = size[1] / 2 - scale * (low[0] + high[0]) / 2
    camera = Camera(size, scale, ((1 - below) * size[0], middle))
    return np.stack([project_joints(skeleton, camera, body.height) for skeleton in skeletons])
