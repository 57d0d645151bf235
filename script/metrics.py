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
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from PIL import Image

from options.parser import Parser
from util.errors import UserError
from util.files import check_writable
from util.metrics.evaluate import evaluate_folder
from util.metrics.inception import default_cache_dir
from util.metrics.keypoints import default_table, read_table
from util.metrics.measure import Evaluation, Settings
from util.metrics.page import write_evaluation_page
from util.metrics.pairing import asked_results
from util.metrics.protocols import PROTOCOLS, Protocol, find_protocol
from util.metrics.registry import MetricUnavailableError, columns_for, list_metrics
from util.metrics.report import (
    check_output_folder,
    compare,
    markdown,
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
    parser = Parser(prog="python -m script.metrics", description=__doc__.split("\n", 1)[0])
    _add_inputs(parser.add_argument_group("images").add_argument)
    _add_definitions(parser.add_argument_group("what is measured").add_argument)
    _add_keypoints(parser.add_argument_group("keypoints").add_argument)
    add = parser.add_argument_group("running").add_argument
    add("--no_html", action="store_true", help="no page")
    add_running(add)
    add_weights(parser.add_argument_group("weight files (default: torch hub cache)").add_argument)
    return parser


def positive(text: str) -> int:
    """A whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _add_inputs(add) -> None:
    add_truth(add)
    add("--distorated_path", required=True, nargs="+", help="folder(s) of generated images")
    add("--name", default="metrics", help="name of this measurement: its folder in --output_dir")
    add(
        "--output_dir",
        help="where reports are written; default: ./eval_results (in NAME_metrics, not NAME, if "
        "./eval_results/NAME holds the results themselves)",
    )
    add("--labels", nargs="+", help="one row label for each result folder in the comparison")
    add(
        "--pairing",
        default="result_name",
        choices=PAIRINGS,
        help="<source>_2_<target>_vis names, or equal names in both folders",
    )
    add("--pairs", help="pairs CSV (from, to): its results must exist, and no others")
    add(
        "--allow_missing",
        action="store_true",
        help="leave unmatched images out and say so in the report, instead of stopping",
    )


def add_truth(add) -> None:
    """Options for the folders that results are compared with."""
    add("--gt_path", required=True, help="folder of ground-truth images")
    add("--fid_real_path", help="folder of real images for FID and KID: the training images")


def _add_definitions(add) -> None:
    add("--protocol", nargs="+", default=["dptn"], choices=tuple(PROTOCOLS), help="definitions")
    add(
        "--metrics",
        nargs="+",
        metavar="METRIC",
        help="default: those of the protocol's published table; all: " + ", ".join(list_metrics()),
    )
    add("--market", action="store_true", help="Market-1501 form of the protocol: no padding")
    add("--calculate_mask", action="store_true", help="add " + ", ".join(MASK_METRICS))
    add(
        "--remainder",
        choices=("keep", "drop"),
        help="last partial batch of FID and LPIPS, against the protocol; changes column names",
    )
    add("--rank_by", help="column that orders the pairs of index.html")


def _add_keypoints(add) -> None:
    frame = {"nargs": 2, "type": positive, "metavar": ("H", "W")}
    add(
        "--annotation",
        help="keypoints of the targets (name:keypoints_y:keypoints_x, or MAGPT's "
        "CSV), for masks and PCKh; default: <gt_path>/../*annotation-<folder>.csv",
    )
    add(
        "--annotation_size",
        **frame,
        help="frame of these keypoints; default: that of the published tables, or the images' if "
        "the keypoints reach over them",
    )
    add("--result_keypoints", help="keypoints of the generated images")
    add("--result_keypoints_size", **frame, help="their frame; default: as --annotation_size")
    add(
        "--estimator",
        help="estimate missing keypoints: torchvision, openpose, openpose_rgb, "
        "rtmlib, or module:Class",
    )
    add("--estimator_weights", help="weight file of the estimator")


def add_running(add) -> None:
    """Options about the machine, of every command that measures folders."""
    add("--device", help="cpu, cuda, cuda:1 …; default: the first GPU if there is one")
    add(
        "--batch_size",
        type=positive,
        default=16,
        help="images at once in the networks; no effect on the numbers",
    )
    add(
        "--workers",
        type=positive,
        default=allotted_cpus(),
        help="processes and reading threads",
    )
    add("--cache_dir", help=f"statistics of real sets; default: {default_cache_dir()}")
    add("--no_cache", action="store_true", help="neither use nor keep statistics of real sets")
    add("--offline", action="store_true", help="never try to download weights")
    add("--debug", action="store_true", help="show the traceback of an error")


def add_weights(add) -> None:
    """An option for the weight file of every network that a metric uses."""
    for key, weight in WEIGHTS.items():
        add(weight.option, dest=f"weights_{key}", metavar="PATH", help=weight.file.what)


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
    needs_keypoints = any(m.startswith("mask_") or m == "pckh" for m in metrics)
    annotation = options.annotation or (
        default_table(Path(options.gt_path)) if needs_keypoints else None
    )
    theirs, estimator = options.result_keypoints, options.estimator
    device = running["device"]
    return Settings(
        **running,
        pairing=options.pairing,
        allow_missing=options.allow_missing,
        asked=asked_results(read_pairs(options.pairs)) if options.pairs else None,
        keypoints=read_table(Path(annotation), options.annotation_size) if annotation else None,
        result_keypoints=read_table(Path(theirs), options.result_keypoints_size)
        if theirs
        else None,
        estimator=Estimate(estimator, options.estimator_weights, device) if estimator else None,
        estimator_name=estimator or "",
    )


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


def measure(
    options: Namespace, folder: str, output: Path, protocols, metrics, settings, title: str
) -> Evaluation:
    """Measure one folder, print its table, write its report."""
    evaluation = evaluate_folder(
        folder, options.gt_path, options.fid_real_path, protocols, metrics, settings
    )
    print(f"\n{folder}")
    print(table(evaluation))
    write_report(evaluation, settings, output)
    if not options.no_html:
        page = {title: evaluation}
        write_evaluation_page(page, output, options.rank_by, title, settings.keypoints)
    print(f"written: {output}/metrics.json, metrics.csv{'' if options.no_html else ', index.html'}")
    return evaluation


def write_together(
    evaluations: dict[str, Evaluation], output: Path, name: str, options: Namespace, settings
) -> None:
    """The comparison of all folders; for several also its table on the screen and their page."""
    comparison = compare(evaluations)
    if len(evaluations) > 1:
        print("\n" + markdown(comparison), end="")
    written = write_comparison(comparison, output)
    if len(evaluations) > 1 and not options.no_html:
        written.append(
            write_evaluation_page(evaluations, output, options.rank_by, name, settings.keypoints)
        )
    if len(evaluations) > 1:
        print("written:", ", ".join(map(str, written)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every folder and report; returns the exit status."""
    options = make_parser().parse(list(sys.argv[1:] if arguments is None else arguments))
    names = dict.fromkeys(options.protocol)
    protocols = [find_protocol(name, options.market, options.remainder) for name in names]
    metrics = asked_metrics(options, protocols)
    check_rank_by(options.rank_by, protocols, metrics)
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
