r"""Put the images of the pairs lists into LMDB environments, one for each size.

    python -m script.prepare_data --root ./dataset/fashion --out ./dataset/fashion \
        --sizes 256x176 512x352

ROOT holds train_pairs.txt and test_pairs.txt (lines 'target,source'), the images under the paths
they name, and pose/ for --dataset_mode fashion_lmdb. From the tables of --dataset_mode fashion,
script/convert_annotations.py --from patn --to nted makes the lists and pose/; the images are then
found in train/ and test/ by their flat names.

Started again after an interruption, it goes on where it stopped.
"""

from __future__ import annotations

import functools
import io
import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

from data.prepare.images import FILTERS
from options.parser import DATA, OUTPUT, Parser, add_debug, add_workers
from util.errors import UserError
from util.files import make_folder, read_json, write_file
from util.image import load_image
from util.kinds import REQUIRED, Kind, choice, flag, text
from util.names import is_deepfashion_path
from util.parallel import allotted_cpus, map_in_order
from util.run.main import run_main
from util.run.progress import progress_bar
from util.tables.frames import to_name
from util.tables.layouts import CROP_BOX, NTED_PAIRS_NAME, PHASES, RELEASE_SIZE
from util.tables.lmdb import LmdbWriter, environment_name, image_key
from util.tables.nted import read_items

Size = tuple[int, int]  # (h, w)

CHUNK = 10  # images a worker makes at a time, as published
STAMPS_NAME = "sources.json"
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
    add("--filter", choice(sorted(FILTERS)), "bicubic", "resizing; as published")
    add("--keep_borders", flag, False, "of the 256 x 256 release keep the white borders")
    add_workers(add, allotted_cpus(), "processes that decode and resize")
    add_debug(add)
    return parser.parse(arguments)


def list_images(root: Path) -> list[str]:
    """Every path of the pairs lists, once, in order of appearance."""
    lists = [root / NTED_PAIRS_NAME.format(phase=phase) for phase in PHASES]
    present = [path for path in lists if path.is_file()]
    if not present:
        raise UserError(
            f"{root} holds neither train_pairs.txt nor test_pairs.txt; make them with python "
            "script/convert_annotations.py --from patn --to nted, or check --root"
        )
    items = [item for path in present for item in read_items(path)]
    paths = list(dict.fromkeys(p for target, sources in items for p in (target, *sources)))
    by_key: dict[bytes, str] = {}
    for path in paths:
        other = by_key.setdefault(image_key(path), path)
        if other != path:
            raise UserError(
                f"the lists name {other} and {path}, which would be one image in LMDB; rename one"
            )
    return paths


def check_settings(folder: Path, options: Namespace) -> None:
    """Record how an environment is made; UserError when it was begun in another way."""
    settings = {"filter": options.filter, "keep_borders": options.keep_borders}
    path = folder / "preparation.json"
    if not path.is_file():
        make_folder(folder)
        write_file(path, json.dumps(settings).encode())
        return
    begun = read_json(path, f"delete {folder} and start again")
    if begun != settings:
        raise UserError(
            f"{folder} was begun with {begun}, not with {settings}; use the same options, or "
            "delete the folder"
        )


def find_files(root: Path, paths: Sequence[str]) -> dict[str, Path]:
    """File of every path of the lists: under it, or under its flat name in train/ or test/."""
    files, absent = {}, []
    for path in paths:
        candidates = [root / path]
        if "/" in path:
            candidates += [root / phase / to_name(path) for phase in PHASES]
        file = next((c for c in candidates if c.is_file()), None)
        if file is None:
            absent.append(path)
        else:
            files[path] = file
    if absent:
        raise UserError(
            f"{len(absent):,} of {len(paths):,} images of the lists are not below {root}, the "
            f"first is {absent[0]}; expected them there, or under flat names in train/ and test/"
        )
    return files


def encode(
    task: tuple[str, Path], size: Size, resampling: int, crop_borders: bool
) -> tuple[str, bytes] | str:
    """Path and PNG of one image at ``size``, or why it cannot be read.

    Images of the 256 x 256 release lose their borders first. Own pictures of that size have none:
    those of the release are known by their paths.
    """
    path, file = task
    try:
        image = load_image(file)
    except UserError as error:
        return str(error)
    of_release = (image.height, image.width) == RELEASE_SIZE and is_deepfashion_path(path)
    if crop_borders and of_release:
        image = image.crop(CROP_BOX)
    if (image.height, image.width) != size:
        image = image.resize((size[1], size[0]), resampling)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return path, buffer.getvalue()


def read_stamps(folder: Path) -> dict[str, str]:
    """Path of the lists -> size and time of the file that its image was made from."""
    path = folder / STAMPS_NAME
    try:
        return dict(json.loads(path.read_text())) if path.is_file() else {}
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); delete {folder} and start again") from None


def stamp(file: Path) -> str:
    """Changes when the content of a file does: its size and when it was written."""
    found = file.stat()
    return f"{found.st_size}-{found.st_mtime_ns}"


def paths_to_make(writer: LmdbWriter, files: dict[str, Path], folder: Path) -> list[str]:
    """Images that are not there, and those whose files are not what they were made from.

    The stamps are written before the images: what a kill leaves out is missing anyway.
    """
    known, now = read_stamps(folder), {path: stamp(file) for path, file in files.items()}
    missing = set(writer.missing(files))
    changed = [p for p in files if p not in missing and known.get(p, now[p]) != now[p]]
    if changed:
        print(
            f"{folder}: {len(changed):,} images changed since they were put there, the first is "
            f"{changed[0]}: they are made again"
        )
    missing.update(changed)
    if missing:
        writer.mark_incomplete()
        stamps = {**known, **{path: now[path] for path in files if path in missing}}
        write_file(folder / STAMPS_NAME, json.dumps(stamps).encode())
    return [path for path in files if path in missing]


def prepare(files: dict[str, Path], folder: Path, size: Size, options) -> tuple[int, int]:
    """Complete one environment; returns (images made now, images in it)."""
    function = functools.partial(
        encode,
        size=size,
        resampling=FILTERS[options.filter],
        crop_borders=not options.keep_borders,
    )
    check_settings(folder, options)
    made, problems, waiting = 0, [], []
    with LmdbWriter(folder) as writer:
        tasks = [(path, files[path]) for path in paths_to_make(writer, files, folder)]
        done = map_in_order(function, tasks, options.workers, chunk=CHUNK)
        for image in progress_bar(done, total=len(tasks), desc=folder.name, unit="image"):
            (problems if isinstance(image, str) else waiting).append(image)
            if len(waiting) >= COMMIT:
                writer.put(waiting)
                made, waiting = made + len(waiting), []
        if waiting:
            writer.put(waiting)
        made += len(waiting)
        if problems:
            raise UserError(
                f"{len(problems):,} images cannot be used, the first: {problems[0]}. {made:,} were "
                "written; replace the files, or take them off the lists, and start again"
            )
        return made, writer.finish()


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    root = Path(options.root)
    if not root.is_dir():
        raise UserError(f"--root {root} is no folder; expected the folder of the pairs lists")
    files = find_files(root, list_images(root))
    for size in options.sizes:
        folder = Path(options.out or root) / environment_name(size)
        made, total = prepare(files, folder, size, options)
        print(f"{folder}: {made:,} images made, {total:,} in all")
    return 0


if __name__ == "__main__":
    run_main(main)
