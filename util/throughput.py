"""How fast training goes, how long it waits for data, and how long it will still take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
WINDOW = 50  # iterations over which rates are averaged


class Throughput:
    """Rates over the last iterations, pauses for saving and validation included.

    :param clock: seconds; replaced in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self._waited = 0.0
        self._marks: deque[tuple[float, int, float]] = deque(maxlen=WINDOW + 1)
        self._warm: tuple[float, int] | None = None  # end of the first iteration, which is slow

    def timed(self, batches: Iterable[T]) -> Iterator[T]:
        """Iterate over ``batches`` and measure the time spent waiting for each."""
        iterator = iter(batches)
        while True:
            start = self._clock()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._waited += self._clock() - start
            yield batch

    def count(self, total_samples: int) -> None:
        """Call once an iteration with the number of samples trained so far."""
        now = self._clock()
        if self._warm is None:
            self._warm = (now, total_samples)
        self._marks.append((now, total_samples, self._waited))

    @property
    def seconds_per_sample(self) -> float:
        """Mean over the window; 0 before the second iteration."""
        if len(self._marks) < 2 or self._marks[-1][1] <= self._marks[0][1]:
            return 0.0
        return (self._marks[-1][0] - self._marks[0][0]) / (self._marks[-1][1] - self._marks[0][1])

    @property
    def samples_per_second(self) -> float:
        """Mean over the window; 0 before the second iteration."""
        return 1 / self.seconds_per_sample if self.seconds_per_sample > 0 else 0.0

    @property
    def data_share(self) -> float:
        """Part of the time spent waiting for data, 0 .. 1."""
        if len(self._marks) < 2 or self._marks[-1][0] <= self._marks[0][0]:
            return 0.0
        share = (self._marks[-1][2] - self._marks[0][2]) / (self._marks[-1][0] - self._marks[0][0])
        return min(max(share, 0.0), 1.0)

    def seconds_left(self, planned_samples: int) -> float | None:
        """Estimate from the mean rate since the start; None while it is unknown."""
        if self._warm is None or self._marks[-1][1] <= self._warm[1]:
            return None
        now, samples, _ = self._marks[-1]
        rate = (samples - self._warm[1]) / (now - self._warm[0]) if now > self._warm[0] else 0.0
        return max(planned_samples - samples, 0) / rate if rate else None
