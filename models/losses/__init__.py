"""Losses: small callables, tensors in, scalar out; and terms of a total: weighted, detached."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]


def weighted(weight: float, loss: Callable[..., torch.Tensor], *inputs: Any) -> Any:
    """``weight * loss(*inputs)``; a weight of 0 costs nothing and gives the number 0."""
    return weight * loss(*inputs) if weight else 0


def detached(losses: Mapping[str, Any]) -> Tensors:
    """Losses for the log, without history; those of weight 0 are left out."""
    return {name: value.detach() for name, value in losses.items() if torch.is_tensor(value)}


def halves(features: Tensors) -> tuple[Tensors, Tensors]:
    """Features of the first and of the second half of the batch."""
    pairs = {name: value.chunk(2) for name, value in features.items()}
    return {k: a for k, (a, _) in pairs.items()}, {k: b for k, (_, b) in pairs.items()}
