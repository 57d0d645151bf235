"""Keypoints, heatmaps and drawings of the 18-joint OpenPose-COCO skeleton.

Keypoints are (y, x) pairs; a joint is missing when either coordinate is -1. The frame of the
coordinates (``annotation_size``) may differ from the image size the network sees (``load_size``);
sizes are (h, w).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch

JOINTS = (
    "nose", "neck",
    "right shoulder", "right elbow", "right wrist",
    "left shoulder", "left elbow", "left wrist",
    "right hip", "right knee", "right ankle",
    "left hip", "left knee", "left ankle",
    "right eye", "left eye", "right ear", "left ear",
)  # fmt: skip
MISSING = -1
SIGMA = 6.0  # pixels of the load size

# Pairs of joints joined by a line in drawings.
LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10),
    (1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip


def present(keypoints: torch.Tensor | np.ndarray) -> torch.Tensor | np.ndarray:
    """Boolean mask (..., J) of joints whose two coordinates (..., J, 2) are both given."""
    return (keypoints[..., 0] != MISSING) & (keypoints[..., 1] != MISSING)


def scale_keypoints(
    keypoints: torch.Tensor,  # (..., J, 2) in annotation_size
    annotation_size: tuple[int, int],
    load_size: tuple[int, int],
) -> torch.Tensor:
    """Coordinates in ``load_size``, as float64; missing joints are not treated specially."""
    keypoints = keypoints.to(torch.float64)
    old = keypoints.new_tensor(annotation_size)
    return keypoints / old * keypoints.new_tensor(load_size)


def keypoints_to_heatmaps(
    keypoints: torch.Tensor,  # (B, J, 2), (y, x) in annotation_size, -1 = missing
    annotation_size: tuple[int, int],
    load_size: tuple[int, int],
    sigma: float = SIGMA,  # pixels of load_size
) -> torch.Tensor:
    """Gaussian heatmaps (B, J, H, W), float32, peak 1; a missing joint is a zero channel.

    The joint is truncated toward zero to an integer pixel, as the published systems do; joints
    outside the frame still contribute their tail. Each map is the outer product of two 1-D
    Gaussians.
    """
    centre = scale_keypoints(keypoints, annotation_size, load_size).trunc()
    profiles = []
    for axis, length in enumerate(load_size):
        grid = torch.arange(length, dtype=torch.float64, device=keypoints.device)
        distance = grid - centre[..., axis, None]  # (B, J, length)
        profiles.append(torch.exp(-(distance**2) / (2 * sigma**2)).float())
    rows = profiles[0] * present(keypoints)[..., None]
    return rows[..., :, None] * profiles[1][..., None, :]


def _hue(index: int, count: int) -> tuple[int, int, int]:
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
            cv2.line(canvas, pixel(a), pixel(b), _hue(i, len(LIMBS)), width, cv2.LINE_AA)
    for joint in np.flatnonzero(visible):
        cv2.circle(canvas, pixel(joint), width, _hue(joint, len(JOINTS)), -1, cv2.LINE_AA)
    return canvas


def heatmaps_to_picture(maps: torch.Tensor) -> np.ndarray:
    """Pose maps (P, H, W) in [0, 1] -> uint8 picture (H, W, 3), one hue a map on black."""
    values = maps.detach().float().clamp(0, 1).cpu().numpy()
    hues = np.array([_hue(i, len(values)) for i in range(len(values))], dtype=np.float32)
    picture = (values[:, :, :, None] * hues[:, None, None, :]).max(axis=0)
    return picture.astype(np.uint8)
