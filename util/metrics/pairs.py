"""Metrics of two images: over arrays during training, over files in worker processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from util.errors import UserError
from util.metrics.folder import ImagePair, ImageReader, refuse
from util.metrics.keypoints import apply_mask, body_mask
from util.metrics.lpips import ArrayPair, of_arrays, score_lpips
from util.metrics.measure import Score, Task, averaged
from util.metrics.protocols import Protocol, find_protocol
from util.metrics.reconstruction import pad_to_square, size_of
from util.metrics.registry import Column, MetricUnavailableError, columns_for, list_metrics
from util.metrics.weights import WeightStore
from util.parallel import map_in_order
from util.run.progress import progress_bar
from util.skeleton import in_frame

CHEAP_METRICS = ("psnr", "ssim", "l1", "mae")
BATCH = 8  # pairs of arrays held at a time


def score_pairs(
    pairs: Iterable[ArrayPair],
    protocol: str | Protocol = "dptn",
    metrics: Sequence[str] = CHEAP_METRICS,
    market: bool = False,
    device: str = "cpu",
    weights: Mapping[str, str | Path | None] | None = None,
) -> dict[str, float]:
    """Mean of each metric over pairs ``(gt, pred)`` of uint8 arrays (H, W, 3).

    Works on a generator: a few pairs are held at a time. Keys are column names (``ssim`` of the
    dptn protocol gives ``ssim`` and ``ssim_256``), in the order asked for. Infinite values count as
    in a report: the mean is over the others, where there are any. ``device`` and ``weights`` (key
    of util.metrics.weights.WEIGHTS -> path) are for LPIPS.
    Raises UserError when there is no pair, a metric is unknown or needs whole folders, and
    MetricUnavailableError when the images are too small for one or a network's weights are missing.
    """
    columns = columns_for(find_protocol(protocol, market), metrics)
    _check_columns(columns)
    two_images = [column for column in columns if column.scorer is None]
    store = WeightStore(weights)
    networks = {c.name: of_arrays(c.settings, store, device) for c in columns if c.scorer}
    values: dict[str, list[float]] = {column.name: [] for column in columns}
    for batch in _batches(pairs):
        for gt, pred in batch:
            found, refused = score_pair(gt, pred, two_images)
            if refused:
                raise MetricUnavailableError(next(iter(refused.values())))
            for column, value in zip(two_images, found, strict=True):
                values[column.name].append(value)
        for name, distances in networks.items():
            values[name].extend(distances(batch))
    if not all(values.values()):
        raise UserError("there is no pair to score; expected at least one.")
    return {name: float(averaged(np.array(each)).mean()) for name, each in values.items()}


def _check_columns(columns: Sequence[Column]) -> None:
    for column in columns:
        if column.scorer not in (None, score_lpips) or column.masked:
            raise UserError(
                f"{column.name} cannot be computed from pairs of arrays; expected metrics of two "
                "images such as psnr, ssim, l1, lpips: measure a folder with script/metrics.py "
                "instead."
            )


def _batches(pairs: Iterable[ArrayPair]) -> Iterator[list[ArrayPair]]:
    """Up to BATCH neighbouring pairs of one size."""
    batch: list[ArrayPair] = []
    for pair in pairs:
        if batch and (len(batch) == BATCH or pair[0].shape != batch[0][0].shape):
            yield batch
            batch = []
        batch.append(pair)
    if batch:
        yield batch


def higher_is_better(column: str, protocol: str | Protocol = "dptn") -> bool:
    """Whether more is better in a column, for ``--best_metric``; UserError for an unknown name."""
    columns = {c.name: c for c in columns_for(find_protocol(protocol), list_metrics())}
    if column not in columns:
        raise UserError(f"there is no column {column!r}; choose from {', '.join(columns)}.")
    return columns[column].higher_is_better


def score_pair(
    gt: np.ndarray, pred: np.ndarray, columns: Sequence[Column], mask: np.ndarray | None = None
) -> tuple[list[float], dict[str, str]]:
    """Values of metrics of two images for one pair (NaN where refused) and the refusals.

    ``mask`` (H, W) bool is needed by masked columns only.
    """
    views: dict[tuple[bool, bool], tuple[np.ndarray, np.ndarray]] = {}
    values, refused = [], {}
    for column in columns:
        form = (column.padded, column.masked)
        if form not in views:
            views[form] = _view(gt, column, mask), _view(pred, column, mask)
        try:
            values.append(float(column.settings(*views[form])))
        except MetricUnavailableError as error:
            values.append(float("nan"))
            refused[column.name] = str(error)
    return values, refused


def _view(image: np.ndarray, column: Column, mask: np.ndarray | None) -> np.ndarray:
    if column.masked:
        image = apply_mask(image, mask)
    return pad_to_square(image) if column.padded else image


CHUNK = 16  # pairs that a worker takes at once
Item = tuple[ImagePair, "tuple[np.ndarray, tuple] | None"]  # a pair, the target's keypoints + frame


@dataclass
class Scored:
    """Rows of values, refused columns with the reason, and complaints about unusable images."""

    rows: list[list[float]] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)


def _score_chunk(reader: ImageReader, columns: Sequence[Column], chunk: Iterable[Item]) -> Scored:
    """A few pairs; runs in a worker process."""
    scored = Scored()
    for pair, person in chunk:
        try:
            pred, gt = reader.read_result(pair.result), reader.read_reference(pair.gt)
            if pred.shape != gt.shape:
                raise UserError(f"{pair.name} has {size_of(pred)}, {pair.target} has {size_of(gt)}")
        except UserError as error:
            scored.damaged.append(str(error))
            continue
        size = gt.shape[:2]
        mask = None if person is None else body_mask(in_frame(*person, size), size)
        values, refused = score_pair(gt, pred, columns, mask)
        scored.rows.append(values)
        scored.refused.update(refused)
    return scored


def score_files(task: Task) -> list[Score]:
    """Score every pair of files with ``settings.workers`` processes.

    Raises UserError listing every image that cannot be read or has another size than its target.
    """
    pairs, columns, people = task.evaluation.pairs, tuple(task.columns), task.settings.keypoints
    masked = any(column.masked for column in columns)
    items = iter(
        (pair, (people.points[pair.key], people.frame(pair.key)) if masked else None)
        for pair in pairs
    )
    chunks = iter(lambda: tuple(islice(items, CHUNK)), ())
    workers = min(task.settings.workers, len(pairs) // (2 * CHUNK))  # starting one must be worth it
    values = np.full((len(pairs), len(columns)), np.nan)
    total, done = Scored(), 0
    work = partial(_score_chunk, task.reader, columns)
    with progress_bar(total=len(pairs), desc=f"{task.protocol.label}: pairs", unit="pair") as bar:
        for scored in map_in_order(work, chunks, workers):
            if scored.rows:
                values[done : done + len(scored.rows)] = scored.rows
            done += len(scored.rows)
            total.refused |= scored.refused
            total.damaged += scored.damaged
            bar.update(len(scored.rows) + len(scored.damaged))
    refuse({"unreadable or of another size": total.damaged})
    return _scores(task, values, total.refused)


def _scores(task: Task, values: np.ndarray, refused: Mapping[str, str]) -> list[Score]:
    """A score for each column of ``values`` (pairs, columns) that is defined for all pairs."""
    scores = []
    for i, column in enumerate(task.columns):
        undefined = np.flatnonzero(np.isnan(values[:, i]))
        if column.name in refused:
            task.not_computed(column, refused[column.name])
        elif len(undefined):
            names = [task.evaluation.pairs[j].name for j in undefined[:5]]
            more = ", …" if len(undefined) > len(names) else ""
            task.not_computed(
                column,
                f"undefined for {len(undefined)} results of one flat colour ({', '.join(names)}"
                f"{more}), of which maximum minus minimum is 0; ask for another SSIM.",
            )
        else:
            scores.append(task.per_image_score(column, values[:, i]))
    return scores
