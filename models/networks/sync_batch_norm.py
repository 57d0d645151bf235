"""Batch normalisation over all processes; torch's own SyncBatchNorm trains on CUDA only."""

from __future__ import annotations

import torch
from torch import nn

from util.distributed import world_size
from util.global_reduction import sum_over_processes

_AXES = (0, 2, 3)


class SynchronizedBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` with the training statistics of all processes' batches together.

    Output, gradient and running statistics equal one process with the joined batch; the batches
    need not have the same size. In evaluation and in a single process it is plain batch norm; the
    state-dict keys are the same. Source: Ioffe & Szegedy, ICML 2015.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, C, H, W), kept
        if not self.training or world_size() == 1:
            return super().forward(x)
        self._check_input_dim(x)
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        count_here = values.new_tensor([values.numel() / values.shape[1]])
        totals = sum_over_processes(torch.cat([values.sum(_AXES), count_here]))
        count = totals[-1].detach()
        mean = totals[:-1] / count
        # The second pass costs one more message but does not cancel as E[x^2] - E[x]^2 does.
        centred = values - mean[:, None, None]
        variance = sum_over_processes((centred * centred).sum(_AXES)) / count
        self._track(mean.detach(), variance.detach() * count / (count - 1))
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """Move the running statistics toward (mean, unbiased variance), each (C,)."""
        self.num_batches_tracked += 1
        momentum = self.momentum
        if momentum is None:  # cumulative average
            momentum = 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)


def synchronize_batch_norms(network: nn.Module) -> nn.Module:
    """Replace every ``nn.BatchNorm2d`` inside ``network``, in place; returns ``network``.

    Keys, values and parameter objects stay, also those that an optimizer already holds.
    Layers without scale or running statistics are not supported (ValueError).
    """
    for name, child in network.named_children():
        if type(child) is nn.BatchNorm2d:
            setattr(network, name, _synchronized(child))
        else:
            synchronize_batch_norms(child)
    return network


def _synchronized(layer: nn.BatchNorm2d) -> SynchronizedBatchNorm2d:
    if not (layer.affine and layer.track_running_stats):
        raise ValueError("only batch norms with scale, shift and running statistics are supported")
    new = SynchronizedBatchNorm2d(layer.num_features, layer.eps, layer.momentum)
    new.weight, new.bias = layer.weight, layer.bias
    for name, buffer in layer.named_buffers(recurse=False):
        setattr(new, name, buffer)
    return new.train(layer.training)
