r"""Make a folder of photos into pictures and keypoints that can be trained on.

    python -m script.extract_keypoints photos/ --output extracted/
    python -m script.make_pairs --keypoints extracted/keypoints.csv --images extracted/images \
        --output dataset/mine --test_share 0.1

Writes extracted/images/ (the person of every photo, cropped to the frame of --dataset_mode),
extracted/keypoints.csv (name:keypoints_y:keypoints_x, pixels of that frame) and
extracted/skeletons.jpg, an overview. A photo without a usable person is left out and named, with
the reason. A run that was stopped goes on where it was when it is started again.
"""

from __future__ import annotations

import contextlib
import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

import numpy as np

from models.estimators import PersonFinder
from options.parser import OUTPUT, Parser, add_debug, add_device
from script.transfer import (
    QUALITY,
    add_estimator_options,
    person_finder,
    subject_of_photo,
)
from util.errors import UserError
from util.files import OutputError, check_writable, make_folder, write_file
from util.image import list_photos, load_image, save_image
from util.kinds import REQUIRED, choice, flag, text
from util.run.device import choose_device
from util.run.main import run_main
from util.run.progress import progress_bar
from util.show.grid import grid, in_rows
from util.skeleton import draw_skeleton
from util.tables.layouts import LAYOUTS
from util.tables.patn import write_keypoints

SHEET_COLUMNS, SHEET_ROWS = 8, 3
JOURNAL = "unfinished.jsonl"  # in the output folder, until the table is written
SETTINGS = ("dataset_mode", "crop", "estimator", "person", "min_joints")  # must stay the same


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


class Journal:
    """What was found in every photo so far, a line of JSON each, so that a killed run goes on.

    The first line holds the settings. A line that was cut off is forgotten, and so is what was
    found in a photo that has changed since. Memory holds keypoints, never pictures.
    """

    def __init__(self, path: Path, settings: dict[str, Any], overwrite: bool):
        self.path = path
        lines = [] if overwrite or not path.is_file() else _json_lines(path)
        if lines and lines[0] != settings:
            changed = [key for key in settings if lines[0].get(key) != settings[key]]
            raise UserError(
                f"{path.parent} holds an unfinished run with other settings "
                f"({', '.join(changed)}); start it as before, choose another --output, or pass "
                "--overwrite"
            )
        self.found = {line["name"]: line for line in lines[1:] if "name" in line}
        kept = [settings, *self.found.values()]
        make_folder(path.parent)
        write_file(path, "".join(f"{json.dumps(line)}\n" for line in kept).encode())

    def knows(self, name: str, state: list[int], picture: Path) -> bool:
        """Whether a photo in this ``state`` is done: refused, or cropped to ``picture``."""
        line = self.found.get(name, {})
        return line.get("state") == state and ("refused" in line or picture.is_file())

    def add(self, name: str, **facts: Any) -> None:
        """Remember what was found in a photo."""
        self.found[name] = {"name": name, **facts}
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(f"{json.dumps(self.found[name])}\n")
        except OSError as error:
            raise OutputError(
                f"{self.path} cannot be written ({error.strerror}): free some space and start "
                "again; finished photos are kept."
            ) from None


def _json_lines(path: Path) -> list[dict[str, Any]]:
    lines = []
    for line in path.read_text("utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            content = json.loads(line)
            if isinstance(content, dict):
                lines.append(content)
    return lines


def extract(
    photos: dict[str, Path],
    journal: Journal,
    images: Path,
    find: PersonFinder,
    frame: tuple[int, int],
    crop: str,
) -> None:
    """Write the pictures of all photos that the journal does not know, and enter them there."""
    find.estimator  # noqa: B018 - missing weights concern all photos, not the first
    for name, photo in progress_bar(photos.items(), desc="estimate", unit="photo"):
        status = photo.stat()
        state = [status.st_size, status.st_mtime_ns]
        if journal.knows(name, state, images / name):
            continue
        try:
            subject = subject_of_photo(photo, find, frame, crop)
        except UserError as error:
            journal.add(name, state=state, refused=str(error))
            continue
        save_image(images / name, subject.tile(frame, skeleton=False))
        journal.add(name, state=state, keypoints=subject.keypoints.tolist())


def overview(images: Path, people: dict[str, np.ndarray]) -> np.ndarray:
    """The first pictures with their skeletons, for a look at what the estimator found."""
    first = list(people.items())[: SHEET_COLUMNS * SHEET_ROWS]
    tiles = [draw_skeleton(np.asarray(load_image(images / name)), points) for name, points in first]
    return grid(in_rows(tiles, SHEET_COLUMNS))


def place_to_write(opt: Namespace) -> Path:
    """The folder to write, checked: not among the photos, and not finished already."""
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
    return output


def run(opt: Namespace) -> None:
    """Do what the options say and report."""
    output, folder = place_to_write(opt), Path(opt.photos)
    table = output / "keypoints.csv"
    photos = name_photos(folder, list_photos(folder))
    frame = LAYOUTS[opt.dataset_mode].annotation_size
    find = person_finder(opt, choose_device(opt.device))
    settings = {key: getattr(opt, key) for key in SETTINGS} | {"photos": str(folder.resolve())}
    journal = Journal(output / JOURNAL, settings, opt.overwrite)
    extract(photos, journal, output / "images", find, frame, opt.crop)
    lines = [journal.found[name] for name in photos]
    for reason in (line["refused"] for line in lines if "refused" in line):
        print(f"left out: {reason}")
    people = {line["name"]: np.array(line["keypoints"]) for line in lines if "refused" not in line}
    if not people:
        raise UserError(f"none of the {len(photos)} photos in {folder} shows a usable person")
    save_image(output / "skeletons.jpg", overview(output / "images", people), QUALITY)
    write_keypoints(table, people)
    journal.path.unlink()
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
