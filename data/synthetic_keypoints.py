"""Where the 18 OpenPose-COCO joints of a rendered person are, and which of them can be seen.

Rule: a joint outside the picture is missing. Neck, shoulders and hips in the picture are always
given (a detector finds them from the outline). Every other joint is missing when another part of
the body lies clearly in front of it; a skirt does not hide its own legs. The joints of the face are
also missing when their side of the head is turned away.
"""

from __future__ import annotations

import numpy as np

from data.synthetic_parts import Part
from data.synthetic_pose import Skeleton
from data.synthetic_render import NOTHING, Camera, Surface

# nose, neck, then these, then right eye, left eye, right ear, left ear
LIMB_JOINTS = {
    "RSho": 2, "RElb": 3, "RWri": 4, "LSho": 5, "LElb": 6, "LWri": 7,
    "RHip": 8, "RKnee": 9, "RAnk": 10, "LHip": 11, "LKnee": 12, "LAnk": 13,
}  # fmt: skip
# parts that belong to a joint: they never hide it
OWN = {
    "Elb": ("Upper", "Fore", "Hand"), "Wri": ("Fore", "Hand"),
    "Knee": ("Thigh", "Shin"), "Ank": ("Shin", "Foot"),
}  # fmt: skip
CLEARANCE = 0.02  # of the body height: how far in front a part must lie to hide a joint


def locate(
    skeleton: Skeleton, parts: list[Part], surface: Surface, camera: Camera, height: float
) -> np.ndarray:
    """Keypoints, int64 (18, 2) as (y, x) pixels, -1 for joints that are hidden or outside."""
    keypoints = np.full((18, 2), -1, np.int64)
    limbs = [part.limb for part in parts]

    def enter(index: int, point: np.ndarray, own: tuple[str, ...] | None) -> None:
        y, x = np.floor(camera.project(point)).astype(int)
        if not (0 <= y < camera.size[0] and 0 <= x < camera.size[1]):
            return
        if own is None or not _hidden(surface, limbs, camera, point, own, CLEARANCE * height):
            keypoints[index] = y, x

    enter(1, skeleton.points["neck"], None)
    for name, index in LIMB_JOINTS.items():
        side, joint = name[0], name[1:]
        own = (*(side + part for part in OWN[joint]), "skirt") if joint in OWN else None
        enter(index, skeleton.points[name], own)
    for index, (offset, facing, least) in _face(height).items():
        frame = skeleton.frames["head"]
        if (frame @ facing)[2] > least:
            enter(index, skeleton.points["head"] + frame @ offset, ("head",))
    return keypoints


def _face(h: float) -> dict[int, tuple[np.ndarray, np.ndarray, float]]:
    """Offset from the head's centre, outward direction and the least Z of it that is still seen."""
    face = {0: (np.array([0.0, -0.012, 0.066]) * h, np.array([0.0, 0.0, 1.0]), -0.05)}
    for eye, ear, sign in ((14, 16, -1.0), (15, 17, 1.0)):
        outwards = np.array([0.45 * sign, 0.0, 0.89])
        face[eye] = (np.array([sign * 0.02, 0.002, 0.051]) * h, outwards, 0.1)
        face[ear] = (np.array([sign * 0.052, -0.006, -0.006]) * h, np.array([sign, 0.0, 0.0]), -0.3)
    return face


def _hidden(surface: Surface, limbs, camera: Camera, point, own, clearance: float) -> bool:
    """Whether another part of the body is drawn clearly in front of the point."""
    factor = surface.part.shape[0] // camera.size[0]
    y, x = np.floor(camera.project(point) * factor).astype(int)
    part = surface.part[y, x]
    if part == NOTHING or limbs[part] in own:
        return False
    return bool(surface.depth[y, x] > point[2] + clearance)
