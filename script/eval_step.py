"""Measure every step of a DPTN_step model: a table and a plot over the steps.

    python test.py --name RUN --dataroot dataset/fashion --save_id RUN --save_steps
    python -m script.eval_step --results results/RUN --gt_path dataset/fashion/test \
        --fid_real_path dataset/fashion/train --step_size 5

The images of step j are in <results>_<j>. They are compared with coarse images: ground truth and
real set are quantised with the step's divisor d_j after the protocol's resize (--vs coarse), or
with the full images (--vs full); at the last step both are the same. Writes steps.csv (a row for
each metric, a column for each step), steps.png and a metrics.json for each step. Exit status: 0, or
3 when a metric was refused; the others are computed.
"""

from __future__ import annotations

import csv
import functools
import io
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

from models.networks.dptn_step import check_divisors, coarse_array, step_divisors
from options.parser import Parser
from util.errors import UserError
from util.files import make_folder, write_file
from util.metrics.evaluate import evaluate_folder
from util.metrics.measure import Evaluation, Settings
from util.metrics.protocols import PROTOCOLS, Protocol, find_protocol
from util.metrics.report import check_output_folder, write_report
from util.metrics.set_pass import default_cache_dir
from util.metrics.weights import WEIGHTS
from util.run.device import choose_device
from util.run.main import run_main
from util.show.results import step_folder

EXIT_REFUSED = 3
ALIASES = {"A": "dptn_step", "B": "nted_pidm"}  # names of the published step evaluation
DEFAULT_METRICS = ("fid", "lpips", "psnr", "ssim")


def make_parser() -> Parser:
    parser = Parser(prog="python -m script.eval_step", description=__doc__.split("\n", 1)[0])
    add = parser.add_argument
    add("--results", required=True, help="folder given to test.py; its steps are <results>_<j>")
    add("--gt_path", required=True, help="folder of ground-truth images")
    add("--fid_real_path", help="folder of real images for FID and KID: the training images")
    add("--step_size", type=int, default=5, help="number of steps J of the model")
    add(
        "--d_schedule",
        type=int,
        nargs="+",
        metavar="D",
        help="divisors of the model, if it was trained with --d_schedule",
    )
    add("--steps", type=int, nargs="+", metavar="J", help="steps to measure; default: all")
    add(
        "--vs",
        default="coarse",
        choices=("coarse", "full"),
        help="compare step j with coarse images of its level, or with full images",
    )
    add(
        "--protocol",
        nargs="+",
        default=["A"],
        choices=(*ALIASES, *PROTOCOLS),
        help="A = dptn_step (white padding), B = nted_pidm (no padding), or any other",
    )
    add("--metrics", nargs="+", default=list(DEFAULT_METRICS), help="see script/metrics.py")
    add("--market", action="store_true", help="images as they are: no resize, no padding")
    add("--name", help="folder of the report in --output_dir; default: <results folder>_steps")
    add("--output_dir", default="./eval_results", help="where reports are written")
    _add_running(add)
    return parser


def _add_running(add) -> None:
    add("--device", help="cpu, cuda, cuda:1 …; default: the first GPU if there is one")
    add("--batch_size", type=int, default=16, help="images at once in the networks")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes that score pairs")
    add("--cache_dir", default=str(default_cache_dir()), help="statistics of real sets")
    add("--no_cache", action="store_true", help="neither use nor keep statistics of real sets")
    add("--offline", action="store_true", help="never try to download weights")
    add("--debug", action="store_true", help="show the traceback of an error")
    for key, weight in WEIGHTS.items():
        add(weight.option, dest=f"weights_{key}", metavar="PATH", help=weight.file.what)


