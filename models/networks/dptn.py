"""Generator of DPTN (Zhang et al., CVPR 2022) and DPTN-TA (TVCG 2023); it is the same in both.

B batch, C channels, H x W image size, P pose channels, L = h*w tokens of a feature map in row-major
order. Attribute names are the published state-dict names.
"""

from __future__ import annotations

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
    SynchronizedBatchNorm1d,
    activation,
    channels_at,
    in_turn,
)
from util.errors import UserError


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


# ---- the Pose Transformer Module (CVPR 2022, section 3.3), without positional encoding ----------


class _OverTokens:
    """A norm of (B, C, L) on tokens (B, L, C)."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return super().forward(tokens.transpose(1, 2)).transpose(1, 2)


class TokenInstanceNorm(_OverTokens, nn.InstanceNorm1d):
    """Instance norm over the token axis: (B, L, C), per sample and channel."""


class TokenBatchNorm(_OverTokens, SynchronizedBatchNorm1d):
    """Batch norm over batch and tokens: (B, L, C)."""


TOKEN_NORMS = {
    "instance": functools.partial(TokenInstanceNorm, affine=True),
    "batch": TokenBatchNorm,
}


class ContextAugmentBlock(nn.Module):
    """CAB: self-attention and feed-forward on source tokens, norms after the residuals."""

    def __init__(self, dim: int, heads: int, norm: str = "instance"):
        super().__init__()
        make_norm = TOKEN_NORMS[norm]
        self.self_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.linear1 = nn.Linear(dim, dim)
        self.linear2 = nn.Linear(dim, dim)
        self.norm1 = make_norm(dim)
        self.norm2 = make_norm(dim)
        self.act = activation()

    def forward(self, z: torch.Tensor) -> torch.Tensor:  # (B, L, C)
        z = self.norm1(z + self.self_attn(z, z, z, need_weights=False)[0])
        return self.norm2(z + self.linear2(self.act(self.linear1(z))))


class TextureTransferBlock(nn.Module):
    """TTB: the target stream queries the augmented source stream for raw source texture."""

    def __init__(self, dim: int, heads: int, norm: str = "instance"):
        super().__init__()
        make_norm = TOKEN_NORMS[norm]
        self.self_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.multihead_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.linear1 = nn.Linear(dim, dim)
        self.linear2 = nn.Linear(dim, dim)
        self.norm1 = make_norm(dim)
        self.norm2 = make_norm(dim)
        self.norm3 = make_norm(dim)
        self.act = activation()

    def forward(
        self,
        t: torch.Tensor,  # (B, L, C) target stream: query
        memory: torch.Tensor,  # (B, L, C) output of the last CAB: key
        texture: torch.Tensor,  # (B, L, C) source encoder tokens: value
        need_weights: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The target stream and, with ``need_weights``, where it took texture from, (B, heads, L,
        L), target tokens before source tokens."""
        t = self.norm1(t + self.self_attn(t, t, t, need_weights=False)[0])
        moved, weights = self.multihead_attn(
            t, memory, texture, need_weights=need_weights, average_attn_weights=False
        )
        t = self.norm2(t + moved)
        return self.norm3(t + self.linear2(self.act(self.linear1(t)))), weights


class ContextAugmentation(nn.Module):
    """A stack of CABs."""

    def __init__(self, dim: int, heads: int, blocks: int, norm: str):
        super().__init__()
        self.layers = nn.ModuleList(ContextAugmentBlock(dim, heads, norm) for _ in range(blocks))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            z = layer(z)
        return z


class TextureTransfer(nn.Module):
    """A stack of TTBs and a final norm."""

    def __init__(self, dim: int, heads: int, blocks: int, norm: str):
        super().__init__()
        self.layers = nn.ModuleList(TextureTransferBlock(dim, heads, norm) for _ in range(blocks))
        self.norm = TOKEN_NORMS[norm](dim)

    def forward(
        self, t: torch.Tensor, memory: torch.Tensor, texture: torch.Tensor, need_weights: bool
    ) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        """The target stream and the weights of each block."""
        weights = []
        for layer in self.layers:
            t, of_block = layer(t, memory, texture, need_weights)
            weights.append(of_block)
        return self.norm(t), weights


class PoseTransformerModule(nn.Module):
    """PTM: (F_ss as key, F_st as query, F_s as value) -> F_t, all (B, C, h, w)."""

    def __init__(self, dim: int, heads: int, num_cabs: int, num_ttbs: int, norm: str = "instance"):
        super().__init__()
        if dim % heads:
            raise UserError(
                f"--nhead {heads}: the {dim} channels of the Pose Transformer Module must be a "
                "multiple of the number of heads; choose another number or another --ngf"
            )
        self.encoder = ContextAugmentation(dim, heads, num_cabs, norm)
        self.decoder = TextureTransfer(dim, heads, num_ttbs, norm)
        for parameter in self.parameters():  # as published
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self,
        key_feature: torch.Tensor,
        query_feature: torch.Tensor,
        value_feature: torch.Tensor,
        need_weights: bool = False,
    ) -> torch.Tensor | tuple[torch.Tensor, list[torch.Tensor]]:
        """F_t; with ``need_weights`` also, for each TTB, (B, heads, h, w, h, w): how much of every
        source position (last two) goes into every target position; the last two sum to 1."""
        b, c, h, w = query_feature.shape
        key, query, value = (
            f.flatten(2).transpose(1, 2)  # (B, L, C)
            for f in (key_feature, query_feature, value_feature)
        )
        out, weights = self.decoder(query, self.encoder(key), value, need_weights)
        F_t = out.transpose(1, 2).reshape(b, c, h, w)
        if not need_weights:
            return F_t
        return F_t, [of_block.unflatten(3, (h, w)).unflatten(2, (h, w)) for of_block in weights]


# ---- encoders, decoder, generator ---------------------------------------------------------------


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
