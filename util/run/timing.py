"""How long work takes on a device, how much memory, and what the device can do at most."""

from __future__ import annotations

import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn


def seconds_each(work: Callable[[], object], device: torch.device, repeat: int) -> float:
    """Mean duration of ``work()`` on ``device`` after two calls that are not counted."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    work()
    work()
    start = now()
    for _ in range(repeat):
        work()
    return (now() - start) / repeat


def peak_tflops(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """TFLOP/s of a large matrix product and a large 3x3 convolution, both of nothing but work."""
    large = device.type == "cuda"
    n, images, channels, side = (8192, 32, 512, 64) if large else (1536, 4, 256, 64)
    a = torch.randn(n, n, device=device).to(dtype)
    conv = nn.Conv2d(channels, channels, 3, padding=1, device=device).to(dtype)
    conv.requires_grad_(False).to(memory_format=torch.channels_last)
    x = torch.randn(images, channels, side, side, device=device).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    flop = {"matmul": 2 * n**3, "convolution": 2 * 9 * images * side**2 * channels**2}
    work = {"matmul": lambda: a @ a, "convolution": lambda: conv(x)}
    repeat = 20 if large else 5
    return {k: flop[k] / seconds_each(work[k], device, repeat) / 1e12 for k in work}


def peak_memory(device: torch.device) -> int:
    """Bytes: allocated on the GPU at most, else resident in this process at most; 0: unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # on Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def hidden_waits(work: Callable[[], object]) -> Counter[str]:
    """Lines ("file.py:12") in which ``work()`` makes the host wait for a GPU, and how often."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return Counter(
        f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)
    )


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """TimeoutError in a block that takes longer; where there is no alarm (Windows), no limit."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def ring(number: int, frame: object) -> None:
        raise TimeoutError(f"not done after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