def chosen_steps(options: Namespace) -> dict[int, int]:
    """Steps to measure and their divisors."""
    given = options.d_schedule
    divisors = check_divisors(given) if given else step_divisors(options.step_size)
    steps = options.steps or range(1, len(divisors) + 1)
    for step in steps:
        if not 1 <= step <= len(divisors):
            raise UserError(f"--steps {step}: expected numbers from 1 to {len(divisors)}")
    return {step: divisors[step - 1] for step in sorted(set(steps))}


def settings_for(options: Namespace, divisor: int) -> Settings:
    """Settings of one step; the divisor 1 leaves images as they are."""
    quantised = options.vs == "coarse" and divisor > 1
    return Settings(
        device=str(choose_device(options.device)),
        batch_size=options.batch_size,
        workers=options.workers,
        reference=functools.partial(coarse_array, divisor=divisor) if quantised else None,
        reference_name=f"quantised by {divisor}" if quantised else "",
        weights={key: getattr(options, f"weights_{key}") for key in WEIGHTS},
        offline=options.offline,
        cache_dir=None if options.no_cache else Path(options.cache_dir),
    )


def table(evaluations: dict[int, Evaluation]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a metric and its value at every step; empty where it was refused."""
    values = {
        step: {score.column: score.value for score in evaluation.scores}
        for step, evaluation in evaluations.items()
    }
    columns = dict.fromkeys(name for scores in values.values() for name in scores)
    rows = [
        [name, *(f"{scores[name]:.6g}" if name in scores else "" for scores in values.values())]
        for name in columns
    ]
    return ["metric", *(f"step_{step}" for step in values)], rows


def csv_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([header, *rows])
    return stream.getvalue()


def plot(header: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> bytes:
    """PNG with one panel a metric over the steps."""
    figure, axes = pyplot.subplots(1, len(rows), figsize=(3.2 * len(rows), 3), squeeze=False)
    labels = [name.removeprefix("step_") for name in header[1:]]
    for axis, (name, *values) in zip(axes[0], rows, strict=True):
        axis.plot(labels, [float(v) if v else float("nan") for v in values], marker="o")
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    pyplot.close(figure)
    return stream.getvalue()


def measure(
    options: Namespace, protocols: Sequence[Protocol], output: Path
) -> dict[int, Evaluation]:
    """Evaluate the folder of every chosen step and write its report."""
    evaluations = {}
    for step, divisor in chosen_steps(options).items():
        folder = step_folder(options.results, step)
        if not folder.is_dir():
            raise UserError(
                f"there is no folder {folder}; make the images of all steps with python test.py "
                f"--results_dir {options.results} --save_steps"
            )
        settings = settings_for(options, divisor)
        evaluations[step] = evaluate_folder(
            folder, options.gt_path, options.fid_real_path, protocols, options.metrics, settings
        )
        write_report(evaluations[step], settings, make_folder(output / f"step_{step}"))
        for column, reason in evaluations[step].refused.items():
            print(f"step {step}: {column} was refused: {reason}")
    return evaluations


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write steps.csv and steps.png."""
    options = make_parser().parse_strictly(list(sys.argv[1:] if arguments is None else arguments))
    names = dict.fromkeys(ALIASES.get(name, name) for name in options.protocol)
    protocols = [find_protocol(name, options.market) for name in names]
    output = Path(options.output_dir) / (options.name or f"{Path(options.results).name}_steps")
    steps = [str(step_folder(options.results, step)) for step in chosen_steps(options)]
    check_output_folder(output, [options.gt_path, options.fid_real_path, *steps])
    evaluations = measure(options, protocols, output)
    header, rows = table(evaluations)
    text = csv_text(header, rows)
    write_file(output / "steps.csv", text.encode())
    if rows:
        title = f"{Path(options.results).name}: steps against {options.vs} images"
        write_file(output / "steps.png", plot(header, rows, title))
    print(text, end="")
    print(f"written: {output}/steps.csv, steps.png")
    return EXIT_REFUSED if any(e.refused for e in evaluations.values()) else 0


if __name__ == "__main__":
    run_main(main)
