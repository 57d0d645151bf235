"""One picture of a test run: source, target pose, generated image, ground truth, some pairs a row.

python -m script.overview --results results/quickstart -o overview.png
python -m script.overview --results results/gfla -o gfla.png --show flow_field_2 occlusion_mask_2
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from util.errors import UserError, run_main
from util.image import load_image, resize_linear, save_image
from util.names import parse_result_name
from util.result_writer import PAGE_IMAGES

GAP = 4  # white pixels between pictures
SPACE = 20  # and between pairs


def tile(folder: Path, result: Path, height: int, show: Sequence[str] = ()) -> np.ndarray:
    """The pictures of one pair side by side, uint8 (height, W, 3); ``show``: more of the page's
    columns, placed before the generated image."""
    source, target = parse_result_name(result.name)
    extras = [f"{result.stem}_{column}.jpg" for column in show]
    names = (f"{source}.jpg", f"{target}_pose.jpg", *extras, None, f"{target}.jpg")
    missing = [name for name in extras if not (folder / PAGE_IMAGES / name).is_file()]
    if missing:
        raise UserError(f"--show: {folder / PAGE_IMAGES / missing[0]} does not exist")
    pictures = []
    for name in names:
        path = result if name is None else folder / PAGE_IMAGES / name
        picture = np.asarray(load_image(path))
        width = round(picture.shape[1] * height / picture.shape[0])
        pictures.append(resize_linear(picture, (height, width)))
        pictures.append(np.full((height, GAP, 3), 255, dtype=np.uint8))
    return np.hstack(pictures[:-1])


def overview(
    folder: Path, rows: int, columns: int, height: int, show: Sequence[str] = ()
) -> np.ndarray:
    """``rows`` x ``columns`` pairs spread evenly over the results of ``folder``."""
    results = sorted(folder.glob("*_vis.png")) or sorted(folder.glob("*_vis.jpg"))
    if not (folder / PAGE_IMAGES).is_dir() or len(results) < rows * columns:
        raise UserError(
            f"{folder} holds {len(results)} results, or no page; expected at "
            f"least {rows * columns} results and the page that test.py writes without --no_html"
        )
    chosen = np.linspace(0, len(results) - 1, rows * columns).astype(int)
    tiles = [tile(folder, results[i], height, show) for i in chosen]
    space = np.full((height, SPACE, 3), 255, dtype=np.uint8)
    lines = []
    for r in range(rows):
        line = [part for t in tiles[r * columns : (r + 1) * columns] for part in (t, space)]
        lines.append(np.hstack(line[:-1]))
        lines.append(np.full((GAP, lines[0].shape[1], 3), 255, dtype=np.uint8))
    return np.vstack(lines[:-1])


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", required=True, help="folder written by test.py")
    parser.add_argument("-o", "--output", required=True, help="PNG to write")
    parser.add_argument("--rows", type=int, default=3)
    parser.add_argument("--columns", type=int, default=2, help="pairs a row")
    parser.add_argument("--height", type=int, default=192, help="of a picture, in pixels")
    parser.add_argument(
        "--show", nargs="+", default=(), metavar="COLUMN",
        help="more columns of the result page, such as flow_field_2 (GFLA)",
    )  # fmt: skip
    parser.add_argument("--debug", action="store_true", help="full tracebacks")
    options = parser.parse_args()
    if min(options.rows, options.columns, options.height) < 1:
        raise UserError("--rows, --columns and --height must be 1 or more")
    picture = overview(
        Path(options.results), options.rows, options.columns, options.height, options.show
    )
    save_image(options.output, picture)
    print(f"{options.output}: {options.rows * options.columns} pairs")


if __name__ == "__main__":
    run_main(main)
