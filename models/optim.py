"""Optimizers of a model's networks: schedules, loss scaling, clipping, steps whose gradient is not
finite, averages of weights and of batch norms."""

import contextlib
import copy
import math
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import nn

from util.run import distributed
from util.run.device import Precision, rng_state, set_rng_state

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

# fp16 halves its loss scale after a step that overflows. From its start, 65536, that many halvings
# in a row lead below 1, where no search ends.
SCALE_SEARCH = 17


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
        self._overflows: dict[str, torch.Tensor] = {}  # steps in a row that fp16 left out
        self.late = precision.device.type == "cuda"  # flags are read one step late: nothing waits
        self._flags: dict[str, torch.Tensor] = {}  # "gradient is not finite", of this step
        self._older: dict[str, torch.Tensor] = {}  # and of the step before, if late
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

    # ---- one training step -----------------------------------------------------------------

    def begin(self) -> None:
        """Call before every training step: remembers the running statistics of batch norms."""
        self._statistics = [
            (buffer, buffer.clone())
            for network in self.networks.values()
            for name, buffer in network.named_buffers()
            if name.endswith(("running_mean", "running_var"))
        ]

    def zero_grad(self, label: str) -> None:
        """Forget the gradients of network ``label``."""
        self.optimizers[label].zero_grad(set_to_none=True)

    def backward(self, label: str, loss: torch.Tensor) -> None:
        """Add the gradient of ``loss`` to the gradients of network ``label``."""
        self.scalers[label].scale(loss).backward()

    def update(self, label: str) -> None:
        """Average gradients over processes, clip, and take one optimizer step.

        A step whose gradient is not finite changes nothing, on any device and without waiting for
        it, and running statistics return to what they were at :meth:`begin`; :meth:`not_finite`
        tells. Of fp16 it tells only once the search for a loss scale has failed.
        """
        optimizer, scaler = self.optimizers[label], self.scalers[label]
        parameters = _parameters(optimizer)
        distributed.average_gradients(parameters)
        scaler.unscale_(optimizer)
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        self.grad_norms[label] = norm
        flag = (~torch.isfinite(norm)).float()
        for buffer, before in self._statistics:
            # .data: the other network's backward pass may still come, and does not read them
            buffer.data.copy_(torch.where(flag > 0, before, buffer))
        if self.clip_norm is not None:
            scale = (self.clip_norm / (norm + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_(gradients, scale)
        if scaler.is_enabled():
            scaler.step(optimizer)
            scaler.update()
            overflows = (self._overflows.get(label, 0) + 1) * flag
            self._overflows[label] = overflows
            # _scale: get_scale() would wait for the device
            flag = flag * ((overflows >= SCALE_SEARCH) | (scaler._scale < 1))
        else:
            optimizer.found_inf, optimizer.grad_scale = flag, None  # read by the fused kernel
            optimizer.step()
        self._flags[label] = flag

    def not_finite(self) -> str | None:
        """Label of a network whose last gradient was not finite; call once a training step.

        On a GPU (``late``) the answer is about the step before the last, so that nothing waits for
        the device; a second call without a step in between waits and tells of the last one.
        """
        flags, self._flags = self._flags, {}
        if self.late:
            copies = {k: f.to("cpu", non_blocking=True) for k, f in flags.items()}  # pinned memory
            copied, self._copied = self._copied, None
            if any(f.is_cuda for f in flags.values()):
                self._copied = torch.cuda.Event()
                self._copied.record()
            if copied is not None:
                copied.synchronize()  # the step just given keeps the device busy meanwhile
            flags, self._older = self._older, copies
        return next((label for label, flag in flags.items() if flag.item()), None)

    def steps_done(self, label: str) -> torch.Tensor | int:
        """Steps that changed network ``label``: a scalar on the device; 0 before the first."""
        return next((s["step"] for s in self.optimizers[label].state.values()), 0)

    def epoch_done(self) -> None:
        """Advance the schedules by one epoch."""
        for scheduler in self.schedulers.values():
            scheduler.step()

    # ---- checkpoints -----------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {
            "optimizers": {k: o.state_dict() for k, o in self.optimizers.items()},
            "epochs_done": {k: s.last_epoch for k, s in self.schedulers.items()},
            "scalers": {k: s.state_dict() for k, s in self.scalers.items()},
        }

    def load_moments(self, label: str, saved: dict[str, Any]) -> None:
        """Go on from the moments of an Adam that others saved, with this run's own rates."""
        optimizer = self.optimizers[label]
        _check_moments(optimizer, saved)
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`; rates and betas are those of this run's options."""
        for label, optimizer in self.optimizers.items():
            betas, scheduler = optimizer.param_groups[0]["betas"], self.schedulers[label]
            _check_moments(optimizer, state["optimizers"][label])
            optimizer.load_state_dict(state["optimizers"][label])
            scheduler.last_epoch = int(state["epochs_done"][label])
            lr = scheduler.base_lrs[0] * self.factor(scheduler.last_epoch + 1)
            optimizer.param_groups[0].update(lr=lr, betas=betas)
            if state["scalers"].get(label):
                self.scalers[label].load_state_dict(state["scalers"][label])


def _check_moments(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Refuse (ValueError) moments of Adam that are not dense numbers of their parameter's shape."""
    parameters = _parameters(optimizer)
    for index, moments in saved["state"].items():
        for name in ("exp_avg", "exp_avg_sq"):
            value, shape = moments[name], parameters[index].shape
            dense = torch.is_tensor(value) and value.layout == torch.strided and not value.is_meta
            if not dense or not value.is_floating_point() or value.shape != shape:
                wanted = f"a dense floating tensor of the shape {tuple(shape)}"
                raise ValueError(f"{name} of parameter {index} is not {wanted}")


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


@torch.no_grad()
def update_average(
    average: dict[str, torch.Tensor],  # the state dict of the average
    network: nn.Module,
    decay: float,
    steps: torch.Tensor | int,  # that the network has taken
) -> None:
    """Move ``average`` towards the network by 1 - min(decay, (1 + steps) / (10 + steps)).

    The first steps weigh more, or the random start would stay for long. Only parameters are
    averaged: counters, running statistics and the vectors of spectral norms are copied.
    """
    steps = torch.as_tensor(steps)
    share = 1 - torch.clamp((1 + steps) / (10 + steps), max=decay)
    averaged = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    for key, value in network.state_dict().items():
        if key in averaged:
            average[key].lerp_(value, share.to(value))
        else:
            average[key].copy_(value)


@contextlib.contextmanager
def fresh_statistics(model: Any, batches: Collection[Any]) -> Iterator[None]:
    """Inside the block, G's running statistics of batch norms are those of its weights as they are.

    They are cumulated over ``batches``, by this process alone: a running mean lags behind weights
    that move fast. Inputs and random numbers stay as they were.
    """
    kinds = torch.nn.modules.batchnorm._BatchNorm
    norms = [m for m in model.networks["G"].modules() if isinstance(m, kinds)]
    if not norms or not len(batches):
        yield
        return
    before = [(m, m.training, m.momentum, copy.deepcopy(m.state_dict())) for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative
        norm.train()
    inputs, seen, random_numbers = model.inputs, model.seen, rng_state()
    with torch.no_grad(), distributed.alone(), model.precision.networks():
        for batch in batches:
            model.inputs = model.prepare(batch)
            model.forward()
    model.inputs, model.seen = inputs, seen
    set_rng_state(random_numbers)
    for norm, mode, *_ in before:
        norm.train(mode)
    try:
        yield
    finally:
        for norm, _, momentum, state in before:
            norm.load_state_dict(state)
            norm.momentum = momentum
