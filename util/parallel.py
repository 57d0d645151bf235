"""Work spread over processes: the one pool of the house."""

import functools
import multiprocessing
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import TypeVar

from util.errors import UserError

Item, Result = TypeVar("Item"), TypeVar("Result")
AHEAD = 4  # tasks under way for each worker: enough to keep it busy, few enough for the memory


def allotted_cpus() -> int:
    """Processors that this process may use: its affinity and its control group's quota."""
    affinity = getattr(os, "sched_getaffinity", lambda process: range(os.cpu_count() or 1))
    count = len(affinity(0))
    try:  # "max 100000" or "200000 100000": microseconds of each period
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return count


def map_in_order(
    work: Callable[[Item], Result],  # importable by name, as pickle needs it
    items: Iterable[Item],
    workers: int,
    start: Callable[..., None] | None = None,  # called once in every worker, with ``arguments``
    arguments: tuple = (),
    chunk: int = 1,  # items that a worker takes at once: many, where each is soon done
) -> Iterator[Result]:
    """Results in the order of ``items``; a bounded number of tasks is under way.

    One worker or none: everything happens here. Each worker computes on one thread, and ends when
    this process ends. An exception of ``work`` stops the rest; a killed worker is a UserError.
    """
    if workers <= 1:
        if start is not None:
            start(*arguments)
        yield from map(work, items)
        return
    items = iter(items)
    chunks = iter(lambda: list(islice(items, chunk)), [])
    pool = ProcessPoolExecutor(workers, _context(work), _begin, (start, arguments))
    try:
        waiting = deque(pool.submit(_each, work, some) for some in islice(chunks, AHEAD * workers))
        while waiting:
            yield from waiting.popleft().result()
            waiting.extend(pool.submit(_each, work, some) for some in islice(chunks, 1))
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, probably for lack of memory; what is finished is kept: "
            "start again with fewer --workers"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _each(work: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    return [work(item) for item in items]


def _context(work: Callable) -> multiprocessing.context.BaseContext:
    """Workers forked from a clean server that has imported the work's module, where that exists.

    A plain fork can inherit locks of other threads (OpenCV's, torch's) that nobody will open.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    while isinstance(work, functools.partial):
        work = work.func
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__])
    return context


def _begin(start: Callable[..., None] | None, arguments: tuple) -> None:
    parent = multiprocessing.parent_process()
    # A killed process cannot tell its pool, whose workers would wait for their next task for ever.
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    for name, call in (("cv2", "setNumThreads"), ("torch", "set_num_threads")):
        if name in sys.modules:
            getattr(sys.modules[name], call)(1)
    if start is not None:
        start(*arguments)


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
