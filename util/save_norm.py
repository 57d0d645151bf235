"""How a generated image becomes 8-bit: the fixed range, or MAGPT's per-image stretch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from util.image import to_uint8

SMALLEST_RANGE = 1e-5  # the published guard: an image of one colour becomes black


def to_uint8_min_max(image: torch.Tensor) -> np.ndarray:
    """(3, H, W) or (B, 3, H, W) of any range -> uint8, channels last; each image fills 0 to 255.

    (v - min) / max(max - min, 1e-5) * 255 per image over all channels, truncated: how the published
    MAGPT test saves real and generated images, and what its metrics are computed on. The contrast
    depends on the image, so results are comparable only with images saved in the same way.
    """
    values = image.detach().float()
    low = values.amin(dim=(-3, -2, -1), keepdim=True)
    high = values.amax(dim=(-3, -2, -1), keepdim=True)
    unit = (values - low) / (high - low).clamp_min(SMALLEST_RANGE)
    return np.ascontiguousarray((unit * 255).to(torch.uint8).movedim(-3, -1).cpu().numpy())


SAVE_NORMS: dict[str, Callable[[torch.Tensor], np.ndarray]] = {
    "fixed": to_uint8,  # (v + 1) / 2
    "minmax": to_uint8_min_max,
}
