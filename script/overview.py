"""One picture of a test run: source, target pose, generated image, ground truth, some pairs a row.

    python -m script.overview --results results/quickstart -o overview.png
    python -m script.overview --results results/step --steps --beside results/quickstart -o o.png
    python -m script.overview --results results/gfla --show flow_field_2 occlusion_mask_2 -o o.png

--steps shows all steps of a DPTN_step model, the last of which is its result; --show adds columns
of the result page before the generated image; --beside shows the results of other models for the
same pairs.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

import numpy as np

from options.parser import OUTPUT, RESULTS, Parser, add_debug
from util.errors import UserError
from util.image import load_image, resize_linear, save_image
from util.kinds import REQUIRED, flag, positive_int, several, text
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
    parser = Parser(__doc__)
    add = parser.option
    add(RESULTS, text, REQUIRED, "folder written by test.py", "results")
    add(OUTPUT, text, REQUIRED, "PNG to write", "output")
    add("--rows", positive_int, 3, "of pairs")
    add("--columns", positive_int, 2, "pairs a row")
    add("--height", positive_int, 192, "of a picture, in pixels")
    add("--steps", flag, False, "all steps of a DPTN_step model")
    shown = "more columns of the result page, such as flow_field_2 (GFLA)"
    add("--show", several(text), [], shown, metavar="COLUMN")
    add("--beside", several(text), [], "results of other models", metavar="FOLDER")
    add_debug(add)
    options = parser.parse()
    picture = overview(
        Path(options.results), options.rows, options.columns, options.height,
        options.steps, options.show, [Path(folder) for folder in options.beside],
    )  # fmt: skip
    save_image(options.output, picture)
    print(f"{options.output}: {options.rows * options.columns} pairs")


if __name__ == "__main__":
    run_main(main)
