"""Pair metrics over folders: all cores, memory that does not grow with the number of images."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import cv2
import numpy as np
import torch
from tqdm import tqdm

from util.errors import UserError
from util.metrics.masks import apply_mask
from util.metrics.measurement import Score, Task, register_scorer
from util.metrics.pairing import ImagePair, report_problems
from util.metrics.reading import ImageReader
from util.metrics.reconstruction import pad_to_square, size_of
from util.metrics.registry import Column, MetricUnavailableError

CHUNK = 16  # pairs a worker takes at once
AHEAD = 4  # chunks in the queue for each worker: bounds memory whatever the number of images

Item = tuple[ImagePair, "np.ndarray | None"]  # a pair and the keypoints of its target


@dataclass
class Scored:
    """Rows of values, refused columns with the reason, and complaints about unusable images."""

    rows: list[list[float]] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)


def score_pair(
    gt: np.ndarray, pred: np.ndarray, columns: Sequence[Column], mask: np.ndarray | None = None
) -> tuple[list[float], dict[str, str]]:
    """Values of the ``pairs`` columns for one pair (NaN where refused) and the refusals.

    ``mask`` (H, W) bool is needed by masked columns only.
    """
    views: dict[tuple[bool, bool], tuple[np.ndarray, np.ndarray]] = {}
    values, refused = [], {}
    for column in columns:
        form = (column.padded, column.masked)
        try:
            if form not in views:
                views[form] = _view(gt, column, mask), _view(pred, column, mask)
            values.append(float(column.settings(*views[form])))
        except MetricUnavailableError as error:
            values.append(float("nan"))
            refused[column.name] = str(error)
    return values, refused


def _view(image: np.ndarray, column: Column, mask: np.ndarray | None) -> np.ndarray:
    if column.masked:
        if mask is None:
            raise MetricUnavailableError(f"{column.name} needs a body mask, there is none.")
        image = apply_mask(image, mask)
    return pad_to_square(image) if column.padded else image


def _score_chunk(reader: ImageReader, columns: Sequence[Column], chunk: Iterable[Item]) -> Scored:
    """A few pairs; runs in a worker process."""
    scored = Scored()
    for pair, keypoints in chunk:
        try:
            pred, gt = reader.read_result(pair.result), reader.read_reference(pair.gt)
            if pred.shape != gt.shape:
                raise UserError(f"{pair.name} has {size_of(pred)}, {pair.target} has {size_of(gt)}")
        except UserError as error:
            scored.damaged.append(str(error))
            continue
        mask = None if keypoints is None else reader.mask(keypoints, gt.shape[:2])
        values, refused = score_pair(gt, pred, columns, mask)
        scored.rows.append(values)
        scored.refused.update(refused)
    return scored


@register_scorer("pairs")
def score_pairs_of_files(task: Task) -> list[Score]:
    """Score every pair of files with ``settings.workers`` processes.

    Raises UserError listing every image that cannot be read or has another size than its target.
    """
    pairs, columns = task.evaluation.pairs, tuple(task.columns)
    values = np.full((len(pairs), len(columns)), np.nan)
    masked = any(column.masked for column in columns)
    items = ((pair, task.settings.keypoints.get(pair.key) if masked else None) for pair in pairs)
    work = partial(_score_chunk, task.reader, columns)
    workers = min(task.settings.workers, len(pairs) // (2 * CHUNK))  # starting one must be worth it
    total, done = Scored(), 0
    with tqdm(total=len(pairs), desc="pairs", unit="pair") as bar:
        for scored in _map_chunks(work, items, workers):
            if scored.rows:
                values[done : done + len(scored.rows)] = scored.rows
            done += len(scored.rows)
            total.refused |= scored.refused
            total.damaged += scored.damaged
            bar.update(len(scored.rows) + len(scored.damaged))
    report_problems({"unreadable or of another size": total.damaged} if total.damaged else {})
    return _scores(task, values, total.refused)


def _scores(task: Task, values: np.ndarray, refused: dict[str, str]) -> list[Score]:
    """A score for each column of ``values`` (pairs, columns) that is defined for all pairs."""
    scores = []
    for i, column in enumerate(task.columns):
        undefined = np.flatnonzero(np.isnan(values[:, i]))
        if column.name in refused:
            task.refuse(column, MetricUnavailableError(refused[column.name]))
        elif len(undefined):
            names = [task.evaluation.pairs[j].name for j in undefined[:5]]
            more = ", …" if len(undefined) > len(names) else ""
            reason = (
                f"undefined for {len(undefined)} results of one flat colour ({', '.join(names)}"
                f"{more}), of which maximum minus minimum is 0; ask for another SSIM."
            )
            task.refuse(column, MetricUnavailableError(reason))
        else:
            scores.append(task.per_image_score(column, values[:, i]))
    return scores


def _map_chunks(
    work: Callable[[Iterable[Item]], Scored], items: Iterable[Item], workers: int
) -> Iterator[Scored]:
    """``work`` over chunks of items, in order, with a bounded number of them in flight."""
    items = iter(items)
    chunks = iter(lambda: tuple(islice(items, CHUNK)), ())
    if workers <= 1:
        yield from map(work, chunks)
        return
    with ProcessPoolExecutor(workers, _context(), initializer=_single_thread) as pool:
        waiting = [pool.submit(work, chunk) for chunk in islice(chunks, workers * AHEAD)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(work, chunk) for chunk in islice(chunks, 1)]


def _context() -> multiprocessing.context.BaseContext:
    """Workers forked from a clean server that has imported this file once, where that exists."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["util.metrics.pairs"])
    return context


def _single_thread() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
