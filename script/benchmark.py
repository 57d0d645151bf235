"""Measure the loader, the training step, generation and the metrics on this machine.

    python -m script.benchmark                                                       (CPU)
    python -m script.benchmark --device cuda --size 256 --batch 32 --precision bf16 --workers 12

Prints a table and writes benchmark.json and benchmark.png into --out. Images come from JPEG files:
those of --dataroot, or synthetic people rendered for the occasion. The share of the machine's peak
refers to a large matrix product and a large convolution timed in the same run.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from data import create_dataset
from data.loader import create_dataloader
from data.synthetic.write import write_dataset
from models import create_model
from models.networks.gfla import LocalAttention
from options.parser import BATCH, DATA, DEVICE, OUTPUT, WORKERS, Parser, add_debug
from options.train_options import TrainOptions
from util.files import write_atomically
from util.kinds import choice, natural, path, positive_int, several, size, text
from util.metrics import CHEAP_METRICS, score_pairs
from util.run.device import PRECISIONS, choose_device, seed_everything
from util.run.main import run_main
from util.run.timing import alternating_medians, peak_memory, peak_tflops, seconds_each, synchronize
from util.sampling import block_extract, resample2d
from util.show.results import ResultWriter

PARTS = ("loader", "training", "options", "operators", "generation", "metrics")
NEEDS_COMPILER = "options"  # left out on a CPU unless asked for: a laptop may have no C++ compiler


# name, channels, side of the feature map, side of the window
OPERATORS = (
    ("block_extract", 128, 64, 5), ("block_extract", 256, 32, 3),
    ("resample2d", 256, 64, 1), ("resample2d", 512, 32, 1),
    ("local attention", 128, 64, 5), ("local attention", 256, 32, 3),
)  # fmt: skip


def build_parser() -> Parser:
    """The command line of this script."""
    parser = Parser(__doc__)
    add = parser.option
    add(DEVICE, text, "cpu", "cpu or cuda", "device")
    add("--size", size, (128, 64), "side, or height width", metavar="N")
    add(BATCH, positive_int, 4, "samples a step", "batch")
    add("--precision", choice(sorted(PRECISIONS)), "fp32", "number format")
    add("--model", text, "DPTN", "model")
    add("--ngf", positive_int, 64, "width of the generator")
    add("--ndf", positive_int, 32, "width of the discriminator")
    add(WORKERS, natural, 1, "loader processes", "workers")
    add("--threads", positive_int, None, "CPU threads of PyTorch; default: its own")
    add("--steps", positive_int, 5, "timed steps of each kind; on a GPU take 50")
    add("--samples", positive_int, 100, "timed samples of the loader")
    parts = f"what to measure; default: all, on a CPU all but {NEEDS_COMPILER}"
    add("--parts", several(choice(PARTS)), None, parts)
    add(DATA, path, None, "images to use; default: synthetic people", "dataroot")
    add("--dataset_mode", text, "fashion", "layout of --dataroot")
    add(OUTPUT, path, Path("results/benchmark"), "folder of the two files", "out")
    add_debug(add)
    return parser


def main() -> None:
    """Measure what was asked for, print it, write JSON and plot."""
    opt = build_parser().parse()
    opt.device = str(choose_device(opt.device))
    if opt.parts is None:
        opt.parts = [p for p in PARTS if opt.device != "cpu" or p != NEEDS_COMPILER]
    if opt.threads:
        torch.set_num_threads(opt.threads)
    seed_everything(0)
    with tempfile.TemporaryDirectory() as folder:
        root = opt.dataroot or Path(folder)
        if opt.dataroot is None:
            write_dataset(root / "people", "fashion", identities=4, poses=4, test_identities=1)
            root = root / "people"
        results = measure(opt, root)
    print("\n".join(lines(results)))
    opt.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine(opt), "settings": settings(opt), **results}, indent=1)
    write_atomically(opt.out / "benchmark.json", text.encode())
    plot(results, opt.out / "benchmark.png")
    print(f"written to {opt.out}/benchmark.json and benchmark.png")


def settings(opt: Namespace) -> dict:
    """The options that the numbers depend on."""
    left_out = ("out", "debug", "dataroot")
    return {k: v for k, v in vars(opt).items() if k not in left_out}


def machine(opt: Namespace) -> dict:
    """Kind of processor and versions; no names."""
    found = {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    if opt.device.startswith("cuda"):
        found["gpu"] = torch.cuda.get_device_name()
    return found


def measure(opt: Namespace, root: Path) -> dict:
    """Results of every part of ``opt.parts`` by name."""
    device = torch.device(opt.device)
    own = train_options(opt, root)
    dataset = create_dataset(own)
    loader = create_dataloader(dataset, own)
    results: dict[str, dict] = {}
    formats = dict.fromkeys(("fp32", opt.precision))
    peaks = {f: peak_tflops(device, PRECISIONS[f]) for f in formats}
    results["peak TFLOP/s"] = {f"{f} {k}": v for f, p in peaks.items() for k, v in p.items()}
    if "loader" in opt.parts:
        found = loader_cost(dataset, opt.samples)
        found["samples_per_s"] = loader_rate(loader, opt.samples)
        results["loader"] = found
    batch = next(iter(loader))
    if "training" in opt.parts:
        found = training_rates(own, loader, opt.steps)
        found["GFLOP_per_sample"] = step_gflop(own, batch)
        reached = found["samples_per_s"] * found["GFLOP_per_sample"] / 1000
        found |= {"TFLOP_per_s": reached} | {
            f"share_of_{name}": reached / peak for name, peak in results["peak TFLOP/s"].items()
        }
        results["training"] = found
    if "options" in opt.parts:
        results["switched on alone"] = gains(opt, root, batch, opt.steps)
    if "operators" in opt.parts:
        results["operators"] = operator_rates(device, opt.batch, opt.steps)
    if "generation" in opt.parts:
        results["generation"] = generation_rates(own, min(opt.samples, 8 * opt.batch))
    if "metrics" in opt.parts:
        results["metrics, pairs per s"] = metric_rates(own.annotation_size, 20)
    return results


def lines(results: dict) -> list[str]:
    """The results as text, a heading and indented lines for every part."""
    text = []
    for part, values in results.items():
        text.append(f"\n{part}")
        for name, value in values.items():
            if isinstance(value, dict):
                value = ", ".join(f"{k} {v:.4g}" for k, v in value.items())
            text.append(f"  {name:<52} {value if isinstance(value, str) else f'{value:.4g}'}")
    return text


def plot(results: dict, path: Path) -> None:
    """Bars: rates of loader, training and generation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rates = {
        f"{part}: {name.replace('_', ' ')}": value
        for part in ("loader", "training", "generation")
        for name, value in results.get(part, {}).items()
        if "_per_s" in name and not name.startswith("TFLOP")
    }
    figure, axis = plt.subplots(figsize=(8, 1 + 0.4 * len(rates)), layout="constrained")
    bars = axis.barh(list(rates)[::-1], list(rates.values())[::-1], color="#4878a8")
    axis.bar_label(bars, fmt=" %.3g")
    axis.set_title("per second")
    axis.margins(x=0.12)
    figure.savefig(path, dpi=110)
    plt.close(figure)


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


