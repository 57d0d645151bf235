r"""Put the images of the pairs lists into LMDB environments, one for each size.

    python -m script.prepare_data --root ./dataset/fashion --out ./dataset/fashion \
        --sizes 256x176 512x352

ROOT holds train_pairs.txt and test_pairs.txt (lines 'target,source'), the images under the paths
they name, and pose/ for --dataset_mode fashion_lmdb. From the tables of --dataset_mode fashion,
script/convert_annotations.py --from patn --to nted makes the lists and pose/; the images are then
found in train/ and test/ by their flat names.

Started again after an interruption, it goes on where it stopped.
"""

import functools
import io
import itertools
import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

from PIL import Image

from options.parser import DATA, OUTPUT, Parser, add_workers
from util.errors import UserError
from util.files import existing_folder, read_json, write_file
from util.image import load_image
from util.kinds import REQUIRED, Kind, text
from util.names import is_deepfashion_path, refuse_alike
from util.parallel import allotted_cpus, map_in_order
from util.run.main import run_main
from util.run.progress import progress_bar
from util.tables.layouts import CROP_BOX, NTED_PAIRS_NAME, PHASES, RELEASE_SIZE
from util.tables.lmdb import LmdbWriter, environment_name, image_key
from util.tables.patn import names_in
from util.tables.uncropped import read_items, to_name

Size = tuple[int, int]  # (h, w)

CHUNK = 10  # images a worker makes at a time, as published
RECORD_NAME = "sources.json"  # path of the lists -> size and time of the file it was made from
FILTER = Image.Resampling.BICUBIC  # as published
COMMIT = 100  # images a transaction: what a kill can cost


def parse_size(text: str) -> Size:
    """``256x176`` (height x width) -> (256, 176)."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isdecimal() and 0 < int(p) <= 4096 for p in parts):
        raise ValueError(text)
    return int(parts[0]), int(parts[1])


def parse_arguments(arguments: Sequence[str] | None = None) -> Namespace:
    parser = Parser(__doc__)
    add = parser.option
    add(DATA, text, REQUIRED, "folder of the pairs lists and images", "root")
    add(OUTPUT, text, None, "folder that receives the environments; default: ROOT", "out")
    sizes = Kind("sizes HEIGHTxWIDTH such as 256x176", tuple, nargs="+", read=parse_size)
    add("--sizes", sizes, [(256, 176), (512, 352)], "sizes in pixels", metavar="HxW")
    add_workers(add, allotted_cpus(), "processes that decode and resize")
    return parser.parse(arguments)


def list_images(root: Path) -> list[str]:
    """Every path of the pairs lists, once, in order of appearance."""
    lists = [root / NTED_PAIRS_NAME.format(phase=phase) for phase in PHASES]
    items = [item for path in lists if path.is_file() for item in read_items(path)]
    if not items:
        raise UserError(
            f"{root} holds neither train_pairs.txt nor test_pairs.txt; make them with python "
            "script/convert_annotations.py --from patn --to nted, or check --root"
        )
    paths = names_in((target, *sources) for target, sources in items)
    refuse_alike(paths, image_key, "of the lists would be one image in LMDB")
    return paths


def find_files(root: Path, paths: Sequence[str]) -> dict[str, Path]:
    """File of every path of the lists: under it, or under its flat name in train/ or test/."""
    files = {}
    for path in paths:
        places = [root / path, *(root / phase / to_name(path) for phase in PHASES if "/" in path)]
        files[path] = next(filter(Path.is_file, places), None)
    absent = [path for path, file in files.items() if file is None]
    if absent:
        raise UserError(
            f"{len(absent):,} of {len(paths):,} images of the lists are not below {root}, the "
            f"first is {absent[0]}; expected them there, or under flat names in train/ and test/"
        )
    return files


def encode(task: tuple[str, Path], size: Size) -> tuple[str, bytes] | str:
    """Path and PNG of one image at ``size``, or why it cannot be read.

    Images of the 256 x 256 release lose their borders first. Own pictures of that size have none:
    those of the release are known by their paths.
    """
    path, file = task
    try:
        image = load_image(file)
    except UserError as error:
        return str(error)
    if image.size == RELEASE_SIZE[::-1] and is_deepfashion_path(path):
        image = image.crop(CROP_BOX)
    if image.size != size[::-1]:
        image = image.resize(size[::-1], FILTER)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return path, buffer.getvalue()


def read_stamps(writer: LmdbWriter) -> dict[str, str]:
    """Image -> its file when it was put there; UserError where images came otherwise."""
    record, remedy = writer.folder / RECORD_NAME, "delete the folder, or choose another --out"
    if not record.is_file():
        if len(writer):
            raise UserError(
                f"{writer.folder} has images, but no {RECORD_NAME} tells how they were made; "
                f"others are not mixed with them: {remedy}"
            )
        return {}
    stamps = read_json(record, remedy)
    if not isinstance(stamps, dict):
        raise UserError(f"{record} does not hold the record of an environment; {remedy}")
    return stamps


def paths_to_make(writer: LmdbWriter, files: dict[str, Path]) -> list[str]:
    """Images that are not there, and those whose files are not what they were made from.

    The record is written before the images: what a kill leaves out is missing anyway.
    """
    folder, missing = writer.folder, set(writer.missing(files))
    if not missing and not (folder / RECORD_NAME).exists():
        return []  # a published environment
    known, stats = read_stamps(writer), {path: file.stat() for path, file in files.items()}
    now = {path: f"{found.st_size}-{found.st_mtime_ns}" for path, found in stats.items()}
    changed = [p for p in files if p not in missing and known.get(p, now[p]) != now[p]]
    if changed:
        print(
            f"{folder}: {len(changed):,} images changed since they were put there, the first is "
            f"{changed[0]}: they are made again"
        )
    missing.update(changed)
    wanted = [path for path in files if path in missing]
    if wanted:
        writer.mark_incomplete()
        known |= {path: now[path] for path in wanted}
        write_file(folder / RECORD_NAME, json.dumps(known).encode())
    return wanted


def prepare(files: dict[str, Path], folder: Path, size: Size, workers: int) -> tuple[int, int]:
    """Complete one environment; returns (images made now, images in it)."""
    made, problems = 0, []
    with LmdbWriter(folder) as writer:
        tasks = [(path, files[path]) for path in paths_to_make(writer, files)]
        done = map_in_order(functools.partial(encode, size=size), tasks, workers, chunk=CHUNK)
        done = iter(progress_bar(done, total=len(tasks), desc=folder.name, unit="image"))
        while some := list(itertools.islice(done, COMMIT)):
            images = [image for image in some if not isinstance(image, str)]
            problems += [problem for problem in some if isinstance(problem, str)]
            writer.put(images)
            made += len(images)
        if problems:
            raise UserError(
                f"{len(problems):,} images cannot be used, the first: {problems[0]}. {made:,} were "
                "written; replace the files, or take them off the lists, and start again"
            )
        return made, writer.finish()


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    root = existing_folder(options.root, "--root", "expected the folder of the pairs lists")
    files = find_files(root, list_images(root))
    for size in options.sizes:
        folder = Path(options.out or root) / environment_name(size)
        made, total = prepare(files, folder, size, options.workers)
        print(f"{folder}: {made:,} images made, {total:,} in all")
    return 0


if __name__ == "__main__":
    run_main(main)
