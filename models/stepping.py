"""Optimizers of a model's networks: schedules, loss scaling, clipping, non-finite checks, moving averages."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from models.schedules import LR_POLICIES
from util import distributed
from util.precision import Precision


class Stepper:
    """One Adam optimizer per network label, with its schedule and gradient scaler."""

    def __init__(
        self,
        precision: Precision,
        lr_policy: str,
        niter: int,
        niter_decay: int,
        clip_norm: float | None = None,  # largest total gradient norm of one network
        skip_not_finite: bool = False,  # leave out steps whose gradient is not finite
    ):
        self.precision = precision
        self.factor = LR_POLICIES[lr_policy](niter, niter_decay)
        self.clip_norm, self.skip_not_finite = clip_norm, skip_not_finite
        self.networks: dict[str, nn.Module] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.schedulers: dict[str, torch.optim.lr_scheduler.LambdaLR] = {}
        self.scalers: dict[str, torch.amp.GradScaler] = {}
        self.grad_norms: dict[str, torch.Tensor] = {}  # of the last step, before clipping

    def add(self, label: str, network: nn.Module, lr: float, betas: tuple[float, float]) -> None:
        """Make the optimizer of ``network``; one fused kernel a step where the device has it."""
        parameters = [p for p in network.parameters() if p.requires_grad]
        fused = {p.device.type for p in parameters} == {"cuda"}
        optimizer = torch.optim.Adam(parameters, lr=lr, betas=betas, fused=fused or None)
        self.networks[label], self.optimizers[label] = network, optimizer
        self.schedulers[label] = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda epochs_done: self.factor(epochs_done + 1)
        )
        self.scalers[label] = self.precision.scaler()

    def backward(self, label: str, loss: torch.Tensor) -> None:
        """Add the gradient of ``loss`` to the gradients of network ``label``."""
        self.scalers[label].scale(loss).backward()

    def zero_grad(self, label: str) -> None:
        """Forget the gradients of network ``label``."""
        self.optimizers[label].zero_grad(set_to_none=True)

    def update(self, label: str) -> None:
        """Average gradients over processes, check, clip and take one optimizer step."""
        optimizer, scaler = self.optimizers[label], self.scalers[label]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        distributed.average_gradients(parameters)
        scaler.unscale_(optimizer)
        grads = [p.grad for p in parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads) if grads else torch.zeros(())
        self.grad_norms[label] = norm.detach()
        if self.skip_not_finite and not bool(torch.isfinite(norm)):
            optimizer.zero_grad(set_to_none=True)
        elif self.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norm)
        scaler.step(optimizer)
        scaler.update()

    def epoch_done(self) -> None:
        """Advance the schedules by one epoch."""
        for scheduler in self.schedulers.values():
            scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {
            "optimizers": {k: o.state_dict() for k, o in self.optimizers.items()},
            "epochs_done": {k: s.last_epoch for k, s in self.schedulers.items()},
            "scalers": {k: s.state_dict() for k, s in self.scalers.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned; the rates follow the schedule of this run's options."""
        for label, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][label])
            scheduler = self.schedulers[label]
            scheduler.last_epoch = state["epochs_done"][label]
            for group, base in zip(optimizer.param_groups, scheduler.base_lrs, strict=True):
                group["lr"] = base * self.factor(scheduler.last_epoch + 1)
            if state["scalers"].get(label):
                self.scalers[label].load_state_dict(state["scalers"][label])
