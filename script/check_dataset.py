"""Say what is wrong with a data set before a training finds out.

    python script/check_dataset.py ./dataset/fashion

Names every file it needs and where people get it, then checks counts, images, sizes,
pairs, keypoints, frames, repeated rows and people in both phases, and draws a contact sheet.
Errors stop or falsify a training (exit status 1); warnings are worth a look.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
import sys
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

import numpy as np
from PIL import Image

from data import find_dataset, list_datasets
from data.prepare.checks import (
    ERROR,
    NOTE,
    WARNING,
    Finding,
    Phase,
    check_between,
    check_tables,
)
from data.prepare.checks import read_phase as read_one_phase
from data.prepare.pictures import check_images
from options.parser import Parser, add_debug, add_workers
from util.errors import UserError
from util.image import load_image, save_image
from util.kinds import REQUIRED, choice, flag, natural, positive_int, several, text
from util.parallel import allotted_cpus
from util.run.main import run_main
from util.run.progress import progress_bar
from util.show.grid import grid, in_rows
from util.skeleton import draw_skeleton, in_frame
from util.tables.layouts import (
    LAYOUTS,
    PHASES,
    SYNTHETIC_NAME,
    Layout,
    detect_layout,
    guess_layout,
)
from util.tables.manifest import origin
from util.tables.views import looks_like_views

VIEW = "view"  # the --dataset_mode of turned objects, which have no tables
COLUMNS = 4  # pairs in one row of the contact sheet


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
    add("--quick", flag, False, "read headers only; truncated images go unnoticed")
    add("--strict", flag, False, "warnings count as errors")
    sheet = "picture to write, or none; default: DATAROOT/contact_sheet.jpg"
    add("--contact_sheet", text, None, sheet)
    add("--samples", positive_int, 8, "pairs of each phase on the contact sheet")
    add("--seed", natural, 0, "of the choice of samples")
    add_workers(add, allotted_cpus(), "processes")
    add_debug(add)
    return parser.parse(arguments)


def choose_layout(root: Path, options: Namespace) -> Layout:
    """The layout asked for or found, with the frame asked for."""
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is no folder; expected the data root: check the path.")
    if options.dataset_mode == "auto":
        layout = detect_layout(root)
        if layout is None:
            guess = guess_layout(root)
            print_files(root, guess, options.phase, missing=True)
            problem = "there is no such folder"
            if root.is_dir():
                found = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "nothing"
                problem = f"no pairs or keypoint table is in it, but {found}"
            raise UserError(
                f"{root}: {problem}; expected the files listed above for --dataset_mode "
                f"{guess.mode}: get them, or say --dataset_mode."
            )
    else:
        layout = LAYOUTS.get(options.dataset_mode) or layout_of_class(options.dataset_mode)
    if options.annotation_size:
        layout = dataclasses.replace(layout, annotation_size=tuple(options.annotation_size))
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
    return Layout(
        mode=mode,
        pairs=dataset.pairs_files,
        annotations=dataset.annotation_files,
        image_folder=dataset.image_folders[0],
        annotation_size=dataset.annotation_size,
        pair_columns=dataset.pair_columns,
        origins=dict.fromkeys(("images", "pairs", "keypoints"), f"where {mode} comes from"),
    )


def print_files(root: Path, layout: Layout, phases: list[str], missing: bool = False) -> None:
    """The files and folders of the layout; those that are missing only if nothing else says so."""
    print(f"{root}: layout {layout.mode}, keypoint frame {layout.annotation_size} (h, w)")
    for phase in phases:
        for kind, names in (
            ("images", (layout.image_folder,)),
            ("pairs", layout.pairs),
            ("keypoints", layout.annotations),
        ):
            path = layout.find(root, names, phase)
            if path is None and not missing:
                continue
            name = (path or root / names[0].format(phase=phase)).relative_to(root)
            origin = "" if path else f" - get it from {layout.origins[kind]}"
            print(f"  {'found  ' if path else 'MISSING'} {phase} {kind}: {name}{origin}")


def progress(items: Iterable, total: int) -> Iterable:
    return progress_bar(items, total=total, unit="image", leave=False)


def check(root: Path, layout: Layout, options: Namespace) -> tuple[list[Phase], list]:
    """All findings of all phases, in the order in which they should be mended."""
    own = options.own or (root / SYNTHETIC_NAME).exists()
    phases = [read_one_phase(root, layout, name) for name in options.phase]
    for phase in phases:
        check_tables(phase, own)
        check_images(phase, options.quick, options.workers, own, progress)
    findings = [finding for phase in phases for finding in phase.findings]
    if len(phases) == 2 and all(phase.pairs for phase in phases):
        by_name = {phase.name: phase for phase in phases}
        findings += check_between(by_name["train"], by_name["test"], options.identity)
    order = (ERROR, WARNING, NOTE)
    return phases, sorted(findings, key=lambda finding: order.index(finding.level))


def contact_sheet(phases: list[Phase], samples: int, seed: int) -> np.ndarray | None:
    """Source and target of random pairs with their skeletons; None when no pair can be drawn."""
    tiles = []
    for phase in phases:
        order = random.Random(seed).sample(phase.pairs, len(phase.pairs))
        drawable = (p for p in order if all(_can_draw(phase, name) for name in p))
        for pair in itertools.islice(drawable, samples):
            tiles.append(grid([[_draw(phase, name) for name in pair]], gap=0))
    return grid(in_rows(tiles, COLUMNS), gap=8) if tiles else None


def _can_draw(phase: Phase, name: str) -> bool:
    if name not in phase.keypoints:
        return False
    try:
        load_image(phase.folder / name)
    except UserError:  # reported by check_images
        return False
    return True


def _draw(phase: Phase, name: str) -> np.ndarray:
    """One image in its keypoint frame, at least 256 pixels high, with its skeleton."""
    height, width = phase.layout.annotation_size
    scale = max(1, round(256 / height))
    image = load_image(phase.folder / name).resize((width * scale, height * scale), Image.BICUBIC)
    points = in_frame(phase.keypoints[name], (1, 1), (scale, scale))
    return draw_skeleton(np.asarray(image), points)


def print_findings(findings: list[Finding], strict: bool) -> int:
    """Print all findings and a summary; the exit status."""
    for finding in findings:
        print(f"{finding.level}: {finding.text}")
    counts = {level: sum(f.level == level for f in findings) for level in (ERROR, WARNING, NOTE)}
    print(", ".join(f"{count} {level}{'s' * (count != 1)}" for level, count in counts.items()))
    failed = counts[ERROR] + (counts[WARNING] if strict else 0)
    print("this data set needs attention before it is used" if failed else "ready for training")
    return 1 if failed else 0


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    root = Path(options.dataroot)
    if options.dataset_mode == VIEW or (
        options.dataset_mode == "auto"
        and detect_layout(root) is None
        and looks_like_views(root, options.phase)
    ):
        return check_turned_objects(root, options)
    layout = choose_layout(root, options)
    print_files(root, layout, options.phase)
    phases, findings = check(root, layout, options)
    for phase in phases:
        print(
            f"{phase.name}: {len(phase.pairs):,} pairs of {len(phase.names):,} images, "
            f"{len(phase.keypoints):,} keypoint rows; {origin(phase.folder)}"
        )
    if options.contact_sheet != "none":
        path = Path(options.contact_sheet or root / "contact_sheet.jpg")
        sheet = contact_sheet(phases, options.samples, options.seed)
        if sheet is not None:
            write_sheet(path, sheet, "every skeleton must lie on its person")
    return print_findings(findings, options.strict)


def check_turned_objects(root: Path, options: Namespace) -> int:
    """Check a data set of views, which has its own layouts; the exit status."""
    from data.prepare.view_checks import check_views, open_phase, view_sheet  # they need torch

    phases = [open_phase(root, name) for name in options.phase]
    findings = check_views(phases, progress)
    for phase in phases:
        print(phase.summary())
    if options.contact_sheet != "none":
        sheet = view_sheet(phases, options.samples)
        if sheet is not None:
            folder = root if root.is_dir() else root.parent
            path = Path(options.contact_sheet or folder / "contact_sheet.jpg")
            write_sheet(path, sheet, "every row must show one object turning")
    return print_findings(findings, options.strict)


def write_sheet(path: Path, sheet: np.ndarray, hint: str) -> None:
    """Save the contact sheet; a read-only place is worth a line, not the end of the check."""
    try:
        save_image(path, sheet, quality=90)
    except OSError as error:
        print(
            f"the contact sheet {path} cannot be written ({error.strerror}): --contact_sheet PATH"
        )
    else:
        print(f"contact sheet: {path} - {hint}")


if __name__ == "__main__":
    run_main(main)
