"""Perceptual term of MAGPT (Roy et al., Pattern Recognition 2023)."""

from collections.abc import Callable, Collection

import torch

from models.losses.perceptual import VGG19Features, content_loss
from util.run.device import to_float32
from util.run.distributed import min_max_over_processes
from util.tensors import standardise

LAYERS = ("relu1_2", "relu2_2")
SMALLEST_RANGE = 1e-5  # keeps a batch of one colour finite; no other batch is touched


def rescale_by_batch(images: torch.Tensor) -> torch.Tensor:
    """(x - min) / (max - min) with the extremes of the whole batch, channels and processes.

    Gradients flow through both extremes; a global affine change of ``images`` has no effect.
    """
    low, high = min_max_over_processes(images)
    return (images - low) / (high - low).clamp_min(SMALLEST_RANGE)


RESCALES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "batch": rescale_by_batch,
    "fixed": lambda images: (images + 1) / 2,
}


def perceptual_loss(
    vgg: VGG19Features,
    generated: torch.Tensor,  # (B, 3, H, W) in [-1, 1]
    target: torch.Tensor,  # (B, 3, H, W) in [-1, 1]; receives no gradient
    rescale: str = "batch",  # a key of RESCALES
    layers: Collection[str] = LAYERS,
) -> torch.Tensor:
    """Sum over layers of mean |VGG(generated) - VGG(target)| of the rescaled images.

    After the rescale the images are normalised as for ImageNet. The published code runs one network
    per layer; one shared trunk gives the same value.
    """

    def features(images: torch.Tensor) -> dict[str, torch.Tensor]:
        return vgg(standardise(RESCALES[rescale](to_float32(images))), layers)

    with torch.no_grad():
        wanted = features(target)
    return content_loss(features(generated), wanted, layers)
