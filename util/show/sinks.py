"""The numbers of a training: curves, what the sinks are told of them, text and TensorBoard logs."""

import math
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from util.files import write_atomically

MAX_POINTS = 600  # of a curve
# Pictures, uint8 (H, W, 3), by caption, in the order in which they are shown.
Images = Mapping[str, np.ndarray]
FixedImages = Sequence[tuple[str, Images]]  # name and pictures of pairs that stay the same


@dataclass
class Curve:
    """Values over the number of training samples.

    When it is full, neighbouring points are merged into their mean: old parts get coarser while new
    points arrive at full resolution. The result depends only on what was appended.
    """

    samples: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def append(self, samples: int, value: float) -> None:
        """Add one point; ``samples`` counts the training images seen so far."""
        self.samples.append(int(samples))
        self.values.append(float(value))
        if len(self.values) > MAX_POINTS:
            self._merge_neighbours()

    def _merge_neighbours(self) -> None:
        end = len(self.values) // 2 * 2  # an odd last point stays as it is
        merged = [_mean(self.values[i : i + 2]) for i in range(0, end, 2)]
        self.values = merged + self.values[end:]
        self.samples = self.samples[1:end:2] + self.samples[end:]


def _mean(values: list[float]) -> float:
    """Mean of the finite values; NaN where there is none, so that a gap stays visible."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


class LossHistory:
    """Curves by group and name: ``Loss/…``, ``LR/…``, ``Metric/…``."""

    def __init__(self) -> None:
        self.curves: dict[str, Curve] = {}

    def append(self, group: str, values: Mapping[str, float], samples: int) -> None:
        """Add one value to each curve that ``values`` names; new names start new curves."""
        for name, value in values.items():
            self.curves.setdefault(f"{group}/{name}", Curve()).append(samples, value)

    def group(self, group: str) -> dict[str, Curve]:
        """The curves of one group by name, in the order in which they were first logged."""
        start = f"{group}/"
        return {k.removeprefix(start): c for k, c in self.curves.items() if k.startswith(start)}

    def state_dict(self) -> dict[str, dict[str, list]]:
        """Plain lists, for a checkpoint: values are kept exactly."""
        return {key: asdict(curve) for key, curve in self.curves.items()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, list]]) -> None:
        """Replace all curves by those of :meth:`state_dict`."""
        self.curves = {
            key: Curve(list(map(int, curve["samples"])), list(map(float, curve["values"])))
            for key, curve in state.items()
        }


@dataclass(frozen=True)
class Losses:
    """The losses of one iteration."""

    epoch: int
    samples_in_epoch: int
    total_samples: int
    losses: Mapping[str, float]
    lrs: Mapping[str, float]  # "G" and "D"
    seconds_per_sample: float  # mean over the last iterations


class Sink:
    """Receives what happens during training; each kind of sink overrides what it can show."""

    name = "sink"
    shows_pictures = False

    def losses(self, record: Losses) -> None:
        """New losses were logged."""

    def metrics(self, epoch: int, total_samples: int, values: Mapping[str, float]) -> None:
        """New validation results were logged."""

    def pictures(self, epoch: int, total_samples: int, images: Images, fixed: FixedImages) -> None:
        """New intermediate results, of a pair of the last batch and of some that stay the same."""

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
        path.parent.mkdir(parents=True, exist_ok=True)

    def losses(self, record: Losses) -> None:
        parts = [
            f"(epoch: {record.epoch}, iters: {record.samples_in_epoch}, "
            f"total_iters: {record.total_samples}, time: {record.seconds_per_sample:.3f})"
        ]
        parts += [f"{name}: {value:.3f}" for name, value in record.losses.items()]
        parts += [f"lr_{name}: {value:.10f}" for name, value in record.lrs.items()]
        self._append(" ".join(parts))

    def metrics(self, epoch: int, total_samples: int, values: Mapping[str, float]) -> None:
        parts = [f"(epoch: {epoch}, total_iters: {total_samples}, validation)"]
        parts += [f"{name}: {value:.6g}" for name, value in values.items()]
        self._append(" ".join(parts))

    def rewind(self, total_samples: int) -> None:
        """Drop the later lines: the log becomes that of an uninterrupted run."""
        if not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        kept = [
            line for line in lines
            if line.endswith("\n")  # a killed run may leave half a line
            and ((match := self._TOTAL.search(line)) is None or int(match[1]) <= total_samples)
        ]  # fmt: skip
        if len(kept) < len(lines):
            write_atomically(self.path, "".join(kept).encode("utf-8"))

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

    def metrics(self, epoch: int, total_samples: int, values: Mapping[str, float]) -> None:
        self._add("Metric", values, total_samples)

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
