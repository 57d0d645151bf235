"""Make the DeepFashion image folders of the published systems from the original release.

    python script/generate_fashion_datasets.py --dataroot ./dataset/fashion
    python script/generate_fashion_datasets.py --layout gfla --source ~/img_highres.zip --password …

``DATAROOT`` holds ``train.lst``, ``test.lst`` and the release: ``img/`` or ``img_highres/``, as a
folder or as the zip file it was downloaded as. The layouts:

  dptn   train/ test/: 176x256 strips (DPTN, DPTN-TA, PATN; every model here can use them)
  gfla   train/ test/ for training (img_highres: unresized) and train_256/ test_256/ for its metrics
  magpt  train_256/ test_256/: the uncropped 256x256 files under their flat names, for its metrics
  nted   train_256/ test_256/: 176x256 PNG files (NTED, PIDM metrics)
"""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

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
    deepfashion_entries,
    images_in,
    refuse_other_settings,
    run,
)
from options.parser import DATA, OUTPUT, Parser, add_debug, add_workers
from util.errors import UserError
from util.files import make_folder
from util.image import image_from_bytes
from util.kinds import choice, flag, text, whole_number
from util.names import flatten_deepfashion_path
from util.parallel import allotted_cpus
from util.run.main import run_main
from util.run.progress import progress_bar
from util.tables.layouts import (
    LAYOUTS,
    LIST_NAME,
    PHASES,
    PREPARATIONS,
    RELEASE_SIZE,
    STRIP_SIZE,
    Preparation,
)
from util.tables.manifest import file_sha256, update_manifest
from util.tables.patn import read_list, read_table

# Where people have the release, relative to the data root; the first that exists is used.
PLACES = {
    "img": ("img", "Img/img", "img.zip", "Img/img.zip"),
    "img_highres": ("img_highres", "Img/img_highres", "img_highres.zip", "Img/img_highres.zip"),
}
PREFERRED = {"gfla": ("img_highres", "img"), "nted": ("img_highres", "img")}


def parse_arguments(arguments: list[str] | None = None) -> Namespace:
    parser = Parser(__doc__)
    add = parser.option
    add(DATA, text, "./dataset/fashion", "folder of the lists and of the release")
    add("--source", text, None, "release elsewhere, folder or zip file; default: look in DATAROOT")
    add("--source_kind", choice(("auto", *PLACES)), "auto", "auto: by image size")
    add("--layout", choice(PREPARATIONS), "dptn", "for which system (see above)")
    add(OUTPUT, text, None, "folder that receives the image folders; default: DATAROOT")
    add("--filter", choice(FILTERS), "bicubic", "for everything resized")
    add("--quality", whole_number(1, 100), 75, "JPEG quality; 75 is the published setting")
    add("--password", text, None, "of a protected zip file")
    add_workers(add, allotted_cpus(), "processes")
    add("--overwrite", flag, False, "replace folders that were made differently")
    add("--allow_missing", flag, False, "exit with status 0 although images are missing")
    add_debug(add)
    return parser.parse(arguments)


def find_source(root: Path, layout: str, kind: str) -> Path:
    """The release below ``root`` that suits the layout; UserError listing every place looked at."""
    kinds = PREFERRED.get(layout, tuple(PLACES)) if kind == "auto" else (kind,)
    places = [root / place for kind in kinds for place in PLACES[kind]]
    for place in places:
        if place.exists():
            return place
    if (root / "WOMEN").is_dir() or (root / "MEN").is_dir():
        return root
    found = sorted(p.name for p in root.iterdir())[:12] if root.is_dir() else []
    raise UserError(
        f"{root} holds no DeepFashion release; looked for {', '.join(str(p) for p in places)} and "
        f"the folders WOMEN and MEN, found {', '.join(found) or 'nothing'}: get it from "
        f"{LAYOUTS['fashion'].origins['images']}, or give its place with --source."
    )


def read_split(root: Path, phase: str) -> tuple[list[str], Path]:
    """Flat names of one phase from train.lst / test.lst, or from MAGPT's list of paths."""
    path = root / LIST_NAME.format(phase=phase)
    magpt = root / f"{phase}_img_list.csv"
    if not path.exists() and magpt.exists():
        rows = [fields for _, fields in read_table(magpt, ",", ("img",))]
        return [flatten_deepfashion_path(name) for (name,) in rows], magpt
    if not path.exists():
        raise UserError(
            f"{path} does not exist; expected the published list of the {phase} images, one flat "
            f"name a line: get train.lst and test.lst from {LAYOUTS['fashion'].origins['list']}."
        )
    return read_list(path), path


def read_splits(root: Path) -> tuple[dict[str, list[str]], dict[str, Path]]:
    """Names and list file of each phase; UserError for an image in both."""
    splits, lists = {}, {}
    for phase in PHASES:
        splits[phase], lists[phase] = read_split(root, phase)
    known = set(splits["train"])
    both = [name for name in splits["test"] if name in known]
    if both:
        raise UserError(
            f"{len(both):,} images are in {lists['train']} and in {lists['test']}, the first is "
            f"{both[0]!r}; expected every image in one of them: get the published lists again."
        )
    return splits, lists


