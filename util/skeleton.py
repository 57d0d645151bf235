"""The 18-joint OpenPose-COCO skeleton: its joints, its limbs, and how it is drawn.

Keypoints are (..., 18, 2) arrays of (y, x) pairs in the order of :data:`JOINTS`; a joint is missing
when either coordinate is :data:`MISSING`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import cv2
import numpy as np

JOINTS = (
    "nose", "neck",
    "right shoulder", "right elbow", "right wrist",
    "left shoulder", "left elbow", "left wrist",
    "right hip", "right knee", "right ankle",
    "left hip", "left knee", "left ankle",
    "right eye", "left eye", "right ear", "left ear",
)  # fmt: skip
MISSING = -1
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

    def pixel(joint: int) -> tuple[int, int]:
        y, x = np.clip(points[joint], -10_000, 10_000)
        return int(x), int(y)

    for i, (a, b) in enumerate(LIMBS):
        if visible[a] and visible[b]:
            cv2.line(canvas, pixel(a), pixel(b), hue(i, len(LIMBS)), width, cv2.LINE_AA)
    for joint in np.flatnonzero(visible):
        cv2.circle(canvas, pixel(joint), width, hue(joint, len(JOINTS)), -1, cv2.LINE_AA)
    return canvas


def skeleton_picture(
    keypoints: Sequence | np.ndarray,  # (18, 2), (y, x) in ``frame``
    size: tuple[int, int],  # (h, w) of the picture
    frame: tuple[int, int] | None = None,  # (h, w); default: the size
) -> np.ndarray:
    """A skeleton in a dark picture, uint8 (h, w, 3)."""
    points = np.asarray(keypoints, dtype=np.float64)
    if frame is not None and tuple(frame) != tuple(size):
        points = np.where(present(points)[:, None], points / frame * size, MISSING)
    return draw_skeleton(np.full((*size, 3), BACKDROP, dtype=np.uint8), points)
