"""Where the numbers of a training go: the interface of a sink, text log, TensorBoard log."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from util.checkpoint import write_atomically

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
