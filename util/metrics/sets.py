"""Metrics of whole sets: FID, KID and Inception score, from one pass over the images a network.

A collector takes features in the order of the sorted images and keeps what its metric needs. It is
made for a definition and a number of images; MetricUnavailableError when those are too few.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from util.files import replacing
from util.metrics import networks
from util.metrics.folder import ImagePair, batches
from util.metrics.keypoints import apply_mask, target_mask
from util.metrics.protocols import FID, KID, InceptionScore, Protocol, kept
from util.metrics.reconstruction import pad_to_square
from util.metrics.registry import Column, MetricUnavailableError, Score, Task, register_metric

Result = tuple[float, float | None, dict[str, object]]  # value, standard deviation, details


class Moments:
    """FID: mean and covariance of the features that the remainder rule keeps, in float64.

    Batches are merged by the update of Chan, Golub and LeVeque (1979), which loses no digits when
    the mean is large; memory is one (D, D) matrix whatever the number of images.
    """

    def __init__(self, definition: FID, count: int):
        if count < 2:
            raise MetricUnavailableError(
                f"a covariance needs at least two images, there is {count}."
            )
        self.limit = kept(count, definition)
        self.count = 0
        self.mean: np.ndarray | float = 0.0
        self.scatter: np.ndarray | float = 0.0  # sum of outer products of deviations

    def add(self, features: torch.Tensor, network: torch.nn.Module | None = None) -> None:
        """Take features (B, D); rows beyond the limit are the dropped remainder."""
        rows = features[: self.limit - self.count].double().cpu().numpy()
        if len(rows) == 0:
            return
        mean, total = rows.mean(axis=0), self.count + len(rows)
        deviations = rows - mean  # a copy: other collectors get the same features
        scatter = deviations.T @ deviations
        difference = mean - self.mean
        scatter += np.outer(difference, difference) * (self.count * len(rows) / total)
        self.scatter += scatter
        self.mean = self.mean + difference * (len(rows) / total)
        self.count = total

    def covariance(self) -> np.ndarray:
        """Sample covariance (N - 1), (D, D)."""
        return self.scatter / (self.count - 1)

    def result(self, real: Moments) -> Result:
        """The distance to a real set, with the counts that entered it."""
        each = (real.mean, real.covariance(), self.mean, self.covariance())
        finite = all(np.isfinite(part).all() for part in each)
        details: dict[str, object] = {"real_count": real.count}
        if min(self.count, real.count) <= (size := len(self.mean)):
            details["note"] = f"fewer images than the {size} feature dimensions: biased upwards"
        return frechet_distance(*each) if finite else float("nan"), None, details

    def keep(self, path: Path) -> None:
        """Write the statistics to a file, complete or not at all. Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, count=self.count, mean=self.mean, scatter=self.scatter)

    def restore(self, path: Path) -> bool:
        """Take over what :meth:`keep` wrote; False when there is none, or it is damaged."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                count, mean, scatter = (arrays[name] for name in ("count", "mean", "scatter"))
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
            return False
        self.count, self.mean, self.scatter = int(count), mean, scatter
        return True


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
        if count < definition.subset_size:
            raise MetricUnavailableError(
                f"KID draws subsets of {definition.subset_size} images, there are {count}; "
                "generate more."
            )
        self.definition = definition
        self.count = 0
        self.rows = np.empty((count, 0), np.float32)

    def add(self, features: torch.Tensor, network: torch.nn.Module | None = None) -> None:
        if self.count == 0:
            self.rows = np.empty((len(self.rows), features.shape[1]), np.float32)
        self.rows[self.count : self.count + len(features)] = features.float().cpu().numpy()
        self.count += len(features)

    def result(self, real: Features) -> Result:
        """Mean and standard deviation of the unbiased MMD^2 over pairs of random subsets."""
        random, size = np.random.RandomState(self.definition.seed), self.definition.subset_size
        values = np.empty(self.definition.subsets)
        for i in range(len(values)):
            chosen = [each.rows[random.choice(each.count, size, False)] for each in (self, real)]
            values[i] = squared_mmd(*chosen)
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
        if count < definition.splits:
            raise MetricUnavailableError(
                f"there are {count} images for {definition.splits} splits; generate more."
            )
        self.definition = definition
        self.split_of = split_assignment(count, definition)
        self.count = 0
        self.negative_entropy = np.zeros(definition.splits)
        self.probability: np.ndarray | None = None

    def add(self, features: torch.Tensor, network: torch.nn.Module) -> None:
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
        np.add.at(self.negative_entropy, splits[used], (p * log_p).sum(axis=1)[used])
        np.add.at(self.probability, splits[used], p[used])

    def scores(self) -> np.ndarray:
        sizes = np.bincount(self.split_of[self.split_of >= 0], minlength=self.definition.splits)
        mean = self.probability / sizes[:, None]
        entropy = -(mean * np.log(mean.clip(min=np.finfo(np.float64).tiny))).sum(axis=1)
        return np.exp(self.negative_entropy / sizes + entropy)

    def result(self, real: None) -> Result:
        """Mean and standard deviation over the splits."""
        scores = self.scores()
        return float(scores.mean()), float(scores.std()), {"splits": self.definition.splits}


def split_assignment(count: int, definition: InceptionScore) -> np.ndarray:
    """Split number of every image in sorted order, -1 for the unused rest."""
    position, seed = np.arange(count), definition.shuffle_seed
    if seed is not None:
        # torch-fidelity: place k of the shuffled list is taken by image permutation[k].
        position = np.argsort(np.random.RandomState(seed).permutation(count))
    splits = definition.splits
    if definition.drop_rest:
        number = position // max(1, count // splits)
        return np.where(number < splits, number, -1)
    ends = np.array([(i + 1) * count // splits for i in range(splits)])
    return np.searchsorted(ends, position, side="right")


# What computes a definition of the protocol table. A new metric of sets adds its own entry.
COLLECTORS: dict[type, type] = {FID: Moments, KID: Features, InceptionScore: SplitScores}


def score_sets(task: Task) -> list[Score]:
    """Columns that share network, masking and padding: every image is read once."""
    pairs, images, made = task.evaluation.pairs, task.evaluation.images, {}
    paths = list(images["real"].size_of) if "real" in images else None
    for column in task.columns:
        try:
            made[column] = _collectors(column, len(pairs), paths)
        except MetricUnavailableError as error:
            task.not_computed(column, error)
    if not made:
        return []
    way, reader, table = next(iter(made)), task.reader(network=True), task.settings.keypoints
    store, device = task.evaluation.weights, task.settings.device
    network = networks.InceptionFeatures(way.settings.network, store, device)

    def read(pair: ImagePair) -> tuple[np.ndarray]:
        image = reader.read_result(pair.result)
        if way.masked:
            image = apply_mask(image, target_mask(table.people[pair.key], image.shape[:2]))
        return (pad_to_square(image) if way.padded else image,)

    real = [collector for _, collector in made.values() if collector is not None]
    _measure_real(task, way, real, network, paths or [])
    _feed(task, "results", pairs, read, network, [collector for collector, _ in made.values()])
    scores = []
    for column, (fake, other) in made.items():
        value, std, details = fake.result(other)
        if np.isfinite(value):
            scores.append(task.score(column, value, fake.count, std=std, details=details))
        else:
            task.not_computed(column, f"the features give {value}; check images and weights.")
    return scores


def _collectors(column: Column, results: int, paths: Sequence[Path] | None) -> tuple:
    """The collector of the results and, where the column compares with one, of the real set."""
    make = COLLECTORS[type(column.settings)]
    if not column.needs_real:
        return make(column.settings, results), None
    if paths is None:
        raise MetricUnavailableError(
            "it compares with a set of real images; give its folder with --fid_real_path."
        )
    fake = make(column.settings, results)
    try:
        return fake, make(column.settings, len(paths))
    except MetricUnavailableError as error:
        raise MetricUnavailableError(f"in the real set: {error}") from error


def _feed(
    task: Task, what: str, items: Sequence, read: Callable, network, collectors: Sequence
) -> None:
    """Read every item and hand the features of its image to the collectors."""
    settings, name = task.settings, f"{task.protocol.label}: Inception, {what}"
    for (images,) in batches(items, read, settings.batch_size, settings.workers, name):
        features = network(images)
        for collector in collectors:
            collector.add(features, network)


def _measure_real(
    task: Task, way: Column, collectors: Sequence, network, paths: Sequence[Path]
) -> None:
    """Fill the collectors of the real set, from statistics that were kept where possible."""
    reader, folder, files = task.reader(network=True), task.settings.cache_dir, {}
    if folder is not None:
        definition = {
            "network": way.settings.network,
            "weights": task.evaluation.weights.used[way.settings.network.weights]["sha256"],
            "resize": reader.resize,
            "reference": task.settings.reference_name,
        }
        name = f"{statistics_key(paths, definition)}_moments"
        moments = [each for each in collectors if isinstance(each, Moments)]
        files = {each: folder / f"{name}{each.limit}.npz" for each in moments}
    missing = [each for each in collectors if each not in files or not each.restore(files[each])]
    if missing:
        _feed(task, "real images", paths, lambda p: (reader.read_reference(p),), network, missing)
    for collector in files.keys() & set(missing):
        try:
            collector.keep(files[collector])
        except OSError as error:
            task.evaluation.notes.append(
                f"the statistics of the real set could not be kept in {folder} "
                f"({error.strerror or error}) and will be computed again next time; choose another "
                "folder with --cache_dir, or --no_cache."
            )


CACHE_FORMAT = 1  # raise it when the meaning of kept statistics changes


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME`` or ``~/.cache``, in a folder of this project."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(root) / "pose-guided-person-image-generation" / "statistics"


def statistics_key(paths: Sequence[Path], definition: Mapping[str, object]) -> str:
    """A name for the statistics of image files, made of everything that they depend on: names,
    sizes and times of the files, network, its weights' hash, resize and scaling."""
    description = {key: repr(value) for key, value in sorted(definition.items())}
    digest = hashlib.sha256(json.dumps([CACHE_FORMAT, description]).encode())
    for path in paths:
        status = path.stat()
        line = f"{path.name}\0{status.st_size}\0{status.st_mtime_ns}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _column(name: str, words: str, definition, higher_is_better: bool, **more) -> Column:
    """``share``: columns of one network, masking and padding see every image in one pass."""
    way = (definition.network, more.get("masked", False), more.get("padded", False))
    return Column(name, words, definition, higher_is_better, score_sets, share=way, **more)


