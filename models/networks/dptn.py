"""Generator of DPTN (Zhang et al., CVPR 2022) and DPTN-TA (TVCG 2023); it is the same in both.

B batch, C channels, H x W image size, P pose channels. Attribute names are the published state-dict
names.
"""

import functools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from models.networks.layers import (
    DecoderBlock,
    EncoderBlock,
    ReflectConvBlock,
    ResBlock,
    channels_at,
    in_turn,
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


def add_encoder(
    parent: nn.Module, in_channels: int, config: Any, num_blocks: int = 0, **kind: Any
) -> list[str]:
    """Register ``block0``, ``encoder0`` ... and ``mblock0`` ... on ``parent``; returns the names.

    In turn they turn (B, in, H, W) into (B, C, H/8, W/8). ``kind``: norm or spectral norm of each.
    """
    parent.block0 = EncoderBlock(in_channels, config.ngf, leading_norm=False, **kind)
    names, width = ["block0"], config.ngf
    for i in range(config.levels - 1):
        wider = channels_at(i + 1, config.ngf, config.max_channels)
        setattr(parent, f"encoder{i}", EncoderBlock(width, wider, **kind))
        names.append(f"encoder{i}")
        width = wider
    for i in range(num_blocks):
        setattr(parent, f"mblock{i}", ResBlock(width, **kind))
        names.append(f"mblock{i}")
    return names


def add_decoder(
    parent: nn.Module, config: Any, norm: str = "instance", use_spectral: bool = False
) -> list[str]:
    """Register ``decoder0`` ... and ``outconv`` on ``parent``; returns the names.

    In turn they turn (B, C, H/8, W/8) into an image (B, 3, H, W) in [-1, 1].
    """
    levels = [*range(config.levels - 1, -1, -1), 0]
    widths = [channels_at(level, config.ngf, config.max_channels) for level in levels]
    names = [f"decoder{i}" for i in range(config.levels)]
    for name, width, out in zip(names, widths, widths[1:], strict=False):
        setattr(parent, name, DecoderBlock(width, out, out, norm, use_spectral))
    parent.outconv = ReflectConvBlock(widths[-1], 3, tanh=True, use_spectral=use_spectral)
    return [*names, "outconv"]


class Encoder(nn.Module):
    """En_s, the texture encoder, and the step model's En_c: see :func:`add_encoder`."""

    def __init__(self, in_channels: int, config: Any, num_blocks: int = 0, **kind: Any):
        super().__init__()
        self.names = add_encoder(self, in_channels, config, num_blocks, **kind)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return in_turn(self, self.names, x)


class DPTNGenerator(nn.Module):
    """Dual-task generator: source branch (self-reconstruction) and target branch (transformation).

    The two branches share the encoder En_c and the decoder De; the Pose Transformer Module moves
    source texture into the target branch.
    """

    def __init__(self, config: DPTNConfig = DPTNConfig()):
        super().__init__()
        self.per_sample = config.norm == "instance"  # no sample influences another
        pair = 3 + 2 * config.pose_channels
        self.encoders = add_encoder(self, pair, config, config.num_blocks, norm=config.norm)
        width = channels_at(config.levels - 1, config.ngf, config.max_channels)
        self.PTM = PoseTransformerModule(
            width, config.nhead, config.num_CABs, config.num_TTBs, config.norm
        )
        self.source_encoder = Encoder(3, config, norm=config.norm)
        self.decoders = add_decoder(self, config, config.norm)

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
        return in_turn(self, self.decoders, features)

    def encode(
        self, source_image: torch.Tensor, source_pose: torch.Tensor, pose: torch.Tensor
    ) -> torch.Tensor:
        """En_c([x_s; p_s; p]) -> (B, C, H/8, W/8); p = p_s gives F_ss, p = p_t gives F_st."""
        return in_turn(self, self.encoders, torch.cat([source_image, source_pose, pose], dim=1))

    def encode_both(
        self, source_image: torch.Tensor, source_pose: torch.Tensor, target_pose: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """F_ss and F_st; as one batch, because instance norm does not mix samples.

        The first convolution on [x_s; p_s; p_s] and [x_s; p_s; p_t] takes half the arithmetic:
        W [x_s; p_s; p_s] = [W_x, W_s + W_p] [x_s; p_s], and p_t in place adds W_p (p_t - p_s).
        """
        if not self.per_sample:  # batch norm does
            poses = (source_pose, target_pose)
            return tuple(self.encode(source_image, source_pose, p) for p in poses)
        first, *rest = self.block0.model
        p = source_pose.shape[1]
        W_x, W_s, W_p = first.weight.split([source_image.shape[1], p, p], dim=1)
        convolve = functools.partial(F.conv2d, stride=first.stride, padding=first.padding)
        source = torch.cat([source_image, source_pose], dim=1)
        of_ss = convolve(source, torch.cat([W_x, W_s + W_p], dim=1), first.bias)
        x = torch.cat([of_ss, of_ss + convolve(target_pose - source_pose, W_p)])
        for layer in rest:
            x = layer(x)
        return tuple(in_turn(self, self.encoders[1:], x).chunk(2))
