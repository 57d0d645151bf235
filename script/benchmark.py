"""Measure the loader, the training step, generation and the metrics on this machine.

    python -m script.benchmark                                                       (CPU)
    python -m script.benchmark --device cuda --size 256 --batch 32 --precision bf16 --workers 12

Prints a table and writes benchmark.json and benchmark.png into --out. Images come from JPEG files
of synthetic people rendered for the occasion. The share of the machine's peak refers to a large
matrix product and a large convolution timed in the same run.
"""

import functools
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle, islice, repeat
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from data import create_dataset
from data.loader import create_dataloader
from data.synthetic.write import write_dataset
from models import create_model
from models.base_model import BaseModel
from models.networks.gfla import LocalAttention
from options.parser import BATCH, DEVICE, OUTPUT, WORKERS, Parser
from options.train_options import TrainOptions
from util.files import write_file
from util.kinds import choice, natural, path, positive_int, several, size, text
from util.metrics.pairs import CHEAP_METRICS, score_pairs
from util.run.device import PRECISIONS, choose_device, seed_everything
from util.run.main import run_main
from util.sampling import block_extract, resample2d
from util.show.results import ResultWriter

PARTS = ("loader", "training", "operators", "generation", "metrics")
OPERATORS = (  # name, channels, side of the feature map, side of the window
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
    add(WORKERS, natural, 1, "loader processes", "workers")
    add("--threads", positive_int, None, "CPU threads of PyTorch; default: its own")
    add("--steps", positive_int, 5, "timed steps of each kind; on a GPU take 50")
    add("--samples", positive_int, 100, "timed samples of the loader")
    add("--parts", several(choice(PARTS)), list(PARTS), "what to measure")
    add(OUTPUT, path, Path("results/benchmark"), "folder of the two files", "out")
    return parser


def main() -> None:
    """Measure what was asked for, print it, write JSON."""
    opt = build_parser().parse()
    opt.device = str(choose_device(opt.device))
    if opt.threads:
        torch.set_num_threads(opt.threads)
    seed_everything(0)
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder, "people"), "fashion", identities=4, poses=4, test_identities=1)
        results = measure(opt, Path(folder, "people"))
    for part, values in results.items():
        print(f"\n{part}")
        for name, value in values.items():
            print(f"  {name:<52} {value:.4g}")
    opt.out.mkdir(parents=True, exist_ok=True)
    machine = {  # no names
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    if opt.device.startswith("cuda"):
        machine["gpu"] = torch.cuda.get_device_name()
    found = {"machine": machine, "settings": vars(opt), **results}
    content = json.dumps(found, indent=1, default=str)
    write_file(opt.out / "benchmark.json", content.encode())
    plot(results, opt.out / "benchmark.png")
    print(f"written to {opt.out}/benchmark.json and benchmark.png")


def plot(results: dict[str, dict[str, float]], path: Path) -> None:
    """Bars: rates of loader, training and generation."""
    from matplotlib.figure import Figure  # no window, no state

    rates = {
        f"{part}: {name.replace('_', ' ')}": value
        for part in ("loader", "training", "generation")
        for name, value in results.get(part, {}).items()
        if "_per_s" in name and not name.startswith("TFLOP")
    }
    figure = Figure(figsize=(8, 1 + 0.4 * len(rates)), layout="constrained")
    axis = figure.subplots()
    axis.bar_label(axis.barh(list(rates)[::-1], list(rates.values())[::-1]), fmt=" %.3g")
    axis.set_title("per second")
    axis.margins(x=0.12)
    figure.savefig(path, dpi=110)


def measure(opt: Namespace, root: Path) -> dict[str, dict[str, float]]:
    """Results of every part of ``opt.parts`` by name."""
    device, own = torch.device(opt.device), train_options(opt, root)
    peaks = {
        f"{number_format} {kind}": value
        for number_format in dict.fromkeys(("fp32", opt.precision))
        for kind, value in peak_tflops(device, PRECISIONS[number_format]).items()
    }
    parts: dict[str, Callable[[], dict[str, float]]] = {
        "loader": lambda: loader_cost(own, opt.samples),
        "training": lambda: training_cost(own, opt.steps, peaks),
        "operators": lambda: operator_rates(device, opt.batch, opt.steps),
        "generation": lambda: generation_rates(own, min(opt.samples, 8 * opt.batch)),
        "metrics": lambda: metric_rates(own.annotation_size, 20),
    }
    found = {part: work() for part, work in parts.items() if part in opt.parts}
    return {"peak TFLOP/s": peaks, **found}


def train_options(opt: Namespace, root: Path) -> Namespace:
    """Options of train.py for what the benchmark was asked for."""
    height, width = opt.size
    words = (
        f"--name benchmark --model {opt.model} --load_size {height} {width} --batchSize {opt.batch}"
        f" --ngf {opt.ngf} --precision {opt.precision} --nThreads {opt.workers} --device "
        f"{opt.device} --vgg_weights random"
    )
    folders = [f"--dataroot={root}", f"--checkpoints_dir={root}"]  # may hold spaces
    return TrainOptions().parse([*words.split(), *folders])


# ---- time and memory -----------------------------------------------------------------------------


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


# ---- loader ------------------------------------------------------------------------------------


def batches_of(opt: Namespace) -> Iterator[dict]:
    """Batches of the data set that the options name, epoch after epoch."""
    loader = create_dataloader(create_dataset(opt), opt)
    while True:
        yield from loader


def loader_cost(opt: Namespace, samples: int) -> dict[str, float]:
    """Milliseconds of a sample, and of decoding and resizing its two JPEGs and nothing else;
    samples a second of the loader and its processes when nobody else works."""
    dataset, batches = create_dataset(opt), batches_of(opt)
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
    next(batches)
    start, seen = time.perf_counter(), 0
    while seen < samples:
        seen += len(next(batches)["source_image"])
    rate = seen / (time.perf_counter() - start)
    return {
        "sample_ms": ours, "decode_and_resize_ms": bare, "ratio": ours / bare,
        "samples_per_s": rate,
    }  # fmt: skip


# ---- training ----------------------------------------------------------------------------------


def train_step(model: BaseModel, batch: dict) -> str | None:
    """What train.py does with a batch between two lines of the log; a network whose gradient was
    not finite."""
    model.set_input(batch)
    model.optimize_parameters()
    return model.stepper.not_finite()


def training_rate(model: BaseModel, batches: Iterator[dict], steps: int) -> float:
    """Samples a second of training steps."""
    each = seconds_each(lambda: train_step(model, next(batches)), model.device, steps)
    return model.opt.batchSize / each


def training_cost(opt: Namespace, steps: int, peaks: dict[str, float]) -> dict[str, float]:
    """Samples a second with one batch that stays and with batches from the JPEG files; memory;
    arithmetic, and its share of the peak."""
    model, batches = create_model(opt), batches_of(opt)
    batch = next(batches)
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    rates = [training_rate(model, given, steps) for given in (repeat(batch), batches)]
    memory, gflop = peak_memory(model.device) / 2**20, step_gflop(opt, batch)
    tflops = rates[0] * gflop / 1000
    return {
        "samples_per_s": rates[0],
        "samples_per_s_from_jpegs": rates[1],
        "peak_memory_MiB": memory,
        "GFLOP_per_sample": gflop,
        "TFLOP_per_s": tflops,
        **{f"share_of_{name}": tflops / peak for name, peak in peaks.items()},
    }


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


# ---- GFLA's sampling operators -----------------------------------------------------------------


def operator_rates(device: torch.device, batch: int, steps: int) -> dict[str, float]:
    """Seconds, forward and backward, of each operator at its levels of a 256 x 256 image, and how
    many times those of torch's grid_sample with as many outputs."""
    found = {}
    for name, channels, side, k in OPERATORS:
        images = torch.randn(2, batch, channels, side, side, device=device)
        tensors = (*images, 3 * torch.randn(batch, 2, side, side, device=device))
        work = {
            "block_extract": lambda s, t, f, k=k: block_extract(s, f, k),
            "resample2d": lambda s, t, f: resample2d(s, f),
            "local attention": LocalAttention(channels, k).to(device),
        }[name]
        theirs = functools.partial(_grid_sample, n=k if name == "block_extract" else 1)
        ours, sampled = (
            seconds_each(functools.partial(_there_and_back, f, *tensors), device, steps)
            for f in (work, theirs)
        )
        label = f"{name}, {channels} x {side} x {side}, k = {k}"
        found |= {f"{label}: s": ours, f"{label}: times grid_sample": ours / sampled}
    return found


def _there_and_back(function: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> None:
    inputs = [x.clone().requires_grad_() for x in tensors]
    out = function(*inputs)
    torch.autograd.grad(out, inputs, out, allow_unused=True)


def _grid_sample(source: torch.Tensor, _: object, flow: torch.Tensor, n: int) -> torch.Tensor:
    """torch's bilinear sampling with replicated border, n x n output pixels per flow vector."""
    flow = flow.repeat_interleave(n, 2).repeat_interleave(n, 3)
    axes = [torch.linspace(-1, 1, side, device=flow.device) for side in flow.shape[2:]]
    y, x = torch.meshgrid(*axes, indexing="ij")
    grid = torch.stack((x, y), -1) + flow.permute(0, 2, 3, 1) * (2 / source.shape[3])
    return F.grid_sample(source, grid, padding_mode="border", align_corners=True)


# ---- generation and metrics --------------------------------------------------------------------


def generation_rates(opt: Namespace, samples: int) -> dict[str, float]:
    """Images a second of the bare network, and from JPEG files to PNG files as test.py does it."""
    model = create_model(opt)
    model.eval_mode()
    opt.is_train, opt.max_dataset_size = False, None
    batches = batches_of(opt)
    batch = next(batches)  # the loader processes have started: a list of thousands does it once
    inputs, size = model.prepare(batch), len(batch["source_name"])
    count = max(2, samples // size)
    bare = size / seconds_each(lambda: model.generate(inputs), model.device, count)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        with ResultWriter(folder, opt.annotation_size, page=False) as writer:
            for batch in islice(batches, count):
                writer.add(batch, model.generate(model.prepare(batch)))
        full = count * size / (time.perf_counter() - start)
    return {"bare_images_per_s": bare, "images_per_s": full, "share_of_bare": full / bare}


def metric_rates(size: tuple[int, int], pairs: int) -> dict[str, float]:
    """Image pairs a second of each metric that needs no network."""
    rng = np.random.default_rng(0)
    images = [
        tuple(rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(2))
        for _ in range(pairs)
    ]
    cpu, work = torch.device("cpu"), functools.partial(score_pairs, images)
    return {m: pairs / seconds_each(lambda m=m: work(metrics=(m,)), cpu, 1) for m in CHEAP_METRICS}


if __name__ == "__main__":
    run_main(main)
