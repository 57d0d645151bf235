"""What script/benchmark.py measures beside training: the machine, loader, generation, metrics."""

from __future__ import annotations

import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from itertools import cycle, islice

import numpy as np
import torch
from PIL import Image
from torch import nn

from data import create_dataloader, create_dataset
from models import create_model
from util.metrics import CHEAP_METRICS, score_pairs
from util.result_writer import ResultWriter


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
