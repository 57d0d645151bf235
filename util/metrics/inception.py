"""Inception networks and the one pass over the images that FID, KID and Inception score share."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from pytorch_fid import inception as fid_blocks
from torch import nn
from torchvision.models import inception_v3

from util.metrics.protocols import Inception
from util.metrics.weights import WEIGHTS, WeightStore, assign_state
from util.run.device import exact_arithmetic
from util.tensors import IMAGENET_MEAN, IMAGENET_STD

INPUT_SIZE = (299, 299)

# Where the TensorFlow network differs from torchvision's: its poolings do not count the padding.
_TF_BLOCKS = {
    "Mixed_5b": partial(fid_blocks.FIDInceptionA, 192, pool_features=32),
    "Mixed_5c": partial(fid_blocks.FIDInceptionA, 256, pool_features=64),
    "Mixed_5d": partial(fid_blocks.FIDInceptionA, 288, pool_features=64),
    "Mixed_6b": partial(fid_blocks.FIDInceptionC, 768, channels_7x7=128),
    "Mixed_6c": partial(fid_blocks.FIDInceptionC, 768, channels_7x7=160),
    "Mixed_6d": partial(fid_blocks.FIDInceptionC, 768, channels_7x7=160),
    "Mixed_6e": partial(fid_blocks.FIDInceptionC, 768, channels_7x7=192),
    "Mixed_7b": partial(fid_blocks.FIDInceptionE_1, 1280),
    "Mixed_7c": partial(fid_blocks.FIDInceptionE_2, 2048),
}


class InceptionFeatures(nn.Module):
    """uint8 images (B, H, W, 3) -> pool features (B, 2048) float32 -> class logits."""

    def __init__(self, definition: Inception, state: dict[str, torch.Tensor]):
        super().__init__()
        tensorflow = definition.weights == "pytorch-fid"
        with torch.device("meta"):
            network = inception_v3(
                weights=None,
                init_weights=False,
                transform_input=False,
                aux_logits=not tensorflow,
                num_classes=1008 if tensorflow else 1000,
            )
            for name, block in _TF_BLOCKS.items() if tensorflow else ():
                setattr(network, name, block())
        self.network = assign_state(network, state, WEIGHTS[definition.weights].file.what)
        self.classifier, self.network.fc = self.network.fc, nn.Identity()
        scale, shift = (2.0, 2.0, 2.0), (-1.0, -1.0, -1.0)
        if definition.scaling == "historical":
            scale = tuple(std / 0.5 for std in IMAGENET_STD)
            shift = tuple((mean - 0.5) / 0.5 for mean in IMAGENET_MEAN)
        self.register_buffer("scale", torch.tensor(scale).view(1, 3, 1, 1))
        self.register_buffer("shift", torch.tensor(shift).view(1, 3, 1, 1))
        self.eval()

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Pool features (B, 2048) of uint8 images (B, H, W, 3)."""
        values = images.to(self.scale.device).permute(0, 3, 1, 2).float() / 255
        values = F.interpolate(values, INPUT_SIZE, mode="bilinear", align_corners=False)
        with exact_arithmetic(values.device):
            return self.network(values * self.scale + self.shift)

    @torch.no_grad()
    def logits(self, features: torch.Tensor, bias: bool = True) -> torch.Tensor:
        """Class logits (B, 1000 or 1008) of pool features (B, 2048)."""
        weights = self.classifier
        with exact_arithmetic(features.device):
            return F.linear(features, weights.weight, weights.bias if bias else None)


def build_inception(
    definition: Inception, store: WeightStore, device: str = "cpu"
) -> InceptionFeatures:
    """The network of a definition; MetricUnavailableError when its weights are missing."""
    return InceptionFeatures(definition, store.load(definition.weights)).to(device)
