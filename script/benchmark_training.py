"""The training step in script/benchmark.py, and what each optimization is worth."""

from __future__ import annotations

import contextlib
import resource
import statistics
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from unittest import mock

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models import create_model
from models.losses import perceptual
from models.networks import ptm
from options.train_options import TrainOptions
from script.benchmark_parts import endless, seconds_each, synchronize
from util.precision import PRECISIONS, Precision, full


def options(opt: Namespace, root: Path, **changes: object) -> Namespace:
    """Options of train.py for what the benchmark was asked for."""
    values = {
        "name": "benchmark", "checkpoints_dir": root / "checkpoints", "dataroot": root,
        "model": opt.model, "dataset_mode": opt.dataset_mode, "batchSize": opt.batch,
        "ngf": opt.ngf, "ndf": opt.ndf, "precision": opt.precision, "nThreads": opt.workers,
        "gpu_ids": 0 if opt.device.startswith("cuda") else -1, "vgg_weights": "random", **changes,
    }  # fmt: skip
    words = ["--load_size", *map(str, opt.size)]
    for key, value in values.items():
        words += [f"--{key}"] if value is True else [f"--{key}", str(value)]
    return TrainOptions().parse(words, announce=False)


def step_gflop(opt: Namespace, batch: dict) -> float:
    """GFLOP of a training sample by PyTorch's counter, on the meta device."""
    model = create_model(opt)
    model.device = torch.device("meta")
    for network in (*model.networks.values(), model.vgg):
        network.to(model.device)
    with FlopCounterMode(display=False) as counter:
        model.set_input(batch)
        model.optimize_parameters()
    return counter.get_total_flops() / 1e9 / len(batch["source_image"])


def train_step(model, batch: dict) -> None:
    """What train.py does with a batch between two lines of the log."""
    model.set_input(batch)
    model.optimize_parameters()
    model.stepper.not_finite()


def training_rates(opt: Namespace, loader, steps: int) -> dict[str, float]:
    """Samples a second with one batch that stays, and with batches from the JPEG files."""
    model, batches = create_model(opt), endless(loader)
    batch, size = next(batches), opt.batchSize
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    bare = size / seconds_each(lambda: train_step(model, batch), model.device, steps)
    start = time.perf_counter()
    for batch in islice(batches, steps):
        train_step(model, batch)
    synchronize(model.device)
    from_files = steps * size / (time.perf_counter() - start)
    return {
        "samples_per_s": bare,
        "samples_per_s_from_jpegs": from_files,
        "peak_memory_MiB": peak_memory(model.device) / 2**20,
    }


def peak_memory(device: torch.device) -> int:
    """Bytes: allocated on the GPU at most, else resident in this process at most."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# ---- optimizations, each switched off alone ----------------------------------------------------


@dataclass(frozen=True)
class Switch:
    """One optimization: what replaces it, and (if it is an option) the option without it."""

    name: str
    without: Callable[[], contextlib.AbstractContextManager]
    changes: dict[str, object]
    change_model: Callable[[object], None] = lambda model: None


class _PlainAdam(torch.optim.Adam):
    """Adam with a kernel for every tensor and operation."""

    def __init__(self, parameters, fused: bool, **settings):
        super().__init__(parameters, foreach=False, **settings)

    def step(self, closure=None):
        self.found_inf = self.grad_scale = None
        return super().step(closure)


class _VGGOneByOne(nn.Module):
    """VGG on each half of a batch alone, as if each of the two images asked for itself."""

    def __init__(self, vgg: nn.Module):
        super().__init__()
        self.vgg = vgg

    def forward(self, images: torch.Tensor, layers) -> dict[str, torch.Tensor]:
        parts = [self.vgg(half, layers) for half in images.chunk(2)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _plain_gram(x: torch.Tensor) -> torch.Tensor:
    flat = full(x).flatten(2)
    return flat @ flat.transpose(1, 2) / (x.shape[1] * flat.shape[2])


def _attend_with_weights(attention: nn.MultiheadAttention, query, key, value) -> torch.Tensor:
    return attention(query, key, value, need_weights=True)[0]


def _branches_one_by_one(model) -> None:
    model.networks["G"].per_sample = False


def _vgg_one_by_one(model) -> None:
    model.vgg = _VGGOneByOne(model.vgg)


def switches(opt: Namespace) -> list[Switch]:
    """The optimizations of DPTN-TA's training step that apply to this device and precision."""
    none = contextlib.nullcontext
    found = [
        Switch("both branches of G in one batch", none, {}, _branches_one_by_one),
        Switch("one VGG pass over two images", none, {}, _vgg_one_by_one),
        Switch("Gram gradient in one product",
               lambda: mock.patch.object(perceptual, "gram_matrix", _plain_gram), {}),
        Switch("fused attention (SDPA)",
               lambda: mock.patch.object(ptm, "_attend", _attend_with_weights), {}),
        Switch("fused Adam", lambda: mock.patch.object(torch.optim, "Adam", _PlainAdam), {}),
    ]  # fmt: skip
    if opt.precision != "fp32":
        found.append(Switch(f"precision {opt.precision}", none, {"precision": "fp32"}))
        contiguous = mock.PropertyMock(return_value=False)
        found.append(Switch("channels last in VGG", lambda: mock.patch.object(
            Precision, "vgg_channels_last", new_callable=lambda: contiguous), {}))  # fmt: skip
    return found


def offers(opt: Namespace) -> dict[str, dict[str, object]]:
    """Options of train.py that a run may switch on beyond ``opt``, by what is typed."""
    found: dict[str, dict[str, object]] = {"--compile": {"compile": True}}
    if opt.device.startswith("cuda"):
        found["--tf32"] = {"tf32": True}
        found |= {f"--precision {p}": {"precision": p} for p in PRECISIONS if p != opt.precision}
    return found


def without(switch: Switch, opt: Namespace, root: Path, batch: dict) -> Callable[[], None]:
    """A function that makes one training step with the optimization switched off."""
    with switch.without():
        model = create_model(options(opt, root, **switch.changes))
        switch.change_model(model)

    def step() -> None:
        with switch.without():
            train_step(model, batch)

    return step


def worth(opt: Namespace, root: Path, batch: dict, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of a step without each optimization, and that divided by the step with all."""
    steps = {"all on": _plain_step(opt, root, batch)}
    steps |= {s.name: without(s, opt, root, batch) for s in switches(opt)}
    medians = alternating_medians(steps, torch.device(opt.device), rounds)
    return {k: {"step_s": v, "times_slower": v / medians["all on"]} for k, v in medians.items()}


def gains(opt: Namespace, root: Path, batch: dict, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of a step with each option of :func:`offers`, and the step as it is divided by that.

    Compilation itself is not timed.
    """
    steps = {"as it is": _plain_step(opt, root, batch)}
    steps |= {k: _plain_step(opt, root, batch, **changes) for k, changes in offers(opt).items()}
    medians = alternating_medians(steps, torch.device(opt.device), rounds)
    return {k: {"step_s": v, "times_faster": medians["as it is"] / v} for k, v in medians.items()}


def _plain_step(opt: Namespace, root: Path, batch: dict, **changes: object) -> Callable[[], None]:
    return without(Switch("", contextlib.nullcontext, changes), opt, root, batch)


def alternating_medians(
    steps: dict[str, Callable[[], None]], device: torch.device, rounds: int
) -> dict[str, float]:
    """Median seconds of each step; all take turns, so that a busy machine disturbs them alike."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(rounds + 1):
        for name, step in steps.items():
            synchronize(device)
            start = time.perf_counter()
            step()
            synchronize(device)
            if round_:
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in taken.items()}
