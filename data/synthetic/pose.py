"""Poses of synthetic people and the 3-D skeleton they produce (forward kinematics).

World axes: X to the right of the picture, Y up, Z towards the viewer, metres; the ground is Y = 0.
A frame is a 3x3 matrix whose columns are the person's left, up along the part, and the front.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.synthetic.identity import Body

VIEWS = ("front", "side", "back", "full")
CAMERA_PITCH = 0.06

# flexion forward, abduction outwards, inward twist of the bending plane, elbow bend (radians)
ARMS: dict[str, tuple[float, float, float, float]] = {
    "relaxed": (0.05, 0.15, 0.2, 0.25),
    "apart": (0.0, 0.55, 0.1, 0.25),
    "hip": (-0.25, 0.78, 1.4, 1.75),
    "raised": (0.1, 2.6, -0.6, 0.35),
    "wide": (0.0, 1.2, 0.0, 0.25),
    "forward": (1.15, 0.1, 0.2, 0.35),
    "head": (0.1, 2.0, -1.5, 2.2),
    "wave": (0.1, 1.15, -1.5, 1.6),
    "pocket": (-0.2, 0.35, 0.9, 0.65),
    "folded": (0.45, 0.15, 1.05, 1.65),
    "behind": (-0.55, 0.25, 1.2, 0.9),
    "phone": (0.5, 0.2, 0.3, 2.1),
}
# flexion, abduction, turn-out, knee bend of (right leg, left leg)
LEGS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "stand": ((0.0, 0.07, 0.2, 0.03), (0.0, 0.07, 0.2, 0.03)),
    "wide": ((0.0, 0.28, 0.3, 0.05), (0.0, 0.28, 0.3, 0.05)),
    "ease": ((0.0, 0.05, 0.15, 0.02), (0.25, 0.12, 0.45, 0.45)),
    "step": ((0.35, 0.03, 0.1, 0.1), (-0.28, 0.03, 0.1, 0.2)),
    "cross": ((0.12, -0.1, 0.2, 0.05), (-0.05, -0.02, 0.2, 0.08)),
    "lift": ((0.0, 0.05, 0.1, 0.05), (0.75, 0.08, 0.15, 1.15)),
}


@dataclass(frozen=True)
class Pose:
    """One posture seen from one side; angles in radians, ``shift`` in picture sizes."""

    view: str = "full"
    action: str = ""
    yaw: float = 0.0
    lean: float = 0.0
    twist: float = 0.0
    head_yaw: float = 0.0
    head_pitch: float = 0.0
    arms: tuple[tuple[float, ...], tuple[float, ...]] = (ARMS["relaxed"],) * 2  # right, left
    legs: tuple[tuple[float, ...], tuple[float, ...]] = LEGS["stand"]  # right, left
    zoom: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    close: bool = False


@dataclass(frozen=True)
class Skeleton:
    """Joint positions (3,) in metres and part frames (3, 3) by name."""

    points: dict[str, np.ndarray]
    frames: dict[str, np.ndarray]


def sample_pose(rng: np.random.Generator, view: str | None = None) -> Pose:
    """Draw a pose, of the given view (one of :data:`VIEWS`) if there is one."""
    if view is None:
        view = str(rng.choice(VIEWS, p=(0.28, 0.24, 0.26, 0.22)))
    turn = {"front": 0.0, "full": 0.0, "back": np.pi}.get(view)
    if turn is None:
        yaw = float(rng.choice((-1.0, 1.0)) * (np.pi / 2 + rng.uniform(-0.35, 0.25)))
    else:
        yaw = float(turn + np.clip(rng.normal(0.0, 0.28), -0.6, 0.6))
    action, arms, legs = _posture(rng)
    close = bool(view != "full" and rng.random() < 0.1)
    return Pose(
        view=view,
        action=action,
        yaw=yaw,
        lean=float(rng.normal(0.02, 0.05)),
        twist=float(rng.normal(0.0, 0.1)),
        head_yaw=float(np.clip(rng.normal(0.0, 0.25), -0.6, 0.6)),
        head_pitch=float(rng.normal(0.0, 0.08)),
        arms=arms,
        legs=legs,
        zoom=float(rng.uniform(0.95, 1.05)),
        shift=(float(rng.uniform(-0.04, 0.04)), float(rng.uniform(-0.01, 0.015))),
        close=close,
    )


def _posture(rng: np.random.Generator) -> tuple[str, tuple, tuple]:
    """An action's name and its arm and leg angles with small random variation."""
    if rng.random() < 0.3:
        action, (arms, legs) = "walk", walking(float(rng.uniform(0, 2 * np.pi)))
    else:
        names = list(ARMS)
        weights = np.array([3, 2, 3, 2, 1.5, 1, 1.5, 1.5, 2, 1.5, 1, 1])
        right = names[rng.choice(len(names), p=weights / weights.sum())]
        left = (
            right
            if rng.random() < 0.5
            else names[rng.choice(len(names), p=weights / weights.sum())]
        )
        stance = str(rng.choice(list(LEGS), p=(0.32, 0.18, 0.22, 0.14, 0.08, 0.06)))
        action, arms, legs = f"{right}-{left}-{stance}", (ARMS[right], ARMS[left]), LEGS[stance]
        legs = legs[::-1] if rng.random() < 0.5 else legs
    arms = tuple(tuple(float(a) for a in np.add(arm, rng.normal(0, 0.08, 4))) for arm in arms)
    legs = tuple(tuple(float(a) for a in np.add(leg, rng.normal(0, 0.03, 4))) for leg in legs)
    arms = tuple((*arm[:3], max(arm[3], 0.05)) for arm in arms)
    legs = tuple((*leg[:3], max(leg[3], 0.0)) for leg in legs)
    return action, arms, legs


