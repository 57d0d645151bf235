"""One picture of a test run: source, target pose, generated image, ground truth, some pairs a row.

    python -m script.overview --results results/quickstart -o overview.png
    python -m script.overview --results results/step --steps --beside results/quickstart -o o.png

--steps shows all steps of a DPTN_step model, the last of which is its result; --beside shows the
results of other models for the same pairs.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

import numpy as np

from options.parser import OUTPUT, RESULTS, Parser
from util.errors import UserError
from util.image import load_image, resize_linear, save_image
from util.kinds import REQUIRED, flag, positive_int, several, text
from util.names import PAGE_IMAGES, parse_result_name
from util.run.main import run_main
from util.show.grid import grid, in_rows

SPACE = 20  # white pixels between pairs


def files_of(folder: Path, result: Path, steps: bool, beside: Sequence[Path]) -> dict[str, Path]:
    """Captions and pictures of one pair."""
    source, target = parse_result_name(result.name)
    page = folder / PAGE_IMAGES
    files = {"source": page / f"{source}.jpg", "pose": page / f"{target}_pose.jpg"}
    if steps:
        found = page.glob(f"{result.stem}_step_*.jpg")
        found = sorted(found, key=lambda path: int(path.stem.rpartition("_")[2]))
        if not found:
            raise UserError(f"{folder} shows no steps; --steps is for results of --model DPTN_step")
        files |= {f"step {step}": path for step, path in enumerate(found, 1)}
    else:
        files["generated"] = result
    for other in beside:
        files[other.name] = other / result.name
        if not files[other.name].is_file():
            raise UserError(f"{other} holds no {result.name}; --beside needs the same test pairs")
    return files | {"truth": page / f"{target}.jpg"}


def overview(
    folder: Path,
    rows: int,
    columns: int,
    height: int,
    steps: bool = False,  # every step instead of the result alone
    beside: Sequence[Path] = (),  # result folders of other models
) -> np.ndarray:
    """``rows`` x ``columns`` pairs spread evenly over the results of ``folder``."""
    results = sorted(folder.glob("*_vis.png")) or sorted(folder.glob("*_vis.jpg"))
    if not (folder / PAGE_IMAGES).is_dir() or len(results) < rows * columns:
        raise UserError(
            f"{folder} holds {len(results)} results, or no page; expected at "
            f"least {rows * columns} results and the page that test.py writes without --no_html"
        )
    tiles = []
    for i in np.linspace(0, len(results) - 1, rows * columns).astype(int):
        files = files_of(folder, results[i], steps, beside)
        pictures = [np.asarray(load_image(path)) for path in files.values()]
        sizes = [(height, round(p.shape[1] * height / p.shape[0])) for p in pictures]
        tiles.append(grid([list(map(resize_linear, pictures, sizes))], list(files)))
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
    add("--beside", several(text), [], "results of other models", metavar="FOLDER")
    options = parser.parse()
    picture = overview(
        Path(options.results), options.rows, options.columns, options.height,
        options.steps, list(map(Path, options.beside)),
    )  # fmt: skip
    save_image(options.output, picture)
    print(f"{options.output}: {options.rows * options.columns} pairs")


if __name__ == "__main__":
    run_main(main)
