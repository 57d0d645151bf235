"""Pair metrics over folders (all cores, constant memory) and over arrays (:func:`score_pairs`)."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice

import cv2
import numpy as np
import torch
from tqdm import tqdm

from util.errors import UserError
from util.image import load_image, resize_linear
from util.metrics.masks import apply_mask, body_mask
from util.metrics.pairing import ImagePair, report_problems
from util.metrics.protocols import Resize
from util.metrics.reconstruction import pad_to_square
from util.metrics.registry import Column, MetricUnavailableError

CHUNK = 16  # pairs a worker takes at once
AHEAD = 4  # chunks in the queue for each worker: bounds memory whatever the number of images


@dataclass
class PairScores:
    """``values`` (pairs, columns) float64 in the order of the input; ``refused``: column -> why."""

    columns: list[Column]
    values: np.ndarray
    refused: dict[str, str]


def read_image(path, resize: Resize | None = None) -> np.ndarray:
    """Read one image as uint8 (H, W, 3), resized as the protocol says."""
    image = load_image(path)
    if resize is None:
        return np.asarray(image)
    height, width = resize.size
    if resize.library == "opencv":
        return resize_linear(np.asarray(image), resize.size)
    return np.asarray(image.resize((width, height), resample=2))  # 2 = PIL's bilinear


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
            raise MetricUnavailableError(
                f"{column.name} needs the keypoints of the target images; "
                "give the annotation file with --annotation."
            )
        image = apply_mask(image, mask)
    return pad_to_square(image) if column.padded else image


Task = tuple[ImagePair, "np.ndarray | None"]


def _score_chunk(columns: Sequence[Column], resize: Resize | None, chunk: Sequence[Task]):
    """Values, refusals and unusable images of a few pairs; runs in a worker process."""
    rows, refused, damaged = [], {}, []
    for pair, keypoints in chunk:
        try:
            pred, gt = read_image(pair.result, resize), read_image(pair.gt, resize)
            if pred.shape != gt.shape:
                raise UserError(
                    f"{pair.name} is {pred.shape[1]}x{pred.shape[0]} px and {pair.target} is "
                    f"{gt.shape[1]}x{gt.shape[0]} px (width x height)"
                )
        except UserError as error:
            damaged.append(str(error))
            continue
        mask = None if keypoints is None else body_mask(keypoints, gt.shape[:2])
        values, problems = score_pair(gt, pred, columns, mask)
        rows.append(values)
        refused.update(problems)
    return rows, refused, damaged


def score_folder(
    pairs: Sequence[ImagePair],
    columns: Sequence[Column],
    resize: Resize | None = None,
    keypoints: dict[str, np.ndarray] | None = None,
    workers: int = 1,
) -> PairScores:
    """Score pairs of files with ``workers`` processes (0 or 1: in this one).

    ``keypoints``: target name -> (18, 2) (y, x), for masked columns. Raises UserError listing every
    image that cannot be read or has another size than its ground truth.
    """
    values = np.full((len(pairs), len(columns)), np.nan)
    refused: dict[str, str] = {}
    damaged: list[str] = []
    tasks = ((pair, (keypoints or {}).get(pair.target)) for pair in pairs)
    work = partial(_score_chunk, tuple(columns), resize)
    workers = min(workers, len(pairs) // (2 * CHUNK))  # starting processes must be worth it
    done = 0
    with tqdm(total=len(pairs), desc="pairs", unit="pair") as bar:
        for rows, problems, bad in _map_chunks(work, tasks, workers):
            values[done : done + len(rows)] = np.reshape(rows, (len(rows), len(columns)))
            done += len(rows)
            refused.update(problems)
            damaged += bad
            bar.update(len(rows) + len(bad))
    report_problems({"unreadable or of the wrong size": damaged} if damaged else {})
    return PairScores(list(columns), values, refused)


def _map_chunks(work, tasks: Iterable[Task], workers: int) -> Iterator:
    """``work`` over chunks of tasks, in order, with a bounded number of them in flight."""
    tasks = iter(tasks)
    chunks = iter(lambda: tuple(islice(tasks, CHUNK)), ())
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
