"""Generator of DPTN (Zhang et al., CVPR 2022) and DPTN-TA (TVCG 2023); it is the same in both.

B batch, H x W image size, P pose channels. Attribute names are the published state-dict names.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from models.networks.layers import (
    DecoderBlock,
    EncoderBlock,
    ReflectConvBlock,
    ResBlock,
    channels_at,
)
from models.networks.ptm import PoseTransformerModule


@dataclass(frozen=True)
class DPTNConfig:
    """Architecture of the generator; saved with the checkpoint."""

    ngf: int = 64  # channels after the first block
    max_channels: int = 512
    levels: int = 3  # down- and up-samplings
    num_blocks: int = 3  # residual blocks
    nhead: int = 2  # attention heads
    num_CABs: int = 2
    num_TTBs: int = 2
    pose_channels: int = 18
    norm: str = "instance"


def _add_encoder(parent: nn.Module, in_channels: int, config: DPTNConfig) -> None:
    """Register ``block0``, ``encoder0`` ... on ``parent``: (B, in, H, W) -> (B, C, H/8, W/8)."""
    parent.block0 = EncoderBlock(in_channels, config.ngf, config.norm, leading_norm=False)
    for i in range(config.levels - 1):
        narrow, wide = (channels_at(i + j, config.ngf, config.max_channels) for j in (0, 1))
        setattr(parent, f"encoder{i}", EncoderBlock(narrow, wide, config.norm))


def _encode(parent: nn.Module, x: torch.Tensor, levels: int) -> torch.Tensor:
    x = parent.block0(x)
    for i in range(levels - 1):
        x = getattr(parent, f"encoder{i}")(x)
    return x


class SourceEncoder(nn.Module):
    """En_s, the texture encoder of the source image: (B, 3, H, W) -> (B, C, H/8, W/8)."""

    def __init__(self, config: DPTNConfig):
        super().__init__()
        self.levels = config.levels
        _add_encoder(self, 3, config)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return _encode(self, image, self.levels)


class DPTNGenerator(nn.Module):
    """Dual-task generator: source branch (self-reconstruction) and target branch (transformation).

    The two branches share the encoder En_c and the decoder De; the Pose Transformer Module moves
    source texture into the target branch.
    """

    def __init__(self, config: DPTNConfig = DPTNConfig()):  # noqa: B008 (frozen)
        super().__init__()
        self.config = config
        self.per_sample = config.norm == "instance"  # no sample influences another
        width = channels_at(config.levels - 1, config.ngf, config.max_channels)
        _add_encoder(self, 3 + 2 * config.pose_channels, config)
        for i in range(config.num_blocks):
            setattr(self, f"mblock{i}", ResBlock(width, config.norm))
        self.PTM = PoseTransformerModule(
            width, config.nhead, config.num_CABs, config.num_TTBs, config.norm
        )
        self.source_encoder = SourceEncoder(config)
        channels = width
        for i in range(config.levels):
            out = channels_at(max(config.levels - i - 2, 0), config.ngf, config.max_channels)
            setattr(self, f"decoder{i}", DecoderBlock(channels, out, out, config.norm))
            channels = out
        self.outconv = ReflectConvBlock(channels, 3, tanh=True)

    def encode(
        self, source_image: torch.Tensor, source_pose: torch.Tensor, pose: torch.Tensor
    ) -> torch.Tensor:
        """En_c([x_s; p_s; p]) -> (B, C, H/8, W/8); p = p_s gives F_ss, p = p_t gives F_st."""
        x = torch.cat([source_image, source_pose, pose], dim=1)  # (B, 3 + 2P, H, W)
        x = _encode(self, x, self.config.levels)
        for i in range(self.config.num_blocks):
            x = getattr(self, f"mblock{i}")(x)
        return x

    def decode(self, features: torch.Tensor) -> torch.Tensor:
        """De: (B, C, H/8, W/8) -> image (B, 3, H, W) in [-1, 1]."""
        for i in range(self.config.levels):
            features = getattr(self, f"decoder{i}")(features)
        return self.outconv(features)

    def forward(
        self,
        source_image: torch.Tensor,  # (B, 3, H, W) in [-1, 1]
        source_pose: torch.Tensor,  # (B, P, H, W)
        target_pose: torch.Tensor,  # (B, P, H, W)
        with_source: bool = True,  # also decode the source branch (training)
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return (fake_target, fake_source), each (B, 3, H, W); fake_source is None without it."""
        F_ss, F_st = self.encode_both(source_image, source_pose, target_pose)  # (B, C, H/8, W/8)
        F_s = self.source_encoder(source_image)
        F_t = self.PTM(F_ss, F_st, F_s)
        if not with_source:
            return self.decode(F_t), None
        if not self.per_sample:
            return self.decode(F_t), self.decode(F_ss)
        return tuple(self.decode(torch.cat([F_t, F_ss])).chunk(2))

    def encode_both(
        self, source_image: torch.Tensor, source_pose: torch.Tensor, target_pose: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """F_ss and F_st; as one batch, because instance norm does not mix samples."""
        if not self.per_sample:  # batch norm does
            poses = (source_pose, target_pose)
            return tuple(self.encode(source_image, source_pose, p) for p in poses)
        image, pose = (torch.cat([x, x]) for x in (source_image, source_pose))
        both = self.encode(image, pose, torch.cat([source_pose, target_pose]))
        return tuple(both.chunk(2))
