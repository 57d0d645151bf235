"""Kernel Inception distance (Bińkowski et al., ICLR 2018), with torch-fidelity's subsets."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass

import numpy as np
import torch

from util.metrics.fid import describe_network
from util.metrics.protocols import KID, Inception, Protocol
from util.metrics.registry import Column, MetricUnavailableError, register_metric
from util.metrics.set_metrics import Collector, SetMetric


class FeatureFile(Collector):
    """Features on disk, in a nameless temporary file: the subsets need any of them again."""

    identity = "features"

    def __init__(self) -> None:
        self.count = 0
        self.width = 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as this object

    def add(self, features: torch.Tensor, network=None) -> None:
        """Append features (B, D)."""
        rows = features.float().cpu().numpy()
        self.width = rows.shape[1]
        self._file.seek(0, 2)
        self._file.write(rows.tobytes())
        self.count += len(rows)

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Features (K, D) float32 of these images."""
        rows = np.empty((len(indices), self.width), np.float32)
        size = rows.itemsize * self.width
        for row, index in zip(rows, indices, strict=True):
            self._file.seek(int(index) * size)
            row[:] = np.frombuffer(self._file.read(size), np.float32)
        return rows


@dataclass(frozen=True)
class KIDMetric(SetMetric):
    """KID of one row of the protocol table."""

    definition: KID

    @property
    def network(self) -> Inception:
        """The network whose features are compared."""
        return self.definition.network

    def problem(self, count: int) -> str | None:
        """The subsets must fit into the set."""
        wanted = self.definition.subset_size
        if count < wanted:
            return f"KID draws subsets of {wanted} images, there are {count}; generate more."
        return None

    def collector(self, count: int) -> FeatureFile:
        """All features."""
        return FeatureFile()

    def result(self, fake: FeatureFile, real: FeatureFile) -> tuple[float, float, dict]:
        """Mean and standard deviation over the subsets."""
        problem = self.problem(real.count)
        if problem:
            raise MetricUnavailableError(f"in the real set: {problem}")
        values = subset_distances(fake, real, self.definition)
        return float(values.mean()), float(values.std()), {"real_count": real.count}


def subset_distances(fake: FeatureFile, real: FeatureFile, definition: KID) -> np.ndarray:
    """Unbiased MMD^2 with kernel (x.y / D + 1)^3 of each random subset pair."""
    from torchmetrics.image.kid import poly_mmd  # slow to import, seldom needed

    random = np.random.RandomState(definition.seed)
    size = definition.subset_size
    values = []
    for _ in range(definition.subsets):
        subsets = [
            torch.from_numpy(features.rows(random.choice(features.count, size, replace=False)))
            for features in (fake, real)
        ]
        values.append(float(poly_mmd(*(subset.double() for subset in subsets))))
    return np.array(values)


@register_metric("kid")
def _kid(protocol: Protocol) -> list[Column]:
    definition = protocol.kid
    words = (
        f"KID, {describe_network(definition.network)}, cubic kernel, {definition.subsets} subsets "
        f"of {definition.subset_size}"
    )
    metric = KIDMetric(definition)
    return [
        Column("kid", words, metric, higher_is_better=False, scorer="inception", needs_real=True)
    ]