def train_options(opt: Namespace, root: Path, **changes: object) -> Namespace:
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
    return {
        "samples_per_s": bare,
        "samples_per_s_from_jpegs": steps * size / (time.perf_counter() - start),
        "peak_memory_MiB": peak_memory(model.device) / 2**20,
    }


def offers(opt: Namespace) -> dict[str, dict[str, object]]:
    """Options of train.py that a run may switch on beyond ``opt``, by what is typed."""
    found: dict[str, dict[str, object]] = {"--compile": {"compile": True}}
    if opt.device.startswith("cuda"):
        found |= {"--cuda_graphs": {"cuda_graphs": True}, "--tf32": {"tf32": True}}
        found |= {f"--precision {p}": {"precision": p} for p in PRECISIONS if p != opt.precision}
    return found


def gains(opt: Namespace, root: Path, batch: dict, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of a step with each option of :func:`offers`, and the step as it is divided by that.

    Compilation itself is not timed.
    """
    steps = {}
    for name, changes in {"as it is": {}, **offers(opt)}.items():
        model = create_model(train_options(opt, root, **changes))
        steps[name] = functools.partial(train_step, model, batch)
    medians = alternating_medians(steps, torch.device(opt.device), rounds)
    return {k: {"step_s": v, "times_faster": medians["as it is"] / v} for k, v in medians.items()}


# ---- GFLA's sampling operators -----------------------------------------------------------------


def operator_rates(device: torch.device, batch: int, repeat: int) -> dict[str, dict[str, float]]:
    """Seconds, forward and backward, of each operator at its levels of a 256 x 256 image, and how
    many times those of torch's grid_sample with as many outputs."""
    found = {}
    for name, channels, side, k in OPERATORS:
        source, target = torch.randn(2, batch, channels, side, side, device=device)
        flow = 3 * torch.randn(batch, 2, side, side, device=device)
        layer = LocalAttention(channels, max(k, 1)).to(device)
        work = {
            "block_extract": lambda s, t, f, k=k: block_extract(s, f, k),
            "resample2d": lambda s, t, f: resample2d(s, f),
            "local attention": layer,
        }[name]
        outputs = k if name == "block_extract" else 1
        ours, theirs = (
            seconds_each(
                functools.partial(_there_and_back, f, source, target, flow), device, repeat
            )
            for f in (work, lambda s, t, f, n=outputs: _grid_sample(s, f, n))
        )
        found[f"{name}, {channels} x {side} x {side}, k = {k}"] = {
            "s": ours, "times_grid_sample": ours / theirs,
        }  # fmt: skip
    return found


def _there_and_back(function: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> None:
    inputs = [x.clone().requires_grad_() for x in tensors]
    out = function(*inputs)
    torch.autograd.grad(out, inputs, out, allow_unused=True)


def _grid_sample(source: torch.Tensor, flow: torch.Tensor, n: int) -> torch.Tensor:
    """torch's bilinear sampling with replicated border, n x n output pixels per flow vector."""
    flow = flow.repeat_interleave(n, 2).repeat_interleave(n, 3)
    axes = [torch.linspace(-1, 1, side, device=flow.device) for side in flow.shape[2:]]
    y, x = torch.meshgrid(*axes, indexing="ij")
    grid = torch.stack((x, y), -1) + flow.permute(0, 2, 3, 1) * (2 / source.shape[3])
    return F.grid_sample(source, grid, padding_mode="border", align_corners=True)


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


if __name__ == "__main__":
    run_main(main)
