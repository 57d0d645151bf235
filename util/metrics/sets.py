"""The contract between the pass over a set of images and the metrics of whole sets."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from util.metrics.protocols import FID, KID, Inception, InceptionScore, Protocol, kept
from util.metrics.registry import Column, MetricUnavailableError, register_metric

if TYPE_CHECKING:
    from util.metrics.inception import InceptionFeatures


class Collector(ABC):
    """Takes features in the order of the sorted images and keeps something of constant size.

    ``identity`` names what is kept (for the cache of real sets); ``count`` is the number of images
    that entered it.
    """

    identity: str
    count: int = 0

    @abstractmethod
    def add(self, features: torch.Tensor, network: InceptionFeatures) -> None:
        """Take the pool features (B, 2048) of the next images."""

    def state(self) -> dict[str, np.ndarray]:
        """Arrays from which :meth:`restore` continues; empty when this is not worth caching."""
        return {}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take over what :meth:`state` gave."""
        raise NotImplementedError


class SetMetric(ABC):
    """A metric of a set of images, perhaps against a real set, on features of one network."""

    network: Inception
    needs_real: ClassVar[bool] = True

    def problem(self, count: int) -> str | None:
        """Why ``count`` images cannot be measured, or None."""
        return None

    @abstractmethod
    def collector(self, count: int) -> Collector:
        """An empty collector for a set of ``count`` images."""

    @abstractmethod
    def result(
        self, fake: Collector, real: Collector | None
    ) -> tuple[float, float | None, dict[str, object]]:
        """Value, standard deviation (of splits or subsets; None without) and details."""


class SplitScores(Collector):
    """exp of the mean KL(p_i || p) of every split, from sums of p log p and of p (natural log).

    Image ``i`` of ``count`` belongs to one split only, which is known beforehand, so nothing of a
    single image has to be kept.
    """

    identity = "scores"

    def __init__(self, definition: InceptionScore, count: int):
        self.definition = definition
        self.split_of = split_assignment(count, definition)
        self.count = 0
        self.sizes = np.zeros(definition.splits)
        self.negative_entropy = np.zeros(definition.splits)
        self.probability: np.ndarray | None = None

    def add(self, features: torch.Tensor, network: InceptionFeatures) -> None:
        """Take the features of the next images."""
        self.add_logits(network.logits(features, self.definition.logits_bias))

    def add_logits(self, logits: torch.Tensor) -> None:
        """Take class logits (B, K) of the next images."""
        log_p = torch.log_softmax(logits.double(), dim=1).cpu().numpy()
        p = np.exp(log_p)
        if self.probability is None:
            self.probability = np.zeros((self.definition.splits, p.shape[1]))
        splits = self.split_of[self.count : self.count + len(p)]
        self.count += len(p)
        used = splits >= 0
        np.add.at(self.sizes, splits[used], 1)
        np.add.at(self.negative_entropy, splits[used], (p * log_p).sum(axis=1)[used])
        np.add.at(self.probability, splits[used], p[used])

    def scores(self) -> np.ndarray:
        """Inception score of every split."""
        mean = self.probability / self.sizes[:, None]
        entropy = -(mean * np.log(mean.clip(min=np.finfo(np.float64).tiny))).sum(axis=1)
        return np.exp(self.negative_entropy / self.sizes + entropy)


def split_assignment(count: int, definition: InceptionScore) -> np.ndarray:
    """Split number of every image in sorted order, -1 for the unused rest."""
    position = np.arange(count)
    if definition.shuffle_seed is not None:
        # torch-fidelity: place k of the shuffled list is taken by image permutation[k].
        permutation = np.random.RandomState(definition.shuffle_seed).permutation(count)
        position[permutation] = np.arange(count)
    splits = definition.splits
    if definition.drop_rest:
        number = position // max(1, count // splits)
        return np.where(number < splits, number, -1)
    ends = np.array([(i + 1) * count // splits for i in range(splits)])
    return np.searchsorted(ends, position, side="right")


@dataclass(frozen=True)
class InceptionScoreMetric(SetMetric):
    """Inception score of one row of the protocol table."""

    definition: InceptionScore
    needs_real: ClassVar[bool] = False

    @property
    def network(self) -> Inception:
        """The classifier."""
        return self.definition.network

    def problem(self, count: int) -> str | None:
        """Every split needs an image."""
        if count < self.definition.splits:
            return f"there are {count} images for {self.definition.splits} splits; generate more."
        return None

    def collector(self, count: int) -> SplitScores:
        """Running sums for ``count`` images."""
        return SplitScores(self.definition, count)

    def result(self, fake: SplitScores, real: None) -> tuple[float, float, dict]:
        """Mean and standard deviation over the splits."""
        scores = fake.scores()
        return float(scores.mean()), float(scores.std()), {"splits": self.definition.splits}


def _columns(protocol: Protocol, name: str, masked: bool) -> list[Column]:
    definition = protocol.inception_score
    words = (
        f"Inception score, {describe_network(definition.network)}, splits: {definition.splits}"
        f"{'' if definition.shuffle_seed is None else ', shuffled'}"
        f"{', background set to 0' if masked else ''}"
    )
    metric = InceptionScoreMetric(definition)
    return [Column(name, words, metric, True, scorer="inception", masked=masked)]


@register_metric("inception_score")
def _inception_score(protocol: Protocol) -> list[Column]:
    return _columns(protocol, "inception_score", masked=False)


@register_metric("mask_inception_score")
def _mask_inception_score(protocol: Protocol) -> list[Column]:
    return _columns(protocol, "mask_inception_score", masked=True)


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
