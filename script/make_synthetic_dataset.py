"""Render a data set of synthetic people in the DeepFashion or Market-1501 file layout, or of
chairs and heads from many sides in the layouts of ShapeNet and Multi-PIE (--dataset_mode view).

    python -m script.make_synthetic_dataset --out dataset/synthetic --identities 400 --poses 5
    python -m script.make_synthetic_dataset --out dataset/chairs --layout chairs --size 64

The same options give the same bytes, whatever the number of workers.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

from data.synthetic import BACKGROUNDS, SIZES, Settings, contact_sheet, views, write_dataset
from options.parser import OUTPUT, Parser, add_debug, add_workers
from util.errors import UserError
from util.kinds import REQUIRED, choice, flag, natural, positive_int, text, whole_number
from util.run.main import run_main


def build_parser() -> Parser:
    """The command line of this script."""
    defaults, parser = Settings(), Parser(__doc__)
    add = parser.option
    folder = "folder of the data set; made if it is missing"
    add(f"{OUTPUT} --dataroot", text, REQUIRED, folder, "out")
    layouts = choice((*SIZES, *views.LAYOUTS))
    add("--layout", layouts, defaults.layout, "file layout and picture size; chairs, faces: views")
    add("--identities", positive_int, defaults.identities, "people or things to train on")
    add("--test_identities", natural, None, "others in the test split; default: an eighth")
    add("--poses", positive_int, defaults.poses, "pictures of each person, at least 2")
    add("--seed", natural, defaults.seed, "another number, other people")
    add("--pairs", positive_int, None, "at most so many training pairs; default: all ordered pairs")
    add("--test_pairs", positive_int, None, "at most so many test pairs; default: all")
    add("--background", choice(BACKGROUNDS), defaults.background, "behind the people")
    add("--quality", whole_number(1, 100), defaults.quality, "of JPEG; published files have 75")
    add("--size", positive_int, None, "chairs, faces: pixels of a side; default: 256")
    add("--hdf5", flag, False, "chairs: data_chair.hdf5 instead of image folders")
    add_workers(add, 1, "processes that render; does not change the bytes")
    add("--overwrite", flag, False, "replace a synthetic data set with other settings")
    sheet = "also write an overview with skeletons, default place: contact_sheet.png in --out"
    parser.add_argument("--contact_sheet", nargs="?", const="", metavar="PNG", help=sheet)
    add_debug(add)
    return parser


def check_options(opt: Namespace, kind: type, other: type) -> None:
    """Refuse options that only the other kind of data set has."""
    defaults = build_parser()
    for name in set(other.__dataclass_fields__) - set(kind.__dataclass_fields__):
        if getattr(opt, name) != defaults.get_default(name):
            raise UserError(f"--{name} means nothing for --layout {opt.layout}: leave it out.")


def main() -> None:
    """Render, report the speed, and write the contact sheet if asked."""
    opt = build_parser().parse()
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
