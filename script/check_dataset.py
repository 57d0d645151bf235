"""Say what is wrong with a data set before a training finds out.

    python script/check_dataset.py ./dataset/fashion

Names every file it needs and where people get it, then checks counts, images, sizes,
pairs, keypoints, frames, repeated rows and people in both phases, and draws a contact sheet.
Errors stop or falsify a training (exit status 1); warnings are worth a look.
"""

import dataclasses
import random
import sys
from argparse import Namespace
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

import numpy as np
from PIL import Image

from data import find_dataset, list_datasets
from data.prepare.checks import (
    ERROR,
    LEVELS,
    Findings,
    Phase,
    check_between,
    check_images,
    check_tables,
    check_views,
)
from options.parser import Parser, add_workers
from util.errors import UserError
from util.image import load_image, save_image
from util.kinds import REQUIRED, choice, flag, positive_int, several, text
from util.parallel import allotted_cpus
from util.run.main import run_main
from util.show.grid import grid, in_rows
from util.skeleton import draw_skeleton, in_frame
from util.tables.layouts import (
    LAYOUTS,
    PHASES,
    SYNTHETIC_NAME,
    Layout,
    detect_layout,
    find_file,
    guess_layout,
)
from util.tables.manifest import origin
from util.tables.views import looks_like_views

SAMPLES = 8  # pairs of each phase on the contact sheet
COLUMNS = 4  # pairs in one row of it


def parse_arguments(arguments: list[str] | None = None) -> Namespace:
    parser = Parser(__doc__)
    add = parser.option
    add("dataroot --dataroot", text, REQUIRED, "the folder given to train.py as --dataroot")
    add("--dataset_mode", choice(("auto", *list_datasets())), "auto", "auto: by file names")
    add("--phase", several(choice(PHASES)), list(PHASES), "which lists and images")
    add("--own", flag, False, "own data: published counts do not matter")
    frame = several(positive_int, 2)
    add("--annotation_size", frame, None, "frame of the keypoints", metavar=("H", "W"))
    add("--identity", text, None, "how names tell people apart: see script/make_pairs.py")
    sheet = "picture to write, or none; default: DATAROOT/contact_sheet.jpg"
    add("--contact_sheet", text, None, sheet)
    add_workers(add, allotted_cpus(), "processes")
    return parser.parse(arguments)


def choose_layout(root: Path, options: Namespace) -> Layout:
    """The layout asked for or found, with the frame asked for."""
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is no folder; expected the data root: check the path.")
    if options.dataset_mode == "auto":
        layout = detect_layout(root)
        if layout is None:
            layout = guess_layout(root)
            print_files(root, layout, options.phase, missing=True)
            problem = "there is no such folder"
            if root.is_dir():
                found = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "nothing"
                problem = f"no pairs or keypoint table is in it, but {found}"
            raise UserError(
                f"{root}: {problem}; expected the files listed above for --dataset_mode "
                f"{layout.mode}: get them, or say --dataset_mode."
            )
    else:
        layout = LAYOUTS.get(options.dataset_mode) or layout_of_class(options.dataset_mode)
    if options.annotation_size:
        layout = dataclasses.replace(layout, annotation_size=tuple(options.annotation_size))
    if options.own or (root / SYNTHETIC_NAME).exists():
        layout = dataclasses.replace(layout, image_counts={}, pair_counts={})
    return layout


def layout_of_class(mode: str) -> Layout:
    """The layout of a data set that was added by a file data/<mode>_dataset.py."""
    from data.pose_dataset import PoseDataset  # needs torch, as the class of the mode does

    dataset = find_dataset(mode)
    if not issubclass(dataset, PoseDataset):
        raise UserError(
            f"--dataset_mode {mode} has no tables of pairs and keypoints; train.py checks it when "
            "it opens it. Check the tables it was made from, with --dataset_mode fashion, say."
        )
    places = dict.fromkeys(("images", "pairs", "keypoints"), f"where {mode} comes from")
    names = (dataset.pairs_files, dataset.annotation_files, dataset.image_folders[0])
    frame, columns = dataset.annotation_size, dataset.pair_columns
    return Layout(mode, *names, frame, columns, origins=places)


