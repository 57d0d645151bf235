"""Measure generated images.

    python -m script.metrics --gt_path dataset/fashion/test --distorated_path results/RUN
    --fid_real_path dataset/fashion/train --name RUN

Prints a table and writes metrics.json, metrics.csv (one row for each image) and index.html into
--output_dir/--name, never into a measured folder. Several folders after --distorated_path give one
comparison (Markdown, LaTeX, CSV) and one page with the models side by side. Exit status: 0
everything asked for was computed; 2 nothing was measured, the input is wrong; 3 something asked for
was refused, the rest is computed and saved.
"""

from __future__ import annotations

import os
import shutil
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

import numpy as np
from PIL import Image

from options.parser import OUTPUT, RESULTS, Parser, add_batch, add_debug, add_device, add_workers
from util.errors import UserError
from util.files import check_writable
from util.kinds import REQUIRED, Add, choice, flag, positive_int, several, text
from util.metrics.evaluate import evaluate_folder
from util.metrics.folder import asked_results
from util.metrics.inception import default_cache_dir
from util.metrics.keypoints import KeypointTable, default_table, read_table
from util.metrics.measure import Evaluation, Settings
from util.metrics.page import show_on_result_page, write_evaluation_page
from util.metrics.protocols import PROTOCOLS, Protocol, find_protocol
from util.metrics.registry import MetricUnavailableError, columns_for, list_metrics
from util.metrics.report import (
    check_output_folder,
    compare,
    comparison_table,
    report_folder,
    table,
    write_comparison,
    write_report,
)
from util.metrics.weights import WEIGHTS
from util.names import check_relative_name
from util.parallel import allotted_cpus
from util.run.device import choose_device
from util.run.main import run_main
from util.tables.patn import read_pairs

EXIT_REFUSED = 3
PAIRINGS = ("result_name", "same_name")
MASK_METRICS = ("mask_lpips", "mask_ssim", "mask_psnr", "mask_l1")


def make_parser() -> Parser:
    """Options of the published scripts, and ours."""
    parser = Parser(__doc__, prog="python -m script.metrics")
    _add_inputs(parser.group("images"))
    _add_definitions(parser.group("what is measured"))
    _add_keypoints(parser.group("keypoints"))
    add = parser.group("running")
    add("--no_html", flag, False, "no page")
    add_running(add)
    add_weights(parser.group("weight files (default: torch hub cache)"))
    return parser


def _add_inputs(add: Add) -> None:
    add_truth(add)
    add(RESULTS, several(text), REQUIRED, "folder(s) of generated images", "distorated_path")
    add("--name", text, "metrics", "name of this measurement: its folder in --output_dir")
    output = "where reports are written; default: ./eval_results, NAME_metrics if NAME has results"
    add(f"--output_dir {OUTPUT}", text, None, output)
    labels = "one row label for each result folder in the comparison"
    add("--labels", several(text), None, labels)
    pairing = "<source>_2_<target>_vis names, or equal names in both folders"
    add("--pairing", choice(PAIRINGS), "result_name", pairing)
    add("--pairs", text, None, "pairs CSV (from, to): its results must exist, and no others")
    missing = "leave unmatched images out and say so in the report, instead of stopping"
    add("--allow_missing", flag, False, missing)


def add_truth(add: Add) -> None:
    """Options for the folders that results are compared with."""
    add("--gt_path", text, REQUIRED, "folder of ground-truth images")
    add("--fid_real_path", text, None, "folder of real images for FID and KID: the training images")


def _add_definitions(add: Add) -> None:
    add("--protocol", several(choice(PROTOCOLS)), ["dptn"], "definitions")
    metrics = "default: those of the protocol's published table; all: " + ", ".join(list_metrics())
    add("--metrics", several(text), None, metrics, metavar="METRIC")
    add("--market", flag, False, "Market-1501 form of the protocol: no padding")
    add("--calculate_mask", flag, False, "add " + ", ".join(MASK_METRICS))
    remainder = "last partial batch of FID and LPIPS, against the protocol; changes column names"
    add("--remainder", choice(("keep", "drop")), None, remainder)
    add("--rank_by", text, None, "column that orders the pairs of index.html")


