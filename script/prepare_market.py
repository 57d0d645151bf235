"""Make the Market-1501 image folders of the published systems from the original release.

    python script/prepare_market.py --source ~/Market-1501-v15.09.15.zip --dataroot ./dataset/market

``bounding_box_train`` and ``bounding_box_test`` become ``train/`` and ``test/``, byte for byte; the
folders ``train_12864/`` and ``test_12864/`` that the published metric commands name hold the same
photographs (128 high, 64 wide; anything else is resized).
"""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path, PurePosixPath

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

from data.prepare.images import (
    FILTERS,
    ImageSource,
    Job,
    Output,
    complete_manifest,
    count_outdated,
    images_in,
    run,
)
from options.parser import DATA, Parser, add_debug, add_workers
from util.errors import UserError
from util.files import make_folder
from util.kinds import choice, flag, text
from util.parallel import allotted_cpus
from util.run.main import run_main
from util.run.progress import progress_bar
from util.tables.layouts import LAYOUTS, MARKET_PREPARATIONS, PHASES, Preparation
from util.tables.manifest import differences, read_manifest, update_manifest

PLACES = (".", "Market-1501-v15.09.15", "Market-1501-v15.09.15.zip", "Market-1501.zip", "Market")


def parse_arguments(arguments: list[str] | None = None) -> Namespace:
    parser = Parser(__doc__)
    add = parser.option
    add(DATA, text, "./dataset/market", "folder that receives the image folders")
    add("--source", text, None, "the release, a folder or a zip file; default: look in DATAROOT")
    add("--no_12864", flag, False, "make train/ and test/ only")
    add("--filter", choice(FILTERS), "bicubic", "for files not 128 x 64")
    add_workers(add, allotted_cpus(), "processes")
    add_debug(add)
    return parser.parse(arguments)


def find_images(source: ImageSource) -> dict[str, dict[str, str]]:
    """Phase -> file name -> path of the images in bounding_box_train and bounding_box_test."""
    found: dict[str, dict[str, str]] = {phase: {} for phase in PHASES}
    places: dict[str, str] = {}
    total = 0
    for path in source.names():
        total += 1
        inner = PurePosixPath(path.replace("\\", "/"))  # of zips made on Windows
        folder, name = inner.parent.name, inner.name
        for phase in PHASES:
            if folder == f"bounding_box_{phase}":
                place = places.setdefault(phase, str(inner.parent))
                if place != str(inner.parent):
                    raise UserError(
                        f"{source.path} holds two releases, {place} and {inner.parent}; expected "
                        "one: give the folder above the right one with --source."
                    )
                found[phase][name] = path
    missing = [f"bounding_box_{phase}" for phase in PHASES if not found[phase]]
    if missing:
        there = ", ".join(source.sample()) or "nothing"
        raise UserError(
            f"{source.path} holds no images in {' and '.join(missing)}; found {total:,} image "
            f"files in all, and at the top {there}: get {LAYOUTS['market'].origins['images']}, "
            "and give its place with --source."
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


def make_records(
    images: dict[str, dict[str, str]],
    preparations: tuple[Preparation, ...],
    options: Namespace,
) -> dict[str, dict]:
    """What the manifest says about each folder before its images are made."""
    return {
        how.folder.format(phase=phase): {
            "source": "Market-1501",
            "steps": list(how.steps),
            "filter": options.filter if how.size else None,
            "size": list(how.size) if how.size else None,
            "file_format": how.file_format,
            "quality": None,
            "images": 0,
            "expected": len(images[phase]),
            "complete": False,
        }
        for phase in PHASES
        for how in preparations
    }


def refuse_foreign_folders(root: Path, records: dict[str, dict]) -> None:
    """UserError when a folder already holds images that were made otherwise or by others."""
    known = read_manifest(root) or {}
    for folder, record in records.items():
        count = len(images_in(root / folder))
        if count and (folder not in known or differences(known[folder], record)):
            raise UserError(
                f"{root / folder} already holds {count:,} images that this script did not make "
                "with these settings; expected an empty folder: move it away, or choose another "
                "--dataroot."
            )


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    root = Path(options.dataroot)
    source = ImageSource(options.source or find_source(root))
    images = find_images(source)
    preparations = MARKET_PREPARATIONS[:1] if options.no_12864 else MARKET_PREPARATIONS
    records = make_records(images, preparations, options)
    make_folder(root)
    refuse_foreign_folders(root, records)
    update_manifest(root, records)
    tasks = {
        path: [Output(root / r.folder.format(phase=phase) / name, r) for r in preparations]
        for phase in PHASES
        for name, path in images[phase].items()
    }
    outdated = count_outdated(source, tasks)
    if outdated:
        print(f"{outdated:,} images are older than {source.path}: they are made again")
    job = Job(source, options.filter)
    steps = progress_bar(run(job, tasks, options.workers), total=len(tasks), unit="image")
    problems = [problem for _, _, problem in steps if problem]
    complete_manifest(root, records, tasks)
    for folder, record in records.items():
        print(f"{root / folder}: {record['images']:,} of {record['expected']:,} images")
    published = LAYOUTS["market"].image_counts
    for phase in PHASES:
        if len(images[phase]) != published[phase]:
            print(f"note: {len(images[phase]):,} {phase} images; published: {published[phase]:,}")
    for problem in problems[:5]:
        print(f"  not readable: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    run_main(main)
