"""Metrics of two images: over arrays during training, over files in worker processes."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import torch

from util.errors import UserError
from util.metrics.folder import ImagePair, ImageReader, refuse
from util.metrics.keypoints import apply_mask, target_mask
from util.metrics.networks import WeightStore, build_lpips, lpips_distances, score_lpips
from util.metrics.protocols import find_protocol
from util.metrics.reconstruction import check_pair, pad_to_square
from util.metrics.registry import (
    Column,
    MetricUnavailableError,
    Score,
    Task,
    averaged,
    columns_for,
    list_metrics,
)
from util.parallel import map_in_order
from util.run.progress import progress_bar
from util.tables.uncropped import FramedKeypoints

CHEAP_METRICS = ("psnr", "ssim", "l1", "mae")
BATCH = 8  # pairs of arrays held at a time
CHUNK = 16  # pairs of files that a worker takes at once
ArrayPair = tuple[np.ndarray, np.ndarray]


def score_pairs(
    pairs: Iterable[ArrayPair],
    protocol: str = "dptn",
    metrics: Sequence[str] = CHEAP_METRICS,
    market: bool = False,
    device: str = "cpu",
    weights: Mapping[str, str | Path | None] | None = None,
) -> dict[str, float]:
    """Mean of each metric over pairs ``(gt, pred)`` of uint8 arrays (H, W, 3).

    Works on a generator: a few pairs are held at a time. Keys are column names (``ssim`` of the
    dptn protocol gives ``ssim`` and ``ssim_256``), in the order asked for. Infinite values count as
    in a report: the mean is over the others, where there are any. ``device`` and ``weights`` (key
    of util.metrics.networks.WEIGHTS -> path) are for LPIPS.
    Raises UserError when there is no pair, a metric is unknown or needs whole folders, and
    MetricUnavailableError when the images are too small for one or a network's weights are missing.
    """
    columns = columns_for(find_protocol(protocol, market), metrics)
    for column in columns:
        if column.scorer not in (None, score_lpips) or column.masked:
            raise UserError(
                f"{column.name} cannot be computed from pairs of arrays; expected metrics of two "
                "images such as psnr, ssim, l1, lpips: measure a folder with script/metrics.py "
                "instead."
            )
    plain, store = [column for column in columns if column.scorer is None], WeightStore(weights)
    networks = {c.name: build_lpips(c.settings, store, device) for c in columns if c.scorer}
    values: dict[str, list[float]] = {column.name: [] for column in columns}
    for _, neighbours in groupby(pairs, key=lambda pair: pair[0].shape):
        while batch := list(islice(neighbours, BATCH)):
            for pair in batch:
                for column, value in zip(plain, score_pair(*pair, plain), strict=True):
                    values[column.name].append(value)
            for name, network in networks.items():
                sides = [torch.from_numpy(np.stack(side)) for side in zip(*batch, strict=True)]
                values[name].extend(lpips_distances(network, *sides))
    if not all(values.values()):
        raise UserError("there is no pair to score; expected at least one.")
    return {name: float(averaged(np.array(each)).mean()) for name, each in values.items()}


def higher_is_better(column: str, protocol: str = "dptn") -> bool:
    """Whether more is better in a column, for ``--best_metric``; UserError for an unknown name."""
    columns = {c.name: c for c in columns_for(find_protocol(protocol), list_metrics())}
    if column not in columns:
        raise UserError(f"there is no column {column!r}; choose from {', '.join(columns)}.")
    return columns[column].higher_is_better


def score_pair(
    gt: np.ndarray,
    pred: np.ndarray,
    columns: Sequence[Column],
    mask: np.ndarray | None = None,  # (H, W) bool, for masked columns
    refused: dict[str, str] | None = None,  # takes what would raise MetricUnavailableError
) -> list[float]:
    """Values of metrics of two images for one pair, NaN where refused."""
    check_pair(gt, pred)
    views: dict[tuple[bool, bool], ArrayPair] = {}
    values = []
    for column in columns:
        form = (column.padded, column.masked)
        if form not in views:
            views[form] = tuple(_view(image, column, mask) for image in (gt, pred))
        try:
            values.append(float(column.settings(*views[form])))
        except MetricUnavailableError as error:
            if refused is None:
                raise
            refused[column.name] = str(error)
            values.append(float("nan"))
    return values


def _view(image: np.ndarray, column: Column, mask: np.ndarray | None) -> np.ndarray:
    if column.masked:
        image = apply_mask(image, mask)
    return pad_to_square(image) if column.padded else image


def _score_file(
    reader: ImageReader, columns: Sequence[Column], item: tuple[ImagePair, FramedKeypoints | None]
) -> tuple[list[float] | str, dict[str, str]]:
    """Values of a pair, or why its images are unreadable, and refusals; runs in a worker process.

    ``item``: the pair, and for masked columns the keypoints of its target.
    """
    pair, person = item
    try:
        pred, gt = reader.read_result(pair.result), reader.read_reference(pair.gt)
    except UserError as error:
        return str(error), {}
    refused: dict[str, str] = {}
    mask = None if person is None else target_mask(person, gt.shape[:2])
    return score_pair(gt, pred, columns, mask, refused), refused


def score_files(task: Task) -> list[Score]:
    """Score every pair of files with ``settings.workers`` processes.

    Raises UserError listing every image that cannot be read.
    """
    pairs, columns, people = task.evaluation.pairs, task.columns, task.settings.keypoints
    masked = any(column.masked for column in columns)
    items = ((pair, people.people[pair.key] if masked else None) for pair in pairs)
    workers = min(task.settings.workers, len(pairs) // (2 * CHUNK))  # starting one must be worth it
    work = partial(_score_file, task.reader(network=False), columns)
    stream = map_in_order(work, items, workers, chunk=CHUNK)
    bar = progress_bar(stream, f"{task.protocol.label}: pairs", total=len(pairs), unit="pair")
    values, refused, damaged = np.full((len(pairs), len(columns)), np.nan), {}, []
    for row, (found, why) in zip(values, bar, strict=True):
        if isinstance(found, str):
            damaged.append(found)
        else:
            row[:] = found
        refused |= why
    refuse({"unreadable": damaged})
    return _scores(task, values, refused)


def _scores(task: Task, values: np.ndarray, refused: Mapping[str, str]) -> list[Score]:
    """A score for each column of ``values`` (pairs, columns) that is defined for all pairs."""
    scores = []
    for column, each in zip(task.columns, values.T, strict=True):
        undefined = np.flatnonzero(np.isnan(each))
        if column.name in refused:
            task.not_computed(column, refused[column.name])
        elif len(undefined):
            names = ", ".join(task.evaluation.pairs[i].name for i in undefined[:5])
            more = ", …" if len(undefined) > 5 else ""
            task.not_computed(
                column,
                f"undefined for {len(undefined)} results of one flat colour ({names}{more}), of "
                "which maximum minus minimum is 0; ask for another SSIM.",
            )
        else:
            scores.append(task.per_image_score(column, each))
    return scores
