"""Inception networks and the one pass over the images that FID, KID and Inception score share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_fid import inception as fid_blocks
from torch import nn
from torchvision.models import inception_v3

from util.metrics.loading import batches
from util.metrics.masks import apply_mask
from util.metrics.measurement import Score, Task, register_scorer
from util.metrics.pairing import ImagePair, list_images
from util.metrics.precision import exact_arithmetic
from util.metrics.protocols import Inception
from util.metrics.registry import Column, MetricUnavailableError
from util.metrics.set_metrics import Collector, SetMetric
from util.metrics.statistics_cache import StatisticsCache
from util.metrics.weights import WEIGHTS, WeightStore, assign_state

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INPUT_SIZE = (299, 299)

# Where the TensorFlow network differs from torchvision's: its poolings do not count the padding.
_TF_BLOCKS = {
    "Mixed_5b": partial(fid_blocks.FIDInceptionA, 192, pool_features=32),
    "Mixed_5c": partial(fid_blocks.FIDInceptionA, 256, pool_features=64),
    "Mixed_5d": partial(fid_blocks.FIDInceptionA, 288, pool_features=64),
    "Mixed_6b": partial(fid_blocks.FIDInceptionC, 768, channels_7x7=128),
    "Mixed_6c": partial(fid_blocks.FIDInceptionC, 768, channels_7x7=160),
    "Mixed_6d": partial(fid_blocks.FIDInceptionC, 768, channels_7x7=160),
    "Mixed_6e": partial(fid_blocks.FIDInceptionC, 768, channels_7x7=192),
    "Mixed_7b": partial(fid_blocks.FIDInceptionE_1, 1280),
    "Mixed_7c": partial(fid_blocks.FIDInceptionE_2, 2048),
}


class InceptionFeatures(nn.Module):
    """uint8 images (B, H, W, 3) -> pool features (B, 2048) float32 -> class logits."""

    def __init__(self, definition: Inception, state: dict[str, torch.Tensor]):
        super().__init__()
        tensorflow = definition.weights == "pytorch-fid"
        with torch.device("meta"):
            network = inception_v3(
                weights=None,
                init_weights=False,
                transform_input=False,
                aux_logits=not tensorflow,
                num_classes=1008 if tensorflow else 1000,
            )
            for name, block in _TF_BLOCKS.items() if tensorflow else ():
                setattr(network, name, block())
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


class _Group(NamedTuple):
    """Columns that share one pass over the results: same network, same masking."""

    network: Inception
    masked: bool


@register_scorer("inception")
def score_sets(task: Task) -> list[Score]:
    """FID, KID and Inception score; images are read once for each network."""
    groups: dict[_Group, list[Column]] = {}
    for column in task.columns:
        metric: SetMetric = column.settings
        problem = metric.problem(len(task.evaluation.pairs))
        if column.needs_real and task.evaluation.real is None:
            problem = "it compares with a set of real images; give its folder with --fid_real_path."
        if problem:
            task.refuse(column, MetricUnavailableError(problem))
        else:
            groups.setdefault(_Group(metric.network, column.masked), []).append(column)
    scores = []
    for group, columns in groups.items():
        try:
            scores += _score_group(task, group, columns)
        except MetricUnavailableError as error:
            for column in columns:
                task.refuse(column, error)
    return scores


def _score_group(task: Task, group: _Group, columns: Sequence[Column]) -> list[Score]:
    network = build_inception(group.network, task.evaluation.weights, task.settings.device)
    real = _real_collectors(task, group, columns, network)
    pairs = task.evaluation.pairs
    fake = {column.name: column.settings.collector(len(pairs)) for column in columns}
    _collect(task, network, _results(task, group.masked), list(fake.values()))
    scores = []
    for column in columns:
        try:
            value, std, details = column.settings.result(fake[column.name], real.get(column.name))
        except MetricUnavailableError as error:
            task.refuse(column, error)
            continue
        scores.append(task.score(column, value, fake[column.name].count, std=std, details=details))
    return scores


def _collect(
    task: Task,
    network: InceptionFeatures,
    stream: Iterator[tuple[torch.Tensor, ...]],
    collectors: Sequence[Collector],
) -> None:
    for (images,) in stream:
        features = network(images)
        for collector in collectors:
            collector.add(features, network)


def _results(task: Task, masked: bool) -> Iterator[tuple[torch.Tensor, ...]]:
    reader, settings = task.reader, task.settings

    def read(pair: ImagePair) -> tuple[np.ndarray]:
        image = reader.read_result(pair.result)
        if masked:
            mask = reader.mask(settings.keypoints[pair.key], image.shape[:2])
            image = apply_mask(image, mask)
        return (image,)

    what = f"{task.protocol.label}: Inception, results"
    return batches(task.evaluation.pairs, read, settings.batch_size, settings.workers, what)


def _real_collectors(
    task: Task, group: _Group, columns: Sequence[Column], network: InceptionFeatures
) -> dict[str, Collector]:
    """Collectors of the real set for the columns that need one, from the cache where possible."""
    wanted = [column for column in columns if column.needs_real]
    if not wanted:
        return {}
    paths = list_images(task.evaluation.real)
    cache = StatisticsCache(
        task.settings.cache_dir,
        paths,
        {
            "network": group.network,
            "weights": task.evaluation.weights.sha256(group.network.weights),
            "resize": task.protocol.resize,
            "reference": task.settings.reference_name,
        },
    )
    collectors = {column.name: column.settings.collector(len(paths)) for column in wanted}
    missing = [c for c in collectors.values() if not cache.restore(c)]
    if missing:

        def read(path: Path) -> tuple[np.ndarray]:
            return (task.reader.read_reference(path),)

        what = f"{task.protocol.label}: Inception, real images"
        settings = task.settings
        stream = batches(paths, read, settings.batch_size, settings.workers, what)
        _collect(task, network, stream, missing)
        for collector in missing:
            cache.keep(collector)
    return collectors
