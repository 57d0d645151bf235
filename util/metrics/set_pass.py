"""Statistics of real image sets, kept between runs - never in the folder they describe.

An entry is found by everything it depends on: names, sizes and times of the files, the network, its
weights' hash, resize and scaling. Change one image and the entry is not found any more.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from util.errors import UserError
from util.files import replacing
from util.metrics.folder import ImagePair, apply_mask, list_images
from util.metrics.inception import InceptionFeatures, build_inception
from util.metrics.measure import Score, Task, batches, register_scorer
from util.metrics.protocols import Inception
from util.metrics.registry import Column, MetricUnavailableError
from util.metrics.sets import Collector, SetMetric

FORMAT = 1  # raise it when the meaning of an entry changes


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME`` or ``~/.cache``, in a folder of this project."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "pose-guided-person-image-generation" / "statistics"


class StatisticsCache:
    """Entries for one list of image files under one definition; ``folder`` None keeps nothing."""

    def __init__(
        self, folder: Path | None, paths: Sequence[Path], definition: Mapping[str, object]
    ):
        self.folder = None if folder is None else Path(folder)
        digest = hashlib.sha256()
        description = {key: repr(value) for key, value in sorted(definition.items())}
        digest.update(json.dumps([FORMAT, description]).encode())
        for path in paths:
            status = path.stat()
            digest.update(f"{path.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        self.key = digest.hexdigest()

    def _path(self, collector: Collector) -> Path:
        return self.folder / f"{self.key[:32]}_{collector.identity}.npz"

    def restore(self, collector: Collector) -> bool:
        """Fill a collector from its entry; False when there is none (or it is damaged)."""
        if self.folder is None or not self._path(collector).is_file():
            return False
        try:
            with np.load(self._path(collector), allow_pickle=False) as arrays:
                state = dict(arrays)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return False  # half a file, from a full disk perhaps: compute and replace it
        if str(state.pop("key", "")) != self.key:
            return False
        collector.restore(state)
        return True

    def keep(self, collector: Collector) -> None:
        """Write the entry of a collector, complete or not at all."""
        state = collector.state()
        if self.folder is None or not state:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self._path(collector)) as temporary, open(temporary, "wb") as stream:
                np.savez(stream, key=np.array(self.key), **state)
        except OSError as error:
            raise UserError(
                f"cannot write the statistics of the real set to {self.folder} ({error}); choose "
                "another folder with --cache_dir, or --no_cache."
            ) from error


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
