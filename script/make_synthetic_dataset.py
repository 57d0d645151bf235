"""Render a data set of synthetic people in the DeepFashion or Market-1501 file layout, or of
chairs and heads from many sides in the layouts of ShapeNet and Multi-PIE (--dataset_mode view).

    python -m script.make_synthetic_dataset --out dataset/synthetic --identities 400 --poses 5
    python -m script.make_synthetic_dataset --out dataset/chairs --layout chairs --size 64

The same options give the same bytes, whatever the number of workers.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data.synthetic import BACKGROUNDS, SIZES, Settings, contact_sheet, views, write_dataset
from util.errors import UserError
from util.run.main import run_main


def build_parser() -> argparse.ArgumentParser:
    """The command line of this script."""
    defaults = Settings()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", required=True, help="folder of the data set; made if it is missing")
    add(
        "--layout",
        choices=[*SIZES, *views.LAYOUTS],
        default=defaults.layout,
        help="file layout and picture size; chairs and faces are shown from 54 and 13 sides",
    )
    add("--identities", type=int, default=defaults.identities, help="people or things to train on")
    add("--test_identities", type=int, help="others in the test split (default: an eighth)")
    add("--poses", type=int, default=defaults.poses, help="pictures of each person, at least 2")
    add("--seed", type=int, default=defaults.seed, help="another number, other people")
    add("--pairs", type=int, help="at most so many training pairs (default: all ordered pairs)")
    add("--test_pairs", type=int, help="at most so many test pairs (default: all ordered pairs)")
    add("--background", choices=list(BACKGROUNDS), default=defaults.background)
    add(
        "--quality",
        type=int,
        default=defaults.quality,
        help="JPEG quality; published files have 75",
    )
    add("--size", type=int, help="chairs, faces: pixels of a side (default: 256)")
    add("--hdf5", action="store_true", help="chairs: data_chair.hdf5 instead of image folders")
    add("--workers", type=int, default=1, help="processes that render; does not change the bytes")
    add("--overwrite", action="store_true", help="replace a synthetic data set with other settings")
    add(
        "--contact_sheet", nargs="?", const="", metavar="PNG",
        help="also write an overview with skeletons (default place: contact_sheet.png in --out)",
    )  # fmt: skip
    add("--debug", action="store_true", help="show the full traceback of an error")
    return parser


def check_options(opt: argparse.Namespace, kind: type, other: type) -> None:
    """Refuse options that only the other kind of data set has."""
    defaults = build_parser()
    for name in set(other.__dataclass_fields__) - set(kind.__dataclass_fields__):
        if getattr(opt, name) != defaults.get_default(name):
            raise UserError(f"--{name} means nothing for --layout {opt.layout}: leave it out.")


def main() -> None:
    """Render, report the speed, and write the contact sheet if asked."""
    opt = build_parser().parse_args()
    of_views = opt.layout in views.LAYOUTS
    kind = views.ViewSettings if of_views else Settings
    check_options(opt, kind, Settings if of_views else views.ViewSettings)
    settings = {
        name: getattr(opt, name)
        for name in kind.__dataclass_fields__
        if getattr(opt, name) is not None
    }
    settings.setdefault("test_identities", max(opt.identities // 8, 2))
    how = {"workers": opt.workers, "overwrite": opt.overwrite, "progress": True}
    start = time.perf_counter()
    if of_views:
        manifest = views.write_views(opt.out, views.ViewSettings(**settings), **how)
    else:
        manifest = write_dataset(opt.out, **how, **settings)
    seconds = time.perf_counter() - start
    for phase, counts in manifest["counts"].items():
        print(f"{phase}: " + ", ".join(f"{number} {what}" for what, number in counts.items()))
    images = sum(counts["images"] for counts in manifest["counts"].values())
    if manifest["unchanged"]:
        print(f"{opt.out} already holds exactly this data set ({images} images): nothing to do")
    else:
        speed = 60 * images / seconds
        print(f"{opt.out} is ready: {images} images in {seconds:.1f} s ({speed:.0f} a minute)")
    if opt.contact_sheet is not None:
        path = Path(opt.contact_sheet or Path(opt.out) / "contact_sheet.png")
        views.contact_sheet(opt.out, path) if of_views else contact_sheet(opt.out, path, opt.layout)
        print(f"contact sheet: {path}")


if __name__ == "__main__":
    run_main(main)
