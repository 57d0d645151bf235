"""Where the numbers of a training go: the interface of a sink, text log, TensorBoard log."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from util.files import write_atomically

Images = Mapping[
    str, np.ndarray
]  # uint8 (H, W, 3) by caption, in the order in which they are shown


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
    """Intermediate results: of a pair of the last batch, and of pairs that stay the same."""

    epoch: int
    total_samples: int
    images: Images
    fixed: Sequence[tuple[str, Images]] = ()  # name of the pair, pictures


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
        """Training goes on from there: forget what was received for later samples."""

    def close(self) -> None:
        """Training has ended."""


class LossLog(Sink):
    """``loss_log.txt``: one line a call with the published fields.

    Seconds per sample and losses have 3 decimals, learning rates 10.
    """

    name = "loss log"
    _TOTAL = re.compile(r"total_iters: (\d+)")

    def __init__(self, path: Path):
        self.path = path

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
        """Drop the later lines: the log becomes that of an uninterrupted run."""
        if not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        kept = [line for line in lines if self._is_before(line, total_samples)]
        if len(kept) < len(lines):
            write_atomically(self.path, "".join(kept).encode("utf-8"))

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


class TensorBoardLog(Sink):
    """Scalars ``Loss/<name>``, ``LR/G``, ``LR/D``, ``Metric/<name>`` over training samples.

    Events are written here and at once, not by TensorBoard's thread, so that a disk that refuses
    is an error of the call. Raises ImportError where the tensorboard package is not installed.
    """

    name = "TensorBoard log"

    def __init__(self, folder: Path):
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._events, self._summaries, self._make_writer = event_pb2, summary_pb2, RecordWriter
        self.folder = folder
        self._go_on_at: int | None = None
        self._writer: RecordWriter | None = None

    def losses(self, record: Losses) -> None:
        self._add("Loss", record.losses, record.total_samples)
        self._add("LR", record.lrs, record.total_samples)

    def metrics(self, record: Metrics) -> None:
        self._add("Metric", record.values, record.total_samples)

    def rewind(self, total_samples: int) -> None:
        """Later points are hidden: the run that wrote them was cut off."""
        self.close()
        self._go_on_at = total_samples + 1

    def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _add(self, group: str, values: Mapping[str, float], total_samples: int) -> None:
        value = self._summaries.Summary.Value
        scalars = [value(tag=f"{group}/{k}", simple_value=v) for k, v in values.items()]
        try:
            if self._writer is None:
                self._open()
            self._write(step=total_samples, summary=self._summaries.Summary(value=scalars))
        except OSError:
            self._writer = None  # the next call starts another file
            raise

    def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        stream = open(self.folder / name, "xb")  # noqa: SIM115 - closed with the writer
        self._writer = self._make_writer(stream)
        self._write(file_version="brain.Event:2")
        if self._go_on_at is not None:
            start = self._events.SessionLog(status=self._events.SessionLog.START)
            self._write(step=self._go_on_at, session_log=start)

    def _write(self, **content: object) -> None:
        event = self._events.Event(wall_time=time.time(), **content)
        self._writer.write(event.SerializeToString())
        self._writer.flush()
