"""A random VGG-19 centred on a data set, for training without torchvision's ImageNet file.

    python -m script.calibrate_vgg --dataroot dataset/synthetic_400 --load_size 64 --out vgg.pth
    python train.py ... --vgg_weights vgg.pth

Features of a random VGG-19 share a large mean: nearly all have the same direction, and a loss on
cosines, such as GFLA's sampling correctness, can hardly tell one place of an image from another.
Here every convolution's channels get mean 0 and deviation 1 over some training images before
their ReLU.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import nn
from util.run.main import run_main

import data
from data.pose_dataset import PoseDataset
from models.losses.perceptual import VGG19Features
from util.errors import UserError
from util.run.checkpoint import save_state

MOST_IMAGES = 64  # beyond this many the means hardly change


def build_parser() -> argparse.ArgumentParser:
    """The command line of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dataroot", type=Path, required=True, help="folder of the data set")
    add("--dataset_mode", default="fashion", help="layout of the data set")
    add("--load_size", type=int, nargs="+", metavar="N", help="side, or height width "
        "(default: set by --dataset_mode)")  # fmt: skip
    add("--out", type=Path, required=True, help="the file for --vgg_weights")
    add("--debug", action="store_true", help="show the full traceback of an error")
    return parser


def some_images(dataset: PoseDataset) -> torch.Tensor:
    """Up to MOST_IMAGES training images, spread evenly over the sorted names, in [-1, 1]."""
    names = sorted(dataset.keypoints)
    step = max(1, len(names) // MOST_IMAGES)
    pixels = [dataset.image(name) for name in names[::step][:MOST_IMAGES]]
    return torch.stack(pixels).float() / 127.5 - 1


@torch.no_grad()
def centre(features: nn.Sequential, images: torch.Tensor) -> None:
    """Scale and shift every convolution so that its channels have mean 0 and deviation 1."""
    x = images
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            layer.bias.zero_()
            response = layer(x)
            deviation = response.std((0, 2, 3)).clamp(min=1e-6)
            layer.weight /= deviation[:, None, None, None]
            layer.bias.copy_(-response.mean((0, 2, 3)) / deviation)
        x = layer(x)


def main() -> None:
    """Start from ``--vgg_weights random``, centre it, write it."""
    opt = build_parser().parse_args()
    kind = data.find_dataset(opt.dataset_mode)
    if not issubclass(kind, PoseDataset):
        raise UserError(f"--dataset_mode {opt.dataset_mode}: expected a data set of image files")
    size = tuple(opt.load_size * 2 if len(opt.load_size or ()) == 1 else opt.load_size or ())
    images = some_images(kind(opt.dataroot, load_size=size or None))
    features = VGG19Features("random").features
    centre(features, images)
    save_state({f"features.{k}": v for k, v in features.state_dict().items()}, opt.out)
    print(f"{opt.out}: VGG-19 centred on {len(images)} images of {opt.dataroot}")


if __name__ == "__main__":
    run_main(main)
