"""Pose Transformer Module (PTM) of DPTN: context augment blocks and texture transfer blocks.

Source: Zhang et al., CVPR 2022, section 3.3. Notation: B batch, C channels, L = h*w tokens in
row-major order. There is no positional encoding. Attribute names follow the published state dict.
"""

from __future__ import annotations

import torch
from torch import nn

from models.networks.layers import LEAKY_SLOPE, SynchronizedBatchNorm1d
from util.errors import UserError


class TokenInstanceNorm(nn.InstanceNorm1d):
    """Affine instance norm over the token axis: (B, L, C), per sample and channel."""

    def __init__(self, channels: int):
        super().__init__(channels, affine=True)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return super().forward(tokens.transpose(1, 2)).transpose(1, 2)


class TokenBatchNorm(SynchronizedBatchNorm1d):
    """Batch norm over batch and tokens: (B, L, C)."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return super().forward(tokens.transpose(1, 2)).transpose(1, 2)


TOKEN_NORMS = {"instance": TokenInstanceNorm, "batch": TokenBatchNorm}


def _attend(attention: nn.MultiheadAttention, query, key, value) -> torch.Tensor:
    return attention(query, key, value, need_weights=False)[0]


def _attend_and_tell(
    attention: nn.MultiheadAttention, query, key, value
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same with the softmax weights (B, heads, L of the query, L of the key)."""
    return attention(query, key, value, need_weights=True, average_attn_weights=False)


class ContextAugmentBlock(nn.Module):
    """CAB: self-attention and feed-forward on the source-to-source tokens, norms after the
    residuals."""

    def __init__(self, dim: int, heads: int, norm: str = "instance"):
        super().__init__()
        make_norm = TOKEN_NORMS[norm]
        self.self_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.linear1 = nn.Linear(dim, dim)
        self.linear2 = nn.Linear(dim, dim)
        self.norm1 = make_norm(dim)
        self.norm2 = make_norm(dim)
        self.act = nn.LeakyReLU(LEAKY_SLOPE)

    def forward(self, z: torch.Tensor) -> torch.Tensor:  # (B, L, C)
        z = self.norm1(z + _attend(self.self_attn, z, z, z))
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
        self.act = nn.LeakyReLU(LEAKY_SLOPE)

    def forward(
        self,
        t: torch.Tensor,  # (B, L, C) target stream: query
        memory: torch.Tensor,  # (B, L, C) output of the last CAB: key
        texture: torch.Tensor,  # (B, L, C) source encoder tokens: value
        need_weights: bool = False,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """The target stream; with ``need_weights`` also where it took texture from, (B, heads, L,
        L), target tokens before source tokens."""
        t, weights = self.norm1(t + _attend(self.self_attn, t, t, t)), None
        if need_weights:
            moved, weights = _attend_and_tell(self.multihead_attn, t, memory, texture)
        else:
            moved = _attend(self.multihead_attn, t, memory, texture)
        t = self.norm2(t + moved)
        t = self.norm3(t + self.linear2(self.act(self.linear1(t))))
        return (t, weights) if need_weights else t


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
        self,
        t: torch.Tensor,
        memory: torch.Tensor,
        texture: torch.Tensor,
        need_weights: bool = False,
    ) -> torch.Tensor | tuple[torch.Tensor, list[torch.Tensor]]:
        """The target stream; with ``need_weights`` also the weights of each block."""
        if not need_weights:
            for layer in self.layers:
                t = layer(t, memory, texture)
            return self.norm(t)
        weights = []
        for layer in self.layers:
            t, of_block = layer(t, memory, texture, need_weights=True)
            weights.append(of_block)
        return self.norm(t), weights


class PoseTransformerModule(nn.Module):
    """PTM: (F_ss as key, F_st as query, F_s as value) -> F_t, all (B, C, h, w)."""

    def __init__(
        self,
        dim: int = 256,
        heads: int = 2,
        num_cabs: int = 2,
        num_ttbs: int = 2,
        norm: str = "instance",
    ):
        super().__init__()
        if dim % heads:
            raise UserError(
                f"--nhead {heads}: the {dim} channels of the Pose Transformer Module must be a "
                "multiple of the number of heads; choose another number or another --ngf"
            )
        self.encoder = ContextAugmentation(dim, heads, num_cabs, norm)
        self.decoder = TextureTransfer(dim, heads, num_ttbs, norm)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier-uniform for every tensor with more than one dimension, as published."""
        for parameter in self.parameters():
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
        memory = self.encoder(key)
        out = self.decoder(query, memory, value, need_weights)
        out, weights = out if need_weights else (out, [])
        F_t = out.transpose(1, 2).reshape(b, c, h, w)
        if not need_weights:
            return F_t
        return F_t, [of_block.unflatten(3, (h, w)).unflatten(2, (h, w)) for of_block in weights]
