"""Generator of DPTN (Zhang et al., CVPR 2022) and DPTN-TA (TVCG 2023); it is the same in both.

B batch, H x W image size, P pose channels. Attribute names are the published state-dict names.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
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


class SourceEncoder(nn.Module):
    """En_s, the texture encoder of the source image: (B, 3, H, W) -> (B, C, H/8, W/8)."""

    def __init__(self, config: DPTNConfig):
        super().__init__()
        self.levels = config.levels
        _add_encoder(self, 3, config)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.block0(image)
        for i in range(self.levels - 1):
            x = getattr(self, f"encoder{i}")(x)
        return x


class DPTNGenerator(nn.Module):
    """Dual-task generator: source branch (self-reconstruction) and target branch (transformation).

    The two branches share the encoder En_c and the decoder De; the Pose Transformer Module moves
    source texture into the target branch.
    """

    def __init__(self, config: DPTNConfig = DPTNConfig()):
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

    def forward(
        self,
        source_image: torch.Tensor,  # (B, 3, H, W) in [-1, 1]
        source_pose: torch.Tensor,  # (B, P, H, W)
        target_pose: torch.Tensor,  # (B, P, H, W)
        with_source: bool = True,  # also decode the source branch (training)
        need_weights: bool = False,  # return (fake_target, attention weights) instead
    ) -> tuple[torch.Tensor, torch.Tensor | list[torch.Tensor] | None]:
        """Return (fake_target, fake_source), each (B, 3, H, W); fake_source is None without it.

        For ``need_weights`` see :meth:`PoseTransformerModule.forward`.
        """
        F_ss, F_st = self.encode_both(source_image, source_pose, target_pose)  # (B, C, H/8, W/8)
        F_s = self.source_encoder(source_image)
        if need_weights:
            F_t, weights = self.PTM(F_ss, F_st, F_s, need_weights=True)
            return self.decode(F_t), weights
        F_t = self.PTM(F_ss, F_st, F_s)
        if not with_source:
            return self.decode(F_t), None
        if not self.per_sample:
            return self.decode(F_t), self.decode(F_ss)
        return tuple(self.decode(torch.cat([F_t, F_ss])).chunk(2))

    def decode(self, features: torch.Tensor) -> torch.Tensor:
        """De: (B, C, H/8, W/8) -> image (B, 3, H, W) in [-1, 1]."""
        for i in range(self.config.levels):
            features = getattr(self, f"decoder{i}")(features)
        return self.outconv(features)

    def encode(
        self, source_image: torch.Tensor, source_pose: torch.Tensor, pose: torch.Tensor
    ) -> torch.Tensor:
        """En_c([x_s; p_s; p]) -> (B, C, H/8, W/8); p = p_s gives F_ss, p = p_t gives F_st."""
        x = torch.cat([source_image, source_pose, pose], dim=1)  # (B, 3 + 2P, H, W)
        return self._encode_after_first_block(self.block0(x))

    def encode_both(
        self, source_image: torch.Tensor, source_pose: torch.Tensor, target_pose: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """F_ss and F_st; as one batch, because instance norm does not mix samples."""
        if not self.per_sample:  # batch norm does
            poses = (source_pose, target_pose)
            return tuple(self.encode(source_image, source_pose, p) for p in poses)
        first, *rest = self.block0.model
        x = torch.cat(self._first_layer(first, source_image, source_pose, target_pose))
        for layer in rest:
            x = layer(x)
        return tuple(self._encode_after_first_block(x).chunk(2))

    def _encode_after_first_block(self, x: torch.Tensor) -> torch.Tensor:
        for i in range(self.config.levels - 1):
            x = getattr(self, f"encoder{i}")(x)
        for i in range(self.config.num_blocks):
            x = getattr(self, f"mblock{i}")(x)
        return x

    @staticmethod
    def _first_layer(
        conv: nn.Conv2d,
        source_image: torch.Tensor,
        source_pose: torch.Tensor,
        target_pose: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The first convolution on [x_s; p_s; p_s] and [x_s; p_s; p_t] with half the arithmetic.

        It is linear: W [x_s; p_s; p_s] = [W_x, W_s + W_p] [x_s; p_s], and p_t in place of the last
        p_s adds W_p (p_t - p_s).
        """
        p = source_pose.shape[1]
        of_image, of_source, of_pose = conv.weight.split([source_image.shape[1], p, p], dim=1)
        convolve = functools.partial(F.conv2d, stride=conv.stride, padding=conv.padding)
        with_source = convolve(
            torch.cat([source_image, source_pose], dim=1),
            torch.cat([of_image, of_source + of_pose], dim=1),
            conv.bias,
        )
        return with_source, with_source + convolve(target_pose - source_pose, of_pose)
