"""Metrics of whole sets: FID, KID and Inception score, from one pass over the images a network.

A collector takes features in the order of the sorted images and keeps what its metric needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from util.metrics import inception
from util.metrics.folder import ImagePair, list_images
from util.metrics.keypoints import apply_mask, target_mask
from util.metrics.measure import Score, Task, batches
from util.metrics.protocols import FID, KID, Inception, InceptionScore, Protocol, kept
from util.metrics.reconstruction import pad_to_square
from util.metrics.registry import Column, MetricUnavailableError, register_metric

Result = tuple[float, float | None, dict[str, object]]  # value, standard deviation, details


class Moments:
    """FID: mean and covariance of the features that the remainder rule keeps, in float64.

    Batches are merged by the update of Chan, Golub and LeVeque (1979), which loses no digits when
    the mean is large; memory is one (D, D) matrix whatever the number of images.
    """

    def __init__(self, definition: FID, count: int):
        self.limit = kept(count, definition)
        self.count = 0
        self.mean: np.ndarray | None = None
        self.scatter: np.ndarray | None = None  # sum of outer products of deviations

    @staticmethod
    def problem(definition: FID, count: int) -> str | None:
        """Why a set of ``count`` images has no moments, or None."""
        return f"a covariance needs at least two images, there is {count}." if count < 2 else None

    def add(self, features: torch.Tensor, network: torch.nn.Module | None = None) -> None:
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

    @property
    def kind(self) -> str:
        """Name of these statistics in the cache of real sets."""
        return f"moments{self.limit}"

    def state(self) -> dict[str, np.ndarray]:
        """Count, mean and scatter, for the cache."""
        return {"count": np.array(self.count), "mean": self.mean, "scatter": self.scatter}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take over a state."""
        self.count, self.mean = int(state["count"]), state["mean"]
        self.scatter = state["scatter"]

    def result(self, real: Moments) -> Result:
        """The distance to a real set, with the counts that entered it."""
        each = (real.mean, real.covariance(), self.mean, self.covariance())
        finite = all(np.isfinite(part).all() for part in each)
        value = frechet_distance(*each) if finite else float("nan")
        details: dict[str, object] = {"real_count": real.count}
        if min(self.count, real.count) <= len(self.mean):
            dimensions = len(self.mean)
            details["note"] = (
                f"fewer images than the {dimensions} feature dimensions: biased upwards"
            )
        return value, None, details


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


class Features:
    """KID: all features, as float32 (8 kB an image): the subsets need any of them again."""

    def __init__(self, definition: KID, count: int):
        self.definition = definition
        self.count = 0
        self.rows = np.empty((count, 0), np.float32)

    @staticmethod
    def problem(definition: KID, count: int) -> str | None:
        """Why subsets cannot be drawn from ``count`` images, or None."""
        wanted = definition.subset_size
        if count < wanted:
            return f"KID draws subsets of {wanted} images, there are {count}; generate more."
        return None

    def add(self, features: torch.Tensor, network: torch.nn.Module | None = None) -> None:
        """Take features (B, D)."""
        if self.count == 0:
            self.rows = np.empty((len(self.rows), features.shape[1]), np.float32)
        self.rows[self.count : self.count + len(features)] = features.float().cpu().numpy()
        self.count += len(features)

    def result(self, real: Features) -> Result:
        """Mean and standard deviation of the unbiased MMD^2 over pairs of random subsets."""
        random = np.random.RandomState(self.definition.seed)
        size = self.definition.subset_size
        values = np.empty(self.definition.subsets)
        for i in range(len(values)):
            chosen = [random.choice(each.count, size, replace=False) for each in (self, real)]
            values[i] = squared_mmd(self.rows[chosen[0]], real.rows[chosen[1]])
        return float(values.mean()), float(values.std()), {"real_count": real.count}


