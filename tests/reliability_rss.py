"""Prints how memory and open files develop during a training, one line every 100 steps.

    python -m tests.reliability_rss --steps 2000 --model DPTN --loadSize 64 --ngf 4 --ndf 4

Synthetic data of 50 pairs, real networks, every log and the page switched on. Options that this
script does not know go to train.py.
"""

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import train
from models.training import TrainingRun
from tests.training_child import write_tiny_data

PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def resident_mebibytes() -> float:
    """Memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20


def open_files() -> int:
    """File descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def watch_steps(report: Callable[[int, float, int], None], every: int) -> None:
    """Call ``report(step, MiB, files)`` after every ``every``-th training step of this process."""
    original, steps = TrainingRun.watch, 0

    def watch(run, *arguments):
        nonlocal steps
        steps += 1
        if steps % every == 0:
            report(steps, resident_mebibytes(), open_files())
        return original(run, *arguments)

    TrainingRun.watch = watch


def main() -> int:
    """Train for the given number of steps and print the curve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=50, help="steps of an epoch")
    opt, rest = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        data = write_tiny_data(Path(folder) / "data", pairs=opt.pairs, size=64)
        argv = ["--dataroot", str(data), "--checkpoints_dir", folder, "--name", "run"]
        argv += ["--old_size", "64", "--gpu_ids", "-1", "--vgg_weights", "random"]
        argv += ["--niter", str(opt.steps // opt.pairs), "--niter_decay", "0"]
        argv += ["--print_freq", "10", "--display_freq", "50", "--save_latest_freq", "100"]
        argv += ["--save_epoch_freq", "5", *rest]
        sys.argv = ["train.py", *argv]

        def report(step: int, memory: float, files: int) -> None:
            print(f"step {step:6} {memory:9.1f} MiB {files:4} files", file=sys.stderr, flush=True)

        watch_steps(report, every=100)
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            return train.main()


if __name__ == "__main__":
    sys.exit(main())
