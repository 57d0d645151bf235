r"""Make a folder of photos into pictures and keypoints that can be trained on.

    python -m script.extract_keypoints photos/ --output extracted/
    python -m script.make_pairs --keypoints extracted/keypoints.csv --images extracted/images \
        --output dataset/mine --test_share 0.1

Writes extracted/images/ (the person of every photo, cropped to the frame of --dataset_mode),
extracted/keypoints.csv (name:keypoints_y:keypoints_x, pixels of that frame) and
extracted/skeletons.jpg, an overview. A photo without a usable person is left out and named, with
the reason. A run that was stopped goes on where it was when it is started again.
"""

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
from options.parser import OUTPUT, Parser, add_device
from script.transfer import QUALITY, add_estimator_options, person_finder, subject_of_photo
from util.errors import UserError
from util.files import OutputError, check_writable, existing_folder, make_folder, write_file
from util.image import list_photos, load_image, save_image
from util.kinds import REQUIRED, choice, flag, text
from util.names import refuse_alike
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
    return parser


def name_photos(folder: Path, photos: list[Path]) -> dict[str, Path]:
    """Name of the picture to write -> photo; two photos may not get one name."""
    names = {photo: photo.relative_to(folder).with_suffix(".png").as_posix() for photo in photos}
    refuse_alike(photos, names.get, "would both become {key}")
    return {name: photo for photo, name in names.items()}


def resume(journal: Path, settings: dict[str, Any], overwrite: bool) -> dict[str, dict[str, Any]]:
    """What was found in every photo so far, by name, when a killed run goes on.

    The journal holds a line of JSON for each photo; its first line holds the settings. It is
    written anew without a line that was cut off.
    """
    lines = []
    if journal.is_file() and not overwrite:
        for line in journal.read_text("utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                lines.append(json.loads(line))
    lines = [line for line in lines if isinstance(line, dict)]
    if lines and lines[0] != settings:
        changed = [key for key in settings if lines[0].get(key) != settings[key]]
        raise UserError(
            f"{journal.parent} holds an unfinished run with other settings "
            f"({', '.join(changed)}); start it as before, choose another --output, or pass "
            "--overwrite"
        )
    found = {line["name"]: line for line in lines[1:] if "name" in line}
    make_folder(journal.parent)
    kept = "".join(f"{json.dumps(line)}\n" for line in (settings, *found.values()))
    write_file(journal, kept.encode())
    return found


def enter(journal: Path, line: dict[str, Any]) -> None:
    """Add what was found in one photo."""
    try:
        with journal.open("a", encoding="utf-8") as stream:
            stream.write(f"{json.dumps(line)}\n")
    except OSError as error:
        raise OutputError(
            f"{journal} cannot be written ({error.strerror}): free some space and start again; "
            "finished photos are kept."
        ) from None


def extract(
    photos: dict[str, Path],
    found: dict[str, dict[str, Any]],
    journal: Path,
    images: Path,
    find: PersonFinder,
    opt: Namespace,
) -> None:
    """Write the pictures of all photos that are not known, and enter them into the journal.

    Memory holds keypoints, never pictures. A photo that has changed is not known any more.
    """
    find.estimator  # noqa: B018 - missing weights concern all photos, not the first
    frame = LAYOUTS[opt.dataset_mode].annotation_size
    for name, photo in progress_bar(photos.items(), desc="estimate", unit="photo"):
        status, known = photo.stat(), found.get(name, {})
        line = {"name": name, "state": [status.st_size, status.st_mtime_ns]}
        done = "refused" in known or (images / name).is_file()
        if done and known.get("state") == line["state"]:
            continue
        try:
            subject = subject_of_photo(photo, find, frame, opt.crop)
        except UserError as error:
            line["refused"] = str(error)
        else:
            save_image(images / name, subject.tile(frame, skeleton=False))
            line["keypoints"] = subject.keypoints.tolist()
        found[name] = line
        enter(journal, line)


def place_to_write(opt: Namespace) -> Path:
    """The folder to write, checked: not among the photos, and not finished already."""
    folder = existing_folder(opt.photos, "photos", "expected a folder of photos")
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


def main(argv: list[str] | None = None) -> None:
    opt = build_parser().parse(argv)
    output, folder = place_to_write(opt), Path(opt.photos)
    table, images, sheet = (output / n for n in ("keypoints.csv", "images", "skeletons.jpg"))
    photos = name_photos(folder, list_photos(folder))
    find = person_finder(opt, choose_device(opt.device))
    settings = {key: getattr(opt, key) for key in SETTINGS} | {"photos": str(folder.resolve())}
    found, people = resume(output / JOURNAL, settings, opt.overwrite), {}
    extract(photos, found, output / JOURNAL, images, find, opt)
    for line in (found[name] for name in photos):
        if "refused" in line:
            print(f"left out: {line['refused']}")
        else:
            people[line["name"]] = np.array(line["keypoints"])
    if not people:
        raise UserError(f"none of the {len(photos)} photos in {folder} shows a usable person")
    first = list(people.items())[: SHEET_COLUMNS * SHEET_ROWS]  # what the estimator found
    tiles = [draw_skeleton(np.asarray(load_image(images / name)), points) for name, points in first]
    save_image(sheet, grid(in_rows(tiles, SHEET_COLUMNS)), QUALITY)
    write_keypoints(table, people)
    (output / JOURNAL).unlink()
    print(f"{len(people)} of {len(photos)} photos: {table}, {images}")
    print(f"look at {sheet}, then make pairs:")
    print(
        f"  python -m script.make_pairs --keypoints {table} --images {images} --output "
        f"dataset/{folder.resolve().name} --dataset_mode {opt.dataset_mode} --test_share 0.1"
    )


if __name__ == "__main__":
    run_main(main)
