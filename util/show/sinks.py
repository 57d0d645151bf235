"""Where the numbers of a training go: the interface of a sink, text log, TensorBoard log."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from util.files import write_atomically

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


LOG_BYTES = 16 * 2**20  # a loss log is rotated when it is larger: about 60,000 lines
LOG_BACKUPS = 2


@dataclass(frozen=True)
class Losses:
    """The losses of one iteration; the times are means over the last iterations."""

    epoch: int
    samples_in_epoch: int
    total_samples: int
    losses: Mapping[str, float]
    lrs: Mapping[str, float]  # "G" and "D"
    seconds_per_sample: float
    data_share: float  # of the time, spent waiting for the loader; 0 .. 1


@dataclass(frozen=True)
class Metrics:
    """Validation results."""

    epoch: int
    total_samples: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Pictures:
    """Intermediate results: uint8 arrays (H, W, 3) by name."""

    epoch: int
    total_samples: int
    images: Mapping[str, np.ndarray] = field(default_factory=dict)


class Sink:
    """Receives what happens during training; each kind of sink overrides what it can show."""

    name = "sink"

    def losses(self, record: Losses) -> None:
        """New losses were logged."""

    def metrics(self, record: Metrics) -> None:
        """New validation results were logged."""

    def pictures(self, record: Pictures) -> None:
        """New intermediate results were shown."""

    def rewind(self, total_samples: int) -> None:
        """Training continues from a checkpoint: forget what was received for later samples."""

    def close(self) -> None:
        """Training has ended."""


class LossLog(Sink):
    """``loss_log.txt``: one line a call with the published fields.

    Seconds per sample and losses have 3 decimals, learning rates 10. The file is renamed to
    ``loss_log.txt.1`` (and that one to ``.2``) when it grows past ``max_bytes``.
    """

    name = "loss log"
    _TOTAL = re.compile(r"total_iters: (\d+)")

    def __init__(self, path: Path, max_bytes: int = LOG_BYTES):
        self.path = path
        self.max_bytes = max_bytes

    def losses(self, record: Losses) -> None:
        parts = [
            f"(epoch: {record.epoch}, iters: {record.samples_in_epoch}, "
            f"total_iters: {record.total_samples}, time: {record.seconds_per_sample:.3f})"
        ]
        parts += [f"{name}: {value:.3f}" for name, value in record.losses.items()]
        parts += [f"lr_{name}: {value:.10f}" for name, value in record.lrs.items()]
        self._append(" ".join(parts))

    def metrics(self, record: Metrics) -> None:
        parts = [f"(epoch: {record.epoch}, total_iters: {record.total_samples}, validation)"]
        parts += [f"{name}: {value:.6g}" for name, value in record.values.items()]
        self._append(" ".join(parts))

    def rewind(self, total_samples: int) -> None:
        """Drop the lines after the checkpoint: the log becomes that of an uninterrupted run."""
        for path in [self.path, *self._backups()]:
            if not path.exists():
                continue
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            kept = [line for line in lines if self._is_before(line, total_samples)]
            if len(kept) < len(lines):
                write_atomically(path, "".join(kept).encode("utf-8"))

    def _backups(self) -> list[Path]:
        """The rotated files, newest first."""
        return [
            self.path.with_name(f"{self.path.name}.{number}")
            for number in range(1, LOG_BACKUPS + 1)
        ]

    def _is_before(self, line: str, total_samples: int) -> bool:
        match = self._TOTAL.search(line)
        complete = line.endswith("\n")  # a killed run may leave half a line
        return complete and (match is None or int(match[1]) <= total_samples)

    def _append(self, line: str) -> None:
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            with open(self.path, "a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        except OSError:  # a full disk takes a part of the line
            if self.path.exists():
                os.truncate(self.path, size)
            raise
        if self.path.stat().st_size > self.max_bytes:
            files = [self.path, *self._backups()]
            for newer, older in reversed(list(pairwise(files))):
                if newer.exists():
                    os.replace(newer, older)


class TensorBoardLog(Sink):
    """Scalars ``Loss/<name>``, ``LR/G``, ``LR/D``, ``Metric/<name>`` over training samples.

    :raises ImportError: where the tensorboard package is not installed.
    """

    name = "TensorBoard log"

    def __init__(self, folder: Path):
        from torch.utils.tensorboard import SummaryWriter  # takes seconds: only when it is wanted

        threading.excepthook = _without_disk_errors(threading.excepthook)
        self._make_writer = SummaryWriter
        self.folder = folder
        self._purge_step: int | None = None
        self._writer: SummaryWriter | None = None

    def losses(self, record: Losses) -> None:
        self._add("Loss", record.losses, record.total_samples)
        self._add("LR", record.lrs, record.total_samples)

    def metrics(self, record: Metrics) -> None:
        self._add("Metric", record.values, record.total_samples)

    def rewind(self, total_samples: int) -> None:
        """Points after the checkpoint are hidden: the run that wrote them was cut off."""
        self.close()
        self._purge_step = total_samples + 1

    def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _add(self, group: str, values: Mapping[str, float], total_samples: int) -> None:
        if self._writer is None:
            self._writer = self._make_writer(str(self.folder), purge_step=self._purge_step)
        try:
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, total_samples)
        except OSError:
            with contextlib.suppress(OSError):
                self.close()  # its thread has ended; the next call starts another file
            raise


def _without_disk_errors(hook: Callable[[Any], None]) -> Callable[[Any], None]:
    """``hook`` for uncaught exceptions of threads, without those of TensorBoard's file thread.

    The sink raises them again at its next call, where they become one warning.
    """

    def quieter(arguments: Any) -> None:
        of_tensorboard = type(arguments.thread).__name__ == "_AsyncWriterThread"
        if not (of_tensorboard and issubclass(arguments.exc_type, OSError)):
            hook(arguments)

    return hook if getattr(hook, "__name__", "") == "quieter" else quieter