def print_files(root: Path, layout: Layout, phases: list[str], missing: bool = False) -> None:
    """The files and folders of the layout; those that are missing only if nothing else says so."""
    print(f"{root}: layout {layout.mode}, keypoint frame {layout.annotation_size} (h, w)")
    for phase in phases:
        for kind, names in layout.files.items():
            path = find_file(root, names, phase)
            if path is not None:
                print(f"  found   {phase} {kind}: {path.relative_to(root)}")
            elif missing:
                name = names[0].format(phase=phase)
                print(f"  MISSING {phase} {kind}: {name} - get it from {layout.origins[kind]}")


def check_people(root: Path, options: Namespace, found: Findings) -> None:
    """Check people and their poses, and draw the contact sheet."""
    layout = choose_layout(root, options)
    print_files(root, layout, options.phase)
    phases = [Phase(root, layout, name, found) for name in PHASES if name in options.phase]
    for phase in phases:
        check_tables(phase, found)
        check_images(phase, options.workers, found)
        print(
            f"{phase.name}: {len(phase.pairs):,} pairs of {len(phase.names):,} images, "
            f"{len(phase.keypoints):,} keypoint rows; {origin(phase.folder)}"
        )
    if len(phases) == 2 and all(phase.pairs for phase in phases):
        check_between(*phases, options.identity, found)
    tiles = [tile for phase in phases for tile in draw_pairs(phase)]
    if options.contact_sheet == "none" or not tiles:
        return
    sheet = Path(options.contact_sheet or root / "contact_sheet.jpg")
    try:
        save_image(sheet, grid(in_rows(tiles, COLUMNS), gap=8), quality=90)
        print(f"contact sheet: {sheet} - every skeleton must lie on its person")
    except OSError as error:  # a read-only place is worth a line, not the end of the check
        reason = error.strerror
        print(f"the contact sheet {sheet} cannot be written ({reason}): --contact_sheet PATH")


def draw_pairs(phase: Phase) -> list[np.ndarray]:
    """Source and target of random pairs with their skeletons, in the keypoint frame."""
    height, width = phase.layout.annotation_size
    scale = max(1, round(256 / height))

    def draw(name: str) -> np.ndarray:
        size = (width * scale, height * scale)
        image = load_image(phase.folder / name).resize(size, Image.Resampling.BICUBIC)
        points = in_frame(phase.keypoints[name], (1, 1), (scale, scale))
        return draw_skeleton(np.asarray(image), points)

    tiles: list[np.ndarray] = []
    for pair in random.Random(0).sample(phase.pairs, len(phase.pairs)):
        if len(tiles) == SAMPLES:
            break
        try:
            tiles.append(grid([[draw(name) for name in pair]], gap=0))
        except (KeyError, UserError):  # no keypoints, no image: reported already
            continue
    return tiles


def check_turned_objects(root: Path, options: Namespace, found: Findings) -> None:
    """Check a data set of views, which has its own layouts."""
    for phase, source in check_views(root, options.phase, found).items():
        print(
            f"{phase}: {len(source.split):,} pictures of {len(source.things()):,} objects in "
            f"{source.store.where}, names as in {source.naming}: "
            f"{' x '.join(str(len(axis)) for axis in source.views())} views"
        )


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    root, found = Path(options.dataroot), Findings()
    views = options.dataset_mode == "view" or (
        options.dataset_mode == "auto"
        and detect_layout(root) is None
        and looks_like_views(root, options.phase)
    )
    (check_turned_objects if views else check_people)(root, options, found)
    for level, sentence in sorted(found, key=lambda finding: LEVELS.index(finding[0])):
        print(f"{level}: {sentence}")
    counts = {level: sum(level == other for other, _ in found) for level in LEVELS}
    print(", ".join(f"{count} {level}{'s' * (count != 1)}" for level, count in counts.items()))
    failed = counts[ERROR] > 0
    print("this data set needs attention before it is used" if failed else "ready for training")
    return int(failed)


if __name__ == "__main__":
    run_main(main)
