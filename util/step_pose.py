"""Pose maps of the step-by-step system: 18 keypoint and 23 limb channels.

Keypoints are (y, x) in ``annotation_size``; sizes are (h, w). Unlike in :mod:`util.pose`, a joint
that lies outside its frame counts as missing, as in the published data.
"""

from __future__ import annotations

import torch

from util.pose import MISSING, SIGMA, keypoints_to_heatmaps, scale_keypoints

# Pairs of joints (indices into util.pose.JOINTS), in channel order.
STEP_LIMBS = (
    (0, 16), (0, 14), (0, 15), (0, 17), (16, 17), (0, 1), (2, 3), (3, 4), (5, 6), (6, 7),
    (8, 9), (9, 10), (11, 12), (12, 13), (1, 2), (2, 8), (8, 11), (11, 5), (5, 1), (2, 11),
    (1, 8), (1, 11), (5, 8),
)  # fmt: skip
POSE_CHANNELS = 18 + len(STEP_LIMBS)
LIMB_SIGMA = 3.0  # cross-section of a limb that is LIMB_LENGTH pixels long
LIMB_LENGTH = 256.0
RIGHT_EYE, LEFT_EYE = 14, 15


def inside_frame(keypoints: torch.Tensor, annotation_size: tuple[int, int]) -> torch.Tensor:
    """Mask (..., J) of joints with 0 <= y < h and 0 <= x < w; (-1, -1) is outside, so missing."""
    height, width = annotation_size
    y, x = keypoints[..., 0], keypoints[..., 1]
    return (y >= 0) & (y < height) & (x >= 0) & (x < width)


def _pixels(
    keypoints: torch.Tensor, annotation_size: tuple[int, int], load_size: tuple[int, int]
) -> torch.Tensor:
    """Whole pixels of ``load_size``, truncated toward zero, float32 (exact for image sizes)."""
    return scale_keypoints(keypoints, annotation_size, load_size).trunc().float()


def limb_maps(
    keypoints: torch.Tensor,  # (B, 18, 2)
    annotation_size: tuple[int, int],
    load_size: tuple[int, int],
    sigma: float = LIMB_SIGMA,
) -> torch.Tensor:
    """Limb maps (B, 23, H, W), float32: a ridge of height 1 along each limb.

    With L the length of the limb, u the position along it and w the distance across, a pixel is
    exp(-(w/s)^2 / (2 sigma^2)) for 0 <= u <= L and 0 elsewhere; s = L/256, so short limbs are thin.
    A limb with a missing end or of length 0 is an empty channel.
    """
    height, width = load_size
    limbs = torch.tensor(STEP_LIMBS, device=keypoints.device)  # (23, 2)
    ends = _pixels(keypoints, annotation_size, load_size)[:, limbs]  # (B, 23, 2, 2)
    start, along = ends[:, :, 0], ends[:, :, 1] - ends[:, :, 0]  # (B, 23, 2)
    rows = torch.arange(height, device=keypoints.device, dtype=torch.float32)
    columns = torch.arange(width, device=keypoints.device, dtype=torch.float32)
    dr = (rows - start[..., 0, None])[..., :, None]  # (B, 23, H, 1)
    dc = (columns - start[..., 1, None])[..., None, :]  # (B, 23, 1, W)
    ay, ax = along[..., 0, None, None], along[..., 1, None, None]  # (B, 23, 1, 1)

    squared_length = ay**2 + ax**2
    dot = dr * ay + dc * ax  # u * L: whole numbers, so the end caps are exact
    cross = dr * ax - dc * ay  # w * L
    across = cross * LIMB_LENGTH / squared_length.clamp(min=1)  # w / s
    ridge = torch.exp(-(across**2) / (2 * sigma**2))
    seen = inside_frame(keypoints, annotation_size)[:, limbs].all(dim=2)[..., None, None]
    on_limb = (dot >= 0) & (dot <= squared_length) & (squared_length > 0) & seen
    return ridge * on_limb


def step_pose_maps(
    keypoints: torch.Tensor,  # (B, 18, 2), (y, x) in annotation_size
    annotation_size: tuple[int, int],
    load_size: tuple[int, int],
    keypoint_sigma: float = SIGMA,
    limb_sigma: float = LIMB_SIGMA,
) -> torch.Tensor:
    """Pose maps (B, 41, H, W), float32: 18 keypoint Gaussians, then the 23 limbs of STEP_LIMBS."""
    missing = ~inside_frame(keypoints, annotation_size)
    keypoints = keypoints.masked_fill(missing[..., None], MISSING)
    joints = keypoints_to_heatmaps(keypoints, annotation_size, load_size, keypoint_sigma)
    return torch.cat([joints, limb_maps(keypoints, annotation_size, load_size, limb_sigma)], dim=1)


def eye_pixels(
    keypoints: torch.Tensor,  # (B, 18, 2), (y, x) in annotation_size
    annotation_size: tuple[int, int],
    load_size: tuple[int, int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Right and left eye as (y, x) in ``load_size``, float64 (B, 2, 2), and a mask of faces (B,).

    A face counts when both eyes lie inside the frame. The eyes are not truncated to whole pixels.
    """
    eyes = keypoints[:, [RIGHT_EYE, LEFT_EYE]]
    return (
        scale_keypoints(eyes, annotation_size, load_size),
        inside_frame(eyes, annotation_size).all(dim=1),
    )
