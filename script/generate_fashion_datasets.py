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

import dataclasses
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

from data.prepare.images import (
    FILTERS,
    ImageSource,
    deepfashion_entries,
    images_in,
    make_images,
)
from options.parser import DATA, OUTPUT, Parser, add_workers
from util.errors import UserError
from util.image import image_from_bytes
from util.kinds import choice, text
from util.names import flatten_deepfashion_path
from util.parallel import allotted_cpus
from util.run.main import run_main
from util.tables.layouts import (
    LAYOUTS,
    LIST_NAME,
    MAGPT_LIST_NAME,
    PHASES,
    PREPARATIONS,
    RELEASE_SIZE,
    STRIP_SIZE,
    Preparation,
)
from util.tables.patn import read_list, read_table

# Where people have the release, relative to the data root; the first that exists is used.
RELEASES = ("img", "Img/img", "img.zip", "Img/img.zip")
HIGHRES = ("img_highres", "Img/img_highres", "img_highres.zip", "Img/img_highres.zip")


def parse_arguments(arguments: list[str] | None = None) -> Namespace:
    parser = Parser(__doc__)
    add = parser.option
    add(DATA, text, "./dataset/fashion", "folder of the lists and of the release")
    add("--source", text, None, "release elsewhere, folder or zip file; default: look in DATAROOT")
    add("--layout", choice(PREPARATIONS), "dptn", "for which system (see above)")
    add(OUTPUT, text, None, "folder that receives the image folders; default: DATAROOT")
    add("--filter", choice(FILTERS), "bicubic", "for everything resized")
    add("--password", text, None, "of a protected zip file")
    add_workers(add, allotted_cpus(), "processes")
    return parser.parse(arguments)


def find_source(root: Path, layout: str) -> Path:
    """The release below ``root`` that suits the layout; UserError listing every place looked at."""
    order = HIGHRES + RELEASES if layout in ("gfla", "nted") else RELEASES + HIGHRES
    for place in order:
        if (root / place).exists():
            return root / place
    if (root / "WOMEN").is_dir() or (root / "MEN").is_dir():
        return root
    raise UserError(
        f"{root} holds no DeepFashion release; looked for {', '.join(order)} and the folders WOMEN "
        f"and MEN, found {ImageSource(root).sample()}: get it from "
        f"{LAYOUTS['fashion'].origins['images']}, or give its place with --source."
    )


def read_split(root: Path, phase: str) -> tuple[list[str], Path]:
    """Flat names of one phase from train.lst / test.lst, or from MAGPT's list of paths."""
    path, magpt = (root / name.format(phase=phase) for name in (LIST_NAME, MAGPT_LIST_NAME))
    if path.exists():
        return read_list(path), path
    if magpt.exists():
        rows = read_table(magpt, ",", ("img",))
        return [flatten_deepfashion_path(name) for _, (name,) in rows], magpt
    raise UserError(
        f"{path} does not exist; expected the published list of the {phase} images, one flat "
        f"name a line: get train.lst and test.lst from {LAYOUTS['fashion'].origins['list']}."
    )


def read_splits(root: Path) -> dict[str, tuple[list[str], Path]]:
    """Phase -> names and list; UserError for an image in both."""
    splits = {phase: read_split(root, phase) for phase in PHASES}
    (train, train_list), (test, test_list) = splits["train"], splits["test"]
    known = set(train)
    both = [name for name in test if name in known]
    if both:
        raise UserError(
            f"{len(both):,} images are in {train_list} and in {test_list}, the first is "
            f"{both[0]!r}; expected every image in one of them: get the published lists again."
        )
    return splits


def find_images(
    source: ImageSource, splits: Mapping[str, tuple[list[str], Path]]
) -> dict[str, dict[str, str | None]]:
    """Phase -> flat name -> path in the release, None where it is lacking.

    UserError, saying what was looked for and found, when no image of a list is there.
    """
    entries, others = deepfashion_entries(source)
    for names, path in splits.values():
        if not any(name in entries for name in names):
            found = next(iter([*entries, *others]), None)
            there = f" like {found!r}" if found else f"; it holds {source.sample()}"
            raise UserError(
                f"none of the {len(names):,} images of {path} is in {source.path}: looked for "
                f"names like {names[0]!r}, found {len(entries):,} DeepFashion images and "
                f"{len(others):,} other image files{there}; expected paths ending in "
                "WOMEN/<Category>/id_00000000/01_1_front.jpg (or MEN): give the right place with "
                "--source."
            )
    return {phase: {n: entries.get(n) for n in names} for phase, (names, _) in splits.items()}


def make_folders(
    output: Path,
    source: ImageSource,
    kind: str,
    preparations: Sequence[Preparation],
    images: Mapping[str, Mapping[str, str | None]],
    workers: int,
    lists: Mapping[str, Path] | None = None,
) -> int:
    """Make all folders (see :func:`data.prepare.images.make_images`) and say what is there.

    The status: 1 when images are missing or could not be read.
    """
    records, results = make_images(output, source, kind, preparations, images, workers, lists)
    made = sum(count for count, _ in results)
    rest = len(results) * len(preparations) - made
    print(f"{made:,} files made, {rest:,} were there or failed")
    for folder, record in records.items():
        print(f"{output / folder}: {record['images']:,} of {record['expected']:,} images")
        more = len(images_in(output / folder)) - record["images"]
        if more:
            print(f"  note: {more:,} more images are there that no list names; metrics count them")
    missing = [name for found in images.values() for name, path in found.items() if path is None]
    problems = [problem for _, problem in results if problem]
    for title, entries in (("not in the release", missing), ("not readable", problems)):
        for entry in entries[:5]:
            print(f"  {title}: {entry}", file=sys.stderr)
        if len(entries) > 5:
            print(f"  … {len(entries) - 5:,} more {title}", file=sys.stderr)
    if not missing and not problems:
        return 0
    hint = "complete the release and start again (finished images are kept)."
    print(f"error: the folders are incomplete; {hint}", file=sys.stderr)
    return 1


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    root = Path(options.dataroot)
    splits = read_splits(root)
    place = Path(options.source or find_source(root, options.layout))
    source = ImageSource(place, options.password)
    print(f"reading the names in {source.path} …")
    images = find_images(source, splits)
    found = [path for members in images.values() for path in members.values() if path]
    image = image_from_bytes(source.read(found[0]), f"{source.path}: {found[0]}")
    if image.size == STRIP_SIZE[::-1]:  # they would be encoded a second time
        raise UserError(
            f"{source.path}: {found[0]} has 176x256 pixels, so these images are strips already; "
            "expected a release: put them into train/ and test/ as they are."
        )
    kind = "img" if image.size == RELEASE_SIZE[::-1] else "img_highres"
    print(f"release {kind}: {len(found):,} of {sum(map(len, images.values())):,} images found")
    published = PREPARATIONS[options.layout][kind]
    preparations = [dataclasses.replace(how, resampling=options.filter) for how in published]
    lists = {phase: path for phase, (_, path) in splits.items()}
    output = Path(options.output or root)
    return make_folders(output, source, kind, preparations, images, options.workers, lists)


if __name__ == "__main__":
    run_main(main)