def squared_mmd(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased MMD^2 of two sets (N, D) under the kernel (x.y / D + 1)^3.

    Products are computed in the arrays' own precision; cubes and sums, where float32 would lose
    the digits, in float64.
    """
    count, dimensions = a.shape
    total = 0.0
    for rows in (a, b):
        kernel = _cubed(rows @ rows.T, dimensions)  # NumPy computes half of it
        total += (kernel.sum() - np.trace(kernel)) / (count * (count - 1))
    return float(total - 2 * _cubed(a @ b.T, dimensions).mean())


def _cubed(products: np.ndarray, dimensions: int) -> np.ndarray:
    kernel = products.astype(np.float64) / dimensions
    kernel += 1
    cubes = kernel * kernel
    cubes *= kernel
    return cubes


class SplitScores:
    """Inception score: exp of the mean KL(p_i || p) of every split (natural logarithm).

    Image ``i`` of ``count`` belongs to one split only, which is known beforehand, so nothing of a
    single image has to be kept: sums of p log p and of p are enough.
    """

    def __init__(self, definition: InceptionScore, count: int):
        self.definition = definition
        self.split_of = split_assignment(count, definition)
        self.count = 0
        self.sizes = np.zeros(definition.splits)
        self.negative_entropy = np.zeros(definition.splits)
        self.probability: np.ndarray | None = None

    @staticmethod
    def problem(definition: InceptionScore, count: int) -> str | None:
        """Why ``count`` images cannot be split, or None."""
        if count < definition.splits:
            return f"there are {count} images for {definition.splits} splits; generate more."
        return None

    def add(self, features: torch.Tensor, network: torch.nn.Module) -> None:
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

    def result(self, real: None) -> Result:
        """Mean and standard deviation over the splits."""
        scores = self.scores()
        return float(scores.mean()), float(scores.std()), {"splits": self.definition.splits}


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


# What computes a definition of the protocol table. A new metric of sets adds its own entry.
COLLECTORS: dict[type, type] = {FID: Moments, KID: Features, InceptionScore: SplitScores}


class _Pass(NamedTuple):
    """Columns that share one pass over the results: same network, masking and padding."""

    network: Inception
    masked: bool
    padded: bool


def score_sets(task: Task) -> list[Score]:
    """FID, KID and Inception score; images are read once for each network."""
    real = None if task.evaluation.real is None else list_images(task.evaluation.real)
    passes: dict[_Pass, list[Column]] = {}
    for column in task.columns:
        problem = _problem(column, len(task.evaluation.pairs), None if real is None else len(real))
        if problem:
            task.not_computed(column, problem)
        else:
            way = _Pass(column.settings.network, column.masked, column.padded)
            passes.setdefault(way, []).append(column)
    scores = []
    for way, columns in passes.items():
        try:
            scores += _score_pass(task, way, columns, real or [])
        except MetricUnavailableError as error:
            for column in columns:
                task.not_computed(column, error)
    return scores


def _problem(column: Column, count: int, real: int | None) -> str | None:
    """Why a column cannot be computed from so many results and real images, or None."""
    problem = COLLECTORS[type(column.settings)].problem
    if column.needs_real and real is None:
        return "it compares with a set of real images; give its folder with --fid_real_path."
    found = problem(column.settings, count)
    if found or not column.needs_real:
        return found
    found = problem(column.settings, real)
    return found and f"in the real set: {found}"


def _score_pass(
    task: Task, way: _Pass, columns: Sequence[Column], real_paths: Sequence[Path]
) -> list[Score]:
    store, device = task.evaluation.weights, task.settings.device
    network = inception.build_inception(way.network, store, device)
    real = _real_collectors(task, way, [c for c in columns if c.needs_real], network, real_paths)
    pairs = task.evaluation.pairs
    fake = {c.name: COLLECTORS[type(c.settings)](c.settings, len(pairs)) for c in columns}
    _feed(task, "results", pairs, _reader_of_results(task, way), network, list(fake.values()))
    scores = []
    for column in columns:
        value, std, details = fake[column.name].result(real.get(column.name))
        if np.isfinite(value):
            count = fake[column.name].count
            scores.append(task.score(column, value, count, std=std, details=details))
        else:
            task.not_computed(column, f"the features give {value}; check images and weights.")
    return scores


def _feed(
    task: Task, what: str, items: Sequence, read: Callable, network, collectors: Sequence
) -> None:
    """Read every item and hand the features of its image to the collectors."""
    settings, name = task.settings, f"{task.protocol.label}: Inception, {what}"
    stream: Iterator = batches(items, read, settings.batch_size, settings.workers, name)
    for (images,) in stream:
        features = network(images)
        for collector in collectors:
            collector.add(features, network)


def _reader_of_results(task: Task, way: _Pass) -> Callable[[ImagePair], tuple[np.ndarray]]:
    reader = task.network_reader

    def read(pair: ImagePair) -> tuple[np.ndarray]:
        image = reader.read_result(pair.result)
        if way.masked:
            mask = target_mask(task.settings.keypoints, pair.key, image.shape[:2])
            image = apply_mask(image, mask)
        return (pad_to_square(image) if way.padded else image,)

    return read


def _real_collectors(
    task: Task, way: _Pass, columns: Sequence[Column], network, paths: Sequence[Path]
) -> dict[str, object]:
    """Collectors of the real set for the columns that need one, from the cache where possible."""
    if not columns:
        return {}
    reader = task.network_reader
    definition = {
        "network": way.network,
        "weights": task.evaluation.weights.sha256(way.network.weights),
        "resize": reader.resize,
        "reference": task.settings.reference_name,
    }
    cache = inception.StatisticsCache(task.settings.cache_dir, paths, definition)
    collectors = {c.name: COLLECTORS[type(c.settings)](c.settings, len(paths)) for c in columns}
    moments = [c for c in collectors.values() if isinstance(c, Moments)]
    known = [c for c in moments if _restored(c, cache)]
    missing = [c for c in collectors.values() if c not in known]
    if missing:
        _feed(task, "real images", paths, lambda p: (reader.read_reference(p),), network, missing)
    notes = [cache.keep(c.kind, c.state()) for c in moments if c not in known]
    task.evaluation.notes += filter(None, notes)
    return collectors


def _restored(moments: Moments, cache: inception.StatisticsCache) -> bool:
    state = cache.restore(moments.kind)
    if state is not None:
        moments.restore(state)
    return state is not None


def describe_network(network: Inception) -> str:
    """One Inception definition in words."""
    if network.weights == "torchvision":
        return f"torchvision Inception v3, {network.scaling} input scaling"
    return "TensorFlow Inception (pytorch-fid weights)"


@register_metric("fid")
def _fid(protocol: Protocol) -> list[Column]:
    fid = protocol.fid
    rule = f"last partial batch of {fid.batch} dropped" if fid.remainder == "drop" else "all images"
    words = f"FID, {describe_network(fid.network)}, real set: {protocol.real_set}, {rule}"
    return [Column("fid", words, fid, False, scorer=score_sets, needs_real=True)]


@register_metric("kid")
def _kid(protocol: Protocol) -> list[Column]:
    kid = protocol.kid
    words = (
        f"KID, {describe_network(kid.network)}, cubic kernel, {kid.subsets} subsets of "
        f"{kid.subset_size}"
    )
    return [Column("kid", words, kid, False, scorer=score_sets, needs_real=True)]


@register_metric("inception_score")
def _inception_score(protocol: Protocol, masked: bool = False) -> list[Column]:
    definition = protocol.inception_score
    padded = definition.padded and protocol.padding == "white" and not masked
    words = (
        f"Inception score, {describe_network(definition.network)}, splits: {definition.splits}"
        f"{'' if definition.shuffle_seed is None else ', shuffled'}"
        f"{', white-padded to a square' if padded else ''}"
        f"{', background set to 0' if masked else ''}"
    )
    name = "mask_inception_score" if masked else "inception_score"
    return [Column(name, words, definition, True, scorer=score_sets, padded=padded, masked=masked)]


@register_metric("mask_inception_score")
def _mask_inception_score(protocol: Protocol) -> list[Column]:
    return _inception_score(protocol, masked=True)
