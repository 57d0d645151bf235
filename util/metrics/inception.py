"""Inception networks, and the statistics of real image sets that are kept between runs."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from util.files import replacing
from util.metrics.protocols import Inception
from util.metrics.weights import WEIGHTS, WeightStore, assign_state
from util.run.device import exact_arithmetic
from util.tensors import IMAGENET_MEAN, IMAGENET_STD

INPUT_SIZE = (299, 299)


def _network(tensorflow: bool) -> nn.Module:
    """Inception v3 without weights, of torchvision or as the original FID network has it."""
    from torchvision.models import inception_v3  # slow to import

    with torch.device("meta"):
        network = inception_v3(
            weights=None,
            init_weights=False,
            transform_input=False,
            aux_logits=not tensorflow,
            num_classes=1008 if tensorflow else 1000,
        )
        for name, block in _tensorflow_blocks().items() if tensorflow else ():
            setattr(network, name, block())
    return network


def _tensorflow_blocks() -> dict[str, partial]:
    """Where the TensorFlow network differs: its poolings do not count the padding."""
    from pytorch_fid import inception as blocks

    return {
        "Mixed_5b": partial(blocks.FIDInceptionA, 192, pool_features=32),
        "Mixed_5c": partial(blocks.FIDInceptionA, 256, pool_features=64),
        "Mixed_5d": partial(blocks.FIDInceptionA, 288, pool_features=64),
        "Mixed_6b": partial(blocks.FIDInceptionC, 768, channels_7x7=128),
        "Mixed_6c": partial(blocks.FIDInceptionC, 768, channels_7x7=160),
        "Mixed_6d": partial(blocks.FIDInceptionC, 768, channels_7x7=160),
        "Mixed_6e": partial(blocks.FIDInceptionC, 768, channels_7x7=192),
        "Mixed_7b": partial(blocks.FIDInceptionE_1, 1280),
        "Mixed_7c": partial(blocks.FIDInceptionE_2, 2048),
    }


class InceptionFeatures(nn.Module):
    """uint8 images (B, H, W, 3) -> pool features (B, 2048) float32 -> class logits."""

    def __init__(self, definition: Inception, state: dict[str, torch.Tensor]):
        super().__init__()
        network = _network(tensorflow=definition.weights == "pytorch-fid")
        self.network = assign_state(network, state, WEIGHTS[definition.weights].file.what)
        self.classifier, self.network.fc = self.network.fc, nn.Identity()
        scale, shift = (2.0, 2.0, 2.0), (-1.0, -1.0, -1.0)
        if definition.scaling == "historical":
            scale = tuple(std / 0.5 for std in IMAGENET_STD)
            shift = tuple((mean - 0.5) / 0.5 for mean in IMAGENET_MEAN)
        self.register_buffer("scale", torch.tensor(scale).view(1, 3, 1, 1))
        self.register_buffer("shift", torch.tensor(shift).view(1, 3, 1, 1))
        self.eval()

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Pool features (B, 2048) of uint8 images (B, H, W, 3)."""
        values = images.to(self.scale.device).permute(0, 3, 1, 2).float() / 255
        values = F.interpolate(values, INPUT_SIZE, mode="bilinear", align_corners=False)
        with exact_arithmetic(values.device):
            return self.network(values * self.scale + self.shift)

    @torch.no_grad()
    def logits(self, features: torch.Tensor, bias: bool = True) -> torch.Tensor:
        """Class logits (B, 1000 or 1008) of pool features (B, 2048)."""
        weights = self.classifier
        with exact_arithmetic(features.device):
            return F.linear(features, weights.weight, weights.bias if bias else None)


def build_inception(
    definition: Inception, store: WeightStore, device: str = "cpu"
) -> InceptionFeatures:
    """The network of a definition; MetricUnavailableError when its weights are missing."""
    return InceptionFeatures(definition, store.load(definition.weights)).to(device)


CACHE_FORMAT = 1  # raise it when the meaning of an entry changes


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME`` or ``~/.cache``, in a folder of this project."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(root) / "pose-guided-person-image-generation" / "statistics"


class StatisticsCache:
    """Statistics of one list of image files under one definition - never in their own folder.

    An entry is found by everything it depends on: names, sizes and times of the files, network, its
    weights' hash, resize and scaling. Change one image and it is not found any more.
    """

    def __init__(
        self, folder: Path | None, paths: Sequence[Path], definition: Mapping[str, object]
    ):
        self.folder = None if folder is None else Path(folder)
        digest = hashlib.sha256()
        description = {key: repr(value) for key, value in sorted(definition.items())}
        digest.update(json.dumps([CACHE_FORMAT, description]).encode())
        for path in paths:
            status = path.stat()
            digest.update(
                f"{path.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(
                    "utf-8", "surrogateescape"
                )
            )
        self.key = digest.hexdigest()

    def _path(self, kind: str) -> Path:
        return self.folder / f"{self.key[:32]}_{kind}.npz"

    def restore(self, kind: str) -> dict[str, np.ndarray] | None:
        """The arrays of an entry; None when there is none, or it is damaged or unreadable."""
        if self.folder is None:
            return None
        try:
            with np.load(self._path(kind), allow_pickle=False) as arrays:
                state = dict(arrays)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None
        return state if str(state.pop("key", "")) == self.key else None

    def keep(self, kind: str, state: Mapping[str, np.ndarray]) -> str | None:
        """Write an entry, complete or not at all; returns why it could not be, or None."""
        if self.folder is None:
            return None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self._path(kind)) as temporary, open(temporary, "wb") as stream:
                np.savez(stream, key=np.array(self.key), **state)
        except OSError as error:
            return (
                f"the statistics of the real set could not be kept in {self.folder} "
                f"({error.strerror or error}) and will be computed again next time; choose another "
                "folder with --cache_dir, or --no_cache."
            )
        return None