@register_metric("fid")
def _fid(protocol: Protocol) -> list[Column]:
    fid = protocol.fid
    rule = f"last partial batch of {fid.batch} dropped" if fid.remainder == "drop" else "all images"
    words = f"FID, {fid.network}, real set: {protocol.real_set}, {rule}"
    return [_column("fid", words, fid, False, needs_real=True)]


@register_metric("kid")
def _kid(protocol: Protocol) -> list[Column]:
    kid = protocol.kid
    words = f"KID, {kid.network}, cubic kernel, {kid.subsets} subsets of {kid.subset_size}"
    return [_column("kid", words, kid, False, needs_real=True)]


def _inception_score(masked: bool, protocol: Protocol) -> list[Column]:
    definition = protocol.inception_score
    padded = definition.padded and protocol.padding == "white" and not masked
    words = f"Inception score, {definition.network}, splits: {definition.splits}"
    words += ", shuffled" * (definition.shuffle_seed is not None)
    words += ", white-padded to a square" * padded + ", background set to 0" * masked
    name = "mask_inception_score" if masked else "inception_score"
    return [_column(name, words, definition, True, padded=padded, masked=masked)]


register_metric("inception_score")(partial(_inception_score, False))
register_metric("mask_inception_score")(partial(_inception_score, True))
