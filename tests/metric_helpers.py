"""Small image folders and made network weights for the tests of the metrics."""

import json
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import models

from script.metrics import main

SIZE = (64, 44)
QUICK = ("--metrics", "psnr", "l1")


def picture(seed: int, size=SIZE) -> np.ndarray:
    """A smooth random picture, uint8 (H, W, 3)."""
    random = np.random.RandomState(seed)
    coarse = Image.fromarray(random.randint(0, 256, (6, 4, 3), dtype=np.uint8))
    return np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC))


def noisy(image: np.ndarray, seed: int, amount: int = 20) -> np.ndarray:
    """The picture with uniform noise."""
    noise = np.random.RandomState(seed).randint(-amount, amount + 1, image.shape)
    return (image.astype(int) + noise).clip(0, 255).astype(np.uint8)


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def make_folders(root: Path, count: int = 6, real: int = 7, size=SIZE) -> dict[str, str]:
    """gt/, results/ and real/ with ``count`` pairs and ``real`` real images; paths as options."""
    for i in range(count):
        save(root / "gt" / f"t{i:02d}.png", picture(i, size))
        save(root / "results" / f"s_2_t{i:02d}_vis.png", noisy(picture(i, size), i))
    for i in range(real):
        save(root / "real" / f"r{i:02d}.png", picture(100 + i, size))
    return {
        "--gt_path": str(root / "gt"),
        "--distorated_path": str(root / "results"),
        "--fid_real_path": str(root / "real"),
        "--output_dir": str(root / "out"),
    }


def arguments(options: dict[str, str], *more: str) -> list[str]:
    """A command line that neither downloads nor leaves anything outside the test's folder."""
    cache = Path(options["--output_dir"]) / "cache"
    flat = [word for pair in options.items() for word in pair]
    return [
        *flat,
        "--offline",
        "--device",
        "cpu",
        "--workers",
        "1",
        "--cache_dir",
        str(cache),
        *more,
    ]


def listing(folder: str | Path) -> dict[str, tuple[int, int]]:
    """Names, sizes and times below a folder: what a measurement must not change."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(Path(folder).rglob("*"))
    }


def later(path: Path) -> None:
    """Move the time of a file by a nanosecond-exact second."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))


def _he(shapes: dict[str, torch.Size], seed: int) -> dict[str, torch.Tensor]:
    """He-scaled weights, unit variances, zero means and biases: features of a lively size."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        if len(shape) > 1:
            scale = (2 / np.prod(shape[1:])) ** 0.5
            state[name] = torch.randn(shape, generator=generator) * scale
        elif name.endswith("num_batches_tracked"):
            state[name] = torch.zeros(shape, dtype=torch.long)
        elif name.endswith(("running_var", "bn.weight")):
            state[name] = torch.ones(shape)
        else:
            state[name] = torch.randn(shape, generator=generator) * 0.1
    return state


def made_inception(path: Path, tensorflow: bool = False, seed: int = 0) -> Path:
    """A weight file in torchvision's (or pytorch-fid's) Inception format with made weights."""
    with torch.device("meta"):
        network = models.inception_v3(
            weights=None,
            init_weights=False,
            aux_logits=not tensorflow,
            num_classes=1008 if tensorflow else 1000,
        )
    torch.save(_he({k: v.shape for k, v in network.state_dict().items()}, seed), path)
    return path


BACKBONES = {"alex": models.alexnet, "vgg": models.vgg16, "squeeze": models.squeezenet1_1}


def made_backbone(path: Path, net: str, seed: int = 0) -> Path:
    """A weight file with the convolutions of a torchvision backbone, made weights."""
    with torch.device("meta"):
        network = BACKBONES[net](weights=None)
    shapes = {k: v.shape for k, v in network.state_dict().items() if k.startswith("features.")}
    torch.save(_he(shapes, seed), path)
    return path


def report(folders, *more) -> dict:
    """The content of metrics.json after a successful run."""
    assert main(arguments(folders, "--name", "run", *more)) == 0
    return json.loads((Path(folders["--output_dir"]) / "run" / "metrics.json").read_text())


def values(folders, *more) -> dict[str, float]:
    return {name: m["value"] for name, m in report(folders, *more)["metrics"].items()}


def results(folders) -> Path:
    return Path(folders["--distorated_path"])
