"""Poses of synthetic people and the 3-D skeleton they produce (forward kinematics).

World axes: X to the right of the picture, Y up, Z towards the viewer, metres; the ground is Y = 0.
A frame is a 3x3 matrix whose columns are the person's left, up along the part, and the front.
"""

from collections.abc import Callable
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
    if view == "side":
        yaw = rng.choice((-1.0, 1.0)) * (np.pi / 2 + rng.uniform(-0.35, 0.25))
    else:
        yaw = np.pi * (view == "back") + np.clip(rng.normal(0.0, 0.28), -0.6, 0.6)
    if rng.random() < 0.3:
        arms, legs = walking(rng.uniform(0, 2 * np.pi))
    else:
        names, weights = list(ARMS), np.array([3, 2, 3, 2, 1.5, 1, 1.5, 1.5, 2, 1.5, 1, 1])
        chances = weights / weights.sum()
        right = names[rng.choice(len(names), p=chances)]
        left = right if rng.random() < 0.5 else names[rng.choice(len(names), p=chances)]
        legs = LEGS[str(rng.choice(list(LEGS), p=(0.32, 0.18, 0.22, 0.14, 0.08, 0.06)))]
        arms, legs = (ARMS[right], ARMS[left]), legs[::-1] if rng.random() < 0.5 else legs
    return Pose(
        arms=_varied(rng, arms, 0.08, 0.05),
        legs=_varied(rng, legs, 0.03, 0.0),
        close=view != "full" and rng.random() < 0.1,
        yaw=float(yaw),
        lean=rng.normal(0.02, 0.05),
        twist=rng.normal(0.0, 0.1),
        head_yaw=float(np.clip(rng.normal(0.0, 0.25), -0.6, 0.6)),
        head_pitch=rng.normal(0.0, 0.08),
        zoom=rng.uniform(0.95, 1.05),
        shift=(rng.uniform(-0.04, 0.04), rng.uniform(-0.01, 0.015)),
    )


def _varied(rng: np.random.Generator, limbs: tuple, amount: float, least_bend: float) -> tuple:
    """Angles of both limbs with small random changes."""
    angles = [np.add(limb, rng.normal(0, amount, 4)).tolist() for limb in limbs]
    return tuple((*three, max(bend, least_bend)) for *three, bend in angles)


def walking(phase: float) -> tuple[tuple, tuple]:
    """Angles of a walking cycle; ``phase`` 0 has the right leg in front."""
    legs, arms = [], []
    for offset in (0.0, np.pi):
        swing = np.cos(phase + offset)
        forward = max(np.sin(phase + offset + np.pi), 0.0)  # the leg that moves forward bends
        legs.append((0.05 + 0.48 * swing, 0.03, 0.1, 0.1 + 0.55 * forward))
        arms.append((-0.55 * swing, 0.14, 0.3, 0.35 + 0.15 * max(-swing, 0.0)))
    return tuple(arms), tuple(legs)


# Movements: poses over time, which goes from 0 to 1 and round again.

RELAXED, STANDING = ARMS["relaxed"], LEGS["stand"]
SIDEWAYS, THREE_QUARTERS = 1.2, 0.75  # radians away from the front


def _pose(yaw: float, arms=(RELAXED, RELAXED), legs=STANDING, lean: float = 0.02) -> Pose:
    arms, legs = (tuple(tuple(map(float, limb)) for limb in pair) for pair in (arms, legs))
    return Pose(yaw=yaw, lean=lean, arms=arms, legs=legs)


def _ease(share: float) -> float:
    """0 to 1 with a soft start and a soft end."""
    return float(0.5 - 0.5 * np.cos(np.pi * np.clip(share, 0, 1)))


def _mixed(a: tuple[float, ...], b: tuple[float, ...], share: float) -> np.ndarray:
    return (1 - share) * np.array(a) + share * np.array(b)


def walk(time: float) -> Pose:
    """Two steps on the spot."""
    return _pose(SIDEWAYS, *walking(2 * np.pi * time), lean=0.05)


def wave(time: float) -> Pose:
    """The right arm is raised, waves three times and sinks."""
    raised = _ease(time / 0.2) * _ease((1 - time) / 0.2)
    swing = 0.5 * np.sin(2 * np.pi * 3 * np.clip((time - 0.2) / 0.6, 0, 1))
    up = (0.1, 1.75 + 0.25 * swing, -1.5, 1.25 + swing)
    return _pose(0.1, (_mixed(RELAXED, up, raised), RELAXED))


def turn(time: float) -> Pose:
    """Once round."""
    return _pose(2 * np.pi * time)


def sit(time: float) -> Pose:
    """Down on a seat that is not there, and up again."""
    down = _ease(time / 0.4) * _ease((1 - time) / 0.4)
    legs = [_mixed(leg, (1.4, 0.12, 0.15, 1.4), down) for leg in STANDING]
    arms = [_mixed(RELAXED, (0.55, 0.1, 0.3, 0.7), down)] * 2
    return _pose(THREE_QUARTERS, arms, legs, lean=0.02 + 0.35 * np.sin(np.pi * down))


MOVEMENTS: dict[str, Callable[[float], Pose]] = {f.__name__: f for f in (walk, wave, turn, sit)}


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
    for side, sign, arm, leg in zip("RL", (-1.0, 1.0), pose.arms, pose.legs, strict=True):
        _place_arm(points, frames, side, sign, arm, body)
        _place_leg(points, frames, side, sign, leg, body)
    ground = min(points[side + "Toe"][1] for side in "RL") - 0.012 * h
    ground = min(ground, *(points[side + "Ank"][1] - 0.042 * h for side in "RL"))
    for name in points:
        points[name] = points[name] - np.array([0.0, ground, 0.0])
    return Skeleton(points, frames)


def _swung(parent: np.ndarray, abduction: float, flexion: float, twist: float) -> np.ndarray:
    """Frame of a limb that hangs from a part of the trunk."""
    return parent @ rotation("z", abduction) @ rotation("x", -flexion) @ rotation("y", twist)


def _place_arm(points, frames, side: str, sign: float, angles, body: Body) -> None:
    flexion, abduction, twist, bend = angles
    h = body.height
    # a raised arm lifts its shoulder
    lift = 0.025 * h * np.clip((max(abduction, flexion) - 0.8) / 1.6, 0.0, 1.0)
    offset = (sign * 0.1 * h * body.shoulders, -0.014 * h + lift, 0.0)
    points[side + "Sho"] = points["neck"] + frames["chest"] @ offset
    upper = _swung(frames["chest"], sign * abduction, flexion, -sign * twist)
    lower = upper @ rotation("x", -bend)
    frames[side + "Upper"], frames[side + "Fore"] = upper, lower
    points[side + "Elb"] = points[side + "Sho"] - upper[:, 1] * 0.172 * h
    points[side + "Wri"] = points[side + "Elb"] - lower[:, 1] * 0.148 * h


def _place_leg(points, frames, side: str, sign: float, angles, body: Body) -> None:
    flexion, abduction, turn, bend = angles
    h, pelvis = body.height, frames["pelvis"]
    offset = (sign * 0.05 * h * body.hips * body.bulk, -0.01 * h, 0.0)
    points[side + "Hip"] = points["pelvis"] + pelvis @ offset
    thigh = _swung(pelvis, sign * abduction, flexion, sign * turn)
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