def _add_keypoints(add: Add) -> None:
    frame, sides = several(positive_int, 2), ("H", "W")
    targets = "of the targets, for masks and PCKh; default: <gt_path>/../*annotation-<folder>.csv"
    add("--annotation", text, None, targets)
    of_targets = "their frame; default: that of the published tables, or of the images they overlap"
    add("--annotation_size", frame, None, of_targets, metavar=sides)
    add("--result_keypoints", text, None, "keypoints of the generated images")
    of_results = "their frame; default: as --annotation_size"
    add("--result_keypoints_size", frame, None, of_results, metavar=sides)
    estimator = "of missing keypoints: torchvision, openpose, openpose_rgb, rtmlib, or module:Class"
    add("--estimator", text, None, estimator)
    add("--estimator_weights", text, None, "weight file of the estimator")


def add_running(add: Add) -> None:
    """Options about the machine, of every command that measures folders."""
    add_device(add)
    add_batch(add, 16, "images at once in the networks; no effect on the numbers")
    add_workers(add, allotted_cpus(), "processes and reading threads")
    add("--cache_dir", text, None, f"statistics of real sets; default: {default_cache_dir()}")
    add("--no_cache", flag, False, "neither use nor keep statistics of real sets")
    add("--offline", flag, False, "never try to download weights")
    add_debug(add)


def add_weights(add: Add) -> None:
    """An option for the weight file of every network that a metric uses."""
    for key, weight in WEIGHTS.items():
        add(weight.option, text, None, weight.file.what, f"weights_{key}", metavar="PATH")


def running_settings(options: Namespace) -> dict[str, object]:
    """The options of :func:`add_running` and :func:`add_weights` as arguments of Settings."""
    if options.cache_dir is not None:
        check_writable(Path(options.cache_dir) / "statistics.npz")
    cache_dir = Path(options.cache_dir or default_cache_dir())
    return {
        "device": str(choose_device(options.device)),
        "batch_size": options.batch_size,
        "workers": options.workers,
        "weights": {key: getattr(options, f"weights_{key}") for key in WEIGHTS},
        "offline": options.offline,
        "cache_dir": None if options.no_cache else cache_dir,
    }


class Estimate:
    """The keypoint estimator as the metrics want it, loaded at the first image."""

    def __init__(self, name: str, weights: str | None, device: str):
        from models.estimators import PersonFinder  # a measurement needs no model otherwise

        rule = "first" if name.startswith("openpose") else "best"  # MAGPT takes the first person
        self.find = PersonFinder(name, weights, device, rule, min_joints=0, allow_nobody=True)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Keypoints (18, 2) of a uint8 image (H, W, 3); all missing when nobody is found."""
        try:
            return self.find(Image.fromarray(image), "image")
        except UserError as error:
            raise MetricUnavailableError(f"keypoints cannot be estimated: {error}") from error


def make_settings(options: Namespace, metrics: Sequence[str]) -> Settings:
    """Options as the settings of a measurement."""
    running = running_settings(options)
    if options.pairs and options.pairing == "same_name":
        raise UserError(
            "--pairs names results as test.py does, --pairing same_name wants equal names in both "
            "folders; give one of them."
        )
    needed = options.annotation or any(m.startswith("mask_") or m == "pckh" for m in metrics)
    theirs, estimator = options.result_keypoints, options.estimator
    device = running["device"]
    return Settings(
        **running,
        pairing=options.pairing,
        allow_missing=options.allow_missing,
        asked=asked_results(read_pairs(options.pairs)) if options.pairs else None,
        keypoints=target_table(options, bool(needed)),
        result_keypoints=read_table(Path(theirs), options.result_keypoints_size)
        if theirs
        else None,
        estimator=Estimate(estimator, options.estimator_weights, device) if estimator else None,
        estimator_name=estimator or "",
    )


def target_table(options: Namespace, needed: bool) -> KeypointTable | None:
    """The keypoints of the targets: the given file, or the one beside the ground truth.

    Where no metric needs them the page shows them as poses; a damaged file is then no error.
    """
    path = Path(options.annotation) if options.annotation else default_table(Path(options.gt_path))
    if path is None or (options.no_html and not needed):
        return None
    try:
        return read_table(path, options.annotation_size)
    except UserError:
        if needed:
            raise
        return None


def labels_of(options: Namespace) -> list[str]:
    """A name for each result folder: given, or the folder's own, made different from the others."""
    folders = [Path(folder).resolve() for folder in options.distorated_path]
    if options.labels:
        labels = options.labels
    else:
        names = [folder.name for folder in folders]
        labels = [
            name if names.count(name) == 1 else f"{folder.parent.name}_{name}"
            for name, folder in zip(names, folders, strict=True)
        ]
    if len(labels) != len(folders) or len(set(labels)) != len(labels):
        raise UserError(
            f"{len(folders)} result folders have the labels {', '.join(labels)}; expected one "
            "different label for each: use --labels."
        )
    return [check_relative_name(label, "--labels") for label in labels]


