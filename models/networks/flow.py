"""GFLA's global flow field estimator (Ren et al., CVPR 2020, section 3.1).

Level L is the pyramid level of size H/2^L x W/2^L. Child names are the published state-dict names.
"""

from dataclasses import dataclass

import torch
from torch import nn

from models.networks.layers import DecoderBlock, EncoderBlock, ReflectConvBlock, channels_at
from util.run.device import to_float32

IMAGE_CHANNELS = 3


@dataclass(frozen=True)
class FlowConfig:
    """Architecture of the flow estimator; saved with the checkpoint."""

    attn_layer: tuple[int, ...] = (2, 3)  # levels that get a flow field and a mask, 1 to 4
    flow_ngf: int = 32  # channels of level 1
    flow_layers: int = 5  # deepest level
    pose_channels: int = 18

    @property
    def levels(self) -> tuple[int, ...]:
        """Levels with flow fields, coarse to fine: the order of every list of flows or masks."""
        return tuple(sorted(self.attn_layer, reverse=True))


class PyramidEncoder(nn.Module):
    """``block0``, ``encoder0``, ... : (B, C, H, W) -> features of the levels 1 to ``layers``."""

    def __init__(self, in_channels: int, base: int, cap: int, layers: int):
        super().__init__()
        self.layers = layers
        self.block0 = EncoderBlock(in_channels, base)
        for i in range(layers - 1):
            block = EncoderBlock(channels_at(i, base, cap), channels_at(i + 1, base, cap))
            setattr(self, f"encoder{i}", block)

    def encode(self, x: torch.Tensor, deepest: int | None = None) -> list[torch.Tensor]:
        """Features of level 1, 2, ..., ``deepest`` (all when not given)."""
        features = [self.block0(x)]
        for i in range((deepest or self.layers) - 1):
            features.append(getattr(self, f"encoder{i}")(features[-1]))
        return features


class FlowEstimator(PyramidEncoder):
    """U-Net from source image and both poses to flow fields and occlusion masks.

    A flow field (B, 2, h, w) holds (x, y) offsets in pixels of its own level, from a target pixel
    to where it is seen in the source. A mask (B, 1, h, w) is 1 where the source is to be trusted.
    """

    def __init__(self, config: FlowConfig):
        base, cap, deepest = config.flow_ngf, 8 * config.flow_ngf, config.flow_layers
        super().__init__(IMAGE_CHANNELS + 2 * config.pose_channels, base, cap, deepest)
        self.levels = config.levels
        # levels 4, 3, ... of decoder0, decoder1, ...
        self.decoder_levels = tuple(range(deepest - 1, min(self.levels) - 1, -1))
        for i, level in enumerate(self.decoder_levels):
            deeper, width = channels_at(level, base, cap), channels_at(level - 1, base, cap)
            setattr(self, f"decoder{i}", DecoderBlock(deeper, width, width))
            setattr(self, f"jump{i}", ReflectConvBlock(width, width, tanh=False))
            if level in self.levels:
                setattr(self, f"output{i}", nn.Conv2d(width, 2, 3, padding=1))
                mask = nn.Sequential(nn.Conv2d(width, 1, 3, padding=1), nn.Sigmoid())
                setattr(self, f"mask{i}", mask)

    def forward(
        self,
        source_image: torch.Tensor,  # (B, 3, H, W)
        source_pose: torch.Tensor,  # (B, P, H, W)
        target_pose: torch.Tensor,  # (B, P, H, W)
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Flow fields and masks, both coarse to fine."""
        skips = self.encode(torch.cat((source_image, source_pose, target_pose), dim=1))
        x, flows, masks = skips[-1], [], []
        for i, level in enumerate(self.decoder_levels):
            x = getattr(self, f"decoder{i}")(x) + getattr(self, f"jump{i}")(skips[level - 1])
            if level in self.levels:
                # half precision would round a flow of 10 pixels to 1/16 of a pixel
                with torch.autocast(x.device.type, enabled=False):
                    flows.append(getattr(self, f"output{i}")(to_float32(x)))
                masks.append(getattr(self, f"mask{i}")(x))
        return flows, masks


class PoseFlowNet(nn.Module):
    """Stage 1: the flow estimator alone, under the name it has inside the generator."""

    def __init__(self, config: FlowConfig):
        super().__init__()
        self.flow_net = FlowEstimator(config)

    def forward(
        self, source_image: torch.Tensor, source_pose: torch.Tensor, target_pose: torch.Tensor
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """See :meth:`FlowEstimator.forward`."""
        return self.flow_net(source_image, source_pose, target_pose)
