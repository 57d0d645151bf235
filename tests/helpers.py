"""Shared by the tests: options from a command line, and weights by the published rule."""

import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from models.presentation import create_visualizer
from options.train_options import TrainOptions

GOLDEN = Path(__file__).parent / "golden"


def train_options(*argv: str, **values):
    """Options of train.py for ``--key value`` pairs given as keywords; nothing is printed or
    saved."""
    words = list(argv)
    for key, value in values.items():
        words += [
            f"--{key}",
            *([str(v) for v in value] if isinstance(value, tuple) else [str(value)]),
        ]
    if "--vgg_weights" not in words:
        words += ["--vgg_weights", "random"]
    return TrainOptions().parse(words)


def draw(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Standard normal numbers that depend on ``name`` and ``seed`` alone."""
    return np.random.RandomState(zlib.crc32(name.encode()) ^ seed).standard_normal(tuple(shape))


def fill_by_rule(network: nn.Module, seed: int) -> None:
    """Weights of the DPTN golden files: see specification of the arrays in
    tests/golden/README.md."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            z = draw(name, parameter.shape, seed).astype(np.float32)
            if z.ndim >= 2:
                z = (z.astype(np.float64) / np.sqrt(np.prod(z.shape[1:]))).astype(np.float32)
            elif name.endswith("weight"):
                z = (1 + 0.1 * z).astype(np.float32)
            else:
                z = (0.1 * z).astype(np.float32)
            parameter.copy_(torch.from_numpy(z))
        for name, buffer in network.named_buffers():
            if name.endswith(("weight_u", "weight_v")):
                z = draw(name, buffer.shape, seed).astype(np.float32)
                buffer.copy_(torch.from_numpy(z / np.linalg.norm(z)))


def random_batch(count: int, size: tuple[int, int], seed: int = 0) -> dict:
    """A batch as the loader gives it: random pictures, random joints in a 256 x 176 frame,
    names."""
    rng = np.random.RandomState(seed)
    batch: dict = {}
    for role in ("source", "target"):
        pixels = rng.randint(0, 256, (count, 3, *size))
        keypoints = rng.uniform((0, 0), (256, 176), (count, 18, 2)).round()
        keypoints[:, 7] = -1
        batch[f"{role}_image"] = torch.from_numpy(pixels.astype(np.uint8))
        batch[f"{role}_keypoints"] = torch.from_numpy(keypoints)
        batch[f"{role}_name"] = [f"person{seed}_{i}_{role}.jpg" for i in range(count)]
    return batch


def make_visualizer(folder: Path, epochs: int = 10, samples_per_epoch: int = 100, **options):
    """The visualizer of a run in ``folder``; ``options`` are those of train.py."""
    opt = SimpleNamespace(**{
        "name": "run", "no_html": False, "no_tensorboard": True, "display_id": 0,
        "display_server": "http://127.0.0.1", "display_port": 8096, "display_env": None,
        "display_seconds": 0.0, **options,
    })  # fmt: skip
    model = SimpleNamespace(opt=opt, loss_meanings={})
    return create_visualizer(model, Path(folder), (epochs, samples_per_epoch), {})
