"""Render a data set of synthetic people in the DeepFashion or Market-1501 file layout, or of
chairs and heads from many sides in the layouts of ShapeNet and Multi-PIE (--dataset_mode view).

    python -m script.make_synthetic_dataset --out dataset/synthetic --identities 400 --poses 5
    python -m script.make_synthetic_dataset --out dataset/chairs --layout chairs --size 64

The same options give the same bytes, whatever the number of workers.
"""

import sys
import time
from argparse import Namespace
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

from data.synthetic.picture import BACKGROUNDS
from data.synthetic.write import (
    OBJECTS,
    SIZES,
    Settings,
    ViewSettings,
    contact_sheet,
    write_dataset,
)
from options.parser import OUTPUT, Parser, add_workers
from util.errors import UserError
from util.kinds import REQUIRED, choice, flag, natural, positive_int, text, whole_number
from util.run.main import run_main


def build_parser() -> Parser:
    """The command line of this script."""
    defaults, parser = Settings(), Parser(__doc__)
    add = parser.option
    folder = "folder of the data set; made if it is missing"
    add(f"{OUTPUT} --dataroot", text, REQUIRED, folder, "out")
    layouts = choice((*SIZES, *OBJECTS))
    add("--layout", layouts, defaults.layout, "file layout and picture size; chairs, faces: views")
    add("--identities", positive_int, defaults.identities, "people or things to train on")
    add("--test_identities", positive_int, None, "others in the test split; default: an eighth")
    add("--poses", whole_number(2, 300), defaults.poses, "pictures of each person")
    add("--seed", natural, defaults.seed, "another number, other people")
    add("--pairs", positive_int, None, "at most so many training pairs; default: all ordered pairs")
    add("--test_pairs", positive_int, None, "at most so many test pairs; default: all")
    add("--background", choice(BACKGROUNDS), defaults.background, "behind the people")
    add("--quality", whole_number(1, 100), defaults.quality, "of JPEG; published files have 75")
    add("--size", whole_number(16, 1024), None, "chairs, faces: pixels of a side; default: 256")
    add("--hdf5", flag, False, "chairs: data_chair.hdf5 instead of image folders")
    add_workers(add, 1, "processes that render; does not change the bytes")
    add("--overwrite", flag, False, "replace a synthetic data set with other settings")
    sheet = "also contact_sheet.png in --out: some of the people, with their skeletons"
    add("--contact_sheet", flag, False, sheet)
    return parser


def own_settings(opt: Namespace) -> dict[str, object]:
    """The settings of the asked layout; UserError for options that only other layouts have."""
    people, views = set(Settings.__dataclass_fields__), set(ViewSettings.__dataclass_fields__)
    own, other = (people, views) if opt.layout in SIZES else (views, people | {"contact_sheet"})
    defaults = build_parser()
    for name in sorted(other - own):
        if getattr(opt, name) != defaults.get_default(name):
            raise UserError(f"--{name} means nothing for --layout {opt.layout}: leave it out.")
    given = {name: getattr(opt, name) for name in own if getattr(opt, name) is not None}
    return {"test_identities": max(opt.identities // 8, 2)} | given


def main() -> None:
    """Render, report the speed, and write the contact sheet if asked."""
    opt = build_parser().parse()
    settings, start = own_settings(opt), time.perf_counter()
    manifest = write_dataset(
        opt.out, workers=opt.workers, overwrite=opt.overwrite, progress=True, **settings
    )
    seconds = time.perf_counter() - start
    for phase, counts in manifest["counts"].items():
        print(f"{phase}: " + ", ".join(f"{number} {what}" for what, number in counts.items()))
    images = sum(counts["images"] for counts in manifest["counts"].values())
    if manifest["unchanged"]:
        print(f"{opt.out} already holds exactly this data set ({images} images): nothing to do")
    else:
        speed = 60 * images / seconds
        print(f"{opt.out} is ready: {images} images in {seconds:.1f} s ({speed:.0f} a minute)")
    if opt.contact_sheet:
        path = Path(opt.out) / "contact_sheet.png"
        contact_sheet(opt.out, path)
        print(f"contact sheet: {path}")


if __name__ == "__main__":
    run_main(main)
