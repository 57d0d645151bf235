"""What a network is told of a pose: heatmaps, one-hot maps and limb maps of keypoints.

Keypoints are (y, x) pairs as in :mod:`util.skeleton`. The frame of the coordinates
(``annotation_size``) may differ from the image size the network sees (``load_size``); sizes are
(h, w). Every map truncates a joint toward zero to a whole pixel, as the published systems do.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from util.skeleton import MISSING, hue, present
from util.tensors import constant

SIGMA = 6.0  # pixels of the load size


def scale_keypoints(
    keypoints: torch.Tensor,  # (..., J, 2) in annotation_size
    annotation_size: tuple[int, int],
    load_size: tuple[int, int],
) -> torch.Tensor:
    """Coordinates in ``load_size``, as float64; missing joints are not treated specially."""
    keypoints = keypoints.to(torch.float64)
    sizes = (tuple(annotation_size), tuple(load_size))
    old, new = constant(sizes, keypoints.dtype, keypoints.device)
    return keypoints / old * new


def inside_frame(keypoints: torch.Tensor, annotation_size: tuple[int, int]) -> torch.Tensor:
    """Mask (..., J) of joints with 0 <= y < h and 0 <= x < w; (-1, -1) is outside, so missing."""
    height, width = annotation_size
    y, x = keypoints[..., 0], keypoints[..., 1]
    return (y >= 0) & (y < height) & (x >= 0) & (x < width)


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


def heatmaps_to_picture(maps: torch.Tensor) -> np.ndarray:
    """Pose maps (P, H, W) in [0, 1] -> uint8 picture (H, W, 3), one hue a map on black."""
    values = maps.detach().float().clamp(0, 1).cpu().numpy()
    hues = np.array([hue(i, len(values)) for i in range(len(values))], dtype=np.float32)
    return (values[..., None] * hues[:, None, None]).max(axis=0).astype(np.uint8)


VIEW_SIGMA = 0.25  # of the image's sides: how far the mark of a view reaches


def view_maps(
    views: torch.Tensor,  # (B, K) int64, the index of the label on each axis
    counts: Sequence[int],  # labels of each axis
    load_size: tuple[int, int],  # (h, w)
) -> torch.Tensor:
    """Pose maps (B, sum of counts, H, W), float32: a Gaussian hill where the label is, else 0.

    Published code has 1 everywhere in place of the hill. The instance norms here take the mean of
    a channel away and with it all that such a map says, so the networks would not see the view.
    """
    hot = [F.one_hot(views[:, k], count) for k, count in enumerate(counts)]
    profiles = []
    for length in load_size:
        at = torch.arange(length, device=views.device, dtype=torch.float32)
        offset = (at - (length - 1) / 2) / (VIEW_SIGMA * length)
        profiles.append(torch.exp(-(offset**2) / 2))
    hill = torch.outer(*profiles)
    return torch.cat(hot, dim=1).float()[..., None, None] * hill


def one_hot_pose_maps(
    keypoints: torch.Tensor,  # (B, J, 2), (y, x) in annotation_size, -1 = missing
    annotation_size: tuple[int, int],  # (h, w)
    load_size: tuple[int, int],  # (h, w)
) -> torch.Tensor:
    """Pose maps (B, J, H, W), float32: 1 at the joint's pixel, 0 elsewhere.

    Coordinates are scaled to ``load_size`` and truncated to a pixel, as the heatmaps are. A missing
    joint and one outside the frame are zero channels: a single pixel has no tail to show.
    """
    points = keypoints.to(torch.float64)
    height, width = load_size
    # Multiply first: the product of whole numbers is exact, no joint slips to the pixel before.
    y = torch.floor(points[..., 0] * height / annotation_size[0])
    x = torch.floor(points[..., 1] * width / annotation_size[1])
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width) & present(keypoints)
    index = torch.where(inside, y * width + x, 0).long()  # (B, J)
    maps = torch.zeros((*index.shape, height * width), device=keypoints.device)
    maps.scatter_(-1, index[..., None], inside[..., None].to(maps.dtype))
    return maps.view(*index.shape, height, width)


# Pairs of joints (indices into util.skeleton.JOINTS), in channel order.
STEP_LIMBS = (
    (0, 16), (0, 14), (0, 15), (0, 17), (16, 17), (0, 1), (2, 3), (3, 4), (5, 6), (6, 7),
    (8, 9), (9, 10), (11, 12), (12, 13), (1, 2), (2, 8), (8, 11), (11, 5), (5, 1), (2, 11),
    (1, 8), (1, 11), (5, 8),
)  # fmt: skip
LIMB_SIGMA = 3.0  # cross-section of a limb that is LIMB_LENGTH pixels long
LIMB_LENGTH = 256.0
RIGHT_EYE, LEFT_EYE = 14, 15


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
    limbs = constant(STEP_LIMBS, torch.long, keypoints.device)  # (23, 2)
    pixels = scale_keypoints(keypoints, annotation_size, load_size).trunc().float()
    ends = pixels[:, limbs]  # (B, 23, 2, 2)
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
    faces = inside_frame(eyes, annotation_size).all(dim=1)
    return scale_keypoints(eyes, annotation_size, load_size), faces
