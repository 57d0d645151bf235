"""Measure generated images.

    python -m script.metrics --gt_path dataset/fashion/test --distorated_path results/RUN
    --fid_real_path dataset/fashion/train --name RUN

Prints a table and writes metrics.json, metrics.csv (one row for each image) and index.html into
--output_dir/--name, never into a measured folder. Several folders after --distorated_path give one
comparison (Markdown, LaTeX, CSV) and one page with the models side by side. Exit status: 0
everything asked for was computed; 2 nothing was measured, the input is wrong; 3 something asked for
was refused, the rest is computed and saved.
"""

import itertools
import os
import shutil
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

from options.parser import OUTPUT, RESULTS, Parser, add_batch, add_device, add_workers
from util.errors import UserError
from util.files import check_writable
from util.kinds import REQUIRED, Add, choice, flag, positive_int, several, text
from util.metrics import report
from util.metrics.evaluate import evaluate_folder
from util.metrics.folder import asked_results
from util.metrics.keypoints import KeypointTable, default_table, read_table
from util.metrics.networks import WEIGHT_OPTIONS, WEIGHTS
from util.metrics.page import show_on_result_page, write_evaluation_page
from util.metrics.protocols import PROTOCOLS, find_protocol
from util.metrics.registry import Column, Evaluation, Settings, columns_for, list_metrics
from util.metrics.sets import default_cache_dir
from util.names import check_relative_name
from util.parallel import allotted_cpus
from util.run.device import choose_device
from util.run.main import run_main
from util.tables.patn import read_pairs

EXIT_REFUSED = 3
MASK_METRICS = ("mask_lpips", "mask_ssim", "mask_psnr", "mask_l1")


def make_parser() -> Parser:
    """Options of the published scripts, and ours."""
    parser = Parser(__doc__, prog="python -m script.metrics")
    add = parser.group("images")
    add_truth(add)
    add(RESULTS, several(text), REQUIRED, "folder(s) of generated images", "distorated_path")
    add("--name", text, "metrics", "name of this measurement: its folder in --output_dir")
    output = "where reports are written; default: ./eval_results, NAME_metrics if NAME has results"
    add(f"--output_dir {OUTPUT}", text, None, output)
    pairing = choice(("result_name", "same_name"))
    add("--pairing", pairing, "result_name", "<source>_2_<target>_vis names, or equal names")
    add("--pairs", text, None, "pairs CSV (from, to): its results must exist, and no others")
    add("--allow_missing", flag, False, "leave unmatched images out and say so in the report")
    add = parser.group("what is measured")
    add("--protocol", several(choice(PROTOCOLS)), ["dptn"], "definitions")
    metrics = "default: those of the protocol's published table; all: " + ", ".join(list_metrics())
    add("--metrics", several(text), None, metrics, metavar="METRIC")
    add("--market", flag, False, "Market-1501 form of the protocol: no padding")
    add("--calculate_mask", flag, False, "add " + ", ".join(MASK_METRICS))
    remainder = "last partial batch of FID and LPIPS, against the protocol; changes column names"
    add("--remainder", choice(("keep", "drop")), None, remainder)
    add("--rank_by", text, None, "column that orders the pairs of index.html")
    add, frame, sides = parser.group("keypoints"), several(positive_int, 2), ("H", "W")
    add("--annotation", text, None, "of targets; default: <gt_path>/../*annotation-<folder>.csv")
    size = "their frame; default: that of the published tables, or of the images they overlap"
    add("--annotation_size", frame, None, size, metavar=sides)
    add("--result_keypoints", text, None, "keypoints of the generated images")
    add("--result_keypoints_size", frame, None, size, metavar=sides)
    estimator = "of missing keypoints: torchvision, openpose, openpose_rgb, rtmlib, or module:Class"
    add("--estimator", text, None, estimator)
    add("--estimator_weights", text, None, "weight file of the estimator")
    add = parser.group("running")
    add("--no_html", flag, False, "no page")
    add_running(add, parser.group("weight files (default: torch hub cache)"))
    return parser


def add_truth(add: Add) -> None:
    """Options for the folders that results are compared with."""
    add("--gt_path", text, REQUIRED, "folder of ground-truth images")
    add("--fid_real_path", text, None, "folder of real images for FID and KID: the training images")


def add_running(add: Add, add_weights: Add) -> None:
    """Options about the machine and the weight files, of every command that measures folders."""
    add_device(add)
    add_batch(add, 16, "images at once in the networks; no effect on the numbers")
    add_workers(add, allotted_cpus(), "processes and reading threads")
    add("--cache_dir", text, None, f"statistics of real sets; default: {default_cache_dir()}")
    add("--no_cache", flag, False, "neither use nor keep statistics of real sets")
    add("--offline", flag, False, "never try to download weights")
    for key, option in WEIGHT_OPTIONS.items():
        add_weights(option, text, None, WEIGHTS[key].what, f"weights_{key}", metavar="PATH")


def running_settings(options: Namespace) -> dict[str, object]:
    """The options of :func:`add_running` as arguments of Settings."""
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


