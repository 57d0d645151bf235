"""Make the Market-1501 image folders of the published systems from the original release.

    python script/prepare_market.py --source ~/Market-1501-v15.09.15.zip --dataroot ./dataset/market

``bounding_box_train`` and ``bounding_box_test`` become ``train/`` and ``test/``, byte for byte; the
folders ``train_12864/`` and ``test_12864/`` that the published metric commands name hold the same
photographs (128 high, 64 wide; anything else is resized).
"""

import sys
from argparse import Namespace
from pathlib import Path, PurePosixPath

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

from data.prepare.images import ImageSource
from options.parser import DATA, Parser, add_workers
from script.generate_fashion_datasets import make_folders
from util.errors import UserError
from util.kinds import text
from util.parallel import allotted_cpus
from util.run.main import run_main
from util.tables.layouts import LAYOUTS, MARKET_PREPARATIONS, PHASES

PLACES = (".", "Market-1501-v15.09.15", "Market-1501-v15.09.15.zip", "Market-1501.zip", "Market")


def parse_arguments(arguments: list[str] | None = None) -> Namespace:
    parser = Parser(__doc__)
    add = parser.option
    add(DATA, text, "./dataset/market", "folder that receives the image folders")
    add("--source", text, None, "the release, a folder or a zip file; default: look in DATAROOT")
    add_workers(add, allotted_cpus(), "processes")
    return parser.parse(arguments)


def find_images(source: ImageSource) -> dict[str, dict[str, str]]:
    """Phase -> file name -> path of the images in bounding_box_train and bounding_box_test."""
    phases = {f"bounding_box_{phase}": phase for phase in PHASES}
    found: dict[str, dict[str, str]] = {phase: {} for phase in PHASES}
    places: dict[str, PurePosixPath] = {}
    names = source.names()
    for path in names:
        inner = PurePosixPath(path.replace("\\", "/"))  # of zips made on Windows
        phase = phases.get(inner.parent.name)
        if phase is None:
            continue
        place = places.setdefault(phase, inner.parent)
        if place != inner.parent:
            raise UserError(
                f"{source.path} holds two releases, {place} and {inner.parent}; expected one: give "
                "the folder above the right one with --source."
            )
        found[phase][inner.name] = path
    missing = [folder for folder, phase in phases.items() if not found[phase]]
    if missing:
        raise UserError(
            f"{source.path} holds no images in {' and '.join(missing)}; found {len(names):,} image "
            f"files in all, and at the top {source.sample()}: get "
            f"{LAYOUTS['market'].origins['images']}, and give its place with --source."
        )
    return found


def find_source(root: Path) -> Path:
    """Where the release is below the data root; UserError listing every place looked at."""
    for place in PLACES:
        path = root / place
        if path.is_file() or (path / "bounding_box_train").is_dir():
            return path
    raise UserError(
        f"{root} holds no Market-1501; looked for bounding_box_train in {', '.join(PLACES)}: get "
        f"{LAYOUTS['market'].origins['images']}, and give its place with --source."
    )


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    root = Path(options.dataroot)
    source = ImageSource(Path(options.source or find_source(root)))
    images = find_images(source)
    return make_folders(root, source, "Market-1501", MARKET_PREPARATIONS, images, options.workers)


if __name__ == "__main__":
    run_main(main)
