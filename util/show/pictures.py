"""Pictures of a model's tensors for pages and logs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from util.pose import heatmaps_to_picture
from util.tensors import to_uint8


def pictures_of(visuals: Mapping[str, torch.Tensor], index: int = 0) -> dict[str, np.ndarray]:
    """uint8 pictures (H, W, 3) of one sample: images (B, 3, H, W) in [-1, 1], or pose maps (B, P,
    H, W)."""
    return {
        name.replace("_", " "): (
            to_uint8(value[index]) if value.shape[1] == 3 else heatmaps_to_picture(value[index])
        )
        for name, value in visuals.items()
    }
