"""Time and memory of GFLA's sampling operators, relative to ``grid_sample`` of the same size.

Every case runs forward and backward at the feature sizes of 256 x 256 images, in a process of its
own, so that its peak memory is its own. Time: median of the repetitions after one warm-up; with one
CPU thread it is processor time, which other load on the machine disturbs less than wall time.
Memory: growth of the peak beyond the inputs (CUDA: allocated; CPU: resident).

    python -m script.benchmark_gfla_ops --batch 8 --threads 1
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F

from models.networks.gfla import LocalAttention
from util.errors import run_main
from util.sampling_ops import block_extract, local_attn_reshape, resample2d


@dataclass(frozen=True)
class Case:
    """One operator at one pyramid level of a 256 x 256 image."""

    operator: str  # a key of OPERATORS
    channels: int
    side: int  # height and width of the feature map
    window: int  # side k of the block; 1: none


CASES = (
    Case("block_extract", 128, 64, 5),
    Case("block_extract", 256, 32, 3),
    Case("resample2d", 256, 64, 1),
    Case("resample2d", 512, 32, 1),
    Case("local attention", 128, 64, 5),
    Case("local attention", 256, 32, 3),
    Case("local attention, published form", 128, 64, 5),
    Case("local attention, published form", 256, 32, 3),
)


def published_attention(layer: LocalAttention, source, target, flow) -> torch.Tensor:
    """The layer as published: both blocks, their concatenation and the product are stored."""
    k = layer.kernel_size
    source_block = block_extract(source, flow, k)
    target_block = block_extract(target, torch.zeros_like(flow), k)
    weights = layer.fully_connect_layer(torch.cat((target_block, source_block), 1))
    return F.avg_pool2d(local_attn_reshape(weights, k) * source_block, k)


def grid_sample(source: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """torch's bilinear sampling with replicated border, one output pixel per flow vector."""
    h, w = flow.shape[2:]
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, h, device=flow.device),
        torch.linspace(-1, 1, w, device=flow.device),
        indexing="ij",
    )
    grid = torch.stack((x, y), -1) + flow.permute(0, 2, 3, 1) * (2 / source.shape[3])
    return F.grid_sample(source, grid, padding_mode="border", align_corners=True)


def operator(case: Case, reference: bool, device: str) -> Callable[..., torch.Tensor]:
    """The function of (source, target, flow) that ``case`` measures, or its grid_sample."""
    blocks = case.operator == "block_extract"
    if reference:
        k = case.window if blocks else 1
        return lambda s, t, f: grid_sample(s, f.repeat_interleave(k, 2).repeat_interleave(k, 3))
    if blocks:
        return lambda s, t, f: block_extract(s, f, case.window)
    if case.operator == "resample2d":
        return lambda s, t, f: resample2d(s, f)
    layer = LocalAttention(case.channels, case.window).to(device)
    if case.operator == "local attention":
        return lambda s, t, f: layer(s, t, f)
    return lambda s, t, f: published_attention(layer, s, t, f)


def measure(case: Case, reference: bool, args: argparse.Namespace) -> tuple[float, float]:
    """(median seconds, peak bytes beyond the inputs) of forward and backward."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    size = (args.batch, case.channels, case.side, case.side)
    source, target = torch.randn(2, *size, device=args.device).unbind()
    flow = 3 * torch.randn(args.batch, 2, case.side, case.side, device=args.device)
    inputs = [x.requires_grad_() for x in (source.clone(), target.clone(), flow)]
    function = operator(case, reference, args.device)
    alone = args.device == "cpu" and args.threads == 1
    clock = time.process_time if alone else time.perf_counter
    before, seconds = peak_bytes(args.device), []
    for _ in range(args.repeat + 1):
        start = clock()
        out = function(*inputs)
        torch.autograd.grad(out, inputs, out, allow_unused=True)
        if args.device == "cuda":
            torch.cuda.synchronize()
        seconds.append(clock() - start)
        del out
    return statistics.median(seconds[1:]), peak_bytes(args.device) - before


def peak_bytes(device: str) -> float:
    """Highest memory use of this process so far."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Measure every case and print one row of a Markdown table for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8, help="samples (default: 8)")
    parser.add_argument("--repeat", type=int, default=5, help="timed repetitions (default: 5)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    args = parser.parse_args()
    print("| operator | features | k | time | x grid_sample | memory | x grid_sample |")
    print("|---|---|---|---|---|---|---|")
    context = multiprocessing.get_context("spawn")
    for case in CASES:
        results = []
        for reference in (False, True):
            with context.Pool(1) as pool:
                results.append(pool.apply(measure, (case, reference, args)))
        (seconds, memory), (grid_seconds, grid_memory) = results
        print(
            f"| {case.operator} | {args.batch}x{case.channels}x{case.side}x{case.side} "
            f"| {case.window} | {seconds * 1e3:.0f} ms | {seconds / grid_seconds:.1f} "
            f"| {memory / 2**20:.0f} MiB | {memory / grid_memory:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    run_main(main)
