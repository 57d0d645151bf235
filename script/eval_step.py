r"""Measure every step of a DPTN_step model: a table and a plot over the steps.

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

import functools
import io
import os
import re
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

from models.networks.dptn_step import check_divisors, coarse_bytes, step_divisors
from options.parser import OUTPUT, RESULTS, Parser
from script.metrics import (
    EXIT_REFUSED,
    add_running,
    add_truth,
    add_weights,
    running_settings,
)
from util.errors import UserError
from util.files import write_file
from util.kinds import REQUIRED, choice, flag, positive_int, several, text
from util.metrics.evaluate import evaluate_folder
from util.metrics.folder import list_images, read_generation
from util.metrics.measure import Evaluation, Settings
from util.metrics.protocols import PROTOCOLS, Protocol, find_protocol
from util.metrics.report import check_output_folder, write_csv, write_report
from util.names import check_relative_name, result_splits
from util.run.main import run_main
from util.show.results import step_folder

if TYPE_CHECKING:
    from pandas import DataFrame

ALIASES = {"A": "dptn_step", "B": "nted_pidm"}  # names of the published step evaluation
DEFAULT_METRICS = ("fid", "lpips", "psnr", "ssim")


def make_parser() -> Parser:
    """Which steps are measured against what; the rest is as in script/metrics.py."""
    parser = Parser(__doc__, prog="python -m script.eval_step")
    add = parser.option
    add(RESULTS, text, REQUIRED, "folder given to test.py; its steps are <results>_<j>", "results")
    add_truth(add)
    add("--step_size", positive_int, 5, "number of steps J of the model")
    divisors = "divisors of the model, if it was trained with --d_schedule"
    add("--d_schedule", several(positive_int), None, divisors, metavar="D")
    add("--steps", several(positive_int), None, "steps to measure; default: all", metavar="J")
    against = "compare step j with coarse images of its level, or with full images"
    add("--vs", choice(("coarse", "full")), "coarse", against)
    protocol = "A = dptn_step (white padding), B = nted_pidm (no padding), or any other"
    add("--protocol", several(choice((*ALIASES, *PROTOCOLS))), ["A"], protocol)
    add("--metrics", several(text), list(DEFAULT_METRICS), "see script/metrics.py")
    add("--market", flag, False, "images as they are: no resize, no padding")
    add("--name", text, None, "folder of the report in --output_dir; default: <results>_steps")
    add(f"--output_dir {OUTPUT}", text, "./eval_results", "where reports are written")
    add_running(add)
    add_weights(add)
    return parser


def chosen_steps(options: Namespace) -> dict[int, int]:
    """Steps to measure and their divisors."""
    given = options.d_schedule
    divisors = check_divisors(given) if given else step_divisors(options.step_size)
    steps = options.steps or range(1, len(divisors) + 1)
    for step in steps:
        if not 1 <= step <= len(divisors):
            raise UserError(f"--steps {step}: expected numbers from 1 to {len(divisors)}")
    check_schedule(options, divisors)
    return {step: divisors[step - 1] for step in sorted(set(steps))}


def check_schedule(options: Namespace, divisors: Sequence[int]) -> None:
    """Refuse divisors that are not those of the results: every number would be wrong."""
    results = Path(options.results)
    made = (read_generation(results) or {}).get("divisors")
    if made is not None and list(made) != list(divisors):
        raise UserError(
            f"the steps of {results} were made with the divisors {' '.join(map(str, made))}, asked "
            f"are {' '.join(map(str, divisors))}; give --d_schedule {' '.join(map(str, made))}"
        )
    pattern = re.compile(re.escape(results.name) + r"_(\d+)")
    folders = (p for p in results.absolute().parent.iterdir() if p.is_dir())
    steps = {int(m[1]) for m in map(pattern.fullmatch, (p.name for p in folders)) if m}
    if steps and max(steps) != len(divisors):
        raise UserError(
            f"{results} has the folders of {max(steps)} steps, asked are {len(divisors)}; give the "
            f"number of steps of the model with --step_size {max(steps)} (or its --d_schedule)"
        )


def settings_for(options: Namespace, divisor: int) -> Settings:
    """Settings of one step; the divisor 1 leaves images as they are."""
    quantised = options.vs == "coarse" and divisor > 1
    return Settings(
        **running_settings(options),
        reference=functools.partial(coarse_bytes, divisor=divisor) if quantised else None,
        reference_name=f"quantised by {divisor}" if quantised else "",
    )


def table(evaluations: dict[int, Evaluation]) -> DataFrame:
    """A row for each metric, a column for each step; NaN where it was refused."""
    from pandas import DataFrame  # slow to import

    values = {
        f"step_{step}": {score.column: score.value for score in evaluation.scores}
        for step, evaluation in evaluations.items()
    }
    names = dict.fromkeys(name for scores in values.values() for name in scores)
    return DataFrame(values).reindex(list(names)).rename_axis("metric")


def plot(frame: DataFrame, title: str) -> bytes:
    """PNG with one panel a metric over the steps."""
    from matplotlib.figure import Figure  # no window, no state

    figure = Figure(figsize=(3.2 * len(frame), 3))
    axes = figure.subplots(1, len(frame), squeeze=False)
    steps = [name.removeprefix("step_") for name in frame.columns]
    for axis, (name, values) in zip(axes[0], frame.iterrows(), strict=True):
        axis.plot(steps, values, marker="o")
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    return stream.getvalue()


def check_images(options: Namespace, steps: Sequence[int]) -> None:
    """Refuse steps without a folder, or whose images are not those of the results."""
    results = Path(options.results)
    for step in steps:
        folder = step_folder(results, step)
        if not folder.is_dir():
            raise UserError(
                f"there is no folder {folder}; make the images of all steps with python test.py "
                f"--results_dir {results} --save_steps"
            )
    folders = {step: step_folder(results, step) for step in steps}
    if results.is_dir():
        folders[0] = results
    names = {
        step: {p.name for p in list_images(folder) if result_splits(p.name)}
        for step, folder in folders.items()
    }
    everything = set().union(*names.values())
    for step, found in names.items():
        missing = sorted(everything - found)
        if missing:
            raise UserError(
                f"{folders[step]} lacks {len(missing)} of "
                f"{len(everything)} images that other steps have; expected the same pairs in all: "
                "generate them again with --save_steps",
                missing[:20],
            )


def measure(
    options: Namespace, protocols: Sequence[Protocol], output: Path, steps: dict[int, int]
) -> dict[int, Evaluation]:
    """Evaluate the folder of every chosen step and write its report."""
    evaluations = {}
    for step, divisor in steps.items():
        settings = settings_for(options, divisor)
        evaluations[step] = evaluate_folder(
            step_folder(options.results, step), options.gt_path, options.fid_real_path, protocols,
            options.metrics, settings,
        )  # fmt: skip
        write_report(evaluations[step], settings, output / f"step_{step}")
        for column, reason in evaluations[step].refused.items():
            print(f"step {step}: {column} was refused: {reason}")
    return evaluations


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write steps.csv and steps.png."""
    options = make_parser().parse(arguments)
    names = dict.fromkeys(ALIASES.get(name, name) for name in options.protocol)
    protocols = [find_protocol(name, options.market) for name in names]
    name = os.path.normpath(options.name or f"{Path(options.results).name}_steps")
    output = Path(options.output_dir) / check_relative_name(name, "--name")
    steps = chosen_steps(options)
    folders = [str(step_folder(options.results, step)) for step in steps]
    check_output_folder(output, [options.gt_path, options.fid_real_path, *folders])
    check_images(options, list(steps))
    evaluations = measure(options, protocols, output, steps)
    frame = table(evaluations)
    print(frame.to_csv(float_format="%.6g", lineterminator="\n"), end="")
    write_csv(output / "steps.csv", frame.map(lambda value: float(f"{value:.6g}")))
    if len(frame):
        title = f"{Path(options.results).name}: steps against {options.vs} images"
        write_file(output / "steps.png", plot(frame, title))
    print(f"written: {output}/steps.csv" + (", steps.png" if len(frame) else ""))
    return EXIT_REFUSED if any(e.refused for e in evaluations.values()) else 0


if __name__ == "__main__":
    run_main(main)