def release_kind(source: ImageSource, member: str, asked: str) -> str:
    """``img`` or ``img_highres``: as asked, or by the size of one image (256x256 is img)."""
    image = image_from_bytes(source.read(member), f"{source.path}: {member}")
    if asked != "auto":
        return asked
    if (image.height, image.width) == STRIP_SIZE:
        raise UserError(
            f"{source.path}: {member} has 176x256 pixels, so these images are strips already; "
            "expected a release: put them into train/ and test/ as they are, or say what they are "
            "with --source_kind."
        )
    return "img" if (image.height, image.width) == RELEASE_SIZE else "img_highres"


def refuse_empty_match(
    source: ImageSource, names: list[str], path: Path, entries: dict[str, str], others: list[str]
) -> None:
    """Say what was looked for and what was found when no image of a list is there."""
    if any(name in entries for name in names):
        return
    found = next(iter(entries), None) or next(iter(others), None)
    there = f" like {found!r}" if found else f"; it holds {', '.join(source.sample()) or 'nothing'}"
    raise UserError(
        f"none of the {len(names):,} images of {path} is in {source.path}: looked for names like "
        f"{names[0]!r}, found {len(entries):,} DeepFashion images and {len(others):,} other image "
        f"files{there}; expected paths ending in "
        "WOMEN/<Category>/id_00000000/01_1_front.jpg (or MEN): give the right place with --source."
    )


def make_record(
    how: Preparation,
    phase: str,
    kind: str,
    options: Namespace,
    names: list,
    path: Path,
) -> dict:
    """What the manifest says about one folder before its images are made."""
    resizes = "resize" in how.steps
    encodes = how.steps != ("copy",)
    return {
        "source": kind,
        "steps": list(how.steps),
        "filter": options.filter if resizes else None,
        "size": list(RELEASE_SIZE if "pad" in how.steps else how.size or []) or None,
        "file_format": how.file_format,
        "quality": options.quality if encodes and how.file_format == "JPEG" else None,
        "images": 0,
        "expected": len(names),
        "list": path.name,
        "list_sha256": file_sha256(path),
        "complete": False,
    }


def plan(
    output: Path,
    preparations: tuple[Preparation, ...],
    splits: dict[str, list[str]],
    entries: dict[str, str],
) -> dict[str, list[Output]]:
    """Source path -> the files to make from it."""
    tasks: dict[str, list[Output]] = {}
    for phase, names in splits.items():
        for name in names:
            if name not in entries:
                continue
            for how in preparations:
                file = Path(name).with_suffix(".png") if how.file_format == "PNG" else name
                path = output / how.folder.format(phase=phase) / file
                tasks.setdefault(entries[name], []).append(Output(path, how))
    return tasks


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    root = Path(options.dataroot)
    output = Path(options.output or root)
    splits, lists = read_splits(root)
    place = options.source or find_source(root, options.layout, options.source_kind)
    source = ImageSource(place, options.password)
    print(f"reading the names in {source.path} …")
    entries, others = deepfashion_entries(source)
    names = [name for phase in PHASES for name in splits[phase]]
    matched = [name for name in names if name in entries]
    for phase in PHASES:
        refuse_empty_match(source, splits[phase], lists[phase], entries, others)
    kind = release_kind(source, entries[matched[0]], options.source_kind)
    preparations = PREPARATIONS[options.layout][kind]
    records = {
        how.folder.format(phase=phase): make_record(
            how, phase, kind, options, splits[phase], lists[phase]
        )
        for phase in PHASES
        for how in preparations
    }
    print(f"release {kind}: {len(matched):,} of {len(names):,} listed images found")
    make_folder(output)
    refuse_other_settings(output, records, options.overwrite)
    update_manifest(output, records)
    tasks = plan(output, preparations, splits, entries)
    problems = make_images(Job(source, options.filter, options.quality), tasks, options.workers)
    missing = [name for name in names if name not in entries]
    return report(output, records, tasks, missing, problems, options.allow_missing)


def make_images(job: Job, tasks: dict[str, list[Output]], workers: int) -> list[str]:
    """Run all tasks under a progress bar; returns the problems of single images."""
    outdated = count_outdated(job.source, tasks)
    if outdated:
        print(f"{outdated:,} images are older than {job.source.path}: they are made again")
    problems, made = [], 0
    for _, count, problem in progress_bar(
        run(job, tasks, workers), total=len(tasks), unit="image", disable=None
    ):
        made += count
        if problem:
            problems.append(problem)
    print(f"{made:,} files made, {sum(map(len, tasks.values())) - made:,} were there or failed")
    return problems


def report(
    output: Path,
    records: dict[str, dict],
    tasks: dict[str, list[Output]],
    missing: list[str],
    problems: list[str],
    allow_missing: bool,
) -> int:
    """Complete the manifest, print matched and expected counts; the exit status."""
    complete_manifest(output, records, tasks)
    for folder, record in records.items():
        print(f"{output / folder}: {record['images']:,} of {record['expected']:,} images")
        more = len(images_in(output / folder)) - record["images"]
        if more:
            print(
                f"  warning: {more:,} more images are there that no list names; metrics count them"
            )
    for title, entries in (("not in the release", missing), ("not readable", problems)):
        for entry in entries[:5]:
            print(f"  {title}: {entry}", file=sys.stderr)
        if len(entries) > 5:
            print(f"  … {len(entries) - 5:,} more {title}", file=sys.stderr)
    if (missing or problems) and not allow_missing:
        print(
            "error: the folders are incomplete; complete the release and start again (finished "
            "images are kept), or accept it with --allow_missing.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    run_main(main)
