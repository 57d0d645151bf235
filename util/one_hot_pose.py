"""One-hot pose maps: one pixel per joint, the pose representation of MAGPT."""

from __future__ import annotations

import torch

from util.pose import present


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
