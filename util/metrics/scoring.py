"""Scoring pairs of arrays: what validation during training and the quick start call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from util.errors import UserError
from util.metrics.pairs import score_pair
from util.metrics.protocols import Protocol, find_protocol
from util.metrics.registry import Column, MetricUnavailableError, columns_for, list_metrics

CHEAP_METRICS = ("psnr", "ssim", "l1", "mae")
BATCH = 8
ArrayPair = tuple[np.ndarray, np.ndarray]


def score_pairs(
    pairs: Iterable[ArrayPair],
    protocol: str | Protocol = "dptn",
    metrics: Sequence[str] = CHEAP_METRICS,
    market: bool = False,
    device: str | torch.device = "cpu",
    weights: Mapping[str, str | Path | None] | None = None,
) -> dict[str, float]:
    """Mean of each metric over pairs ``(gt, pred)`` of uint8 arrays (H, W, 3).

    Works on a generator: a few pairs are held at a time. Keys are column names (``ssim`` of the
    dptn protocol gives ``ssim`` and ``ssim_256``), in the order asked for. ``device`` and
    ``weights`` (key of util.metrics.weights.WEIGHTS -> path) are for LPIPS.
    Raises UserError when there is no pair, a metric is unknown or needs whole folders, and
    MetricUnavailableError when the images are too small for one or a network's weights are missing.
    """
    columns = columns_for(find_protocol(protocol, market), metrics)
    _check_columns(columns)
    networks = _networks([c for c in columns if c.scorer == "lpips"], device, weights)
    two_images = [c for c in columns if c.scorer == "pairs"]
    totals, count = {column.name: 0.0 for column in columns}, 0
    for batch in _batches(pairs):
        for gt, pred in batch:
            values, refused = score_pair(gt, pred, two_images)
            if refused:
                raise MetricUnavailableError(next(iter(refused.values())))
            for column, value in zip(two_images, values, strict=True):
                totals[column.name] += value
        for name, distances in networks.items():
            totals[name] += distances(batch)
        count += len(batch)
    if not count:
        raise UserError("there is no pair to score; expected at least one.")
    return {name: total / count for name, total in totals.items()}


def _check_columns(columns: Sequence[Column]) -> None:
    for column in columns:
        if column.scorer not in ("pairs", "lpips") or column.masked:
            raise UserError(
                f"{column.name} cannot be computed from pairs of arrays; expected metrics of two "
                "images such as psnr, ssim, l1, lpips: measure a folder with script/metrics.py "
                "instead."
            )


def _networks(columns: Sequence[Column], device, weights) -> dict:
    """Column name -> function of a batch of pairs that gives the sum of their LPIPS distances."""
    if not columns:
        return {}
    from util.metrics.lpips import build_lpips, lpips_distances  # only when LPIPS is asked for
    from util.metrics.weights import WeightStore

    store = WeightStore(weights)

    def summed(network):
        def distances(batch: Sequence[ArrayPair]) -> float:
            gt, pred = (torch.from_numpy(np.stack(side)) for side in zip(*batch, strict=True))
            return float(lpips_distances(network, gt, pred).sum())

        return distances

    return {c.name: summed(build_lpips(c.settings, store, device)) for c in columns}


def _batches(pairs: Iterable[ArrayPair]) -> Iterator[list[ArrayPair]]:
    """Up to BATCH neighbouring pairs of one size."""
    pairs = iter(pairs)
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
