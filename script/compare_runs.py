"""Plot a loss of several training runs over the samples, and print how far apart they end.

    python -m script.compare_runs checkpoints/fp32 checkpoints/bf16 --losses app_gen_t style_gen_t

Reads each run's loss_log.txt; curves are running means over --window lines.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from util.run.main import run_main

from util.errors import UserError

TOTAL = re.compile(r"total_iters: (\d+)")


def build_parser() -> argparse.ArgumentParser:
    """The command line of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("runs", nargs="+", type=Path, help="folders of training runs")
    add("--losses", nargs="+", default=["app_gen_t"], help="losses to plot, one picture each")
    add("--window", type=int, default=10, help="lines of the log that are averaged")
    add("--out", type=Path, default=Path("results/losses.png"), help="picture file")
    add("--debug", action="store_true", help="show the full traceback of an error")
    return parser


def read_log(run: Path, loss: str) -> tuple[np.ndarray, np.ndarray]:
    """(samples seen, value) of every line of a run's log that has ``loss``."""
    path = run / "loss_log.txt"
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected the folder of a training run")
    rows = []
    for line in path.read_text().splitlines():
        total, value = TOTAL.search(line), re.search(rf"(?<!\S){re.escape(loss)}: (\S+)", line)
        if total and value:
            rows.append((int(total[1]), float(value[1])))
    if not rows:
        raise UserError(f"{path} has no loss {loss}; look at a line of it for the names")
    samples, values = zip(*rows, strict=True)
    return np.array(samples), np.array(values)


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of each value and up to ``window - 1`` values before it."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - window, 0)
    return (sums[end] - sums[start]) / (end - start)


def main() -> None:
    """One panel a loss, one curve a run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    opt = build_parser().parse_args()
    size = (5 * len(opt.losses), 3.6)
    figure, axes = plt.subplots(
        1, len(opt.losses), figsize=size, layout="constrained", squeeze=False
    )
    for axis, loss in zip(axes[0], opt.losses, strict=True):
        ends = {}
        for run in opt.runs:
            samples, values = read_log(run, loss)
            means = running_mean(values, opt.window)
            axis.plot(samples, means, label=run.name)
            ends[run.name] = f"{means[0]:.4g} -> {means[-1]:.4g}"
        axis.set(title=loss, xlabel="samples")
        axis.legend()
        print(f"{loss}: " + ", ".join(f"{name} {text}" for name, text in ends.items()))
    opt.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(opt.out, dpi=100)


if __name__ == "__main__":
    run_main(main)
