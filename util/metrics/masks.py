"""The body mask of the Market-1501 metrics: a thick skeleton, closed with a 5x5 square."""

from __future__ import annotations

import cv2
import numpy as np
from skimage.draw import polygon

# Limb list of the PATN, GFLA and DPTN scripts, joints counted from 1.
_LIMBS = (
    "2-3 2-6 3-4 4-5 6-7 7-8 2-9 9-10 10-11 2-12 12-13 13-14 2-1 1-15 15-17 1-16 16-18 2-17 2-18 "
    "9-12 12-6 9-3 17-18"
)
LIMBS = tuple(tuple(int(end) - 1 for end in limb.split("-")) for limb in _LIMBS.split())
RADIUS = 4
CLOSING = np.ones((5, 5), np.uint8)


def body_mask(keypoints: np.ndarray, size: tuple[int, int], radius: int = RADIUS) -> np.ndarray:
    """Mask of the body of 18 keypoints in an image of ``size`` (h, w): bool (H, W).

    ``keypoints`` (18, 2) are (y, x) in the image's frame, -1 = missing. Every limb with both ends
    is a bar ``2 * radius`` px wide, every joint a disc of the pixels nearer than ``radius``; then a
    dilation and an erosion with a 5x5 square. Limbs of length 0 have no direction and no bar.
    """
    joints = np.asarray(keypoints, dtype=np.float64).round().astype(int)
    present = (joints != -1).all(axis=1)
    mask = np.zeros(size, dtype=np.uint8)
    for a, b in LIMBS:
        if present[a] and present[b]:
            _fill_bar(mask, joints[a], joints[b], radius)
    rows, columns = np.ogrid[: size[0], : size[1]]
    for y, x in joints[present]:
        mask[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = 1
    # Outside the frame there is background for the dilation and body for the erosion.
    return cv2.morphologyEx(mask, cv2.MORPH_CLOSE, CLOSING).astype(bool)


def _fill_bar(mask: np.ndarray, start: np.ndarray, end: np.ndarray, radius: int) -> None:
    length = np.linalg.norm(end - start)
    if length == 0:
        return
    direction = (end - start) / length
    normal = np.array([-direction[1], direction[0]]) * radius
    corners = np.stack([start + normal, start - normal, end - normal, end + normal])
    mask[polygon(corners[:, 0], corners[:, 1], shape=mask.shape)] = 1


def apply_mask(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) with everything outside the mask (H, W) set to 0."""
    return image * mask[..., None].astype(image.dtype)
