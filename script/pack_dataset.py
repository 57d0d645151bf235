"""Pack the images of a data set, decoded and resized, into one file, for slow disks or few cores.

    python -m script.pack_dataset --dataroot dataset/fashion --out fashion.pack
    python train.py ... --packed fashion.pack

The tensors are the same as without a pack; nothing is decoded while training. A pack holds 3 x
height x width bytes an image (256 x 256: 197 kB). A stopped run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from tqdm import tqdm
from util.run.main import run_main

import data
from data.pose_dataset import PoseDataset
from util.errors import UserError
from util.tables.lmdb import missing_images, pack_images


def build_parser() -> argparse.ArgumentParser:
    """The command line of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dataroot", type=Path, required=True, help="folder of the data set")
    add("--dataset_mode", default="fashion", help="layout of the data set")
    add("--phases", nargs="+", default=["train", "test"], help="lists whose images are packed")
    add("--load_size", type=int, nargs="+", metavar="N", help="side, or height width "
        "(default: set by --dataset_mode)")  # fmt: skip
    add("--out", type=Path, required=True, help="folder of the pack; made if it is missing")
    add("--workers", type=int, default=0, help="processes that decode")
    add("--debug", action="store_true", help="show the full traceback of an error")
    return parser


class _Images(torch.utils.data.Dataset):
    """Image by position in ``names``: (name, uint8 tensor)."""

    def __init__(self, names: list[str], owner: dict[str, PoseDataset]):
        self.names, self.owner = names, owner

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[str, torch.Tensor]:
        name = self.names[index]
        return name, self.owner[name].image(name)


def decoded(names: list[str], owner: dict[str, PoseDataset], workers: int) -> Iterator:
    """(name, image) of all ``names`` with a progress bar."""
    loader = torch.utils.data.DataLoader(
        _Images(names, owner), batch_size=None, num_workers=workers
    )
    yield from tqdm(loader, desc="pack", unit="image")


def main() -> None:
    """Open every phase, pack what is missing."""
    opt = build_parser().parse_args()
    kind = data.find_dataset(opt.dataset_mode)
    if not issubclass(kind, PoseDataset):
        raise UserError(f"--dataset_mode {opt.dataset_mode} keeps its images in a pack already")
    size = tuple(opt.load_size * 2 if len(opt.load_size or ()) == 1 else opt.load_size or ())
    size = size or kind.load_size
    if len(size) != 2 or min(size) < 1:
        raise UserError("--load_size: expected one number or height and width")
    owner: dict[str, PoseDataset] = {}
    for phase in opt.phases:
        dataset = kind(opt.dataroot, phase, size)
        for name in sorted(dataset.keypoints):
            if name in owner:
                raise UserError(
                    f"{name} is in two phases, possibly as two images; make a pack for each phase"
                )
            owner[name] = dataset
    missing = missing_images(opt.out, size, list(owner))
    count = pack_images(opt.out, size, decoded(missing, owner, opt.workers))
    print(f"{count} images of {size[0]} x {size[1]} pixels in {opt.out}")


if __name__ == "__main__":
    run_main(main)
