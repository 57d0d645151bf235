"""Optimizers of a model's networks: schedules, loss scaling, clipping, non-finite checks, moving
averages."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from util.run import distributed
from util.run.device import Precision


@torch.no_grad()
def update_average(
    average: dict[str, torch.Tensor], state: dict[str, torch.Tensor], decay: float
) -> None:
    """Move ``average`` towards a state dict by 1 - decay; counters are copied."""
    for key, value in state.items():
        if average[key].is_floating_point():
            average[key].lerp_(value, 1 - decay)
        else:
            average[key].copy_(value)


Factor = Callable[[int], float]

# name -> (niter, niter_decay) -> factor of epoch e
LR_POLICIES: dict[str, Callable[[int, int], Factor]] = {
    # 1 up to epoch niter, then linear to 1/(niter_decay + 1) in the last epoch
    "lambda": lambda niter, decay: lambda e: max(0.0, 1 - max(0, e - niter) / (decay + 1)),
    "constant": lambda niter, decay: lambda e: 1.0,
    "exponent": lambda niter, decay: lambda e: 0.95 ** (e - 1),
    # cosine with a period of 2 * 32 epochs
    "cosine": lambda niter, decay: lambda e: (1 + math.cos(math.pi * (e - 1) / 32)) / 2,
    # constant up to niter, then down by lr/niter_decay after every epoch
    "linear_to_zero": lambda niter, decay: (
        lambda e: 1.0 if e <= niter else max(0.0, 1 - (e - niter - 1) / max(1, decay))
    ),
}


class Stepper:
    """One Adam optimizer per network label, with its schedule and gradient scaler."""

    def __init__(
        self,
        precision: Precision,
        lr_policy: str,
        niter: int,
        niter_decay: int,
        clip_norm: float | None = None,  # largest total gradient norm of one network
    ):
        self.precision, self.clip_norm = precision, clip_norm
        self.factor = LR_POLICIES[lr_policy](niter, niter_decay)
        self.networks: dict[str, nn.Module] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.schedulers: dict[str, torch.optim.lr_scheduler.LambdaLR] = {}
        self.scalers: dict[str, torch.amp.GradScaler] = {}
        self.grad_norms: dict[str, torch.Tensor] = {}  # of the last step, before clipping
        self._flags: list[tuple[str, torch.Tensor]] = []  # "gradient is not finite", of this step
        self._older: list[tuple[str, torch.Tensor]] = []  # and of the step before, on a GPU
        self._copied: torch.cuda.Event | None = None  # after the copies of those to the host
        self._statistics: list[tuple[torch.Tensor, torch.Tensor]] = []  # (buffer, its value before)

    def add(self, label: str, network: nn.Module, lr: float, betas: tuple[float, float]) -> None:
        """Make the optimizer of ``network``: Adam, one fused kernel a step."""
        parameters = [p for p in network.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(parameters, lr=lr, betas=betas, fused=True)
        self.networks[label], self.optimizers[label] = network, optimizer
        self.schedulers[label] = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda epochs_done: self.factor(epochs_done + 1)
        )
        self.scalers[label] = self.precision.scaler()

    def begin(self) -> None:
        """Call before every training step: remembers the running statistics of batch norms."""
        self._statistics = [
            (buffer, buffer.clone())
            for network in self.networks.values()
            for name, buffer in network.named_buffers()
            if name.endswith(("running_mean", "running_var"))
        ]

    def backward(self, label: str, loss: torch.Tensor) -> None:
        """Add the gradient of ``loss`` to the gradients of network ``label``."""
        self.scalers[label].scale(loss).backward()

    def zero_grad(self, label: str) -> None:
        """Forget the gradients of network ``label``."""
        self.optimizers[label].zero_grad(set_to_none=True)

    def update(self, label: str) -> None:
        """Average gradients over processes, clip, and take one optimizer step.

        A step whose gradient is not finite changes nothing, on any device and without waiting for
        it, and running statistics return to what they were at :meth:`begin`; :meth:`not_finite`
        tells. fp16 steps are left out silently while the loss scale adapts.
        """
        optimizer, scaler = self.optimizers[label], self.scalers[label]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        distributed.average_gradients(parameters)
        scaler.unscale_(optimizer)
        norm = total_norm(parameters)
        self.grad_norms[label] = norm
        flag = (~torch.isfinite(norm)).float()
        for buffer, before in self._statistics:
            # .data: the other network's backward pass may still come, and does not read them
            buffer.data.copy_(torch.where(flag > 0, before, buffer))
        if self.clip_norm is not None:
            scale = (self.clip_norm / (norm + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], scale)
        if scaler.is_enabled():
            scaler.step(optimizer)
            scaler.update()
            return
        optimizer.found_inf, optimizer.grad_scale = flag, None  # read by the fused kernel
        optimizer.step()
        self._flags.append((label, flag))

    def not_finite(self) -> str | None:
        """Label of a network whose last gradient was not finite; call once a training step.

        On a GPU the answer is about the step before the last, so that nothing waits for the device.
        """
        flags, self._flags = self._flags, []
        if any(f.is_cuda for _, f in flags):
            copies = [(k, f.to("cpu", non_blocking=True)) for k, f in flags]
            copied, event = self._copied, torch.cuda.Event()
            event.record()
            if copied is not None:
                copied.synchronize()  # the step just given keeps the device busy meanwhile
            flags, self._older, self._copied = self._older, copies, event
        return next((label for label, flag in flags if flag.item()), None)

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
        """Restore what :meth:`state_dict` returned; the rates follow the schedule of this run's
        options."""
        for label, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][label])
            scheduler = self.schedulers[label]
            scheduler.last_epoch = state["epochs_done"][label]
            for group, base in zip(optimizer.param_groups, scheduler.base_lrs, strict=True):
                group["lr"] = base * self.factor(scheduler.last_epoch + 1)
            if state["scalers"].get(label):
                self.scalers[label].load_state_dict(state["scalers"][label])


def total_norm(parameters: list[torch.nn.Parameter]) -> torch.Tensor:
    """Euclidean norm of all gradients, a detached scalar on their device."""
    grads = [p.grad.detach() for p in parameters if p.grad is not None]
    if not grads:
        return torch.zeros((), device=parameters[0].device)
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
