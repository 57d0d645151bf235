"""The device of a run: which one, its random numbers, its number formats and switches.

All flags of ``torch.backends`` are set here.
"""

import contextlib
import functools
import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from util.errors import UserError


def choose_device(device: str | torch.device | None) -> torch.device:
    """``device``, by default the first GPU if there is one; a UserError when it cannot be used.

    Words of ``--gpu_ids`` mean the same: -1 is the CPU, a number that GPU.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if str(device).removeprefix("-").isdigit():
        device = "cpu" if str(device).startswith("-") else f"cuda:{device}"
    try:
        device = torch.device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the device {device} cannot be used ({reason}); try cpu") from error
    return device


def seed_everything(seed: int, deterministic: bool = False) -> None:
    """Seed python, numpy and torch; ``deterministic`` also forbids nondeterministic kernels."""
    seed_generators(seed)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not deterministic


def seed_generators(seed: int) -> None:
    """Seed python, numpy and torch on all devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """State of the python, numpy, torch and cuda generators as tensors and plain values."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore what :func:`rng_state` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """No TensorFloat-32 and no autocast on ``device``; settings are restored afterwards."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    use_tf32(False)
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def cpu_gains_from_bf16() -> bool:
    """True where the processor multiplies bfloat16 matrices natively (AMX).

    AVX512-BF16 alone is no reason: measured on such a processor, VGG-19 got slower in bf16.
    """
    return getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()


def use_tf32(enabled: bool) -> None:
    """Let GPUs round factors of float32 products and convolutions to 10 bits of mantissa (TF32).

    Off, everything in float32 is computed in float32; PyTorch's own default is on for convolutions.
    """
    torch.backends.cuda.matmul.allow_tf32 = enabled
    torch.backends.cudnn.allow_tf32 = enabled


def compile_in_place(network: nn.Module, wanted: bool, graphs: bool) -> nn.Module:
    """``network``, compiled if ``wanted``; with ``graphs`` its kernels are replayed as CUDA graphs.

    Then what a step computes may be overwritten once
    ``torch.compiler.cudagraph_mark_step_begin()`` is called for the next one.
    """
    if graphs:
        network.compile(mode="reduce-overhead")
    elif wanted:
        network.compile()
    return network


def without_graphs(used: bool) -> AbstractContextManager:
    """Region in which compiled networks run uncompiled where they would replay CUDA graphs."""
    return torch.compiler.set_stance("force_eager") if used else contextlib.nullcontext()


class Precision:
    """Autocast regions and gradient scalers for ``fp32``, ``bf16`` or ``fp16`` on one device.

    On a CPU, bf16 is used for the frozen VGG-19 alone, and only where the processor gains from it
    (:func:`cpu_gains_from_bf16`); the small generator always loses.
    """

    def __init__(self, name: str, device: torch.device):
        self.name, self.device = name, device
        low = functools.partial(torch.autocast, device.type, PRECISIONS[name])
        on_cpu_bf16 = device.type == "cpu" and name == "bf16"
        # Region for generator and discriminator.
        self.networks = contextlib.nullcontext if name == "fp32" or on_cpu_bf16 else low
        # Low-precision convolutions are fastest with channels last in memory. In float32 on a CPU
        # they gain 1 %, and sum up in another order: not worth it.
        self.vgg_channels_last = name != "fp32" and (not on_cpu_bf16 or cpu_gains_from_bf16())
        # Region for the frozen VGG-19.
        self.vgg = low if self.vgg_channels_last else contextlib.nullcontext

    def scaler(self) -> torch.amp.GradScaler:
        """A gradient scaler; it does nothing unless the format is fp16."""
        return torch.amp.GradScaler(self.device.type, enabled=self.name == "fp16")


def to_float32(x: torch.Tensor) -> torch.Tensor:
    """float32 of a half-precision tensor; other tensors as they are. Losses need this."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def in_full_precision(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Decorate a loss: autocast is off inside, and half-precision tensors arrive as float32."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        given = (*args, *kwargs.values())
        values = (x for v in given for x in (v.values() if isinstance(v, Mapping) else [v]))
        kind = next(filter(torch.is_tensor, values)).device.type
        autocast = torch.amp.is_autocast_available(kind)  # kinds that have none (meta) need nothing
        with torch.autocast(kind, enabled=False) if autocast else contextlib.nullcontext():
            return function(*map(_full, args), **{k: _full(v) for k, v in kwargs.items()})

    return wrapper


class _FullView(dict):
    """Features by layer that become float32 when they are read."""

    def __getitem__(self, key: str) -> torch.Tensor:
        return to_float32(super().__getitem__(key))


def _full(value: object) -> object:
    if torch.is_tensor(value):
        return to_float32(value)
    return _FullView(value) if isinstance(value, Mapping) else value
