"""Peak memory of one measurement: ``/usr/bin/time -v python -m tests.metric_memory FOLDER COUNT``.

Measures COUNT results against COUNT real images with every pair metric that fits small images, with
LPIPS and with FID. LPIPS has its real network with made weights; a thin network with Inception's
2,048 features stands in for Inception, whose speed is not what is asked here; files, threads,
worker processes, running sums and report are the real ones.
Prints the peak resident size of this process and of its largest worker in MiB.
"""

import resource
import sys
from pathlib import Path

import torch

from script.metrics import main
from tests.metric_helpers import arguments, made_backbone, make_folders
from util.metrics import networks

SIZE = (32, 32)


class ThinNetwork(torch.nn.Module):
    """2,048 fixed random projections of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.projection = torch.randn(SIZE[0] * SIZE[1] * 3, 2048, generator=generator)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Features (B, 2048) of uint8 images (B, H, W, 3)."""
        return (images.flatten(1).float() / 255) @ self.projection


def build(definition, store, device) -> ThinNetwork:
    """Stands in for Inception."""
    store.used[definition.weights] = {"file": "thin", "sha256": "0", "published": True}
    return ThinNetwork()


def measure(folder: Path, count: int) -> None:
    """Make the folders once, measure, print the peaks."""
    options = {
        "--gt_path": str(folder / "gt"),
        "--distorated_path": str(folder / "results"),
        "--fid_real_path": str(folder / "real"),
        "--output_dir": str(folder / "out"),
    }
    if not (folder / "done").exists():
        make_folders(folder, count, count, SIZE)
        made_backbone(folder / "alex.pth", "alex")
        (folder / "done").touch()
        print(f"made {count} images in each folder")
        return
    networks.InceptionFeatures = build
    metrics = ("psnr", "ssim", "l1", "mae", "lpips_alex_v0.1", "fid")
    words = arguments(options, "--metrics", *metrics, "--no_cache")
    words[words.index("--workers") + 1] = "2"
    words += ["--alexnet_weights", str(folder / "alex.pth")]
    main([*words, "--protocol", "magpt", "standard"])
    for who, name in ((resource.RUSAGE_SELF, "process"), (resource.RUSAGE_CHILDREN, "worker")):
        print(f"{name}: {resource.getrusage(who).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    measure(Path(sys.argv[1]), int(sys.argv[2]))
