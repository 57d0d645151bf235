"""Fréchet Inception distance (Heusel et al., NeurIPS 2017) from running moments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from util.metrics.protocols import FID, Inception, Protocol, kept
from util.metrics.registry import Column, register_metric
from util.metrics.set_metrics import Collector, SetMetric


class RunningMoments(Collector):
    """Mean and covariance of the first ``limit`` features, in float64, one batch at a time.

    Batches are merged by the update of Chan, Golub and LeVeque (1979), which loses no digits when
    the mean is large; memory is one (D, D) matrix whatever the number of images.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.count = 0
        self.mean: np.ndarray | None = None
        self.scatter: np.ndarray | None = None  # sum of outer products of deviations
        self.identity = f"moments{limit}"

    def add(self, features: torch.Tensor, network=None) -> None:
        """Take features (B, D); rows beyond the limit are the dropped remainder."""
        rows = features[: self.limit - self.count].double().cpu().numpy()
        if len(rows) == 0:
            return
        mean = rows.mean(axis=0)
        deviations = rows - mean  # a copy: other collectors get the same features
        scatter = deviations.T @ deviations
        if self.mean is None:
            self.count, self.mean, self.scatter = len(rows), mean, scatter
            return
        total = self.count + len(rows)
        difference = mean - self.mean
        scatter += np.outer(difference, difference) * (self.count * len(rows) / total)
        self.scatter += scatter
        self.mean = self.mean + difference * (len(rows) / total)
        self.count = total

    def covariance(self) -> np.ndarray:
        """Sample covariance (N - 1), (D, D)."""
        return self.scatter / (self.count - 1)

    def state(self) -> dict[str, np.ndarray]:
        """Count, mean and scatter."""
        return {"count": np.array(self.count), "mean": self.mean, "scatter": self.scatter}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take over a state."""
        self.count, self.mean = int(state["count"]), state["mean"]
        self.scatter = state["scatter"]


def frechet_distance(
    mean1: np.ndarray, covariance1: np.ndarray, mean2: np.ndarray, covariance2: np.ndarray
) -> float:
    """Squared Fréchet distance of two Gaussians: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

    The trace of the root is taken from the eigenvalues of the symmetric C1^(1/2) C2 C1^(1/2), which
    are those of C1 C2: real and non-negative even for the singular covariances of small sets, where
    a general matrix root needs its diagonals disturbed.
    """
    values, vectors = np.linalg.eigh(covariance1)
    large = values > values.max(initial=0.0) * 1e-14  # the rest is rounding error of zero
    root = vectors[:, large] * np.sqrt(values[large])
    eigenvalues = np.linalg.eigvalsh(root.T @ covariance2 @ root)
    trace_of_root = np.sqrt(eigenvalues.clip(min=0)).sum()
    difference = mean1 - mean2
    traces = np.trace(covariance1) + np.trace(covariance2)
    return float(difference @ difference + traces - 2 * trace_of_root)


@dataclass(frozen=True)
class FIDMetric(SetMetric):
    """FID of one row of the protocol table."""

    definition: FID

    @property
    def network(self) -> Inception:
        """The network whose features are compared."""
        return self.definition.network

    def problem(self, count: int) -> str | None:
        """A covariance needs two images."""
        return "a covariance needs at least two images." if count < 2 else None

    def collector(self, count: int) -> RunningMoments:
        """Moments of the images that the remainder rule keeps."""
        return RunningMoments(kept(count, self.definition))

    def result(self, fake: RunningMoments, real: RunningMoments) -> tuple[float, None, dict]:
        """The distance, with the counts that entered it."""
        value = frechet_distance(real.mean, real.covariance(), fake.mean, fake.covariance())
        details: dict[str, object] = {"real_count": real.count}
        if min(fake.count, real.count) <= len(fake.mean):
            details["note"] = (
                f"fewer images than the {len(fake.mean)} feature dimensions: biased upwards"
            )
        return value, None, details


def describe_network(network: Inception) -> str:
    """One Inception definition in words."""
    if network.weights == "torchvision":
        return f"torchvision Inception v3, {network.scaling} input scaling"
    return "TensorFlow Inception (pytorch-fid weights)"


@register_metric("fid")
def _fid(protocol: Protocol) -> list[Column]:
    definition = protocol.fid
    rule = f"last partial batch of {definition.batch} dropped"
    if definition.remainder == "keep":
        rule = "all images"
    words = f"FID, {describe_network(definition.network)}, real set: {protocol.real_set}, {rule}"
    metric = FIDMetric(definition)
    return [
        Column("fid", words, metric, higher_is_better=False, scorer="inception", needs_real=True)
    ]
