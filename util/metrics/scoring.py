"""Scoring pairs of arrays: what validation during training and the quick start call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from util.errors import UserError
from util.metrics.pairs import score_pair
from util.metrics.protocols import Protocol, find_protocol
from util.metrics.registry import Column, MetricUnavailableError, columns_for, list_metrics

CHEAP_METRICS = ("psnr", "ssim", "l1", "mae")


def score_pairs(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]],
    protocol: str | Protocol = "dptn",
    metrics: Sequence[str] = CHEAP_METRICS,
    market: bool = False,
) -> dict[str, float]:
    """Mean of each metric over pairs ``(gt, pred)`` of uint8 arrays (H, W, 3).

    Works on a generator: one pair is held at a time. Keys are column names (``ssim`` of the dptn
    protocol gives ``ssim`` and ``ssim_256``), in the order asked for.
    Raises UserError when there is no pair, a metric is unknown or needs whole folders, and
    MetricUnavailableError when the images are too small for one.
    """
    columns = columns_for(find_protocol(protocol, market), metrics)
    for column in columns:
        if column.scorer != "pairs":
            raise UserError(
                f"{column.name} cannot be computed from pairs of arrays; expected metrics of two "
                "images such as psnr, ssim, l1: measure a folder with script/metrics.py instead."
            )
    total, count = np.zeros(len(columns)), 0
    for gt, pred in pairs:
        values, refused = score_pair(gt, pred, columns)
        if refused:
            raise MetricUnavailableError(next(iter(refused.values())))
        total += values
        count += 1
    if not count:
        raise UserError("there is no pair to score; expected at least one.")
    return dict(zip((c.name for c in columns), (total / count).tolist(), strict=True))


def higher_is_better(column: str, protocol: str | Protocol = "dptn") -> bool:
    """Whether more is better in a column, for ``--best_metric``; UserError for an unknown name."""
    return find_column(column, protocol).higher_is_better


def find_column(name: str, protocol: str | Protocol = "dptn") -> Column:
    """The column of that name among all metrics of a protocol; UserError when there is none."""
    columns = {c.name: c for c in columns_for(find_protocol(protocol), list_metrics())}
    if name not in columns:
        raise UserError(f"there is no column {name!r}; choose from {', '.join(columns)}.")
    return columns[name]
