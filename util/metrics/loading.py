"""Images for the metric networks: read ahead by threads, in order, with bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from tqdm import tqdm

from util.errors import UserError
from util.metrics.pairing import report_problems

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


def read_ahead(
    items: Iterable[Item], read: Callable[[Item], Loaded], threads: int, ahead: int = 64
) -> Iterator[Loaded]:
    """``read`` of every item, in order, at most ``ahead`` of them waiting in memory."""
    items = iter(items)
    with ThreadPoolExecutor(max(1, threads)) as pool:
        waiting = deque(pool.submit(read, item) for item in islice(items, ahead))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(read, item) for item in islice(items, 1))


def batches(
    items: Sequence[Item],
    read: Callable[[Item], tuple[np.ndarray, ...]],
    batch_size: int,
    threads: int,
    description: str,
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Stack what ``read`` gives (tuples of equal arrays) into tensors of ``batch_size`` items.

    Images that cannot be read do not stop the pass; at its end they raise one UserError with the
    list, so that nothing is measured without them.
    """

    def read_or_complain(item: Item) -> tuple[np.ndarray, ...] | str:
        try:
            return read(item)
        except UserError as error:
            return str(error)

    damaged: list[str] = []
    pending: list[tuple[np.ndarray, ...]] = []
    stream = read_ahead(items, read_or_complain, threads, ahead=max(2 * batch_size, 8))
    for loaded in tqdm(stream, total=len(items), desc=description, unit="image"):
        if isinstance(loaded, str):
            damaged.append(loaded)
            continue
        pending.append(loaded)
        if len(pending) == batch_size:
            yield _stack(pending)
            pending = []
    if pending:
        yield _stack(pending)
    report_problems({"unreadable": damaged} if damaged else {})


def measure_all(
    stream: Iterable[tuple[torch.Tensor, ...]],
    measure: Callable[..., np.ndarray],
    count: int,
) -> np.ndarray:
    """``measure(*batch)`` of every batch, one value an image: (count,) float64.

    The values of a batch are copied at once. Kept as they are, each would lie in the heap behind
    the large temporaries of a network, whose memory then grows with the number of images.
    """
    values, done = np.empty(count), 0
    for batch in stream:
        part = measure(*batch)
        values[done : done + len(part)] = part
        done += len(part)
    return values[:done]


def _stack(rows: list[tuple[np.ndarray, ...]]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True))
