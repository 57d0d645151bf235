"""The 18-joint OpenPose-COCO skeleton: joints and limbs, people who have them, and the drawing.

Keypoints are (..., 18, 2) arrays of (y, x) pairs in the order of :data:`JOINTS`; a joint is missing
when either coordinate is :data:`MISSING`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np

from util.errors import UserError

JOINTS = (
    "nose", "neck",
    "right shoulder", "right elbow", "right wrist",
    "left shoulder", "left elbow", "left wrist",
    "right hip", "right knee", "right ankle",
    "left hip", "left knee", "left ankle",
    "right eye", "left eye", "right ear", "left ear",
)  # fmt: skip
MISSING = -1
MIN_JOINTS = 6  # fewer do not show a pose
BACKDROP = 24  # grey level behind a skeleton that comes without a photo

# Pairs of joints joined by a line in drawings.
LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10),
    (1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip


Array = TypeVar("Array")  # a NumPy array or a torch tensor


def present(keypoints: Array) -> Array:
    """Boolean mask (..., J) of joints whose two coordinates (..., J, 2) are both given."""
    return (keypoints[..., 0] != MISSING) & (keypoints[..., 1] != MISSING)


def in_frame(
    keypoints: Sequence | np.ndarray,  # (..., J, 2)
    frame: tuple[float, float],  # (h, w) that they live in
    size: tuple[float, float],
) -> np.ndarray:
    """The same joints in a frame of ``size`` (h, w), float64; a missing one is (-1, -1)."""
    points = np.asarray(keypoints, dtype=np.float64)
    # Multiplied first: the product of whole numbers is exact.
    moved = points if tuple(frame) == tuple(size) else points * np.array(size) / np.array(frame)
    return np.where(present(points)[..., None], moved, float(MISSING))


@dataclass(frozen=True)
class Person:
    """One person that an estimator found."""

    keypoints: np.ndarray  # (18, 2) float64, (y, x) pixels of the picture, -1 = missing
    scores: np.ndarray  # (18,), 0 where missing

    def __post_init__(self) -> None:
        shapes = np.shape(self.keypoints), np.shape(self.scores)
        if shapes != ((len(JOINTS), 2), (len(JOINTS),)):
            raise UserError(
                f"an estimator made a Person with keypoints and scores of the shapes {shapes}; "
                "expected (18, 2) and (18,): util.keypoint_formats converts other joint sets"
            )


PERSON_RULES: dict[str, Callable[[list[Person]], Person]] = {
    # a complete, certain person has the highest sum
    "best": lambda people: max(people, key=lambda person: person.scores.sum()),
    "first": lambda people: people[0],  # the published rule of MAGPT
}


def choose_person(
    people: list[Person],
    where: str,  # names the picture in messages
    rule: str = "best",
    min_joints: int = MIN_JOINTS,
) -> Person:
    """The one person that a transfer works on; UserError when nobody usable is there."""
    if not people:
        raise UserError(
            f"{where}: no person was found; use a picture in which one person is clearly visible"
        )
    person = PERSON_RULES[rule](people)
    check_joint_count(person.keypoints, where, min_joints)
    return person


def check_joint_count(keypoints: np.ndarray, where: str, min_joints: int = MIN_JOINTS) -> None:
    """UserError that begins with ``where`` when fewer joints than needed are there."""
    seen = present(np.asarray(keypoints))
    if seen.sum() < min_joints:
        missing = ", ".join(np.array(JOINTS)[~seen])
        raise UserError(
            f"{where}: only {seen.sum()} of 18 joints were found, at least {min_joints} are needed "
            f"(missing: {missing}); use a picture that shows more of the person"
        )


SIDEWAYS = 0.3  # of the trunk's length: narrower shoulders and hips are seen from the side


def facing(keypoints: np.ndarray) -> str | None:
    """Which way a person (18, 2) looks: front, back, left or right of the picture.

    None when a shoulder or hip is missing, or nothing of the head on a person seen from the side.
    """
    trunk = keypoints[[2, 5, 8, 11]]  # right and left shoulder, right and left hip
    if not present(trunk).all():
        return None
    width = float((trunk[1, 1] - trunk[0, 1] + trunk[3, 1] - trunk[2, 1]) / 2)
    shoulders, hips = trunk[:2].mean(axis=0), trunk[2:].mean(axis=0)
    if abs(width) >= SIDEWAYS * float(np.hypot(*(hips - shoulders))):
        return "front" if width > 0 else "back"
    head = keypoints[[0, 14, 15]]  # nose and eyes lie before the shoulders
    if not present(head).any():
        return None
    return "right" if head[present(head)][:, 1].mean() > shoulders[1] else "left"


def hue(index: int, count: int) -> tuple[int, int, int]:
    """The RGB colour of joint, limb or map ``index`` of ``count``: around the colour circle."""
    pixel = np.uint8([[[int(180 * index / count), 255, 255]]])
    return tuple(int(v) for v in cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0])


def draw_skeleton(
    image: np.ndarray,  # (H, W, 3) uint8
    keypoints: Sequence | np.ndarray,  # (18, 2), (y, x) in the image's frame
) -> np.ndarray:
    """A copy of ``image`` with the present joints and limbs drawn over it, line width by image
    size."""
    canvas = np.ascontiguousarray(image).copy()
    points = np.asarray(keypoints, dtype=np.float64)
    visible = present(points) & np.isfinite(points).all(axis=1)
    width = max(1, round(min(canvas.shape[:2]) / 64))
    pixels = np.nan_to_num(points[:, ::-1].clip(-10_000, 10_000)).astype(int).tolist()
    for i, (a, b) in enumerate(LIMBS):
        if visible[a] and visible[b]:
            cv2.line(canvas, pixels[a], pixels[b], hue(i, len(LIMBS)), width, cv2.LINE_AA)
    for joint in np.flatnonzero(visible):
        cv2.circle(canvas, pixels[joint], width, hue(joint, len(JOINTS)), -1, cv2.LINE_AA)
    return canvas


def skeleton_picture(
    keypoints: Sequence | np.ndarray,  # (18, 2), (y, x) in ``frame``
    size: tuple[int, int],  # (h, w) of the picture
    frame: tuple[int, int] | None = None,  # (h, w); default: the size
) -> np.ndarray:
    """A skeleton in a dark picture, uint8 (h, w, 3)."""
    points = in_frame(keypoints, frame or size, size)
    return draw_skeleton(np.full((*size, 3), BACKDROP, dtype=np.uint8), points)
