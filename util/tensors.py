"""Pictures as network tensors, and back; constants on a device."""

import functools
from collections.abc import Callable

import cv2
import numpy as np
import torch
from PIL import Image
from torch import nn

# Mean and deviation of [0, 1] images (R, G, B) for networks that torchvision trained on ImageNet.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SMALLEST_RANGE = 1e-5  # the published guard: an image of one colour becomes black


@functools.lru_cache(maxsize=256)
def constant(values: tuple, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A tensor of plain numbers (a tuple, or a tuple of tuples), made once for every device.

    Made anew inside a training step it would be copied from the host each time, and the host would
    wait for a GPU. Never write to it.
    """
    with torch.inference_mode(False):  # it may be needed for gradients later
        return torch.tensor(values, dtype=dtype, device=device)


def keep_last_result(module: nn.Module) -> None:
    """Let a module whose weights are final give its last result again while its one input, a
    tensor, stays the same."""
    compute, last = module.forward, None

    def forward(x: torch.Tensor) -> torch.Tensor:
        nonlocal last
        known = last  # several threads may be here
        if known is None or not torch.equal(known[0], x):
            last = known = x, compute(x)
        return known[1]

    module.forward = forward


def image_to_tensor(image: Image.Image, size: tuple[int, int]) -> torch.Tensor:
    """PIL image -> uint8 tensor (3, H, W), resized to ``size`` (h, w) with PIL's bilinear
    filter."""
    if (image.height, image.width) != tuple(size):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    planes = np.empty((3, *size), dtype=np.uint8)
    cv2.split(np.asarray(image), list(planes))  # faster than a strided copy
    return torch.from_numpy(planes)


def normalise_uint8(images: torch.Tensor) -> torch.Tensor:
    """uint8 [0, 255] -> float32 [-1, 1]: (v/255 - 0.5) / 0.5."""
    return (images.float() / 255 - 0.5) / 0.5


def standardise(images: torch.Tensor) -> torch.Tensor:
    """Images (B, 3, H, W) in [0, 1] as networks trained on ImageNet expect them."""
    mean, deviation = (
        constant(values, images.dtype, images.device)[:, None, None]
        for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return (images - mean) / deviation


def to_uint8(image: torch.Tensor) -> np.ndarray:
    """[-1, 1] tensor (3, H, W) or (B, 3, H, W) -> uint8 array with channels last.

    The published conversion: (x + 1) / 2 * 255, clipped, truncated (not rounded).
    """
    return _channels_last(((image.detach().float() + 1) / 2 * 255).clamp(0, 255))


def _channels_last(values: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.to(torch.uint8).movedim(-3, -1).cpu().numpy())


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
    return _channels_last(unit * 255)


SAVE_NORMS: dict[str, Callable[[torch.Tensor], np.ndarray]] = {
    "fixed": to_uint8,  # (v + 1) / 2
    "minmax": to_uint8_min_max,
}
