"""Pose Transformer Module (PTM) of DPTN: context augment blocks and texture transfer blocks.

Source: Zhang et al., CVPR 2022, section 3.3. B batch, C channels, L = h*w tokens in row-major
order. There is no positional encoding. Attribute names are the published state-dict names.
"""

import functools

import torch
from torch import nn

from models.networks.layers import SynchronizedBatchNorm1d, activation
from util.errors import UserError


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
