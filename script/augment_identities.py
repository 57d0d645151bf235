r"""New poses of every person of a Market-1501-style folder, to train re-identification networks.

    python -m script.augment_identities --checkpoint checkpoints/RUN --dataroot dataset/market \
        --count 8 -o dataset/market_generated

Each picture shows a person of the data set in the pose of somebody else who looks the same way
(front, back, left, right). Names keep Market's scheme, so that the identity is read as before:
0002_c1s1_000451_03.jpg becomes 0002_c1s1_000451_03_gen00.jpg. manifest.json tells what came from
what. A run that was stopped goes on where it was when it is started again.
"""

import json
import sys
from argparse import Namespace
from hashlib import sha256
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from PIL import Image

from api import PoseTransfer
from data.prepare.identities import plan
from models.generation import difference
from options.parser import DATA, OUTPUT, Parser, add_batch, add_device
from script.transfer import add_checkpoint_options, find_checkpoint, load
from util.errors import UserError
from util.files import make_folder, read_json, remove_leftovers, write_file
from util.image import as_photo, is_made, save_image
from util.kinds import REQUIRED, choice, flag, natural, positive_int, text
from util.names import is_image
from util.run.checkpoint import file_hash, find_file
from util.run.device import choose_device
from util.run.main import run_main
from util.run.progress import progress_bar
from util.show.grid import in_rows
from util.skeleton import MIN_JOINTS, in_frame
from util.tables.layouts import LAYOUTS, PHASES
from util.tables.patn import read_keypoints

FILE = "manifest.json"
MARKET = LAYOUTS["market"]
QUALITY = 95
BATCH = 16


def build_parser() -> Parser:
    """The command line of this script."""
    parser = Parser(__doc__)
    add = parser.option
    add(DATA, text, REQUIRED, "folder with train/ and market-annotation-train.csv")
    add(OUTPUT, text, REQUIRED, "folder that receives the pictures")
    add("--phase", choice(PHASES), "train", "whose people")
    add("--keypoints", text, None, "another keypoint table, in pixels of 128 x 64 pictures")
    add("--count", positive_int, 4, "new pictures of every person")
    add("--seed", natural, 0, "of the draws")
    add("--min_joints", natural, MIN_JOINTS, "leave images out that show fewer of the 18 joints")
    add("--no_retarget", flag, False, "the limb lengths of the poses instead of the person's own")
    add_checkpoint_options(parser)
    add_device(add)
    add_batch(add, BATCH, "pictures at once")
    return parser


def read_people(opt: Namespace) -> tuple[Path, Path, dict[str, np.ndarray]]:
    """The image folder, the keypoint table and its keypoints (18, 2) in Market's frame."""
    root = Path(opt.dataroot)
    folder, table = root / opt.phase, root / MARKET.annotations[0].format(phase=opt.phase)
    table = Path(opt.keypoints) if opt.keypoints else table
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder}; expected Market-1501 as script/prepare_market.py leaves "
            "it: check --dataroot and --phase"
        )
    keypoints = read_keypoints(table)
    missing = [name for name in keypoints if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder} lacks {len(missing):,} of the {len(keypoints):,} images of the keypoint "
            f"table, such as {missing[0]}; expected all of them: prepare the folder again"
        )
    return folder, table, keypoints


def describe(opt: Namespace, transfer: PoseTransfer, table: Path) -> dict[str, Any]:
    """What decides the pictures; ``run``, a hash of it, marks every one of them."""
    weights, _ = find_checkpoint(opt)
    if not weights.is_file():  # the folder of a run
        label = "G_ema" if transfer.model.opt.ema else "G"
        weights = find_file(transfer.model.network_path(label, opt.which_epoch))
    made = {
        "checkpoint": weights.name, "sha256": file_hash(weights),
        "keypoints_sha256": file_hash(table), "phase": opt.phase, "seed": opt.seed,
        "min_joints": opt.min_joints, "retarget": not opt.no_retarget,
    }  # fmt: skip
    return made | {"run": sha256(json.dumps(made).encode()).hexdigest()[:12], "count": opt.count}


def check_output(folder: Path, run: dict[str, Any]) -> None:
    """Refuse a folder with pictures of other settings, or of unknown origin."""
    if not (folder / FILE).is_file():
        if folder.is_dir() and any(is_image(path.name) for path in folder.iterdir()):
            raise UserError(
                f"{folder} holds images and no {FILE}, so originals and generated ones would be "
                "mixed; choose a folder of its own as --output"
            )
        return
    earlier = read_json(folder / FILE, "choose another --output")
    same = isinstance(earlier, dict) and earlier.get("run") == run["run"]
    if same and earlier.get("count") in range(run["count"] + 1):
        return  # more pictures of everybody continue the same rows
    raise UserError(
        f"{folder} was made with {difference(earlier, run)}; give the same to go on, or choose "
        "another --output"
    )


def generate(
    pictures: dict[str, dict[str, str]],  # name -> source, pose ...
    transfer: PoseTransfer,
    folder: Path,
    keypoints: dict[str, np.ndarray],
    run: str,
    opt: Namespace,
) -> None:
    """Make the pictures, each as large as its source."""
    frame = transfer.annotation_size
    scaled = {n: in_frame(p, MARKET.annotation_size, frame) for n, p in keypoints.items()}
    batches = in_rows(list(pictures), opt.batch_size)
    for names in progress_bar(batches, desc="generate", unit="batch"):
        pairs = [(pictures[name]["source"], pictures[name]["pose"]) for name in names]
        photos = [as_photo(folder / source) for source, _ in pairs]
        results = transfer.transfer_many(
            photos,
            [scaled[pose] for _, pose in pairs],
            [scaled[source] for source, _ in pairs],
            pairs,
            opt.batch_size,
            retarget=not opt.no_retarget,
        )
        for name, photo, result in zip(names, photos, results, strict=True):
            pixels = np.asarray(result.resize(photo.size, Image.Resampling.BICUBIC))
            save_image(Path(opt.output) / name, pixels, QUALITY, run)


def main(argv: list[str] | None = None) -> None:
    """Parse, generate, say what is there."""
    opt = build_parser().parse(argv)
    folder, table, keypoints = read_people(opt)
    pictures, left_out = plan(keypoints, opt.count, opt.seed, opt.min_joints)
    if not pictures:
        raise UserError(
            "no image shows both shoulders and both hips of a person, so that nobody's view is "
            "known; expected keypoints of whole people: check the table"
        )
    transfer = load(opt, choose_device(opt.device))
    run = describe(opt, transfer, table) | {"people_left_out": left_out}
    out = Path(opt.output)
    check_output(out, run)
    remove_leftovers(make_folder(out))

    def write_manifest(complete: bool) -> None:
        content = {"format": 1, **run, "complete": complete, "images": pictures}
        write_file(out / FILE, (json.dumps(content, indent=1) + "\n").encode())

    write_manifest(complete=False)
    waiting = {n: made for n, made in pictures.items() if not is_made(out / n, run["run"])}
    generate(waiting, transfer, folder, keypoints, run["run"], opt)
    write_manifest(complete=True)
    made = len(pictures) - len(waiting)
    kept = f", {made:,} of them from before" if made else ""
    people = len(pictures) // opt.count
    print(f"wrote {out}: {len(pictures):,} pictures of {people:,} people{kept}")
    if left_out:
        print(
            f"note: {len(left_out):,} people have no image whose view is known and shared, such as "
            f"{left_out[0]}: nothing was made of them"
        )


if __name__ == "__main__":
    run_main(main)