def asked_metrics(options: Namespace, protocols: Sequence[Protocol]) -> list[str] | None:
    """Metrics of the command line; None leaves every protocol its own."""
    if not options.calculate_mask:
        return options.metrics
    defaults = [metric for protocol in protocols for metric in protocol.defaults]
    return list(dict.fromkeys([*(options.metrics or defaults), *MASK_METRICS]))


def check_rank_by(rank_by: str | None, protocols: Sequence[Protocol], metrics) -> None:
    """Raise UserError when the page cannot be ordered by this column."""
    columns = [
        f"{protocol.label}.{column.name}"
        for protocol in protocols
        for column in columns_for(protocol, metrics)
    ]
    if rank_by and not any(rank_by in (name, name.split(".", 1)[1]) for name in columns):
        raise UserError(f"--rank_by {rank_by}: expected one of {', '.join(columns)}.")


def terminal_width() -> int | None:
    """Columns of the terminal that reads the output; None for a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def measure(
    options: Namespace, folder: str, output: Path, protocols, metrics, settings, title: str
) -> Evaluation:
    """Measure one folder, print its table, write its report."""
    evaluation = evaluate_folder(
        folder, options.gt_path, options.fid_real_path, protocols, metrics, settings
    )
    print(f"\n{folder}")
    print(table(evaluation, terminal_width()))
    write_report(evaluation, settings, output)
    if not options.no_html:
        page = {title: evaluation}
        path = write_evaluation_page(page, output, options.rank_by, title, settings.keypoints)
        show_on_result_page(evaluation, path)
    print(f"written: {output}/metrics.json, metrics.csv{'' if options.no_html else ', index.html'}")
    return evaluation


def write_together(
    evaluations: dict[str, Evaluation], output: Path, name: str, options: Namespace, settings
) -> None:
    """The comparison of all folders; for several also its table on the screen and their page."""
    comparison = compare(evaluations)
    if len(evaluations) > 1:
        print("\n" + comparison_table(comparison, terminal_width()), end="")
    written = write_comparison(comparison, output)
    if len(evaluations) > 1 and not options.no_html:
        written.append(
            write_evaluation_page(evaluations, output, options.rank_by, name, settings.keypoints)
        )
    if len(evaluations) > 1:
        print("written:", ", ".join(map(str, written)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every folder and report; returns the exit status."""
    options = make_parser().parse(arguments)
    names = dict.fromkeys(options.protocol)
    protocols = [find_protocol(name, options.market, options.remainder) for name in names]
    metrics = asked_metrics(options, protocols)
    check_rank_by(options.rank_by, protocols, metrics)
    if os.path.isabs(options.name):
        raise UserError(
            f"--name {options.name} is a path; expected the name of this measurement, a folder in "
            "--output_dir (the results are --distorated_path)"
        )
    name = check_relative_name(os.path.normpath(options.name), "--name")
    output = report_folder(options.output_dir, name, options.distorated_path)
    check_output_folder(output, [options.gt_path, options.fid_real_path, *options.distorated_path])
    labels = labels_of(options)
    wanted = metrics or [metric for protocol in protocols for metric in protocol.defaults]
    settings = make_settings(options, wanted)
    evaluations = {}
    for label, folder in zip(labels, options.distorated_path, strict=True):
        place = output if len(labels) == 1 else output / label
        evaluations[label] = measure(
            options, folder, place, protocols, metrics, settings, f"{name}: {label}"
        )
    write_together(evaluations, output, name, options, settings)
    refused = any(evaluation.refused for evaluation in evaluations.values())
    return EXIT_REFUSED if refused else 0


if __name__ == "__main__":
    run_main(main)