def walking(phase: float) -> tuple[tuple, tuple]:
    """Angles of a walking cycle; ``phase`` 0 has the right leg in front."""
    legs, arms = [], []
    for offset in (0.0, np.pi):
        swing = np.cos(phase + offset)
        bend = 0.1 + 0.55 * max(
            np.sin(phase + offset + np.pi), 0.0
        )  # the leg that moves forward bends
        legs.append((0.05 + 0.48 * swing, 0.03, 0.1, bend))
        arms.append((-0.55 * swing, 0.14, 0.3, 0.35 + 0.15 * max(-swing, 0.0)))
    return tuple(arms), tuple(legs)


def rotation(axis: str, angle: float) -> np.ndarray:
    """Right-handed rotation matrix (3, 3) about the ``x``, ``y`` or ``z`` axis."""
    c, s = np.cos(angle), np.sin(angle)
    first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = c
    matrix[first, second], matrix[second, first] = -s, s
    return matrix


def solve(body: Body, pose: Pose) -> Skeleton:
    """Place every joint of the body in the pose, feet on the ground."""
    h = body.height
    points: dict[str, np.ndarray] = {"pelvis": np.zeros(3)}
    frames: dict[str, np.ndarray] = {}
    root = rotation("x", CAMERA_PITCH) @ rotation("y", pose.yaw)
    frames["pelvis"] = root @ rotation("y", -0.5 * pose.twist)
    frames["chest"] = root @ rotation("y", 0.5 * pose.twist) @ rotation("x", pose.lean)
    frames["waist"] = root @ rotation("x", 0.5 * pose.lean)
    points["waist"] = points["pelvis"] + frames["waist"] @ (0, 0.08 * h, 0)
    points["chest"] = points["waist"] + frames["chest"] @ (0, 0.125 * h, 0)
    points["neck"] = points["chest"] + frames["chest"] @ (0, 0.08 * h, -0.005 * h)
    frames["head"] = frames["chest"] @ rotation("y", pose.head_yaw) @ rotation("x", pose.head_pitch)
    points["skull"] = points["neck"] + frames["chest"] @ (0, 0.045 * h, 0.008 * h)
    points["head"] = points["skull"] + frames["head"] @ (0, 0.068 * h, 0.01 * h)
    for side, sign in (("R", -1.0), ("L", 1.0)):
        index = 0 if side == "R" else 1
        _place_arm(points, frames, side, sign, pose.arms[index], body)
        _place_leg(points, frames, side, sign, pose.legs[index], body)
    ground = min(points[side + "Toe"][1] for side in "RL") - 0.012 * h
    ground = min(ground, *(points[side + "Ank"][1] - 0.042 * h for side in "RL"))
    for name in points:
        points[name] = points[name] - np.array([0.0, ground, 0.0])
    return Skeleton(points, frames)


def _place_arm(
    points, frames, side: str, sign: float, angles: tuple[float, ...], body: Body
) -> None:
    flexion, abduction, twist, bend = angles
    h, chest = body.height, frames["chest"]
    # a raised arm lifts its shoulder
    lift = 0.025 * h * np.clip((max(abduction, flexion) - 0.8) / 1.6, 0.0, 1.0)
    offset = (sign * 0.1 * h * body.shoulders, -0.014 * h + lift, 0.0)
    points[side + "Sho"] = points["neck"] + chest @ offset
    upper = (
        chest
        @ rotation("z", sign * abduction)
        @ rotation("x", -flexion)
        @ rotation("y", -sign * twist)
    )
    lower = upper @ rotation("x", -bend)
    frames[side + "Upper"], frames[side + "Fore"] = upper, lower
    points[side + "Elb"] = points[side + "Sho"] - upper[:, 1] * 0.172 * h
    points[side + "Wri"] = points[side + "Elb"] - lower[:, 1] * 0.148 * h


def _place_leg(
    points, frames, side: str, sign: float, angles: tuple[float, ...], body: Body
) -> None:
    flexion, abduction, turn, bend = angles
    h, pelvis = body.height, frames["pelvis"]
    points[side + "Hip"] = points["pelvis"] + pelvis @ (
        sign * 0.05 * h * body.hips * body.bulk,
        -0.01 * h,
        0.0,
    )
    thigh = (
        pelvis
        @ rotation("z", sign * abduction)
        @ rotation("x", -flexion)
        @ rotation("y", sign * turn)
    )
    shin = thigh @ rotation("x", bend)
    frames[side + "Thigh"], frames[side + "Shin"] = thigh, shin
    points[side + "Knee"] = points[side + "Hip"] - thigh[:, 1] * 0.235 * h
    points[side + "Ank"] = points[side + "Knee"] - shin[:, 1] * 0.235 * h
    front = shin[:, 2] * (1.0, 0.3, 1.0) + pelvis[:, 1] * -0.05  # a standing foot is almost level
    front /= np.linalg.norm(front)
    left = np.cross(shin[:, 1], front)
    left /= np.linalg.norm(left)
    frames[side + "Foot"] = np.stack([left, np.cross(front, left), front], axis=1)
    points[side + "Toe"] = points[side + "Ank"] + frames[side + "Foot"] @ (0, -0.03 * h, 0.095 * h)
