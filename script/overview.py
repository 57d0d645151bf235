"""One picture of a test run: source, target pose, generated image, ground truth, some pairs a row.

    python -m script.overview --results results/quickstart -o overview.png
    python -m script.overview --results results/step --steps --beside results/quickstart -o o.png
    python -m script.overview --results results/gfla --show flow_field_2 occlusion_mask_2 -o o.png

--steps shows all steps of a DPTN_step model, the last of which is its result; --show adds columns
of the result page before the generated image; --beside shows the results of other models for the
same pairs.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from util.errors import UserError
from util.image import load_image, resize_linear, save_image
from util.names import PAGE_IMAGES, parse_result_name
from util.run.main import run_main
from util.show.grid import grid, in_rows

SPACE = 20  # white pixels between pairs


def steps_of(folder: Path, result: Path) -> dict[str, Path]:
    """The pictures of every step of one result, in order."""
    found = {}
    for path in (folder / PAGE_IMAGES).glob(f"{result.stem}_step_*.jpg"):
        found[int(re.search(r"step_(\d+)$", path.stem)[1])] = path
    if not found:
        raise UserError(f"{folder} shows no steps; --steps is for results of --model DPTN_step")
    return {f"step {step}": found[step] for step in sorted(found)}


def columns_of(folder: Path, result: Path, show: Sequence[str]) -> dict[str, Path]:
    """More pictures of the result page, by the name of their column."""
    found = {column: folder / PAGE_IMAGES / f"{result.stem}_{column}.jpg" for column in show}
    for path in found.values():
        if not path.is_file():
            raise UserError(f"--show: {path} does not exist")
    return {column.replace("_", " "): path for column, path in found.items()}


def files_of(
    folder: Path, result: Path, steps: bool, show: Sequence[str], beside: Sequence[Path]
) -> dict[str, Path]:
    """Captions and pictures of one pair."""
    source, target = parse_result_name(result.name)
    page = folder / PAGE_IMAGES
    files = {"source": page / f"{source}.jpg", "pose": page / f"{target}_pose.jpg"}
    files |= columns_of(folder, result, show)
    files |= steps_of(folder, result) if steps else {"generated": result}
    for other in beside:
        files[other.name] = other / result.name
        if not files[other.name].is_file():
            raise UserError(f"{other} holds no {result.name}; --beside needs the same test pairs")
    return files | {"truth": page / f"{target}.jpg"}


def tile(files: dict[str, Path], height: int) -> np.ndarray:
    """The pictures of one pair side by side under their captions, uint8 (HEADER + height, W, 3)."""
    pictures = []
    for path in files.values():
        picture = np.asarray(load_image(path))
        width = round(picture.shape[1] * height / picture.shape[0])
        pictures.append(resize_linear(picture, (height, width)))
    return grid([pictures], list(files))


def overview(
    folder: Path,
    rows: int,
    columns: int,
    height: int,
    steps: bool = False,  # every step instead of the result alone
    show: Sequence[str] = (),  # more columns of the result page
    beside: Sequence[Path] = (),  # result folders of other models
) -> np.ndarray:
    """``rows`` x ``columns`` pairs spread evenly over the results of ``folder``."""
    results = sorted(folder.glob("*_vis.png")) or sorted(folder.glob("*_vis.jpg"))
    if not (folder / PAGE_IMAGES).is_dir() or len(results) < rows * columns:
        raise UserError(
            f"{folder} holds {len(results)} results, or no page; expected at "
            f"least {rows * columns} results and the page that test.py writes without --no_html"
        )
    chosen = np.linspace(0, len(results) - 1, rows * columns).astype(int)
    tiles = [tile(files_of(folder, results[i], steps, show, beside), height) for i in chosen]
    return grid(in_rows(tiles, columns), gap=SPACE)


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", required=True, help="folder written by test.py")
    parser.add_argument("-o", "--output", required=True, help="PNG to write")
    parser.add_argument("--rows", type=int, default=3)
    parser.add_argument("--columns", type=int, default=2, help="pairs a row")
    parser.add_argument("--height", type=int, default=192, help="of a picture, in pixels")
    parser.add_argument("--steps", action="store_true", help="all steps of a DPTN_step model")
    parser.add_argument(
        "--show", nargs="+", default=[], metavar="COLUMN",
        help="more columns of the result page, such as flow_field_2 (GFLA)",
    )  # fmt: skip
    parser.add_argument(
        "--beside", nargs="+", default=[], metavar="FOLDER", help="results of other models"
    )
    parser.add_argument("--debug", action="store_true", help="full tracebacks")
    options = parser.parse_args()
    if min(options.rows, options.columns, options.height) < 1:
        raise UserError("--rows, --columns and --height must be 1 or more")
    picture = overview(
        Path(options.results), options.rows, options.columns, options.height,
        options.steps, options.show, [Path(folder) for folder in options.beside],
    )  # fmt: skip
    save_image(options.output, picture)
    print(f"{options.output}: {options.rows * options.columns} pairs")


if __name__ == "__main__":
    run_main(main)
