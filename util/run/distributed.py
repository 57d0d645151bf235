"""Data-parallel training with one process per device; everything is a no-op in a single process.

Gradients are averaged explicitly after the backward pass, not by DistributedDataParallel: a GAN
calls its discriminator several times a step with frozen and unfrozen weights, which the wrapper's
hooks do not expect, and state-dict keys stay clean.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F

from util.errors import UserError


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


_alone = False


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() and not _alone else 1


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Inside the block this process computes for itself: no message to the others is sent."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def rank() -> int:
    """Index of this process, 0 ... world_size - 1."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """True in the one process that prints and writes files."""
    return rank() == 0


def launched() -> bool:
    """True when torchrun or torch.distributed.launch started this process."""
    return _variable("WORLD_SIZE") is not None and _variable("RANK") is not None


def _variable(name: str) -> int | None:
    """A count that a launcher put into the environment; None without one or for an empty one."""
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    if not text.isdecimal():
        raise UserError(
            f"the environment variable {name} is {text!r}, not a number: start several processes "
            f"with torchrun --nproc_per_node=N train.py ..., one without {name}"
        )
    return int(text)


def separate_starts() -> str:
    """Advice for a job of several tasks that was started without torchrun; else empty."""
    tasks = _variable("SLURM_NTASKS")
    if launched() or tasks is None or tasks < 2:
        return ""
    return (
        f"SLURM started {tasks} independent trainings: let one task (--ntasks=1) start them all "
        f"with torchrun --nproc_per_node={tasks} train.py ..."
    )


def setup(device: str) -> None:
    """Join the process group when a launcher started several processes (nccl on CUDA, else
    gloo); ``device`` is the name of this process's."""
    if not launched() or _variable("WORLD_SIZE") == 1 or dist.is_initialized():
        return
    try:
        # With GPUs also gloo: what the processes say to each other on the CPU waits for no GPU.
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo")
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        reason = str(error).splitlines()[0]
        raise UserError(
            f"process {_variable('RANK')} could not join the others at {place} ({reason}); if the "
            "port is in use, give torchrun another one with --master_port"
        ) from error


def shutdown() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def local_device(word: str | None) -> torch.device:
    """The device of this process for ``--gpu_ids`` or ``--device``.

    Numbers of GPUs separated by commas, -1 or ``cpu`` for the CPU, ``cuda`` or ``cuda:N``; None:
    the first GPU. Without any GPU it is the CPU.
    """
    numbers = {None: "0", "cpu": "-1", "cuda": "0"}.get(word, str(word).removeprefix("cuda:"))
    try:
        ids = [int(i) for i in numbers.split(",") if i.strip()]
    except ValueError as error:
        raise UserError(
            f"--gpu_ids {word}: expected numbers separated by commas, or -1 for the CPU"
        ) from error
    ids = [i for i in ids if i >= 0]
    if not ids or not torch.cuda.is_available():
        return torch.device("cpu")
    if launched():
        index = _variable("LOCAL_RANK") or 0
        index = ids[index] if len(ids) > 1 and index < len(ids) else index
    elif len(ids) > 1:
        raise UserError(
            f"--gpu_ids {word} names {len(ids)} GPUs, but one process drives one GPU; type: "
            f"CUDA_VISIBLE_DEVICES={numbers} torchrun --nproc_per_node={len(ids)} train.py ..."
        )
    else:
        index = ids[0]
    if index >= torch.cuda.device_count():
        raise UserError(
            f"GPU {index} was asked for, but this machine has {torch.cuda.device_count()} "
            f"(0 to {torch.cuda.device_count() - 1}); change --gpu_ids"
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace each gradient by its mean over processes, in one flat all-reduce.

    All have one dtype. The gradients become views of the flat buffer, so that nothing is copied
    back (the scheme of StyleGAN3, Karras et al., NeurIPS 2021). Every process gives the same list
    of parameters, and one without a gradient counts as 0 where another process has one: no process
    waits for a message that another does not send. Parameters without a gradient anywhere stay
    without.
    """
    if world_size() == 1:
        return
    parameters = list(parameters)
    has = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8)
    dist.all_reduce(has, op=dist.ReduceOp.MAX)  # on the CPU: no GPU is waited for
    used = [p for p, anywhere in zip(parameters, has.tolist(), strict=True) if anywhere]
    if used:
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in used]
        flat = torch.cat([g.reshape(-1) for g in grads])
        dist.all_reduce(flat)
        flat /= world_size()
        for parameter, part in zip(used, flat.split([p.numel() for p in used]), strict=True):
            parameter.grad = part.view(parameter.shape)


@torch.no_grad()
def check_replicas(networks: Mapping[str, torch.nn.Module]) -> None:
    """Refuse to go on when the processes no longer have the same weights; all must call it.

    Compared are the norms of all parameters. Machines of different kinds may round differently, so
    that only a relative difference above 1e-4 counts.
    """
    if world_size() == 1:
        return
    for label, network in networks.items():
        names = [name for name, _ in network.named_parameters()]
        norms = torch._foreach_norm([p.detach().float() for p in network.parameters()])
        own = torch.stack(norms).cpu()
        for other, theirs in enumerate(gather(own)):
            unequal = ~torch.isclose(own, theirs, rtol=1e-4, atol=1e-12, equal_nan=True)
            if unequal.any():
                raise UserError(
                    f"processes {rank()} and {other} no longer have the same weights (network "
                    f"{label}, {names[int(unequal.nonzero()[0])]}): nothing was saved; start again "
                    "with --continue_train from the last checkpoint"
                )


def average_values(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Mean over processes of a dict of scalars with the same keys everywhere."""
    if world_size() == 1 or not values:
        return values
    stacked = torch.stack([v.detach().double() for v in values.values()])
    dist.all_reduce(stacked)
    return dict(zip(values, stacked / world_size(), strict=True))


def broadcast_network(network: torch.nn.Module) -> None:
    """Give every process rank 0's parameters and buffers."""
    if world_size() > 1:
        for tensor in network.state_dict().values():
            dist.broadcast(tensor, src=0)


def gather(value: Any) -> list[Any]:
    """``value`` of every process, in the order of their ranks, on every process."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Wait for every process."""
    if world_size() > 1:
        dist.barrier()


def any_process(flag: bool) -> bool:
    """True everywhere when ``flag`` is true in at least one process; no GPU is waited for."""
    if world_size() == 1:
        return flag
    value = torch.tensor(float(flag))
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item())


def describe_batch(per_process: int) -> str:
    """How many samples make one step, in words."""
    total, processes = per_process * world_size(), world_size()
    samples = f"{total} sample{'s' * (total > 1)} a step"
    return samples + (f": {processes} processes x {per_process}" if processes > 1 else "")
