"""Measure generated images: ``python -m script.metrics --gt_path … --distorated_path … --name …``.

Exit status: 0 everything asked for was computed, 2 nothing was measured (the input is wrong),
3 something asked for was refused (the rest is computed and saved).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from util.errors import run_main
from util.metrics.evaluation import Settings, evaluate_folder
from util.metrics.protocols import PROTOCOLS, find_protocol
from util.metrics.report import check_output_folder, table, write_report

EXIT_REFUSED = 3


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of the published scripts, and ours."""
    parser = argparse.ArgumentParser(prog="script.metrics", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--gt_path", required=True, help="folder of ground-truth images")
    add("--distorated_path", required=True, help="folder of generated images")
    add("--fid_real_path", help="folder of real images for FID (the training set)")
    add("--name", default="metrics", help="name of this measurement: a folder in --output_dir")
    add("--output_dir", default="./eval_results", help="where reports are written")
    add("--protocol", nargs="+", default=["dptn"], choices=tuple(PROTOCOLS), help="definitions")
    add("--metrics", nargs="+", help="what to compute (default: what the protocol's table has)")
    add("--market", action="store_true", help="Market-1501 form of the protocol: no padding")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes for pair metrics")
    add("--allow_missing", action="store_true", help="leave unmatched images out, and say so")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; returns the exit status."""
    options = parse_arguments(arguments)
    protocols = [find_protocol(name, options.market) for name in options.protocol]
    settings = Settings(workers=options.workers, allow_missing=options.allow_missing)
    output = Path(options.output_dir) / options.name
    folders = (options.gt_path, options.distorated_path, options.fid_real_path)
    check_output_folder(output, folders)
    evaluation = evaluate_folder(
        options.distorated_path,
        options.gt_path,
        options.fid_real_path,
        protocols,
        options.metrics,
        settings,
    )
    write_report(evaluation, settings, output)
    print(table(evaluation))
    print(f"written: {output / 'metrics.json'}, {output / 'metrics.csv'}")
    return EXIT_REFUSED if evaluation.refused else 0


if __name__ == "__main__":
    run_main(main)
