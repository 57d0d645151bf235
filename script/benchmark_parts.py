"""What script/benchmark.py measures beside training: the machine, loader, generation, metrics."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from data import create_dataset
from data.loader import create_dataloader
from models import create_model
from models.losses import perceptual
from models.networks import ptm
from options.parser import BATCH, Parser, add_debug
from options.train_options import TrainOptions
from util.kinds import choice, positive_int
from util.metrics import CHEAP_METRICS, score_pairs
from util.run.device import PRECISIONS, Precision, to_float32
from util.show.results import ResultWriter

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import torch.nn.functional as F

from models.networks.gfla import LocalAttention
from util.run.main import run_main
from util.sampling import block_extract, local_attn_reshape, resample2d


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


def measure(case: Case, reference: bool, args: Namespace) -> tuple[float, float]:
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
    parser = Parser(__doc__)
    add = parser.option
    add(BATCH, positive_int, 8, "samples", "batch")
    add("--repeat", positive_int, 5, "timed repetitions")
    add("--threads", positive_int, 1, "CPU threads")
    add("--device", choice(("cpu", "cuda")), "cpu", "where")
    add_debug(add)
    args = parser.parse()
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


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_each(work: Callable[[], object], device: torch.device, repeat: int) -> float:
    """Median duration of ``work()`` after two calls that are not counted."""
    taken = []
    for _ in range(repeat + 2):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[2:])


# ---- what the machine can do -------------------------------------------------------------------


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


# ---- loader ------------------------------------------------------------------------------------


def loader_cost(dataset, samples: int) -> dict[str, float]:
    """Milliseconds of a sample, and of decoding and resizing its two JPEGs and nothing else."""
    height, width = dataset.load_size
    ours, bare = [], []
    for index in islice(cycle(range(len(dataset))), samples + 4):
        start = time.perf_counter()
        dataset[index]
        middle = time.perf_counter()
        for name in dataset.pairs[index]:
            with Image.open(dataset.folder / name) as image:
                image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
        ours.append(middle - start)
        bare.append(time.perf_counter() - middle)
    ours, bare = (1000 * statistics.median(v[4:]) for v in (ours, bare))
    return {"sample_ms": ours, "decode_and_resize_ms": bare, "ratio": ours / bare}


def loader_rate(loader, samples: int) -> float:
    """Samples a second that the loader and its processes deliver when nobody else works."""
    loader.batch_sampler.set_position(1)
    batches, size = endless(loader), loader.batch_sampler.batch_size
    next(batches)
    count = max(1, samples // size)
    start = time.perf_counter()
    for _ in range(count):
        next(batches)
    return count * size / (time.perf_counter() - start)


def endless(loader) -> Iterator[dict]:
    """Batches of epoch after epoch."""
    while True:
        yield from loader


# ---- generation and metrics --------------------------------------------------------------------


def generation_rates(opt: Namespace, samples: int) -> dict[str, float]:
    """Images a second of the bare network, and from JPEG files to PNG files as test.py makes them.

    Rounds of both alternate.
    """
    model = create_model(opt)
    model.eval_mode()
    opt.is_train, opt.max_dataset_size = False, None
    loader = create_dataloader(create_dataset(opt), opt)
    batches = endless(loader)
    batch = next(batches)  # the loader processes have started: a list of thousands does it once
    inputs, size = model.prepare(batch), len(batch["source_name"])
    count = max(2, samples // size)
    rates: dict[str, list[float]] = {"bare": [], "end_to_end": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(3):
            each = seconds_each(lambda: model.generate(inputs), model.device, max(2, count // 2))
            rates["bare"].append(size / each)
            start = time.perf_counter()
            with ResultWriter(folder, opt.annotation_size, page=False) as writer:
                for batch in islice(batches, count):
                    writer.add(batch, model.generate(model.prepare(batch)))
            rates["end_to_end"].append(count * size / (time.perf_counter() - start))
    bare, full = (statistics.median(v) for v in rates.values())
    return {"bare_images_per_s": bare, "images_per_s": full, "share_of_bare": full / bare}


def metric_rates(size: tuple[int, int], pairs: int) -> dict[str, float]:
    """Image pairs a second of each metric that needs no network."""
    rng = np.random.default_rng(0)
    images = [
        tuple(rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(2))
        for _ in range(pairs)
    ]
    rates = {}
    for metric in CHEAP_METRICS:
        start = time.perf_counter()
        score_pairs(images, metrics=(metric,))
        rates[metric] = pairs / (time.perf_counter() - start)
    return rates


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
    return TrainOptions().parse(words)


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
    flat = to_float32(x).flatten(2)
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
