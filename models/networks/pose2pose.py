"""Networks of MAGPT, "Multi-scale Attention Guided Pose Transfer" (Roy et al., PR 2023).

Attribute names (``in1_conv1``, ``layers`` ...) and the positions inside each ``nn.Sequential`` are
the published state-dict names and therefore a file format.
Notation: B batch, C channels, H x W image size, s(.) the logistic function.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from models.networks.layers import check_sides

SIZE_MULTIPLE = 16  # four halvings; any other size does not fit the gates on the way up
LEAKY_SLOPE = 0.2  # the discriminator's; the generator uses plain ReLU
MAX_WIDTH_FACTOR = 8  # the discriminator never grows wider than 8 * ndf
conv3 = functools.partial(nn.Conv2d, kernel_size=3, padding=1, bias=False)
down4 = functools.partial(nn.Conv2d, kernel_size=4, stride=2, padding=1, bias=False)
up4 = functools.partial(nn.ConvTranspose2d, kernel_size=4, stride=2, padding=1, bias=False)


@dataclass(frozen=True)
class Pose2PoseConfig:
    """Architecture of the generator; saved with the checkpoint."""

    ngf: int = 64  # channels at full resolution, doubled by every halving
    pose_channels: int = 18  # of each of the two poses


@dataclass(frozen=True)
class PatchDiscriminatorConfig:
    """Architecture of the discriminator; saved with the checkpoint."""

    ndf: int = 64  # channels of the first layer
    blocks: int = 3  # convolutions with batch norm; all but the last halve the size


class ResidualBlock(nn.Module):
    """conv3, BN, ReLU, conv3, BN plus the input, no activation after the sum: (B, C, H, W) kept."""

    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            *conv_block(conv3, channels, channels),
            conv3(channels, channels),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) + x


def conv_block(convolution: Callable, in_channels: int, out_channels: int) -> nn.Sequential:
    """A convolution, BN, ReLU: (B, in, H, W) -> (B, out, H, W) with conv3."""
    return nn.Sequential(
        convolution(in_channels, out_channels), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)
    )


def down_block(in_channels: int, out_channels: int) -> nn.Sequential:
    """conv4 stride 2, BN, ReLU, residual block: (B, in, H, W) -> (B, out, H/2, W/2)."""
    return conv_block(down4, in_channels, out_channels).append(ResidualBlock(out_channels))


def up_block(in_channels: int, out_channels: int) -> nn.Sequential:
    """Transposed conv4 stride 2, BN, ReLU, residual block: (B, in, H, W) -> (B, out, 2H, 2W)."""
    return conv_block(up4, in_channels, out_channels).append(ResidualBlock(out_channels))


class Pose2PoseGenerator(nn.Module):
    """Image encoder, pose encoder, and a decoder gated by the pose features at four scales.

    The whole attention is ``decoder feature * s(pose feature)``; there is no gate at full
    resolution and no skip connection from the image encoder. H and W are multiples of 16.
    """

    def __init__(self, config: Pose2PoseConfig = Pose2PoseConfig()):
        super().__init__()
        ngf = config.ngf
        for name, channels in (("in1", 3), ("in2", 2 * config.pose_channels)):  # image, poses
            setattr(self, f"{name}_conv1", conv_block(conv3, channels, ngf))
            for i in range(4):
                down = down_block(ngf * 2**i, ngf * 2 ** (i + 1))
                setattr(self, f"{name}_down{i + 1}", down)
        self.out_up1 = up_block(ngf * 16, ngf * 8)
        self.out_up2 = up_block(ngf * 8, ngf * 4)
        self.out_up3 = up_block(ngf * 4, ngf * 2)
        self.out_up4 = up_block(ngf * 2, ngf)
        blocks = [ResidualBlock(ngf) for _ in range(4)]
        last = nn.Conv2d(ngf, 3, kernel_size=1, bias=False)
        self.out_conv1 = nn.Sequential(*blocks, last, nn.Tanh())

    def forward(
        self,
        source_image: torch.Tensor,  # (B, 3, H, W) in [-1, 1]
        source_pose: torch.Tensor,  # (B, 18, H, W)
        target_pose: torch.Tensor,  # (B, 18, H, W)
        need_weights: bool = False,
    ) -> torch.Tensor | tuple[torch.Tensor, list[torch.Tensor]]:
        """The source person in the target pose, (B, 3, H, W) in [-1, 1].

        With ``need_weights`` also the gates s(pose feature), coarse to fine: (B, C, h, w) in
        [0, 1], how much of each decoder feature passes where.
        """
        check_sides(source_image.shape[-2:], SIZE_MULTIPLE, "pose2pose")
        poses = torch.cat([source_pose, target_pose], dim=1)

        x = self.in1_conv1(source_image)  # (B, ngf, H, W)
        x = self.in1_down2(self.in1_down1(x))
        x = self.in1_down4(self.in1_down3(x))  # (B, 16 ngf, H/16, W/16)

        pose1 = self.in2_down1(self.in2_conv1(poses))  # (B, 2 ngf, H/2, W/2)
        pose2 = self.in2_down2(pose1)  # (B, 4 ngf, H/4, W/4)
        pose3 = self.in2_down3(pose2)  # (B, 8 ngf, H/8, W/8)
        pose4 = self.in2_down4(pose3)  # (B, 16 ngf, H/16, W/16)

        gates = [torch.sigmoid(pose) for pose in (pose4, pose3, pose2, pose1)]
        x = x * gates[0]
        x = self.out_up1(x) * gates[1]
        x = self.out_up2(x) * gates[2]
        x = self.out_up3(x) * gates[3]
        image = self.out_conv1(self.out_up4(x))
        return (image, gates) if need_weights else image


class PatchDiscriminator(nn.Module):
    """PatchGAN on (source image, real or generated target), each (B, 3, H, W) -> raw scores.

    256 x 256 gives scores (B, 1, 30, 30). It never sees a pose. Source: Isola et al., CVPR 2017.
    """

    def __init__(self, config: PatchDiscriminatorConfig = PatchDiscriminatorConfig()):
        super().__init__()
        ndf, blocks = config.ndf, config.blocks
        layers: list[nn.Module] = [
            nn.Conv2d(6, ndf, kernel_size=4, stride=2, padding=1),
            nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
        ]
        width = ndf
        for i in range(blocks):
            wider = min(2 ** (i + 1), MAX_WIDTH_FACTOR) * ndf
            stride = min(blocks - i, 2)
            layers += [
                nn.Conv2d(width, wider, kernel_size=4, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(wider),
                nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
            ]
            width = wider
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1, kernel_size=4, padding=1))

    def forward(self, source_image: torch.Tensor, target_image: torch.Tensor) -> torch.Tensor:
        return self.layers(torch.cat([source_image, target_image], dim=1))
