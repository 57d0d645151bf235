"""Render a data set of synthetic people in the DeepFashion or Market-1501 file layout.

    python -m script.make_synthetic_dataset --out dataset/synthetic --identities 400 --poses 5

The same options give the same bytes, whatever the number of workers.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data.synthetic import BACKGROUNDS, SIZES, Settings, contact_sheet, write_dataset
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
        choices=list(SIZES),
        default=defaults.layout,
        help="file layout and picture size",
    )
    add("--identities", type=int, default=defaults.identities, help="people in the training split")
    add("--test_identities", type=int, help="other people in the test split (default: an eighth)")
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
    add("--workers", type=int, default=1, help="processes that render; does not change the bytes")
    add("--overwrite", action="store_true", help="replace a synthetic data set with other settings")
    add(
        "--contact_sheet", nargs="?", const="", metavar="PNG",
        help="also write an overview with skeletons (default place: contact_sheet.png in --out)",
    )  # fmt: skip
    add("--debug", action="store_true", help="show the full traceback of an error")
    return parser


def main() -> None:
    """Render, report the speed, and write the contact sheet if asked."""
    opt = build_parser().parse_args()
    settings = {
        name: getattr(opt, name)
        for name in Settings.__dataclass_fields__
        if getattr(opt, name) is not None
    }
    settings.setdefault("test_identities", max(opt.identities // 8, 2))
    start = time.perf_counter()
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
    if opt.contact_sheet is not None:
        path = Path(opt.contact_sheet or Path(opt.out) / "contact_sheet.png")
        contact_sheet(opt.out, path, opt.layout)
        print(f"contact sheet: {path}")


if __name__ == "__main__":
    run_main(main)