def make_settings(options: Namespace, columns: Sequence[Column]) -> Settings:
    """Options as the settings of a measurement of these columns."""
    running = running_settings(options)
    if options.pairs and options.pairing == "same_name":
        raise UserError(
            "--pairs names results as test.py does, --pairing same_name wants equal names in both "
            "folders; give one of them."
        )
    theirs, size = options.result_keypoints, options.result_keypoints_size
    name, find = options.estimator, None
    if name:
        from models.estimators import PersonFinder  # a measurement needs no model otherwise

        rule = "first" if name.startswith("openpose") else "best"  # MAGPT takes the first person
        weights, device = options.estimator_weights, running["device"]
        find = PersonFinder(name, weights, device, rule, min_joints=0, allow_nobody=True)
    return Settings(
        **running,
        pairing=options.pairing,
        allow_missing=options.allow_missing,
        asked=asked_results(read_pairs(options.pairs)) if options.pairs else None,
        keypoints=target_table(options, any(c.masked or c.name == "pckh" for c in columns)),
        result_keypoints=read_table(Path(theirs), size) if theirs else None,
        estimator=find,
        estimator_name=name or "",
    )


def target_table(options: Namespace, needed: bool) -> KeypointTable | None:
    """The keypoints of the targets: the given file, or the one beside the ground truth.

    Where no metric needs them the page shows them as poses; a damaged file is then no error.
    """
    path = options.annotation or default_table(Path(options.gt_path))
    if path is None or not (needed or options.annotation or not options.no_html):
        return None
    try:
        return read_table(Path(path), options.annotation_size)
    except UserError:
        if needed or options.annotation:
            raise
        return None


def labels_of(folders: Sequence[str]) -> list[str]:
    """A label for each result folder: as much of the end of its path as tells it from the others.

    UserError for a folder that is given twice, and where a label cannot be a file name.
    """
    paths = [Path(folder).resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise UserError(
            f"--distorated_path has {len(paths)} folders, {len(set(paths))} of them different; "
            "expected every folder once: leave out the others."
        )
    ends = ([path.parts[-depth:] for path in paths] for depth in itertools.count(1))
    parts = next(each for each in ends if len(set(each)) == len(paths))
    labels = [check_relative_name("_".join(each), "--distorated_path") for each in parts]
    if len(set(labels)) < len(labels):
        raise UserError(
            f"--distorated_path: the folders would have the labels {', '.join(labels)}; expected "
            "a different one for each: rename a folder."
        )
    return labels


def place_of(options: Namespace) -> Path:
    """The folder of the report, checked; its name is that of the measurement."""
    if os.path.isabs(options.name):
        raise UserError(
            f"--name {options.name} is a path; expected the name of this measurement, a folder in "
            "--output_dir (the results are --distorated_path)"
        )
    options.name = check_relative_name(os.path.normpath(options.name), "--name")
    folders = options.distorated_path
    output = Path(options.output_dir or "eval_results") / options.name
    # GFLA's published commands generate into ./eval_results/fashion and measure it as fashion.
    if options.output_dir is None and output.resolve() in [Path(f).resolve() for f in folders]:
        output = output.with_name(f"{output.name}_metrics")
    report.check_output_folder(output, [options.gt_path, options.fid_real_path, *folders])
    return output


def terminal_width() -> int | None:
    """Columns of the terminal that reads the output; None for a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def write_all(evaluations: dict[str, Evaluation], output: Path, options: Namespace) -> None:
    """The comparison of all folders; for several also its table on the screen and their page."""
    written = report.write_comparison(evaluations, output)
    if len(evaluations) == 1:
        return
    print("\n" + report.comparison_table(evaluations))
    if not options.no_html:
        page = write_evaluation_page(evaluations, output, options.rank_by, options.name)
        written.append(page)
    print("written:", ", ".join(map(str, written)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every folder, print its table and write its report; returns the exit status."""
    options = make_parser().parse(arguments)
    names = dict.fromkeys(options.protocol)
    protocols = [find_protocol(name, options.market, options.remainder) for name in names]
    metrics = options.metrics
    if options.calculate_mask:
        metrics = metrics or [metric for protocol in protocols for metric in protocol.defaults]
        metrics = list(dict.fromkeys([*metrics, *MASK_METRICS]))
    columns = {f"{p.label}.{c.name}": c for p in protocols for c in columns_for(p, metrics)}
    short = [column.name for column in columns.values()]
    if options.rank_by and options.rank_by not in [*columns, *short]:
        raise UserError(f"--rank_by {options.rank_by}: expected one of {', '.join(columns)}.")
    output, folders = place_of(options), options.distorated_path
    labels = labels_of(folders)
    settings = make_settings(options, columns.values())
    evaluations = {}
    for label, folder in zip(labels, folders, strict=True):
        place = output if len(labels) == 1 else output / label
        evaluation = evaluations[label] = evaluate_folder(
            folder, options.gt_path, options.fid_real_path, protocols, metrics, settings
        )
        print(f"\n{folder}\n{report.table(evaluation, terminal_width())}")
        report.write_report(evaluation, place)
        if not options.no_html:
            title = f"{options.name}: {label}"
            page = write_evaluation_page({title: evaluation}, place, options.rank_by, title)
            show_on_result_page(evaluation, page)
        files = "metrics.json, metrics.csv" + ("" if options.no_html else ", index.html")
        print(f"written: {place}/{files}")
    write_all(evaluations, output, options)
    refused = any(evaluation.refused for evaluation in evaluations.values())
    return EXIT_REFUSED if refused else 0


if __name__ == "__main__":
    run_main(main)
