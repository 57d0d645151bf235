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
from script.metrics import EXIT_REFUSED, add_running, add_truth, running_settings
from util.errors import UserError
from util.files import write_file
from util.kinds import REQUIRED, choice, flag, positive_int, several, text
from util.metrics.evaluate import evaluate_folder
from util.metrics.folder import list_images, read_generation
from util.metrics.protocols import PROTOCOLS, Protocol, find_protocol
from util.metrics.registry import Evaluation, Settings
from util.metrics.report import check_output_folder, write_csv, write_report
from util.names import check_relative_name, result_splits
from util.run.main import run_main
from util.show.results import step_folder

if TYPE_CHECKING:
    from pandas import DataFrame

ALIASES = {"A": "dptn_step", "B": "nted_pidm"}  # names of the published step evaluation


def make_parser() -> Parser:
    """Which steps are measured against what; the rest is as in script/metrics.py."""
    parser = Parser(__doc__, prog="python -m script.eval_step")
    add = parser.option
    add(RESULTS, text, REQUIRED, "folder given to test.py; its steps are <results>_<j>", "results")
    add_truth(add)
    add("--step_size", positive_int, 5, "number of steps J of the model")
    add("--d_schedule", several(positive_int), None, "as the model was trained", metavar="D")
    add("--steps", several(positive_int), None, "steps to measure; default: all", metavar="J")
    against = choice(("coarse", "full"))
    add("--vs", against, "coarse", "compare step j with coarse images of its level, or full images")
    protocols = several(choice((*ALIASES, *PROTOCOLS)))
    add("--protocol", protocols, ["A"], "A = dptn_step (white padding), B = nted_pidm (none), ...")
    add("--metrics", several(text), ["fid", "lpips", "psnr", "ssim"], "see script/metrics.py")
    add("--market", flag, False, "images as they are: no resize, no padding")
    add("--name", text, None, "folder of the report in --output_dir; default: <results>_steps")
    add(f"--output_dir {OUTPUT}", text, "./eval_results", "where reports are written")
    add_running(add, add)
    return parser


def chosen_steps(options: Namespace) -> dict[int, int]:
    """Steps to measure and their divisors."""
    given = options.d_schedule
    divisors = check_divisors(given) if given else step_divisors(options.step_size)
    check_schedule(Path(options.results), divisors)
    steps = options.steps or range(1, len(divisors) + 1)
    wrong = [step for step in steps if not 1 <= step <= len(divisors)]
    if wrong:
        raise UserError(f"--steps {wrong[0]}: expected numbers from 1 to {len(divisors)}")
    return {step: divisors[step - 1] for step in sorted(set(steps))}


def check_schedule(results: Path, divisors: Sequence[int]) -> None:
    """Refuse divisors that are not those of the results: every number would be wrong."""
    made, prefix = read_generation(results).get("divisors"), f"{results.name}_"
    if made is not None and list(made) != list(divisors):
        words = " ".join(map(str, made))
        raise UserError(
            f"the steps of {results} were made with the divisors {words}, asked are "
            f"{' '.join(map(str, divisors))}; give --d_schedule {words}"
        )
    folders = (p.name for p in results.absolute().parent.iterdir() if p.is_dir())
    ends = [name.removeprefix(prefix) for name in folders if name.startswith(prefix)]
    last = max((int(end) for end in ends if end.isdecimal()), default=len(divisors))
    if last != len(divisors):
        raise UserError(
            f"{results} has the folders of {last} steps, asked are {len(divisors)}; give the "
            f"number of steps of the model with --step_size {last} (or its --d_schedule)"
        )


def plot(frame: DataFrame, title: str) -> bytes:
    """PNG with one panel a metric over the steps."""
    from matplotlib.figure import Figure  # no window, no state

    figure = Figure(figsize=(3.2 * len(frame), 3), layout="tight")
    axes = figure.subplots(1, len(frame), squeeze=False)[0]
    for axis, (name, values) in zip(axes, frame.iterrows(), strict=True):
        axis.plot(values.index.str.removeprefix("step_"), values, marker="o")
        axis.set(title=name, xlabel="step")
        axis.grid(alpha=0.3)
    figure.suptitle(title)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    return stream.getvalue()


def check_images(results: Path, folders: Sequence[Path]) -> None:
    """Refuse steps without a folder, or whose images are not those of the results."""
    for folder in folders:
        if not folder.is_dir():
            raise UserError(
                f"there is no folder {folder}; make the images of all steps with python test.py "
                f"--results_dir {results} --save_steps"
            )
    names = {
        folder: {path.name for path in list_images(folder) if result_splits(path.name)}
        for folder in (*folders, results)
        if folder.is_dir()
    }
    everything = set().union(*names.values())
    for folder, found in names.items():
        missing = sorted(everything - found)
        if missing:
            raise UserError(
                f"{folder} lacks {len(missing)} of {len(everything)} images that other steps "
                "have; expected the same pairs in all: generate them again with --save_steps",
                missing[:20],
            )


def measure(
    options: Namespace, protocols: Sequence[Protocol], folder: Path, output: Path, divisor: int
) -> Evaluation:
    """Evaluate the images of a step and write its report."""
    quantised = options.vs == "coarse" and divisor > 1  # the divisor 1 leaves images as they are
    settings = Settings(
        **running_settings(options),
        reference=functools.partial(coarse_bytes, divisor=divisor) if quantised else None,
        reference_name=f"quantised by {divisor}" if quantised else "",
    )
    real = options.fid_real_path
    evaluation = evaluate_folder(
        folder, options.gt_path, real, protocols, options.metrics, settings
    )
    write_report(evaluation, output)
    for column, reason in evaluation.refused.items():
        print(f"{output.name.replace('_', ' ')}: {column} was refused: {reason}")
    return evaluation


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every chosen step, print the table, write steps.csv and steps.png."""
    from pandas import DataFrame  # slow to import

    options = make_parser().parse(arguments)
    names = dict.fromkeys(ALIASES.get(name, name) for name in options.protocol)
    protocols = [find_protocol(name, options.market) for name in names]
    results = Path(options.results)
    name = os.path.normpath(options.name or f"{results.name}_steps")
    output = Path(options.output_dir) / check_relative_name(name, "--name")
    steps = chosen_steps(options)
    folders = {step: step_folder(results, step) for step in steps}
    check_output_folder(output, [options.gt_path, options.fid_real_path, *folders.values()])
    check_images(results, list(folders.values()))
    evaluations = {
        step: measure(options, protocols, folders[step], output / f"step_{step}", divisor)
        for step, divisor in steps.items()
    }
    rows = [{score.column: score.value for score in e.scores} for e in evaluations.values()]
    frame = DataFrame(rows, [f"step_{step}" for step in evaluations]).T.rename_axis("metric")
    print(frame.to_csv(float_format="%.6g", lineterminator="\n"), end="")
    write_csv(output / "steps.csv", frame.map(lambda value: float(f"{value:.6g}")))
    if len(frame):
        title = f"{results.name}: steps against {options.vs} images"
        write_file(output / "steps.png", plot(frame, title))
    print(f"written: {output}/steps.csv" + (", steps.png" if len(frame) else ""))
    return EXIT_REFUSED if any(e.refused for e in evaluations.values()) else 0


if __name__ == "__main__":
    run_main(main)
