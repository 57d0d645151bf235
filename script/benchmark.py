"""Measure the loader, the training step, generation and the metrics on this machine.

    python -m script.benchmark                                                       (CPU)
    python -m script.benchmark --device cuda --size 256 --batch 32 --precision bf16 --workers 12

Prints a table and writes benchmark.json and benchmark.png into --out. Images come from JPEG files:
those of --dataroot, or synthetic people rendered for the occasion. The share of the machine's peak
refers to a large matrix product and a large convolution timed in the same run.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from data import create_dataset
from data.loader import create_dataloader
from data.synthetic import write_dataset
from options.parser import BATCH, DATA, DEVICE, OUTPUT, WORKERS, Parser, add_debug
from script import benchmark_parts as parts
from script import benchmark_parts as training
from util.files import write_atomically
from util.kinds import choice, natural, path, positive_int, several, size, text
from util.run.device import PRECISIONS, choose_device
from util.run.main import run_main

PARTS = ("loader", "training", "switches", "options", "generation", "metrics")
NEEDS_COMPILER = "options"  # left out on a CPU unless asked for: a laptop may have no C++ compiler


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
    torch.backends.cudnn.benchmark = True
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
    own = training.options(opt, root)
    dataset = create_dataset(own)
    loader = create_dataloader(dataset, own)
    results: dict[str, dict] = {}
    formats = dict.fromkeys(("fp32", opt.precision))
    peaks = {f: parts.peak_tflops(device, PRECISIONS[f]) for f in formats}
    results["peak TFLOP/s"] = {f"{f} {k}": v for f, p in peaks.items() for k, v in p.items()}
    if "loader" in opt.parts:
        found = parts.loader_cost(dataset, opt.samples)
        found["samples_per_s"] = parts.loader_rate(loader, opt.samples)
        results["loader"] = found
    batch = next(iter(loader))
    if "training" in opt.parts:
        found = training.training_rates(own, loader, opt.steps)
        found["GFLOP_per_sample"] = training.step_gflop(own, batch)
        reached = found["samples_per_s"] * found["GFLOP_per_sample"] / 1000
        found |= {"TFLOP_per_s": reached} | {
            f"share_of_{name}": reached / peak for name, peak in results["peak TFLOP/s"].items()
        }
        results["training"] = found
    if "switches" in opt.parts and opt.model.lower() == "dptn":
        results["switched off alone"] = training.worth(opt, root, batch, opt.steps)
    if "options" in opt.parts:
        results["switched on alone"] = training.gains(opt, root, batch, opt.steps)
    if "generation" in opt.parts:
        results["generation"] = parts.generation_rates(own, min(opt.samples, 8 * opt.batch))
    if "metrics" in opt.parts:
        results["metrics, pairs per s"] = parts.metric_rates(own.annotation_size, 20)
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
    """Bars: what each optimization is worth, and rates of training and generation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    worth = {k: v["times_slower"] for k, v in results.get("switched off alone", {}).items()}
    rates = {
        f"{part}: {name}": value
        for part in ("loader", "training", "generation")
        for name, value in results.get(part, {}).items()
        if name.endswith("_per_s") and not name.startswith("TFLOP")
    } | {
        f"{name} (from JPEG files)": results["training"][name]
        for name in ("samples_per_s_from_jpegs",)
        if "training" in results
    }
    figure, axes = plt.subplots(1, 2, figsize=(14, 4.5), layout="constrained")
    titles = ("time of a step without it / with all", "per second")
    for axis, values, title in zip(axes, (worth, rates), titles, strict=True):
        axis.barh(list(values)[::-1], list(values.values())[::-1], color="#4878a8")
        for row, value in enumerate(list(values.values())[::-1]):
            axis.text(value, row, f" {value:.3g}", va="center")
        axis.set_title(title)
        axis.margins(x=0.12)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    run_main(main)
