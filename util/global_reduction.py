"""Sums and extremes over the processes of a data-parallel run, with exact gradients.

Gradients are those of the sum of all processes' losses; after the gradient averaging of
``util.distributed`` they are those of the mean loss. A single process needs no messages.
Every process must call these functions equally often, in the same order.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F

from util.distributed import rank, world_size


class _SumOverProcesses(torch.autograd.Function):
    """y = sum of x over processes; this x is in every process' y, so gradients are summed too."""

    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        return _SumOverProcesses.apply(gradient)


def sum_over_processes(x: torch.Tensor) -> torch.Tensor:
    """Element-wise sum of ``x``, of the same shape in every process; differentiable twice."""
    return _SumOverProcesses.apply(x) if world_size() > 1 else x


def min_max_over_processes(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Smallest and largest element of all processes' ``x``, as differentiable scalars."""
    if world_size() == 1:
        return x.min(), x.max()
    own = torch.stack([x.min(), x.max()])[None]  # (1, 2)
    table = sum_over_processes(F.pad(own, (0, 0, rank(), world_size() - rank() - 1)))  # (P, 2)
    return table[:, 0].min(), table[:, 1].max()
