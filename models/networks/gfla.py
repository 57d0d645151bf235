"""GFLA's generator: global flow fields and local attention (Ren et al., CVPR 2020, section 3.2).

Level L is the pyramid level of size H/2^L x W/2^L. Child names are the published state-dict names.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from models.networks.flow import IMAGE_CHANNELS, FlowConfig, FlowEstimator, PyramidEncoder
from models.networks.layers import DecoderBlock, ReflectConvBlock, ResBlock, activation, channels_at
from util.sampling import attend, block_convolution, replicate_pad

ATTENTION_CHANNELS = 128


@dataclass(frozen=True)
class GFLAConfig(FlowConfig):
    """Architecture of the whole generator; saved with the checkpoint."""

    kernel_size: tuple[tuple[int, int], ...] = ((2, 5), (3, 3))  # (level, window side) pairs
    ngf: int = 64  # channels of level 1
    layers: int = 3  # deepest level


class LocalAttention(nn.Module):
    """Attention of every target pixel over the k x k source window its flow points at.

    The published layer concatenates the extracted k x k blocks of target and source, applies a
    stride-k convolution, and averages attention times source block over each block. Here no block
    is ever stored: the target block's half is an ordinary convolution, because the target is
    extracted at integer positions; the source's is :func:`~util.sampling.block_convolution`.
    """

    def __init__(self, channels: int, kernel_size: int):
        super().__init__()
        self.kernel_size = k = kernel_size
        self.fully_connect_layer = nn.Sequential(
            nn.Conv2d(2 * channels, ATTENTION_CHANNELS, k, stride=k),
            activation(),
            nn.Conv2d(ATTENTION_CHANNELS, k * k, kernel_size=1),
            nn.Softmax(dim=1),
        )

    def forward(
        self,
        source: torch.Tensor,  # (B, C, h, w)
        target: torch.Tensor,  # (B, C, h, w)
        flow: torch.Tensor,  # (B, 2, h, w)
    ) -> torch.Tensor:
        """Source features at the target's pixels, (B, C, h, w), divided by k^2 as published."""
        k, conv = self.kernel_size, self.fully_connect_layer[0]
        of_target, of_source = conv.weight.chunk(2, dim=1)
        padded = replicate_pad(target, k // 2, k - 1 - k // 2)
        hidden = F.conv2d(padded, of_target, conv.bias) + block_convolution(source, flow, of_source)
        return attend(source, flow, self.fully_connect_layer[1:](hidden))


class SourceEncoder(PyramidEncoder):
    """Features of the source image, level 1 to the deepest level that has a flow field.

    Deeper blocks exist, because released checkpoints hold them, but nothing reads their output.
    """

    def __init__(self, config: GFLAConfig):
        super().__init__(IMAGE_CHANNELS, config.ngf, 8 * config.ngf, config.layers)
        self.deepest = max(config.levels)

    def forward(self, source_image: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, H, W) -> features, fine to coarse."""
        return self.encode(source_image, self.deepest)


class TargetGenerator(PyramidEncoder):
    """Encodes the target pose and decodes it to the image, with source features let in by flow."""

    def __init__(self, config: GFLAConfig):
        base, cap = config.ngf, 8 * config.ngf
        super().__init__(config.pose_channels, base, cap, config.layers)
        self.levels = config.levels
        kernel_size = dict(config.kernel_size)
        for i in range(config.layers):
            level = config.layers - i
            width, out = (channels_at(max(j, 0), base, cap) for j in (level - 1, level - 2))
            stage = nn.Sequential()  # one residual block under the published name model.0
            stage.model = nn.Sequential(ResBlock(width, conv_shortcut=False))
            up = DecoderBlock(width, width, out)
            setattr(self, f"decoder{i}", nn.Sequential(stage, up))
            if level in self.levels:
                setattr(self, f"attn{i}", LocalAttention(width, kernel_size[level]))
        self.outconv = ReflectConvBlock(base, IMAGE_CHANNELS, tanh=True)

    def forward(
        self,
        target_pose: torch.Tensor,  # (B, P, H, W)
        source_features: list[torch.Tensor],  # fine to coarse
        flows: list[torch.Tensor],  # coarse to fine
        masks: list[torch.Tensor],  # coarse to fine
    ) -> torch.Tensor:
        """The generated image (B, 3, H, W) in [-1, 1]."""
        x = self.encode(target_pose)[-1]
        guides = dict(zip(self.levels, zip(flows, masks, strict=True), strict=True))
        for i in range(self.layers):
            level = self.layers - i
            if level in guides:
                flow, mask = guides[level]
                warped = getattr(self, f"attn{i}")(source_features[level - 1], x, flow)
                x = x * (1 - mask) + warped * mask
            x = getattr(self, f"decoder{i}")(x)
        return self.outconv(x)


class GFLAGenerator(nn.Module):
    """Stage 2: source encoder, target generator and flow estimator, trained together."""

    def __init__(self, config: GFLAConfig):
        super().__init__()
        self.source = SourceEncoder(config)
        self.target = TargetGenerator(config)
        self.flow_net = FlowEstimator(config)

    def forward(
        self,
        source_image: torch.Tensor,  # (B, 3, H, W)
        source_pose: torch.Tensor,  # (B, P, H, W)
        target_pose: torch.Tensor,  # (B, P, H, W)
    ) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
        """Generated image (B, 3, H, W), flow fields and masks (coarse to fine)."""
        flows, masks = self.flow_net(source_image, source_pose, target_pose)
        image = self.target(target_pose, self.source(source_image), flows, masks)
        return image, flows, masks
