"""Make a folder of photos into pictures and keypoints that can be trained on.

    python -m script.extract_keypoints photos/ --output extracted/
    python -m script.make_pairs --keypoints extracted/keypoints.csv --images extracted/images \
        --output dataset/mine --test_share 0.1

Writes extracted/images/ (the person of every photo, cropped to the frame of --dataset_mode),
extracted/keypoints.csv (name:keypoints_y:keypoints_x, pixels of that frame) and
extracted/skeletons.jpg, an overview. A photo without a usable person is left out and named, with
the reason.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from PIL import Image
from tqdm import tqdm

from models.estimators import PersonFinder
from options.parser import OUTPUT, Parser, add_debug, add_device
from script.transfer import (
    QUALITY,
    Subject,
    add_estimator_options,
    person_finder,
    subject_of_photo,
)
from util.errors import UserError
from util.files import check_writable
from util.image import list_photos, save_image
from util.kinds import REQUIRED, choice, flag, text
from util.run.device import choose_device
from util.run.main import run_main
from util.show.grid import grid, in_rows
from util.tables.layouts import LAYOUTS
from util.tables.patn import write_keypoints

SHEET_COLUMNS, SHEET_ROWS = 8, 3


def build_parser() -> Parser:
    """The command line of this script."""
    parser = Parser(__doc__)
    add = parser.option
    photos = "folder of photos; folders inside it are read too"
    add("photos --dataroot", text, REQUIRED, photos, metavar="DIR")
    add(OUTPUT, text, None, "folder to write; default: DIR_extracted beside DIR")
    modes = choice(("fashion", "market"))
    add("--dataset_mode", modes, "fashion", "sets the pictures' size and the keypoints' frame")
    crop = "person: cut the person out of each photo; none: scale whole photos to the frame"
    add("--crop", choice(("person", "none")), "person", crop)
    add_device(add)
    add("--overwrite", flag, False, "replace what an earlier run wrote")
    add_estimator_options(parser)
    add_debug(add)
    return parser


def name_photos(folder: Path, photos: list[Path]) -> dict[str, Path]:
    """Name of the picture to write -> photo; two photos may not get one name."""
    named: dict[str, Path] = {}
    for photo in photos:
        name = photo.relative_to(folder).with_suffix(".png").as_posix()
        if name in named:
            raise UserError(
                f"{named[name]} and {photo} would both become {name}; rename one of them"
            )
        named[name] = photo
    return named


def extract(
    photos: dict[str, Path], images: Path, find: PersonFinder, frame: tuple[int, int], crop: str
) -> tuple[dict[str, Subject], list[str]]:
    """Write the pictures; returns people by name, and why the other photos were left out."""
    people: dict[str, Subject] = {}
    refused: list[str] = []
    find.estimator  # noqa: B018 - missing weights concern all photos, not the first
    for name, photo in tqdm(photos.items(), desc="estimate", unit="photo"):
        try:
            subject = subject_of_photo(photo, find, frame, crop)
        except UserError as error:
            refused.append(str(error))
            continue
        tile = subject.tile(frame, skeleton=False)
        save_image(images / name, tile)
        people[name] = Subject(name, Image.fromarray(tile), subject.keypoints)
    return people, refused


def overview(people: list[Subject], frame: tuple[int, int]) -> np.ndarray:
    """The first pictures with their skeletons, for a look at what the estimator found."""
    tiles = [person.tile(frame, skeleton=True) for person in people[: SHEET_COLUMNS * SHEET_ROWS]]
    return grid(in_rows(tiles, SHEET_COLUMNS))


def run(opt: Namespace) -> None:
    """Do what the options say and report."""
    folder = Path(opt.photos)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected a folder of photos")
    output = Path(opt.output or folder.resolve().with_name(f"{folder.resolve().name}_extracted"))
    if folder.resolve() in (output.resolve(), *output.resolve().parents):
        raise UserError(
            f"--output {output} lies inside {folder}, so that another run would take its pictures "
            "for photos; choose a folder beside it"
        )
    table = output / "keypoints.csv"
    if table.exists() and not opt.overwrite:
        raise UserError(f"{table} exists already; choose another --output, or pass --overwrite")
    check_writable(table)
    photos = name_photos(folder, list_photos(folder))
    frame = LAYOUTS[opt.dataset_mode].annotation_size
    find = person_finder(opt, choose_device(opt.device))
    people, refused = extract(photos, output / "images", find, frame, opt.crop)
    for reason in refused:
        print(f"left out: {reason}")
    if not people:
        raise UserError(f"none of the {len(photos)} photos in {folder} shows a usable person")
    write_keypoints(table, {name: person.keypoints for name, person in people.items()})
    save_image(output / "skeletons.jpg", overview(list(people.values()), frame), QUALITY)
    print(f"{len(people)} of {len(photos)} photos: {table}, {output / 'images'}")
    print(f"look at {output / 'skeletons.jpg'}, then make pairs:")
    print(
        f"  python -m script.make_pairs --keypoints {table} --images {output / 'images'} "
        f"--output dataset/{folder.resolve().name} --dataset_mode {opt.dataset_mode} --test_share "
        "0.1"
    )


def main(argv: list[str] | None = None) -> None:
    """Parse and run."""
    run(build_parser().parse(argv))


if __name__ == "__main__":
    run_main(main)
